//! Tests that stand in rule files: played by `rules test`, by `check`, and before rules come into force.

use crate::world::{World, failed, job, rule, said, soon};

/// A rule with a test; the second step's title is expected to be `title`.
fn tested(to: &str, title: &str) -> String {
    format!(
        r#"{}
[[rule.test]]
name = "a failure is told"
steps = [
  {{ at = "0s", jobs = [{{ id = "a", status = "Running" }}] }},
  {{ at = "30s", jobs = [{{ id = "a", status = "Failed", reason = "quota 17" }}] }},
]
expect = [
  {{ at = "30s", fires = true, title = "{title}" }},
]
"#,
        rule("failed", to, "oncall")
    )
}

#[tokio::test]
async fn the_shipped_rules_pass_their_tests_and_each_has_one() {
    let world = World::new().await;
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
    let output = world.jobwatch(&["rules", "test", shipped]).await;
    let (out, errors) = said(&output);
    assert!(output.status.success(), "{out}{errors}");
    assert!(out.contains(" tests, 0 failed") && !out.contains("without a test"), "{out}");
}

#[tokio::test]
async fn a_test_that_fails_is_shown_with_its_place_and_what_the_rule_said_instead() {
    let world = World::new().await;
    world.write("rules/failed.toml", &tested("Failed", "a: quota 18"));
    for command in [&["rules", "test"] as &[&str], &["check"]] {
        let output = world.jobwatch(command).await;
        assert_eq!(output.status.code(), Some(3), "{command:?}");
        let (_, errors) = said(&output);
        assert!(errors.contains("rules/failed.toml:14:3"), "{errors}");
        assert!(errors.contains("rule `failed`, test `a failure is told`: the rule says `a: quota 17`"), "{errors}");
        assert!(errors.contains("the test expects `a: quota 18`: mend the rule, or the test"), "{errors}");
    }
    assert!(said(&world.jobwatch(&["rules", "test"]).await).0.contains("FAILED  failed: a failure is told"));
    world.write("rules/failed.toml", &tested("Failed", "a: quota 17"));
    assert!(world.jobwatch(&["check"]).await.status.success());
}

#[tokio::test]
async fn a_rule_that_speaks_where_its_test_expects_nothing_fails_it() {
    let world = World::new().await;
    let text = tested("Failed", "a: quota 17")
        .replace("  { at = \"30s\", fires = true", "  { at = \"0s\", fires = false }, #");
    world.write("rules/failed.toml", &text);
    let (_, errors) = said(&world.jobwatch(&["check"]).await);
    assert!(errors.contains("at 30s the rule says `a: quota 17`, and the test expects nothing there"), "{errors}");
}

#[tokio::test]
async fn a_test_that_makes_no_sense_is_refused_with_every_reason() {
    let world = World::new().await;
    let broken = [
        ("fires = true", "fire = true", "did you mean `fires`?"),
        ("at = \"30s\", fires", "at = \"31s\", fires", "there is no step at this time"),
        ("at = \"30s\", jobs", "at = \"0s\", jobs", "the steps are not in order of time"),
        ("status = \"Running\"", "state = \"Running\"", "did you mean `status`?"),
        ("name = \"a failure", "nmae = \"a failure", "did you mean `name`?"),
    ];
    for (good, bad, words) in broken {
        let text = tested("Failed", "a: quota 17");
        assert!(text.contains(good));
        world.write("rules/failed.toml", &text.replacen(good, bad, 1));
        let output = world.jobwatch(&["check"]).await;
        let (_, errors) = said(&output);
        assert_eq!(output.status.code(), Some(3), "{bad}: {errors}");
        assert!(errors.contains(words), "{bad}: {errors}");
    }
}

#[tokio::test]
async fn rules_whose_tests_fail_are_not_taken_up_and_the_old_ones_stay_in_force() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let mut service = world.watched().await;
    // As written it would be silent about failures.
    world.write("rules/failed.toml", &tested("Success", "a: quota 17"));
    service.signal("HUP");
    service.logged("the old ones stay in force").await;
    assert!(service.log().contains("the rule says nothing"), "{}", service.log());
    world.swr.set_jobs(vec![failed("a", 2, "real")]);
    soon("the webhook", world.inbox.next(0)).await;
}

#[tokio::test]
async fn a_job_that_stays_too_long_is_told_once_over_a_restart_and_while_the_cloud_is_away() {
    let world = World::new().await;
    let stuck = rule("stuck", "Failed", "oncall").replace("to = \"Failed\"", "stays = \"Running\", for = \"1s\"");
    world.write("rules/failed.toml", &stuck);
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let service = world.watched().await;
    // The cloud goes away and the agent is killed: the time counts on.
    world.swr.set_fault(Some(jobwatch::simulator::Fault::ServerError));
    service.kill().await;
    let mut service = world.run();
    let received = soon("the webhook", world.inbox.next(0)).await;
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!((&body["type"], &body["subject"]), (&"io.jobwatch.job.stays".into(), &"a".into()));
    assert!(body["data"]["title"].as_str().unwrap().starts_with("instance-a: CreateInstance has been Running for"));
    world.swr.set_fault(None);
    service.logged("complete again").await;
    let requests = world.swr.requests();
    let more = async {
        while world.swr.requests() < requests + 10 {
            tokio::task::yield_now().await;
        }
    };
    soon("ten more polls", more).await;
    assert_eq!(world.inbox.count(), 1, "told once");
}

#[tokio::test]
async fn a_test_of_a_rule_with_hours_says_when_it_begins() {
    let world = World::new().await;
    let hours = "[window.office]\nzone = \"Asia/Shanghai\"\ntimes = [{ days = \"mon-fri\", from = \"09:00\", to = \"18:00\" }]\n";
    world.write("jobwatch.toml", &(world.config("", "") + hours));
    let text = |start: &str| {
        let tested = tested("Failed", "a: quota 17").replace("notify =", "active = [\"office\"]\nnotify =");
        tested.replace("name = \"a failure", &format!("start = \"{start}\"\nname = \"a failure"))
    };
    for (start, code) in [("2026-11-24T10:00:00+08:00", 0), ("2026-11-24T20:00:00+08:00", 3), ("at ten", 3)] {
        world.write("rules/failed.toml", &text(start));
        let output = world.jobwatch(&["check"]).await;
        assert_eq!(output.status.code(), Some(code), "{start}: {}", said(&output).1);
    }
    assert!(said(&world.jobwatch(&["check"]).await).1.contains("`at ten` is no instant"));
}
