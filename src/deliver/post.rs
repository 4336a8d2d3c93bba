//! Receivers that are told by an HTTP POST: all that they share. A kind is what is its own, a [`Medium`]: its wording, what
//! it adds for an attempt, and what it means by an answer.
//!
//! How an answer is judged where a kind does not say otherwise: contract §6a of the project, after RFC 9110 and Standard
//! Webhooks 1.0.0.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{Common, Receiver, Sent, headers, reach, tame, worse};
use crate::document::Table;
use crate::http::{Answer, Client, Error, Method, Options, Overlong, Proxy, Url, is_loopback};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::examination::{Finding, Health};
use crate::model::name::derive;
use crate::model::time::Timestamp;

/// As much of an answer as is kept to be judged and read.
const ANSWER_MAX: usize = 4 * 1024;
/// As much of it as people are shown, in characters.
const SHOWN_MAX: usize = 300;
/// A part of a URL of so many bytes may be a secret, and is no word.
const PART_MIN: usize = 12;
/// `Retry-After` asks for no longer than this, whatever it says.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3600);

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

    /// What [`Medium::complete`] adds and nobody may read, even if the far end repeats it.
    fn secrets(&self) -> Vec<&SecretString> {
        Vec::new()
    }

    /// See [`Receiver::ends_by_id`].
    fn ends_by_id(&self) -> bool {
        false
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
    doors: Vec<Door>,
    medium: M,
}

/// Whether a message may travel where others can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// https, or http to this machine.
    Sealed,
    /// http too: nothing secret goes with the message, and who serves there often speaks nothing else.
    Open,
}

/// A receiver of this kind, if both could be read.
pub(super) fn receiver(door: Option<Door>, medium: Option<impl Medium>) -> Option<Arc<dyn Receiver>> {
    receiver_at_each(door.map(|door| vec![door]), medium)
}

/// A receiver that has a message when it is told at each of these doors.
pub(super) fn receiver_at_each(doors: Option<Vec<Door>>, medium: Option<impl Medium>) -> Option<Arc<dyn Receiver>> {
    Some(Arc::new(Post { doors: doors?, medium: medium? }))
}

/// Reads `url`, a secret. `help` says what to write.
pub(super) fn door(table: &Table<'_>, common: &Common<'_>, help: &str) -> Option<Door> {
    let Some(value) = table.value("url") else {
        table.missing("url", help);
        return None;
    };
    let url = value.secret(common.secrets)?;
    knock(table, common, &url.value, value.span(), Wire::Sealed)
}

/// Reads `secret`, with which a robot's messages are signed: `Some(None)` where there is none, `None` where it cannot be
/// read.
pub(super) fn signing_key(table: &Table<'_>, common: &Common<'_>) -> Option<Option<SecretString>> {
    let signed = table.has("secret");
    let key = table.secret("secret", common.secrets).map(|secret| secret.value);
    (!signed || key.is_some()).then_some(key)
}

/// For a kind that has one address for everybody, which is no secret: `url` only replaces it.
pub(super) fn known_door(table: &Table<'_>, common: &Common<'_>, url: &str) -> Option<Door> {
    let own = table.string("url");
    if own.is_none() && table.has("url") {
        return None;
    }
    let span = own.as_ref().map_or(table.span(), |own| own.span.clone());
    let url = own.map_or_else(|| url.to_owned(), |own| own.value);
    knock(table, common, &SecretString::from(url), span, Wire::Sealed)
}

/// Looks whether a URL can be used.
pub(super) fn knock(
    table: &Table<'_>,
    common: &Common<'_>,
    url: &SecretString,
    span: std::ops::Range<usize>,
    wire: Wire,
) -> Option<Door> {
    let target = check(url.expose_secret(), common, wire)
        .map_err(|(message, help)| table.error("url", span, message, help))
        .ok()?;
    let options = Options {
        timeout: common.timeout,
        body_max: ANSWER_MAX,
        egress: common.egress.clone(),
        proxy: common.proxy.clone(),
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
fn check(text: &str, common: &Common<'_>, wire: Wire) -> Result<String, (String, String)> {
    let url = Url::parse(text.trim())
        .map_err(|error| (format!("`url` is not a URL: {error}"), "https://host/path".to_owned()))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    if url.scheme() != "https" && !(url.scheme() == "http" && (is_loopback(&url) || wire == Wire::Open)) {
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
    if let Some(proxy) = &common.proxy {
        let help = "give another `url`, or no `proxy`: what is on this machine needs none";
        proxy.carries(&url).map_err(|why| (format!("`url`: {why}"), help.to_owned()))?;
    }
    Ok(url.port().map_or(host.clone(), |port| format!("{host}:{port}")))
}

#[async_trait]
impl<M: Medium> Receiver for Post<M> {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        self.medium.word(owed)
    }

    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent {
        if let [only] = self.doors.as_slice() {
            return self.post(only, claimed, now).await.into();
        }
        let mut progress = claimed.progress.clone();
        let left = self.doors.iter().filter(|door| !progress.contains(&door.key()));
        // Side by side: each may take the whole timeout.
        let told = join_all(left.map(async |door| (door, self.post(door, claimed, now).await))).await;
        let mut worst = None;
        for (door, outcome) in told {
            if matches!(outcome, Outcome::Accepted { .. }) {
                progress.push(door.key());
            }
            worst = Some(worse(worst, at(&door.target, outcome)));
        }
        let outcome = worst.unwrap_or(Outcome::Accepted { note: "everybody has it already".into() });
        Sent { outcome, progress }
    }

    fn target(&self) -> String {
        let targets: Vec<&str> = self.doors.iter().map(|door| door.target.as_str()).collect();
        targets.join(", ")
    }

    fn ends_by_id(&self) -> bool {
        self.medium.ends_by_id()
    }

    async fn examine(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        for door in &self.doors {
            door.examine(now, &mut findings).await;
        }
        findings
    }
}

impl Door {
    /// Where it leads, for people.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The host's name, its connection and its certificate.
    pub(super) async fn examine(&self, now: Timestamp, findings: &mut Vec<Finding>) {
        let Ok(url) = Url::parse(self.url.expose_secret().trim()) else { return };
        if !reach::name(&url, self.client.proxy(), findings).await {
            return;
        }
        match self.client.reach(&url).await {
            Ok(certificate) => {
                findings.push(Finding::new("connection", Health::Good, format!("{} answers", self.target)));
                findings.extend(reach::tls(certificate.as_deref(), now));
            }
            Err(error) => {
                let why = self.client.redact(&error.to_string());
                let mend = "check the network, its firewall, `proxy`, `allow_targets`, and `ca_file` for certificates of your own";
                findings.push(Finding::new("connection", Health::Bad, format!("{}: {why}: {mend}", self.target)));
            }
        }
    }

    /// Asks with GET, and wants nothing but a 2xx. What is wrong is said without what the far end says.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let url = Url::parse(self.url.expose_secret().trim()).map_err(|_| "the URL cannot be read")?;
        let answer = self.client.send(self.client.request(Method::GET, url), Overlong::Cut).await;
        match answer {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(format!("{}: HTTP {}", self.target, answer.status)),
            Err(error) => Err(format!("{}: {}", self.target, self.client.redact(&error.to_string()))),
        }
    }

    /// Tells it from others in what is stored, and shows nothing.
    fn key(&self) -> String {
        derive("door", &[self.url.expose_secret()])
    }
}

impl<M: Medium> Post<M> {
    async fn post(&self, door: &Door, claimed: &Claimed, now: Timestamp) -> Outcome {
        let refused = |why: String| Outcome::Refused { why };
        let Ok(url) = Url::parse(door.url.expose_secret().trim()) else {
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
        let hidden = hidden(&url, &headers, &self.medium.secrets(), door.client.proxy());
        let request = door.client.request(Method::POST, url).headers(headers).body(body);
        let answer = door.client.send(request, Overlong::Cut).await;
        judge(&self.medium, answer, now, &hidden)
    }
}

/// What was answered, and who did.
fn at(target: &str, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Accepted { note } => Outcome::Accepted { note },
        Outcome::Refused { why } => Outcome::Refused { why: format!("{target}: {why}") },
        Outcome::Retired { why } => Outcome::Retired { why: format!("{target}: {why}") },
        Outcome::Unreachable { why, retry_after } => {
            Outcome::Unreachable { why: format!("{target}: {why}"), retry_after }
        }
    }
}

/// What is not shown of an answer: error pages like to name the path that was asked for. The longest first.
fn hidden(url: &Url, headers: &HeaderMap, secrets: &[&SecretString], proxy: Option<&Proxy>) -> Vec<String> {
    let query = url.query().unwrap_or_default();
    let asked = [format!("{}?{query}", url.path()), url.path().to_owned(), query.to_owned()];
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let parts = url.path().split('/').chain(query.split(['&', '='])).map(ToOwned::to_owned);
    let secrets = secrets.iter().map(|secret| secret.expose_secret().trim().to_owned());
    let mut hidden: Vec<String> =
        parts.chain(values).filter(|part| part.len() >= PART_MIN).chain(asked).chain(secrets).collect();
    hidden.extend(headers::secrets(headers));
    hidden.extend(proxy.into_iter().flat_map(Proxy::secrets).map(ToOwned::to_owned));
    // Too short to be a secret, and anywhere in a text.
    hidden.retain(|text| text.len() > 1);
    hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
    hidden
}

fn judge(medium: &impl Medium, answer: Result<Answer, Error>, now: Timestamp, hidden: &[String]) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ (Error::Forbidden(_) | Error::Unwelcome(_))) => return Outcome::Refused { why: error.to_string() },
        Err(error @ (Error::Timeout | Error::Overlong(_) | Error::Broken(_))) => {
            return Outcome::Unreachable { why: error.to_string(), retry_after: None };
        }
    };
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let shown = hidden.iter().fold(text.clone(), |shown, secret| shown.replace(secret.as_str(), "[hidden]"));
    let why = match tame(&shown, SHOWN_MAX).as_str() {
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
pub(super) fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
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
        let sorted = |status| judge(&Plain, Ok(answer(status, "0")), Timestamp::default(), &[]).as_str();
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
            judge(&Plain, Ok(answer), Timestamp::default(), &[])
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
        let Outcome::Refused { why } = judge(&Plain, Ok(answer(400, "0")), Timestamp::default(), &[]) else {
            panic!("400 is refused")
        };
        assert_eq!(why, "HTTP 400: <b>no  way</b>");
    }
}
