//! What is asked of the agent from outside while it runs: which sources it does not see, and to send something again.

use std::fmt;

use super::Agent;
use crate::model::follow_up::FollowUp;
use crate::model::name::{DeliveryId, SourceName};
use crate::model::text::line;
use crate::model::time::Timestamp;
use crate::store::{self, Again};

/// As much of a cause is shown, in characters.
const CAUSE_MAX: usize = 500;

/// A source that is not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Which.
    pub source: SourceName,
    /// Since when; `None` when there was no complete listing yet since the agent started.
    pub since: Option<Timestamp>,
    /// Why, if a listing was tried.
    pub cause: Option<String>,
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.since {
            Some(since) => write!(f, "{}: no complete listing since {since}", self.source)?,
            None => write!(f, "{}: no complete listing yet", self.source)?,
        }
        self.cause.iter().try_for_each(|cause| write!(f, ": {}", line(cause, CAUSE_MAX)))
    }
}

/// What came of sending a delivery again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is due now.
    Due,
    /// It is a follow-up: they are never done again.
    FollowUp,
    /// There is none with this id.
    Unknown,
}

impl Agent {
    /// Sources without a complete listing since the start, and those that have been blind for as long as it takes to be told.
    pub fn unseen(&self) -> Vec<Unseen> {
        let now = self.shared.clock.now();
        let facts = self.sources.iter().map(|setup| setup.source.facts());
        // What another replica polls is seen by that one. As long as nobody knows who polls what, nothing is seen.
        let ours = |name| !self.leases.is_settled() || self.leases.permit(name).is_some();
        let facts = facts.filter(|facts| ours(&facts.name));
        facts.filter_map(|facts| self.lookout.unseen(&facts.name, self.shared.watch.blind_after, now)).collect()
    }

    /// Sends a delivery again, under the same id, and wakes whoever sends it.
    ///
    /// # Errors
    /// The store does not do it.
    pub async fn again(&self, id: &DeliveryId) -> Result<Retried, store::Error> {
        let Some(delivery) = self.shared.store.delivery(id).await? else { return Ok(Retried::Unknown) };
        if FollowUp::is_receiver(&delivery.receiver) {
            return Ok(Retried::FollowUp);
        }
        let done = self.shared.store.again(Again::These(vec![id.clone()]), self.shared.clock.now()).await?;
        self.shared.nudges.nudge(&delivery.receiver);
        Ok(if done.is_empty() { Retried::Unknown } else { Retried::Due })
    }
}
