//! Serving a receiver: claim what is due, send it, record the verdict, wait.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::model::delivery::{Attempt, Claimed, Frozen, Lane as Order, Outcome, Owed, Reserve, Verdict};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::{Timestamp, span};
use crate::plan::SelfWatch;
use crate::retry::{Breaker, History, verdict};
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
    breaker: Mutex<Breaker>,
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

/// An attempt that ended, and what becomes of its delivery.
struct Landed {
    claimed: Claimed,
    attempt: Attempt,
    verdict: Verdict,
}

impl Flight {
    fn landed(&mut self, ended: Result<(Id, Sent), JoinError>) -> Option<(Claimed, Attempt)> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let (claimed, at, watch) = self.claims.remove(&id)?;
        let sent = match ended {
            Ok((_, sent)) => sent,
            // A panic in one delivery is one failed delivery.
            Err(_) => unreachable("the attempt broke off: this is a fault in jobwatch", &claimed),
        };
        let attempt = Attempt { at, took: watch.elapsed(), outcome: sent.outcome, progress: sent.progress };
        Some((claimed, attempt))
    }
}

impl Lane {
    pub(super) fn new(name: ReceiverName, shared: Arc<Shared>) -> Self {
        Self { name, shared, breaker: Mutex::default() }
    }

    fn setup(&self) -> &ReceiverSetup {
        &self.shared.receivers[&self.name]
    }

    /// A delivery in the wording of this receiver's kind.
    pub(super) fn freeze(&self, owed: &Owed, now: Timestamp) -> Frozen {
        freeze(self.setup(), owed, now)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy of an urgent delivery for this receiver's fallback, if there is one.
    pub(super) fn reserve<'a>(&self, owed: &'a Owed, now: Timestamp) -> Option<(Reserve, &'a Owed)> {
        let setup = self.setup();
        let (after, notification) = (setup.schedule.escalate_after, &owed.notification);
        let urgent = notification.severity == Severity::Critical && notification.event != Event::AlertResolved;
        let fallback = setup.fallback.as_ref().filter(|name| urgent && **name != self.name)?;
        let body = format!("{} has not taken this within {}.\n\n{}", self.name, span(after), notification.body);
        let copy = Owed {
            id: DeliveryId::from(derive("msg", &["jobwatch/escalated/v1", owed.id.as_str(), fallback.as_str()])),
            receiver: fallback.clone(),
            lane: owed.lane.clone(),
            notification: Notification { body, ..notification.clone() },
            pace: None,
        };
        let frozen = freeze(self.shared.receivers.get(fallback)?, &copy, now);
        let of = owed.id.clone();
        Some((Reserve { of, instead_of: self.name.clone(), due_at: now.plus(after), frozen }, owed))
    }

    /// Serves the receiver until the agent stops; then waits for what is under way, and gives back what does not end.
    pub(super) async fn run(self: Arc<Self>, shutdown: Shutdown, heart: Heart) {
        let mut flight = Flight::default();
        self.reopen().await;
        while !shutdown.is_requested() {
            heart.beat(LOOK_EVERY + self.setup().timeout);
            self.escalate().await;
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
            self.escalate().await;
            let answered = self.claim(&mut flight).await;
            match flight.tasks.join_next_with_id().await {
                Some(ended) => self.land(&mut flight, ended).await,
                None if answered && self.wait(&flight).await.is_zero() => {}
                None => return,
            }
        }
    }

    /// When there is something to do.
    pub(super) async fn next(&self) -> Option<Timestamp> {
        let (store, name) = (&self.shared.store, &self.name);
        let (due, copy) = (store.next_due(name).await.ok()?, store.next_escalation(name).await.ok()?);
        let probe = self.breaker().probe_at();
        due.map(|due| probe.map_or(due, |probe| due.max(probe))).into_iter().chain(copy).min()
    }

    /// The agent was started: whoever retired gets another chance, with one delivery at first.
    async fn reopen(&self) {
        match self.shared.store.reopen(&self.name, self.shared.clock.now()).await {
            Ok(true) => *self.breaker() = Breaker::cautious(),
            Ok(false) => {}
            Err(error) => self.shared.observer.see(&Seen::StoreFailed { doing: "opening a receiver", error: &error }),
        }
    }

    /// Urgent deliveries that were not accepted in time go to the fallback as well, whatever keeps them here.
    async fn escalate(&self) {
        match self.shared.store.escalate(&self.name, self.shared.clock.now()).await {
            Ok(told) if told.is_empty() => {}
            Ok(told) => {
                self.shared.observer.see(&Seen::Escalated { receiver: &self.name, count: told.len() });
                told.iter().for_each(|receiver| self.shared.nudges.nudge(receiver));
            }
            Err(error) => {
                self.shared.observer.see(&Seen::StoreFailed { doing: "escalating deliveries", error: &error })
            }
        }
    }

    /// Fills the free places with deliveries that are due. `false` when the store did not answer.
    async fn claim(&self, flight: &mut Flight) -> bool {
        let setup = self.setup();
        let now = self.shared.clock.now();
        let free = self.breaker().places(setup.concurrency, flight.tasks.len(), now);
        if free == 0 {
            return true;
        }
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
        let now = self.shared.clock.now();
        let full = self.breaker().places(self.setup().concurrency, flight.tasks.len(), now) == 0;
        let rest = self.breaker().probe_at().map(|at| at.since(now)).filter(|rest| !rest.is_zero());
        if full && (rest.is_none() || !flight.tasks.is_empty()) {
            return LOOK_EVERY;
        }
        match self.next().await {
            Some(due) => due.since(now).min(LOOK_EVERY),
            None => LOOK_EVERY,
        }
    }

    /// An attempt has ended, and maybe others with it: decide and record.
    async fn land(&self, flight: &mut Flight, ended: Result<(Id, Sent), JoinError>) {
        let mut all: Vec<_> = flight.landed(ended).into_iter().collect();
        while let Some(ended) = flight.tasks.try_join_next_with_id() {
            all.extend(flight.landed(ended));
        }
        let now = self.shared.clock.now();
        let decide = |(claimed, attempt): (Claimed, Attempt)| {
            let chance = (self.shared.chance)();
            let history = History {
                budget_from: claimed.budget_from,
                tries: claimed.tries,
                refused_since: claimed.refused_since,
                escalate_at: claimed.escalate_at,
            };
            let verdict = verdict(&self.setup().schedule, &history, &attempt.outcome, now, chance);
            self.feel(&claimed, &attempt, now, chance);
            Landed { claimed, attempt, verdict }
        };
        let landed: Vec<Landed> = all.into_iter().map(decide).collect();
        self.record(&landed, now).await;
    }

    /// What an attempt says about the receiver's health.
    fn feel(&self, claimed: &Claimed, attempt: &Attempt, now: Timestamp, chance: f64) {
        let (before, after) = {
            let mut breaker = self.breaker();
            let before = breaker.probe_at();
            *breaker = breaker.clone().after(&claimed.frozen.id, &attempt.outcome, now, chance);
            (before, breaker.probe_at())
        };
        let receiver = &self.name;
        match (before, after, &attempt.outcome) {
            // That is said as what it is.
            (_, _, Outcome::Retired { .. }) => {}
            (None, Some(until), _) => self.shared.observer.see(&Seen::Rested { receiver, until }),
            (Some(_), None, _) => self.shared.observer.see(&Seen::Recovered { receiver }),
            (Some(_), Some(_), _) | (None, None, _) => {}
        }
    }

    async fn record(&self, landed: &[Landed], now: Timestamp) {
        for offer in 1..=RECORD_TRIES {
            match self.try_record(landed, now).await {
                Ok(kept) => {
                    for (Landed { claimed, attempt, verdict }, _) in landed.iter().zip(kept).filter(|(_, kept)| *kept) {
                        self.shared.observer.see(&Seen::Attempted { claimed, attempt, verdict: *verdict });
                    }
                    return;
                }
                Err(error) => {
                    self.shared.observer.see(&Seen::StoreFailed { doing: "recording attempts", error: &error });
                    if offer < RECORD_TRIES {
                        tokio::time::sleep(STORE_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Writes all that ended together in one transaction.
    async fn try_record(&self, landed: &[Landed], now: Timestamp) -> Result<Vec<bool>, store::Error> {
        let mut known = self.shared.store.trouble(&self.name).await?;
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
