//! Whether every loop turns: what feeds the watchdog.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Stopwatch};

/// What a loop may take longer than it said.
const MARGIN: Duration = Duration::from_secs(30);

/// All loops' hearts.
#[derive(Debug)]
pub struct Pulse {
    /// Time that no change of the wall clock moves.
    time: Stopwatch,
    hearts: Mutex<Vec<Arc<AtomicI64>>>,
}

impl Pulse {
    /// No loops yet.
    pub fn new(clock: &Clock) -> Self {
        Self { time: clock.stopwatch(), hearts: Mutex::default() }
    }

    /// A heart for one loop.
    pub(super) fn heart(&self) -> Heart {
        let due = Arc::new(AtomicI64::new(i64::MAX));
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&due));
        Heart { time: self.time, due }
    }

    /// Whether every loop has come round in the time it gave itself.
    pub fn is_steady(&self) -> bool {
        let now = micros(self.time.elapsed());
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|due| due.load(Ordering::Relaxed) >= now)
    }
}

/// One loop's heart.
#[derive(Debug)]
pub(super) struct Heart {
    time: Stopwatch,
    due: Arc<AtomicI64>,
}

impl Heart {
    /// The loop will be back here within this time.
    pub(super) fn beat(&self, within: Duration) {
        let due = self.time.elapsed().saturating_add(within).saturating_add(MARGIN);
        self.due.store(micros(due), Ordering::Relaxed);
    }
}

impl Drop for Heart {
    /// A loop that has ended is not stuck.
    fn drop(&mut self) {
        self.due.store(i64::MAX, Ordering::Relaxed);
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
