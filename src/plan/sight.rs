//! Blindness is an alert: told once for all sources that it hits at the same time, and its end is told too.
//!
//! Each poll remembers since when its source has not been seen. This looks at all of them together: when a region is
//! out, one message names every source, not one message for each.

use std::sync::Arc;
use std::time::Duration;

use crate::model::alert::Severity;
use crate::model::delivery::{Lane, Owed};
use crate::model::listing::{Fault, FaultKind};
use crate::model::memory::Sight;
use crate::model::name::{DeliveryId, JobId, ReceiverName, SourceName, derive};
use crate::model::notification::{Event, Notification, Seeing, SourceFacts, Topic};
use crate::model::text::{line, lines};
use crate::model::time::{Timestamp, span};

/// Who hears of the agent's own troubles, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelfWatch {
    /// The receivers.
    pub notify: Vec<ReceiverName>,
    /// How long a source may go unseen.
    pub blind_after: Duration,
}

/// What is told of sources is no longer than this: in characters, and in bytes.
const TITLE_MAX: usize = 300;
const BODY_MAX: usize = 64 * 1024;
/// More sources than this are counted, not named, in the text of a message; its data name them all.
const NAMED_MAX: usize = 20;
/// When one source is due to be told of, others that are blind too are waited for so long …
const GATHER_MAX: Duration = Duration::from_secs(20);
/// … or for this part of the time that a source may go unseen.
const GATHER_PART: u32 = 4;

/// A source whose jobs vanish is told of at once this often; in between, like any other blindness.
const VANISHED_AGAIN: Duration = Duration::from_secs(3_600);

/// One source as it is seen at the moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Which.
    pub source: Arc<SourceFacts>,
    /// What is remembered of it.
    pub sight: Sight,
    /// Why the last listing was not complete.
    pub fault: Option<Fault>,
    /// Since when it is seen again, as far as this process knows.
    pub seen_since: Option<Timestamp>,
    /// When its blindness was last told, as far as this process knows.
    pub told_at: Option<Timestamp>,
}

/// What is to be told of the sources' visibility.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// What is owed to receivers.
    pub owed: Vec<Owed>,
    /// The sources whose `told_since` changes, and what it becomes.
    pub told: Vec<(SourceName, Option<Timestamp>)>,
}

/// Looks at all sources together.
pub fn lookout(views: &[&View], watch: &SelfWatch, gather: bool, now: Timestamp) -> Outlook {
    let mut outlook = Outlook::default();
    let blind: Vec<(&View, Timestamp)> = views
        .iter()
        .filter(|view| view.sight.told_since.is_none())
        .filter_map(|view| Some((*view, view.sight.blind_since?)))
        .collect();
    let due: Vec<&(&View, Timestamp)> = blind.iter().filter(|(view, since)| is_due(view, *since, watch, now)).collect();
    let patience = GATHER_MAX.min(watch.blind_after / GATHER_PART);
    let longest = due.iter().map(|(_, since)| now.since(*since)).max().unwrap_or_default();
    let waited = due.len() == blind.len() || longest >= watch.blind_after + patience;
    if !due.is_empty() && (waited || !gather) {
        outlook.tell(watch, Event::AgentBlind, due.into_iter().map(|(view, since)| (*view, *since)), now);
    }
    let restored: Vec<(&View, Timestamp)> = views
        .iter()
        .filter(|view| view.sight.blind_since.is_none())
        .filter_map(|view| Some((*view, view.sight.told_since?)))
        .collect();
    // A region comes back source by source: one message when all of them are here, or when nothing more comes soon.
    let still_out = views.iter().any(|view| view.sight.blind_since.is_some() && view.sight.told_since.is_some());
    let lasting = restored.iter().filter_map(|(view, _)| view.seen_since).map(|at| now.since(at)).max();
    if !restored.is_empty() && (!still_out || !gather || lasting.unwrap_or(patience) >= patience) {
        outlook.tell(watch, Event::AgentRestored, restored.into_iter(), now);
    }
    outlook
}

/// Vanished jobs are told of at once: whoever sees a source's jobs vanish does not want to wait for the tenth listing. But a
/// listing that flaps is no reason to ring at every poll.
fn is_due(view: &View, since: Timestamp, watch: &SelfWatch, now: Timestamp) -> bool {
    let vanished = view.fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::Vanished);
    let lately = view.told_at.is_some_and(|at| now.since(at) < VANISHED_AGAIN);
    now.since(since) >= watch.blind_after || vanished && !lately
}

impl Outlook {
    fn tell<'v>(
        &mut self,
        watch: &SelfWatch,
        event: Event,
        views: impl Iterator<Item = (&'v View, Timestamp)>,
        now: Timestamp,
    ) {
        let mut views: Vec<(&View, Timestamp)> = views.collect();
        views.sort_by(|a, b| a.0.source.name.cmp(&b.0.source.name));
        let is_blind = event == Event::AgentBlind;
        self.told.extend(views.iter().map(|(view, since)| (view.source.name.clone(), is_blind.then_some(*since))));
        let (title, body, severity) = match is_blind {
            true => (blind_title(&views, now), blind_body(&views), Severity::Critical),
            false => (restored_title(&views, now), restored_body(&views), Severity::Info),
        };
        let seeing = |(view, since): &(&View, Timestamp)| Seeing {
            source: Arc::clone(&view.source),
            since: *since,
            cause: view.fault.as_ref().map(|fault| fault.text.clone()),
        };
        let topic = Topic::Sources(views.iter().map(seeing).collect());
        // What a gateway said is in it.
        let (title, body) = (line(&title, TITLE_MAX), lines(&body, BODY_MAX));
        let notification = Notification { event, time: now, severity, title, body, topic };
        let what: Vec<String> =
            views.iter().map(|(view, since)| format!("{} {}", view.source.name, since.micros())).collect();
        let what = what.join("\n");
        for receiver in &watch.notify {
            let parts = ["jobwatch/sight/v2", event.as_str(), &what, receiver.as_str()];
            self.owed.push(Owed {
                id: DeliveryId::from(derive("msg", &parts)),
                receiver: receiver.clone(),
                lane: Lane { source: None, subject: JobId::from("agent") },
                notification: notification.clone(),
                pace: None,
            });
        }
    }
}

fn blind_title(views: &[(&View, Timestamp)], now: Timestamp) -> String {
    let longest = views.iter().map(|(_, since)| now.since(*since)).max().unwrap_or_default();
    match views {
        [(view, _)] if view.fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::Vanished) => {
            format!("{}: most jobs vanished from the listing at once", view.source.name)
        }
        [(view, _)] => format!("{}: no complete listing for {}", view.source.name, span(longest)),
        many => format!("{} sources: no complete listing for up to {}", many.len(), span(longest)),
    }
}

fn blind_body(views: &[(&View, Timestamp)]) -> String {
    let mut body = "Job failures are not noticed there until this ends.".to_owned();
    for (view, since) in views.iter().take(NAMED_MAX) {
        let cause = view.fault.as_ref().map_or("unknown", |fault| fault.text.as_str());
        body += &match views.len() {
            1 => format!("\nReason: {cause}"),
            _ => format!("\n{} (since {since}): {cause}", view.source.name),
        };
    }
    body + &rest(views)
}

fn restored_title(views: &[(&View, Timestamp)], now: Timestamp) -> String {
    let longest = views.iter().map(|(_, since)| now.since(*since)).max().unwrap_or_default();
    match views {
        [(view, _)] => format!("{}: listings are complete again after {}", view.source.name, span(longest)),
        many => format!("{} sources: listings are complete again after up to {}", many.len(), span(longest)),
    }
}

fn restored_body(views: &[(&View, Timestamp)]) -> String {
    let body = "What changed in between is told as it is found, marked late.".to_owned();
    if views.len() == 1 {
        return body;
    }
    let names: Vec<&str> = views.iter().take(NAMED_MAX).map(|(view, _)| view.source.name.as_str()).collect();
    format!("{body}\n{}{}", names.join(", "), rest(views))
}

fn rest(views: &[(&View, Timestamp)]) -> String {
    match views.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("\nand {more} more"),
    }
}
