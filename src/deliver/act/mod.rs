//! Doing something about a finding: kinds of follow-ups, each a file of its own.
//!
//! A kind reads its table of the configuration, says what it would do ([`Deed::intent`], without doing anything), and does
//! it once ([`Deed::perform`]). Whether and when is not its business, and nothing is tried twice.

mod cloud_operation;
mod command;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::cloud::Project;
use crate::document::Table;
use crate::model::follow_up::{Ending, FollowUp};

/// Every kind of follow-up: what `kind = "…"` may say.
pub const KINDS: &[Kind] = &[command::KIND, cloud_operation::KIND];

/// Of what a command or the cloud says, no more is kept.
pub const OUTPUT_MAX: usize = 64 << 10;

/// One kind of follow-up.
#[derive(Debug)]
pub struct Kind {
    /// The word in the configuration.
    pub name: &'static str,
    /// One line for people who choose.
    pub about: &'static str,
    /// Reads the kind's own keys. `None` when something was wrong; the table has been told.
    pub read: fn(&Table<'_>, &Common<'_>) -> Option<Arc<dyn Deed>>,
    /// The JSON Schema of the kind's own keys: one for each form they can take.
    pub schema: fn() -> Vec<Value>,
}

/// What every kind may use when it is read.
pub struct Common<'a> {
    /// The longest it may take.
    pub timeout: Duration,
    /// Relative paths are relative to this.
    pub base: &'a Path,
    /// Reads a text file of bounded length.
    pub read: &'a dyn Fn(&Path) -> std::io::Result<String>,
}

/// Something that can be done.
#[async_trait]
pub trait Deed: fmt::Debug + Send + Sync {
    /// What it would do, in a few words.
    ///
    /// # Errors
    /// It cannot be done about this match, for this reason.
    fn intent(&self, follow_up: &FollowUp) -> Result<String, String>;

    /// Whether it changes something in the cloud: then the job is asked for once more right before.
    fn touches_cloud(&self) -> bool;

    /// Does it, once. Ends by itself within the timeout, and leaves nothing running.
    async fn perform(&self, follow_up: &FollowUp, project: Option<Project<'_>>) -> Done;
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// In a word.
    pub ending: Ending,
    /// In a line.
    pub what: String,
    /// How the command ended, or the status that the cloud answered with.
    pub code: Option<i32>,
    /// What it said, cut at [`OUTPUT_MAX`].
    pub output: String,
}

impl Done {
    /// Nothing was done.
    fn not(what: impl Into<String>) -> Self {
        Self { ending: Ending::NotDone, what: what.into(), code: None, output: String::new() }
    }
}
