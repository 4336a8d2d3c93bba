//! Error answers: every body shape the cloud's services and gateways are known to send, read into one line for people.
//!
//! A body is never repeated verbatim: gateways echo the request they refused, credential and all.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use crate::http::Answer;
use crate::model::listing::{Fault, FaultKind};
use crate::model::text::line;
use crate::model::time::Timestamp;

/// Messages are cut to this many characters.
const MESSAGE_MAX: usize = 300;
/// Nothing is waited for longer than this, whatever a throttling text says.
const WINDOW_MAX: Duration = Duration::from_secs(300);

/// What an error answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError {
    /// Such as `APIGW.0301`.
    pub code: Option<String>,
    /// In the service's words, cut and cleaned.
    pub message: Option<String>,
    /// For the cloud's support.
    pub request_id: Option<String>,
    /// The refusal's reason in encrypted form; STS decodes it.
    pub encoded: Option<String>,
}

impl ApiError {
    /// Reads an answer of whatever shape.
    pub fn read(answer: &Answer) -> Self {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let mut error = Self::default();
        error.scan(&body);
        let header = answer.header("x-request-id").or_else(|| answer.header("x-iam-trace-id"));
        error.request_id = header.map(clean).or(error.request_id);
        error
    }

    /// Takes what it finds in this value and in those it nests: `error`, `errors[0]`, `details[0]`, a bare array.
    fn scan(&mut self, value: &Value) {
        if let Value::Array(items) = value {
            return items.first().map(|first| self.scan(first)).unwrap_or_default();
        }
        let text = |names: &[&str]| {
            names.iter().find_map(|name| match value.get(name)? {
                Value::String(text) if !text.trim().is_empty() => Some(clean(text)),
                Value::Number(number) => Some(number.to_string()),
                Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
            })
        };
        self.code = self.code.take().or_else(|| text(&["error_code", "errorCode", "errCode", "code"]));
        self.message = self.message.take().or_else(|| {
            text(&["error_msg", "errorMessage", "errorMsg", "externalMessage", "message", "detail", "details"])
        });
        self.request_id = self.request_id.take().or_else(|| text(&["request_id"]));
        let encoded = value.get("encoded_authorization_message").and_then(Value::as_str);
        self.encoded = self.encoded.take().or_else(|| encoded.map(ToOwned::to_owned));
        for nested in ["error", "errors", "message", "details"] {
            if let Some(inner @ (Value::Object(_) | Value::Array(_))) = value.get(nested) {
                self.scan(inner);
            }
        }
    }

    /// One line: `HTTP 403 SVCSTG.SWR.4030170: Insufficient permissions (request 5f3…)`.
    pub fn line(&self, answer: &Answer) -> String {
        let mut line = format!("HTTP {}", answer.status);
        if let Some(code) = &self.code {
            line += &format!(" {code}");
        }
        match &self.message {
            Some(message) => line += &format!(": {message}"),
            None if self.code.is_none() => line += &format!(": {}", describe(answer)),
            None => {}
        }
        if let Some(id) = &self.request_id {
            line += &format!(" (request {id})");
        }
        line
    }

    /// What the error means and what helps; `advice` is for who presented the credential, should it be that.
    pub fn fault(&self, answer: &Answer, advice: &str) -> Fault {
        let (kind, hint) = self.sort(answer.status);
        let mut text = self.line(answer);
        if !hint.is_empty() {
            text += &format!("; {hint}");
        }
        if hint == REFUSED {
            text += &format!(": {advice}");
        }
        let retry_after = if kind == FaultKind::Throttled { self.asked(answer) } else { header_wait(answer) };
        Fault { kind, text, retry_after }
    }

    /// By the gateway's code where it has one, else by the status.
    fn sort(&self, status: u16) -> (FaultKind, &'static str) {
        let code = self.code.as_deref().unwrap_or_default();
        let number = code.strip_prefix("APIGW.").or_else(|| code.strip_prefix("APIG."));
        let row = CODES.iter().find(|row| Some(row.0) == number && (row.1 == 0 || row.1 == status));
        if let Some((_, _, kind, hint)) = row {
            return (*kind, *hint);
        }
        match status {
            401 => (FaultKind::Unauthorized, REFUSED),
            403 => (FaultKind::Unauthorized, ""),
            429 => (FaultKind::Throttled, ""),
            300..=399 => (FaultKind::Misdirected, "redirects are not followed: check `endpoint`"),
            400..=499 => (FaultKind::Misdirected, "check `region`, `endpoint` and `project_id`"),
            504 => (FaultKind::Unavailable, SLOW),
            500..=599 => (FaultKind::Unavailable, ""),
            _ => (FaultKind::Malformed, "this is no answer of the called API"),
        }
    }

    /// Whether a 404 speaks of the resource that was asked for, and not of a path that the gateway does not know.
    pub fn is_missing_resource(&self, answer: &Answer) -> bool {
        match &self.code {
            Some(code) => !code.starts_with("APIG"),
            None => answer.body.is_empty() || answer.header("content-type").is_some_and(|kind| kind.contains("json")),
        }
    }

    /// Whether a 403 is about the user's permissions, and not about an address, an account or a region.
    pub(super) fn is_permission(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        self.encoded.is_some() || !code.starts_with("APIG")
    }

    /// How long the far end asked to be left alone.
    pub(super) fn asked(&self, answer: &Answer) -> Option<Duration> {
        header_wait(answer).or_else(|| self.window())
    }

    /// The time at the gateway, when it refused a signature for its date: `…,server time:20240115T083000Z`.
    pub(super) fn server_time(&self) -> Option<Timestamp> {
        static TIME: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"server time:\s*([0-9]{4})-?([0-9]{2})-?([0-9]{2})[T ]([0-9]{2}):?([0-9]{2}):?([0-9]{2})")
                .expect("the pattern is a constant")
        });
        let found = TIME.captures(self.message.as_deref()?)?;
        Timestamp::parse(&format!(
            "{}-{}-{}T{}:{}:{}Z",
            &found[1], &found[2], &found[3], &found[4], &found[5], &found[6]
        ))
    }

    /// The throttling window that the message names: `…,limit:200,time:5 minute`.
    pub fn window(&self) -> Option<Duration> {
        static WINDOW: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"limit:\d+,\s*time:(\d{1,6})\s*(second|minute|hour)").expect("the pattern is a constant")
        });
        let found = WINDOW.captures(self.message.as_deref()?)?;
        let number: u64 = found[1].parse().ok()?;
        let unit = match &found[2] {
            "second" => 1,
            "minute" => 60,
            _ => 3_600,
        };
        Some(Duration::from_secs(number * unit).min(WINDOW_MAX))
    }
}

fn header_wait(answer: &Answer) -> Option<Duration> {
    answer.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs)
}

/// What helps depends on the credential.
const REFUSED: &str = "the credential was not accepted";
const SLOW: &str = "the service took more than the 30 s its gateway waits; smaller pages are asked for";

/// The gateway's codes (its guide's table): number, status (0: any), what they mean for the caller, and what helps.
/// `APIGW.` on Huawei's own services and `APIG.` on customer gateways have the same numbers.
const CODES: &[(&str, u16, FaultKind, &str)] = {
    use FaultKind::{Misdirected, Throttled, Unauthorized, Unavailable};
    &[
        ("0101", 0, Misdirected, "there is no such API at this address: check `region` and `endpoint`"),
        ("0103", 0, Misdirected, "the gateway is not set up for this API: check `endpoint`"),
        ("0104", 0, Misdirected, "the gateway is not set up for this API: check `endpoint`"),
        ("0105", 0, Misdirected, "the gateway is not set up for this API: check `endpoint`"),
        ("0106", 0, Misdirected, "the gateway is not set up for this API: check `endpoint`"),
        (
            "0201",
            494,
            Misdirected,
            "the request's headers are too long: use a token without a catalogue, or an access key",
        ),
        ("0201", 502, Unavailable, ""),
        ("0201", 504, Unavailable, SLOW),
        ("0203", 0, Unavailable, SLOW),
        ("0301", 0, Unauthorized, REFUSED),
        ("0302", 0, Unauthorized, "the user may not call this API"),
        ("0303", 0, Unauthorized, "the application's credential was not accepted"),
        ("0304", 0, Unauthorized, "the application may not call this API"),
        ("0305", 0, Unauthorized, "the application's credential was not accepted"),
        ("0306", 0, Unauthorized, "the API may not be called from here"),
        ("0307", 0, Unauthorized, "the token has expired, was revoked, or belongs to another region"),
        ("0308", 0, Throttled, ""),
        ("0310", 0, Misdirected, "the project cannot be used: check `project_id`"),
        ("0401", 0, Misdirected, "the gateway refuses this machine's address: check its access control"),
        ("0402", 0, Misdirected, "the gateway refuses this machine's address: check its access control"),
        ("0404", 0, Misdirected, "the gateway refuses the service's address: tell the cloud's support"),
        ("0501", 0, Misdirected, "the account's quota is used up"),
        ("0502", 0, Misdirected, "the account is frozen or in arrears"),
        ("0601", 0, Unavailable, ""),
        ("0602", 0, Misdirected, "the gateway cannot read the request: check `endpoint`"),
        ("0605", 0, Unavailable, ""),
        ("0606", 0, Unavailable, ""),
        ("0607", 0, Misdirected, "the gateway cannot read the request: check `endpoint`"),
        ("0608", 0, Unavailable, ""),
        ("0609", 0, Unavailable, ""),
        ("0610", 0, Unavailable, ""),
        ("0611", 0, Unavailable, ""),
        ("0612", 0, Unavailable, ""),
        ("0613", 0, Unavailable, "the identity service is away"),
        ("0705", 0, Unavailable, ""),
        ("0801", 0, Misdirected, "the service is not available to this user in this region"),
        ("0802", 0, Misdirected, "the service is not available to this user in this region"),
    ]
};

/// Why there was no answer.
pub(super) fn unreached(who: &str, error: &crate::http::Error) -> Fault {
    use crate::http::Error;
    let kind = match error {
        Error::Overlong(_) => FaultKind::Malformed,
        Error::Unwelcome(_) => FaultKind::Misdirected,
        Error::Timeout | Error::Broken(_) | Error::Forbidden(_) => FaultKind::Unavailable,
    };
    Fault { kind, text: format!("{who}: {error}"), retry_after: None }
}

/// What a decoded authorisation message says, as far as it says something that people understand. Its schema is not
/// published: these names are looked for wherever they stand.
pub(super) fn plain_words(message: &Value) -> String {
    const NAMES: &[&str] = &["failure", "action", "resource", "user_name", "principal_urn"];
    fn find<'v>(value: &'v Value, name: &str, depth: usize) -> Option<&'v str> {
        match value {
            Value::Object(map) => {
                let direct = map.get(name).and_then(Value::as_str);
                direct.or_else(|| map.values().filter(|_| depth > 0).find_map(|inner| find(inner, name, depth - 1)))
            }
            Value::Array(items) => items.iter().filter(|_| depth > 0).find_map(|inner| find(inner, name, depth - 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    let parts = NAMES.iter().filter_map(|name| {
        let text = clean(find(message, name, 8)?);
        Some(if *name == "failure" { text } else { format!("{} {text}", name.replace('_', " ")) })
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// What an answer is, when it says nothing that can be read.
pub fn describe(answer: &Answer) -> String {
    let bytes = answer.body.len();
    match answer.header("content-type") {
        _ if bytes == 0 => "an empty body".into(),
        Some(kind) => format!("{bytes} bytes of {}", clean(kind.split(';').next().unwrap_or(kind))),
        None => format!("{bytes} bytes of no declared type"),
    }
}

/// One printable line without what a gateway echoes of the request.
fn clean(text: &str) -> String {
    let end = ["canonicalRequest", "x-security-token", "x-auth-token"]
        .iter()
        .filter_map(|echo| text.to_ascii_lowercase().find(&echo.to_ascii_lowercase()))
        .min();
    let text = end.map_or(text, |end| &text[..end]);
    line(text, MESSAGE_MAX).trim_end_matches([',', ':']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Answer, ApiError};
    use std::time::Duration;

    fn read(body: &str) -> (Answer, ApiError) {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        let answer = Answer { status: 403, headers, body: body.as_bytes().to_vec() };
        let error = ApiError::read(&answer);
        (answer, error)
    }

    #[test]
    fn every_documented_shape_gives_its_code_and_message() {
        let shapes = [
            r#"{"error_code":"C.1","error_msg":"no","encoded_authorization_message":"xyz"}"#,
            r#"{"error_code":"C.1","error_msg":"no","details":[{"error_code":"D","error_msg":"d"}],
                "errors":[{"errorCode":"E","errorMessage":"e","encoded_authorization_message":"xyz"}]}"#,
            r#"[{"errorCode":"C.1","errorMessage":"no","detail":"more"}]"#,
            r#"{"errors":[{"errorCode":"C.1","errorMessage":"no"}]}"#,
            r#"{"error":{"code":"C.1","message":"no","title":"Forbidden"}}"#,
            r#"{"errCode":"C.1","externalMessage":"no"}"#,
            r#"{"code":"C.1","message":"no","request_id":"r1"}"#,
            r#"{"http_code":403,"message":{"code":"C.1","details":"no"}}"#,
            r#"{"errorCode":"C.1","errorMsg":"no"}"#,
        ];
        for shape in shapes {
            let (_, error) = read(shape);
            assert_eq!((error.code.as_deref(), error.message.as_deref()), (Some("C.1"), Some("no")), "{shape}");
        }
        assert_eq!(read(shapes[0]).1.encoded.as_deref(), Some("xyz"));
        assert_eq!(read(r#"{"error":{"code":401,"message":"wrong"}}"#).1.code.as_deref(), Some("401"));
    }

    #[test]
    fn a_page_that_says_nothing_is_described_and_not_repeated() {
        let (answer, error) = read("<html>login</html>");
        assert_eq!(error.line(&answer), "HTTP 403: 18 bytes of application/json");
    }

    #[test]
    fn what_a_gateway_echoes_of_the_request_is_cut() {
        let (answer, error) = read(
            r#"{"error_code":"APIGW.0301","error_msg":"verify aksk signature fail, canonicalRequest:GET|/|x-security-token:SECRET","request_id":"r9"}"#,
        );
        assert_eq!(error.line(&answer), "HTTP 403 APIGW.0301: verify aksk signature fail (request r9)");
    }

    #[test]
    fn the_time_at_the_gateway_is_read_from_its_refusal() {
        let time = |text: &str| read(&format!(r#"{{"error_msg":"{text}"}}"#)).1.server_time();
        let expected = crate::model::time::Timestamp::parse("2024-01-15T08:30:00Z");
        let refusal = "calc aksk signature fail:signature expired, signature time:20240115T080910Z,server time:";
        assert_eq!(time(&format!("{refusal}20240115T083000Z")), expected);
        assert_eq!(time(&format!("{refusal}2024-01-15T08:30:00Z")), expected);
        assert_eq!(time("verify aksk signature fail"), None);
    }

    #[test]
    fn a_decoded_refusal_is_told_in_plain_words() {
        let message = serde_json::json!({
            "failure": "implicit deny by identity-based policy",
            "context": { "user_profile": { "user_name": "watcher" }, "action": "swr:instance:listJobs" },
        });
        let words = super::plain_words(&message);
        assert_eq!(words, "implicit deny by identity-based policy, action swr:instance:listJobs, user name watcher");
    }

    #[test]
    fn the_throttling_window_is_read_from_the_message() {
        let window = |text: &str| read(&format!(r#"{{"error_msg":"{text}"}}"#)).1.window();
        assert_eq!(window("policy ip over ratelimit,limit:5,time:1 second"), Some(Duration::from_secs(1)));
        assert_eq!(window("policy user over ratelimit,limit:200,time:5 minute"), Some(Duration::from_secs(300)));
        assert_eq!(window("slow down"), None);
    }
}
