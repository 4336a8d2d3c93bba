//! What forgetting is asked in: small steps through one part of the state after the other.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::model::name::RuleId;
use crate::model::time::Timestamp;

/// Requests, groups that nothing waits for and replicas that ended are kept for a day.
pub(super) const LEFT_MICROS: i64 = 86_400_000_000;

/// A part of the state that grows. In [`Part::ALL`] each comes before what needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What came of matches.
    Fates,
    /// Steps that were observed: all but the last one of each job that is not gone.
    Transitions,
    /// Deliveries that ended, with their attempts and bytes.
    Deliveries,
    /// Follow-ups of findings that are over or have begun anew since.
    FollowUps,
    /// Jobs that are gone and have no steps any more.
    Jobs,
    /// Findings that are over, or whose job is forgotten.
    Alerts,
    /// Silences that are over, answered requests, groups that gather nothing.
    Leftovers,
}

impl Part {
    /// Every part, in the order in which they are gone through.
    pub const ALL: [Self; 7] =
        [Self::Fates, Self::Transitions, Self::Deliveries, Self::FollowUps, Self::Jobs, Self::Alerts, Self::Leftovers];
}

/// A place in a part, behind the row with this age and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(super) at: i64,
    pub(super) n: i64,
    pub(super) source: String,
    pub(super) id: String,
}

impl Default for Mark {
    /// Before everything.
    fn default() -> Self {
        Self { at: i64::MIN, n: i64::MIN, source: String::new(), id: String::new() }
    }
}

/// One step: some rows of a part are looked at, the oldest first, and those that nobody needs are forgotten.
#[derive(Clone, Debug)]
pub struct Prune {
    /// Which part.
    pub part: Part,
    /// Only what is older than this.
    pub before: Timestamp,
    /// Deliveries that were given up only if that was before this.
    pub dead_before: Timestamp,
    /// Rules whose findings can go on without the job they last spoke of: these are kept.
    pub lasting: Arc<[RuleId]>,
    /// Where the last step ended.
    pub from: Mark,
    /// So many rows are looked at.
    pub limit: usize,
    /// The time.
    pub now: Timestamp,
}

/// What came of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows that were forgotten; what belonged to them is not counted.
    pub removed: usize,
    /// Where the next step begins; `None` when there is nothing more that is old enough.
    pub next: Option<Mark>,
}

/// How much room the state takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are in use.
    pub used: u64,
    /// Bytes in the file that are free.
    pub free: u64,
    /// Whether free bytes can be given back to the disk while the state is in use.
    pub shrinks: bool,
}

/// The last time that the state was gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruning {
    /// When.
    pub at: Timestamp,
    /// What is older was forgotten, unless it is needed.
    pub kept_from: Timestamp,
    /// Rows that were forgotten.
    pub removed: u64,
    /// Bytes above what was wanted, though nothing more could go.
    pub excess: u64,
}

/// A job's place among the numbers.
pub(super) fn key(source: &str, job: &str) -> i64 {
    let mut hash = Sha256::new();
    hash.update((source.len() as u64).to_be_bytes());
    hash.update(source);
    hash.update(job);
    let digest = hash.finalize();
    digest.iter().take(8).fold(0_i64, |key, byte| (key << 8) | i64::from(*byte))
}
