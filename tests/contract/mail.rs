//! E-mail and servers of every kind: what they may do at each stage, and what comes of it for each recipient.

use std::time::Duration;

use futures_util::future::join_all;
use jobwatch::agent::ReceiverSetup;
use jobwatch::config::{self, Purpose};
use jobwatch::model::delivery::{Claimed, Outcome};
use serde_json::Value;
use tempfile::TempDir;

use crate::mail_server::{Does, MailServer, STAGES, Stage};
use crate::said::{self, NOW};

const PASSWORD: &str = "canary p@ss";
/// `NUL jobwatch NUL canary p@ss`.
const PLAIN: &str = "AGpvYndhdGNoAGNhbmFyeSBwQHNz";
const TWO: &str = "[\"a@example.org\", \"b@example.org\"]";

/// A receiver that mails to these, and the directory of its configuration.
fn mailing(server: &MailServer, to: &str, more: &str) -> (ReceiverSetup, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    std::fs::write(directory.path().join("ca.pem"), &server.certificate).unwrap();
    std::fs::write(directory.path().join("password"), PASSWORD).unwrap();
    let user = if more.contains("user =") { "" } else { "user = \"jobwatch\"\n" };
    let timeout = if more.contains("timeout =") { "" } else { "timeout = \"30s\"\n" };
    let text = format!(
        "[agent]\nnotify = [\"it\"]\n[receiver.it]\nkind = \"email\"\nserver = \"smtp://localhost:{}\"\nca_file = \"ca.pem\"\n\
         {user}{timeout}password = {{ file = \"password\" }}\nfrom = \"jobwatch <jobwatch@example.org>\"\nto = {to}\n{more}\n\
         [[source]]\nname = \"s\"\nkind = \"swr\"\nendpoint = \"http://127.0.0.1:1\"\nproject_id = \"p\"\n\
         credentials = {{ kind = \"ak_sk\", access_key = {{ file = \"password\" }}, secret_key = {{ file = \"password\" }} }}\n",
        server.port
    );
    std::fs::write(&path, text).unwrap();
    let (config, report) = config::load(&path, Purpose::Run);
    let lines: Vec<String> = report.lines().collect();
    (config.unwrap_or_else(|| panic!("{lines:#?}")).receivers.remove("it").unwrap(), directory)
}

fn claimed(setup: &ReceiverSetup, reason: &str) -> Claimed {
    crate::claimed(setup, &said::failed(reason))
}

/// One message to these, over a server that does this there.
async fn attempt(to: &str, at: Stage, does: Does) -> (Outcome, MailServer) {
    let server = MailServer::new().await;
    server.does(at, does);
    let (setup, _directory) = mailing(&server, to, "");
    let sent = setup.receiver.send(&claimed(&setup, "x"), NOW).await;
    (sent.outcome, server)
}

fn why(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Accepted { note } => note,
        Outcome::Refused { why } | Outcome::Retired { why } | Outcome::Unreachable { why, .. } => why,
    }
}

fn recipients(server: &MailServer) -> Vec<String> {
    server.heard(|heard| heard.kept.iter().map(|(to, _)| to.clone()).collect())
}

/// A server misbehaves, comes to its senses, and is tried again.
async fn misbehaviour(at: Stage, does: Does) {
    let what = format!("{at:?}, {does:?}");
    let server = MailServer::new().await;
    server.does(at, does);
    let timeout = if does == Does::Hang { "timeout = \"1s\"" } else { "" };
    let (setup, _directory) = mailing(&server, TWO, timeout);
    let mut claimed = claimed(&setup, "quota 17 exceeded");
    let sent = tokio::time::timeout(Duration::from_secs(20), setup.receiver.send(&claimed, NOW)).await;
    let sent = sent.unwrap_or_else(|_| panic!("{what}: no end"));
    let refused = matches!(does, Does::Say(text) if text.starts_with('5') && at != Stage::Handshake);
    let as_expected = match refused {
        true => matches!(sent.outcome, Outcome::Refused { .. }),
        false => matches!(sent.outcome, Outcome::Unreachable { .. }),
    };
    assert!(as_expected, "{what}: {:?}", sent.outcome);
    assert_eq!(sent.progress, Vec::<String>::new(), "{what}");
    assert!(!why(&sent.outcome).contains(PASSWORD) && !why(&sent.outcome).is_empty(), "{what}: {}", why(&sent.outcome));

    server.mends();
    let (setup, _directory) = if does == Does::Hang { mailing(&server, TWO, "") } else { (setup, _directory) };
    claimed.progress = sent.progress;
    let again = setup.receiver.send(&claimed, NOW).await;
    assert!(matches!(again.outcome, Outcome::Accepted { .. }), "{what}: {:?}", again.outcome);
    assert_eq!((again.progress.len(), recipients(&server)), (2, vec!["a@example.org".into(), "b@example.org".into()]));
    // Nobody is left, and nobody gets it twice.
    claimed.progress = again.progress;
    assert!(matches!(setup.receiver.send(&claimed, NOW).await.outcome, Outcome::Accepted { .. }), "{what}");
    assert_eq!(recipients(&server).len(), 2, "{what}");

    let clear = server.heard(|heard| heard.clear.clone());
    let harmless = |line: &String| line.starts_with("EHLO ") || line == "STARTTLS";
    assert!(clear.iter().all(harmless), "{what}: in clear text: {clear:?}");
}

#[tokio::test]
async fn whatever_a_server_does_at_any_stage_nothing_is_lost_told_twice_or_said_in_clear_text() {
    let mut stories = Vec::new();
    for at in STAGES {
        let wrong = if *at == Stage::Data { "250 ok" } else { "354 go on" };
        for does in [
            Does::Close,
            Does::Hang,
            Does::Say("421 4.3.2 closing"),
            Does::Say("451 4.3.0 later"),
            Does::Say("554 5.7.1 no"),
            Does::Say("554-5.7.1 no,\r\n554 5.7.1 never"),
            Does::Say("hello there"),
            Does::Say("250-a\r\n550 b"),
            Does::Say("\0\u{7f}\u{fffd}"),
            Does::Say("2"),
            Does::Say(wrong),
            Does::EndlessLines,
            Does::EndlessLine,
        ] {
            stories.push(misbehaviour(*at, does));
        }
    }
    join_all(stories).await;
}

#[tokio::test]
async fn what_is_said_before_the_handshake_is_not_believed_after_it() {
    let injected = "250-localhost\r\n250 AUTH PLAIN\r\n235 welcome\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 kept";
    let (outcome, server) = attempt(TWO, Stage::StartTls, Does::Add(injected)).await;
    assert!(
        matches!(&outcome, Outcome::Unreachable { why, .. } if why.contains("before the handshake")),
        "{outcome:?}"
    );
    assert_eq!(server.heard(|heard| heard.secured.clone()), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_too_many_is_not_taken_for_the_next() {
    for at in [Stage::SecondHello, Stage::Login, Stage::Sender, Stage::Recipient] {
        let (outcome, server) = attempt(TWO, at, Does::Add("250 2.0.0 kept\r\n354 go on\r\n250 2.0.0 kept")).await;
        assert!(matches!(&outcome, Outcome::Unreachable { why, .. } if why.contains("unasked")), "{at:?}: {outcome:?}");
        assert_eq!(recipients(&server), Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_answer_decides_by_its_code_and_its_stage() {
    let minutes = |minutes: u64| Some(Some(Duration::from_secs(60 * minutes)));
    // `None`: refused. `Some`: tried again, and how long it is left alone.
    for (at, says, expected) in [
        (Stage::Greeting, "554 no service here", None),
        (Stage::Greeting, "421 too many connections", Some(None)),
        (Stage::Login, "454 4.7.0 temporary failure", minutes(1)),
        (Stage::Login, "432 4.7.12 password transition needed", minutes(1)),
        (Stage::Login, "535 5.7.8 bad credentials", None),
        (Stage::Login, "534 5.7.9 too weak", None),
        (Stage::Sender, "530 5.7.0 authentication required", None),
        (Stage::Sender, "452 4.3.1 no space", Some(None)),
        (Stage::Sender, "552 5.3.4 too big", None),
        (Stage::Sender, "555 5.5.4 parameter", None),
        (Stage::Recipient, "450 4.7.1 greylisted", minutes(1)),
        (Stage::Recipient, "450-4.7.1 greylisted,\r\n450 4.7.1 come back", minutes(1)),
        (Stage::Recipient, "451 greylisted", minutes(1)),
        (Stage::Recipient, "452 4.5.3 too many recipients", Some(None)),
        (Stage::Recipient, "552 5.5.3 too many recipients", Some(None)),
        (Stage::Recipient, "452 4.2.2 mailbox full", minutes(15)),
        (Stage::Recipient, "550 5.1.1 no such user", None),
        // The code decides, not what explains it.
        (Stage::Recipient, "550 4.7.1 both", None),
        (Stage::Recipient, "551 5.1.6 moved", None),
        (Stage::Recipient, "556 5.1.10 null mx", None),
        (Stage::Data, "554 5.5.1 no valid recipients", None),
        (Stage::Message, "451 4.7.1 greylisted", minutes(1)),
        (Stage::Message, "552 5.2.2 over quota", None),
        (Stage::Message, "554 5.7.1 looks like spam", None),
    ] {
        let (outcome, server) = attempt("\"a@example.org\"", at, Does::Say(says)).await;
        let got = match &outcome {
            Outcome::Accepted { .. } => panic!("{at:?} {says}"),
            Outcome::Refused { .. } | Outcome::Retired { .. } => None,
            Outcome::Unreachable { retry_after, .. } => Some(*retry_after),
        };
        assert_eq!(got, expected, "{at:?} {says}: {outcome:?}");
        assert!(why(&outcome).contains(&says[..3]), "{says}: {outcome:?}");
        assert_eq!(server.heard(|heard| heard.connections), 1, "{says}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_whoever_is_to_be_told() {
    let (outcome, server) = attempt(TWO, Stage::Login, Does::Say("535 5.7.8 bad credentials")).await;
    let name = format!("localhost:{}", server.port);
    let expected = format!("{name}: AUTH: 535 5.7.8 bad credentials (check `user`, `password` and `auth`)");
    assert_eq!(outcome, Outcome::Refused { why: expected });
    assert_eq!(server.heard(|heard| heard.secured.iter().filter(|line| line.starts_with("AUTH")).count()), 1);
}

#[tokio::test]
async fn a_server_that_repeats_the_password_does_not_bring_it_into_the_log() {
    for does in [Does::Echo("500 5.5.2 not understood:"), Does::Echo("what is")] {
        for auth in ["", "auth = \"login\"", "auth = \"xoauth2\""] {
            let server = MailServer::new().await;
            server.does(Stage::Login, does);
            let (setup, _directory) = mailing(&server, TWO, auth);
            let outcome = setup.receiver.send(&claimed(&setup, "x"), NOW).await.outcome;
            let said =
                server.heard(|heard| heard.secured.iter().find(|line| line.starts_with("AUTH")).cloned().unwrap());
            let secret = said.split(' ').nth(2).unwrap_or(PLAIN);
            assert!(!why(&outcome).contains(secret) && !why(&outcome).contains(PASSWORD), "{auth}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn bad_addresses_cost_the_others_nothing_and_all_are_named() {
    let server = MailServer::new().await;
    server.refuses("gone@example.org", "550 5.1.1 no such user");
    server.refuses("full@example.org", "452 4.2.2 mailbox full");
    let to = "[\"gone@example.org\", \"a@example.org\", \"full@example.org\", \"b@example.org\"]";
    let (setup, _directory) = mailing(&server, to, "");
    let sent = setup.receiver.send(&claimed(&setup, "x"), NOW).await;
    let why = "full@example.org: RCPT TO: 452 4.2.2 mailbox full; gone@example.org: RCPT TO: 550 5.1.1 no such user";
    let retry_after = Some(Duration::from_secs(15 * 60));
    assert_eq!(sent.outcome, Outcome::Unreachable { why: why.into(), retry_after });
    assert_eq!(sent.progress, ["a@example.org", "b@example.org"]);
    assert_eq!((recipients(&server), server.heard(|heard| heard.connections)), (sent.progress, 1));
}

#[tokio::test]
async fn an_address_that_keeps_the_server_silent_does_not_hold_up_the_others_for_ever() {
    let server = MailServer::new().await;
    server.refuses("slow@example.org", "");
    let to = "[\"slow@example.org\", \"a@example.org\", \"b@example.org\"]";
    let (setup, _directory) = mailing(&server, to, "timeout = \"1s\"");
    let first = claimed(&setup, "x");
    let sent = setup.receiver.send(&first, NOW).await;
    assert!(why(&sent.outcome).contains("slow@example.org: no answer in time"), "{:?}", sent.outcome);
    let second = Claimed { tries: 1, progress: sent.progress, ..first };
    let sent = setup.receiver.send(&second, NOW).await;
    assert!(why(&sent.outcome).contains("slow@example.org: no answer in time"), "{:?}", sent.outcome);
    assert_eq!((recipients(&server), sent.progress.len()), (sent.progress, 2));
}

#[tokio::test]
async fn a_connection_that_died_unnoticed_costs_nothing() {
    let server = MailServer::new().await;
    let (setup, _directory) = mailing(&server, "\"a@example.org\"", "");
    for n in 1..=3 {
        let sent = setup.receiver.send(&claimed(&setup, "x"), NOW).await;
        assert!(matches!(sent.outcome, Outcome::Accepted { .. }), "{:?}", sent.outcome);
        assert_eq!((recipients(&server).len(), server.heard(|heard| heard.connections)), (n, n));
        server.hangs_up();
    }
}

/// What is said for a login of a vector, with the keys, the user and the password that lead to it; `None` for a mechanism
/// that is not spoken.
fn login(vector: &Value) -> Option<(&'static str, &str, &str, Vec<String>)> {
    let text = |name: &str| vector[name].as_str().unwrap_or_default();
    match text("mechanism") {
        "PLAIN" => {
            let said = format!("AUTH PLAIN {}", text("initial_response"));
            Some(("", vector["authcid"].as_str()?, vector["password"].as_str()?, vec![said]))
        }
        "LOGIN" => {
            let said = ["AUTH LOGIN", text("user_response"), text("password_response")].map(ToOwned::to_owned);
            Some(("auth = \"login\"", "robot@example.com", "p@ss w0rd", said.to_vec()))
        }
        "XOAUTH2" => {
            let said = format!("AUTH XOAUTH2 {}", text("initial_response"));
            Some(("auth = \"xoauth2\"", vector["user"].as_str()?, vector["token"].as_str()?, vec![said]))
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_login_is_said_as_its_mechanism_has_it() {
    let file: Value = serde_json::from_str(include_str!("../fixtures/smtp-logins.json")).unwrap();
    let mut logins: Vec<_> = file["vectors"].as_array().unwrap().iter().filter_map(login).collect();
    assert_eq!(logins.len(), 3);
    logins.push(("auth = \"plain\"", "jobwatch", PASSWORD, vec![format!("AUTH PLAIN {PLAIN}")]));
    for (auth, user, password, said) in logins {
        let server = MailServer::new().await;
        let (setup, directory) = mailing(&server, "\"a@example.org\"", &format!("user = \"{user}\"\n{auth}"));
        // A token is renewed while the agent runs.
        std::fs::write(directory.path().join("password"), format!("{password}\n")).unwrap();
        let sent = setup.receiver.send(&claimed(&setup, "x"), NOW).await;
        assert!(matches!(sent.outcome, Outcome::Accepted { .. }), "{:?}", sent.outcome);
        let heard = server.heard(|heard| heard.secured.clone());
        assert_eq!(heard[1..=said.len()], said, "{auth}");
    }
}

#[tokio::test]
async fn a_refused_token_is_answered_as_the_mechanism_wants_it() {
    let server = MailServer::new().await;
    server.does(Stage::Login, Does::Say("334 eyJzdGF0dXMiOiI0MDEifQ=="));
    let (setup, _directory) = mailing(&server, TWO, "auth = \"xoauth2\"");
    let sent = setup.receiver.send(&claimed(&setup, "x"), NOW).await;
    // The empty line is no command to this server.
    assert!(why(&sent.outcome).contains("AUTH: 500 5.5.1 what?"), "{:?}", sent.outcome);
    assert_eq!(server.heard(|heard| heard.secured.last().cloned()), Some(String::new()));
}

#[tokio::test]
async fn what_a_server_does_not_offer_is_not_asked_of_it() {
    let sender = |server: &MailServer| {
        server.heard(|heard| heard.secured.iter().find(|line| line.starts_with("MAIL")).cloned().unwrap_or_default())
    };
    for (offers, to, expected) in [
        (&["AUTH PLAIN"][..], "a@example.org", Ok("MAIL FROM:<jobwatch@example.org>")),
        (&["auth=plain", "size"], "a@example.org", Ok("MAIL FROM:<jobwatch@example.org> SIZE=")),
        (&["AUTH PLAIN", "SIZE 0"], "a@example.org", Ok("MAIL FROM:<jobwatch@example.org> SIZE=")),
        (&["AUTH PLAIN", "SIZE 100"], "a@example.org", Err("the server takes 100 (SIZE)")),
        (
            &["AUTH PLAIN", "SMTPUTF8", "8BITMIME"],
            "夜@example.org",
            Ok("MAIL FROM:<jobwatch@example.org> SMTPUTF8 BODY=8BITMIME"),
        ),
        (&["AUTH PLAIN"], "夜@example.org", Err("SMTPUTF8")),
        // A domain has a form that everybody understands.
        (&["AUTH PLAIN"], "a@bücher.example", Ok("MAIL FROM:<jobwatch@example.org>")),
        (&["AUTH GSSAPI CRAM-MD5"], "a@example.org", Err("it offers GSSAPI CRAM-MD5")),
        (&[], "a@example.org", Err("it offers none")),
    ] {
        let server = MailServer::new().await;
        server.offers(offers);
        let (setup, _directory) = mailing(&server, &format!("\"{to}\""), "");
        let outcome = setup.receiver.send(&claimed(&setup, "x"), NOW).await.outcome;
        match (expected, &outcome) {
            (Ok(line), Outcome::Accepted { .. }) => assert!(sender(&server).starts_with(line), "{}", sender(&server)),
            (Err(words), Outcome::Refused { why }) => {
                assert!(why.contains(words), "{why}");
                assert_eq!(sender(&server), "");
            }
            (_, other) => panic!("{offers:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_offers_what_it_has_not_is_told_on() {
    // It says AUTH, SMTPUTF8 and SIZE, and knows none of them.
    for (at, says) in
        [(Stage::Login, "502 5.5.1 not implemented"), (Stage::Sender, "555 5.5.4 SMTPUTF8 and SIZE are unknown")]
    {
        let server = MailServer::new().await;
        server.offers(&["AUTH PLAIN", "SMTPUTF8", "8BITMIME", "SIZE"]);
        server.does(at, Does::Say(says));
        let (setup, _directory) = mailing(&server, "\"夜@example.org\"", "");
        let outcome = setup.receiver.send(&claimed(&setup, "x"), NOW).await.outcome;
        assert!(matches!(&outcome, Outcome::Refused { why } if why.contains(says)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_dot_at_the_beginning_of_a_line_arrives() {
    let server = MailServer::new().await;
    let (setup, _directory) = mailing(&server, "\"a@example.org\"", "");
    let reason = ".".repeat(300);
    setup.receiver.send(&claimed(&setup, &reason), NOW).await;
    let mail = server.heard(|heard| heard.kept[0].1.clone());
    assert!(mail.lines().any(|line| line.starts_with("..")), "{mail}");
    let parsed = mail_parser::MessageParser::default().parse(mail.as_bytes()).unwrap();
    let text = parsed.body_text(0).unwrap();
    assert!(text.contains(&format!("Reason: {reason}\n")), "{text}");
}
