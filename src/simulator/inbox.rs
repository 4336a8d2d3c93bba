//! A webhook receiver that keeps what it is sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

/// The newest requests that are kept.
const KEPT_MAX: usize = 20_000;
/// A request's body may be no longer.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A webhook receiver. Clones share it.
#[derive(Clone, Debug)]
pub struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Contents>,
    count: watch::Sender<usize>,
}

#[derive(Debug)]
struct Contents {
    received: VecDeque<Received>,
    dropped: usize,
    status: u16,
    headers: Vec<(String, String)>,
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The path.
    pub path: String,
    /// The headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What it was answered.
    pub status: u16,
}

impl Received {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// An empty one that answers 204.
    pub fn new() -> Self {
        let state = Contents { received: VecDeque::new(), dropped: 0, status: 204, headers: Vec::new() };
        Self(Arc::new(Shared { state: Mutex::new(state), count: watch::Sender::new(0) }))
    }

    /// The routes: a POST to any path is taken.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(axum::routing::post(take))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self.clone())
    }

    /// Answers with this status and these headers from now on.
    pub fn answer_with(&self, status: u16, headers: &[(&str, &str)]) {
        let mut state = self.state();
        state.status = status;
        state.headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    }

    /// What was received so far, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.state().received.iter().cloned().collect()
    }

    /// Waits until so many requests came in all, also those that were taken away since.
    pub async fn reached(&self, count: usize) {
        let mut seen = self.0.count.subscribe();
        // The sender lives as long as this inbox.
        drop(seen.wait_for(|seen| *seen >= count).await);
    }

    /// How many requests came in all.
    pub fn count(&self) -> usize {
        *self.0.count.borrow()
    }

    /// Takes away what was received so far, oldest first.
    pub fn take(&self) -> Vec<Received> {
        let mut state = self.state();
        state.dropped += state.received.len();
        state.received.drain(..).collect()
    }

    /// Waits for the n-th request, counted from 0.
    pub async fn next(&self, n: usize) -> Received {
        self.reached(n + 1).await;
        let state = self.state();
        state.received[n.saturating_sub(state.dropped)].clone()
    }

    fn state(&self) -> MutexGuard<'_, Contents> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(State(inbox): State<Inbox>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let (answer, count) = {
        let mut state = inbox.state();
        let status = state.status;
        state.received.push_back(Received { path: uri.path().to_owned(), headers, body: body.to_vec(), status });
        if state.received.len() > KEPT_MAX {
            state.received.pop_front();
            state.dropped += 1;
        }
        let mut answer = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        for (name, value) in &state.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                answer.headers_mut().insert(name, value);
            }
        }
        (answer, state.received.len() + state.dropped)
    };
    inbox.0.count.send_replace(count);
    answer
}
