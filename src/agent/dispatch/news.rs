//! What is told of a receiver's trouble, to whom, and when it is news.

use super::Lane;
use crate::model::alert::Severity;
use crate::model::delivery::{Attempt, Claimed, Lane as Order, Outcome, Owed, Verdict};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::Timestamp;
use crate::store::{Delivery, Trouble};

/// What happened to a delivery.
pub(super) struct News {
    /// `refused`, `retired` or `dead`.
    state: &'static str,
    why: String,
    id: DeliveryId,
    title: String,
    tries: u32,
    since: Timestamp,
}

impl News {
    pub(super) fn of_attempt(state: &'static str, claimed: &Claimed, attempt: &Attempt) -> Self {
        let Claimed { frozen, tries, .. } = claimed;
        let (id, title, since) = (frozen.id.clone(), frozen.title.clone(), frozen.created_at);
        Self { state, why: attempt.outcome.detail().to_owned(), id, title, tries: tries + 1, since }
    }

    pub(super) fn of_lapsed(oldest: &Delivery, note: &str) -> Self {
        let why = match oldest.note.as_str() {
            "" => note.to_owned(),
            said => format!("{note}; before that: {said}"),
        };
        let (id, title) = (oldest.id.clone(), oldest.title.clone());
        Self { state: "dead", why, id, title, tries: oldest.attempts, since: oldest.created_at }
    }
}

impl Lane {
    /// Who else is to hear that this receiver refuses or that something was given up.
    pub(super) fn notices(&self, news: &News, now: Timestamp) -> Vec<Owed> {
        let News { state, why, id, title: undelivered, tries, since } = news;
        let title = match *state {
            "dead" => format!("a delivery to {} was given up: {why}", self.name),
            "retired" => {
                format!("{} says that it is no more, and is sent nothing until somebody opens it: {why}", self.name)
            }
            _ => format!("{} refuses what it is sent: {why}", self.name),
        };
        let body = format!(
            "Undelivered: {}\nDelivery: {}\nTried {} times, first decided at {}.\n{}",
            undelivered,
            id,
            tries,
            since,
            match *state {
                "dead" => "What was given up is kept: `jobwatch deliveries retry` sends it again.".to_owned(),
                "retired" => format!(
                    "Everything for it is held. When it is mended, `jobwatch deliveries retry --receiver {}` opens it; so does a start of the service.",
                    self.name
                ),
                _ =>
                    "It is tried again slowly for a day; other deliveries to it meet the same fate until somebody mends it."
                        .to_owned(),
            },
        );
        let notification = Notification {
            event: Event::ReceiverDead,
            time: now,
            severity: Severity::Error,
            title,
            body,
            topic: Topic::Receiver {
                name: self.name.clone(),
                why: why.clone(),
                state,
                delivery: (id.to_string(), undelivered.clone()),
            },
        };
        let mut hear: Vec<&ReceiverName> = self.shared.watch.notify.iter().chain(&self.setup().fallback).collect();
        hear.sort();
        hear.dedup();
        let notice = |receiver: &ReceiverName| Owed {
            id: DeliveryId::from(derive(
                "msg",
                &["jobwatch/trouble/v1", state, id.as_str(), &now.micros().to_string(), receiver.as_str()],
            )),
            receiver: receiver.clone(),
            lane: Order { source: None, subject: JobId::from(format!("receiver/{}", self.name)) },
            notification: notification.clone(),
            pace: None,
        };
        hear.into_iter().filter(|name| **name != self.name).map(notice).collect()
    }
}

/// What the operator knows of the trouble after this outcome, and what is news in it.
pub(super) fn trouble(
    known: Trouble,
    outcome: &Outcome,
    verdict: Verdict,
    now: Timestamp,
) -> (Trouble, Option<&'static str>) {
    match (outcome, verdict) {
        (Outcome::Accepted { .. }, _) => (Trouble::default(), None),
        (_, Verdict::Dead) => (Trouble { dead: true, ..known }, (!known.dead).then_some("dead")),
        (Outcome::Retired { .. }, _) => {
            let held_since = known.held_since.or(Some(now));
            (Trouble { retired: true, held_since, ..known }, (!known.retired).then_some("retired"))
        }
        (Outcome::Refused { .. }, _) => (Trouble { refused: true, ..known }, (!known.refused).then_some("refused")),
        (Outcome::Unreachable { .. }, _) => (known, None),
    }
}
