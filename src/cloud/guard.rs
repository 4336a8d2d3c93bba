//! The lock-out guard: more than five failed signatures in a row lock an access key for everybody who uses it.
//!
//! A credential that has not been accepted yet is tried by one request at a time; one that has been is used by a few at
//! once. When one of them is refused, the credential rests for longer than the cloud's lock lasts, and everybody who
//! shares it is told so without asking the cloud.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::model::time::Timestamp;

/// How long a refused credential rests: the cloud's lock lasts five minutes.
pub(super) const REST: Duration = Duration::from_secs(360);
/// Requests that may be waiting for their first verdict at once: five failures do not lock, six do.
const UNJUDGED_MAX: usize = 5;
/// A gateway judges signatures at once: what has not been refused after this long has most likely been accepted.
pub(super) const JUDGED_AFTER: Duration = Duration::from_millis(500);

/// One credential's guard, shared by all that use it.
#[derive(Debug)]
pub(super) struct Guard {
    state: Mutex<State>,
    /// Entered by those who use a credential that has been accepted.
    proven: Semaphore,
    /// Entered by the one who tries a credential that has not.
    trial: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    accepted: bool,
    rest: Option<(Timestamp, String)>,
}

/// The right to send one request. To be given back when it is judged.
#[derive(Debug)]
pub(super) struct Pass<'g>(#[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'g>);

/// The credential rests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resting {
    /// Why, in the words of the refusal.
    pub(super) why: String,
    /// For how much longer.
    pub(super) remains: Duration,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), proven: Semaphore::new(UNJUDGED_MAX), trial: Semaphore::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the credential rests.
    pub(super) fn resting(&self, now: Timestamp) -> Option<Resting> {
        let state = self.state();
        let (until, why) = state.rest.as_ref()?;
        // A clock that was set back makes no rest longer.
        let remains = until.since(now).min(REST);
        (!remains.is_zero()).then(|| Resting { why: why.clone(), remains })
    }

    /// Waits for the right to send a request.
    pub(super) async fn enter(&self, now: impl Fn() -> Timestamp) -> Result<Pass<'_>, Resting> {
        loop {
            self.resting(now()).map_or(Ok(()), Err)?;
            let accepted = self.state().accepted;
            let gate = if accepted { &self.proven } else { &self.trial };
            let permit = gate.acquire().await.expect("a guard's gates are never closed");
            self.resting(now()).map_or(Ok(()), Err)?;
            if self.state().accepted == accepted {
                return Ok(Pass(permit));
            }
        }
    }

    /// The cloud took the credential.
    pub(super) fn accepted(&self) {
        let mut state = self.state();
        state.accepted = true;
        state.rest = None;
    }

    /// The cloud refused it.
    pub(super) fn refused(&self, now: Timestamp, why: &str) {
        let mut state = self.state();
        state.accepted = false;
        state.rest = Some((now.plus(REST), why.to_owned()));
    }

    /// The credential is another one now.
    pub(super) fn renewed(&self) {
        *self.state() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Guard, REST, Timestamp};
    use std::time::Duration;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    #[tokio::test]
    async fn a_refused_credential_rests_longer_than_the_clouds_lock_and_everybody_knows() {
        let guard = Guard::new();
        drop(guard.enter(|| START).await.unwrap());
        guard.refused(START, "verify aksk signature fail");
        let resting = guard.enter(|| START.plus(Duration::from_secs(60))).await.unwrap_err();
        assert_eq!((resting.why.as_str(), resting.remains.as_secs()), ("verify aksk signature fail", 300));
        assert!(guard.enter(|| START.plus(REST)).await.is_ok());
    }

    #[tokio::test]
    async fn a_credential_that_was_never_accepted_is_tried_by_one_at_a_time() {
        let guard = Guard::new();
        let first = guard.enter(|| START).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(1), guard.enter(|| START));
        assert!(second.await.is_err(), "the second waits for the verdict on the first");
        guard.refused(START, "no");
        drop(first);
        assert!(guard.enter(|| START).await.is_err(), "and then it is not sent");
    }

    #[tokio::test]
    async fn no_more_than_five_requests_wait_for_a_verdict_at_once() {
        let guard = Guard::new();
        guard.accepted();
        let mut passes = Vec::new();
        for _ in 0..5 {
            passes.push(guard.enter(|| START).await.unwrap());
        }
        assert!(tokio::time::timeout(Duration::from_millis(1), guard.enter(|| START)).await.is_err());
    }
}
