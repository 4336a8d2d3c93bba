//! `kind = "alertmanager"`: alerts of a Prometheus Alertmanager, which groups, silences and routes them.
//!
//! Source: Alertmanager's API v2. The labels are what tells one alert from another: they must be the same when it ends, so
//! nothing stands in them that a later job may say otherwise. An alert ends by itself when its time is up; that is
//! reckoned from the attempt, so that a message that was held up for hours still rings.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::parts::{Parts, is_link};
use super::post::{Door, Medium, Posting, Wire, knock, receiver_at_each};
use super::{Carrier, Common, Kind, Receiver, headers, tame};
use crate::document::Table;
use crate::document::schema::{duration, one_or_many, table};
use crate::model::delivery::Owed;
use crate::model::notification::{Event, Notification, Seeing, Topic};
use crate::model::text::{cut, lines};
use crate::model::time::Timestamp;

pub(super) const KIND: Kind = Kind {
    name: "alertmanager",
    about: "alerts of a Prometheus Alertmanager: fires and resolves them",
    carrier: Carrier::Http,
    concurrency: 2,
    text_max: 1 << 20,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = ["https://alertmanager-0.example.org", "https://alertmanager-1.example.org"]
keep = "4h"
headers = { Authorization = { credential = "alertmanager-authorization" } }
"#;

const HELP: &str =
    "url = \"https://alertmanager.example.org\", or a list: every instance of a cluster wants to be told";
/// Instances of one cluster.
const DOORS_MAX: usize = 16;
/// How long an alert stands that nobody ends.
const KEEP: Duration = Duration::from_secs(4 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const MONTH: Duration = Duration::from_secs(31 * 86_400);
/// Bytes of a label or of a short annotation.
const SHORT_MAX: usize = 300;
/// Bytes of a long annotation …
const LONG_MAX: usize = 4_000;
/// … and of one of many.
const EACH_MAX: usize = 1_000;

#[derive(Debug)]
struct Alertmanager {
    headers: HeaderMap,
    keep: Duration,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let headers = headers::read(table, common);
    // What is secret does not travel in clear.
    let wire = if table.has("headers") { Wire::Sealed } else { Wire::Open };
    let doors = doors(table, common, wire);
    let keep = table.duration("keep", MINUTE..MONTH);
    let medium = headers.map(|headers| Alertmanager { headers, keep: keep.unwrap_or(KEEP) });
    receiver_at_each(doors, medium)
}

fn doors(table: &Table<'_>, common: &Common<'_>, wire: Wire) -> Option<Vec<Door>> {
    let urls = table.strings("url");
    if urls.as_ref().is_none_or(Vec::is_empty) {
        table.missing("url", HELP);
        return None;
    }
    let urls = urls.unwrap_or_default();
    if let Some(many) = urls.get(DOORS_MAX) {
        table.error("url", many.span.clone(), format!("more than {DOORS_MAX} addresses"), HELP);
        return None;
    }
    let knock = |item: &crate::document::Item<String>| {
        let url = format!("{}/api/v2/alerts", item.value.trim().trim_end_matches('/'));
        knock(table, common, &SecretString::from(url), item.span.clone(), wire)
    };
    // Every address that is wrong is told, not the first alone.
    let doors: Vec<Option<Door>> = urls.iter().map(knock).collect();
    doors.into_iter().collect()
}

fn schema() -> Value {
    let mut url = one_or_many(
        "Where it answers, without /api/v2/alerts; of a cluster, every instance. http where no `headers` are sent.",
        &json!({ "type": "string" }),
        1,
    );
    url["anyOf"][1]["maxItems"] = DOORS_MAX.into();
    table(
        "",
        &["url"],
        [
            ("url", url),
            ("keep", duration("How long an alert stands that nobody ends; 4h, if left out.")),
            ("headers", headers::schema()),
        ],
    )
}

impl Medium for Alertmanager {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        Value::Array(alerts(owed)).to_string().into_bytes()
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        let mut alerts: Vec<Map<String, Value>> = serde_json::from_slice(&posting.body)
            .map_err(|error| format!("the stored alerts cannot be read: {error}"))?;
        let until = json!(posting.now.plus(self.keep));
        for alert in &mut alerts {
            // One that is over says so already.
            alert.entry("endsAt").or_insert_with(|| until.clone());
        }
        posting.body = json!(alerts).to_string().into_bytes();
        posting.headers.extend(self.headers.clone());
        Ok(())
    }
}

fn alerts(owed: &Owed) -> Vec<Value> {
    let notification = &owed.notification;
    match &notification.topic {
        Topic::Job(_) => vec![of_job(&notification.data(), notification.time, LONG_MAX)],
        Topic::Digest(entries) => {
            entries.iter().map(|entry| of_job(&entry.data, notification.time, EACH_MAX)).collect()
        }
        Topic::Sources(seen) => seen.iter().map(|one| of_source(owed, one)).collect(),
        Topic::Reload { .. } => vec![own(owed, "JobwatchReload", &[])],
        Topic::Room { .. } => vec![own(owed, "JobwatchSize", &[])],
        Topic::Probe(name) => vec![own(owed, "JobwatchProbe", &[("receiver", name.as_str())])],
        Topic::Receiver { name, .. } => vec![own(owed, "JobwatchReceiver", &[("receiver", name.as_str())])],
    }
}

/// The alert of one job, from what a webhook would be told of it. The id of the finding is the same until it ends; the
/// job, which may be another one then, is only told.
fn of_job(data: &Value, time: Timestamp, max: usize) -> Value {
    let text = |place: &str| data.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let mut labels = labels(&[
        ("alertname", text("/rule/id")),
        ("severity", text("/severity")),
        ("source", text("/source/name")),
        ("region", text("/source/region")),
        ("project_id", text("/source/project_id")),
        ("alert_id", text("/alert/id")),
    ]);
    for (name, value) in data.pointer("/rule/labels").and_then(Value::as_object).into_iter().flatten() {
        let value = tame(value.as_str().unwrap_or_default(), SHORT_MAX);
        // Our own win: without them an alert would not be found again.
        if !value.is_empty() {
            labels.entry(label_name(name)).or_insert_with(|| value.into());
        }
    }
    let runbook = Some(text("/rule/runbook")).filter(|link| is_link(link)).unwrap_or_default();
    let annotations = annotations(&[
        ("summary", &cut(&tame(text("/title"), SHORT_MAX), SHORT_MAX * 4)),
        ("description", &lines(text("/body"), max)),
        ("reason", &cut(&tame(text("/reason"), max), max)),
        ("runbook_url", &tame(runbook, SHORT_MAX * 4)),
        ("resource", &tame(text("/job/resource_name"), SHORT_MAX)),
        ("type", &tame(text("/job/type"), SHORT_MAX)),
        ("job", &tame(text("/job/id"), SHORT_MAX)),
    ]);
    let started = Timestamp::parse(text("/alert/first_seen")).unwrap_or(time);
    let over = (text("/state") == "resolved").then(|| Timestamp::parse(text("/transition/seen_at")).unwrap_or(time));
    alert(&labels, &annotations, started, over)
}

/// A source that is not seen, or is again.
fn of_source(owed: &Owed, seen: &Seeing) -> Value {
    let notification = &owed.notification;
    let project = seen.source.project_id.as_str();
    let region = seen.source.region.as_deref().unwrap_or_default();
    let more = [("source", seen.source.name.as_str()), ("region", region), ("project_id", project)];
    let labels = own_labels("JobwatchBlind", &more, "critical");
    let reason = tame(seen.cause.as_deref().unwrap_or_default(), LONG_MAX);
    let over = (notification.event == Event::AgentRestored).then_some(notification.time);
    alert(&labels, &own_annotations(owed, &reason), seen.since, over)
}

/// What the agent says of itself.
fn own(owed: &Owed, name: &str, more: &[(&str, &str)]) -> Value {
    let Notification { event, time, .. } = &owed.notification;
    let severity = if *event == Event::Probe { "info" } else { "error" };
    let reason = Parts::of(owed).reason;
    let over = matches!(event, Event::ReloadSucceeded | Event::AgentFits).then_some(*time);
    alert(&own_labels(name, more, severity), &own_annotations(owed, &reason), *time, over)
}

/// The severity stays the same to the end: the end's own is another.
fn own_labels(name: &str, more: &[(&str, &str)], severity: &str) -> Map<String, Value> {
    labels(&[&[("alertname", name), ("severity", severity)], more].concat())
}

fn own_annotations(owed: &Owed, reason: &str) -> Map<String, Value> {
    let Parts { title, body, .. } = Parts::of(owed);
    annotations(&[("summary", &title), ("description", &cut(&body, LONG_MAX)), ("reason", reason)])
}

fn alert(
    labels: &Map<String, Value>,
    annotations: &Map<String, Value>,
    started: Timestamp,
    over: Option<Timestamp>,
) -> Value {
    let mut alert = json!({ "labels": labels, "annotations": annotations, "startsAt": started });
    if let Some(over) = over {
        // What ends before it begins is refused.
        alert["endsAt"] = json!(over.max(started));
    }
    alert
}

/// Empty ones are left out: to Alertmanager they are none.
fn labels(pairs: &[(&str, &str)]) -> Map<String, Value> {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), tame(value, SHORT_MAX)));
    pairs.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.into())).collect()
}

fn annotations(pairs: &[(&str, &str)]) -> Map<String, Value> {
    let pairs = pairs.iter().filter(|(_, text)| !text.is_empty());
    pairs.map(|(name, text)| ((*name).to_owned(), (*text).into())).collect()
}

/// The name of a rule's label in the letters that every version takes.
fn label_name(name: &str) -> String {
    let mut sound: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !sound.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        sound.insert(0, '_');
    }
    cut(&sound, SHORT_MAX).trim_end_matches('…').to_owned()
}
