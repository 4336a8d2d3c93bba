//! Findings that are told with restraint: cooldown, resolve, bursts, new reasons, merging, silences, hours.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::document::File;
use jobwatch::model::alert::{FateOutcome, Silence};
use jobwatch::model::job::Job;
use jobwatch::model::listing::Point;
use jobwatch::model::notification::Event;
use jobwatch::model::time::Timestamp;
use jobwatch::plan::Plan;
use jobwatch::rules::{Surroundings, load};

use crate::world::*;

/// A rule about `when`, with more of its keys.
fn rule(id: &str, when: &str, more: &str) -> String {
    format!("[[rule]]\nid = \"{id}\"\nabout = \"about {id}\"\nwhen = {when}\nnotify = [\"oncall\"]\n{more}\n")
}

fn file(rules: &[String]) -> String {
    format!("schema = 1\n{}", rules.concat())
}

fn on(resource: &str, job: Job) -> Job {
    Job { resource_id: Some(resource.into()), resource_name: Some(format!("name-{resource}").into()), ..job }
}

fn titles(plan: &Plan) -> Vec<&str> {
    plan.owed.iter().map(|owed| owed.notification.title.as_str()).collect()
}

fn outcomes(plan: &Plan) -> Vec<(&str, FateOutcome)> {
    plan.fates.iter().map(|fate| (fate.rule.as_str(), fate.outcome)).collect()
}

/// What is told when `jobs` are seen one listing after the other.
fn told_of(world: &mut World, listings: &[Vec<Job>]) -> Vec<String> {
    listings
        .iter()
        .flat_map(|jobs| titles(&world.see(jobs)).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn what_a_cooldown_holds_back_is_counted_in_the_next_message() {
    let more = "key = [\"resource_id\"]\ncooldown = \"5m\"";
    let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", more)]), &[]);
    let fail = |n: u32| on("r", failed(&format!("j{n}"), n, "quota"));
    let mut jobs = Vec::new();
    let mut heard = Vec::new();
    // One failure on the same resource at each poll, for six minutes.
    for n in 1..=12 {
        jobs.push(fail(n));
        let plan = world.see(&jobs);
        heard.extend(plan.owed.iter().map(|owed| (n, owed.notification.data()["alert"].clone())));
    }
    let numbers: Vec<_> = heard.iter().map(|(n, alert)| (*n, &alert["count"], &alert["held_back"])).collect();
    assert_eq!(numbers, [(1, &1.into(), &0.into()), (11, &11.into(), &9.into())]);
    assert_eq!(heard[0].1["id"], heard[1].1["id"], "one alert for the resource");
}

#[test]
fn a_cooldown_holds_for_each_key_and_receiver_and_gives_way_to_a_higher_severity() {
    let text = |severity: &str| {
        let more = format!("cooldown = \"1h\"\nkey = [\"resource_id\"]\nseverity = \"{severity}\"");
        file(&[rule("failed", "{ to = \"Failed\" }", &more)])
    };
    let mut world = World::knowing(&text("error"), &[]);
    let (a, b, c) = (on("r", failed("a", 1, "x")), on("s", failed("b", 2, "x")), on("r", failed("c", 3, "x")));
    assert_eq!(told_of(&mut world, &[vec![a.clone()], vec![a.clone(), b.clone()]]), ["name-r: x", "name-s: x"]);
    let jobs = vec![a, b, c];
    let plan = world.see(&jobs);
    assert_eq!((titles(&plan).len(), outcomes(&plan)), (0, vec![("failed", FateOutcome::HeldBack)]));
    world.rules = rules(&text("critical"));
    let worse: Vec<Job> = jobs.into_iter().chain([on("r", failed("d", 4, "x"))]).collect();
    let plan = world.see(&worse);
    assert_eq!(titles(&plan), ["name-r: x"]);
    assert_eq!(plan.owed[0].notification.data()["alert"]["held_back"], 1);
}

#[test]
fn what_is_still_on_its_way_is_not_said_twice_however_long_it_takes() {
    let more = "cooldown = \"1m\"\nkey = [\"resource_id\"]";
    let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", more)]), &[]);
    world.see(&[on("r", failed("a", 1, "x"))]);
    for alert in world.memory.alerts.values_mut() {
        alert.told[0].delivered_at = None;
    }
    world.now = world.now.plus(Duration::from_secs(3_600));
    let plan = world.see(&[on("r", failed("a", 1, "x")), on("r", failed("b", 2, "x"))]);
    assert!(plan.owed.is_empty());
    assert_eq!(plan.fates[0].why, "what was told before is still on its way");
}

#[test]
fn what_waited_behind_a_message_that_was_given_up_is_counted_in_the_next_one_and_nobody_hears_of_its_end() {
    let more = "cooldown = \"1h\"\nkey = [\"resource_id\"]\nresolve = { to = \"Success\" }";
    let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", more)]), &[]);
    let mut jobs = vec![on("r", failed("a", 1, "x"))];
    world.see(&jobs);
    jobs.push(on("r", failed("b", 2, "x")));
    assert!(world.see(&jobs).owed.is_empty());
    let lose = |world: &mut World| world.memory.alerts.values_mut().for_each(|alert| alert.told[0].lost = true);
    lose(&mut world);
    jobs.push(on("r", failed("c", 3, "x")));
    let plan = world.see(&jobs);
    assert_eq!(plan.owed[0].notification.data()["alert"]["held_back"], 1, "told at once, with the one before it");
    lose(&mut world);
    jobs[0] = on("r", job("a", "Success", 4));
    let over = world.see(&jobs);
    assert!(over.owed.is_empty(), "{:?}", titles(&over));
}

#[test]
fn an_end_is_told_once_and_only_to_those_who_were_told_of_the_beginning() {
    let more = "resolve = { to = \"Success\" }";
    let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", more)]), &[job("b", "Running", 1)]);
    world.see(&[failed("a", 2, "x"), job("b", "Running", 1)]);
    world.see(&[job("a", "Running", 3), job("b", "Running", 1)]);
    let plan = world.see(&[job("a", "Success", 4), job("b", "Success", 4)]);
    let [over] = plan.owed.as_slice() else { panic!("{:?}", titles(&plan)) };
    assert_eq!(over.notification.event, Event::AlertResolved);
    assert_eq!(over.notification.title, "resolved: a: about failed");
    assert_eq!(over.notification.data()["state"], "resolved");
    let again = told_of(&mut world, &[vec![job("a", "Running", 5)], vec![job("a", "Success", 6)]]);
    assert!(again.is_empty(), "{again:?}");
    let anew = told_of(&mut world, &[vec![failed("a", 7, "y")], vec![job("a", "Success", 8)]]);
    assert_eq!(anew, ["a: y", "resolved: a: about failed"], "what begins anew ends anew");
}

#[test]
fn another_job_on_the_resource_ends_it_where_the_rule_says_so() {
    for (scope, ends) in [("resource", true), ("job", false)] {
        let more = format!("resolve = {{ to = \"Success\", scope = \"{scope}\" }}");
        let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", &more)]), &[]);
        let bad = on("r", failed("a", 1, "x"));
        world.see(std::slice::from_ref(&bad));
        let plan = world.see(&[bad.clone(), on("r", job("b", "Success", 2)), on("s", job("c", "Success", 2))]);
        assert_eq!(!plan.owed.is_empty(), ends, "{scope}");
        if ends {
            assert_eq!(plan.owed[0].lane.subject.as_str(), "a", "in order with what it ends");
            assert!(plan.owed[0].notification.body.contains("It was told of job a."));
        }
    }
}

#[test]
fn several_rules_about_one_step_are_one_message_that_names_them_all() {
    let text = file(&[
        rule("any", "{ to = \"Failed\" }", "severity = \"warning\""),
        rule("worse", "{ to = \"Failed\" }", "severity = \"critical\"\nmatch = { reason = { contains = \"disk\" } }"),
        "[[rule]]\nid = \"other\"\nwhen = { to = \"Failed\" }\nnotify = [\"oncall\", \"ops\"]\n".to_owned(),
    ]);
    let mut world = World::knowing(&text, &[]);
    let plan = world.see(&[failed("a", 1, "disk full")]);
    let heard: Vec<(&str, Vec<&str>)> = plan
        .owed
        .iter()
        .map(|owed| (owed.receiver.as_str(), owed.notification.rules().into_iter().map(|id| id.as_str()).collect()))
        .collect();
    assert_eq!(heard, [("oncall", vec!["worse", "any", "other"]), ("ops", vec!["other"])]);
    let told = &plan.owed[0].notification;
    assert_eq!(told.severity.as_str(), "critical");
    assert!(told.body.contains("Also: any (about any), other (other)."), "{}", told.body);
    assert_eq!(told.data()["also"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_burst_is_told_once_with_its_whole_number() {
    let when = "{ to = \"Failed\", count = 3, within = \"10m\", per = [\"reason_class\"] }";
    let mut world = World::knowing(&file(&[rule("burst", when, "")]), &[]);
    let fail = |n: u32, reason: &str| failed(&format!("j{n}"), n, reason);
    let two = vec![fail(1, "quota 1"), fail(2, "quota 2"), fail(3, "disk"), job("x", "Failed", 3)];
    assert!(world.see(&two).owed.is_empty(), "two of a kind are no burst, and no reason is no kind");
    let five: Vec<Job> = two.iter().cloned().chain((4..7).map(|n| fail(n, "quota 9"))).collect();
    let plan = world.see(&five);
    assert_eq!(titles(&plan), ["5 times within 10 min: j4: quota 9"]);
    assert_eq!(plan.owed[0].notification.data()["alert"]["count"], 5);
    let more: Vec<Job> = five.iter().cloned().chain((7..10).map(|n| fail(n, "quota 9"))).collect();
    let plan = world.see(&more);
    assert!(plan.owed.is_empty(), "it goes on");
    assert!(plan.fates.iter().all(|fate| fate.outcome == FateOutcome::Counted), "{:?}", plan.fates);
}

#[test]
fn a_burst_counts_by_the_clouds_time_so_that_failures_far_apart_are_none() {
    let when = "{ to = \"Failed\", count = 3, within = \"1m\" }";
    let at = |seconds: [u32; 3]| seconds.map(|second| failed(&format!("j{second}"), second, "x"));
    let mut world = World::knowing(&file(&[rule("burst", when, "")]), &[]);
    world.now = Timestamp::parse("2026-11-24T09:00:00Z").unwrap();
    assert!(world.see(&at([0, 100, 200])).owed.is_empty(), "found together after a pause, but made apart");
    let mut world = World::knowing(&file(&[rule("burst", when, "")]), &[]);
    world.now = Timestamp::parse("2026-11-24T09:00:00Z").unwrap();
    assert_eq!(world.see(&at([0, 20, 40])).owed.len(), 1);
}

#[test]
fn a_reason_is_new_once_until_it_is_forgotten() {
    let when = "{ to = \"Failed\", new = \"reason_class\", memory = \"1d\" }";
    let text = file(&[rule("new", when, "")]);
    let old = failed("old", 1, "quota 17 exceeded");
    let mut world = World::knowing(&text, std::slice::from_ref(&old));
    let mut jobs = vec![old];
    let mut next = |world: &mut World, job: Job| {
        jobs.push(job);
        world.see(&jobs)
    };
    let known = next(&mut world, failed("a", 2, "quota 18 exceeded"));
    assert_eq!((titles(&known).len(), outcomes(&known)), (0, vec![("new", FateOutcome::Known)]), "the baseline had it");
    assert_eq!(titles(&next(&mut world, failed("b", 3, "disk 3 full"))), ["b: disk 3 full"]);
    assert!(next(&mut world, failed("c", 4, "disk 4 full")).owed.is_empty());
    assert!(next(&mut world, job("d", "Failed", 5)).owed.is_empty(), "no reason is not a new one");
    world.now = world.now.plus(Duration::from_secs(86_400));
    assert_eq!(titles(&next(&mut world, failed("e", 6, "disk 5 full"))), ["e: disk 5 full"], "not seen for a day");
}

#[test]
fn a_change_of_other_words_is_told_when_a_rule_asks_for_it() {
    let mut world =
        World::knowing(&file(&[rule("changed", "{ changed = \"reason\" }", "")]), &[job("a", "Running", 1)]);
    let with = |reason: &str, at| Job { reason: Some(reason.into()), ..job("a", "Running", at) };
    let plan = world.see(&[with("pulling images", 2)]);
    assert_eq!(titles(&plan), ["a: job: reason changed"]);
    assert_eq!(plan.owed[0].notification.data()["transition"]["changed"], serde_json::json!(["reason"]));
    assert!(world.see(&[with("pulling images", 3)]).owed.is_empty(), "only the time is newer");
    assert_eq!(world.see(&[with("image pull failed", 4)]).owed.len(), 1);
}

fn silence(world: &mut World, matchers: &[&str], seconds: u64) {
    world.memory.silences.push(Silence {
        id: "s1".into(),
        matchers: matchers.iter().map(|text| (*text).to_owned()).collect(),
        starts_at: world.now,
        ends_at: world.now.plus(Duration::from_secs(seconds)),
        author: "ada".into(),
        comment: "planned work".into(),
    });
}

#[test]
fn a_silence_keeps_quiet_and_at_its_end_what_still_fails_is_told_once() {
    let mut world =
        World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", "resolve = { to = \"Success\" }")]), &[]);
    world.see(&[failed("before", 1, "told before")]);
    silence(&mut world, &["rule=failed"], 80);
    let (a, b, before) = (failed("a", 2, "x"), failed("b", 2, "y"), failed("before", 1, "told before"));
    let plan = world.see(&[before.clone(), a.clone(), b.clone()]);
    assert_eq!((plan.owed.len(), plan.difference.transitions().count(), plan.muted.len()), (0, 2, 2));
    assert_eq!(plan.fates[0].why, "silence s1 by ada: planned work");
    let over = world.see(&[job("before", "Success", 3), a.clone(), b.clone()]);
    assert_eq!(titles(&over), ["resolved: before: about failed"], "an end passes a silence");
    let mended = world.see(&[a.clone(), job("b", "Success", 4)]);
    assert!(mended.owed.is_empty(), "nobody was told of b");
    let ended = world.see(&[a.clone(), job("b", "Success", 4)]);
    assert_eq!(titles(&ended), ["a: x"]);
    assert!(world.see(&[a, job("b", "Success", 4)]).owed.is_empty(), "once");
    assert!(world.memory.muted.is_empty());
}

#[test]
fn of_several_jobs_with_one_finding_the_newest_that_still_stands_is_told_when_a_silence_ends() {
    let of = |job: Job| Job { kind: Some("CreateInstance".into()), ..job };
    for (standing, told) in
        [(["Failed", "Success"], "a: x"), (["Success", "Failed"], "b: y"), (["Failed", "Failed"], "b: y")]
    {
        let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", "key = [\"type\"]")]), &[]);
        silence(&mut world, &["rule=failed"], 60);
        let (a, b) = (of(failed("a", 1, "x")), of(failed("b", 2, "y")));
        assert!(told_of(&mut world, &[vec![a.clone()], vec![a.clone(), b.clone()]]).is_empty());
        let now = |failed: Job, status: &str| {
            if status == "Failed" { failed } else { of(job(failed.id.as_str(), status, 9)) }
        };
        let jobs = vec![now(a, standing[0]), now(b, standing[1])];
        assert_eq!(told_of(&mut world, &[jobs.clone(), jobs]), [told], "{standing:?}");
        assert!(world.memory.muted.is_empty());
    }
}

#[test]
fn what_ended_in_a_silence_and_is_gone_at_its_end_is_told_and_what_was_at_work_is_not() {
    let text = file(&[rule("failed", "{ to = [\"Failed\", \"Running\"] }", "")]);
    let other = job("c", "Success", 1);
    let mut world = World::knowing(&text, std::slice::from_ref(&other));
    silence(&mut world, &["rule=failed"], 3_600);
    assert!(world.see(&[failed("a", 1, "x"), job("b", "Running", 1), other.clone()]).owed.is_empty());
    for id in ["a", "b"] {
        world.points.insert(id.into(), Point::NotFound);
    }
    let points = world.points.clone();
    for _ in 0..3 {
        world.points = points.clone();
        world.see(std::slice::from_ref(&other));
    }
    assert!(world.memory.snapshot.jobs["a"].gone && world.memory.snapshot.jobs["b"].gone);
    world.now = world.now.plus(Duration::from_secs(3_600));
    assert_eq!(titles(&world.see(std::slice::from_ref(&other))), ["a: x"]);
    assert!(world.memory.muted.is_empty());
}

#[test]
fn a_silence_mutes_only_what_all_its_matchers_hold_for() {
    let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", "")]), &[]);
    silence(&mut world, &["rule=failed", "reason=~.*quota.*"], 3_600);
    assert_eq!(titles(&world.see(&[failed("a", 1, "quota"), failed("b", 1, "disk")])), ["b: disk"]);
}

#[test]
fn a_rule_outside_its_hours_speaks_when_they_begin_of_what_still_stands() {
    let windows = windows(
        "[window.office]\nzone = \"Asia/Shanghai\"\ntimes = [{ days = [\"mon-fri\"], from = \"09:00\", to = \"18:00\" }]",
    );
    let text = file(&[rule("failed", "{ to = \"Failed\" }", "active = [\"office\"]")]);
    let none = |_: &Path| Err("no files here".to_owned());
    let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
    let (rules, report) = load(
        &[file],
        &Surroundings { read: &none, receivers: None, windows: Some(&windows), sources: None, follow_ups: None },
    );
    assert!(report.is_empty(), "{:?}", report.lines().collect::<Vec<_>>());
    let mut world = World::knowing("schema = 1\n", &[]);
    world.rules = rules;
    // Tuesday, 08:59:30 in Shanghai; the next poll is at 09:00.
    world.now = Timestamp::parse("2026-11-24T00:59:30Z").unwrap();
    let early = world.see(&[failed("a", 1, "x"), failed("b", 1, "y")]);
    assert_eq!((early.owed.len(), early.fates[0].why.as_str()), (0, "window office is closed"));
    assert_eq!(titles(&world.see(&[failed("a", 1, "x"), job("b", "Running", 2)])), ["a: x"]);
}

#[test]
fn an_end_of_another_job_is_not_the_end_of_a_finding_that_has_moved_on() {
    let more = "key = [\"resource_name\"]\nresolve = { to = \"Success\" }";
    let named = |job: Job| Job { resource_name: Some("db".into()), ..job };
    let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", more)]), &[]);
    world.see(&[named(failed("b", 1, "x"))]);
    // The finding is about `a` before it is seen that `b` has ended.
    let plan = world.see(&[named(failed("a", 2, "y")), named(job("b", "Success", 3))]);
    assert_eq!(titles(&plan), ["db: y"]);
    let plan = world.see(&[named(job("a", "Success", 4)), named(job("b", "Success", 3))]);
    assert_eq!(titles(&plan), ["resolved: db: about failed"]);
}

#[test]
fn a_field_that_two_rules_ask_for_changed_once() {
    let rules = [rule("both", "{ changed = [\"reason\", \"type\"] }", ""), rule("one", "{ changed = \"reason\" }", "")];
    let mut world = World::knowing(&file(&rules), &[job("a", "Running", 1)]);
    let plan = world.see(&[Job { reason: Some("pulling".into()), ..job("a", "Running", 2) }]);
    assert_eq!(plan.owed[0].notification.data()["transition"]["changed"], serde_json::json!(["reason"]));
}

#[test]
fn what_was_held_back_is_said_once_also_when_the_rule_has_no_cooldown_any_more() {
    let text = |more: &str| file(&[rule("failed", "{ to = \"Failed\" }", &format!("key = [\"resource_id\"]\n{more}"))]);
    let mut world = World::knowing(&text("cooldown = \"1h\""), &[]);
    let jobs: Vec<Job> = (1..=4).map(|n| on("r", failed(&format!("j{n}"), n, "x"))).collect();
    world.see(&jobs[..1]);
    world.see(&jobs[..2]);
    world.rules = rules(&text(""));
    let held_back = |plan: &Plan| plan.owed[0].notification.data()["alert"]["held_back"].clone();
    assert_eq!([held_back(&world.see(&jobs[..3])), held_back(&world.see(&jobs))], [1, 0]);
}

mod clock {
    //! The clock was set back by a day: what was written before lies ahead, and parks nothing.

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_cooldown_does_not_count_from_a_time_that_lies_ahead() {
        let more = "key = [\"resource_id\"]\ncooldown = \"5m\"";
        let mut world = World::knowing(&file(&[rule("failed", "{ to = \"Failed\" }", more)]), &[]);
        world.see(&[on("r", failed("a", 1, "x"))]);
        world.now = world.now.minus(DAY);
        let jobs = [on("r", failed("a", 1, "x")), on("r", failed("b", 2, "x"))];
        assert_eq!(titles(&world.see(&jobs)).len(), 1);
        let three: Vec<Job> = jobs.into_iter().chain([on("r", failed("c", 3, "x"))]).collect();
        assert!(world.see(&three).owed.is_empty(), "and counts from then on");
    }

    #[test]
    fn a_burst_that_was_told_ahead_does_not_hide_the_next() {
        let when = "{ to = \"Failed\", count = 2, within = \"1m\" }";
        let mut world = World::knowing(&file(&[rule("burst", when, "")]), &[]);
        let two = |n: u32| [failed(&format!("j{n}"), n, "x"), failed(&format!("k{n}"), n, "x")];
        assert_eq!(world.see(&two(1)).owed.len(), 1);
        world.memory.recent.clear();
        world.now = world.now.minus(DAY);
        let four: Vec<Job> = two(1).into_iter().chain(two(2)).collect();
        assert_eq!(world.see(&four).owed.len(), 1);
    }

    #[test]
    fn a_stay_that_was_told_ahead_does_not_hide_the_next() {
        let when = "{ stays = \"Running\", for = \"1m\" }";
        let mut world = World::knowing(&file(&[rule("stuck", when, "")]), &[job("a", "Running", 1)]);
        world.now = world.now.plus(Duration::from_secs(60));
        assert_eq!(world.see(&[job("a", "Running", 1)]).owed.len(), 1);
        world.now = world.now.minus(DAY);
        world.see(&[failed("a", 2, "x")]);
        world.see(&[job("a", "Running", 3)]);
        world.now = world.now.plus(Duration::from_secs(60));
        assert_eq!(world.see(&[job("a", "Running", 3)]).owed.len(), 1);
        assert!(world.see(&[job("a", "Running", 3)]).owed.is_empty(), "once");
    }
}

mod properties {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Jobs on few resources that move on their own, with silences that come and go.
    fn histories() -> impl Strategy<Value = Vec<(u8, u8, u8, bool)>> {
        proptest::collection::vec((0..6_u8, 0..5_u8, 1..20_u8, prop::bool::weighted(0.05)), 1..80)
    }

    const COOLDOWN: u64 = 300;

    fn text() -> String {
        let more = format!("key = [\"resource_id\"]\ncooldown = \"{COOLDOWN}s\"");
        let resolve = "resolve = { to = \"Success\", scope = \"resource\" }";
        file(&[
            rule("cooled", "{ to = \"Failed\" }", &more),
            rule("ended", "{ to = \"Failed\" }", resolve).replace("oncall", "second"),
            rule("job", "{ to = \"Failed\" }", "resolve = { to = \"*\" }").replace("oncall", "third"),
        ])
    }

    fn walk(history: Vec<(u8, u8, u8, bool)>, mut look: impl FnMut(&World, &Plan)) {
        const WORDS: [&str; 5] = ["Creating", "Initializing", "Running", "Failed", "Success"];
        let mut world = World::knowing(&text(), &[]);
        let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
        for (n, (which, status, pause, hush)) in history.into_iter().enumerate() {
            let id = format!("j{which}");
            let at = u32::try_from(n).unwrap() + 1;
            jobs.insert(id.clone(), on(&format!("r{}", which % 2), job(&id, WORDS[usize::from(status)], at)));
            world.now = world.now.plus(Duration::from_secs(u64::from(pause) * 10));
            if hush {
                world.memory.silences.clear();
                silence(&mut world, &["rule=~cooled|ended"], 200);
            }
            let listed: Vec<Job> = jobs.values().cloned().collect();
            let plan = world.see(&listed);
            look(&world, &plan);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Two messages of a rule about one key to one receiver are never closer than its cooldown; and a match that was not
        /// told was held back, muted, or is counted in the next one.
        #[test]
        fn a_cooldown_keeps_its_promise(history in histories()) {
            let mut last: BTreeMap<String, Timestamp> = BTreeMap::new();
            let mut untold: BTreeMap<String, u64> = BTreeMap::new();
            let mut faults = Vec::new();
            walk(history, |world, plan| {
                for fate in plan.fates.iter().filter(|fate| fate.rule.as_str() == "cooled") {
                    let key = world.memory.snapshot.jobs[&fate.subject].job.resource_id.as_deref().unwrap();
                    if fate.outcome == FateOutcome::HeldBack {
                        *untold.entry(key.to_owned()).or_default() += 1;
                    }
                    if fate.outcome != FateOutcome::Told {
                        continue;
                    }
                    if let Some(before) = last.insert(key.to_owned(), plan.at)
                        && plan.at.since(before) < Duration::from_secs(COOLDOWN)
                    {
                        faults.push(format!("{key} was told at {before} and again at {}", plan.at));
                    }
                    let owed = plan.owed.iter().find(|owed| Some(&owed.id) == fate.delivery.as_ref()).unwrap();
                    let held_back = owed.notification.data()["alert"]["held_back"].as_u64().unwrap();
                    let expected = untold.remove(key).unwrap_or_default();
                    if held_back != expected {
                        faults.push(format!("{key}: {held_back} held back, and {expected} were"));
                    }
                }
            });
            prop_assert!(faults.is_empty(), "{}", faults.join("\n"));
        }

        /// An end is told only after a beginning, and once for each.
        #[test]
        fn an_alert_is_resolved_at_most_once_and_only_where_it_was_told(history in histories()) {
            let mut open: BTreeSet<(String, String)> = BTreeSet::new();
            let mut faults = Vec::new();
            walk(history, |_, plan| {
                for owed in plan.owed.iter().filter(|owed| owed.receiver.as_str() != "oncall") {
                    let data = owed.notification.data();
                    let key = (owed.receiver.to_string(), data["alert"]["id"].as_str().unwrap().to_owned());
                    if owed.notification.event != Event::AlertResolved {
                        open.insert(key);
                    } else if !open.remove(&key) {
                        faults.push(format!("{key:?} ended unopened"));
                    }
                }
            });
            prop_assert!(faults.is_empty(), "{}", faults.join("\n"));
        }

        /// What is muted is told when that ends, or is over: nothing is forgotten.
        #[test]
        fn what_was_muted_is_told_or_no_longer_stands(history in histories()) {
            let mut missing = Vec::new();
            walk(history, |world, plan| {
                let hushed = world.memory.silences.iter().any(|silence| silence.ends_at > plan.at);
                if !hushed && !world.memory.muted.is_empty() {
                    missing.push(format!("{:?}", world.memory.muted));
                }
            });
            prop_assert!(missing.is_empty(), "{}", missing.join("\n"));
        }
    }
}
