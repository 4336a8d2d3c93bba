//! What is remembered between two polls of a source.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::alert::{Alert, Muted, Silence};
use super::delivery::Lane;
use super::name::{AlertId, JobId, ReceiverName};
use super::snapshot::{Known, Snapshot};
use super::time::Timestamp;
use super::transition::Transition;

/// Everything the store knows of a source: what the next poll is decided with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Its jobs, or those of them that a decision needs.
    pub snapshot: Snapshot,
    /// Jobs that the poll may say nothing of, and whose time in their status matters.
    pub timed: HashMap<JobId, Known>,
    /// The findings of rules about those jobs, and of those rules whose findings are about more than a job.
    pub alerts: HashMap<AlertId, Alert>,
    /// Steps of the near past, oldest first, for rules that count them.
    pub recent: Vec<Arc<Transition>>,
    /// What was found and not told, because it was muted; with the jobs in `timed`.
    pub muted: Vec<Muted>,
    /// Silences that are in force or will be.
    pub silences: Vec<Silence>,
    /// Whether it can be seen.
    pub sight: Sight,
}

/// What is remembered of a source's visibility.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// When listings stopped being complete; `None` while they are.
    pub blind_since: Option<Timestamp>,
    /// Since when the operator has been told that it is blind; `None` when nothing has been told, or the end of it too.
    pub told_since: Option<Timestamp>,
    /// Listings in a row from which most jobs had vanished.
    pub vanished: u8,
}

/// What is known of how fast receivers are told.
#[derive(Clone, Debug, Default)]
pub struct Pacing {
    /// Messages that were decided within the time of a receiver's rate; no more are counted than it allows.
    pub recent: HashMap<ReceiverName, usize>,
    /// How many of them were digests.
    pub digests: HashMap<ReceiverName, usize>,
    /// When what is held about a job will be told: whatever follows it waits as well.
    pub held: HashMap<(ReceiverName, Lane), Timestamp>,
    /// Those for whom something is held that is due.
    pub waiting: HashSet<ReceiverName>,
    /// Groups that gather.
    pub groups: HashMap<(ReceiverName, String), Opened>,
    /// What a store that is shared calls this state of what a receiver is told: a decision made on it is refused when there
    /// has been another one since.
    pub turns: HashMap<ReceiverName, i64>,
}

/// A group that gathers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Until when.
    pub until: Timestamp,
    /// For how long each time.
    pub wait: Duration,
    /// The classes of which the first has been told.
    pub classes: BTreeSet<String>,
}
