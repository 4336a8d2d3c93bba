//! A rule's standing finding about one key.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::job::Text;
use super::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName};
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

/// A rule's finding about one key: how often, since when, and who was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The same for this rule and key for ever.
    pub id: AlertId,
    /// The rule that found it.
    pub rule: RuleId,
    /// Where.
    pub source: SourceName,
    /// The job it last spoke of.
    pub subject: JobId,
    /// The resource of that job.
    pub resource: Option<Text>,
    /// How much it mattered, the last time.
    pub severity: Severity,
    /// How many transitions the rule matched since it began to fire.
    pub count: u32,
    /// The first of them.
    pub first_seen: Timestamp,
    /// The last of them.
    pub last_seen: Timestamp,
    /// It is over; the next match begins it anew.
    pub resolved: bool,
    /// Who was told, in the order of their names. Kept only where it matters: for a cooldown, and to tell of the end.
    pub told: Vec<Told>,
}

/// What one receiver was told of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Who.
    pub receiver: ReceiverName,
    /// With which delivery.
    pub delivery: DeliveryId,
    /// How much it mattered then.
    pub severity: Severity,
    /// When that was decided.
    pub at: Timestamp,
    /// When it was delivered; `None` while it is on its way.
    pub delivered_at: Option<Timestamp>,
    /// That delivery was given up: the receiver has heard nothing of it.
    pub lost: bool,
    /// Matches since then that were not told.
    pub held_back: u32,
}

impl Alert {
    /// What a receiver was told of it.
    pub fn told(&self, receiver: &ReceiverName) -> Option<&Told> {
        self.told.iter().find(|told| told.receiver == *receiver)
    }
}

/// A job's part in a finding that nobody was told of, because a silence or the hours of a rule forbade it. When they no
/// longer do, the finding is told if it still stands: of the newest job for which it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Muted {
    /// The finding.
    pub alert: AlertId,
    /// Its rule.
    pub rule: RuleId,
    /// The step that would have been told.
    pub transition: std::sync::Arc<super::transition::Transition>,
    /// What forbade it, in words.
    pub by: String,
}

impl Muted {
    /// Which finding, and which job's part in it.
    pub fn key(&self) -> (AlertId, JobId) {
        (self.alert.clone(), self.transition.job.id.clone())
    }
}

/// An operator's order that some things are not told for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// What it is about, each in the form `FIELD=VALUE`, `!=`, `=~` or `!~`; all must hold.
    pub matchers: Vec<String>,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Who ordered it.
    pub author: String,
    /// Why.
    pub comment: String,
}

/// What came of a rule's match for one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    /// The rule that matched.
    pub rule: RuleId,
    /// The step it matched.
    pub transition: super::name::TransitionId,
    /// Whose step that was.
    pub subject: JobId,
    /// Who was to hear; `None` when nobody was, whoever it is.
    pub receiver: Option<ReceiverName>,
    /// What came of it.
    pub outcome: FateOutcome,
    /// The delivery that told it, or the earlier one that made it superfluous.
    pub delivery: Option<DeliveryId>,
    /// Why, in words.
    pub why: String,
}

/// What came of a rule's match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FateOutcome {
    /// It was told, perhaps in one message with other rules.
    Told,
    /// The receiver had been told of it within the cooldown.
    HeldBack,
    /// A silence or the rule's hours forbade it.
    Muted,
    /// There were not enough of them yet, or the burst had been told.
    Counted,
    /// The reason had been seen before.
    Known,
    /// The step ended a finding, and whoever had been told of it was told that.
    Resolved,
}

impl FateOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Told, Self::HeldBack, Self::Muted, Self::Counted, Self::Known, Self::Resolved];

    /// The word for it in tables and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::HeldBack => "held_back",
            Self::Muted => "muted",
            Self::Counted => "counted",
            Self::Known => "known",
            Self::Resolved => "resolved",
        }
    }
}

impl FromStr for FateOutcome {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word).ok_or(())
    }
}
