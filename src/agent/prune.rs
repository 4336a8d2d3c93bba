//! Forgetting: what is old, or too much, and what nobody needs any more.
//!
//! The state is gone through in small steps, and whoever else wants something of the store comes between two of them. What
//! is needed is the store's to know (each condition stands beside its part); what is old is decided here: by age, and
//! when the state is too large, by a younger and younger age, the oldest history first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Agent;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use crate::clock::Stopwatch;
use crate::model::name::RuleId;
use crate::model::time::Timestamp;
use crate::plan::room_told;
use crate::rules::{Rule, Scope};
use crate::store::{self, Mark, Part, Prune, Pruning, Room, Told};

/// How often the state is gone through.
const EVERY: Duration = Duration::from_secs(3_600);
/// After a start there is other work.
const FIRST_AFTER: Duration = Duration::from_secs(120);
/// How often it is looked whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Whatever its size, history is not shorter than this.
const KEPT_MIN: Duration = Duration::from_secs(86_400);
/// Of a state that is too large, this part of the time it goes back is forgotten at once, before it is measured again.
const STRIDES: u32 = 100;
/// Rows that one step looks at, at most, at first in each part, and at least: a delivery costs ten times as much as a fate.
const ROWS: (usize, usize, usize) = (500, 50, 10);
/// A step that took longer is followed by a smaller one; one that took a third of it, by a larger one.
const STEP_MAX: Duration = Duration::from_millis(10);
/// The same where others wait for no step: a database takes so long to write at all.
const SHARED_STEP_MAX: Duration = Duration::from_millis(200);
/// The one-shot cycle goes on for no longer than this.
const ONCE_MAX: Duration = Duration::from_secs(2);
/// So much is given back to the disk in one step.
const RECLAIM_BYTES: u64 = 1 << 20;
/// Free room up to this part of what is used is kept for what comes next.
const SLACK: u64 = 10;

/// How long history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is older is forgotten.
    pub history: Duration,
    /// Of a state that is larger in bytes, the oldest history is forgotten first; `None` is as large as it may be.
    pub size_max: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { history: Duration::from_secs(90 * 86_400), size_max: Some(1 << 30) }
    }
}

/// What is remembered between two times.
#[derive(Debug, Default)]
pub(super) struct Pruner {
    /// It was said that nothing more can go.
    excess: AtomicBool,
}

/// Forgets until the agent stops.
pub(super) async fn run(agent: Arc<Agent>, shutdown: Shutdown, heart: Heart) {
    heart.beat(FIRST_AFTER);
    tokio::select! {
        () = tokio::time::sleep(FIRST_AFTER) => {}
        () = shutdown.requested() => return,
    }
    while !shutdown.is_requested() {
        heart.beat(LOOK_EVERY);
        if agent.is_time().await {
            agent.prune_within(&Pace::Gently { shutdown: &shutdown, heart: &heart }).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// How much of the machine forgetting may have.
enum Pace<'a> {
    /// As much time goes by between two steps as the last one took, and it ends with the agent.
    Gently { shutdown: &'a Shutdown, heart: &'a Heart },
    /// One step after the other, for so long; without an end, all there is.
    Until { watch: Stopwatch, end: Option<Duration> },
}

impl Pace<'_> {
    /// Whether there may be another step, after one that took so long.
    async fn goes_on(&self, took: Duration) -> bool {
        match self {
            Self::Gently { shutdown, heart } => {
                heart.beat(LOOK_EVERY);
                tokio::select! {
                    () = tokio::time::sleep(took.max(Duration::from_millis(1))) => true,
                    () = shutdown.requested() => false,
                }
            }
            Self::Until { watch, end } => end.is_none_or(|end| watch.elapsed() < end),
        }
    }
}

/// One time through the state.
struct Sweep<'a> {
    agent: &'a Agent,
    pace: &'a Pace<'a>,
    /// Where each part was left: what was looked at and is needed is not looked at again.
    marks: [Mark; Part::ALL.len()],
    lasting: Arc<[RuleId]>,
    dead_before: Timestamp,
    now: Timestamp,
    rows: usize,
    removed: u64,
    longest: Duration,
    cut: bool,
}

impl Agent {
    /// Forgets whatever may be forgotten now, without a pause. Returns how many rows that were.
    ///
    /// # Errors
    /// What the store says; what was forgotten until then stays forgotten.
    pub async fn prune(&self) -> Result<u64, store::Error> {
        let watch = self.shared.clock.stopwatch();
        self.sweep(&Pace::Until { watch, end: None }).await
    }

    /// For the one-shot cycle: a while, if it is time.
    pub(super) async fn prune_once(&self) {
        if self.is_time().await {
            let watch = self.shared.clock.stopwatch();
            self.prune_within(&Pace::Until { watch, end: Some(ONCE_MAX) }).await;
        }
    }

    async fn prune_within(&self, pace: &Pace<'_>) {
        if let Err(error) = self.sweep(pace).await {
            self.shared.observer.see(&Seen::StoreFailed { doing: "forgetting what is old", error: &error });
        }
    }

    /// Whether the last time is long enough ago; one that lies ahead is from before the clock was set back.
    async fn is_time(&self) -> bool {
        // Of several replicas one does it for all.
        if !self.leases.is_housekeeper() {
            return false;
        }
        let now = self.shared.clock.now();
        match self.shared.store.pruning().await {
            Ok(last) => last.is_none_or(|last| now >= last.at.plus(EVERY) || last.at > now),
            Err(_) => false,
        }
    }

    async fn sweep(&self, pace: &Pace<'_>) -> Result<u64, store::Error> {
        let watch = self.shared.clock.stopwatch();
        let (now, retention) = (self.shared.clock.now(), self.retention);
        let rules = self.rules();
        // What a rule counts is history that it needs.
        let counted = rules.counted().unwrap_or_default().max(KEPT_MIN);
        let oldest = now.minus(retention.history.max(counted));
        let youngest = now.minus(counted);
        let lasting = rules.rules.iter().filter(|rule| is_lasting(rule)).map(|rule| rule.id().clone()).collect();
        let mut sweep = Sweep {
            agent: self,
            pace,
            marks: Default::default(),
            lasting,
            dead_before: oldest,
            now,
            rows: ROWS.1,
            removed: 0,
            longest: Duration::ZERO,
            cut: false,
        };
        let mut before = oldest;
        sweep.through(before).await?;
        let mut room = self.shared.store.room().await?;
        let stride = (youngest.since(oldest) / STRIDES).max(Duration::from_secs(1));
        while !sweep.cut && excess(room, retention) > 0 && before < youngest {
            before = before.plus(stride).min(youngest);
            sweep.through(before).await?;
            room = self.shared.store.room().await?;
        }
        if !sweep.cut && excess(room, retention) > 0 {
            // What ended long after it began was passed by on the way, when its end was too young.
            sweep.marks = Default::default();
            sweep.through(youngest).await?;
            room = self.shared.store.room().await?;
        }
        sweep.shrink(room).await?;
        let Sweep { removed, longest, cut, .. } = sweep;
        let excess = excess(room, retention);
        // What is left over from one time is not what nobody can forget.
        if !cut {
            self.tell_of(room, now).await?;
            self.shared.store.pruned(Pruning { at: now, kept_from: before, removed, excess }).await?;
            let said = self.pruner.excess.swap(excess > 0, Ordering::Relaxed);
            if excess > 0 && !said {
                self.shared.observer.see(&Seen::Oversized { used: room.used, excess });
            }
        }
        self.shared.observer.see(&Seen::Pruned { removed, kept_from: before, room, took: watch.elapsed(), longest });
        Ok(removed)
    }
}

impl Agent {
    /// A state that became too large is told before it is remembered to be: a crash in between tells it again, under its id.
    async fn tell_of(&self, room: Room, now: Timestamp) -> Result<(), store::Error> {
        let last = self.shared.store.pruning().await?;
        let (before, at) = last.map_or((0, Timestamp::default()), |last| (last.excess, last.at));
        let owed = room_told(room.used, self.retention.size_max, before, &self.shared.watch, at, now);
        if !owed.is_empty() {
            self.shared.store.tell(Told { deliveries: self.freeze(&owed, None), ..Told::default() }).await?;
            owed.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
        }
        Ok(())
    }
}

/// Whether a rule's findings can go on without the job that they last spoke of.
fn is_lasting(rule: &Rule) -> bool {
    rule.is_wide() || rule.resolve.as_ref().is_some_and(|resolve| resolve.scope == Scope::Resource)
}

/// Bytes above what is wanted.
fn excess(room: Room, retention: Retention) -> u64 {
    retention.size_max.map_or(0, |max| room.used.saturating_sub(max))
}

impl Sweep<'_> {
    /// Goes on through every part, up to this age.
    async fn through(&mut self, before: Timestamp) -> Result<(), store::Error> {
        for (at, part) in Part::ALL.into_iter().enumerate() {
            self.rows = ROWS.1;
            loop {
                if self.cut {
                    return Ok(());
                }
                let step = Prune {
                    part,
                    before,
                    dead_before: self.dead_before,
                    lasting: Arc::clone(&self.lasting),
                    from: self.marks[at].clone(),
                    limit: self.rows,
                    now: self.now,
                };
                let watch = self.agent.shared.clock.stopwatch();
                let pruned = self.agent.shared.store.prune(step).await?;
                let took = watch.elapsed();
                let step_max = if self.agent.shared.store.is_shared() { SHARED_STEP_MAX } else { STEP_MAX };
                self.rows = fitting(self.rows, took, step_max);
                self.longest = self.longest.max(took);
                self.removed += pruned.removed as u64;
                self.cut = !self.pace.goes_on(took).await;
                match pruned.next {
                    Some(mark) => self.marks[at] = mark,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Gives free room back to the disk, step by step, but for what will be used again soon.
    async fn shrink(&mut self, room: Room) -> Result<(), store::Error> {
        let store = &self.agent.shared.store;
        let mut spare = room.free.saturating_sub(room.used / SLACK);
        while room.shrinks && spare > 0 && !self.cut {
            let watch = self.agent.shared.clock.stopwatch();
            store.reclaim(RECLAIM_BYTES.min(spare)).await?;
            spare = spare.saturating_sub(RECLAIM_BYTES);
            let took = watch.elapsed();
            self.longest = self.longest.max(took);
            self.cut = !self.pace.goes_on(took).await;
        }
        Ok(())
    }
}

/// How many rows the next step looks at.
fn fitting(rows: usize, took: Duration, step_max: Duration) -> usize {
    let (most, _, least) = ROWS;
    match took {
        took if took > step_max => (rows / 2).max(least),
        took if took < step_max / 3 => (rows * 2).min(most),
        _ => rows,
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, STEP_MAX, fitting};

    #[test]
    fn a_step_that_took_long_is_followed_by_smaller_ones_until_they_fit() {
        let took = |millis: u64| Duration::from_millis(millis);
        let sizes = [16, 40, 400, 400, 400, 10, 1, 1].map(took);
        let mut rows = 200;
        let sizes = sizes.map(|took| {
            rows = fitting(rows, took, STEP_MAX);
            rows
        });
        assert_eq!(sizes, [100, 50, 25, 12, 10, 10, 20, 40]);
        assert_eq!(fitting(500, took(0), STEP_MAX), 500);
    }
}
