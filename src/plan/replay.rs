//! Recorded history through other rules: what they would have said.
//!
//! Steps are judged in the order they were seen, by the code that judges a poll; what is owed arrives at once. Jobs that
//! stay in a status are looked at when a rule's time is up. What history does not record cannot be replayed: words that
//! changed without a step, and how long a job had been in the status that the first of its steps left.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::decision::Decision;
use crate::model::alert::Alert;
use crate::model::delivery::Owed;
use crate::model::job::Text;
use crate::model::memory::Memory;
use crate::model::name::{AlertId, JobId};
use crate::model::notification::SourceFacts;
use crate::model::snapshot::Known;
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};
use crate::rules::{Facts, RuleSet, When, class_of};

/// A message that would have been sent, and when.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// When it would have been decided.
    pub at: Timestamp,
    /// The message.
    pub owed: Owed,
}

/// What the rules say of one source's steps, which are in the order they were seen, until `end`.
pub fn replay(source: &Arc<SourceFacts>, rules: &RuleSet, steps: &[Arc<Transition>], end: Timestamp) -> Vec<Replayed> {
    let mut replay = Replay::empty(source, rules);
    for batch in steps.chunk_by(|a, b| a.seen_at == b.seen_at) {
        replay.stays_until(batch[0].seen_at);
        replay.batch(batch);
    }
    replay.stays_until(end);
    replay.said
}

struct Replay<'a> {
    source: &'a Arc<SourceFacts>,
    rules: &'a RuleSet,
    alerts: HashMap<AlertId, Alert>,
    by_subject: HashMap<JobId, HashSet<AlertId>>,
    by_resource: HashMap<Text, HashSet<AlertId>>,
    recent: VecDeque<Arc<Transition>>,
    /// When a rule's time is up for a job: with the place of the rule.
    due: BTreeMap<(Timestamp, JobId, usize), Known>,
    /// The step that each job made last.
    last: HashMap<JobId, u32>,
    said: Vec<Replayed>,
}

impl<'a> Replay<'a> {
    fn empty(source: &'a Arc<SourceFacts>, rules: &'a RuleSet) -> Self {
        Self {
            source,
            rules,
            alerts: HashMap::new(),
            by_subject: HashMap::new(),
            by_resource: HashMap::new(),
            recent: VecDeque::new(),
            due: BTreeMap::new(),
            last: HashMap::new(),
            said: Vec::new(),
        }
    }

    /// Steps that were seen by one poll.
    fn batch(&mut self, steps: &[Arc<Transition>]) {
        let now = steps[0].seen_at;
        if let Some(within) = self.rules.counted() {
            while self.recent.front().is_some_and(|step| step.seen_at < now.minus(within)) {
                self.recent.pop_front();
            }
        }
        let memory = self.memory(steps, now);
        let mut decision = Decision::new(self.source, &memory, self.rules, now);
        decision.count(steps.iter());
        for step in steps {
            decision.judge(step, &[]);
        }
        let (alerts, owed) = (decision.alerts, decision.owed);
        self.keep(alerts, owed, now);
        for step in steps {
            self.last.insert(step.job.id.clone(), step.seq);
            self.expect(step);
        }
        if self.rules.counted().is_some() {
            self.recent.extend(steps.iter().cloned());
        }
    }

    /// The findings that these steps may be about.
    fn memory(&self, steps: &[Arc<Transition>], now: Timestamp) -> Memory {
        let mut ids: HashSet<AlertId> = HashSet::new();
        for step in steps {
            let job = &step.job;
            ids.extend(self.by_subject.get(&job.id).into_iter().flatten().cloned());
            let on_resource = job.resource_id.as_ref().and_then(|resource| self.by_resource.get(resource));
            ids.extend(on_resource.into_iter().flatten().cloned());
            let class = class_of(job);
            ids.extend(self.rules.wide_findings(&Facts { job, reason_class: &class, source: &self.source.name, now }));
        }
        let alerts = ids.into_iter().filter_map(|id| self.alerts.get(&id).map(|alert| (id, alert.clone()))).collect();
        Memory { alerts, recent: self.recent.iter().cloned().collect(), ..Memory::default() }
    }

    fn keep(&mut self, alerts: BTreeMap<AlertId, Alert>, owed: Vec<Owed>, now: Timestamp) {
        for (id, mut alert) in alerts {
            alert.told.iter_mut().for_each(|told| told.delivered_at = told.delivered_at.or(Some(now)));
            self.by_subject.entry(alert.subject.clone()).or_default().insert(id.clone());
            if let Some(resource) = alert.resource.clone() {
                self.by_resource.entry(resource).or_default().insert(id.clone());
            }
            self.alerts.insert(id, alert);
        }
        self.said.extend(owed.into_iter().map(|owed| Replayed { at: now, owed }));
    }

    /// Remembers when a rule about stays is to look at the job again.
    fn expect(&mut self, step: &Arc<Transition>) {
        let State::Is(status) = &step.to else { return };
        for (at, rule) in self.rules.rules.iter().enumerate() {
            if let When::Stays { status: wanted, at_least } = &rule.when
                && wanted.contains(status)
            {
                let (job, since) = ((*step.job).clone(), step.seen_at);
                let id = job.id.clone();
                let known = Known {
                    job,
                    seq: step.seq,
                    status_since: since,
                    seen_at: since,
                    missing: 0,
                    stale: 0,
                    gone: false,
                };
                self.due.insert((since.plus(*at_least), id, at), known);
            }
        }
    }

    fn stays_until(&mut self, end: Timestamp) {
        while let Some(((due, id, at), known)) = self.due.pop_first() {
            if due > end {
                self.due.insert((due, id, at), known);
                return;
            }
            if self.last.get(&id) != Some(&known.seq) {
                continue;
            }
            let ids = self.by_subject.get(&id).into_iter().flatten();
            let alerts = ids.filter_map(|id| Some((id.clone(), self.alerts.get(id)?.clone()))).collect();
            let memory = Memory { alerts, ..Memory::default() };
            let mut decision = Decision::new(self.source, &memory, self.rules, due);
            decision.stay(at, &self.rules.rules[at], &known, due);
            let (alerts, owed) = (decision.alerts, decision.owed);
            self.keep(alerts, owed, due);
        }
    }
}
