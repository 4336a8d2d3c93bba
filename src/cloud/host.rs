//! What is known of one host: how many requests it is sent, until when it wants to be left alone, what time it is there.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::http::Answer;
use crate::model::time::{Timestamp, span};

/// Clocks that differ by less are as good as equal: the gateway accepts 15 minutes.
const SKEW_MIN: Duration = Duration::from_secs(60);

/// Requests a second: a token bucket that holds one second's worth.
#[derive(Debug)]
pub(super) struct Budget(DefaultDirectRateLimiter);

impl Budget {
    pub(super) fn new(per_second: u32) -> Self {
        Self(RateLimiter::direct(Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN))))
    }

    /// Waits until a request may be sent.
    pub(super) async fn spend(&self) {
        while let Err(wait) = self.0.check() {
            tokio::time::sleep(wait.wait_time_from(DefaultClock::default().now())).await;
        }
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
    whole: Arc<Budget>,
    own: Budget,
    /// Until when it is left alone, by the credential that asked too often.
    pauses: Mutex<HashMap<String, Timestamp>>,
    /// How far its clock is ahead of ours, in microseconds; 0 while that does not matter.
    ahead: AtomicI64,
}

impl Host {
    pub(super) fn new(name: &str, whole: &Arc<Budget>, per_second: u32) -> Self {
        Self {
            name: name.to_owned(),
            whole: Arc::clone(whole),
            own: Budget::new(per_second),
            pauses: Mutex::default(),
            ahead: AtomicI64::new(0),
        }
    }

    /// Waits until the budgets allow a request.
    pub(super) async fn spend(&self) {
        self.own.spend().await;
        self.whole.spend().await;
    }

    /// How much longer this credential's requests are to wait, because it was throttled here.
    pub(super) fn paused(&self, who: &str, now: Timestamp) -> Option<Duration> {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let remains = pauses.get(who)?.since(now);
        (!remains.is_zero()).then_some(remains)
    }

    /// The host asked this credential to wait.
    pub(super) fn pause(&self, who: &str, until: Timestamp) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).insert(who.to_owned(), until);
    }

    /// The time there.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.micros().saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// Learns the time there from an answer's `Date`.
    pub(super) fn learn(&self, answer: &Answer, now: Timestamp) {
        if let Some(there) = answer.header("date").and_then(Timestamp::parse_http) {
            self.set(there, now);
        }
    }

    /// It is `there` now. Returns whether that changes what requests are dated with.
    pub(super) fn set(&self, there: Timestamp, now: Timestamp) -> bool {
        let apart = there.since(now).max(now.since(there));
        let ahead = if apart >= SKEW_MIN { there.micros().saturating_sub(now.micros()) } else { 0 };
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        before.abs_diff(ahead) >= SKEW_MIN.as_micros() as u64
    }

    /// What the operator should know of the clocks.
    pub(super) fn remark(&self) -> Option<String> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        // An HTTP date has whole seconds: more than minutes would be a guess.
        let apart = span(Duration::from_secs((ahead.unsigned_abs() + 30_000_000) / 60_000_000 * 60));
        let direction = if ahead > 0 { "behind" } else { "ahead of" };
        (ahead != 0).then(|| {
            format!(
                "this machine's clock is {apart} {direction} {}: requests are dated with the time there; set the clock (NTP)",
                self.name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Budget, Duration, Host, Timestamp};

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    #[test]
    fn a_clock_that_differs_is_corrected_and_told_and_forgotten_when_it_is_set() {
        let host = Host::new("swr", &Arc::new(Budget::new(1)), 1);
        assert!(!host.set(START.plus(Duration::from_secs(20)), START));
        assert_eq!((host.time(START), host.remark()), (START, None));
        let there = START.plus(Duration::from_secs(1_200));
        assert!(host.set(there, START));
        assert_eq!(host.time(START), there);
        assert!(host.remark().unwrap().contains("20 min behind swr"));
        assert!(host.set(START.minus(Duration::from_secs(120)), START));
        assert!(host.remark().unwrap().contains("2 min ahead of swr"));
        assert!(host.set(START, START));
        assert_eq!(host.remark(), None);
    }

    #[tokio::test]
    async fn requests_beyond_the_budget_wait_and_the_whole_budget_holds_over_all_hosts() {
        let at_once = async |host: &Host| tokio::time::timeout(Duration::ZERO, host.spend()).await.is_ok();
        let one = Host::new("one", &Arc::new(Budget::new(100)), 1);
        assert_eq!([at_once(&one).await, at_once(&one).await], [true, false], "one a second for this host");
        let whole = Arc::new(Budget::new(1));
        let (one, other) = (Host::new("one", &whole, 100), Host::new("other", &whole, 100));
        assert_eq!([at_once(&one).await, at_once(&other).await], [true, false], "one a second for all of them");
    }

    #[test]
    fn who_was_throttled_waits_and_nobody_else() {
        let host = Host::new("swr", &Arc::new(Budget::new(1)), 1);
        host.pause("a", START.plus(Duration::from_secs(9)));
        assert_eq!(host.paused("a", START), Some(Duration::from_secs(9)));
        assert_eq!(host.paused("a", START.plus(Duration::from_secs(9))), None);
        assert_eq!(host.paused("b", START), None);
    }
}
