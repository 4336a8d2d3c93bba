//! What every receiver kind must do, whatever it speaks: one table, one set of stories. A kind that posts has a row in
//! [`kinds::ROWS`]; a test fails when one has none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

mod far_end;
mod kinds;
mod mail;
mod mail_server;
mod maildir;
mod said;

use std::collections::BTreeMap;
use std::time::Duration;

use far_end::{FarEnd, Says};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jobwatch::agent::ReceiverSetup;
use jobwatch::config::{self, Purpose};
use jobwatch::deliver::KINDS;
use jobwatch::model::delivery::{Claimed, Frozen, Outcome, Owed};
use jobwatch::model::examination::Health;
use jobwatch::model::job::Job;
use jobwatch::model::notification::Topic;
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::Transition;
use kinds::{CANARY, ROWS, Row};
use said::NOW;
use sha2::Sha256;

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
    std::fs::write(directory.path().join("token"), format!("Bearer {CANARY}\n")).unwrap();
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
        seen_at: None,
        payload: setup.receiver.freeze(owed),
    };
    Claimed {
        frozen,
        budget_from: NOW,
        tries: 0,
        refused_since: None,
        escalate_at: None,
        progress: Vec::new(),
        token: 0,
    }
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
        let echo = FarEnd::new(Says::Echo(400)).await;
        let repeated = setup_at(row, &echo.url()).receiver.send(&claimed, NOW).await;
        let shown = format!("{:?} {} {sent:?} {unreached:?} {repeated:?}", setup.receiver, setup.receiver.target());
        // Of what is no answer of the cloud's, nothing is shown at all.
        assert!(row.table.contains("AKEXAMPLE") || shown.contains("[hidden]"), "{}: {shown}", row.kind);
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

/// Webhooks with these keys besides their URL.
fn webhook(table: &str) -> Row {
    Row { table: format!("url = \"{{url}}\"\n{table}").leak(), ..*row("webhook") }
}

/// What is sent at one attempt at this time.
async fn posted_by(row: &Row, owed: &Owed, now: Timestamp) -> far_end::Request {
    let far_end = FarEnd::new(Says::answer(row.accepts.0, row.accepts.1)).await;
    let setup = setup_at(row, &far_end.url());
    setup.receiver.send(&claimed(&setup, owed), now).await;
    far_end.requests().remove(0)
}

#[tokio::test]
async fn a_webhook_is_signed_as_github_does_over_the_bytes_that_are_sent() {
    let hub = "secret = \"canary-5f1d9c\"\nsignature = \"hmac-sha256\"\n";
    for (more, header_name) in [
        ("", "x-hub-signature-256"),
        ("signature_header = \"X-Signature\"\n", "x-signature"),
        ("format = \"plain\"\n", "x-hub-signature-256"),
        ("format = \"cloudevents-binary\"\n", "x-hub-signature-256"),
    ] {
        let request = posted_by(&webhook(&format!("{hub}{more}")), &said::failed("内存不足 💥"), NOW).await;
        let mut mac = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
        mac.update(request.body.as_bytes());
        let signature = format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()));
        assert_eq!(header(&request.head, header_name), signature, "{more}");
        // What drops repetitions is there, whoever signs.
        assert_eq!(header(&request.head, "webhook-id"), said::failed("内存不足 💥").id.as_str());
        assert_eq!(header(&request.head, "webhook-signature"), "");
    }
}

#[tokio::test]
async fn an_event_in_binary_mode_is_the_structured_one_in_headers_and_body_the_same_on_each_retry() {
    let owed = said::failed("内存不足 💥");
    let later = NOW.plus(Duration::from_secs(3600));
    let row = webhook("format = \"cloudevents-binary\"\n");
    let (first, second) = (posted_by(&row, &owed, NOW).await, posted_by(&row, &owed, later).await);
    let structured = posted_by(&webhook(""), &owed, NOW).await;
    let event: serde_json::Value = serde_json::from_str(&structured.body).unwrap();
    let attributes = |head: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let attributes = lines.filter(|(name, _)| name.starts_with("ce-") || *name == "content-type");
        attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    let names = ["specversion", "id", "type", "source", "subject", "time"];
    let mut expected: BTreeMap<_, _> = names.map(|name| (format!("ce-{name}"), text(name))).into();
    expected.insert("content-type".into(), "application/json".into());
    assert_eq!(attributes(&first.head), expected);
    assert!(structured.body.ends_with(&format!("\"data\":{}}}", first.body)), "to the byte: {}", first.body);
    assert_eq!((attributes(&second.head), second.body), (expected, first.body));
}

#[tokio::test]
async fn what_an_attribute_holds_beyond_ascii_is_encoded_in_its_header() {
    let mut owed = said::failed("x");
    let Topic::Job(topic) = &mut owed.notification.topic else { panic!("a job failed") };
    let mut transition = Transition::clone(&topic.transition);
    transition.job = Job { id: "夜间 \"100%\"\r\nx: y".into(), ..Job::clone(&transition.job) }.into();
    topic.transition = transition.into();
    let head = posted_by(&webhook("format = \"cloudevents-binary\"\n"), &owed, NOW).await.head;
    assert_eq!(header(&head, "ce-subject"), "%E5%A4%9C%E9%97%B4%20%22100%25%22%0D%0Ax:%20y");
}

#[tokio::test]
async fn what_was_stored_in_another_format_is_refused_with_the_mend_and_not_sent() {
    let far_end = FarEnd::new(Says::answer(204, "")).await;
    let stored = claimed(&setup_at(&webhook("format = \"plain\"\n"), &far_end.url()), &said::failed("x"));
    let binary = setup_at(&webhook("format = \"cloudevents-binary\"\n"), &far_end.url());
    let Outcome::Refused { why } = binary.receiver.send(&stored, NOW).await.outcome else { panic!("refused") };
    assert!(why.contains("`format` was another one") && why.contains("deliveries drop"), "{why}");
    assert_eq!(far_end.requests().len(), 0);
}

#[test]
fn a_signature_that_cannot_be_is_refused_with_the_mend() {
    let hub = "secret = \"s\"\nsignature = \"hmac-sha256\"\n";
    for (table, message, help) in [
        ("signature = \"standard\"\n", "`secret` is missing", "leave `signature` out"),
        ("signature = \"hmac-sha256\"\n", "`secret` is missing", "leave `signature` out"),
        ("signature_header = \"X\"\n", "`secret` is missing", "leave `signature_header` out"),
        ("secret = [\"a\", \"b\"]\nsignature = \"hmac-sha256\"\n", "holds one signature", "secret = { credential"),
        ("secret = \"\"\nsignature = \"hmac-sha256\"\n", "the secret is empty", "verifies with"),
        ("secret = []\n", "signs nothing", "whsec_"),
        ("secret = \"s\"\nsignature_header = \"X\"\n", "names of their own", "signature = \"hmac-sha256\""),
        (&format!("{hub}signature_header = \"Content-Type\"\n"), "`Content-Type` cannot hold", "X-Hub-Signature-256"),
        (&format!("{hub}signature_header = \"a b\"\n"), "`a b` cannot hold", "X-Hub-Signature-256"),
        (
            &format!("{hub}headers = {{ x-hub-signature-256 = \"x\" }}\n"),
            "`x-hub-signature-256` in `headers`",
            "leave it out",
        ),
        ("format = \"cloudevents-binary\"\nheaders = { CE-Id = \"x\" }\n", "`ce-id` in `headers`", "leave it out"),
    ] {
        let lines = setup(&webhook(table), "https://example.org/x", "").err().unwrap_or_default().join("\n");
        assert!(lines.contains(message) && lines.contains(help), "{table}: {lines}");
    }
    // An extension of the event is the operator's own.
    let extension = webhook("format = \"cloudevents-binary\"\nheaders = { ce-team = \"registry\" }\n");
    setup(&extension, "https://example.org/x", "").unwrap();
}

fn row(kind: &str) -> &'static Row {
    ROWS.iter().find(|row| row.kind == kind).unwrap()
}

/// What a kind sends at one attempt, with what it does not store.
async fn posted(kind: &str, owed: &Owed) -> far_end::Request {
    posted_by(row(kind), owed, NOW).await
}

#[tokio::test]
async fn nobody_reads_twice_in_a_row_that_something_is_resolved() {
    let (_, end) = said::ended();
    assert_eq!(end.notification.title, "resolved: prod-payments: Instance creation failed");
    for row in ROWS {
        let body = posted_by(row, &end, NOW).await.body.to_lowercase();
        let words: Vec<&str> = body.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let twice = words.windows(2).any(|pair| pair == ["resolved", "resolved"]);
        assert!(body.contains("resolve") && !twice, "{}: {body}", row.kind);
    }
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

#[tokio::test]
async fn feishu_is_signed_in_the_body_at_the_time_of_the_attempt() {
    let body: serde_json::Value = serde_json::from_str(&posted("feishu", &said::failed("x")).await.body).unwrap();
    let kept = claimed(&setup_at(row("feishu"), "https://example.org/x"), &said::failed("x")).frozen.payload;
    let mut signed: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert!(signed.get("sign").is_none(), "what is stored is not signed");
    signed["timestamp"] = "1800000000".into();
    signed["sign"] = "1ulb37ptVsYjVS7KQpHb6EGZGxdDFbqu1nXyBeROIHQ=".into();
    assert_eq!(body, signed, "and nothing else is added");
}

#[tokio::test]
async fn discord_is_asked_to_say_whether_it_saved_the_message() {
    for (url, asked) in [("", "?wait=true"), ("?thread_id=7&wait=false", "?thread_id=7&wait=true")] {
        let far_end = FarEnd::new(Says::answer(200, "{\"id\":\"1\"}")).await;
        let setup = setup_at(row("discord"), &format!("{}{url}", far_end.url()));
        setup.receiver.send(&claimed(&setup, &said::failed("x")), NOW).await;
        let head = far_end.requests().remove(0).head;
        assert!(head.starts_with(&format!("POST /canary-path{asked} HTTP/1.1")), "{head}");
    }
}

#[tokio::test]
async fn who_is_too_fast_waits_as_long_as_the_body_says() {
    for (kind, status, body, seconds) in [
        ("discord", 429, "{\"message\":\"slow\",\"retry_after\":1.3,\"global\":false}", 2),
        ("dingtalk", 200, "{\"errcode\":130101,\"errmsg\":\"send too fast\"}", 600),
        ("dingtalk", 200, "{\"status\":1111,\"wait\":5,\"punish\":\"deny\"}", 5),
        ("feishu", 200, "{\"code\":11232,\"msg\":\"frequency limited psm\"}", 5),
        ("wecom", 200, "{\"errcode\":45009,\"errmsg\":\"api freq out of limit\"}", 60),
    ] {
        let (outcome, _) = attempt(row(kind), Says::answer(status, body)).await;
        let Outcome::Unreachable { retry_after, .. } = outcome else { panic!("{kind}: {outcome:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(seconds)), "{kind} {body}");
    }
}

/// The value of a header.
fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
}

#[tokio::test]
async fn a_secret_header_is_sent_and_so_is_one_that_is_none() {
    for (kind, name, value) in [
        ("webhook", "authorization", "Bearer canary-5f1d9c"),
        ("webhook", "x-team", "registry"),
        ("alertmanager", "authorization", "Bearer canary-5f1d9c"),
    ] {
        let head = posted(kind, &said::failed("x")).await.head;
        assert_eq!(header(&head, name), value, "{kind}: {head}");
    }
}

#[tokio::test]
async fn a_secret_header_that_the_far_end_repeats_is_not_shown() {
    for row in ROWS.iter().filter(|row| row.table.contains("headers = ")) {
        let (outcome, _) = attempt(row, Says::answer(400, "no user has the token canary-5f1d9c")).await;
        assert_eq!(outcome, Outcome::Refused { why: "HTTP 400: no user has the token [hidden]".into() });
    }
}

#[tokio::test]
async fn github_is_sent_the_event_under_one_key_with_the_token_in_a_header() {
    let request = posted("github", &said::failed("quota 17 exceeded")).await;
    let (line, _) = request.head.split_once("\r\n").unwrap();
    assert_eq!(line, "POST /canary-path/repos/example/follow-ups/dispatches HTTP/1.1");
    let names = ["authorization", "accept", "x-github-api-version"];
    assert_eq!(
        names.map(|name| header(&request.head, name)),
        ["Bearer canary-5f1d9c", "application/vnd.github+json", "2022-11-28"],
    );
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    let event = &body["client_payload"]["event"];
    assert_eq!(
        (&body["event_type"], &event["data"]["reason"], &event["data"]["job"]["id"]),
        (&"io.jobwatch.job.failed".into(), &"quota 17 exceeded".into(), &"36db69c5".into()),
    );
}

/// The kinds that are services of the cloud, asked with an access key.
fn services() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| row.table.contains("AKEXAMPLE"))
}

#[tokio::test]
async fn a_service_is_asked_at_its_path_with_the_signature_of_the_access_key() {
    use jobwatch::cloud::sign::{AccessKey, Request, sign};
    for (kind, path) in [
        ("smn", "/canary-path/v2/p1/notifications/topics/urn:smn:ap-southeast-3:p1:jobs/publish"),
        ("eventgrid", "/canary-path/v1/p1/channels/c1/events"),
    ] {
        let request = posted(kind, &said::failed("quota 17 exceeded")).await;
        assert!(request.head.starts_with(&format!("POST {path} HTTP/1.1")), "{}", request.head);
        let (date, host) = (header(&request.head, "x-sdk-date"), header(&request.head, "host"));
        let key = AccessKey { id: "AKEXAMPLE".into(), secret: CANARY.into(), security_token: None };
        let headers = [("x-sdk-date", date)];
        let body = request.body.as_bytes();
        let signed = sign(&key, &Request { method: "POST", host, path, query: &[], headers: &headers, body, date });
        assert_eq!(header(&request.head, "authorization"), signed.authorization);
        assert_eq!(header(&request.head, "content-type"), "application/json");
    }
    assert_eq!(services().count(), 2, "and no other is signed");
}

#[tokio::test]
async fn a_service_is_asked_once_more_with_its_own_time_when_the_clock_is_wrong_and_then_it_is_a_refusal() {
    for row in services() {
        let says = Says::with_header(401, "date", "Mon, 15 Jan 2035 08:00:00 GMT");
        let (outcome, far_end) = attempt(row, says).await;
        let dates: Vec<String> =
            far_end.requests().iter().map(|request| header(&request.head, "x-sdk-date")[..8].to_owned()).collect();
        assert_eq!((dates.len(), dates.last().unwrap().as_str()), (2, "20350115"));
        let Outcome::Refused { why } = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("HTTP 401") && why.contains("set the clock (NTP)"), "{why}");
    }
}

#[tokio::test]
async fn doctor_reaches_a_service_and_asks_it_for_nothing() {
    for row in services() {
        let far_end = FarEnd::new(Says::answer(404, "")).await;
        let findings = setup_at(row, &far_end.url()).receiver.examine(NOW).await;
        let said: Vec<_> = findings.iter().map(|finding| (finding.what, finding.health)).collect();
        let good = ["dns", "connection", "clock", "credential"].map(|what| (what, Health::Good));
        assert_eq!(said, good, "{}: {findings:?}", row.kind);
        assert!(findings[3].text.contains("only a message tells whether it has the permission"), "{findings:?}");
        for request in far_end.requests() {
            let line = request.head.lines().next().unwrap();
            assert!(["HEAD / HTTP/1.1", "GET / HTTP/1.1"].contains(&line), "{}: {line}", row.kind);
            assert!(!request.head.contains("AKEXAMPLE"), "{}", request.head);
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let findings = setup_at(row, &format!("http://{closed}")).receiver.examine(NOW).await;
        let last = findings.last().unwrap();
        assert_eq!((last.what, last.health), ("connection", Health::Bad), "{findings:?}");
        assert!(last.text.contains("refused") && last.text.contains("check `region`, `endpoint`"), "{}", last.text);
    }
}

#[tokio::test]
async fn a_key_that_a_service_refused_is_left_alone_and_that_is_a_refusal_too() {
    for row in services() {
        let far_end = FarEnd::new(Says::answer(401, "{\"error_code\":\"APIGW.0301\",\"error_msg\":\"no\"}")).await;
        let setup = setup_at(row, &far_end.url());
        let claimed = claimed(&setup, &said::failed("x"));
        let (first, second) = (setup.receiver.send(&claimed, NOW).await, setup.receiver.send(&claimed, NOW).await);
        assert!(matches!(first.outcome, Outcome::Refused { .. }), "{first:?}");
        assert!(matches!(&second.outcome, Outcome::Refused { why } if why.contains("rests for another")), "{second:?}");
        assert_eq!(far_end.requests().len(), 1, "the cloud locks a key for everybody after five failures");
    }
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    for (kind, permission) in [("smn", "smn:topic:publish"), ("eventgrid", "eg:channels:putEvents")] {
        let (outcome, _) = attempt(row(kind), Says::answer(403, "{\"error_msg\":\"no\"}")).await;
        let Outcome::Refused { why } = outcome else { panic!("{outcome:?}") };
        assert!(why.contains(&format!("needs the permission {permission}")), "{why}");
    }
}

#[tokio::test]
async fn an_event_that_failed_in_a_success_is_told_with_its_reason_and_without_the_key() {
    let body =
        "{\"failed_count\":1,\"events\":[{\"error_code\":\"EG.1\",\"error_msg\":\"no channel for canary-5f1d9c\"}]}";
    let (outcome, _) = attempt(row("eventgrid"), Says::answer(200, body)).await;
    let why = "HTTP 200, but the event failed: EG.1 no channel for [redacted]".to_owned();
    assert_eq!(outcome, Outcome::Refused { why });
}

#[test]
fn a_channel_that_cannot_be_is_refused_with_the_mend() {
    let whole = row("eventgrid").table;
    for (right, wrong, message) in [
        ("region = \"ap-southeast-3\"\n", "", "`region` is missing"),
        ("project_id = \"p1\"\n", "", "`project_id` is missing"),
        ("channel_id = \"c1\"\n", "", "`channel_id` is missing"),
        ("\"c1\"", "\"a/b\"", "`a/b` is no channel"),
        ("\"watch\"", "\"a b\"", "`a b` is no event source"),
        ("ap-southeast-3", "Singapore", "`Singapore` is no region"),
        ("\"p1\"", "\"../x\"", "a project id is made of letters and digits"),
    ] {
        let table = whole.replace(right, wrong).leak();
        let lines = setup(&Row { table, ..*row("eventgrid") }, "https://example.org", "").err().unwrap_or_default();
        assert!(lines.iter().any(|line| line.contains(message)), "{message}: {lines:?}");
    }
}

#[tokio::test]
async fn alertmanager_is_told_the_end_of_an_alert_under_the_labels_of_its_beginning() {
    let (begun, ended) = said::ended();
    let body =
        async |owed| serde_json::from_str::<serde_json::Value>(&posted("alertmanager", owed).await.body).unwrap();
    let (begun, ended) = (body(&begun).await, body(&ended).await);
    let labels = &begun[0]["labels"];
    let alert_id = labels["alert_id"].as_str().unwrap();
    assert!(alert_id.starts_with("alr_"), "{alert_id}");
    assert_eq!(
        *labels,
        serde_json::json!({
            "alertname": "failed", "severity": "critical", "source": "prod", "region": "ap-southeast-3",
            "project_id": "p1", "alert_id": alert_id, "team": "registry", "on_call": "2nd",
        }),
    );
    assert_eq!(ended[0]["labels"], *labels);
    let told = &begun[0]["annotations"];
    assert_eq!(
        (&told["reason"], &told["runbook_url"], &told["resource"]),
        (&"quota 17 exceeded".into(), &"https://wiki.example.org/registry?a=1&b=2".into(), &"prod-payments".into()),
    );
    // It stands for four hours from the attempt, and ends when that was seen.
    let times = |alert: &serde_json::Value| (alert["startsAt"].clone(), alert["endsAt"].clone());
    assert_eq!(times(&begun[0]), ("2027-01-15T08:00:00Z".into(), "2027-01-15T12:00:00Z".into()));
    assert_eq!(times(&ended[0]), ("2027-01-15T08:00:00Z".into(), "2027-01-15T08:00:00Z".into()));
}

#[tokio::test]
async fn every_instance_of_an_alertmanager_is_told_and_none_of_them_twice() {
    let row = ROWS.iter().find(|row| row.kind == "alertmanager").unwrap();
    let (up, down) = (FarEnd::new(Says::answer(200, "")).await, FarEnd::new(Says::answer(503, "")).await);
    let table = format!("url = [\"{}\", \"{}\"]\n", up.url(), down.url()).leak();
    let setup = setup_at(&Row { table, ..*row }, "");
    let mut claimed = claimed(&setup, &said::failed("x"));
    let first = setup.receiver.send(&claimed, NOW).await;
    assert!(matches!(first.outcome, Outcome::Unreachable { .. }), "{first:?}");
    assert!(!format!("{first:?}").contains("canary-path"), "{first:?}");
    claimed.progress = first.progress;
    setup.receiver.send(&claimed, NOW).await;
    assert_eq!((up.requests().len(), down.requests().len()), (1, 2));
}

#[test]
fn alertmanager_is_spoken_to_in_clear_unless_something_secret_is_sent() {
    let row = ROWS.iter().find(|row| row.kind == "alertmanager").unwrap();
    let open = Row { table: "url = \"{url}\"\n", ..*row };
    assert!(setup(&open, "http://alertmanager.monitoring:9093", "").is_ok());
    let lines = setup(row, "http://alertmanager.monitoring:9093", "").err().unwrap();
    assert!(lines.iter().any(|line| line.contains("`url` must be https")), "{lines:?}");
}

#[tokio::test]
async fn the_function_before_eventbridge_takes_what_is_signed_and_says_when_the_bus_did_not() {
    const BUS: &str = "import os\nclass client:\n    def __init__(self, name): assert name == 'events'\n    \
        def put_events(self, Entries):\n        [entry] = Entries\n        \
        assert entry['DetailType'] == 'io.jobwatch.job.failed' and entry['Source'] == 'jobwatch/prod'\n        \
        return {'FailedEntryCount': int(os.environ['FAILED'])}\n";
    let recipes = include_str!("../../AUTOMATION.md").split("```python\n").skip(1);
    let function = recipes.filter_map(|rest| rest.split("```").next()).find(|text| text.contains("boto3")).unwrap();
    let signed = webhook("secret = \"canary-5f1d9c\"\nsignature = \"hmac-sha256\"\n");
    let request = posted_by(&signed, &said::failed("内存不足"), NOW).await;
    let signature = header(&request.head, "x-hub-signature-256");
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("boto3.py", BUS);
    write("function.py", function);
    for (signature, failed, status) in [(signature, "0", 200), (signature, "1", 503), ("sha256=0", "0", 401)] {
        let headers = serde_json::json!({ "x-hub-signature-256": signature });
        let event = serde_json::json!({ "body": request.body, "isBase64Encoded": false, "headers": headers });
        write("event.json", &event.to_string());
        let run = "import json, function; print(function.handler(json.load(open('event.json')), None)['statusCode'])";
        let mut python = std::process::Command::new("/usr/bin/python3");
        python.args(["-B", "-c", run]).current_dir(directory.path()).env("SECRET", CANARY).env("FAILED", failed);
        let output = python.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), status.to_string(), "{output:?}");
    }
}

#[test]
fn every_recipe_for_automation_is_read() {
    let recipes = include_str!("../../AUTOMATION.md").split("```toml\n").skip(1);
    let recipes: Vec<&str> = recipes.map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(recipes.len() >= 8, "{}", recipes.len());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    let source = "[[source]]\nname = \"s\"\nkind = \"swr\"\nendpoint = \"http://127.0.0.1:1\"\n\
                  project_id = \"p\"\ncredentials = { kind = \"auto\" }\n";
    for recipe in recipes {
        std::fs::write(&path, format!("{recipe}{source}")).unwrap();
        // Its secrets are not on this machine, and nothing else is wrong with it.
        let (_, report) = config::load(&path, Purpose::Check);
        assert!(!report.has_errors(), "{recipe}\n{:#?}", report.lines().collect::<Vec<_>>());
    }
}
