//! E-mail through a server that is not ours: Debian's aiosmtpd, with real TLS and AUTH.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use self::mail_server::{Does, MailServer, Stage};
use crate::tls::certificate;
use crate::world::{World, beside, bind, failed, job, rule, said, soon};

#[expect(dead_code, reason = "the contract's stories use the rest of it")]
#[path = "../contract/mail_server.rs"]
mod mail_server;

struct Server {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u64,
}

impl Server {
    /// `kind` is `starttls`, `tls` or `plain`. Writes the certificate to trust to `ca.pem`.
    async fn start(world: &World, kind: &str, reject: &[&str]) -> Self {
        let (certificate, key) = certificate();
        world.write("ca.pem", &certificate);
        world.write("key.pem", &key);
        let mut command = Command::new("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/smtp_server.py"));
        command.arg(kind).arg(world.path("ca.pem")).arg(world.path("key.pem"));
        if !reject.is_empty() {
            command.arg("--reject").args(reject);
        }
        command.stdout(Stdio::piped()).kill_on_drop(true).env("PYTHONWARNINGS", "ignore");
        let mut child = command.spawn().expect("Debian's python3 (./test installs python3-aiosmtpd)");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Self { _child: child, lines, port: 0 };
        server.port = server.line().await["port"].as_u64().unwrap();
        server
    }

    async fn line(&mut self) -> Value {
        let line = soon("the mail server", self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("the mail server has ended: is python3-aiosmtpd installed? ./test does that"))
            .unwrap()
    }
}

/// A world whose one rule mails, and whose mail receiver has these keys.
async fn world_with(keys: &str) -> World {
    let world = World::new().await;
    world.write("password", "canary-password");
    world.write("rules/failed.toml", &rule("failed", "Failed", "mail"));
    let from = "from = \"jobwatch <jobwatch@example.org>\"";
    let config = world.config("poll_every = \"100ms\"", "");
    world.write("jobwatch.toml", &format!("{config}\n[receiver.mail]\nkind = \"email\"\n{from}\n{keys}\n"));
    world
}

fn keys(scheme: &str, port: u64, to: &str) -> String {
    format!(
        "server = \"{scheme}://localhost:{port}\"\nca_file = \"ca.pem\"\nuser = \"jobwatch\"\npassword = {{ file = \"password\" }}\nto = {to}"
    )
}

/// Starts a server, and a world that mails through it.
async fn mailing(kind: &str, scheme: &str, to: &str, reject: &[&str]) -> (World, Server) {
    // The certificate lies in the world's directory, and the configuration needs the server's port.
    let world = world_with("").await;
    let server = Server::start(&world, kind, reject).await;
    let config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    world.write("jobwatch.toml", &format!("{config}{}\n", keys(scheme, server.port, to)));
    (world, server)
}

#[tokio::test]
async fn a_mail_over_starttls_is_well_formed_whatever_the_job_is_called() {
    let (world, mut server) = mailing("starttls", "smtp", "[\"oncall@example.org\"]", &[]).await;
    let _service = world.watched().await;
    let mut hostile = failed(
        "a",
        1,
        "failed to select cce cluster\r\nBcc: everybody@example.org\r\n\r\n<script>alert(1)</script> 夜间\n.\nQUIT",
    );
    hostile.resource_name = Some("prod\r\nX-Injected: yes\r\n\r\nboo".into());
    world.swr.set_jobs(vec![hostile]);
    let mail = server.line().await;
    assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &true.into()));
    assert_eq!(mail["to"], serde_json::json!(["oncall@example.org"]));
    assert_eq!(mail["defects"], serde_json::json!([]));
    assert_eq!(mail["structure"], serde_json::json!(["multipart/alternative", "text/plain", "text/html"]));
    assert!(mail["longest_line"].as_u64().unwrap() <= 998);
    let names: Vec<&str> = mail["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for once in ["from", "to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version", "list-id"]
    {
        assert_eq!(names.iter().filter(|name| **name == once).count(), 1, "{once} in {names:?}");
    }
    assert!(!names.contains(&"bcc") && !names.contains(&"x-injected"), "{names:?}");
    let header = |name: &str| mail["headers"][name].as_str().unwrap();
    assert_eq!(header("auto-submitted"), "auto-generated");
    assert!(header("date").ends_with(" +0000"), "{}", header("date"));
    assert!(header("message-id").starts_with("<msg_") && header("message-id").ends_with("@example.org>"));
    assert!(header("references").starts_with("<thread_"));
    let text = mail["parts"]["text/plain"].as_str().unwrap();
    assert!(text.starts_with("FAILED: ") && text.contains("failed to select cce cluster"), "{text}");
    let html = mail["parts"]["text/html"].as_str().unwrap();
    assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "{html}");
    assert!(html.contains("夜间"));
}

#[tokio::test]
async fn a_mail_over_tls_from_the_start_arrives_and_all_about_one_job_is_one_thread() {
    let (world, mut server) = mailing("tls", "smtps", "[\"oncall@example.org\"]", &[]).await;
    let _service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "once")]);
    let first = server.line().await;
    world.swr.set_jobs(vec![failed("a", 1, "once"), failed("b", 1, "other")]);
    let other = server.line().await;
    world.swr.set_jobs(vec![job("a", "Running", 2), failed("b", 1, "other")]);
    let requests = world.swr.requests();
    while world.swr.requests() < requests + 3 {
        tokio::task::yield_now().await;
    }
    world.swr.set_jobs(vec![failed("a", 3, "twice"), failed("b", 1, "other")]);
    let second = server.line().await;
    let header = |mail: &Value, name: &str| mail["headers"][name].as_str().unwrap().to_owned();
    assert_eq!(header(&first, "references"), header(&second, "references"));
    assert_eq!(header(&first, "subject"), header(&second, "subject"));
    assert_ne!(header(&first, "references"), header(&other, "references"));
    assert_ne!(header(&first, "message-id"), header(&second, "message-id"));
}

#[tokio::test]
async fn a_batch_goes_over_one_connection() {
    let (world, mut server) = mailing("starttls", "smtp", "[\"a@example.org\", \"b@example.org\"]", &[]).await;
    let _service = world.watched().await;
    world.swr.set_jobs((0..5).map(|n| failed(&format!("j{n}"), 1, "x")).collect());
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let mail = server.line().await;
        assert_eq!((&mail["connection"], mail["to"].as_array().unwrap().len()), (&1.into(), 1), "one message a person");
        ids.insert(mail["headers"]["message-id"].to_string());
    }
    assert_eq!(ids.len(), 10);
}

#[tokio::test]
async fn one_bad_recipient_costs_the_other_nothing_and_nobody_is_mailed_twice() {
    let to = "[\"gone@example.org\", \"here@example.org\"]\nretry = { first = \"100ms\", max = \"200ms\" }";
    let (world, mut server) = mailing("starttls", "smtp", to, &["gone@example.org"]).await;
    let mut service = world.watched_closely().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    assert_eq!(server.line().await["to"], serde_json::json!(["here@example.org"]));
    let line = service.logged("refused").await;
    assert!(line.contains("gone@example.org") && line.contains("550"), "{line}");
    let (list, _) = said(&world.jobwatch(&["deliveries", "list", "--receiver", "mail", "--format", "json"]).await);
    let id = serde_json::from_str::<Value>(&list).unwrap()[0]["id"].as_str().unwrap().to_owned();
    world.jobwatch(&["deliveries", "retry", &id]).await;
    service.logged_times("refused", 2).await;
    // The next line the server prints is about another job: `here` was not sent the first once more.
    world.swr.set_jobs(vec![failed("a", 1, "x"), failed("b", 1, "y")]);
    let next = server.line().await;
    assert!(next["headers"]["subject"].as_str().unwrap().contains("instance-b"), "{next}");
}

#[tokio::test]
async fn a_server_without_starttls_gets_neither_the_mail_nor_the_password() {
    let (world, mut server) = mailing("plain", "smtp", "[\"oncall@example.org\"]", &[]).await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    service.logged("refused").await;
    let _ = service.logged("receiver=\"ops\"").await;
    assert!(!service.log().contains("canary-password"));
    let quiet = tokio::time::timeout(std::time::Duration::ZERO, server.lines.next_line()).await;
    assert!(quiet.is_err(), "the server was told something: {quiet:?}");
}

#[tokio::test]
async fn a_server_with_a_certificate_that_nobody_vouches_for_gets_nothing() {
    let (world, mut server) = mailing("starttls", "smtp", "[\"oncall@example.org\"]", &[]).await;
    world.write("ca.pem", &certificate().0);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("not delivered").await;
    assert!(line.to_lowercase().contains("certificate"), "{line}");
    let quiet = tokio::time::timeout(std::time::Duration::ZERO, server.lines.next_line()).await;
    assert!(quiet.is_err(), "the server was told something: {quiet:?}");
}

#[tokio::test]
async fn a_wrong_password_is_a_refusal_that_names_no_password() {
    let (world, _server) = mailing("starttls", "smtp", "[\"oncall@example.org\"]", &[]).await;
    world.write("password", "canary-wrong-password");
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("refused").await;
    assert!(line.contains("535") && !service.log().contains("canary-wrong-password"), "{line}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_left_in_time() {
    let (listener, address) = bind().await;
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&held);
    beside(async move {
        while let Ok((stream, _)) = listener.accept().await {
            kept.lock().unwrap().push(stream);
        }
    });
    let world =
        world_with(&format!("server = \"smtp+plain://{address}\"\nto = [\"oncall@example.org\"]\ntimeout = \"1s\""))
            .await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("not delivered").await;
    assert!(line.contains("oncall@example.org"), "{line}");
}

#[tokio::test]
async fn greylisting_is_waited_out() {
    let world = World::new().await;
    world.write("rules/failed.toml", &rule("failed", "Failed", "ops"));
    world.mailbox.answer_data_with(Some("451 4.7.1 greylisted, come back later"));
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    service.logged("greylisted").await;
    let (list, _) = said(&world.jobwatch(&["deliveries", "list", "--format", "json"]).await);
    let row = &serde_json::from_str::<Value>(&list).unwrap()[0];
    let at = |name: &str| jobwatch::model::time::Timestamp::parse(row[name].as_str().unwrap()).unwrap();
    assert!(at("due_at").since(at("created_at")).as_secs() >= 60, "{row}");
}

#[tokio::test]
async fn a_server_that_breaks_off_at_any_stage_costs_no_mail_and_doubles_none() {
    let server = MailServer::new().await;
    server.offers(&["AUTH LOGIN"]);
    let to = "[\"a@example.org\", \"b@example.org\"]\nretry = { first = \"100ms\", max = \"200ms\" }";
    let world = world_with(&keys("smtp", server.port.into(), to)).await;
    world.write("ca.pem", &server.certificate);
    let mut service = world.watched_closely().await;
    let (mut jobs, mut failures) = (Vec::new(), 0);
    for (at, does) in [
        (Stage::Handshake, Does::Close),
        (Stage::Login, Does::Say("454 later")),
        (Stage::Recipient, Does::Close),
        (Stage::Data, Does::Say("421 4.3.2 closing")),
        (Stage::Message, Does::EndlessLine),
    ] {
        server.does(at, does);
        server.hangs_up();
        jobs.push(failed(&format!("job-{at:?}"), 1, "x"));
        world.swr.set_jobs(jobs.clone());
        service.logged_times("not delivered", failures + 1).await;
        server.mends();
        service.logged_times("delivered receiver=\"mail\"", jobs.len()).await;
        failures = service.log().matches("not delivered").count();
    }
    let mut kept: Vec<_> =
        server.heard(|heard| heard.kept.iter().map(|(to, mail)| (to.clone(), subject(mail))).collect());
    kept.sort();
    let mut whole = kept.clone();
    whole.dedup();
    assert_eq!((kept.len(), whole), (2 * jobs.len(), kept.clone()), "everybody has everything once");
    let clear = server.heard(|heard| heard.clear.clone());
    assert!(clear.iter().all(|line| line.starts_with("EHLO ") || line == "STARTTLS"), "{clear:?}");
}

fn subject(mail: &str) -> String {
    mail.lines().find(|line| line.starts_with("Subject: ")).unwrap_or_default().to_owned()
}
