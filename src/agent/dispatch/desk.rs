//! What a lane has to do with the store: what is claimed, what is recorded, what is given up.

use std::sync::Arc;
use std::time::Duration;

use super::news::{News, trouble};
use super::{CLAIM_MARGIN, LOOK_EVERY, Landed, Lane};
use crate::agent::observer::Seen;
use crate::model::delivery::Claimed;
use crate::model::time::{Timestamp, span};
use crate::store::{self, Lapse, Record, Trouble};

/// A record that the store did not take is offered again this often before the claim is left to lapse.
const RECORD_TRIES: u32 = 5;
/// Behind a budget, there is this much time for the attempt that is made at its end.
const LAPSE_MARGIN: Duration = Duration::from_secs(600);
/// How often a receiver that several replicas spare is looked at without a sign.
const SPARED_LOOK: Duration = Duration::from_millis(500);
/// The pause before a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a lane wants of the store.
pub(super) struct Errand {
    /// Attempts that ended.
    pub(super) landed: Vec<Landed>,
    /// Claims that are not used.
    pub(super) unused: Vec<Claimed>,
    /// As many deliveries more.
    pub(super) wanted: usize,
    /// Attempts are under way.
    pub(super) busy: bool,
}

/// What came of it.
pub(super) struct Returned {
    /// What is claimed now, and until when.
    pub(super) claims: Vec<Claimed>,
    pub(super) until: Timestamp,
    /// As many as were wanted: there may be more.
    pub(super) more: bool,
    /// How long nothing else has to be done; nothing if it is to be looked again at once.
    pub(super) wait: Duration,
}

impl Lane {
    /// Does an errand: what is recorded and what is claimed is one transaction, as a rule, so that whatever waited for what
    /// ended is claimed with it.
    pub(super) async fn run_errand(self: Arc<Self>, errand: Errand) -> Returned {
        let now = self.shared.clock.now();
        let until = now.plus(self.setup().timeout).plus(CLAIM_MARGIN);
        self.give_back(errand.unused).await;
        let claimed = match errand.landed.iter().all(Landed::is_accepted) {
            // Two transactions, one after the other: whatever waited for what ended is claimed in its turn.
            _ if self.shared.store.is_shared() => {
                self.record(&errand.landed, now).await;
                self.claim_in_accord(errand.wanted, now, until).await
            }
            true => tokio::join!(self.record(&errand.landed, now), self.claim(errand.wanted, now, until)).1,
            // Whether more may be claimed depends on what is recorded.
            false => {
                self.record(&errand.landed, now).await;
                self.claim(errand.wanted, now, until).await
            }
        };
        let Some(claims) = claimed else {
            return Returned { claims: Vec::new(), until, more: false, wait: STORE_PAUSE };
        };
        let more = errand.wanted > 0 && claims.len() == errand.wanted;
        let wait = match claims.is_empty() {
            true => {
                self.lapse(now).await;
                self.escalate().await;
                self.wait(errand.wanted == 0, errand.busy).await
            }
            false => Duration::ZERO,
        };
        Returned { claims, until, more, wait }
    }

    /// Deliveries that are due; nothing when the store did not answer.
    pub(super) async fn claim(&self, wanted: usize, now: Timestamp, until: Timestamp) -> Option<Vec<Claimed>> {
        if wanted == 0 {
            return Some(Vec::new());
        }
        let claimed = self.shared.store.claim(&self.name, now, until, wanted).await;
        claimed.map_err(|error| self.failed("claiming deliveries", &error)).ok()
    }

    /// `false` when the store did not answer: the claims lapse.
    pub(super) async fn give_back(&self, claims: Vec<Claimed>) -> bool {
        if claims.is_empty() {
            return true;
        }
        let released = self.shared.store.release(claims).await;
        released.map_err(|error| self.failed("returning deliveries", &error)).is_ok()
    }

    /// How long nothing has to be done.
    async fn wait(&self, full: bool, busy: bool) -> Duration {
        let now = self.shared.clock.now();
        let rest = self.breaker().probe_at().map(|at| at.since(now)).filter(|rest| !rest.is_zero());
        if full && (rest.is_none() || busy) {
            return LOOK_EVERY;
        }
        // Another replica may be at the one attempt that is made: whoever changes how the receiver fares says so.
        let spared = self.shared.store.is_shared() && !self.breaker().flows(self.setup().concurrency);
        let least = if spared { SPARED_LOOK } else { Duration::ZERO };
        match self.next().await {
            Some(due) => due.since(now).max(least).min(LOOK_EVERY),
            None => LOOK_EVERY,
        }
    }

    /// When there is something to do.
    pub(in crate::agent) async fn next(&self) -> Option<Timestamp> {
        let (store, name) = (&self.shared.store, &self.name);
        let (due, copy) = (store.next_due(name).await.ok()?, store.next_escalation(name).await.ok()?);
        let probe = self.breaker().probe_at();
        due.map(|due| probe.map_or(due, |probe| due.max(probe))).into_iter().chain(copy).min()
    }

    /// What was not accepted within its time is given up, although nobody can try it: a receiver that is away is only probed.
    async fn lapse(&self, now: Timestamp) {
        let budget = self.setup().schedule.give_up_after;
        let before = now.minus(budget).minus(LAPSE_MARGIN);
        let note = format!("given up: it was not accepted within {}", span(budget));
        loop {
            match self.lapse_some(before, &note, now).await {
                Ok(0) => return,
                Ok(count) => self.shared.observer.see(&Seen::Lapsed { receiver: &self.name, count }),
                Err(error) => return self.failed("giving up deliveries", &error),
            }
        }
    }

    async fn lapse_some(&self, before: Timestamp, note: &str, now: Timestamp) -> Result<usize, store::Error> {
        let Some(oldest) = self.shared.store.overdue(&self.name, before, now).await? else { return Ok(0) };
        let owed = self.notices(&News::of_lapsed(&oldest, note), now);
        let (receiver, notices) = (self.name.clone(), self.shared.freeze(&owed, now));
        let lapsed = self.shared.store.lapse(Lapse { receiver, before, note: note.to_owned(), now, notices }).await?;
        if lapsed.told {
            owed.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
        }
        Ok(lapsed.count)
    }

    /// Urgent deliveries that were not accepted in time go to the fallback as well, whatever keeps them here.
    async fn escalate(&self) {
        match self.shared.store.escalate(&self.name, self.shared.clock.now()).await {
            Ok(told) if told.is_empty() => {}
            Ok(told) => {
                self.shared.observer.see(&Seen::Escalated { receiver: &self.name, count: told.len() });
                told.iter().for_each(|receiver| self.shared.nudges.nudge(receiver));
            }
            Err(error) => self.failed("escalating deliveries", &error),
        }
    }

    pub(super) fn failed(&self, doing: &'static str, error: &store::Error) {
        self.shared.observer.see(&Seen::StoreFailed { doing, error });
    }

    /// Records what came of attempts. What the store does not take is attempted again when its claim has lapsed.
    pub(super) async fn record(&self, landed: &[Landed], now: Timestamp) {
        if landed.is_empty() {
            return;
        }
        for offer in 1..=RECORD_TRIES {
            match self.try_record(landed, now).await {
                Ok(kept) => {
                    for (Landed { claimed, attempt, verdict }, _) in landed.iter().zip(kept).filter(|(_, kept)| *kept) {
                        self.shared.observer.see(&Seen::Attempted { claimed, attempt, verdict: *verdict });
                    }
                    return;
                }
                Err(error) => {
                    self.failed("recording attempts", &error);
                    if offer < RECORD_TRIES {
                        tokio::time::sleep(STORE_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Writes all that ended together in one transaction.
    async fn try_record(&self, landed: &[Landed], now: Timestamp) -> Result<Vec<bool>, store::Error> {
        // What is accepted ends all trouble, whatever it was.
        let mut known = match landed.iter().all(Landed::is_accepted) {
            true => Trouble::default(),
            false => self.shared.store.trouble(&self.name).await?,
        };
        let (mut records, mut told) = (Vec::new(), Vec::new());
        for Landed { claimed, attempt, verdict } in landed {
            let (trouble, news) = trouble(known, &attempt.outcome, *verdict, now);
            known = trouble;
            let notices =
                news.map(|state| self.notices(&News::of_attempt(state, claimed, attempt), now)).unwrap_or_default();
            let deliveries = self.shared.freeze(&notices, now);
            told.extend(notices.into_iter().map(|owed| owed.receiver));
            let (claimed, attempt, verdict) = (claimed.clone(), attempt.clone(), *verdict);
            records.push(Record { claimed, attempt, verdict, trouble, deliveries, asks: false });
        }
        let kept = self.shared.store.record(records).await?;
        told.iter().for_each(|receiver| self.shared.nudges.nudge(receiver));
        Ok(kept)
    }
}
