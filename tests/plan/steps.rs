//! From listings to transitions, and from transitions to what is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::world::*;
use jobwatch::diff::to_confirm;
use jobwatch::document::File;
use jobwatch::model::alert::Severity;
use jobwatch::model::delivery::{Frozen, Held, Lane, Owed};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::{Fault, FaultKind, Listing, Point};
use jobwatch::model::memory::Sight;
use jobwatch::model::notification::{Event, SourceFacts};
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Room, SelfWatch, View, gather, lookout};
use jobwatch::rules::{Surroundings, load};
use proptest::prelude::*;

#[test]
fn a_failure_is_told_once_with_its_reason() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 10)]);
    let plan = world.see(&[failed("a", 20, "quota 17 exceeded")]);
    assert_eq!(steps(&plan), ["a: Running → Failed"]);
    assert_eq!(told(&plan), [("oncall", "a: quota 17 exceeded")]);
    let data = plan.owed[0].notification.data();
    assert_eq!((&data["reason"], &data["reason_class"]), (&"quota 17 exceeded".into(), &"quota <n> exceeded".into()));
    assert_eq!(data["transition"]["seen_before"], START.to_string());
    assert_eq!(data["transition"]["seen_at"], START.plus(Duration::from_secs(30)).to_string());
    let again = world.see(&[failed("a", 20, "quota 17 exceeded")]);
    assert!(again.difference.changes.is_empty() && again.owed.is_empty());
}

#[test]
fn the_first_complete_listing_is_a_baseline_and_tells_nothing() {
    let mut world = World::new(TELL_FAILURES);
    assert!(
        world.see_part(&[failed("a", 1, "x")]).difference.changes.is_empty(),
        "an incomplete listing is no baseline"
    );
    let plan = world.see(&[failed("a", 1, "x"), job("b", "Running", 1)]);
    assert!(plan.difference.baseline && plan.owed.is_empty());
    assert_eq!((plan.jobs, steps(&plan)), (2, vec![]));
}

#[test]
fn a_baseline_tells_what_changed_lately_if_it_is_asked_to() {
    let mut world = World::new(TELL_FAILURES);
    world.now = Timestamp::parse("2026-11-24T08:20:00Z").unwrap();
    world.policy.baseline_within = Some(Duration::from_secs(900));
    let plan = world.see(&[failed("old", 200, "x"), failed("new", 600, "y")]);
    assert_eq!(told(&plan), [("oncall", "new: y")]);
}

#[test]
fn a_job_first_seen_failed_is_told_and_says_what_was_passed_unseen() {
    let mut world = World::knowing(TELL_FAILURES, &[]);
    let plan = world.see(&[failed("a", 5, "no vpc")]);
    assert_eq!(steps(&plan), ["a: unseen → Failed"]);
    let step = plan.difference.transitions().next().unwrap();
    assert_eq!(step.skipped, [Status::Creating, Status::Initializing, Status::Running]);
    assert_eq!(step.seen_before, None);
}

#[test]
fn a_slow_poll_says_which_states_it_missed() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Creating", 1)]);
    let plan = world.see(&[failed("a", 9, "x")]);
    let step = plan.difference.transitions().next().unwrap();
    assert_eq!(step.skipped, [Status::Initializing, Status::Running]);
}

#[test]
fn what_happened_while_nobody_watched_is_told_and_marked_late() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]);
    world.now = world.now.plus(Duration::from_secs(3_600));
    let plan = world.see(&[failed("a", 9, "x"), failed("b", 9, "y")]);
    assert!(plan.difference.transitions().all(|step| step.late));
    assert_eq!(plan.owed.len(), 2);
}

#[test]
fn an_incomplete_listing_tells_what_it_shows_and_concludes_nothing_from_what_it_does_not() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 1), job("b", "Running", 1)]);
    for _ in 0..5 {
        world.see_part(&[job("a", "Running", 1)]);
    }
    assert_eq!(world.memory.snapshot.jobs["b"].missing, 0);
    assert_eq!(told(&world.see_part(&[failed("a", 2, "x")])), [("oncall", "a: x")]);
}

#[test]
fn a_job_is_gone_after_three_complete_listings_and_a_404_and_not_before() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]);
    world.see(&[]);
    world.see_part(&[]);
    world.see(&[]);
    let listing = Listing::Complete(Vec::new().into());
    assert_eq!(to_confirm(&world.memory.snapshot, &listing, &world.policy, 9), [&"a".into()]);
    world.points.insert("a".into(), Point::Unknown);
    assert!(steps(&world.see(&[])).is_empty(), "the single-job call did not answer");
    world.points.insert("a".into(), Point::NotFound);
    let plan = world.see(&[]);
    assert_eq!(steps(&plan), ["a: Running → gone"]);
    assert_eq!(plan.difference.transitions().next().unwrap().seen_before, Some(START));
    assert!(steps(&world.see(&[])).is_empty(), "gone once");
    assert!(to_confirm(&world.memory.snapshot, &Listing::Complete(Vec::new().into()), &world.policy, 9).is_empty());
}

#[test]
fn a_missing_job_that_the_single_job_call_still_knows_is_not_gone() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]);
    world.see(&[]);
    world.see(&[]);
    world.points.insert("a".into(), Point::Found(failed("a", 3, "found out")));
    assert_eq!(told(&world.see(&[])), [("oncall", "a: found out")]);
    assert_eq!(world.memory.snapshot.jobs["a"].missing, 0);
}

#[test]
fn unfinished_jobs_are_confirmed_first_and_no_more_than_asked() {
    let mut world = World::knowing(
        TELL_FAILURES,
        &[job("done", "Success", 1), job("b", "Running", 1), job("a", "Creating", 1), job("c", "Running", 1)],
    );
    world.see(&[]);
    world.see(&[]);
    let listing = Listing::Complete(Vec::new().into());
    let due = to_confirm(&world.memory.snapshot, &listing, &world.policy, 3);
    assert_eq!(due, [&"a".into(), &"b".into(), &"c".into()]);
}

#[test]
fn a_row_from_a_lagging_backend_changes_nothing_until_ten_listings_insist() {
    let mut world = World::knowing(TELL_FAILURES, &[failed("a", 20, "x")]);
    for _ in 0..9 {
        assert!(steps(&world.see(&[job("a", "Running", 10)])).is_empty());
    }
    assert_eq!(steps(&world.see(&[job("a", "Running", 10)])), ["a: Failed → Running"]);
    let mut world = World::knowing(TELL_FAILURES, &[failed("a", 20, "x")]);
    for _ in 0..30 {
        assert!(steps(&world.see(&[job("a", "Running", 10)])).is_empty());
        assert!(steps(&world.see(&[failed("a", 20, "x")])).is_empty(), "two backends in turn are no back and forth");
    }
}

#[test]
fn which_row_replaces_which() {
    let table = [
        // known, row, transition?
        (("Running", 10), ("Failed", 20), true),
        (("Failed", 10), ("Running", 20), true),  // a re-run is real
        (("Running", 20), ("Failed", 10), true),  // a final fact is believed
        (("Failed", 20), ("Running", 10), false), // stale
        (("Running", 20), ("Creating", 10), false),
        (("Creating", 10), ("Running", 10), true), // forward, in the same second
        (("Running", 10), ("Creating", 10), false),
        (("Success", 10), ("Failed", 10), true), // of two endings, the failure
        (("Failed", 10), ("Success", 10), false),
        (("Running", 10), ("Paused", 10), true),
        (("Paused", 10), ("Running", 10), true),
    ];
    for ((from, then), (to, now), moved) in table {
        let mut world = World::knowing(TELL_FAILURES, &[job("a", from, then)]);
        let plan = world.see(&[job("a", to, now)]);
        assert_eq!(plan.difference.transitions().count() == 1, moved, "{from}@{then} → {to}@{now}");
    }
}

#[test]
fn an_id_that_is_used_again_is_a_new_job() {
    let mut world = World::knowing(TELL_FAILURES, &[failed("a", 10, "x")]);
    let mut again = failed("a", 30, "y");
    again.created_at = Some("2026-11-24T09:00:00Z".into());
    let plan = world.see(&[again]);
    assert_eq!(steps(&plan), ["a: unseen → Failed"]);
    assert_eq!(told(&plan), [("oncall", "a: y")]);
}

#[test]
fn a_reason_that_comes_later_is_kept_and_is_no_transition() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Failed", 10)]);
    let plan = world.see(&[failed("a", 11, "at last")]);
    assert_eq!((plan.difference.changes.len(), steps(&plan)), (1, vec![]));
    assert_eq!(world.memory.snapshot.jobs["a"].job.reason.as_deref(), Some("at last"));
}

#[test]
fn the_same_step_has_the_same_ids_wherever_it_is_derived() {
    let once = || World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]).see(&[failed("a", 2, "x")]);
    let (one, other) = (once(), once());
    assert_eq!(one.owed[0].id, other.owed[0].id);
    assert!(one.owed[0].id.as_str().starts_with("msg_") && !one.owed[0].id.as_str().contains('.'));
}

#[test]
fn an_alert_counts_and_remembers_its_beginning() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]);
    let first = world.see(&[failed("a", 2, "x")]);
    world.see(&[job("a", "Running", 3)]);
    let second = world.see(&[failed("a", 4, "x")]);
    assert_eq!((first.alerts[0].count, second.alerts[0].count), (1, 2));
    assert_eq!(second.alerts[0].first_seen, first.alerts[0].first_seen);
    assert_ne!(first.owed[0].id, second.owed[0].id, "two failures are two messages");
}

#[test]
fn blindness_is_told_once_and_so_is_its_end() {
    let mut world = World::knowing(TELL_FAILURES, &[]);
    let mut told = Vec::new();
    for _ in 0..20 {
        let plan = world.see_part(&[]);
        assert!(plan.owed.is_empty());
        told.extend(world.look(&plan).into_iter().map(|owed| owed.notification));
    }
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].event, told[0].title.as_str()), (Event::AgentBlind, "prod: no complete listing for 5 min"));
    assert!(told[0].body.contains("HTTP 503"));
    let restored = world.see(&[]);
    let restored = world.look(&restored);
    assert_eq!(restored[0].notification.event, Event::AgentRestored);
    assert_eq!(restored[0].notification.title, "prod: listings are complete again after 10 min 30 s");
    let after = world.see(&[]);
    assert!(world.look(&after).is_empty());
}

fn view(name: &str, blind: Option<u64>, told: Option<u64>) -> View {
    let at = |seconds: u64| START.plus(Duration::from_secs(seconds));
    View {
        source: Arc::new(SourceFacts { name: name.into(), kind: "swr".into(), region: None, project_id: "p".into() }),
        sight: Sight { blind_since: blind.map(at), told_since: told.map(at), vanished: 0 },
        fault: blind.map(|_| Fault {
            kind: FaultKind::Unavailable,
            text: format!("{name} is away"),
            retry_after: None,
        }),
        seen_since: blind.is_none().then(|| at(1_000)),
        told_at: None,
    }
}

fn looked(views: &[View], seconds: u64) -> Vec<(Event, String, String)> {
    let watch = SelfWatch { notify: vec!["ops".into()], blind_after: Duration::from_secs(300) };
    let views: Vec<&View> = views.iter().collect();
    let outlook = lookout(&views, &watch, true, START.plus(Duration::from_secs(seconds)));
    let told = |owed: Owed| (owed.notification.event, owed.notification.title, owed.notification.body);
    outlook.owed.into_iter().map(told).collect()
}

#[test]
fn when_a_region_is_out_one_message_names_every_source() {
    // Three sources went blind within half a minute; a fourth is seen.
    let views = [view("a", Some(0), None), view("b", Some(10), None), view("c", Some(30), None), view("d", None, None)];
    assert_eq!(looked(&views, 299), []);
    assert_eq!(looked(&views, 305), [], "the others will be due in a moment");
    let told = looked(&views, 330);
    let (event, title, body) = &told[0];
    assert_eq!(
        (told.len(), *event, title.as_str()),
        (1, Event::AgentBlind, "3 sources: no complete listing for up to 5 min 30 s")
    );
    assert!(
        body.contains("a is away") && body.contains("c is away") && !body.contains('d'.to_string().repeat(2).as_str())
    );
    let back = [view("a", None, Some(0)), view("b", None, Some(10)), view("c", Some(30), Some(30))];
    assert_eq!(looked(&back, 1_005), [], "the third may be back in a moment");
    assert_eq!(looked(&back, 1_020)[0].1, "2 sources: listings are complete again after up to 17 min");
}

#[test]
fn a_listing_that_flaps_does_not_ring_at_every_poll() {
    let vanished = |told_at: Option<u64>| View {
        fault: Some(Fault { kind: FaultKind::Vanished, text: "60 of 100 are missing".into(), retry_after: None }),
        told_at: told_at.map(|seconds| START.plus(Duration::from_secs(seconds))),
        ..view("a", Some(10_000), None)
    };
    assert_eq!(looked(&[vanished(None)], 10_000).len(), 1, "at once");
    assert_eq!(looked(&[vanished(Some(9_000))], 10_000), [], "it was told a quarter of an hour ago");
    assert_eq!(looked(&[vanished(Some(9_000))], 10_300).len(), 1, "but blindness that lasts is told");
    assert_eq!(looked(&[vanished(Some(6_000))], 10_000).len(), 1, "and so is the next time");
}

#[test]
fn one_blind_source_is_told_at_once_and_a_late_one_waits_for_nobody_long() {
    assert_eq!(looked(&[view("a", Some(0), None)], 300).len(), 1);
    let views = [view("a", Some(0), None), view("b", Some(200), None)];
    assert_eq!(looked(&views, 319), []);
    assert_eq!(looked(&views, 320)[0].1, "a: no complete listing for 5 min 20 s");
}

/// A world that knows so many running jobs.
fn crowd(count: usize) -> (World, Vec<Job>) {
    let jobs: Vec<Job> = (0..count).map(|n| job(&format!("j{n:03}"), "Running", 1)).collect();
    (World::knowing(TELL_FAILURES, &jobs), jobs)
}

#[test]
fn most_jobs_vanishing_at_once_is_a_fault_of_the_source_and_told_as_one() {
    let (mut world, jobs) = crowd(100);
    world.points.insert("j050".into(), Point::Found(job("j050", "Running", 1)));
    let plan = world.see(&jobs[..40]);
    assert_eq!((plan.complete, plan.difference.changes.len(), plan.jobs), (false, 0, 100));
    assert_eq!(plan.fault.as_ref().unwrap().kind, FaultKind::Vanished);
    let told = world.look(&plan);
    assert_eq!(told.len(), 1, "at once, and once");
    assert!(told[0].notification.body.contains("60 of 100 jobs are missing"), "{}", told[0].notification.body);
    let plan = world.see(&jobs);
    assert!(plan.complete && plan.difference.transitions().next().is_none());
    assert_eq!(world.look(&plan)[0].notification.event, Event::AgentRestored);
}

#[test]
fn jobs_that_the_single_job_call_still_finds_have_not_vanished_however_often_the_listing_says_so() {
    let (mut world, jobs) = crowd(100);
    for _ in 0..20 {
        world.points = jobs[40..59].iter().map(|job| (job.id.clone(), Point::NotFound)).collect();
        world.points.insert("j059".into(), Point::Found(jobs[59].clone()));
        let plan = world.see(&jobs[..40]);
        assert_eq!((plan.complete, plan.difference.changes.len()), (false, 0));
    }
}

#[test]
fn an_ending_that_is_older_is_believed_once_and_two_backends_do_not_take_turns() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 20)]);
    assert_eq!(steps(&world.see(&[failed("a", 10, "x")])), ["a: Running → Failed"]);
    for _ in 0..4 {
        assert_eq!(steps(&world.see(&[job("a", "Running", 20)])), [""; 0]);
        assert_eq!(steps(&world.see(&[failed("a", 10, "x")])), [""; 0]);
    }
    assert_eq!(steps(&world.see(&[job("a", "Running", 30)])), ["a: Failed → Running"], "a newer row is a re-run");
}

#[test]
fn most_jobs_that_are_really_gone_are_believed_in_the_end() {
    let (mut world, jobs) = crowd(100);
    let mut polls = 0;
    while world.memory.snapshot.jobs.values().filter(|known| known.gone).count() < 60 {
        polls += 1;
        assert!(polls < 40, "never believed");
        world.points = jobs[40..].iter().map(|job| (job.id.clone(), Point::NotFound)).collect();
        world.see(&jobs[..40]);
    }
    assert_eq!(
        polls, 14,
        "twelve listings before it is believed, the twelfth of them the first of three without the jobs"
    );
}

#[test]
fn half_of_the_jobs_may_go_the_usual_way() {
    let (mut world, jobs) = crowd(100);
    assert!(world.see(&jobs[..50]).complete);
    assert!(world.see(&jobs[..50]).complete, "they were missing before: that is no new disappearance");
}

#[test]
fn a_short_fault_is_told_to_nobody() {
    let mut world = World::knowing(TELL_FAILURES, &[]);
    let plan = world.see_part(&[]);
    assert!(world.look(&plan).is_empty());
    let plan = world.see(&[]);
    assert!(world.look(&plan).is_empty());
}

#[test]
fn every_operator_of_the_rule_language_does_what_it_says() {
    let mut full = failed("job-1", 10, "Quota 17 exceeded in cn-north-4");
    full.resource_name = Some("prod-payments".into());
    full.kind = Some("CreateInstance".into());
    let cases = [
        (r#"{ type = "CreateInstance" }"#, true),
        (r#"{ type = "Create" }"#, false),
        (r#"{ type = ["DeleteInstance", "CreateInstance"] }"#, true),
        (r#"{ type = "CreateInstance", resource_name = "other" }"#, false),
        (r#"{ resource_name = { glob = "prod-*" } }"#, true),
        (r#"{ resource_name = { glob = "prod" } }"#, false),
        (r#"{ resource_name = [{ glob = "stage-*" }, { glob = "*-payments" }] }"#, true),
        (r#"{ reason = { regex = '(?i)quota \d+' } }"#, true),
        (r#"{ reason = { regex = '^exceeded' } }"#, false),
        (r#"{ reason = { prefix = "Quota" } }"#, true),
        (r#"{ reason = { suffix = "north-4" } }"#, true),
        (r#"{ reason = { contains = "exceeded" } }"#, true),
        (r#"{ reason_class = "Quota <n> exceeded in cn-north-<n>" }"#, true),
        (r#"{ source = { not = "stage" } }"#, true),
        (r#"{ source = { not = ["stage", "prod"] } }"#, false),
        (r#"{ status = "Failed" }"#, true),
        (r#"{ instance_id = { exists = true } }"#, false),
        (r#"{ instance_id = { exists = false } }"#, true),
        (r#"{ instance_id = { not = "x" } }"#, false), // it cannot be told
        (r#"{ age = { older_than = "1h" } }"#, true),
        (r#"{ age = { newer_than = "1h" } }"#, false),
    ];
    for (clauses, fires) in cases {
        for (key, fires) in [("match", fires), ("except", !fires)] {
            let text = TELL_FAILURES.replace("notify", &format!("{key} = {clauses}\nnotify"));
            let mut world = World::knowing(&text, &[job("job-1", "Running", 1)]);
            let plan = world.see(std::slice::from_ref(&full));
            assert_eq!(!plan.owed.is_empty(), fires, "{key} = {clauses}");
        }
    }
}

#[test]
fn from_looks_at_the_last_state_that_was_seen() {
    let text = TELL_FAILURES.replace(r#"to = "Failed""#, r#"from = ["unseen", "Running"], to = "Failed""#);
    for (from, fires) in [("Running", true), ("Creating", false)] {
        let mut world = World::knowing(&text, &[job("a", from, 1)]);
        assert_eq!(!world.see(&[failed("a", 2, "x")]).owed.is_empty(), fires, "from {from}");
    }
    assert_eq!(World::knowing(&text, &[]).see(&[failed("a", 2, "x")]).owed.len(), 1, "from unseen");
}

#[test]
fn a_state_that_was_passed_unseen_counts_where_gaps_are_allowed() {
    for (gaps, fires) in [("allow", true), ("strict", false)] {
        let text =
            TELL_FAILURES.replace(r#"to = "Failed""#, &format!(r#"from = "Running", to = "Failed", gaps = "{gaps}""#));
        let mut world = World::knowing(&text, &[job("a", "Creating", 1)]);
        assert_eq!(!world.see(&[failed("a", 2, "x")]).owed.is_empty(), fires, "{gaps}");
        let mut world = World::knowing(&text, &[job("a", "Success", 1)]);
        assert!(world.see(&[failed("a", 2, "x")]).owed.is_empty(), "it did not pass Running, as far as is known");
    }
}

#[test]
fn a_job_that_is_gone_is_told_once_by_who_asks_for_its_last_status() {
    let rule = |from: &str| TELL_FAILURES.replace(r#"to = "Failed""#, &format!("gone_from = {from}"));
    for (from, fires) in [(r#""Running""#, true), (r#"["Creating", "Failed"]"#, false), (r#""*""#, true)] {
        let mut world = World::knowing(&rule(from), &[job("a", "Running", 1)]);
        let mut told = Vec::new();
        for _ in 0..8 {
            world.points.insert("a".into(), Point::NotFound);
            told.extend(world.see(&[]).owed);
        }
        assert_eq!(told.len(), usize::from(fires), "gone_from = {from}");
        assert!(told.iter().all(|owed| owed.notification.event == Event::JobGone));
    }
}

#[test]
fn a_job_that_stays_too_long_is_told_once_whatever_the_polls_see_and_again_when_it_stays_again() {
    let text = TELL_FAILURES.replace(r#"to = "Failed""#, r#"stays = ["Creating", "Running"], for = "2m""#);
    let running = [job("a", "Running", 1)];
    let mut world = World::knowing(&text, &running);
    // Seen at 0 s, 30 s, and then not at all: the time is counted on.
    assert!(world.see(&running).owed.is_empty());
    assert!(world.see_part(&[]).owed.is_empty() && world.see_part(&[]).owed.is_empty());
    let plan = world.see_part(&[]);
    assert_eq!(told(&plan), [("oncall", "a: job has been Running for 2 min")]);
    assert_eq!(plan.owed[0].notification.event.as_str(), "io.jobwatch.job.stays");
    assert!(plan.difference.transitions().next().is_none());
    for _ in 0..10 {
        assert!(world.see(&running).owed.is_empty(), "once for each stay");
    }
    world.see(&[job("a", "Creating", 2)]);
    let again: Vec<_> = (0..6).flat_map(|_| world.see(&[job("a", "Creating", 2)]).owed).collect();
    assert_eq!(again.len(), 1, "a new stay");
    assert_ne!(again[0].id, plan.owed[0].id);
}

#[test]
fn a_job_that_ends_in_time_or_is_gone_has_not_stayed() {
    let text = TELL_FAILURES.replace(r#"to = "Failed""#, r#"stays = "Running", for = "2m""#);
    let mut world = World::knowing(&text, &[job("a", "Running", 1), job("b", "Running", 1)]);
    let mut owed = Vec::new();
    for _ in 0..10 {
        world.points.insert("b".into(), Point::NotFound);
        owed.extend(world.see(&[job("a", "Success", 2)]).owed);
    }
    // Missing from two listings it may still be there; after the third it is gone.
    assert_eq!(owed.len(), 0);
}

#[test]
fn a_from_that_a_poll_can_skip_is_warned_of_unless_gaps_are_spoken_of() {
    let warned = |when: &str| {
        let text = format!("schema = 1\n[[rule]]\nid = \"r\"\nwhen = {when}\nnotify = [\"oncall\"]\n");
        let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
        let none = |_: &Path| Err("no files here".to_owned());
        let (_, report) = load(
            &[file],
            &Surroundings { read: &none, receivers: None, windows: None, sources: None, follow_ups: None },
        );
        report.lines().next()
    };
    let skippable = [
        r#"{ from = "Running", to = "Failed" }"#,
        r#"{ from = ["unseen", "Running"], to = "*" }"#,
        r#"{ from = ["Creating", "Running"], to = "Success" }"#,
    ];
    for when in skippable {
        let line = warned(when).unwrap_or_else(|| panic!("{when} is not warned of"));
        assert!(line.contains("rules.toml:4:") && line.contains("a poll may not see a job in"), "{line}");
    }
    let sound = [
        r#"{ from = "Running", to = "Failed", gaps = "allow" }"#,
        r#"{ from = "Running", to = "Failed", gaps = "strict" }"#,
        r#"{ from = ["unseen", "Creating", "Initializing", "Running"], to = "Failed" }"#,
        r#"{ from = "unseen", to = "Failed" }"#,
        r#"{ to = "Failed" }"#,
    ];
    for when in sound {
        assert_eq!(warned(when), None, "{when}");
    }
}

#[test]
fn any_status_matches_a_star_even_one_that_no_document_has() {
    let text = TELL_FAILURES
        .replace(r#"to = "Failed""#, r#"to = "*""#)
        .replace("notify", "match = { status = { glob = \"Pau*\" } }\nnotify");
    let mut world = World::knowing(&text, &[job("a", "Running", 1)]);
    assert_eq!(told(&world.see(&[job("a", "Paused", 2)])), [("oncall", "a: job Running → Paused")]);
}

#[test]
fn what_the_cloud_says_cannot_break_out_of_its_line() {
    let mut world = World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]);
    let plan = world.see(&[failed("a", 2, "x\r\nBcc: everybody@example.org\u{1b}[2J")]);
    assert_eq!(told(&plan)[0].1, "a: x  Bcc: everybody@example.org [2J");
}

#[test]
fn a_template_that_fails_at_run_time_gives_way_to_a_text_with_the_reason() {
    let text = TELL_FAILURES.replace(
        "notify",
        "message = { title = \"{{ 1 // (reason|length - 3) }}\", body = \"{{ reason }}!\" }\nnotify",
    );
    let mut world = World::knowing(&text, &[job("a", "Running", 1)]);
    let plan = world.see(&[failed("a", 2, "why")]);
    assert_eq!(told(&plan), [("oncall", "a: why")]);
    assert!(plan.faults[0].contains("failed"), "{:?}", plan.faults);
    assert!(plan.owed[0].notification.body.contains("the built-in text"));
}

#[test]
fn a_hundred_thousand_jobs_that_did_not_change_change_nothing() {
    let jobs: Vec<Job> = (0..100_000).map(|n| job(&format!("{n:06}"), "Success", 1)).collect();
    let mut world = World::knowing(TELL_FAILURES, &jobs);
    let mut next = jobs;
    next[77_777] = failed("077777", 2, "x");
    let plan = world.see(&next);
    assert_eq!((plan.difference.changes.len(), told(&plan)), (1, vec![("oncall", "077777: x")]));
}

const ROOM: Room = Room { text_max: usize::MAX, ends_apart: false };

#[test]
fn a_digest_holds_no_more_than_a_receiver_takes_and_what_is_left_makes_another() {
    let held = |n: usize| Held {
        frozen: Frozen {
            id: format!("msg_{n}").as_str().into(),
            receiver: "oncall".into(),
            lane: Lane { source: Some("prod".into()), subject: format!("j{n}\u{202e}\n").as_str().into() },
            event: "io.jobwatch.job.failed".into(),
            title: format!("j{n}: x"),
            created_at: START,
            seen_at: Some(START),
            payload: Vec::new(),
        },
        severity: Severity::Error,
        class: "quota\u{1b}[2J\u{202e}".into(),
        group: String::new(),
        due_at: START,
        data: serde_json::json!({ "reason": "x".repeat(if n == 7 { 2 << 20 } else { 300_000 }) }),
    };
    let held: Vec<Held> = (0..11).map(held).collect();
    let parts = |left| gather(&held, left, ROOM, START).into_iter().map(|(_, at)| at).collect::<Vec<_>>();
    assert_eq!(parts(9), [vec![0, 1, 2], vec![3, 4, 5], vec![6], vec![7], vec![8, 9, 10]]);
    assert_eq!(parts(1), [vec![0, 1, 2]], "what has no room stays held");
    let digests = gather(&held, 9, ROOM, START);
    let first = &digests[0].0.as_ref().unwrap().notification;
    assert_eq!(first.title, "3 jobs: 3× quota [2J");
    assert_eq!(first.body, "3× quota [2J\n  j0: x [prod j0]\n  j1: x [prod j1]\n  j2: x [prod j2]");
    assert_eq!(digests[3].0, None, "one that is alone stays what it was");

    let mut held: Vec<Held> = held.into_iter().filter(|held| held.frozen.title != "j7: x").take(4).collect();
    held[1].frozen.event = "io.jobwatch.alert.resolved".into();
    let apart = gather(&held, 9, Room { ends_apart: true, ..ROOM }, START);
    assert_eq!(apart.into_iter().map(|(_, at)| at).collect::<Vec<_>>(), [vec![0], vec![1], vec![2, 3]]);
}

/// A world of jobs that move on their own: at each step some job makes some step, and some are listed.
fn histories() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
    proptest::collection::vec((0..6_u8, 0..6_u8, prop::bool::weighted(0.8)), 1..60)
}

proptest! {
    /// Whatever happens between polls, and whichever polls are incomplete: each job's transitions link up without a gap,
    /// end where the job stands in the last complete listing, and every failure that a listing showed is told exactly once.
    #[test]
    fn transitions_link_up_and_every_failure_seen_is_told_once(history in histories()) {
        let words = ["Creating", "Initializing", "Running", "Failed", "Success", "Paused"];
        let mut world = World::knowing(TELL_FAILURES, &[]);
        let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        let mut ids = std::collections::BTreeSet::new();
        for (n, (which, status, complete)) in history.into_iter().enumerate() {
            let id = format!("j{which}");
            let updated = u32::try_from(n).unwrap() + 1;
            jobs.insert(id.clone(), job(&id, words[usize::from(status)], updated));
            let listed: Vec<Job> = jobs.values().cloned().collect();
            let plan = if complete { world.see(&listed) } else { world.see_part(&listed[..listed.len() / 2]) };
            let mut failures = 0;
            for step in plan.difference.transitions() {
                let id = step.job.id.to_string();
                let from = last.insert(id, step.to.to_string()).unwrap_or_else(|| "unseen".into());
                prop_assert_eq!(from, step.from.to_string());
                prop_assert_ne!(step.from.to_string(), step.to.to_string());
                failures += usize::from(step.to.to_string() == "Failed");
            }
            let told: Vec<_> = plan.owed.iter().filter(|owed| owed.receiver.as_str() == "oncall").collect();
            prop_assert_eq!(told.len(), failures);
            prop_assert!(told.iter().all(|owed| ids.insert(owed.id.clone())), "an id was used twice");
            if complete {
                for job in jobs.values() {
                    prop_assert_eq!(&last[job.id.as_str()], job.status.as_str());
                }
            }
        }
    }

    /// A plan that was never committed (a crash) is decided again with the same ids.
    #[test]
    fn a_poll_that_was_lost_is_decided_again_with_the_same_ids(status in 0..5_usize, reason in ".{0,40}") {
        let words = ["Creating", "Initializing", "Running", "Failed", "Success"];
        let mut row = job("a", words[status], 9);
        row.reason = Some(reason.into());
        let decide = || World::knowing(TELL_FAILURES, &[job("a", "Running", 1)]).see(std::slice::from_ref(&row));
        prop_assert_eq!(decide(), decide());
    }
}
