//! `kind = "smn"`: a topic of Huawei Cloud SMN, which sends mail, text messages and more to whoever subscribed.
//!
//! Source: SMN's API reference, "Publishing a Message". Who asks, the signature, a wrong clock and a key that is to rest
//! are [`Api`]'s business, shared with the sources: an access key is locked by the cloud for all who use it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::parts::Parts;
use super::post::{RETRY_AFTER_MAX, retry_after};
use super::{Carrier, Common, Kind, Receiver, Sent, tame};
use crate::cloud::credential::Surroundings;
use crate::cloud::{Api, Call, Credential, Route, region};
use crate::document::schema::{shaped, table};
use crate::document::{Item, Level, Table, nearest};
use crate::http::{Answer, Method, Url};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::listing::{Fault, FaultKind};
use crate::model::text::cut;
use crate::model::time::Timestamp;

pub(super) const KIND: Kind = Kind {
    name: "smn",
    about: "a topic of Huawei Cloud SMN",
    carrier: Carrier::Http,
    concurrency: 2,
    text_max: 200_000,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
topic_urn = "urn:smn:ap-southeast-3:0123456789abcdef0123456789abcdef:jobs"
region = "ap-southeast-3"
endpoint = "https://smn.ap-southeast-3.myhuaweicloud.com"
project_id = "0123456789abcdef0123456789abcdef"
credentials = { kind = "token", token = { credential = "smn-token" } }
"#;

const HELP: &str = "topic_urn = \"urn:smn:REGION:PROJECT:NAME\", as the console shows it";
/// Bytes of a subject.
const SUBJECT_MAX: usize = 512;
/// Bytes of a message; the service takes 256 KB.
const MESSAGE_MAX: usize = 250_000;

struct Smn {
    api: Api,
    url: Url,
    timeout: Duration,
}

impl fmt::Debug for Smn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smn").field("host", &self.target()).finish_non_exhaustive()
    }
}

/// A topic's name, taken apart.
struct Topic<'a> {
    region: &'a str,
    project: &'a str,
}

/// `urn:smn:REGION:PROJECT:NAME`.
fn topic(urn: &str) -> Option<Topic<'_>> {
    let ["urn", "smn", region, project, name] = urn.split(':').collect::<Vec<_>>()[..] else { return None };
    let sound = is_region(region) && is_word(project) && is_word(name);
    sound.then_some(Topic { region, project })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn is_region(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    // These are asked for only when it is known where to, and are no strangers before.
    table.known(&["credentials"]);
    let urn = table.required("topic_urn", HELP);
    let region = table.string("region");
    let endpoint = table.string("endpoint");
    let project = table.string("project_id");
    let urn = urn?;
    let Some(parts) = topic(&urn.value) else {
        table.error("topic", urn.span, format!("`{}` is no topic", urn.value), HELP);
        return None;
    };
    if let Some(item) = &region {
        check_region(table, item)?;
    }
    if let Some(item) = project.as_ref().filter(|item| !is_word(&item.value)) {
        let help = "the topic's own, if left out";
        table.error("project", item.span.clone(), "a project id is made of letters and digits", help);
        return None;
    }
    // The topic may belong to somebody else, who lets this project publish to it.
    let project = project.map_or_else(|| parts.project.to_owned(), |item| item.value);
    let region = region.map_or_else(|| parts.region.to_owned(), |item| item.value);
    let (text, span) = match endpoint {
        Some(endpoint) => (endpoint.value, endpoint.span),
        None => (region::smn(&region), urn.span.clone()),
    };
    let route = Route { timeout: common.timeout, ca: common.ca.as_deref(), proxy: common.proxy.as_ref() };
    let base = region::endpoint(&text, route.proxy).map_err(|why| {
        table.error("endpoint", span, format!("the endpoint cannot be used: {why}"), region::smn("ap-southeast-3"));
    });
    let base = base.ok()?;
    let url = base.join(&format!("v2/{project}/notifications/topics/{}/publish", urn.value)).ok()?;
    let around = Surroundings { pool: common.pool, region: Some(&region), project: &project, route };
    let credential = Credential::read(table, common.secrets, &around)?;
    let api = Api::new(common.pool, route, credential, &base, &project, None).map_err(|error| {
        table.error("tls", table.span(), format!("the certificates cannot be used: {error}"), "check `ca_file`");
    });
    Some(Arc::new(Smn { api: api.ok()?, url, timeout: common.timeout }))
}

/// New regions appear, so one that is not known is only doubtful.
fn check_region(table: &Table<'_>, item: &Item<String>) -> Option<()> {
    let near = || nearest(&item.value, region::REGIONS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    if !is_region(&item.value) {
        let help = near().unwrap_or_else(|| "region = \"ap-southeast-3\"".to_owned());
        table.error("region", item.span.clone(), format!("`{}` is no region", item.value), help);
        return None;
    }
    if !region::REGIONS.contains(&item.value.as_str()) {
        let message = format!("`{}` is no known region", item.value);
        table.report(Level::Warning, "region", item.span.clone(), message, near().unwrap_or_default());
    }
    Some(())
}

fn schema() -> Value {
    table(
        "",
        &["topic_urn", "credentials"],
        [
            (
                "topic_urn",
                shaped(
                    "The topic, as the console shows it: urn:smn:REGION:PROJECT:NAME.",
                    "^urn:smn:[a-z0-9-]+:[A-Za-z0-9_-]+:[A-Za-z0-9_-]+$",
                ),
            ),
            ("region", shaped("Where the topic is; its URN tells, if left out.", "^[a-z0-9-]+$")),
            ("endpoint", shaped("Where SMN answers; wins over `region`. http:// only for loopback.", "^https?://")),
            ("project_id", shaped("The project that publishes; the topic's own, if left out.", "^[A-Za-z0-9_-]+$")),
            ("credentials", Credential::schema()),
        ],
    )
}

#[async_trait]
impl Receiver for Smn {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        let parts = Parts::of(owed);
        let subject = format!("{}: {}", parts.state, parts.title);
        let message = parts.within(MESSAGE_MAX, |parts| parts.text().into_bytes());
        let message = String::from_utf8_lossy(&message).into_owned();
        json!({ "subject": cut(&subject, SUBJECT_MAX), "message": message }).to_string().into_bytes()
    }

    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent {
        // A renewed token or a corrected clock is a second request.
        let publishing = tokio::time::timeout(self.timeout, self.publish(&claimed.frozen.payload, now));
        let late = || Outcome::Unreachable { why: "no answer in time".into(), retry_after: None };
        publishing.await.unwrap_or_else(|_| late()).into()
    }

    fn target(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl Smn {
    async fn publish(&self, body: &[u8], now: Timestamp) -> Outcome {
        let Ok(body) = std::str::from_utf8(body) else {
            return Outcome::Refused { why: "the stored message cannot be read".into() };
        };
        let call = Call { method: Method::POST, url: self.url.clone(), body: Some(body) };
        match self.api.call(&call).await {
            Ok(answer) => self.judge(&answer, now).await,
            Err(fault) => unsent(fault),
        }
    }

    async fn judge(&self, answer: &Answer, now: Timestamp) -> Outcome {
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let (200, Some(id)) = (answer.status, said["message_id"].as_str()) {
            return Outcome::Accepted { note: format!("HTTP 200: message {}", tame(id, 100)) };
        }
        let fault = self.api.fault(answer, "smn:topic:publish").await;
        let mut why = fault.text;
        if let Some(clock) = self.api.remark() {
            why += &format!("; {clock}");
        }
        match answer.status {
            408 | 425 | 429 | 500.. => {
                let after = retry_after(answer, now).max(fault.retry_after);
                Outcome::Unreachable { why, retry_after: after.map(|after| after.min(RETRY_AFTER_MAX)) }
            }
            _ => Outcome::Refused { why },
        }
    }
}

/// Nothing was published, or nobody said so.
fn unsent(fault: Fault) -> Outcome {
    let Fault { kind, text: why, retry_after } = fault;
    match kind {
        FaultKind::Unauthorized | FaultKind::Misdirected => Outcome::Refused { why },
        FaultKind::Throttled
        | FaultKind::Unavailable
        | FaultKind::Malformed
        | FaultKind::Shifted
        | FaultKind::Vanished => {
            Outcome::Unreachable { why, retry_after: retry_after.map(|after| after.min(RETRY_AFTER_MAX)) }
        }
    }
}
