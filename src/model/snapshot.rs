//! What the listings so far have said about one source.

use std::collections::HashMap;
use std::sync::Arc;

use super::job::Job;
use super::name::JobId;
use super::time::Timestamp;
use super::transition::Transition;

/// Everything known about one source's jobs. The next listing is compared with this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Every job that was ever listed and not forgotten, by id.
    pub jobs: HashMap<JobId, Known>,
    /// When the last complete listing was read; `None` before the baseline.
    pub complete_at: Option<Timestamp>,
    /// The last numbers of jobs that are forgotten, as far as their ids are of interest.
    pub numbers: HashMap<JobId, u32>,
}

impl Snapshot {
    /// When `known` was last seen: by the last complete listing, unless it was missing there or changed since.
    pub fn last_seen(&self, known: &Known) -> Timestamp {
        let complete_at = self.complete_at.filter(|_| known.missing == 0 && !known.gone);
        complete_at.map_or(known.seen_at, |at| at.max(known.seen_at))
    }
}

/// One job and what the differ remembers of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The row as last accepted.
    pub job: Job,
    /// How many transitions of this job were observed: the order of its deliveries and a part of their ids.
    pub seq: u32,
    /// When the job was first seen in its present status.
    pub status_since: Timestamp,
    /// When this row was last written or last seen before it went missing.
    pub seen_at: Timestamp,
    /// Complete listings in a row that did not show it.
    pub missing: u8,
    /// Complete listings in a row that showed it in an older state that was not believed.
    pub stale: u8,
    /// The job was declared gone. Kept, so that a return is recognised.
    pub gone: bool,
}

/// One row of a snapshot to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The row.
    pub known: Known,
    /// The step the job made, if it made one.
    pub transition: Option<Arc<Transition>>,
}
