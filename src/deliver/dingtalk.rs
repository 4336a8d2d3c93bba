//! `kind = "dingtalk"`: a custom robot of a DingTalk group.
//!
//! Source: DingTalk's documentation of custom robots. The answer is HTTP 200 whatever happens; `errcode` tells.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;

use super::parts::{Parts, Unit, backslashed, fitted, linked};
use super::post::{Meaning, Medium, Posting, Reply, door, receiver, signing_key};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, table};
use crate::http::Url;
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "dingtalk",
    about: "a custom robot of a DingTalk group",
    carrier: Carrier::Http,
    concurrency: 1,
    text_max: 15_000,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "dingtalk-url" }
secret = { credential = "dingtalk-secret" }
"#;

/// Bytes of the whole body.
const BODY_MAX: usize = 20_000;
/// Bytes of a text in it, as it stands in JSON.
const TEXT_MAX: usize = 16_500;
/// Who is too fast is shut out for ten minutes.
const SHUT_OUT: Duration = Duration::from_secs(600);

/// In every message, for robots that ask for a keyword.
const KEYWORD: &str = "jobwatch";

#[derive(Debug)]
struct DingTalk {
    secret: Option<SecretString>,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let door = door(table, common, "the robot's address: url = { credential = \"dingtalk-url\" }");
    receiver(door, signing_key(table, common).map(|secret| DingTalk { secret }))
}

fn schema() -> Value {
    let url = secret(
        "The robot's address with its token, https://oapi.dingtalk.com/robot/send?access_token=… A keyword that is in every \
         message: jobwatch.",
    );
    let key = secret("The robot's signing secret, SEC…, where its security setting is a signature.");
    table("", &["url"], [("url", url), ("secret", key)])
}

impl Medium for DingTalk {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        Parts::of(owed).within(BODY_MAX, |parts| message(parts).to_string().into_bytes())
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        if let Some(secret) = &self.secret {
            add_signature(&mut posting.url, secret, posting.now.micros() / 1_000);
        }
        Ok(())
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        if !(200..300).contains(&reply.status) {
            return Meaning::AsStatus;
        }
        let text = reply.text.to_lowercase();
        match reply.json["errcode"].as_i64() {
            Some(0) => Meaning::Accepted,
            Some(-1) => Meaning::Later(None),
            Some(130_101 | 410_100) => Meaning::Later(Some(SHUT_OUT)),
            Some(_) if ["too fast", "frequency", "限流"].iter().any(|words| text.contains(words)) => {
                Meaning::Later(Some(SHUT_OUT))
            }
            Some(_) => Meaning::Refused,
            // A gateway in front of it, or something else altogether: not delivered, as far as can be told.
            None => Meaning::Later(reply.json["wait"].as_u64().map(Duration::from_secs)),
        }
    }
}

fn message(parts: &Parts) -> Value {
    let Parts { reason, body, runbook, .. } = parts;
    let mut text = format!("### {}\n\n", escaped(&parts.head()));
    if !reason.is_empty() {
        text += &format!("> {}\n\n", escaped(reason));
    }
    if !body.is_empty() {
        text += &format!("{}\n\n", escaped(body));
    }
    for (name, value) in parts.short_facts() {
        text += &format!("- **{name}** {}\n", escaped(value));
    }
    if let Some(link) = runbook {
        text += &format!("\n[Runbook]({})\n", linked(link));
    }
    text += &format!("\n{KEYWORD}\n");
    json!({ "msgtype": "markdown", "markdown": { "title": parts.head(), "text": text }, "at": { "isAtAll": false } })
}

/// Marks of Markdown are written so that they are read as they stand; an `@` calls nobody.
fn escaped(text: &str) -> String {
    fitted(text, TEXT_MAX, Unit::Json, |text| {
        backslashed(text, "\\`*_[]()#!>").replace('<', "&lt;").replace('@', "＠").replace('\n', "  \n")
    })
}

fn add_signature(url: &mut Url, secret: &SecretString, millis: i64) {
    let sign = sign(secret, millis);
    url.query_pairs_mut().append_pair("timestamp", &millis.to_string()).append_pair("sign", &sign);
}

/// HMAC-SHA256 of `timestamp LF secret` under the secret, in base64.
fn sign(secret: &SecretString, millis: i64) -> String {
    let secret = secret.expose_secret().trim();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(format!("{millis}\n{secret}").as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::sign;
    use secrecy::SecretString;
    use serde_json::Value;

    #[test]
    fn every_vector_is_signed_byte_for_byte_and_safe_in_a_query() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/fixtures/robot-signatures.json")).unwrap();
        let vectors = vectors["dingtalk"]["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 5);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let millis = text("timestamp_ms").parse().unwrap();
            let secret = SecretString::from(text("secret"));
            assert_eq!(sign(&secret, millis), text("sign_base64"), "{}", text("name"));
            let mut url = text("webhook").parse().unwrap();
            super::add_signature(&mut url, &secret, millis);
            assert_eq!(url.as_str(), text("signed_url"));
        }
    }
}
