//! The service: it notices, tells, stops, and keeps its secrets.

use std::process::Stdio;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jobwatch::model::job::Job;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::world::{SECRET, TOKEN, World, bind, failed, job, rule, said, soon};

#[tokio::test]
async fn a_transition_is_noticed_at_the_next_poll_and_the_webhook_carries_the_contract_s_body() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 10)]);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 20, "failed to select cce cluster")]);
    let received = soon("the webhook", world.inbox.next(0)).await;
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(received.path, "/hook/canary-path-77");
    assert_eq!(received.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(body["specversion"], "1.0");
    assert_eq!(body["type"], "io.jobwatch.job.failed");
    assert_eq!((&body["source"], &body["subject"]), (&"jobwatch/prod".into(), &"a".into()));
    assert_eq!(body["id"], received.header("webhook-id"));
    assert_eq!(body["time"], "2026-11-24T08:00:20Z");
    let data = &body["data"];
    assert_eq!(data["state"], "firing");
    assert_eq!(data["title"], "instance-a: failed to select cce cluster");
    assert_eq!(data["reason"], "failed to select cce cluster");
    assert_eq!(data["job"]["resource_name"], "instance-a");
    assert_eq!((&data["transition"]["from"], &data["transition"]["to"]), (&"Running".into(), &"Failed".into()));
    assert_eq!((&data["rule"]["id"], &data["alert"]["count"]), (&"failed".into(), &1.into()));
    service.logged("delivered").await;
    assert_eq!(world.inbox.received().len(), 1);
}

#[tokio::test]
async fn the_webhook_is_signed_so_that_an_independent_verifier_agrees() {
    let world = World::new().await;
    let _service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "夜间")]);
    let received = soon("the webhook", world.inbox.next(0)).await;
    let key = base64::engine::general_purpose::STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", received.header("webhook-id"), received.header("webhook-timestamp")).as_bytes());
    mac.update(&received.body);
    let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(received.header("webhook-signature"), format!("v1,{expected}"));
}

#[tokio::test]
async fn what_changed_while_the_agent_was_down_is_told_when_it_is_back() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 10)]);
    world.watched().await.kill().await;
    world.swr.set_jobs(vec![failed("a", 20, "nobody looked")]);
    let _service = world.run();
    let body: Value = serde_json::from_slice(&soon("the webhook", world.inbox.next(0)).await.body).unwrap();
    assert_eq!(body["data"]["reason"], "nobody looked");
}

#[tokio::test]
async fn a_graceful_stop_lets_the_delivery_under_way_finish_and_ends_with_zero() {
    let world = World::new().await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    soon("the webhook", world.inbox.next(0)).await;
    service.signal("TERM");
    assert!(service.ended().await.success());
    let (listed, _) = said(&world.jobwatch(&["deliveries", "list", "--format", "json"]).await);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["state"], "delivered", "{}", service.log());
}

#[tokio::test]
async fn a_second_agent_on_the_same_state_is_refused_and_told_who_is_there() {
    let world = World::new().await;
    let first = world.watched().await;
    let mut second = world.run();
    assert_eq!(second.ended().await.code(), Some(1));
    let line = second.logged("in use by another jobwatch").await;
    assert!(line.contains(&first.id().to_string()), "{line}");
}

#[tokio::test]
async fn the_rules_are_read_anew_on_sighup_and_bad_ones_are_refused() {
    let world = World::new().await;
    let mut service = world.watched().await;
    world.write("rules/failed.toml", "schema = 1\n[[rule]]\nid = 7\n");
    service.signal("HUP");
    service.logged("the old ones stay in force").await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    soon("the old rule's webhook", world.inbox.next(0)).await;
    world.write("rules/failed.toml", &rule("ended", "Success", "oncall"));
    service.signal("HUP");
    service.logged("were read anew").await;
    world.swr.set_jobs(vec![failed("a", 1, "x"), job("b", "Success", 2)]);
    let body: Value = serde_json::from_slice(&soon("the new rule's webhook", world.inbox.next(1)).await.body).unwrap();
    assert_eq!(body["data"]["rule"]["id"], "ended");
}

#[tokio::test]
async fn secrets_appear_in_no_log_no_row_no_process_list_and_no_answer_of_a_command() {
    let world = World::new().await;
    // Nobody listens there: what the HTTP library says of it names the URL.
    let (listener, nobody) = bind().await;
    drop(listener);
    world.write("url", &format!("http://{nobody}/hook/canary-path-77"));
    let mut service = world.run_with(&["-vv"]);
    service.logged("baseline").await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    assert!(service.logged("not delivered").await.contains("Connection refused"), "{}", service.log());
    world.swr.set_fault(Some(jobwatch::simulator::Fault::Unauthorized));
    service.logged("unauthorized").await;
    let (listed, _) = said(&world.jobwatch(&["deliveries", "list"]).await);
    let id = listed.split_whitespace().find(|word| word.starts_with("msg_")).unwrap().to_owned();
    let (shown, _) = said(&world.jobwatch(&["deliveries", "show", &id]).await);
    let (checked, complained) = said(&world.jobwatch(&["check"]).await);
    let process = std::fs::read_to_string(format!("/proc/{}/cmdline", service.id())).unwrap();
    let mut sinks = vec![service.log(), listed, shown, checked, complained, process];
    for name in ["state.db", "state.db-wal", "state.db.lock"] {
        sinks.push(String::from_utf8_lossy(&std::fs::read(world.path(name)).unwrap()).into_owned());
    }
    for secret in [TOKEN, SECRET, "canary-secret-canary", "canary-path-77"] {
        assert!(sinks.iter().all(|sink| !sink.contains(secret)), "{secret} was seen");
    }
}

#[tokio::test]
async fn a_server_that_is_not_ours_is_watched_as_well_gzip_pages_and_all() {
    let world = World::new().await;
    let write = |jobs: &[Job]| {
        world.write("next.json", &serde_json::to_string(jobs).unwrap());
        std::fs::rename(world.path("next.json"), world.path("jobs.json")).unwrap();
    };
    let mut jobs: Vec<Job> = (0..230).map(|n| job(&format!("{n}"), "Running", 1)).collect();
    write(&jobs);
    let mut server = tokio::process::Command::new("/usr/bin/python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/plain_api.py"))
        .arg(world.path("jobs.json"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = soon("the server's port", lines.next_line()).await.unwrap().unwrap();
    let config =
        world.config("poll_every = \"100ms\"", "").replace(&world.cloud.to_string(), &format!("127.0.0.1:{port}"));
    world.write("jobwatch.toml", &config);
    let mut service = world.watched().await;
    assert!(service.logged("baseline").await.contains("jobs=230"), "{}", service.log());
    jobs[211] = failed("211", 2, "told by a stranger");
    write(&jobs);
    let body: Value = serde_json::from_slice(&soon("the webhook", world.inbox.next(0)).await.body).unwrap();
    assert_eq!((&body["subject"], &body["data"]["reason"]), (&"211".into(), &"told by a stranger".into()));
}
