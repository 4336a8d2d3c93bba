//! `kind = "webhook"`: one HTTP POST of a CloudEvents 1.0 body, signed as Standard Webhooks says.
//!
//! Sources: CloudEvents 1.0.2 and its HTTP binding (structured mode); Standard Webhooks 1.0.0.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::sign::{Key, signature};
use super::{Common, Kind, Receiver, Sent, tame};
use crate::document::Table;
use crate::document::schema::{about, named, secret, table, word};
use crate::http::{Answer, Client, Error, Method, Options, Overlong, Url};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::time::Timestamp;

pub(super) const KIND: Kind = Kind {
    name: "webhook",
    about: "an HTTP POST of a CloudEvents body, signed as Standard Webhooks says",
    concurrency: 4,
    read,
    schema,
};

/// As much of an answer as is kept for people to read.
const ANSWER_MAX: usize = 4 * 1024;
/// `Retry-After` asks for no longer than this, whatever it says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug)]
struct Webhook {
    client: Client,
    url: SecretString,
    target: String,
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
    let url = table.value("url");
    if url.is_none() {
        table.missing("url", "where to post: url = { credential = \"oncall-url\" }");
    }
    let url = url.and_then(|value| value.secret(common.secrets));
    let keys = keys(table, common);
    let headers = headers(table);
    let format = table.word("format", &[("cloudevents", Format::CloudEvents), ("plain", Format::Plain)]);
    let url = url?;
    let target = match check_url(url.value.expose_secret(), common) {
        Ok(target) => target,
        Err((message, help)) => {
            table.error("url", url.span, message, help);
            return None;
        }
    };
    let options = Options {
        timeout: common.timeout,
        body_max: ANSWER_MAX,
        egress: common.egress.clone(),
        ca: common.ca.clone(),
        gzip: false,
        http2: false,
    };
    match Client::new(options) {
        Ok(client) => {
            let format = format.unwrap_or(Format::CloudEvents);
            Some(Arc::new(Webhook { client, url: url.value, target, keys: keys?, headers: headers?, format }))
        }
        Err(error) => {
            table.error("tls", table.span(), format!("the certificates cannot be used: {error}"), "check `ca_file`");
            None
        }
    }
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
            ("headers", named("Headers of your own.", None, json!({ "type": "string" }))),
            (
                "format",
                word("The body: a CloudEvents envelope, or the value of its `data` alone.", ["cloudevents", "plain"]),
            ),
        ],
    )
}

/// The host to show, if the URL can be used. Its text appears in no message: it may be the secret.
fn check_url(text: &str, common: &Common<'_>) -> Result<String, (String, String)> {
    let url = Url::parse(text.trim())
        .map_err(|error| (format!("`url` is not a URL: {error}"), "https://host/path".to_owned()))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        let message = format!("`url` must be https, and is {}", url.scheme());
        return Err((message, "http is accepted for loopback addresses only".into()));
    }
    if url.username() != "" || url.password().is_some() {
        return Err(("`url` holds a user or a password".into(), "put them into `headers` or the path".into()));
    }
    common
        .egress
        .check_url(&url)
        .map_err(|error| (format!("`url`: {error}"), "allow_targets = [\"10.1.0.0/16\"]".into()))?;
    Ok(url.port().map_or(host.clone(), |port| format!("{host}:{port}")))
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

fn headers(table: &Table<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut sound = true;
    for (name, value) in table.table("headers").map(|table| table.entries()).unwrap_or_default() {
        let text = value.string()?;
        match (HeaderName::try_from(&name.value), HeaderValue::try_from(&text.value)) {
            (Ok(key), Ok(text)) if !OURS.contains(&key.as_str()) => {
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

#[async_trait]
impl Receiver for Webhook {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        let data = owed.notification.data();
        let body = match self.format {
            Format::CloudEvents => cloud_event(owed, data),
            Format::Plain => data,
        };
        body.to_string().into_bytes()
    }

    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent {
        let Ok(url) = Url::parse(self.url.expose_secret().trim()) else {
            return Outcome::Refused { why: "the URL cannot be read".into() }.into();
        };
        let body = claimed.frozen.payload.clone();
        let (id, seconds) = (claimed.frozen.id.as_str(), now.seconds());
        let mut request = self
            .client
            .request(Method::POST, url)
            .headers(self.headers.clone())
            .header(
                CONTENT_TYPE,
                match self.format {
                    Format::CloudEvents => "application/cloudevents+json; charset=utf-8",
                    Format::Plain => "application/json; charset=utf-8",
                },
            )
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds);
        if !self.keys.is_empty() {
            request = request.header("webhook-signature", signature(&self.keys, id, seconds, &body));
        }
        judge(self.client.send(request.body(body), Overlong::Cut).await, now).into()
    }

    fn target(&self) -> String {
        self.target.clone()
    }
}

/// The body of contract §6. `id` is the delivery's, so that a receiver can drop what it has.
fn cloud_event(owed: &Owed, data: Value) -> Value {
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

/// Sorts an answer as contract §6a says.
fn judge(answer: Result<Answer, Error>, now: Timestamp) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ Error::Forbidden(_)) => return Outcome::Refused { why: error.to_string() },
        Err(error @ (Error::Timeout | Error::Overlong(_) | Error::Broken(_))) => {
            return Outcome::Unreachable { why: error.to_string(), retry_after: None };
        }
    };
    let said = tame(&String::from_utf8_lossy(&answer.body), 300);
    let why = match said.as_str() {
        "" => format!("HTTP {}", answer.status),
        said => format!("HTTP {}: {said}", answer.status),
    };
    match answer.status {
        200..=299 => Outcome::Accepted { note: why },
        300..=399 => Outcome::Refused { why: format!("{why} (redirects are not followed: change `url`)") },
        408 | 425 | 429 | 500.. => Outcome::Unreachable { why, retry_after: retry_after(&answer, now) },
        _ => Outcome::Refused { why },
    }
}

/// `Retry-After` as seconds or as a date (RFC 9110 §10.2.3), clamped.
fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    let span = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => RETRY_AFTER_MAX,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_microsecond();
            Timestamp::from_micros(at).since(now)
        }
    };
    Some(span.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::{Answer, Duration, Outcome, Timestamp, judge, retry_after};

    fn answer(status: u16, retry_after: &str) -> Answer {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("retry-after", retry_after.parse().unwrap());
        Answer { status, headers, body: b"<b>no\r\nway</b>".to_vec() }
    }

    #[test]
    fn an_answer_is_sorted_by_what_to_do_about_it() {
        let sorted = |status| judge(Ok(answer(status, "0")), Timestamp::default()).as_str();
        for status in [200, 202, 204, 299] {
            assert_eq!(sorted(status), "accepted", "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(sorted(status), "unreachable", "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 409, 410, 413, 422] {
            assert_eq!(sorted(status), "refused", "{status}");
        }
    }

    #[test]
    fn retry_after_reads_as_seconds_or_date_and_is_clamped_to_six_hours() {
        let now = Timestamp::parse("2026-11-23T08:15:30Z").unwrap();
        let read = |text| retry_after(&answer(429, text), now);
        assert_eq!(read("30"), Some(Duration::from_secs(30)));
        assert_eq!(read("Mon, 23 Nov 2026 08:16:30 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Mon, 23 Nov 2020 08:16:30 GMT"), Some(Duration::ZERO));
        for far in ["99999999", "99999999999999999999999", "Sun, 23 Nov 2036 08:16:30 GMT"] {
            assert_eq!(read(far), Some(Duration::from_secs(6 * 3600)), "{far}");
        }
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn what_the_far_end_says_is_shown_on_one_line() {
        let Outcome::Refused { why } = judge(Ok(answer(400, "0")), Timestamp::default()) else {
            panic!("400 is refused")
        };
        assert_eq!(why, "HTTP 400: <b>no  way</b>");
    }
}
