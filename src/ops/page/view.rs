//! What the page says, in words and in order: made from a reading of the state by plain functions.
//!
//! Text from the cloud and from far ends passes through [`line`] here and through the template's escaping there.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::Setup;
use super::replicas::{self, ReplicaRow};
use super::timeline::{Timeline, timeline};
use super::witness::Witnessed;
use crate::model::alert::{FateOutcome, Silence};
use crate::model::delivery::DeliveryState;
use crate::model::follow_up::{FollowUp, Listed};
use crate::model::job::Status;
use crate::model::name::{ReceiverName, SourceName};
use crate::model::snapshot::Known;
use crate::model::text::line;
use crate::model::time::{Timestamp, span};
use crate::store::Delivery;
use crate::store::glance::{Failure, Glance, Heard, Queue};
use crate::store::share::ReplicaView;
use crate::store::view::SourceView;

/// Rows of sources and of receivers: those in trouble come first.
const NAMED_MAX: usize = 50;
/// Rows of each other list. One more is read, to know whether there are more.
pub(super) const ROWS_MAX: usize = 12;
/// Different statuses of one source that are named.
const STATUSES_MAX: usize = 8;
/// Receivers that are named beside one failure.
const HEARD_MAX: usize = 6;
/// Names in one sentence.
const NAMES_MAX: usize = 3;
/// Reasons and answers are cut here; `jobwatch` and the API have all of them.
const REASON_MAX: usize = 400;
/// Names are cut here.
const NAME_MAX: usize = 120;

/// Everything the page says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct View {
    pub(super) version: &'static str,
    pub(super) title: String,
    pub(super) verdict: Verdict,
    pub(super) figures: Vec<Figure>,
    pub(super) sources: Rows<SourceRow>,
    pub(super) timeline: Option<Timeline>,
    pub(super) running: Rows<RunningRow>,
    pub(super) failures: Rows<FailureRow>,
    pub(super) receivers: Rows<ReceiverRow>,
    pub(super) undelivered: Rows<UndeliveredRow>,
    pub(super) silences: Rows<SilenceRow>,
    pub(super) waiting: Rows<WaitingRow>,
    /// Nothing where one agent has the state to itself.
    pub(super) replicas: Rows<ReplicaRow>,
    pub(super) agent: AgentRow,
}

/// The page in one sentence, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) headline: String,
    pub(super) points: Vec<Point>,
}

/// How things are; the page says it in words beside the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Good,
    Quiet,
    Warn,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Point {
    pub(super) level: Level,
    pub(super) text: String,
    /// Where the page says more of it.
    pub(super) part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: usize,
    /// What it is compared with.
    pub(super) of: Option<usize>,
    pub(super) level: Level,
    pub(super) part: &'static str,
}

/// The first rows of a list, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Rows<T> {
    pub(super) rows: Vec<T>,
    pub(super) total: usize,
    pub(super) more: usize,
    /// There are more, and nobody counted them.
    pub(super) uncounted: bool,
}

/// A moment as people read it and as programs do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Moment {
    pub(super) iso: String,
    pub(super) clock: String,
    pub(super) words: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct SourceRow {
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) state: &'static str,
    pub(super) since: Option<Moment>,
    pub(super) why: Option<String>,
    pub(super) seen: Option<Moment>,
    pub(super) jobs: Vec<Count>,
    pub(super) total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) status: String,
    pub(super) class: &'static str,
    pub(super) count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RunningRow {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) status: String,
    pub(super) class: &'static str,
    pub(super) since: Moment,
    pub(super) lasts: String,
    pub(super) created: Option<Moment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FailureRow {
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) from: String,
    pub(super) late: bool,
    pub(super) at: Moment,
    pub(super) heard: Vec<HeardRow>,
    pub(super) more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct HeardRow {
    pub(super) who: String,
    pub(super) level: Level,
    pub(super) state: &'static str,
    pub(super) at: Option<Moment>,
    pub(super) note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ReceiverRow {
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) state: &'static str,
    pub(super) since: Option<Moment>,
    pub(super) why: String,
    pub(super) attempts: u32,
    pub(super) next: Option<Moment>,
    pub(super) pending: usize,
    pub(super) oldest: Option<Moment>,
    pub(super) held: usize,
    pub(super) dead: usize,
}

/// A delivery that somebody may want to be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct UndeliveredRow {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) receiver: String,
    pub(super) level: Level,
    pub(super) state: &'static str,
    pub(super) at: Moment,
    pub(super) attempts: u32,
    pub(super) why: String,
    /// Somebody is there who would send it.
    pub(super) again: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct SilenceRow {
    pub(super) id: String,
    pub(super) matchers: Vec<String>,
    pub(super) begins: Option<Moment>,
    pub(super) ends: Moment,
    pub(super) author: String,
    pub(super) comment: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct WaitingRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) at: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct AgentRow {
    pub(super) started: Moment,
    pub(super) rules: usize,
    pub(super) rules_since: Moment,
    pub(super) refused: Option<Refused>,
    pub(super) steady: bool,
    /// Why the state could not be read; the page then shows what was read before.
    pub(super) unread: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    pub(super) at: Moment,
    pub(super) errors: Vec<String>,
}

/// What a page is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    pub(super) setup: &'a Setup,
    pub(super) glance: &'a Glance,
    /// What was given up, the newest first.
    pub(super) dead: &'a [Delivery],
    /// Who shares the state.
    pub(super) replicas: &'a [ReplicaView],
    /// Why sources that others poll are not seen.
    pub(super) faults: &'a HashMap<SourceName, String>,
    pub(super) witnessed: &'a Witnessed,
    /// Every loop turns.
    pub(super) steady: bool,
    /// Why the state could not be read.
    pub(super) unread: Option<&'a str>,
    pub(super) now: Timestamp,
}

impl View {
    pub(super) fn of(reading: Reading<'_>) -> Self {
        let Reading { setup, glance, dead, replicas, faults, witnessed, steady, unread, now } = reading;
        let sources = sources(setup, glance, witnessed, faults, now);
        let receivers = receivers(setup, glance, witnessed, now);
        let mut present: BTreeMap<String, usize> = BTreeMap::new();
        for (status, count) in glance.sources.iter().flat_map(|source| &source.jobs) {
            *present.entry(status.clone()).or_default() += many(*count);
        }
        let timeline = glance.begun.map(|begun| timeline(&glance.tallies, &present, begun, now));
        let under_way = present.iter().filter(|(word, _)| !Status::read(word).is_final()).map(|(_, count)| count).sum();
        let agent = AgentRow {
            started: Moment::new(setup.started, now),
            rules: witnessed.rules,
            rules_since: Moment::new(witnessed.rules_since, now),
            refused: witnessed
                .refused
                .as_ref()
                .map(|(at, errors)| Refused { at: Moment::new(*at, now), errors: errors.clone() }),
            steady,
            unread: unread.map(|why| line(why, REASON_MAX)),
        };
        let waiting = Rows::read(&glance.waiting, |listed| waiting_row(listed, now));
        let mut verdict = verdict(&sources, &receivers, &waiting, &agent);
        verdict.add(replicas::points(replicas));
        let title = match verdict.points.iter().filter(|point| point.level >= Level::Warn).count() {
            0 => "all well – jobwatch".to_owned(),
            count => format!("({count}) {} – jobwatch", plural(count, "problem")),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            title,
            verdict,
            figures: figures(&sources, &present, under_way, timeline.as_ref(), &receivers),
            sources: Rows::counted(sources, NAMED_MAX),
            timeline,
            running: Rows {
                rows: glance.unfinished.iter().take(ROWS_MAX).map(|(name, job)| running_row(name, job, now)).collect(),
                total: under_way,
                more: under_way.saturating_sub(ROWS_MAX),
                uncounted: false,
            },
            failures: Rows::read(&glance.failures, |failure| failure_row(failure, now)),
            undelivered: undelivered(setup, glance, dead, now),
            receivers: Rows::counted(receivers, NAMED_MAX),
            silences: Rows::counted(
                glance.silences.iter().map(|silence| silence_row(silence, now)).collect(),
                ROWS_MAX,
            ),
            waiting,
            replicas: Rows::counted(replicas::rows(replicas, now), NAMED_MAX),
            agent,
        }
    }
}

impl<T> Rows<T> {
    /// All of them are here.
    fn counted(mut rows: Vec<T>, max: usize) -> Self {
        let total = rows.len();
        rows.truncate(max);
        Self { more: total - rows.len(), rows, total, uncounted: false }
    }

    /// As many were read as are shown, or one more.
    fn read<R>(from: &[R], row: impl Fn(&R) -> T) -> Self {
        let rows: Vec<T> = from.iter().take(ROWS_MAX).map(row).collect();
        Self { total: rows.len(), rows, more: 0, uncounted: from.len() > ROWS_MAX }
    }
}

impl Moment {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Self {
        let (iso, today) = (whole(at), whole(now));
        let clock = match (iso.get(..10), iso.get(11..16)) {
            (day, Some(time)) if day == today.get(..10) => time.to_owned(),
            (Some(day), Some(time)) => format!("{} {time}", day.get(5..).unwrap_or(day)),
            _ => iso.clone(),
        };
        let words =
            if at > now { format!("in {}", about(at.since(now))) } else { format!("{} ago", about(now.since(at))) };
        Self { iso, clock, words }
    }
}

/// RFC 3339 to the second.
fn whole(at: Timestamp) -> String {
    Timestamp::from_micros(at.seconds().saturating_mul(1_000_000)).to_string()
}

/// A span in words that change rarely: nobody reads the seconds of yesterday, and a page that stands still can be read.
fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = match seconds {
        0..60 => return "under a minute".to_owned(),
        60..7_200 => 60,
        7_200..172_800 => 3_600,
        _ => 86_400,
    };
    span(Duration::from_secs(seconds / unit * unit)).replace(" 0 min", "")
}

/// How many of what there are.
pub(super) fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{} {word}s", number(count)) }
}

/// With a comma for each thousand.
pub(super) fn number(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn class(status: &Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Initializing => "initializing",
        Status::Running => "running",
        Status::Failed => "failed",
        Status::Success => "success",
        Status::Other(_) => "other",
    }
}

fn sources(
    setup: &Setup,
    glance: &Glance,
    witnessed: &Witnessed,
    faults: &HashMap<SourceName, String>,
    now: Timestamp,
) -> Vec<SourceRow> {
    let known: BTreeMap<&SourceName, &SourceView> =
        glance.sources.iter().map(|source| (&source.name, source)).collect();
    let row = |name: &SourceName| {
        let why = witnessed.faults.get(name).map(|fault| &fault.why).or_else(|| faults.get(name));
        let since = witnessed.faults.get(name).map(|fault| fault.since);
        source_row(name, known.get(name).copied(), since, why.map(|why| line(why, REASON_MAX)), now)
    };
    let mut rows: Vec<SourceRow> = setup.sources.iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.level));
    rows
}

fn source_row(
    name: &SourceName,
    known: Option<&SourceView>,
    since: Option<Timestamp>,
    why: Option<String>,
    now: Timestamp,
) -> SourceRow {
    let seen = known.and_then(|known| known.complete_at);
    let blind = known.and_then(|known| known.blind_since).or(since);
    let (level, state) = match (blind, seen) {
        (Some(_), _) => (Level::Bad, "not seen"),
        (None, None) => (Level::Warn, "not seen yet"),
        (None, Some(_)) => (Level::Good, "seen"),
    };
    let mut jobs: Vec<Count> = known.iter().flat_map(|known| &known.jobs).map(count).collect();
    let total = jobs.iter().map(|count| count.count).sum();
    jobs.sort_by_key(|count| (count.class == "other", std::cmp::Reverse(count.class == "failed")));
    if jobs.len() > STATUSES_MAX {
        let rest = jobs.drain(STATUSES_MAX - 1..).map(|count| count.count).sum();
        jobs.push(Count { status: "others".to_owned(), class: "other", count: rest });
    }
    SourceRow {
        name: line(name.as_str(), NAME_MAX),
        level,
        state,
        since: blind.map(|at| Moment::new(at, now)),
        why,
        seen: seen.map(|at| Moment::new(at, now)),
        jobs,
        total,
    }
}

fn count((status, count): (&String, &u64)) -> Count {
    Count { status: line(status, NAME_MAX), class: class(&Status::read(status)), count: many(*count) }
}

fn many(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn running_row(source: &SourceName, known: &Known, now: Timestamp) -> RunningRow {
    let job = &known.job;
    RunningRow {
        key: format!("{source}/{}", line(job.id.as_str(), NAME_MAX)),
        name: job.called(),
        id: line(job.id.as_str(), NAME_MAX),
        kind: job.kind_called(),
        source: line(source.as_str(), NAME_MAX),
        status: line(job.status.as_str(), NAME_MAX),
        class: class(&job.status),
        since: Moment::new(known.status_since, now),
        lasts: about(now.since(known.status_since)),
        created: job.created().map(|at| Moment::new(at, now)),
    }
}

fn failure_row(failure: &Failure, now: Timestamp) -> FailureRow {
    let step = &failure.step;
    let mut heard: Vec<HeardRow> = Vec::new();
    for row in failure.heard.iter().map(|heard| heard_row(heard, now)) {
        // Several rules may have told the same receiver: in one message, or it heard of one and not of the other.
        if heard.iter().all(|other| other.who != row.who) {
            heard.push(row);
        }
    }
    let more = heard.len().saturating_sub(HEARD_MAX);
    heard.truncate(HEARD_MAX);
    FailureRow {
        key: step.id.as_str().to_owned(),
        reason: line(step.job.reason.as_deref().unwrap_or_default(), REASON_MAX),
        name: step.job.called(),
        id: line(step.job.id.as_str(), NAME_MAX),
        kind: step.job.kind_called(),
        source: line(step.source.as_str(), NAME_MAX),
        from: line(&step.from.to_string(), NAME_MAX),
        late: step.late,
        at: Moment::new(step.seen_at, now),
        heard,
        more,
    }
}

fn heard_row(heard: &Heard, now: Timestamp) -> HeardRow {
    let note = || line(&heard.note, REASON_MAX);
    let (level, state, note) = match (heard.outcome, heard.state) {
        (FateOutcome::Told | FateOutcome::Resolved, Some(DeliveryState::Delivered)) => {
            (Level::Good, "delivered", String::new())
        }
        (FateOutcome::Told | FateOutcome::Resolved, Some(DeliveryState::Dead)) => (Level::Bad, "given up", note()),
        (FateOutcome::Told | FateOutcome::Resolved, Some(DeliveryState::Dropped)) => (Level::Quiet, "dropped", note()),
        (FateOutcome::Told | FateOutcome::Resolved, Some(DeliveryState::Pending)) if heard.note.is_empty() => {
            (Level::Quiet, "on its way", String::new())
        }
        (FateOutcome::Told | FateOutcome::Resolved, Some(DeliveryState::Pending)) => {
            (Level::Bad, "not delivered yet", note())
        }
        (FateOutcome::Told | FateOutcome::Resolved, None) if heard.held => {
            (Level::Quiet, "waits to be told with others", String::new())
        }
        (FateOutcome::Told | FateOutcome::Resolved, None) => (Level::Quiet, "told", String::new()),
        (FateOutcome::HeldBack, _) => (Level::Quiet, "told of it before", line(&heard.why, REASON_MAX)),
        (FateOutcome::Muted, _) => (Level::Quiet, "muted", line(&heard.why, REASON_MAX)),
        (FateOutcome::Counted, _) => (Level::Quiet, "counted", line(&heard.why, REASON_MAX)),
        (FateOutcome::Known, _) => (Level::Quiet, "known", line(&heard.why, REASON_MAX)),
    };
    HeardRow {
        who: heard.receiver.as_ref().map_or_else(|| "nobody".to_owned(), |name| line(name.as_str(), NAME_MAX)),
        level,
        state,
        at: heard.ended_at.map(|at| Moment::new(at, now)),
        note,
    }
}

fn receivers(setup: &Setup, glance: &Glance, witnessed: &Witnessed, now: Timestamp) -> Vec<ReceiverRow> {
    let queues: BTreeMap<&ReceiverName, &Queue> =
        glance.queues.iter().map(|queue| (&queue.outbox.receiver, queue)).collect();
    let owed = glance.queues.iter().map(|queue| &queue.outbox).filter(|outbox| outbox.pending + outbox.held > 0);
    let owed = owed.map(|outbox| &outbox.receiver).filter(|name| !FollowUp::is_receiver(name));
    let strangers: Vec<_> = owed.filter(|name| !setup.receivers.contains(name)).collect();
    let row = |name: &ReceiverName| {
        let resting = witnessed.resting.get(name).copied();
        receiver_row(name, queues.get(name).copied(), resting, setup.receivers.contains(name), now)
    };
    let mut rows: Vec<ReceiverRow> = setup.receivers.iter().chain(strangers).map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.level));
    rows
}

fn receiver_row(
    name: &ReceiverName,
    queue: Option<&Queue>,
    resting: Option<Timestamp>,
    configured: bool,
    now: Timestamp,
) -> ReceiverRow {
    let outbox = queue.map(|queue| &queue.outbox);
    let stuck = queue.and_then(|queue| queue.stuck.as_ref());
    let told = queue.and_then(|queue| Some((queue.outbox.trouble, queue.trouble_since?)));
    let pending = outbox.map_or(0, |outbox| many(outbox.pending));
    let (level, state, since) = match (told, stuck) {
        _ if !configured => (Level::Warn, "not in the configuration", None),
        (Some((trouble, _)), _) if trouble.held_since.is_some() => {
            (Level::Bad, "is no more (410): all is held", trouble.held_since)
        }
        (Some((trouble, since)), _) if trouble.refused => (Level::Bad, "refuses", Some(since)),
        (_, Some(stuck)) if resting.is_some() => (Level::Bad, "is away: probed only", Some(stuck.since)),
        (_, Some(stuck)) => (Level::Bad, "does not take what it is sent", Some(stuck.since)),
        (Some((trouble, since)), None) if trouble.dead => (Level::Warn, "some was given up", Some(since)),
        (_, None) if pending > 0 => (Level::Quiet, "under way", None),
        (_, None) => (Level::Good, "nothing waits", None),
    };
    ReceiverRow {
        name: line(name.as_str(), NAME_MAX),
        level,
        state,
        since: since.map(|at| Moment::new(at, now)),
        why: stuck.map(|stuck| line(&stuck.note, REASON_MAX)).unwrap_or_default(),
        attempts: stuck.map_or(0, |stuck| stuck.attempts),
        next: stuck.map(|stuck| stuck.due_at.max(resting.unwrap_or_default())).map(|at| Moment::new(at.max(now), now)),
        pending,
        oldest: outbox.and_then(|outbox| outbox.oldest_at).map(|at| Moment::new(at, now)),
        held: outbox.map_or(0, |outbox| many(outbox.held)),
        dead: outbox.map_or(0, |outbox| many(outbox.dead)),
    }
}

/// The first of each receiver that is stuck, then what was given up.
fn undelivered(setup: &Setup, glance: &Glance, dead: &[Delivery], now: Timestamp) -> Rows<UndeliveredRow> {
    let told = |name: &ReceiverName| !FollowUp::is_receiver(name);
    let queues = || glance.queues.iter().filter(|queue| told(&queue.outbox.receiver));
    let stuck = queues().filter_map(|queue| Some((&queue.outbox.receiver, queue.stuck.as_ref()?)));
    let stuck = stuck.map(|(receiver, stuck)| UndeliveredRow {
        id: stuck.id.as_str().to_owned(),
        title: line(&stuck.title, REASON_MAX),
        receiver: line(receiver.as_str(), NAME_MAX),
        level: Level::Bad,
        state: "not delivered yet",
        at: Moment::new(stuck.since, now),
        attempts: stuck.attempts,
        why: line(&stuck.note, REASON_MAX),
        again: setup.receivers.contains(receiver),
    });
    let mut rows: Vec<UndeliveredRow> = stuck.collect();
    let total = rows.len() + queues().map(|queue| many(queue.outbox.dead)).sum::<usize>();
    rows.truncate(NAMED_MAX);
    let dead = dead.iter().filter(|delivery| told(&delivery.receiver)).take(ROWS_MAX);
    rows.extend(dead.map(|delivery| UndeliveredRow {
        id: delivery.id.as_str().to_owned(),
        title: line(&delivery.title, REASON_MAX),
        receiver: line(delivery.receiver.as_str(), NAME_MAX),
        level: Level::Warn,
        state: "given up",
        at: Moment::new(delivery.ended_at.unwrap_or(delivery.created_at), now),
        attempts: delivery.attempts,
        why: line(&delivery.note, REASON_MAX),
        again: setup.receivers.contains(&delivery.receiver),
    }));
    Rows { more: total.saturating_sub(rows.len()), rows, total, uncounted: false }
}

fn silence_row(silence: &Silence, now: Timestamp) -> SilenceRow {
    SilenceRow {
        id: silence.id.clone(),
        matchers: silence.matchers.iter().map(|matcher| line(matcher, REASON_MAX)).collect(),
        begins: (silence.starts_at > now).then(|| Moment::new(silence.starts_at, now)),
        ends: Moment::new(silence.ends_at, now),
        author: line(&silence.author, NAME_MAX),
        comment: line(&silence.comment, REASON_MAX),
    }
}

fn waiting_row(listed: &Listed, now: Timestamp) -> WaitingRow {
    WaitingRow {
        id: listed.id.as_str().to_owned(),
        name: line(listed.name.as_str(), NAME_MAX),
        title: line(&listed.title, REASON_MAX),
        at: Moment::new(listed.created_at, now),
    }
}

fn verdict(sources: &[SourceRow], receivers: &[ReceiverRow], waiting: &Rows<WaitingRow>, agent: &AgentRow) -> Verdict {
    let mut points = Vec::new();
    let mut say = |level, text: String, part| points.push(Point { level, text, part });
    if let Some(why) = &agent.unread {
        say(Level::Bad, format!("the state cannot be read, and this page is old: {why}"), "agent");
    }
    if !agent.steady {
        say(Level::Bad, "a loop of the agent stands still".to_owned(), "agent");
    }
    let blind: Vec<&SourceRow> = sources.iter().filter(|source| source.level == Level::Bad).collect();
    match blind.as_slice() {
        [] => {}
        [one] => {
            let since = one.since.as_ref().map_or_else(String::new, |since| format!(" since {} UTC", since.clock));
            say(Level::Bad, format!("{} is not seen{since}", one.name), "sources");
        }
        many => {
            let names = names(many.iter().map(|source| source.name.as_str()));
            say(
                Level::Bad,
                format!("{} of {} are not seen: {names}", many.len(), plural(sources.len(), "source")),
                "sources",
            );
        }
    }
    let unseen = sources.iter().filter(|source| source.level == Level::Warn).count();
    if unseen > 0 {
        say(Level::Warn, format!("{} not seen yet", plural(unseen, "source")), "sources");
    }
    let stuck: Vec<&ReceiverRow> = receivers.iter().filter(|receiver| receiver.level == Level::Bad).collect();
    if !stuck.is_empty() {
        let names = names(stuck.iter().map(|receiver| receiver.name.as_str()));
        let (who, verb) = (plural(stuck.len(), "receiver"), if stuck.len() == 1 { "does" } else { "do" });
        say(
            Level::Bad,
            format!("{who} {verb} not take what {} sent: {names}", if stuck.len() == 1 { "it is" } else { "they are" }),
            "receivers",
        );
    }
    let dead: usize = receivers.iter().map(|receiver| receiver.dead).sum();
    if dead > 0 {
        say(Level::Warn, format!("{} given up", deliveries(dead)), "undelivered");
    }
    if agent.refused.is_some() {
        say(Level::Warn, "the rules on disk cannot be used; older ones are in force".to_owned(), "agent");
    }
    if waiting.total > 0 {
        let more = if waiting.uncounted { "more than " } else { "" };
        say(Level::Warn, format!("{more}{} for somebody's word", waits(waiting.total)), "follow-ups");
    }
    let level = points.iter().map(|point| point.level).max().unwrap_or(Level::Good);
    let headline = match points.len() {
        0 if sources.len() == 1 => "The source is seen, and nothing is stuck".to_owned(),
        0 => format!("All {} are seen, and nothing is stuck", plural(sources.len(), "source")),
        1 => "One thing needs attention".to_owned(),
        many => format!("{many} things need attention"),
    };
    Verdict { level, headline, points }
}

impl Verdict {
    /// More that needs attention.
    fn add(&mut self, points: Vec<Point>) {
        if points.is_empty() {
            return;
        }
        self.points.extend(points);
        self.level = self.points.iter().map(|point| point.level).max().unwrap_or(Level::Good);
        self.headline = match self.points.len() {
            1 => "One thing needs attention".to_owned(),
            many => format!("{many} things need attention"),
        };
    }
}

fn deliveries(count: usize) -> String {
    if count == 1 { "1 delivery was".to_owned() } else { format!("{} deliveries were", number(count)) }
}

fn waits(count: usize) -> String {
    if count == 1 { "1 follow-up waits".to_owned() } else { format!("{count} follow-ups wait") }
}

/// The first names, and how many more there are.
fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let first = names.take(NAMES_MAX).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

fn figures(
    sources: &[SourceRow],
    present: &BTreeMap<String, usize>,
    under_way: usize,
    timeline: Option<&Timeline>,
    receivers: &[ReceiverRow],
) -> Vec<Figure> {
    let seen = sources.iter().filter(|source| source.level == Level::Good).count();
    let failed = timeline.and_then(|timeline| Some((timeline.strips.first()?.figure, timeline.span)));
    let (failed, span) = failed.unwrap_or((0, "24 hours"));
    let owed = receivers.iter().map(|receiver| receiver.pending + receiver.held).sum();
    let stuck = receivers.iter().any(|receiver| receiver.level == Level::Bad);
    let level = |bad: bool, level| if bad { level } else { Level::Quiet };
    let figure = |name: &str, value, of, level, part| Figure { name: name.to_owned(), value, of, level, part };
    vec![
        figure("Sources seen", seen, Some(sources.len()), level(seen < sources.len(), Level::Bad), "sources"),
        figure("Jobs", present.values().sum(), None, Level::Quiet, "sources"),
        figure("Under way", under_way, None, Level::Quiet, "running"),
        figure(&format!("Failed in the last {span}"), failed, None, level(failed > 0, Level::Bad), "failures"),
        figure("Waiting to be told", owed, None, level(owed > 0 && stuck, Level::Bad), "receivers"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Level, Moment, ROWS_MAX, Reading, Timestamp, View, number};
    use crate::model::delivery::DeliveryState;
    use crate::model::job::{Job, Status};
    use crate::model::memory::Sight;
    use crate::model::name::SourceName;
    use crate::model::snapshot::Known;
    use crate::ops::page::Setup;
    use crate::ops::page::witness::{Fault, Witnessed};
    use crate::store::glance::{Glance, Queue, Stuck};
    use crate::store::view::{OutboxView, SourceView};
    use crate::store::{Delivery, Trouble};

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn ago(seconds: i64) -> Timestamp {
        Timestamp::from_micros(NOW.micros() - seconds * 1_000_000)
    }

    fn setup(sources: &[&str], receivers: &[&str]) -> Setup {
        Setup {
            sources: sources.iter().map(|name| SourceName::from(*name)).collect(),
            receivers: receivers.iter().map(|name| (*name).into()).collect(),
            started: ago(90),
        }
    }

    fn seen(name: &str, sight: Sight) -> SourceView {
        SourceView {
            name: name.into(),
            complete_at: Some(ago(5)),
            blind_since: sight.blind_since,
            told_since: None,
            jobs: [("Running".to_owned(), 30), ("Success".to_owned(), 9_970)].into(),
            gone: 0,
        }
    }

    fn view(setup: &Setup, glance: &Glance, witnessed: &Witnessed) -> View {
        View::of(Reading {
            setup,
            glance,
            dead: &[],
            replicas: &[],
            faults: &HashMap::new(),
            witnessed,
            steady: true,
            unread: None,
            now: NOW,
        })
    }

    #[test]
    fn when_all_is_well_the_page_says_so_in_words() {
        let setup = setup(&["prod"], &["oncall"]);
        let glance = Glance { sources: vec![seen("prod", Sight::default())], ..Glance::default() };
        let view = view(&setup, &glance, &Witnessed::default());
        assert_eq!(view.verdict.headline, "The source is seen, and nothing is stuck");
        assert_eq!((view.verdict.level, view.verdict.points.len()), (Level::Good, 0));
        assert_eq!(view.title, "all well – jobwatch");
        assert_eq!(view.receivers.rows[0].state, "nothing waits");
    }

    #[test]
    fn what_is_wrong_is_named_worst_first_with_since_when_and_why() {
        let setup = setup(&["a", "b", "c"], &["fine", "stuck"]);
        let blind = Sight { blind_since: Some(ago(300)), ..Sight::default() };
        let outbox = OutboxView {
            receiver: "stuck".into(),
            pending: 12,
            oldest_at: Some(ago(600)),
            held: 0,
            dead: 1,
            trouble: Trouble::default(),
        };
        let note = "HTTP 503\r\nno".to_owned();
        let (id, title) = ("msg_a".into(), "prod-a failed".to_owned());
        let stuck = Stuck { id, title, attempts: 3, since: ago(590), note, due_at: ago(-30) };
        let glance = Glance {
            sources: vec![seen("a", Sight::default()), seen("b", blind)],
            queues: vec![Queue { outbox, trouble_since: None, stuck: Some(stuck) }],
            ..Glance::default()
        };
        let mut witnessed =
            Witnessed { refused: Some((ago(60), vec!["f.toml:1:1: no".into()])), ..Witnessed::default() };
        witnessed.faults.insert("b".into(), Fault { since: ago(300), why: "HTTP 401".into() });
        let view = view(&setup, &glance, &witnessed);
        let said: Vec<&str> = view.verdict.points.iter().map(|point| point.text.as_str()).collect();
        assert_eq!(
            said,
            [
                "b is not seen since 07:55 UTC",
                "1 source not seen yet",
                "1 receiver does not take what it is sent: stuck",
                "1 delivery was given up",
                "the rules on disk cannot be used; older ones are in force",
            ]
        );
        assert_eq!(view.verdict.headline, "5 things need attention");
        let names: Vec<&str> = view.sources.rows.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(view.sources.rows[0].why.as_deref(), Some("HTTP 401"));
        let stuck = &view.receivers.rows[0];
        assert_eq!((stuck.name.as_str(), stuck.why.as_str(), stuck.pending), ("stuck", "HTTP 503  no", 12));
    }

    #[test]
    fn what_is_stuck_or_was_given_up_can_be_sent_again_where_somebody_is_there_to_send_it() {
        let queue = |name: &str, dead, stuck| {
            let trouble = Trouble::default();
            let outbox = OutboxView { receiver: name.into(), pending: 1, oldest_at: None, held: 0, dead, trouble };
            Queue { outbox, trouble_since: None, stuck }
        };
        let stuck = |id: &str| Stuck {
            id: id.into(),
            title: format!("title\u{202e} of {id}"),
            attempts: 3,
            since: ago(60),
            note: "HTTP 503".into(),
            due_at: NOW,
        };
        let queues = vec![
            queue("follow_up/remove", 7, Some(stuck("fup_a"))),
            queue("oncall", 20, Some(stuck("msg_a"))),
            queue("removed", 0, Some(stuck("msg_b"))),
        ];
        let glance = Glance { queues, ..Glance::default() };
        let dead = |id: &str, receiver: &str| Delivery {
            id: id.into(),
            receiver: receiver.into(),
            source: "prod".into(),
            subject: "a".into(),
            event: "io.jobwatch.job.failed".into(),
            title: "given up".into(),
            state: DeliveryState::Dead,
            created_at: ago(900),
            due_at: ago(100),
            parked: false,
            attempts: 9,
            note: "HTTP 403".into(),
            ended_at: Some(ago(90)),
        };
        let dead = [dead("fup_b", "follow_up/remove"), dead("msg_c", "oncall")];
        let (setup, witnessed) = (setup(&[], &["oncall"]), Witnessed::default());
        let reading = Reading {
            setup: &setup,
            glance: &glance,
            dead: &dead,
            replicas: &[],
            faults: &HashMap::new(),
            witnessed: &witnessed,
            steady: true,
            unread: None,
            now: NOW,
        };
        let View { undelivered, .. } = View::of(reading);
        let rows: Vec<_> = undelivered.rows.iter().map(|row| (row.id.as_str(), row.state, row.again)).collect();
        assert_eq!(
            rows,
            [("msg_a", "not delivered yet", true), ("msg_b", "not delivered yet", false), ("msg_c", "given up", true)]
        );
        assert_eq!((undelivered.total, undelivered.more), (22, 19), "a follow-up is never done again");
        assert_eq!(undelivered.rows[0].title, "title of msg_a");
    }

    #[test]
    fn a_list_shows_its_first_rows_and_says_how_many_more_there_are() {
        let known = |n: i64| Known {
            job: Job::bare(format!("j{n}"), Status::Running),
            seq: 1,
            status_since: ago(9_000 - n),
            seen_at: NOW,
            missing: 0,
            stale: 0,
            gone: false,
        };
        let glance = Glance {
            sources: vec![seen("prod", Sight::default())],
            unfinished: (0..13).map(|n| ("prod".into(), known(n))).collect(),
            ..Glance::default()
        };
        let running = view(&setup(&["prod"], &[]), &glance, &Witnessed::default()).running;
        assert_eq!((running.rows.len(), running.total, running.more), (ROWS_MAX, 30, 18));
        assert_eq!(running.rows[0].lasts, "2 h");
    }

    #[test]
    fn moments_read_as_people_say_them_and_stand_still_for_a_while() {
        let said = |seconds| {
            let moment = Moment::new(ago(seconds), NOW);
            (moment.clock, moment.words)
        };
        let pair = |clock: &str, words: &str| (clock.to_owned(), words.to_owned());
        assert_eq!(said(3), pair("07:59", "under a minute ago"));
        assert_eq!(said(119), pair("07:58", "1 min ago"));
        assert_eq!(said(3_700), pair("06:58", "1 h 1 min ago"));
        assert_eq!(said(3_600), pair("07:00", "1 h ago"));
        assert_eq!(said(86_400), pair("01-14 08:00", "1 d ago"));
        assert_eq!(said(-7_300), pair("10:01", "in 2 h"));
        assert_eq!([number(7), number(1_000), number(1_234_567)], ["7", "1,000", "1,234,567"]);
    }
}
