//! `doctor` and `probe`: each thing that seeing depends on, broken in turn, and what is said of it.

use jobwatch::simulator::Fault;

use crate::world::{World, job, said};

/// What `doctor` says, and how it ends.
async fn doctor(world: &World) -> (String, Option<i32>) {
    let output = world.jobwatch(&["doctor"]).await;
    (said(&output).0, output.status.code())
}

#[tokio::test]
async fn all_is_well_and_said_line_by_line() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 1), job("b", "Failed", 1)]);
    let (out, code) = doctor(&world).await;
    assert_eq!(code, Some(0), "{out}");
    for line in [
        "jobwatch.toml: 1 rule\n",
        "ok    state: ",
        "ok    disk: ",
        "ok    lock: no agent runs on this state",
        "ok    receiver oncall: dns: 127.0.0.1 is 127.0.0.1",
        "ok    receiver oncall: connection: 127.0.0.1",
        "ok    receiver ops: smtp: 127.0.0.1",
        "ok    source prod: dns: 127.0.0.1 is 127.0.0.1",
        "ok    source prod: connection: connected",
        "ok    source prod: clock: agrees",
        "ok    source prod: credential: a token of the configuration",
        "ok    source prod: listing: project p1 may be listed: 2 jobs",
    ] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    let output = world.jobwatch(&["probe", "source", "prod"]).await;
    assert!(output.status.success());
    let (out, _) = said(&output);
    assert!(out.contains("listing: complete in") && out.contains("1 Failed, 1 Running"), "{out}");
    assert!(!world.path("state.db").exists(), "neither writes anything");
}

#[tokio::test]
async fn each_trouble_has_its_line_with_the_mend() {
    let cases = [
        (Fault::Forbidden, "FAIL  source prod: permission: HTTP 403", "needs the permission swr:instance:listJobs"),
        (Fault::Unauthorized, "FAIL  source prod: credential: HTTP 401", "valid in one project of one region"),
        (
            Fault::BadRequest,
            "FAIL  source prod: region and project: HTTP 400",
            "check `region`, `endpoint` and `project_id`",
        ),
        (Fault::ServerError, "FAIL  source prod: listing: HTTP 500", "Internal error"),
    ];
    let world = World::new().await;
    for (fault, line, mend) in cases {
        world.swr.set_fault(Some(fault));
        let (out, code) = doctor(&world).await;
        assert_eq!(code, Some(3), "{out}");
        assert!(out.contains(line) && out.contains(mend), "{out}");
        let output = world.jobwatch(&["probe", "source", "prod"]).await;
        assert_eq!(output.status.code(), Some(3));
        assert!(said(&output).0.contains("`jobwatch doctor` looks at each step"));
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_and_a_name_that_does_not_exist_are_told_apart() {
    let world = World::new().await;
    let config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    let endpoint = format!("http://{}", world.cloud);
    world.write("jobwatch.toml", &config.replace(&endpoint, "https://swr.invalid"));
    let (out, _) = doctor(&world).await;
    assert!(out.contains("FAIL  source prod: dns: swr.invalid has no address"), "{out}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.write("jobwatch.toml", &config.replace(&endpoint, &format!("http://{closed}")));
    let (out, _) = doctor(&world).await;
    assert!(out.contains("FAIL  source prod: connection: 127.0.0.1") && out.contains("refused"), "{out}");
}

#[tokio::test]
async fn a_wrong_clock_is_a_warning_with_its_mend() {
    let world = World::new().await;
    world.swr.accounts().clock_ahead = 600;
    let (out, code) = doctor(&world).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("warn  source prod: clock: this machine's clock is 10 min behind"), "{out}");
}

#[tokio::test]
async fn a_source_that_is_misspelt_is_suggested() {
    let world = World::new().await;
    let (_, errors) = said(&world.jobwatch(&["probe", "source", "prof"]).await);
    assert!(errors.contains("there is no source `prof`; did you mean `prod`?"), "{errors}");
}

#[tokio::test]
async fn a_test_message_goes_the_real_way_and_is_clearly_marked() {
    let world = World::new().await;
    let output = world.jobwatch(&["probe", "receiver", "oncall"]).await;
    let (out, errors) = said(&output);
    assert!(
        output.status.success() && out.contains("ok    receiver oncall: probe: accepted by 127.0.0.1"),
        "{out}{errors}"
    );
    let received = world.inbox.received().remove(0);
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["state"]), (&"io.jobwatch.probe".into(), &"probe".into()));
    assert!(received.header("webhook-signature").starts_with("v1,"));
    assert!(out.contains(received.header("webhook-id")), "the id is shown, to be looked for there");
    assert!(world.jobwatch(&["probe", "receiver", "ops"]).await.status.success());
    let mail = world.mailbox.mails().remove(0);
    assert!(mail.data.contains("a test message to ops") && mail.data.contains("Nothing has failed"), "{}", mail.data);
    assert!(!world.path("state.db").exists());
}

#[tokio::test]
async fn a_test_message_that_is_refused_says_so_and_ends_with_3() {
    let world = World::new().await;
    world.inbox.answer_with(403, &[]);
    let output = world.jobwatch(&["probe", "receiver", "oncall"]).await;
    let (out, _) = said(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(out.contains("FAIL  receiver oncall: probe: refused by") && out.contains("HTTP 403"), "{out}");
    assert!(!out.contains("canary-path"), "the URL is a secret: {out}");
}

#[tokio::test]
async fn each_receiver_s_host_is_reached_and_nobody_is_told_anything() {
    let world = World::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.write("url", &format!("http://{closed}/hook/canary-path-77"));
    let (out, code) = doctor(&world).await;
    assert_eq!(code, Some(3), "{out}");
    let line = out.lines().find(|line| line.starts_with("FAIL  receiver oncall: connection: 127.0.0.1")).unwrap();
    assert!(line.contains("refused") && line.contains("check the network"), "{line}");
    assert!(!out.contains("canary-path"), "the URL is a secret: {out}");
    let output = world.jobwatch(&["doctor", "--format", "json"]).await;
    let found: serde_json::Value = serde_json::from_str(&said(&output).0).unwrap();
    let of = |whose: &str, what: &str| {
        found.as_array().unwrap().iter().find(|row| row["of"] == whose && row["what"] == what).unwrap()["health"]
            .clone()
    };
    assert_eq!((of("receiver oncall", "connection"), of("receiver ops", "smtp")), ("FAIL".into(), "ok".into()));
    assert_eq!((output.status.code(), of("source prod", "listing")), (Some(3), "ok".into()));
    assert_eq!((world.inbox.count(), world.mailbox.mails().len()), (0, 0));
}

#[tokio::test]
async fn a_topic_in_the_cloud_and_a_maildir_are_looked_at_too() {
    let world = World::new().await;
    let config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    let topic = |password: &str| {
        world.write("password", password);
        let cloud = world.cloud;
        format!(
            "{config}\n[receiver.topic]\nkind = \"smn\"\ntopic_urn = \"urn:smn:ap-southeast-3:p1:jobs\"\nendpoint = \"http://{cloud}\"\n\
             credentials = {{ kind = \"password\", user = \"watcher\", domain = \"example\", password = {{ file = \"password\" }}, iam_endpoint = \"http://{cloud}\" }}\n\
             [receiver.trial]\nkind = \"maildir\"\npath = \"mail\"\n"
        )
    };
    world.write("jobwatch.toml", &topic("simulated-password"));
    let (out, code) = doctor(&world).await;
    for line in [
        "ok    receiver topic: connection: ",
        "ok    receiver topic: credential: ",
        "ok    receiver trial: directory: ",
    ] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    assert_eq!(code, Some(0), "{out}");
    world.write("jobwatch.toml", &topic("wrong-password"));
    let (out, code) = doctor(&world).await;
    assert!(out.contains("FAIL  receiver topic: credential: IAM gave no token: HTTP 401"), "{out}");
    assert!(code == Some(3) && !out.contains("wrong-password"), "{out}");
}

#[tokio::test]
async fn a_check_online_lists_each_source_once_and_reaches_each_receiver() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let output = world.jobwatch(&["check", "--online"]).await;
    let (out, errors) = said(&output);
    assert!(output.status.success(), "{out}{errors}");
    for line in ["ok    source prod: listing: complete: 1 jobs", "ok    receiver oncall: connection: ", "can be used"] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    world.swr.set_fault(Some(Fault::Forbidden));
    let output = world.jobwatch(&["check", "--online"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).0.contains("FAIL  source prod: listing: HTTP 403"), "{}", said(&output).0);
    assert!(world.jobwatch(&["check"]).await.status.success(), "without it nobody is asked");
    assert_eq!((world.inbox.count(), world.mailbox.mails().len()), (0, 0));
}
