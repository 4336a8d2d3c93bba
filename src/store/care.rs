//! A state as something that is looked after: what it holds, copies of it, its room; while the agent uses it.

use std::path::{Path, PathBuf};

use super::{Error, Pruning, Room, sqlite};
use crate::model::time::Timestamp;

/// What a state holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where it is.
    pub path: PathBuf,
    /// The version of its schema.
    pub version: usize,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the log beside it, which go into it from time to time.
    pub wal: u64,
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
    /// What came of a check, if one was asked for: `ok`, or what is wrong.
    pub check: Option<String>,
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
    /// Pages that are copied.
    pub done: u64,
    /// Pages there are.
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

fn path(url: &str) -> Result<&Path, Error> {
    let none = || Error::Unusable(format!("`{url}` names no state this version can use: sqlite:PATH"));
    url.strip_prefix("sqlite:").map(Path::new).ok_or_else(none)
}

/// Looks at a state. With `check`, the whole file is read to see whether it is sound.
///
/// # Errors
/// See [`Error`].
pub fn info(url: &str, check: bool) -> Result<Info, Error> {
    sqlite::care::info(path(url)?, check)
}

/// Writes a copy of a state as it is at one moment. Nothing is overwritten. Returns the copy's bytes.
///
/// # Errors
/// See [`Error`].
pub fn backup(url: &str, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<u64, Error> {
    sqlite::care::backup(path(url)?, to, progress)
}

/// Writes the whole file anew without its free room. Whoever writes to it waits meanwhile.
///
/// # Errors
/// See [`Error`].
pub fn compact(url: &str) -> Result<Compacted, Error> {
    sqlite::care::compact(path(url)?)
}
