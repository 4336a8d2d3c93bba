//! What the commands that list things have in common: how many, how they are printed, and going on with what is new.

use std::io::{self, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::grid::{Cell, Grid};
use super::{Exit, Format, show};
use crate::clock::Clock;
use crate::config::Config;
use crate::document::suggest;
use crate::model::job::Status;
use crate::model::name::SourceName;
use crate::model::time::Timestamp;
use crate::model::transition::State;
use crate::store;
use crate::store::view::{Cursor, Key, Page};

/// Rows, unless it is said how many.
const LIMIT: usize = 100;
/// Rows that are shown before what is new.
const LIMIT_BEFORE: usize = 10;
/// How often it is looked whether there is something new.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many rows, and how they are printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Shape {
    /// At most this many, the newest [default: 100; with --follow, 10 before what is new].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// How to print them: a table, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Going on.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Follow {
    /// Go on and print what is new, a line each (JSON: an object a line), until Ctrl-C.
    #[arg(long)]
    pub(super) follow: bool,
}

impl Shape {
    /// Nothing was said of it.
    pub(super) fn is_usual(self) -> bool {
        self.limit.is_none() && self.format == Format::default()
    }

    pub(super) fn limit(self, follow: bool) -> usize {
        let usual = if follow { LIMIT_BEFORE } else { LIMIT };
        self.limit.map_or(usual, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Prints rows at once: as a table, or as a list of JSON objects.
    pub(super) fn print<T: Serialize>(
        self,
        rows: &[T],
        what: &str,
        head: &'static [&'static str],
        cells: impl Fn(&T, Timestamp) -> Vec<Cell>,
    ) -> anyhow::Result<Exit> {
        let (mut out, now) = (anstream::stdout(), Clock::system().now());
        match self.format {
            Format::Json => writeln!(out, "{}", show::json(&json!(rows)))?,
            Format::Text if rows.is_empty() => {}
            Format::Text => {
                let mut grid = Grid::new(head);
                rows.iter().for_each(|row| grid.row(cells(row, now)));
                grid.print(&mut out)?;
            }
        }
        if rows.is_empty() {
            writeln!(anstream::stderr(), "{what}")?;
        }
        Ok(Exit::Done)
    }

    /// Prints rows, oldest first, and goes on with what `news` brings until somebody stops it, or nobody reads it any more.
    pub(super) async fn follow<T: Serialize>(
        self,
        newest_first: Vec<T>,
        mut news: impl AsyncFnMut() -> Result<Vec<T>, store::Error>,
        line: impl Fn(&T) -> String,
    ) -> anyhow::Result<Exit> {
        let print = |rows: &[T]| -> io::Result<()> {
            let mut out = anstream::stdout().lock();
            for row in rows {
                match self.format {
                    Format::Json => writeln!(out, "{}", show::json_line(&json!(row)))?,
                    Format::Text => writeln!(out, "{}", line(row))?,
                }
            }
            out.flush()
        };
        let mut stopped = signal(SignalKind::interrupt())?;
        let mut rows = newest_first;
        rows.reverse();
        print(&rows)?;
        loop {
            let rows = news().await?;
            print(&rows)?;
            if is_unread() {
                return Ok(Exit::Done);
            }
            tokio::select! {
                _ = stopped.recv() => return Ok(Exit::Done),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// Whether standard output is a pipe that nobody reads any more: whoever has nothing to write would never notice.
fn is_unread() -> bool {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).is_ok_and(|_| asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// As many rows as are wanted, page by page.
pub(super) async fn pages<T, K: Key>(
    limit: usize,
    mut fetch: impl AsyncFnMut(Option<Cursor<K>>, usize) -> Result<Page<T, K>, store::Error>,
) -> Result<Vec<T>, store::Error> {
    let (mut rows, mut before) = (Vec::new(), None);
    loop {
        let page = fetch(before, limit - rows.len()).await?;
        rows.extend(page.items);
        before = page.next;
        if before.is_none() || rows.len() >= limit {
            return Ok(rows);
        }
    }
}

/// What is said when there are none: what was meant, if a filter names what does not exist.
pub(super) fn none(what: &str, config: &Config, source: Option<&SourceName>, states: &[State]) -> String {
    let mut text = format!("no {what}");
    let known: Vec<&str> = config.known.sources.iter().map(SourceName::as_str).collect();
    if let Some(source) = source.filter(|source| !known.contains(&source.as_str())) {
        text += &format!("; the configuration has no source `{source}`: {}", suggest(source.as_str(), &known));
    }
    let words: Vec<&str> = Status::KNOWN.iter().map(Status::as_str).collect();
    for state in states {
        if let State::Is(Status::Other(word)) = state {
            text += &format!("; `{}` is no documented status: {}", show::tame(word), suggest(word, &words));
        }
    }
    text
}

/// A status, or `unseen` or `gone`.
pub(super) fn state(text: &str) -> Result<State, String> {
    match text.trim() {
        "" => Err("a status such as Failed, or gone".into()),
        word => Ok(State::typed(word)),
    }
}

/// An instant in a table or a line: to the second.
pub(super) fn instant(at: Timestamp) -> String {
    Timestamp::from_micros(at.seconds().saturating_mul(1_000_000)).to_string()
}
