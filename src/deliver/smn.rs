//! `kind = "smn"`: a topic of Huawei Cloud SMN, which sends mail, text messages and more to whoever subscribed.
//!
//! Source: SMN's API reference, "Publishing a Message".

use std::sync::Arc;

use serde_json::{Value, json};

use super::parts::Parts;
use super::service::{Place, REGION, Service, Site, WORD, is_region, is_word};
use super::{Carrier, Common, Kind, Receiver, tame};
use crate::cloud::{Credential, region};
use crate::document::Table;
use crate::document::schema::{shaped, table};
use crate::model::delivery::{Outcome, Owed};
use crate::model::text::cut;

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

struct Smn;

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

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let urn = table.required("topic_urn", HELP);
    let site = Site::read(table);
    let urn = urn?;
    let Some(topic) = topic(&urn.value) else {
        table.error("topic", urn.span, format!("`{}` is no topic", urn.value), HELP);
        return None;
    };
    site.check(table, "the topic's own, if left out")?;
    // The topic may belong to somebody else, who lets this project publish to it.
    let own = |item: &Option<crate::document::Item<String>>, of_topic: &str| {
        item.as_ref().map_or_else(|| of_topic.to_owned(), |item| item.value.clone())
    };
    let (region, project) = (own(&site.region, topic.region), own(&site.project, topic.project));
    let path = format!("v2/{project}/notifications/topics/{}/publish", urn.value);
    let place = Place { region, project, usual: region::smn, span: urn.span.clone(), path };
    site.receiver(table, common, &place, Smn)
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
            ("region", shaped("Where the topic is; its URN tells, if left out.", REGION)),
            ("endpoint", shaped("Where SMN answers; wins over `region`. http:// only for loopback.", "^https?://")),
            ("project_id", shaped("The project that publishes; the topic's own, if left out.", WORD)),
            ("credentials", Credential::schema()),
        ],
    )
}

impl Service for Smn {
    const PERMISSION: &'static str = "smn:topic:publish";

    fn word(&self, owed: &Owed) -> Vec<u8> {
        let parts = Parts::of(owed);
        let subject = parts.head();
        let message = parts.within(MESSAGE_MAX, |parts| parts.text().into_bytes());
        let message = String::from_utf8_lossy(&message).into_owned();
        json!({ "subject": cut(&subject, SUBJECT_MAX), "message": message }).to_string().into_bytes()
    }

    fn judge(&self, said: &Value) -> Option<Outcome> {
        let id = said["message_id"].as_str()?;
        Some(Outcome::Accepted { note: format!("HTTP 200: message {}", tame(id, 100)) })
    }
}
