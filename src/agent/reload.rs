//! Other rules: put in force, or refused, and who hears of it.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::Agent;
use super::observer::{Asker, Seen};
use crate::model::name::RuleId;
use crate::model::time::Timestamp;
use crate::plan::{rules_accepted, rules_refused};
use crate::rules::RuleSet;

impl Agent {
    /// Puts other rules in force. What was told is remembered by rule id and is not told again.
    pub fn take_rules(&self, by: Asker, rules: RuleSet, warnings: &[String]) {
        let ids: Vec<RuleId> = rules.rules.iter().map(|rule| rule.id().clone()).collect();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        let at = self.shared.clock.now();
        self.shared.observer.see(&Seen::RulesTaken { by, at, rules: &ids, warnings });
        if let Some(since) = self.refused().take() {
            self.lookout.say(rules_accepted(ids.len(), &self.shared.watch, since, at));
        }
    }

    /// The rules on disk cannot be used, for these reasons: those in force stay, and the operator hears of it.
    pub fn refuse_rules(&self, by: Asker, errors: &[String], warnings: &[String]) {
        self.shared.observer.see(&Seen::RulesRefused { by, errors, warnings });
        let now = self.shared.clock.now();
        let since = *self.refused().get_or_insert(now);
        self.lookout.say(rules_refused(errors, &self.shared.watch, since, now));
    }

    fn refused(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
