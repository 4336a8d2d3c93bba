//! Watching a source: list, plan, commit, wait.

use std::sync::Arc;
use std::time::Duration;

use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use super::{Agent, SourceSetup};
use crate::diff::{Points, to_confirm};
use crate::model::listing::{Fault, FaultKind, Point};
use crate::model::name::JobId;
use crate::plan::{Input, Plan, plan};
use crate::store;

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
/// What a poll may take, all pages and retries in it.
const POLL_MAX: Duration = Duration::from_secs(400);

/// Polls a source until the agent stops. The first poll is at once.
pub(super) async fn run(agent: Arc<Agent>, at: usize, shutdown: Shutdown, heart: Heart) {
    let setup = &agent.sources[at];
    let mut faults = 0_u32;
    while !shutdown.is_requested() {
        heart.beat(POLL_MAX);
        let polled = tokio::select! {
            polled = agent.poll(setup) => polled,
            // A poll that has not committed can be abandoned: the next one finds the same.
            () = shutdown.requested() => return,
        };
        let fault = match polled {
            Ok(plan) => plan.fault,
            Err(_) => Some(Fault { kind: FaultKind::Unavailable, text: String::new(), retry_after: None }),
        };
        faults = if fault.is_some() { faults.saturating_add(1) } else { 0 };
        let wait = pause(setup.poll_every, faults, fault.as_ref(), (agent.shared.chance)());
        heart.beat(wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// The time to the next poll: the interval, spread a little; longer after faults; never less than the cloud asked for.
fn pause(every: Duration, faults: u32, fault: Option<&Fault>, chance: f64) -> Duration {
    let spread = 1.0 - SPREAD + 2.0 * SPREAD * chance;
    let factor = match fault.map(|fault| fault.kind) {
        None | Some(FaultKind::Shifted) => 1,
        Some(FaultKind::Unavailable | FaultKind::Malformed | FaultKind::Throttled) => {
            1 << faults.saturating_sub(1).min(2)
        }
        Some(FaultKind::Unauthorized | FaultKind::Misdirected) => 1 << faults.saturating_sub(1).min(4),
    };
    let slowed = if factor > 1 { every.saturating_mul(factor).min(PAUSE_MAX.max(every)) } else { every };
    let asked = fault.and_then(|fault| fault.retry_after).unwrap_or_default().min(RETRY_AFTER_MAX);
    slowed.mul_f64(spread).max(asked)
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

impl Agent {
    /// One poll: list, plan, commit.
    pub(super) async fn poll(&self, setup: &SourceSetup) -> Result<Plan, store::Error> {
        let watch = self.shared.clock.stopwatch();
        let polled = async {
            let plan = self.decide(setup).await?;
            let deliveries = self.commit(&plan).await?;
            Ok((plan, deliveries))
        };
        match polled.await {
            Ok((plan, deliveries)) => {
                self.shared.observer.see(&Seen::Polled { plan: &plan, deliveries, took: watch.elapsed() });
                Ok(plan)
            }
            Err(error) => {
                self.shared.observer.see(&Seen::PollLost { source: &setup.source.facts().name, error: &error });
                Err(error)
            }
        }
    }

    /// Lists a source and decides what that means. Writes nothing.
    pub(super) async fn decide(&self, setup: &SourceSetup) -> Result<Plan, store::Error> {
        let facts = setup.source.facts();
        let listing = setup.source.list().await;
        let before = self.shared.store.load(&facts.name).await?;
        let points = confirm(setup, to_confirm(&before.snapshot, &listing, &setup.policy, POINTS_MAX)).await;
        let now = self.shared.clock.now();
        let rules = self.rules();
        let (policy, watch) = (&setup.policy, &self.shared.watch);
        Ok(plan(Input { source: facts, before: &before, listing, points, rules: &rules, policy, watch, now }))
    }

    /// Writes a plan in one transaction and wakes whoever has something to send.
    async fn commit(&self, plan: &Plan) -> Result<usize, store::Error> {
        let deliveries = self.freeze(&plan.owed);
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
                deliveries,
            })
            .await?;
        plan.owed.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Fault, FaultKind, pause};

    fn fault(kind: FaultKind, seconds: Option<u64>) -> Fault {
        Fault { kind, text: String::new(), retry_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn a_troubled_source_is_asked_less_often_and_never_sooner_than_it_asked() {
        let every = Duration::from_secs(30);
        let middle = |faults, fault: Option<Fault>| pause(every, faults, fault.as_ref(), 0.5).as_secs();
        assert_eq!(middle(0, None), 30);
        assert_eq!(middle(1, Some(fault(FaultKind::Unavailable, None))), 30);
        assert_eq!(middle(9, Some(fault(FaultKind::Unavailable, None))), 120);
        assert_eq!(middle(9, Some(fault(FaultKind::Unauthorized, None))), 300);
        assert_eq!(middle(1, Some(fault(FaultKind::Throttled, Some(200)))), 200);
        assert_eq!(pause(every, 0, None, 0.0).as_secs(), 27);
    }
}
