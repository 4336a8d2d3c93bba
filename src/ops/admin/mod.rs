//! The admin interface: the status page, whether the agent lives and sees, its metrics, what is known (`api`), and
//! `POST /-/reload`.
//!
//! It trusts nobody who merely reaches it. A web page that somebody on this machine looks at can send requests to
//! loopback too: so the `Host` must be ours (a foreign name that was made to point here is not), and what changes
//! something must not come from another site. Everybody else needs the token. A `GET` changes nothing.

mod api;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::metrics::Metrics;
use super::page::{self, Page};
use crate::agent::{Agent, Shutdown, Tasks};
use crate::store::Store;

/// Connections that are open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// The head of a request is here within this time, or the connection is closed; an idle one too.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// The head of a request is no longer than this.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Nothing that is asked for here needs a longer body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A request is answered within this time.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// When the agent stops, an answer that is under way may take so long.
const FINISH_MAX: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Sources that are not seen are named up to this many.
const UNSEEN_MAX: usize = 100;
/// How the token can be presented.
const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"jobwatch\", charset=\"UTF-8\""];

/// What every answer says to browsers: show nothing of this elsewhere, run nothing in it, keep nothing of it.
const SHIELD: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Who reads the rules anew.
#[async_trait]
pub trait Rules: Send + Sync {
    /// What came of it, for programs; `Err` when they were refused.
    ///
    /// # Errors
    /// The rules on disk cannot be used.
    async fn reload(&self) -> Result<Value, Value>;
}

/// What the interface looks into.
pub struct Inside {
    /// Who watches.
    pub agent: Arc<Agent>,
    /// What is known.
    pub store: Arc<dyn Store>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who reads the rules anew.
    pub rules: Arc<dyn Rules>,
    /// The status page.
    pub page: Arc<Page>,
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

/// The interface: bound, and answering once it serves.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    door: Door,
}

/// Who may come in.
#[derive(Clone, Debug)]
struct Door {
    listen: SocketAddr,
    /// What the token must hash to. Digests are compared, so that the time that takes tells nothing.
    token: Option<[u8; 32]>,
}

/// The address under which a connection reached us.
#[derive(Clone, Copy, Debug)]
struct Reached(IpAddr);

impl Admin {
    /// Binds the address.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn bind(listen: SocketAddr, token: Option<SecretString>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let token = token.map(|token| digest(token.expose_secret()));
        Ok(Self { listener, door: Door { listen, token } })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the agent stops.
    pub async fn serve(self, inside: Inside, tasks: Tasks, shutdown: Shutdown) {
        let router = router(self.door, Arc::new(inside));
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let next = async || {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, self.listener.accept().await)
        };
        loop {
            let (permit, accepted) = tokio::select! {
                next = next() => next,
                () = shutdown.requested() => return,
            };
            match accepted {
                Ok((stream, _)) => tasks.spawn(connection(stream, router.clone(), shutdown.clone(), permit)),
                Err(error) => {
                    warn!("the admin interface cannot accept a connection: {error}");
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        () = shutdown.requested() => return,
                    }
                }
            }
        }
    }
}

/// Serves one connection; what goes wrong with it is the other end's affair.
async fn connection(stream: TcpStream, router: Router, shutdown: Shutdown, permit: OwnedSemaphorePermit) {
    let Ok(reached) = stream.local_addr() else { return };
    let service = TowerToHyperService::new(router.layer(Extension(Reached(reached.ip().to_canonical()))));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.requested() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(FINISH_MAX, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!("a connection to the admin interface ended: {error}");
    }
    drop(permit);
}

fn router(door: Door, inside: Arc<Inside>) -> Router {
    Router::new()
        .merge(page::routes(Arc::clone(&inside.page)))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(measured))
        .route("/-/reload", post(reload))
        .merge(api::routes())
        .fallback(|| async { say(StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(door, guard))
        .with_state(inside)
}

async fn livez(State(inside): State<Arc<Inside>>) -> Response {
    match inside.agent.pulse().is_steady() {
        true => say(StatusCode::OK, "every loop turns"),
        false => say(StatusCode::SERVICE_UNAVAILABLE, "a loop stands still"),
    }
}

/// Whether every source is seen; else which are not, since when and why, a line each.
async fn readyz(State(inside): State<Arc<Inside>>) -> Response {
    let unseen = inside.agent.unseen();
    if unseen.is_empty() {
        return say(StatusCode::OK, "every source is seen");
    }
    let lines: Vec<String> = unseen.iter().take(UNSEEN_MAX).map(ToString::to_string).collect();
    let rest = unseen.len().saturating_sub(UNSEEN_MAX);
    let more = if rest > 0 { format!("\nand {rest} more") } else { String::new() };
    say(StatusCode::SERVICE_UNAVAILABLE, &(lines.join("\n") + &more))
}

async fn measured(State(inside): State<Arc<Inside>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let scrape = inside.metrics.scrape(accept).await;
    ([(header::CONTENT_TYPE, scrape.content_type)], scrape.text).into_response()
}

/// The body is read, so that its limit holds, and means nothing.
async fn reload(State(inside): State<Arc<Inside>>, _: Bytes) -> Response {
    match inside.rules.reload().await {
        Ok(done) => Json(done).into_response(),
        Err(refused) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refused)).into_response(),
    }
}

/// Lets in who may come in, for a bounded time; every answer has the shield.
async fn guard(
    State(door): State<Door>,
    Extension(reached): Extension<Reached>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match door.refuses(&request, reached) {
        Some(refusal) => {
            debug!(path = request.uri().path(), status = refusal.status().as_u16(), "a request was not let in");
            refusal
        }
        None => tokio::time::timeout(REQUEST_MAX, next.run(request))
            .await
            .unwrap_or_else(|_| say(StatusCode::SERVICE_UNAVAILABLE, "this was not done in time, and nothing changed")),
    };
    for (name, value) in SHIELD {
        // The page has a policy of its own.
        response.headers_mut().entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Door {
    /// The answer to a request that may not come in.
    fn refuses(&self, request: &Request, reached: Reached) -> Option<Response> {
        let headers = request.headers();
        let Some(host) = host(request).filter(|host| self.is_ours(host, reached)) else {
            return Some(say(
                StatusCode::FORBIDDEN,
                "the Host of this request is not this machine's: use a loopback name or address, or the one in [admin] listen",
            ));
        };
        // Who asks whether the agent lives learns nothing else: an orchestrator needs no secret for it.
        if let Some(token) = self.token
            && request.uri().path() != "/livez"
            && presented(headers).map(|presented| digest(&presented)) != Some(token)
        {
            let text = "this needs the token of [admin]: as `Authorization: Bearer`, or in a browser as the password, with any name";
            let mut refusal = say(StatusCode::UNAUTHORIZED, text);
            for challenge in CHALLENGES {
                refusal.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            return Some(refusal);
        }
        // One that does not say how long its body is finds out while it is read.
        if length(headers).is_some_and(|length| length > BODY_BYTES_MAX) {
            return Some(say(StatusCode::PAYLOAD_TOO_LARGE, "the body of this request is too long"));
        }
        let harmless = matches!(*request.method(), Method::GET | Method::HEAD);
        (!harmless && is_cross_site(headers, &host))
            .then(|| say(StatusCode::FORBIDDEN, "this request comes from another site"))
    }

    /// Names other than `localhost` can be made to point here by anybody; addresses can't.
    fn is_ours(&self, host: &Authority, reached: Reached) -> bool {
        let name = host.host();
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| address.to_canonical());
        match address {
            Ok(address) => address.is_loopback() || address == self.listen.ip().to_canonical() || address == reached.0,
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// The one name the request was sent to.
fn host(request: &Request) -> Option<Authority> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let (first, more) = (named.next()?, named.next());
    let host = first.to_str().ok()?.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'))?;
    let aimed = request.uri().authority().is_none_or(|target| *target == host);
    (more.is_none() && aimed).then_some(host)
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The token as programs send it, or as browsers do: they can be asked for a password and for nothing else, and keep it
/// until they are closed. What they then send by themselves does no more from another site than without it.
fn presented(headers: &HeaderMap) -> Option<String> {
    let (scheme, said) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(said.trim().to_owned());
    }
    let decoded = BASE64_STANDARD.decode(said.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

/// Browsers say where a request comes from; programs say nothing.
fn is_cross_site(headers: &HeaderMap, host: &Authority) -> bool {
    let fetched = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    let foreign = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        named.and_then(|named| named.parse::<Authority>().ok()).as_ref() != Some(host)
    });
    fetched || foreign
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn say(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}
