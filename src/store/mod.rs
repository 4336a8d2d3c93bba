//! What survives: snapshots, history, alerts and the outbox, each change in one transaction.
//!
//! [`Store::commit`] writes everything a poll decided or nothing of it; [`Store::record`] an attempt and its verdict or
//! neither. What is due is always read from here: no message between tasks is needed for a delivery to happen. A store
//! writes what it is told and decides nothing.

pub mod care;
mod copy;
pub mod glance;
mod nothing;
mod postgres;
mod retention;
mod rows;
pub mod share;
mod sqlite;
pub mod view;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use crate::model::alert::{Alert, Fate, Muted, Silence};
use crate::model::delivery::{Attempt, Claimed, DeliveryState, Frozen, Held, Lane, Reserve, Verdict};
use crate::model::follow_up::{Consent, FollowUp, Listed, Standing};
use crate::model::index::Index;
use crate::model::job::{Job, Status, Text};
use crate::model::listing::Fault;
use crate::model::memory::{Memory, Opened, Pacing, Sight};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::snapshot::{Change, Known};
use crate::model::time::Timestamp;
use crate::model::transition::Transition;
use glance::{Glance, Look};
pub use retention::{Mark, Part, Prune, Pruned, Pruning, Room};
use secrecy::SecretString;
use share::{Attendance, Attended, Begun, Bounds, Fence, Health, News, ReplicaView};
use view::{
    AlertFilter, AlertKey, AlertView, Cursor, JobFilter, JobKey, JobView, NumberKey, OutboxView, Page, SourceFilter,
    SourceKey, SourceView, TransitionFilter, TransitionView,
};

/// Who opens a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The agent: makes the state if there is none, and is alone with it.
    Agent,
    /// A command beside the agent: the state must exist.
    Visitor,
}

/// Where a state is.
#[derive(Clone, Debug)]
pub struct Place {
    /// `sqlite:PATH`, or `postgres://USER@HOST:PORT/DATABASE`.
    pub url: String,
    /// The password, if it does not stand in the URL.
    pub password: Option<SecretString>,
    /// As many connections may be open at once, where there are any.
    pub connections: usize,
}

impl Place {
    /// Connections that one agent needs.
    pub const CONNECTIONS: usize = 8;

    /// With what is usual. A password that stands in the URL is taken out of it: what is left can be shown.
    pub fn new(url: impl Into<String>) -> Self {
        let mut place = Self { url: url.into(), password: None, connections: Self::CONNECTIONS };
        if place.is_shared() {
            (place.url, place.password) = parted(&place.url);
        }
        place
    }

    /// Whether several agents can share what is there.
    pub fn is_shared(&self) -> bool {
        self.url.starts_with("postgres:") || self.url.starts_with("postgresql:")
    }
}

/// A URL without its password, and the password: that of the user, or the parameter of that name.
fn parted(url: &str) -> (String, Option<SecretString>) {
    let plain =
        |text: &str| SecretString::from(percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned());
    let (address, settings) = url.split_once('?').unwrap_or((url, ""));
    let mut password = None;
    let mut whole = address.to_owned();
    if let Some((scheme, rest)) = address.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
        && let Some((user, word)) = user.split_once(':')
    {
        whole = format!("{scheme}://{user}@{host}");
        password = Some(plain(word));
    }
    let mut others = Vec::new();
    for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
        match setting.split_once('=') {
            Some(("password", word)) => password = Some(plain(word)),
            Some(_) | None => others.push(setting),
        }
    }
    if !others.is_empty() {
        whole = format!("{whole}?{}", others.join("&"));
    }
    (whole, password)
}

/// What is wrong with a place, as far as that can be said without going there.
///
/// # Errors
/// In words that stand beside the URL.
pub fn check(place: &Place) -> Result<(), String> {
    match (place.is_shared(), place.url.strip_prefix("sqlite:")) {
        (true, _) => postgres::check(place),
        (false, Some(path)) if !path.is_empty() => Ok(()),
        (false, Some(_) | None) => Err(format!("`{}` names no state", place.url)),
    }
}

/// Opens the state that the configuration names: `sqlite:PATH`, or `postgres://USER@HOST/DATABASE`.
///
/// # Errors
/// See [`Error`].
pub async fn open(place: &Place, access: Access) -> Result<Arc<dyn Store>, Error> {
    if place.is_shared() {
        return Ok(Arc::new(postgres::Postgres::open(place, access).await?));
    }
    match place.url.strip_prefix("sqlite:") {
        Some(path) => Ok(Arc::new(sqlite::Sqlite::open(Path::new(path), access).await?)),
        None => Err(Error::Unusable(format!(
            "`{}` names no state this version can use: sqlite:PATH or postgres://USER@HOST/DATABASE",
            place.url
        ))),
    }
}

/// A store that knows nothing and keeps nothing: what a rehearsal sees before there is a state.
pub fn nothing() -> Arc<dyn Store> {
    Arc::new(nothing::Nothing)
}

/// Why the store did not do what it was asked. The variants are named for what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another agent holds the state: stop it, or wait until it has stopped.
    #[error("{0}")]
    InUse(String),
    /// The state is damaged, foreign or of a newer version; it was not touched. Starting again does not help.
    #[error("{0}")]
    Unusable(String),
    /// There is no state yet.
    #[error("there is no state at {0} yet: `jobwatch run` makes it")]
    Missing(String),
    /// The disk is full, or another passing trouble: trying again helps.
    #[error("{0}")]
    Failed(String),
    /// Another replica polls the source by now: what was decided here is void, and nothing of it was written.
    #[error("{0}")]
    Fenced(String),
    /// Another replica has decided about the same receiver meanwhile; nothing was written. To be decided again.
    #[error("another replica decided about the same receiver at the same time")]
    Overtaken,
}

/// Everything a poll decided.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The source that was polled.
    pub source: SourceName,
    /// When.
    pub at: Timestamp,
    /// The listing was complete.
    pub complete: bool,
    /// Rows of the snapshot to write, with the transitions among them.
    pub changes: Vec<Change>,
    /// Findings of rules to write.
    pub alerts: Vec<Alert>,
    /// What to remember of the source's visibility. `told_since` is not written: [`Store::tell`] does that.
    pub sight: Sight,
    /// Deliveries that are owed from now on. One whose id is known already is the same one and is not written again.
    pub deliveries: Vec<Frozen>,
    /// Copies of urgent ones among them, for the fallback.
    pub reserves: Vec<Reserve>,
    /// Notifications that wait to be told with others; known ones are not written again.
    pub held: Vec<Held>,
    /// Groups that gather.
    pub groups: Vec<(ReceiverName, String, Opened)>,
    /// Findings that nobody may be told of now, by the jobs they are about, and those that are no longer kept as such.
    pub muted: Vec<Muted>,
    /// See [`Commit::muted`].
    pub unmuted: Vec<(AlertId, JobId)>,
    /// What came of each match.
    pub fates: Vec<Fate>,
    /// What is to be done, each once: one whose id is known already is not written again.
    pub follow_ups: Vec<Errand>,
    /// Why the listing was not complete, for whoever tells of sources that other replicas poll.
    pub fault: Option<Fault>,
    /// The lease under which the source was polled, where there are any.
    pub fence: Option<Fence>,
    /// What it was decided on how fast receivers are told: [`Pacing::turns`].
    pub turns: Turns,
}

/// For each receiver, on which state of what it is told something was decided.
pub type Turns = Vec<(ReceiverName, i64)>;

/// A follow-up and its time.
#[derive(Clone, Debug)]
pub struct Errand {
    /// What is to be done.
    pub follow_up: FollowUp,
    /// When that was decided.
    pub at: Timestamp,
    /// When it is its turn.
    pub due_at: Timestamp,
}

impl Commit {
    /// A poll that changed nothing but the time of the last complete listing.
    pub fn unchanged(source: SourceName, at: Timestamp) -> Self {
        Self {
            source,
            at,
            complete: true,
            changes: Vec::new(),
            alerts: Vec::new(),
            sight: Sight::default(),
            deliveries: Vec::new(),
            reserves: Vec::new(),
            held: Vec::new(),
            groups: Vec::new(),
            muted: Vec::new(),
            unmuted: Vec::new(),
            fates: Vec::new(),
            follow_ups: Vec::new(),
            fault: None,
            fence: None,
            turns: Vec::new(),
        }
    }
}

/// Held notifications that are told now: in a digest, or one alone as it is.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// What is owed.
    pub frozen: Frozen,
    /// What is in it; none are held any more.
    pub held: Vec<i64>,
    /// The copy for the fallback, if there is something urgent in it.
    pub reserve: Option<Reserve>,
}

/// What is to be known of how fast a receiver is told.
#[derive(Clone, Debug)]
pub struct PaceOf {
    /// Who.
    pub receiver: ReceiverName,
    /// Since when its messages count, and how many of them do; nothing where there is no rate.
    pub lately: Option<(Timestamp, usize)>,
    /// About what it is to be told something: whether anything is held there matters.
    pub lanes: Vec<Lane>,
}

/// What is measured of the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// When each source was seen.
    pub seeing: Vec<Seeing>,
    /// How many jobs there are in which status.
    pub jobs: Vec<(SourceName, Status, u64)>,
    /// What waits to be sent; receivers for whom nothing does are left out, follow-ups are not.
    pub outbox: Vec<Backlog>,
}

/// When a source was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeing {
    /// Which.
    pub source: SourceName,
    /// Its last complete listing, if there was any.
    pub complete_at: Option<Timestamp>,
    /// Since when there is none.
    pub blind_since: Option<Timestamp>,
}

/// What waits to be sent to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Who.
    pub receiver: ReceiverName,
    /// How many deliveries.
    pub pending: u64,
    /// When the first of them was decided.
    pub oldest: Timestamp,
}

/// What a command asks of the running agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub n: i64,
    /// What: `reload`.
    pub what: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was done.
    pub accepted: bool,
    /// In words.
    pub text: String,
}

/// What is known of a job's past, for whoever asks why somebody was told or not.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Every step, oldest first.
    pub steps: Vec<Arc<Transition>>,
    /// What came of the rules' matches.
    pub fates: Vec<(Fate, Timestamp)>,
    /// Where the job stands.
    pub known: Option<Known>,
}

/// Which part of history to look at.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Only this source's.
    pub source: Option<SourceName>,
    /// From this time on.
    pub since: Timestamp,
    /// At most so many, the newest of them.
    pub limit: usize,
}

/// A finding as people look at it, with the job it last spoke of.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The finding.
    pub alert: Alert,
    /// Its job, if it is still known.
    pub known: Option<Known>,
}

/// Which jobs of a source to load.
#[derive(Clone, Default)]
pub struct Wanted {
    /// These.
    pub ids: Vec<JobId>,
    /// Apart from them, as [`Memory::timed`], those that are not gone and in one of these statuses.
    pub statuses: Vec<Status>,
    /// And those that are not gone and of which this says so.
    pub others: Option<Arc<Choice>>,
    /// Besides the findings about those jobs, these …
    pub findings: HashSet<AlertId>,
    /// … those that this names for jobs that are loaded …
    pub named: Option<Arc<Naming>>,
    /// … and those that stand about jobs on these resources.
    pub resources: Vec<Text>,
    /// Steps since then, as [`Memory::recent`].
    pub recent: Option<Timestamp>,
    /// The time: silences that are over are not wanted.
    pub now: Timestamp,
}

/// Whether a job with this id is wanted.
pub type Choice = dyn Fn(&str) -> bool + Send + Sync;

/// Names findings that are about a job, and not about it alone.
pub type Naming = dyn Fn(&Job) -> Vec<AlertId> + Send + Sync;

impl Wanted {
    /// Every job.
    pub fn everything() -> Self {
        Self { others: Some(Arc::new(|_| true)), ..Self::default() }
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("ids", &self.ids).finish_non_exhaustive()
    }
}

/// What was told of the sources' visibility.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The sources whose `told_since` changes, and what it becomes.
    pub sources: Vec<(SourceName, Option<Timestamp>)>,
    /// Deliveries that say so.
    pub deliveries: Vec<Frozen>,
    /// The leases under which the sources are polled, where there are any.
    pub fences: Vec<(SourceName, Fence)>,
}

/// What came of one attempt.
#[derive(Clone, Debug)]
pub struct Record {
    /// The claim under which it was made.
    pub claimed: Claimed,
    /// The attempt.
    pub attempt: Attempt,
    /// What becomes of the delivery.
    pub verdict: Verdict,
    /// What the operator has been told of the receiver's trouble, after this.
    pub trouble: Trouble,
    /// Deliveries that follow from it.
    pub deliveries: Vec<Frozen>,
    /// It is a follow-up that waits for somebody's word from now on.
    pub asks: bool,
}

/// What the operator has been told of a receiver's trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// That it refuses.
    pub refused: bool,
    /// That something was given up.
    pub dead: bool,
    /// That it is no more.
    pub retired: bool,
    /// Since when nothing is sent to it for that reason, if it was not opened again.
    pub held_since: Option<Timestamp>,
}

/// Deliveries to give up because their time is over.
#[derive(Clone, Debug)]
pub struct Lapse {
    /// Whose.
    pub receiver: ReceiverName,
    /// Those whose budget began before this.
    pub before: Timestamp,
    /// Why, in words.
    pub note: String,
    /// The time.
    pub now: Timestamp,
    /// What the operator is told of it, unless something was given up before and nothing accepted since.
    pub notices: Vec<Frozen>,
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lapsed {
    /// How many deliveries.
    pub count: usize,
    /// Whether the notices are owed.
    pub told: bool,
}

/// Which deliveries to look at.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this receiver's.
    pub receiver: Option<ReceiverName>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only about a job of this source.
    pub source: Option<SourceName>,
    /// Only about this job.
    pub job: Option<String>,
    /// Only decided at or after this time.
    pub since: Option<Timestamp>,
    /// Only what comes after this place.
    pub before: Option<Cursor<NumberKey>>,
    /// At most this many, the newest.
    pub limit: usize,
}

/// A delivery as people look at it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delivery {
    /// Its id, the same on every attempt.
    pub id: DeliveryId,
    /// Who is to hear.
    pub receiver: ReceiverName,
    /// Where the job is; empty for the agent's own affairs.
    pub source: String,
    /// The job's id.
    pub subject: String,
    /// The CloudEvents `type`.
    pub event: String,
    /// The one-line title.
    pub title: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When it is tried next; for an ended one, when it was last.
    pub due_at: Timestamp,
    /// It waits for another one about the same job.
    pub parked: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last attempt was answered.
    pub note: String,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// One recorded attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRow {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in seconds.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// `accepted`, `refused`, `retired`, `unreachable`.
    pub outcome: String,
    /// What was answered.
    pub detail: String,
}

fn seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

/// A delivery with everything about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dossier {
    /// The delivery.
    pub delivery: Delivery,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
    /// The frozen bytes.
    pub payload: Vec<u8>,
}

impl Dossier {
    /// For programs. A payload that is JSON is shown as such.
    pub fn json(&self) -> Value {
        let Self { delivery, attempts, payload } = self;
        let text = String::from_utf8_lossy(payload);
        let payload = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        json!({ "delivery": delivery, "attempts": attempts, "payload": payload })
    }
}

/// Which deliveries to send once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// These. Pending ones become due now; dead and delivered ones are owed again, under the same id.
    These(Vec<DeliveryId>),
    /// Every dead one, of this receiver if one is named.
    Dead(Option<ReceiverName>),
    /// Every pending one of this receiver.
    Pending(ReceiverName),
}

/// What became of a delivery that an operator wanted to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is never sent again.
    Done,
    /// The same, but an attempt is under way: it may arrive.
    UnderWay,
    /// It had ended already.
    Ended,
    /// There is none.
    Unknown,
}

/// The face of every engine.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// What is known of a source, and of the jobs that are wanted.
    async fn load(&self, source: &SourceName, wanted: Wanted) -> Result<Memory, Error>;

    /// The index of a source's jobs, and whether there was a baseline.
    async fn index(&self, source: &SourceName) -> Result<(Index, bool), Error>;

    /// What is remembered of every source's visibility.
    async fn sights(&self) -> Result<Vec<(SourceName, Sight)>, Error>;

    /// Sources that are not seen, or of which that was told, whoever polls them, each with why; where one agent polls all, it
    /// knows them itself.
    async fn amiss(&self) -> Result<Vec<(SourceName, Sight, Option<Fault>)>, Error> {
        Ok(Vec::new())
    }

    /// Writes what was told of the sources' visibility, with the deliveries that say so, durably, all of it or nothing.
    async fn tell(&self, told: Told) -> Result<(), Error>;

    /// Writes what a poll decided, durably, all of it or nothing. Returns how many deliveries were new.
    async fn commit(&self, commit: Commit) -> Result<usize, Error>;

    /// Claims up to `limit` deliveries that are due, oldest first, at most one for each lane: none overtakes another of its lane.
    async fn claim(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, Error>;

    /// Writes attempts and their verdicts, durably, all of them or none. `false` for those whose claim was lost meanwhile: of
    /// them nothing is written.
    async fn record(&self, records: Vec<Record>) -> Result<Vec<bool>, Error>;

    /// Makes deliveries of the copies that wait for a receiver's urgent ones and are due. Returns whose deliveries they are.
    async fn escalate(&self, receiver: &ReceiverName, now: Timestamp) -> Result<Vec<ReceiverName>, Error>;

    /// When a copy of an urgent delivery to this receiver will be due, if any will.
    async fn next_escalation(&self, receiver: &ReceiverName) -> Result<Option<Timestamp>, Error>;

    /// The oldest pending delivery whose budget began before this, if no attempt at it is under way, it was not refused and its
    /// receiver has not retired.
    async fn overdue(
        &self,
        receiver: &ReceiverName,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Delivery>, Error>;

    /// Gives such deliveries up, the oldest first, no more than a few hundred at once.
    async fn lapse(&self, lapse: Lapse) -> Result<Lapsed, Error>;

    /// Deliveries are claimed again for a receiver that retired; their budgets begin anew. `false` if it was open.
    async fn reopen(&self, receiver: &ReceiverName, now: Timestamp) -> Result<bool, Error>;

    /// Gives claims back unused: the deliveries are due as they were.
    async fn release(&self, claimed: Vec<Claimed>) -> Result<(), Error>;

    /// When something will be due for a receiver, if anything will.
    async fn next_due(&self, receiver: &ReceiverName) -> Result<Option<Timestamp>, Error>;

    /// What the operator has been told of a receiver's trouble.
    async fn trouble(&self, receiver: &ReceiverName) -> Result<Trouble, Error>;

    /// How many deliveries are pending for whom, with what is held.
    async fn waiting(&self) -> Result<Vec<(ReceiverName, usize)>, Error>;

    /// Sources that were ever polled, by name.
    async fn sources(&self, filter: SourceFilter) -> Result<Page<SourceView, SourceKey>, Error>;

    /// Jobs, those first that were last seen to change their status.
    async fn jobs(&self, filter: JobFilter) -> Result<Page<JobView, JobKey>, Error>;

    /// Transitions, newest first.
    async fn transitions(&self, filter: TransitionFilter) -> Result<Page<TransitionView, NumberKey>, Error>;

    /// Transitions that were committed after the one with this number, in that order, and the number to go on from.
    async fn transitions_after(&self, filter: TransitionFilter, mark: i64)
    -> Result<(Vec<TransitionView>, i64), Error>;

    /// Findings, those first that fired last.
    async fn alerts(&self, filter: AlertFilter) -> Result<Page<AlertView, AlertKey>, Error>;

    /// One finding.
    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, Error>;

    /// What is measured: of all sources and receivers, with the number of jobs by status of those that are named.
    async fn gauges(&self, counted: Vec<SourceName>) -> Result<Gauges, Error>;

    /// Deliveries, newest first.
    async fn deliveries(&self, filter: Filter) -> Result<Page<Delivery, NumberKey>, Error>;

    /// Deliveries that were committed after the one with this number, in that order, and the number to go on from.
    async fn deliveries_after(&self, filter: Filter, mark: i64) -> Result<(Vec<Delivery>, i64), Error>;

    /// One delivery.
    async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, Error>;

    /// The numbers of the last transition and of the last delivery.
    async fn marks(&self) -> Result<(i64, i64), Error>;

    /// How the outbox stands, a row for each receiver of which there is something to say.
    async fn outbox(&self) -> Result<Vec<OutboxView>, Error>;

    /// One delivery with everything about it.
    async fn dossier(&self, id: &DeliveryId) -> Result<Option<Dossier>, Error>;

    /// What is known of how fast receivers are told.
    async fn pacing(&self, receivers: Vec<PaceOf>, now: Timestamp) -> Result<Pacing, Error>;

    /// What is held for a receiver and due, in the order it was held, with the numbers to name it by: no more than `limit`,
    /// and with no more bytes of data, unless it is one alone. What is about a job of which a message is tried again is
    /// left out: it would keep those waiting that it is told with.
    async fn held(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(i64, Held)>, Error>;

    /// Who has something held, and when the first of it is due; none later than `now` if the clock was set back since it
    /// was held.
    async fn holding(&self, now: Timestamp) -> Result<Vec<(ReceiverName, Timestamp)>, Error>;

    /// Makes deliveries of what is held, all of them or none. Their groups go on gathering from `now`.
    async fn gathered(&self, gathered: Vec<Gathered>, turns: Turns, now: Timestamp) -> Result<(), Error>;

    /// Silences that are not over, in the order they end.
    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, Error>;

    /// Writes a silence, in place of an earlier one with its id.
    async fn silence(&self, silence: Silence) -> Result<(), Error>;

    /// Findings that are not over, the newest first.
    async fn findings(&self, limit: usize) -> Result<Vec<Finding>, Error>;

    /// Jobs that people may mean by this: a job's id, a resource's name or id, a step or a delivery; the newest first.
    async fn find(&self, what: &str, limit: usize) -> Result<Vec<(SourceName, JobId)>, Error>;

    /// A job's past.
    async fn past(&self, source: &SourceName, job: &JobId) -> Result<Past, Error>;

    /// Steps of a part of history, oldest first.
    async fn history(&self, span: Span) -> Result<Vec<Arc<Transition>>, Error>;

    /// What came of the matches of a part of history, oldest first: when, and with the title of the message that told it.
    async fn fates(&self, span: Span) -> Result<Vec<(Fate, Timestamp, Option<String>)>, Error>;

    /// Asks the running agent for something. Returns the request's number.
    async fn ask(&self, what: &str, now: Timestamp) -> Result<i64, Error>;

    /// Requests that nobody answered, and that are not older than a minute.
    async fn requests(&self, now: Timestamp) -> Result<Vec<Request>, Error>;

    /// Answers a request. The first answer stands.
    async fn answer(&self, n: i64, answer: Answer, now: Timestamp) -> Result<(), Error>;

    /// The answer to a request, when there is one.
    async fn answered(&self, n: i64) -> Result<Option<Answer>, Error>;

    /// What the status page shows, all of it at one moment.
    async fn glance(&self, look: Look) -> Result<Glance, Error>;

    /// Receivers in trouble, and what was told of it.
    async fn troubles(&self) -> Result<Vec<(ReceiverName, Trouble)>, Error>;

    /// Ends deliveries that are pending or dead. They are kept, with this note.
    async fn end(&self, ids: Vec<DeliveryId>, note: &str, now: Timestamp) -> Result<Vec<Dropped>, Error>;

    /// How a follow-up stands; `since` is when those of its name begin to count for its limit.
    async fn standing(&self, follow_up: FollowUp, since: Timestamp) -> Result<Option<Standing>, Error>;

    /// Writes, durably, that a follow-up is begun, if it may be.
    async fn begin(&self, claimed: Claimed, bounds: Bounds) -> Result<Begun, Error>;

    /// Says yes or no to a follow-up that waits for it. `false` when none with this id does.
    async fn consent(&self, id: &DeliveryId, consent: Consent, now: Timestamp) -> Result<bool, Error>;

    /// Follow-ups, the newest first.
    async fn follow_ups(&self, limit: usize) -> Result<Vec<Listed>, Error>;

    /// Forgets what is old and nobody needs in some rows of a part.
    async fn prune(&self, step: Prune) -> Result<Pruned, Error>;

    /// How much room the state takes.
    async fn room(&self) -> Result<Room, Error>;

    /// Gives so many free bytes back to the disk, where that can be done in steps.
    async fn reclaim(&self, bytes: u64) -> Result<(), Error>;

    /// The last time that the state was gone through, if it ever was.
    async fn pruning(&self) -> Result<Option<Pruning>, Error>;

    /// Remembers that the state was gone through.
    async fn pruned(&self, pruning: Pruning) -> Result<(), Error>;

    /// Makes deliveries due now, and opens their receivers. Follow-ups are none: they are never done again. Returns the ids it did that to.
    async fn again(&self, which: Again, now: Timestamp) -> Result<Vec<DeliveryId>, Error>;

    /// Whether several agents may be at work on this.
    fn is_shared(&self) -> bool {
        false
    }

    /// The time here; `None` where the machine's own will do.
    async fn time(&self) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }

    /// A replica shows that it lives: its leases are renewed, and it takes what nobody holds, up to its share.
    async fn attend(&self, attendance: Attendance) -> Result<Attended, Error> {
        let fence = || Fence { holder: String::new(), epoch: 0 };
        let held = attendance.wanted.into_iter().map(|source| (source, fence())).collect();
        Ok(Attended { held, excess: Vec::new(), living: 1, now: attendance.started_at })
    }

    /// Gives leases back: whoever waits for them is told.
    async fn hand_back(&self, _leases: Vec<(SourceName, Fence)>) -> Result<(), Error> {
        Ok(())
    }

    /// The replica ends: everything it holds is given back.
    async fn leave(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Replicas that are there, or were lately, by name.
    async fn replicas(&self) -> Result<Vec<ReplicaView>, Error> {
        Ok(Vec::new())
    }

    /// Tells what happens elsewhere, until it cannot: returns why. News may be missed; nothing may depend on them.
    async fn listen(&self, _tell: &(dyn Fn(News) + Send + Sync)) -> Error {
        std::future::pending().await
    }

    /// How a receiver fares, as all replicas know it; `None` where there is one agent.
    async fn health(&self, _receiver: &ReceiverName) -> Result<Option<Health>, Error> {
        Ok(None)
    }

    /// Says how a receiver fares, if nobody has said anything since this was read. Else what was said.
    async fn set_health(&self, _receiver: &ReceiverName, _seen: i64, state: Option<String>) -> Result<Health, Error> {
        Ok(Health { version: 0, state })
    }

    /// As [`Store::claim`], but no more than are under way over all replicas with these, if nobody has said anything about how
    /// the receiver fares since this was read.
    async fn claim_together(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        until: Timestamp,
        width: usize,
        _seen: i64,
    ) -> Result<Vec<Claimed>, Error> {
        self.claim(receiver, now, until, width).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_stands_in_a_url_is_taken_out_of_it() {
        let read = |url: &str| {
            let Place { url, password, .. } = Place::new(url);
            (url, password.map(|password| secrecy::ExposeSecret::expose_secret(&password).to_owned()))
        };
        let said = |url: &str, password: Option<&str>| (url.to_owned(), password.map(str::to_owned));
        assert_eq!(read("postgres://u@h/d?sslmode=disable"), said("postgres://u@h/d?sslmode=disable", None));
        assert_eq!(read("postgres://u:a%40b:c@h:5/d"), said("postgres://u@h:5/d", Some("a@b:c")));
        // Not escaped as it ought to be: all of it is a secret nevertheless.
        assert_eq!(read("postgresql://u:a@b/c@h/d"), said("postgresql://u@h/d", Some("a@b/c")));
        assert_eq!(read("postgres://h/d?password=x&user=u"), said("postgres://h/d?user=u", Some("x")));
        assert_eq!(read("sqlite:a:b@c?password=d"), said("sqlite:a:b@c?password=d", None));
    }

    #[test]
    fn what_is_wrong_with_a_place_is_said_without_what_is_secret() {
        let wrong = |url: &str| check(&Place::new(url)).unwrap_err();
        assert_eq!(wrong("mysql://h/d"), "`mysql://h/d` names no state");
        assert_eq!(wrong("sqlite:"), "`sqlite:` names no state");
        assert!(wrong("postgres://u:secret@h:port/d").starts_with("this is no postgres URL"));
        assert!(wrong("postgres://u:secret@h/d?sslmode=prefer").starts_with("sslmode=prefer does not prove"));
        assert!(wrong("postgres://u@h/d?sslrootcert=/no/such.pem").starts_with("sslrootcert /no/such.pem: "));
        check(&Place::new("postgres://u@h/d?sslmode=disable")).unwrap();
        check(&Place::new("postgres://u@[::1]:5433/d")).unwrap();
    }
}
