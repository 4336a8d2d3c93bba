//! A mail server that keeps what it is sent: enough of SMTP (RFC 5321) for the demo, without TLS, on loopback.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The newest messages that are kept.
const KEPT_MAX: usize = 1_000;
/// A message may be no longer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// A line may be no longer: a command, or a line of a message with its end (RFC 5321 §4.5.3.1 asks for 1000).
const LINE_BYTES_MAX: u64 = 4_096;
/// Connections that may be open at once.
const CONNECTIONS_MAX: usize = 64;
/// Recipients of one message.
const RECIPIENTS_MAX: usize = 100;

/// A mail server. Clones share it.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Contents>,
    count: watch::Sender<usize>,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Contents {
    mails: VecDeque<Mail>,
    dropped: usize,
    refused: HashMap<String, String>,
    data_reply: Option<String>,
}

/// One message as it came, dots unstuffed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Headers and body.
    pub data: String,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Mailbox {
    /// An empty one that takes everything.
    pub fn new() -> Self {
        let (state, count) = (Mutex::default(), watch::Sender::new(0));
        Self(Arc::new(Shared { state, count, connections: AtomicU64::new(0) }))
    }

    /// Serves until `stop` is done.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut talks = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                accepted = listener.accept(), if talks.len() < CONNECTIONS_MAX => {
                    if let Ok((stream, _)) = accepted {
                        self.0.connections.fetch_add(1, Ordering::SeqCst);
                        let mailbox = self.clone();
                        // A talk that breaks off is the other side's affair.
                        talks.spawn(async move { drop(mailbox.talk(stream).await) });
                    }
                }
                Some(_) = talks.join_next() => {}
                () = &mut stop => return,
            }
        }
    }

    /// What was received so far, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.state().mails.iter().cloned().collect()
    }

    /// Waits for the n-th message, counted from 0.
    pub async fn next(&self, n: usize) -> Mail {
        let mut count = self.0.count.subscribe();
        // The sender lives as long as this mailbox.
        drop(count.wait_for(|count| *count > n).await);
        let state = self.state();
        state.mails[n.saturating_sub(state.dropped)].clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::SeqCst)
    }

    /// Answers `RCPT TO` for this address with this line from now on, such as `550 5.1.1 no such user`.
    pub fn refuse_recipient(&self, address: &str, reply: &str) {
        self.state().refused.insert(address.into(), reply.into());
    }

    /// Answers the end of a message with this line instead of keeping it; `None` ends that.
    pub fn answer_data_with(&self, reply: Option<&str>) {
        self.state().data_reply = reply.map(ToOwned::to_owned);
    }

    fn state(&self) -> MutexGuard<'_, Contents> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut mail = Mail::default();
        let mut reply = "220 localhost jobwatch demo".to_owned();
        loop {
            stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).await?;
            let Some(line) = line(&mut stream).await? else { return Ok(()) };
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            reply = match verb.as_str() {
                "EHLO" => "250-localhost\r\n250-SIZE 1048576\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES".into(),
                "HELO" => "250 localhost".into(),
                "MAIL" => {
                    mail = Mail { from: path(&line), ..Mail::default() };
                    "250 2.1.0 ok".into()
                }
                "RCPT" => self.recipient(&mut mail, path(&line)),
                "DATA" if mail.to.is_empty() => "503 5.5.1 no recipients".into(),
                "DATA" => {
                    stream.get_mut().write_all(b"354 go on\r\n").await?;
                    match data(&mut stream).await? {
                        Some(data) => self.keep(Mail { data, ..std::mem::take(&mut mail) }),
                        None => "552 5.3.4 too long".into(),
                    }
                }
                "RSET" => {
                    mail = Mail::default();
                    "250 2.0.0 ok".into()
                }
                "NOOP" => "250 2.0.0 ok".into(),
                "QUIT" => {
                    return stream.get_mut().write_all(b"221 2.0.0 bye\r\n").await;
                }
                _ => "502 5.5.1 not implemented".into(),
            };
        }
    }

    fn recipient(&self, mail: &mut Mail, address: String) -> String {
        if let Some(reply) = self.state().refused.get(&address) {
            return reply.clone();
        }
        if mail.to.len() >= RECIPIENTS_MAX {
            return "452 4.5.3 too many recipients".into();
        }
        mail.to.push(address);
        "250 2.1.5 ok".into()
    }

    fn keep(&self, mail: Mail) -> String {
        let count = {
            let mut state = self.state();
            if let Some(reply) = &state.data_reply {
                return reply.clone();
            }
            state.mails.push_back(mail);
            if state.mails.len() > KEPT_MAX {
                state.mails.pop_front();
                state.dropped += 1;
            }
            state.mails.len() + state.dropped
        };
        self.0.count.send_replace(count);
        "250 2.0.0 kept".into()
    }
}

/// What stands between `<` and `>`.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

/// A line without its end; `None` when the other side has gone or sends no lines.
async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let length = stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if length == 0 || line.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

/// A message up to its final dot; `None` when it is too long.
async fn data(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut data = String::new();
    loop {
        let Some(line) = line(stream).await? else {
            return Err(std::io::Error::other("the message breaks off"));
        };
        if line == "." {
            return Ok(Some(data).filter(|data| data.len() <= MESSAGE_BYTES_MAX));
        }
        if data.len() <= MESSAGE_BYTES_MAX {
            data += line.strip_prefix('.').unwrap_or(&line);
            data += "\r\n";
        }
    }
}
