//! What the loops tell upwards: metrics, logs, the demo and tests look from here.

use std::time::Duration;

use super::heartbeat::Beat;
use crate::model::delivery::{Attempt, Claimed, Verdict};
use crate::model::follow_up::{FollowUp, Report};
use crate::model::name::{ReceiverName, RuleId, SourceName};
use crate::model::time::Timestamp;
use crate::plan::Plan;
use crate::store;

/// One thing that happened.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A source was polled and what it brought is committed.
    Polled {
        /// What was decided, and written.
        plan: &'a Plan,
        /// Deliveries that are new.
        deliveries: usize,
        /// How long listing, deciding and committing took.
        took: Duration,
    },
    /// What a source has to say besides its listing.
    Remarked {
        /// Which.
        source: &'a SourceName,
        /// In words; none when there is nothing to say any more.
        remarks: &'a [String],
    },
    /// An attempt was made and recorded.
    Attempted {
        /// The delivery.
        claimed: &'a Claimed,
        /// The attempt.
        attempt: &'a Attempt,
        /// What becomes of it.
        verdict: Verdict,
    },
    /// Urgent deliveries were not accepted in time: copies went to the fallback.
    Escalated {
        /// Whose.
        receiver: &'a ReceiverName,
        /// How many.
        count: usize,
    },
    /// Deliveries were given up that nobody could try in time.
    Lapsed {
        /// Whose.
        receiver: &'a ReceiverName,
        /// How many.
        count: usize,
    },
    /// A receiver is away: from now on it is only probed.
    Rested {
        /// Which.
        receiver: &'a ReceiverName,
        /// When the first probe goes to it.
        until: Timestamp,
    },
    /// A receiver that was away takes deliveries again.
    Recovered {
        /// Which.
        receiver: &'a ReceiverName,
    },
    /// A follow-up ended, or waits for somebody's word.
    FollowedUp {
        /// Which.
        follow_up: &'a FollowUp,
        /// What came of it.
        report: &'a Report,
    },
    /// Deliveries that could not finish in time went back to the outbox.
    Returned {
        /// Whose.
        receiver: &'a ReceiverName,
        /// How many.
        count: usize,
    },
    /// The store did not do what it was asked; it is asked again.
    StoreFailed {
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        error: &'a store::Error,
    },
    /// The state was gone through, and what is old was forgotten.
    Pruned {
        /// How many rows.
        removed: u64,
        /// What is older was forgotten, unless it is needed.
        kept_from: Timestamp,
        /// How much room the state takes now.
        room: store::Room,
        /// How long that took, with its pauses.
        took: Duration,
        /// How long its longest step took: so long others waited.
        longest: Duration,
    },
    /// The state is larger than it should be, and nothing more can be forgotten. Seen once, until it fits again.
    Oversized {
        /// Bytes in use.
        used: u64,
        /// Bytes too many.
        excess: u64,
    },
    /// Other rules are in force.
    RulesTaken {
        /// Who asked for it.
        by: Asker,
        /// When.
        at: Timestamp,
        /// Which there are.
        rules: &'a [RuleId],
        /// What may not be meant in them, a line each.
        warnings: &'a [String],
    },
    /// The rules on disk cannot be used; the old ones stay in force.
    RulesRefused {
        /// Who asked for them.
        by: Asker,
        /// Why not, a line each.
        errors: &'a [String],
        /// What else is wrong.
        warnings: &'a [String],
    },
    /// It was time for a sign of life.
    Beaten {
        /// What became of it.
        beat: &'a Beat,
    },
    /// It was looked which sources this agent is to poll, where others share its store.
    Leased {
        /// How many it polls from here on.
        held: usize,
        /// How many of these are new to it.
        new: usize,
        /// How many it no longer polls.
        lost: usize,
        /// Replicas that live; 0 when that cannot be known.
        living: usize,
    },
    /// A poll could not be kept: nothing was written, and the next poll finds the same again.
    PollLost {
        /// Where.
        source: &'a SourceName,
        /// Why.
        error: &'a store::Error,
    },
}

/// Who asks for the rules to be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// SIGHUP.
    Signal,
    /// `jobwatch reload`.
    Command,
    /// `POST /-/reload`.
    Http,
    /// Files that changed.
    Watch,
}

impl Asker {
    /// As logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Command => "jobwatch reload",
            Self::Http => "POST /-/reload",
            Self::Watch => "changed files",
        }
    }
}

/// Somebody who sees what happens. Called from the loops: it must not wait.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn see(&self, seen: &Seen<'_>);
}

impl Observer for Vec<std::sync::Arc<dyn Observer>> {
    fn see(&self, seen: &Seen<'_>) {
        self.iter().for_each(|observer| observer.see(seen));
    }
}
