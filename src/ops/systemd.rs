//! What systemd is told: ready, what we see, that we are alive, that we stop.
//!
//! Ready means that every source has been polled and the outcome is on disk, good or bad; a bad one is in `STATUS=`. The
//! watchdog is fed only while every loop turns. Without `NOTIFY_SOCKET` all of this does nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sd_notify::NotifyState;
use tracing::warn;

use crate::agent::{Observer, Pulse, Seen, Shutdown};
use crate::model::name::SourceName;
use crate::store;

/// As much of a problem as is shown.
const PROBLEM_MAX: usize = 300;

/// Tells systemd of the sources, and of rules that cannot be used.
#[derive(Debug)]
pub struct Notifier {
    sources: Mutex<Sources>,
}

#[derive(Debug)]
struct Sources {
    expected: usize,
    ready: bool,
    /// What is known of each: `None` when it is seen, else why not.
    states: BTreeMap<SourceName, Option<String>>,
    /// Why the rules on disk cannot be used, if they cannot.
    refused: Option<String>,
    status: String,
}

impl Notifier {
    /// Expects this many sources to be polled before it says that the service is ready.
    pub fn new(expected: usize) -> Self {
        let (states, refused, status) = (BTreeMap::new(), None, String::new());
        Self { sources: Mutex::new(Sources { expected, ready: false, states, refused, status }) }
    }
}

impl Observer for Notifier {
    fn see(&self, seen: &Seen<'_>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Seen::Polled { plan, .. } => {
                let trouble = plan.fault.as_ref().map(|fault| fault.text.clone());
                sources.states.insert(plan.source.name.clone(), trouble);
            }
            Seen::PollLost { error: store::Error::Fenced(_), .. } => return,
            Seen::PollLost { source, error } => {
                sources.states.insert((*source).clone(), Some(error.to_string()));
            }
            // Others poll the rest.
            Seen::Leased { held, lost, .. } => {
                sources.expected = *held;
                if *lost > 0 {
                    sources.states.clear();
                }
            }
            Seen::RulesTaken { .. } => sources.refused = None,
            Seen::RulesRefused { errors, .. } => sources.refused = errors.first().cloned(),
            Seen::Remarked { .. }
            | Seen::Attempted { .. }
            | Seen::Escalated { .. }
            | Seen::Lapsed { .. }
            | Seen::Rested { .. }
            | Seen::Recovered { .. }
            | Seen::FollowedUp { .. }
            | Seen::Beaten { .. }
            | Seen::Returned { .. }
            | Seen::Pruned { .. }
            | Seen::Oversized { .. }
            | Seen::StoreFailed { .. } => return,
        }
        let status = sources.describe();
        let ready = !sources.ready && sources.states.len() >= sources.expected;
        if ready {
            sources.ready = true;
            tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        } else if status != sources.status {
            tell(&[NotifyState::Status(&status)]);
        }
        sources.status = status;
    }
}

impl Sources {
    fn describe(&self) -> String {
        let blind: Vec<String> =
            self.states.iter().filter_map(|(name, trouble)| Some(format!("{name}: {}", trouble.as_ref()?))).collect();
        let seen = self.states.len() - blind.len();
        let mut text = format!("watching {seen} of {} sources", self.expected);
        blind.first().into_iter().for_each(|first| text += &format!("; {first}"));
        if let Some(first) = &self.refused {
            let first: String = first.chars().take(PROBLEM_MAX).collect();
            text += &format!("; rules on disk refused: {first}; old ones in force");
        }
        text
    }
}

/// Feeds the watchdog, if the unit has one, while every loop turns.
pub async fn watchdog(pulse: Arc<Pulse>, shutdown: Shutdown) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(timeout / 3) => {}
            () = shutdown.requested() => return,
        }
        if pulse.is_steady() {
            tell(&[NotifyState::Watchdog]);
        } else {
            warn!("a loop stands still: the watchdog is not fed");
        }
    }
}

/// Says that the service stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd could not be told: {error}");
    }
}
