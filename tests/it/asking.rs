//! Asking the state why: `rules explain`, `rules backtest`, and keeping quiet: `silence`.

use jobwatch::model::job::Job;
use serde_json::Value;

use crate::world::{World, failed, job, said, soon};

const RULES: &str = r#"
schema = 1
[defaults]
notify = ["oncall"]
[[rule]]
id = "create-failed"
when = { to = "Failed" }
match = { resource_name = { glob = "instance-*" } }
key = ["source", "reason_class"]
cooldown = "1h"
[[rule]]
id = "ready"
when = { to = "Success" }
"#;

/// Two failures of one cause, of which the second was held back, and a job that is ready; told and recorded.
async fn told() -> World {
    let world = World::new().await;
    world.write("rules/failed.toml", RULES);
    world.swr.set_jobs(["a", "b", "c"].map(|id| job(id, "Running", 1)).into());
    let mut service = world.watched().await;
    let running = |id| job(id, "Running", 1);
    world.swr.set_jobs(vec![failed("a", 2, "quota 17 exceeded"), running("b"), running("c")]);
    service.logged("delivered").await;
    let ended: Vec<Job> =
        vec![failed("a", 2, "quota 17 exceeded"), failed("b", 3, "quota 18 exceeded"), job("c", "Success", 3)];
    world.swr.set_jobs(ended);
    service.logged_times("delivered", 2).await;
    service.stop().await;
    world
}

async fn json(world: &World, arguments: &[&str]) -> Value {
    let output = world.jobwatch(arguments).await;
    let (out, errors) = said(&output);
    assert!(output.status.success(), "{out}{errors}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn who_asks_why_nobody_was_told_hears_it_clause_by_clause_with_the_cooldown_that_held_it_back() {
    let world = told().await;
    let (out, _) = said(&world.jobwatch(&["rules", "explain", "instance-b"]).await);
    for words in [
        "instance-b CreateInstance job b in prod",
        "Running → Failed",
        "✓ create-failed fires",
        "match  `resource_name` is glob `instance-*`: holds (it is `instance-b`)",
        "→ oncall: held back: told at ",
        "the cooldown is 1 h",
        "✗ ready looks at: to Success",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
    let told = json(&world, &["rules", "explain", "a", "--format", "json"]).await;
    let fate = &told[0]["steps"][0]["rules"][0]["told"][0];
    assert_eq!((&fate["outcome"], &fate["receiver"]), (&"told".into(), &"oncall".into()));
    assert!(fate["state"].as_str().unwrap().contains("was delivered at"), "{fate}");
    let delivery = fate["delivery"].as_str().unwrap();
    let by_delivery = json(&world, &["rules", "explain", delivery, "--format", "json"]).await;
    assert_eq!(by_delivery[0]["id"], "a", "a delivery leads to its job");
    let (out, _) = said(&world.jobwatch(&["rules", "explain", "c", "--rule", "create-failed"]).await);
    assert!(out.contains("✗ create-failed does not fire") && out.contains("it would fire with: to Failed"), "{out}");
}

#[tokio::test]
async fn a_burst_that_is_not_full_and_a_reason_that_is_known_are_no_rules_that_fire() {
    let world = World::new().await;
    let burst = "schema = 1\n[[rule]]\nid = \"burst\"\nwhen = { to = \"Failed\", count = 3, within = \"1h\", per = [\"source\"] }\nnotify = [\"oncall\"]\n\
                 [[rule]]\nid = \"new\"\nwhen = { to = \"Failed\", new = \"reason_class\", memory = \"30d\" }\nnotify = [\"oncall\"]\n";
    world.write("rules/failed.toml", burst);
    world.swr.set_jobs(["a", "b"].map(|id| job(id, "Running", 1)).into());
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "no quota"), job("b", "Running", 1)]);
    service.logged("delivered").await;
    world.swr.set_jobs(vec![failed("a", 2, "no quota"), failed("b", 3, "no quota")]);
    service.logged_times("Failed", 2).await;
    service.stop().await;
    let (out, _) = said(&world.jobwatch(&["rules", "explain", "instance-b"]).await);
    for words in [
        "– burst matches, and does not fire",
        "counted: 2 of 3 within 1 h",
        "– new matches, and does not fire",
        "known already",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
    assert!(!out.contains('✓'), "{out}");
    let (out, _) = said(&world.jobwatch(&["rules", "explain", "instance-a"]).await);
    assert!(out.contains("✓ new fires") && out.contains("– burst matches"), "{out}");
}

#[tokio::test]
async fn who_asks_about_what_was_never_there_hears_what_is_seen() {
    let world = told().await;
    let output = world.jobwatch(&["rules", "explain", "instance-x"]).await;
    let (_, errors) = said(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(errors.contains("no listing has ever shown a job or a resource `instance-x`"), "{errors}");
    assert!(errors.contains("source prod: its last complete listing was"), "{errors}");
    let output = world.jobwatch(&["rules", "explain", "a", "--rule", "raedy"]).await;
    assert!(said(&output).1.contains("did you mean `ready`?"));
}

#[tokio::test]
async fn a_backtest_shows_what_other_rules_would_have_said_beside_what_was_said() {
    let world = told().await;
    let same = json(&world, &["rules", "backtest", "--format", "json"]).await;
    assert_eq!((&same["said"], &same["would_say"]), (&2.into(), &2.into()), "{same}");
    assert_eq!((&same["more"], &same["less"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    world.write(
        "rules/failed.toml",
        &RULES.replace("cooldown = \"1h\"", "").replace("to = \"Success\"", "to = \"Creating\""),
    );
    let (out, _) = said(&world.jobwatch(&["rules", "backtest", "--since", "1h"]).await);
    for words in [
        "said: 2 · the rules on disk would say: 2 · +1 −1",
        "to oncall [create-failed] instance-b: quota 18 exceeded",
        "Reason: quota 18 exceeded",
        "to oncall [ready] instance-c: CreateInstance Running → Success",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
    world.write("rules/failed.toml", "schema = 1\n[[rule]]\n");
    assert_eq!(world.jobwatch(&["rules", "backtest"]).await.status.code(), Some(3));
}

#[tokio::test]
async fn a_silence_is_previewed_kept_over_a_restart_and_when_it_is_expired_what_still_fails_is_told() {
    let world = told().await;
    let add = |more: &[&str]| -> Vec<String> {
        let common = ["silence", "add", "--comment", "planned work", "--author", "ada"];
        common.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let run = async |arguments: Vec<String>| {
        let output = world.jobwatch(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let (out, errors) = said(&output);
        (output.status.code(), out, errors)
    };
    let (code, out, _) = run(add(&["rule=create-failed", "--for", "1h", "--dry-run"])).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("it covers 1 of 2 findings") && out.contains("create-failed instance-b"), "{out}");
    assert!(said(&world.jobwatch(&["silence", "list"]).await).0.contains("no silences"));
    let refused = [
        (vec!["rule=create-faild", "--for", "1h"], Some(3), "did you mean `create-failed`?"),
        (vec!["rule=create-failed", "--for", "31d"], Some(2), "30 days at most"),
        (vec!["rule=create-failed"], Some(2), "--for"),
        (vec!["reason=~(", "--for", "1h"], Some(3), "no regular expression"),
        (vec!["colour=red", "--for", "1h"], Some(3), "nothing a silence can look at"),
    ];
    for (more, code, words) in refused {
        let (ended, _, errors) = run(add(&more)).await;
        assert_eq!(ended, code, "{more:?}");
        assert!(errors.contains(words), "{more:?}: {errors}");
    }
    let silence = run(add(&["rule=create-failed", "--for", "1h", "--format", "json"])).await.1;
    let id = serde_json::from_str::<Value>(&silence).unwrap()["id"].as_str().unwrap().to_owned();

    let mut service = world.run();
    service.logged("watching").await;
    let heard = world.inbox.count();
    let jobs =
        |status: &str| vec![failed("d", 9, "disk full"), job("e", status, 9), failed("a", 2, "quota 17 exceeded")];
    world.swr.set_jobs(jobs("Success"));
    soon("the message that no silence covers", world.inbox.next(heard)).await;
    let (out, _) = said(&world.jobwatch(&["rules", "explain", "d"]).await);
    assert!(out.contains(&format!("nobody: muted: silence {id} by ada: planned work")), "{out}");
    let (list, _) = said(&world.jobwatch(&["silence", "list"]).await);
    assert!(list.contains(&id) && list.contains("in force") && list.contains("planned work"), "{list}");
    let (code, out, _) = run(vec!["silence".into(), "expire".into(), id.clone()]).await;
    assert_eq!(code, Some(0), "{out}");
    let told = soon("what still fails", world.inbox.next(heard + 1)).await;
    let body: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!((&body["subject"], &body["data"]["reason"]), (&"d".into(), &"disk full".into()));
    let (code, _, errors) = run(vec!["silence".into(), "expire".into(), id]).await;
    assert!(code == Some(3) && errors.contains("there is no silence"), "{errors}");
    service.stop().await;
}
