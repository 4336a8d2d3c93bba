//! Rules: which transitions matter, to whom, and what is to be said about them.
//!
//! Rule files become [`Rule`]s or problems with their places ([`load`]); a rule that loads has been proved: its words
//! exist, its patterns compile, its templates render. From then on nothing here fails. All rules see every transition;
//! order means nothing.

mod matcher;
mod parse;
mod reason;
mod template;
mod testing;

use std::collections::BTreeMap;
use std::time::Duration;

pub use matcher::{Clause, Facts};
pub use parse::{Surroundings, load};
pub use reason::reason_class;
pub(crate) use template::class_of;
pub use template::{Context, Message, Rendered, builtin};
pub use testing::{Expectation, RuleTest, Step};

use crate::model::alert::Severity;
use crate::model::job::Status;
use crate::model::name::{ReceiverName, RuleId};
use crate::model::notification::RuleFacts;
use crate::model::transition::{State, Transition};

/// Every rule in force.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// In the order of their files.
    pub rules: Vec<Rule>,
    /// What the files say that their rules do.
    pub tests: Vec<RuleTest>,
}

/// One rule, proved.
#[derive(Debug)]
pub struct Rule {
    /// What receivers are told about it; its `id` is the key of its memory.
    pub facts: RuleFacts,
    /// Which steps it looks at.
    pub when: When,
    /// All of these must hold …
    pub matches: Vec<Clause>,
    /// … and not all of these, when there are any.
    pub except: Vec<Clause>,
    /// How much it matters.
    pub severity: Severity,
    /// Who is told.
    pub notify: Vec<ReceiverName>,
    /// What they are told.
    pub message: Message,
}

/// Which steps a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// From one status to another.
    Step {
        /// Where the job came from; `None` is anywhere, first sight too.
        from: Option<Vec<State>>,
        /// Where it went; `None` is any status.
        to: Option<Vec<Status>>,
        /// Whether a state of `from` counts that the job passed unseen between two polls.
        gaps: bool,
    },
    /// In the same status for long.
    Stays {
        /// The statuses.
        status: Vec<Status>,
        /// How long, since the status was first seen.
        at_least: Duration,
    },
    /// No longer there.
    Gone {
        /// The status it was last seen in; `None` is any.
        from: Option<Vec<Status>>,
    },
}

impl When {
    /// Whether this step is one of them.
    pub fn covers(&self, transition: &Transition) -> bool {
        match (self, &transition.to) {
            (Self::Step { from, to, gaps }, State::Is(status)) => {
                let came = |from: &Vec<State>| {
                    let passed = |skipped: &Status| from.contains(&State::Is(skipped.clone()));
                    from.contains(&transition.from) || *gaps && transition.skipped.iter().any(passed)
                };
                from.as_ref().is_none_or(came) && to.as_ref().is_none_or(|to| to.contains(status))
            }
            (Self::Gone { from }, State::Gone) => match &transition.from {
                State::Is(status) => from.as_ref().is_none_or(|from| from.contains(status)),
                State::Unseen | State::Gone => false,
            },
            (Self::Step { .. }, State::Unseen | State::Gone)
            | (Self::Gone { .. }, State::Is(_) | State::Unseen)
            | (Self::Stays { .. }, _) => false,
        }
    }
}

impl RuleSet {
    /// The statuses that some rule wants to know the duration of; those jobs have to be known at every poll.
    pub fn timed(&self) -> Vec<Status> {
        let mut timed: Vec<Status> = Vec::new();
        for rule in &self.rules {
            if let When::Stays { status, .. } = &rule.when {
                let new: Vec<Status> = status.iter().filter(|status| !timed.contains(*status)).cloned().collect();
                timed.extend(new);
            }
        }
        timed
    }
}

impl Rule {
    /// The key of the rule's memory.
    pub fn id(&self) -> &RuleId {
        &self.facts.id
    }

    /// Whether the rule fires for a step.
    pub fn fires(&self, transition: &Transition, facts: &Facts<'_>) -> bool {
        self.when.covers(transition) && self.applies(facts)
    }

    /// Whether the clauses of `match` and `except` let the rule speak of this job.
    pub fn applies(&self, facts: &Facts<'_>) -> bool {
        self.matches.iter().all(|clause| clause.holds(facts))
            && (self.except.is_empty() || !self.except.iter().all(|clause| clause.holds(facts)))
    }
}

/// The operator's own words on a rule.
pub type Labels = BTreeMap<String, String>;
