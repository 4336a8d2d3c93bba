//! Who we are in the cloud: a fixed key or token, one that the identity service gives for a password, or the machine's own.
//!
//! Sources that are given the same credential share one object: it is renewed once for all of them, by one request at a
//! time, and while it is still good nobody waits for that.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use configparser::ini::Ini;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::guard::Guard;
use super::iam::Iam;
use super::metadata::{self, Machine, Metadata};
use super::sign::AccessKey;
use super::{Pool, Route, fingerprint, region};
use crate::clock::Clock;
use crate::document::schema::{about, secret, shaped, string, table};
use crate::document::{Item, Kept, Secrets, Table, suggest};
use crate::http::{Proxy, Url};
use crate::model::listing::Fault;
use crate::model::time::Timestamp;

/// A renewal that failed is tried again after this, at the soonest.
const PAUSE: Duration = Duration::from_secs(30);
/// A credential that the cloud refused is renewed at most this often: a new one every time would be a storm.
const RENEWED_AGO_MIN: Duration = Duration::from_secs(60);
/// Where the SDKs' profile file is.
const PROFILE: &str = ".huaweicloud/credentials";

/// How the label of a machine's own key ends, where the cloud's usual address gives it.
pub(crate) const MACHINE: &str = "the ECS metadata service";

const KINDS: &[&str] = &["auto", "ak_sk", "token", "password", "metadata"];
const HELP: &str = "credentials = { kind = \"auto\" }, or kind = \"ak_sk\" with access_key and secret_key";

/// A credential, shared by the sources that use it.
#[derive(Debug)]
pub struct Credential {
    /// Tells it from others; made from a hash, it shows nothing.
    pub(super) id: String,
    /// For people: which one, and where it comes from. Holds no secret.
    label: String,
    origin: Origin,
    pub(super) guard: Arc<Guard>,
    held: RwLock<Option<Arc<Held>>>,
    renewing: tokio::sync::Mutex<()>,
    /// Why the last renewal failed, and until when nobody tries again.
    trouble: Mutex<Option<(Timestamp, Fault)>>,
}

#[derive(Debug)]
enum Origin {
    Token(Mutex<Kept>),
    Key { id: Mutex<Kept>, secret: Mutex<Kept>, security_token: Option<Mutex<Kept>> },
    Password(Iam),
    Metadata(Metadata),
}

/// What goes onto a request.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// As `X-Auth-Token`.
    Token(SecretString),
    /// As a signature.
    Key(AccessKey),
}

/// A proof and how long it is good.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) proof: Proof,
    since: Timestamp,
    renew_at: Timestamp,
    good_until: Timestamp,
}

impl Held {
    /// Good for ever, as far as is known.
    fn fixed(proof: Proof, now: Timestamp) -> Self {
        let ever = Timestamp::from_micros(i64::MAX);
        Self { proof, since: now, renew_at: ever, good_until: ever }
    }

    /// Good for `lifetime`; to be renewed `before` its end, or after half of it if it is short.
    pub(super) fn lasting(proof: Proof, now: Timestamp, lifetime: Duration, before: Duration) -> Self {
        let good_until = now.plus(lifetime);
        Self { proof, since: now, renew_at: good_until.minus(before.min(lifetime / 2)), good_until }
    }
}

/// The secret as it is now: read anew if its place changed.
pub(super) fn latest(kept: &Mutex<Kept>) -> SecretString {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fresh) = kept.living.as_ref().and_then(|living| living.fresh()).and_then(|text| sound(&text)) {
        kept.value = fresh;
    }
    kept.value.clone()
}

/// What can stand in a header, or nothing.
fn sound(text: &SecretString) -> Option<SecretString> {
    let text = text.expose_secret().trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.into())
}

impl Credential {
    fn new(id: String, label: String, origin: Origin, guard: Arc<Guard>) -> Self {
        let (held, renewing, trouble) = (RwLock::default(), tokio::sync::Mutex::default(), Mutex::default());
        Self { id, label, origin, guard, held, renewing, trouble }
    }

    /// For people: which one, and where it comes from.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What to look at when the cloud does not accept it.
    pub(super) fn advice(&self) -> &'static str {
        match &self.origin {
            Origin::Token(_) => "a token lasts 24 hours and is valid in one project of one region",
            Origin::Key { security_token: None, .. } => {
                "its id and its secret belong together, and the console shows whether it is enabled"
            }
            Origin::Key { security_token: Some(_), .. } => {
                "a temporary key ends with its security token: all three are renewed together"
            }
            Origin::Password(_) => {
                "IAM gave this token for the password, and it is valid in one project of one region: check `region` and `project_id`"
            }
            Origin::Metadata(_) => "the machine's own key is renewed by itself: look whether its agency still stands",
        }
    }

    /// Whether requests are signed with an access key; else they carry a token.
    pub fn signs(&self) -> bool {
        matches!(self.origin, Origin::Key { .. } | Origin::Metadata(_))
    }

    fn held(&self) -> Option<Arc<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Held) -> Arc<Held> {
        let held = Arc::new(held);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&held));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.guard.renewed();
        held
    }

    /// What to put onto a request now.
    pub(super) async fn proof(&self, clock: &Clock) -> Result<Arc<Held>, Fault> {
        if let Some(fixed) = self.fixed(clock) {
            return Ok(fixed);
        }
        let now = clock.now();
        let held = self.held().filter(|held| now < held.good_until);
        match held {
            Some(held) if now < held.renew_at || self.troubled(now).is_some() => Ok(held),
            // Still good: one renews in passing, and the others go on with what there is.
            Some(held) => match self.renewing.try_lock() {
                Ok(_renewing) => Ok(self.fetch(clock).await.unwrap_or(held)),
                Err(_) => Ok(held),
            },
            None => {
                let _renewing = self.renewing.lock().await;
                match self.held().filter(|held| clock.now() < held.good_until) {
                    Some(held) => Ok(held),
                    None => self.fetch(clock).await,
                }
            }
        }
    }

    /// Another proof after the cloud refused `used`; nothing if there is none.
    pub(super) async fn renew(&self, used: &Arc<Held>, clock: &Clock) -> Result<Option<Arc<Held>>, Fault> {
        let other = |held: Arc<Held>| (!Arc::ptr_eq(&held, used)).then_some(held);
        if let Some(fixed) = self.fixed(clock) {
            return Ok(other(fixed));
        }
        let _renewing = self.renewing.lock().await;
        if let Some(held) = self.held().and_then(other) {
            return Ok(Some(held));
        }
        if clock.now().since(used.since) < RENEWED_AGO_MIN {
            return Ok(None);
        }
        self.fetch(clock).await.map(Some)
    }

    /// A token or key of the configuration, read anew if its place changed. Nothing for the other kinds.
    fn fixed(&self, clock: &Clock) -> Option<Arc<Held>> {
        let proof = match &self.origin {
            Origin::Token(token) => Proof::Token(latest(token)),
            Origin::Key { id, secret, security_token } => Proof::Key(AccessKey {
                id: latest(id).expose_secret().to_owned(),
                secret: latest(secret),
                security_token: security_token.as_ref().map(latest),
            }),
            Origin::Password(_) | Origin::Metadata(_) => return None,
        };
        let mut slot = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = slot.as_ref().filter(|held| held.proof == proof) {
            return Some(Arc::clone(held));
        }
        if slot.is_some() {
            // Another secret than the one that was judged. The first one is no news to the guard: it may have been refused
            // through a source that was quicker.
            self.guard.renewed();
        }
        let held = Arc::new(Held::fixed(proof, clock.now()));
        *slot = Some(Arc::clone(&held));
        Some(held)
    }

    fn troubled(&self, now: Timestamp) -> Option<Fault> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, fault) = trouble.as_ref()?;
        let remains = until.since(now);
        (!remains.is_zero()).then(|| Fault { retry_after: Some(remains), ..fault.clone() })
    }

    async fn fetch(&self, clock: &Clock) -> Result<Arc<Held>, Fault> {
        if let Some(fault) = self.troubled(clock.now()) {
            return Err(fault);
        }
        let fetched = match &self.origin {
            Origin::Password(iam) => iam.fetch(clock).await,
            Origin::Metadata(metadata) => metadata.fetch(clock).await,
            Origin::Token(_) | Origin::Key { .. } => unreachable!("fixed credentials are not fetched"),
        };
        fetched.map(|held| self.hold(held)).inspect_err(|fault| {
            let until = clock.now().plus(fault.retry_after.unwrap_or_default().max(PAUSE));
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some((until, fault.clone()));
        })
    }

    /// Takes every trace of the credential out of a text that came from elsewhere.
    pub(crate) fn redact(&self, text: &str) -> String {
        let Some(held) = self.held() else { return text.to_owned() };
        let secrets = match &held.proof {
            Proof::Token(token) => vec![token],
            Proof::Key(key) => std::iter::once(&key.secret).chain(&key.security_token).collect(),
        };
        secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "[redacted]"))
    }
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Key(a), Self::Key(b)) => {
                let token = |key: &AccessKey| key.security_token.as_ref().map(|t| t.expose_secret().to_owned());
                a.id == b.id && a.secret.expose_secret() == b.secret.expose_secret() && token(a) == token(b)
            }
            (Self::Token(_), Self::Key(_)) | (Self::Key(_), Self::Token(_)) => false,
        }
    }
}

/// What a credential is read with.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// What is shared.
    pub(crate) pool: &'a Pool,
    /// The source's region.
    pub(crate) region: Option<&'a str>,
    /// The project a token is asked for.
    pub(crate) project: &'a str,
    /// How the source's requests get there; those for a token go the same way.
    pub(crate) route: Route<'a>,
}

impl Credential {
    /// Reads `credentials = { kind = "…", … }`. `None` when something was wrong; the table has been told.
    pub(crate) fn read(source: &Table<'_>, secrets: &dyn Secrets, around: &Surroundings<'_>) -> Option<Arc<Self>> {
        let Some(table) = source.table("credentials") else {
            source.missing("credentials", HELP);
            return None;
        };
        let kind = table.required("kind", HELP)?;
        let reader = Reader { table: &table, secrets, around };
        let credential = match kind.value.as_str() {
            "token" => reader.token(),
            "ak_sk" => reader.ak_sk(),
            "password" => reader.password(),
            "metadata" => reader.metadata("the machine's own key"),
            "auto" => reader.auto(kind.span.clone()),
            other => {
                let message = format!("unknown kind of credentials `{other}`");
                table.error("credentials", kind.span.clone(), message, suggest(other, KINDS));
                return None;
            }
        };
        table.finish();
        credential
    }
}

impl Credential {
    /// The JSON Schema of `credentials`; the whole schema has [`Credential::schemas`] under this name.
    pub(crate) fn schema() -> Value {
        about("Who asks.", json!({ "anyOf": [{ "$ref": "#/$defs/credentials" }] }))
    }

    /// Each kind of credentials and what it needs.
    pub(crate) fn schemas() -> Value {
        let url = |words| shaped(words, "^https?://");
        let kind = |word: &&str| {
            let (words, required, own): (_, &[&str], Vec<(&str, Value)>) = match *word {
                "ak_sk" => (
                    "An access key.",
                    &["access_key", "secret_key"],
                    vec![
                        ("access_key", secret("The access key's id.")),
                        ("secret_key", secret("The secret access key.")),
                        ("security_token", secret("If the key is temporary.")),
                    ],
                ),
                "token" => ("A token; it lasts 24 hours.", &["token"], vec![("token", secret("The token."))]),
                "password" => (
                    "An IAM user: a token is asked for and renewed.",
                    &["user", "domain", "password"],
                    vec![
                        ("user", string("The IAM user's name.")),
                        ("domain", string("The account's name.")),
                        ("password", secret("The user's password.")),
                        ("iam_endpoint", url("Where the identity service answers; the region's, if left out.")),
                    ],
                ),
                "metadata" => (
                    "The machine's own key: an ECS agency, or a CCE pod's identity.",
                    &[],
                    vec![("endpoint", url("Where the metadata service answers, if not at the usual address."))],
                ),
                _ => (
                    "The SDKs' order: HUAWEICLOUD_SDK_AK and _SK, the profile file, the machine's own key.",
                    &[],
                    vec![("endpoint", url("Where the metadata service answers, if not at the usual address."))],
                ),
            };
            let named = ("kind", about(words, json!({ "const": word })));
            table(words, &[&["kind"], required].concat(), std::iter::once(named).chain(own))
        };
        json!({ "oneOf": KINDS.iter().map(kind).collect::<Vec<_>>() })
    }
}

struct Reader<'a> {
    table: &'a Table<'a>,
    secrets: &'a dyn Secrets,
    around: &'a Surroundings<'a>,
}

impl Reader<'_> {
    fn part(&self, key: &'static str, needed: bool, help: &str) -> Option<Kept> {
        let Some(value) = self.table.value(key) else {
            if needed {
                self.table.missing(key, help);
            }
            return None;
        };
        let Item { value: kept, span } = value.kept(self.secrets)?;
        let Some(value) = sound(&kept.value) else {
            let message = format!("`{key}` is empty or holds characters that cannot be sent");
            self.table.error("secret", span, message, help);
            return None;
        };
        Some(Kept { value, ..kept })
    }

    fn token(&self) -> Option<Arc<Credential>> {
        let token =
            self.part("token", true, "credentials = { kind = \"token\", token = { env = \"HW_AUTH_TOKEN\" } }")?;
        let key = fingerprint(&["token", token.value.expose_secret()]);
        let label = "a token of the configuration".to_owned();
        let guard = self.around.pool.guard(&key);
        Some(self.around.pool.credential(key, |id| Credential::new(id, label, Origin::Token(Mutex::new(token)), guard)))
    }

    fn ak_sk(&self) -> Option<Arc<Credential>> {
        const HELP: &str =
            "access_key and secret_key: { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";
        let (id, secret) = (self.part("access_key", true, HELP), self.part("secret_key", true, HELP));
        let named = self.table.value("security_token").is_some();
        let token = self.part("security_token", false, HELP);
        if named && token.is_none() {
            return None;
        }
        Some(self.key(id?, secret?, token, "the configuration"))
    }

    fn key(&self, id: Kept, secret: Kept, token: Option<Kept>, from: &str) -> Arc<Credential> {
        let name = id.value.expose_secret();
        let shown: String = name.chars().take(4).collect();
        let label = format!("the access key {shown}… of {from}");
        let token_text = token.as_ref().map(|token| token.value.expose_secret()).unwrap_or_default();
        let key = fingerprint(&["key", name, secret.value.expose_secret(), token_text]);
        // The cloud locks the access key, whatever the secret: one guard for each.
        let guard = self.around.pool.guard(&fingerprint(&["access-key", name]));
        let origin =
            Origin::Key { id: Mutex::new(id), secret: Mutex::new(secret), security_token: token.map(Mutex::new) };
        self.around.pool.credential(key, |id| Credential::new(id, label, origin, guard))
    }

    fn password(&self) -> Option<Arc<Credential>> {
        const HELP: &str = "kind = \"password\" has user, domain (the account's name), password and, outside the usual regions, iam_endpoint";
        let (user, domain) = (self.table.required("user", HELP), self.table.required("domain", HELP));
        let password = match self.table.value("password") {
            Some(value) => value.kept(self.secrets).map(|item| item.value),
            None => {
                self.table.missing("password", HELP);
                None
            }
        };
        let endpoint = self.table.string("iam_endpoint");
        let (text, span) = match (&endpoint, self.around.region) {
            (Some(endpoint), _) => (endpoint.value.clone(), endpoint.span.clone()),
            (None, Some(region)) => (region::iam(region), self.table.span()),
            (None, None) => {
                self.table.missing("iam_endpoint", "iam_endpoint = \"https://iam.…\", or `region` in the source");
                return None;
            }
        };
        let around = self.around;
        let url = region::endpoint(&text, around.route.proxy).map_err(|why| {
            self.table.error(
                "endpoint",
                span,
                format!("the IAM endpoint cannot be used: {why}"),
                "https://iam.ap-southeast-3.myhuaweicloud.com",
            );
        });
        let url = url.ok()?.join("v3/auth/tokens").ok()?;
        let (user, domain, password) = (user?.value, domain?.value, password?);
        let client = around.pool.client(around.route).ok()?;
        let parts = ["password", url.as_str(), &user, &domain, around.project, password.value.expose_secret()];
        let guard = around.pool.guard(&fingerprint(&parts));
        // Whose proxy is away must not depend on another one's.
        let through = around.route.proxy.map(Proxy::identity);
        let through = through.as_ref().map(|proxy| proxy.expose_secret());
        let key = fingerprint(&parts.into_iter().chain(through).collect::<Vec<_>>());
        let label = format!("a token for the IAM user {user} of {domain}");
        let iam = Iam { client, url, user, domain, password: Mutex::new(password), project: around.project.to_owned() };
        Some(around.pool.credential(key, |id| Credential::new(id, label, Origin::Password(iam), guard)))
    }

    fn metadata(&self, label: &str) -> Option<Arc<Credential>> {
        let pool = self.around.pool;
        // It answers on the machine itself, and no proxy may be shown the key.
        let route = Route { timeout: metadata::TIMEOUT, ca: None, proxy: None };
        let client = pool.client(route).ok()?;
        let endpoint = self.table.string("endpoint");
        let pod = self.secrets.variable("HC_CONTAINER_CREDENTIALS_FULL_URI");
        let (origin, key, label) = if let (Some(uri), None) = (&pod, &endpoint) {
            let url = pod_url(uri).map_err(|why| {
                let message = format!("HC_CONTAINER_CREDENTIALS_FULL_URI cannot be used: {why}");
                self.table.error("credentials", self.table.span(), message, "CCE sets it in a pod with an identity");
            });
            let path = self.secrets.variable("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE").unwrap_or_default();
            let token = self.secrets.file(&path).map_err(|error| {
                let message = format!("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE (`{path}`) cannot be read: {error}");
                self.table.error("credentials", self.table.span(), message, "CCE mounts it in a pod with an identity");
            });
            let (url, (value, living)) = (url.ok()?, token.ok()?);
            let token = Mutex::new(Kept { value, living: Some(living) });
            (
                Metadata::Pod { client, url, token },
                fingerprint(&["pod", uri]),
                format!("{label}: the pod's identity (CCE)"),
            )
        } else {
            let text = endpoint.as_ref().map_or(metadata::ADDRESS, |endpoint| endpoint.value.as_str());
            let base = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|error| {
                self.table.error(
                    "endpoint",
                    self.table.span(),
                    format!("`{text}` is no address: {error}"),
                    metadata::ADDRESS,
                );
            });
            let machine = Machine { client, base: base.ok()?, session: Mutex::default() };
            let elsewhere = endpoint.as_ref().map(|endpoint| format!(" at {}", endpoint.value)).unwrap_or_default();
            (Metadata::Machine(machine), fingerprint(&["machine", text]), format!("{label}: {MACHINE}{elsewhere}"))
        };
        let guard = pool.guard(&key);
        Some(pool.credential(key, |id| Credential::new(id, label, Origin::Metadata(origin), guard)))
    }

    /// The SDKs' order: the environment, the profile file, the machine.
    fn auto(&self, span: std::ops::Range<usize>) -> Option<Arc<Credential>> {
        // It may be there also where the machine is not asked in the end.
        self.table.known(&["endpoint"]);
        let plain = |text: String| Kept { value: text.into(), living: None };
        let variable = |name: &str| self.secrets.variable(name);
        match (variable("HUAWEICLOUD_SDK_AK"), variable("HUAWEICLOUD_SDK_SK")) {
            (Some(id), Some(secret)) => {
                let token = variable("HUAWEICLOUD_SDK_SECURITY_TOKEN").map(plain);
                return Some(self.key(plain(id), plain(secret), token, "the environment (HUAWEICLOUD_SDK_AK)"));
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => {
                let message = "the environment has only one of HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK";
                self.table.error("credentials", span, message, "set both, or neither");
                return None;
            }
        }
        let named = variable("HUAWEICLOUD_SDK_CREDENTIALS_FILE");
        let path = named.clone().or_else(|| variable("HOME").map(|home| format!("{home}/{PROFILE}")));
        if let Some(path) = path {
            match self.secrets.file(&path) {
                Ok((text, _)) => return self.profile(text.expose_secret(), &path, span),
                Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let message = format!("the profile file {path} cannot be read: {error}");
                    self.table.error("credentials", span, message, "HUAWEICLOUD_SDK_CREDENTIALS_FILE names another");
                    return None;
                }
            }
        }
        self.metadata("no HUAWEICLOUD_SDK_AK in the environment and no profile file, so the machine's own key")
    }

    fn profile(&self, text: &str, path: &str, span: std::ops::Range<usize>) -> Option<Arc<Credential>> {
        const WANTED: &str = "[basic]\nak = …\nsk = …";
        let mut ini = Ini::new_cs();
        if let Err(error) = ini.read(text.to_owned()) {
            // The message may quote the line, and the line may be a secret.
            drop(error);
            self.table.error("credentials", span, format!("the profile file {path} is no INI file"), WANTED);
            return None;
        }
        let part = |name: &str| ini.get("basic", name).filter(|value| !value.is_empty());
        let plain = |text: String| Kept { value: text.into(), living: None };
        let (Some(id), Some(secret)) = (part("ak"), part("sk")) else {
            self.table.error(
                "credentials",
                span,
                format!("the profile file {path} has no ak and sk in [basic]"),
                WANTED,
            );
            return None;
        };
        Some(self.key(plain(id), plain(secret), part("security_token").map(plain), &format!("the profile file {path}")))
    }
}

/// The pod's identity service answers in the clear on the node itself, elsewhere over TLS.
fn pod_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let near = match url.host_str().unwrap_or_default().parse::<std::net::Ipv4Addr>() {
        Ok(address) => address.is_loopback() || address.is_link_local(),
        Err(_) => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if near => Ok(url),
        scheme => {
            Err(format!("{scheme} to {} would show the token to the network", url.host_str().unwrap_or_default()))
        }
    }
}
