//! The sign of life: somebody outside is told at intervals that all is well, and rings when that stops.
//!
//! It is given only while every loop turns, every source is seen and nothing is owed for too long. So it covers what this
//! process cannot tell itself: that it is dead, that its disk is, or that nobody can be reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use crate::deliver::heartbeat::Heartbeat;
use crate::model::name::SourceName;
use crate::model::time::{Timestamp, span};
use crate::store::{Backlog, Seeing};

/// What one sign may take.
const BEAT_MAX: Duration = Duration::from_secs(60);

/// Where signs of life go, and when.
#[derive(Debug)]
pub struct HeartbeatSetup {
    /// Where.
    pub heartbeat: Heartbeat,
    /// The time between two.
    pub every: Duration,
    /// What is owed for longer than this is overdue.
    pub overdue_after: Duration,
}

/// What became of a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Somebody heard it.
    Heard,
    /// It was not given: something is amiss.
    Withheld(String),
    /// It was given, and nobody heard it.
    Unheard(String),
}

impl fmt::Display for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heard => f.write_str("heard"),
            Self::Withheld(why) | Self::Unheard(why) => f.write_str(why),
        }
    }
}

/// Gives signs of life until the agent stops.
pub(super) async fn run(agent: Arc<Agent>, setup: HeartbeatSetup, shutdown: Shutdown, heart: Heart) {
    loop {
        heart.beat(setup.every + BEAT_MAX);
        tokio::select! {
            () = tokio::time::sleep(setup.every) => {}
            () = shutdown.requested() => return,
        }
        // Of several replicas one speaks for all.
        if !agent.leases.is_housekeeper() {
            continue;
        }
        let beat = async {
            match agent.amiss(setup.overdue_after).await {
                Some(why) => Beat::Withheld(why),
                None => setup.heartbeat.beat().await.map_or_else(Beat::Unheard, |()| Beat::Heard),
            }
        };
        let beat = tokio::select! {
            beat = tokio::time::timeout(BEAT_MAX, beat) => beat,
            () = shutdown.requested() => return,
        };
        let beat = beat.unwrap_or_else(|_| Beat::Unheard("no end in time".into()));
        agent.shared.observer.see(&Seen::Beaten { beat: &beat });
    }
}

impl Agent {
    /// What is not well, if anything.
    async fn amiss(&self, overdue_after: Duration) -> Option<String> {
        if !self.pulse.is_steady() {
            return Some("a loop stands still".into());
        }
        let gauges = match self.shared.store.gauges(Vec::new()).await {
            Ok(gauges) => gauges,
            Err(error) => return Some(error.to_string()),
        };
        let expected: Vec<Expected<'_>> = self
            .sources
            .iter()
            .map(|setup| Expected { source: &setup.source.facts().name, poll_every: setup.poll_every })
            .collect();
        let now = self.shared.clock.now();
        // What is for receivers that the configuration no longer has is kept for them, and not late.
        let served: Vec<Backlog> =
            gauges.outbox.into_iter().filter(|backlog| self.lanes.contains_key(&backlog.receiver)).collect();
        unseen(&expected, &gauges.seeing, self.shared.watch.blind_after, now)
            .or_else(|| overdue(&served, overdue_after, now))
    }
}

/// A source that is to be seen.
struct Expected<'a> {
    source: &'a SourceName,
    poll_every: Duration,
}

/// The first source that is not seen: it was never, it has been blind for too long, or its polls have stopped.
fn unseen(expected: &[Expected<'_>], seeing: &[Seeing], blind_after: Duration, now: Timestamp) -> Option<String> {
    expected.iter().find_map(|Expected { source, poll_every }| {
        let known = seeing.iter().find(|seeing| seeing.source == **source);
        let Some(complete_at) = known.and_then(|seeing| seeing.complete_at) else {
            return Some(format!("source {source} was not seen yet"));
        };
        let blind = known.and_then(|seeing| seeing.blind_since).is_some_and(|since| now.since(since) >= blind_after);
        let ago = now.since(complete_at);
        (blind || ago >= blind_after + *poll_every * 2)
            .then(|| format!("source {source} has had no complete listing for {}", span(ago)))
    })
}

/// The first receiver for which something is owed for too long.
fn overdue(outbox: &[Backlog], overdue_after: Duration, now: Timestamp) -> Option<String> {
    outbox.iter().find_map(|Backlog { receiver, pending, oldest }| {
        let age = now.since(*oldest);
        (age >= overdue_after).then(|| format!("{pending} deliveries to {receiver} wait, the first for {}", span(age)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_source_is_seen_while_its_listings_are_complete_and_recent() {
        let (prod, minute) = (SourceName::from("prod"), Duration::from_secs(60));
        let why = |complete_at: Option<u64>, blind_since: Option<u64>, poll_every: Duration| {
            let seeing =
                Seeing { source: prod.clone(), complete_at: complete_at.map(at), blind_since: blind_since.map(at) };
            unseen(&[Expected { source: &prod, poll_every }], &[seeing], 5 * minute, at(10_000))
        };
        assert_eq!(why(Some(9_990), None, minute), None);
        assert_eq!(why(Some(9_000), None, 60 * minute), None, "it is not asked more often");
        assert_eq!(why(Some(9_701), Some(9_701), minute), None, "a fault or two is not blindness");
        let blind = Some("source prod has had no complete listing for 5 min".to_owned());
        assert_eq!(why(Some(9_700), Some(9_700), minute), blind);
        let stopped = Some("source prod has had no complete listing for 7 min".to_owned());
        assert_eq!(why(Some(9_580), None, minute), stopped, "nobody polls it");
        assert_eq!(why(None, None, minute), Some("source prod was not seen yet".into()));
        assert_eq!(why(Some(20_000), None, minute), None, "the clock was set back");
        let nothing = unseen(&[Expected { source: &prod, poll_every: minute }], &[], minute, at(0));
        assert_eq!(nothing, Some("source prod was not seen yet".into()));
    }

    #[test]
    fn what_is_owed_for_too_long_is_overdue() {
        let outbox = [
            Backlog { receiver: "ops".into(), pending: 9, oldest: at(990) },
            Backlog { receiver: "oncall".into(), pending: 2, oldest: at(100) },
        ];
        let limit = Duration::from_secs(900);
        assert_eq!(overdue(&outbox, limit, at(999)), None);
        let late = Some("2 deliveries to oncall wait, the first for 15 min".to_owned());
        assert_eq!(overdue(&outbox, limit, at(1_000)), late);
    }
}
