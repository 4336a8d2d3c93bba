//! One poll decided: the function the whole program exists to call.
//!
//! Everything a poll changes (snapshot rows, transitions, alerts, deliveries, what is remembered of the source) is in one
//! [`Plan`], decided here from values alone and committed in one transaction. A dry run prints it, `diff` makes one from
//! two files, a test reads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::diff::{Difference, Points, Policy, diff};
use crate::model::alert::{Alert, Severity};
use crate::model::delivery::{Lane, Owed};
use crate::model::listing::{Fault, Listing};
use crate::model::memory::{Memory, Sight};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, derive};
use crate::model::notification::{Event, JobTopic, Notification, SourceFacts, Topic};
use crate::model::time::{Timestamp, span};
use crate::model::transition::{State, Transition};
use crate::rules::{Context, Facts, Rule, RuleSet, class_of};

/// What a decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The source that was polled.
    pub source: &'a Arc<SourceFacts>,
    /// What the store knows of it.
    pub before: &'a Memory,
    /// What the poll brought.
    pub listing: Listing,
    /// What the single-job call said.
    pub points: Points,
    /// The rules in force.
    pub rules: &'a RuleSet,
    /// The numbers in force.
    pub policy: &'a Policy,
    /// Who hears of the agent's own troubles, and when.
    pub watch: &'a SelfWatch,
    /// The time.
    pub now: Timestamp,
}

/// Who hears of the agent's own troubles, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelfWatch {
    /// The receivers.
    pub notify: Vec<ReceiverName>,
    /// How long a source may go unseen.
    pub blind_after: Duration,
}

/// What a poll changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The source.
    pub source: Arc<SourceFacts>,
    /// When it was decided.
    pub at: Timestamp,
    /// Rows of the snapshot to write, and the transitions among them.
    pub difference: Difference,
    /// The listing was complete: this is the new `complete_at`.
    pub complete: bool,
    /// Why it was not, if it was not.
    pub fault: Option<Fault>,
    /// Rows that could not be used.
    pub unreadable: usize,
    /// Findings of rules to write.
    pub alerts: Vec<Alert>,
    /// What is to be remembered of the source's visibility.
    pub sight: Sight,
    /// What is owed to receivers, in order.
    pub owed: Vec<Owed>,
    /// Rules whose templates failed, in words; the built-in text went out instead.
    pub faults: Vec<String>,
    /// The rules that matched, with the step they matched: for counting and for people.
    pub matches: Vec<(RuleId, Arc<Transition>)>,
    /// How many jobs the source has after this, by status.
    pub jobs: usize,
}

/// Decides one poll.
pub fn plan(input: Input<'_>) -> Plan {
    let Input { source, before, listing, points, rules, policy, watch, now } = input;
    let (fault, unreadable) = match &listing {
        Listing::Complete(rows) => (None, rows.unreadable),
        Listing::Incomplete { rows, fault } => (Some(fault.clone()), rows.unreadable),
    };
    let difference = diff(&source.name, &before.snapshot, listing, points, policy, now);
    let mut decision = Decision {
        source,
        before,
        rules,
        now,
        alerts: HashMap::new(),
        owed: Vec::new(),
        faults: Vec::new(),
        matches: Vec::new(),
    };
    for transition in difference.transitions() {
        decision.judge(transition);
    }
    let sight = decision.look(fault.as_ref(), watch);
    let jobs = before.snapshot.jobs.len()
        + difference.changes.iter().filter(|change| !before.snapshot.jobs.contains_key(&change.known.job.id)).count();
    let mut alerts: Vec<Alert> = decision.alerts.into_values().collect();
    alerts.sort_by(|a, b| a.id.cmp(&b.id));
    Plan {
        source: Arc::clone(source),
        at: now,
        complete: fault.is_none(),
        fault,
        unreadable,
        difference,
        alerts,
        sight,
        owed: decision.owed,
        faults: decision.faults,
        matches: decision.matches,
        jobs,
    }
}

struct Decision<'a> {
    source: &'a Arc<SourceFacts>,
    before: &'a Memory,
    rules: &'a RuleSet,
    now: Timestamp,
    alerts: HashMap<AlertId, Alert>,
    owed: Vec<Owed>,
    faults: Vec<String>,
    matches: Vec<(RuleId, Arc<Transition>)>,
}

impl Decision<'_> {
    /// Every rule looks at one step.
    fn judge(&mut self, transition: &Arc<Transition>) {
        let class = class_of(&transition.job);
        let facts = Facts { job: &transition.job, reason_class: &class, source: &self.source.name, now: self.now };
        for rule in self.rules.rules.iter().filter(|rule| rule.fires(transition, &facts)) {
            self.fire(rule, transition, &class);
        }
    }

    fn fire(&mut self, rule: &Rule, transition: &Arc<Transition>, class: &str) {
        self.matches.push((rule.id().clone(), Arc::clone(transition)));
        let alert = self.found(rule, transition);
        let context = Context {
            transition,
            reason_class: class,
            rule: &rule.facts,
            severity: rule.severity,
            source: self.source,
            alert: &alert,
            now: self.now,
        };
        let rendered = rule.message.render(&context);
        self.faults.extend(rendered.fault);
        let topic = JobTopic {
            transition: Arc::clone(transition),
            reason_class: class.to_owned(),
            rule: rule.facts.clone(),
            source: Arc::clone(self.source),
            alert,
        };
        let notification = Notification {
            event: topic.event(),
            // The cloud's own time of the change, when the change is what the row's time speaks of.
            time: transition.job.updated().filter(|_| transition.to != State::Gone).unwrap_or(transition.seen_at),
            severity: rule.severity,
            title: rendered.title,
            body: rendered.body,
            topic: Topic::Job(Box::new(topic)),
        };
        let lane = Lane { source: Some(self.source.name.clone()), subject: transition.job.id.clone() };
        for receiver in &rule.notify {
            let parts = ["jobwatch/delivery/v1", transition.id.as_str(), rule.id().as_str(), receiver.as_str()];
            self.owed.push(Owed {
                id: DeliveryId::from(derive("msg", &parts)),
                receiver: receiver.clone(),
                lane: lane.clone(),
                notification: notification.clone(),
            });
        }
    }

    /// The rule's standing finding about this job, one match richer.
    fn found(&mut self, rule: &Rule, transition: &Transition) -> Alert {
        let parts = ["jobwatch/alert/v1", rule.id().as_str(), self.source.name.as_str(), transition.job.id.as_str()];
        let id = AlertId::from(derive("alr", &parts));
        let known = self.alerts.get(&id).or_else(|| self.before.alerts.get(&id));
        let alert = Alert {
            id: id.clone(),
            rule: rule.id().clone(),
            source: self.source.name.clone(),
            severity: rule.severity,
            count: known.map_or(1, |alert| alert.count.saturating_add(1)),
            first_seen: known.map_or(self.now, |alert| alert.first_seen),
            last_seen: self.now,
        };
        self.alerts.insert(id, alert.clone());
        alert
    }

    /// Blindness is an alert: told once after `blind_after`, and its end is told too.
    fn look(&mut self, fault: Option<&Fault>, watch: &SelfWatch) -> Sight {
        let was = self.before.sight;
        let Some(fault) = fault else {
            if was.told {
                let gap = was.blind_since.map(|since| span(self.now.since(since))).unwrap_or_default();
                let title = format!("{}: listings are complete again after {gap}", self.source.name);
                let body = "What changed in between is told as it is found, marked late.".to_owned();
                self.tell(watch, Event::AgentRestored, Severity::Info, title, body, was.blind_since);
            }
            return Sight::default();
        };
        // A time that lies ahead is from before the clock was set back: it counts from now.
        let since = was.blind_since.or(self.before.snapshot.complete_at).unwrap_or(self.now).min(self.now);
        let due = self.now.since(since) >= watch.blind_after;
        if due && !was.told {
            let title = format!("{}: no complete listing for {}", self.source.name, span(self.now.since(since)));
            let body = format!("Job failures in this source are not noticed until this ends.\nReason: {}", fault.text);
            self.tell(watch, Event::AgentBlind, Severity::Critical, title, body, Some(since));
        }
        Sight { blind_since: Some(since), told: was.told || due }
    }

    fn tell(
        &mut self,
        watch: &SelfWatch,
        event: Event,
        severity: Severity,
        title: String,
        body: String,
        since: Option<Timestamp>,
    ) {
        let topic = Topic::Source(Arc::clone(self.source));
        let notification = Notification { event, time: self.now, severity, title, body, topic };
        let since = since.unwrap_or(self.now).micros().to_string();
        for receiver in &watch.notify {
            let parts = ["jobwatch/sight/v1", self.source.name.as_str(), event.as_str(), &since, receiver.as_str()];
            self.owed.push(Owed {
                id: DeliveryId::from(derive("msg", &parts)),
                receiver: receiver.clone(),
                lane: Lane { source: Some(self.source.name.clone()), subject: JobId::from("agent") },
                notification: notification.clone(),
            });
        }
    }
}
