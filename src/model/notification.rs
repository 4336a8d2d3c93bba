//! What is to be said: one message, before it takes the form of a medium.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alert::{Alert, Severity};
use super::follow_up::Report;
use super::name::{ReceiverName, RuleId, SourceName};
use super::time::Timestamp;
use super::transition::{State, Transition};

/// One message, the same for every receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// What kind of thing happened.
    pub event: Event,
    /// When it happened, as well as that is known.
    pub time: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// The rest, as plain text.
    pub body: String,
    /// What it is about.
    pub topic: Topic,
}

/// What kind of thing happened; the end of the CloudEvents `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job was seen in `Failed`.
    JobFailed,
    /// A job was seen in `Success`.
    JobSucceeded,
    /// A job was seen in any other status.
    JobChanged,
    /// A job has been in one status for long.
    JobStays,
    /// A job was deleted.
    JobGone,
    /// What a rule found is over.
    AlertResolved,
    /// Several notifications in one.
    Digest,
    /// A source could not be seen for too long.
    AgentBlind,
    /// A source is seen again.
    AgentRestored,
    /// The rules on disk cannot be used; the old ones stay in force.
    ReloadFailed,
    /// The rules on disk can be used again, and are in force.
    ReloadSucceeded,
    /// The state is larger than it may be, and nothing more can be forgotten.
    AgentOversized,
    /// The state is no longer larger than it may be.
    AgentFits,
    /// A receiver refuses what it is sent, or a delivery to it was given up.
    ReceiverDead,
    /// A follow-up was carried out, or would have been.
    FollowUpDone,
    /// A follow-up was not carried out, or not to its end.
    FollowUpFailed,
    /// A follow-up waits for somebody to approve it.
    FollowUpWaiting,
    /// Nothing happened: somebody looks whether messages arrive.
    Probe,
}

impl Event {
    /// The CloudEvents `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobFailed => "io.jobwatch.job.failed",
            Self::JobSucceeded => "io.jobwatch.job.succeeded",
            Self::JobChanged => "io.jobwatch.job.changed",
            Self::JobGone => "io.jobwatch.job.gone",
            Self::AlertResolved => "io.jobwatch.alert.resolved",
            Self::Digest => "io.jobwatch.digest",
            Self::AgentBlind => "io.jobwatch.agent.blind",
            Self::AgentRestored => "io.jobwatch.agent.restored",
            Self::ReloadFailed => "io.jobwatch.agent.reload_failed",
            Self::ReloadSucceeded => "io.jobwatch.agent.reload_succeeded",
            Self::AgentOversized => "io.jobwatch.agent.oversized",
            Self::AgentFits => "io.jobwatch.agent.fits_again",
            Self::JobStays => "io.jobwatch.job.stays",
            Self::ReceiverDead => "io.jobwatch.receiver.dead",
            Self::FollowUpDone => "io.jobwatch.follow_up.done",
            Self::FollowUpFailed => "io.jobwatch.follow_up.failed",
            Self::FollowUpWaiting => "io.jobwatch.follow_up.waiting",
            Self::Probe => "io.jobwatch.probe",
        }
    }
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Topic {
    /// A rule matched a transition of a job.
    Job(Box<JobTopic>),
    /// Several notifications in one.
    Digest(Vec<Entry>),
    /// The agent cannot see sources, or can again.
    Sources(Vec<Seeing>),
    /// The rules on disk were read anew.
    Reload {
        /// What is wrong with them, a line each; nothing when they are in force.
        problems: Vec<String>,
    },
    /// How large the state is.
    Room {
        /// Bytes that it takes.
        used: u64,
        /// As many as it may take, if that is limited.
        max: Option<u64>,
    },
    /// A receiver is tried.
    Probe(ReceiverName),
    /// A receiver does not take what it is sent.
    Receiver {
        /// Which.
        name: ReceiverName,
        /// What it answered.
        why: String,
        /// `refused`, `retired` or `dead`.
        state: &'static str,
        /// The delivery this was noticed with, and its title.
        delivery: (String, String),
    },
}

/// One of several notifications that are told together.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it says in one line.
    pub title: String,
    /// The class of its reason.
    pub class: String,
    /// The `data` it would have had alone.
    pub data: Value,
}

/// A source that cannot be seen, or can again.
#[derive(Clone, Debug, PartialEq)]
pub struct Seeing {
    /// Which.
    pub source: Arc<SourceFacts>,
    /// Since when it could not be seen.
    pub since: Timestamp,
    /// Why not; nothing when it can again.
    pub cause: Option<String>,
}

/// A rule's match with everything the receiver may want to know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobTopic {
    /// What was seen.
    pub transition: Arc<Transition>,
    /// The reason with its variable parts replaced.
    pub reason_class: String,
    /// Which rule matched; of several, the one that matters most.
    pub rule: RuleFacts,
    /// The other rules that matched and tell the same receivers.
    pub also: Vec<RuleFacts>,
    /// Where.
    pub source: Arc<SourceFacts>,
    /// The rule's standing finding.
    pub alert: Alert,
    /// Matches since the receiver was last told of it.
    pub held_back: u32,
    /// What came of a follow-up, when that is what is told.
    pub follow_up: Option<Report>,
}

/// What a receiver is told about the rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// Its key.
    pub id: RuleId,
    /// What it watches for.
    pub about: String,
    /// Where to read on.
    pub runbook: Option<String>,
    /// The operator's own words on it.
    pub labels: BTreeMap<String, String>,
}

/// What a receiver is told about the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Its name in the configuration.
    pub name: SourceName,
    /// Its kind.
    pub kind: String,
    /// The cloud's region, if it was named.
    pub region: Option<String>,
    /// The project whose jobs are listed.
    pub project_id: String,
}

impl Notification {
    /// The CloudEvents `source`: the agent, and which of its sources.
    pub fn origin(&self) -> String {
        match &self.topic {
            Topic::Job(topic) => format!("jobwatch/{}", topic.source.name),
            Topic::Sources(seen) => match seen.as_slice() {
                [one] => format!("jobwatch/{}", one.source.name),
                _ => "jobwatch".into(),
            },
            Topic::Digest(_) | Topic::Reload { .. } | Topic::Room { .. } | Topic::Probe(_) | Topic::Receiver { .. } => {
                "jobwatch".into()
            }
        }
    }

    /// The CloudEvents `subject`: the job's id, or the name of what is in trouble.
    pub fn subject(&self) -> &str {
        match &self.topic {
            Topic::Job(topic) => topic.transition.job.id.as_str(),
            Topic::Sources(seen) => match seen.as_slice() {
                [one] => one.source.name.as_str(),
                _ => "sources",
            },
            Topic::Digest(_) => "digest",
            Topic::Reload { .. } => "rules",
            Topic::Room { .. } => "state",
            Topic::Probe(name) | Topic::Receiver { name, .. } => name.as_str(),
        }
    }

    /// The rules that speak.
    pub fn rules(&self) -> Vec<&RuleId> {
        match &self.topic {
            Topic::Job(topic) => std::iter::once(&topic.rule).chain(&topic.also).map(|rule| &rule.id).collect(),
            Topic::Digest(_)
            | Topic::Sources(_)
            | Topic::Reload { .. }
            | Topic::Room { .. }
            | Topic::Probe(_)
            | Topic::Receiver { .. } => Vec::new(),
        }
    }

    /// The failure reason in the cloud's words, or what went wrong in ours.
    pub fn reason(&self) -> Option<&str> {
        match &self.topic {
            Topic::Job(topic) => topic.transition.job.reason.as_deref(),
            Topic::Sources(seen) => seen.first().and_then(|one| one.cause.as_deref()),
            Topic::Receiver { why, .. } => Some(why),
            Topic::Reload { problems } => problems.first().map(String::as_str),
            Topic::Digest(_) | Topic::Room { .. } | Topic::Probe(_) => None,
        }
    }

    /// The `data` member of the webhook body.
    pub fn data(&self) -> Value {
        let mut data = json!({
            "state": self.state(),
            "severity": self.severity,
            "title": self.title,
            "body": self.body,
        });
        let more = match &self.topic {
            Topic::Job(topic) => topic.data(),
            Topic::Digest(entries) => json!({ "jobs": entries.iter().map(Entry::value).collect::<Vec<_>>() }),
            Topic::Sources(seen) => {
                let one = |seeing: &Seeing| {
                    let mut value = json!(&*seeing.source);
                    value["since"] = json!(seeing.since);
                    value["cause"] = json!(seeing.cause);
                    value
                };
                let all: Vec<Value> = seen.iter().map(one).collect();
                match seen.as_slice() {
                    [only] => json!({ "reason": only.cause, "source": &*only.source, "sources": all }),
                    _ => json!({ "reason": self.reason(), "sources": all }),
                }
            }
            Topic::Reload { problems } => json!({ "reason": problems.first(), "problems": problems }),
            Topic::Room { used, max } => json!({ "used_bytes": used, "size_max_bytes": max }),
            Topic::Probe(name) => json!({ "receiver": name }),
            Topic::Receiver { name, why, delivery: (id, title), .. } => {
                json!({ "receiver": name, "reason": why, "delivery": { "id": id, "title": title } })
            }
        };
        if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
            data.extend(more);
        }
        data
    }

    fn state(&self) -> &'static str {
        match &self.topic {
            Topic::Receiver { state, .. } => state,
            Topic::Probe(_) => "probe",
            Topic::Job(_) | Topic::Digest(_) | Topic::Sources(_) | Topic::Reload { .. } | Topic::Room { .. } => {
                match self.event {
                    Event::AgentRestored | Event::ReloadSucceeded | Event::AgentFits | Event::AlertResolved => {
                        "resolved"
                    }
                    Event::JobFailed
                    | Event::JobSucceeded
                    | Event::JobChanged
                    | Event::JobStays
                    | Event::JobGone
                    | Event::Digest
                    | Event::AgentBlind
                    | Event::ReloadFailed
                    | Event::AgentOversized
                    | Event::ReceiverDead => "firing",
                    Event::FollowUpDone => "done",
                    Event::FollowUpFailed => "failed",
                    Event::FollowUpWaiting => "waiting",
                    Event::Probe => "probe",
                }
            }
        }
    }
}

impl Entry {
    /// As a digest's `jobs` have it.
    fn value(&self) -> Value {
        const KEPT: [&str; 9] =
            ["state", "severity", "title", "reason", "reason_class", "job", "transition", "rule", "alert"];
        let mut value = json!({});
        for key in KEPT.into_iter().chain(["source", "also"]) {
            if let Some(part) = self.data.get(key) {
                value[key] = part.clone();
            }
        }
        value
    }
}

impl JobTopic {
    /// Which event a step to this state is.
    pub fn event(&self) -> Event {
        use super::job::Status;
        match &self.transition.to {
            _ if self.transition.is_stay() => Event::JobStays,
            _ if self.transition.is_change() => Event::JobChanged,
            State::Is(Status::Failed) => Event::JobFailed,
            State::Is(Status::Success) => Event::JobSucceeded,
            State::Gone => Event::JobGone,
            State::Unseen | State::Is(Status::Creating | Status::Initializing | Status::Running | Status::Other(_)) => {
                Event::JobChanged
            }
        }
    }

    fn data(&self) -> Value {
        let Transition { job, from, to, seen_before, seen_at, skipped, changed, late, .. } = &*self.transition;
        let mut data = json!({
            "reason": job.reason,
            "reason_class": self.reason_class,
            "job": &**job,
            "transition": {
                "from": from, "to": to, "seen_before": seen_before, "seen_at": seen_at, "skipped": skipped, "late": late,
            },
            "rule": self.rule,
            "source": self.source,
            "alert": {
                "id": self.alert.id, "count": self.alert.count, "held_back": self.held_back,
                "first_seen": self.alert.first_seen,
            },
        });
        if !changed.is_empty() {
            data["transition"]["changed"] = json!(changed);
        }
        if let Some(report) = &self.follow_up {
            data["follow_up"] = json!(report);
        }
        if !self.also.is_empty() {
            data["also"] = json!(self.also);
        }
        data
    }
}
