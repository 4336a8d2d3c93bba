//! What a lane has to do with the store: what is claimed, what is recorded, and who else is told of a receiver's trouble.

use std::sync::Arc;
use std::time::Duration;

use super::{CLAIM_MARGIN, LOOK_EVERY, Landed, Lane, freeze};
use crate::agent::observer::Seen;
use crate::model::alert::Severity;
use crate::model::delivery::{Attempt, Claimed, Frozen, Lane as Order, Outcome, Owed, Verdict};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::Timestamp;
use crate::store::{self, Record, Trouble};

/// A record that the store did not take is offered again this often before the claim is left to lapse.
const RECORD_TRIES: u32 = 5;
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
                self.escalate().await;
                self.wait(errand.wanted == 0, errand.busy).await
            }
            false => Duration::ZERO,
        };
        Returned { claims, until, more, wait }
    }

    /// Deliveries that are due; nothing when the store did not answer.
    async fn claim(&self, wanted: usize, now: Timestamp, until: Timestamp) -> Option<Vec<Claimed>> {
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
        match self.next().await {
            Some(due) => due.since(now).min(LOOK_EVERY),
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
            let notices = news.map(|state| self.notices(state, claimed, attempt, now)).unwrap_or_default();
            let deliveries: Vec<Frozen> = notices
                .iter()
                .filter_map(|owed| Some(freeze(self.shared.receivers.get(&owed.receiver)?, owed, now)))
                .collect();
            told.extend(notices.into_iter().map(|owed| owed.receiver));
            let (claimed, attempt, verdict) = (claimed.clone(), attempt.clone(), *verdict);
            records.push(Record { claimed, attempt, verdict, trouble, deliveries, asks: false });
        }
        let kept = self.shared.store.record(records).await?;
        told.iter().for_each(|receiver| self.shared.nudges.nudge(receiver));
        Ok(kept)
    }

    /// Who else is to hear that this receiver refuses or that something was given up.
    fn notices(&self, state: &'static str, claimed: &Claimed, attempt: &Attempt, now: Timestamp) -> Vec<Owed> {
        let why = attempt.outcome.detail().to_owned();
        let title = match state {
            "dead" => format!("a delivery to {} was given up: {why}", self.name),
            "retired" => {
                format!("{} says that it is no more, and is sent nothing until somebody opens it: {why}", self.name)
            }
            _ => format!("{} refuses what it is sent: {why}", self.name),
        };
        let body = format!(
            "Undelivered: {}\nDelivery: {}\nTried {} times, first decided at {}.\n{}",
            claimed.frozen.title,
            claimed.frozen.id,
            claimed.tries + 1,
            claimed.frozen.created_at,
            match state {
                "dead" => "It is kept: `jobwatch deliveries retry` sends it again.".to_owned(),
                "retired" => format!(
                    "Everything for it is held. When it is mended, `jobwatch deliveries retry --receiver {}` opens it; so does a start of the service.",
                    self.name
                ),
                _ =>
                    "It is tried again slowly for a day; other deliveries to it meet the same fate until somebody mends it."
                        .to_owned(),
            },
        );
        let notification = Notification {
            event: Event::ReceiverDead,
            time: now,
            severity: Severity::Error,
            title,
            body,
            topic: Topic::Receiver {
                name: self.name.clone(),
                why,
                state,
                delivery: (claimed.frozen.id.to_string(), claimed.frozen.title.clone()),
            },
        };
        let mut hear: Vec<&ReceiverName> = self.shared.watch.notify.iter().chain(&self.setup().fallback).collect();
        hear.sort();
        hear.dedup();
        let notice = |receiver: &ReceiverName| Owed {
            id: DeliveryId::from(derive(
                "msg",
                &[
                    "jobwatch/trouble/v1",
                    state,
                    claimed.frozen.id.as_str(),
                    &now.micros().to_string(),
                    receiver.as_str(),
                ],
            )),
            receiver: receiver.clone(),
            lane: Order { source: None, subject: JobId::from(format!("receiver/{}", self.name)) },
            notification: notification.clone(),
            pace: None,
        };
        hear.into_iter().filter(|name| **name != self.name).map(notice).collect()
    }
}

/// What the operator knows of the trouble after this outcome, and what is news in it.
fn trouble(known: Trouble, outcome: &Outcome, verdict: Verdict, now: Timestamp) -> (Trouble, Option<&'static str>) {
    match (outcome, verdict) {
        (Outcome::Accepted { .. }, _) => (Trouble::default(), None),
        (_, Verdict::Dead) => (Trouble { dead: true, ..known }, (!known.dead).then_some("dead")),
        (Outcome::Retired { .. }, _) => {
            let held_since = known.held_since.or(Some(now));
            (Trouble { retired: true, held_since, ..known }, (!known.retired).then_some("retired"))
        }
        (Outcome::Refused { .. }, _) => (Trouble { refused: true, ..known }, (!known.refused).then_some("refused")),
        (Outcome::Unreachable { .. }, _) => (known, None),
    }
}
