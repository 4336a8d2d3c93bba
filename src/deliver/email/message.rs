//! The letter: what is frozen of an e-mail, and the message it becomes for one recipient.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

use crate::deliver::parts::{Parts, is_link};
use crate::deliver::tame;
use crate::model::alert::Severity;
use crate::model::delivery::{Frozen, Lane, Owed};
use crate::model::name::derive;
use crate::model::notification::{Notification, Topic};

/// Subjects are cut here: phones show 30 to 40 characters, lists about 70.
const SUBJECT_MAX: usize = 150;

/// Everything of a message that is the same for every recipient and on every attempt.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::deliver) struct Letter {
    /// The same for everything about one job, so that programs which thread by subject do.
    subject: String,
    text: String,
    html: String,
    /// The left part of the id that all letters about one job refer to.
    thread: String,
    /// The domain of the ids.
    domain: String,
    urgent: bool,
}

impl Letter {
    pub(in crate::deliver) fn write(owed: &Owed, domain: &str) -> Self {
        let notification = &owed.notification;
        let parts = Parts::of(owed);
        Self {
            subject: tame(&format!("[jobwatch] {}", stem(notification)), SUBJECT_MAX),
            text: parts.text(),
            html: html(notification, &parts),
            thread: thread(&owed.lane),
            domain: domain.to_owned(),
            urgent: notification.severity == Severity::Critical,
        }
    }

    pub(in crate::deliver) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are always JSON")
    }

    pub(in crate::deliver) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("the stored letter cannot be read: {error}"))
    }

    /// The message for one recipient, byte for byte the same on every attempt.
    pub(in crate::deliver) fn address(
        &self,
        frozen: &Frozen,
        from: &Mailbox,
        reply_to: Option<&Mailbox>,
        to: &Mailbox,
    ) -> Result<Vec<u8>, String> {
        let domain = &self.domain;
        // One id a recipient: a reader of two mailboxes sees both, a mailbox that is sent it twice keeps one.
        let copy = derive("to", &[to.email.as_ref()]);
        let root = format!("<{}@{domain}>", self.thread);
        // When it was decided, on every attempt. (The cloud's own time of the change may be an old one.)
        let seconds = u64::try_from(frozen.created_at.seconds()).unwrap_or(0);
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut builder = Message::builder()
            .from(from.clone())
            .to(to.clone())
            .subject(&self.subject)
            .date(date)
            .message_id(Some(format!("<{}.{}@{domain}>", frozen.id, &copy[3..11])))
            .in_reply_to(root.clone())
            .references(root);
        if let Some(reply_to) = reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        let mut headers = vec![
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("X-Auto-Response-Suppress", "OOF, AutoReply".to_owned()),
            ("List-Id", format!("<jobwatch.{domain}>")),
            ("X-Jobwatch-Delivery", frozen.id.to_string()),
            ("X-Jobwatch-Event", frozen.event.clone()),
        ];
        if self.urgent {
            headers.push(("Importance", "high".to_owned()));
            headers.push(("X-Priority", "1".to_owned()));
        }
        for (name, value) in headers {
            builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value));
        }
        let parts = MultiPart::alternative()
            .boundary(frozen.id.as_str())
            .singlepart(SinglePart::plain(self.text.clone()))
            .singlepart(SinglePart::html(self.html.clone()));
        builder.multipart(parts).map(|message| message.formatted()).map_err(|error| error.to_string())
    }
}

/// What stays the same in the subject of everything about one job.
fn stem(notification: &Notification) -> String {
    match &notification.topic {
        Topic::Job(topic) => {
            let job = &topic.transition.job;
            let kind = job.kind.as_deref().unwrap_or("job");
            format!("{}: {kind}", job.title())
        }
        // The title of a refusal counts its errors; its end belongs to it.
        Topic::Reload { .. } => "the rules on disk".to_owned(),
        Topic::Room { .. } => "the size of the state".to_owned(),
        Topic::Digest(_) | Topic::Sources(_) | Topic::Probe(_) | Topic::Receiver { .. } => notification.title.clone(),
    }
}

fn thread(lane: &Lane) -> String {
    let source = lane.source_name();
    derive("thread", &["jobwatch/thread/v1", source, lane.subject.as_str()])
}

fn html(notification: &Notification, parts: &Parts) -> String {
    static PAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment
            .add_template("message.html", include_str!("message.html"))
            .expect("the template is a constant, and a test renders it");
        environment
    });
    let colour = match notification.severity {
        Severity::Critical => "#b3261e",
        Severity::Error => "#c4470e",
        Severity::Warning => "#8a6100",
        Severity::Info => "#1d6b3a",
    };
    // The title or the text says it as a rule; once more would push the facts off a phone's screen.
    let told = parts.title.contains(&parts.reason) || parts.body.contains(&parts.reason);
    let reason = if told { "" } else { parts.reason.as_str() };
    let rows: Vec<_> = parts
        .facts
        .iter()
        .filter(|(name, _)| *name != "Reason")
        .map(|(name, value)| {
            let link = *name == "Runbook" && is_link(value);
            context! { name => *name, value => value.as_str(), link => link }
        })
        .collect();
    let page = PAGE.get_template("message.html").and_then(|page| {
        page.render(context! {
            state => parts.state.as_str(), colour => colour, severity => notification.severity.as_str(),
            title => parts.behind_state(), body => parts.body.lines().map(ToOwned::to_owned).collect::<Vec<_>>(), reason => reason, facts => minijinja::Value::from_iter(rows),
        })
    });
    page.expect("the template uses only what it is given, and a test renders it")
}
