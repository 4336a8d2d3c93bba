//! Follow-ups: actions that a rule's match asks for, from the finding to what came of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alert::{Alert, Severity};
use super::delivery::Lane;
use super::job::{Job, Status};
use super::name::{AlertId, DeliveryId, FollowUpName, JobId, ReceiverName, SourceName, TransitionId, derive};
use super::notification::{JobTopic, RuleFacts, SourceFacts};
use super::time::Timestamp;
use super::transition::{State, Transition};

/// In the outbox, follow-ups stand under names that no receiver can have.
const PREFIX: &str = "follow_up/";

/// A follow-up that is owed: once for each episode of a finding.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowUp {
    /// Its delivery in the outbox; the same whenever and wherever it is derived.
    pub id: DeliveryId,
    /// Which of the configuration's follow-ups.
    pub name: FollowUpName,
    /// Who hears what came of it.
    pub notify: Vec<ReceiverName>,
    /// How much the finding matters.
    pub severity: Severity,
    /// The match that asks for it.
    pub topic: JobTopic,
    /// The `data` of the message that tells of the match.
    pub data: Value,
}

impl FollowUp {
    /// What a match asks for. One episode of a finding asks for it once: the id says so.
    pub fn new(name: FollowUpName, notify: Vec<ReceiverName>, topic: JobTopic, data: Value) -> Self {
        let severity = topic.alert.severity;
        let began = topic.alert.first_seen.micros().to_string();
        let parts = ["jobwatch/follow_up/v1", topic.alert.id.as_str(), &began, name.as_str()];
        Self { id: DeliveryId::from(derive("fup", &parts)), name, notify, severity, topic, data }
    }

    /// The name in the outbox.
    pub fn receiver(name: &FollowUpName) -> ReceiverName {
        ReceiverName::from(format!("{PREFIX}{name}"))
    }

    /// Whether that is the name of a follow-up in the outbox; no receiver can have one.
    pub fn is_receiver(name: &ReceiverName) -> bool {
        name.as_str().starts_with(PREFIX)
    }

    /// What is said of it stands in one thread with what is said of the job.
    pub fn lane(&self) -> Lane {
        Lane { source: Some(self.topic.source.name.clone()), subject: self.topic.transition.job.id.clone() }
    }

    /// What it touches: one follow-up at a time.
    pub fn resource(&self) -> String {
        let job = &self.topic.transition.job;
        let named = [&job.resource_id, &job.instance_id].into_iter().flatten().find(|id| !id.is_empty());
        format!("{}/{}", self.topic.source.name, named.map_or(job.id.as_str(), |id| id))
    }

    /// In one line, for the outbox.
    pub fn title(&self) -> String {
        format!("{} after {}: {}", self.name, self.topic.rule.id, self.topic.transition.job.called())
    }

    /// What a command is told: the `data` of a webhook, with the follow-up's own ids.
    pub fn input(&self) -> Value {
        let mut data = self.data.clone();
        data["follow_up"] = json!({ "id": self.id, "name": self.name });
        data
    }

    /// For the outbox.
    pub fn write(&self) -> Vec<u8> {
        let JobTopic { transition, reason_class, rule, source, alert, .. } = &self.topic;
        let page = Page {
            name: self.name.clone(),
            notify: self.notify.clone(),
            severity: self.severity.as_str().to_owned(),
            rule: rule.clone(),
            source: (**source).clone(),
            reason_class: reason_class.clone(),
            data: self.data.clone(),
            alert: AlertPage {
                id: alert.id.clone(),
                subject: alert.subject.clone(),
                count: alert.count,
                first_seen: alert.first_seen.micros(),
                last_seen: alert.last_seen.micros(),
            },
            step: StepPage {
                id: transition.id.clone(),
                from: transition.from.to_string(),
                to: transition.to.to_string(),
                seen_before: transition.seen_before.map(Timestamp::micros),
                seen_at: transition.seen_at.micros(),
                skipped: transition.skipped.clone(),
                late: transition.late,
                seq: transition.seq,
                job: (*transition.job).clone(),
            },
        };
        serde_json::to_vec(&page).expect("texts and numbers are always JSON")
    }

    /// What [`FollowUp::write`] wrote.
    pub fn read(id: &DeliveryId, bytes: &[u8]) -> Option<Self> {
        let Page { name, notify, severity, rule, source, reason_class, data, alert, step } =
            serde_json::from_slice(bytes).ok()?;
        let severity: Severity = severity.parse().ok()?;
        let transition = Transition {
            id: step.id,
            source: source.name.clone(),
            from: State::read(&step.from),
            to: State::read(&step.to),
            seen_before: step.seen_before.map(Timestamp::from_micros),
            seen_at: Timestamp::from_micros(step.seen_at),
            skipped: step.skipped,
            changed: Vec::new(),
            late: step.late,
            seq: step.seq,
            job: Arc::new(step.job),
        };
        let alert = Alert {
            id: alert.id,
            rule: rule.id.clone(),
            source: source.name.clone(),
            subject: alert.subject,
            resource: transition.job.resource_id.clone(),
            severity,
            count: alert.count,
            first_seen: Timestamp::from_micros(alert.first_seen),
            last_seen: Timestamp::from_micros(alert.last_seen),
            resolved: false,
            told: Vec::new(),
        };
        let topic = JobTopic {
            transition: Arc::new(transition),
            reason_class,
            rule,
            also: Vec::new(),
            source: Arc::new(source),
            alert,
            held_back: 0,
            follow_up: None,
        };
        Some(Self { id: id.clone(), name, notify, severity, topic, data })
    }
}

#[derive(Serialize, Deserialize)]
struct Page {
    #[serde(rename = "follow_up")]
    name: FollowUpName,
    notify: Vec<ReceiverName>,
    severity: String,
    rule: RuleFacts,
    source: SourceFacts,
    reason_class: String,
    data: Value,
    alert: AlertPage,
    step: StepPage,
}

#[derive(Serialize, Deserialize)]
struct AlertPage {
    id: AlertId,
    subject: JobId,
    count: u32,
    first_seen: i64,
    last_seen: i64,
}

#[derive(Serialize, Deserialize)]
struct StepPage {
    id: TransitionId,
    from: String,
    to: String,
    seen_before: Option<i64>,
    seen_at: i64,
    skipped: Vec<Status>,
    late: bool,
    seq: u32,
    job: Job,
}

/// What somebody said to a follow-up that waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Whether it may be done.
    pub approved: bool,
    /// Who said so.
    pub by: String,
}

/// A follow-up as the store knows it when it is its turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// When it was begun, if it was: it is never begun twice.
    pub started: Option<Timestamp>,
    /// What somebody said to it.
    pub consent: Option<Consent>,
    /// The finding that asked for it; `None` when it is forgotten.
    pub alert: Option<Alert>,
    /// Where the job stands, as far as is known.
    pub job: Option<(Status, bool)>,
    /// How many of its name were begun within the time of its limit.
    pub recent: usize,
}

/// A follow-up as people look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its delivery's id.
    pub id: DeliveryId,
    /// Which of the configuration's follow-ups.
    pub name: FollowUpName,
    /// Where.
    pub source: SourceName,
    /// About which job.
    pub job: JobId,
    /// The finding that asked for it.
    pub alert: AlertId,
    /// In one line.
    pub title: String,
    /// `due`, `waiting` (for somebody to approve it), `begun`, `done`, `not done`.
    pub state: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was begun.
    pub started_at: Option<Timestamp>,
    /// What came of it so far.
    pub note: String,
}

/// What came of a follow-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its delivery's id.
    pub id: DeliveryId,
    /// Its name in the configuration.
    pub name: FollowUpName,
    /// In a word.
    pub outcome: Ending,
    /// What was done, or would have been, or why not.
    pub what: String,
    /// How the command ended, or the status that the cloud answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// What it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// How a follow-up ended, or that it did not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It was carried out.
    Done,
    /// It would have been carried out.
    DryRun,
    /// It was begun and went wrong.
    Failed,
    /// Nothing was done.
    NotDone,
    /// It was begun, and nobody knows how far it came.
    Unknown,
    /// It waits for somebody to approve it.
    Waiting,
}

impl Ending {
    /// As the first word of a message.
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "FOLLOW-UP DONE",
            Self::DryRun => "FOLLOW-UP DRY RUN",
            Self::Failed => "FOLLOW-UP FAILED",
            Self::NotDone => "FOLLOW-UP NOT DONE",
            Self::Unknown => "FOLLOW-UP UNKNOWN",
            Self::Waiting => "FOLLOW-UP WAITING",
        }
    }
}
