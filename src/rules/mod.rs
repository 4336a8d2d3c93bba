//! Rules: which transitions matter, to whom, and what is to be said about them.
//!
//! Rule files become [`Rule`]s or problems with their places ([`load`]); a rule that loads has been proved: its words
//! exist, its patterns compile, its templates render. From then on nothing here fails. All rules see every transition;
//! order means nothing.

mod explain;
mod filter;
mod matcher;
mod parse;
mod proof;
mod reason;
mod sample;
mod schema;
mod silence;
mod template;
mod testing;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use explain::{Explanation, Holds, Line};
pub use filter::{FILTERS, FUNCTIONS, TESTS};
pub use matcher::{Clause, FIELDS, Facts, Field};
pub use parse::{Surroundings, load, load_noting};
pub use reason::reason_class;
pub use schema::{schema, window as window_schema};
pub use silence::Hush;
pub use template::class_of;
pub use template::{Context, Message, Rendered, builtin};
pub use testing::{Expectation, RuleTest, Step};
pub use window::{Window, zone};

use crate::model::alert::Severity;
use crate::model::job::Status;
use crate::model::name::{AlertId, FollowUpName, ReceiverName, RuleId, derive};
use crate::model::notification::RuleFacts;
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};

/// Every name that a template can use.
pub fn names() -> impl Iterator<Item = &'static str> {
    proof::NAMES.iter().map(|(name, _)| *name)
}

/// Every rule in force.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// In the order of their files.
    pub rules: Vec<Rule>,
    /// What the files say that their rules do.
    pub tests: Vec<RuleTest>,
    /// A digest of the files: two sets with the same are the same; nothing when they come from no files.
    pub digest: String,
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
    /// One finding for each value of these together, within a source.
    pub key: Vec<Field>,
    /// Whether and how its messages are gathered.
    pub group: Option<Group>,
    /// A receiver that was told of a finding is not told of it again so soon.
    pub cooldown: Duration,
    /// When a finding is over.
    pub resolve: Option<Resolve>,
    /// When it may speak; always, if there are none.
    pub active: Vec<Arc<Window>>,
    /// What is to be done about a new finding.
    pub then: Vec<FollowUpName>,
}

/// How a rule's messages are gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What is equal within a group.
    pub by: Vec<Field>,
    /// How long it gathers.
    pub wait: Duration,
}

/// When a finding is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The statuses that end it; `None` is any.
    pub to: Option<Vec<Status>>,
    /// Whose.
    pub scope: Scope,
}

/// Whose step ends a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The job's that it spoke of.
    Job,
    /// Any job's on the same resource.
    Resource,
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
    /// Many in a short time.
    Burst {
        /// Where the jobs went; `None` is any status.
        to: Option<Vec<Status>>,
        /// So many …
        count: u32,
        /// … within this time …
        within: Duration,
        /// … that are equal in these.
        per: Vec<Field>,
    },
    /// A reason that was not seen before.
    New {
        /// Where the jobs went; `None` is any status.
        to: Option<Vec<Status>>,
        /// A reason is forgotten after this time.
        memory: Duration,
    },
    /// Something else about a job than its status changed.
    Changed {
        /// What.
        fields: Vec<Field>,
    },
}

impl When {
    /// Whether this step is one of them.
    pub fn covers(&self, transition: &Transition) -> bool {
        match (self, &transition.to) {
            (Self::Step { .. }, _) if transition.from == transition.to => false,
            (Self::Step { from, to, gaps }, State::Is(status)) => {
                let came = |from: &Vec<State>| {
                    let passed = |skipped: &Status| from.contains(&State::Is(skipped.clone()));
                    from.contains(&transition.from) || *gaps && transition.skipped.iter().any(passed)
                };
                from.as_ref().is_none_or(came) && to.as_ref().is_none_or(|to| to.contains(status))
            }
            (Self::Burst { to, .. } | Self::New { to, .. }, State::Is(status)) => {
                transition.from != transition.to && to.as_ref().is_none_or(|to| to.contains(status))
            }
            (Self::Gone { from }, State::Gone) => match &transition.from {
                State::Is(status) => from.as_ref().is_none_or(|from| from.contains(status)),
                State::Unseen | State::Gone => false,
            },
            (Self::Step { .. } | Self::Burst { .. } | Self::New { .. }, State::Unseen | State::Gone)
            | (Self::Gone { .. }, State::Is(_) | State::Unseen)
            | (Self::Stays { .. } | Self::Changed { .. }, _) => false,
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

    /// Whether there are findings that are not about one job each.
    pub fn has_wide(&self) -> bool {
        self.rules.iter().any(Rule::is_wide)
    }

    /// The findings about these facts that are not about one job alone: they have to be known to decide about it.
    pub fn wide_findings(&self, facts: &Facts<'_>) -> impl Iterator<Item = AlertId> {
        self.rules.iter().filter(|rule| rule.is_wide()).map(|rule| rule.finding(facts))
    }

    /// Whether a finding can be over through another job on the same resource.
    pub fn by_resource(&self) -> bool {
        let by_resource = |resolve: &Resolve| resolve.scope == Scope::Resource;
        self.rules.iter().any(|rule| rule.resolve.as_ref().is_some_and(by_resource))
    }

    /// How much of the past has to be known to count bursts.
    pub fn counted(&self) -> Option<Duration> {
        let within = |rule: &Rule| match rule.when {
            When::Burst { within, .. } => Some(within),
            When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::New { .. } | When::Changed { .. } => {
                None
            }
        };
        self.rules.iter().filter_map(within).max()
    }
}

impl Rule {
    /// The key of the rule's memory.
    pub fn id(&self) -> &RuleId {
        &self.facts.id
    }

    /// What its finding about these facts is kept under. A field that a job does not have tells it from no other: then the
    /// finding is the job's own.
    pub fn finding(&self, facts: &Facts<'_>) -> AlertId {
        let (rule, source) = (self.id().as_str(), facts.source.as_str());
        if !self.is_wide() {
            return AlertId::from(derive("alr", &["jobwatch/alert/v1", rule, source, facts.job.id.as_str()]));
        }
        let fields: &[Field] = match &self.when {
            When::Burst { per, .. } => per,
            When::New { .. } => &[Field::ReasonClass],
            When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::Changed { .. } => &self.key,
        };
        let value = |field: &Field| match facts.text(*field) {
            Some(text) => format!("{}={text}", field.as_str()),
            None => format!("id={}", facts.job.id),
        };
        let values: Vec<String> = fields.iter().filter(|field| **field != Field::Source).map(value).collect();
        let mut parts = vec!["jobwatch/alert/v2", rule, source];
        parts.extend(values.iter().map(String::as_str));
        AlertId::from(derive("alr", &parts))
    }

    /// Whether its findings are about something else than one job each.
    pub fn is_wide(&self) -> bool {
        self.key != PER_JOB || matches!(self.when, When::Burst { .. } | When::New { .. })
    }

    /// The window that keeps the rule from speaking now: the first of its windows, when none is open.
    pub fn asleep(&self, now: Timestamp) -> Option<&Window> {
        let open = self.active.iter().any(|window| window.is_open(now));
        self.active.first().filter(|_| !open).map(|window| &**window)
    }

    /// Whether the rule fires for a step, as far as the step alone can say.
    pub fn fires(&self, transition: &Transition, facts: &Facts<'_>) -> bool {
        self.when.covers(transition) && self.applies(facts)
    }

    /// Whether the clauses of `match` and `except` let the rule speak of this job.
    pub fn applies(&self, facts: &Facts<'_>) -> bool {
        self.matches.iter().all(|clause| clause.holds(facts))
            && (self.except.is_empty() || !self.except.iter().all(|clause| clause.holds(facts)))
    }
}

/// The key of a rule that says nothing else.
pub const PER_JOB: [Field; 2] = [Field::Source, Field::Id];

/// The operator's own words on a rule.
pub type Labels = BTreeMap<String, String>;
