//! A rule's standing finding about one key.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::name::{AlertId, JobId, RuleId, SourceName};
use super::time::Timestamp;

/// How much it matters, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it in working hours.
    Warning,
    /// Something is broken.
    Error,
    /// Wake somebody.
    Critical,
}

impl Severity {
    /// All of them, in rising order.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The word for it in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == word).ok_or(())
    }
}

/// One rule's finding about one job: how often and since when.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The same for this rule and key for ever.
    pub id: AlertId,
    /// The rule that found it.
    pub rule: RuleId,
    /// Where.
    pub source: SourceName,
    /// The job it is about.
    pub subject: JobId,
    /// How much it mattered, the last time.
    pub severity: Severity,
    /// How many transitions the rule matched.
    pub count: u32,
    /// The first of them.
    pub first_seen: Timestamp,
    /// The last of them.
    pub last_seen: Timestamp,
}
