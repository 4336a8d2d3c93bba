//! `kind = "github"`: a `repository_dispatch` of GitHub, which starts the workflows that wait for it.
//!
//! Source: GitHub's REST API, "Create a repository dispatch event". The payload is the CloudEvent that a webhook is sent,
//! under one key; where that is longer than GitHub takes, without the details that the texts have.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::post::{Meaning, Medium, Posting, Reply, Wire, knock, receiver};
use super::webhook::event_within;
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, shaped, string, table};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "github",
    about: "a repository_dispatch of GitHub: starts workflows",
    carrier: Carrier::Http,
    concurrency: 1,
    // In JSON, some of it takes twice the room.
    text_max: BODY_MAX / 3,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
repository = "example/follow-ups"
token = { credential = "github-token" }
url = "https://github.example.org/api/v3"
"#;

const URL: &str = "https://api.github.com";
const HELP: &str = "repository = \"owner/name\"";
/// Bytes of the whole; a payload must stay under 64 KB.
const BODY_MAX: usize = 60_000;
/// Who is too fast and is not told for how long waits at least a minute.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct GitHub {
    token: SecretString,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let repository = table.required("repository", HELP);
    let base = table.string("url");
    if !table.has("token") {
        table.missing("token", "token = { credential = \"github-token\" }, which may write the repository's contents");
    }
    let token = table.secret("token", common.secrets);
    let repository = repository?;
    if !is_repository(&repository.value) {
        table.error("repository", repository.span, format!("`{}` is no repository", repository.value), HELP);
        return None;
    }
    let span = base.as_ref().map_or(repository.span, |base| base.span.clone());
    let base = base.map_or_else(|| URL.to_owned(), |base| base.value);
    let url = format!("{}/repos/{}/dispatches", base.trim().trim_end_matches('/'), repository.value);
    let door = knock(table, common, &SecretString::from(url), span, Wire::Sealed);
    receiver(door, token.map(|token| GitHub { token: token.value }))
}

fn is_repository(text: &str) -> bool {
    let sound = |part: &str| {
        !part.chars().all(|c| c == '.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| sound(owner) && sound(name))
}

fn schema() -> Value {
    table(
        "",
        &["repository", "token"],
        [
            (
                "repository",
                shaped(
                    "Whose workflows are started: owner/name.",
                    r"^\.*[A-Za-z0-9_-][A-Za-z0-9_.-]*/\.*[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
                ),
            ),
            ("token", secret("A token that may write the repository's contents.")),
            ("url", string("Another address than https://api.github.com, such as https://HOST/api/v3.")),
        ],
    )
}

impl Medium for GitHub {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        event_within(owed, BODY_MAX, |event| {
            let kind = owed.notification.event.as_str();
            json!({ "event_type": kind, "client_payload": { "event": event } })
        })
    }

    fn complete(&self, posting: &mut Posting<'_>) -> Result<(), String> {
        let bearer = format!("Bearer {}", self.token.expose_secret().trim());
        let mut bearer =
            HeaderValue::try_from(bearer).map_err(|_| "`token` holds characters that cannot be sent".to_owned())?;
        bearer.set_sensitive(true);
        posting.headers.insert(AUTHORIZATION, bearer);
        posting.headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        let version = HeaderName::from_static("x-github-api-version");
        posting.headers.insert(version, HeaderValue::from_static("2022-11-28"));
        Ok(())
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        match reply.status {
            204 => Meaning::Accepted,
            // Something else stands at this address.
            200..=299 => Meaning::Refused,
            403 if reply.text.to_lowercase().contains("rate limit") => Meaning::Later(Some(PAUSE)),
            _ => Meaning::AsStatus,
        }
    }
}
