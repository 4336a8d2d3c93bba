//! What the rules make of a poll: findings, and who is to be told what of them.
//!
//! Every rule looks at every step. What matches becomes or enriches a finding ([`Alert`]); whether it is told is asked
//! receiver by receiver: silences and hours, cooldown. What is to be told to one receiver about one step becomes one
//! message, whichever rules found it. Each answer is kept as a [`Fate`], so that somebody can ask why.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::diff::Difference;
use crate::model::alert::{Alert, Fate, FateOutcome, Muted, Told};
use crate::model::delivery::{Lane, Owed, Pace};
use crate::model::job::Job;
use crate::model::memory::Memory;
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, TransitionId, derive};
use crate::model::notification::{Event, JobTopic, Notification, SourceFacts, Topic};
use crate::model::snapshot::{Change, Known};
use crate::model::text::line;
use crate::model::time::{Timestamp, span};
use crate::model::transition::{State, Transition};
use crate::rules::{Context, Facts, Field, Hush, Rendered, Rule, RuleSet, Scope, When, class_of};

pub(super) struct Decision<'a> {
    source: &'a Arc<SourceFacts>,
    before: &'a Memory,
    rules: &'a RuleSet,
    now: Timestamp,
    hushes: Vec<Hush>,
    /// Findings that can be over through a step of this job, or of a job on this resource.
    open: HashMap<(Scope, Box<str>), Vec<AlertId>>,
    /// When the jobs that a rule counts made their steps, in order of time.
    counted: HashMap<(usize, Vec<String>), Vec<Timestamp>>,
    pub(super) alerts: BTreeMap<AlertId, Alert>,
    pub(super) muted: BTreeMap<AlertId, Option<Muted>>,
    pub(super) owed: Vec<Owed>,
    pub(super) fates: Vec<Fate>,
    pub(super) faults: Vec<String>,
    pub(super) matches: Vec<(RuleId, Arc<Transition>)>,
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
            open: HashMap::new(),
            counted: HashMap::new(),
            alerts: BTreeMap::new(),
            muted: BTreeMap::new(),
            owed: Vec::new(),
            fates: Vec::new(),
            faults: Vec::new(),
            matches: Vec::new(),
        };
        let mut known: Vec<&Alert> = before.alerts.values().collect();
        known.sort_by(|a, b| a.id.cmp(&b.id));
        known.into_iter().for_each(|alert| decision.index(alert));
        for step in &before.recent {
            decision.count(step);
        }
        decision
    }

    /// Everything about one poll.
    pub(super) fn decide(&mut self, difference: &Difference) {
        if difference.baseline {
            self.seed(difference);
        }
        for change in &difference.changes {
            self.change(change);
        }
        self.stays(difference);
        self.unmute(difference);
    }

    /// One row that changed.
    fn change(&mut self, change: &Change) {
        let changed = self.changed(change);
        if let Some(transition) = &change.transition {
            self.judge(transition, &changed);
        } else if !changed.is_empty() {
            let fields = changed.iter().map(|field| field.as_str()).collect();
            let step = Arc::new(self.still(&change.known, "change", change.known.seen_at, self.now, fields));
            self.judge(&step, &changed);
        }
    }

    /// What else than the status is different now, as far as a rule asks.
    fn changed(&self, change: &Change) -> Vec<Field> {
        let asked = self.rules.rules.iter().filter_map(|rule| match &rule.when {
            When::Changed { fields } => Some(fields),
            When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::Burst { .. } | When::New { .. } => None,
        });
        let mut asked: Vec<Field> = asked.flatten().copied().collect();
        asked.dedup();
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
        let class = class_of(&transition.job);
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
        let class = class_of(&known.job);
        let facts = Facts { job: &known.job, reason_class: &class, source: &self.source.name, now: self.now };
        let told = self.alert(&self.key(rule, &facts)).is_some_and(|alert| alert.last_seen >= known.status_since);
        if told || !rule.applies(&facts) {
            return;
        }
        let step = Arc::new(self.still(known, "stay", known.status_since, seen_at, Vec::new()));
        let hits = self.found(at, rule, &step, &facts).into_iter().collect();
        self.speak(hits, &step, &facts);
    }

    /// A step from a status to itself.
    fn still(
        &self,
        known: &Known,
        what: &str,
        since: Timestamp,
        seen_at: Timestamp,
        changed: Vec<&'static str>,
    ) -> Transition {
        let (job, state) = (Arc::new(known.job.clone()), State::Is(known.job.status.clone()));
        let (what, began) = (format!("jobwatch/{what}/v1"), since.micros().to_string());
        let mut parts = vec![what.as_str(), self.source.name.as_str(), job.id.as_str(), job.status.as_str(), &began];
        if !changed.is_empty() {
            parts.extend(job.fields().into_iter().map(Option::unwrap_or_default));
        }
        Transition {
            id: TransitionId::from(derive("evt", &parts)),
            source: self.source.name.clone(),
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

    /// What the finding of a rule about these facts is kept under. A field that a job does not have tells it from no
    /// other: then it is the job's own.
    fn key(&self, rule: &Rule, facts: &Facts<'_>) -> AlertId {
        let own: &[Field] = match &rule.when {
            When::Burst { per, .. } => per,
            When::New { .. } => &[Field::ReasonClass],
            When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::Changed { .. } => &rule.key,
        };
        let (rule_id, source) = (rule.id().as_str(), self.source.name.as_str());
        if !rule.is_wide() {
            let parts = ["jobwatch/alert/v1", rule_id, source, facts.job.id.as_str()];
            return AlertId::from(derive("alr", &parts));
        }
        let value = |field: &Field| match facts.text(*field) {
            Some(text) => format!("{}={text}", field.as_str()),
            None => format!("id={}", facts.job.id),
        };
        let values: Vec<String> = own.iter().filter(|field| **field != Field::Source).map(value).collect();
        let mut parts = vec!["jobwatch/alert/v2", rule_id, source];
        parts.extend(values.iter().map(String::as_str));
        AlertId::from(derive("alr", &parts))
    }

    /// A finding as it is now.
    fn alert(&self, id: &AlertId) -> Option<&Alert> {
        self.alerts.get(id).or_else(|| self.before.alerts.get(id))
    }

    /// Remembers by what a finding can end.
    fn index(&mut self, alert: &Alert) {
        let mut put = |scope, key: &str| {
            let open = self.open.entry((scope, key.into())).or_default();
            if !open.contains(&alert.id) {
                open.push(alert.id.clone());
            }
        };
        if !alert.resolved {
            put(Scope::Job, alert.subject.as_str());
            alert.resource.as_deref().into_iter().for_each(|resource| put(Scope::Resource, resource));
        }
    }

    /// A rule's clauses hold: its finding, one match richer. Nothing when the rule wants more than this one match.
    fn found(&mut self, at: usize, rule: &'a Rule, step: &Arc<Transition>, facts: &Facts<'_>) -> Option<Hit<'a>> {
        let id = self.key(rule, facts);
        let known = self.alert(&id).filter(|alert| !alert.resolved).cloned();
        let mut count = known.as_ref().map_or(1, |alert| alert.count.saturating_add(1));
        match &rule.when {
            When::Burst { count: enough, within, per, .. } => {
                let lately = self.lately(at, step, facts, per, *within)?;
                let told = known.as_ref().is_some_and(|alert| self.now < alert.last_seen.plus(*within));
                if lately < *enough || told {
                    let why = match told {
                        true => format!("{lately} within {}, which was told less than that ago", span(*within)),
                        false => format!("{lately} of {enough} within {}", span(*within)),
                    };
                    self.fate(rule, step, None, FateOutcome::Counted, None, why);
                    return None;
                }
                count = lately;
            }
            When::New { memory, .. } => {
                if facts.reason_class.is_empty() {
                    self.fate(rule, step, None, FateOutcome::Known, None, "there is no reason".into());
                    return None;
                }
                if let Some(seen) = known.as_ref().filter(|alert| self.now < alert.last_seen.plus(*memory)) {
                    let why = format!("`{}` was seen at {}", facts.reason_class, seen.last_seen);
                    self.fate(rule, step, None, FateOutcome::Known, None, why);
                    self.keep(rule, step, id, known, count);
                    return None;
                }
            }
            When::Step { .. } | When::Stays { .. } | When::Gone { .. } | When::Changed { .. } => {}
        }
        self.matches.push((rule.id().clone(), Arc::clone(step)));
        self.keep(rule, step, id.clone(), known, count);
        Some(Hit { rule, alert: id })
    }

    fn keep(&mut self, rule: &Rule, step: &Transition, id: AlertId, known: Option<Alert>, count: u32) {
        let alert = Alert {
            id: id.clone(),
            rule: rule.id().clone(),
            source: self.source.name.clone(),
            subject: step.job.id.clone(),
            resource: step.job.resource_id.clone().filter(|resource| !resource.is_empty()),
            severity: rule.severity,
            count,
            first_seen: known.as_ref().map_or(self.now, |alert| alert.first_seen),
            last_seen: self.now,
            resolved: false,
            told: known.map(|alert| alert.told).unwrap_or_default(),
        };
        if rule.resolve.is_some() {
            self.index(&alert);
        }
        self.alerts.insert(id, alert);
    }

    /// A step that rules may count.
    fn count(&mut self, step: &Transition) {
        let class = class_of(&step.job);
        let facts = Facts { job: &step.job, reason_class: &class, source: &self.source.name, now: self.now };
        for (at, rule) in self.rules.rules.iter().enumerate() {
            if let When::Burst { per, .. } = &rule.when
                && rule.fires(step, &facts)
                && let Some(key) = same(per, &facts)
            {
                let times = self.counted.entry((at, key)).or_default();
                let when = happened(step);
                times.insert(times.partition_point(|time| *time <= when), when);
            }
        }
    }

    /// How many steps like this one there were up to it, with it; `None` when it cannot be told what it is like.
    fn lately(
        &mut self,
        at: usize,
        step: &Transition,
        facts: &Facts<'_>,
        per: &[Field],
        within: Duration,
    ) -> Option<u32> {
        let times = self.counted.entry((at, same(per, facts)?)).or_default();
        let when = happened(step);
        times.insert(times.partition_point(|time| *time <= when), when);
        let up_to = times.partition_point(|time| *time <= when);
        let before = times.partition_point(|time| *time <= when.minus(within));
        u32::try_from(up_to - before).ok()
    }

    /// The reasons that a baseline shows are not new.
    fn seed(&mut self, difference: &Difference) {
        let rules = self.rules;
        for rule in &rules.rules {
            let When::New { to, .. } = &rule.when else { continue };
            for change in &difference.changes {
                let job = &change.known.job;
                let class = class_of(job);
                let facts = Facts { job, reason_class: &class, source: &self.source.name, now: self.now };
                let there = to.as_ref().is_none_or(|to| to.contains(&job.status));
                if there && !class.is_empty() && rule.applies(&facts) {
                    let step = self.still(&change.known, "baseline", self.now, self.now, Vec::new());
                    let id = self.key(rule, &facts);
                    let known = self.alert(&id).cloned();
                    let count = known.as_ref().map_or(1, |alert| alert.count.saturating_add(1));
                    self.keep(rule, &step, id, known, count);
                }
            }
        }
    }

    /// Findings that this step ends: told to those who were told of them, once.
    fn end(&mut self, step: &Arc<Transition>, class: &str) {
        let State::Is(status) = &step.to else { return };
        if step.from == step.to || self.open.is_empty() {
            return;
        }
        let resource = step.job.resource_id.as_deref().filter(|resource| !resource.is_empty());
        let keys = [Some((Scope::Job, step.job.id.as_str())), resource.map(|resource| (Scope::Resource, resource))];
        for (scope, key) in keys.into_iter().flatten() {
            let ids = self.open.get(&(scope, key.into())).cloned().unwrap_or_default();
            let mut said: Vec<(ReceiverName, DeliveryId, JobId)> = Vec::new();
            let mut ending: Vec<(&Rule, Alert)> = Vec::new();
            for id in ids {
                let Some(alert) = self.alert(&id).filter(|alert| !alert.resolved) else { continue };
                let Some(rule) = self.rules.rules.iter().find(|rule| *rule.id() == alert.rule) else { continue };
                if rule.resolve.as_ref().is_some_and(|resolve| {
                    resolve.scope == scope && resolve.to.as_ref().is_none_or(|to| to.contains(status))
                }) {
                    ending.push((rule, alert.clone()));
                }
            }
            // Of those that were told in one message, the one that spoke.
            ending.sort_by_key(|(_, alert)| Reverse(alert.severity));
            for (rule, mut alert) in ending {
                let told = std::mem::take(&mut alert.told);
                alert.resolved = true;
                for told in told {
                    let one = (told.receiver.clone(), told.delivery.clone(), alert.subject.clone());
                    if said.contains(&one) {
                        continue;
                    }
                    self.over(rule, step, class, &alert, &told.receiver);
                    said.push(one);
                }
                self.muted.insert(alert.id.clone(), None);
                self.alerts.insert(alert.id.clone(), alert);
            }
        }
    }

    /// One receiver is told that a finding is over.
    fn over(&mut self, rule: &Rule, step: &Arc<Transition>, class: &str, alert: &Alert, receiver: &ReceiverName) {
        let job = &step.job;
        let (name, kind) = (job.called(), job.kind_called());
        let title = format!("resolved: {name}: {}", rule.facts.about);
        let lasted = span(self.now.since(alert.first_seen));
        let mut body = format!(
            "{kind} of {name} went from {} to {}.\n",
            line(&step.from.to_string(), 60),
            line(&step.to.to_string(), 60)
        );
        body += &format!("This ends what was told {lasted} ago ({} in all).", alert.count);
        if job.id != alert.subject {
            body += &format!("\nIt was told of job {}.", line(alert.subject.as_str(), 200));
        }
        let Rendered { title, body, .. } = Rendered { title, body, fault: None }.tidy();
        let topic = JobTopic {
            transition: Arc::clone(step),
            reason_class: class.to_owned(),
            rule: rule.facts.clone(),
            also: Vec::new(),
            source: Arc::clone(self.source),
            alert: alert.clone(),
            held_back: 0,
        };
        let parts = ["jobwatch/resolve/v1", alert.id.as_str(), step.id.as_str(), receiver.as_str()];
        self.owed.push(Owed {
            id: DeliveryId::from(derive("msg", &parts)),
            receiver: receiver.clone(),
            // After what it ends.
            lane: Lane { source: Some(self.source.name.clone()), subject: alert.subject.clone() },
            notification: Notification {
                event: Event::AlertResolved,
                time: job.updated().unwrap_or(step.seen_at),
                severity: alert.severity,
                title,
                body,
                topic: Topic::Job(Box::new(topic)),
            },
            pace: Some(Pace { group: None, class: "resolved".into() }),
        });
    }

    /// What was muted and no longer is: told if it still stands.
    fn unmute(&mut self, difference: &Difference) {
        let before = self.before;
        for muted in &before.muted {
            if self.muted.contains_key(&muted.alert) || self.alerts.contains_key(&muted.alert) {
                continue;
            }
            let step = &muted.transition;
            let id = &step.job.id;
            let change =
                difference.changes.iter().find(|change| change.known.job.id == *id).map(|change| &change.known);
            let known = change.or_else(|| before.snapshot.jobs.get(id)).or_else(|| before.timed.get(id));
            let stands = match (&step.to, known) {
                (State::Gone, known) => known.is_none_or(|known| known.gone),
                (State::Is(status), Some(known)) => !known.gone && known.job.status == *status,
                (State::Is(_) | State::Unseen, _) => false,
            };
            let rule = self.rules.rules.iter().find(|rule| *rule.id() == muted.rule);
            let over = self.alert(&muted.alert).is_none_or(|alert| alert.resolved);
            let (Some(rule), true, false) = (rule, stands, over) else {
                self.muted.insert(muted.alert.clone(), None);
                continue;
            };
            let class = class_of(&step.job);
            let facts = Facts { job: &step.job, reason_class: &class, source: &self.source.name, now: self.now };
            if self.forbidden(rule, &facts).is_none() {
                self.muted.insert(muted.alert.clone(), None);
                self.speak(vec![Hit { rule, alert: muted.alert.clone() }], step, &facts);
            }
        }
    }

    /// What forbids a rule to speak now.
    fn forbidden(&self, rule: &Rule, facts: &Facts<'_>) -> Option<String> {
        if let Some(hush) = self.hushes.iter().find(|hush| hush.covers(rule.id(), rule.severity, facts)) {
            let silence = hush.silence();
            return Some(format!("silence {} by {}: {}", silence.id, silence.author, silence.comment));
        }
        rule.asleep(self.now).map(|window| format!("window {} is closed", window.name))
    }

    /// Tells every receiver what is to be told of a step, in one message each.
    fn speak(&mut self, hits: Vec<Hit<'a>>, step: &Arc<Transition>, facts: &Facts<'_>) {
        let mut spoken: Vec<(&ReceiverName, Vec<&Hit<'a>>)> = Vec::new();
        for hit in &hits {
            if let Some(by) = self.forbidden(hit.rule, facts) {
                self.fate(hit.rule, step, None, FateOutcome::Muted, None, by.clone());
                let (alert, rule) = (hit.alert.clone(), hit.rule.id().clone());
                self.muted.insert(alert.clone(), Some(Muted { alert, rule, transition: Arc::clone(step), by }));
                continue;
            }
            if self.before.muted.iter().any(|muted| muted.alert == hit.alert) {
                self.muted.insert(hit.alert.clone(), None);
            }
            for receiver in &hit.rule.notify {
                if self.holds_back(hit, receiver, step) {
                    continue;
                }
                match spoken.iter_mut().find(|(name, _)| *name == receiver) {
                    Some((_, hits)) => hits.push(hit),
                    None => spoken.push((receiver, vec![hit])),
                }
            }
        }
        let mut said: Vec<(Vec<RuleId>, u32, Notification)> = Vec::new();
        for (receiver, hits) in spoken {
            self.tell(receiver, hits, step, facts, &mut said);
        }
    }

    /// Whether a receiver was told of this so lately that it need not hear again; if so, that is counted.
    fn holds_back(&mut self, hit: &Hit<'a>, receiver: &ReceiverName, step: &Transition) -> bool {
        let (now, cooldown) = (self.now, hit.rule.cooldown);
        let Some(told) = self.alert(&hit.alert).and_then(|alert| alert.told(receiver)).cloned() else { return false };
        // It counts from the delivery; what is still on its way will be heard.
        let cool = !cooldown.is_zero() && told.delivered_at.is_none_or(|at| now < at.plus(cooldown));
        if !cool || hit.rule.severity > told.severity {
            return false;
        }
        let why = match told.delivered_at {
            Some(at) => format!("told at {at}; the cooldown is {}", span(cooldown)),
            None => "what was told before is still on its way".to_owned(),
        };
        self.fate(hit.rule, step, Some(receiver), FateOutcome::HeldBack, Some(told.delivery.clone()), why);
        let held_back = told.held_back.saturating_add(1);
        self.remember(hit, Told { held_back, ..told });
        true
    }

    /// Writes what a receiver was told into the finding.
    fn remember(&mut self, hit: &Hit<'a>, told: Told) {
        let Some(mut alert) = self.alert(&hit.alert).cloned() else { return };
        alert.told.retain(|other| other.receiver != told.receiver);
        let at = alert.told.partition_point(|other| other.receiver < told.receiver);
        alert.told.insert(at, told);
        self.alerts.insert(alert.id.clone(), alert);
    }

    /// One message for one receiver. The rule that matters most speaks; the others are named.
    fn tell(
        &mut self,
        receiver: &ReceiverName,
        mut hits: Vec<&Hit<'a>>,
        step: &Arc<Transition>,
        facts: &Facts<'_>,
        said: &mut Vec<(Vec<RuleId>, u32, Notification)>,
    ) {
        hits.sort_by_key(|hit| Reverse(hit.rule.severity));
        let Some(first) = hits.first() else { return };
        let told = self.alert(&first.alert).and_then(|alert| alert.told(receiver));
        let held_back = told.map_or(0, |told| told.held_back);
        let rules: Vec<RuleId> = hits.iter().map(|hit| hit.rule.id().clone()).collect();
        let known = said.iter().find(|(of, held, _)| *of == rules && *held == held_back);
        let notification = match known {
            Some((_, _, notification)) => notification.clone(),
            None => {
                let notification = self.word(&hits, step, facts, held_back);
                said.push((rules, held_back, notification.clone()));
                notification
            }
        };
        let parts = ["jobwatch/delivery/v1", step.id.as_str(), first.rule.id().as_str(), receiver.as_str()];
        let id = DeliveryId::from(derive("msg", &parts));
        for hit in &hits {
            if !hit.rule.cooldown.is_zero() || hit.rule.resolve.is_some() {
                let (receiver, delivery) = (receiver.clone(), id.clone());
                let severity = hit.rule.severity;
                self.remember(
                    hit,
                    Told { receiver, delivery, severity, at: self.now, delivered_at: None, held_back: 0 },
                );
            }
            let why = match hits.len() {
                1 => String::new(),
                _ => format!("in one message with {} other rules", hits.len() - 1),
            };
            self.fate(hit.rule, step, Some(receiver), FateOutcome::Told, Some(id.clone()), why);
        }
        self.owed.push(Owed {
            id,
            receiver: receiver.clone(),
            lane: Lane { source: Some(self.source.name.clone()), subject: step.job.id.clone() },
            notification,
            pace: Some(pace(&hits, facts)),
        });
    }

    fn word(&mut self, hits: &[&Hit<'a>], step: &Arc<Transition>, facts: &Facts<'_>, held_back: u32) -> Notification {
        let rule = hits[0].rule;
        let alert = self.alert(&hits[0].alert).cloned().expect("a hit has a finding");
        let class = facts.reason_class;
        let context = Context {
            transition: step,
            reason_class: class,
            rule: &rule.facts,
            severity: rule.severity,
            source: self.source,
            alert: &alert,
            held_back,
            burst: match &rule.when {
                When::Burst { within, .. } => Some(*within),
                When::Step { .. }
                | When::Stays { .. }
                | When::Gone { .. }
                | When::New { .. }
                | When::Changed { .. } => None,
            },
            now: self.now,
        };
        let Rendered { title, mut body, fault } = rule.message.render(&context);
        self.faults.extend(fault.filter(|fault| !self.faults.contains(fault)));
        if held_back > 0 {
            body += &format!("\nHeld back since the last message: {held_back}.");
        }
        let also: Vec<_> = hits.iter().skip(1).map(|hit| hit.rule.facts.clone()).collect();
        if !also.is_empty() {
            let names: Vec<String> = also.iter().map(|rule| format!("{} ({})", rule.id, rule.about)).collect();
            body += &format!("\nAlso: {}.", names.join(", "));
        }
        let topic = JobTopic {
            transition: Arc::clone(step),
            reason_class: class.to_owned(),
            rule: rule.facts.clone(),
            also,
            source: Arc::clone(self.source),
            alert,
            held_back,
        };
        Notification {
            event: topic.event(),
            // The cloud's own time of the change, when the change is what the row's time speaks of.
            time: step.job.updated().filter(|_| step.to != State::Gone && !step.is_stay()).unwrap_or(step.seen_at),
            severity: rule.severity,
            title,
            body,
            topic: Topic::Job(Box::new(topic)),
        }
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
        self.fates.push(Fate { rule, transition, receiver, outcome, delivery, why });
    }
}

/// How a message may be gathered: not at all if one of its rules does not want that, else for the shortest time.
fn pace(hits: &[&Hit<'_>], facts: &Facts<'_>) -> Pace {
    let value =
        |field: &Field| facts.text(*field).map_or_else(|| format!("id={}", facts.job.id), |text| text.into_owned());
    let group = |hit: &&Hit<'_>| {
        let group = hit.rule.group.as_ref()?;
        let mut parts = vec![hit.rule.id().to_string()];
        parts.extend(group.by.iter().map(value));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Some((derive("grp", &parts), group.wait))
    };
    let groups: Option<Vec<(String, Duration)>> = hits.iter().map(group).collect();
    Pace {
        group: groups.and_then(|groups| groups.into_iter().min_by_key(|(_, wait)| *wait)),
        class: facts.reason_class.to_owned(),
    }
}

/// The values of these fields; `None` when one is missing.
fn same(per: &[Field], facts: &Facts<'_>) -> Option<Vec<String>> {
    per.iter().map(|field| facts.text(*field).map(|text| text.into_owned())).collect()
}

/// When a step was made, as well as that is known: the cloud's own time, which cannot be after it was seen.
fn happened(step: &Transition) -> Timestamp {
    step.job.updated().map_or(step.seen_at, |updated| updated.min(step.seen_at))
}
