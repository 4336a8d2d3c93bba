//! The commands: what they print, and how they end.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::world::{TOKEN, World, failed, job, rule, said, soon};

#[tokio::test]
async fn check_names_file_line_column_and_the_mend_of_everything_that_is_wrong_and_ends_with_3() {
    let world = World::new().await;
    world.write(
        "rules/bad.toml",
        r#"schema = 1
[[rule]]
id = "bad"
wehn = { to = "Failed" }
when = { to = "Faild" }
match = { reason = { regex = "(quota" }, typ = "CreateInstance" }
notify = ["oncal"]
message = { title = "{{ job.reson }}" }
"#,
    );
    let output = world.jobwatch(&["check"]).await;
    assert_eq!(output.status.code(), Some(3));
    let (_, report) = said(&output);
    for (place, words, mend) in [
        ("rules/bad.toml:4:1", "unknown key `wehn`", "did you mean `when`?"),
        ("rules/bad.toml:5:15", "unknown status `Faild`", "did you mean `Failed`?"),
        ("rules/bad.toml:6:31", "unclosed group", "docs.rs/regex"),
        ("rules/bad.toml:6:42", "unknown key `typ`", "did you mean `type`?"),
        ("rules/bad.toml:7:11", "there is no receiver `oncal`", "did you mean `oncall`?"),
        ("rules/bad.toml:8:25", "unknown variable `job.reson`", "did you mean `job.reason`?"),
    ] {
        assert!(report.contains(place) && report.contains(words) && report.contains(mend), "{place}\n{report}");
    }
    assert!(report.contains("6 errors"), "{report}");
    let (json, _) = said(&world.jobwatch(&["check", "--format", "json"]).await);
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 6);
    assert_eq!(
        (&found[0]["code"], &found[0]["line"], &found[0]["column"]),
        (&"unknown-key".into(), &4.into(), &1.into())
    );
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_ends_with_78_and_says_why() {
    let world = World::new().await;
    world.write("short", "letmein");
    for (broken, words) in [
        ("[agent\n", "this is not TOML"),
        ("[agent]\nstat = \"sqlite:x\"\n", "did you mean `state`?"),
        ("[agent]\nstate = \"sqlite:x\"\n", "there is no [[source]]"),
        (
            "[[source]]\nname = \"a\"\nkind = \"swr\"\nendpoint = \"http://example.org\"\nproject_id = \"p\"\n",
            "loopback addresses only",
        ),
        (
            "[[source]]\nname = \"a\"\nkind = \"swr\"\nregion = \"ap-southeast-9\"\nproject_id = \"p\"\n",
            "did you mean `ap-southeast-",
        ),
        ("[receiver.a]\nkind = \"webhok\"\n", "did you mean `webhook`?"),
        ("[receiver.a]\nkind = \"webhook\"\nurl = \"https://example.org/x\"\n", "a secret stands here in plain text"),
        ("[receiver.a]\nkind = \"webhook\"\nurl = { file = \"url\" }\n", "is a loopback, private"),
        (
            "[receiver.a]\nkind = \"email\"\nserver = \"smtp+plain://mail.example.org\"\nfrom = \"a@b.c\"\nto = \"d@e.f\"\n",
            "loopback addresses only",
        ),
        ("[agent]\nreload = \"wach\"\n", "did you mean `watch`?"),
        ("[admin]\nlisten = \"9477\"\n", "`9477` is no address and port"),
        ("[admin]\nlisten = \"0.0.0.0:9477\"\n", "whoever reaches 0.0.0.0:9477 could use the admin interface"),
        ("[admin]\nlsten = \"127.0.0.1:9477\"\n", "did you mean `listen`?"),
        ("[admin]\ntoken = { file = \"short\" }\n", "`token` is shorter than 16 characters"),
    ] {
        world.write("jobwatch.toml", broken);
        for command in ["run", "check"] {
            let output = world.jobwatch(&[command]).await;
            let (_, report) = said(&output);
            assert_eq!(output.status.code(), Some(78), "{command} {broken}\n{report}");
            assert!(report.contains(words), "{command} {broken}\n{report}");
        }
    }
    assert!(!world.path("state.db").exists() && !world.path("x").exists());
    let output = world.jobwatch(&["run", "--config", "nowhere.toml"]).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).1.contains("`jobwatch init` writes a starter"));
}

#[tokio::test]
async fn a_secret_that_is_complained_of_is_covered_in_the_line_that_is_shown() {
    let world = World::new().await;
    let keys = "{ kind = \"ak_sk\", access_key = \"canary-1\", secret_key = 'canary-2' }";
    let config = format!(
        "[[source]]\nname = \"a\"\nkind = \"swr\"\nendpoint = \"http://127.0.0.1:1\"\nproject_id = \"p\"\ncredentials = {keys}\n"
    );
    world.write("jobwatch.toml", &config);
    let (_, report) = said(&world.jobwatch(&["check"]).await);
    assert!(report.contains("a secret stands here in plain text") && !report.contains("canary"), "{report}");
    assert!(report.contains("access_key = \"********\", secret_key = '********'"), "{report}");
}

#[tokio::test]
async fn rules_that_cannot_be_used_keep_the_service_from_starting() {
    let world = World::new().await;
    world.write("rules/bad.toml", "schema = 1\n[[rule]]\nid = \"x\"\n");
    let output = world.jobwatch(&["run"]).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).1.contains("`when` is missing"));
}

#[tokio::test]
async fn a_secret_that_is_not_on_this_machine_is_a_warning_to_check_and_an_error_to_run() {
    let world = World::new().await;
    std::fs::remove_file(world.path("token")).unwrap();
    let output = world.jobwatch(&["check"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).1.contains("warning[secret]"));
    assert_eq!(world.jobwatch(&["run"]).await.status.code(), Some(78));
}

#[tokio::test]
async fn a_source_whose_kind_or_place_is_not_known_is_one_error_and_its_other_keys_are_no_strangers() {
    let world = World::new().await;
    let right = "[source_defaults]\ntimeout = \"40s\"\n[[source]]\nname = \"a\"\nkind = \"swr\"\nregion = \"ap-southeast-3\"\n\
                 project_id = \"p\"\ncredentials = { kind = \"metadata\" }\n";
    for (good, bad, code) in [
        ("kind = \"swr\"", "kind = \"swrr\"", "unknown-kind"),
        ("kind = \"swr\"", "", "missing-key"),
        ("region = \"ap-southeast-3\"", "", "missing-key"),
        ("region = \"ap-southeast-3\"", "region = \"ap-southeast-33\"", "region"),
    ] {
        world.write("jobwatch.toml", &right.replace(good, bad));
        let (json, _) = said(&world.jobwatch(&["check", "--format", "json"]).await);
        let found: Value = serde_json::from_str(&json).unwrap();
        // That nobody hears of the agent's own troubles is a warning, and is said as well.
        let of_the_file = |problem: &&Value| {
            problem["file"].as_str().is_some_and(|file| file.ends_with("jobwatch.toml")) && problem["level"] == "error"
        };
        let found = found.as_array().unwrap().iter().filter(of_the_file);
        let codes: Vec<&Value> = found.map(|problem| &problem["code"]).collect();
        assert_eq!(codes, [code], "{bad}: {json}");
    }
}

#[tokio::test]
async fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let world = World::new().await;
    let output = world.jobwatch(&["init", "new"]).await;
    assert!(output.status.success(), "{:?}", said(&output));
    let output = world.jobwatch(&["check", "--config", "new/jobwatch.toml"]).await;
    assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
    let (out, report) = said(&output);
    assert!(out.contains("1 source, 2 receivers, 10 rules"), "{out}");
    // Of the secrets that are not on this machine, and of nothing else.
    let warnings = report.lines().filter(|line| line.starts_with("warning[") && !line.starts_with("warning[secret]"));
    assert_eq!(warnings.collect::<Vec<_>>(), [] as [&str; 0], "{report}");
    for (file, schema, what) in [
        ("new/jobwatch.toml", "new/jobwatch.schema.json", "config"),
        ("new/rules/stuck.toml", "new/rules/rules.schema.json", "rules"),
    ] {
        let name = schema.rsplit('/').next().unwrap();
        assert!(std::fs::read_to_string(world.path(file)).unwrap().starts_with(&format!("#:schema ./{name}\n")));
        let (printed, _) = said(&world.jobwatch(&["schema", what]).await);
        assert_eq!(std::fs::read_to_string(world.path(schema)).unwrap(), printed);
        assert!(printed.contains("\"$schema\": \"https://json-schema.org/draft/2020-12/schema\""), "{printed}");
    }
    world.write("new/jobwatch.toml", "mine");
    let output = world.jobwatch(&["init", "new"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("nothing was written"));
    assert_eq!(std::fs::read_to_string(world.path("new/jobwatch.toml")).unwrap(), "mine");
}

#[tokio::test]
async fn diff_prints_the_transition_of_the_specification_s_example_and_what_would_be_sent() {
    let world = World::new().await;
    let example = include_str!("../fixtures/listing-example.json");
    world.write("after.json", example);
    world.write("before.json", &example.replace("Failed", "Running").replace("\"reason\"", "\"unknown_field\""));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
    let output = world.jobwatch(&["diff", "before.json", "after.json", "--rules", shipped]).await;
    let (out, err) = said(&output);
    assert!(output.status.success(), "{err}");
    assert!(
        out.contains("test-public CreateInstance Running → Failed\n  reason: failed to select cce cluster\n"),
        "{out}"
    );
    assert!(out.contains("to oncall [critical] test-public: failed to select cce cluster"), "{out}");
    assert!(out.contains("to ops-mail [critical] test-public: failed to select cce cluster"), "{out}");
    let (json, _) =
        said(&world.jobwatch(&["diff", "before.json", "after.json", "--rules", shipped, "--format", "json"]).await);
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["transitions"][0]["rules"][0], "instance-creation-failed");
    assert_eq!(plan["deliveries"].as_array().unwrap().len(), 2);
    let output = world.jobwatch(&["diff", "before.json", "token"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("token is no answer of the listing call"));
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_sent_and_writes_and_sends_nothing() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let first = world.jobwatch(&["poll", "--dry-run"]).await;
    assert!(said(&first).0.contains("baseline: 1 jobs are recorded"), "{:?}", said(&first));
    assert!(!world.path("state.db").exists());
    assert!(world.jobwatch(&["poll"]).await.status.success());
    world.swr.set_jobs(vec![failed("a", 2, "quota")]);
    let before = std::fs::read(world.path("state.db")).unwrap();
    let (out, _) = said(&world.jobwatch(&["poll", "--dry-run"]).await);
    assert!(out.contains("to oncall [warning] instance-a: quota"), "{out}");
    assert!(world.inbox.received().is_empty());
    assert_eq!(std::fs::read(world.path("state.db")).unwrap(), before);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    assert_eq!(soon("the webhook", world.inbox.next(0)).await.header("webhook-id").len(), 30);
    let (out, _) = said(&world.jobwatch(&["poll"]).await);
    assert!(out.contains("nothing changed") && world.inbox.received().len() == 1, "{out}");
}

#[tokio::test]
async fn a_poll_that_cannot_see_says_so_and_ends_with_1() {
    let world = World::new().await;
    world.swr.set_fault(Some(jobwatch::simulator::Fault::Forbidden));
    let output = world.jobwatch(&["poll"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).0.contains("incomplete listing: HTTP 403"), "{:?}", said(&output));
    let output = world.jobwatch(&["poll", "--source", "stage"]).await;
    assert!(said(&output).1.contains("there is no source `stage`"));
}

#[tokio::test]
async fn deliveries_are_listed_filtered_shown_with_every_attempt_and_sent_again() {
    let world = World::new().await;
    let oncall = "retry = { first = \"100ms\", max = \"100ms\" }";
    world.write("jobwatch.toml", &world.config("poll_every = \"100ms\"", oncall));
    world.inbox.answer_with(503, &[]);
    let mut service = world.watched_closely().await;
    world.swr.set_jobs(vec![failed("a", 1, "x"), failed("b", 1, "y")]);
    service.logged_times("not delivered", 3).await;
    world.inbox.answer_with(204, &[]);
    service.logged_times("INFO delivered", 2).await;
    let list = async |more: &[&str]| {
        let arguments: Vec<&str> = ["deliveries", "list", "--format", "json"].iter().chain(more).copied().collect();
        let output = world.jobwatch(&arguments).await;
        serde_json::from_str::<Value>(&said(&output).0).unwrap().as_array().unwrap().clone()
    };
    assert_eq!(list(&[]).await.len(), 2);
    assert_eq!(list(&["--job", "a", "--receiver", "oncall", "--state", "delivered", "--since", "1h"]).await.len(), 1);
    assert_eq!(list(&["--state", "dead"]).await.len(), 0);
    assert_eq!(list(&["--limit", "1"]).await.len(), 1);
    let id = list(&["--job", "a"]).await[0]["id"].as_str().unwrap().to_owned();
    let (table, _) = said(&world.jobwatch(&["deliveries", "list"]).await);
    assert!(table.contains(&id) && table.contains("instance-a: x") && table.contains("HTTP 204"), "{table}");
    let (shown, _) = said(&world.jobwatch(&["deliveries", "show", &id]).await);
    assert!(shown.contains("unreachable: HTTP 503") && shown.contains("accepted: HTTP 204"), "{shown}");
    assert!(shown.contains("\"specversion\": \"1.0\""), "{shown}");
    let heard = world.inbox.received().len();
    assert!(world.jobwatch(&["deliveries", "retry", &id]).await.status.success());
    let again = soon("the webhook once more", world.inbox.next(heard)).await;
    assert_eq!(again.header("webhook-id"), id);
    let unknown = world.jobwatch(&["deliveries", "show", "msg_0"]).await;
    assert_eq!((unknown.status.code(), said(&unknown).1.as_str()), (Some(3), "error: there is no delivery msg_0\n"));
}

#[tokio::test]
async fn simulate_serves_a_scenario_that_a_source_can_watch() {
    let world = World::new().await;
    world.write("story.toml", "[[job]]\nname = \"x\"\npath = [[\"Failed\"]]\nreason = \"told\"\n");
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_jobwatch"))
        .args(["simulate", "--listen", "127.0.0.1:0", "--scenario"])
        .arg(world.path("story.toml"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = soon("the address", lines.next_line()).await.unwrap().unwrap();
    let endpoint = first.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let endpoint = endpoint.trim_end_matches(';');
    let config = world.config("", "").replace("p1", "0605768a3300d5762f8cc01d2b3e4f50");
    let own = format!("http://{}", world.cloud);
    world.write("jobwatch.toml", &config.replace(&own, endpoint));
    world.write("token", "demo-token");
    let (out, _) = said(&world.jobwatch(&["poll"]).await);
    assert!(out.contains("1 jobs known, complete listing"), "{out}");
    world.write("story.toml", "[[job]]\nname = \"x\"\n");
    let bad = world.jobwatch(&["simulate", "--scenario", "story.toml"]).await;
    assert_eq!(bad.status.code(), Some(3));
    assert!(said(&bad).1.contains("`path` is missing"));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_reason_to_complain() {
    let world = World::new().await;
    let script = format!("'{}' --help | head -n 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_jobwatch"));
    let output = tokio::process::Command::new("bash").args(["-c", &script]).output().await.unwrap();
    assert!(output.stderr.is_empty(), "{:?}", said(&output));
    world.swr.set_jobs((0..3_000).map(|n| failed(&format!("{n}"), 1, &"x".repeat(200))).collect());
    world.jobwatch(&["poll"]).await;
    world.swr.set_jobs((0..3_000).map(|n| job(&format!("{n}"), "Running", 2)).collect());
    let script = format!(
        "'{}' poll --dry-run --config '{}' | head -n 1",
        env!("CARGO_BIN_EXE_jobwatch"),
        world.path("jobwatch.toml").display()
    );
    let output = tokio::process::Command::new("bash").args(["-c", &script]).output().await.unwrap();
    assert!(output.stderr.is_empty(), "{:?}", said(&output));
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let world = World::new().await;
    assert_eq!(world.jobwatch(&["rum"]).await.status.code(), Some(2));
    assert_eq!(world.jobwatch(&["deliveries", "list", "--since", "yesterday"]).await.status.code(), Some(2));
    assert_eq!(TOKEN.len(), 19);
}

#[tokio::test]
async fn what_nobody_uses_is_a_warning_at_its_place_in_the_configuration_and_keeps_nothing_from_working() {
    let world = World::new().await;
    let config = world.config("poll_every = \"100ms\"", "");
    let more = "[receiver.pager]\nkind = \"webhook\"\nurl = { file = \"url\" }\nallow_targets = [\"127.0.0.1\"]\nfallback = \"second\"\n\
                [receiver.second]\nkind = \"webhook\"\nurl = { file = \"url\" }\nallow_targets = [\"127.0.0.1\"]\n\
                [window.night]\nzone = \"UTC\"\ntimes = [{ from = \"22:00\", to = \"06:00\" }]\n";
    world.write("jobwatch.toml", &format!("{config}\n{more}"));
    let line = config.lines().count() + 2;
    let output = world.jobwatch(&["check", "--format", "json"]).await;
    let found: Value = serde_json::from_str(&said(&output).0).unwrap();
    let places: Vec<(&Value, u64, &Value)> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (&problem["message"], problem["line"].as_u64().unwrap(), &problem["level"]))
        .collect();
    let warning = Value::from("warning");
    let (pager, night) = ("nobody uses the receiver `pager`".into(), "nobody uses the window `night`".into());
    assert_eq!(places, [(&pager, line as u64, &warning), (&night, line as u64 + 9, &warning)]);
    assert_eq!(output.status.code(), Some(0), "warnings are no refusal");

    let mut service = world.run();
    service.logged("baseline").await;
    assert!(service.log().contains("nobody uses the receiver `pager`"), "{}", service.log());
    // A reload says it again, and no longer once a rule names them.
    let rule = rule("failed", "Failed", "pager") + "active = \"night\"\n";
    world.write("rules/pager.toml", &rule.replace("\"failed\"", "\"paged\""));
    service.signal("HUP");
    service.logged("were read anew and are in force").await;
    let log = service.log();
    assert_eq!(log.matches("nobody uses the receiver `pager`").count(), 1, "{log}");
    assert!(said(&world.jobwatch(&["check"]).await).0.contains("can be used: 1 source, 4 receivers, 2 rules"));

    // A rule that cannot be read may be the one that names them: nothing is said of them then.
    world.write("rules/pager.toml", &rule.replace("Failed", "Faild"));
    let output = world.jobwatch(&["check"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).1.contains("1 error\n") && !said(&output).1.contains("nobody uses"), "{:?}", said(&output));
}
