//! The kinds that post: how each is set up, what its far end says, and what must hold of its words.

use jobwatch::model::delivery::Owed;
use serde_json::Value;

/// In every secret of a table.
pub(crate) const CANARY: &str = "canary-5f1d9c";

/// A kind.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) kind: &'static str,
    /// Its own keys; `{url}` is where to post.
    pub(crate) table: &'static str,
    /// An answer that means that the message has arrived.
    pub(crate) accepts: (u16, &'static str),
    /// Answers that mean that somebody has to change something, besides those that mean it everywhere.
    pub(crate) refuses: &'static [(u16, &'static str)],
    /// Answers that mean that trying again helps.
    pub(crate) later: &'static [(u16, &'static str)],
    /// No body is longer.
    pub(crate) bytes_max: usize,
    /// What must hold of a body.
    pub(crate) sound: fn(&str, &Owed),
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        kind: "webhook",
        table: "url = \"{url}\"\nsecret = \"whsec_Y2FuYXJ5LTVmMWQ5Yy1jYW5hcnktNWYxZDljLTEyMw==\"\nheaders = { X-Team = \"registry\", Authorization = { file = \"token\" } }\n",
        accepts: (204, ""),
        refuses: &[],
        later: &[],
        bytes_max: 2 << 20,
        sound: |body, owed| {
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!((&body["specversion"], &body["id"]), (&"1.0".into(), &owed.id.as_str().into()));
        },
    },
    Row {
        kind: "slack",
        table: "url = \"{url}\"\n",
        accepts: (200, "ok"),
        refuses: &[(200, "invalid_blocks"), (200, ""), (400, "invalid_payload"), (404, "no_service")],
        later: &[(429, "rate_limited"), (500, "rollup_error")],
        bytes_max: 100_000,
        sound: slack,
    },
    Row {
        kind: "pagerduty",
        table: "url = \"{url}\"\nrouting_key = \"canary-5f1d9c\"\n",
        accepts: (202, "{\"status\":\"success\",\"message\":\"Event processed\",\"dedup_key\":\"x\"}"),
        refuses: &[(200, "ok"), (400, "{\"status\":\"invalid event\",\"errors\":[\"x\"]}")],
        later: &[],
        bytes_max: 512_000,
        sound: pagerduty,
    },
    Row {
        kind: "dingtalk",
        table: "url = \"{url}\"\nsecret = \"SECcanary-5f1d9c\"\n",
        accepts: (200, "{\"errcode\":0,\"errmsg\":\"ok\"}"),
        refuses: &[
            (200, "{\"errcode\":310000,\"errmsg\":\"keywords not in content\"}"),
            (200, "{\"errcode\":300005,\"errmsg\":\"token is not exist\"}"),
        ],
        later: &[
            (200, "{\"errcode\":-1,\"errmsg\":\"system busy\"}"),
            (200, "{\"errcode\":130101,\"errmsg\":\"send too fast, exceed 20 times per minute\"}"),
            (200, "{\"status\":1111,\"wait\":5,\"punish\":\"deny\"}"),
            (200, "<html>"),
            (200, ""),
        ],
        bytes_max: 20_000,
        sound: dingtalk,
    },
    Row {
        kind: "smn",
        table: "topic_urn = \"urn:smn:ap-southeast-3:p1:jobs\"\nendpoint = \"{url}\"\nproject_id = \"p1\"\nregion = \"ap-southeast-3\"\ncredentials = { kind = \"ak_sk\", access_key = \"AKEXAMPLE\", secret_key = \"canary-5f1d9c\" }\n",
        accepts: (200, "{\"request_id\":\"r\",\"message_id\":\"m\"}"),
        refuses: &[
            (200, "{}"),
            (200, "<html>"),
            (403, "{\"code\":\"SMN.0013\",\"message\":\"x\"}"),
            (404, "{\"code\":\"SMN.0011\",\"message\":\"The topic does not exist\"}"),
        ],
        later: &[(429, "{\"error_code\":\"APIGW.0308\",\"error_msg\":\"The throttling threshold has been reached\"}")],
        bytes_max: 520_000,
        sound: smn,
    },
    Row {
        kind: "alertmanager",
        table: "url = \"{url}\"\nkeep = \"4h\"\nheaders = { Authorization = { file = \"token\" } }\n",
        accepts: (200, ""),
        refuses: &[(400, "\"start time must be before end time\"")],
        later: &[],
        bytes_max: 4 << 20,
        sound: alertmanager,
    },
    Row {
        kind: "github",
        table: "url = \"{url}\"\nrepository = \"example/follow-ups\"\ntoken = \"canary-5f1d9c\"\n",
        accepts: (204, ""),
        refuses: &[
            (200, "<html>"),
            (404, "{\"message\":\"Not Found\"}"),
            (403, "{\"message\":\"Resource not accessible by personal access token\"}"),
        ],
        later: &[(403, "{\"message\":\"You have exceeded a secondary rate limit.\"}")],
        bytes_max: 64_000,
        sound: github,
    },
];

/// Every text in a JSON value.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(members) => members.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn slack(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let blocks = body["attachments"][0]["blocks"].as_array().unwrap();
    assert!(blocks.len() <= 50);
    for block in blocks {
        let text = |value: &Value| value["text"].as_str().unwrap_or_default().chars().count();
        let max = if block["type"] == "header" { 150 } else { 3_000 };
        assert!(text(&block["text"]) <= max, "{block}");
        let fields = block["fields"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(fields.len() <= 10 && fields.iter().all(|field| text(field) <= 2_000));
    }
    // A header is plain text: Slack reads no marks in it.
    let marked = blocks.iter().filter(|block| block["type"] != "header").flat_map(texts).chain(body["text"].as_str());
    for text in marked.filter(|text| !text.starts_with("https://wiki")) {
        assert!(!text.contains('<') && !text.contains('\u{202e}'), "{text}");
    }
    if let Some(reason) = owed.notification.reason().filter(|reason| *reason == "quota 17 exceeded") {
        assert!(texts(&body).contains(&reason), "the reason stands alone");
    }
}

fn pagerduty(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(body["dedup_key"].as_str().unwrap().chars().count() <= 255);
    let ended = owed.notification.event.as_str().ends_with("resolved")
        || owed.notification.event.as_str().ends_with("restored");
    assert_eq!(body["event_action"], if ended { "resolve" } else { "trigger" });
    if !ended {
        let summary = body["payload"]["summary"].as_str().unwrap();
        assert!(!summary.is_empty() && summary.chars().count() <= 1_024);
        let severity = body["payload"]["severity"].as_str().unwrap();
        assert!(["critical", "error", "warning", "info"].contains(&severity));
    }
}

fn dingtalk(body: &str, _: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let text = body["markdown"]["text"].as_str().unwrap();
    let live = text.replace("\\]", "");
    assert!(!live.contains("@all") && !live.contains("](https://evil") && !live.contains('<'), "{text}");
    assert_eq!(body["at"]["isAtAll"], false);
}

fn smn(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let (subject, message) = (body["subject"].as_str().unwrap(), body["message"].as_str().unwrap());
    assert!(!subject.is_empty() && subject.len() <= 512 && !subject.contains(['\n', '\r']), "{subject}");
    assert!(message.len() <= 256_000, "{}", message.len());
    let reason = owed.notification.reason().filter(|reason| *reason == "quota 17 exceeded").unwrap_or_default();
    assert!(message.contains(reason), "{message}");
}

fn alertmanager(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let alerts = body.as_array().unwrap();
    let jobs = owed.notification.data()["jobs"].as_array().map_or(1, Vec::len);
    assert_eq!(alerts.len(), jobs, "one for each job");
    for alert in alerts {
        let labels = alert["labels"].as_object().unwrap();
        assert!(labels.contains_key("alertname") && labels.contains_key("severity"));
        for (name, value) in labels {
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
            assert!(!value.as_str().unwrap().is_empty(), "{name}");
        }
        assert!(alert["annotations"].as_object().unwrap().values().all(|text| text.as_str().unwrap().len() <= 5_000));
        let word = |name: &str| alert[name].as_str().map(ToOwned::to_owned);
        assert!(word("startsAt") <= word("endsAt").or(Some("9".into())), "{alert}");
    }
}

fn github(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let (kind, payload) = (body["event_type"].as_str().unwrap(), body["client_payload"].as_object().unwrap());
    assert!(kind == owed.notification.event.as_str() && kind.len() <= 100);
    assert!(payload.len() <= 10);
    let event = &payload["event"];
    assert_eq!((&event["id"], &event["subject"]), (&owed.id.as_str().into(), &owed.notification.subject().into()));
    assert!(!event["data"]["title"].as_str().unwrap().is_empty());
}
