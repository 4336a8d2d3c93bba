//! `kind = "teams"`: a flow of Microsoft Teams that posts what a webhook brings it: "When a Teams webhook request is received".
//!
//! Sources: Microsoft's documentation of Workflows for Teams and of Adaptive Cards 1.4. An answer 202 means that the flow
//! was started; what becomes of it later is not told to who posted.

use std::sync::Arc;

use serde_json::{Value, json};

use super::parts::{Parts, Tone, Unit, backslashed, fitted};
use super::post::{Meaning, Medium, Reply, door, receiver};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, table};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "teams",
    about: "a Workflows webhook of Microsoft Teams",
    carrier: Carrier::Http,
    concurrency: 1,
    text_max: 13_000,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "teams-url" }
"#;

/// Bytes of the whole. Teams takes 28 KB, with what it adds itself.
const BODY_MAX: usize = 20_000;
/// Bytes of a text in it.
const TEXT_MAX: usize = 16_000;

#[derive(Debug)]
struct Teams;

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    receiver(door(table, common, "the flow's address: url = { credential = \"teams-url\" }"), Some(Teams))
}

fn schema() -> Value {
    let url = secret(
        "The address of a flow with the trigger \"When a Teams webhook request is received\", whole: its `sig` is the secret.",
    );
    table("", &["url"], [("url", url)])
}

impl Medium for Teams {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        Parts::of(owed).within(BODY_MAX, |parts| message(parts).to_string().into_bytes())
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        if !(200..300).contains(&reply.status) {
            return Meaning::AsStatus;
        }
        // The connectors that came before flows say in the body of a 200 what went wrong behind them.
        let text = reply.text.to_lowercase();
        let failed = |status: &str| text.contains(&format!("http error {status}"));
        if failed("429") || failed("5") {
            Meaning::Later(None)
        } else if failed("") || text.trim_start().starts_with('<') {
            // A page for people: something else stands at this address.
            Meaning::Refused
        } else {
            Meaning::Accepted
        }
    }
}

fn message(parts: &Parts) -> Value {
    let Parts { reason, body, runbook, .. } = parts;
    let text = |text: &str| json!({ "type": "TextBlock", "text": escaped(text), "wrap": true });
    let mut head = text(&parts.head());
    head["weight"] = "Bolder".into();
    head["size"] = "Medium".into();
    head["style"] = "heading".into();
    head["color"] = colour(parts.tone).into();
    let mut blocks = vec![head];
    blocks.extend([reason, body].into_iter().filter(|part| !part.is_empty()).map(|part| text(part)));
    let fact = |(name, value): (&str, &str)| json!({ "title": name, "value": escaped(value) });
    let facts: Vec<Value> = parts.short_facts().map(fact).collect();
    if !facts.is_empty() {
        blocks.push(json!({ "type": "FactSet", "facts": facts }));
    }
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": { "width": "Full" },
        "body": blocks,
    });
    if let Some(link) = runbook {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Runbook", "url": link }]);
    }
    let attachment = json!({ "contentType": "application/vnd.microsoft.card.adaptive", "content": card });
    json!({ "type": "message", "attachments": [attachment] })
}

/// Marks of Markdown are read as they stand, and so is `<at>`. A line ends where a paragraph does: a single break is a blank.
fn escaped(text: &str) -> String {
    fitted(text, TEXT_MAX, Unit::Json, |text| backslashed(text, "\\`*_[]<>#").replace('\n', "\n\n"))
}

fn colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Critical | Tone::Error => "Attention",
        Tone::Warning => "Warning",
        Tone::Info => "Accent",
        Tone::Good => "Good",
    }
}
