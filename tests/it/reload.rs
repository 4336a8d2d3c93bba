//! Reading the rules anew, at each of the four doors; and the admin interface that one of them belongs to.

use std::net::SocketAddr;

use mail_parser::MessageParser;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{Service, World, bind, failed, job, rule, said, soon};

/// Rules with two mistakes.
const BAD: &str = "schema = 1\n[[rule]]\nid = \"failed\"\nwhen = { to = \"Faild\" }\nnotify = [\"nobody\"]\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Signal,
    Command,
    Http,
    Watch,
}

/// A world whose configuration has an admin interface, and these keys of `[agent]` and `[admin]`.
pub(crate) async fn world_with(agent: &str, admin: &str) -> World {
    let world = World::new().await;
    let config = world.config("poll_every = \"100ms\"", "").replace("[agent]", &format!("[agent]\n{agent}"));
    world.write("jobwatch.toml", &format!("{config}\n[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n"));
    world
}

/// Where the admin interface listens.
pub(crate) async fn address(service: &mut Service) -> SocketAddr {
    let line = service.logged("the admin interface listens").await;
    line.split_once("address=").unwrap().1.trim().parse().unwrap()
}

/// One request with these lines after the first; status, head and body of the answer.
pub(crate) async fn ask(to: SocketAddr, request: &str, lines: &[&str]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("{request} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    let mut answer = String::new();
    let talk = async {
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
    };
    soon("an answer of the admin interface", talk).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn metric(admin: SocketAddr, name: &str) -> f64 {
    let (status, _, text) = ask(admin, "GET /metrics", &["host: localhost"]).await;
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

const SUCCESSFUL: &str = "jobwatch_config_last_reload_successful ";
const SUCCESS_AT: &str = "jobwatch_config_last_reload_success_timestamp_seconds ";

impl Door {
    /// Asks for bad rules to be read, and looks at the answer.
    async fn is_refused(self, world: &World, service: &mut Service, admin: SocketAddr, times: usize) {
        match self {
            Self::Signal => service.signal("HUP"),
            Self::Watch => {}
            Self::Command => {
                let output = world.jobwatch(&["reload"]).await;
                let (out, errors) = said(&output);
                assert_eq!((output.status.code(), out.as_str()), (Some(3), ""), "{errors}");
                for words in [
                    "unknown status `Faild`",
                    "did you mean `Failed`?",
                    "rules/failed.toml:4:15",
                    "there is no receiver `nobody`",
                    "the old ones stay in force",
                ] {
                    assert!(errors.contains(words), "{words} is not in {errors}");
                }
                assert!(!errors.contains('\u{1b}'), "{errors}");
            }
            Self::Http => {
                let (status, _, body) = ask(admin, "POST /-/reload", &["host: localhost", "content-length: 0"]).await;
                let body: Value = serde_json::from_str(&body).unwrap();
                assert_eq!((status, &body["accepted"], &body["errors"]), (422, &false.into(), &2.into()));
                let first = &body["report"][0];
                assert_eq!((&first["line"], &first["level"]), (&4.into(), &"error".into()), "{body}");
            }
        }
        let line = service.logged_times("the old ones stay in force", times).await;
        assert!(line.contains(&format!("by=\"{}\" errors=2", self.name())), "{line}");
    }

    async fn is_accepted(self, world: &World, service: &mut Service, admin: SocketAddr) {
        match self {
            Self::Signal => service.signal("HUP"),
            Self::Watch => {}
            Self::Command => {
                let output = world.jobwatch(&["reload"]).await;
                assert_eq!(output.status.code(), Some(0));
                assert_eq!(said(&output), ("1 rule is in force\n".to_owned(), String::new()));
            }
            Self::Http => {
                let (status, _, body) = ask(admin, "POST /-/reload", &["host: localhost", "content-length: 0"]).await;
                assert_eq!((status, &*body), (200, r#"{"accepted":true,"rules":1,"tests":0,"warnings":[]}"#));
            }
        }
        let line = service.logged("were read anew").await;
        assert!(line.contains(&format!("by=\"{}\" rules=1", self.name())), "{line}");
    }

    fn name(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Command => "jobwatch reload",
            Self::Http => "POST /-/reload",
            Self::Watch => "changed files",
        }
    }
}

/// Bad rules, twice, and then good ones: what is in force, what is measured, and what the operator hears.
async fn story(door: Door) {
    let watch = if door == Door::Watch { "reload = \"watch\"" } else { "" };
    let world = world_with(watch, "").await;
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    assert_eq!(metric(admin, SUCCESSFUL).await, 1.0);
    let started = metric(admin, SUCCESS_AT).await;

    world.write("rules/failed.toml", BAD);
    door.is_refused(&world, &mut service, admin, 1).await;
    for words in ["unknown status `Faild`", "there is no receiver `nobody`"] {
        assert!(service.logged(words).await.contains("ERROR"), "{}", service.log());
    }
    assert_eq!((metric(admin, SUCCESSFUL).await, metric(admin, SUCCESS_AT).await), (0.0, started));
    let told = soon("the operator's e-mail", world.mailbox.next(0)).await;
    if door != Door::Watch {
        door.is_refused(&world, &mut service, admin, 2).await;
    }
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let body: Value = serde_json::from_slice(&soon("the old rule's webhook", world.inbox.next(0)).await.body).unwrap();
    assert_eq!(body["data"]["rule"]["id"], "failed");

    world.write("rules/failed.toml", &rule("ended", "Success", "oncall"));
    door.is_accepted(&world, &mut service, admin).await;
    assert_eq!(metric(admin, SUCCESSFUL).await, 1.0);
    assert!(metric(admin, SUCCESS_AT).await > started);
    world.swr.set_jobs(vec![failed("a", 1, "x"), job("b", "Success", 2)]);
    let body: Value = serde_json::from_slice(&soon("the new rule's webhook", world.inbox.next(1)).await.body).unwrap();
    assert_eq!(body["data"]["rule"]["id"], "ended");

    let over = soon("the end of it", world.mailbox.next(1)).await;
    for (mail, event, words) in [
        (
            told,
            "agent.reload_failed",
            "ERROR: the rules on disk cannot be used: 2 errors\n\nThe rules that were in force",
        ),
        (over, "agent.reload_succeeded", "RESOLVED: the rules on disk can be used again: 1 rule is in force\n"),
    ] {
        let mail = MessageParser::default().parse(mail.data.as_bytes()).unwrap();
        assert_eq!(mail.subject(), Some("[jobwatch] the rules on disk"));
        assert!(mail.header("X-Jobwatch-Event").unwrap().as_text().unwrap().ends_with(event));
        let text = mail.body_text(0).unwrap().replace('\r', "");
        assert!(text.starts_with(words), "{text}");
        let shown = text.contains("failed.toml:4:15: error: unknown status `Faild`") && text.contains("`nobody`");
        assert_eq!(shown, event.ends_with("failed"), "{text}");
    }
    assert_eq!(world.mailbox.mails().len(), 2, "each is told once");
}

#[tokio::test]
async fn sighup_with_bad_rules_changes_nothing_and_is_told_and_with_good_ones_they_are_in_force() {
    story(Door::Signal).await;
}

#[tokio::test]
async fn the_reload_command_prints_the_errors_of_bad_rules_and_ends_with_3_and_good_ones_are_in_force() {
    story(Door::Command).await;
}

#[tokio::test]
async fn the_reload_post_answers_422_with_the_errors_of_bad_rules_and_good_ones_are_in_force() {
    story(Door::Http).await;
}

#[tokio::test]
async fn changed_files_are_read_by_themselves_if_that_is_asked_for_and_bad_ones_change_nothing() {
    story(Door::Watch).await;
}

#[tokio::test]
async fn a_message_s_body_in_a_file_of_its_own_is_watched_as_well() {
    let world = world_with("reload = \"watch\"", "").await;
    let text = rule("failed", "Failed", "oncall") + "message = { title = \"t\", body_file = \"body.md\" }\n";
    world.write("rules/failed.toml", &text);
    world.write("rules/body.md", "old words");
    let mut service = world.watched().await;
    world.write("rules/body.md", "new words");
    service.logged("were read anew").await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let body: Value = serde_json::from_slice(&soon("the webhook", world.inbox.next(0)).await.body).unwrap();
    assert_eq!(body["data"]["body"], "new words");
    std::fs::remove_file(world.path("rules/body.md")).unwrap();
    assert!(service.logged("body.md` cannot be read").await.contains("ERROR"));
    service.logged("the old ones stay in force").await;
}

#[tokio::test]
async fn a_reload_that_no_agent_answers_fails_and_is_answered_by_no_later_agent() {
    let world = World::new().await;
    let output = world.jobwatch(&["reload", "--wait", "1"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("there is no state"), "{:?}", said(&output));
    world.watched().await.kill().await;
    let output = world.jobwatch(&["reload", "--wait", "1"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("no agent answered within 1 s"), "{:?}", said(&output));
    let mut service = world.run();
    // The later request is answered, the earlier is not there any more.
    assert_eq!(world.jobwatch(&["reload"]).await.status.code(), Some(0));
    service.logged("were read anew").await;
    assert_eq!(service.log().matches("were read anew").count(), 1);
    world.write("jobwatch.toml", "[agent]\nstat = \"x\"\n");
    assert_eq!(world.jobwatch(&["reload"]).await.status.code(), Some(78), "where the state is cannot be told");
}

#[tokio::test]
async fn two_reloads_at_once_are_two_and_both_are_answered() {
    let world = world_with("", "").await;
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    let post = || ask(admin, "POST /-/reload", &["host: localhost", "content-length: 0"]);
    let (one, two, three) = tokio::join!(world.jobwatch(&["reload"]), post(), post());
    assert_eq!((one.status.code(), two.0, three.0), (Some(0), 200, 200));
    assert_eq!(service.log().matches("were read anew").count(), 3);
}

#[tokio::test]
async fn an_edited_rule_tells_nothing_again_over_reloads_and_restarts_and_speaks_in_its_new_words_from_then_on() {
    let world = World::new().await;
    let stays = "\n[[rule]]\nid = \"stuck\"\nwhen = { stays = \"Running\", for = \"1s\" }\nnotify = [\"oncall\"]\n";
    let only_b = "match = { id = \"b\" }\n";
    let failed_rule = rule("failed", "Failed", "oncall") + "cooldown = \"1h\"\n";
    world.write("rules/failed.toml", &format!("{failed_rule}{stays}{only_b}"));
    world.swr.set_jobs(vec![job("a", "Running", 1), job("b", "Running", 1)]);
    let mut service = world.watched().await;
    let jobs = vec![failed("a", 2, "quota"), job("b", "Running", 1)];
    world.swr.set_jobs(jobs.clone());
    soon("the failure and the stay", world.inbox.reached(2)).await;
    let severe = "severity = \"critical\"\n";
    let message = |title: &str| format!("message = {{ title = \"{title}\" }}\n");
    let edits = [
        format!("{failed_rule}{}{stays}{}", message("failed, anew"), message("stuck, anew")),
        format!("{failed_rule}{severe}{stays}{severe}"),
        format!(
            "{failed_rule}match = {{ reason = {{ contains = \"quota\" }} }}\n{stays}match = {{ id = [\"a\", \"b\"] }}\n"
        ),
        format!("{failed_rule}{}", stays.replace("1s", "2s").replace("\"Running\"", "[\"Running\", \"Creating\"]")),
        failed_rule.clone(),
        format!("{failed_rule}{}{stays}{}", message("failed, anew"), message("stuck, anew")),
    ];
    let polls = async || {
        let requests = world.swr.requests();
        let more = async {
            while world.swr.requests() < requests + 5 {
                tokio::task::yield_now().await;
            }
        };
        soon("five more polls", more).await;
    };
    for edit in &edits {
        world.write("rules/failed.toml", edit);
        assert_eq!(world.jobwatch(&["reload"]).await.status.code(), Some(0), "{}", service.log());
        polls().await;
        service.kill().await;
        service = world.run();
        polls().await;
        assert_eq!(world.inbox.count(), 2, "{edit}\n{}", service.log());
    }
    world.swr.set_jobs([jobs, vec![failed("c", 3, "quota")]].concat());
    let body: Value = serde_json::from_slice(&soon("the new words", world.inbox.next(2)).await.body).unwrap();
    assert_eq!((&body["subject"], &body["data"]["title"]), (&"c".into(), &"failed, anew".into()));
}

#[tokio::test]
async fn the_admin_interface_answers_this_machine_and_nobody_s_web_page() {
    let world = world_with("", "").await;
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    let own = format!("host: {admin}");
    for host in [&own, "host: localhost:9477", "Host: LOCALHOST", "host: [::1]:80", "host: 127.0.0.1"] {
        assert_eq!(ask(admin, "GET /livez", &[host]).await.0, 200, "{host}");
    }
    for hosts in [
        &["host: evil.example"] as &[&str],
        &["host: localhost.evil.example"],
        &["host: 192.0.2.1"],
        &["host: user@localhost"],
        &["host: localhost", "host: evil.example"],
        &["host: "],
        &[],
    ] {
        for request in ["GET /livez", "GET /metrics", "POST /-/reload", "GET /nothing"] {
            let (status, _, body) = ask(admin, request, hosts).await;
            assert_eq!(status, 403, "{request} {hosts:?}");
            assert!(body.starts_with("the Host of this request"), "{body}");
        }
    }
    assert_eq!(ask(admin, "GET http://evil.example/livez", &["host: localhost"]).await.0, 403, "as if to a proxy");
    let post =
        async |lines: &[&str]| ask(admin, "POST /-/reload", &[&[&*own, "content-length: 0"], lines].concat()).await.0;
    for foreign in [
        "origin: http://evil.example",
        "origin: null",
        "origin: http://localhost:1",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ] {
        assert_eq!(post(&[foreign]).await, 403, "{foreign}");
    }
    assert!(!service.log().contains("were read anew"), "{}", service.log());
    assert_eq!(post(&[&format!("origin: http://{admin}"), "sec-fetch-site: same-origin"]).await, 200);

    let (status, head, body) = ask(admin, "GET /livez", &[&own]).await;
    assert_eq!((status, &*body), (200, "every loop turns\n"));
    for line in ["x-content-type-options: nosniff", "content-security-policy: default-src 'none'", "no-store"] {
        assert!(head.contains(line), "{head}");
    }
    let (status, head, text) = ask(admin, "GET /metrics", &[&own, "accept: application/openmetrics-text"]).await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(text.contains(&format!("jobwatch_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (request, lines, status) in [
        ("GET /-/reload", "x: y", 405),
        ("DELETE /metrics", "x: y", 405),
        ("POST /", "content-length: 0", 405),
        ("GET /api/v1/secrets", "x: y", 404),
        ("POST /-/reload", "content-length: 1000000", 413),
    ] {
        assert_eq!(ask(admin, request, &[&own, lines]).await.0, status, "{request}");
    }
    assert_eq!(service.log().matches("were read anew").count(), 1, "a GET changes nothing");
}

#[tokio::test]
async fn with_a_token_only_who_knows_it_may_do_more_than_ask_whether_the_agent_lives() {
    let world = world_with("", "token = { file = \"admin-token\" }").await;
    world.write("admin-token", "canary-admin-token-4711\n");
    let mut service = world.run();
    let admin = address(&mut service).await;
    let known = "authorization: Bearer canary-admin-token-4711";
    for (request, line, status) in [
        ("GET /livez", "x: y", 200),
        ("GET /metrics", "x: y", 401),
        ("GET /metrics", "authorization: Bearer canary-admin-token-4712", 401),
        ("GET /metrics", "authorization: Basic canary-admin-token-4711", 401),
        ("GET /metrics", known, 200),
        ("POST /-/reload", "content-length: 0", 401),
        ("GET /nothing", "x: y", 401),
    ] {
        let (answered, head, _) = ask(admin, request, &["host: localhost", line]).await;
        assert_eq!(answered, status, "{request} {line}");
        assert_eq!(head.contains("www-authenticate: bearer"), status == 401);
    }
    assert_eq!(ask(admin, "POST /-/reload", &["host: localhost", known, "content-length: 0"]).await.0, 200);
    assert!(!service.log().contains("canary-admin-token"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_at_the_start() {
    let world = World::new().await;
    let (_taken, address) = bind().await;
    let config = world.config("", "") + &format!("\n[admin]\nlisten = \"{address}\"\n");
    world.write("jobwatch.toml", &config);
    let mut service = world.run();
    assert_eq!(service.ended().await.code(), Some(1));
    service.logged(&format!("[admin] listen: {address} cannot be bound: Address already in use")).await;
}

#[tokio::test]
async fn connections_that_say_nothing_neither_lock_others_out_nor_keep_the_service_from_stopping() {
    let world = world_with("", "").await;
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(admin).await.unwrap());
    }
    // As many as may be open at once are; they have ten seconds to say something.
    assert_eq!(ask(admin, "GET /livez", &["host: localhost"]).await.0, 200);
    for _ in 0..10 {
        silent.push(TcpStream::connect(admin).await.unwrap());
    }
    service.signal("TERM");
    assert!(service.ended().await.success(), "{}", service.log());
}
