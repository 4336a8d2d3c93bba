//! The metrics: what is counted while it happens, and what is asked of the state when somebody looks.
//!
//! Every series of a source, receiver or rule that there is exists from the start, with 0: an alert on what has not happened
//! works, and the first time is an increase. What the cloud calls a status is any text: only so many words become labels.

mod catalogue;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing::debug;

pub use catalogue::{CATALOGUE, Entry, Kind};

use crate::agent::{Observer, Seen};
use crate::model::delivery::Verdict;
use crate::model::job::Status;
use crate::model::listing::{Fault, FaultKind};
use crate::model::name::{ReceiverName, RuleId, SourceName};
use crate::model::text::line;
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};
use crate::store::{self, Gauges, Store};
use text::Form;

/// From a page of a small listing to the longest that a poll may take.
const POLL_SECONDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// From a webhook that is answered at once, over a group that gathers, to a receiver that was away for days.
const LATENCY_SECONDS: [f64; 13] =
    [0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];
/// Statuses that the specification does not have and that are named; those beyond them are one.
const STATUSES_MAX: usize = 10;
/// As much of such a status is shown.
const STATUS_MAX: usize = 40;
/// The name of those beyond them.
const OTHER: &str = "other";

const POLL_OUTCOMES: [&str; 5] = ["complete", "incomplete", "unauthorized", "throttled", "failed"];
const OUTCOMES: [&str; 4] = ["accepted", "refused", "retired", "unreachable"];
/// What happens to leases.
const LEASE_CHANGES: [&str; 2] = ["taken", "lost"];
const VERDICTS: [&str; 2] = ["delivered", "dead"];

/// What there is to be measured.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// What is watched.
    pub sources: Vec<SourceName>,
    /// Who hears.
    pub receivers: Vec<ReceiverName>,
    /// What is in force.
    pub rules: Vec<RuleId>,
}

/// An answer to a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// How the text is to be read.
    pub content_type: &'static str,
    /// All series.
    pub text: String,
}

/// What is counted and measured.
pub struct Metrics {
    registry: Registry,
    store: Arc<dyn Store>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    polls: Series<2, Counter>,
    poll_duration: Series<1, Histogram>,
    complete_at: Series<1, Seconds>,
    jobs: Series<2, Gauge>,
    transitions: Series<3, Counter>,
    rule_matches: Series<1, Counter>,
    attempts: Series<2, Counter>,
    deliveries: Series<2, Counter>,
    pending: Series<1, Gauge>,
    oldest: Series<1, Seconds>,
    latency: Series<1, Histogram>,
    leases: Gauge,
    lease_changes: Series<1, Counter>,
    replicas: Gauge,
    reload_successful: Gauge,
    reload_success_at: Seconds,
    sources: Vec<SourceName>,
    state: Mutex<Memory>,
}

type Seconds = Gauge<f64, AtomicU64>;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Statuses that the specification does not have, as far as they are named.
    statuses: BTreeSet<String>,
    /// Sources whose jobs changed since they were last counted.
    uncounted: BTreeSet<SourceName>,
    /// Receivers that have a backlog, or had one.
    receivers: BTreeSet<ReceiverName>,
    /// The rules in force.
    rules: BTreeSet<RuleId>,
}

/// The labels of a series, with their values.
type Labels<const N: usize> = [(&'static str, String); N];

/// All series of one metric.
struct Series<const N: usize, M> {
    labels: &'static [&'static str],
    family: Family<Labels<N>, M, fn() -> M>,
}

impl<const N: usize, M> Series<N, M>
where
    M: EncodeMetric + TypedMetric + Clone + fmt::Debug + Send + Sync + 'static,
{
    fn new(registry: &mut Registry, entry: &Entry, make: fn() -> M) -> Self {
        assert_eq!(entry.labels.len(), N, "{}", entry.name);
        let family = Family::new_with_constructor(make);
        // The library adds it to a counter's name.
        let name = match entry.kind {
            Kind::Counter => entry.name.trim_end_matches("_total"),
            Kind::Gauge | Kind::Histogram => entry.name,
        };
        registry.register(name, entry.help, family.clone());
        Self { labels: entry.labels, family }
    }

    /// The series with these values of its labels; it exists from now on.
    fn at(&self, values: [&str; N]) -> M {
        self.family.get_or_create_owned(&self.named(values))
    }

    /// The same, if it exists.
    fn found(&self, values: [&str; N]) -> Option<M> {
        self.family.get(&self.named(values)).map(|found| found.clone())
    }

    fn remove(&self, values: [&str; N]) {
        self.family.remove(&self.named(values));
    }

    fn named(&self, values: [&str; N]) -> Labels<N> {
        std::array::from_fn(|at| (self.labels[at], values[at].to_owned()))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn as_number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    /// Every series of these subjects, at 0. The rules in force were read now.
    pub fn new(subjects: Subjects, store: Arc<dyn Store>, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let (polls, poll_duration) = (
            Series::new(r, &catalogue::POLLS, Counter::default),
            Series::new(r, &catalogue::POLL_DURATION, || Histogram::new(POLL_SECONDS)),
        );
        let complete_at = Series::new(r, &catalogue::COMPLETE_AT, Seconds::default);
        let jobs = Series::new(r, &catalogue::JOBS, Gauge::default);
        let transitions = Series::new(r, &catalogue::TRANSITIONS, Counter::default);
        let rule_matches = Series::new(r, &catalogue::RULE_MATCHES, Counter::default);
        let attempts = Series::new(r, &catalogue::ATTEMPTS, Counter::default);
        let deliveries = Series::new(r, &catalogue::DELIVERIES, Counter::default);
        let pending = Series::new(r, &catalogue::PENDING, Gauge::default);
        let oldest = Series::new(r, &catalogue::OLDEST, Seconds::default);
        let latency = Series::new(r, &catalogue::LATENCY, || Histogram::new(LATENCY_SECONDS));
        let (leases, replicas) = (Gauge::default(), Gauge::default());
        r.register(catalogue::LEASES.name, catalogue::LEASES.help, leases.clone());
        let lease_changes = Series::new(r, &catalogue::LEASE_CHANGES, Counter::default);
        LEASE_CHANGES.iter().for_each(|change| drop(lease_changes.at([change])));
        r.register(catalogue::REPLICAS.name, catalogue::REPLICAS.help, replicas.clone());
        let (reload_successful, reload_success_at) = (Gauge::default(), Seconds::default());
        let (flag, moment) = (&catalogue::RELOAD_SUCCESSFUL, &catalogue::RELOAD_SUCCESS_AT);
        r.register(flag.name, flag.help, reload_successful.clone());
        r.register(moment.name, moment.help, reload_success_at.clone());
        let build = Series::<1, Gauge>::new(r, &catalogue::BUILD_INFO, Gauge::default);
        build.at([env!("CARGO_PKG_VERSION")]).set(1);
        let Subjects { sources, receivers, rules } = subjects;
        let state = Memory {
            uncounted: sources.iter().cloned().collect(),
            receivers: receivers.iter().cloned().collect(),
            ..Memory::default()
        };
        let metrics = Self {
            registry,
            store,
            now: Box::new(now),
            polls,
            poll_duration,
            complete_at,
            jobs,
            transitions,
            rule_matches,
            attempts,
            deliveries,
            pending,
            oldest,
            latency,
            leases,
            lease_changes,
            replicas,
            reload_successful,
            reload_success_at,
            sources,
            state: Mutex::new(state),
        };
        metrics.sources.iter().for_each(|source| metrics.expect_source(source.as_str()));
        receivers.iter().for_each(|receiver| metrics.expect_receiver(receiver.as_str()));
        metrics.reloaded(&rules, (metrics.now)());
        metrics
    }

    fn expect_source(&self, source: &str) {
        for outcome in POLL_OUTCOMES {
            self.polls.at([source, outcome]);
        }
        self.poll_duration.at([source]);
        self.complete_at.at([source]);
        for status in &Status::KNOWN {
            self.jobs.at([source, status.as_str()]);
        }
        // Those that somebody waits for: the ends of what has not ended.
        let (ended, under_way): (Vec<Status>, Vec<Status>) = Status::KNOWN.into_iter().partition(Status::is_final);
        for to in &ended {
            for from in under_way.iter().map(Status::as_str).chain(["unseen"]) {
                self.transitions.at([source, from, to.as_str()]);
            }
        }
    }

    fn expect_receiver(&self, receiver: &str) {
        for outcome in OUTCOMES {
            self.attempts.at([receiver, outcome]);
        }
        for verdict in VERDICTS {
            self.deliveries.at([receiver, verdict]);
        }
        self.pending.at([receiver]);
        self.oldest.at([receiver]);
        self.latency.at([receiver]);
    }

    /// All of them, as the `Accept` header of a request wants them. When the state does not answer, what is asked of it is as
    /// it was.
    pub async fn scrape(&self, accept: Option<&str>) -> Scrape {
        let counted = std::mem::take(&mut self.state().uncounted);
        match self.store.gauges(counted.iter().cloned().collect()).await {
            Ok(gauges) => self.take(&counted, &gauges),
            Err(error) => {
                self.state().uncounted.extend(counted);
                debug!("the state could not be measured: {error}");
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes what is written to it");
        let form = Form::wanted(accept);
        Scrape { content_type: form.content_type(), text: form.of(text) }
    }

    fn take(&self, counted: &BTreeSet<SourceName>, gauges: &Gauges) {
        for seeing in gauges.seeing.iter().filter(|seeing| self.sources.contains(&seeing.source)) {
            let at = seeing.complete_at.map_or(0.0, seconds);
            self.complete_at.at([seeing.source.as_str()]).set(at);
        }
        self.count(counted, gauges);
        let (mut state, now) = (self.state(), (self.now)());
        state.receivers.extend(gauges.outbox.iter().map(|backlog| backlog.receiver.clone()));
        for receiver in &state.receivers {
            let backlog = gauges.outbox.iter().find(|backlog| backlog.receiver == *receiver);
            let pending = backlog.map_or(0, |backlog| i64::try_from(backlog.pending).unwrap_or(i64::MAX));
            self.pending.at([receiver.as_str()]).set(pending);
            let age = backlog.map_or(0.0, |backlog| now.since(backlog.oldest).as_secs_f64());
            self.oldest.at([receiver.as_str()]).set(age);
        }
    }

    /// Jobs by status, of those sources that were counted.
    fn count(&self, counted: &BTreeSet<SourceName>, gauges: &Gauges) {
        let mut counts: BTreeMap<(&SourceName, String), i64> = BTreeMap::new();
        for (source, status, count) in &gauges.jobs {
            *counts.entry((source, self.word(status))).or_default() += i64::try_from(*count).unwrap_or(i64::MAX);
        }
        let known = Status::KNOWN.map(|status| status.as_str().to_owned());
        let words: Vec<String> =
            known.into_iter().chain(self.state().statuses.iter().cloned()).chain([OTHER.to_owned()]).collect();
        for source in counted {
            for word in &words {
                let place = [source.as_str(), word];
                let count = counts.get(&(source, word.clone())).copied();
                // Of those that are no more, there were some once.
                let gauge = count.map(|_| self.jobs.at(place)).or_else(|| self.jobs.found(place));
                if let Some(gauge) = gauge {
                    gauge.set(count.unwrap_or(0));
                }
            }
        }
    }

    /// A status as a label.
    fn word(&self, status: &Status) -> String {
        let Status::Other(word) = status else { return status.as_str().to_owned() };
        let word = line(word, STATUS_MAX);
        let mut state = self.state();
        if state.statuses.contains(&word) {
            return word;
        }
        if state.statuses.len() >= STATUSES_MAX {
            return OTHER.to_owned();
        }
        state.statuses.insert(word.clone());
        word
    }

    fn side(&self, state: &State) -> String {
        match state {
            State::Is(status) => self.word(status),
            State::Unseen | State::Gone => state.to_string(),
        }
    }

    fn moved(&self, source: &SourceName, transition: &Transition) {
        let (from, to) = (self.side(&transition.from), self.side(&transition.to));
        self.transitions.at([source.as_str(), &from, &to]).inc();
    }

    /// A poll that was decided before a reload may name a rule that is no more.
    fn matched(&self, rule: &RuleId) {
        if let Some(counter) = self.rule_matches.found([rule.as_str()]) {
            counter.inc();
        }
    }

    /// Other rules are in force: series of those that are new begin, series of those that are no more end.
    fn reloaded(&self, rules: &[RuleId], at: Timestamp) {
        self.reload_successful.set(1);
        self.reload_success_at.set(seconds(at));
        let mut state = self.state();
        let rules: BTreeSet<RuleId> = rules.iter().cloned().collect();
        state.rules.difference(&rules).for_each(|gone| self.rule_matches.remove([gone.as_str()]));
        for rule in &rules {
            self.rule_matches.at([rule.as_str()]);
        }
        state.rules = rules;
    }

    fn state(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(fault: Option<&Fault>) -> &'static str {
    match fault.map(|fault| fault.kind) {
        None => "complete",
        Some(FaultKind::Shifted | FaultKind::Vanished) => "incomplete",
        Some(FaultKind::Unauthorized) => "unauthorized",
        Some(FaultKind::Throttled) => "throttled",
        Some(FaultKind::Misdirected | FaultKind::Unavailable | FaultKind::Malformed) => "failed",
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.micros() as f64 / 1e6
}

impl Observer for Metrics {
    fn see(&self, seen: &Seen<'_>) {
        match seen {
            Seen::Polled { plan, took, .. } => {
                let source = &plan.source.name;
                self.polls.at([source.as_str(), outcome(plan.fault.as_ref())]).inc();
                self.poll_duration.at([source.as_str()]).observe(took.as_secs_f64());
                let moves = plan.difference.transitions().filter(|transition| !transition.is_change());
                moves.for_each(|transition| self.moved(source, transition));
                plan.matches.iter().for_each(|(rule, _)| self.matched(rule));
                if !plan.difference.changes.is_empty() {
                    self.state().uncounted.insert(source.clone());
                }
            }
            // Another replica has it.
            Seen::PollLost { error: store::Error::Fenced(_), .. } => {}
            Seen::PollLost { source, .. } => {
                self.polls.at([source.as_str(), "failed"]).inc();
            }
            Seen::Attempted { claimed, attempt, verdict } => {
                let receiver = claimed.frozen.receiver.as_str();
                self.attempts.at([receiver, attempt.outcome.as_str()]).inc();
                match verdict {
                    Verdict::Delivered => {
                        self.deliveries.at([receiver, "delivered"]).inc();
                        if let Some(seen_at) = claimed.frozen.seen_at {
                            let accepted = attempt.at.plus(attempt.took);
                            self.latency.at([receiver]).observe(accepted.since(seen_at).as_secs_f64());
                        }
                    }
                    Verdict::Dead => {
                        self.deliveries.at([receiver, "dead"]).inc();
                    }
                    Verdict::RetryAt(_) | Verdict::Held => {}
                }
            }
            Seen::Leased { held, new, lost, living } => {
                self.leases.set(as_number(*held));
                self.replicas.set(as_number(*living));
                let [taken, gone] = LEASE_CHANGES;
                self.lease_changes.at([taken]).inc_by(u64::try_from(*new).unwrap_or(0));
                self.lease_changes.at([gone]).inc_by(u64::try_from(*lost).unwrap_or(0));
            }
            Seen::RulesTaken { at, rules, .. } => self.reloaded(rules, *at),
            Seen::RulesRefused { .. } => {
                self.reload_successful.set(0);
            }
            Seen::Remarked { .. }
            | Seen::Escalated { .. }
            | Seen::Lapsed { .. }
            | Seen::Rested { .. }
            | Seen::Recovered { .. }
            | Seen::FollowedUp { .. }
            | Seen::Beaten { .. }
            | Seen::Returned { .. }
            | Seen::Pruned { .. }
            | Seen::Oversized { .. }
            | Seen::StoreFailed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CATALOGUE, Gauges, Kind, Metrics, SourceName, Status, Subjects, Timestamp};
    use crate::store;

    fn metrics() -> Metrics {
        let subjects = Subjects {
            sources: vec!["prod".into()],
            receivers: vec!["oncall".into()],
            rules: vec!["create-failed".into()],
        };
        Metrics::new(subjects, store::nothing(), || Timestamp::from_micros(1_500_000))
    }

    #[tokio::test]
    async fn the_text_has_every_metric_of_the_catalogue_with_its_type_and_labels_and_no_other() {
        let text = metrics().scrape(None).await.text;
        let lines = |head: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(head)).map(ToOwned::to_owned).collect()
        };
        let meant = |said: &dyn Fn(&super::Entry) -> String| CATALOGUE.iter().map(said).collect::<Vec<String>>();
        assert_eq!(lines("# HELP "), meant(&|entry| format!("{} {}.", entry.name, entry.help)));
        assert_eq!(lines("# TYPE "), meant(&|entry| format!("{} {}", entry.name, entry.kind.as_str())));
        for entry in CATALOGUE {
            let name = match entry.kind {
                Kind::Histogram => format!("{}_count", entry.name),
                Kind::Counter | Kind::Gauge => entry.name.to_owned(),
            };
            let begins = |line: &&str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            let line = text.lines().find(begins).unwrap_or_else(|| panic!("no series of {name}"));
            let labels: Vec<&str> =
                line.split(['{', ',']).skip(1).filter_map(|part| Some(part.split_once('=')?.0)).collect();
            assert_eq!(labels, entry.labels, "{line}");
        }
        assert!(text.contains("\njobwatch_config_last_reload_success_timestamp_seconds 1.5\n"), "{text}");
    }

    #[tokio::test]
    async fn of_statuses_that_nobody_documented_ten_are_named_and_the_others_are_one() {
        let metrics = metrics();
        let source = SourceName::from("prod");
        let jobs =
            |from: u64| (from..from + 50).map(|n| (source.clone(), Status::read(&format!("S{n:02}")), n)).collect();
        let counted = [source.clone()].into();
        metrics.take(&counted, &Gauges { jobs: jobs(0), ..Gauges::default() });
        let series = async || -> Vec<(String, i64)> {
            let text = metrics.scrape(None).await.text;
            let all = text.lines().filter_map(|line| line.strip_prefix("jobwatch_jobs{source=\"prod\",status=\""));
            let mut all: Vec<(String, i64)> = all
                .filter_map(|line| line.split_once("\"} "))
                .map(|(word, count)| (word.to_owned(), count.parse().unwrap()))
                .filter(|(word, _)| word.starts_with(['S', 'o']) && word != "Success")
                .collect();
            all.sort();
            all
        };
        let named = |of: &dyn Fn(i64) -> i64| (0..10).map(|n| (format!("S{n:02}"), of(n))).collect::<Vec<_>>();
        let sum: i64 = (10..50).sum();
        assert_eq!(metrics.jobs.at(["prod", "other"]).get(), sum);
        assert_eq!(metrics.jobs.at(["prod", "S07"]).get(), 7);
        metrics.take(&counted, &Gauges::default());
        let mut none = named(&|_| 0);
        none.push(("other".into(), 0));
        assert_eq!(series().await, none, "those that are no more are 0");
    }
}
