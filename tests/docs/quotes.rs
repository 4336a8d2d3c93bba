//! What the guide quotes of the program, in its tables of symptoms, stands in the program's source.

use std::path::Path;

use regex::Regex;

use crate::page::{OPERATING, Words, code, root, words};

/// The heads of those columns.
const HEADS: &[&str] = &["it says", "the log says"];
/// Said by libraries, with their words.
const BORROWED: &[&str] = &["tcp connect error", "invalid peer certificate"];
/// Shorter pieces are in any source.
const LETTERS_MIN: usize = 6;

/// All sources as one text, with texts that go over several lines as they are said.
fn source() -> String {
    fn read(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, text);
            } else if path.extension().is_some_and(|end| end == "rs") {
                *text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }
    let mut text = String::new();
    read(&root().join("src"), &mut text);
    Regex::new(r"\\\n\s*").unwrap().replace_all(&text, "").into_owned()
}

/// The pieces of what the guide quotes: `…` is what differs, and what follows a colon may be put together.
fn pieces() -> Words {
    let mut inside = false;
    let mut found = Words::new();
    for line in OPERATING.text.lines() {
        let first = line.strip_prefix("| ").and_then(|line| line.split(" | ").next());
        inside = first.is_some_and(|first| inside || HEADS.contains(&first));
        if let Some(first) = first.filter(|first| inside && !HEADS.contains(first)) {
            let quoted = code(first).into_iter().filter(|quoted| !quoted.starts_with("jobwatch "));
            let quoted: Vec<String> = quoted.collect();
            let parts = quoted.iter().flat_map(|quoted| quoted.split('…')).flat_map(|part| part.split(": "));
            found.extend(parts.map(|part| part.trim().to_owned()));
        }
    }
    let letters = |piece: &String| piece.chars().filter(|c| c.is_alphabetic()).count();
    found.into_iter().filter(|piece| letters(piece) >= LETTERS_MIN).collect()
}

#[test]
fn what_the_guide_quotes_is_what_the_program_says() {
    let source = source();
    let pieces = pieces();
    assert!(pieces.len() > 30, "{pieces:?}");
    let strange: Words = pieces.into_iter().filter(|piece| !source.contains(piece.as_str())).collect();
    assert_eq!(strange, words(BORROWED.iter().copied()));
}
