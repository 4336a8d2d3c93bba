//! `kind = "eventgrid"`: a channel of Huawei Cloud EventGrid, whose subscriptions pass events on to functions, topics and
//! addresses.
//!
//! Source: EventGrid's API reference, "Publishing an Event to an Event Channel". The event is the CloudEvent that a webhook
//! is sent; where that is longer than the service takes, without the details that the texts have. One call puts one
//! event, so that what the answer says of the first of them is all there is to say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::service::{Place, REGION, Service, Site, WORD, is_word};
use super::webhook::event_within;
use super::{Carrier, Common, Kind, Receiver, tame};
use crate::cloud::{Credential, region};
use crate::document::Table;
use crate::document::schema::{shaped, table};
use crate::model::delivery::{Outcome, Owed};
use crate::model::time::Timestamp;

pub(super) const KIND: Kind = Kind {
    name: "eventgrid",
    about: "a channel of Huawei Cloud EventGrid",
    carrier: Carrier::Http,
    concurrency: 2,
    // In JSON, some of it takes twice the room.
    text_max: BODY_MAX / 3,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
channel_id = "bd14144e-8f3c-43d6-bdfd-bf09b52c2b96"
region = "ap-southeast-3"
endpoint = "https://eg.ap-southeast-3.myhuaweicloud.com"
project_id = "0123456789abcdef0123456789abcdef"
event_source = "jobwatch"
credentials = { kind = "token", token = { credential = "eventgrid-token" } }
"#;

/// Bytes of the whole; an event must stay under 64 KB.
const BODY_MAX: usize = 60_000;
/// What an event's source is made of.
const SOURCE: &str = "^[A-Za-z0-9._:/-]+$";
/// Codes with which an event fails that may pass later: an internal error, and too many requests.
const PASSING: &[&str] = &["EG.00015000", "APIGW.0308"];

struct EventGrid {
    /// The events' `source`, if it is not to be what a webhook is told.
    source: Option<String>,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let channel = table.required("channel_id", "channel_id = \"…\", as the console shows it under the channel's name");
    let source = table.string("event_source");
    let site = Site::read(table);
    if site.region.is_none() && !table.has("region") {
        table.missing("region", "region = \"ap-southeast-3\", where the channel is");
    }
    if site.project.is_none() && !table.has("project_id") {
        table.missing("project_id", "the project's id: console, \"My Credentials\"");
    }
    site.check(table, "console, \"My Credentials\"")?;
    if let Some(source) = source.as_ref().filter(|source| !is_source(&source.value)) {
        let help = "the name of the channel's event source, such as event_source = \"jobwatch\"";
        table.error("source", source.span.clone(), format!("`{}` is no event source", source.value), help);
        return None;
    }
    let channel = channel?;
    if !is_word(&channel.value) {
        let help = "the id, which the console shows under the channel's name";
        table.error("channel", channel.span, format!("`{}` is no channel", channel.value), help);
        return None;
    }
    let (region, project) = (site.region.as_ref()?.value.clone(), site.project.as_ref()?.value.clone());
    let path = format!("v1/{project}/channels/{}/events", channel.value);
    let place = Place { region, project, usual: region::event_grid, span: channel.span, path };
    site.receiver(table, common, &place, EventGrid { source: source.map(|source| source.value) })
}

fn is_source(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:/-".contains(c))
}

fn schema() -> Value {
    let source = "The events' `source`, by which subscriptions filter: the name of the channel's event source. jobwatch/SOURCE, if left out.";
    table(
        "",
        &["channel_id", "region", "project_id", "credentials"],
        [
            ("channel_id", shaped("The channel's id, as the console shows it under the name.", WORD)),
            ("region", shaped("Where the channel is.", REGION)),
            (
                "endpoint",
                shaped("Where EventGrid answers; wins over `region`. http:// only for loopback.", "^https?://"),
            ),
            ("project_id", shaped("The channel's project: console, \"My Credentials\".", WORD)),
            ("event_source", shaped(source, SOURCE)),
            ("credentials", Credential::schema()),
        ],
    )
}

impl Service for EventGrid {
    const PERMISSION: &'static str = "eg:channels:putEvents";

    fn word(&self, owed: &Owed) -> Vec<u8> {
        // The service wants whole seconds.
        let time = Timestamp::from_micros(owed.notification.time.seconds() * 1_000_000);
        event_within(owed, BODY_MAX, |mut event| {
            event["time"] = json!(time);
            if let Some(source) = &self.source {
                event["source"] = source.as_str().into();
            }
            json!({ "events": [event] })
        })
    }

    fn judge(&self, said: &Value) -> Option<Outcome> {
        let failed = said["failed_count"].as_u64()?;
        let text = |name: &str, max| tame(said["events"][0][name].as_str().unwrap_or_default(), max);
        if failed == 0 {
            return Some(Outcome::Accepted { note: format!("HTTP 200: event {}", text("event_id", 100)) });
        }
        let code = text("error_code", 100);
        let why = format!("HTTP 200, but the event failed: {code} {}", text("error_msg", 300));
        Some(match code.is_empty() || PASSING.contains(&code.as_str()) {
            true => Outcome::Unreachable { why, retry_after: None },
            false => Outcome::Refused { why },
        })
    }
}
