//! What is remembered between two polls of a source.

use std::collections::HashMap;

use super::alert::Alert;
use super::name::{AlertId, JobId};
use super::snapshot::{Known, Snapshot};
use super::time::Timestamp;

/// Everything the store knows of a source: what the next poll is decided with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Its jobs, or those of them that a decision needs.
    pub snapshot: Snapshot,
    /// Jobs that the poll may say nothing of, and whose time in their status matters.
    pub timed: HashMap<JobId, Known>,
    /// The standing findings of rules about those jobs.
    pub alerts: HashMap<AlertId, Alert>,
    /// Whether it can be seen.
    pub sight: Sight,
}

/// What is remembered of a source's visibility.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// When listings stopped being complete; `None` while they are.
    pub blind_since: Option<Timestamp>,
    /// Since when the operator has been told that it is blind; `None` when nothing has been told, or the end of it too.
    pub told_since: Option<Timestamp>,
    /// Listings in a row from which most jobs had vanished.
    pub vanished: u8,
}
