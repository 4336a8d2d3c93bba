//! What the status page shows of the state, all of it read at one moment.

use std::sync::Arc;

use super::view::{OutboxView, SourceView};
use crate::model::alert::{FateOutcome, Silence};
use crate::model::delivery::DeliveryState;
use crate::model::follow_up::Listed;
use crate::model::name::{DeliveryId, ReceiverName, SourceName};
use crate::model::snapshot::Known;
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// The time.
    pub now: Timestamp,
    /// Steps are counted from here on.
    pub since: Timestamp,
    /// As many steps are counted, the newest.
    pub steps_max: usize,
    /// As many rows of each list are read.
    pub rows_max: usize,
}

/// The state at one moment.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// Every source that was ever polled, by name.
    pub sources: Vec<SourceView>,
    /// Jobs that have not ended: those longest in their status first.
    pub unfinished: Vec<(SourceName, Known)>,
    /// How many steps there were, by minute.
    pub tallies: Vec<Tally>,
    /// When the first step of all was seen.
    pub begun: Option<Timestamp>,
    /// Jobs that failed, the last first.
    pub failures: Vec<Failure>,
    /// What every receiver, and every follow-up, has before it.
    pub queues: Vec<Queue>,
    /// Silences that are not over, in the order they end.
    pub silences: Vec<Silence>,
    /// Follow-ups that wait for somebody's word, the oldest first.
    pub waiting: Vec<Listed>,
}

/// So many jobs took the same step in the same minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// When the minute began.
    pub minute: Timestamp,
    /// Where they came from.
    pub from: State,
    /// Where they went.
    pub to: State,
    /// How many.
    pub count: usize,
}

/// A job that failed, and who heard of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The step.
    pub step: Arc<Transition>,
    /// What came of it, by receiver.
    pub heard: Vec<Heard>,
}

/// What came of a failure for one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Who; `None` when it is the same for all.
    pub receiver: Option<ReceiverName>,
    /// What the rules made of it.
    pub outcome: FateOutcome,
    /// Why, in words.
    pub why: String,
    /// Where its delivery stands; `None` when there is none (yet).
    pub state: Option<DeliveryState>,
    /// It waits to be told with others.
    pub held: bool,
    /// When the delivery ended.
    pub ended_at: Option<Timestamp>,
    /// What the last attempt was answered.
    pub note: String,
}

/// What a receiver has before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// What is owed to it, and what was given up.
    pub outbox: OutboxView,
    /// Since when the operator has been told of its trouble.
    pub trouble_since: Option<Timestamp>,
    /// The first delivery that was tried in vain and is still owed.
    pub stuck: Option<Stuck>,
}

/// A delivery that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its id.
    pub id: DeliveryId,
    /// Its one-line title.
    pub title: String,
    /// How often.
    pub attempts: u32,
    /// When for the first time.
    pub since: Timestamp,
    /// What the last attempt was answered.
    pub note: String,
    /// When it is tried next.
    pub due_at: Timestamp,
}
