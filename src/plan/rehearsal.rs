//! Playing a rule's test: its listings, one after the other, through the very function that decides real polls.

use std::sync::Arc;
use std::time::Duration;

use super::{Input, Plan, plan};
use crate::diff::{Points, Policy, to_confirm};
use crate::model::listing::{Listing, Point};
use crate::model::memory::Memory;
use crate::model::notification::SourceFacts;
use crate::rules::{RuleSet, RuleTest};

/// Where a test and the rule disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The expectation that was not met; `None` when the rule spoke where nothing was expected.
    pub expectation: Option<usize>,
    /// What happened instead.
    pub what: String,
}

/// Plays a test against the rules. The first step is the baseline; a job that a step leaves out is gone from the cloud.
pub fn rehearse(rules: &RuleSet, test: &RuleTest) -> Vec<Disagreement> {
    let source =
        Arc::new(SourceFacts { name: "test".into(), kind: "swr".into(), region: None, project_id: "test".into() });
    // Every step is a look of its own, however far apart they are.
    let policy = Policy { late_after: Duration::MAX, vanish_percent_max: 100, ..Policy::default() };
    let mut memory = Memory::default();
    let mut found = Vec::new();
    for step in &test.steps {
        let now = test.start.plus(step.at);
        let mut jobs = step.jobs.clone();
        for job in &mut jobs {
            job.created_at.get_or_insert_with(|| test.start.to_string().into());
            job.updated_at.get_or_insert_with(|| now.to_string().into());
        }
        let listing = Listing::Complete(jobs.into());
        let asked = to_confirm(&memory.snapshot, &listing, &policy, usize::MAX);
        let points: Points = asked.into_iter().map(|id| (id.clone(), Point::NotFound)).collect();
        let living = memory.snapshot.jobs.values().filter(|known| !known.gone).count();
        let (before, policy) = (&memory, &policy);
        let plan = plan(Input { source: &source, before, living, listing, points, rules, policy, now });
        found.extend(judge(rules, test, step.at, &plan));
        plan.remember(&mut memory);
    }
    found
}

fn judge(rules: &RuleSet, test: &RuleTest, at: Duration, plan: &Plan) -> Vec<Disagreement> {
    let mut titles: Vec<&str> = Vec::new();
    for owed in &plan.owed {
        let title = owed.notification.title.as_str();
        if owed.notification.rules().contains(&&test.rule) && !titles.contains(&title) {
            titles.push(title);
        }
    }
    // A rule that tells nobody can still be tested.
    let listens = rules.rules.iter().any(|rule| *rule.id() == test.rule && rule.notify.is_empty());
    let fired = !titles.is_empty() || listens && plan.matches.iter().any(|(rule, _)| *rule == test.rule);
    let said = match titles.as_slice() {
        [] => "the rule says nothing".to_owned(),
        titles => {
            format!("the rule says {}", titles.iter().map(|title| format!("`{title}`")).collect::<Vec<_>>().join(", "))
        }
    };
    let expected: Vec<(usize, _)> = test.expect.iter().enumerate().filter(|(_, wanted)| wanted.at == at).collect();
    if expected.is_empty() && fired {
        let what = format!("at {at:?} {said}, and the test expects nothing there");
        return vec![Disagreement { expectation: None, what }];
    }
    let unmet = expected.into_iter().filter_map(|(n, wanted)| {
        let titled = wanted.title.as_deref().is_none_or(|title| titles.contains(&title));
        (fired != wanted.fires || !titled).then(|| Disagreement { expectation: Some(n), what: said.clone() })
    });
    unmet.collect()
}
