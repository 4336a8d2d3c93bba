//! Receivers: they keep what they are sent, when, and whether they took it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use fastrand::Rng;
use jobwatch::clock::Stopwatch;
use jobwatch::simulator::serve;
use serde_json::Value;

use super::oracle::{Heard, Step};
use super::{beside, bind};

/// A receiver as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) name: &'static str,
    /// It takes at most so long to answer.
    pub(crate) slowness_ms: u64,
    /// In a hundred requests so many are answered with an error, and so many with a wish to be left alone for a second.
    pub(crate) errors: u8,
    pub(crate) throttled: u8,
    /// In a hundred requests that it takes, so many are not answered.
    pub(crate) mute: u8,
}

/// A receiver. Clones share it.
#[derive(Clone)]
pub(crate) struct Ear {
    pub(crate) manner: Manner,
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    watch: Stopwatch,
    rng: Mutex<Rng>,
    heard: Mutex<Vec<Heard>>,
}

impl Ear {
    pub(crate) async fn open(manner: Manner, seed: u64, watch: Stopwatch) -> Self {
        let (listener, address) = bind().await;
        let rng = Mutex::new(Rng::with_seed(seed));
        let ear = Self { manner, address, shared: Arc::new(Shared { watch, rng, heard: Mutex::default() }) };
        let router = Router::new()
            .fallback(axum::routing::post(hear))
            .layer(DefaultBodyLimit::max(4 << 20))
            .with_state(ear.clone());
        beside(serve(listener, router, std::future::pending()));
        ear
    }

    /// What came so far, in order.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// When something came last.
    pub(crate) fn last(&self) -> Duration {
        self.shared.heard.lock().unwrap().last().map_or(Duration::ZERO, |heard| heard.at)
    }
}

async fn hear(State(ear): State<Ear>, headers: HeaderMap, body: Bytes) -> Response {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let Manner { slowness_ms, errors, throttled, mute, .. } = ear.manner;
    let Shared { watch, rng, heard } = &*ear.shared;
    let place = {
        let mut heard = heard.lock().unwrap();
        heard.push(read(id, &body, watch.elapsed()));
        heard.len() - 1
    };
    let (wait, fate, silent) = {
        let mut rng = rng.lock().unwrap();
        (rng.u64(0..=slowness_ms), rng.u8(0..100), rng.u8(0..100) < mute)
    };
    tokio::time::sleep(Duration::from_millis(wait)).await;
    if fate < errors {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if fate < errors + throttled {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
    }
    heard.lock().unwrap()[place].taken = Some(watch.elapsed());
    if silent {
        // Taken, and nobody learns of it: it comes again.
        std::future::pending::<()>().await;
    }
    StatusCode::NO_CONTENT.into_response()
}

fn read(id: &str, body: &[u8], at: Duration) -> Heard {
    let event: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(event["id"], id, "the id in the header is the one in the body");
    let one = |data: &Value| {
        let text = |path: &str| data.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
        let key = (text("/source/name")?, text("/job/id")?);
        Some(Step { key, from: text("/transition/from")?, to: text("/transition/to")? })
    };
    let data = &event["data"];
    let steps = match data["jobs"].as_array() {
        Some(jobs) => jobs.iter().filter_map(one).collect(),
        None => one(data).into_iter().collect(),
    };
    Heard { id: id.to_owned(), body: body.to_vec(), at, taken: None, steps }
}
