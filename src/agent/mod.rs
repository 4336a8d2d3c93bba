//! The loops: the only place that waits.
//!
//! One task for each source polls, plans and commits (`watch`); one for each receiver claims what is due, sends it and
//! records the verdict (`dispatch`); one forgets what is old (`prune`). They share nothing but the store: a nudge after a commit only wakes a loop that
//! would have woken by itself. Whatever happens is told to an [`Observer`]; logs, readiness and the demo are observers.

mod dispatch;
mod gather;
mod heartbeat;
mod insight;
mod lease;
mod lookout;
mod observer;
mod perform;
mod prune;
mod pulse;
mod reload;
mod shutdown;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};

pub use heartbeat::{Beat, HeartbeatSetup};
pub use insight::{Retried, Unseen};
pub use lease::Replica;
pub use observer::{Asker, Observer, Seen};
pub use prune::Retention;
pub use pulse::Pulse;
pub use shutdown::{Shutdown, Tasks};

use crate::clock::Clock;
use crate::deliver::Receiver;
use crate::deliver::act::Deed;
use crate::model::delivery::{Frozen, Lane as Order, Owed, Reserve};
use crate::model::name::{FollowUpName, ReceiverName, SourceName};
use crate::model::notification::Notification;
use crate::model::time::Timestamp;
use crate::plan::{Guard, Plan, Rate, SelfWatch};
use crate::retry::Schedule;
use crate::rules::RuleSet;
use crate::source::Source;
use crate::store::{self, Store};
use dispatch::{Lane, Nudges, Shared};
use perform::Performer;

/// How long deliveries that are under way may take to finish when the agent stops. Those that do not go back to the outbox.
pub const GRACE: Duration = Duration::from_secs(20);

/// A source and how it is watched.
#[derive(Clone, Debug)]
pub struct SourceSetup {
    /// The source.
    pub source: Arc<dyn Source>,
    /// The time between two polls.
    pub poll_every: Duration,
    /// How its listings are compared.
    pub policy: crate::diff::Policy,
    /// How much of it is read.
    pub strategy: Strategy,
}

/// How much of a listing is read at a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// Whether brief looks will do.
    pub mode: Mode,
    /// How often the listing is read whole all the same.
    pub full_every: Duration,
}

/// Whether brief looks will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Full,
    /// Always, between whole listings.
    Incremental,
    /// When there are so many jobs that it pays.
    Auto,
}

impl Default for Strategy {
    fn default() -> Self {
        Self { mode: Mode::Auto, full_every: Duration::from_secs(600) }
    }
}

/// A receiver and how it is served.
#[derive(Clone, Debug)]
pub struct ReceiverSetup {
    /// The receiver.
    pub receiver: Arc<dyn Receiver>,
    /// Attempts that may be under way at once.
    pub concurrency: usize,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// When to try again.
    pub schedule: Schedule,
    /// Who hears when this one refuses or something was given up.
    pub fallback: Option<ReceiverName>,
    /// As much text as one of its messages has room for, in bytes, escaping and facts aside.
    pub text_max: usize,
    /// How many messages it gets at most; `None` is as many as there are.
    pub rate: Option<Rate>,
}

/// A follow-up and what bounds it.
#[derive(Clone, Debug)]
pub struct FollowUpSetup {
    /// What is done.
    pub deed: Arc<dyn Deed>,
    /// When and how often it may be.
    pub guard: Guard,
    /// The longest it may take.
    pub timeout: Duration,
}

/// Everything an agent needs.
pub struct Setup {
    /// What survives.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Clock,
    /// A random number in `0.0..1.0`, for jitter.
    pub chance: fn() -> f64,
    /// What is watched.
    pub sources: Vec<SourceSetup>,
    /// Who hears.
    pub receivers: BTreeMap<ReceiverName, ReceiverSetup>,
    /// What can be done.
    pub follow_ups: BTreeMap<FollowUpName, FollowUpSetup>,
    /// What matters.
    pub rules: RuleSet,
    /// Who hears of the agent's own troubles.
    pub watch: SelfWatch,
    /// How long history is kept.
    pub retention: Retention,
    /// What it is to others on the same store.
    pub replica: Replica,
    /// Who sees what happens.
    pub observer: Arc<dyn Observer>,
    /// Who outside is told that all is well.
    pub heartbeat: Option<HeartbeatSetup>,
}

/// The agent.
pub struct Agent {
    shared: Arc<Shared>,
    sources: Vec<SourceSetup>,
    lanes: BTreeMap<ReceiverName, Arc<Lane>>,
    performer: Arc<Performer>,
    rules: RwLock<Arc<RuleSet>>,
    pulse: Arc<Pulse>,
    /// One for each source.
    desks: Vec<Mutex<watch::Desk>>,
    lookout: lookout::Lookout,
    /// Since when the rules on disk cannot be used.
    refused: std::sync::Mutex<Option<Timestamp>>,
    /// Held while it is decided and written how fast receivers are told.
    turns: Mutex<()>,
    /// Wakes the loop that gathers.
    gatherer: Notify,
    /// Taken by the loop that gives signs of life.
    heartbeat: std::sync::Mutex<Option<HeartbeatSetup>>,
    retention: Retention,
    pruner: prune::Pruner,
    replica: Replica,
    leases: lease::Leases,
    started_at: Timestamp,
    /// A command may have asked for something.
    asked: Notify,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("sources", &self.sources).field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Agent {
    /// Puts an agent together. Nothing starts yet.
    pub fn new(setup: Setup) -> Arc<Self> {
        let Setup {
            store,
            clock,
            chance,
            sources,
            receivers,
            follow_ups,
            rules,
            watch,
            retention,
            replica,
            observer,
            heartbeat,
        } = setup;
        let (leases, started_at) = (lease::Leases::new(store.is_shared()), clock.now());
        let pulse = Arc::new(Pulse::new(&clock));
        let nudges = Nudges::new(receivers.keys());
        let shared = Arc::new(Shared { store, clock, chance, receivers, watch, observer, nudges });
        let lane = |name: &ReceiverName| (name.clone(), Arc::new(Lane::new(name.clone(), Arc::clone(&shared))));
        let lanes = shared.receivers.keys().map(lane).collect();
        let named = sources.iter().map(|setup| (setup.source.facts().name.clone(), Arc::clone(&setup.source)));
        let performer = Arc::new(Performer::new(follow_ups, named.collect(), Arc::clone(&shared)));
        let rules = RwLock::new(Arc::new(rules));
        let desks = sources.iter().map(|_| Mutex::default()).collect();
        let lookout = lookout::Lookout::default();
        let (turns, gatherer) = (Mutex::default(), Notify::new());
        let (refused, heartbeat) = (std::sync::Mutex::default(), std::sync::Mutex::new(heartbeat));
        Arc::new(Self {
            shared,
            sources,
            lanes,
            performer,
            rules,
            pulse,
            desks,
            lookout,
            refused,
            turns,
            gatherer,
            heartbeat,
            retention,
            pruner: prune::Pruner::default(),
            replica,
            leases,
            started_at,
            asked: Notify::new(),
        })
    }

    /// Starts every loop. They end when `shutdown` asks them to.
    pub fn start(self: &Arc<Self>, tasks: &Tasks, shutdown: &Shutdown) {
        if self.shared.store.is_shared() {
            tasks.spawn(lease::run(Arc::clone(self), shutdown.clone(), self.pulse.heart()));
            tasks.spawn(lease::listen(Arc::clone(self), shutdown.clone()));
            tasks.spawn(lease::compare(Arc::clone(self), shutdown.clone()));
            tasks.spawn(lookout::survey(Arc::clone(self), shutdown.clone(), self.pulse.heart()));
        }
        for lane in self.lanes.values() {
            tasks.spawn(Arc::clone(lane).run(shutdown.clone(), self.pulse.heart()));
        }
        for at in 0..self.sources.len() {
            tasks.spawn(watch::run(Arc::clone(self), at, shutdown.clone(), self.pulse.heart()));
        }
        if !self.performer.is_idle() {
            tasks.spawn(Arc::clone(&self.performer).run(shutdown.clone(), self.pulse.heart()));
        }
        tasks.spawn(lookout::run(Arc::clone(self), shutdown.clone(), self.pulse.heart()));
        if let Some(setup) = self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tasks.spawn(heartbeat::run(Arc::clone(self), setup, shutdown.clone(), self.pulse.heart()));
        }
        tasks.spawn(gather::run(Arc::clone(self), shutdown.clone(), self.pulse.heart()));
        tasks.spawn(prune::run(Arc::clone(self), shutdown.clone(), self.pulse.heart()));
    }

    /// Polls every source once that no other replica polls, and delivers what is due once; for the one-shot command.
    pub async fn once(&self) -> Vec<(SourceName, Result<Plan, store::Error>)> {
        self.visit().await
    }

    /// What [`Agent::once`] does between coming and leaving; for whoever makes many rounds, and attends in time.
    pub async fn round(&self) -> Vec<(SourceName, Result<Plan, store::Error>)> {
        let mut plans = Vec::new();
        for (at, setup) in self.sources.iter().enumerate() {
            // What another replica polls is seen by that one.
            if self.leases.permit(&setup.source.facts().name).is_some() {
                plans.push((setup.source.facts().name.clone(), self.poll(at).await));
            }
        }
        self.look(false).await;
        self.gather_due().await;
        self.turn().await;
        self.prune_once().await;
        plans
    }

    /// Does and delivers everything that is due now, receivers side by side, and comes back when nothing more is. Returns when
    /// there is something to do again, if there will be.
    pub async fn turn(&self) -> Option<Timestamp> {
        self.performer.turn().await;
        let mut lanes = tokio::task::JoinSet::new();
        for lane in self.lanes.values() {
            lanes.spawn(Arc::clone(lane).turn());
        }
        lanes.join_all().await;
        let mut next = None;
        for lane in self.lanes.values() {
            // One lane's trouble is another one's delivery: asked when all have ended.
            next = lane.next().await.into_iter().chain(next).min();
        }
        next
    }

    /// What each source would bring now: nothing is written and nothing sent.
    pub async fn rehearse(&self) -> Vec<(SourceName, Result<Plan, store::Error>)> {
        let mut plans = Vec::new();
        for setup in &self.sources {
            let plan = self.decide(setup, &mut watch::Desk::default()).await;
            plans.push((setup.source.facts().name.clone(), plan));
        }
        plans
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether every loop turns.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Copies of urgent deliveries for their receivers' fallbacks; those who hear the same anyway need none.
    fn reserves(&self, send: &[Owed], all: &[Owed]) -> Vec<Reserve> {
        let now = self.shared.clock.now();
        // Ten thousand may fail at once: each is compared with what is said about its own job alone.
        let mut said: HashMap<(&ReceiverName, &Order), Vec<&Notification>> = HashMap::new();
        for owed in all {
            said.entry((&owed.receiver, &owed.lane)).or_default().push(&owed.notification);
        }
        let hears = |receiver: &ReceiverName, of: &Owed| {
            said.get(&(receiver, &of.lane)).is_some_and(|said| said.contains(&&of.notification))
        };
        send.iter()
            .filter_map(|owed| self.lanes.get(&owed.receiver)?.reserve(owed, now))
            .filter(|(reserve, of)| !hears(&reserve.frozen.receiver, of))
            .map(|(reserve, _)| reserve)
            .collect()
    }

    /// Deliveries in their final wording, as they are stored and sent.
    fn freeze(&self, owed: &[Owed], seen_at: Option<Timestamp>) -> Vec<Frozen> {
        let frozen = self.shared.freeze(owed, self.shared.clock.now());
        frozen.into_iter().map(|frozen| Frozen { seen_at, ..frozen }).collect()
    }
}
