//! The shipped rules together: what on-call hears of one failure, of a storm, and of the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jobwatch::config;
use jobwatch::model::job::Job;
use jobwatch::model::memory::Pacing;
use jobwatch::plan::{Plan, Rate, pace};

use crate::world::*;

/// A world with the shipped rules, whose baseline is empty.
fn shipped() -> World {
    let (rules, report) = config::rules(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")], None);
    assert!(report.is_empty(), "{:?}", report.lines().collect::<Vec<_>>());
    let mut world = World::new(TELL_FAILURES);
    world.rules = rules;
    world.see(&[]);
    world
}

fn creation(id: &str, job: Job) -> Job {
    Job {
        kind: Some("CreateInstance".into()),
        resource_id: Some(format!("r-{id}").into()),
        resource_name: Some(format!("prod-{id}").into()),
        ..job
    }
}

/// How many messages each receiver is sent at once, and how many wait for a digest.
fn paced(plan: &Plan) -> BTreeMap<String, (usize, usize)> {
    let rate = |_: &_| Some(Rate::default());
    let paced = pace(plan.owed.clone(), &Pacing::default(), &rate, plan.at);
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for owed in paced.send {
        counts.entry(owed.receiver.to_string()).or_default().0 += 1;
    }
    for (owed, ..) in paced.hold {
        counts.entry(owed.receiver.to_string()).or_default().1 += 1;
    }
    counts
}

#[test]
fn a_failure_is_one_message_to_each_receiver_whichever_shipped_rules_find_it() {
    let mut world = shipped();
    let plan = world.see(&[creation("a", failed("a", 1, "no subnet"))]);
    assert_eq!(told(&plan), [("oncall", "prod-a: no subnet"), ("ops-mail", "prod-a: no subnet")]);
    assert!(plan.owed[0].notification.body.contains("Also: new-cause ("), "{}", plan.owed[0].notification.body);
    let plan = world.see(&[creation("a", job("a", "Running", 2))]);
    assert_eq!(told(&plan), [("oncall", "prod-a: CreateInstance Failed → Running")]);
    let plan = world.see(&[creation("a", job("a", "Success", 3))]);
    assert_eq!(
        told(&plan),
        [
            ("oncall", "resolved: prod-a: Instance creation failed"),
            ("ops-mail", "resolved: prod-a: Instance creation failed"),
            ("ops-mail", "prod-a is ready"),
        ]
    );
}

#[test]
fn a_storm_of_sixty_failures_rings_twice_and_says_at_once_that_it_is_one_cause() {
    let mut world = shipped();
    let storm: Vec<Job> =
        (0..60).map(|n| creation(&n.to_string(), failed(&n.to_string(), 1, &format!("no node {n}")))).collect();
    let plan = world.see(&storm);
    assert_eq!(plan.owed.len(), 120, "one for each failure and receiver");
    assert_eq!(plan.owed[0].notification.title, "60 failures of one cause in prod: no node <n>");
    assert_eq!(plan.owed[0].notification.rules().len(), 3, "the failure and its new cause are named in it");
    let bursts = plan.owed.iter().filter(|owed| owed.notification.title.contains("failures of one cause"));
    assert_eq!(bursts.count(), 2, "once for each receiver");
    let both = BTreeMap::from([("oncall".to_owned(), (2, 58)), ("ops-mail".to_owned(), (2, 58))]);
    assert_eq!(paced(&plan), both);
}

#[test]
fn an_order_that_is_made_again_every_five_minutes_rings_every_quarter_of_an_hour() {
    let mut world = shipped();
    let mut jobs = Vec::new();
    let mut heard = Vec::new();
    for n in 0..12_u32 {
        let id = format!("order-{n}");
        let job = Job { resource_name: Some("prod-a".into()), ..creation(&id, failed(&id, n * 300, "no subnet")) };
        jobs.push(job);
        let plan = world.see(&jobs);
        let titles = plan.owed.iter().filter(|owed| owed.receiver.as_str() == "oncall");
        heard.extend(titles.map(|owed| (n * 5, owed.notification.data()["alert"]["held_back"].clone())));
        world.now = world.now.plus(Duration::from_secs(270));
    }
    assert_eq!(heard, [(0, 0.into()), (15, 2.into()), (30, 2.into()), (45, 2.into())]);
}
