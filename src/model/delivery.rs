//! One receiver's copy of a notification, and the story of its attempts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::alert::Severity;
use super::name::{DeliveryId, JobId, ReceiverName, SourceName};
use super::notification::Notification;
use super::time::Timestamp;

/// A delivery that is owed, as the plan decides it: who is to hear what under which id.
#[derive(Clone, Debug, PartialEq)]
pub struct Owed {
    /// The same on every attempt, after every restart.
    pub id: DeliveryId,
    /// Who is to hear.
    pub receiver: ReceiverName,
    /// What orders it: deliveries with the same lane reach one receiver in the order they were decided.
    pub lane: Lane,
    /// What is to be said.
    pub notification: Notification,
    /// How it may be gathered with others; `None` if it never is: the agent's own affairs.
    pub pace: Option<Pace>,
}

/// How a notification may be gathered with others into one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The key of its group and how long the group gathers, if its rule wants that.
    pub group: Option<(String, Duration)>,
    /// Of each class, the first never waits.
    pub class: String,
}

/// A notification that waits to be told with others.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// In its own final wording, should it be alone in the end.
    pub frozen: Frozen,
    /// How much it matters.
    pub severity: Severity,
    /// Its class.
    pub class: String,
    /// The key of its group; empty when the receiver's rate holds it.
    pub group: String,
    /// When it is to be told.
    pub due_at: Timestamp,
    /// What it says, as `data` of a webhook.
    pub data: serde_json::Value,
}

/// What orders deliveries: everything about one job goes to one receiver one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Lane {
    /// Where; `None` for the agent's own affairs.
    pub source: Option<SourceName>,
    /// Which job, or which of the agent's affairs.
    pub subject: JobId,
}

impl Lane {
    /// The name of the source; empty for the agent's own affairs.
    pub fn source_name(&self) -> &str {
        self.source.as_ref().map_or("", SourceName::as_str)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{source}/{}", self.subject),
            None => f.pad(self.subject.as_str()),
        }
    }
}

/// A delivery in its final wording, as it is stored and sent. Every attempt sends these bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// See [`Owed::id`].
    pub id: DeliveryId,
    /// See [`Owed::receiver`].
    pub receiver: ReceiverName,
    /// See [`Owed::lane`].
    pub lane: Lane,
    /// The CloudEvents `type`, for people who look at the outbox.
    pub event: String,
    /// The one-line title, for the same people and for messages about this delivery.
    pub title: String,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When the listing that showed it was read, of a digest the first of them; nothing for what no listing shows: the agent's
    /// own affairs, and copies for a fallback.
    pub seen_at: Option<Timestamp>,
    /// The rendered message in the form its receiver's kind reads.
    pub payload: Vec<u8>,
}

/// What a receiver is handed for one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The delivery.
    pub frozen: Frozen,
    /// When the time after which it is given up began to run: when it was decided, or last replayed.
    pub budget_from: Timestamp,
    /// Attempts that were recorded since then.
    pub tries: u32,
    /// When it was first answered with a refusal, if it was.
    pub refused_since: Option<Timestamp>,
    /// When a copy goes to the fallback, if it is urgent and that has not happened yet.
    pub escalate_at: Option<Timestamp>,
    /// What earlier attempts achieved, in the receiver kind's own words: recipients who have it already.
    pub progress: Vec<String>,
    /// Who holds the claim: the record of the attempt is dropped if somebody else does by then.
    pub token: i64,
}

/// How the far end answered one attempt, sorted by what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has the message.
    Accepted {
        /// What it answered.
        note: String,
    },
    /// It will not take the message as things are: somebody has to change something.
    Refused {
        /// What it answered.
        why: String,
    },
    /// It says that it is no more: nothing is sent to it until somebody says otherwise.
    Retired {
        /// What it answered.
        why: String,
    },
    /// It could not be asked or could not answer: trying again helps.
    Unreachable {
        /// What happened.
        why: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// The word for it in logs, metrics and the attempt's row.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Refused { .. } => "refused",
            Self::Retired { .. } => "retired",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// What the far end said or what happened.
    pub fn detail(&self) -> &str {
        match self {
            Self::Accepted { note } => note,
            Self::Refused { why } | Self::Retired { why } | Self::Unreachable { why, .. } => why,
        }
    }
}

/// One attempt and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it was answered.
    pub outcome: Outcome,
    /// What is achieved so far; see [`Claimed::progress`].
    pub progress: Vec<String>,
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Delivered,
    /// Once more, not before this time.
    RetryAt(Timestamp),
    /// Once more, when its receiver, which retired, is opened again.
    Held,
    /// Given up: kept, shown, replayable under the same id.
    Dead,
}

/// A copy of an urgent delivery for its receiver's fallback. It is sent if the delivery was not accepted in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserve {
    /// The delivery that it is a copy of.
    pub of: DeliveryId,
    /// Whose delivery that is.
    pub instead_of: ReceiverName,
    /// When it is to be sent.
    pub due_at: Timestamp,
    /// The copy, in its own receiver's wording, under an id of its own.
    pub frozen: Frozen,
}

/// Where a delivery stands in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Owed; due at some time.
    Pending,
    /// Heard.
    Delivered,
    /// Given up.
    Dead,
    /// Ended by an operator.
    Dropped,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Dropped];

    /// The word for it in tables and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DeliveryState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or(())
    }
}
