//! Telling receivers of findings: what forbids it, what holds it back, and what is said.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Decision, Hit};
use crate::diff::Difference;
use crate::model::alert::{Alert, FateOutcome, Muted, Told};
use crate::model::delivery::{Lane, Owed, Pace};
use crate::model::follow_up::FollowUp;
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, derive};
use crate::model::notification::{Event, JobTopic, Notification, Topic};
use crate::model::snapshot::Known;
use crate::model::text::line;
use crate::model::time::span;
use crate::model::transition::{State, Transition};
use crate::rules::{Context, Facts, Field, Rendered, Rule, When};

impl<'a> Decision<'a> {
    /// Tells every receiver what is to be told of a step, in one message each.
    pub(super) fn speak(&mut self, hits: Vec<Hit<'a>>, step: &Arc<Transition>, facts: &Facts<'_>) {
        let mut spoken: Vec<(&ReceiverName, Vec<&Hit<'a>>)> = Vec::new();
        for hit in &hits {
            if let Some(by) = self.forbidden(hit.rule, facts) {
                self.fate(hit.rule, step, None, FateOutcome::Muted, None, by.clone());
                let (alert, rule) = (hit.alert.clone(), hit.rule.id().clone());
                let muted = Muted { alert, rule, transition: Arc::clone(step), by };
                self.muted.insert(muted.key(), Some(muted));
                continue;
            }
            for muted in self.hushed.get(&hit.alert).into_iter().flatten() {
                if muted.transition.job.id == step.job.id {
                    self.muted.insert(muted.key(), None);
                }
            }
            self.follow(hit, step, facts);
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

    /// What is to be done about a finding that is new, or that was muted so far.
    fn follow(&mut self, hit: &Hit<'a>, step: &Arc<Transition>, facts: &Facts<'_>) {
        let muted = self.before.muted.iter().any(|muted| muted.alert == hit.alert);
        let new = self.alert(&hit.alert).is_some_and(|alert| alert.first_seen == self.now);
        if hit.rule.then.is_empty() || !new && !muted {
            return;
        }
        let notification = self.word(&[hit], step, facts, 0);
        let data = notification.data();
        let Topic::Job(topic) = notification.topic else { return };
        for name in &hit.rule.then {
            let (name, notify) = (name.clone(), hit.rule.notify.clone());
            self.follow_ups.push(FollowUp::new(name, notify, (*topic).clone(), data.clone()));
        }
    }

    /// Whether a receiver was told of this so lately that it need not hear again; if so, that is counted.
    fn holds_back(&mut self, hit: &Hit<'a>, receiver: &ReceiverName, step: &Transition) -> bool {
        let cooldown = hit.rule.cooldown;
        let Some(told) = self.alert(&hit.alert).and_then(|alert| alert.told(receiver)).cloned() else { return false };
        // It counts from the delivery; what is still on its way will be heard.
        let cool = !cooldown.is_zero() && !told.lost && told.delivered_at.is_none_or(|at| self.is_within(at, cooldown));
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
        let told = |hit: &&Hit<'_>| self.alert(&hit.alert)?.told(receiver).map(|told| told.held_back);
        let held_back = hits.iter().filter_map(told).max().unwrap_or_default();
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
            // One who was told while the rule had a cooldown has heard now what was held back.
            let known = self.alert(&hit.alert).is_some_and(|alert| alert.told(receiver).is_some());
            if known || !hit.rule.cooldown.is_zero() || hit.rule.resolve.is_some() {
                let (receiver, delivery) = (receiver.clone(), id.clone());
                let severity = hit.rule.severity;
                self.remember(
                    hit,
                    Told { receiver, delivery, severity, at: self.now, delivered_at: None, lost: false, held_back: 0 },
                );
            }
            let why = match hits.len() {
                1 => String::new(),
                2 => "in one message with another rule".to_owned(),
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
            follow_up: None,
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

    /// One receiver is told that a finding is over.
    pub(super) fn over(
        &mut self,
        rule: &Rule,
        step: &Arc<Transition>,
        class: &str,
        alert: &Alert,
        receiver: &ReceiverName,
    ) {
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
            follow_up: None,
        };
        let parts = ["jobwatch/resolve/v1", alert.id.as_str(), step.id.as_str(), receiver.as_str()];
        let id = DeliveryId::from(derive("msg", &parts));
        let why = format!("ends what was found at {}", alert.first_seen);
        self.fate(rule, step, Some(receiver), FateOutcome::Resolved, Some(id.clone()), why);
        self.owed.push(Owed {
            id,
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

    /// What was muted and no longer is: told if it still stands, in the order it was seen. Of several jobs with one finding,
    /// the newest speaks.
    pub(super) fn unmute(&mut self, difference: &Difference) {
        let (before, rules) = (self.before, self.rules);
        if before.muted.is_empty() {
            return;
        }
        let changes: HashMap<&JobId, &Known> =
            difference.changes.iter().map(|change| (&change.known.job.id, &change.known)).collect();
        let mut speaking: Vec<(&'a Rule, &'a Muted)> = Vec::new();
        let mut heard: HashSet<&AlertId> = HashSet::new();
        for muted in before.muted.iter().rev() {
            if self.muted.contains_key(&muted.key()) {
                continue;
            }
            let job = &*muted.transition.job;
            let known = changes.get(&job.id).copied();
            let known = known.or_else(|| before.snapshot.jobs.get(&job.id)).or_else(|| before.timed.get(&job.id));
            let rule = rules.rules.iter().find(|rule| *rule.id() == muted.rule);
            let over = self.alert(&muted.alert).is_none_or(|alert| alert.resolved);
            let (Some(rule), true, false) = (rule, stands(&muted.transition, known), over) else {
                self.muted.insert(muted.key(), None);
                continue;
            };
            let class = self.classes.of(job);
            let facts = Facts { job, reason_class: &class, source: &self.source.name, now: self.now };
            if self.forbidden(rule, &facts).is_none() {
                self.muted.insert(muted.key(), None);
                if heard.insert(&muted.alert) {
                    speaking.push((rule, muted));
                }
            }
        }
        for (rule, muted) in speaking.into_iter().rev() {
            let class = self.classes.of(&muted.transition.job);
            let job = &muted.transition.job;
            let facts = Facts { job, reason_class: &class, source: &self.source.name, now: self.now };
            self.speak(vec![Hit { rule, alert: muted.alert.clone() }], &muted.transition, &facts);
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
}

/// Whether a job is still where a step brought it. One that has ended and is gone is where it ended.
fn stands(step: &Transition, known: Option<&Known>) -> bool {
    match (&step.to, known) {
        (State::Gone, known) => known.is_none_or(|known| known.gone),
        (State::Is(status), Some(known)) => known.job.status == *status && (!known.gone || status.is_final()),
        (State::Is(_) | State::Unseen, _) => false,
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
