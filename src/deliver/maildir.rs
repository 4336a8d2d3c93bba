//! `kind = "maildir"`: each message as a file in a directory that mail programs read, to try out without a mail server.
//!
//! Source: D. J. Bernstein, "Using maildir format". A file is named after its delivery, so that a second attempt replaces
//! what the first one left, and one that somebody has read already is not written again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::Mailbox;
use serde_json::Value;

use super::email::message::Letter;
use super::{Carrier, Common, Kind, Receiver, Sent};
use crate::document::Table;
use crate::document::schema::{shaped, table};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::examination::{Finding, Health};
use crate::model::time::Timestamp;

pub(super) const KIND: Kind = Kind {
    name: "maildir",
    about: "files in a maildir, to try out without a mail server",
    carrier: Carrier::Own,
    concurrency: 1,
    text_max: 1 << 20,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
path = "mail"
from = "jobwatch <jobwatch@localhost>"
to = "you@localhost"
"#;

const FROM: &str = "jobwatch <jobwatch@localhost>";
const TO: &str = "you@localhost";
/// A directory with more messages is nobody's trial any more.
const MESSAGES_MAX: usize = 10_000;

#[derive(Debug)]
struct Maildir {
    path: PathBuf,
    from: Mailbox,
    to: Mailbox,
    timeout: Duration,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    let path = table.required("path", "path = \"mail\", a directory beside the configuration");
    let path = path.filter(|item| {
        let named = !item.value.is_empty() && !item.value.contains('\0');
        if !named {
            table.error("path", item.span.clone(), "`path` names no directory", "path = \"mail\"");
        }
        named
    });
    let mailbox = |key: &'static str, usual: &str| {
        let item = table.string(key);
        let text = item.as_ref().map_or(usual, |item| item.value.as_str());
        let parsed = text.parse::<Mailbox>().map_err(|error| {
            let span = item.as_ref().map_or(table.span(), |item| item.span.clone());
            let message = format!("`{text}` is no address: {error}");
            table.error("address", span, message, "\"name <user@example.org>\" or \"user@example.org\"");
        });
        parsed.ok()
    };
    let (from, to) = (mailbox("from", FROM), mailbox("to", TO));
    Some(Arc::new(Maildir { path: common.base.join(path?.value), from: from?, to: to?, timeout: common.timeout }))
}

fn schema() -> Value {
    table(
        "",
        &["path"],
        [
            ("path", shaped("The directory, relative to the configuration; it is made where it is missing.", ".")),
            ("from", shaped("Who the messages are from: \"name <user@example.org>\".", "@")),
            ("to", shaped("Who they are to.", "@")),
        ],
    )
}

#[async_trait]
impl Receiver for Maildir {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        Letter::write(owed, self.from.email.domain()).to_bytes()
    }

    async fn send(&self, claimed: &Claimed, _: Timestamp) -> Sent {
        let letter = Letter::from_bytes(&claimed.frozen.payload)
            .and_then(|letter| letter.address(&claimed.frozen, &self.from, None, &self.to));
        let bytes = match letter {
            Ok(bytes) => bytes,
            Err(why) => return Outcome::Refused { why }.into(),
        };
        let (path, name) = (self.path.clone(), format!("{}.jobwatch", claimed.frozen.id));
        // A disk that hangs holds up a thread, and not the loop.
        let written = tokio::task::spawn_blocking(move || put(&path, &name, &bytes));
        let unreachable = |why: String| Outcome::Unreachable { why, retry_after: None };
        match tokio::time::timeout(self.timeout, written).await {
            Ok(Ok(outcome)) => outcome.into(),
            Ok(Err(error)) => unreachable(error.to_string()).into(),
            Err(_) => unreachable("the disk does not answer in time".into()).into(),
        }
    }

    fn target(&self) -> String {
        self.path.display().to_string()
    }

    async fn examine(&self, _: Timestamp) -> Vec<Finding> {
        let path = self.path.clone();
        let looked = tokio::task::spawn_blocking(move || look(&path));
        let finding = match tokio::time::timeout(self.timeout, looked).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(error)) => Finding::new("directory", Health::Bad, error.to_string()),
            Err(_) => Finding::new("directory", Health::Bad, "the disk does not answer in time"),
        };
        vec![finding]
    }
}

/// Whether a message could be put there; nothing is left behind.
fn look(path: &Path) -> Finding {
    let (shown, found) = (path.display(), room(path));
    let (health, text) = match found {
        Ok(None) => (Health::Good, format!("{shown} is made with the first message")),
        Ok(Some(count)) if count >= MESSAGES_MAX => (Health::Bad, overfull(path)),
        Ok(Some(count)) => {
            (Health::Good, format!("{shown} can be written; it holds {count} of {MESSAGES_MAX} messages"))
        }
        Err(error) => {
            let mend = mend(&error).map(|mend| format!("; {mend}")).unwrap_or_default();
            (Health::Bad, format!("{shown}: {error}{mend}"))
        }
    };
    Finding::new("directory", health, text)
}

/// How many messages are there; `None` where there is no directory yet, and it can be made.
fn room(path: &Path) -> Result<Option<usize>, Error> {
    // A file without a name, which nobody sees and nothing is left of.
    let written = |directory: &Path| tempfile::tempfile_in(directory).map(drop);
    let Some(_) = fs::metadata(path).map(Some).or_else(absent)? else {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return written(parent).map(|()| None);
    };
    let mut count = 0;
    for name in ["", "tmp", "new", "cur"] {
        let directory = path.join(name);
        let Some(entries) = fs::read_dir(&directory).map(Some).or_else(absent)? else { continue };
        written(&directory)?;
        count += if matches!(name, "new" | "cur") { entries.take(MESSAGES_MAX).count() } else { 0 };
    }
    Ok(Some(count))
}

fn absent<T>(error: Error) -> Result<Option<T>, Error> {
    if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

fn overfull(path: &Path) -> String {
    format!("{} holds {MESSAGES_MAX} messages: remove some of them", path.display())
}

/// Puts a message into the directory.
fn put(path: &Path, name: &str, bytes: &[u8]) -> Outcome {
    deposit(path, name, bytes).unwrap_or_else(|error| sort(path, &error))
}

fn deposit(path: &Path, name: &str, bytes: &[u8]) -> Result<Outcome, Error> {
    for directory in ["", "tmp", "new", "cur"] {
        match DirBuilder::new().mode(0o700).create(path.join(directory)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut count = 0;
    for directory in ["new", "cur"] {
        for entry in fs::read_dir(path.join(directory))?.take(MESSAGES_MAX) {
            let entry = entry?.file_name();
            let entry = entry.to_string_lossy();
            // A mail program adds what it knows of a message after a colon.
            if directory == "cur" && entry.split(':').next() == Some(name) {
                return Ok(Outcome::Accepted { note: format!("cur/{entry} is there already") });
            }
            count += usize::from(entry != name);
        }
    }
    if count >= MESSAGES_MAX {
        return Ok(Outcome::Refused { why: overfull(path) });
    }
    let (draft, place) = (path.join("tmp").join(name), path.join("new").join(name));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, &place)?;
    File::open(path.join("new"))?.sync_all()?;
    Ok(Outcome::Accepted { note: format!("new/{name}") })
}

/// What somebody has to change, for failures that do not pass by themselves. Others do: a full disk, a lost mount.
const MENDS: &[(ErrorKind, &str)] = &[
    (ErrorKind::NotFound, "make the directory that it is to be in"),
    (ErrorKind::NotADirectory, "name a directory, or remove the file"),
    (ErrorKind::PermissionDenied, "give it to the user that jobwatch runs as"),
    (
        ErrorKind::ReadOnlyFilesystem,
        "choose a place that can be written: under systemd the state directory, or name it in ReadWritePaths=",
    ),
];

fn mend(error: &Error) -> Option<&'static str> {
    MENDS.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, mend)| *mend)
}

fn sort(path: &Path, error: &Error) -> Outcome {
    let why = format!("{}: {error}", path.display());
    match mend(error) {
        Some(mend) => Outcome::Refused { why: format!("{why}; {mend}") },
        None => Outcome::Unreachable { why, retry_after: None },
    }
}
