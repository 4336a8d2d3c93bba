//! What the agent says in its own name: that sources cannot be seen, once for all of them, and what its other parts want
//! to have said.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Agent;
use super::insight::Unseen;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use crate::model::delivery::Owed;
use crate::model::listing::Fault;
use crate::model::memory::Sight;
use crate::model::name::SourceName;
use crate::model::time::Timestamp;
use crate::plan::{Plan, View, lookout};
use crate::store::{self, Told};

/// How often one replica looks at what the others see.
const SURVEY_EVERY: Duration = Duration::from_secs(2);
/// How often the views are looked at while something is amiss.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Words that wait while the store does not take them; of more, the oldest go.
const WORDS_MAX: usize = 100;

/// What the polls have said of each source.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    views: Mutex<HashMap<SourceName, View>>,
    /// Where several replicas poll: what the state says of all sources, for the one that tells of them.
    fleet: Mutex<HashMap<SourceName, View>>,
    /// Sources with a complete listing since the start.
    seen: Mutex<HashSet<SourceName>>,
    /// What is to be told besides, in order.
    words: Mutex<Vec<Owed>>,
    news: Notify,
}

impl Lookout {
    fn views(&self) -> MutexGuard<'_, HashMap<SourceName, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a source is not seen, if it is not.
    pub(super) fn unseen(&self, source: &SourceName, blind_after: Duration, now: Timestamp) -> Option<Unseen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(source);
        let views = self.views();
        let view = views.get(source);
        let since = view.and_then(|view| view.sight.blind_since);
        let is_blind = since.is_some_and(|since| now.since(since) >= blind_after)
            || since.is_some() && view.is_some_and(|view| view.sight.told_since.is_some());
        let cause = view.and_then(|view| view.fault.as_ref()).map(|fault| fault.text.clone());
        (!seen || is_blind).then(|| Unseen { source: source.clone(), since: since.filter(|_| seen), cause })
    }

    /// Other replicas poll these: what is to be told of them is theirs to tell.
    pub(super) fn forget(&self, sources: &[SourceName]) {
        let mut views = self.views();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for source in sources {
            views.remove(source);
            seen.remove(source);
        }
    }

    /// Takes what a poll said.
    pub(super) fn note(&self, plan: &Plan, shared: bool) {
        if plan.complete {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(plan.source.name.clone());
        }
        let mut views = self.views();
        let known = views.get(&plan.source.name);
        let mut sight = plan.sight;
        // What was told is known better here than when the poll was decided, unless another replica tells it.
        if !shared {
            sight.told_since = known.map_or(sight.told_since, |known| known.sight.told_since);
        }
        let seen_since = match sight.blind_since {
            Some(_) => None,
            None => known.and_then(|known| known.seen_since).or(Some(plan.at)),
        };
        let told_at = known.and_then(|known| known.told_at);
        let amiss = sight.blind_since.is_some() || sight.told_since.is_some();
        let view = View { source: Arc::clone(&plan.source), sight, fault: plan.fault.clone(), seen_since, told_at };
        views.insert(plan.source.name.clone(), view);
        if amiss {
            self.news.notify_one();
        }
    }

    fn words(&self) -> MutexGuard<'_, Vec<Owed>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this told, as soon as the store takes it.
    pub(super) fn say(&self, owed: Vec<Owed>) {
        let mut words = self.words();
        for owed in owed {
            if !words.iter().any(|known| known.id == owed.id) {
                words.push(owed);
            }
        }
        let over = words.len().saturating_sub(WORDS_MAX);
        words.drain(..over);
        drop(words);
        self.news.notify_one();
    }

    fn is_amiss(&self) -> bool {
        !self.words().is_empty()
            || self.views().values().any(|view| view.sight.blind_since.is_some() || view.sight.told_since.is_some())
    }
}

/// Looks until the agent stops, at what all replicas see.
pub(super) async fn survey(agent: Arc<Agent>, shutdown: Shutdown, heart: Heart) {
    while !shutdown.is_requested() {
        heart.beat(SURVEY_EVERY);
        agent.look(true).await;
        tokio::select! {
            () = tokio::time::sleep(SURVEY_EVERY) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// Looks until the agent stops.
pub(super) async fn run(agent: Arc<Agent>, shutdown: Shutdown, heart: Heart) {
    loop {
        heart.beat(LOOK_EVERY);
        let news = async {
            if !agent.lookout.is_amiss() {
                agent.lookout.news.notified().await;
            }
        };
        tokio::select! {
            () = news => {}
            // The watchdog is fed while there is nothing to see, too.
            () = tokio::time::sleep(LOOK_EVERY * 10) => continue,
            () = shutdown.requested() => break,
        }
        agent.speak().await;
        if !agent.shared.store.is_shared() {
            agent.look(true).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.requested() => break,
        }
    }
    // What was said is owed, whoever sends it after the next start.
    agent.speak().await;
}

impl Agent {
    /// Writes what is to be told besides; what the store does not take is offered again.
    async fn speak(&self) {
        let words = self.lookout.words().clone();
        if words.is_empty() {
            return;
        }
        match self.shared.store.tell(Told { deliveries: self.freeze(&words, None), ..Told::default() }).await {
            Ok(()) => {
                self.lookout.words().retain(|word| !words.iter().any(|told| told.id == word.id));
                words.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
            }
            Err(error) => {
                self.shared.observer.see(&Seen::StoreFailed { doing: "telling of the agent's affairs", error: &error });
            }
        }
    }

    /// Looks at all sources once, and tells what there is to tell. Of several replicas one does that for all.
    pub(super) async fn look(&self, gather: bool) {
        let now = self.shared.clock.now();
        // Taken before anything is read: what is decided on it may be written under this lease, and under no other.
        let fences = self.leases.housekeeping();
        if self.shared.store.is_shared() && fences.is_empty() {
            return;
        }
        let all = match self.shared.store.is_shared() {
            false => &self.lookout.views,
            true => {
                match self.shared.store.amiss().await {
                    Ok(amiss) => self.take_in(amiss, now),
                    Err(error) => return self.failed(&error),
                }
                &self.lookout.fleet
            }
        };
        let outlook = {
            let views = all.lock().unwrap_or_else(PoisonError::into_inner);
            let views: Vec<&View> = views.values().collect();
            lookout(&views, &self.shared.watch, gather, now)
        };
        if outlook.told.is_empty() {
            return;
        }
        let told = Told { sources: outlook.told.clone(), deliveries: self.freeze(&outlook.owed, None), fences };
        match self.shared.store.tell(told).await {
            Ok(()) => {
                let mut views = all.lock().unwrap_or_else(PoisonError::into_inner);
                for (source, since) in outlook.told {
                    if let Some(view) = views.get_mut(&source) {
                        view.sight.told_since = since;
                        view.told_at = since.map_or(view.told_at, |_| Some(now));
                    }
                }
                outlook.owed.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
            }
            Err(error) => {
                self.doubt(&error);
                self.failed(&error);
            }
        }
    }

    /// Takes what the state says of the sources that are amiss; the others are not.
    fn take_in(&self, amiss: Vec<(SourceName, Sight, Option<Fault>)>, now: Timestamp) {
        let mut said: HashMap<SourceName, (Sight, Option<Fault>)> =
            amiss.into_iter().map(|(source, sight, fault)| (source, (sight, fault))).collect();
        let mut views = self.lookout.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        for setup in &self.sources {
            let source = setup.source.facts();
            let Some((sight, fault)) = said.remove(&source.name) else {
                if let Some(view) = views.get_mut(&source.name) {
                    (view.sight, view.fault) = (Sight::default(), None);
                }
                continue;
            };
            let known = views.get(&source.name);
            let seen_since = match sight.blind_since {
                Some(_) => None,
                None => known.and_then(|known| known.seen_since).or(Some(now)),
            };
            let told_at = known.and_then(|known| known.told_at);
            let view = View { source: Arc::clone(source), sight, fault, seen_since, told_at };
            views.insert(source.name.clone(), view);
        }
    }

    fn failed(&self, error: &store::Error) {
        self.shared.observer.see(&Seen::StoreFailed { doing: "telling of sources that cannot be seen", error });
    }
}
