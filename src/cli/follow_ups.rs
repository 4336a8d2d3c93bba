//! `jobwatch follow-ups`: what was done about findings, what waits for a word, and saying it.

use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use serde_json::json;

use super::run::now;
use super::{Exit, Format, Global, completions, show};
use crate::clock::Clock;
use crate::deliver::tame;
use crate::model::follow_up::{Consent, Listed};
use crate::model::name::DeliveryId;
use crate::model::time::{Timestamp, span};
use crate::store::Store;

/// Titles and notes in a table are cut to this many characters; `jobwatch deliveries show` has them whole.
const CELL_MAX: usize = 60;
/// Who says yes or no is cut here.
const NAME_MAX: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum FollowUps {
    /// Follow-ups, newest first; `jobwatch deliveries show ID` says all of one.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// How to print them.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Have those done that wait for a word: what asked for them must still stand.
    Approve(Word),
    /// Be rid of those that wait for a word.
    Reject(Word),
}

#[derive(Debug, clap::Args)]
pub(super) struct Word {
    /// Their ids.
    #[arg(required = true, value_name = "ID", add = completions::follow_ups())]
    ids: Vec<String>,
    /// Who says so.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    author: String,
}

impl FollowUps {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (_, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        match self {
            Self::List { limit, format } => list(&*store, limit, format).await,
            Self::Approve(word) => word.say(&*store, true).await,
            Self::Reject(word) => word.say(&*store, false).await,
        }
    }
}

async fn list(store: &dyn Store, limit: usize, format: Format) -> anyhow::Result<Exit> {
    let (rows, now) = (store.follow_ups(limit).await?, Clock::system().now());
    let mut out = anstream::stdout();
    match format {
        Format::Json => writeln!(out, "{}", show::json(&json!(rows)))?,
        Format::Text if rows.is_empty() => writeln!(out, "no follow-ups")?,
        Format::Text => writeln!(out, "{}", table(&rows, now))?,
    }
    Ok(Exit::Done)
}

fn table(rows: &[Listed], now: Timestamp) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ID", "FOLLOW-UP", "STATE", "AGE", "TITLE", "NOTE"]);
    for row in rows {
        table.add_row([
            Cell::new(&row.id),
            Cell::new(&row.name),
            Cell::new(&row.state),
            Cell::new(span(now.since(row.created_at))),
            Cell::new(tame(&row.title, CELL_MAX)),
            Cell::new(tame(&row.note, CELL_MAX)),
        ]);
    }
    table
}

impl Word {
    async fn say(self, store: &dyn Store, approved: bool) -> anyhow::Result<Exit> {
        let consent = Consent { approved, by: tame(&self.author, NAME_MAX) };
        let mut exit = Exit::Done;
        for id in self.ids {
            if store.consent(&DeliveryId::from(id.as_str()), consent.clone(), now(store).await?).await? {
                let word = if approved { "approved: it is done as soon as the agent looks" } else { "rejected" };
                writeln!(anstream::stdout(), "{id} is {word}")?;
            } else {
                writeln!(anstream::stderr(), "error: no follow-up {id} waits for a word")?;
                exit = Exit::No;
            }
        }
        Ok(exit)
    }
}
