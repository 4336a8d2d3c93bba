//! Two snapshots in, transitions out: which row replaces which, what was passed unseen, what is missing, what is gone.
//!
//! The rules of replacement, with `u` a row's `updated_at` and `u'` that of the row already known:
//!
//! | known | row | decision |
//! | --- | --- | --- |
//! | nothing | any | a job first seen |
//! | created at c | created at c' > c | the id was used again: a job first seen |
//! | S | S | no transition; the newer reason and times are kept, older ones ignored |
//! | S | T, u > u' | a transition, backwards too: a re-run is real |
//! | S | T, u < u' | stale, unless T is final and S is not: a final fact is believed |
//! | S | T, u = u' or unreadable | a transition if it leads forward or to `Failed`, or if either word is unknown; else stale |
//!
//! A stale row is believed after [`Policy::stale_after`] complete listings in a row that show it. A job counts as missing only in
//! a complete listing, and as gone only after [`Policy::gone_after`] of those and a 404 from the single-job call.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::job::{Job, Status};
use crate::model::listing::{Listing, Point, Rows};
use crate::model::name::{JobId, SourceName, TransitionId, derive};
use crate::model::snapshot::{Change, Known, Snapshot};
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};

/// What the single-job call said about jobs that listings no longer show.
pub type Points = BTreeMap<JobId, Point>;

/// The numbers a comparison depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Complete listings without a job before it may be gone.
    pub gone_after: u8,
    /// Complete listings in a row that show a stale row before it is believed.
    pub stale_after: u8,
    /// When more than this share of the jobs, in percent, is missing at once, the source is at fault and not the jobs.
    pub vanish_percent_max: u8,
    /// A transition last seen before longer ago than this is marked late.
    pub late_after: Duration,
    /// At the baseline, jobs that changed within this time are told as first seen; `None` tells of none.
    pub baseline_within: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            gone_after: 3,
            stale_after: 10,
            vanish_percent_max: 50,
            late_after: Duration::from_secs(300),
            baseline_within: None,
        }
    }
}

/// Fewer jobs than this may vanish at once, whatever share they are.
const VANISHED_MIN: usize = 5;

/// What a listing changes. Jobs that did not change are in neither list, and were not copied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Rows of the snapshot to write, each with what happened to it.
    pub changes: Vec<Change>,
    /// This listing is the first complete one: everything in it was recorded and nothing is news.
    pub baseline: bool,
    /// Rows that were older than what is known and were not believed.
    pub stale: usize,
}

impl Difference {
    /// The steps, in the order of the listing.
    pub fn transitions(&self) -> impl Iterator<Item = &Arc<Transition>> {
        self.changes.iter().filter_map(|change| change.transition.as_ref())
    }
}

/// Jobs whose next absence would make them gone, unfinished ones first: ask the single-job call about these.
pub fn to_confirm<'a>(before: &'a Snapshot, listing: &Listing, policy: &Policy, max: usize) -> Vec<&'a JobId> {
    let Listing::Complete(rows) = listing else { return Vec::new() };
    if before.complete_at.is_none() {
        return Vec::new();
    }
    let mut due = absent(before, rows);
    due.retain(|known| known.missing.saturating_add(1) >= policy.gone_after);
    due.sort_by_key(|known| (known.job.status.is_final(), known.job.id.clone()));
    due.into_iter().take(max).map(|known| &known.job.id).collect()
}

/// Jobs to ask for one by one when most have vanished at once: enough to tell a fault of the listing from a deletion.
pub fn to_sample<'a>(before: &'a Snapshot, listing: &Listing, max: usize) -> Vec<&'a JobId> {
    let mut absent = absent(before, listing.rows());
    absent.sort_by_key(|known| (known.job.status.is_final(), known.job.id.clone()));
    absent.into_iter().take(max).map(|known| &known.job.id).collect()
}

/// How many known jobs the listing does not show, if that is more than can be believed of `living` jobs.
pub fn vanished(before: &Snapshot, listing: &Listing, policy: &Policy, living: usize) -> Option<usize> {
    let Listing::Complete(rows) = listing else { return None };
    before.complete_at?;
    let absent = absent(before, rows);
    // Those that were missing before are already on their way out.
    let fresh = absent.iter().filter(|known| known.missing == 0).count();
    let many = fresh >= VANISHED_MIN && fresh * 100 > living * usize::from(policy.vanish_percent_max);
    many.then_some(absent.len())
}

/// Compares a listing with what is known. `before` need not hold jobs whose rows say exactly what is known.
pub fn diff(
    source: &SourceName,
    before: &Snapshot,
    listing: Listing,
    mut points: Points,
    policy: &Policy,
    now: Timestamp,
) -> Difference {
    let (rows, complete) = match listing {
        Listing::Complete(rows) => (rows, true),
        Listing::Brief(rows) | Listing::Incomplete { rows, .. } => (rows, false),
    };
    let first = before.complete_at.is_none();
    if first && !complete {
        // What an incomplete listing shows before the baseline would be told as new although it is only unknown.
        return Difference::default();
    }
    let mut difference = Difference { baseline: first, ..Difference::default() };
    let differ = Differ { source, before, policy, now, complete, first };
    if complete && !first {
        let mut absent = absent(before, &rows);
        // Whoever decides this decides it in the same order: which of many is told first depends on it.
        absent.sort_by(|a, b| a.job.id.cmp(&b.job.id));
        let unseen = absent.into_iter().filter_map(|known| differ.unseen(known, points.remove(&known.job.id)));
        difference.changes.extend(unseen);
    }
    for job in rows.jobs {
        match differ.row(job) {
            Row::Same => {}
            Row::Stale(change) => {
                difference.stale += 1;
                difference.changes.extend(change);
            }
            Row::Changed(change) => difference.changes.push(*change),
        }
    }
    difference
}

/// Known jobs that the rows do not show.
fn absent<'a>(before: &'a Snapshot, rows: &Rows) -> Vec<&'a Known> {
    let shown: HashSet<&JobId> = rows.jobs.iter().map(|job| &job.id).collect();
    before.jobs.values().filter(|known| !known.gone && !shown.contains(&known.job.id)).collect()
}

struct Differ<'a> {
    source: &'a SourceName,
    before: &'a Snapshot,
    policy: &'a Policy,
    now: Timestamp,
    complete: bool,
    first: bool,
}

enum Row {
    Same,
    Stale(Option<Change>),
    Changed(Box<Change>),
}

/// What a row that differs from what is known means.
enum Belief {
    /// The id stands for another job now.
    New,
    /// The job made a step.
    Moved,
    /// The same status, with newer words or times.
    Touched,
    /// The same status, from before what is known.
    Older,
    /// Another status, from before what is known.
    Stale,
}

impl Differ<'_> {
    fn row(&self, job: Job) -> Row {
        let Some(known) = self.before.jobs.get(&job.id) else {
            let seq = self.before.numbers.get(&job.id).copied().unwrap_or(0);
            return Row::Changed(Box::new(self.first_seen(job, seq)));
        };
        if known.job == job {
            return self.seen_again(known);
        }
        match believe(&known.job, &job) {
            Belief::Older => self.seen_again(known),
            Belief::New => Row::Changed(Box::new(self.first_seen(job, known.seq))),
            Belief::Moved => Row::Changed(Box::new(self.moved(known, job))),
            Belief::Touched => self.touched(known, job),
            Belief::Stale if !self.complete => Row::Stale(None),
            Belief::Stale if known.stale.saturating_add(1) >= self.policy.stale_after => {
                Row::Changed(Box::new(self.moved(known, job)))
            }
            Belief::Stale => {
                let known =
                    Known { stale: known.stale + 1, missing: 0, gone: false, seen_at: self.now, ..known.clone() };
                Row::Stale(Some(Change { known, transition: None }))
            }
        }
    }

    fn first_seen(&self, job: Job, seq: u32) -> Change {
        let told = match (self.first, self.policy.baseline_within) {
            (false, _) => true,
            (true, Some(within)) => job.updated().is_some_and(|at| self.now.since(at) <= within),
            (true, None) => false,
        };
        let skipped = if told { passed(None, &job.status) } else { Default::default() };
        let transition = told.then(|| {
            let to = State::Is(job.status.clone());
            self.transition(Arc::new(job.clone()), State::Unseen, to, None, skipped, seq + 1)
        });
        let seq = seq + u32::from(told);
        let known = Known { job, seq, status_since: self.now, seen_at: self.now, missing: 0, stale: 0, gone: false };
        Change { known, transition }
    }

    fn moved(&self, known: &Known, job: Job) -> Change {
        let (from, to) = (State::Is(known.job.status.clone()), State::Is(job.status.clone()));
        let skipped = passed(Some(&known.job.status), &job.status);
        let seen_before = Some(self.before.last_seen(known));
        let transition = self.transition(Arc::new(job.clone()), from, to, seen_before, skipped, known.seq + 1);
        let seq = known.seq + 1;
        let mut job = job;
        if job.updated() < known.job.updated() {
            // An ending that was believed although it is older: the newer time stays, so that the row it replaced, which
            // another backend may still show, does not take it back.
            job.updated_at.clone_from(&known.job.updated_at);
        }
        let known = Known { job, seq, status_since: self.now, seen_at: self.now, missing: 0, stale: 0, gone: false };
        Change { known, transition: Some(transition) }
    }

    /// A row that says what is known: written only if the job had been missing or doubted.
    fn seen_again(&self, known: &Known) -> Row {
        let settled = known.missing == 0 && !known.gone && known.stale == 0;
        if settled { Row::Same } else { self.touched(known, known.job.clone()) }
    }

    fn touched(&self, known: &Known, job: Job) -> Row {
        let known = Known {
            job,
            seq: known.seq,
            status_since: known.status_since,
            seen_at: self.now,
            missing: 0,
            stale: 0,
            gone: false,
        };
        Row::Changed(Box::new(Change { known, transition: None }))
    }

    /// A job that a complete listing does not show.
    fn unseen(&self, known: &Known, point: Option<Point>) -> Option<Change> {
        let last_seen = self.before.last_seen(known);
        let enough = known.missing.saturating_add(1) >= self.policy.gone_after;
        match point {
            Some(Point::Found(job)) => match self.row(job) {
                Row::Same => None,
                Row::Stale(change) => change,
                Row::Changed(change) => Some(*change),
            },
            Some(Point::NotFound) if enough => {
                let job = Arc::new(known.job.clone());
                let from = State::Is(known.job.status.clone());
                let seq = known.seq + 1;
                let transition = self.transition(job, from, State::Gone, Some(last_seen), Vec::new(), seq);
                let missing = known.missing.saturating_add(1);
                let known = Known { seq, missing, gone: true, seen_at: last_seen, ..known.clone() };
                Some(Change { known, transition: Some(transition) })
            }
            // Waiting for the single-job call to answer: the row stands as it is.
            Some(Point::Unknown | Point::NotFound) | None if known.missing >= self.policy.gone_after => None,
            Some(Point::Unknown | Point::NotFound) | None => {
                let known = Known { missing: known.missing + 1, seen_at: last_seen, ..known.clone() };
                Some(Change { known, transition: None })
            }
        }
    }

    fn transition(
        &self,
        job: Arc<Job>,
        from: State,
        to: State,
        seen_before: Option<Timestamp>,
        skipped: Vec<Status>,
        seq: u32,
    ) -> Arc<Transition> {
        let created = job.created_at.as_deref().unwrap_or_default();
        let parts = ["jobwatch/transition/v1", self.source.as_str(), job.id.as_str(), created, &seq.to_string()];
        let id = TransitionId::from(derive("evt", &parts));
        let watched_until = seen_before.or(self.before.complete_at);
        let late = watched_until.is_some_and(|at| self.now.since(at) > self.policy.late_after);
        let source = self.source.clone();
        Arc::new(Transition {
            id,
            source,
            job,
            from,
            to,
            seen_before,
            seen_at: self.now,
            skipped,
            changed: Vec::new(),
            late,
            seq,
        })
    }
}

/// The table in the module's words.
fn believe(known: &Job, job: &Job) -> Belief {
    if let (Some(then), Some(now)) = (known.created(), job.created())
        && now > then
    {
        return Belief::New;
    }
    let newer = match (known.updated(), job.updated()) {
        (Some(then), Some(now)) => now.cmp(&then),
        (None, _) | (_, None) => std::cmp::Ordering::Equal,
    };
    if known.status == job.status {
        return if newer.is_lt() { Belief::Older } else { Belief::Touched };
    }
    let final_fact = job.status.is_final() && !known.status.is_final();
    let moved = match newer {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => final_fact,
        std::cmp::Ordering::Equal => match (known.status.rank(), job.status.rank()) {
            (Some(then), Some(now)) => now > then || job.status == Status::Failed,
            (None, _) => true,
            (_, None) => !known.status.is_final(),
        },
    };
    if moved { Belief::Moved } else { Belief::Stale }
}

/// The states between `from` and `to` that a job usually passes and that were not seen.
fn passed(from: Option<&Status>, to: &Status) -> Vec<Status> {
    let start = match from {
        None => Some(0),
        Some(status) => status.rank().map(|rank| rank + 1),
    };
    let (Some(start), Some(end)) = (start, to.rank()) else { return Vec::new() };
    let between = |status: &Status| status.rank().is_some_and(|rank| rank >= start && rank < end);
    Status::KNOWN.into_iter().filter(between).collect()
}
