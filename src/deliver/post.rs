//! Receivers that are told by an HTTP POST: all that they share. A kind is what is its own, a [`Medium`]: its wording, what
//! it adds for an attempt, and what it means by an answer.
//!
//! How an answer is judged where a kind does not say otherwise: contract §6a of the project, after RFC 9110 and Standard
//! Webhooks 1.0.0.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{Common, Receiver, Sent, tame};
use crate::document::Table;
use crate::http::{Answer, Client, Error, Method, Options, Overlong, Url};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::time::Timestamp;

/// As much of an answer as is kept to be judged and read.
const ANSWER_MAX: usize = 4 * 1024;
/// As much of it as people are shown, in characters.
const SHOWN_MAX: usize = 300;
/// `Retry-After` asks for no longer than this, whatever it says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3600);

/// What is a kind's own.
pub(super) trait Medium: fmt::Debug + Send + Sync + 'static {
    /// The `Content-Type` of the body.
    fn content_type(&self) -> &'static str {
        "application/json; charset=utf-8"
    }

    /// The body in its final wording. Pure, and without secrets: it is stored.
    fn word(&self, owed: &Owed) -> Vec<u8>;

    /// Adds what belongs to one attempt: its time, a signature, a key that is not stored.
    ///
    /// # Errors
    /// Why the message cannot be sent as things are; somebody has to change something.
    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        let _: &mut Posting<'_> = posting;
        Ok(())
    }

    /// What an answer means, where its status alone does not tell.
    fn judge(&self, reply: &Reply) -> Meaning {
        let _: &Reply = reply;
        Meaning::AsStatus
    }
}

/// One attempt, as it goes out.
pub(super) struct Posting<'a> {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The delivery's id, the same on every attempt.
    pub(super) id: &'a str,
    /// The time of the attempt.
    pub(super) now: Timestamp,
}

/// An answer as a kind looks at it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The beginning of the body.
    pub(super) text: String,
    /// The body as JSON; `null` if it is none.
    pub(super) json: Value,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What its status says.
    AsStatus,
    /// The message has arrived.
    Accepted,
    /// It will not be taken as things are.
    Refused,
    /// It may be taken later: not before this time, if it says so.
    Later(Option<Duration>),
}

/// Where to post, and the client that does.
#[derive(Debug)]
pub(super) struct Door {
    client: Client,
    url: SecretString,
    target: String,
}

#[derive(Debug)]
struct Post<M> {
    door: Door,
    medium: M,
}

/// A receiver of this kind, if both could be read.
pub(super) fn receiver(door: Option<Door>, medium: Option<impl Medium>) -> Option<Arc<dyn Receiver>> {
    Some(Arc::new(Post { door: door?, medium: medium? }))
}

/// Reads `url`, a secret. `help` says what to write.
pub(super) fn door(table: &Table<'_>, common: &Common<'_>, help: &str) -> Option<Door> {
    let Some(value) = table.value("url") else {
        table.missing("url", help);
        return None;
    };
    let url = value.secret(common.secrets)?;
    knock(table, common, &url.value, value.span())
}

/// For a kind that has one address for everybody, which is no secret: `url` only replaces it.
pub(super) fn known_door(table: &Table<'_>, common: &Common<'_>, url: &str) -> Option<Door> {
    let own = table.string("url");
    if own.is_none() && table.has("url") {
        return None;
    }
    let span = own.as_ref().map_or(table.span(), |own| own.span.clone());
    let url = own.map_or_else(|| url.to_owned(), |own| own.value);
    knock(table, common, &SecretString::from(url), span)
}

/// Looks whether a URL can be used.
pub(super) fn knock(
    table: &Table<'_>,
    common: &Common<'_>,
    url: &SecretString,
    span: std::ops::Range<usize>,
) -> Option<Door> {
    let target =
        check(url.expose_secret(), common).map_err(|(message, help)| table.error("url", span, message, help)).ok()?;
    let options = Options {
        timeout: common.timeout,
        body_max: ANSWER_MAX,
        egress: common.egress.clone(),
        ca: common.ca.clone(),
        gzip: false,
        http2: false,
    };
    let client = Client::new(options)
        .map_err(|error| {
            let message = format!("the certificates cannot be used: {error}");
            table.error("tls", table.span(), message, "check `ca_file`");
        })
        .ok()?;
    Some(Door { client, url: url.clone(), target })
}

/// The host to show, if the URL can be used. Its text appears in no message: it may be the secret.
fn check(text: &str, common: &Common<'_>) -> Result<String, (String, String)> {
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

#[async_trait]
impl<M: Medium> Receiver for Post<M> {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        self.medium.word(owed)
    }

    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent {
        let refused = |why: String| Sent::from(Outcome::Refused { why });
        let Ok(url) = Url::parse(self.door.url.expose_secret().trim()) else {
            return refused("the URL cannot be read".into());
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.medium.content_type()));
        let (id, body) = (claimed.frozen.id.as_str(), claimed.frozen.payload.clone());
        let mut posting = Posting { url, headers, body, id, now };
        if let Err(why) = self.medium.complete(&mut posting) {
            return refused(why);
        }
        let Posting { url, headers, body, .. } = posting;
        let request = self.door.client.request(Method::POST, url).headers(headers).body(body);
        judge(&self.medium, self.door.client.send(request, Overlong::Cut).await, now).into()
    }

    fn target(&self) -> String {
        self.door.target.clone()
    }
}

fn judge(medium: &impl Medium, answer: Result<Answer, Error>, now: Timestamp) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ Error::Forbidden(_)) => return Outcome::Refused { why: error.to_string() },
        Err(error @ (Error::Timeout | Error::Overlong(_) | Error::Broken(_))) => {
            return Outcome::Unreachable { why: error.to_string(), retry_after: None };
        }
    };
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let why = match tame(&text, SHOWN_MAX).as_str() {
        "" => format!("HTTP {}", answer.status),
        said => format!("HTTP {}: {said}", answer.status),
    };
    let asked = retry_after(&answer, now);
    let reply = Reply { status: answer.status, json: serde_json::from_str(&text).unwrap_or_default(), text };
    match medium.judge(&reply) {
        Meaning::Accepted => Outcome::Accepted { note: why },
        Meaning::Refused => Outcome::Refused { why },
        Meaning::Later(after) => {
            let after = after.map(|after| after.min(RETRY_AFTER_MAX));
            Outcome::Unreachable { why, retry_after: asked.max(after) }
        }
        Meaning::AsStatus => match reply.status {
            200..=299 => Outcome::Accepted { note: why },
            300..=399 => Outcome::Refused { why: format!("{why} (redirects are not followed: change `url`)") },
            410 => Outcome::Retired { why },
            408 | 425 | 429 | 500.. => Outcome::Unreachable { why, retry_after: asked },
            _ => Outcome::Refused { why },
        },
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
    use super::{Answer, Duration, Meaning, Medium, Outcome, Owed, Reply, Timestamp, judge, retry_after};

    #[derive(Debug)]
    struct Plain;

    impl Medium for Plain {
        fn word(&self, _: &Owed) -> Vec<u8> {
            Vec::new()
        }

        fn judge(&self, reply: &Reply) -> Meaning {
            match reply.json["code"].as_i64() {
                Some(0) => Meaning::Accepted,
                Some(1) => Meaning::Refused,
                Some(seconds) => Meaning::Later(u64::try_from(seconds).ok().map(Duration::from_secs)),
                None => Meaning::AsStatus,
            }
        }
    }

    fn answer(status: u16, retry_after: &str) -> Answer {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("retry-after", retry_after.parse().unwrap());
        Answer { status, headers, body: b"<b>no\r\nway</b>".to_vec() }
    }

    #[test]
    fn an_answer_is_sorted_by_what_to_do_about_it() {
        let sorted = |status| judge(&Plain, Ok(answer(status, "0")), Timestamp::default()).as_str();
        for status in [200, 202, 204, 299] {
            assert_eq!(sorted(status), "accepted", "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(sorted(status), "unreachable", "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 409, 413, 422] {
            assert_eq!(sorted(status), "refused", "{status}");
        }
        assert_eq!(sorted(410), "retired");
    }

    #[test]
    fn a_kind_may_know_better_than_the_status() {
        let said = |body: &str, retry_after: &str| {
            let answer = Answer { body: body.as_bytes().to_vec(), ..answer(200, retry_after) };
            judge(&Plain, Ok(answer), Timestamp::default())
        };
        assert_eq!(said("{\"code\":0}", "0"), Outcome::Accepted { note: "HTTP 200: {\"code\":0}".into() });
        assert_eq!(said("{\"code\":1}", "0"), Outcome::Refused { why: "HTTP 200: {\"code\":1}".into() });
        for (header, after) in [("5", 60), ("90", 90)] {
            let why = "HTTP 200: {\"code\":60}".to_owned();
            let retry_after = Some(Duration::from_secs(after));
            assert_eq!(
                said("{\"code\":60}", header),
                Outcome::Unreachable { why, retry_after },
                "the longer of the two"
            );
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
        let Outcome::Refused { why } = judge(&Plain, Ok(answer(400, "0")), Timestamp::default()) else {
            panic!("400 is refused")
        };
        assert_eq!(why, "HTTP 400: <b>no  way</b>");
    }
}
