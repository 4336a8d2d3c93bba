//! How fast receivers are told: what is sent, what is held, and that neither order nor clock loses any of it.

use std::time::Duration;

use jobwatch::model::delivery::Owed;
use jobwatch::model::memory::Pacing;
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Rate, pace};

use crate::world::*;

/// Rules whose messages go out one by one, and in groups.
const RULES: &str = r#"
schema = 1
[defaults]
notify = ["oncall"]
[[rule]]
id = "failed"
when = { to = "Failed" }
resolve = { to = "Success" }
[[rule]]
id = "done"
when = { to = "Success" }
group = { by = ["source"], wait = "20s" }
"#;

const RATE: Rate = Rate { count: 1, per: Duration::from_secs(60) };

fn lanes<'o>(owed: impl Iterator<Item = &'o Owed>) -> Vec<(&'o str, &'o str)> {
    owed.map(|owed| (owed.lane.subject.as_str(), owed.notification.title.as_str())).collect()
}

/// What is known of the receiver after it was told this at once.
fn after(owed: Vec<Owed>, now: Timestamp) -> Pacing {
    Pacing { groups: pace(owed, &Pacing::default(), &|_| None, now).groups.into_iter().collect(), ..Pacing::default() }
}

#[test]
fn what_is_held_of_one_job_is_held_in_its_order_whatever_holds_it() {
    let mut world = World::knowing(RULES, &[]);
    let rate = |_: &_| Some(RATE);
    let begun = world.see(&[failed("a", 1, "x"), job("z", "Success", 1)]);
    let mut pacing = after(begun.owed, begun.at);
    pacing.recent.insert("oncall".into(), 1);
    // The end of the failure has no group and exceeds the rate; the success joins the group that gathers.
    let plan = world.see(&[job("a", "Success", 2), job("z", "Success", 1)]);
    let now = begun.at.plus(Duration::from_secs(5));
    let paced = pace(plan.owed.clone(), &pacing, &rate, now);
    assert_eq!(lanes(plan.owed.iter()), [("a", "resolved: a: failed"), ("a", "a: job Failed → Success")]);
    assert_eq!(lanes(paced.hold.iter().map(|(owed, _, _)| owed)), lanes(plan.owed.iter()));
}

#[test]
fn a_group_from_before_the_clock_was_set_back_gathers_no_longer() {
    let mut world = World::knowing(RULES, &[]);
    let plan = world.see(&[job("a", "Success", 1)]);
    let pacing = after(plan.owed, plan.at);
    let plan = world.see(&[job("a", "Success", 1), job("b", "Success", 2)]);
    let yesterday = plan.at.minus(Duration::from_secs(86_400));
    let paced = pace(plan.owed, &pacing, &|_| None, yesterday);
    assert_eq!(lanes(paced.send.iter()), [("b", "b: job unseen → Success")]);
}
