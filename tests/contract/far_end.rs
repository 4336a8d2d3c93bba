//! The far end of a receiver: says what it is told to, and keeps what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the far end says to every request.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// An answer.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// Nothing, and keeps the connection.
    Nothing,
    /// What it was asked, the first line and the end, under this status.
    Echo(u16),
    /// A head with this status, and a body that never ends.
    Endless(u16),
}

impl Says {
    pub(crate) fn answer(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.to_owned() }
    }

    pub(crate) fn with_header(status: u16, name: &str, value: &str) -> Self {
        Self::Answer { status, headers: vec![(name.to_owned(), value.to_owned())], body: String::new() }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The first line and the headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct FarEnd {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FarEnd {
    #[expect(clippy::disallowed_methods, reason = "a server of the story, not of the product")]
    pub(crate) async fn new(says: Says) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, says.clone(), Arc::clone(&kept)));
            }
        });
        Self { port, requests }
    }

    /// With a path that is a secret.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/canary-path", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, says: Says, kept: Arc<Mutex<Vec<Request>>>) {
    let mut bytes = Vec::new();
    let (mut buffer, mut whole) = ([0; 16 << 10], None);
    while whole.is_none() {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return,
        }
        whole = request(&bytes);
    }
    kept.lock().unwrap().extend(whole.clone());
    match says {
        Says::Echo(status) => {
            let Request { head, body } = whole.unwrap();
            // Little of an answer is shown: the end of the body is where what is added stands.
            let end = body.chars().count().saturating_sub(120);
            let line = head.lines().next().unwrap_or_default();
            let said: String = line.chars().chain(body.chars().skip(end)).collect();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", said.len());
            drop(stream.write_all((head + &said).as_bytes()).await);
        }
        Says::Answer { status, headers, body } => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
            drop(stream.write_all((head + &body).as_bytes()).await);
        }
        Says::Nothing => drop(stream.read(&mut buffer).await),
        Says::Endless(status) => {
            let head = format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n");
            drop(stream.write_all(head.as_bytes()).await);
            while stream.write_all(b"400\r\n").await.is_ok() {
                if stream.write_all(&[b'x'; 0x400]).await.is_err() || stream.write_all(b"\r\n").await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The request, when it is whole.
fn request(bytes: &[u8]) -> Option<Request> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    (body.len() >= length.unwrap_or(0)).then(|| Request { head: head.to_owned(), body: body.to_owned() })
}
