//! The only file that reads the time. Everything else is handed `now`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::model::time::Timestamp;

/// A clock is not set for less, in microseconds.
const STEERED_MICROS: i64 = 20_000;

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// A source of `now`: the machine's clock, somebody else's, or one that only moves when it is told to.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    /// The clock of somebody else: how far it is ahead of a stopwatch of ours, in microseconds.
    Steered(Stopwatch, Arc<AtomicI64>),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that goes as somebody else's does, which shows `now`. No change of the machine's own moves it.
    pub fn steered(now: Timestamp) -> Self {
        let stopwatch = Self::system().stopwatch();
        Self(Kind::Steered(stopwatch, Arc::new(AtomicI64::new(now.micros()))))
    }

    /// Sets a clock that goes as another one does: that one showed `then` so long `ago`. Others are left as they are.
    pub fn steer(&self, then: Timestamp, ago: Duration) {
        if let Kind::Steered(stopwatch, ahead) = &self.0 {
            let offset = then.plus(ago).micros() - micros(stopwatch.elapsed());
            // Less than that is the way there and back.
            if (offset - ahead.load(Ordering::SeqCst)).abs() > STEERED_MICROS {
                ahead.store(offset, Ordering::SeqCst);
            }
        }
    }

    /// A clock that stands at `start` until it is moved. For tests and rehearsals in virtual time.
    pub fn manual(start: Timestamp) -> Self {
        Self(Kind::Manual(Arc::new(AtomicI64::new(start.micros()))))
    }

    /// The time.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => Timestamp::from_micros(jiff::Timestamp::now().as_microsecond()),
            Kind::Steered(stopwatch, ahead) => {
                Timestamp::from_micros(ahead.load(Ordering::SeqCst) + micros(stopwatch.elapsed()))
            }
            Kind::Manual(at) => Timestamp::from_micros(at.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; the machine's clock is not ours to move.
    pub fn advance(&self, span: Duration) {
        match &self.0 {
            Kind::System | Kind::Steered(..) => {}
            Kind::Manual(at) => {
                at.store(self.now().plus(span).micros(), Ordering::SeqCst);
            }
        }
    }

    /// A stopwatch for measuring how long something takes, unmoved by changes of the wall clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }
}

/// A running measurement.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Time since it was started.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
