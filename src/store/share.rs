//! What several agents on one store share: who is there, who polls what, how receivers fare.
//!
//! A store that one agent has to itself knows nothing of this: every default in [`Store`](super::Store) is that one's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::model::name::{ReceiverName, SourceName};
use crate::model::time::Timestamp;

/// Under which lease something is written. One that has changed hands since, or has lapsed, refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The replica that holds it.
    pub holder: String,
    /// How often it has been given out.
    pub epoch: i64,
}

/// What a replica says of itself, each time it shows that it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attendance {
    /// Host and process, for people.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// A digest of the rules in force.
    pub rules: String,
    /// A digest of what is watched and of who hears.
    pub sources: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// How long a lease holds. A replica that has not been there for so long counts as dead.
    pub ttl: Duration,
    /// What it can poll.
    pub wanted: Vec<SourceName>,
    /// It comes for one poll: it takes what nobody holds, and nobody makes room for it.
    pub guest: bool,
}

/// What a replica learns when it shows that it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attended {
    /// What it holds now.
    pub held: BTreeMap<SourceName, Fence>,
    /// What it holds beyond its share: another replica waits for it.
    pub excess: Vec<SourceName>,
    /// Replicas that live, itself among them.
    pub living: usize,
    /// The time in the store.
    pub now: Timestamp,
}

/// A replica as people look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// Its id.
    pub id: String,
    /// Host and process.
    pub name: String,
    /// Its version.
    pub version: String,
    /// A digest of its rules: two replicas with the same have the same rules.
    pub rules: String,
    /// A digest of what it watches and tells.
    pub sources: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it was last there.
    pub seen_at: Timestamp,
    /// It was there within the time of a lease.
    pub living: bool,
    /// Does the work that one does for all: forgetting what is old, the sign of life, and telling of replicas that differ.
    pub housekeeping: bool,
    /// What it polls, by name.
    pub holds: Vec<SourceName>,
    /// Deliveries that it has at hand.
    pub claims: u64,
}

/// A lease as people look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaseView {
    /// What is polled.
    pub source: SourceName,
    /// Who polls it; `None` when nobody does.
    pub holder: Option<String>,
    /// How often it has been given out.
    pub epoch: i64,
    /// Until when.
    pub until: Timestamp,
}

/// What happened elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something may be due for a receiver, or how it fares has changed.
    Due(ReceiverName),
    /// Something is held for somebody.
    Held,
    /// A follow-up is owed, or somebody gave his word.
    FollowUp,
    /// A lease was given back, or a replica came or went.
    Leases,
    /// A command asks for something.
    Request,
    /// Whoever listens begins to: what came before was not heard.
    Begun,
}

/// How a receiver fares, in the agent's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Changes with every change; 0 when nothing is said.
    pub version: i64,
    /// What is said; `None` when it is well.
    pub state: Option<String>,
}

/// What bounds a follow-up over all replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What it touches: one at a time.
    pub resource: String,
    /// Since when those of its name count …
    pub since: Timestamp,
    /// … and how many may be begun.
    pub limit: usize,
    /// The time.
    pub now: Timestamp,
}

/// Whether a follow-up was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It was: it may be done.
    Yes,
    /// It was begun before, or the claim was lost: it must not be done.
    No,
    /// Another one of its name or on the same resource is under way, or so many were begun that its limit is reached.
    Later,
}
