//! Serving a receiver: claim what is due, send it, record the verdict, wait.
//!
//! A lane does not wait for the store while it has something to send: attempts go on while what ended is recorded and more
//! is claimed (`desk`), everything that ended meanwhile in one transaction.

mod accord;
mod desk;
mod news;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};

use super::observer::{Observer, Seen};
use super::pulse::Heart;
use super::shutdown::Shutdown;
use super::{GRACE, ReceiverSetup};
use crate::clock::{Clock, Stopwatch};
use crate::deliver::Sent;
use crate::model::alert::Severity;
use crate::model::delivery::{Attempt, Claimed, Frozen, Outcome, Owed, Reserve, Verdict};
use crate::model::name::{DeliveryId, ReceiverName, derive};
use crate::model::notification::{Event, Notification};
use crate::model::time::{Timestamp, span};
use crate::plan::SelfWatch;
use crate::retry::{Breaker, History, verdict};
use crate::store::Store;
use accord::Accord;
use desk::{Errand, Returned};

/// The outbox is looked at this often without a nudge: another process may have made something due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A claim outlives the attempt's timeout by this, so that no delivery is under way twice.
const CLAIM_MARGIN: Duration = Duration::from_secs(30);
/// For each attempt that may be under way, so many may be made and not be recorded: a crash sends as many again.
const UNRECORDED_MAX: usize = 4;
/// Deliveries that are claimed before there is a place for them.
const AHEAD_MAX: usize = 128;

/// One receiver's queue being served.
pub(super) struct Lane {
    name: ReceiverName,
    shared: Arc<Shared>,
    breaker: Mutex<Breaker>,
    accord: Accord,
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

impl Shared {
    /// Deliveries in their final wording, as they are stored and sent: those of receivers that there are.
    pub(super) fn freeze(&self, owed: &[Owed], now: Timestamp) -> Vec<Frozen> {
        let one = |owed: &Owed| Some(freeze(self.receivers.get(&owed.receiver)?, owed, now));
        owed.iter().filter_map(one).collect()
    }
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

/// What a lane has in hand.
#[derive(Default)]
struct Hand {
    /// Attempts under way.
    tasks: JoinSet<Sent>,
    /// What they are attempts at, and since when.
    claims: HashMap<Id, (Claimed, Timestamp, Stopwatch)>,
    /// What is claimed, until when, and waits for a place: nobody has to wait for the store then.
    ready: VecDeque<(Claimed, Timestamp)>,
    /// As many may be claimed ahead: twice what ended while the store was last asked.
    ahead: usize,
    /// What ended and is not recorded.
    landed: Vec<Landed>,
    /// As many are being recorded.
    recording: usize,
    /// What the store was asked for.
    errand: Option<Pin<Box<dyn Future<Output = Returned> + Send>>>,
    /// There was more to claim than was wanted.
    more: bool,
    /// Something may have changed: the store is to be asked.
    look: bool,
    /// How long nothing has to be done, since the store was last asked.
    wait: Duration,
}

/// An attempt that ended, and what becomes of its delivery.
struct Landed {
    claimed: Claimed,
    attempt: Attempt,
    verdict: Verdict,
}

impl Landed {
    fn is_accepted(&self) -> bool {
        matches!(self.attempt.outcome, Outcome::Accepted { .. })
    }
}

impl Hand {
    fn new() -> Self {
        Self { look: true, ..Self::default() }
    }

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

    fn is_empty(&self) -> bool {
        let idle = self.tasks.is_empty() && self.ready.is_empty() && self.landed.is_empty();
        idle && self.errand.is_none() && !self.look
    }
}

impl Lane {
    pub(super) fn new(name: ReceiverName, shared: Arc<Shared>) -> Self {
        Self { name, shared, breaker: Mutex::default(), accord: Accord::default() }
    }

    fn setup(&self) -> &ReceiverSetup {
        &self.shared.receivers[&self.name]
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy of an urgent delivery for this receiver's fallback, if there is one.
    pub(super) fn reserve<'a>(&self, owed: &'a Owed, now: Timestamp) -> Option<(Reserve, &'a Owed)> {
        let notification = &owed.notification;
        let urgent = notification.severity == Severity::Critical && notification.event != Event::AlertResolved;
        Some((self.copy(&owed.id, owed, now).filter(|_| urgent)?, owed))
    }

    /// The copy for this receiver's fallback of what the delivery `of` tells.
    pub(super) fn copy(&self, of: &DeliveryId, owed: &Owed, now: Timestamp) -> Option<Reserve> {
        let setup = self.setup();
        let (after, notification) = (setup.schedule.escalate_after, &owed.notification);
        let fallback = setup.fallback.as_ref().filter(|name| **name != self.name)?;
        let body = format!("{} has not taken this within {}.\n\n{}", self.name, span(after), notification.body);
        let copy = Owed {
            id: DeliveryId::from(derive("msg", &["jobwatch/escalated/v1", of.as_str(), fallback.as_str()])),
            receiver: fallback.clone(),
            lane: owed.lane.clone(),
            notification: Notification { body, ..notification.clone() },
            pace: None,
        };
        let frozen = freeze(self.shared.receivers.get(fallback)?, &copy, now);
        Some(Reserve { of: of.clone(), instead_of: self.name.clone(), due_at: now.plus(after), frozen })
    }

    /// Serves the receiver until the agent stops; then waits for what is under way, and gives back what does not end.
    pub(super) async fn run(self: Arc<Self>, shutdown: Shutdown, heart: Heart) {
        let mut hand = Hand::new();
        self.reopen().await;
        heart.beat(LOOK_EVERY + self.setup().timeout);
        let mut pause = Box::pin(tokio::time::sleep(LOOK_EVERY));
        while !shutdown.is_requested() {
            tokio::select! {
                asked = self.step(&mut hand) => if asked {
                    // Whoever does not hear from the store does not beat.
                    heart.beat(LOOK_EVERY + self.setup().timeout);
                    pause = Box::pin(tokio::time::sleep(hand.wait));
                },
                () = self.shared.nudges.0[&self.name].notified() => hand.look = true,
                () = &mut pause, if hand.errand.is_none() => {
                    hand.look = true;
                    pause = Box::pin(tokio::time::sleep(LOOK_EVERY));
                }
                () = shutdown.requested() => {}
            }
        }
        heart.beat(GRACE);
        self.settle(hand).await;
    }

    /// Delivers what is due now and comes back when nothing more is.
    pub(super) async fn turn(self: Arc<Self>) {
        let mut hand = Hand::new();
        while !hand.is_empty() {
            self.step(&mut hand).await;
        }
    }

    /// Begins what can be begun and asks for what is wanted; then waits for what comes first, an attempt's end or the store's
    /// answer. `true` if it was that. It may be dropped while it waits.
    async fn step(self: &Arc<Self>, hand: &mut Hand) -> bool {
        self.launch(hand);
        self.ask(hand);
        let Hand { tasks, errand, .. } = hand;
        let returned = async {
            match errand {
                Some(errand) => errand.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = tasks.join_next_with_id() => {
                self.land(hand, ended);
                false
            }
            returned = returned => {
                hand.errand = None;
                hand.take(returned);
                true
            }
        }
    }

    /// The agent was started: whoever retired gets another chance, with one delivery at first.
    async fn reopen(&self) {
        match self.shared.store.reopen(&self.name, self.shared.clock.now()).await {
            Ok(true) => {
                *self.breaker() = Breaker::cautious();
                self.declare(Breaker::cautious()).await;
            }
            Ok(false) => {}
            Err(error) => self.failed("opening a receiver", &error),
        }
    }

    /// Begins attempts at what is ready, as far as there are places.
    fn launch(&self, hand: &mut Hand) {
        let (setup, now) = (self.setup(), self.shared.clock.now());
        let unrecorded = hand.tasks.len() + hand.landed.len() + hand.recording;
        let room = (setup.concurrency * UNRECORDED_MAX).saturating_sub(unrecorded);
        let mut places = self.breaker().places(setup.concurrency, hand.tasks.len(), now).min(room);
        while places > 0
            && let Some((claimed, until)) = hand.ready.pop_front()
        {
            if now.plus(setup.timeout) > until {
                // It waited for so long that its claim would lapse under way.
                hand.ready.push_front((claimed, until));
                return;
            }
            self.begin(hand, claimed, now);
            places -= 1;
        }
    }

    fn begin(&self, hand: &mut Hand, claimed: Claimed, at: Timestamp) {
        let (receiver, timeout) = (Arc::clone(&self.setup().receiver), self.setup().timeout);
        let (copy, watch) = (claimed.clone(), self.shared.clock.stopwatch());
        let task = hand.tasks.spawn(async move {
            // A receiver ends by itself; this is for one that does not.
            let limit = timeout + CLAIM_MARGIN / 2;
            tokio::time::timeout(limit, receiver.send(&copy, at))
                .await
                .unwrap_or_else(|_| unreachable("no end in time", &copy))
        });
        hand.claims.insert(task.id(), (claimed, at, watch));
    }

    /// Sends for what is wanted of the store, unless somebody is there already.
    fn ask(self: &Arc<Self>, hand: &mut Hand) {
        if hand.errand.is_some() {
            return;
        }
        let (setup, now) = (self.setup(), self.shared.clock.now());
        let (places, flows) = {
            let breaker = self.breaker();
            (breaker.places(setup.concurrency, hand.tasks.len(), now), breaker.flows(setup.concurrency))
        };
        // What was claimed ahead goes back when the receiver is away, or so slow that the claim lapses.
        let lapses = |(_, until): &(Claimed, Timestamp)| now.plus(setup.timeout) > *until;
        let unused: Vec<Claimed> = match hand.ready.front().is_some_and(lapses) || !flows {
            true => hand.ready.drain(..).map(|(claimed, _)| claimed).collect(),
            false => Vec::new(),
        };
        let ahead = if flows { hand.ahead } else { 0 };
        let wanted = (places + ahead).saturating_sub(hand.ready.len());
        if !hand.look && hand.landed.is_empty() && unused.is_empty() && !(hand.more && wanted > 0) {
            return;
        }
        (hand.look, hand.more, hand.recording) = (false, false, hand.landed.len());
        let errand = Errand { landed: std::mem::take(&mut hand.landed), unused, wanted, busy: !hand.tasks.is_empty() };
        hand.errand = Some(Box::pin(Arc::clone(self).run_errand(errand)));
    }

    /// An attempt has ended, and maybe others with it.
    fn land(&self, hand: &mut Hand, ended: Result<(Id, Sent), JoinError>) {
        let mut all: Vec<_> = hand.landed(ended).into_iter().collect();
        while let Some(ended) = hand.tasks.try_join_next_with_id() {
            all.extend(hand.landed(ended));
        }
        let now = self.shared.clock.now();
        for (claimed, attempt) in all {
            let chance = (self.shared.chance)();
            let history = History {
                budget_from: claimed.budget_from,
                tries: claimed.tries,
                refused_since: claimed.refused_since,
                escalate_at: claimed.escalate_at,
            };
            let verdict = verdict(&self.setup().schedule, &history, &attempt.outcome, now, chance);
            self.feel(&claimed, &attempt, now, chance);
            hand.landed.push(Landed { claimed, attempt, verdict });
        }
    }

    /// What an attempt says about the receiver's health.
    fn feel(&self, claimed: &Claimed, attempt: &Attempt, now: Timestamp, chance: f64) {
        let (before, after) = {
            let mut breaker = self.breaker();
            let before = breaker.probe_at();
            self.felt(&breaker, claimed, &attempt.outcome, now, chance);
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

    /// The agent stops: what is under way may finish; what does not goes back to the outbox.
    async fn settle(self: &Arc<Self>, mut hand: Hand) {
        let landing = async {
            // What was asked for may be claims.
            if let Some(errand) = hand.errand.take() {
                hand.take(errand.await);
            }
            loop {
                self.record(&std::mem::take(&mut hand.landed), self.shared.clock.now()).await;
                match hand.tasks.join_next_with_id().await {
                    Some(ended) => self.land(&mut hand, ended),
                    None => return,
                }
            }
        };
        let in_time = tokio::time::timeout(GRACE, landing).await.is_ok();
        hand.tasks.abort_all();
        let ready = hand.ready.drain(..).map(|(claimed, _)| claimed);
        let claims: Vec<Claimed> = hand.claims.drain().map(|(_, (claimed, _, _))| claimed).chain(ready).collect();
        let count = claims.len();
        if self.give_back(claims).await && !in_time {
            self.shared.observer.see(&Seen::Returned { receiver: &self.name, count });
        }
    }
}

impl Hand {
    /// What came back from the store.
    fn take(&mut self, returned: Returned) {
        let Returned { claims, until, more, wait } = returned;
        (self.more, self.wait, self.recording) = (more, wait, 0);
        self.ahead = (2 * self.landed.len()).min(AHEAD_MAX);
        self.look |= wait.is_zero() && !more;
        self.ready.extend(claims.into_iter().map(|claimed| (claimed, until)));
    }
}

fn freeze(setup: &ReceiverSetup, owed: &Owed, now: Timestamp) -> Frozen {
    Frozen {
        id: owed.id.clone(),
        receiver: owed.receiver.clone(),
        lane: owed.lane.clone(),
        event: owed.notification.event.as_str().to_owned(),
        title: owed.notification.title.clone(),
        created_at: now,
        seen_at: None,
        payload: setup.receiver.freeze(owed),
    }
}

fn unreachable(why: &str, claimed: &Claimed) -> Sent {
    Sent {
        outcome: Outcome::Unreachable { why: why.to_owned(), retry_after: None },
        progress: claimed.progress.clone(),
    }
}
