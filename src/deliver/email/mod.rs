//! `kind = "email"`: one message for each recipient, over SMTP with TLS, as RFC 5321, 5322, 3834 and 8314 have it.
//!
//! What is said is frozen with the delivery ([`message::Letter`]); who it goes to, and how, is the configuration's at the
//! time of the attempt, so that a mended address serves the retries. A recipient who has the message is not sent it again.

pub(super) mod message;
mod smtp;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lettre::address::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::{DEFAULT_MECHANISMS, Mechanism};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Sleep, sleep};

use super::{Carrier, Common, Kind, Receiver, Sent, reach, tame};
use crate::document::schema::{one_or_many, secret, shaped, string, table, word};
use crate::document::{Item, Kept, Table};
use crate::http::{Url, use_ring};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::examination::{Finding, Health};
use crate::model::time::Timestamp;
use message::Letter;
use smtp::{Answer, Connection, Failure, Login, Security, Stage, Tls};

pub(super) const KIND: Kind = Kind {
    name: "email",
    about: "e-mail over SMTP, STARTTLS or TLS from the start",
    carrier: Carrier::Own,
    concurrency: 1,
    // Mail programs clip what is longer than some 100 kB, and the text is in it twice.
    text_max: 1 << 20,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
server = "smtp://mail.example.org:587"
user = "jobwatch@example.org"
password = { credential = "smtp-password" }
auth = "login"
from = "jobwatch <jobwatch@example.org>"
to = ["oncall@example.org"]
reply_to = "platform@example.org"
"#;

/// More recipients than this belong on a list.
const RECIPIENTS_MAX: usize = 50;
/// A connection is used again within a batch, and not after this: servers close idle ones without a word.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Who grey-lists wants to see the second attempt later than this.
const GREYLISTED: Duration = Duration::from_secs(60);
/// Whose mailbox is full is not written to before this.
const FULL: Duration = Duration::from_secs(15 * 60);
/// As much of what all recipients' servers said as is told.
const WHY_MAX: usize = 600;

struct Email {
    server: Server,
    credentials: Option<Credentials>,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    to: Vec<Mailbox>,
    timeout: Duration,
    /// The connection of the batch, between two messages. The library's own pool takes a connection back too late for
    /// the next message of a batch.
    line: Mutex<Option<Line>>,
}

/// A connection that has just been used, and the time until which it may be used again.
struct Line {
    connection: Connection,
    stale: Pin<Box<Sleep>>,
}

struct Credentials {
    user: String,
    /// A password, or a token that somebody renews.
    password: std::sync::Mutex<Kept>,
    mechanisms: &'static [Mechanism],
}

impl Credentials {
    fn now(&self) -> Login<'_> {
        let mut kept = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = kept.living.as_ref().and_then(|living| living.fresh());
        // A file that is just being written is empty for a moment.
        if let Some(fresh) = fresh.filter(|fresh| !fresh.expose_secret().is_empty()) {
            kept.value = fresh;
        }
        Login { user: &self.user, password: kept.value.clone(), mechanisms: self.mechanisms }
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email").field("server", &self.target()).field("to", &self.to).finish_non_exhaustive()
    }
}

struct Server {
    host: String,
    port: u16,
    tls: Tls,
}

/// How somebody logs in, as `auth` says it.
const MECHANISMS: &[(&str, &[Mechanism])] =
    &[("plain", &[Mechanism::Plain]), ("login", &[Mechanism::Login]), ("xoauth2", &[Mechanism::Xoauth2])];

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let server = table.required("server", "server = \"smtp://mail.example.org:587\"");
    let user = table.string("user");
    let password = table.value("password");
    let auth = table.word("auth", MECHANISMS);
    let from = table.required("from", "from = \"jobwatch <jobwatch@example.org>\"");
    let reply_to = table.string("reply_to");
    let to = table.strings("to");
    if to.as_ref().is_none_or(Vec::is_empty) {
        table.missing("to", "to = [\"oncall@example.org\"]");
    }
    if let Some(many) = to.as_ref().and_then(|to| to.get(RECIPIENTS_MAX)) {
        table.error(
            "recipients",
            many.span.clone(),
            format!("more than {RECIPIENTS_MAX} recipients"),
            "write to a mailing list",
        );
    }
    let server = server.and_then(|server| read_server(table, &server, common));
    let mailbox = |item: &Item<String>| {
        let parsed = item.value.parse::<Mailbox>().map_err(|error| {
            let message = format!("`{}` is no address: {error}", item.value);
            table.error("address", item.span.clone(), message, "\"name <user@example.org>\" or \"user@example.org\"");
        });
        parsed.map(|Mailbox { name, email }| Mailbox { name, email: in_ascii(email) })
    };
    let (from, reply_to) = (from.as_ref().map(mailbox), reply_to.as_ref().map(mailbox));
    let mut recipients: Vec<Mailbox> = Vec::new();
    let mut sound = true;
    for item in to.iter().flatten() {
        match mailbox(item) {
            Ok(one) if recipients.iter().any(|known| known.email == one.email) => {}
            Ok(one) => recipients.push(one),
            Err(()) => sound = false,
        }
    }
    let credentials = match (user, password) {
        (Some(user), Some(password)) => {
            let password = std::sync::Mutex::new(password.kept(common.secrets)?.value);
            Some(Credentials { user: user.value, password, mechanisms: auth.unwrap_or(DEFAULT_MECHANISMS) })
        }
        (Some(item), None) => {
            table.error(
                "credentials",
                item.span,
                "`user` without `password`",
                "password = { credential = \"smtp-password\" }",
            );
            return None;
        }
        (None, Some(value)) => {
            value.error("credentials", "`password` without `user`", "user = \"jobwatch@example.org\"");
            return None;
        }
        (None, None) if auth.is_some() => {
            table.missing("user", "user = \"jobwatch@example.org\"");
            return None;
        }
        (None, None) => None,
    };
    if recipients.is_empty() || !sound {
        return None;
    }
    Some(Arc::new(Email {
        server: server?,
        credentials,
        from: from?.ok()?,
        reply_to: reply_to.transpose().ok()?,
        to: recipients,
        timeout: common.timeout,
        line: Mutex::default(),
    }))
}

/// The address with its domain in ASCII (IDNA), which every server takes.
fn in_ascii(address: Address) -> Address {
    let url = Url::parse(&format!("http://{}/", address.domain()));
    let domain =
        url.ok().and_then(|url| url.host_str().map(ToOwned::to_owned)).filter(|_| !address.domain().is_ascii());
    domain.and_then(|domain| Address::new(address.user(), domain).ok()).unwrap_or(address)
}

fn schema() -> Value {
    let address = json!({ "type": "string", "pattern": "@" });
    let mut to = one_or_many("Who is written to; each gets a message of their own.", &address, 1);
    to["anyOf"][1]["maxItems"] = RECIPIENTS_MAX.into();
    let mut schema = table(
        "",
        &["server", "from", "to"],
        [
            (
                "server",
                shaped(
                    "smtp://host:587 (STARTTLS required), smtps://host:465 (TLS from the start), or for loopback smtp+plain://.",
                    "^(smtp|smtps|smtp\\+plain)://[^/@]+/?$",
                ),
            ),
            ("user", string("Who logs in.")),
            ("password", secret("The password or token of `user`; a file of it is read anew when it changes.")),
            (
                "auth",
                word(
                    "How `user` logs in; else by PLAIN or LOGIN, whichever is offered. For xoauth2, `password` is an access token.",
                    MECHANISMS.iter().map(|(name, _)| *name),
                ),
            ),
            ("from", shaped("Who writes: \"name <user@example.org>\".", "@")),
            ("reply_to", shaped("Who answers go to.", "@")),
            ("to", to),
        ],
    );
    schema["dependentRequired"] = json!({ "user": ["password"], "password": ["user"], "auth": ["user"] });
    schema
}

fn read_server(table: &Table<'_>, item: &Item<String>, common: &Common<'_>) -> Option<Server> {
    const HELP: &str =
        "smtp://host:587 (STARTTLS required), smtps://host:465 (TLS from the start), or for loopback smtp+plain://";
    let fail = |message: String| table.error("server", item.span.clone(), message, HELP);
    let Ok(url) = crate::http::Url::parse(&item.value) else {
        fail(format!("`{}` is no server", item.value));
        return None;
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if host.is_empty() || url.username() != "" || url.password().is_some() || !matches!(url.path(), "" | "/") {
        fail(
            "a server is a scheme, a host and a port, and nothing else; user and password have keys of their own"
                .into(),
        );
        return None;
    }
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let (default_port, tls) = match url.scheme() {
        "smtp" => (587, Tls::Required(tls(table, &host, common)?)),
        "smtps" => (465, Tls::Implicit(tls(table, &host, common)?)),
        "smtp+plain" if loopback => (25, Tls::None),
        "smtp+plain" => {
            fail("mail in clear text goes to loopback addresses only".into());
            return None;
        }
        other => {
            fail(format!("`{other}` is no way to send mail"));
            return None;
        }
    };
    Some(Server { host, port: url.port().unwrap_or(default_port), tls })
}

fn tls(table: &Table<'_>, host: &str, common: &Common<'_>) -> Option<Security> {
    use_ring();
    let fail = |message: String| table.error("tls", table.span(), message, "check `ca_file`");
    let config = match &common.ca {
        None => ClientConfig::with_platform_verifier()
            .map_err(|error| fail(format!("TLS cannot be set up: {error}")))
            .ok()?,
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = certificate.map_err(|error| error.to_string());
                let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
                if let Err(error) = added {
                    fail(format!("the certificates cannot be used: {error}"));
                    return None;
                }
            }
            if roots.is_empty() {
                fail("there are no certificates in `ca_file`".into());
                return None;
            }
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
        }
    };
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Some(Security { config: Arc::new(config), name }),
        Err(_) => {
            fail(format!("`{host}` is no name that a certificate can have"));
            None
        }
    }
}

#[async_trait]
impl Receiver for Email {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        Letter::write(owed, self.from.email.domain()).to_bytes()
    }

    async fn send(&self, claimed: &Claimed, _: Timestamp) -> Sent {
        let mut progress = claimed.progress.clone();
        let letter = match Letter::from_bytes(&claimed.frozen.payload) {
            Ok(letter) => letter,
            Err(why) => return Sent { outcome: Outcome::Refused { why }, progress },
        };
        let mut result = Tally::default();
        let deadline = sleep(self.timeout);
        tokio::pin!(deadline);
        // Each is the first in turn: who keeps the server silent until the deadline does so to the others only this time.
        let first = usize::try_from(claimed.tries).unwrap_or(0) % self.to.len();
        for to in self.to.iter().cycle().skip(first).take(self.to.len()) {
            let address = to.email.to_string();
            if progress.contains(&address) {
                continue;
            }
            let answered = tokio::select! {
                biased;
                () = &mut deadline => {
                    result.later(format!("{address}: no answer in time"), None);
                    break;
                }
                answered = self.send_one(&letter, claimed, to) => answered,
            };
            match answered {
                Ok(answer) => {
                    progress.push(address);
                    result.accepted.get_or_insert(answer.to_string());
                }
                Err(Trouble::Message(failure)) => result.failed(&address, &failure),
                // It would be the same for everybody else, and many wrong passwords lock an account.
                Err(Trouble::Connection(failure)) => {
                    result.failed(&self.target(), &failure);
                    break;
                }
            }
        }
        Sent { outcome: result.outcome(), progress }
    }

    fn target(&self) -> String {
        format!("{}:{}", self.server.host, self.server.port)
    }

    /// As far as a login; no message is begun.
    async fn examine(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Server { host, port, .. } = &self.server;
        if !reach::dns(host, *port, &mut findings).await {
            return findings;
        }
        let opened = tokio::time::timeout(self.timeout, self.connect()).await;
        let trouble = match opened {
            Ok(Ok(connection)) => {
                findings.extend(reach::tls(connection.certificate(), now));
                let how = match &self.credentials {
                    Some(credentials) => format!("{} took the login of {}", self.target(), credentials.user),
                    None => format!("{} takes mail without a login", self.target()),
                };
                findings.push(Finding::new("smtp", Health::Good, how));
                connection.leave().await;
                return findings;
            }
            Ok(Err(Trouble::Connection(failure) | Trouble::Message(failure))) => failure.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        let mend = "check `server`, its port and its kind of TLS, `ca_file`, `user` and `password`";
        findings.push(Finding::new("smtp", Health::Bad, format!("{}: {trouble}: {mend}", self.target())));
        findings
    }
}

/// What came of several recipients.
#[derive(Default)]
struct Tally {
    accepted: Option<String>,
    refused: Vec<String>,
    later: Vec<String>,
    retry_after: Option<Duration>,
}

impl Tally {
    fn later(&mut self, why: String, retry_after: Option<Duration>) {
        self.later.push(why);
        self.retry_after = self.retry_after.max(retry_after);
    }

    /// Sorts a failure: the first digit of the server's answer decides (RFC 5321 §4.2.1), the enhanced code only explains.
    fn failed(&mut self, whose: &str, failure: &Failure) {
        match failure {
            Failure::Unfit(why) => self.refused.push(format!("{whose}: {why}")),
            Failure::Broken(stage, why) => self.later(format!("{whose}: {stage}: {}", tame(why, 200)), None),
            Failure::Answered(stage, answer) => {
                let why = format!("{whose}: {stage}: {answer}{}", mend(*stage, answer));
                // RFC 5321 §4.5.3.1.10: there, 552 means too many recipients.
                if answer.code < 500 || (*stage == Stage::Recipient && answer.code == 552) {
                    self.later(why, patience(answer));
                } else {
                    self.refused.push(why);
                }
            }
        }
    }

    /// Of several, what can be tried again decides, then what cannot, then success; every failure is named.
    fn outcome(self) -> Outcome {
        let Self { accepted, refused, mut later, retry_after } = self;
        if later.is_empty() && refused.is_empty() {
            // Nobody was left to send it to: all have it.
            return Outcome::Accepted { note: accepted.unwrap_or_else(|| "everybody has it already".into()) };
        }
        let again = !later.is_empty();
        later.extend(refused);
        let why = tame(&later.join("; "), WHY_MAX);
        if again { Outcome::Unreachable { why, retry_after } } else { Outcome::Refused { why } }
    }
}

/// How long a server wants to be left alone that says no for now.
fn patience(answer: &Answer) -> Option<Duration> {
    match (answer.code, answer.enhanced()) {
        // A full mailbox is not emptied in a minute.
        (_, Some((_, 2, 2))) => Some(FULL),
        (450 | 451, _) | (_, Some((_, 7, _))) => Some(GREYLISTED),
        _ => None,
    }
}

/// What would mend it, where the server's own words seldom say.
fn mend(stage: Stage, answer: &Answer) -> &'static str {
    match (answer.code, answer.enhanced()) {
        (530, _) => " (it wants a login: set `user` and `password`)",
        (535, _) if stage == Stage::Login => " (check `user`, `password` and `auth`)",
        (534, _) | (_, Some((_, 7, 9))) => " (try another `auth`)",
        (_, Some((5, 1, 7 | 8))) => " (check `from`)",
        (550 | 553 | 554, _) if stage == Stage::Sender => " (may `user` write as `from`?)",
        (_, Some((5, 3, 4))) => " (raise the server's limit)",
        _ => "",
    }
}

/// Why somebody was sent nothing.
enum Trouble {
    /// There is no connection, for anybody.
    Connection(Failure),
    Message(Failure),
}

impl Email {
    async fn send_one(&self, letter: &Letter, claimed: &Claimed, to: &Mailbox) -> Result<Answer, Trouble> {
        let built = letter.address(&claimed.frozen, &self.from, self.reply_to.as_ref(), to);
        let bytes = built.map_err(|why| Trouble::Message(Failure::Unfit(why)))?;
        let mut line = self.line.lock().await;
        let mut connection = match line.take() {
            Some(kept) if !kept.stale.is_elapsed() => {
                let mut connection = kept.connection;
                match connection.send(&self.from.email, &to.email, &bytes).await {
                    // Servers close idle connections without a word.
                    Err(failure) if failure.is_of_an_old_connection() => self.connect().await?,
                    result => return Self::keep(&mut line, connection, result),
                }
            }
            Some(kept) => {
                kept.connection.leave().await;
                self.connect().await?
            }
            None => self.connect().await?,
        };
        let result = connection.send(&self.from.email, &to.email, &bytes).await;
        Self::keep(&mut line, connection, result)
    }

    /// Keeps a connection for the next message, if it is still good.
    fn keep(
        line: &mut Option<Line>,
        connection: Connection,
        result: Result<Answer, Failure>,
    ) -> Result<Answer, Trouble> {
        if result.as_ref().err().is_none_or(Failure::spares_the_connection) {
            let mut stale = Box::pin(sleep(IDLE_MAX));
            // It runs from when it is first asked.
            if stale.as_mut().now_or_never().is_none() {
                *line = Some(Line { connection, stale });
            }
        }
        result.map_err(Trouble::Message)
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let Server { host, port, tls } = &self.server;
        let login = self.credentials.as_ref().map(Credentials::now);
        Connection::open(host, *port, tls, login).await.map_err(Trouble::Connection)
    }
}
