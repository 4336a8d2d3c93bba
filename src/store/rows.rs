//! What every engine makes of the same rows: the words are SQL's, the meaning is here.

use crate::model::delivery::{DeliveryState, Frozen, Outcome, Verdict};
use crate::model::follow_up::FollowUp;
use crate::model::job::Job;
use crate::model::time::Timestamp;
use crate::model::transition::Transition;
use crate::store::view::TransitionView;
use crate::store::{Errand, Record};

/// Tables whose rows are counted for people.
pub(super) const COUNTED: [&str; 15] = [
    "source",
    "job",
    "transition",
    "alert",
    "told",
    "muted",
    "fate",
    "delivery",
    "attempt",
    "held",
    "reserve",
    "follow_up",
    "silence",
    "numbered",
    "request",
];

/// How a delivery stands after an attempt.
pub(super) struct Aftermath {
    pub(super) state: DeliveryState,
    pub(super) due_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) refused_since: Option<Timestamp>,
}

impl Aftermath {
    pub(super) fn of(record: &Record) -> Self {
        let Record { claimed, attempt, verdict, .. } = record;
        let ended = attempt.at.plus(attempt.took);
        let (state, due_at, ended_at) = match verdict {
            Verdict::Delivered => (DeliveryState::Delivered, attempt.at, Some(ended)),
            Verdict::Dead => (DeliveryState::Dead, attempt.at, Some(ended)),
            Verdict::RetryAt(at) => (DeliveryState::Pending, *at, None),
            Verdict::Held => (DeliveryState::Pending, attempt.at, None),
        };
        let refused_since = match &attempt.outcome {
            Outcome::Refused { .. } => Some(claimed.refused_since.unwrap_or(attempt.at)),
            Outcome::Accepted { .. } | Outcome::Retired { .. } | Outcome::Unreachable { .. } => claimed.refused_since,
        };
        Self { state, due_at, ended_at, refused_since }
    }
}

impl Errand {
    /// As it stands in the outbox.
    pub(super) fn frozen(&self) -> Frozen {
        let Self { follow_up, at, .. } = self;
        Frozen {
            id: follow_up.id.clone(),
            receiver: FollowUp::receiver(&follow_up.name),
            lane: follow_up.lane(),
            event: "follow_up".into(),
            title: follow_up.title(),
            created_at: *at,
            seen_at: None,
            payload: follow_up.write(),
        }
    }
}

impl From<&Transition> for TransitionView {
    fn from(step: &Transition) -> Self {
        Self {
            id: step.id.clone(),
            source: step.source.clone(),
            job: Job::clone(&step.job),
            from: step.from.clone(),
            to: step.to.clone(),
            seen_before: step.seen_before,
            seen_at: step.seen_at,
            skipped: step.skipped.clone(),
            late: step.late,
            seq: step.seq,
        }
    }
}

/// How a follow-up stands, by its delivery's state and what is known of it besides.
pub(super) fn follow_up_state(
    delivery: &str,
    started_at: Option<Timestamp>,
    asked: bool,
    approved: Option<bool>,
) -> &'static str {
    match (delivery, started_at) {
        ("delivered", _) => "done",
        ("dead", _) => "not done",
        ("dropped", _) => "dropped",
        (_, Some(_)) => "begun",
        (_, None) if asked && approved.is_none() => "waiting",
        (_, None) => "due",
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("strings and lists of strings are always JSON")
}
