//! `kind = "slack"`: an incoming webhook of Slack. The URL is all there is to it, and a secret.
//!
//! Source: Slack's documentation of incoming webhooks, Block Kit and mrkdwn. Success is HTTP 200 with the body `ok`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::parts::{Parts, Tone, Unit, fitted, packed};
use super::post::{Meaning, Medium, Reply, door, receiver};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, table};
use crate::model::delivery::Owed;
use crate::model::text::shorten;

pub(super) const KIND: Kind = Kind {
    name: "slack",
    about: "an incoming webhook of Slack",
    carrier: Carrier::Http,
    concurrency: 1,
    text_max: SECTION_MAX / 2 * (SECTIONS_MAX - 6),
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "slack-url" }
"#;

/// Characters of a header block.
const HEADER_MAX: usize = 150;
/// Characters of a section's text.
const SECTION_MAX: usize = 3_000;
/// Sections that the body may take of a message's fifty blocks.
const SECTIONS_MAX: usize = 20;
/// A section has so many fields …
const FIELDS_MAX: usize = 10;
/// … of so many characters.
const FIELD_MAX: usize = 2_000;
/// Characters of the text that notifications show.
const TEXT_MAX: usize = 4_000;
/// Characters of a button's link.
const LINK_MAX: usize = 3_000;
/// Bytes of the whole; far above what the blocks can hold.
const BODY_MAX: usize = 100_000;

/// Codes that pass by themselves.
const LATER: &[&str] = &["rollup_error", "rate_limited", "ratelimited"];
/// Codes that say what is wrong with the message or the channel.
const REFUSALS: &[&str] = &[
    "invalid_payload",
    "no_text",
    "invalid_blocks",
    "invalid_blocks_format",
    "missing_text_or_fallback_or_attachments",
    "too_many_attachments",
    "user_not_found",
    "action_prohibited",
    "invalid_token",
    "posting_to_general_channel_denied",
    "channel_not_found",
    "no_service",
    "no_team",
    "team_disabled",
    "channel_is_archived",
];

#[derive(Debug)]
struct Slack;

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    receiver(door(table, common, "the webhook's address: url = { credential = \"slack-url\" }"), Some(Slack))
}

fn schema() -> Value {
    let url =
        secret("The webhook's address, https://hooks.slack.com/services/…: a secret, because who knows it can post.");
    table("", &["url"], [("url", url)])
}

impl Medium for Slack {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        Parts::of(owed).within(BODY_MAX, |parts| message(parts).to_string().into_bytes())
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        let code = reply.text.trim();
        match (reply.status, code) {
            (200, "ok") => Meaning::Accepted,
            // A code says more than its status: some were seen under another one.
            _ if LATER.contains(&code) => Meaning::Later(None),
            _ if REFUSALS.contains(&code) => Meaning::Refused,
            // Cut off before the code: not delivered, as far as can be told.
            (200..=299, "") => Meaning::Later(None),
            (200..=299, _) => Meaning::Refused,
            (_, _) => Meaning::AsStatus,
        }
    }
}

fn message(parts: &Parts) -> Value {
    let Parts { title, reason, body, runbook, .. } = parts;
    let mrkdwn = |text: &str, max: usize| marked(&escaped(text, max));
    let mut blocks = vec![json!({
        "type": "header", "text": { "type": "plain_text", "emoji": false, "text": shorten(title, HEADER_MAX - 1) },
    })];
    if !reason.is_empty() {
        blocks.push(json!({ "type": "section", "text": mrkdwn(reason, SECTION_MAX) }));
    }
    for text in packed(body, SECTION_MAX / 2).iter().take(SECTIONS_MAX) {
        blocks.push(json!({ "type": "section", "text": mrkdwn(text, SECTION_MAX) }));
    }
    let fact = |(name, value): (&str, &str)| marked(&format!("*{name}*\n{}", escaped(value, FIELD_MAX - 100)));
    let facts: Vec<Value> = parts.short_facts().take(FIELDS_MAX).map(fact).collect();
    if !facts.is_empty() {
        blocks.push(json!({ "type": "section", "fields": facts }));
    }
    if let Some(link) = runbook.as_ref().filter(|link| link.len() <= LINK_MAX) {
        let button = json!({ "type": "button", "text": { "type": "plain_text", "text": "Runbook" }, "url": link });
        blocks.push(json!({ "type": "actions", "elements": [button] }));
    }
    let fallback = escaped(&parts.head(), TEXT_MAX);
    // The bar's colour is an attachment's; blocks inside it look the same.
    json!({ "text": fallback, "unfurl_links": false, "attachments": [{ "color": colour(parts.tone), "blocks": blocks }] })
}

/// `verbatim`: Slack makes no links, channels and mentions of plain words.
fn marked(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

/// The three characters that Slack reads as marks: links, mentions, channels.
fn escaped(text: &str, max: usize) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    fitted(text, max, Unit::Characters, escape)
}

fn colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Critical => "#b3261e",
        Tone::Error => "#c4470e",
        Tone::Warning => "#e0a100",
        Tone::Info => "#2f6fb3",
        Tone::Good => "#1d6b3a",
    }
}
