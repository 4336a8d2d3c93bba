//! `kind = "discord"`: a webhook of a Discord channel. The URL is all there is to it, and a secret.
//!
//! Source: Discord's documentation of webhooks, embeds and rate limits. Without `wait` a message that could not be saved
//! raises no error, so each attempt asks for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::parts::{Parts, Tone, Unit, backslashed, fitted};
use super::post::{Meaning, Medium, Posting, Reply, door, receiver};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, table};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "discord",
    about: "a webhook of a Discord channel",
    carrier: Carrier::Http,
    concurrency: 1,
    text_max: DESCRIPTION_MAX - 96,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "discord-url" }
"#;

/// Characters of an embed's title.
const TITLE_MAX: usize = 256;
/// Characters of its description.
const DESCRIPTION_MAX: usize = 4_096;
/// It has so many fields …
const FIELDS_MAX: usize = 25;
/// … of so many characters …
const FIELD_MAX: usize = 1_024;
/// … and so many characters in all.
const EMBED_MAX: usize = 6_000;
/// Characters of a link.
const LINK_MAX: usize = 2_048;
/// A reason leaves this much of the description to the body.
const REASON_MAX: usize = 2_048;
/// A value up to this many characters stands beside others.
const INLINE_MAX: usize = 40;
/// Bytes of the whole; far above what an embed can hold.
const BODY_MAX: usize = 60_000;
/// In every message, under the embed.
const FOOTER: &str = "jobwatch";

#[derive(Debug)]
struct Discord;

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    receiver(door(table, common, "the webhook's address: url = { credential = \"discord-url\" }"), Some(Discord))
}

fn schema() -> Value {
    let url =
        secret("The webhook's address, https://discord.com/api/webhooks/…; with ?thread_id=… it posts to a thread.");
    table("", &["url"], [("url", url)])
}

impl Medium for Discord {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        let time = owed.notification.time.to_string();
        Parts::of(owed).within(BODY_MAX, |parts| message(parts, &time).to_string().into_bytes())
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        let others: Vec<(String, String)> =
            posting.url.query_pairs().into_owned().filter(|(name, _)| name != "wait").collect();
        posting.url.query_pairs_mut().clear().extend_pairs(others).append_pair("wait", "true");
        Ok(())
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        match reply.status {
            // The message as it was saved; it may be longer than what is kept of it.
            200 if reply.text.trim_start().starts_with('{') => Meaning::Accepted,
            // Something else stands at this address.
            200 => Meaning::Refused,
            429 => {
                let after = reply.json["retry_after"].as_f64().map(f64::ceil);
                Meaning::Later(after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
            }
            _ => Meaning::AsStatus,
        }
    }
}

fn message(parts: &Parts, time: &str) -> Value {
    let Parts { reason, body, runbook, .. } = parts;
    let title = escaped(&parts.head(), TITLE_MAX);
    let mut description = escaped(reason, REASON_MAX);
    if !body.is_empty() {
        if !description.is_empty() {
            description.push_str("\n\n");
        }
        let room = DESCRIPTION_MAX - description.chars().count();
        description.push_str(&escaped(body, room));
    }
    let mut room = EMBED_MAX - [&*title, &*description, FOOTER].map(|text| text.chars().count()).iter().sum::<usize>();
    let link = runbook.as_deref().filter(|link| link.len() <= LINK_MAX);
    let link_field = link.filter(|link| link.len() <= FIELD_MAX).map(|link| ("Runbook", link.to_owned()));
    let facts = parts.short_facts().map(|(name, value)| (name, escaped(value, FIELD_MAX)));
    let mut fields = Vec::new();
    for (name, value) in link_field.into_iter().chain(facts).take(FIELDS_MAX) {
        let length = value.chars().count();
        let Some(left) = room.checked_sub(name.len() + length) else { break };
        room = left;
        fields.push(json!({ "name": name, "value": value, "inline": length <= INLINE_MAX }));
    }
    let mut embed = json!({
        "title": title, "description": description, "color": colour(parts.tone), "timestamp": time, "fields": fields,
        "footer": { "text": FOOTER },
    });
    if let Some(link) = link {
        embed["url"] = link.into();
    }
    json!({ "content": "", "allowed_mentions": { "parse": [] }, "embeds": [embed] })
}

/// Marks of Discord's Markdown, of its mentions and of masked links are read as they stand.
fn escaped(text: &str, max: usize) -> String {
    fitted(text, max, Unit::Characters, |text| backslashed(text, "\\`*_~|[]()<>#"))
}

fn colour(tone: Tone) -> u32 {
    match tone {
        Tone::Critical => 0x00b3_261e,
        Tone::Error => 0x00c4_470e,
        Tone::Warning => 0x00e0_a100,
        Tone::Info => 0x002f_6fb3,
        Tone::Good => 0x001d_6b3a,
    }
}
