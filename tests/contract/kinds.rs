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
        table: "url = \"{url}\"\nsecret = \"whsec_Y2FuYXJ5LTVmMWQ5Yy1jYW5hcnktNWYxZDljLTEyMw==\"\nheaders = { X-Team = \"registry\" }\n",
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
