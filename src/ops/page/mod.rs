//! The status page: do we see every source, what runs and since when, what failed and why, who was told and what is stuck.
//!
//! One page, made here and whole: it needs no script to be read, and nothing from elsewhere. The script asks for the page
//! again and changes in place what changed. However many look, the state is read no more often than each second.
//! One thing can be done from it: what is stuck or was given up is sent again, by the same post as a program makes. Which
//! posts are let in is decided at the door of the admin interface, not here.

mod replicas;
mod timeline;
mod view;
mod witness;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::agent::Pulse;
use crate::model::delivery::DeliveryState;
use crate::model::name::{ReceiverName, SourceName};
use crate::model::time::Timestamp;
use crate::store::glance::{Glance, Look};
use crate::store::share::ReplicaView;
use crate::store::{self, Delivery, Filter, Store};
use view::{ROWS_MAX, Reading, View};
pub use witness::Witness;

/// A reading is shown to whoever asks within this time.
const FRESH: Duration = Duration::from_secs(1);
/// No more steps are counted for the picture, the newest.
const STEPS_MAX: usize = 200_000;
/// The page may load what this address serves and post to it, and nothing else; no script or style stands in it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("number", view::number);
    for (name, text) in [("page", include_str!("page.html")), ("main", include_str!("main.html"))] {
        environment.add_template(name, text).expect("the template is a constant, and a test renders it");
    }
    environment
});

/// What the page is about, besides the state.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The sources of the configuration.
    pub sources: Vec<SourceName>,
    /// Its receivers.
    pub receivers: Vec<ReceiverName>,
    /// When the agent started.
    pub started: Timestamp,
}

/// The clock that whoever shows the state goes by.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The page.
pub struct Page {
    setup: Setup,
    store: Arc<dyn Store>,
    pulse: Arc<Pulse>,
    witness: Arc<Witness>,
    now: Now,
    /// Held while the state is read: one reading for all who ask.
    last: Mutex<Last>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Last {
    at: Option<Timestamp>,
    glance: Glance,
    /// What was given up, the newest first.
    dead: Vec<Delivery>,
    fleet: Fleet,
    /// Why it could not be read since.
    unread: Option<String>,
}

/// What several replicas share.
#[derive(Debug, Default)]
struct Fleet {
    replicas: Vec<ReplicaView>,
    /// Why sources are not seen, whoever polls them.
    faults: HashMap<SourceName, String>,
}

/// The page as it is sent.
#[derive(Clone, Debug)]
struct Rendered {
    html: String,
    /// Changes with what the page says.
    tag: String,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("setup", &self.setup).finish_non_exhaustive()
    }
}

impl Page {
    /// A page about this state and this agent.
    pub fn new(setup: Setup, store: Arc<dyn Store>, pulse: Arc<Pulse>, witness: Arc<Witness>, now: Now) -> Self {
        Self { setup, store, pulse, witness, now, last: Mutex::default() }
    }

    /// The page as it is sent now.
    pub async fn html(&self) -> String {
        self.render().await.html
    }

    /// The next who asks is shown what stands then: something was done meanwhile.
    pub(super) async fn renew(&self) {
        self.last.lock().await.at = None;
    }

    async fn read(&self, look: Look) -> Result<(Glance, Vec<Delivery>, Fleet), store::Error> {
        let glance = self.store.glance(look).await?;
        let faults = self.store.amiss().await?.into_iter();
        let faults = faults.filter_map(|(source, _, fault)| Some((source, fault?.text))).collect();
        let fleet = Fleet { replicas: self.store.replicas().await?, faults };
        if glance.queues.iter().all(|queue| queue.outbox.dead == 0) {
            return Ok((glance, Vec::new(), fleet));
        }
        let given_up = Filter { state: Some(DeliveryState::Dead), limit: look.rows_max, ..Filter::default() };
        let dead = self.store.deliveries(given_up).await?.items;
        Ok((glance, dead, fleet))
    }

    async fn render(&self) -> Rendered {
        let now = (self.now)();
        let mut last = self.last.lock().await;
        // A clock that was set back must not keep an old reading.
        if last.at.is_none_or(|at| at > now || now.since(at) >= FRESH) {
            let since = now.minus(Duration::from_secs(timeline::SPAN_MAX + 3_600));
            let look = Look { now, since, steps_max: STEPS_MAX, rows_max: ROWS_MAX + 1 };
            match self.read(look).await {
                Ok((glance, dead, fleet)) => *last = Last { at: Some(now), glance, dead, fleet, unread: None },
                Err(error) => last.unread = Some(error.to_string()),
            }
        }
        let view = View::of(Reading {
            setup: &self.setup,
            glance: &last.glance,
            dead: &last.dead,
            replicas: &last.fleet.replicas,
            faults: &last.fleet.faults,
            witnessed: &self.witness.witnessed(),
            steady: self.pulse.is_steady(),
            unread: last.unread.as_deref(),
            now,
        });
        drop(last);
        rendered(&view, now)
    }
}

fn rendered(view: &View, now: Timestamp) -> Rendered {
    let render = |name: &str, context: Value| {
        let rendered = TEMPLATES.get_template(name).and_then(|template| template.render(context));
        rendered.expect("the template uses only what it is given, and a test renders it")
    };
    let main = render("main", Value::from(Serde(view)));
    let digest = Sha256::digest(main.as_bytes());
    let tag = format!("\"{}\"", data_encoding::BASE32_NOPAD.encode(&digest[..10]));
    let now = view::Moment::new(now, now);
    let page = context! {
        main => Value::from_safe_string(main), title => view.title.as_str(), now => Value::from(Serde(now)), version => view.version,
    };
    Rendered { html: render("page", page), tag }
}

/// The page and what belongs to it.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(page: Arc<Page>) -> Router<S> {
    let file = |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/", get(show))
        .route("/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/script.js", file("text/javascript; charset=utf-8", include_str!("script.js")))
        .route("/icon.svg", file("image/svg+xml", include_str!("icon.svg")))
        .with_state(page)
}

async fn show(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    let Rendered { html, tag } = page.render().await;
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let head = [
        (header::ETAG, tag.as_str()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // With none at all, the post of a form says that it comes from nowhere.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    ];
    if known { (StatusCode::NOT_MODIFIED, head).into_response() } else { (head, html).into_response() }
}
