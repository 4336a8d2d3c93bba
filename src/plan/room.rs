//! A state that stays larger than it may be is told, once, and so is its end.

use super::SelfWatch;
use crate::model::alert::Severity;
use crate::model::delivery::{Lane, Owed};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::Timestamp;

/// What is owed after forgetting, of a state that takes `used` bytes and may take `max`; it was `excess` bytes too large the
/// last time, which was at `last`. What is decided twice about the same last time is owed once.
pub fn room_told(
    used: u64,
    max: Option<u64>,
    excess: u64,
    watch: &SelfWatch,
    last: Timestamp,
    now: Timestamp,
) -> Vec<Owed> {
    let over = max.filter(|max| used > *max);
    let (event, severity, title, body) = match (over, excess) {
        (Some(max), 0) => (
            Event::AgentOversized,
            Severity::Warning,
            "the state is larger than it may be, and nothing more can be forgotten".to_owned(),
            format!(
                "It takes {}, and [retention] size_max is {}. What is left is owed, held, or needed by a rule, and it may grow. \
                 Raise size_max, or end what nobody is to get any more: `jobwatch state info`, \
                 `jobwatch deliveries list --state pending`.",
                bytes(used),
                bytes(max)
            ),
        ),
        (None, 1..) => (
            Event::AgentFits,
            Severity::Info,
            "the state is no longer larger than it may be".to_owned(),
            format!("It takes {}.", bytes(used)),
        ),
        (Some(_), 1..) | (None, 0) => return Vec::new(),
    };
    let topic = Topic::Room { used, max };
    let notification = Notification { event, time: now, severity, title, body, topic };
    let since = last.micros().to_string();
    let one = |receiver: &ReceiverName| Owed {
        id: DeliveryId::from(derive("msg", &["jobwatch/room/v1", event.as_str(), &since, receiver.as_str()])),
        receiver: receiver.clone(),
        lane: Lane { source: None, subject: JobId::from("state") },
        notification: notification.clone(),
        pace: None,
    };
    watch.notify.iter().map(one).collect()
}

fn bytes(count: u64) -> String {
    format!("{} MB", count >> 20)
}
