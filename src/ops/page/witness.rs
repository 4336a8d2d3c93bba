//! What no state holds and the page tells all the same: how the last poll of each source went, who is only probed, and how
//! the rules fared. It begins anew with the process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::Now;
use crate::agent::{Observer, Seen};
use crate::model::name::{ReceiverName, SourceName};
use crate::model::text::line;
use crate::model::time::Timestamp;
use crate::store;

/// What is kept of an error is cut here.
const ERROR_MAX: usize = 400;
/// More errors of refused rules are not kept; the log has all.
const ERRORS_MAX: usize = 5;

/// Sees what happens, and keeps the last of it.
pub struct Witness {
    now: Now,
    seen: Mutex<Witnessed>,
}

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub(super) struct Witnessed {
    /// Sources whose last poll brought no whole listing.
    pub(super) faults: HashMap<SourceName, Fault>,
    /// Receivers that are only probed, and until when not even that.
    pub(super) resting: BTreeMap<ReceiverName, Timestamp>,
    /// How many rules are in force.
    pub(super) rules: usize,
    /// Since when.
    pub(super) rules_since: Timestamp,
    /// When and why the rules on disk were refused, if they were refused last.
    pub(super) refused: Option<(Timestamp, Vec<String>)>,
}

/// Why a poll brought no whole listing.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// When the first did not, of those in a row.
    pub(super) since: Timestamp,
    /// Why the last one did not.
    pub(super) why: String,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Witness {
    /// So many rules are in force from the start.
    pub fn new(rules: usize, now: Now) -> Self {
        let rules_since = now();
        Self { now, seen: Mutex::new(Witnessed { rules, rules_since, ..Witnessed::default() }) }
    }

    pub(super) fn witnessed(&self) -> Witnessed {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, change: impl FnOnce(&mut Witnessed)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Witnessed {
    fn polled(&mut self, source: &SourceName, at: Timestamp, why: Option<&str>) {
        let Some(why) = why else {
            self.faults.remove(source);
            return;
        };
        let fault = self.faults.entry(source.clone()).or_insert_with(|| Fault { since: at, why: String::new() });
        fault.why = line(why, ERROR_MAX);
    }
}

impl Observer for Witness {
    fn see(&self, seen: &Seen<'_>) {
        match seen {
            Seen::Polled { plan, .. } => {
                let why = plan.fault.as_ref().map(|fault| fault.text.as_str());
                self.keep(|last| last.polled(&plan.source.name, plan.at, why));
            }
            // Another replica polls it, and sees what is amiss.
            Seen::PollLost { error: store::Error::Fenced(_), .. } => {}
            Seen::Leased { lost: 1.., .. } => self.keep(|last| last.faults.clear()),
            Seen::PollLost { source, error } => {
                let (at, why) = ((self.now)(), error.to_string());
                self.keep(|last| last.polled(source, at, Some(&why)));
            }
            Seen::Rested { receiver, until } => self.keep(|last| {
                last.resting.insert((*receiver).clone(), *until);
            }),
            Seen::Recovered { receiver } => self.keep(|last| {
                last.resting.remove(*receiver);
            }),
            Seen::RulesTaken { at, rules, .. } => self.keep(|last| {
                (last.rules, last.rules_since, last.refused) = (rules.len(), *at, None);
            }),
            Seen::RulesRefused { errors, .. } => {
                let errors = errors.iter().take(ERRORS_MAX).map(|error| line(error, ERROR_MAX)).collect();
                let at = (self.now)();
                self.keep(|last| last.refused = Some((at, errors)));
            }
            Seen::Remarked { .. }
            | Seen::Beaten { .. }
            | Seen::Pruned { .. }
            | Seen::Oversized { .. }
            | Seen::Leased { .. }
            | Seen::Attempted { .. }
            | Seen::Escalated { .. }
            | Seen::Lapsed { .. }
            | Seen::FollowedUp { .. }
            | Seen::Returned { .. }
            | Seen::StoreFailed { .. } => {}
        }
    }
}
