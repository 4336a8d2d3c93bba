//! One poll decided: the function the whole program exists to call.
//!
//! Everything a poll changes (snapshot rows, transitions, alerts, deliveries, what is remembered of the source) is in one
//! [`Plan`], decided here from values alone and committed in one transaction. A dry run prints it, `diff` makes one from
//! two files, a test reads it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diff::{Difference, Points, Policy, diff, vanished};
use crate::model::alert::Alert;
use crate::model::delivery::{Lane, Owed};
use crate::model::listing::{Fault, FaultKind, Listing, Point};
use crate::model::memory::{Memory, Sight};
use crate::model::name::{AlertId, DeliveryId, JobId, RuleId, TransitionId, derive};
use crate::model::notification::{JobTopic, Notification, SourceFacts, Topic};
use crate::model::snapshot::{Change, Known};
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};
use crate::rules::{Context, Facts, Rule, RuleSet, When, class_of};

mod rehearsal;
mod sight;

pub use rehearsal::{Disagreement, rehearse};
pub use sight::{Outlook, SelfWatch, View, lookout};

/// Listings in a row that miss most jobs, each confirmed by the single-job call, before that is believed.
const VANISHED_BELIEVED: u8 = 12;

/// What a decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The source that was polled.
    pub source: &'a Arc<SourceFacts>,
    /// What the store knows of it.
    pub before: &'a Memory,
    /// How many jobs there are that are not gone; `before` may hold only some of them.
    pub living: usize,
    /// What the poll brought.
    pub listing: Listing,
    /// What the single-job call said.
    pub points: Points,
    /// The rules in force.
    pub rules: &'a RuleSet,
    /// The numbers in force.
    pub policy: &'a Policy,
    /// The time.
    pub now: Timestamp,
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
    let Input { source, before, living, listing, points, rules, policy, now } = input;
    let (listing, vanished) = believe(before, listing, &points, policy, living);
    let unreadable = listing.rows().unreadable;
    let fault = match &listing {
        Listing::Complete(_) | Listing::Brief(_) => None,
        Listing::Incomplete { fault, .. } => Some(fault.clone()),
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
    decision.stays(&difference);
    let sight = decision.look(fault.as_ref(), vanished);
    let was = |change: &Change| before.snapshot.jobs.get(&change.known.job.id).is_some_and(|known| !known.gone);
    let come = difference.changes.iter().filter(|change| !was(change) && !change.known.gone).count();
    let left = difference.changes.iter().filter(|change| was(change) && change.known.gone).count();
    let jobs = (living + come).saturating_sub(left);
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
        for rule in &rules.rules {
            let When::Stays { status, at_least } = &rule.when else { continue };
            for known in known.iter().filter(|known| status.contains(&known.job.status)) {
                let due = known.status_since.plus(*at_least);
                // Told since it was due: once for each stay.
                let told = self.alert(rule, &known.job.id).is_some_and(|alert| alert.last_seen >= due);
                if self.now < due || told {
                    continue;
                }
                let class = class_of(&known.job);
                let facts = Facts { job: &known.job, reason_class: &class, source: &self.source.name, now: self.now };
                if rule.applies(&facts) {
                    let stay = Arc::new(self.stay(known));
                    self.fire(rule, &stay, &class);
                }
            }
        }
    }

    fn stay(&self, known: &Known) -> Transition {
        let (job, state) = (Arc::new(known.job.clone()), State::Is(known.job.status.clone()));
        let since = known.status_since.micros().to_string();
        let parts = ["jobwatch/stay/v1", self.source.name.as_str(), job.id.as_str(), job.status.as_str(), &since];
        Transition {
            id: TransitionId::from(derive("evt", &parts)),
            source: self.source.name.clone(),
            from: state.clone(),
            to: state,
            seen_before: Some(known.status_since),
            seen_at: self.now,
            skipped: Vec::new(),
            late: false,
            seq: known.seq,
            job,
        }
    }

    /// The rule's standing finding about a job, if there is one.
    fn alert(&self, rule: &Rule, job: &JobId) -> Option<&Alert> {
        let parts = ["jobwatch/alert/v1", rule.id().as_str(), self.source.name.as_str(), job.as_str()];
        let id = AlertId::from(derive("alr", &parts));
        self.alerts.get(&id).or_else(|| self.before.alerts.get(&id))
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
            time: transition
                .job
                .updated()
                .filter(|_| transition.to != State::Gone && !transition.is_stay())
                .unwrap_or(transition.seen_at),
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
            subject: transition.job.id.clone(),
            severity: rule.severity,
            count: known.map_or(1, |alert| alert.count.saturating_add(1)),
            first_seen: known.map_or(self.now, |alert| alert.first_seen),
            last_seen: self.now,
        };
        self.alerts.insert(id, alert.clone());
        alert
    }

    /// What is to be remembered of the source's visibility.
    fn look(&self, fault: Option<&Fault>, vanished: u8) -> Sight {
        let was = self.before.sight;
        let blind_since = fault.map(|_| {
            // A time that lies ahead is from before the clock was set back: it counts from now.
            was.blind_since.or(self.before.snapshot.complete_at).unwrap_or(self.now).min(self.now)
        });
        Sight { blind_since, vanished, told_since: was.told_since }
    }
}

/// A listing from which most jobs have vanished is not believed until the single-job calls have confirmed it often enough:
/// the fault of a listing is told as one, and not as so many deletions.
fn believe(before: &Memory, listing: Listing, points: &Points, policy: &Policy, living: usize) -> (Listing, u8) {
    let Some(absent) = vanished(&before.snapshot, &listing, policy, living) else { return (listing, 0) };
    let asked = points.values().filter(|point| !matches!(point, Point::Unknown)).count();
    let there = points.values().filter(|point| matches!(point, Point::Found(_))).count();
    let confirmed = asked > 0 && there == 0;
    let count = if confirmed { before.sight.vanished.saturating_add(1) } else { 0 };
    if confirmed && count >= VANISHED_BELIEVED {
        return (listing, count);
    }
    let asked = match (asked, there) {
        (0, _) => "the single-job call tells nothing about them".to_owned(),
        (asked, 0) => format!(
            "asked for one by one, {asked} of them are not there: believed after {VANISHED_BELIEVED} such listings"
        ),
        (asked, there) => format!("asked for one by one, {there} of {asked} are there"),
    };
    let text = format!("{absent} of {living} jobs are missing from the listing at once; {asked}");
    let Listing::Complete(mut rows) = listing else { return (listing, count) };
    // What the single-job call showed is true as well.
    rows.jobs.extend(points.values().filter_map(|point| match point {
        Point::Found(job) => Some(job.clone()),
        Point::NotFound | Point::Unknown => None,
    }));
    (Listing::Incomplete { rows, fault: Fault { kind: FaultKind::Vanished, text, retry_after: None } }, count)
}
