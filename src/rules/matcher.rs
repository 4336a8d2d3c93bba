//! Matchers: one field of a job against one test. A missing field can't be told and so satisfies only `exists = false`.

use std::borrow::Cow;
use std::time::Duration;

use globset::GlobMatcher;
use regex::Regex;

use crate::model::job::Job;
use crate::model::name::SourceName;
use crate::model::time::{Timestamp, span};

/// The fields a rule can look at.
pub const FIELDS: &[(&str, Field)] = &[
    ("id", Field::Id),
    ("instance_id", Field::InstanceId),
    ("resource_id", Field::ResourceId),
    ("resource_name", Field::ResourceName),
    ("type", Field::Type),
    ("status", Field::Status),
    ("reason", Field::Reason),
    ("reason_class", Field::ReasonClass),
    ("source", Field::Source),
    ("age", Field::Age),
];

/// A field a rule can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The job's id.
    Id,
    /// The SWR instance.
    InstanceId,
    /// The resource.
    ResourceId,
    /// The resource's name.
    ResourceName,
    /// What the job does.
    Type,
    /// Where it stands.
    Status,
    /// Why it failed.
    Reason,
    /// The class of that.
    ReasonClass,
    /// Where it was seen.
    Source,
    /// How long ago it was created.
    Age,
}

impl Field {
    /// The word for it in rule files.
    pub fn as_str(self) -> &'static str {
        FIELDS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// Which part of a row it is; `None` for what is not in a row.
    pub fn of_row(self, job: &Job) -> Option<Option<&str>> {
        Some(match self {
            Self::InstanceId => job.instance_id.as_deref(),
            Self::ResourceId => job.resource_id.as_deref(),
            Self::ResourceName => job.resource_name.as_deref(),
            Self::Type => job.kind.as_deref(),
            Self::Reason => job.reason.as_deref(),
            Self::Id | Self::Status | Self::ReasonClass | Self::Source | Self::Age => return None,
        })
    }
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The job, after the step.
    pub job: &'a Job,
    /// The class of its reason; empty if it has none.
    pub reason_class: &'a str,
    /// Where it was seen.
    pub source: &'a SourceName,
    /// The time, for `age`.
    pub now: Timestamp,
}

impl Facts<'_> {
    /// A field's text; `None` when the job does not have it or it is empty.
    pub fn text(&self, field: Field) -> Option<Cow<'_, str>> {
        let text = match field {
            Field::Id => Some(self.job.id.as_str()),
            Field::InstanceId => self.job.instance_id.as_deref(),
            Field::ResourceId => self.job.resource_id.as_deref(),
            Field::ResourceName => self.job.resource_name.as_deref(),
            Field::Type => self.job.kind.as_deref(),
            Field::Status => Some(self.job.status.as_str()),
            Field::Reason => self.job.reason.as_deref(),
            Field::ReasonClass => Some(self.reason_class),
            Field::Source => Some(self.source.as_str()),
            Field::Age => return self.age().map(|age| Cow::Owned(format!("{}s", age.as_secs()))),
        };
        text.filter(|text| !text.is_empty()).map(Cow::Borrowed)
    }

    fn age(&self) -> Option<Duration> {
        self.job.created().map(|created| self.now.since(created))
    }
}

/// One field and what it is tested for.
#[derive(Debug, PartialEq)]
pub struct Clause {
    pub(super) field: Field,
    /// One of these must hold.
    pub(super) any: Vec<Test>,
}

/// What a field is tested for.
#[derive(Debug)]
pub(super) enum Test {
    Exact(String),
    Glob(Glob),
    Regex(Regex),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Not(Vec<String>),
    Exists(bool),
    OlderThan(Duration),
    NewerThan(Duration),
}

/// A glob over a whole value.
#[derive(Debug)]
pub(super) struct Glob {
    matcher: GlobMatcher,
    /// What every match begins with: most texts are told by this alone.
    beginning: String,
}

impl Glob {
    pub(super) fn new(glob: &globset::Glob) -> Self {
        let text = glob.glob();
        let literal = text.find(['*', '?', '[', '{', '\\']).unwrap_or(text.len());
        Self { matcher: glob.compile_matcher(), beginning: text[..literal].to_owned() }
    }

    fn text(&self) -> &str {
        self.matcher.glob().glob()
    }

    fn is_match(&self, text: &str) -> bool {
        text.starts_with(&self.beginning) && self.matcher.is_match(text)
    }
}

impl Clause {
    /// Which field it looks at.
    pub fn field(&self) -> Field {
        self.field
    }

    /// Whether a job that has this text there can pass it.
    pub(super) fn admits(&self, text: &str) -> bool {
        self.any.iter().any(|test| test.passes(text).unwrap_or(true))
    }

    /// Whether every job that passes this one passes `other` too, as far as can be told.
    pub(super) fn implies(&self, other: &Self) -> bool {
        let covered = |test: &Test| match test {
            Test::Exact(text) => other.any.iter().any(|wanted| wanted.passes(text) == Some(true)),
            Test::Exists(false) => other.any.contains(test),
            Test::Glob(_)
            | Test::Regex(_)
            | Test::Prefix(_)
            | Test::Suffix(_)
            | Test::Contains(_)
            | Test::Not(_)
            | Test::Exists(true)
            | Test::OlderThan(_)
            | Test::NewerThan(_) => other.any.contains(test) || other.any.contains(&Test::Exists(true)),
        };
        self.field == other.field && self.any.iter().all(covered)
    }

    /// What it wants, in words.
    pub fn wants(&self) -> String {
        self.any.iter().map(Test::wants).collect::<Vec<_>>().join(" or ")
    }

    /// Whether the field passes one of the tests.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        let text = facts.text(self.field);
        self.any.iter().any(|test| test.holds(text.as_deref(), facts))
    }
}

impl Test {
    fn wants(&self) -> String {
        match self {
            Self::Exact(text) => format!("`{text}`"),
            Self::Glob(glob) => format!("glob `{}`", glob.text()),
            Self::Regex(regex) => format!("regex `{regex}`"),
            Self::Prefix(text) => format!("prefix `{text}`"),
            Self::Suffix(text) => format!("suffix `{text}`"),
            Self::Contains(text) => format!("something with `{text}` in it"),
            Self::Not(words) => format!("anything but `{}`", words.join("`, `")),
            Self::Exists(true) => "any value".into(),
            Self::Exists(false) => "no value".into(),
            Self::OlderThan(age) => format!("more than {}", span(*age)),
            Self::NewerThan(age) => format!("less than {}", span(*age)),
        }
    }

    fn holds(&self, text: Option<&str>, facts: &Facts<'_>) -> bool {
        let Some(text) = text else {
            return matches!(self, Self::Exists(false));
        };
        match self {
            Self::OlderThan(span) => facts.age().is_some_and(|age| age > *span),
            Self::NewerThan(span) => facts.age().is_some_and(|age| age < *span),
            Self::Exact(_)
            | Self::Glob(_)
            | Self::Regex(_)
            | Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Contains(_)
            | Self::Not(_)
            | Self::Exists(_) => self.passes(text).unwrap_or(false),
        }
    }

    /// Whether this text passes; `None` if more than the text has to be known.
    fn passes(&self, text: &str) -> Option<bool> {
        Some(match self {
            Self::Exact(wanted) => text == wanted,
            Self::Glob(glob) => glob.is_match(text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::Contains(part) => text.contains(part),
            Self::Not(unwanted) => !unwanted.iter().any(|word| word == text),
            Self::Exists(wanted) => *wanted,
            Self::OlderThan(_) | Self::NewerThan(_) => return None,
        })
    }
}

/// The same test, as it was written.
impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Suffix(a), Self::Suffix(b))
            | (Self::Contains(a), Self::Contains(b)) => a == b,
            (Self::Glob(a), Self::Glob(b)) => a.text() == b.text(),
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Not(a), Self::Not(b)) => a == b,
            (Self::Exists(a), Self::Exists(b)) => a == b,
            (Self::OlderThan(a), Self::OlderThan(b)) | (Self::NewerThan(a), Self::NewerThan(b)) => a == b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;
    use globset::GlobBuilder;

    #[test]
    fn a_glob_is_of_the_whole_value_however_it_begins() {
        let matches = |glob: &str, text: &str| {
            let built = GlobBuilder::new(glob).literal_separator(false).backslash_escape(true).build().unwrap();
            Glob::new(&built).is_match(text)
        };
        for (glob, text, wanted) in [
            ("prod-*", "prod-a/b", true),
            ("prod-*", "xprod-a", false),
            ("*-prod", "a-prod", true),
            ("{a,b}-x", "b-x", true),
            ("[ab]x", "bx", true),
            ("a\\*b*", "a*bc", true),
            ("a\\*b*", "axbc", false),
            ("夜间*", "夜间计算", true),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            assert_eq!(matches(glob, text), wanted, "{glob} {text}");
        }
    }
}
