//! How fast receivers are told: what is sent, what is held, and that neither order nor clock loses any of it.

use std::collections::BTreeMap;
use std::time::Duration;

use jobwatch::model::delivery::{Lane, Owed};
use jobwatch::model::memory::Pacing;
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Rate, digests, pace};

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

#[test]
fn a_stream_that_never_falls_below_the_rate_keeps_nothing_waiting_for_ever() {
    for count in [1, 2, 5, 10, 20] {
        let rate = Rate { count, per: Duration::from_secs(60) };
        let mut world = World::knowing(TELL_FAILURES, &[]);
        let (mut jobs, mut sent, mut made) = (Vec::new(), Vec::<Timestamp>::new(), Vec::<Timestamp>::new());
        let mut held: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        // Three times as many as the receiver may get, one after the other, as from many sources.
        for n in 0..count * 30 {
            jobs.push(failed(&format!("j{n}"), u32::try_from(n).unwrap(), "x"));
            let owed = world.see(&jobs).owed;
            let now = START.plus(Duration::from_secs(20) * u32::try_from(n).unwrap() / u32::try_from(count).unwrap());
            [&mut sent, &mut made].into_iter().for_each(|times| times.retain(|at| now.since(*at) < rate.per));
            if let Some(oldest) = held.values().min() {
                longest = longest.max(now.since(*oldest));
                if digests(rate, count.saturating_sub(sent.len()), made.len()) > 0 {
                    sent.push(now);
                    made.push(now);
                    held.clear();
                }
            }
            let mut pacing = Pacing { recent: [("oncall".into(), sent.len())].into(), ..Pacing::default() };
            let lane = |subject: &String| Lane { source: Some("prod".into()), subject: subject.as_str().into() };
            pacing.held = held.iter().map(|(job, due)| (("oncall".into(), lane(job)), *due)).collect();
            let paced = pace(owed, &pacing, &|_| Some(rate), now);
            sent.extend(paced.send.iter().map(|_| now));
            held.extend(paced.hold.into_iter().map(|(owed, _, due)| (owed.lane.subject.to_string(), due)));
            assert!(sent.len() <= count, "no more than the rate allows");
        }
        assert!(longest <= 2 * rate.per, "{count}: {longest:?}");
    }
}
