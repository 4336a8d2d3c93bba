//! What the rules make of a poll: findings, and who is to be told what of them.
//!
//! Every rule looks at every step. What matches becomes or enriches a finding ([`Alert`]); whether it is told is asked
//! receiver by receiver: silences and hours, cooldown. What is to be told to one receiver about one step becomes one
//! message, whichever rules found it. Each answer is kept as a [`Fate`], so that somebody can ask why.

mod burst;
mod finding;
mod telling;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::diff::Difference;
use crate::model::alert::{Alert, Fate, FateOutcome, Muted};
use crate::model::delivery::Owed;
use crate::model::follow_up::FollowUp;
use crate::model::job::Job;
use crate::model::memory::Memory;
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName, TransitionId, derive};
use crate::model::notification::SourceFacts;
use crate::model::snapshot::{Change, Known};
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};
use crate::rules::{Facts, Field, Hush, Rule, RuleSet, Scope, When, class_of};
use burst::Tally;

/// A time that lies further ahead is from before the clock was set back.
const AHEAD_MAX: Duration = Duration::from_secs(60);

pub(super) struct Decision<'a> {
    source: &'a Arc<SourceFacts>,
    before: &'a Memory,
    rules: &'a RuleSet,
    now: Timestamp,
    hushes: Vec<Hush>,
    /// What was muted before, by finding.
    hushed: HashMap<&'a AlertId, Vec<&'a Muted>>,
    /// Findings that can be over through a step of this job, or of a job on this resource.
    open: HashMap<(Scope, Box<str>), Vec<AlertId>>,
    tally: Tally,
    classes: Classes,
    pub(super) alerts: BTreeMap<AlertId, Alert>,
    pub(super) muted: BTreeMap<(AlertId, JobId), Option<Muted>>,
    pub(super) owed: Vec<Owed>,
    pub(super) follow_ups: Vec<FollowUp>,
    pub(super) fates: Vec<Fate>,
    pub(super) faults: Vec<String>,
    pub(super) matches: Vec<(RuleId, Arc<Transition>)>,
}

/// The classes of reasons that this poll has asked for: many jobs fail for one reason, and each step is looked at more than
/// once.
#[derive(Debug, Default)]
struct Classes(RefCell<HashMap<Box<str>, Rc<str>>>);

impl Classes {
    /// The class of a job's reason; empty if it has none.
    fn of(&self, job: &Job) -> Rc<str> {
        let reason = job.reason.as_deref().unwrap_or_default();
        if let Some(class) = self.0.borrow().get(reason) {
            return Rc::clone(class);
        }
        let class: Rc<str> = class_of(job).into();
        self.0.borrow_mut().insert(reason.into(), Rc::clone(&class));
        class
    }
}

/// A rule that has something to say about a step, and its finding.
struct Hit<'a> {
    rule: &'a Rule,
    alert: AlertId,
}

impl<'a> Decision<'a> {
    pub(super) fn new(source: &'a Arc<SourceFacts>, before: &'a Memory, rules: &'a RuleSet, now: Timestamp) -> Self {
        // One that cannot be read was refused when it was made.
        let hushes = before.silences.iter().filter_map(|silence| Hush::new(silence.clone()).ok()).collect();
        let mut decision = Self {
            source,
            before,
            rules,
            now,
            hushes,
            hushed: HashMap::new(),
            open: HashMap::new(),
            tally: Tally::default(),
            classes: Classes::default(),
            alerts: BTreeMap::new(),
            muted: BTreeMap::new(),
            owed: Vec::new(),
            follow_ups: Vec::new(),
            fates: Vec::new(),
            faults: Vec::new(),
            matches: Vec::new(),
        };
        for muted in &before.muted {
            decision.hushed.entry(&muted.alert).or_default().push(muted);
        }
        let mut known: Vec<&Alert> = before.alerts.values().collect();
        known.sort_by(|a, b| a.id.cmp(&b.id));
        known.into_iter().for_each(|alert| decision.index(alert));
        decision
    }

    /// Everything about one poll.
    pub(super) fn decide(&mut self, difference: &Difference) {
        self.count(difference.transitions());
        if difference.baseline {
            self.seed(difference);
        }
        for change in &difference.changes {
            self.change(change);
        }
        self.stays(difference);
        self.unmute(difference);
    }

    /// Counts these steps, with those of the near past, before any is judged: a burst is told with its whole number.
    pub(super) fn count<'s>(&mut self, steps: impl Iterator<Item = &'s Arc<Transition>>) {
        let past = self.before.recent.iter().map(|step| &**step);
        let steps = past.chain(steps.map(|step| &**step));
        self.tally = Tally::of(self.rules, &self.source.name, steps, &self.classes, self.now);
    }

    /// One row that changed.
    fn change(&mut self, change: &Change) {
        let changed = self.changed(change);
        if let Some(transition) = &change.transition {
            self.judge(transition, &changed);
        } else if !changed.is_empty() {
            let fields = changed.iter().map(|field| field.as_str()).collect();
            let step =
                Arc::new(still(&self.source.name, &change.known, "change", change.known.seen_at, self.now, fields));
            self.judge(&step, &changed);
        }
    }

    /// What else than the status is different now, as far as a rule asks.
    fn changed(&self, change: &Change) -> Vec<Field> {
        let asked = self.rules.rules.iter().filter_map(|rule| match &rule.when {
            When::Changed { fields } => Some(fields),
            When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::Burst { .. } | When::New { .. } => None,
        });
        let asked = asked.flatten().copied().fold(Vec::new(), |mut asked: Vec<Field>, field| {
            if !asked.contains(&field) {
                asked.push(field);
            }
            asked
        });
        if asked.is_empty() || change.known.gone {
            return Vec::new();
        }
        let again = change.transition.as_ref().is_some_and(|step| step.from == State::Unseen);
        let Some(was) = self.before.snapshot.jobs.get(&change.known.job.id).filter(|was| !was.gone && !again) else {
            return Vec::new();
        };
        let text = |field: Field, job: &Job| field.of_row(job).flatten().unwrap_or_default().to_owned();
        asked.into_iter().filter(|field| text(*field, &was.job) != text(*field, &change.known.job)).collect()
    }

    /// Every rule looks at one step; what it ends is told before what it begins.
    pub(super) fn judge(&mut self, transition: &Arc<Transition>, changed: &[Field]) {
        let class = self.classes.of(&transition.job);
        let facts = Facts { job: &transition.job, reason_class: &class, source: &self.source.name, now: self.now };
        self.end(transition, &class);
        let rules = self.rules;
        let mut hits = Vec::new();
        for (at, rule) in rules.rules.iter().enumerate() {
            let covers = match &rule.when {
                When::Changed { fields } => fields.iter().any(|field| changed.contains(field)),
                When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::Burst { .. } | When::New { .. } => {
                    rule.when.covers(transition)
                }
            };
            if covers && rule.applies(&facts) {
                hits.extend(self.found(at, rule, transition, &facts));
            }
        }
        self.speak(hits, transition, &facts);
    }

    /// Jobs that have been in one status for long, as they stand after this poll. What is counted from is stored: a
    /// restart changes nothing, and a poll that sees nothing counts on.
    fn stays(&mut self, difference: &Difference) {
        let rules = self.rules;
        if !rules.rules.iter().any(|rule| matches!(rule.when, When::Stays { .. })) {
            return;
        }
        let mut known: HashMap<&JobId, &Known> = self.before.timed.iter().chain(&self.before.snapshot.jobs).collect();
        known.extend(difference.changes.iter().map(|change| (&change.known.job.id, &change.known)));
        let mut known: Vec<&Known> = known.into_values().filter(|known| !known.gone).collect();
        known.sort_by(|a, b| (a.status_since, &a.job.id).cmp(&(b.status_since, &b.job.id)));
        for (at, rule) in rules.rules.iter().enumerate() {
            let When::Stays { status, at_least } = &rule.when else { continue };
            for known in known.iter().filter(|known| status.contains(&known.job.status)) {
                if self.now >= known.status_since.plus(*at_least) {
                    self.stay(at, rule, known, self.now);
                }
            }
        }
    }

    /// A job that has been in its status for as long as a rule says; told once for each stay, whatever the rule says now.
    pub(super) fn stay(&mut self, at: usize, rule: &'a Rule, known: &Known, seen_at: Timestamp) {
        let class = self.classes.of(&known.job);
        let facts = Facts { job: &known.job, reason_class: &class, source: &self.source.name, now: self.now };
        let told = |alert: &Alert| alert.last_seen >= known.status_since && !self.is_ahead(alert.last_seen);
        if self.alert(&rule.finding(&facts)).is_some_and(told) || !rule.applies(&facts) {
            return;
        }
        let step = Arc::new(stay(&self.source.name, known, seen_at));
        let hits = self.found(at, rule, &step, &facts).into_iter().collect();
        self.speak(hits, &step, &facts);
    }

    /// Whether this was not longer ago. How long ago it was that lies ahead cannot be told: then it holds nobody back.
    fn is_within(&self, at: Timestamp, span: Duration) -> bool {
        self.now < at.plus(span) && !self.is_ahead(at)
    }

    /// Whether this is from before the clock was set back.
    fn is_ahead(&self, at: Timestamp) -> bool {
        at > self.now.plus(AHEAD_MAX)
    }

    fn fate(
        &mut self,
        rule: &Rule,
        step: &Transition,
        receiver: Option<&ReceiverName>,
        outcome: FateOutcome,
        delivery: Option<DeliveryId>,
        why: String,
    ) {
        let (rule, transition, receiver) = (rule.id().clone(), step.id.clone(), receiver.cloned());
        self.fates.push(Fate { rule, transition, subject: step.job.id.clone(), receiver, outcome, delivery, why });
    }
}

/// A job that has been in its status since it was first seen in it, as a step from that status to itself.
pub fn stay(source: &SourceName, known: &Known, seen_at: Timestamp) -> Transition {
    still(source, known, "stay", known.status_since, seen_at, Vec::new())
}

/// A step from a status to itself.
fn still(
    source: &SourceName,
    known: &Known,
    what: &str,
    since: Timestamp,
    seen_at: Timestamp,
    changed: Vec<&'static str>,
) -> Transition {
    let (job, state) = (Arc::new(known.job.clone()), State::Is(known.job.status.clone()));
    let (what, began) = (format!("jobwatch/{what}/v1"), since.micros().to_string());
    let mut parts = vec![what.as_str(), source.as_str(), job.id.as_str(), job.status.as_str(), &began];
    if !changed.is_empty() {
        parts.extend(job.fields().into_iter().map(Option::unwrap_or_default));
    }
    Transition {
        id: TransitionId::from(derive("evt", &parts)),
        source: source.clone(),
        from: state.clone(),
        to: state,
        seen_before: Some(since),
        seen_at,
        skipped: Vec::new(),
        changed,
        late: false,
        seq: known.seq,
        job,
    }
}
