//! Job listings: source kinds, each a file of its own.
//!
//! A source answers two questions: what does the listing say ([`Source::list`], which knows whether that is the whole
//! truth), and is this one job still there ([`Source::show`]). A new kind is a file here and a line in [`KINDS`].

pub mod pager;
pub mod survey;
mod swr;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::cloud::{Pool, Project};
use crate::document::{Secrets, Table};
use crate::http::Proxy;
pub use crate::model::examination::{Finding, Health};
use crate::model::index::Index;
use crate::model::listing::{Listing, Point, Rows};
use crate::model::name::{JobId, SourceName};
use crate::model::notification::SourceFacts;

/// Every source kind: what `kind = "…"` may say.
pub const KINDS: &[Kind] = &[swr::KIND];

/// One kind of source.
#[derive(Debug)]
pub struct Kind {
    /// The word in the configuration.
    pub name: &'static str,
    /// One line for people who choose.
    pub about: &'static str,
    /// Reads the kind's own keys and makes the source. `None` when something was wrong; the table has been told.
    pub read: fn(&Table<'_>, &Common<'_>) -> Option<Arc<dyn Source>>,
    /// The JSON Schema of the kind's own keys; what it demands is demanded of a source that no defaults help out.
    pub schema: fn() -> Value,
}

/// What every kind may use when it is read.
pub struct Common<'a> {
    /// The source's name.
    pub name: SourceName,
    /// The longest one request may take.
    pub timeout: Duration,
    /// Certificates (PEM) to trust instead of the system's, if the operator named a file.
    pub ca: Option<Vec<u8>>,
    /// What requests go through, if the operator named a proxy.
    pub proxy: Option<Proxy>,
    /// What sources share.
    pub pool: &'a Pool,
    /// Turns references into secrets.
    pub secrets: &'a dyn Secrets,
}

/// A job listing that can be polled.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// What receivers are told about it.
    fn facts(&self) -> &Arc<SourceFacts>;

    /// What the listing says beyond what the index knows, and whether that is the whole truth; every page is read if it
    /// must be `whole`. Ends by itself, whatever the far end does.
    async fn list(&self, index: &Index, whole: bool) -> Listing;

    /// One job.
    async fn show(&self, id: &JobId) -> Point;

    /// What the operator should know although listings are complete, in words: a wrong clock, a service that does not do
    /// what its documents say.
    fn remarks(&self) -> Vec<String>;

    /// Where it can be acted in the project's name, if it can be.
    fn project(&self) -> Option<Project<'_>>;

    /// For people: who asks. Holds no secret.
    fn credential(&self) -> String;

    /// Looks at everything that a listing depends on, one step after the other; ends at the first that bars the rest.
    async fn examine(&self) -> Vec<Finding>;
}

/// Reads a saved answer of the listing call: its rows, and how many jobs it counts.
///
/// # Errors
/// Says why it is no such answer.
pub fn saved(text: &str) -> Result<(Rows, usize), String> {
    let page = swr::read_page(text, &Index::default())?;
    let jobs: Vec<_> = page.rows.into_iter().filter_map(|row| row.job).collect();
    Ok((Rows { unreadable: page.unreadable, ..Rows::from(jobs) }, page.total))
}
