//! Watching a source: list, plan, commit, wait.

use std::sync::Arc;
use std::time::Duration;

use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use super::{Agent, Mode, SourceSetup, Strategy};
use crate::diff::{Points, to_confirm, to_sample, vanished};
use crate::model::index::Index;
use crate::model::job::Job;
use crate::model::listing::{Fault, FaultKind, Listing, Point};
use crate::model::name::{AlertId, JobId, SourceName};
use crate::model::time::Timestamp;
use crate::plan::{Input, Paced, Plan, plan};
use crate::rules::{Facts, RuleSet, class_of};
use crate::store::share::Fence;
use crate::store::{self, Wanted};

/// With `auto`, sources with more jobs than this are mostly read briefly: below, a whole listing costs as little.
const AUTO_MIN: usize = 300;
/// The first polls of many sources are so far apart.
const SPREAD_START: Duration = Duration::from_millis(10);

/// Single-job calls in one poll; more missing jobs wait for the next.
const POINTS_MAX: usize = 20;
/// All single-job calls of one poll may take this long.
const CONFIRM_MAX: Duration = Duration::from_secs(60);
/// The share of the interval by which polls are spread.
const SPREAD: f64 = 0.1;
/// A source that answers with faults is asked at least this often.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Longest request for rest that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// A source that another replica polls is looked at so often without a sign that it changed hands.
const UNLEASED_LOOK: Duration = Duration::from_secs(600);
/// A decision on which another replica was quicker is made again so often.
const TURNS_MAX: u32 = 50;
/// Before that, some part of this.
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(10);
/// What a poll may take, all pages and retries in it.
const POLL_MAX: Duration = Duration::from_secs(400);

/// Polls a source until the agent stops. The first poll is at once; with many sources, each has its turn within the first
/// interval.
pub(super) async fn run(agent: Arc<Agent>, at: usize, shutdown: Shutdown, heart: Heart) {
    let setup = &agent.sources[at];
    let turn = u32::try_from(at).unwrap_or(u32::MAX);
    let whole = SPREAD_START.saturating_mul(u32::try_from(agent.sources.len()).unwrap_or(u32::MAX));
    let mut wait = whole.min(setup.poll_every).mul_f64(f64::from(turn) / agent.sources.len().max(1) as f64);
    let first = wait;
    let mut slowness = Slowness::default();
    let mut leases = agent.leases.changes();
    loop {
        if agent.leases.permit(&setup.source.facts().name).is_none() {
            heart.beat(UNLEASED_LOOK);
            tokio::select! {
                _ = leases.changed() => {}
                () = tokio::time::sleep(UNLEASED_LOOK) => {}
                () = shutdown.requested() => return,
            }
            // Whoever takes over many sources does not poll them all at once.
            (wait, slowness) = (first, Slowness::default());
            continue;
        }
        heart.beat(wait);
        tokio::select! {
            () = tokio::time::sleep(wait), if !wait.is_zero() => {}
            () = shutdown.requested() => return,
            () = std::future::ready(()), if wait.is_zero() => {}
        }
        if agent.leases.permit(&setup.source.facts().name).is_none() {
            continue;
        }
        heart.beat(POLL_MAX);
        let polled = tokio::select! {
            polled = agent.poll(at) => polled,
            // A poll that has not committed can be abandoned: the next one finds the same.
            () = shutdown.requested() => return,
        };
        let fault = match polled {
            Ok(plan) => plan.fault,
            Err(_) => Some(Fault { kind: FaultKind::Unavailable, text: String::new(), retry_after: None }),
        };
        wait = slowness.next(setup.poll_every, fault.as_ref(), (agent.shared.chance)());
    }
}

/// How much a source is slowed down: doubled by trouble, halved by every complete listing.
#[derive(Debug, Default)]
struct Slowness {
    doublings: u32,
}

impl Slowness {
    /// The time to the next poll: the interval, spread a little; longer after faults; never less than the cloud asked for.
    fn next(&mut self, every: Duration, fault: Option<&Fault>, chance: f64) -> Duration {
        let max = match fault.map(|fault| fault.kind) {
            None => {
                self.doublings = self.doublings.saturating_sub(1);
                u32::MAX
            }
            Some(FaultKind::Shifted | FaultKind::Vanished) => 0,
            Some(FaultKind::Unavailable | FaultKind::Malformed) => 2,
            Some(FaultKind::Throttled | FaultKind::Unauthorized | FaultKind::Misdirected) => 4,
        };
        let doublings = self.doublings.min(max);
        if fault.is_some() {
            self.doublings = (self.doublings + 1).min(max);
        }
        let spread = 1.0 - SPREAD + 2.0 * SPREAD * chance;
        let slowed = every.saturating_mul(1 << doublings.min(8));
        let slowed = if doublings > 0 { slowed.min(PAUSE_MAX.max(every)) } else { every };
        let asked = fault.and_then(|fault| fault.retry_after).unwrap_or_default().min(RETRY_AFTER_MAX);
        // Those who were asked to wait together do not come back together.
        slowed.mul_f64(spread).max(asked.mul_f64(1.0 + SPREAD * chance))
    }
}

/// Asks for jobs one by one; stops when one is not answered, or when it takes too long: the rest waits for the next poll.
async fn confirm(setup: &SourceSetup, ids: Vec<&JobId>) -> Points {
    let mut points = Points::new();
    let asking = async {
        for id in ids {
            let point = setup.source.show(id).await;
            let answered = point != Point::Unknown;
            points.insert(id.clone(), point);
            if !answered {
                return;
            }
        }
    };
    // What was answered in time counts.
    drop(tokio::time::timeout(CONFIRM_MAX, asking).await);
    points
}

/// What is remembered of a source between two polls besides what is in the store; all of it can be made anew.
#[derive(Debug, Default)]
pub(super) struct Desk {
    known: Option<Desktop>,
    /// The lease under which it is known: under another one, somebody else has polled meanwhile.
    fence: Option<Fence>,
}

#[derive(Debug)]
struct Desktop {
    index: Index,
    baseline: bool,
    /// When the listing was last read whole.
    whole_at: Option<Timestamp>,
}

impl Desktop {
    /// Whether only a whole listing will do now.
    fn must_be_whole(&self, strategy: &Strategy, now: Timestamp) -> bool {
        let brief = match strategy.mode {
            Mode::Full => false,
            Mode::Incremental => true,
            Mode::Auto => self.index.len() > AUTO_MIN,
        };
        let overdue = self.whole_at.is_none_or(|at| now.since(at) >= strategy.full_every || at > now);
        // Jobs that are missing wait for whole listings to say whether they are gone.
        !brief || !self.baseline || overdue || !self.index.missing().is_empty()
    }
}

impl Agent {
    /// One poll: list, plan, commit.
    pub(super) async fn poll(&self, at: usize) -> Result<Plan, store::Error> {
        let setup = &self.sources[at];
        let mut desk = self.desks[at].lock().await;
        let watch = self.shared.clock.stopwatch();
        let polled = async {
            let name = &setup.source.facts().name;
            let away = || store::Error::Fenced(format!("{name} is not polled here: no lease for it is held"));
            let fence = self.leases.permit(name).ok_or_else(away)?;
            if desk.fence != fence {
                *desk = Desk { known: None, fence: fence.clone() };
            }
            let plan = self.decide(setup, &mut desk).await?;
            let deliveries = self.commit(&plan, fence).await?;
            Ok((plan, deliveries))
        };
        match polled.await {
            Ok((plan, deliveries)) => {
                desk.note(&plan);
                // First: who hears of the poll may ask at once whether the source is seen.
                self.lookout.note(&plan, self.shared.store.is_shared());
                self.shared.observer.see(&Seen::Polled { plan: &plan, deliveries, took: watch.elapsed() });
                let source = &plan.source.name;
                self.shared.observer.see(&Seen::Remarked { source, remarks: &setup.source.remarks() });
                Ok(plan)
            }
            Err(error) => {
                // What the store has now is not known for sure: the index is made anew.
                desk.known = None;
                self.doubt(&error);
                self.shared.observer.see(&Seen::PollLost { source: &setup.source.facts().name, error: &error });
                Err(error)
            }
        }
    }

    /// Lists a source and decides what that means. Writes nothing.
    pub(super) async fn decide(&self, setup: &SourceSetup, desk: &mut Desk) -> Result<Plan, store::Error> {
        let facts = setup.source.facts();
        let desktop = match &mut desk.known {
            Some(desktop) => desktop,
            empty @ None => {
                let (index, baseline) = self.shared.store.index(&facts.name).await?;
                empty.insert(Desktop { index, baseline, whole_at: None })
            }
        };
        let whole = desktop.must_be_whole(&setup.strategy, self.shared.clock.now());
        let listing = setup.source.list(&desktop.index, whole).await;
        let rules = self.rules();
        let wanted = |found: &[&Job]| {
            let rows: Vec<&Job> = listing.rows().jobs.iter().chain(found.iter().copied()).collect();
            remembered(&rules, &facts.name, &rows, self.shared.clock.now(), wanted(&listing, &desktop.index))
        };
        let mut before = self.shared.store.load(&facts.name, wanted(&[])).await?;
        let living = desktop.index.len();
        let suspect = vanished(&before.snapshot, &listing, &setup.policy, living).is_some();
        let ask = match suspect {
            true => to_sample(&before.snapshot, &listing, POINTS_MAX),
            false => to_confirm(&before.snapshot, &listing, &setup.policy, POINTS_MAX),
        };
        let points = confirm(setup, ask).await;
        let found = |point: &'_ Point| if let Point::Found(job) = point { Some(job.clone()) } else { None };
        let found: Vec<Job> = points.values().filter_map(found).collect();
        if !found.is_empty() {
            // A job that was only missing may have news of its own.
            before = self.shared.store.load(&facts.name, wanted(&found.iter().collect::<Vec<_>>())).await?;
        }
        let now = self.shared.clock.now();
        if matches!(listing, Listing::Complete(_)) {
            desktop.whole_at = Some(now);
        }
        let policy = &setup.policy;
        Ok(plan(Input { source: facts, before: &before, living, listing, points, rules: &rules, policy, now }))
    }

    /// Writes a plan in one transaction and wakes whoever has something to send.
    async fn commit(&self, plan: &Plan, fence: Option<Fence>) -> Result<usize, store::Error> {
        // How fast a receiver is told is decided by one poll after the other.
        let _turn = match plan.owed.is_empty() {
            true => None,
            false => Some(self.turns.lock().await),
        };
        for _ in 1..TURNS_MAX {
            match self.try_commit(plan, fence.clone()).await {
                // Those who were overtaken together do not come back together.
                Err(store::Error::Overtaken) => {
                    tokio::time::sleep(OVERTAKEN_PAUSE.mul_f64((self.shared.chance)())).await;
                }
                end => return end,
            }
        }
        self.try_commit(plan, fence).await
    }

    async fn try_commit(&self, plan: &Plan, fence: Option<Fence>) -> Result<usize, store::Error> {
        let (Paced { send, hold, groups }, turns) = self.pace(plan).await?;
        let holds = !hold.is_empty();
        let written = self
            .shared
            .store
            .commit(store::Commit {
                source: plan.source.name.clone(),
                at: plan.at,
                complete: plan.complete,
                changes: plan.difference.changes.clone(),
                alerts: plan.alerts.clone(),
                sight: plan.sight,
                deliveries: self.freeze(&send, Some(plan.at)),
                reserves: self.reserves(&send, &plan.owed),
                held: self.hold(hold, plan.at),
                groups: groups.into_iter().map(|((receiver, group), opened)| (receiver, group, opened)).collect(),
                muted: plan.muted.clone(),
                unmuted: plan.unmuted.clone(),
                fates: plan.fates.clone(),
                follow_ups: self.performer.errands(plan),
                fault: plan.fault.clone(),
                fence,
                turns,
            })
            .await?;
        send.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
        if holds {
            self.gatherer.notify_one();
        }
        if !plan.follow_ups.is_empty() {
            self.performer.nudge();
        }
        Ok(written)
    }
}

impl Desk {
    /// The plan is written: what it changed is known now.
    fn note(&mut self, plan: &Plan) {
        let Some(desktop) = &mut self.known else { return };
        plan.difference.changes.iter().for_each(|change| desktop.index.put(&change.known));
        desktop.baseline |= plan.complete;
    }
}

/// What the rules in force have to know besides the jobs that a listing has news of.
fn remembered(rules: &Arc<RuleSet>, source: &SourceName, rows: &[&Job], now: Timestamp, wanted: Wanted) -> Wanted {
    let resources = match rules.by_resource() {
        true => rows.iter().filter_map(|job| job.resource_id.clone()).collect(),
        false => Vec::new(),
    };
    let recent = rules.counted().map(|within| now.minus(within));
    let statuses = rules.timed();
    if !rules.has_wide() {
        return Wanted { statuses, resources, recent, now, ..wanted };
    }
    let (rules, source) = (Arc::clone(rules), source.clone());
    let naming = move |job: &Job| -> Vec<AlertId> {
        let class = class_of(job);
        rules.wide_findings(&Facts { job, reason_class: &class, source: &source, now }).collect()
    };
    let findings = rows.iter().flat_map(|job| naming(job)).collect();
    Wanted { statuses, resources, recent, now, findings, named: Some(Arc::new(naming)), ..wanted }
}

/// What is to be loaded to decide about a listing: the jobs it has news of, and those that a complete one does not show.
fn wanted(listing: &Listing, index: &Index) -> Wanted {
    let rows = listing.rows();
    let ids = rows.jobs.iter().map(|job| job.id.clone()).collect();
    let unlisted = match listing {
        Listing::Complete(rows) => index.unlisted(&rows.listed),
        Listing::Brief(_) | Listing::Incomplete { .. } => Default::default(),
    };
    if unlisted.is_empty() {
        return Wanted { ids, ..Wanted::default() };
    }
    let keys = index.keys();
    Wanted { ids, others: Some(Arc::new(move |id| unlisted.contains(&keys.key(id)))), ..Wanted::default() }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Fault, FaultKind, Slowness};

    fn fault(kind: FaultKind, seconds: Option<u64>) -> Fault {
        Fault { kind, text: String::new(), retry_after: seconds.map(Duration::from_secs) }
    }

    fn waits(faults: &[Option<Fault>]) -> Vec<u64> {
        let mut slowness = Slowness::default();
        let next = |fault: &Option<Fault>| slowness.next(Duration::from_secs(30), fault.as_ref(), 0.5).as_secs();
        faults.iter().map(next).collect()
    }

    #[test]
    fn a_troubled_source_is_asked_less_often_and_recovers_step_by_step() {
        let away = || Some(fault(FaultKind::Unavailable, None));
        assert_eq!(waits(&[None, away(), away(), away(), away(), None, None]), [30, 30, 60, 120, 120, 60, 30]);
        let throttled = || Some(fault(FaultKind::Throttled, None));
        let many: Vec<_> = std::iter::repeat_with(throttled).take(6).chain([None, None]).collect();
        assert_eq!(waits(&many), [30, 60, 120, 240, 300, 300, 240, 120]);
    }

    #[test]
    fn a_source_that_asked_for_rest_is_not_asked_sooner() {
        assert_eq!(waits(&[Some(fault(FaultKind::Throttled, Some(200)))]), [210]);
        let mut slowness = Slowness::default();
        assert_eq!(slowness.next(Duration::from_secs(30), None, 0.0).as_secs(), 27);
    }
}
