//! What every receiver kind must do, whatever it speaks: one table, one set of stories. A kind that posts has a row in
//! [`kinds::ROWS`]; a test fails when one has none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

mod far_end;
mod kinds;
mod mail;
mod mail_server;
mod said;

use std::time::Duration;

use far_end::{FarEnd, Says};
use jobwatch::agent::ReceiverSetup;
use jobwatch::config::{self, Purpose};
use jobwatch::deliver::KINDS;
use jobwatch::model::delivery::{Claimed, Frozen, Outcome, Owed};
use kinds::{CANARY, ROWS, Row};
use said::NOW;

/// The receiver of a row, posting to `url`.
fn setup(row: &Row, url: &str, more: &str) -> Result<ReceiverSetup, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    let table = row.table.replace("{url}", url);
    let text = format!(
        "[agent]\nallow_inline_secrets = true\nnotify = [\"it\"]\n[receiver.it]\nkind = \"{}\"\n\
         allow_targets = [\"127.0.0.1\"]\ntimeout = \"1s\"\n{table}{more}\n\
         [[source]]\nname = \"s\"\nkind = \"swr\"\nendpoint = \"http://127.0.0.1:1\"\nproject_id = \"p\"\n\
         credentials = {{ kind = \"token\", token = \"t\" }}\n",
        row.kind
    );
    std::fs::write(&path, text).unwrap();
    let (config, report) = config::load(&path, Purpose::Run);
    let lines: Vec<String> = report.lines().collect();
    if report.has_errors() {
        return Err(lines);
    }
    Ok(config.unwrap().receivers.remove("it").unwrap())
}

fn claimed(setup: &ReceiverSetup, owed: &Owed) -> Claimed {
    let frozen = Frozen {
        id: owed.id.clone(),
        receiver: owed.receiver.clone(),
        lane: owed.lane.clone(),
        event: owed.notification.event.as_str().to_owned(),
        title: owed.notification.title.clone(),
        created_at: NOW,
        payload: setup.receiver.freeze(owed),
    };
    Claimed { frozen, budget_from: NOW, tries: 0, refused_since: None, progress: Vec::new(), token: 0 }
}

/// One attempt at one failed job, to a far end that says this; what came of it, and how many requests were made.
async fn attempt(row: &Row, says: Says) -> (Outcome, FarEnd) {
    let far_end = FarEnd::new(says).await;
    let setup = setup(row, &far_end.url(), "").unwrap();
    let sent = setup.receiver.send(&claimed(&setup, &said::failed("quota 17 exceeded")), NOW).await;
    (sent.outcome, far_end)
}

#[test]
fn every_kind_that_posts_has_a_row() {
    // Mail has stories of its own, with a real mail server.
    let apart = ["email", "maildir"];
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).filter(|name| !apart.contains(name)).collect();
    let mut rows: Vec<&str> = ROWS.iter().map(|row| row.kind).collect();
    rows.dedup();
    assert_eq!(rows, kinds);
}

#[test]
fn an_example_is_read_and_a_misspelt_key_is_named_with_the_right_one() {
    for row in ROWS {
        setup(row, "https://example.org/x", "").unwrap_or_else(|lines| panic!("{}: {lines:?}", row.kind));
        for line in row.table.lines().filter(|line| line.contains(" = ")) {
            let (key, value) = line.split_once(" = ").unwrap();
            let misspelt = format!("{}{} = {value}", key, key.chars().last().unwrap());
            let table = row.table.replace(line, &misspelt).leak();
            let lines = setup(&Row { table, ..*row }, "https://example.org/x", "").err().unwrap_or_default();
            let named = lines.iter().any(|line| line.contains(&format!("did you mean `{key}`?")));
            assert!(named, "{}: {misspelt}: {lines:?}", row.kind);
        }
    }
}

#[tokio::test]
async fn what_is_accepted_is_delivered_with_one_request() {
    for row in ROWS {
        let (status, body) = row.accepts;
        let (outcome, far_end) = attempt(row, Says::answer(status, body)).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{}: {outcome:?}", row.kind);
        assert_eq!(far_end.requests().len(), 1, "{}", row.kind);
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_and_what_may_help_later_is_tried_again() {
    let everywhere_refused = [(400, "bad"), (401, ""), (403, "no"), (404, ""), (413, ""), (422, "{}")];
    let everywhere_later =
        [(408, ""), (425, ""), (429, "slow down"), (500, ""), (502, "<html>"), (503, "{}"), (504, "")];
    for row in ROWS {
        for (status, body) in row.refuses.iter().chain(&everywhere_refused) {
            let (outcome, far_end) = attempt(row, Says::answer(*status, body)).await;
            assert!(matches!(outcome, Outcome::Refused { .. }), "{} {status} {body}: {outcome:?}", row.kind);
            assert_eq!(far_end.requests().len(), 1);
        }
        for (status, body) in row.later.iter().chain(&everywhere_later) {
            let (outcome, _) = attempt(row, Says::answer(*status, body)).await;
            assert!(matches!(outcome, Outcome::Unreachable { .. }), "{} {status} {body}: {outcome:?}", row.kind);
        }
    }
}

#[tokio::test]
async fn retry_after_is_heard_in_both_forms() {
    for row in ROWS {
        for (header, seconds) in [("120", 120), ("Fri, 15 Jan 2027 08:02:00 GMT", 120), ("99999999", 6 * 3600)] {
            let says = Says::with_header(503, "retry-after", header);
            let (outcome, _) = attempt(row, says).await;
            let Outcome::Unreachable { retry_after, .. } = outcome else { panic!("{}: {outcome:?}", row.kind) };
            assert_eq!(retry_after, Some(Duration::from_secs(seconds)), "{} {header}", row.kind);
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for row in ROWS {
        let elsewhere = FarEnd::new(Says::answer(200, row.accepts.1)).await;
        let (outcome, _) = attempt(row, Says::with_header(307, "location", &elsewhere.url())).await;
        assert!(matches!(outcome, Outcome::Refused { .. }), "{}: {outcome:?}", row.kind);
        assert!(elsewhere.requests().is_empty(), "{}", row.kind);
    }
}

#[tokio::test]
async fn who_never_answers_or_never_ends_is_left_in_time() {
    for row in ROWS {
        let (outcome, _) = attempt(row, Says::Nothing).await;
        assert!(matches!(outcome, Outcome::Unreachable { .. }), "{}: {outcome:?}", row.kind);
        // What was said before is enough to know; the rest is not waited for.
        let (outcome, _) = attempt(row, Says::Endless(503)).await;
        assert!(matches!(outcome, Outcome::Unreachable { .. }), "{}: {outcome:?}", row.kind);
    }
}

#[tokio::test]
async fn no_secret_is_in_what_is_stored_shown_or_said() {
    for row in ROWS {
        let far_end = FarEnd::new(Says::answer(400, "no")).await;
        let setup = setup(row, &far_end.url(), "").unwrap();
        let claimed = claimed(&setup, &said::failed("x"));
        let sent = setup.receiver.send(&claimed, NOW).await;
        let dead = setup_at(row, "http://127.0.0.1:1/canary-path");
        let unreached = dead.receiver.send(&claimed, NOW).await;
        let stored = String::from_utf8_lossy(&claimed.frozen.payload).into_owned();
        let shown = format!("{:?} {} {:?} {:?}", setup.receiver, setup.receiver.target(), sent, unreached);
        for secret in [CANARY, "canary-path"] {
            assert!(!stored.contains(secret), "{}: {stored}", row.kind);
            assert!(!shown.contains(secret), "{}: {shown}", row.kind);
        }
    }
}

fn setup_at(row: &Row, url: &str) -> ReceiverSetup {
    setup(row, url, "").unwrap()
}

#[tokio::test]
async fn everything_that_can_be_said_is_worded_within_the_limits_the_same_each_time() {
    for row in ROWS {
        let setup = setup_at(row, "https://example.org/x");
        for owed in said::everything(setup.text_max) {
            let (once, twice) = (setup.receiver.freeze(&owed), setup.receiver.freeze(&owed));
            let event = owed.notification.event.as_str();
            assert_eq!(once, twice, "{} {event}", row.kind);
            assert!(once.len() <= row.bytes_max, "{} {event}: {} bytes", row.kind, once.len());
            (row.sound)(&String::from_utf8(once).unwrap(), &owed);
        }
    }
}

#[tokio::test]
async fn the_last_byte_of_a_digest_is_told_or_parted() {
    for row in ROWS {
        let setup = setup_at(row, "https://example.org/x");
        for owed in said::digests(setup.text_max) {
            let told = String::from_utf8(setup.receiver.freeze(&owed)).unwrap();
            for id in said::ids(&owed) {
                assert!(told.contains(&id), "{}: {id} is not named", row.kind);
            }
        }
    }
}

/// What a kind sends at one attempt, with what it does not store.
async fn posted(kind: &str, owed: &Owed) -> far_end::Request {
    let row = ROWS.iter().find(|row| row.kind == kind).unwrap();
    let far_end = FarEnd::new(Says::answer(row.accepts.0, row.accepts.1)).await;
    let setup = setup_at(row, &far_end.url());
    setup.receiver.send(&claimed(&setup, owed), NOW).await;
    far_end.requests().remove(0)
}

#[tokio::test]
async fn pagerduty_is_told_the_end_of_an_alert_under_the_id_of_its_beginning() {
    let (begun, ended) = said::ended();
    let body = async |owed| serde_json::from_str::<serde_json::Value>(&posted("pagerduty", owed).await.body).unwrap();
    let (begun, ended) = (body(&begun).await, body(&ended).await);
    assert_eq!((&begun["event_action"], &ended["event_action"]), (&"trigger".into(), &"resolve".into()));
    assert_eq!(begun["dedup_key"], ended["dedup_key"]);
    assert!(begun["dedup_key"].as_str().unwrap().starts_with("alr_"));
    assert_eq!((&begun["routing_key"], &ended["routing_key"]), (&CANARY.into(), &CANARY.into()));
}

#[tokio::test]
async fn dingtalk_is_signed_in_the_query_at_the_time_of_the_attempt() {
    let head = posted("dingtalk", &said::failed("x")).await.head;
    assert!(head.contains("/canary-path?timestamp=1800000000000&sign="), "{head}");
}
