//! What is done about findings: once, within bounds, and told in the thread of the job.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use jobwatch::model::job::Job;
use serde_json::Value;

use crate::stage::{Stage, minutes};
use crate::world::{Service, World, failed, job, said, soon};

/// A world with these follow-ups, and one rule that asks for `act`.
async fn world(follow_ups: &str) -> World {
    let world = World::new().await;
    world.write("rules/failed.toml", &rule("failed", "act"));
    let config = world.config("poll_every = \"100ms\"", "");
    world.write("jobwatch.toml", &format!("{config}\n{follow_ups}"));
    world
}

fn rule(id: &str, then: &str) -> String {
    let when = "when = { to = \"Failed\" }\nresolve = { to = \"Success\" }";
    format!("schema = 1\n[[rule]]\nid = \"{id}\"\n{when}\nnotify = [\"oncall\"]\nthen = [\"{then}\"]\n")
}

/// A follow-up that runs a script of the world's.
fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", world.directory.path().display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("kind = \"command\"\ncommand = [\"./{name}\", \"--now\"]\n")
}

/// A job on an instance.
fn on(instance: &str, job: Job) -> Job {
    Job { instance_id: Some(instance.into()), resource_id: Some(instance.into()), ..job }
}

/// The webhooks so far, when there are so many.
async fn told(world: &World, count: usize) -> Vec<Value> {
    soon("webhooks", world.inbox.reached(count)).await;
    let bodies = world.inbox.received().into_iter().map(|one| serde_json::from_slice(&one.body).unwrap());
    bodies.collect()
}

fn kinds(told: &[Value]) -> Vec<&str> {
    told.iter().map(|body| body["type"].as_str().unwrap().strip_prefix("io.jobwatch.").unwrap()).collect()
}

fn text(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.path(name)).unwrap_or_default()
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    soon(what, waiting).await;
}

/// A job fails while the agent watches.
async fn failure(world: &World) -> Service {
    world.swr.set_jobs(vec![on("i-1", job("a", "Running", 0))]);
    let service = world.watched().await;
    world.swr.set_jobs(vec![on("i-1", failed("a", 1, "quota 17 exceeded"))]);
    service
}

#[tokio::test]
async fn nothing_is_done_in_a_dry_run_and_it_is_said_what_would_be() {
    let mut world = world("").await;
    let act = script(&world, "act.sh", "touch touched");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\n{act}"));
    world.environment.push(("SECRET_OF_THE_AGENT", "canary".into()));
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    assert_eq!(kinds(&told), ["job.failed", "follow_up.done"]);
    assert_eq!(told[1]["subject"], "a", "in the thread of the job");
    assert_eq!(told[1]["data"]["title"], "instance-a: act would be done");
    let report = &told[1]["data"]["follow_up"];
    assert_eq!((&report["name"], &report["outcome"]), (&"act".into(), &"dry_run".into()));
    let what = report["what"].as_str().unwrap();
    assert!(what.starts_with("Would run /") && what.ends_with("Nothing was done: its mode is `dry_run`."), "{what}");
    assert!(!world.path("touched").exists());
    service.stop().await;
}

#[tokio::test]
async fn a_command_is_run_once_for_a_finding_knows_the_match_and_nothing_of_the_agent() {
    let mut world = world("").await;
    let act =
        script(&world, "act.sh", "cat >> input\necho >> input\nenv | sort > environment\necho $1 it is\necho so >&2");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"auto\"\n{act}"));
    world.environment.push(("SECRET_OF_THE_AGENT", "canary".into()));
    let service = failure(&world).await;
    let first = told(&world, 2).await;
    assert_eq!(kinds(&first), ["job.failed", "follow_up.done"]);
    let (failure, report) = (&first[0]["data"], &first[1]["data"]["follow_up"]);
    assert_eq!((&report["code"], &report["outcome"]), (&0.into(), &"done".into()));
    // Two ways have no order between them.
    let mut lines: Vec<&str> = report["output"].as_str().unwrap().trim().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["--now it is", "so"]);
    let input: Value = serde_json::from_str(text(&world, "input").trim()).unwrap();
    assert_eq!(input["follow_up"], serde_json::json!({ "id": report["id"], "name": "act" }));
    for key in ["title", "reason", "job", "transition", "rule", "source", "severity"] {
        assert_eq!(input[key], failure[key], "{key}");
    }
    assert_eq!(input["alert"]["id"], failure["alert"]["id"]);
    let environment = text(&world, "environment");
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    let ours = ["JOBWATCH_ALERT_ID", "JOBWATCH_DELIVERY_ID", "JOBWATCH_FOLLOW_UP", "OLDPWD", "PATH", "PWD"];
    assert_eq!(names, ours, "{environment}");
    // The same finding again, without its end in between.
    world.swr.set_jobs(vec![on("i-1", job("a", "Running", 2))]);
    until("a look", || world.swr.requests() > 30).await;
    world.swr.set_jobs(vec![on("i-1", failed("a", 3, "quota 17 exceeded"))]);
    assert_eq!(kinds(&told(&world, 3).await), ["job.failed", "follow_up.done", "job.failed"]);
    // And what was told is not done again by hand either.
    let (_, no) = said(&world.jobwatch(&["deliveries", "retry", report["id"].as_str().unwrap()]).await);
    assert!(no.contains("there is no delivery"), "{no}");
    service.stop().await;
    let again = world.run();
    drop(again);
    assert_eq!(text(&world, "input").trim().lines().count(), 1);
}

#[tokio::test]
async fn a_command_that_fails_is_told_with_its_exit_code_and_no_more_than_64_kib_of_what_it_said() {
    let world = world("").await;
    let act = script(&world, "act.sh", "yes 'too much' | head -c 10000000\nexit 3");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"auto\"\n{act}"));
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    assert_eq!(kinds(&told), ["job.failed", "follow_up.failed"]);
    let report = &told[1]["data"]["follow_up"];
    assert_eq!((&report["code"], &report["outcome"]), (&3.into(), &"failed".into()));
    let output = report["output"].as_str().unwrap();
    assert!(output.len() < (64 << 10) + 20 && output.starts_with("too much\n") && output.ends_with("… (cut)"));
    let (shown, _) = said(&world.jobwatch(&["deliveries", "show", report["id"].as_str().unwrap()]).await);
    assert!(shown.contains("exit code 3") && shown.contains("follow_up/act"), "{shown}");
    service.stop().await;
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_all_its_children() {
    let world = world("").await;
    let act = script(&world, "act.sh", "sleep 600 &\necho $! > child\necho begun\nsleep 600");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"auto\"\ntimeout = \"1s\"\n{act}"));
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    let report = &told[1]["data"]["follow_up"];
    assert!(report["what"].as_str().unwrap().ends_with("did not end within 1s and was killed."), "{report}");
    assert_eq!(report["output"].as_str().unwrap().trim(), "begun");
    assert!(is_dead(text(&world, "child").trim()));
    service.stop().await;
}

#[tokio::test]
async fn a_child_that_is_left_behind_with_the_output_in_its_hands_holds_nobody_up() {
    let world = world("").await;
    let act = script(&world, "act.sh", "sleep 600 &\necho $! > child\necho ended");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"auto\"\n{act}"));
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    assert_eq!(told[1]["data"]["follow_up"]["outcome"], "done");
    assert_eq!(told[1]["data"]["follow_up"]["output"].as_str().unwrap().trim(), "ended");
    assert!(is_dead(text(&world, "child").trim()));
    service.stop().await;
}

/// Whether a process has ended, also when nobody has asked how.
fn is_dead(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(") ").next().unwrap().starts_with('Z')
}

#[tokio::test]
async fn what_needs_a_word_waits_for_it_and_is_done_or_left() {
    let world = world("").await;
    let act = script(&world, "act.sh", "cat | grep -o '\"follow_up\".*' >> done");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"approve\"\n{act}"));
    world.swr.set_jobs(vec![job("a", "Running", 0), job("b", "Running", 0)]);
    let service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x"), failed("b", 1, "y")]);
    let waiting = told(&world, 4).await;
    let id = |job: &str, kind: &str, told: &[Value]| {
        let found = told.iter().find(|one| one["subject"] == job && one["type"].as_str().unwrap().ends_with(kind));
        found.unwrap()["data"]["follow_up"]["id"].as_str().unwrap().to_owned()
    };
    let (a, b) = (id("a", "follow_up.waiting", &waiting), id("b", "follow_up.waiting", &waiting));
    let (listed, _) = said(&world.jobwatch(&["follow-ups", "list"]).await);
    assert_eq!(listed.matches("waiting").count(), 2, "{listed}");
    let no = world.jobwatch(&["follow-ups", "approve", "fup_nobody"]).await;
    assert_eq!((no.status.code(), text(&world, "done").as_str()), (Some(3), ""));
    assert!(world.jobwatch(&["follow-ups", "approve", &a, "--author", "ann"]).await.status.success());
    assert!(world.jobwatch(&["follow-ups", "reject", &b, "--author", "ben"]).await.status.success());
    let ended = told(&world, 6).await;
    assert_eq!((id("a", "follow_up.done", &ended), id("b", "follow_up.failed", &ended)), (a.clone(), b));
    let left = ended.iter().find(|one| one["subject"] == "b" && one["type"] == "io.jobwatch.follow_up.failed").unwrap();
    assert_eq!(left["data"]["follow_up"]["what"], "Nothing was done: rejected by ben.");
    assert!(text(&world, "done").contains(&a));
    assert_eq!(world.jobwatch(&["follow-ups", "approve", &a]).await.status.code(), Some(3), "once is enough");
    service.stop().await;
}

#[tokio::test]
async fn what_is_beyond_the_limit_waits_for_a_word() {
    let world = world("").await;
    let act = script(&world, "act.sh", "echo done >> done");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"auto\"\nlimit = \"1/h\"\n{act}"));
    world.swr.set_jobs(vec![job("a", "Running", 0), job("b", "Running", 0)]);
    let service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x"), failed("b", 1, "y")]);
    let told = told(&world, 4).await;
    let mut kinds = kinds(&told);
    kinds.sort_unstable();
    assert_eq!(kinds, ["follow_up.done", "follow_up.waiting", "job.failed", "job.failed"]);
    let waiting = told.iter().find(|one| one["type"] == "io.jobwatch.follow_up.waiting").unwrap();
    let what = waiting["data"]["follow_up"]["what"].as_str().unwrap();
    assert!(what.ends_with("it waits for a word: its limit is reached, 1 in 1 h."), "{what}");
    assert_eq!(text(&world, "done"), "done\n");
    service.stop().await;
}

#[tokio::test]
async fn two_follow_ups_on_one_resource_are_done_one_after_the_other() {
    let world = world("").await;
    world.write("rules/other.toml", &rule("other", "too"));
    let act = script(&world, "act.sh", "mkdir alone || exit 9\nsleep 0.3\nrmdir alone");
    let config = text(&world, "jobwatch.toml");
    let both = format!("[follow_up.act]\nmode = \"auto\"\n{act}[follow_up.too]\nmode = \"auto\"\n{act}");
    world.write("jobwatch.toml", &format!("{config}{both}"));
    let service = failure(&world).await;
    let told = told(&world, 3).await;
    assert_eq!(kinds(&told), ["job.failed", "follow_up.done", "follow_up.done"]);
    service.stop().await;
}

#[tokio::test]
async fn what_is_over_before_its_turn_is_not_done() {
    let world = world("").await;
    let act = script(&world, "act.sh", "touch touched");
    let stage = Stage::with(world, &format!("[follow_up.act]\nmode = \"auto\"\nwait = \"10m\"\n{act}")).await;
    stage.poll(vec![job("a", "Running", 0)]).await;
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.clock.advance(minutes(5));
    stage.poll(vec![job("a", "Success", 2)]).await;
    stage.clock.advance(minutes(5));
    stage.poll(vec![job("a", "Success", 2)]).await;
    soon("what is due", stage.agent.turn()).await;
    let told = told(&stage.world, 3).await;
    assert_eq!(kinds(&told), ["job.failed", "alert.resolved", "follow_up.failed"]);
    assert_eq!(told[2]["data"]["follow_up"]["what"], "Nothing was done: what asked for it is over.");
    assert!(!stage.world.path("touched").exists());
}

#[tokio::test]
async fn what_still_stands_is_done_after_its_wait_and_not_before() {
    let world = world("").await;
    let act = script(&world, "act.sh", "touch touched");
    let stage = Stage::with(world, &format!("[follow_up.act]\nmode = \"auto\"\nwait = \"10m\"\n{act}")).await;
    stage.poll(vec![job("a", "Running", 0)]).await;
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.clock.advance(minutes(10).saturating_sub(Duration::from_secs(1)));
    soon("what is due", stage.agent.turn()).await;
    assert!(!stage.world.path("touched").exists());
    stage.clock.advance(Duration::from_secs(1));
    soon("what is due", stage.agent.turn()).await;
    assert!(stage.world.path("touched").exists());
}

#[tokio::test]
async fn what_was_begun_when_the_agent_was_killed_is_not_done_again_and_told_so() {
    let world = world("").await;
    let act = script(&world, "act.sh", "echo $$ >> begun\nexec sleep 600");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}[follow_up.act]\nmode = \"auto\"\ntimeout = \"10m\"\n{act}"));
    let service = failure(&world).await;
    until("the deed", || text(&world, "begun").ends_with('\n')).await;
    service.kill().await;
    let left_behind = text(&world, "begun").trim().to_owned();
    assert!(std::process::Command::new("kill").args(["-s", "KILL", &left_behind]).status().unwrap().success());
    let service = world.run();
    let first = told(&world, 2).await;
    // The failure may be told once more, under its id: whether it had arrived was not recorded either.
    let count = if kinds(&first).contains(&"follow_up.failed") { 2 } else { 3 };
    let told = told(&world, count).await;
    let last = told.iter().find(|one| one["type"] == "io.jobwatch.follow_up.failed").unwrap();
    assert_eq!(last["data"]["title"], "instance-a: act may have been done");
    assert_eq!(last["data"]["follow_up"]["outcome"], "unknown");
    assert_eq!(text(&world, "begun").lines().count(), 1);
    service.stop().await;
}

const DELETE: &str = "[follow_up.act]\nkind = \"swr\"\noperation = \"delete_instance\"\n";

/// A world whose source signs with a key.
async fn signing(follow_ups: &str) -> World {
    let world = world("").await;
    let key = "{ kind = \"ak_sk\", access_key = { file = \"ak\" }, secret_key = { file = \"sk\" } }";
    world.write("ak", "SIMULATEDKEY");
    world.write("sk", "simulated-secret");
    world.identify(key, "");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}{follow_ups}"));
    world
}

#[tokio::test]
async fn the_broken_instance_of_a_failed_creation_is_deleted() {
    let world = signing(&format!("{DELETE}mode = \"auto\"\n")).await;
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    assert_eq!(kinds(&told), ["job.failed", "follow_up.done"], "{}", told[1]);
    let what = "Delete instance i-1: DeleteInstance was answered with HTTP 202.";
    assert_eq!(
        (&told[1]["data"]["follow_up"]["what"], &told[1]["data"]["follow_up"]["code"]),
        (&what.into(), &202.into())
    );
    let body = r#"{"delete_obs":false,"delete_dns":false}"#;
    assert_eq!(world.swr.done(), [("DeleteInstance", "i-1".to_owned(), body.to_owned())]);
    service.stop().await;
}

#[tokio::test]
async fn an_instance_that_runs_is_not_deleted_whatever_its_job_says() {
    let world = signing(&format!("{DELETE}mode = \"auto\"\n")).await;
    world.swr.set_instance("i-1", Some("Running"));
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    assert_eq!(kinds(&told), ["job.failed", "follow_up.failed"]);
    let what = "Delete instance i-1: the instance is Running: it is not broken.";
    assert_eq!(told[1]["data"]["follow_up"]["what"], what);
    assert_eq!(world.swr.done(), []);
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_deleted_in_a_dry_run_nor_for_a_job_that_names_no_instance() {
    let world = signing(DELETE).await;
    world.swr.set_jobs(vec![on("i-1", job("a", "Running", 0)), job("b", "Running", 0)]);
    let service = world.watched().await;
    world.swr.set_jobs(vec![on("i-1", failed("a", 1, "x")), failed("b", 1, "y")]);
    let told = told(&world, 4).await;
    let what = |job: &str| {
        let one = told.iter().find(|one| one["subject"] == job && one["data"]["follow_up"].is_object()).unwrap();
        one["data"]["follow_up"]["what"].clone()
    };
    assert_eq!(what("a"), "Would delete instance i-1. Nothing was done: its mode is `dry_run`.");
    assert_eq!(what("b"), "Nothing was done: the job names no instance.");
    assert_eq!(world.swr.done(), []);
    service.stop().await;
}

#[tokio::test]
async fn jobs_are_deleted_instances_shown_and_created_as_the_documents_say() {
    let world = signing("").await;
    let parameters = r#"{ "spec": "swr.ee.professional", "vpc_id": "v", "subnet_id": "s", "project_id": "p1",
        "charge_mode": "postPaid", "enterprise_project_id": "0" }"#;
    world.write("instance.json", parameters);
    let config = text(&world, "jobwatch.toml");
    let all = r#"
[follow_up.show]
kind = "swr"
operation = "show_instance"
mode = "auto"
[follow_up.create]
kind = "swr"
operation = "create_instance"
parameters = "instance.json"
mode = "auto"
[follow_up.act]
kind = "swr"
operation = "delete_job"
mode = "auto"
wait = "1s"
"#;
    world.write("jobwatch.toml", &format!("{config}{all}"));
    world.write("rules/failed.toml", &rule("failed", "show\", \"create\", \"act"));
    let service = failure(&world).await;
    let told = told(&world, 4).await;
    let mut kinds = kinds(&told);
    kinds.sort_unstable();
    assert_eq!(kinds, ["follow_up.done", "follow_up.done", "follow_up.done", "job.failed"], "{told:#?}");
    let shown = told.iter().find(|one| one["data"]["follow_up"]["name"] == "show").unwrap();
    assert_eq!(shown["data"]["follow_up"]["output"], r#"{"id":"i-1","status":"Unavailable"}"#);
    let done: Vec<(&str, String)> = world.swr.done().into_iter().map(|(what, to, _)| (what, to)).collect();
    assert_eq!(done, [("CreateInstance", "instance-a".to_owned()), ("DeleteInstanceJob", "a".to_owned())]);
    service.stop().await;
}

#[tokio::test]
async fn a_follow_up_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
    let world = world("[follow_up.acts]\nkind = \"swr\"\noperation = \"delete_job\"\n").await;
    let checked = world.jobwatch(&["check"]).await;
    let (_, wrong) = said(&checked);
    assert_eq!(checked.status.code(), Some(3), "{wrong}");
    assert!(wrong.contains("there is no follow-up `act`") && wrong.contains("did you mean `acts`?"), "{wrong}");
}

#[tokio::test]
async fn the_recipe_removes_what_a_failed_creation_left_behind() {
    let world = signing("").await;
    std::fs::remove_file(world.path("rules/failed.toml")).unwrap();
    let recipe = include_str!("../../rules/recipes/remove-failed-instance.toml");
    world.write("rules/recipe.toml", recipe);
    // What the recipe says belongs into the configuration, with the change that it speaks of, and without the wait.
    let lines = recipe.lines().filter_map(|line| line.strip_prefix("#   "));
    let follow_up: String = lines.map(|line| format!("{line}\n")).collect();
    assert!(follow_up.contains("mode = \"dry_run\"") && follow_up.contains("wait = \"15m\""), "{follow_up}");
    let follow_up = follow_up.replace("\"dry_run\"", "\"auto\"").replace("\"15m\"", "\"1s\"");
    let config = text(&world, "jobwatch.toml");
    world.write("jobwatch.toml", &format!("{config}{follow_up}"));
    let checked = world.jobwatch(&["check"]).await;
    assert_eq!(checked.status.code(), Some(0), "{:?}", said(&checked));
    let service = failure(&world).await;
    let told = told(&world, 2).await;
    assert_eq!(kinds(&told), ["job.failed", "follow_up.done"]);
    assert_eq!(world.swr.done()[0].1, "i-1");
    service.stop().await;
}
