//! Who may call: tokens, signed requests and their clock, the identity service, the machine's metadata, and STS.
//!
//! Signatures are recomputed here from what arrived, from the signing guide and not from the client's own code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::api::{answer, gateway};
use crate::model::time::Timestamp;

/// Signatures are good for this long, either way.
const SIGNATURE_AGE_MAX: Duration = Duration::from_secs(900);
/// More failures in a row than this lock an access key …
const FAILURES_MAX: u32 = 5;
/// … for this long.
const LOCK: Duration = Duration::from_secs(300);
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What says that a machine has no agency.
const NO_AGENCY: &str = "Please configure Cloud Service Agency first.";

/// The simulated accounts and their state.
#[derive(Debug)]
pub(super) struct Identity(Mutex<Accounts>);

/// What the accounts are, and what a test sets by hand.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// Access keys and their secrets.
    pub keys: BTreeMap<String, String>,
    /// User, domain and password.
    pub login: (String, String, String),
    /// How long tokens and temporary keys last.
    pub lifetime: Duration,
    /// How far the cloud's clock is ahead of ours, in seconds.
    pub clock_ahead: i64,
    /// Whether the machine has an agency.
    pub agency: bool,
    /// Whether the metadata service knows session tokens.
    pub sessions: bool,
    /// Whether STS may be asked.
    pub decode: bool,
    /// The tokens that are good.
    pub tokens: BTreeSet<String>,
    /// Tokens and temporary keys that were issued.
    pub issued: u32,
    /// Signatures that were refused.
    pub refused: u32,
    /// Logins that were refused.
    pub logins_refused: u32,
    failures: BTreeMap<String, (u32, Option<Timestamp>)>,
    temporary: BTreeMap<String, (String, Timestamp)>,
}

impl Identity {
    pub(super) fn new(token: &str) -> Self {
        let text = |text: &str| text.to_owned();
        Self(Mutex::new(Accounts {
            keys: BTreeMap::from([(text("SIMULATEDKEY"), text("simulated-secret"))]),
            login: (text("watcher"), text("example"), text("simulated-password")),
            lifetime: Duration::from_secs(86_400),
            clock_ahead: 0,
            agency: true,
            sessions: true,
            decode: true,
            tokens: BTreeSet::from([token.to_owned()]),
            issued: 0,
            refused: 0,
            logins_refused: 0,
            failures: BTreeMap::new(),
            temporary: BTreeMap::new(),
        }))
    }

    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cloud's time.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.micros() + self.accounts().clock_ahead * 1_000_000)
    }

    /// The answer to a request that may not pass.
    pub(super) fn refuse(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Option<Response> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let unauthorized = |text: &str| gateway(StatusCode::UNAUTHORIZED, "APIGW.0301", text);
        let Some(signature) = text("authorization").strip_prefix("SDK-HMAC-SHA256 ") else {
            return match self.accounts().tokens.contains(text("x-auth-token")) {
                true => None,
                false => Some(unauthorized("Incorrect IAM authentication information: decrypt token fail")),
            };
        };
        let time = self.time(now);
        let mut accounts = self.accounts();
        let parts: BTreeMap<&str, &str> = signature.split(", ").filter_map(|part| part.split_once('=')).collect();
        let part = |name: &str| parts.get(name).copied().unwrap_or_default();
        let key = part("Access").to_owned();
        if accounts.failures.get(&key).is_some_and(|(_, until)| until.is_some_and(|until| time < until)) {
            accounts.refused += 1;
            return Some(unauthorized("AK access failed to reach the limit,forbidden"));
        }
        let secret = match accounts.temporary.get(&key) {
            Some((secret, until)) if *until > time && text("x-security-token") == format!("token-of-{key}") => {
                Some(secret.clone())
            }
            Some(_) => None,
            None => accounts.keys.get(&key).cloned(),
        };
        let date = text("x-sdk-date");
        let signed = read_date(date);
        let fresh = signed.is_some_and(|at| at.since(time).max(time.since(at)) <= SIGNATURE_AGE_MAX);
        let refusal = match secret {
            None => Some(format!("Get secretKey failed,ak:{key},err:ak not exist")),
            Some(_) if !fresh => Some(format!(
                "calc aksk signature fail:signature expired, signature time:{date},server time:{}",
                basic(time)
            )),
            Some(secret) => {
                let canonical = canonical(method, uri, headers, body, part("SignedHeaders"));
                let expected = hmac(&secret, date, &canonical);
                let echo = canonical.replace('\n', "|");
                (expected != part("Signature") || !part("SignedHeaders").split(';').any(|name| name == "x-sdk-date"))
                    .then(|| format!("verify aksk signature fail, canonicalRequest:{echo}"))
            }
        };
        let Some(refusal) = refusal else {
            accounts.failures.remove(&key);
            return None;
        };
        accounts.refused += 1;
        let (count, until) = accounts.failures.entry(key).or_default();
        *count += 1;
        if *count > FAILURES_MAX {
            *until = Some(time.plus(LOCK));
        }
        Some(unauthorized(&refusal))
    }

    /// `POST /v3/auth/tokens`
    pub(super) fn login(&self, body: &[u8], now: Timestamp) -> Response {
        let time = self.time(now);
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let user = &body["auth"]["identity"]["password"]["user"];
        let mut accounts = self.accounts();
        let (name, domain, password) = &accounts.login;
        let good = user["name"] == **name && user["domain"]["name"] == **domain && user["password"] == **password;
        if !good {
            accounts.logins_refused += 1;
            let error = json!({ "error": { "code": 401, "message": "The username or password is wrong.", "title": "Unauthorized" } });
            return answer(StatusCode::UNAUTHORIZED, &error);
        }
        accounts.issued += 1;
        let token = format!("issued-token-{}", accounts.issued);
        accounts.tokens.insert(token.clone());
        let until = time.plus(accounts.lifetime).to_string();
        let body = json!({ "token": { "issued_at": time.to_string(), "expires_at": until, "methods": ["password"] } });
        let mut answer = answer(StatusCode::CREATED, &body);
        answer.headers_mut().insert("x-subject-token", HeaderValue::from_str(&token).expect("a token is ASCII"));
        answer
    }

    /// `PUT /meta-data/latest/api/token`
    pub(super) fn session(&self) -> Response {
        match self.accounts().sessions {
            true => "session-token".into_response(),
            false => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// `GET /openstack/latest/securitykey`, and the pod's `POST`.
    pub(super) fn temporary_key(&self, allowed: bool, now: Timestamp) -> Response {
        let time = self.time(now);
        let mut accounts = self.accounts();
        if !allowed {
            return (StatusCode::UNAUTHORIZED, "session token needed").into_response();
        }
        if !accounts.agency {
            return (StatusCode::UNAUTHORIZED, NO_AGENCY).into_response();
        }
        accounts.issued += 1;
        let (key, secret) = (format!("TEMPORARY{}", accounts.issued), format!("secret-{}", accounts.issued));
        let until = time.plus(accounts.lifetime);
        accounts.temporary.insert(key.clone(), (secret.clone(), until));
        let token = format!("token-of-{key}");
        let credential =
            json!({ "access": key, "secret": secret, "securitytoken": token, "expires_at": until.to_string() });
        answer(StatusCode::OK, &json!({ "credential": credential }))
    }

    /// `POST /v5/decode-authorization-message`
    pub(super) fn decode(&self, body: &[u8]) -> Response {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        if !self.accounts().decode || body["encoded_message"].as_str().is_none_or(str::is_empty) {
            let text = "you are not allowed to perform action sts::decodeAuthorizationMessage";
            return answer(StatusCode::FORBIDDEN, &json!({ "error_code": "STS5.1003", "error_msg": text }));
        }
        let inner = json!({
            "context": { "user_profile": { "user_name": "watcher" }, "action": "swr:instance:listJobs" },
            "failure": "implicit deny by identity-based policy",
        });
        answer(StatusCode::OK, &json!({ "decoded_message": inner.to_string() }))
    }
}

fn canonical(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8], signed: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = decode(uri.path());
    let mut path: String = path.split('/').map(encode).collect::<Vec<_>>().join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let host = uri.authority().map(|authority| authority.to_string());
    let lines: String = signed
        .split(';')
        .map(|name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
            let value = if name == "host" { value.or_else(|| host.clone()) } else { value };
            format!("{name}:{}\n", value.unwrap_or_default().trim())
        })
        .collect();
    let payload = HEXLOWER.encode(&Sha256::digest(body));
    format!("{method}\n{path}\n{}\n{lines}\n{signed}\n{payload}", query.join("&"))
}

fn hmac(secret: &str, date: &str, canonical: &str) -> String {
    let text = format!("SDK-HMAC-SHA256\n{date}\n{}", HEXLOWER.encode(&Sha256::digest(canonical)));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(text.as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn read_date(text: &str) -> Option<Timestamp> {
    let at = |range: std::ops::Range<usize>| text.get(range);
    let text = format!("{}-{}-{}T{}:{}:{}Z", at(0..4)?, at(4..6)?, at(6..8)?, at(9..11)?, at(11..13)?, at(13..15)?);
    Timestamp::parse(&text)
}

fn basic(at: Timestamp) -> String {
    let text = Timestamp::from_micros(at.seconds() * 1_000_000).to_string();
    text.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}
