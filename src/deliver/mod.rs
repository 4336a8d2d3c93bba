//! Getting a notification to somebody: receiver kinds, each a file of its own.
//!
//! A kind does three things: it reads its table of the configuration, it puts a notification into its final wording
//! ([`Receiver::freeze`], pure, before the commit), and it makes one attempt to hand that over ([`Receiver::send`]).
//! When to try again, in what order and for how long is not its business. A new kind is a file here and a line in [`KINDS`].

pub mod act;
mod alertmanager;
mod dingtalk;
mod discord;
mod email;
mod eventgrid;
mod feishu;
mod github;
mod headers;
pub mod heartbeat;
mod maildir;
mod pagerduty;
mod parts;
mod post;
mod reach;
mod service;
mod sign;
mod slack;
mod smn;
mod teams;
mod webhook;
mod wecom;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::cloud::Pool;
use crate::document::{Secrets, Table};
use crate::http::{Egress, Proxy};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::examination::Finding;
use crate::model::name::ReceiverName;
use crate::model::text::line;
use crate::model::time::Timestamp;

/// Every receiver kind: what `kind = "…"` may say.
pub const KINDS: &[Kind] = &[
    webhook::KIND,
    email::KIND,
    slack::KIND,
    pagerduty::KIND,
    discord::KIND,
    teams::KIND,
    dingtalk::KIND,
    feishu::KIND,
    wecom::KIND,
    smn::KIND,
    eventgrid::KIND,
    alertmanager::KIND,
    maildir::KIND,
    github::KIND,
];

/// One kind of receiver.
#[derive(Debug)]
pub struct Kind {
    /// The word in the configuration.
    pub name: &'static str,
    /// One line for people who choose.
    pub about: &'static str,
    /// How its messages travel.
    pub carrier: Carrier,
    /// How many attempts may be under way at once.
    pub concurrency: usize,
    /// As much text as one message has room for, in bytes, escaping and facts aside: a digest that would be longer is parted.
    pub text_max: usize,
    /// How many messages a minute it gets, unless its table says otherwise: what people can read, or what a machine takes.
    pub per_minute: usize,
    /// All of the kind's own keys as they may stand in its table, for documents and tests.
    pub example: &'static str,
    /// Reads the kind's own keys and makes the receiver. `None` when something was wrong; the table has been told.
    pub read: fn(&Table<'_>, &Common<'_>) -> Option<Arc<dyn Receiver>>,
    /// The JSON Schema of the kind's own keys.
    pub schema: fn() -> Value,
}

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In HTTP requests, which may go through a proxy.
    Http,
    /// Otherwise.
    Own,
}

/// What every kind may use when it is read.
pub struct Common<'a> {
    /// The receiver's name.
    pub name: ReceiverName,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// Where connections may go.
    pub egress: Egress,
    /// Certificates (PEM) to trust instead of the system's, if the operator named a file.
    pub ca: Option<Vec<u8>>,
    /// What requests go through, if the operator named a proxy.
    pub proxy: Option<Proxy>,
    /// What paths are relative to.
    pub base: &'a Path,
    /// What sources and receivers share in the cloud.
    pub pool: &'a Pool,
    /// Turns references into secrets.
    pub secrets: &'a dyn Secrets,
}

/// Somebody who hears.
#[async_trait]
pub trait Receiver: fmt::Debug + Send + Sync {
    /// The notification in its final wording. Pure: the same input gives the same bytes, and these are what every
    /// attempt sends.
    fn freeze(&self, owed: &Owed) -> Vec<u8>;

    /// One attempt. Never panics on what the far end says, and ends by itself within the receiver's timeout.
    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent;

    /// Where it goes, for people: a host, never a secret.
    fn target(&self) -> String;

    /// Whether the end of a finding ends something there by its id, which it does in no digest.
    fn ends_by_id(&self) -> bool {
        false
    }

    /// Looks at what it depends on, one step after the other, and tells nobody anything; ends at the first that bars the
    /// rest. Nothing when that cannot be done without a message.
    async fn examine(&self, _now: Timestamp) -> Vec<Finding> {
        Vec::new()
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// How it was answered.
    pub outcome: Outcome,
    /// What is achieved so far: handed back with the next attempt as [`Claimed::progress`].
    pub progress: Vec<String>,
}

impl From<Outcome> for Sent {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, progress: Vec::new() }
    }
}

/// Text from elsewhere, made fit for a log line or a table: one line, cut to `max` characters.
pub fn tame(text: &str, max: usize) -> String {
    line(text, max)
}

/// What is to be told of several who are to have one message: what can be tried again, then what cannot, then success.
fn worse(known: Option<Outcome>, new: Outcome) -> Outcome {
    match (known, new) {
        (Some(known @ Outcome::Unreachable { .. }), Outcome::Refused { .. } | Outcome::Retired { .. }) => known,
        (_, new) => new,
    }
}
