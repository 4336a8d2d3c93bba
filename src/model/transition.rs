//! One job's step from one state to another, as far as listings showed it.

use std::fmt;
use std::sync::Arc;

use super::job::{Job, Status};
use super::name::{SourceName, TransitionId};
use super::time::Timestamp;

/// Where a job stood on one side of a transition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No listing had shown it yet.
    Unseen,
    /// Listed in this status.
    Is(Status),
    /// No longer there, confirmed by the single-job call.
    Gone,
}

impl Transition {
    /// Whether the job did not move at all: it has been in `from` since `seen_before`, and that is what is to be told.
    pub fn is_stay(&self) -> bool {
        self.from == self.to && self.changed.is_empty()
    }

    /// Whether the job is in the same status, and something else about it changed.
    pub fn is_change(&self) -> bool {
        self.from == self.to && !self.changed.is_empty()
    }
}

impl State {
    /// Reads what `Display` writes.
    pub fn read(word: &str) -> Self {
        match word {
            "unseen" => Self::Unseen,
            "gone" => Self::Gone,
            status => Self::Is(Status::read(status)),
        }
    }

    /// Reads what people write, in any case.
    pub fn typed(word: &str) -> Self {
        let word = word.trim();
        let own = [Self::Unseen, Self::Gone].into_iter().find(|state| state.to_string().eq_ignore_ascii_case(word));
        own.unwrap_or_else(|| Self::Is(Status::read(word)))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen => f.pad("unseen"),
            Self::Is(status) => f.pad(status.as_str()),
            Self::Gone => f.pad("gone"),
        }
    }
}

impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One job, from, to. `from` is the last *observed* state: a poll sees only what stands when it looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The same for this step of this job whenever and wherever it is derived.
    pub id: TransitionId,
    /// The listing it was seen in.
    pub source: SourceName,
    /// The job after the step; for [`State::Gone`], as it was last seen.
    pub job: Arc<Job>,
    /// The last state that was observed before.
    pub from: State,
    /// The state observed now.
    pub to: State,
    /// When it was last seen in `from`; `None` if it had never been seen.
    pub seen_before: Option<Timestamp>,
    /// When it was first seen in `to`.
    pub seen_at: Timestamp,
    /// The states between the two that a job usually passes and no listing showed.
    pub skipped: Vec<Status>,
    /// What else changed, by the names of the fields; only where a rule asked and the status did not change.
    pub changed: Vec<&'static str>,
    /// It was noticed after a gap in watching, so it may be old news.
    pub late: bool,
    /// The number of this transition in the job's history, from 1.
    pub seq: u32,
}
