//! What is known, in print and over HTTP: `jobs`, `transitions`, `alerts`, `deliveries`, and the admin interface's `/api/v1`.

use std::collections::BTreeSet;

use jobwatch::simulator::Fault;
use serde_json::Value;

use crate::reload::{address, ask, world_with};
use crate::world::{SECRET, TOKEN, World, failed, job, said, soon};

/// The keys of an object.
fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("{object} is no object")).keys().cloned().collect()
}

/// The keys that the guide promises, by what has them.
fn promised(item: &str) -> BTreeSet<String> {
    let guide = include_str!("../../OPERATING.md");
    let row = guide.lines().find_map(|line| line.strip_prefix(&format!("| {item} | ")));
    let row = row.unwrap_or_else(|| panic!("OPERATING.md has no row `{item}`"));
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

#[tokio::test]
async fn the_api_answers_in_pages_what_the_commands_print_and_refuses_what_it_does_not_understand() {
    let (world, mut service) = told().await;
    let admin = address(&mut service).await;
    let get = async |path: &str| {
        let (status, head, body) = ask(admin, &format!("GET /api/v1/{path}"), &["host: localhost"]).await;
        assert!(head.contains("content-type: application/json") && head.contains("nosniff"), "{path}: {head}");
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    for list in ["jobs", "transitions", "alerts", "deliveries"] {
        let (status, answer) = get(list).await;
        assert_eq!((status, &answer["next"]), (200, &Value::Null), "{list}");
        assert_eq!(answer["items"].as_array().unwrap(), &json(&world, &[list]).await, "{list}");
    }
    let (_, sources) = get("sources").await;
    let prod = &sources["items"][0];
    assert_eq!(keys(prod), promised("`sources`"));
    assert_eq!(
        (&prod["name"], &prod["jobs"]["Failed"], &prod["jobs"]["Running"]),
        (&"prod".into(), &1.into(), &1.into())
    );
    // Page by page.
    let (_, first) = get("transitions?limit=1").await;
    let (_, second) = get(&format!("transitions?limit=1&cursor={}", first["next"].as_str().unwrap())).await;
    let (_, all) = get("transitions").await;
    assert_eq!([&first["items"][0], &second["items"][0]], [&all["items"][0], &all["items"][1]]);
    assert_eq!(get("jobs?status=failed&status=gone&source=prod").await.1["items"][0]["job"]["id"], "a");
    let count = async |path: &str| get(path).await.1["items"].as_array().unwrap().len();
    assert_eq!(count("jobs?status=Failed,Running&since=2020-01-01T00:00:00Z").await, 2);
    assert_eq!(count("alerts?state=over").await, 0);
    assert_eq!(count("deliveries?receiver=oncall&state=delivered&job=a").await, 1);
    for (path, status, words) in [
        ("jobs?colour=red", 400, "there is no parameter `colour` here: there are `status`, `source`, `job`"),
        ("jobs?limit=501", 400, "`limit` cannot be `501`: it is a number from 1 to 500"),
        ("jobs?source=a&source=b", 400, "`source` is given more than once"),
        ("jobs?since=yesterday", 400, "`since` cannot be `yesterday`: it is an instant such as"),
        ("jobs?cursor=%7B%7D", 400, "`cursor` cannot be `{}`: it is `next` of an earlier answer"),
        ("jobs?status=", 400, "`status` cannot be empty"),
        ("alerts?severity=loud", 400, "it is info, warning, error or critical"),
        ("deliveries?state=lost", 400, "it is pending, delivered, dead or dropped"),
        ("deliveries/msg_0", 404, "there is no delivery msg_0"),
        ("deliveries/msg_0?x=y", 400, "there is no parameter `x` here"),
    ] {
        let (answered, body) = get(path).await;
        assert_eq!(answered, status, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(words), "{path}: {body}");
    }
    // A cursor of another list is none of this.
    assert_eq!(get(&format!("jobs?cursor={}", first["next"].as_str().unwrap())).await.0, 400);
    service.stop().await;
}

#[tokio::test]
async fn a_delivery_is_shown_and_sent_again_over_http_and_only_by_who_may() {
    let (world, mut service) = told().await;
    let admin = address(&mut service).await;
    let delivery = json(&world, &["deliveries"]).await.remove(0);
    let id = delivery["id"].as_str().unwrap();
    let (status, _, body) = ask(admin, &format!("GET /api/v1/deliveries/{id}"), &["host: localhost"]).await;
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &shown["delivery"], &shown["payload"]["subject"]), (200, &delivery, &"a".into()));
    assert_eq!(shown["attempts"][0]["outcome"], "accepted");
    for secret in [TOKEN, SECRET, "canary-path-77"] {
        assert!(!body.contains(secret), "{body}");
    }
    let retry = format!("POST /api/v1/deliveries/{id}/retry");
    let heard = world.inbox.received().len();
    for (request, lines, status) in [
        (retry.as_str(), &["host: evil.example"] as &[&str], 403),
        (&retry, &["host: localhost", "origin: http://evil.example"], 403),
        (&retry, &["host: localhost", "sec-fetch-site: cross-site"], 403),
        (&retry.replace("POST", "GET"), &["host: localhost"], 405),
        (&retry.replace(id, "msg_0"), &["host: localhost"], 404),
        ("GET /api/v1/jobs", &["host: evil.example"], 403),
        ("POST /api/v1/jobs", &["host: localhost"], 405),
        ("DELETE /api/v1/deliveries", &["host: localhost"], 405),
    ] {
        assert_eq!(
            ask(admin, request, &[lines, &["content-length: 0"]].concat()).await.0,
            status,
            "{request} {lines:?}"
        );
    }
    assert_eq!(json(&world, &["deliveries"]).await, std::slice::from_ref(&delivery), "none of that changed anything");
    let (status, _, body) = ask(admin, &retry, &["host: localhost", "content-length: 0"]).await;
    assert_eq!((status, body.contains("pending")), (200, true), "{body}");
    let again = soon("the webhook once more", world.inbox.next(heard)).await;
    assert_eq!(again.header("webhook-id"), id);
    service.stop().await;
}

#[tokio::test]
async fn what_was_refused_and_is_sent_again_by_hand_is_due_and_not_tried_slowly() {
    let world = World::new().await;
    world.inbox.answer_with(403, &[]);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "no quota")]);
    service.logged("refused: somebody must mend").await;
    service.stop().await;
    let delivery = json(&world, &["deliveries", "--receiver", "oncall"]).await.remove(0);
    let id = delivery["id"].as_str().unwrap();
    let show = async || said(&world.jobwatch(&["deliveries", "show", id]).await).0;
    let shown = show().await;
    assert!(shown.contains("it was refused, which is tried again slowly"), "{shown}");
    assert!(world.jobwatch(&["deliveries", "retry", id]).await.status.success());
    let shown = show().await;
    assert!(shown.contains("it is due since ") && !shown.contains("slowly"), "{shown}");
}

#[tokio::test]
async fn with_a_token_nothing_that_is_known_is_shown_without_it() {
    let world = world_with("", "token = { file = \"admin-token\" }").await;
    world.write("admin-token", "canary-admin-token-4711\n");
    let mut service = world.watched().await;
    let admin = address(&mut service).await;
    for path in ["GET /readyz", "GET /api/v1/jobs", "GET /api/v1/deliveries/x", "POST /api/v1/deliveries/x/retry"] {
        assert_eq!(ask(admin, path, &["host: localhost", "content-length: 0"]).await.0, 401, "{path}");
    }
    let known = "authorization: Bearer canary-admin-token-4711";
    assert_eq!(ask(admin, "GET /api/v1/jobs", &["host: localhost", known]).await.0, 200);
    assert_eq!(ask(admin, "GET /readyz", &["host: localhost", known]).await.0, 200);
    service.stop().await;
}

#[tokio::test]
async fn an_agent_that_has_never_seen_its_source_is_not_ready_and_one_failed_poll_afterwards_does_not_matter() {
    let world = world_with("", "").await;
    world.swr.set_fault(Some(Fault::Forbidden));
    let mut service = world.run();
    let admin = address(&mut service).await;
    let ready = async || {
        let (status, _, body) = ask(admin, "GET /readyz", &["host: localhost"]).await;
        (status, body)
    };
    service.logged("HTTP 403").await;
    let (status, body) = ready().await;
    assert!(status == 503 && body.starts_with("prod: no complete listing yet: HTTP 403"), "{body}");
    world.swr.set_fault(None);
    service.logged("baseline").await;
    assert_eq!(ready().await.0, 200);
    world.swr.set_fault(Some(Fault::Forbidden));
    // Another poll is begun when the one before it is over.
    let before = world.swr.requests();
    soon("polls that fail", async {
        while world.swr.requests() < before + 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ready().await.0, 200);
    service.stop().await;
}

#[tokio::test]
async fn the_agent_is_ready_when_every_source_was_listed_and_not_while_one_is_blind() {
    let world = world_with("blind_after = \"1s\"", "").await;
    world.swr.set_fault(Some(Fault::Forbidden));
    let mut service = world.run();
    let admin = address(&mut service).await;
    let ready = async || {
        let (status, _, body) = ask(admin, "GET /readyz", &["host: localhost"]).await;
        (status, body)
    };
    soon("the mail about blindness", world.mailbox.next(0)).await;
    let (status, body) = ready().await;
    assert_eq!(status, 503);
    assert!(body.starts_with("prod: no complete listing yet: HTTP 403"), "{body}");
    assert_eq!(ask(admin, "GET /livez", &["host: localhost"]).await.0, 200, "it lives all the same");
    world.swr.set_fault(None);
    soon("the mail about its end", world.mailbox.next(1)).await;
    assert_eq!(ready().await, (200, "every source is seen\n".into()));
    world.swr.set_fault(Some(Fault::Forbidden));
    soon("the mail about the next blindness", world.mailbox.next(2)).await;
    let (status, body) = ready().await;
    assert_eq!(status, 503);
    assert!(body.starts_with("prod: no complete listing since 20") && body.contains("Z: HTTP 403"), "{body}");
    service.stop().await;
}
