//! Rules on disk that cannot be used are told, once for each set of errors, and so is their end.

use super::SelfWatch;
use crate::model::alert::Severity;
use crate::model::delivery::{Lane, Owed};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::model::time::{Timestamp, span};

/// More problems than this are counted, not shown.
const SHOWN_MAX: usize = 20;
/// A problem is cut here.
const LINE_MAX: usize = 500;

/// What is owed when the rules on disk cannot be used because of these `errors`, a line each. `since` is when they could
/// not be used for the first time after they last could: the same errors are the same message until then.
pub fn rules_refused(errors: &[String], watch: &SelfWatch, since: Timestamp, now: Timestamp) -> Vec<Owed> {
    let problems: Vec<String> = errors.iter().take(SHOWN_MAX).map(|line| cut(line)).collect();
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        many => format!("{many} errors"),
    };
    let mut body = "The rules that were in force stay in force.\n".to_owned();
    problems.iter().for_each(|problem| body += &format!("\n{problem}"));
    if errors.len() > SHOWN_MAX {
        body += &format!("\n… and {} more: `jobwatch check` shows all.", errors.len() - SHOWN_MAX);
    }
    let notification = Notification {
        event: Event::ReloadFailed,
        time: now,
        severity: Severity::Error,
        title: format!("the rules on disk cannot be used: {count}"),
        body,
        topic: Topic::Reload { problems },
    };
    owed(&notification, &errors.join("\n"), watch, since)
}

/// What is owed when the rules on disk, which could not be used since then, are in force.
pub fn rules_accepted(rules: usize, watch: &SelfWatch, since: Timestamp, now: Timestamp) -> Vec<Owed> {
    let count = match rules {
        1 => "1 rule is".to_owned(),
        many => format!("{many} rules are"),
    };
    let notification = Notification {
        event: Event::ReloadSucceeded,
        time: now,
        severity: Severity::Info,
        title: format!("the rules on disk can be used again: {count} in force"),
        body: format!("They could not be used for {}.", span(now.since(since))),
        topic: Topic::Reload { problems: Vec::new() },
    };
    owed(&notification, "", watch, since)
}

/// What is owed when replicas on one state have not the same rules, or do not watch and tell the same, since then. Each is
/// given by its name, and digests of its rules and of what it watches and tells.
pub fn replicas_differ(
    replicas: &[(String, String, String)],
    watch: &SelfWatch,
    since: Timestamp,
    now: Timestamp,
) -> Vec<Owed> {
    let about = |(name, rules, sources): &(String, String, String)| {
        cut(&format!("{name} has rules {} and configuration {}", brief(rules), brief(sources)))
    };
    let problems: Vec<String> = replicas.iter().take(SHOWN_MAX).map(about).collect();
    let mut body =
        "What is told depends on which of them polls a source. `jobwatch replicas` shows them; bring the same files \
                    to all, then `jobwatch reload`, or start anew those whose jobwatch.toml was changed.\n"
            .to_owned();
    problems.iter().for_each(|problem| body += &format!("\n{problem}"));
    let notification = Notification {
        event: Event::ReloadFailed,
        time: now,
        severity: Severity::Error,
        title: format!("{} replicas do not have the same rules and configuration", replicas.len()),
        body,
        topic: Topic::Reload { problems },
    };
    owed(&notification, "replicas", watch, since)
}

/// What is owed when they have the same again.
pub fn replicas_agree(replicas: usize, watch: &SelfWatch, since: Timestamp, now: Timestamp) -> Vec<Owed> {
    let notification = Notification {
        event: Event::ReloadSucceeded,
        time: now,
        severity: Severity::Info,
        title: format!("{replicas} replicas have the same rules and configuration again"),
        body: format!("They differed for {}.", span(now.since(since))),
        topic: Topic::Reload { problems: Vec::new() },
    };
    owed(&notification, "replicas", watch, since)
}

/// A digest as people compare it.
fn brief(digest: &str) -> String {
    digest.rsplit('_').next().unwrap_or(digest).chars().take(8).collect()
}

fn owed(notification: &Notification, what: &str, watch: &SelfWatch, since: Timestamp) -> Vec<Owed> {
    let since = since.micros().to_string();
    let one = |receiver: &ReceiverName| Owed {
        id: DeliveryId::from(derive(
            "msg",
            &["jobwatch/reload/v1", notification.event.as_str(), &since, what, receiver.as_str()],
        )),
        receiver: receiver.clone(),
        lane: Lane { source: None, subject: JobId::from("rules") },
        notification: notification.clone(),
        pace: None,
    };
    watch.notify.iter().map(one).collect()
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}
