//! `kind = "password"`: a token of the identity service, for one project (IAM KeystoneCreateUserTokenByPassword).

use std::sync::Mutex;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::credential::{Held, Proof, latest};
use super::error::{ApiError, unreached};
use super::guard::REST;
use crate::clock::Clock;
use crate::document::Kept;
use crate::http::{Client, Method, Overlong, Url};
use crate::model::listing::{Fault, FaultKind};
use crate::model::time::Timestamp;

/// A token is renewed so long before it expires; it lasts 24 hours.
const RENEW_BEFORE: Duration = Duration::from_secs(3_600);
/// What a token lasts when the answer does not say.
const LIFETIME: Duration = Duration::from_secs(86_400);

/// Who asks for tokens, and where.
#[derive(Debug)]
pub(super) struct Iam {
    pub(super) client: Client,
    /// `…/v3/auth/tokens`
    pub(super) url: Url,
    pub(super) user: String,
    pub(super) domain: String,
    pub(super) password: Mutex<Kept>,
    pub(super) project: String,
}

impl Iam {
    /// Asks for a token.
    pub(super) async fn fetch(&self, clock: &Clock) -> Result<Held, Fault> {
        let password = latest(&self.password);
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": self.user, "password": password.expose_secret(), "domain": { "name": self.domain },
            } } },
            "scope": { "project": { "id": self.project } },
        } });
        let mut url = self.url.clone();
        // The catalogue would make the token many kB long, and the gateway refuses long headers.
        url.set_query(Some("nocatalog=true"));
        let request = self
            .client
            .request(Method::POST, url)
            .header("Content-Type", "application/json;charset=utf8")
            .body(body.to_string());
        let answer = self.client.send(request, Overlong::Fail).await;
        let answer = answer.map_err(|error| unreached(&format!("IAM at {}", super::authority(&self.url)), &error))?;
        if answer.status != 201 {
            let error = ApiError::read(&answer);
            let text = self.client.redact(&error.line(&answer).replace(password.expose_secret(), "[redacted]"));
            let (kind, rest, hint) = match answer.status {
                401 => (
                    FaultKind::Unauthorized,
                    Some(REST),
                    "check `user`, `domain` and `password`; a HUAWEI ID gets no tokens, an IAM user with programmatic access does",
                ),
                400 | 403 | 404 => (FaultKind::Unauthorized, None, "check `domain`, `project_id` and `iam_endpoint`"),
                429 => (FaultKind::Throttled, error.window(), "wait"),
                _ => (FaultKind::Unavailable, None, "the identity service has trouble"),
            };
            return Err(Fault { kind, text: format!("IAM gave no token: {text}; {hint}"), retry_after: rest });
        }
        let token = answer.header("x-subject-token").unwrap_or_default();
        if token.is_empty() {
            let text = "IAM answered 201 without a token (X-Subject-Token)".to_owned();
            return Err(Fault { kind: FaultKind::Malformed, text, retry_after: None });
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let time = |name: &str| body["token"][name].as_str().and_then(Timestamp::parse);
        // A lifetime, not an instant: the clock here and there may differ.
        let from = time("issued_at").or_else(|| answer.header("date").and_then(Timestamp::parse_http));
        let lifetime = match (time("expires_at"), from) {
            (Some(until), Some(from)) => until.since(from),
            (Some(_), None) | (None, _) => LIFETIME,
        };
        Ok(Held::lasting(Proof::Token(SecretString::from(token)), clock.now(), lifetime, RENEW_BEFORE))
    }
}
