//! A mail server that does what it is told at one stage, friendly or not, and writes down what it heard in clear and what not.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Greeting,
    Hello,
    StartTls,
    Handshake,
    SecondHello,
    Login,
    Sender,
    Recipient,
    Data,
    Message,
}

pub(crate) const STAGES: &[Stage] = &[
    Stage::Greeting,
    Stage::Hello,
    Stage::StartTls,
    Stage::Handshake,
    Stage::SecondHello,
    Stage::Login,
    Stage::Sender,
    Stage::Recipient,
    Stage::Data,
    Stage::Message,
];

/// What it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Close,
    Hang,
    /// Says this in place of the right answer, and goes on listening.
    Say(&'static str),
    /// Says the right answer and this with it.
    Add(&'static str),
    /// Says what it was told, after this.
    Echo(&'static str),
    EndlessLines,
    /// Megabytes without an end of line.
    EndlessLine,
}

#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) clear: Vec<String>,
    pub(crate) secured: Vec<String>,
    /// Recipient and message, for each that was taken on.
    pub(crate) kept: Vec<(String, String)>,
    pub(crate) connections: usize,
}

#[derive(Debug, Default)]
struct State {
    heard: Heard,
    at: Option<(Stage, Does)>,
    /// `RCPT TO` this is answered so, or by nothing if that is empty.
    refused: Vec<(&'static str, &'static str)>,
    offers: Vec<&'static str>,
}

#[derive(Clone)]
pub(crate) struct MailServer {
    state: Arc<Mutex<State>>,
    hang_up: watch::Sender<u32>,
    pub(crate) port: u16,
    pub(crate) certificate: String,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl MailServer {
    /// Well-behaved, with STARTTLS.
    #[expect(clippy::disallowed_methods, reason = "a server of the story, not of the product")]
    pub(crate) async fn new() -> Self {
        jobwatch::http::use_ring();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let offers = vec!["8BITMIME", "AUTH PLAIN LOGIN XOAUTH2", "ENHANCEDSTATUSCODES", "SIZE 1000000"];
        let server = Self {
            state: Arc::new(Mutex::new(State { offers, ..State::default() })),
            hang_up: watch::Sender::new(0),
            port: listener.local_addr().unwrap().port(),
            certificate: made.cert.pem(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (talk, acceptor, mut hang_up) = (this.clone(), acceptor.clone(), this.hang_up.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        // Who misbehaves ends in an error, too.
                        ended = talk.talk(stream, acceptor) => drop(ended),
                        changed = hang_up.changed() => drop(changed),
                    }
                });
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn heard<T>(&self, ask: impl FnOnce(&Heard) -> T) -> T {
        ask(&self.state().heard)
    }

    /// Does this there from now on.
    pub(crate) fn does(&self, at: Stage, does: Does) {
        self.state().at = Some((at, does));
    }

    pub(crate) fn mends(&self) {
        self.state().at = None;
    }

    pub(crate) fn refuses(&self, address: &'static str, answer: &'static str) {
        self.state().refused.push((address, answer));
    }

    pub(crate) fn offers(&self, offers: &[&'static str]) {
        self.state().offers = offers.to_vec();
    }

    /// Ends all connections without a word.
    pub(crate) fn hangs_up(&self) {
        self.hang_up.send_modify(|times| *times += 1);
    }

    fn at(&self, stage: Stage) -> Option<Does> {
        self.state().at.filter(|(at, _)| *at == stage).map(|(_, does)| does)
    }

    /// Whether the right answer was given.
    async fn answer(
        &self,
        wire: &mut (impl Wire + ?Sized),
        at: Stage,
        asked: &str,
        right: &str,
    ) -> std::io::Result<bool> {
        let text = match self.at(at) {
            None => format!("{right}\r\n"),
            Some(Does::Say(text)) => format!("{text}\r\n"),
            Some(Does::Add(text)) => format!("{right}\r\n{text}\r\n"),
            Some(Does::Echo(text)) => format!("{text} {asked}\r\n"),
            Some(Does::Close) => return Err(std::io::Error::other("as told")),
            Some(Does::Hang) => std::future::pending().await,
            Some(Does::EndlessLines) => loop {
                wire.write_all("250-and\r\n".repeat(1000).as_bytes()).await?;
            },
            Some(Does::EndlessLine) => loop {
                wire.write_all(&[b'2'; 1 << 20]).await?;
            },
        };
        wire.write_all(text.as_bytes()).await?;
        wire.flush().await?;
        Ok(matches!(self.at(at), None | Some(Does::Add(_))))
    }

    async fn talk(&self, stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
        self.state().heard.connections += 1;
        let mut clear = BufReader::new(stream);
        self.answer(clear.get_mut(), Stage::Greeting, "", "220 localhost").await?;
        loop {
            let Some(line) = line(&mut clear).await? else { return Ok(()) };
            self.state().heard.clear.push(line.clone());
            if line == "STARTTLS" {
                if self.answer(clear.get_mut(), Stage::StartTls, &line, "220 2.0.0 go on").await? {
                    break;
                }
            } else if line.starts_with("EHLO") {
                self.answer(clear.get_mut(), Stage::Hello, &line, &self.hello("STARTTLS")).await?;
            } else {
                clear.get_mut().write_all(b"530 5.7.0 first STARTTLS\r\n").await?;
            }
        }
        let mut stream = clear.into_inner();
        if self.at(Stage::Handshake).is_some() {
            self.answer(&mut stream, Stage::Handshake, "", "").await?;
            return Ok(());
        }
        self.mail(BufReader::new(acceptor.accept(stream).await?)).await
    }

    fn hello(&self, more: &str) -> String {
        let offers = self.state().offers.iter().fold(String::new(), |all, offer| format!("{all}250-{offer}\r\n"));
        format!("250-localhost\r\n{offers}250 {more}")
    }

    async fn mail(&self, mut wire: BufReader<impl Wire>) -> std::io::Result<()> {
        let (mut to, mut begun) = (String::new(), false);
        loop {
            let Some(line) = self.secured(&mut wire).await? else { return Ok(()) };
            let verb = line.split([' ', ':']).next().unwrap().to_owned();
            match verb.as_str() {
                "EHLO" => drop(self.answer(wire.get_mut(), Stage::SecondHello, &line, &self.hello("HELP")).await?),
                "AUTH" => {
                    // LOGIN asks twice; XOAUTH2 with `bad` explains itself first.
                    let challenges: &[&str] = match line.as_str() {
                        "AUTH LOGIN" => &["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"],
                        _ => &[],
                    };
                    for challenge in challenges {
                        wire.get_mut().write_all(format!("{challenge}\r\n").as_bytes()).await?;
                        wire.get_mut().flush().await?;
                        self.secured(&mut wire).await?;
                    }
                    self.answer(wire.get_mut(), Stage::Login, &line, "235 2.7.0 welcome").await?;
                }
                "MAIL" if begun => {
                    wire.get_mut().write_all(b"503 5.5.1 nested MAIL\r\n").await?;
                    wire.get_mut().flush().await?;
                }
                "MAIL" => begun = self.answer(wire.get_mut(), Stage::Sender, &line, "250 2.1.0 ok").await?,
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let refused = self.state().refused.iter().find(|(address, _)| *address == to).map(|(_, no)| *no);
                    match refused {
                        Some("") => std::future::pending().await,
                        Some(no) => {
                            wire.get_mut().write_all(format!("{no}\r\n").as_bytes()).await?;
                            wire.get_mut().flush().await?;
                        }
                        None => drop(self.answer(wire.get_mut(), Stage::Recipient, &line, "250 2.1.5 ok").await?),
                    }
                }
                "DATA" => {
                    if !self.answer(wire.get_mut(), Stage::Data, &line, "354 go on").await? {
                        continue;
                    }
                    let mut message = String::new();
                    loop {
                        let Some(line) = self::line(&mut wire).await? else { return Ok(()) };
                        if line == "." {
                            break;
                        }
                        message += line.strip_prefix('.').unwrap_or(&line);
                        message += "\n";
                    }
                    begun = false;
                    if self.at(Stage::Message).is_none() {
                        self.state().heard.kept.push((to.clone(), message));
                    }
                    self.answer(wire.get_mut(), Stage::Message, "", "250 2.0.0 kept").await?;
                }
                _ => {
                    begun &= verb != "RSET";
                    let answer: &[u8] = if verb == "RSET" { b"250 2.0.0 ok\r\n" } else { b"500 5.5.1 what?\r\n" };
                    wire.get_mut().write_all(answer).await?;
                    wire.get_mut().flush().await?;
                }
            }
        }
    }

    async fn secured(&self, wire: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
        let line = line(wire).await?;
        self.state().heard.secured.extend(line.clone());
        Ok(line)
    }
}

async fn line(wire: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    wire.read_until(b'\n', &mut line).await?;
    let line = String::from_utf8_lossy(&line).into_owned();
    Ok((!line.is_empty()).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}
