//! When to try a delivery again, and when to give it up: a pure function from what the store remembers.
//!
//! The schedule is the `backoff` crate's exponential one, asked for its *n*-th interval; nothing of it lives between two
//! calls, so a restart changes nothing. Full jitter: the delay is a random share (passed in) of that interval. What the
//! far end asked for with `Retry-After` is a floor and is applied last.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use serde_json::json;

use crate::model::delivery::{Outcome, Verdict};
use crate::model::name::DeliveryId;
use crate::model::time::Timestamp;

/// How a receiver's deliveries are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The first interval.
    pub first: Duration,
    /// Intervals double up to this.
    pub max: Duration,
    /// After this long without success a delivery is dead.
    pub give_up_after: Duration,
    /// After this long without success a copy of an urgent delivery goes to the fallback.
    pub escalate_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            max: Duration::from_secs(3_600),
            give_up_after: Duration::from_secs(3 * 86_400),
            escalate_after: Duration::from_secs(180),
        }
    }
}

/// A refused delivery is tried at these intervals: a deploy, a firewall or a key rotation looks like a refusal.
const REFUSED: Schedule = Schedule {
    first: Duration::from_secs(300),
    max: Duration::from_secs(3_600),
    give_up_after: Duration::from_secs(86_400),
    escalate_after: Duration::from_secs(180),
};
/// A receiver that is away is probed at these intervals.
const PROBES: Schedule = Schedule { first: Duration::from_secs(5), max: Duration::from_secs(300), ..REFUSED };
/// A receiver is away when so many of its deliveries failed in a row. Different ones: one that nobody can take says nothing
/// about the others.
const FAILURES_MAX: usize = 5;
/// An urgent delivery is tried this many times, or more, before it is escalated.
const URGENT_TRIES: u32 = 6;
/// The shortest wait: an unlucky draw must not become a hot loop.
const FLOOR: Duration = Duration::from_millis(500);
/// A receiver is left alone for no longer than this, whatever it asks for one delivery: that one may be the reason.
const REST_MAX: Duration = Duration::from_secs(300);
/// The longest wait a far end can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3_600);
/// Doubling stops mattering long before this: 2^40 seconds are 34 thousand years.
const DOUBLINGS_MAX: u32 = 40;

/// What is known of a delivery when an attempt at it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// When the delivery was decided or last replayed: its budget runs from there.
    pub budget_from: Timestamp,
    /// Attempts since then, before this one.
    pub tries: u32,
    /// When it was first refused, if it was before.
    pub refused_since: Option<Timestamp>,
    /// When a copy goes to the fallback, if this one is urgent and that has not happened yet.
    pub escalate_at: Option<Timestamp>,
}

/// What becomes of a delivery. `jitter` is a random number in `0.0..=1.0`.
pub fn verdict(schedule: &Schedule, history: &History, outcome: &Outcome, now: Timestamp, jitter: f64) -> Verdict {
    match outcome {
        Outcome::Accepted { .. } => Verdict::Delivered,
        Outcome::Refused { .. } => {
            let since = history.refused_since.unwrap_or(now);
            let horizon = REFUSED.give_up_after.min(schedule.give_up_after);
            // At least half of each interval: refusals are tried slowly, whatever the draw.
            let share = 0.5 + jitter.clamp(0.0, 1.0) / 2.0;
            retry_or_die(since.plus(horizon), now, interval(&REFUSED, history.tries).mul_f64(share), Duration::ZERO)
        }
        Outcome::Retired { .. } => Verdict::Held,
        Outcome::Unreachable { retry_after, .. } => {
            let delay = interval(&hurried(schedule, history, now), history.tries).mul_f64(jitter.clamp(0.0, 1.0));
            let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            retry_or_die(history.budget_from.plus(schedule.give_up_after), now, delay, asked)
        }
    }
}

/// The schedule, with shorter intervals as long as the delivery is urgent.
fn hurried(schedule: &Schedule, history: &History, now: Timestamp) -> Schedule {
    match history.escalate_at {
        Some(at) if now < at => Schedule { max: schedule.max.min(schedule.escalate_after / URGENT_TRIES), ..*schedule },
        Some(_) | None => *schedule,
    }
}

/// What a lane knows of its receiver's health: whether deliveries flow, and how many at once. It is not stored: after a restart
/// the receiver is as good as any, and found to be away again after a few attempts.
///
/// Deliveries flow until as many different ones failed in a row as `FAILURES_MAX`. From then on one attempt at a time is made,
/// at growing intervals, until something is accepted. Then they flow again: one at first, twice as many after each that is
/// accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Those that failed since something was last accepted, while deliveries flow.
    failed: Vec<DeliveryId>,
    /// As many attempts may be under way.
    width: usize,
    /// When the receiver is away: the probes that failed, and when the next one is made.
    away: Option<(u32, Timestamp)>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failed: Vec::new(), width: usize::MAX, away: None }
    }
}

impl Breaker {
    /// In a text, for those who share it; nothing when all is well: then nothing has to be shared.
    pub fn write(&self) -> Option<String> {
        let Self { failed, width, away } = self;
        let away = away.map(|(probes, at)| (probes, at.micros()));
        (*self != Self::default()).then(|| json!({ "failed": failed, "width": width, "away": away }).to_string())
    }

    /// What [`Breaker::write`] wrote. What cannot be read is forgotten: it is found out again.
    pub fn read(text: &str) -> Self {
        #[derive(serde::Deserialize)]
        struct Written {
            failed: Vec<DeliveryId>,
            width: usize,
            away: Option<(u32, i64)>,
        }
        let Ok(Written { failed, width, away }) = serde_json::from_str(text) else { return Self::default() };
        Self { failed, width, away: away.map(|(probes, at)| (probes, Timestamp::from_micros(at))) }
    }

    /// The same, as soon as nothing but `concurrency` limits it and nothing failed lately.
    #[must_use]
    pub fn settled(self, concurrency: usize) -> Self {
        match self.failed.is_empty() && self.flows(concurrency) {
            true => Self::default(),
            false => self,
        }
    }

    /// One at first: nobody knows whether it is back.
    pub fn cautious() -> Self {
        Self { width: 1, ..Self::default() }
    }

    /// How many attempts may be begun now, with so many under way and no more than `concurrency` at once.
    pub fn places(&self, concurrency: usize, under_way: usize, now: Timestamp) -> usize {
        let width = match self.away {
            None => self.width,
            // A rest that is longer than any is a clock that was set back.
            Some((_, at)) if at <= now || at.since(now) > REST_MAX => 1,
            Some(_) => 0,
        };
        width.min(concurrency).saturating_sub(under_way)
    }

    /// Whether nothing but `concurrency` limits how many attempts may be under way.
    pub fn flows(&self, concurrency: usize) -> bool {
        self.away.is_none() && self.width >= concurrency
    }

    /// When the next probe is made, if the receiver is away.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.away.map(|(_, at)| at)
    }

    /// After an attempt at a delivery. `jitter` is a random number in `0.0..=1.0`.
    #[must_use]
    pub fn after(self, delivery: &DeliveryId, outcome: &Outcome, now: Timestamp, jitter: f64) -> Self {
        let rest = |probes| {
            let share = 0.5 + jitter.clamp(0.0, 1.0) / 2.0;
            now.plus(interval(&PROBES, probes).mul_f64(share))
        };
        match outcome {
            Outcome::Accepted { .. } if self.away.is_some() => Self { width: 1, ..Self::default() },
            Outcome::Accepted { .. } => Self { width: self.width.saturating_mul(2), ..Self::default() },
            // It answers. Whether it takes another one, the next probe shows.
            Outcome::Refused { .. } => Self { failed: Vec::new(), away: self.away.map(|_| (0, rest(0))), ..self },
            // Nothing flows before somebody opens it again, and then one at first.
            Outcome::Retired { .. } => Self { failed: Vec::new(), width: 1, away: Some((0, now)) },
            Outcome::Unreachable { retry_after, .. } => {
                let asked = retry_after.map(|after| now.plus(after.min(REST_MAX)));
                if let Some((probes, at)) = self.away {
                    // What was under way when it was found to be away says nothing new.
                    let probes = if now < at { probes } else { probes.saturating_add(1) };
                    return Self { away: Some((probes, at.max(rest(probes)).max(asked.unwrap_or(at)))), ..self };
                }
                let mut failed = self.failed;
                if !failed.contains(delivery) {
                    failed.push(delivery.clone());
                }
                match asked {
                    Some(at) => Self { failed: Vec::new(), width: 1, away: Some((0, at.max(rest(0)))) },
                    None if failed.len() >= FAILURES_MAX => {
                        Self { failed: Vec::new(), width: 1, away: Some((0, rest(0))) }
                    }
                    None => Self { failed, ..self },
                }
            }
        }
    }
}

/// A long wait is cut at the horizon, so that the last attempt is made there; what the far end asked for is not cut.
fn retry_or_die(horizon: Timestamp, now: Timestamp, delay: Duration, asked: Duration) -> Verdict {
    if now >= horizon {
        return Verdict::Dead;
    }
    Verdict::RetryAt(now.plus(delay.min(horizon.since(now)).max(FLOOR).max(asked)))
}

/// The `attempts`-th interval of the schedule, from 0: `first · 2^attempts`, at most `max`.
fn interval(schedule: &Schedule, attempts: u32) -> Duration {
    let mut steps = ExponentialBackoff {
        initial_interval: schedule.first,
        max_interval: schedule.max,
        multiplier: 2.0,
        // The crate's own jitter and its own deadline are off: chance and time are passed in.
        randomization_factor: 0.0,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    steps.reset();
    for _ in 0..attempts.min(DOUBLINGS_MAX) {
        steps.next_backoff();
    }
    steps.current_interval.min(schedule.max)
}

#[cfg(test)]
mod tests {
    use super::{
        Breaker, DeliveryId, Duration, FLOOR, History, Outcome, REFUSED, REST_MAX, Schedule, Timestamp, Verdict,
        interval, verdict,
    };
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn unreachable(seconds: Option<u64>) -> Outcome {
        Outcome::Unreachable { why: "503".into(), retry_after: seconds.map(Duration::from_secs) }
    }

    fn history(tries: u32) -> History {
        History { budget_from: START, tries, refused_since: None, escalate_at: None }
    }

    #[test]
    fn intervals_double_from_the_first_to_the_longest() {
        let schedule = Schedule::default();
        let seconds: Vec<u64> = (0..12).map(|attempt| interval(&schedule, attempt).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
    }

    #[test]
    fn retry_after_is_a_floor_that_the_jitter_cannot_undercut() {
        let verdict = verdict(&Schedule::default(), &history(0), &unreachable(Some(120)), START, 0.0);
        assert_eq!(verdict, Verdict::RetryAt(START.plus(Duration::from_secs(120))));
    }

    #[test]
    fn a_refusal_is_tried_slowly_for_a_day_and_then_given_up() {
        let refused = Outcome::Refused { why: "HTTP 400".into() };
        let mut history = history(0);
        let mut now = START;
        let mut tries = 0;
        while let Verdict::RetryAt(at) = verdict(&Schedule::default(), &history, &refused, now, 0.0) {
            assert!(at.since(now) >= REFUSED.first / 2 || at == START.plus(REFUSED.give_up_after));
            history.refused_since = Some(START);
            history.tries += 1;
            now = at;
            tries += 1;
        }
        assert_eq!(now, START.plus(REFUSED.give_up_after));
        assert!((20..60).contains(&tries), "{tries} tries in a day");
    }

    fn after(breaker: Breaker, id: &str, outcome: &Outcome, now: Timestamp) -> Breaker {
        breaker.after(&DeliveryId::from(id), outcome, now, 1.0)
    }

    #[test]
    fn a_receiver_that_is_away_is_probed_ever_more_rarely_and_takes_one_at_first_when_it_is_back() {
        let accepted = Outcome::Accepted { note: "HTTP 204".into() };
        let mut breaker = Breaker::default();
        for id in ["a", "b", "c", "d"] {
            breaker = after(breaker, id, &unreachable(None), START);
        }
        assert_eq!((breaker.places(4, 0, START), breaker.probe_at()), (4, None), "four failures are no outage");
        breaker = after(breaker, "e", &unreachable(None), START);
        assert_eq!((breaker.places(4, 0, START), breaker.places(4, 3, START)), (0, 0));
        let (mut now, mut rests) = (START, Vec::new());
        for _ in 0..9 {
            let at = breaker.probe_at().unwrap();
            rests.push(at.since(now).as_secs());
            now = at;
            assert_eq!((breaker.places(4, 0, now), breaker.places(4, 1, now)), (1, 0), "one at a time");
            breaker = after(breaker, "a", &unreachable(None), now);
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        now = breaker.probe_at().unwrap();
        let mut widths = Vec::new();
        for id in ["a", "b", "c", "d"] {
            breaker = after(breaker, id, &accepted, now);
            widths.push(breaker.places(6, 0, now));
        }
        assert_eq!(widths, [1, 2, 4, 6]);
    }

    #[test]
    fn one_delivery_that_nobody_can_take_is_no_outage_however_often_it_fails() {
        let fail = |breaker, _| after(breaker, "poison", &unreachable(None), START);
        assert_eq!((0..50).fold(Breaker::default(), fail).places(4, 0, START), 4);
    }

    #[test]
    fn a_receiver_that_asks_for_rest_gets_it_for_all_its_deliveries_but_not_for_hours() {
        let rest = |seconds| after(Breaker::default(), "a", &unreachable(Some(seconds)), START).probe_at();
        assert_eq!(rest(90), Some(START.plus(Duration::from_secs(90))));
        assert_eq!(rest(20_000), Some(START.plus(REST_MAX)));
    }

    #[test]
    fn what_was_under_way_when_the_outage_began_does_not_lengthen_it() {
        let away = ["a", "b", "c", "d", "e"]
            .iter()
            .fold(Breaker::default(), |breaker, id| after(breaker, id, &unreachable(None), START));
        assert_eq!(after(away.clone(), "f", &unreachable(None), START).probe_at(), away.probe_at());
    }

    #[test]
    fn an_urgent_delivery_is_tried_often_until_it_is_escalated() {
        let mut history = History { escalate_at: Some(START.plus(Duration::from_secs(180))), ..history(0) };
        let mut now = START;
        while now < START.plus(Duration::from_secs(180)) {
            let Verdict::RetryAt(at) = verdict(&Schedule::default(), &history, &unreachable(None), now, 1.0) else {
                panic!("it is tried again")
            };
            assert!(at.since(now) <= Duration::from_secs(30));
            (now, history.tries) = (at, history.tries + 1);
        }
        assert!(history.tries >= 6, "{} tries", history.tries);
    }

    proptest! {
        #[test]
        fn a_retry_is_never_early_never_beyond_the_schedule_and_never_overflows(
            attempts: u32, jitter in 0.0..=1.0_f64, waited in 0..400_000_u64, asked in proptest::option::of(any::<u64>()),
        ) {
            let schedule = Schedule::default();
            let now = START.plus(Duration::from_secs(waited));
            let horizon = START.plus(schedule.give_up_after);
            match verdict(&schedule, &history(attempts), &unreachable(asked), now, jitter) {
                Verdict::RetryAt(at) => {
                    prop_assert!(now < horizon);
                    prop_assert!(at >= now.plus(FLOOR));
                    prop_assert!(at <= now.plus(schedule.max.max(Duration::from_secs(6 * 3_600))));
                }
                Verdict::Dead => prop_assert!(now >= horizon),
                Verdict::Delivered | Verdict::Held => prop_assert!(false, "nothing was accepted, and nobody retired"),
            }
        }
    }
}
