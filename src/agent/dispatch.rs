//! Serving a receiver: claim what is due, send it, record the verdict, wait.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};

use super::observer::{Observer, Seen};
use super::pulse::Heart;
use super::shutdown::Shutdown;
use super::{GRACE, ReceiverSetup};
use crate::clock::Clock;
use crate::deliver::Sent;
use crate::model::alert::Severity;
use crate::model::delivery::{Attempt, Claimed, Frozen, Lane as Order, Outcome, Owed, Verdict};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::Timestamp;
use crate::plan::SelfWatch;
use crate::retry::{History, verdict};
use crate::store::{self, Record, Store, Trouble};

/// The outbox is looked at this often without a nudge: another process may have made something due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A claim outlives the attempt's timeout by this, so that no delivery is under way twice.
const CLAIM_MARGIN: Duration = Duration::from_secs(30);
/// A record that the store did not take is offered again this often before the claim is left to lapse.
const RECORD_TRIES: u32 = 5;
/// The pause before a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// One receiver's queue being served.
pub(super) struct Lane {
    name: ReceiverName,
    shared: Arc<Shared>,
}

/// What all lanes share.
pub(super) struct Shared {
    pub(super) receivers: BTreeMap<ReceiverName, ReceiverSetup>,
    /// Who hears of the agent's own troubles.
    pub(super) watch: SelfWatch,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) chance: fn() -> f64,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) nudges: Nudges,
}

/// How each lane is woken. A nudge that is lost costs [`LOOK_EVERY`] and nothing else.
pub(super) struct Nudges(BTreeMap<ReceiverName, Notify>);

impl Nudges {
    pub(super) fn new<'a>(receivers: impl Iterator<Item = &'a ReceiverName>) -> Self {
        Self(receivers.map(|name| (name.clone(), Notify::new())).collect())
    }

    /// Something may be due for this receiver.
    pub(super) fn nudge(&self, receiver: &ReceiverName) {
        if let Some(nudge) = self.0.get(receiver) {
            nudge.notify_one();
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Attempts under way, and what they are attempts at.
#[derive(Default)]
struct Flight {
    tasks: JoinSet<Sent>,
    claims: HashMap<Id, (Claimed, Timestamp, crate::clock::Stopwatch)>,
}

impl Lane {
    pub(super) fn new(name: ReceiverName, shared: Arc<Shared>) -> Self {
        Self { name, shared }
    }

    fn setup(&self) -> &ReceiverSetup {
        &self.shared.receivers[&self.name]
    }

    /// A delivery in the wording of this receiver's kind.
    pub(super) fn freeze(&self, owed: &Owed, now: Timestamp) -> Frozen {
        freeze(self.setup(), owed, now)
    }

    /// Serves the receiver until the agent stops; then waits for what is under way, and gives back what does not end.
    pub(super) async fn run(self: Arc<Self>, shutdown: Shutdown, heart: Heart) {
        let mut flight = Flight::default();
        while !shutdown.is_requested() {
            heart.beat(LOOK_EVERY + self.setup().timeout);
            let wait = match self.claim(&mut flight).await {
                true => self.wait(&flight).await,
                false => STORE_PAUSE,
            };
            tokio::select! {
                Some(ended) = flight.tasks.join_next_with_id() => self.land(&mut flight, ended).await,
                () = self.shared.nudges.0[&self.name].notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = shutdown.requested() => {}
            }
        }
        heart.beat(GRACE);
        self.settle(flight).await;
    }

    /// Delivers what is due now and comes back when nothing more is.
    pub(super) async fn turn(self: Arc<Self>) {
        let mut flight = Flight::default();
        loop {
            self.claim(&mut flight).await;
            match flight.tasks.join_next_with_id().await {
                Some(ended) => self.land(&mut flight, ended).await,
                None => return,
            }
        }
    }

    /// Fills the free places with deliveries that are due. `false` when the store did not answer.
    async fn claim(&self, flight: &mut Flight) -> bool {
        let setup = self.setup();
        let free = setup.concurrency.saturating_sub(flight.tasks.len());
        if free == 0 {
            return true;
        }
        let now = self.shared.clock.now();
        let until = now.plus(setup.timeout).plus(CLAIM_MARGIN);
        match self.shared.store.claim(&self.name, now, until, free).await {
            Ok(claims) => {
                claims.into_iter().for_each(|claimed| self.launch(flight, claimed));
                true
            }
            Err(error) => {
                self.shared.observer.see(&Seen::StoreFailed { doing: "claiming deliveries", error: &error });
                false
            }
        }
    }

    fn launch(&self, flight: &mut Flight, claimed: Claimed) {
        let (receiver, timeout) = (Arc::clone(&self.setup().receiver), self.setup().timeout);
        let (at, watch) = (self.shared.clock.now(), self.shared.clock.stopwatch());
        let copy = claimed.clone();
        let task = flight.tasks.spawn(async move {
            // A receiver ends by itself; this is for one that does not.
            let limit = timeout + CLAIM_MARGIN / 2;
            tokio::time::timeout(limit, receiver.send(&copy, at))
                .await
                .unwrap_or_else(|_| unreachable("no end in time", &copy))
        });
        flight.claims.insert(task.id(), (claimed, at, watch));
    }

    /// How long nothing has to be done.
    async fn wait(&self, flight: &Flight) -> Duration {
        if flight.tasks.len() >= self.setup().concurrency {
            return LOOK_EVERY;
        }
        match self.shared.store.next_due(&self.name).await {
            Ok(Some(due)) => due.since(self.shared.clock.now()).min(LOOK_EVERY),
            Ok(None) | Err(_) => LOOK_EVERY,
        }
    }

    /// An attempt has ended: decide and record.
    async fn land(&self, flight: &mut Flight, ended: Result<(Id, Sent), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some((claimed, at, watch)) = flight.claims.remove(&id) else { return };
        let sent = match ended {
            Ok((_, sent)) => sent,
            // A panic in one delivery is one failed delivery.
            Err(_) => unreachable("the attempt broke off: this is a fault in jobwatch", &claimed),
        };
        let attempt = Attempt { at, took: watch.elapsed(), outcome: sent.outcome, progress: sent.progress };
        self.record(claimed, attempt).await;
    }

    async fn record(&self, claimed: Claimed, attempt: Attempt) {
        let now = self.shared.clock.now();
        let history =
            History { budget_from: claimed.budget_from, tries: claimed.tries, refused_since: claimed.refused_since };
        let verdict = verdict(&self.setup().schedule, &history, &attempt.outcome, now, (self.shared.chance)());
        for offer in 1..=RECORD_TRIES {
            match self.try_record(&claimed, &attempt, verdict, now).await {
                Ok(kept) => {
                    if kept {
                        self.shared.observer.see(&Seen::Attempted { claimed: &claimed, attempt: &attempt, verdict });
                    }
                    return;
                }
                Err(error) => {
                    self.shared.observer.see(&Seen::StoreFailed { doing: "recording an attempt", error: &error });
                    if offer < RECORD_TRIES {
                        tokio::time::sleep(STORE_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn try_record(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<bool, store::Error> {
        let known = self.shared.store.trouble(&self.name).await?;
        let (trouble, news) = trouble(known, &attempt.outcome, verdict);
        let notices = news.map(|state| self.notices(state, claimed, attempt, now)).unwrap_or_default();
        let deliveries: Vec<Frozen> = notices
            .iter()
            .filter_map(|owed| Some(freeze(self.shared.receivers.get(&owed.receiver)?, owed, now)))
            .collect();
        let record =
            Record { claimed: claimed.clone(), attempt: attempt.clone(), verdict, trouble, deliveries, asks: false };
        let kept = self.shared.store.record(record).await?;
        notices.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
        Ok(kept)
    }

    /// Who else is to hear that this receiver refuses or that something was given up.
    fn notices(&self, state: &'static str, claimed: &Claimed, attempt: &Attempt, now: Timestamp) -> Vec<Owed> {
        let why = attempt.outcome.detail().to_owned();
        let title = match state {
            "dead" => format!("a delivery to {} was given up: {why}", self.name),
            _ => format!("{} refuses what it is sent: {why}", self.name),
        };
        let body = format!(
            "Undelivered: {}\nDelivery: {}\nTried {} times, first decided at {}.\n{}",
            claimed.frozen.title,
            claimed.frozen.id,
            claimed.tries + 1,
            claimed.frozen.created_at,
            match state {
                "dead" => "It is kept: `jobwatch deliveries retry` sends it again.",
                _ =>
                    "It is tried again slowly for a day; other deliveries to it meet the same fate until somebody mends it.",
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

    /// The agent stops: what is under way may finish; what does not goes back to the outbox.
    async fn settle(&self, mut flight: Flight) {
        let landing = async {
            while let Some(ended) = flight.tasks.join_next_with_id().await {
                self.land(&mut flight, ended).await;
            }
        };
        if tokio::time::timeout(GRACE, landing).await.is_ok() {
            return;
        }
        flight.tasks.abort_all();
        let claims: Vec<Claimed> = flight.claims.into_values().map(|(claimed, _, _)| claimed).collect();
        let count = claims.len();
        match self.shared.store.release(claims).await {
            Ok(()) => self.shared.observer.see(&Seen::Returned { receiver: &self.name, count }),
            Err(error) => self.shared.observer.see(&Seen::StoreFailed { doing: "returning deliveries", error: &error }),
        }
    }
}

pub(super) fn freeze(setup: &ReceiverSetup, owed: &Owed, now: Timestamp) -> Frozen {
    Frozen {
        id: owed.id.clone(),
        receiver: owed.receiver.clone(),
        lane: owed.lane.clone(),
        event: owed.notification.event.as_str().to_owned(),
        title: owed.notification.title.clone(),
        created_at: now,
        payload: setup.receiver.freeze(owed),
    }
}

fn unreachable(why: &str, claimed: &Claimed) -> Sent {
    Sent {
        outcome: Outcome::Unreachable { why: why.to_owned(), retry_after: None },
        progress: claimed.progress.clone(),
    }
}

/// What the operator knows of the trouble after this outcome, and what is news in it.
fn trouble(known: Trouble, outcome: &Outcome, verdict: Verdict) -> (Trouble, Option<&'static str>) {
    match (outcome, verdict) {
        (Outcome::Accepted { .. }, _) => (Trouble::default(), None),
        (_, Verdict::Dead) => (Trouble { dead: true, ..known }, (!known.dead).then_some("dead")),
        (Outcome::Refused { .. }, _) => (Trouble { refused: true, ..known }, (!known.refused).then_some("refused")),
        (Outcome::Unreachable { .. }, _) => (known, None),
    }
}
