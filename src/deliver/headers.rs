//! `headers = { … }`: headers of the operator's own, for a far end that wants a token or a name.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::Common;
use crate::document::Table;
use crate::document::schema::{named, secret};

/// Headers that belong to the exchange itself.
const OURS: &[&str] = &[
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "content-type",
    "content-length",
    "host",
    "connection",
    "transfer-encoding",
    "te",
    "upgrade",
];

/// Whether it belongs to the exchange itself.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    OURS.contains(&name.as_str())
}

/// Reads `headers`: a value is a text, which is no secret, or says where a secret is. `None` when one cannot be sent.
pub(super) fn read(table: &Table<'_>, common: &Common<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut sound = true;
    for (name, value) in table.table("headers").map(|table| table.entries()).unwrap_or_default() {
        let text = match value.is_table() {
            true => value.secret(common.secrets).map(|secret| (secret.value.expose_secret().trim().to_owned(), true)),
            false => value.string().map(|text| (text.value, false)),
        };
        let Some((text, secret)) = text else {
            sound = false;
            continue;
        };
        match (HeaderName::try_from(&name.value), HeaderValue::try_from(&text)) {
            (Ok(key), Ok(mut text)) if !is_ours(&key) => {
                // Whoever prints it sees that there is one.
                text.set_sensitive(secret);
                headers.insert(key, text);
            }
            _ => {
                let help = "a header name and a value of printable ASCII; the signature's headers and the body's are set by jobwatch";
                table.error("header", name.span, format!("`{}` cannot be sent as a header", name.value), help);
                sound = false;
            }
        }
    }
    sound.then_some(headers)
}

pub(super) fn schema() -> Value {
    let value = secret("A text, which is no secret, or where a secret is.");
    named("Headers of your own; a secret one, such as Authorization, says where it is.", None, value)
}

/// The secrets among headers. Of `Bearer x`, a far end may name `x` alone.
pub(super) fn secrets(headers: &HeaderMap) -> Vec<String> {
    let secret = headers.values().filter(|value| value.is_sensitive());
    let texts = secret.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| [Some(text), text.rsplit(' ').next()]).flatten().map(ToOwned::to_owned).collect()
}
