//! Telling what is held: messages that wait for their group, or for the receiver's rate, put into digests when they are due.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use crate::model::alert::Severity;
use crate::model::delivery::{Frozen, Held, Lane, Owed, Reserve};
use crate::model::name::ReceiverName;
use crate::model::time::Timestamp;
use crate::plan::{DIGEST_BYTES_MAX, DIGEST_MAX, Paced, Plan, Rate, Room, digest, digests, gather, is_end, pace};
use crate::store::{self, Gathered, PaceOf, Turns};

/// What is held is looked at this often without a nudge: a rate that is used up has room again after a while.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While nothing is held.
const IDLE: Duration = Duration::from_secs(5);
/// No look follows another sooner, unless something was held in between.
const SHORTEST: Duration = Duration::from_millis(10);
/// Digests that are made of one receiver's held messages at one look.
const DIGESTS_MAX: usize = 10;

/// Gathers until the agent stops.
pub(super) async fn run(agent: Arc<Agent>, shutdown: Shutdown, heart: Heart) {
    loop {
        heart.beat(IDLE);
        let next = agent.gather_due().await;
        let wait = pause(next, agent.shared.clock.now());
        tokio::select! {
            () = agent.gatherer.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// How long nothing has to be done.
fn pause(next: Option<Timestamp>, now: Timestamp) -> Duration {
    match next {
        None => IDLE,
        // What is still held after a look waits for the rate, or for a message that is tried again.
        Some(due) if due <= now => LOOK_EVERY,
        Some(due) => due.since(now).clamp(SHORTEST, LOOK_EVERY),
    }
}

impl Agent {
    /// What a plan owes, sorted into what is told now and what is held.
    pub(super) async fn pace(&self, plan: &Plan) -> Result<(Paced, Turns), store::Error> {
        if plan.owed.is_empty() {
            return Ok((Paced::default(), Turns::new()));
        }
        let mut lanes: BTreeMap<&ReceiverName, HashSet<&Lane>> = BTreeMap::new();
        for owed in &plan.owed {
            lanes.entry(&owed.receiver).or_default().insert(&owed.lane);
        }
        let of = |(receiver, lanes): (&ReceiverName, HashSet<&Lane>)| {
            self.pace_of(receiver, lanes.into_iter().cloned().collect(), plan.at)
        };
        let pacing = self.shared.store.pacing(lanes.into_iter().map(of).collect(), plan.at).await?;
        let paced = pace(plan.owed.clone(), &pacing, &|receiver| self.rate(receiver), plan.at);
        Ok((paced, pacing.turns.into_iter().collect()))
    }

    /// In its final wording each, should it be alone in the end.
    pub(super) fn hold(&self, hold: Vec<(Owed, String, Timestamp)>, seen_at: Timestamp) -> Vec<Held> {
        let held = |(owed, group, due_at): (Owed, String, Timestamp)| {
            let frozen = self.freeze(std::slice::from_ref(&owed), Some(seen_at)).pop()?;
            let class = owed.pace.map(|pace| pace.class).unwrap_or_default();
            let data = owed.notification.data();
            Some(Held { frozen, severity: owed.notification.severity, class, group, due_at, data })
        };
        hold.into_iter().filter_map(held).collect()
    }

    /// Tells what is held and due, as far as the receivers' rates allow. Returns when to look again, if anything is held.
    pub(super) async fn gather_due(&self) -> Option<Timestamp> {
        let _turn = self.turns.lock().await;
        let gathered = async {
            let now = self.shared.clock.now();
            let holding = self.shared.store.holding(now).await?;
            for (receiver, _) in holding.iter().filter(|(_, due)| *due <= now) {
                match self.gather_for(receiver, now).await {
                    // Another replica has told it.
                    Err(store::Error::Overtaken) => {}
                    end => end?,
                }
            }
            self.shared.store.holding(now).await
        };
        match gathered.await {
            Ok(holding) => {
                holding.into_iter().filter(|(name, _)| self.lanes.contains_key(name)).map(|(_, due)| due).min()
            }
            Err(error) => {
                self.shared.observer.see(&Seen::StoreFailed { doing: "gathering messages", error: &error });
                Some(self.shared.clock.now().plus(LOOK_EVERY))
            }
        }
    }

    async fn gather_for(&self, receiver: &ReceiverName, now: Timestamp) -> Result<(), store::Error> {
        // Those of a receiver that the configuration no longer has are kept.
        if !self.lanes.contains_key(receiver) {
            return Ok(());
        }
        let pacing = self.shared.store.pacing(vec![self.pace_of(receiver, Vec::new(), now)], now).await?;
        let lately = |counts: &HashMap<ReceiverName, usize>| counts.get(receiver).copied().unwrap_or(0);
        let (recent, made) = (lately(&pacing.recent), lately(&pacing.digests));
        let left = self
            .rate(receiver)
            .map_or(DIGESTS_MAX, |rate| digests(rate, rate.count.saturating_sub(recent), made).min(DIGESTS_MAX));
        if left == 0 {
            return Ok(());
        }
        let Some(setup) = self.shared.receivers.get(receiver) else { return Ok(()) };
        let room = Room { text_max: setup.text_max, ends_apart: setup.receiver.ends_by_id() };
        let (numbers, held): (Vec<i64>, Vec<Held>) = self
            .shared
            .store
            .held(receiver, now, left * DIGEST_MAX, left * DIGEST_BYTES_MAX)
            .await?
            .into_iter()
            .unzip();
        let one = |(digest, positions): (Option<Owed>, Vec<usize>)| {
            let frozen = match digest {
                Some(owed) => {
                    let seen_at = positions.iter().filter_map(|at| held.get(*at)?.frozen.seen_at).min();
                    self.freeze(std::slice::from_ref(&owed), seen_at).pop()?
                }
                // It counts for the rate from now on.
                None => Frozen { created_at: now, ..held.get(*positions.first()?)?.frozen.clone() },
            };
            let told: Vec<&Held> = positions.iter().filter_map(|at| held.get(*at)).collect();
            let reserve = self.reserve_of(&frozen, &told, now);
            let held = positions.into_iter().filter_map(|at| numbers.get(at).copied()).collect();
            Some(Gathered { frozen, held, reserve })
        };
        let gathered: Vec<Gathered> = gather(&held, left, room, now).into_iter().filter_map(one).collect();
        let turns = pacing.turns.into_iter().collect();
        self.shared.store.gathered(gathered, turns, now).await?;
        self.shared.nudges.nudge(receiver);
        Ok(())
    }

    /// The copy for the fallback of what was held and is told now, if there is anything urgent in it.
    fn reserve_of(&self, frozen: &Frozen, told: &[&Held], now: Timestamp) -> Option<Reserve> {
        let urgent: Vec<Held> = told
            .iter()
            .filter(|held| held.severity == Severity::Critical && !is_end(held))
            .map(|held| (*held).clone())
            .collect();
        let lane = self.lanes.get(&frozen.receiver).filter(|_| !urgent.is_empty())?;
        lane.copy(&frozen.id, &digest(&urgent, now), now)
    }

    fn pace_of(&self, receiver: &ReceiverName, lanes: Vec<Lane>, now: Timestamp) -> PaceOf {
        let lately = self.rate(receiver).map(|rate| (now.minus(rate.per), rate.count));
        PaceOf { receiver: receiver.clone(), lately, lanes }
    }

    fn rate(&self, receiver: &ReceiverName) -> Option<Rate> {
        self.shared.receivers.get(receiver).and_then(|setup| setup.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, IDLE, LOOK_EVERY, SHORTEST, Timestamp, pause};

    #[test]
    fn what_is_due_and_cannot_be_told_is_looked_at_once_in_a_while() {
        let at = |millis: i64| Timestamp::from_micros(millis * 1_000);
        let pauses = [None, Some(900), Some(1_000), Some(1_001), Some(1_500), Some(9_000)]
            .map(|due| pause(due.map(at), at(1_000)));
        assert_eq!(pauses, [IDLE, LOOK_EVERY, LOOK_EVERY, SHORTEST, Duration::from_millis(500), LOOK_EVERY]);
    }
}
