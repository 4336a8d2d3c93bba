//! Which sources this agent polls. Alone with its store, all of them; with others, those whose leases it holds.
//!
//! A lease holds for a while after the store was last told that this agent lives, and is not trusted to the end: from the
//! moment the question was sent, two thirds of its time. So whoever was paused, or does not reach the store, stops polling
//! before anybody else begins. What it had decided by then is refused by the store itself, by its [`Fence`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Agent;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use crate::clock::Stopwatch;
use crate::model::name::{SourceName, derive};
use crate::model::time::Timestamp;
use crate::plan::{Plan, replicas_agree, replicas_differ};
use crate::store::share::{Attendance, Fence, News};
use crate::store::{self, Error};

/// It is said that one lives so many times within the time of a lease.
const BEATS: u32 = 3;
/// What one waits for an answer to that at least.
const ATTEND_MIN: Duration = Duration::from_secs(1);
/// How long the farewell may take: whoever is to go on waits for it.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// What others say is listened for again after this long, if it broke off.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// It is looked once in the time of a lease whether all replicas have the same rules; so often they are found to differ before
/// that is told: they may be about to be changed one by one.
const DIFFERENT_LOOKS: u32 = 4;

/// What an agent is to others on the same store.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Host and process, for people.
    pub name: String,
    /// How long a source stays with a replica that is not heard of.
    pub lease: Duration,
}

impl Default for Replica {
    fn default() -> Self {
        Self { name: format!("process {}", std::process::id()), lease: Duration::from_secs(15) }
    }
}

/// The work that one replica does for all is leased like a source, under a name that none can have.
fn housekeeping() -> SourceName {
    SourceName::from("")
}

/// The leases of this agent.
pub(super) struct Leases {
    /// Whether others may be at work on the same store.
    shared: bool,
    held: Mutex<Held>,
    /// Counts changes of what may be polled: who waits for them may wait long.
    changed: watch::Sender<u64>,
    /// Whoever waits for the next look.
    wake: Notify,
}

#[derive(Default)]
struct Held {
    leases: BTreeMap<SourceName, Fence>,
    /// Since when, and for how long, they can be trusted.
    good: Option<(Stopwatch, Duration)>,
}

impl Held {
    fn is_good(&self) -> bool {
        self.good.is_some_and(|(since, span)| since.elapsed() < span)
    }
}

impl Leases {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, held: Mutex::default(), changed: watch::Sender::new(0), wake: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under which lease a source may be polled now: `None` when it may not be, and no fence where there are no leases.
    pub(super) fn permit(&self, source: &SourceName) -> Option<Option<Fence>> {
        if !self.shared {
            return Some(None);
        }
        let held = self.held();
        held.leases.get(source).filter(|_| held.is_good()).cloned().map(Some)
    }

    /// Whether this agent does what one does for all.
    pub(super) fn is_housekeeper(&self) -> bool {
        self.permit(&housekeeping()).is_some()
    }

    /// The lease of what one does for all, where there are any.
    pub(super) fn housekeeping(&self) -> Vec<(SourceName, Fence)> {
        self.permit(&housekeeping()).flatten().map(|fence| (housekeeping(), fence)).into_iter().collect()
    }

    /// Changes whenever what is held does.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Looks at once.
    pub(super) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Whether it is known what is held.
    pub(super) fn is_settled(&self) -> bool {
        !self.shared || self.held().is_good()
    }

    /// Takes what is held from now on. Returns what is new and what is no more.
    fn take(
        &self,
        leases: BTreeMap<SourceName, Fence>,
        good: Option<(Stopwatch, Duration)>,
    ) -> (usize, Vec<SourceName>) {
        let mut held = self.held();
        // What was not trusted for a moment, because the store did not answer, is waited for although it stayed the same.
        let again = good.is_some() && !held.is_good();
        let new = leases.iter().filter(|(source, fence)| held.leases.get(*source) != Some(*fence)).count();
        let lost: Vec<SourceName> =
            held.leases.keys().filter(|source| !leases.contains_key(*source)).cloned().collect();
        *held = Held { leases, good };
        drop(held);
        if again || new > 0 || !lost.is_empty() {
            self.changed.send_modify(|count| *count += 1);
        }
        (new, lost)
    }
}

/// Keeps the leases until the agent stops, and then gives them back at once.
pub(super) async fn run(agent: Arc<Agent>, shutdown: Shutdown, heart: Heart) {
    let every = agent.replica.lease / BEATS;
    while !shutdown.is_requested() {
        heart.beat(agent.replica.lease * 2);
        agent.attend().await;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = agent.leases.wake.notified() => {}
            () = shutdown.requested() => {}
        }
    }
    heart.beat(FAREWELL_MAX);
    agent.leave().await;
}

/// Looks whether all replicas have the same rules, until the agent stops.
pub(super) async fn compare(agent: Arc<Agent>, shutdown: Shutdown) {
    let mut unlike = Unlike::default();
    while !shutdown.is_requested() {
        tokio::select! {
            () = tokio::time::sleep(agent.replica.lease) => unlike.look(&agent).await,
            () = shutdown.requested() => {}
        }
    }
}

/// Hears what others do, until the agent stops.
pub(super) async fn listen(agent: Arc<Agent>, shutdown: Shutdown) {
    let tell = |news| agent.hear(&news);
    while !shutdown.is_requested() {
        let error = tokio::select! {
            error = agent.shared.store.listen(&tell) => error,
            () = shutdown.requested() => return,
        };
        agent.shared.observer.see(&Seen::StoreFailed { doing: "listening to the other replicas", error: &error });
        tokio::select! {
            () = tokio::time::sleep(LISTEN_AGAIN) => {}
            () = shutdown.requested() => {}
        }
    }
}

impl Agent {
    /// Says that this agent lives, and takes what is due to it. What it has beyond its share it gives back.
    pub async fn attend(&self) {
        self.attend_as(false).await;
    }

    async fn attend_as(&self, guest: bool) {
        if !self.leases.shared {
            return;
        }
        let watch = self.shared.clock.stopwatch();
        // Another connection may answer where this one does not, and the leases do not wait.
        let patience = (self.replica.lease / BEATS).max(ATTEND_MIN);
        let attended = tokio::time::timeout(patience, self.shared.store.attend(self.attendance(guest))).await;
        let attended = match attended.unwrap_or_else(|_| Err(Error::Failed("the state does not answer in time".into())))
        {
            Ok(attended) => attended,
            Err(error) => {
                if !self.leases.is_settled() {
                    self.settle(BTreeMap::new(), None, 0);
                }
                self.shared.observer.see(&Seen::StoreFailed { doing: "keeping the leases", error: &error });
                return;
            }
        };
        self.shared.clock.steer(attended.now, watch.elapsed() / 2);
        let mut held = attended.held;
        let back: Vec<(SourceName, Fence)> =
            attended.excess.iter().filter_map(|source| held.remove_entry(source)).collect();
        self.settle(held, Some((watch, self.replica.lease * 2 / 3)), attended.living);
        // From here on nothing is polled under them.
        if !back.is_empty()
            && let Err(error) = self.shared.store.hand_back(back).await
        {
            self.shared.observer.see(&Seen::StoreFailed { doing: "giving leases back", error: &error });
        }
    }

    fn settle(&self, held: BTreeMap<SourceName, Fence>, good: Option<(Stopwatch, Duration)>, living: usize) {
        let sources = held.keys().filter(|source| **source != housekeeping()).count();
        let (new, lost) = self.leases.take(held, good);
        self.lookout.forget(&lost);
        self.shared.observer.see(&Seen::Leased { held: sources, new, lost: lost.len(), living });
    }

    /// Everything is given back: whoever is to go on does so at once.
    pub async fn leave(&self) {
        if !self.leases.shared {
            return;
        }
        self.leases.take(BTreeMap::new(), None);
        // Those that are not given back lapse by themselves.
        if let Ok(Err(error)) = tokio::time::timeout(FAREWELL_MAX, self.shared.store.leave()).await {
            self.shared.observer.see(&Seen::StoreFailed { doing: "giving the leases back", error: &error });
        }
    }

    /// One round as a guest: it takes what no other replica polls, and holds it for as long as that takes.
    pub(super) async fn visit(&self) -> Vec<(SourceName, Result<Plan, Error>)> {
        if !self.leases.shared {
            return self.round().await;
        }
        self.attend_as(true).await;
        let renewing = async {
            loop {
                tokio::time::sleep(self.replica.lease / BEATS).await;
                self.attend_as(true).await;
            }
        };
        let plans = tokio::select! {
            plans = self.round() => plans,
            () = renewing => Vec::new(),
        };
        self.leave().await;
        plans
    }

    fn attendance(&self, guest: bool) -> Attendance {
        let sources = self.sources.iter().map(|setup| setup.source.facts().name.clone());
        let names = self.sources.iter().map(|setup| setup.source.facts().name.as_str());
        let names = names.chain(std::iter::once("/")).chain(self.lanes.keys().map(|receiver| receiver.as_str()));
        Attendance {
            name: self.replica.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rules: self.rules().digest.clone(),
            sources: derive("cfg", &names.collect::<Vec<_>>()),
            started_at: self.started_at,
            ttl: self.replica.lease,
            wanted: sources.chain(std::iter::once(housekeeping())).collect(),
            guest,
        }
    }

    fn hear(&self, news: &News) {
        match news {
            News::Due(receiver) => self.shared.nudges.nudge(receiver),
            News::Held => self.gatherer.notify_one(),
            News::FollowUp => self.performer.nudge(),
            News::Leases => self.leases.nudge(),
            News::Request => self.asked.notify_one(),
            // Whatever was not heard is looked for.
            News::Begun => {
                self.lanes.keys().for_each(|receiver| self.shared.nudges.nudge(receiver));
                self.gatherer.notify_one();
                self.performer.nudge();
                self.leases.nudge();
                self.asked.notify_one();
            }
        }
    }

    /// Comes back when a command may have asked for something.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// A commit was refused. If the lease is no longer held, that is known from here on.
    pub(super) fn doubt(&self, error: &store::Error) {
        if matches!(error, Error::Fenced(_)) {
            self.leases.nudge();
        }
    }
}

/// Whether all replicas have the same rules; one of them looks.
#[derive(Default)]
struct Unlike {
    /// Since when they were found to differ, how often, and whether that was told.
    since: Option<Timestamp>,
    looks: u32,
    told: bool,
}

impl Unlike {
    async fn look(&mut self, agent: &Agent) {
        if !agent.leases.is_housekeeper() {
            return;
        }
        let Ok(replicas) = agent.shared.store.replicas().await else { return };
        let living: Vec<(String, String, String)> = replicas
            .into_iter()
            .filter(|replica| replica.living)
            .map(|replica| (replica.name, replica.rules, replica.sources))
            .collect();
        let kinds: BTreeSet<(&str, &str)> = living.iter().map(|(_, rules, sources)| (&**rules, &**sources)).collect();
        let (watch, now) = (&agent.shared.watch, agent.shared.clock.now());
        if kinds.len() > 1 {
            let since = *self.since.get_or_insert(now);
            self.looks += 1;
            if self.looks >= DIFFERENT_LOOKS && !self.told {
                self.told = true;
                agent.lookout.say(replicas_differ(&living, watch, since, now));
            }
        } else if let Some(since) = self.since.take() {
            if self.told {
                agent.lookout.say(replicas_agree(living.len(), watch, since, now));
            }
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Duration, Fence, Leases, SourceName};
    use crate::clock::Clock;

    #[test]
    fn a_lease_that_was_not_trusted_for_a_moment_is_waited_for_until_it_is() {
        let (leases, prod) = (Leases::new(true), SourceName::from("prod"));
        let held = || BTreeMap::from([(prod.clone(), Fence { holder: "me".into(), epoch: 1 })]);
        let good = |span| Some((Clock::system().stopwatch(), span));
        leases.take(held(), good(Duration::ZERO));
        assert_eq!(leases.permit(&prod), None, "its time is over");
        let changes = leases.changes();
        assert_eq!(leases.take(held(), good(Duration::MAX)), (0, vec![]));
        assert!(leases.permit(&prod).is_some() && changes.has_changed().unwrap(), "who waited is woken");
        let changes = leases.changes();
        leases.take(held(), good(Duration::MAX));
        assert!(!changes.has_changed().unwrap(), "nothing is new");
    }
}
