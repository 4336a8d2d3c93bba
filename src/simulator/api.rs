//! The SWR API as its specification describes it: `GET /v2/{project_id}/jobs`, one job, deleting one, and what can be
//! done to instances.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use serde::Serialize;
use serde_json::json;

use super::fault::Fault;
use super::identity::{Accounts, Identity};
use super::scenario::Scenario;
use crate::model::job::{Job, Status};
use crate::model::time::Timestamp;

/// The API's largest page.
const LIMIT_MAX: usize = 100;

/// The API. Clones share it.
#[derive(Clone)]
pub struct Swr(Arc<Shared>);

struct Shared {
    scenario: Scenario,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    start: Timestamp,
    requests: AtomicU64,
    hand: Mutex<Hand>,
    identity: Identity,
}

/// What is set by hand, over the scenario.
#[derive(Default)]
struct Hand {
    jobs: Option<Arc<Vec<Job>>>,
    fault: Option<Fault>,
    deleted: BTreeSet<String>,
    /// How instances are that are not as their jobs say; those that are gone are none.
    instances: HashMap<String, Option<String>>,
    /// What was done, in order: the operation, what it was done to, and the body.
    done: Vec<(&'static str, String, String)>,
}

impl fmt::Debug for Swr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swr").field("requests", &self.requests()).finish_non_exhaustive()
    }
}

impl Swr {
    /// The story begins now.
    pub fn new(scenario: Scenario, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let start = now();
        let (requests, hand, identity) = (AtomicU64::new(0), Mutex::default(), Identity::new(scenario.token()));
        Self(Arc::new(Shared { scenario, now: Box::new(now), start, requests, hand, identity }))
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v2/{project}/jobs", get(list))
            .route("/v2/{project}/jobs/{id}", get(show).delete(delete))
            .route("/v2/{project}/instances", post(create_instance))
            .route("/v2/{project}/instances/{id}", get(show_instance).delete(delete_instance))
            .route("/v3/auth/tokens", post(login))
            .route("/meta-data/latest/api/token", put(session))
            .route("/openstack/latest/securitykey", get(machine_key))
            .route("/pod-identity", post(pod_key))
            .route("/v5/decode-authorization-message", post(decode))
            .fallback(|| async { error(StatusCode::NOT_FOUND, "APIGW.0101", "The API does not exist") })
            .layer(middleware::map_response_with_state(self.clone(), dated))
            .with_state(self.clone())
    }

    /// The accounts, to be looked at and set by hand.
    pub fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.identity.accounts()
    }

    /// Exactly these jobs exist from now on, in this order.
    pub fn set_jobs(&self, jobs: Vec<Job>) {
        self.hand().jobs = Some(Arc::new(jobs));
    }

    /// Every answer goes wrong like this from now on; `None` ends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.hand().fault = fault;
    }

    /// An instance is like this from now on; `None`: it is not there.
    pub fn set_instance(&self, id: &str, status: Option<&str>) {
        self.hand().instances.insert(id.to_owned(), status.map(ToOwned::to_owned));
    }

    /// What was done to jobs and instances, in order: the operation, what it was done to, and the body.
    pub fn done(&self) -> Vec<(&'static str, String, String)> {
        self.hand().done.clone()
    }

    /// How an instance is: as it was set by hand, else there if a job is about it.
    fn instance(&self, id: &str) -> Option<String> {
        if let Some(status) = self.hand().instances.get(id) {
            return status.clone();
        }
        let about = |job: &&Job| job.instance_id.as_deref() == Some(id);
        let job = self.jobs().iter().rfind(about).cloned()?;
        Some(if job.status == Status::Success { "Running" } else { "Unavailable" }.to_owned())
    }

    /// How many requests were answered.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.0.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self) -> Duration {
        (self.0.now)().since(self.0.start)
    }

    fn jobs(&self) -> Arc<Vec<Job>> {
        let hand = self.hand();
        let told = || Arc::new(self.0.scenario.jobs_at(self.elapsed(), self.0.start));
        let mut jobs = hand.jobs.clone().unwrap_or_else(told);
        if !hand.deleted.is_empty() {
            Arc::make_mut(&mut jobs).retain(|job| !hand.deleted.contains(job.id.as_str()));
        }
        jobs
    }

    /// Authorisation, and what goes wrong today. `Err` is the answer.
    async fn admit(&self, project: &str, asked: &Asked) -> Result<Option<Fault>, Response> {
        self.admit_with(project, asked, &[]).await
    }

    async fn admit_with(&self, project: &str, asked: &Asked, body: &[u8]) -> Result<Option<Fault>, Response> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let fault = self.hand().fault.or_else(|| self.0.scenario.fault_at(self.elapsed()));
        if fault == Some(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        let refused = self.0.identity.refuse(&asked.method, &asked.uri, &asked.headers, body, (self.0.now)());
        refused.map_or(Ok(()), Err)?;
        if fault == Some(Fault::Unauthorized) {
            let text = "Incorrect IAM authentication information: decrypt token fail";
            return Err(gateway(StatusCode::UNAUTHORIZED, "APIGW.0301", text));
        }
        if !self.0.scenario.has_project(project) || fault == Some(Fault::Forbidden) {
            return Err(forbidden());
        }
        fault.and_then(wrong).map_or(Ok(fault), Err)
    }
}

async fn list(
    State(swr): State<Swr>,
    Path(project): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    asked: Asked,
) -> Response {
    let fault = match swr.admit(&project, &asked).await {
        Ok(fault) => fault,
        Err(answer) => return answer,
    };
    let (offset, limit) = match (number(&query, "offset"), number(&query, "limit")) {
        (Ok(None), Ok(None)) => (0, LIMIT_MAX),
        (Ok(Some(offset)), Ok(Some(limit))) if (1..=LIMIT_MAX).contains(&limit) => (offset, limit),
        _ => {
            return error(
                StatusCode::BAD_REQUEST,
                "SVCSTG.SWR.4000013",
                "Invalid offset or limit: they must be used together, limit from 1 to 100",
            );
        }
    };
    let mut jobs = swr.jobs();
    if let Some(word) = query.get("status") {
        if !Status::KNOWN.iter().any(|status| status.as_str() == word) {
            return error(StatusCode::BAD_REQUEST, "SVCSTG.SWR.4000014", "Invalid status");
        }
        jobs = Arc::new(jobs.iter().filter(|job| job.status.as_str() == word).cloned().collect());
    }
    if fault == Some(Fault::Disagreeing) {
        return answer(StatusCode::OK, &json!({ "total": jobs.len() + 7, "jobs": [] }));
    }
    if fault == Some(Fault::Shifting) {
        let serial = swr.requests();
        let jobs = Arc::make_mut(&mut jobs);
        jobs.insert(0, Job::bare(format!("shift-{serial}"), Status::Creating));
        jobs.extend((0..serial % 3).map(|n| Job::bare(format!("tail-{n}"), Status::Creating)));
    }
    let (total, limit) = (jobs.len(), limit.min(swr.0.scenario.page_max()));
    let page = jobs.get(offset.min(total)..(offset + limit).min(total)).unwrap_or_default();
    answer(StatusCode::OK, &Page { total, jobs: page })
}

async fn show(State(swr): State<Swr>, Path((project, id)): Path<(String, String)>, asked: Asked) -> Response {
    if let Err(answer) = swr.admit(&project, &asked).await {
        return answer;
    }
    match swr.jobs().iter().find(|job| job.id.as_str() == id) {
        Some(job) => answer(StatusCode::OK, job),
        None => not_found(),
    }
}

async fn delete(State(swr): State<Swr>, Path((project, id)): Path<(String, String)>, asked: Asked) -> Response {
    if let Err(answer) = swr.admit(&project, &asked).await {
        return answer;
    }
    if !swr.jobs().iter().any(|job| job.id.as_str() == id) {
        return not_found();
    }
    let mut hand = swr.hand();
    hand.done.push(("DeleteInstanceJob", id.clone(), String::new()));
    hand.deleted.insert(id);
    StatusCode::NO_CONTENT.into_response()
}

async fn show_instance(State(swr): State<Swr>, Path((project, id)): Path<(String, String)>, asked: Asked) -> Response {
    if let Err(answer) = swr.admit(&project, &asked).await {
        return answer;
    }
    match swr.instance(&id) {
        Some(status) => answer(StatusCode::OK, &json!({ "id": id, "status": status })),
        None => not_found(),
    }
}

async fn delete_instance(
    State(swr): State<Swr>,
    Path((project, id)): Path<(String, String)>,
    asked: Asked,
    body: Bytes,
) -> Response {
    if let Err(answer) = swr.admit_with(&project, &asked, &body).await {
        return answer;
    }
    let wish: Option<HashMap<String, bool>> = serde_json::from_slice(&body).ok();
    if !wish.is_some_and(|wish| wish.contains_key("delete_obs") && wish.contains_key("delete_dns")) {
        return error(StatusCode::BAD_REQUEST, "SVCSTG.SWR.4000016", "Request error");
    }
    if swr.instance(&id).is_none() {
        return not_found();
    }
    let mut hand = swr.hand();
    hand.done.push(("DeleteInstance", id.clone(), String::from_utf8_lossy(&body).into_owned()));
    hand.instances.insert(id, None);
    StatusCode::ACCEPTED.into_response()
}

async fn create_instance(State(swr): State<Swr>, Path(project): Path<String>, asked: Asked, body: Bytes) -> Response {
    if let Err(answer) = swr.admit_with(&project, &asked, &body).await {
        return answer;
    }
    let wish: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(name) = wish.get("name").and_then(serde_json::Value::as_str) else {
        return error(StatusCode::BAD_REQUEST, "SVCSTG.SWR.4000016", "Request error");
    };
    let mut hand = swr.hand();
    hand.done.push(("CreateInstance", name.to_owned(), String::from_utf8_lossy(&body).into_owned()));
    let n = hand.done.len();
    answer(StatusCode::ACCEPTED, &json!({ "job_id": format!("job-{n}"), "instance_id": format!("instance-{n}") }))
}

/// A page of the listing.
#[derive(Serialize)]
struct Page<'a> {
    total: usize,
    jobs: &'a [Job],
}

/// What of a request its authorisation covers.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let Parts { method, uri, headers, .. } = parts;
        Ok(Self { method: method.clone(), uri: uri.clone(), headers: headers.clone() })
    }
}

async fn login(State(swr): State<Swr>, body: Bytes) -> Response {
    swr.0.identity.login(&body, (swr.0.now)())
}

async fn session(State(swr): State<Swr>) -> Response {
    swr.0.identity.session()
}

async fn machine_key(State(swr): State<Swr>, headers: HeaderMap) -> Response {
    let allowed =
        !swr.accounts().sessions || headers.get("x-metadata-token").is_some_and(|token| token == "session-token");
    swr.0.identity.temporary_key(allowed, (swr.0.now)())
}

async fn pod_key(State(swr): State<Swr>, headers: HeaderMap) -> Response {
    let allowed = headers.get("authorization").is_some_and(|token| token == "pod-token");
    swr.0.identity.temporary_key(allowed, (swr.0.now)())
}

async fn decode(State(swr): State<Swr>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let refused = swr.0.identity.refuse(&method, &uri, &headers, &body, (swr.0.now)());
    refused.unwrap_or_else(|| swr.0.identity.decode(&body))
}

/// Every answer says what time it is in the cloud.
async fn dated(State(swr): State<Swr>, mut answer: Response) -> Response {
    let time = jiff::Timestamp::from_microsecond(swr.0.identity.time((swr.0.now)()).micros()).unwrap_or_default();
    let text = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    answer.headers_mut().insert(header::DATE, header::HeaderValue::from_str(&text).expect("a date is ASCII"));
    answer
}

/// A number in the query: absent, or present and whole.
fn number(query: &HashMap<String, String>, name: &str) -> Result<Option<usize>, ()> {
    query.get(name).map(|text| text.parse().map_err(|_| ())).transpose()
}

/// The answer for a fault that leaves nothing of the request.
fn wrong(fault: Fault) -> Option<Response> {
    let html = |status: StatusCode, text: &'static str| {
        Some((status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response())
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    match fault {
        Fault::ServerError => Some(error(StatusCode::INTERNAL_SERVER_ERROR, "SVCSTG.SWR.5000001", "Internal error")),
        Fault::BadRequest => Some(error(StatusCode::BAD_REQUEST, "SVCSTG.SWR.4000016", "Request error")),
        Fault::Throttled => {
            let text = "The throttling threshold has been reached: policy user over ratelimit,limit:200,time:5 minute";
            let mut answer = gateway(StatusCode::TOO_MANY_REQUESTS, "APIGW.0308", text);
            answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
            Some(answer)
        }
        Fault::Html => html(StatusCode::OK, "<!doctype html><title>Sign in</title><form>password</form>"),
        Fault::BadGateway => html(StatusCode::BAD_GATEWAY, "<html><h1>502 Bad Gateway</h1></html>"),
        Fault::Truncated => {
            // Half a body goes out, and then the connection breaks.
            let half = Bytes::from_static(b"{\"total\": 1, \"jobs\": [ {\"id\": \"a\", ");
            Some((json, Body::from_stream(Broken { half: Some(half), flushed: false })).into_response())
        }
        Fault::Empty => Some((json, Body::empty()).into_response()),
        Fault::NotJson => Some((json, "{\"total\": 1, \"jobs\": [{\"id\": \"a\"").into_response()),
        Fault::Redirect => Some((StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response()),
        Fault::Unauthorized | Fault::Forbidden | Fault::Shifting | Fault::Disagreeing | Fault::Hang => None,
    }
}

/// A body that breaks off.
struct Broken {
    half: Option<Bytes>,
    flushed: bool,
}

impl futures_core::Stream for Broken {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(half)));
        }
        if !std::mem::replace(&mut self.flushed, true) {
            // A body that has nothing for the moment makes the server send what it has.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(std::io::Error::other("cut off"))))
    }
}

pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (REQUEST_ID, "8f3c1d5e7a9b4c6d")];
    let body = serde_json::to_string(body).expect("answers are always JSON");
    (status, headers, body).into_response()
}

const REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");

/// An error as SWR documents it.
fn error(status: StatusCode, code: &str, text: &str) -> Response {
    answer(status, &json!({ "error_code": code, "error_msg": text }))
}

/// An error as the API gateway in front of it sends them.
pub(super) fn gateway(status: StatusCode, code: &str, text: &str) -> Response {
    answer(status, &json!({ "error_code": code, "error_msg": text, "request_id": "8f3c1d5e7a9b4c6d" }))
}

fn forbidden() -> Response {
    let body = json!({
        "error_code": "SVCSTG.SWR.4030170", "error_msg": "Insufficient permissions",
        "encoded_authorization_message": "YXAtc291dGhlYXN0LTM6ZW5jb2RlZA",
    });
    answer(StatusCode::FORBIDDEN, &body)
}

fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "SVCSTG.SWR.4040004", "Resource not found")
}
