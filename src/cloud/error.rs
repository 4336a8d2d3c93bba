//! Error answers: every body shape the cloud's services and gateways are known to send, read into one line for people.
//!
//! A body is never repeated verbatim: gateways echo the request they refused, credential and all.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use crate::http::Answer;

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
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_MAX).collect();
    line.trim().trim_end_matches([',', ':']).to_owned()
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
    fn the_throttling_window_is_read_from_the_message() {
        let window = |text: &str| read(&format!(r#"{{"error_msg":"{text}"}}"#)).1.window();
        assert_eq!(window("policy ip over ratelimit,limit:5,time:1 second"), Some(Duration::from_secs(1)));
        assert_eq!(window("policy user over ratelimit,limit:200,time:5 minute"), Some(Duration::from_secs(300)));
        assert_eq!(window("slow down"), None);
    }
}
