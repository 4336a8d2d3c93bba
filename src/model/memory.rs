//! What is remembered between two polls of a source.

use std::collections::HashMap;

use super::alert::Alert;
use super::name::AlertId;
use super::snapshot::Snapshot;
use super::time::Timestamp;

/// Everything the store knows of a source: what the next poll is decided with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Its jobs.
    pub snapshot: Snapshot,
    /// The standing findings of rules about its jobs.
    pub alerts: HashMap<AlertId, Alert>,
    /// Whether it can be seen.
    pub sight: Sight,
}

/// What is remembered of a source's visibility.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// When listings stopped being complete; `None` while they are.
    pub blind_since: Option<Timestamp>,
    /// The operator has been told of it.
    pub told: bool,
}
