//! `kind = "webhook"`: one HTTP POST of a CloudEvents 1.0 body, signed as Standard Webhooks says.
//!
//! Sources: CloudEvents 1.0.2 and its HTTP binding (structured mode); Standard Webhooks 1.0.0.

use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::post::{Medium, Posting, door, receiver};
use super::sign::{Key, signature};
use super::{Carrier, Common, Kind, Receiver, headers};
use crate::document::Table;
use crate::document::schema::{about, secret, table, word};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "webhook",
    about: "an HTTP POST of a CloudEvents body, signed as Standard Webhooks says",
    carrier: Carrier::Http,
    concurrency: 4,
    text_max: 1 << 20,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "oncall-url" }
secret = { credential = "oncall-secret" }
headers = { X-Team = "registry", Authorization = { credential = "oncall-authorization" } }
format = "cloudevents"
"#;

#[derive(Debug)]
struct Webhook {
    keys: Vec<Key>,
    headers: HeaderMap,
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    CloudEvents,
    Plain,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let door = door(table, common, "where to post: url = { credential = \"oncall-url\" }");
    let keys = keys(table, common);
    let headers = headers::read(table, common);
    let format = table.word("format", &[("cloudevents", Format::CloudEvents), ("plain", Format::Plain)]);
    let format = format.unwrap_or(Format::CloudEvents);
    let medium = keys.zip(headers).map(|(keys, headers)| Webhook { keys, headers, format });
    receiver(door, medium)
}

fn schema() -> Value {
    let key = secret("A signing key: `whsec_` and the base64 of 24 to 64 random bytes.");
    let keys = about(
        "Signs the body as Standard Webhooks says; a list rotates.",
        json!({ "anyOf": [key, { "type": "array", "items": key }] }),
    );
    table(
        "",
        &["url"],
        [
            ("url", secret("Where to post, https. A secret, because who knows it can post.")),
            ("secret", keys),
            ("headers", headers::schema()),
            (
                "format",
                word("The body: a CloudEvents envelope, or the value of its `data` alone.", ["cloudevents", "plain"]),
            ),
        ],
    )
}

/// The signing keys; `None` when one cannot be used.
fn keys(table: &Table<'_>, common: &Common<'_>) -> Option<Vec<Key>> {
    let Some(value) = table.value("secret") else { return Some(Vec::new()) };
    let values = if value.is_array() { value.items()? } else { vec![value] };
    let key = |value: &crate::document::Value<'_>| {
        let secret = value.secret(common.secrets)?;
        Key::read(&secret.value)
            .map_err(|why| value.error("secret", why, "`whsec_` and the base64 of 24 to 64 random bytes"))
            .ok()
    };
    values.iter().map(key).collect()
}

impl Medium for Webhook {
    fn content_type(&self) -> &'static str {
        match self.format {
            Format::CloudEvents => "application/cloudevents+json; charset=utf-8",
            Format::Plain => "application/json; charset=utf-8",
        }
    }

    fn word(&self, owed: &Owed) -> Vec<u8> {
        let data = owed.notification.data();
        let body = match self.format {
            Format::CloudEvents => cloud_event(owed, data),
            Format::Plain => data,
        };
        body.to_string().into_bytes()
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        let (id, seconds) = (posting.id, posting.now.seconds());
        let mut set = |name: &'static str, value: String| {
            let value = HeaderValue::try_from(value).map_err(|_| format!("`{name}` cannot be sent as a header"))?;
            posting.headers.insert(name, value);
            Ok::<(), String>(())
        };
        set("webhook-id", id.to_owned())?;
        set("webhook-timestamp", seconds.to_string())?;
        if !self.keys.is_empty() {
            set("webhook-signature", signature(&self.keys, id, seconds, &posting.body))?;
        }
        posting.headers.extend(self.headers.clone());
        Ok(())
    }
}

/// The body of contract §6. `id` is the delivery's, so that a receiver can drop what it has.
pub(super) fn cloud_event(owed: &Owed, data: Value) -> Value {
    let notification = &owed.notification;
    json!({
        "specversion": "1.0",
        "id": owed.id,
        "type": notification.event.as_str(),
        "source": notification.origin(),
        "subject": notification.subject(),
        "time": notification.time,
        "datacontenttype": "application/json",
        "data": data,
    })
}
