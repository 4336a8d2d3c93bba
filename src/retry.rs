//! When to try a delivery again, and when to give it up: a pure function from what the store remembers.
//!
//! The schedule is the `backoff` crate's exponential one, asked for its *n*-th interval; nothing of it lives between two
//! calls, so a restart changes nothing. Full jitter: the delay is a random share (passed in) of that interval. What the
//! far end asked for with `Retry-After` is a floor and is applied last.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::model::delivery::{Outcome, Verdict};
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
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            max: Duration::from_secs(3_600),
            give_up_after: Duration::from_secs(3 * 86_400),
        }
    }
}

/// A refused delivery is tried at these intervals: a deploy, a firewall or a key rotation looks like a refusal.
const REFUSED: Schedule = Schedule {
    first: Duration::from_secs(300),
    max: Duration::from_secs(3_600),
    give_up_after: Duration::from_secs(86_400),
};
/// The shortest wait: an unlucky draw must not become a hot loop.
const FLOOR: Duration = Duration::from_millis(500);
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
        Outcome::Unreachable { retry_after, .. } => {
            let delay = interval(schedule, history.tries).mul_f64(jitter.clamp(0.0, 1.0));
            let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            retry_or_die(history.budget_from.plus(schedule.give_up_after), now, delay, asked)
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
    use super::{Duration, FLOOR, History, Outcome, REFUSED, Schedule, Timestamp, Verdict, interval, verdict};
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn unreachable(seconds: Option<u64>) -> Outcome {
        Outcome::Unreachable { why: "503".into(), retry_after: seconds.map(Duration::from_secs) }
    }

    fn history(tries: u32) -> History {
        History { budget_from: START, tries, refused_since: None }
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
                Verdict::Delivered => prop_assert!(false, "nothing was accepted"),
            }
        }
    }
}
