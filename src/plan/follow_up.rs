//! Whether a follow-up is carried out now, later, only with somebody's word, or not at all; and what is told of it.

use std::time::Duration;

use super::Rate;
use crate::model::alert::Severity;
use crate::model::delivery::Owed;
use crate::model::follow_up::{Consent, Ending, FollowUp, Report, Standing};
use crate::model::name::{DeliveryId, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::{Timestamp, span};
use crate::model::transition::State;

/// What a follow-up may do by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permit {
    /// Say what it would do.
    #[default]
    DryRun,
    /// Act.
    Auto,
    /// Act when somebody has approved it.
    Approve,
}

/// What bounds a follow-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// What it may do by itself.
    pub permit: Permit,
    /// How often it is done without somebody's word.
    pub limit: Rate,
    /// How long after the match it is its turn.
    pub wait: Duration,
}

/// What becomes of a follow-up whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is carried out.
    Act,
    /// It is said what would be done.
    Rehearse,
    /// It waits for somebody's word, for this reason.
    Ask(String),
    /// Another one of its name, or on the same resource, is under way.
    Wait,
    /// It is not carried out, for this reason.
    Leave(String),
    /// It was begun before, and what came of it is not known.
    Interrupted,
}

/// Decides. `busy`: another one of its name, or on the same resource, is under way.
pub fn rule_on(guard: &Guard, follow_up: &FollowUp, standing: &Standing, busy: bool) -> Ruling {
    if busy {
        return Ruling::Wait;
    }
    if standing.started.is_some() {
        return Ruling::Interrupted;
    }
    if let Some(Consent { approved: false, by }) = &standing.consent {
        return Ruling::Leave(format!("rejected by {by}"));
    }
    if let Some(why) = over(follow_up, standing) {
        return Ruling::Leave(why);
    }
    let approved = standing.consent.is_some();
    match guard.permit {
        Permit::DryRun => return Ruling::Rehearse,
        Permit::Approve if !approved => return Ruling::Ask("its mode is `approve`".into()),
        Permit::Auto if !approved && standing.recent >= guard.limit.count => {
            let Rate { count, per } = guard.limit;
            return Ruling::Ask(format!("its limit is reached, {count} in {}", span(per)));
        }
        Permit::Auto | Permit::Approve => {}
    }
    Ruling::Act
}

/// Why a finding does not stand any more, if it does not.
fn over(follow_up: &FollowUp, standing: &Standing) -> Option<String> {
    let topic = &follow_up.topic;
    let Some(alert) = &standing.alert else { return Some("what asked for it is forgotten".into()) };
    if alert.resolved || alert.first_seen != topic.alert.first_seen {
        return Some("what asked for it is over".into());
    }
    moved(&topic.transition.to, standing.job.as_ref().map(|(status, gone)| (status, *gone)))
}

/// How a job has moved on from where it was, if it has.
pub fn moved(was: &State, job: Option<(&crate::model::job::Status, bool)>) -> Option<String> {
    match (was, job) {
        (State::Gone, Some((status, false))) => Some(format!("the job is there again, {status}")),
        (State::Gone, _) => None,
        (State::Is(_) | State::Unseen, None | Some((_, true))) => Some("the job is no longer there".into()),
        (State::Is(was), Some((status, false))) if was == status => None,
        (State::Is(_) | State::Unseen, Some((status, false))) => Some(format!("the job is {status} by now")),
    }
}

/// Tells those who heard of the match what came of its follow-up, in the same thread.
pub fn outcome(follow_up: &FollowUp, report: &Report, now: Timestamp) -> Vec<Owed> {
    let (event, severity, title) = match report.outcome {
        Ending::Done => (Event::FollowUpDone, Severity::Info, format!("{} is done", report.name)),
        Ending::DryRun => (Event::FollowUpDone, Severity::Info, format!("{} would be done", report.name)),
        Ending::Failed => (Event::FollowUpFailed, Severity::Error, format!("{} failed", report.name)),
        Ending::NotDone => (Event::FollowUpFailed, Severity::Warning, format!("{} was not done", report.name)),
        Ending::Unknown => (Event::FollowUpFailed, Severity::Error, format!("{} may have been done", report.name)),
        Ending::Waiting => (Event::FollowUpWaiting, Severity::Warning, format!("{} waits for a word", report.name)),
    };
    let job = &follow_up.topic.transition.job;
    let mut body = format!("{}\nIt follows rule {}.", report.what, follow_up.topic.rule.id);
    if let Some(output) = report.output.as_ref().filter(|output| !output.trim().is_empty()) {
        body += &format!("\n\n{output}");
    }
    if report.outcome == Ending::Waiting {
        body += &format!(
            "\nTo have it done: jobwatch follow-ups approve {0}\nTo be rid of it: jobwatch follow-ups reject {0}",
            report.id
        );
    }
    let topic = crate::model::notification::JobTopic { follow_up: Some(report.clone()), ..follow_up.topic.clone() };
    let notification = Notification {
        event,
        time: now,
        severity,
        title: format!("{}: {title}", job.called()),
        body,
        topic: Topic::Job(Box::new(topic)),
    };
    let told = |receiver: &crate::model::name::ReceiverName| {
        let parts = ["jobwatch/follow_up_told/v1", report.id.as_str(), event.as_str(), receiver.as_str()];
        Owed {
            id: DeliveryId::from(derive("msg", &parts)),
            receiver: receiver.clone(),
            lane: follow_up.lane(),
            notification: notification.clone(),
            pace: None,
        }
    };
    follow_up.notify.iter().map(told).collect()
}
