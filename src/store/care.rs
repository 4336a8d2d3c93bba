//! A state as something that is looked after: what it holds, copies of it, its room; while the agent uses it.

use std::path::{Path, PathBuf};

pub use super::copy::{Copied, copy};
use super::{Error, Place, Pruning, Room, postgres, sqlite};
use crate::model::examination::Finding;
use crate::model::time::Timestamp;

/// What a state holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where it is.
    pub home: Home,
    /// The version of its schema.
    pub version: usize,
    /// Bytes of the file, or of the tables with their indexes.
    pub size: u64,
    /// What of the file is in use.
    pub room: Room,
    /// How much there is of what.
    pub rows: Vec<Rows>,
    /// When the oldest step of history was seen.
    pub oldest: Option<Timestamp>,
    /// And the newest.
    pub newest: Option<Timestamp>,
    /// Deliveries that are owed.
    pub pending: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// The last time that something was forgotten.
    pub pruning: Option<Pruning>,
}

/// Where a state is, and what there is to say of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// Bytes of the log beside it, which go into it from time to time.
        wal: u64,
        /// What came of a check, if one was asked for: `ok`, or what is wrong.
        check: Option<String>,
    },
    /// In a database.
    Database {
        /// Which, without anything secret.
        at: String,
        /// The server's version.
        server: String,
        /// Replicas that live.
        living: u64,
        /// And those that were there lately, with them.
        replicas: u64,
    },
}

/// The rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Which table.
    pub table: &'static str,
    /// How many.
    pub rows: u64,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pages of a file, or rows, that are copied.
    pub done: u64,
    /// As many as there are.
    pub all: u64,
}

/// A file that was written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Its bytes before.
    pub before: u64,
    /// And after.
    pub after: u64,
}

fn path(place: &Place) -> Result<&Path, Error> {
    let none = || Error::Unusable(format!("`{}` is no file", place.url));
    place.url.strip_prefix("sqlite:").map(Path::new).ok_or_else(none)
}

/// Looks at a state. With `check`, the whole file is read to see whether it is sound; databases look after themselves.
///
/// # Errors
/// See [`Error`].
pub async fn info(place: &Place, check: bool) -> Result<Info, Error> {
    match place.is_shared() {
        true => postgres::care::info(place).await,
        false => sqlite::care::info(path(place)?, check),
    }
}

/// Looks at everything that an agent on a database depends on. `now` is this host's time.
pub async fn examine(place: &Place, now: &(dyn Fn() -> Timestamp + Sync)) -> Vec<Finding> {
    postgres::care::examine(place, now).await
}

/// Writes a copy of a state in a file as it is at one moment. Nothing is overwritten. Returns the copy's bytes.
///
/// # Errors
/// See [`Error`].
pub fn backup(place: &Place, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<u64, Error> {
    sqlite::care::backup(path(place)?, to, progress)
}

/// Writes the whole file anew without its free room. Whoever writes to it waits meanwhile.
///
/// # Errors
/// See [`Error`].
pub fn compact(place: &Place) -> Result<Compacted, Error> {
    sqlite::care::compact(path(place)?)
}
