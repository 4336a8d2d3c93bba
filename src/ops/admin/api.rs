//! What is known, as JSON in pages: `GET /api/v1/…`. And the one thing that can be done to it: a delivery is sent again.
//!
//! Every list answers `{ "items": […], "next": "cursor" or null }`, with the items that the command of the same name prints.
//! What is not understood is refused with the reason: a filter that is misspelt must not look like a filter that finds everything.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tracing::warn;

use super::Inside;
use crate::agent::Retried;
use crate::model::alert::Severity;
use crate::model::delivery::DeliveryState;
use crate::model::name::{DeliveryId, ReceiverName, RuleId, SourceName};
use crate::model::text::line;
use crate::model::time::Timestamp;
use crate::model::transition;
use crate::store::view::{AlertFilter, Cursor, JobFilter, Key, SourceFilter, TransitionFilter};
use crate::store::{self, Filter};

/// Rows in an answer, unless it is said how many.
const LIMIT: usize = 100;
/// And never more than this.
const LIMIT_MAX: usize = 500;
/// As much of what was not understood is repeated, in characters.
const ECHO_MAX: usize = 60;

pub(super) fn routes() -> Router<Arc<Inside>> {
    Router::new()
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/transitions", get(transitions))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/deliveries", get(deliveries))
        .route("/api/v1/deliveries/{id}", get(delivery))
        .route("/api/v1/deliveries/{id}/retry", post(retry))
}

/// Why a request is not answered.
enum Problem {
    /// It cannot be understood.
    Wrong(String),
    /// There is no such thing.
    Unknown(String),
    /// It is not done.
    Refused(&'static str),
    /// The store does not answer.
    Store(store::Error),
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Wrong(text) => (StatusCode::BAD_REQUEST, text),
            Self::Unknown(text) => (StatusCode::NOT_FOUND, text),
            Self::Refused(text) => (StatusCode::CONFLICT, text.to_owned()),
            Self::Store(error) => {
                warn!("a request to the admin interface was not answered: {error}");
                (StatusCode::SERVICE_UNAVAILABLE, "the state does not answer: the log has more".to_owned())
            }
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

type Answer = Result<Response, Problem>;
type Asked = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The parameters of a request. Each is asked for once, by name; what nobody asked for is refused.
struct Parameters {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Parameters {
    fn new(asked: Asked) -> Result<Self, Problem> {
        let Query(given) = asked.map_err(|_| Problem::Wrong("the query cannot be read".into()))?;
        Ok(Self { given, known: Vec::new() })
    }

    /// All values of one.
    fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (mine, rest) = std::mem::take(&mut self.given).into_iter().partition(|(given, _)| given == name);
        self.given = rest;
        let mine: Vec<(String, String)> = mine;
        mine.into_iter().map(|(_, value)| value).collect()
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.texts(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Problem::Wrong(format!("`{name}` is given more than once"))),
        }
    }

    fn name<T: From<String>>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        Ok(self.text(name)?.map(T::from))
    }

    /// One that is read by `read`, which says what it may be.
    fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
        may_be: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || Problem::Wrong(format!("`{name}` cannot be `{}`: it is {may_be}", line(&text, ECHO_MAX)));
        read(&text).map(Some).ok_or_else(wrong)
    }

    fn since(&mut self) -> Result<Option<Timestamp>, Problem> {
        self.read("since", Timestamp::parse, "an instant such as 2026-11-24T08:00:00Z")
    }

    fn before<K: Key>(&mut self) -> Result<Option<Cursor<K>>, Problem> {
        self.read("cursor", |text| text.parse().ok(), "`next` of an earlier answer to the same request")
    }

    fn limit(&mut self) -> Result<usize, Problem> {
        let within = |text: &str| text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        Ok(self.read("limit", within, "a number from 1 to 500")?.unwrap_or(LIMIT))
    }

    fn finish(self) -> Result<(), Problem> {
        match self.given.first() {
            None => Ok(()),
            Some((name, _)) => {
                let known = match self.known.as_slice() {
                    [] => String::new(),
                    known => format!(": there are `{}`", known.join("`, `")),
                };
                Err(Problem::Wrong(format!("there is no parameter `{}` here{}", line(name, ECHO_MAX), known)))
            }
        }
    }
}

/// A state as people write it.
fn state(text: &str) -> Option<transition::State> {
    Some(transition::State::typed(text)).filter(|_| !text.trim().is_empty())
}

const STATE: &str = "a status such as Failed, or unseen, or gone";

fn answer(page: impl Serialize) -> Answer {
    Ok(Json(page).into_response())
}

async fn sources(State(inside): State<Arc<Inside>>, asked: Asked) -> Answer {
    let mut given = Parameters::new(asked)?;
    let filter = SourceFilter { source: given.name("source")?, before: given.before()?, limit: given.limit()? };
    given.finish()?;
    answer(inside.store.sources(filter).await?)
}

async fn jobs(State(inside): State<Arc<Inside>>, asked: Asked) -> Answer {
    let mut given = Parameters::new(asked)?;
    let states = given.texts("status");
    let states: Option<Vec<_>> = states.iter().flat_map(|texts| texts.split(',')).map(state).collect();
    let filter = JobFilter {
        source: given.name::<SourceName>("source")?,
        states: states.ok_or_else(|| Problem::Wrong(format!("`status` cannot be empty: it is {STATE}")))?,
        job: given.text("job")?,
        since: given.since()?,
        before: given.before()?,
        limit: given.limit()?,
    };
    given.finish()?;
    answer(inside.store.jobs(filter).await?)
}

async fn transitions(State(inside): State<Arc<Inside>>, asked: Asked) -> Answer {
    let mut given = Parameters::new(asked)?;
    let filter = TransitionFilter {
        source: given.name::<SourceName>("source")?,
        job: given.text("job")?,
        from: given.read("from", state, STATE)?,
        to: given.read("to", state, STATE)?,
        since: given.since()?,
        before: given.before()?,
        limit: given.limit()?,
    };
    given.finish()?;
    answer(inside.store.transitions(filter).await?)
}

async fn alerts(State(inside): State<Arc<Inside>>, asked: Asked) -> Answer {
    let mut given = Parameters::new(asked)?;
    let standing = |text: &str| match text {
        "standing" => Some(Some(true)),
        "over" => Some(Some(false)),
        "all" => Some(None),
        _ => None,
    };
    let filter = AlertFilter {
        source: given.name::<SourceName>("source")?,
        rule: given.name::<RuleId>("rule")?,
        severity: given.read("severity", |text| text.parse::<Severity>().ok(), "info, warning, error or critical")?,
        job: given.text("job")?,
        standing: given.read("state", standing, "standing, over or all")?.unwrap_or(Some(true)),
        since: given.since()?,
        before: given.before()?,
        limit: given.limit()?,
    };
    given.finish()?;
    answer(inside.store.alerts(filter).await?)
}

async fn deliveries(State(inside): State<Arc<Inside>>, asked: Asked) -> Answer {
    let mut given = Parameters::new(asked)?;
    let state = |text: &str| text.parse::<DeliveryState>().ok();
    let filter = Filter {
        receiver: given.name::<ReceiverName>("receiver")?,
        state: given.read("state", state, "pending, delivered, dead or dropped")?,
        source: given.name::<SourceName>("source")?,
        job: given.text("job")?,
        since: given.since()?,
        before: given.before()?,
        limit: given.limit()?,
    };
    given.finish()?;
    answer(inside.store.deliveries(filter).await?)
}

fn unknown(id: &DeliveryId) -> Problem {
    Problem::Unknown(format!("there is no delivery {}", line(id.as_str(), ECHO_MAX)))
}

async fn delivery(State(inside): State<Arc<Inside>>, Path(id): Path<String>, asked: Asked) -> Answer {
    Parameters::new(asked)?.finish()?;
    let id = DeliveryId::from(id);
    let dossier = inside.store.dossier(&id).await?.ok_or_else(|| unknown(&id))?;
    answer(dossier.json())
}

/// The body is read, so that its limit holds, and means nothing. A browser without scripts is led back to the status page.
async fn retry(
    State(inside): State<Arc<Inside>>,
    Path(id): Path<String>,
    asked: Asked,
    headers: HeaderMap,
    _: Bytes,
) -> Answer {
    Parameters::new(asked)?.finish()?;
    let id = DeliveryId::from(id);
    let retried = inside.agent.again(&id).await?;
    inside.page.renew().await;
    match retried {
        Retried::Due if wants_page(&headers) => Ok(Redirect::to("/#undelivered").into_response()),
        Retried::Due => answer(json!({ "id": id, "state": DeliveryState::Pending })),
        Retried::FollowUp => Err(Problem::Refused("this is a follow-up: what was done is never done again")),
        Retried::Unknown => Err(unknown(&id)),
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
