//! `kind = "feishu"`: a custom bot of a Feishu or Lark group.
//!
//! Source: Feishu's documentation of custom bots and message cards. A failure is mostly told under HTTP 200; `code` tells.
//! Every text in a card is `plain_text`, in which there are no marks, links or mentions.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::parts::{Parts, Tone, Unit, fitted};
use super::post::{Meaning, Medium, Posting, Reply, door, receiver, signing_key};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, table};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "feishu",
    about: "a custom bot of a Feishu or Lark group",
    carrier: Carrier::Http,
    concurrency: 1,
    text_max: 15_000,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "feishu-url" }
secret = { credential = "feishu-secret" }
"#;

/// Bytes of the whole body, of twenty thousand; the signature is added to what is stored.
const BODY_MAX: usize = 19_800;
/// Bytes of a text in it.
const TEXT_MAX: usize = 17_000;
/// Five messages a second and a hundred a minute are taken.
const TOO_FAST: Duration = Duration::from_secs(5);
/// In every message, for bots that ask for a keyword.
const KEYWORD: &str = "jobwatch";

#[derive(Debug)]
struct Feishu {
    secret: Option<SecretString>,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let door = door(table, common, "the bot's address: url = { credential = \"feishu-url\" }");
    receiver(door, signing_key(table, common).map(|secret| Feishu { secret }))
}

fn schema() -> Value {
    let url = secret(
        "The bot's address, https://open.feishu.cn/open-apis/bot/v2/hook/… or its like at open.larksuite.com. A keyword that \
         is in every message: jobwatch.",
    );
    let key = secret("The bot's signing secret, where its security setting is a signature.");
    table("", &["url"], [("url", url), ("secret", key)])
}

impl Medium for Feishu {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        Parts::of(owed).within(BODY_MAX, |parts| message(parts).to_string().into_bytes())
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        if let Some(secret) = &self.secret {
            let seconds = posting.now.seconds();
            let mut message: Map<String, Value> = serde_json::from_slice(&posting.body)
                .map_err(|error| format!("the stored message cannot be read: {error}"))?;
            message.insert("timestamp".into(), seconds.to_string().into());
            message.insert("sign".into(), sign(secret, seconds).into());
            posting.body = Value::Object(message).to_string().into_bytes();
        }
        Ok(())
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        // Bots say `code`, older ones `StatusCode`, some both: then both must be 0.
        let codes: Vec<i64> = ["code", "StatusCode"].iter().filter_map(|name| reply.json[name].as_i64()).collect();
        let failed = codes.iter().find(|code| **code != 0);
        let success = (200..300).contains(&reply.status);
        match failed {
            Some(11_232) => Meaning::Later(Some(TOO_FAST)),
            Some(_) if reply.text.to_lowercase().contains("frequency limit") => Meaning::Later(Some(TOO_FAST)),
            Some(_) if success => Meaning::Refused,
            None if success && !codes.is_empty() => Meaning::Accepted,
            // Something else answers: not delivered, as far as can be told.
            None if success => Meaning::Later(None),
            Some(_) | None => Meaning::AsStatus,
        }
    }
}

fn message(parts: &Parts) -> Value {
    let Parts { reason, body, runbook, .. } = parts;
    let plain =
        |text: &str| json!({ "tag": "plain_text", "content": fitted(text, TEXT_MAX, Unit::Json, str::to_owned) });
    let texts = [reason, body].into_iter().filter(|text| !text.is_empty());
    let mut elements: Vec<Value> = texts.map(|text| json!({ "tag": "div", "text": plain(text) })).collect();
    let field = |(name, value): (&str, &str)| json!({ "is_short": true, "text": plain(&format!("{name}\n{value}")) });
    let fields: Vec<Value> = parts.short_facts().map(field).collect();
    if !fields.is_empty() {
        elements.push(json!({ "tag": "div", "fields": fields }));
    }
    if let Some(link) = runbook {
        let button = json!({ "tag": "button", "text": plain("Runbook"), "type": "primary", "url": link });
        elements.push(json!({ "tag": "action", "actions": [button] }));
    }
    elements.push(json!({ "tag": "note", "elements": [plain(KEYWORD)] }));
    json!({
        "msg_type": "interactive",
        "card": {
            "config": { "wide_screen_mode": true },
            "header": { "title": plain(&parts.head()), "template": colour(parts.tone) },
            "elements": elements,
        },
    })
}

fn colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Critical => "red",
        Tone::Error => "orange",
        Tone::Warning => "yellow",
        Tone::Info => "blue",
        Tone::Good => "green",
    }
}

/// HMAC-SHA256 of nothing under `timestamp LF secret`, in base64.
fn sign(secret: &SecretString, seconds: i64) -> String {
    let key = format!("{seconds}\n{}", secret.expose_secret().trim());
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of every length");
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::sign;
    use secrecy::SecretString;
    use serde_json::Value;

    #[test]
    fn every_vector_is_signed_byte_for_byte() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/fixtures/robot-signatures.json")).unwrap();
        let vectors = vectors["feishu"]["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 4);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let signed = sign(&SecretString::from(text("secret")), text("timestamp_s").parse().unwrap());
            assert_eq!(signed, text("sign"), "{}", text("name"));
            assert_ne!(signed, text("wrong_if_swapped"));
        }
    }
}
