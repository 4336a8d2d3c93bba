//! `kind = "metadata"`: the temporary key that the machine itself is given, on an ECS instance or in a CCE pod.
//!
//! After the official SDKs (`auth/internal.py`, `metadata_accessor.go`): a session token is asked for first; a service
//! that does not know of those is asked without.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::credential::{Held, Proof, latest};
use super::error::{ApiError, unreached};
use super::sign::AccessKey;
use crate::clock::Clock;
use crate::document::Kept;
use crate::http::{Answer, Client, Method, Overlong, Url};
use crate::model::listing::{Fault, FaultKind};
use crate::model::time::Timestamp;

/// Where the service answers on every machine.
pub(super) const ADDRESS: &str = "http://169.254.169.254/";
/// How long it may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// How long a session token lasts, as it is asked for.
const SESSION: Duration = Duration::from_secs(21_600);
/// A service that knows no session tokens is asked for one again after this.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);
/// A key is renewed so long before it expires, as the SDKs do.
const RENEW_BEFORE: Duration = Duration::from_secs(2_400);
/// What the service says on a machine without an agency.
const NO_AGENCY: &str = "Please configure Cloud Service Agency first";

/// Who gives this machine its key.
#[derive(Debug)]
pub(super) enum Metadata {
    /// The ECS metadata service.
    Machine(Machine),
    /// CCE's pod identity.
    Pod {
        client: Client,
        /// `HC_CONTAINER_CREDENTIALS_FULL_URI`
        url: Url,
        /// The content of `HC_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
        token: Mutex<Kept>,
    },
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) client: Client,
    pub(super) base: Url,
    pub(super) session: Mutex<Session>,
}

/// What is known of session tokens.
#[derive(Debug, Default)]
pub(super) struct Session {
    token: Option<(SecretString, Timestamp)>,
    unknown_until: Timestamp,
}

impl Metadata {
    /// Asks for a key.
    pub(super) async fn fetch(&self, clock: &Clock) -> Result<Held, Fault> {
        match self {
            Self::Machine(machine) => read(&machine.key(clock).await?, clock),
            Self::Pod { client, url, token } => {
                let request = client
                    .request(Method::POST, url.clone())
                    .header("Authorization", secret(&latest(token))?)
                    .header("Content-Type", "application/json")
                    .body("{}");
                let answer = client.send(request, Overlong::Fail).await;
                read(&answer.map_err(|error| unreached("the pod's identity service", &error))?, clock)
            }
        }
    }
}

impl Machine {
    async fn key(&self, clock: &Clock) -> Result<Answer, Fault> {
        let answer = self.ask(clock).await?;
        let expired = answer.status == 401 && !String::from_utf8_lossy(&answer.body).contains(NO_AGENCY);
        if !expired {
            return Ok(answer);
        }
        *self.session() = Session::default();
        self.ask(clock).await
    }

    async fn ask(&self, clock: &Clock) -> Result<Answer, Fault> {
        let mut request = self.client.request(Method::GET, self.url("openstack/latest/securitykey")?);
        if let Some(token) = self.open(clock).await? {
            request = request.header("X-Metadata-Token", secret(&token)?);
        }
        self.client.send(request, Overlong::Fail).await.map_err(|error| away(&error))
    }

    /// A session token, or nothing where they are not known.
    async fn open(&self, clock: &Clock) -> Result<Option<SecretString>, Fault> {
        let now = clock.now();
        {
            let session = self.session();
            if let Some((token, _)) = session.token.as_ref().filter(|(_, until)| now < *until) {
                return Ok(Some(token.clone()));
            }
            if now < session.unknown_until {
                return Ok(None);
            }
        }
        let url = self.url("meta-data/latest/api/token")?;
        let request =
            self.client.request(Method::PUT, url).header("X-Metadata-Token-Ttl-Seconds", SESSION.as_secs().to_string());
        let answer = self.client.send(request, Overlong::Fail).await.map_err(|error| away(&error))?;
        match answer.status {
            200..300 => {
                let token = SecretString::from(String::from_utf8_lossy(&answer.body).trim());
                self.session().token = Some((token.clone(), now.plus(SESSION / 2)));
                Ok(Some(token))
            }
            404 | 405 | 503 => {
                self.session().unknown_until = now.plus(ASK_AGAIN);
                Ok(None)
            }
            _ => Err(refused(&answer)),
        }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> Result<Url, Fault> {
        self.base.join(path).map_err(|error| fault(format!("the metadata service's address: {error}")))
    }
}

/// Reads the key from either service's answer, in v3's spelling or v5's.
fn read(answer: &Answer, clock: &Clock) -> Result<Held, Fault> {
    if answer.status != 200 {
        return Err(refused(answer));
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let inner = body.get("credential").or_else(|| body.get("credentials")).unwrap_or(&body);
    let text = |names: [&str; 3]| names.iter().find_map(|name| inner.get(name)?.as_str()).map(ToOwned::to_owned);
    let (id, secret) =
        (text(["access", "access_key_id", "accessKeyId"]), text(["secret", "secret_access_key", "secretAccessKey"]));
    let token = text(["securitytoken", "security_token", "securityToken"]);
    let until = text(["expires_at", "expiration", "expiresAt"]).as_deref().and_then(Timestamp::parse);
    let (Some(id), Some(key), Some(until)) = (id, secret, until) else {
        return Err(fault("the metadata service answered 200 without a key and its end".into()));
    };
    let proof = Proof::Key(AccessKey { id, secret: key.into(), security_token: token.map(Into::into) });
    let there = answer.header("date").and_then(Timestamp::parse_http).unwrap_or_else(|| clock.now());
    Ok(Held::lasting(proof, clock.now(), until.since(there), RENEW_BEFORE))
}

fn refused(answer: &Answer) -> Fault {
    if String::from_utf8_lossy(&answer.body).contains(NO_AGENCY) {
        return fault("this machine has no agency: give the ECS instance one that may list SWR's jobs".into());
    }
    let line = ApiError::read(answer).line(answer);
    fault(format!("the metadata service gave no key: {line}"))
}

fn away(error: &crate::http::Error) -> Fault {
    fault(format!(
        "the metadata service does not answer ({error}): this is no ECS instance, or it is blocked, as by the unit \
         without IPAddressAllow=169.254.169.254"
    ))
}

fn fault(text: String) -> Fault {
    Fault { kind: FaultKind::Unauthorized, text, retry_after: None }
}

fn secret(value: &SecretString) -> Result<reqwest::header::HeaderValue, Fault> {
    let mut value = reqwest::header::HeaderValue::from_str(value.expose_secret())
        .map_err(|_| fault("a token holds characters that cannot be sent".into()))?;
    value.set_sensitive(true);
    Ok(value)
}
