//! `kind = "webhook"`: one HTTP POST of a CloudEvents 1.0 event, signed as Standard Webhooks says or as GitHub does.
//!
//! Sources: CloudEvents 1.0.2 and its HTTP binding (structured and binary mode); Standard Webhooks 1.0.0; GitHub's
//! "Validating webhook deliveries". What is stored is the whole event also in binary mode: which of it becomes a header
//! and which the body is decided anew at each attempt, and always alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::parts::Parts;
use super::post::{Medium, Posting, door, receiver};
use super::sign::{Key, hub_signature, signature};
use super::{Carrier, Common, Kind, Receiver, headers};
use crate::document;
use crate::document::Table;
use crate::document::schema::{about, secret, shaped, table, word};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "webhook",
    about: "an HTTP POST of a CloudEvent, signed as Standard Webhooks says or as GitHub does",
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
signature = "hmac-sha256"
signature_header = "X-Hub-Signature-256"
headers = { X-Team = "registry", Authorization = { credential = "oncall-authorization" } }
format = "cloudevents"
"#;

/// What stays as it is in the value of a header: U+0021 to U+007E, but for `"` and `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// The event's attributes; `datacontenttype` is the body's `Content-Type`.
const ATTRIBUTES: &[&str] = &["specversion", "id", "type", "source", "subject", "time", "datacontenttype"];
/// Where GitHub has its signature.
const HUB_HEADER: HeaderName = HeaderName::from_static("x-hub-signature-256");
const SECRET: &str = "secret = { credential = \"oncall-secret\" }";

#[derive(Debug)]
struct Webhook {
    signature: Signature,
    headers: HeaderMap,
    format: Format,
}

#[derive(Debug)]
enum Signature {
    /// An entry for each key; with none, none.
    Standard(Vec<Key>),
    /// Of the body alone.
    Hub { secret: SecretString, header: HeaderName },
}

#[derive(Clone, Copy, Debug)]
enum Scheme {
    Standard,
    Hub,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Structured,
    Binary,
    Plain,
}

const SCHEMES: &[(&str, Scheme)] = &[("standard", Scheme::Standard), ("hmac-sha256", Scheme::Hub)];
const FORMATS: &[(&str, Format)] =
    &[("cloudevents", Format::Structured), ("cloudevents-binary", Format::Binary), ("plain", Format::Plain)];

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let door = door(table, common, "where to post: url = { credential = \"oncall-url\" }");
    let signature = read_signature(table, common);
    let headers = headers::read(table, common);
    let format = table.word("format", FORMATS).unwrap_or(Format::Structured);
    let medium = signature.zip(headers).map(|(signature, headers)| Webhook { signature, headers, format });
    receiver(door, medium.filter(|medium| medium.owns_its_headers(table)))
}

fn schema() -> Value {
    let key = secret("A signing key: `whsec_` and the base64 of 24 to 64 random bytes.");
    let keys = about(
        "Signs the body as `signature` says; as Standard Webhooks has it, a list rotates.",
        json!({ "anyOf": [key, { "type": "array", "items": key, "minItems": 1 }] }),
    );
    let mut schema = table(
        "",
        &["url"],
        [
            ("url", secret("Where to post, https. A secret, because who knows it can post.")),
            ("secret", keys),
            (
                "signature",
                word(
                    "How `secret` signs: as Standard Webhooks says, or as GitHub does: HMAC-SHA256 of the body alone, under the secret's text.",
                    SCHEMES.iter().map(|(name, _)| *name),
                ),
            ),
            (
                "signature_header",
                shaped(
                    "Where a signature of `hmac-sha256` stands; X-Hub-Signature-256, if left out.",
                    "^[A-Za-z0-9-]+$",
                ),
            ),
            ("headers", headers::schema()),
            (
                "format",
                word(
                    "A CloudEvents envelope as the body, or as headers with the value of its `data` as the body, or that value alone.",
                    FORMATS.iter().map(|(name, _)| *name),
                ),
            ),
        ],
    );
    schema["dependentRequired"] = json!({ "signature": ["secret"], "signature_header": ["signature"] });
    schema["if"] = json!({ "properties": { "signature": { "const": "hmac-sha256" } }, "required": ["signature"] });
    schema["then"] = json!({ "properties": { "secret": { "not": { "type": "array" } } } });
    schema["else"] = json!({ "properties": { "signature_header": false } });
    schema
}

/// How the secret signs; `None` when something of it cannot be used.
fn read_signature(table: &Table<'_>, common: &Common<'_>) -> Option<Signature> {
    let scheme = table.word("signature", SCHEMES);
    let header = read_header(table);
    let Some(value) = table.value("secret") else {
        let vain = ["signature", "signature_header"].into_iter().find(|key| table.has(key));
        if let Some(key) = vain {
            table.missing("secret", format!("{SECRET}, or leave `{key}` out: without a secret nothing is signed"));
        }
        return vain.is_none().then(|| Signature::Standard(Vec::new()));
    };
    match scheme {
        // It is a word that is not known.
        None if table.has("signature") => None,
        None | Some(Scheme::Standard) => read_standard(table, &value, common),
        Some(Scheme::Hub) => read_hub(&value, header?, common),
    }
}

fn read_standard(table: &Table<'_>, value: &document::Value<'_>, common: &Common<'_>) -> Option<Signature> {
    if let Some(header) = table.value("signature_header") {
        let message = "the headers of Standard Webhooks have names of their own";
        header.error("signature", message, "signature = \"hmac-sha256\", or leave `signature_header` out");
        return None;
    }
    keys(value, common).map(Signature::Standard)
}

fn read_hub(value: &document::Value<'_>, header: HeaderName, common: &Common<'_>) -> Option<Signature> {
    if value.is_array() {
        let help = format!("{SECRET}, the one that the receiver knows; a list is for signature = \"standard\"");
        value.error(
            "signature",
            "the header of `hmac-sha256` holds one signature, and this is a list of secrets",
            help,
        );
        return None;
    }
    let secret = value.secret(common.secrets)?.value;
    if secret.expose_secret().is_empty() {
        value.error("secret", "the secret is empty", "the text that the receiver verifies with");
        return None;
    }
    Some(Signature::Hub { secret, header })
}

/// `None` when it cannot be sent.
fn read_header(table: &Table<'_>) -> Option<HeaderName> {
    let Some(value) = table.value("signature_header") else { return Some(HUB_HEADER) };
    let text = value.string()?.value;
    let sound = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let name = HeaderName::try_from(text.as_str()).ok().filter(|name| sound && !headers::is_ours(name));
    if name.is_none() {
        value.error(
            "header",
            format!("`{text}` cannot hold the signature"),
            "such as X-Hub-Signature-256 or X-Signature",
        );
    }
    name
}

/// The signing keys; `None` when one cannot be used.
fn keys(value: &document::Value<'_>, common: &Common<'_>) -> Option<Vec<Key>> {
    const HELP: &str = "`whsec_` and the base64 of 24 to 64 random bytes";
    let many = if value.is_array() { Some(value.items()?) } else { None };
    let values = many.as_deref().unwrap_or(std::slice::from_ref(value));
    if values.is_empty() {
        value.error("signature", "a list without a secret signs nothing", HELP);
        return None;
    }
    let key = |value: &document::Value<'_>| {
        let secret = value.secret(common.secrets)?;
        Key::read(&secret.value).map_err(|why| value.error("secret", why, HELP)).ok()
    };
    values.iter().map(key).collect()
}

impl Webhook {
    /// Whether no header of the operator's stands where one of the message's belongs.
    fn owns_its_headers(&self, table: &Table<'_>) -> bool {
        let signature = match &self.signature {
            Signature::Hub { header, .. } => Some(header.as_str()),
            Signature::Standard(_) => None,
        };
        let taken = |name: &&HeaderName| {
            let attribute = name.as_str().strip_prefix("ce-").filter(|_| self.format == Format::Binary);
            Some(name.as_str()) == signature || attribute.is_some_and(|name| ATTRIBUTES.contains(&name))
        };
        let first = self.headers.keys().find(taken);
        if let Some(name) = first {
            let message = format!("`{name}` in `headers` is the name of a header that the message has");
            table.error("header", table.span(), message, "leave it out of `headers`: jobwatch sets it");
        }
        first.is_none()
    }
}

impl Medium for Webhook {
    fn content_type(&self) -> &'static str {
        match self.format {
            Format::Structured => "application/cloudevents+json; charset=utf-8",
            Format::Binary => "application/json",
            Format::Plain => "application/json; charset=utf-8",
        }
    }

    fn word(&self, owed: &Owed) -> Vec<u8> {
        let data = owed.notification.data();
        let body = match self.format {
            Format::Structured | Format::Binary => cloud_event(owed, data),
            Format::Plain => data,
        };
        body.to_string().into_bytes()
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        if self.format == Format::Binary {
            unfold(posting)?;
        }
        let (id, seconds) = (posting.id, posting.now.seconds());
        set(&mut posting.headers, HeaderName::from_static("webhook-id"), id)?;
        set(&mut posting.headers, HeaderName::from_static("webhook-timestamp"), &seconds.to_string())?;
        let (header, value) = match &self.signature {
            Signature::Standard(keys) if keys.is_empty() => (None, String::new()),
            Signature::Standard(keys) => {
                (Some(HeaderName::from_static("webhook-signature")), signature(keys, id, seconds, &posting.body))
            }
            Signature::Hub { secret, header } => (Some(header.clone()), hub_signature(secret, &posting.body)),
        };
        if let Some(header) = header {
            set(&mut posting.headers, header, &value)?;
        }
        posting.headers.extend(self.headers.clone());
        Ok(())
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), String> {
    let value = HeaderValue::try_from(value).map_err(|_| format!("`{name}` cannot be sent as a header"))?;
    headers.insert(name, value);
    Ok(())
}

/// The stored event in binary mode: its attributes become headers, the bytes of its `data` the body.
fn unfold(posting: &mut Posting<'_>) -> Result<(), String> {
    let event: BTreeMap<&str, &RawValue> = serde_json::from_slice(&posting.body).unwrap_or_default();
    let (Some(data), true) = (event.get("data"), event.contains_key("specversion")) else {
        return Err("what is stored is no CloudEvent: it was worded when `format` was another one; put that back \
                    until it is delivered, or `jobwatch deliveries drop` it"
            .into());
    };
    let attributes = event.iter().filter(|(name, _)| !matches!(**name, "data" | "datacontenttype"));
    for (name, value) in attributes {
        let text: String = serde_json::from_str(value.get()).map_err(|_| format!("the stored `{name}` is no text"))?;
        let header = HeaderName::try_from(format!("ce-{name}"));
        let header = header.map_err(|_| format!("the stored `{name}` is no name of a header"))?;
        set(&mut posting.headers, header, &encoded(&text))?;
    }
    posting.body = data.get().as_bytes().to_vec();
    Ok(())
}

/// A text as the HTTP binding of CloudEvents writes it in a header.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
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

/// A medium's words around the event, in at most `max` bytes: where they are longer, the event has the texts alone, and not
/// the details that the texts have too; of these is cut what matters least.
pub(super) fn event_within(owed: &Owed, max: usize, word: impl Fn(Value) -> Value) -> Vec<u8> {
    let word = |data: Value| word(cloud_event(owed, data)).to_string().into_bytes();
    let data = owed.notification.data();
    let whole = word(data.clone());
    if whole.len() <= max {
        return whole;
    }
    let (state, severity) = (&data["state"], &data["severity"]);
    Parts::of(owed).within(max, |Parts { title, body, reason, .. }| {
        word(json!({ "state": state, "severity": severity, "title": title, "body": body, "reason": reason }))
    })
}

#[cfg(test)]
mod tests {
    use super::encoded;
    use serde_json::Value;

    #[test]
    fn every_vector_of_an_attribute_is_written_byte_for_byte() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/fixtures/webhook-headers.json")).unwrap();
        let vectors = vectors["cloudevents_header_percent_encoding"]["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in vectors {
            assert_eq!(encoded(vector["value"].as_str().unwrap()), vector["header"].as_str().unwrap());
        }
    }
}
