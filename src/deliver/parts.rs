//! What a message for people is made of, the same for every medium: a state, a title, the reason, facts, a link. A medium
//! escapes each piece for itself.

use std::borrow::Cow;

use crate::deliver::tame;
use crate::model::alert::Severity;
use crate::model::delivery::Owed;
use crate::model::notification::{Event, JobTopic, Notification, Topic};
use crate::model::text::{cut, line, lines, shorten};
use crate::model::time::span;
use crate::model::transition::Transition;

/// A status is cut here, in characters.
const STATE_MAX: usize = 40;
/// A fact is cut here, in characters.
const FACT_MAX: usize = 2_000;
/// A title is cut here, in characters.
const TITLE_MAX: usize = 300;
/// A body is cut here, in bytes: no digest is longer.
const BODY_MAX: usize = 1 << 20;
/// A text that has no room at all is cut to this many bytes.
const LEAST: usize = 64;

/// A message in its pieces: plain text, fit for people ([`crate::model::text`]).
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// `FAILED`, `RESOLVED`, or how much it matters.
    pub(super) state: String,
    /// How it is to look.
    pub(super) tone: Tone,
    /// One line.
    pub(super) title: String,
    /// The failure reason, whole; empty if there is none.
    pub(super) reason: String,
    /// The rest, in lines.
    pub(super) body: String,
    /// Name and value of everything known, for people who must act.
    pub(super) facts: Vec<(&'static str, String)>,
    /// Where to read on: an https or http link.
    pub(super) runbook: Option<String>,
}

/// How a message is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Wake somebody.
    Critical,
    /// Something is broken.
    Error,
    /// Look at it in working hours.
    Warning,
    /// Good to know.
    Info,
    /// It is over.
    Good,
}

impl Parts {
    pub(super) fn of(owed: &Owed) -> Self {
        let notification = &owed.notification;
        let runbook = match &notification.topic {
            Topic::Job(topic) => topic.rule.runbook.clone().filter(|link| is_link(link)),
            Topic::Digest(_)
            | Topic::Sources(_)
            | Topic::Reload { .. }
            | Topic::Room { .. }
            | Topic::Probe(_)
            | Topic::Receiver { .. } => None,
        };
        Self {
            state: state(notification),
            tone: tone(notification),
            title: line(&notification.title, TITLE_MAX),
            reason: tame(notification.reason().unwrap_or_default(), FACT_MAX),
            body: lines(&notification.body, BODY_MAX),
            facts: facts(owed),
            runbook,
        }
    }

    /// Facts that fit beside a title: without the reason and the runbook, which have places of their own.
    pub(super) fn short_facts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let own = |name: &str| matches!(name, "Reason" | "Runbook");
        self.facts.iter().filter(move |(name, _)| !own(name)).map(|(name, value)| (*name, value.as_str()))
    }

    /// State and title in one line.
    pub(super) fn head(&self) -> String {
        format!("{}: {}", self.state, self.behind_state())
    }

    /// The title where the state stands before it: the title of an end begins with the same word.
    pub(super) fn behind_state(&self) -> &str {
        let (state, _) = self.title.split_at_checked(self.state.len()).unwrap_or_default();
        let again = !state.is_empty() && state.eq_ignore_ascii_case(&self.state);
        let rest = self.title.get(self.state.len()..).and_then(|rest| rest.strip_prefix(": "));
        rest.filter(|_| again).unwrap_or(&self.title)
    }

    /// As plain text. The first line is what a notification on a phone shows.
    pub(super) fn text(&self) -> String {
        let Self { body, facts, .. } = self;
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = format!("{}\n\n{body}\n\n", self.head());
        for (name, value) in facts {
            text += &format!("{name:<width$}  {value}\n");
        }
        text
    }

    /// The message in a medium's words, in at most `max` bytes: while it is longer, what matters least is cut. First the
    /// body, then the facts from the last on, then the reason and the title.
    pub(super) fn within(mut self, max: usize, word: impl Fn(&Self) -> Vec<u8>) -> Vec<u8> {
        loop {
            let bytes = word(&self);
            if bytes.len() <= max || !self.less() {
                return bytes;
            }
        }
    }

    /// Cuts something. `false` when nothing is left that could be.
    fn less(&mut self) -> bool {
        let halve = |text: &mut String| {
            let long = text.len() > LEAST;
            if long {
                *text = cut(text, text.len() / 2).into_owned();
            }
            long
        };
        halve(&mut self.body)
            || self.facts.pop().is_some()
            || self.runbook.take().is_some()
            || halve(&mut self.reason)
            || halve(&mut self.title)
    }
}

/// In what a medium measures its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Of Unicode.
    Characters,
    /// Of UTF-8.
    Bytes,
    /// Of UTF-8, as they stand in a JSON string.
    Json,
}

impl Unit {
    fn length(self, text: &str) -> usize {
        match self {
            Self::Characters => text.chars().count(),
            Self::Bytes => text.len(),
            Self::Json => text.len() + text.matches(['"', '\\', '\n', '\t']).count(),
        }
    }
}

/// A text as a medium escapes it, at most `max` long after that. Where escapes leave no room, its marks are made blanks, so
/// that its words stay. It is cut before it is escaped, so that no escape and no character is parted.
pub(super) fn fitted(text: &str, max: usize, unit: Unit, escape: impl Fn(&str) -> String) -> String {
    // As much as can fit, whatever the escapes: a longer text is not escaped in vain.
    let taken = taken(text, max, unit);
    let escaped = escape(&taken);
    if unit.length(&escaped) <= max {
        return escaped;
    }
    let bare = taken.replace(is_mark, " ");
    let mut room = max;
    loop {
        let escaped = escape(&self::taken(&bare, room, unit));
        if unit.length(&escaped) <= max || room == 0 {
            return escaped;
        }
        room = room * 3 / 4;
    }
}

fn taken(text: &str, room: usize, unit: Unit) -> Cow<'_, str> {
    match unit {
        Unit::Characters if unit.length(text) > room => shorten(text, room.saturating_sub(1)),
        Unit::Characters => text.into(),
        Unit::Bytes | Unit::Json => cut(text, room),
    }
}

/// What some medium or JSON writes in more than one character.
fn is_mark(c: char) -> bool {
    matches!(c, '\\' | '`' | '*' | '_' | '~' | '|' | '[' | ']' | '(' | ')' | '<' | '>' | '#' | '!' | '&' | '@' | '"')
}

/// A text with a backslash before each of `marks`, as Markdown reads them as they stand.
pub(super) fn backslashed(text: &str, marks: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if marks.contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A link as it may stand between the parentheses of Markdown's `[…](…)`.
pub(super) fn linked(link: &str) -> String {
    link.replace('(', "%28").replace(')', "%29").replace('<', "%3C").replace('>', "%3E")
}

/// Lines in pieces of at most `max` bytes each; a line that is longer alone is a piece of its own.
pub(super) fn packed(text: &str, max: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for line in text.lines() {
        match pieces.last_mut().filter(|piece| piece.len() + 1 + line.len() <= max) {
            Some(piece) => *piece += &format!("\n{line}"),
            None => pieces.push(line.to_owned()),
        }
    }
    pieces.retain(|piece| !piece.trim().is_empty());
    pieces
}

/// Whether a text may be made a link.
pub(super) fn is_link(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn tone(notification: &Notification) -> Tone {
    match notification.event {
        Event::AlertResolved | Event::AgentRestored | Event::ReloadSucceeded | Event::AgentFits => Tone::Good,
        Event::JobFailed
        | Event::JobSucceeded
        | Event::JobChanged
        | Event::JobStays
        | Event::JobGone
        | Event::Digest
        | Event::AgentBlind
        | Event::ReceiverDead
        | Event::ReloadFailed
        | Event::AgentOversized
        | Event::FollowUpDone
        | Event::FollowUpFailed
        | Event::FollowUpWaiting
        | Event::Probe => match notification.severity {
            Severity::Critical => Tone::Critical,
            Severity::Error => Tone::Error,
            Severity::Warning => Tone::Warning,
            Severity::Info => Tone::Info,
        },
    }
}

fn state(notification: &Notification) -> String {
    match &notification.topic {
        Topic::Job(_) if notification.event == Event::AlertResolved => "RESOLVED".into(),
        Topic::Reload { .. } if notification.event == Event::ReloadSucceeded => "RESOLVED".into(),
        Topic::Room { .. } if notification.event == Event::AgentFits => "RESOLVED".into(),
        Topic::Job(topic) if topic.follow_up.is_some() => {
            topic.follow_up.as_ref().map_or("", |report| report.outcome.label()).into()
        }
        Topic::Job(topic) => tame(&topic.transition.to.to_string(), STATE_MAX).to_uppercase(),
        Topic::Digest(_)
        | Topic::Sources(_)
        | Topic::Reload { .. }
        | Topic::Room { .. }
        | Topic::Probe(_)
        | Topic::Receiver { .. } => notification.severity.as_str().to_uppercase(),
    }
}

/// Name and value of everything known, for people who must act.
fn facts(owed: &Owed) -> Vec<(&'static str, String)> {
    let mut facts = match &owed.notification.topic {
        Topic::Job(topic) => job_facts(topic),
        Topic::Sources(seen) => match seen.as_slice() {
            [one] => vec![("Source", one.source.name.to_string()), ("Project", one.source.project_id.clone())],
            many => {
                let names: Vec<&str> = many.iter().map(|one| one.source.name.as_str()).collect();
                vec![("Sources", names.join(", "))]
            }
        },
        Topic::Digest(entries) => vec![("Jobs", entries.len().to_string())],
        // The body has them all.
        Topic::Reload { .. } | Topic::Room { .. } => Vec::new(),
        Topic::Probe(name) => vec![("Receiver", name.to_string())],
        Topic::Receiver { name, why, delivery, .. } => {
            vec![("Receiver", name.to_string()), ("Answer", why.clone()), ("Undelivered", delivery.1.clone())]
        }
    };
    facts.push(("Delivery", owed.id.to_string()));
    facts.retain(|(_, value)| !value.is_empty());
    facts.into_iter().map(|(name, value)| (name, tame(&value, FACT_MAX))).collect()
}

fn job_facts(topic: &JobTopic) -> Vec<(&'static str, String)> {
    let Transition { job, from, to, seen_before, seen_at, skipped, .. } = &*topic.transition;
    let text = |field: &Option<Box<str>>| field.as_deref().unwrap_or_default().to_owned();
    let seen = match seen_before {
        Some(before) => format!("between {before} and {seen_at} ({})", span(seen_at.since(*before))),
        None => format!("first at {seen_at}"),
    };
    let source = match &topic.source.region {
        Some(region) => format!("{} ({region}, project {})", topic.source.name, topic.source.project_id),
        None => format!("{} (project {})", topic.source.name, topic.source.project_id),
    };
    let skipped: Vec<&str> = skipped.iter().map(|status| status.as_str()).collect();
    let labels: Vec<String> = topic.rule.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    vec![
        ("Reason", text(&job.reason)),
        ("Name", text(&job.resource_name)),
        ("Type", text(&job.kind)),
        ("Transition", format!("{from} → {to}")),
        ("Not seen", skipped.join(", ")),
        ("Seen", seen),
        ("Created", text(&job.created_at)),
        ("Updated", text(&job.updated_at)),
        ("Job", job.id.to_string()),
        ("Instance", text(&job.instance_id)),
        ("Source", source),
        ("Rule", format!("{}: {}", topic.rule.id, topic.rule.about)),
        ("Runbook", topic.rule.runbook.clone().unwrap_or_default()),
        ("Labels", labels.join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Unit, backslashed, fitted, packed};

    #[test]
    fn a_text_that_its_escapes_make_too_long_keeps_its_words() {
        let escape = |text: &str| backslashed(text, "_<");
        assert_eq!(fitted("a_b <c>", 20, Unit::Bytes, escape), "a\\_b \\<c>");
        assert_eq!(fitted("a_b <c>", 8, Unit::Bytes, escape), "a b  c ");
        assert_eq!(fitted("a_b\n<c>", 9, Unit::Json, escape), "a b\n c ");
    }

    #[test]
    fn a_limit_is_kept_in_its_unit() {
        let same = ToOwned::to_owned;
        assert_eq!(fitted("夜间计算失败", 4, Unit::Characters, same), "夜间计…");
        assert_eq!(fitted("夜间计算失败", 10, Unit::Bytes, same), "夜间…");
        assert_eq!(fitted("a\n\nb", 4, Unit::Json, same), "…", "a break takes two");
        let grown = fitted(&"&".repeat(1_000), 100, Unit::Characters, |text| text.replace('&', "&amp;"));
        assert_eq!(grown.chars().count(), 100);
    }

    #[test]
    fn lines_are_packed_whole() {
        assert_eq!(packed("a\nb\n\nlong line\nc", 4), ["a\nb\n", "long line", "c"]);
    }
}
