//! What is known of a source's jobs, in sixteen bytes each: enough to tell a row that changed from one that did not.
//!
//! A listing of a hundred thousand jobs of which three changed is compared with this while it is read: three rows are
//! kept, and only what is known of those three is loaded. The index is made from the store and can be thrown away at any
//! time. It hashes with keys of its own, so that no text from outside can make two rows look alike.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::job::{FIELDS, Job};
use super::name::JobId;
use super::snapshot::Known;

/// A job's place in an index.
pub type Key = u64;

/// The digest of a row that is to be looked at whatever it says.
const LOOK: u64 = 0;

/// One source's jobs that are not gone.
#[derive(Clone, Debug, Default)]
pub struct Index {
    hasher: RandomState,
    rows: HashMap<Key, u64>,
    unfinished: HashSet<JobId>,
    missing: HashSet<JobId>,
}

impl Index {
    /// Takes what is known of a job now.
    pub fn put(&mut self, known: &Known) {
        let Known { job, missing, stale, gone, .. } = known;
        let key = self.key(job.id.as_str());
        if *gone || job.status.is_final() {
            self.unfinished.remove(&job.id);
        } else {
            self.unfinished.insert(job.id.clone());
        }
        if *gone || *missing == 0 {
            self.missing.remove(&job.id);
        } else {
            self.missing.insert(job.id.clone());
        }
        match (gone, *missing == 0 && *stale == 0) {
            (true, _) => drop(self.rows.remove(&key)),
            (false, true) => drop(self.rows.insert(key, self.digest(&job.fields()))),
            (false, false) => drop(self.rows.insert(key, LOOK)),
        }
    }

    /// The key of a job.
    pub fn key(&self, id: &str) -> Key {
        self.hasher.hash_one(id)
    }

    /// What gives keys without the rows.
    pub fn keys(&self) -> Self {
        Self { hasher: self.hasher.clone(), ..Self::default() }
    }

    /// Whether this row says exactly what is known, and nothing about the job is in doubt.
    pub fn is_known(&self, key: Key, fields: &[Option<&str>; FIELDS]) -> bool {
        self.rows.get(&key).is_some_and(|known| *known == self.digest(fields))
    }

    /// Whether the job is known at all.
    pub fn has(&self, key: Key) -> bool {
        self.rows.contains_key(&key)
    }

    fn digest(&self, fields: &[Option<&str>; FIELDS]) -> u64 {
        self.hasher.hash_one(fields).max(LOOK + 1)
    }

    /// The keys of jobs that are not among those listed.
    pub fn unlisted(&self, listed: &HashSet<Key>) -> HashSet<Key> {
        self.rows.keys().filter(|key| !listed.contains(key)).copied().collect()
    }

    /// How many jobs there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The jobs that have not ended.
    pub fn unfinished(&self) -> &HashSet<JobId> {
        &self.unfinished
    }

    /// The jobs that the last complete listing did not show.
    pub fn missing(&self) -> &HashSet<JobId> {
        &self.missing
    }

    /// Whether a job says something that is not known.
    pub fn is_news(&self, job: &Job) -> bool {
        !self.is_known(self.key(job.id.as_str()), &job.fields())
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Job, Known};
    use crate::model::job::Status;
    use crate::model::time::Timestamp;

    fn known(status: Status, missing: u8, gone: bool) -> Known {
        let at = Timestamp::default();
        Known { job: Job::bare("a", status), seq: 0, status_since: at, seen_at: at, missing, stale: 0, gone }
    }

    #[test]
    fn a_row_is_news_unless_it_says_exactly_what_is_known_and_nothing_is_in_doubt() {
        let mut index = Index::default();
        let job = Job::bare("a", Status::Running);
        assert!(index.is_news(&job));
        index.put(&known(Status::Running, 0, false));
        assert!(!index.is_news(&job));
        assert!(index.is_news(&Job::bare("a", Status::Failed)));
        assert!(index.is_news(&Job { reason: Some("x".into()), ..job.clone() }));
        index.put(&known(Status::Running, 1, false));
        assert!(index.is_news(&job), "a job that was missing is looked at");
        index.put(&known(Status::Running, 3, true));
        assert!(index.is_news(&job) && index.is_empty(), "a job that is gone is no longer counted");
    }
}
