//! `kind = "email"`: one message for each recipient, over SMTP with TLS, as RFC 5321, 5322, 3834 and 8314 have it.
//!
//! What is said is frozen with the delivery ([`message::Letter`]); who it goes to, and how, is the configuration's at the
//! time of the attempt, so that a mended address serves the retries. A recipient who has the message is not sent it again.

pub(super) mod message;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::address::Envelope;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Sleep, sleep};

use super::{Common, Kind, Receiver, Sent, tame, worse};
use crate::document::schema::{one_or_many, secret, shaped, string, table};
use crate::document::{Item, Table};
use crate::http::use_ring;
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::time::Timestamp;
use message::Letter;

pub(super) const KIND: Kind = Kind {
    name: "email",
    about: "e-mail over SMTP, STARTTLS or TLS from the start",
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

struct Email {
    server: Server,
    credentials: Option<(String, SecretString)>,
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
    connection: AsyncSmtpConnection,
    stale: Pin<Box<Sleep>>,
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

enum Tls {
    /// STARTTLS, or nothing.
    Required(TlsParameters),
    /// From the first byte.
    Implicit(TlsParameters),
    /// Loopback only.
    None,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let server = table.required("server", "server = \"smtp://mail.example.org:587\"");
    let user = table.string("user");
    let password = table.value("password");
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
        let parsed = item.value.parse::<Mailbox>();
        parsed.map_err(|error| {
            let message = format!("`{}` is no address: {error}", item.value);
            table.error("address", item.span.clone(), message, "\"name <user@example.org>\" or \"user@example.org\"");
        })
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
            let password = password.secret(common.secrets)?;
            Some((user.value, password.value))
        }
        (None, None) => None,
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
            ("password", secret("The password of `user`.")),
            ("from", shaped("Who writes: \"name <user@example.org>\".", "@")),
            ("reply_to", shaped("Who answers go to.", "@")),
            ("to", to),
        ],
    );
    schema["dependentRequired"] = json!({ "user": ["password"], "password": ["user"] });
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

fn tls(table: &Table<'_>, host: &str, common: &Common<'_>) -> Option<TlsParameters> {
    use_ring();
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(pem) = &common.ca {
        match Certificate::from_pem(pem) {
            Ok(certificate) => {
                builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
            }
            Err(error) => {
                table.error(
                    "tls",
                    table.span(),
                    format!("the certificates cannot be used: {error}"),
                    "check `ca_file`",
                );
                return None;
            }
        }
    }
    builder
        .build()
        .map_err(|error| table.error("tls", table.span(), format!("TLS cannot be set up: {error}"), "check `ca_file`"))
        .ok()
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
        let mut worst = None;
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        for to in &self.to {
            let address = to.email.to_string();
            if progress.contains(&address) {
                continue;
            }
            let outcome = tokio::select! {
                biased;
                // The library's own time-out does not bound everything.
                () = &mut deadline => Outcome::Unreachable { why: format!("{address}: no answer in time"), retry_after: None },
                outcome = self.send_one(&letter, claimed, to) => outcome,
            };
            match outcome {
                Outcome::Accepted { note } => {
                    progress.push(address);
                    worst.get_or_insert(Outcome::Accepted { note });
                }
                other @ (Outcome::Refused { .. } | Outcome::Retired { .. } | Outcome::Unreachable { .. }) => {
                    worst = Some(worse(worst, other))
                }
            }
        }
        // Nobody was left to send it to: all have it.
        let outcome = worst.unwrap_or(Outcome::Accepted { note: "everybody has it already".into() });
        Sent { outcome, progress }
    }

    fn target(&self) -> String {
        format!("{}:{}", self.server.host, self.server.port)
    }
}

impl Email {
    async fn send_one(&self, letter: &Letter, claimed: &Claimed, to: &Mailbox) -> Outcome {
        let built = letter.address(&claimed.frozen, &self.from, self.reply_to.as_ref(), to);
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()]);
        let (bytes, envelope) = match (built, envelope) {
            (Ok(bytes), Ok(envelope)) => (bytes, envelope),
            (Err(why), _) => return Outcome::Refused { why },
            (_, Err(error)) => return Outcome::Refused { why: error.to_string() },
        };
        match self.transmit(&envelope, &bytes).await {
            Ok(reply) => {
                let text = reply.message().collect::<Vec<_>>().join(" ");
                Outcome::Accepted { note: format!("{} {}", reply.code(), tame(&text, 200)) }
            }
            Err(error) => sort(&error, to.email.as_ref()),
        }
    }

    /// Sends a message over the connection of the batch, or over a new one. A connection that failed is not kept.
    async fn transmit(&self, envelope: &Envelope, bytes: &[u8]) -> Result<Response, Error> {
        let mut line = self.line.lock().await;
        let mut kept = line.take().filter(|line| !line.stale.is_elapsed()).map(|line| line.connection);
        if let Some(connection) = &mut kept
            && !connection.test_connected().await
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let reply = connection.send(envelope, bytes).await?;
        *line = Some(Line { connection, stale: Box::pin(sleep(IDLE_MAX)) });
        Ok(reply)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let Server { host, port, tls } = &self.server;
        let (hello, timeout) = (ClientId::default(), Some(self.timeout));
        let implicit = match tls {
            Tls::Implicit(parameters) => Some(parameters.clone()),
            Tls::Required(_) | Tls::None => None,
        };
        let address = (host.as_str(), *port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(address, timeout, &hello, implicit, None).await?;
        if let Tls::Required(parameters) = tls {
            connection.starttls(parameters.clone(), &hello).await?;
        }
        if let Some((user, password)) = &self.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }
}

/// Sorts a failure: the first digit of the server's reply decides (RFC 5321 §4.2.1).
fn sort(error: &Error, address: &str) -> Outcome {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    let why = format!("{address}: {}", tame(&text, 300));
    let code = error.status().map(u16::from);
    if error.is_permanent() || error.is_client() {
        return Outcome::Refused { why };
    }
    let retry_after = matches!(code, Some(450 | 451)).then_some(GREYLISTED);
    Outcome::Unreachable { why, retry_after }
}
