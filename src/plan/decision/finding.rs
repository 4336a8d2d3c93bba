//! Findings of rules: how they begin, grow and end.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Decision, Hit, still};
use crate::diff::Difference;
use crate::model::alert::{Alert, FateOutcome};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName};
use crate::model::time::span;
use crate::model::transition::{State, Transition};
use crate::rules::{Facts, Rule, Scope, When};

impl<'a> Decision<'a> {
    /// A finding as it is now.
    pub(super) fn alert(&self, id: &AlertId) -> Option<&Alert> {
        self.alerts.get(id).or_else(|| self.before.alerts.get(id))
    }

    /// Remembers by what a finding can end.
    pub(super) fn index(&mut self, alert: &Alert) {
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
    pub(super) fn found(
        &mut self,
        at: usize,
        rule: &'a Rule,
        step: &Arc<Transition>,
        facts: &Facts<'_>,
    ) -> Option<Hit<'a>> {
        let id = rule.finding(facts);
        let known = self.alert(&id).filter(|alert| !alert.resolved).cloned();
        let mut count = known.as_ref().map_or(1, |alert| alert.count.saturating_add(1));
        match &rule.when {
            When::Burst { count: enough, within, per, .. } => {
                if let Some(told) = known.as_ref().filter(|alert| self.is_within(alert.last_seen, *within)) {
                    let why = format!("this burst was told at {}, less than {} ago", told.last_seen, span(*within));
                    self.fate(rule, step, None, FateOutcome::Counted, None, why);
                    return None;
                }
                count = self.tally.around(at, step, facts, per, *within)?;
                if count < *enough {
                    let why = format!("{count} of {enough} within {}", span(*within));
                    self.fate(rule, step, None, FateOutcome::Counted, None, why);
                    return None;
                }
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

    /// The reasons that a baseline shows are not new.
    pub(super) fn seed(&mut self, difference: &Difference) {
        let rules = self.rules;
        for rule in &rules.rules {
            let When::New { to, .. } = &rule.when else { continue };
            for change in &difference.changes {
                let job = &change.known.job;
                let class = self.classes.of(job);
                let facts = Facts { job, reason_class: &class, source: &self.source.name, now: self.now };
                let there = to.as_ref().is_none_or(|to| to.contains(&job.status));
                if there && !class.is_empty() && rule.applies(&facts) {
                    let step = still(&self.source.name, &change.known, "baseline", self.now, self.now, Vec::new());
                    let id = rule.finding(&facts);
                    let known = self.alert(&id).cloned();
                    let count = known.as_ref().map_or(1, |alert| alert.count.saturating_add(1));
                    self.keep(rule, &step, id, known, count);
                }
            }
        }
    }

    /// Findings that this step ends: told to those who were told of them, once.
    pub(super) fn end(&mut self, step: &Arc<Transition>, class: &str) {
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
                // It may have moved on to another job since it was put there.
                let about = match scope {
                    Scope::Job => Some(alert.subject.as_str()),
                    Scope::Resource => alert.resource.as_deref(),
                };
                if about != Some(key) {
                    continue;
                }
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
                for told in told.into_iter().filter(|told| !told.lost) {
                    let one = (told.receiver.clone(), told.delivery.clone(), alert.subject.clone());
                    if said.contains(&one) {
                        continue;
                    }
                    self.over(rule, step, class, &alert, &told.receiver);
                    said.push(one);
                }
                for muted in self.hushed.get(&alert.id).into_iter().flatten() {
                    self.muted.insert(muted.key(), None);
                }
                self.alerts.insert(alert.id.clone(), alert);
            }
        }
    }
}
