//! Looking at all sources together: who is told that some cannot be seen, once for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Agent;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use crate::model::name::SourceName;
use crate::plan::{Plan, View, lookout};
use crate::store::{self, Told};

/// How often the views are looked at while something is amiss.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the polls have said of each source.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    views: Mutex<HashMap<SourceName, View>>,
    news: Notify,
}

impl Lookout {
    fn views(&self) -> MutexGuard<'_, HashMap<SourceName, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a poll said.
    pub(super) fn note(&self, plan: &Plan) {
        let mut views = self.views();
        let known = views.get(&plan.source.name);
        let mut sight = plan.sight;
        // What was told is known better here than when the poll was decided.
        sight.told_since = known.map_or(sight.told_since, |known| known.sight.told_since);
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

    fn is_amiss(&self) -> bool {
        self.views().values().any(|view| view.sight.blind_since.is_some() || view.sight.told_since.is_some())
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
            () = shutdown.requested() => return,
        }
        agent.look(true).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.requested() => return,
        }
    }
}

impl Agent {
    /// Looks at all sources once, and tells what there is to tell.
    pub(super) async fn look(&self, gather: bool) {
        let now = self.shared.clock.now();
        let outlook = {
            let views = self.lookout.views();
            let views: Vec<&View> = views.values().collect();
            lookout(&views, &self.shared.watch, gather, now)
        };
        if outlook.told.is_empty() {
            return;
        }
        let told = Told { sources: outlook.told.clone(), deliveries: self.freeze(&outlook.owed) };
        match self.shared.store.tell(told).await {
            Ok(()) => {
                let mut views = self.lookout.views();
                for (source, since) in outlook.told {
                    if let Some(view) = views.get_mut(&source) {
                        view.sight.told_since = since;
                        view.told_at = since.map_or(view.told_at, |_| Some(now));
                    }
                }
                outlook.owed.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &store::Error) {
        self.shared.observer.see(&Seen::StoreFailed { doing: "telling of sources that cannot be seen", error });
    }
}
