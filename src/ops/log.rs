//! One structured line for each thing that happened.
//!
//! `error`: somebody must act. `warn`: something is wrong and jobwatch goes on. `info`: what an operator would tell a
//! colleague. `debug`: every poll and attempt.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::{debug, error, info, warn};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::agent::{Observer, Seen};
use crate::model::delivery::{Outcome, Verdict};
use crate::model::follow_up::Ending;
use crate::model::job::Status;
use crate::model::name::SourceName;
use crate::model::text::line;
use crate::model::transition::State;
use crate::store;

/// A field is cut here; a webhook and the state have all of it.
const FIELD_MAX: usize = 1_000;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// To the journal, with its fields.
    Journal,
}

/// Starts logging to standard error, or to the journal. `directives` is in the form of `RUST_LOG`.
///
/// # Errors
/// The journal does not answer, or the directives cannot be read.
pub fn init(format: Format, directives: &str, colour: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives).map_err(|error| format!("RUST_LOG: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_timer(SystemTime)
                .with_ansi(colour && std::io::stderr().is_terminal());
            registry.with(layer).try_init()
        }
        Format::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
        Format::Journal => {
            let layer = tracing_journald::layer().map_err(|error| format!("the journal does not answer: {error}"))?;
            registry.with(layer).try_init()
        }
    };
    started.map_err(|error| error.to_string())
}

/// Writes what happens. What goes on is a warning once and again when it changes, not at every poll.
#[derive(Debug, Default)]
pub struct Log {
    faults: Mutex<HashMap<SourceName, String>>,
    unreadable: Mutex<HashMap<SourceName, usize>>,
    remarks: Mutex<HashMap<SourceName, Vec<String>>>,
    unknown: Mutex<HashSet<String>>,
    store_failures: AtomicU64,
}

impl Observer for Log {
    fn see(&self, seen: &Seen<'_>) {
        match seen {
            Seen::Polled { plan, deliveries, took } => {
                let source = plan.source.name.as_str();
                self.sight(
                    &plan.source.name,
                    plan.fault.as_ref().map(|fault| (fault.kind.as_str(), fault.text.as_str())),
                );
                self.rows(&plan.source.name, plan.unreadable);
                if plan.difference.baseline {
                    info!(
                        source,
                        jobs = plan.jobs,
                        "baseline: these jobs are known now, and changes from here on are told"
                    );
                }
                for transition in plan.difference.transitions() {
                    self.status(source, &transition.to);
                    let job = &transition.job;
                    info!(
                        source,
                        job = tame(job.id.as_str()),
                        name = tame(job.resource_name.as_deref().unwrap_or_default()),
                        r#type = tame(job.kind.as_deref().unwrap_or_default()),
                        from = tame(&transition.from.to_string()),
                        to = tame(&transition.to.to_string()),
                        reason = tame(job.reason.as_deref().unwrap_or_default()),
                        late = transition.late,
                        "transition"
                    );
                }
                for fault in &plan.faults {
                    error!(source, "a template failed, the built-in text was sent: {}", tame(fault));
                }
                debug!(source, jobs = plan.jobs, deliveries, took = ?took, complete = plan.complete, "polled");
            }
            Seen::Remarked { source, remarks } => self.remarked(source, remarks),
            Seen::Attempted { claimed, attempt, verdict } => {
                let (receiver, id, title) =
                    (claimed.frozen.receiver.as_str(), claimed.frozen.id.as_str(), claimed.frozen.title.as_str());
                let (tries, answer) = (claimed.tries + 1, attempt.outcome.detail());
                match (&attempt.outcome, verdict) {
                    (_, Verdict::Dead) => {
                        error!(receiver, id, title, tries, answer, "given up: the delivery is dead");
                    }
                    (Outcome::Accepted { .. }, _) => info!(receiver, id, title, tries, answer, "delivered"),
                    (Outcome::Refused { .. }, Verdict::RetryAt(at)) => {
                        error!(receiver, id, title, tries, answer, next = %at, "refused: somebody must mend this");
                    }
                    (Outcome::Unreachable { .. }, Verdict::RetryAt(at)) => {
                        warn!(receiver, id, title, tries, answer, next = %at, "not delivered, will be tried again");
                    }
                    (_, Verdict::Held) | (Outcome::Retired { .. }, _) => {
                        error!(receiver, id, title, tries, answer, "the receiver is no more: its deliveries are held");
                    }
                    (Outcome::Refused { .. } | Outcome::Unreachable { .. }, Verdict::Delivered) => {}
                }
            }
            Seen::Escalated { receiver, count } => {
                let receiver = receiver.as_str();
                error!(receiver, count, "urgent deliveries were not accepted in time and went to the fallback as well");
            }
            Seen::Lapsed { receiver, count } => {
                error!(receiver = receiver.as_str(), count, "deliveries were given up: not accepted within their time");
            }
            Seen::Rested { receiver, until } => {
                warn!(receiver = receiver.as_str(), next = %until, "the receiver is away: only a probe goes to it");
            }
            Seen::Recovered { receiver } => info!(receiver = receiver.as_str(), "the receiver is back"),
            Seen::FollowedUp { follow_up, report } => {
                let (id, name, job) = (report.id.as_str(), report.name.as_str(), follow_up.lane());
                let (job, what) = (tame(job.subject.as_str()), tame(&report.what));
                match report.outcome {
                    Ending::Done | Ending::DryRun => info!(id, name, job, what, "follow-up"),
                    Ending::NotDone | Ending::Waiting => warn!(id, name, job, what, "follow-up"),
                    Ending::Failed | Ending::Unknown => error!(id, name, job, what, "follow-up"),
                }
            }
            Seen::Returned { receiver, count } => {
                let receiver = receiver.as_str();
                warn!(receiver, count, "deliveries did not end in time and went back to the outbox");
            }
            Seen::Pruned { removed, kept_from, room, took, longest } => {
                let (removed, used, free) = (*removed, room.used, room.free);
                match removed {
                    0 => {
                        debug!(kept_from = %kept_from, used, free, took = ?took, "nothing is old enough to be forgotten")
                    }
                    _ => {
                        info!(removed, kept_from = %kept_from, used, free, took = ?took, longest = ?longest, "old history was forgotten")
                    }
                }
            }
            Seen::Oversized { used, excess } => warn!(
                used,
                excess,
                "the state is larger than [retention] size_max, and nothing more of it can be forgotten: `jobwatch state info` \
                 says what it holds"
            ),
            Seen::StoreFailed { doing, error } => self.store_failed(doing, error),
            Seen::RulesTaken { by, rules, warnings, .. } => {
                warnings.iter().for_each(|line| warn!("{line}"));
                info!(by = by.as_str(), rules = rules.len(), "the rules were read anew and are in force");
            }
            Seen::RulesRefused { by, errors, warnings } => {
                warnings.iter().for_each(|line| warn!("{line}"));
                errors.iter().for_each(|line| error!("{line}"));
                error!(
                    by = by.as_str(),
                    errors = errors.len(),
                    "the rules on disk cannot be used: the old ones stay in force"
                );
            }
            Seen::PollLost { source, error } => {
                let source = source.as_str();
                error!(source, "the poll could not be kept, the next one finds the same: {error}");
            }
        }
    }
}

/// Text from the cloud in a line of the log: one line, of a length that a journal takes.
fn tame(text: &str) -> String {
    line(text, FIELD_MAX)
}

impl Log {
    /// A remark is made once, and again only when something else was said in between. Numbers in it may change.
    fn remarked(&self, source: &SourceName, remarks: &[String]) {
        let stem = |text: &String| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        let stems: Vec<String> = remarks.iter().map(stem).collect();
        let mut known = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(source.clone()).or_default();
        for (remark, stem) in remarks.iter().zip(&stems) {
            if !before.contains(stem) {
                warn!(source = source.as_str(), "{remark}");
            }
        }
        *before = stems;
    }

    fn rows(&self, source: &SourceName, count: usize) {
        let known = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), count);
        if count > 0 && known != Some(count) {
            warn!(source = source.as_str(), rows = count, "rows without an id or a status are skipped");
        }
    }

    fn status(&self, source: &str, state: &State) {
        if let State::Is(Status::Other(word)) = state
            && self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(word.to_string())
        {
            warn!(
                source,
                status = tame(word),
                "a status that the cloud's documents do not have: write a rule for it if it matters"
            );
        }
    }

    /// A full disk fails every second: the first, the second, the fourth, the eighth … time is enough to read.
    fn store_failed(&self, doing: &str, error: &store::Error) {
        let times = self.store_failures.fetch_add(1, Ordering::Relaxed) + 1;
        if times.is_power_of_two() {
            error!(times, "{doing} failed, will be tried again: {error}");
        }
    }

    fn sight(&self, source: &SourceName, fault: Option<(&'static str, &str)>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let name = source.as_str();
        match fault {
            Some((kind, text)) => {
                // Request ids differ at every poll: they do not make a fault a new one.
                let stem = text.split(" (request ").next().unwrap_or(text).to_owned();
                if faults.insert(source.clone(), stem.clone()).as_ref() == Some(&stem) {
                    debug!(source = name, kind, "no complete listing, still: {text}");
                } else {
                    warn!(source = name, kind, "no complete listing: {text}");
                }
            }
            None => {
                if faults.remove(source).is_some() {
                    info!(source = name, "listings are complete again");
                }
            }
        }
    }
}
