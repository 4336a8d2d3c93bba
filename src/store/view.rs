//! What people and programs look at: pages of sources, jobs, transitions, alerts and deliveries, and how the outbox stands.
//!
//! A page is bounded in rows and in work, because the thread that reads it is the one that writes what polls decide. It ends
//! with a [`Cursor`]: the place of its last row, not a number of rows, so that rows which are added meanwhile move nothing. A
//! row that changed its place meanwhile (a finding that fired anew, a job that went on) is seen at its new place, by whoever looks again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Trouble;
use crate::model::alert::Severity;
use crate::model::job::{Job, Status, Text};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName, TransitionId};
use crate::model::time::Timestamp;
use crate::model::transition::State;

/// A page has no more rows than this, whatever was asked for.
pub const PAGE_MAX: usize = 1_000;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T, K: Key> {
    /// The rows; there may be fewer than were asked for, and none, although others follow.
    pub items: Vec<T>,
    /// Where the next page begins; `None` when this one is the last.
    pub next: Option<Cursor<K>>,
}

impl<T, K: Key> Default for Page<T, K> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

/// What a list is in the order of.
pub trait Key: Clone + Serialize + DeserializeOwned {}
impl<K: Clone + Serialize + DeserializeOwned> Key for K {}

/// A place in a list: behind the row with this key. As a text it is opaque, and fit for a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor<K>(pub K);

/// Places in the list of sources: a name.
pub type SourceKey = (SourceName,);
/// Places in the list of jobs: since when they have been in their status, in microseconds, and which they are.
pub type JobKey = (i64, SourceName, JobId);
/// Places in the lists of transitions and of deliveries: a time in microseconds, and their number.
pub type NumberKey = (i64, i64);
/// Places in the list of alerts: when they last fired, in microseconds, and which they are.
pub type AlertKey = (i64, AlertId);

impl<K: Key> fmt::Display for Cursor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = serde_json::to_vec(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&BASE64URL_NOPAD.encode(&key))
    }
}

impl<K: Key> FromStr for Cursor<K> {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let key = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| ())?;
        serde_json::from_slice(&key).map(Self).map_err(|_| ())
    }
}

impl<K: Key> Serialize for Cursor<K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which sources to look at.
#[derive(Clone, Debug, Default)]
pub struct SourceFilter {
    /// Only this one.
    pub source: Option<SourceName>,
    /// Only what comes after this place.
    pub before: Option<Cursor<SourceKey>>,
    /// At most so many.
    pub limit: usize,
}

/// A source that was polled, as people look at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceView {
    /// Its name.
    pub name: SourceName,
    /// When its last complete listing was; `None` before the first.
    pub complete_at: Option<Timestamp>,
    /// Since when no listing was complete; `None` while they are.
    pub blind_since: Option<Timestamp>,
    /// Since when it is blind as the operator was told; `None` while nothing is told.
    pub told_since: Option<Timestamp>,
    /// How many jobs are in which status.
    pub jobs: BTreeMap<String, u64>,
    /// How many are gone and not forgotten.
    pub gone: u64,
}

/// Which jobs to look at.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only this source's.
    pub source: Option<SourceName>,
    /// Only those in one of these states, if there are any here; [`State::Unseen`] is none's.
    pub states: Vec<State>,
    /// Only those in their status from this time on.
    pub since: Option<Timestamp>,
    /// Only the job with this id, and those on a resource with this name or id.
    pub job: Option<String>,
    /// Only what comes after this place.
    pub before: Option<Cursor<JobKey>>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// A job as people look at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobView {
    /// Where it is listed.
    pub source: SourceName,
    /// The row as last accepted.
    pub job: Job,
    /// When it was first seen in its status.
    pub status_since: Timestamp,
    /// When this row was written, or last seen before it went missing.
    pub seen_at: Timestamp,
    /// Transitions that were observed.
    pub transitions: u32,
    /// Complete listings in a row that did not show it.
    pub missing: u8,
    /// It is no longer there.
    pub gone: bool,
}

/// Which transitions to look at.
#[derive(Clone, Debug, Default)]
pub struct TransitionFilter {
    /// Only this source's.
    pub source: Option<SourceName>,
    /// Only this job's.
    pub job: Option<String>,
    /// Only from this state.
    pub from: Option<State>,
    /// Only to this one.
    pub to: Option<State>,
    /// Only those seen at or after this time.
    pub since: Option<Timestamp>,
    /// Only what comes after this place.
    pub before: Option<Cursor<NumberKey>>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// A transition as people look at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransitionView {
    /// Its id.
    pub id: TransitionId,
    /// The listing it was seen in.
    pub source: SourceName,
    /// The job after the step, as it was then.
    pub job: Job,
    /// The last state observed before.
    pub from: State,
    /// The state observed.
    pub to: State,
    /// When it was last seen in `from`.
    pub seen_before: Option<Timestamp>,
    /// When it was first seen in `to`.
    pub seen_at: Timestamp,
    /// States between the two that no listing showed.
    pub skipped: Vec<Status>,
    /// It was noticed after a gap in watching.
    pub late: bool,
    /// Its number in the job's history.
    pub seq: u32,
}

/// Which alerts to look at.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// Only this source's.
    pub source: Option<SourceName>,
    /// Only this rule's.
    pub rule: Option<RuleId>,
    /// Only those that matter so much.
    pub severity: Option<Severity>,
    /// Only those that last spoke of this job.
    pub job: Option<String>,
    /// Only those that stand; `false` for those that are over; `None` for all.
    pub standing: Option<bool>,
    /// Only those that fired at or after this time.
    pub since: Option<Timestamp>,
    /// Only what comes after this place.
    pub before: Option<Cursor<AlertKey>>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// A rule's finding as people look at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertView {
    /// Its id.
    pub id: AlertId,
    /// The rule.
    pub rule: RuleId,
    /// Where.
    pub source: SourceName,
    /// How much it mattered, the last time.
    pub severity: Severity,
    /// It is not over.
    pub standing: bool,
    /// The id of the job it last spoke of.
    pub subject: JobId,
    /// That job as it is now, if it is known.
    pub job: Option<Job>,
    /// The resource it is about.
    pub resource: Option<Text>,
    /// How many transitions the rule matched since it began.
    pub count: u32,
    /// The first of them.
    pub first_seen: Timestamp,
    /// The last.
    pub last_seen: Timestamp,
    /// Who was told of it, or of that job, since it began, in the order of their names.
    pub told: Vec<ToldView>,
    /// Jobs of which nobody was told, and what forbade it: a silence, or the hours of the rule.
    pub muted: Vec<MutedView>,
}

/// What a receiver was told of an alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToldView {
    /// Who.
    pub receiver: ReceiverName,
    /// With which delivery.
    pub delivery: DeliveryId,
    /// When that was decided.
    pub decided_at: Timestamp,
    /// `held`, `pending`, `delivered`, `dead`, `dropped`; `forgotten` when the delivery is no longer kept.
    pub state: String,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
    /// Matches since then that were held back.
    pub held_back: u32,
}

/// A job's part in an alert that nobody was told of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MutedView {
    /// Which job.
    pub job: JobId,
    /// What forbade it.
    pub by: String,
}

/// How the outbox stands for one receiver. Follow-ups are owed to `follow_up/NAME`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutboxView {
    /// Who.
    pub receiver: ReceiverName,
    /// Deliveries that are owed.
    pub pending: u64,
    /// When the oldest of them was decided.
    pub oldest_at: Option<Timestamp>,
    /// Notifications that wait to be told with others.
    pub held: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// What the operator was told of its trouble.
    pub trouble: Trouble,
}

#[cfg(test)]
mod tests {
    use super::{Cursor, JobKey, NumberKey};

    #[test]
    fn a_cursor_is_fit_for_a_url_and_reads_back_and_one_of_another_list_does_not() {
        let cursor: Cursor<JobKey> = Cursor((-5, "a/b".into(), "任务 &?".into()));
        let text = cursor.to_string();
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{text}");
        assert_eq!(text.parse(), Ok(cursor));
        assert!(text.parse::<Cursor<NumberKey>>().is_err());
        assert!("%".parse::<Cursor<NumberKey>>().is_err() && "".parse::<Cursor<NumberKey>>().is_err());
    }
}
