//! Counting the steps that are alike: when many jobs do the same in a short time.

use std::collections::HashMap;
use std::time::Duration;

use super::Classes;
use crate::model::name::SourceName;
use crate::model::time::Timestamp;
use crate::model::transition::Transition;
use crate::rules::{Facts, Field, RuleSet, When};

/// When the steps that a rule counts were made, by the place of the rule and by what they have in common.
#[derive(Debug, Default)]
pub(super) struct Tally {
    times: HashMap<(usize, Vec<String>), Vec<Timestamp>>,
}

impl Tally {
    /// Counts the steps of the near past and those of this poll.
    pub(super) fn of<'s>(
        rules: &RuleSet,
        source: &SourceName,
        steps: impl Iterator<Item = &'s Transition>,
        classes: &Classes,
        now: Timestamp,
    ) -> Self {
        let mut tally = Self::default();
        if rules.counted().is_none() {
            return tally;
        }
        for step in steps {
            let class = classes.of(&step.job);
            let facts = Facts { job: &step.job, reason_class: &class, source, now };
            for (at, rule) in rules.rules.iter().enumerate() {
                if let When::Burst { per, .. } = &rule.when
                    && rule.fires(step, &facts)
                    && let Some(key) = alike(per, &facts)
                {
                    tally.times.entry((at, key)).or_default().push(happened(step));
                }
            }
        }
        tally.times.values_mut().for_each(|times| times.sort_unstable());
        tally
    }

    /// How many steps like this one were made within some such time that it falls into, with it, at most; `None` when it
    /// cannot be told what it is like.
    pub(super) fn around(
        &self,
        at: usize,
        step: &Transition,
        facts: &Facts<'_>,
        per: &[Field],
        within: Duration,
    ) -> Option<u32> {
        let times = self.times.get(&(at, alike(per, facts)?)).map_or(&[][..], Vec::as_slice);
        let when = happened(step);
        let first = times.partition_point(|time| *time <= when.minus(within));
        let last = times.partition_point(|time| *time <= when);
        let from = |start: usize| times.partition_point(|time| *time < times[start].plus(within)) - start;
        u32::try_from((first..last).map(from).max().unwrap_or_default()).ok()
    }
}

/// The values of these fields; `None` when one is missing.
fn alike(per: &[Field], facts: &Facts<'_>) -> Option<Vec<String>> {
    per.iter().map(|field| facts.text(*field).map(|text| text.into_owned())).collect()
}

/// When a step was made, as well as that is known: the cloud's own time, which cannot be after it was seen.
fn happened(step: &Transition) -> Timestamp {
    step.job.updated().map_or(step.seen_at, |updated| updated.min(step.seen_at))
}
