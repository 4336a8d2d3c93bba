//! One structured line for each thing that happened.
//!
//! `error`: somebody must act. `warn`: something is wrong and jobwatch goes on. `info`: what an operator would tell a
//! colleague. `debug`: every poll and attempt.

mod repeat;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, error, info, warn};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::agent::{Beat, Observer, Seen};
use crate::model::delivery::{Outcome, Verdict};
use crate::model::follow_up::Ending;
use crate::model::job::Status;
use crate::model::name::SourceName;
use crate::model::text::line;
use crate::model::time::{Timestamp, span};
use crate::model::transition::State;
use crate::store;
use repeat::{Party, Troubles, Word};

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

/// Writes what happens. A trouble is said when it begins, at growing intervals while it goes on, and when it ends.
pub struct Log {
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    troubles: Mutex<Troubles>,
    unreadable: Mutex<HashMap<SourceName, usize>>,
    remarks: Mutex<HashMap<SourceName, Vec<String>>>,
    unknown: Mutex<HashSet<String>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
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
                let word = self.heard(receiver, &attempt.outcome);
                let (times, since) = counted(word);
                match (&attempt.outcome, verdict) {
                    (_, Verdict::RetryAt(at)) if word == Word::Nothing => {
                        let outcome = attempt.outcome.as_str();
                        debug!(receiver, id, title, tries, outcome, answer, next = %at, "not delivered, still");
                    }
                    (_, Verdict::Dead) => {
                        error!(receiver, id, title, tries, answer, "given up: the delivery is dead");
                    }
                    (Outcome::Accepted { .. }, _) => info!(receiver, id, title, tries, answer, "delivered"),
                    (Outcome::Refused { .. }, Verdict::RetryAt(at)) => {
                        error!(receiver, id, title, tries, answer, next = %at, times, since, "refused: somebody must mend this");
                    }
                    (Outcome::Unreachable { .. }, Verdict::RetryAt(at)) => {
                        warn!(receiver, id, title, tries, answer, next = %at, times, since, "not delivered, will be tried again");
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
            Seen::Leased { held, new, lost, living } => {
                if *new > 0 || *lost > 0 {
                    info!(held, new, lost, replicas = living, "other sources are polled here");
                }
            }
            Seen::StoreFailed { doing, error } => self.store_failed(doing, error),
            Seen::Beaten { beat } => self.beaten(beat),
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
            Seen::PollLost { source, error: store::Error::Fenced(why) } => {
                info!(source = source.as_str(), "the poll is left to another replica: {why}");
            }
            Seen::PollLost { source, error } => {
                let (source, text) = (source.as_str(), error.to_string());
                let word = self.troubles().happens(Party::Polls(source.into()), &text, (self.now)());
                let (times, since) = counted(word);
                match word {
                    Word::Nothing => debug!(source, "the poll could not be kept, still: {text}"),
                    Word::Begins | Word::GoesOn(..) => {
                        error!(source, times, since, "the poll could not be kept, the next one finds the same: {text}");
                    }
                }
            }
        }
    }
}

/// Text from the cloud in a line of the log: one line, of a length that a journal takes.
fn tame(text: &str) -> String {
    line(text, FIELD_MAX)
}

impl Log {
    /// Nothing was said yet; `now` tells the time.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            now: Box::new(now),
            troubles: Mutex::default(),
            unreadable: Mutex::default(),
            remarks: Mutex::default(),
            unknown: Mutex::default(),
        }
    }

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

    /// A full disk fails every second.
    fn store_failed(&self, doing: &'static str, error: &store::Error) {
        let text = error.to_string();
        let word = self.troubles().happens(Party::State(doing), &text, (self.now)());
        let (times, since) = counted(word);
        match word {
            Word::Nothing => debug!("{doing} failed, still: {text}"),
            Word::Begins | Word::GoesOn(..) => error!(times, since, "{doing} failed, will be tried again: {text}"),
        }
    }

    fn sight(&self, source: &SourceName, fault: Option<(&'static str, &str)>) {
        let (name, now) = (source.as_str(), (self.now)());
        if let Some((times, lasted)) = self.troubles().ends(&Party::Polls(name.into()), now) {
            info!(source = name, times, lasted = span(lasted), "polls are kept again");
        }
        let party = Party::Source(name.into());
        let Some((kind, text)) = fault else {
            if let Some((times, lasted)) = self.troubles().ends(&party, now) {
                info!(source = name, times, lasted = span(lasted), "listings are complete again");
            }
            return;
        };
        // Request ids differ at every poll: they do not make a fault a new one.
        let word = self.troubles().happens(party, text.split(" (request ").next().unwrap_or(text), now);
        let (times, since) = counted(word);
        match word {
            Word::Begins => warn!(source = name, kind, "no complete listing: {text}"),
            Word::GoesOn(..) => warn!(source = name, kind, times, since, "no complete listing, still: {text}"),
            Word::Nothing => debug!(source = name, kind, "no complete listing, still: {text}"),
        }
    }

    /// What is to be said of a receiver's answer, besides the delivery's own end.
    fn heard(&self, receiver: &str, outcome: &Outcome) -> Word {
        let (party, now) = (Party::Receiver(receiver.into()), (self.now)());
        if !matches!(outcome, Outcome::Accepted { .. }) {
            let words = format!("{} {}", outcome.as_str(), outcome.detail());
            return self.troubles().happens(party, &words, now);
        }
        if let Some((times, lasted)) = self.troubles().ends(&party, now) {
            info!(receiver, times, lasted = span(lasted), "deliveries are accepted again");
        }
        Word::Begins
    }

    fn beaten(&self, beat: &Beat) {
        let (now, text) = ((self.now)(), beat.to_string());
        let word = match beat {
            Beat::Heard => {
                debug!("a sign of life was heard");
                if let Some((times, lasted)) = self.troubles().ends(&Party::Heartbeat, now) {
                    info!(times, lasted = span(lasted), "signs of life are heard again");
                }
                return;
            }
            Beat::Withheld(_) | Beat::Unheard(_) => self.troubles().happens(Party::Heartbeat, &text, now),
        };
        let (times, since) = counted(word);
        match (beat, word) {
            (_, Word::Nothing) | (Beat::Heard, _) => debug!("no sign of life, still: {text}"),
            (Beat::Withheld(_), _) => warn!(times, since, "no sign of life is given: {text}"),
            (Beat::Unheard(_), _) => warn!(times, since, "nobody heard the sign of life: {text}"),
        }
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often it happened and for how long, as fields: those of a trouble that is new are left out.
fn counted(word: Word) -> (Option<u64>, Option<String>) {
    match word {
        Word::GoesOn(times, lasted) => (Some(times), Some(span(lasted))),
        Word::Begins | Word::Nothing => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::model::delivery::{Attempt, Claimed, Frozen, Lane};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged, without debugging, while this is seen.
    fn logged(story: impl FnOnce(&Log, &dyn Fn(u64))) -> Vec<String> {
        let (paper, clock) = (Paper::default(), Arc::new(AtomicI64::new(0)));
        let page = paper.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || page.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false);
        let registry = tracing_subscriber::registry().with(EnvFilter::new("info")).with(layer);
        tracing::subscriber::with_default(registry, || {
            let hand = Arc::clone(&clock);
            let log = Log::new(move || Timestamp::from_micros(hand.load(Ordering::SeqCst)));
            story(&log, &|second| clock.store(i64::try_from(second).unwrap() * 1_000_000, Ordering::SeqCst));
        });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn attempted(log: &Log, id: &str, outcome: Outcome) {
        let at = Timestamp::from_micros(0);
        let frozen = Frozen {
            id: id.into(),
            receiver: "oncall".into(),
            lane: Lane { source: None, subject: "a".into() },
            event: String::new(),
            title: "a failed".into(),
            created_at: at,
            seen_at: None,
            payload: Vec::new(),
        };
        let (budget_from, progress) = (at, Vec::new());
        let claimed =
            Claimed { frozen, budget_from, tries: 0, refused_since: None, escalate_at: None, progress, token: 0 };
        let verdict = match &outcome {
            Outcome::Accepted { .. } => Verdict::Delivered,
            Outcome::Refused { .. } | Outcome::Retired { .. } | Outcome::Unreachable { .. } => Verdict::RetryAt(at),
        };
        let attempt = Attempt { at, took: Duration::ZERO, outcome, progress: Vec::new() };
        log.see(&Seen::Attempted { claimed: &claimed, attempt: &attempt, verdict });
    }

    #[test]
    fn a_receiver_that_is_away_for_an_hour_is_said_in_a_few_lines_and_so_is_its_return() {
        let lines = logged(|log, clock| {
            for second in 0..3_600 {
                clock(second);
                let why = format!("HTTP 503 (request {second})");
                attempted(log, &format!("msg_{second}"), Outcome::Unreachable { why, retry_after: None });
            }
            attempted(log, "msg_0", Outcome::Accepted { note: "HTTP 204".into() });
        });
        let begins = |line: &String, words: &str| line.starts_with(words);
        assert!(
            begins(&lines[0], "WARN not delivered, will be tried again receiver=\"oncall\" id=\"msg_0\""),
            "{lines:?}"
        );
        assert!(!lines[0].contains("times="), "{}", lines[0]);
        assert!(lines[1].contains("id=\"msg_300\"") && lines[1].contains("times=301 since=\"5 min\""), "{lines:?}");
        assert!(lines[3].contains("times=2101 since=\"35 min\""), "{lines:?}");
        assert_eq!(
            lines[4],
            "INFO deliveries are accepted again receiver=\"oncall\" times=3600 lasted=\"59 min 59 s\""
        );
        assert!(begins(&lines[5], "INFO delivered receiver=\"oncall\" id=\"msg_0\""), "{lines:?}");
        assert_eq!(lines.len(), 6, "{lines:?}");
    }

    #[test]
    fn a_full_disk_and_a_sign_of_life_that_nobody_hears_are_not_said_every_second() {
        let lines = logged(|log, clock| {
            for second in 0..400 {
                clock(second);
                let error = store::Error::Failed("no room on the disk".into());
                log.see(&Seen::StoreFailed { doing: "claiming deliveries", error: &error });
                log.see(&Seen::Beaten { beat: &Beat::Unheard("hb.example: HTTP 500".into()) });
            }
            log.see(&Seen::Beaten { beat: &Beat::Heard });
            log.see(&Seen::Beaten { beat: &Beat::Heard });
        });
        assert_eq!(
            lines,
            [
                "ERROR claiming deliveries failed, will be tried again: no room on the disk",
                "WARN nobody heard the sign of life: hb.example: HTTP 500",
                "ERROR claiming deliveries failed, will be tried again: no room on the disk times=301 since=\"5 min\"",
                "WARN nobody heard the sign of life: hb.example: HTTP 500 times=301 since=\"5 min\"",
                "INFO signs of life are heard again times=400 lasted=\"6 min 39 s\"",
            ]
        );
    }
}
