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
        sound: webhook,
    },
    Row {
        kind: "webhook",
        table: "url = \"{url}\"\nsecret = \"canary-5f1d9c\"\nsignature = \"hmac-sha256\"\nsignature_header = \"X-Signature\"\nheaders = { Authorization = { file = \"token\" } }\nformat = \"cloudevents-binary\"\n",
        accepts: (202, ""),
        refuses: &[],
        later: &[],
        bytes_max: 2 << 20,
        sound: webhook,
    },
    Row {
        kind: "slack",
        table: "url = \"{url}\"\n",
        accepts: (200, "ok"),
        refuses: &[
            (200, "invalid_blocks"),
            (500, "no_text"),
            (200, "<html>"),
            (400, "invalid_payload"),
            (404, "no_service"),
        ],
        later: &[(200, ""), (429, "rate_limited"), (500, "rollup_error")],
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
        kind: "discord",
        table: "url = \"{url}\"\n",
        accepts: (200, "{\"id\":\"1187\",\"type\":0,\"content\":\"\",\"embeds\":["),
        refuses: &[
            (200, "<html>"),
            (400, "{\"message\":\"Invalid Form Body\",\"code\":50035}"),
            (401, "{\"message\":\"Invalid Webhook Token\",\"code\":50027}"),
            (404, "{\"message\":\"Unknown Webhook\",\"code\":10015}"),
        ],
        later: &[(429, "{\"retry_after\":0.3,\"global\":false}"), (429, "{\"retry_after\":-1}"), (429, "<html>")],
        bytes_max: 60_000,
        sound: discord,
    },
    Row {
        kind: "teams",
        table: "url = \"{url}\"\n",
        accepts: (202, ""),
        refuses: &[
            (200, "<html>"),
            (200, "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413"),
            (400, "{\"error\":{\"code\":\"TriggerInputSchemaMismatch\"}}"),
        ],
        later: &[
            (200, "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429"),
            (200, "Microsoft Teams endpoint returned HTTP error 503"),
        ],
        bytes_max: 20_000,
        sound: teams,
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
        kind: "feishu",
        table: "url = \"{url}\"\nsecret = \"canary-5f1d9c\"\n",
        accepts: (200, "{\"code\":0,\"msg\":\"success\",\"data\":{},\"StatusCode\":0,\"StatusMessage\":\"success\"}"),
        refuses: &[
            (200, "{\"code\":9499,\"msg\":\"Bad Request\"}"),
            (200, "{\"code\":19001,\"msg\":\"param invalid: incoming webhook access token invalid\"}"),
            (200, "{\"code\":19021,\"msg\":\"sign match fail or timestamp is not within one hour from current time\"}"),
            (200, "{\"code\":19022,\"msg\":\"Ip Not Allowed\"}"),
            (200, "{\"code\":19024,\"msg\":\"Key Words Not Found\"}"),
            (200, "{\"code\":0,\"StatusCode\":19002}"),
            (400, "{\"code\":9499,\"msg\":\"Bad Request\"}"),
        ],
        later: &[
            (200, "{\"code\":11232,\"msg\":\"frequency limited psm[x]\"}"),
            (400, "{\"code\":11232,\"msg\":\"frequency limited psm[x]\"}"),
            (200, "{\"code\":9499,\"msg\":\"frequency limited\"}"),
            (200, "{\"data\":{}}"),
            (200, "<html>"),
            (200, ""),
        ],
        bytes_max: 19_800,
        sound: feishu,
    },
    Row {
        kind: "wecom",
        table: "url = \"{url}\"\n",
        accepts: (200, "{\"errcode\":0,\"errmsg\":\"ok\"}"),
        refuses: &[
            (200, "{\"errcode\":93000,\"errmsg\":\"invalid webhook url\"}"),
            (200, "{\"errcode\":40058,\"errmsg\":\"markdown.content exceed max length 4096\"}"),
            (200, "{\"errcode\":40008,\"errmsg\":\"invalid message type\"}"),
        ],
        later: &[
            (200, "{\"errcode\":-1,\"errmsg\":\"system busy\"}"),
            (200, "{\"errcode\":45009,\"errmsg\":\"api freq out of limit\"}"),
            (200, "{\"errcode\":45033,\"errmsg\":\"api concurrent out of limit\"}"),
            (200, "<html>"),
            (200, ""),
        ],
        bytes_max: 10_000,
        sound: wecom,
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
        kind: "eventgrid",
        table: "channel_id = \"c1\"\nendpoint = \"{url}\"\nproject_id = \"p1\"\nregion = \"ap-southeast-3\"\nevent_source = \"watch\"\ncredentials = { kind = \"ak_sk\", access_key = \"AKEXAMPLE\", secret_key = \"canary-5f1d9c\" }\n",
        accepts: (200, "{\"failed_count\":0,\"events\":[{\"event_id\":\"e\"}]}"),
        refuses: &[
            (200, "{}"),
            (200, "<html>"),
            (202, ""),
            (
                200,
                "{\"failed_count\":1,\"events\":[{\"error_code\":\"EG.00513005\",\"error_msg\":\"invalid channel\"}]}",
            ),
            (403, "{\"error_code\":\"EG.00014030\",\"error_msg\":\"No permissions to request this method\"}"),
        ],
        later: &[
            (
                200,
                "{\"failed_count\":1,\"events\":[{\"error_code\":\"EG.00015000\",\"error_msg\":\"Internal Server Error\"}]}",
            ),
            (200, "{\"failed_count\":1,\"events\":[]}"),
            (500, "{\"error_code\":\"EG.00015000\",\"error_msg\":\"Internal Server Error\"}"),
        ],
        bytes_max: 64_000,
        sound: eventgrid,
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

/// In both modes the event is stored whole.
fn webhook(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["specversion"], &body["id"]), (&"1.0".into(), &owed.id.as_str().into()));
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
    let told: Vec<&str> = blocks.iter().flat_map(texts).collect();
    tells_reason_first(&told, owed);
}

fn pagerduty(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(body["dedup_key"].as_str().unwrap().chars().count() <= 255);
    let event = owed.notification.event.as_str();
    let ended = ["resolved", "restored", "fits_again"].iter().any(|end| event.ends_with(end));
    assert_eq!(body["event_action"], if ended { "resolve" } else { "trigger" });
    if !ended {
        let summary = body["payload"]["summary"].as_str().unwrap();
        assert!(!summary.is_empty() && summary.chars().count() <= 1_024);
        let severity = body["payload"]["severity"].as_str().unwrap();
        assert!(["critical", "error", "warning", "info"].contains(&severity));
    }
}

/// Whether a mark stands here that its medium reads: one without a backslash before it.
fn has_live(text: &str, mark: char) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == mark {
            return true;
        }
        if c == '\\' {
            chars.next();
        }
    }
    false
}

/// What is told of the plain failure: the reason before everything else of it, and where to read on.
fn tells_reason_first(texts: &[&str], owed: &Owed) {
    if owed.notification.reason() == Some("quota 17 exceeded") {
        let at = |part: &str| texts.iter().position(|text| text.contains(part)).unwrap_or_else(|| panic!("no {part}"));
        assert!(at("prod-payments") <= at("quota 17 exceeded") && at("quota 17 exceeded") <= at("36db69c5"));
        at("https://wiki.example.org/registry?a=1&b=2");
    }
}

fn discord(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["allowed_mentions"], serde_json::json!({ "parse": [] }));
    let embed = &body["embeds"][0];
    let length = |value: &Value| value.as_str().unwrap().chars().count();
    let fields = embed["fields"].as_array().unwrap();
    let mut all = length(&embed["title"]) + length(&embed["description"]) + length(&embed["footer"]["text"]);
    assert!(length(&embed["title"]) <= 256 && length(&embed["description"]) <= 4_096 && fields.len() <= 25);
    for field in fields {
        let (name, value) = (length(&field["name"]), length(&field["value"]));
        assert!((1..=256).contains(&name) && (1..=1_024).contains(&value), "{field}");
        all += name + value;
    }
    assert!(all <= 6_000, "{all}");
    assert!(embed["color"].as_u64().unwrap() <= 0x00ff_ffff);
    let values = fields.iter().filter(|field| field["name"] != "Runbook").map(|field| &field["value"]);
    for text in [&embed["title"], &embed["description"]].into_iter().chain(values) {
        for mark in ['<', '[', ']', '*', '`', '_'] {
            assert!(!has_live(text.as_str().unwrap(), mark), "{mark} in {text}");
        }
    }
    let told: Vec<&str> =
        ["title", "description", "fields", "url"].iter().flat_map(|part| texts(&embed[part])).collect();
    tells_reason_first(&told, owed);
}

fn teams(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["type"], "message");
    let attachment = &body["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.4".into()));
    for block in card["body"].as_array().unwrap() {
        assert!(block["type"] == "FactSet" || block["wrap"] == true, "{block}");
        for text in texts(block) {
            for mark in ['<', '[', ']', '*', '`', '_'] {
                assert!(!has_live(text, mark), "{mark} in {text}");
            }
            assert!(!text.replace("\n\n", "").contains('\n'), "a line would run into the next: {text}");
        }
    }
    assert!(["Attention", "Warning", "Accent", "Good"].iter().any(|colour| card["body"][0]["color"] == *colour));
    let told: Vec<&str> = ["body", "actions"].iter().flat_map(|part| texts(&card[part])).collect();
    tells_reason_first(&told, owed);
}

fn feishu(body: &str, owed: &Owed) {
    fn kinds(value: &Value) -> Vec<&str> {
        match value {
            Value::Object(members) => {
                let own = value["content"].as_str().and(value["tag"].as_str());
                own.into_iter().chain(members.values().flat_map(kinds)).collect()
            }
            Value::Array(items) => items.iter().flat_map(kinds).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["msg_type"], "interactive");
    let card = &body["card"];
    assert!(kinds(card).iter().all(|kind| *kind == "plain_text"), "a text that could hold marks: {card}");
    assert!(["red", "orange", "yellow", "blue", "green"].iter().any(|colour| card["header"]["template"] == *colour));
    assert!(texts(card).contains(&"jobwatch"), "the keyword");
    let told: Vec<&str> = ["header", "elements"].iter().flat_map(|part| texts(&card[part])).collect();
    tells_reason_first(&told, owed);
}

fn wecom(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let content = body["markdown"]["content"].as_str().unwrap();
    assert!(!content.is_empty() && content.len() <= 4_096, "{} bytes", content.len());
    let own = ["<font color=\"warning\">", "<font color=\"comment\">", "<font color=\"info\">"];
    let colour = own.iter().find(|colour| content.starts_with(&format!("### {colour}"))).unwrap();
    let rest = content.replacen(colour, "", 1).replacen("</font>", "", 1).replacen("\n[Runbook](https://wiki", "\n", 1);
    for mark in ["<", "[", "]", "`", "@"] {
        assert!(!rest.contains(mark), "{mark} in {rest}");
    }
    let told: Vec<&str> = content.lines().collect();
    tells_reason_first(&told, owed);
}

fn dingtalk(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let text = body["markdown"]["text"].as_str().unwrap();
    let rest = text.replace("\n[Runbook](https://wiki", "\n").replace("- **", "").replace("** ", "");
    for mark in ['<', '[', ']', '*', '`', '_', '@'] {
        let live = if mark == '@' { text.contains(mark) } else { has_live(&rest, mark) };
        assert!(!live, "{mark} in {text}");
    }
    assert!(text.contains("\njobwatch\n"), "the keyword");
    assert_eq!(body["at"]["isAtAll"], false);
    let told: Vec<&str> = text.lines().collect();
    tells_reason_first(&told, owed);
}

fn smn(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let (subject, message) = (body["subject"].as_str().unwrap(), body["message"].as_str().unwrap());
    assert!(!subject.is_empty() && subject.len() <= 512 && !subject.contains(['\n', '\r']), "{subject}");
    assert!(message.len() <= 256_000, "{}", message.len());
    let reason = owed.notification.reason().filter(|reason| *reason == "quota 17 exceeded").unwrap_or_default();
    assert!(message.contains(reason), "{message}");
}

fn eventgrid(body: &str, owed: &Owed) {
    let body: Value = serde_json::from_str(body).unwrap();
    let [event] = body["events"].as_array().unwrap().as_slice() else { panic!("one event: {body}") };
    assert_eq!(
        (&event["specversion"], &event["id"], &event["type"], &event["subject"], &event["source"]),
        (
            &"1.0".into(),
            &owed.id.as_str().into(),
            &owed.notification.event.as_str().into(),
            &owed.notification.subject().into(),
            &"watch".into()
        ),
    );
    let time = event["time"].as_str().unwrap();
    assert!(time.len() == "2026-11-23T08:15:30Z".len() && time.ends_with('Z'), "whole seconds: {time}");
    assert!(!event["data"]["title"].as_str().unwrap().is_empty());
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
