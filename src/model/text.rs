//! Text from elsewhere, made fit for people: what hides, moves or imitates goes, what is too long is cut between characters.
//!
//! This is for words that we put together: titles, bodies, subjects, log lines, tables. Data (the fields of a job in a
//! webhook's JSON) stays as it came. Marks that only a program obeys, such as `<script>` or `<!channel>`, stay here: each
//! target escapes its own.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;

/// A written character of more code points than this is cut like any other text: somebody piles up accents.
const CLUSTER_MAX: usize = 32;

/// One line of at most `max` characters: line breaks and other control characters are blanks, marks that nobody sees go.
pub fn line(text: &str, max: usize) -> String {
    // What is cut off is not looked at, however long it is.
    let seen = text.chars().filter(|c| !is_hidden(*c)).take(max.saturating_add(CLUSTER_MAX + 1));
    let line: String = seen.map(|c| if is_break(c) || c.is_control() { ' ' } else { c }).collect();
    shorten(line.trim(), max).into_owned()
}

/// Lines of at most `max` bytes in all: each kind of line break is a `\n`, tabs stay, other control characters and marks
/// that nobody sees go.
pub fn lines(text: &str, max: usize) -> String {
    let mut lines = String::new();
    let mut after_return = false;
    for c in text.chars() {
        if is_break(c) {
            if !(c == '\n' && after_return) {
                lines.push('\n');
            }
        } else if c == '\t' || !(c.is_control() || is_hidden(c)) {
            lines.push(c);
        }
        after_return = c == '\r';
        if lines.len() > max.saturating_add(4 * CLUSTER_MAX) {
            break;
        }
    }
    cut(lines.trim(), max).into_owned()
}

/// At most `max` bytes, with `…` where something was cut off.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let room = max.saturating_sub('…'.len_utf8());
    let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..whole(text, end)]))
}

/// At most `max` characters and, where something was cut off, `…`.
pub fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..whole(text, end)])),
        None => Cow::Borrowed(text),
    }
}

/// The last place up to `end` that parts no written character, such as a letter and its accent.
fn whole(text: &str, end: usize) -> usize {
    let before = text[..end].char_indices().rev().map(|(at, _)| at).nth(CLUSTER_MAX).unwrap_or(0);
    let after = text[end..].char_indices().map(|(at, _)| end + at).nth(CLUSTER_MAX).unwrap_or(text.len());
    let around = &text[before..after];
    let mut place = before;
    for (at, cluster) in around.grapheme_indices(true) {
        if before + at + cluster.len() > end {
            place = before + at;
            break;
        }
    }
    if place == before && before > 0 { end } else { place }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Marks without a shape of their own that change how others are read: direction, zero-width blanks, tags. The joiners stay,
/// because emoji and words in some scripts are made with them.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::{cut, line, lines, shorten};

    #[test]
    fn a_line_is_one_line_without_what_nobody_sees() {
        for (text, read) in [
            ("a\r\nBcc: x", "a  Bcc: x"),
            ("a\u{85}b\u{2028}c\u{b}d", "a b c d"),
            ("inv\u{202e}gpj.exe\u{2066}x\u{2069}", "invgpj.exex"),
            ("\u{feff}pro\u{200b}d\u{e0041}", "prod"),
            ("\u{1b}[31mred\u{0}\u{9b}2J", "[31mred  2J"),
            ("👩\u{200d}🔧 夜间 שלום", "👩\u{200d}🔧 夜间 שלום"),
            ("<script> <!channel> @all", "<script> <!channel> @all"),
        ] {
            assert_eq!(line(text, 100), read, "{text:?}");
        }
        assert_eq!(line(&"x".repeat(1 << 20), 5), "xxxxx…");
        assert_eq!(line(&"\u{202e}".repeat(1 << 20), 5), "");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("a\r\nb\rc\u{2028}d\te\u{0}\u{1b}[0m\u{202e}\n", 100), "a\nb\nc\nd\te[0m");
        assert_eq!(lines(&"é".repeat(1 << 20), 8), "éé…");
    }

    #[test]
    fn a_cut_parts_no_written_character() {
        assert_eq!(shorten("cafe\u{301}s", 4), "caf…");
        assert_eq!(shorten("ok 👩\u{200d}🔧", 4), "ok …");
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(cut("夜间夜间", 9), "夜间…");
        assert_eq!(cut("夜间夜间", 8), "夜…");
        assert_eq!(cut("夜间", 2), "…");
        let accents = format!("a{}", "\u{301}".repeat(10_000));
        assert_eq!(shorten(&accents, 100).chars().count(), 101);
        assert_eq!(shorten(&"👩\u{200d}".repeat(1_000), 100).chars().last(), Some('…'));
    }
}
