//! What is known, in print: `jobs`, `transitions`, `alerts`, `deliveries`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::reload::world_with;
use crate::world::{World, failed, job, said};

/// The keys of an object.
fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().cloned().collect()
}

/// The keys that README promises, by what has them.
fn promised(item: &str) -> BTreeSet<String> {
    let readme = include_str!("../../README.md");
    let row = readme.lines().find_map(|line| line.strip_prefix(&format!("| {item} | ")));
    let row = row.unwrap_or_else(|| panic!("README has no row `{item}`"));
    row.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// A world in which one job failed and was told to `oncall`, and another one runs; with its agent's messages delivered.
async fn told() -> (World, crate::world::Service) {
    let world = world_with("", "").await;
    world.swr.set_jobs(vec![job("b", "Creating", 1)]);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "quota\u{1b}[2J exceeded"), job("b", "Running", 2)]);
    service.logged("INFO delivered").await;
    (world, service)
}

async fn json(world: &World, arguments: &[&str]) -> Vec<Value> {
    let output = world.jobwatch(&[arguments, &["--format", "json"]].concat()).await;
    let (out, errors) = said(&output);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().clone()
}

#[tokio::test]
async fn what_is_known_is_listed_in_tables_and_as_json_with_the_keys_that_are_documented() {
    let (world, service) = told().await;
    service.stop().await;
    for (list, words) in [
        (
            "jobs",
            &["prod", "instance-a", "CreateInstance", "Failed", "quota [2J exceeded", "instance-b", "Running"]
                as &[&str],
        ),
        ("transitions", &["instance-a", "unseen", "Failed", "Creating", "Running", "quota [2J exceeded"]),
        ("alerts", &["warning", "failed", "instance-a", "standing", "oncall: delivered"]),
        ("deliveries", &["oncall", "delivered", "instance-a: quota", "HTTP 20"]),
    ] {
        let (table, errors) = said(&world.jobwatch(&[list]).await);
        for word in words {
            assert!(table.contains(word), "{list}: {word} is not in\n{table}{errors}");
        }
        assert!(!table.contains('\u{1b}'), "no colour where nobody looks: {table:?}");
        let (coloured, _) = said(&world.jobwatch(&[list, "--color", "always"]).await);
        assert!(coloured.contains("\u{1b}[") && !coloured.contains("\u{1b}[2J"), "{coloured:?}");
        let rows = json(&world, &[list]).await;
        assert!(!rows.is_empty(), "{list}");
        for row in &rows {
            assert_eq!(keys(row), promised(&format!("`{list}`")), "{list}");
        }
    }
    let row = &json(&world, &["jobs", "--job", "instance-a"]).await[0];
    assert_eq!((&row["job"]["id"], &row["job"]["reason"]), (&"a".into(), &"quota\u{1b}[2J exceeded".into()));
    assert_eq!(keys(&row["job"]), promised("`job` of these"));
    let alert = &json(&world, &["alerts", "--rule", "failed"]).await[0];
    assert_eq!(keys(&alert["told"][0]), promised("`told` of an alert"));
    let id = json(&world, &["deliveries"]).await[0]["id"].as_str().unwrap().to_owned();
    let (shown, _) = said(&world.jobwatch(&["deliveries", "show", &id, "--format", "json"]).await);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(keys(&shown), promised("one of `deliveries`"));
    assert_eq!(keys(&shown["attempts"][0]), promised("`attempts` of it"));
}

#[tokio::test]
async fn lists_are_filtered_and_an_empty_one_says_so_and_what_may_have_been_meant() {
    let (world, service) = told().await;
    service.stop().await;
    for (arguments, count) in [
        (&["jobs", "--status", "failed,Creating"] as &[&str], 1),
        (&["jobs", "--status", "Failed", "--status", "Running", "--source", "prod", "--since", "1h"], 2),
        (&["jobs", "--limit", "1"], 1),
        (&["transitions", "--to", "Running", "--from", "creating"], 1),
        (&["transitions", "--status", "Failed", "--job", "a"], 1),
        (&["transitions", "--since", "2999-01-01T00:00:00Z"], 0),
        (&["alerts", "--severity", "warning", "--state", "all", "--job", "a"], 1),
        (&["alerts", "--state", "over"], 0),
        (&["deliveries", "--receiver", "oncall", "--source", "prod", "--state", "delivered"], 1),
        (&["deliveries", "list", "--source", "stage"], 0),
    ] {
        assert_eq!(json(&world, arguments).await.len(), count, "{arguments:?}");
    }
    for (arguments, code, words) in [
        (
            &["jobs", "--status", "faild"] as &[&str],
            Some(0),
            "no jobs; `faild` is no documented status: did you mean `Failed`?",
        ),
        (
            &["alerts", "--source", "prd"],
            Some(0),
            "no alerts; the configuration has no source `prd`: did you mean `prod`?",
        ),
        (&["transitions", "--to", "gone"], Some(0), "no transitions\n"),
        (&["deliveries", "--state", "dead"], Some(0), "no deliveries\n"),
        (&["alerts", "--severity", "loud"], Some(2), "possible values: info, warning, error, critical"),
        (&["jobs", "--limit", "0"], Some(2), "0 is not in 1.."),
        (&["deliveries", "--state", "dead", "retry", "--dead"], Some(2), "stands behind `list`"),
        (&["jobs", "--since", "yesterday"], Some(2), "such as 30m, 2h, 14d"),
    ] {
        let output = world.jobwatch(arguments).await;
        let (out, errors) = said(&output);
        assert_eq!((output.status.code(), out.as_str()), (code, ""), "{arguments:?} {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    assert_eq!(
        said(&world.jobwatch(&["jobs", "--status", "gone", "--format", "json"]).await),
        ("[]\n".into(), "no jobs\n".into())
    );
    let (list, _) = said(&world.jobwatch(&["deliveries", "--config", "jobwatch.toml", "list"]).await);
    assert!(list.contains("oncall"), "what holds for every command may stand anywhere: {list}");
}

#[tokio::test]
async fn who_follows_is_told_each_step_finding_and_delivery_once_as_it_is_committed() {
    let (world, service) = told().await;
    let mut steps = world.follow(&["transitions", "--follow", "--format", "json", "--job", "b"]);
    let mut words = world.follow(&["transitions", "--follow", "--limit", "1"]);
    let mut findings = world.follow(&["alerts", "--follow"]);
    let mut deliveries = world.follow(&["deliveries", "--follow", "--format", "json"]);
    let read = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    // What was there comes first.
    assert_eq!(read(steps.line().await)["to"], "Running");
    words.line().await;
    assert!(findings.line().await.contains("warning failed prod instance-a standing, once (oncall: delivered)"));
    assert_eq!(read(deliveries.line().await)["state"], "delivered");
    world.swr.set_jobs(vec![failed("a", 2, "quota\u{1b}[2J exceeded"), failed("b", 3, "no\u{1b}[2J room")]);
    let step = read(steps.line().await);
    assert_eq!((&step["to"], &step["job"]["reason"]), (&"Failed".into(), &"no\u{1b}[2J room".into()));
    let line = words.line().await;
    assert!(line.ends_with("prod instance-b CreateInstance Running → Failed: no [2J room"), "{line}");
    let line = findings.line().await;
    assert!(line.contains("prod instance-b standing, once"), "{line}");
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "delivered") {
        states.push(read(deliveries.line().await)["state"].as_str().unwrap().to_owned());
    }
    assert!(states.iter().rev().skip(1).all(|state| state == "pending"), "{states:?}");
    for following in [steps, findings, deliveries] {
        following.interrupt();
        assert_eq!(following.ended().await.code(), Some(0));
    }
    // Nothing more comes, and nobody would read it.
    words.close();
    assert_eq!(words.ended().await.code(), Some(0));
    service.stop().await;
}
