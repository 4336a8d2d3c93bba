//! Asking why: what explains a rule and what replays history say the same as what decides polls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::model::alert::FateOutcome;
use jobwatch::model::job::Job;
use jobwatch::model::notification::SourceFacts;
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::Transition;
use jobwatch::plan::{Plan, replay};
use jobwatch::rules::{Facts, Holds, reason_class};
use proptest::prelude::*;

use crate::world::*;

const RULES: &str = r#"
schema = 1
[defaults]
notify = ["oncall"]
[[rule]]
id = "failed"
when = { to = "Failed" }
match = { resource_name = { glob = "prod-*" } }
except = { reason = { contains = "cancelled" } }
key = ["resource_id"]
cooldown = "5m"
[[rule]]
id = "from-running"
when = { from = "Running", to = ["Failed", "Success"], gaps = "allow" }
match = { reason = { exists = false } }
[[rule]]
id = "burst"
when = { to = "Failed", count = 3, within = "10m", per = ["reason_class"] }
[[rule]]
id = "new"
when = { to = "Failed", new = "reason_class", memory = "1h" }
except = { type = { not = "CreateInstance" }, resource_name = { prefix = "dev" } }
[[rule]]
id = "ended"
when = { to = "Failed" }
match = { type = ["CreateInstance", { suffix = "Namespace" }] }
resolve = { to = "Success", scope = "resource" }
severity = "critical"
"#;

/// Jobs with and without words, at any status.
fn rows() -> impl Strategy<Value = Vec<(u8, u8, u8, u8, u8)>> {
    proptest::collection::vec((0..8_u8, 0..6_u8, 0..5_u8, 0..4_u8, 1..12_u8), 1..60)
}

fn row(n: u32, (which, status, reason, name, _): (u8, u8, u8, u8, u8)) -> Job {
    let words = ["Creating", "Initializing", "Running", "Failed", "Success", "Paused"];
    let reasons =
        [None, Some("quota 17 exceeded"), Some("quota 18 exceeded"), Some("cancelled by user"), Some("disk full")];
    let names = [None, Some("prod-a"), Some("dev-b"), Some("prod-c")];
    let kinds = [None, Some("CreateInstance"), Some("DeleteNamespace")];
    Job {
        reason: reasons[usize::from(reason)].map(Into::into),
        resource_name: names[usize::from(name)].map(Into::into),
        kind: kinds[usize::from(which) % 3].map(Into::into),
        resource_id: Some(format!("r{}", which % 3).into()),
        ..job(&format!("j{which}"), words[usize::from(status)], n)
    }
}

fn walk(rows: Vec<(u8, u8, u8, u8, u8)>, mut look: impl FnMut(&World, &Plan)) {
    let mut world = World::knowing(RULES, &[]);
    let mut jobs: BTreeMap<u8, Job> = BTreeMap::new();
    for (n, one) in rows.into_iter().enumerate() {
        jobs.insert(one.0, row(u32::try_from(n).unwrap() + 1, one));
        world.now = world.now.plus(Duration::from_secs(u64::from(one.4) * 20));
        let listed: Vec<Job> = jobs.values().cloned().collect();
        let plan = world.see(&listed);
        look(&world, &plan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// For every step and rule: it is explained as firing exactly when the plan matched it, or counted or knew it; and what it
    /// lacks is named exactly when it does not fire.
    #[test]
    fn what_explains_a_rule_agrees_with_what_decides(rows in rows()) {
        let mut faults = Vec::new();
        walk(rows, |world, plan| {
            for step in plan.difference.transitions() {
                let class = step.job.reason.as_deref().map(reason_class).unwrap_or_default();
                let source = plan.source.name.clone();
                let facts = Facts { job: &step.job, reason_class: &class, source: &source, now: plan.at };
                for rule in &world.rules.rules {
                    let explained = rule.explain(step, &facts);
                    let matched = plan.matches.iter().any(|(id, of)| id == rule.id() && of.id == step.id);
                    let quiet = plan.fates.iter().any(|fate| {
                        fate.rule == *rule.id() && fate.transition == step.id
                            && matches!(fate.outcome, FateOutcome::Counted | FateOutcome::Known)
                    });
                    // A burst that cannot tell what a step is like does not count it.
                    let unlike = rule.id().as_str() == "burst" && class.is_empty();
                    if explained.fires != (matched || quiet) && !(unlike && explained.fires) {
                        faults.push(format!("{} {} {explained:?}: {matched} {quiet}", rule.id(), step.job.id));
                    }
                    if explained.fires != explained.missing.is_empty() {
                        faults.push(format!("{} {explained:?}", rule.id()));
                    }
                }
            }
        });
        prop_assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    /// The rules that were in force, played over the history they made, say what they said: the same messages under the
    /// same ids at the same times, in the same order.
    #[test]
    fn history_replayed_says_what_was_said(rows in rows()) {
        let (mut said, mut steps): (Vec<(Timestamp, String)>, Vec<Arc<Transition>>) = (Vec::new(), Vec::new());
        walk(rows, |_, plan| {
            said.extend(plan.owed.iter().map(|owed| (plan.at, owed.id.to_string())));
            steps.extend(plan.difference.transitions().cloned());
        });
        let end = steps.last().map_or(START, |step| step.seen_at);
        let again = replay(&source(), &rules(RULES), &steps, end);
        let again: Vec<_> = again.into_iter().map(|one| (one.at, one.owed.id.to_string())).collect();
        prop_assert_eq!(again, said);
    }
}

fn source() -> Arc<SourceFacts> {
    Arc::new(SourceFacts { name: "prod".into(), kind: "swr".into(), region: None, project_id: "p".into() })
}

#[test]
fn a_stay_is_replayed_when_its_time_is_up_and_not_when_the_job_had_left() {
    let text =
        "schema = 1\n[[rule]]\nid = \"stuck\"\nwhen = { stays = \"Running\", for = \"2m\" }\nnotify = [\"oncall\"]\n";
    let mut world = World::knowing(text, &[]);
    let (mut steps, mut said) = (Vec::new(), Vec::new());
    for n in 0..12 {
        let quick = if n < 3 { "Running" } else { "Success" };
        let plan = world.see(&[job("slow", "Running", 1), job("quick", quick, if n < 3 { 1 } else { 2 })]);
        steps.extend(plan.difference.transitions().cloned());
        said.extend(plan.owed.iter().map(|owed| (owed.id.clone(), owed.notification.title.clone())));
    }
    let replayed = replay(&source(), &rules(text), &steps, world.now);
    let replayed: Vec<_> = replayed.into_iter().map(|one| (one.owed.id, one.owed.notification.title)).collect();
    assert_eq!((said.len(), replayed), (1, said));
}

#[test]
fn what_cannot_be_told_is_said_to_be_so_and_fires_nothing() {
    let rules = rules(
        "schema = 1\n[[rule]]\nid = \"r\"\nwhen = { to = \"Failed\" }\nmatch = { reason = { not = \"x\" } }\nexcept = { type = \"A\" }\nnotify = []\n",
    );
    let mut world = World::knowing("schema = 1\n", &[]);
    let plan = world.see(&[job("a", "Failed", 1)]);
    let step = plan.difference.transitions().next().unwrap();
    let facts = Facts { job: &step.job, reason_class: "", source: &"prod".into(), now: plan.at };
    let explained = rules.rules[0].explain(step, &facts);
    let lines: Vec<_> = explained.lines.iter().map(|line| (line.part, line.holds, line.found.as_str())).collect();
    assert_eq!(
        lines,
        [
            ("when", Holds::Yes, "it went unseen → Failed, not seen on the way: Creating, Initializing, Running"),
            ("match", Holds::CannotTell, "the job has no `reason`"),
            ("except", Holds::CannotTell, "the job has no `type`"),
        ]
    );
    assert_eq!((explained.fires, explained.missing), (false, vec!["`reason` is anything but `x`".to_owned()]));
}
