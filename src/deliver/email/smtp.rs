//! A conversation with a mail server: bounded in what it reads, and it tells at which stage what went wrong.
//!
//! The words are lettre's. The connection is ours: the library's reads a line without bound, believes an answer that came
//! before the TLS handshake, gives up the connection with the first bad recipient, and hides the stage and `SIZE`.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Quit, Rcpt, Rset, Starttls};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::deliver::tame;

/// RFC 5321 §4.5.3.1.5 has 512 bytes; some say more.
const LINE_BYTES_MAX: u64 = 4 << 10;
/// A whole answer, of many lines.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Greeting,
    Hello,
    StartTls,
    Handshake,
    Login,
    Sender,
    Recipient,
    Data,
    /// After the final dot.
    Message,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Greeting => "greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Handshake => "TLS",
            Self::Login => "AUTH",
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::Message => "after the message",
        })
    }
}

/// What the server said, with all its lines.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    lines: Vec<String>,
}

impl Answer {
    /// The class, subject and detail of RFC 3463, when the first line begins with them.
    pub(super) fn enhanced(&self) -> Option<(u16, u16, u16)> {
        let mut numbers = self.lines.first()?.split(' ').next()?.split('.').map(|number| number.parse().ok());
        match (numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()) {
            (class, subject, detail, None) => Some((class, subject, detail)),
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.lines.first().map_or("", |line| line.split(' ').next().unwrap_or(""));
        let mut text = self.lines.first().cloned().unwrap_or_default();
        for line in self.lines.iter().skip(1) {
            text.push(' ');
            // The code of the first line stands on each.
            text += self.enhanced().and_then(|_| line.strip_prefix(first)).unwrap_or(line).trim_start();
        }
        write!(f, "{} {}", self.code, tame(&text, 200))
    }
}

/// Why a message, or a connection, came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no.
    Answered(Stage, Answer),
    /// The connection broke, or what came is no SMTP.
    Broken(Stage, String),
    /// It was not tried: the server does not offer what is needed.
    Unfit(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(stage, answer) => write!(f, "{stage}: {answer}"),
            Self::Broken(stage, why) => write!(f, "{stage}: {why}"),
            Self::Unfit(why) => f.write_str(why),
        }
    }
}

impl Failure {
    /// Whether the connection is as good as before.
    pub(super) fn spares_the_connection(&self) -> bool {
        match self {
            Self::Answered(_, answer) => answer.code != 421,
            Self::Broken(..) => false,
            Self::Unfit(_) => true,
        }
    }

    /// Whether the other side hung up before it was told anything of the message: it may be told on a new connection.
    pub(super) fn is_of_an_old_connection(&self) -> bool {
        match self {
            Self::Answered(stage, answer) => *stage == Stage::Sender && answer.code == 421,
            Self::Broken(stage, _) => *stage == Stage::Sender,
            Self::Unfit(_) => false,
        }
    }
}

/// How a connection is kept secret.
pub(super) enum Tls {
    /// STARTTLS, or nothing.
    Required(Security),
    /// From the first byte.
    Implicit(Security),
    /// Loopback only.
    None,
}

/// Whom to trust, and as whom the server must show itself.
pub(super) struct Security {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// Who logs in.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: SecretString,
    /// In the order of preference.
    pub(super) mechanisms: &'a [Mechanism],
}

/// What carries a conversation.
trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// What the server can do, from its answer to EHLO.
#[derive(Debug, Default)]
struct Offers {
    starttls: bool,
    eight_bit: bool,
    utf8: bool,
    /// The longest message, in bytes; 0 when it does not say.
    size: usize,
    /// Whether `SIZE` was named at all: only then may it be told.
    sized: bool,
    mechanisms: Vec<String>,
}

impl Offers {
    fn read(answer: &Answer) -> Self {
        let mut offers = Self::default();
        // The first line is the server's name.
        for line in answer.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("8BITMIME") => offers.eight_bit = true,
                Some("SMTPUTF8") => offers.utf8 = true,
                Some("SIZE") => {
                    offers.sized = true;
                    offers.size = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
                }
                Some("AUTH") => offers.mechanisms.extend(words.map(ToOwned::to_owned)),
                Some(_) | None => {}
            }
        }
        offers
    }
}

/// A connection that is ready for messages.
pub(super) struct Connection {
    talk: Talk<Box<dyn Wire>>,
    offers: Offers,
    /// A message was begun and not ended.
    begun: bool,
    /// What the server showed itself with (DER).
    certificate: Option<Vec<u8>>,
}

impl Connection {
    /// Connects, secures the connection and logs in.
    pub(super) async fn open(host: &str, port: u16, tls: &Tls, login: Option<Login<'_>>) -> Result<Self, Failure> {
        let broken = |error: std::io::Error| Failure::Broken(Stage::Connecting, error.to_string());
        let stream = TcpStream::connect((host, port)).await.map_err(broken)?;
        // Commands are short, and each waits for its answer.
        stream.set_nodelay(true).map_err(broken)?;
        let (wire, certificate) = match tls {
            Tls::None => (Box::new(stream) as Box<dyn Wire>, None),
            Tls::Implicit(security) => secured(security, stream).await?,
            Tls::Required(security) => {
                let mut clear = Talk::over(stream);
                clear.greeting().await?;
                if !clear.hello().await?.starttls {
                    return Err(Failure::Unfit(
                        "the server does not offer STARTTLS: nothing is sent in clear text (smtps:// is TLS from the start)".into(),
                    ));
                }
                clear.ask(Stage::StartTls, Starttls, 2).await?;
                if !clear.stream.buffer().is_empty() {
                    let why = "the server, or somebody between, said something before the handshake".into();
                    return Err(Failure::Broken(Stage::Handshake, why));
                }
                secured(security, clear.stream.into_inner()).await?
            }
        };
        let mut talk = Talk::over(wire);
        if !matches!(tls, Tls::Required(_)) {
            talk.greeting().await?;
        }
        // What was offered before TLS is forgotten (RFC 3207 §4.2).
        let offers = talk.hello().await?;
        if let Some(login) = login {
            talk.login(&offers, &login).await?;
        }
        Ok(Self { talk, offers, begun: false, certificate })
    }

    /// What the server showed itself with (DER).
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Sends one message to one recipient.
    pub(super) async fn send(&mut self, from: &Address, to: &Address, message: &[u8]) -> Result<Answer, Failure> {
        let parameters = self.parameters(from, to, message)?;
        if std::mem::replace(&mut self.begun, true) {
            self.talk.ask(Stage::Sender, Rset, 2).await?;
        }
        self.talk.ask(Stage::Sender, Mail::new(Some(from.clone()), parameters), 2).await?;
        self.talk.ask(Stage::Recipient, Rcpt::new(to.clone(), Vec::new()), 2).await?;
        self.talk.ask(Stage::Data, Data, 3).await?;
        let answer = self.talk.tell(Stage::Message, &stuffed(message)).await;
        self.begun = false;
        expect(Stage::Message, answer?, 2)
    }

    /// Parameters are given only to who knows them.
    fn parameters(&self, from: &Address, to: &Address, message: &[u8]) -> Result<Vec<MailParameter>, Failure> {
        let Offers { size, sized, utf8, eight_bit, .. } = self.offers;
        let mut parameters = Vec::new();
        if size > 0 && message.len() > size {
            return Err(Failure::Unfit(format!(
                "the message has {} bytes and the server takes {size} (SIZE): raise the server's limit",
                message.len()
            )));
        }
        if sized {
            parameters.push(MailParameter::Size(message.len()));
        }
        let international = [from, to].into_iter().find(|address| !AsRef::<str>::as_ref(address).is_ascii());
        if let Some(address) = international {
            if !utf8 {
                return Err(Failure::Unfit(format!(
                    "`{address}` is not ASCII, and the server does not offer SMTPUTF8: use another address or server"
                )));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !message.is_ascii() {
            if !eight_bit {
                return Err(Failure::Unfit("a header is not ASCII, and the server does not offer 8BITMIME".into()));
            }
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(parameters)
    }

    /// Says good-bye, and waits for no answer.
    pub(super) async fn leave(mut self) {
        // A server that has gone already is left as well.
        drop(self.talk.write(Stage::Message, Quit.to_string().as_bytes()).await);
    }
}

async fn secured(security: &Security, stream: TcpStream) -> Result<(Box<dyn Wire>, Option<Vec<u8>>), Failure> {
    let connector = TlsConnector::from(Arc::clone(&security.config));
    let stream = connector.connect(security.name.clone(), stream).await;
    let stream = stream.map_err(|error| Failure::Broken(Stage::Handshake, error.to_string()))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|shown| shown.first());
    let certificate = shown.map(|certificate| certificate.to_vec());
    Ok((Box::new(stream), certificate))
}

/// The message with its lines' first dots doubled, and the final dot (RFC 5321 §4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            data.push(b'.');
        }
        data.extend_from_slice(line);
    }
    if !data.ends_with(b"\r\n") {
        data.extend_from_slice(b"\r\n");
    }
    data.extend_from_slice(b".\r\n");
    data
}

/// An answer that begins with this digit, or what its absence means.
fn expect(stage: Stage, answer: Answer, first: u16) -> Result<Answer, Failure> {
    match answer.code / 100 {
        digit if digit == first => Ok(answer),
        4 | 5 => Err(Failure::Answered(stage, answer)),
        _ => Err(Failure::Broken(stage, format!("the server is out of step: {answer}"))),
    }
}

/// Lines there and back.
struct Talk<S> {
    stream: BufReader<S>,
}

impl<S: Wire> Talk<S> {
    fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn greeting(&mut self) -> Result<(), Failure> {
        let answer = self.answer(Stage::Greeting).await?;
        expect(Stage::Greeting, answer, 2).map(drop)
    }

    async fn hello(&mut self) -> Result<Offers, Failure> {
        let answer = self.ask(Stage::Hello, Ehlo::new(ClientId::default()), 2).await?;
        Ok(Offers::read(&answer))
    }

    async fn login(&mut self, offers: &Offers, login: &Login<'_>) -> Result<(), Failure> {
        let offered = |mechanism: &&Mechanism| offers.mechanisms.contains(&mechanism.to_string());
        let Some(mechanism) = login.mechanisms.iter().find(offered).copied() else {
            let wanted: Vec<String> = login.mechanisms.iter().map(ToString::to_string).collect();
            let offered = match offers.mechanisms.join(" ") {
                none if none.is_empty() => "none".to_owned(),
                some => tame(&some, 100),
            };
            let why = format!("the server takes no login by {}, it offers {offered}: see `auth`", wanted.join(" or "));
            return Err(Failure::Unfit(why));
        };
        let credentials = Credentials::new(login.user.to_owned(), login.password.expose_secret().to_owned());
        let say = |challenge: Option<&str>| {
            let words = mechanism.response(&credentials, challenge);
            words.map(|words| STANDARD.encode(words)).map_err(|error| Failure::Unfit(error.to_string()))
        };
        let mut said = Vec::new();
        let (opening, then) = match mechanism {
            Mechanism::Plain => (format!("AUTH PLAIN {}", say(None)?), vec![]),
            // Who refuses a token explains that in a challenge, and wants an empty line for it.
            Mechanism::Xoauth2 => (format!("AUTH XOAUTH2 {}", say(None)?), vec![String::new()]),
            Mechanism::Login => ("AUTH LOGIN".to_owned(), vec![say(Some("Username:"))?, say(Some("Password:"))?]),
        };
        said.extend(opening.split(' ').skip(2).map(ToOwned::to_owned));
        said.extend(then.iter().filter(|line| !line.is_empty()).cloned());
        said.push(login.password.expose_secret().to_owned());
        let mut answer = self.tell(Stage::Login, format!("{opening}\r\n").as_bytes()).await;
        for line in then {
            if matches!(&answer, Ok(answer) if answer.code == 334) {
                answer = self.tell(Stage::Login, format!("{line}\r\n").as_bytes()).await;
            }
        }
        // Some servers repeat what they did not understand.
        let hide = |text: &mut String| {
            for secret in said.iter().filter(|secret| !secret.is_empty()) {
                *text = text.replace(secret.as_str(), "***");
            }
        };
        match answer {
            Ok(mut answer) => {
                answer.lines.iter_mut().for_each(hide);
                expect(Stage::Login, answer, 2).map(drop)
            }
            Err(Failure::Broken(stage, mut why)) => {
                hide(&mut why);
                Err(Failure::Broken(stage, why))
            }
            Err(other @ (Failure::Answered(..) | Failure::Unfit(_))) => Err(other),
        }
    }

    /// Says a command; the answer must begin with this digit.
    async fn ask(&mut self, stage: Stage, command: impl fmt::Display, first: u16) -> Result<Answer, Failure> {
        let answer = self.tell(stage, command.to_string().as_bytes()).await?;
        expect(stage, answer, first)
    }

    async fn tell(&mut self, stage: Stage, text: &[u8]) -> Result<Answer, Failure> {
        // Else every answer would be taken for that to the next command.
        if !self.stream.buffer().is_empty() {
            let answer = self.answer(stage).await?;
            return match answer.code {
                421 => Err(Failure::Answered(stage, answer)),
                _ => Err(Failure::Broken(stage, format!("the server spoke unasked: {answer}"))),
            };
        }
        // Who hangs up may have said why.
        match self.write(stage, text).await {
            Ok(()) => self.answer(stage).await,
            Err(why) => self.answer(stage).await.map_err(|_| why),
        }
    }

    async fn write(&mut self, stage: Stage, text: &[u8]) -> Result<(), Failure> {
        let broken = |error: std::io::Error| Failure::Broken(stage, error.to_string());
        self.stream.get_mut().write_all(text).await.map_err(broken)?;
        self.stream.get_mut().flush().await.map_err(broken)
    }

    async fn answer(&mut self, stage: Stage) -> Result<Answer, Failure> {
        let broken = |why: &str| Err(Failure::Broken(stage, why.to_owned()));
        let (mut known, mut lines, mut bytes) = (None, Vec::new(), 0);
        loop {
            let mut line = Vec::new();
            let read = (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            let length = read.map_err(|error| Failure::Broken(stage, error.to_string()))?;
            bytes += length;
            if length == LINE_BYTES_MAX as usize || bytes > ANSWER_BYTES_MAX {
                return broken("the answer is too long");
            }
            if line.pop() != Some(b'\n') {
                return broken("the server hung up");
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            let (digits, rest) = line.split_at_checked(3).unwrap_or((line, ""));
            let sound =
                digits.bytes().all(|byte| byte.is_ascii_digit()) && matches!(rest.as_bytes(), [] | [b' ' | b'-', ..]);
            let code = digits.parse().ok().filter(|code| sound && (200..600).contains(code));
            let Some(code) = code.filter(|code| *known.get_or_insert(*code) == *code) else {
                return broken(&format!("`{}` is no answer", tame(line, 100)));
            };
            let (more, text) = (rest.starts_with('-'), rest.get(1..).unwrap_or_default().to_owned());
            lines.push(text);
            if !more {
                return Ok(Answer { code, lines });
            }
        }
    }
}
