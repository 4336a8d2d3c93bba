//! `kind = "pagerduty"`: the Events API v2 of PagerDuty. An alert is triggered under its own id, and what ends it resolves it.
//!
//! Source: PagerDuty's documentation of the Events API v2. The routing key goes into the body only when it is sent.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::parts::{Parts, Tone};
use super::post::{Meaning, Medium, Posting, Reply, known_door, receiver};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, string, table};
use crate::model::delivery::Owed;
use crate::model::notification::Topic;
use crate::model::text::shorten;

pub(super) const KIND: Kind = Kind {
    name: "pagerduty",
    about: "the Events API v2 of PagerDuty: triggers and resolves alerts",
    carrier: Carrier::Http,
    concurrency: 2,
    text_max: 400_000,
    per_minute: 100,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
routing_key = { credential = "pagerduty-key" }
url = "https://events.eu.pagerduty.com/v2/enqueue"
"#;

const URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Bytes of the whole request; the key is added to what is stored.
const BODY_MAX: usize = 500_000;
/// Characters of the summary.
const SUMMARY_MAX: usize = 1_000;

#[derive(Debug)]
struct PagerDuty {
    routing_key: SecretString,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let door = known_door(table, common, URL);
    if !table.has("routing_key") {
        table.missing("routing_key", "the integration's key: routing_key = { credential = \"pagerduty-key\" }");
    }
    let key = table.secret("routing_key", common.secrets);
    receiver(door, key.map(|key| PagerDuty { routing_key: key.value }))
}

fn schema() -> Value {
    let key = secret("The key of an Events API v2 integration.");
    let url = string("Another address than that of the US region, such as https://events.eu.pagerduty.com/v2/enqueue.");
    table("", &["routing_key"], [("routing_key", key), ("url", url)])
}

impl Medium for PagerDuty {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        Parts::of(owed).within(BODY_MAX, |parts| event(owed, parts).to_string().into_bytes())
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        let mut event: Map<String, Value> = serde_json::from_slice(&posting.body)
            .map_err(|error| format!("the stored event cannot be read: {error}"))?;
        event.insert("routing_key".into(), self.routing_key.expose_secret().trim().into());
        posting.body = Value::Object(event).to_string().into_bytes();
        Ok(())
    }

    fn ends_by_id(&self) -> bool {
        true
    }

    fn secrets(&self) -> Vec<&SecretString> {
        vec![&self.routing_key]
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        match reply.status {
            202 => Meaning::Accepted,
            // Something else stands at this address.
            200..=299 => Meaning::Refused,
            _ => Meaning::AsStatus,
        }
    }
}

fn event(owed: &Owed, parts: &Parts) -> Value {
    let Parts { title, reason, body, facts, runbook, .. } = parts;
    let key = match &owed.notification.topic {
        Topic::Job(topic) => topic.alert.id.to_string(),
        // A digest is an incident of its own; what is said of the agent opens one and closes it.
        Topic::Digest(_) => owed.id.to_string(),
        Topic::Sources(_) | Topic::Reload { .. } | Topic::Room { .. } | Topic::Probe(_) | Topic::Receiver { .. } => {
            format!("jobwatch/{}", owed.lane.subject)
        }
    };
    let severity = match parts.tone {
        Tone::Good => return json!({ "event_action": "resolve", "dedup_key": shorten(&key, 250) }),
        Tone::Critical => "critical",
        Tone::Error => "error",
        Tone::Warning => "warning",
        Tone::Info => "info",
    };
    let mut details: Map<String, Value> =
        facts.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    if !reason.is_empty() {
        details.insert("Reason".into(), reason.as_str().into());
    }
    details.insert("Message".into(), body.as_str().into());
    let links: Vec<Value> = runbook.iter().map(|link| json!({ "href": link, "text": "Runbook" })).collect();
    json!({
        "event_action": "trigger",
        "dedup_key": shorten(&key, 250),
        "payload": {
            "summary": shorten(title, SUMMARY_MAX),
            "source": owed.notification.origin(),
            "severity": severity,
            "timestamp": owed.notification.time,
            "class": owed.notification.event.as_str(),
            "custom_details": details,
        },
        "client": "jobwatch",
        "links": links,
    })
}
