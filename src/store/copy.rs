//! A state carried over from a file into a database: what each table has in both, and the rows on their way.
//!
//! Nothing is kept of a copy that did not come to its end, and the file is only read.

use tokio::sync::mpsc;

use super::care::Progress;
use super::{Error, Place, postgres, sqlite};

/// Rows that are on their way together, at most …
pub(super) const BATCH_ROWS: usize = 2_000;
/// … and about as many bytes of what is long.
pub(super) const BATCH_BYTES: usize = 2 << 20;
/// Batches that wait for the database.
const QUEUE_MAX: usize = 2;

/// A table that both engines have.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Whether its rows are numbered, and new ones behind all there ever were.
    pub(super) numbered: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// A number in the file.
    Flag,
    Text,
    Bytes,
}

use Kind::{Bytes, Flag, Number, Text};

/// Every table, each after those that it refers to. What a command asked of the running agent is left out, and so is who had
/// a delivery at hand: there is no agent.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "source",
        columns: &[
            ("name", Text),
            ("complete_at", Number),
            ("blind_since", Number),
            ("told_since", Number),
            ("vanished", Number),
        ],
        numbered: false,
    },
    Table {
        name: "job",
        columns: &[
            ("source", Text),
            ("id", Text),
            ("status", Text),
            ("instance_id", Text),
            ("resource_id", Text),
            ("resource_name", Text),
            ("type", Text),
            ("reason", Text),
            ("created_at", Text),
            ("updated_at", Text),
            ("seq", Number),
            ("status_since", Number),
            ("seen_at", Number),
            ("missing", Number),
            ("stale", Number),
            ("gone", Flag),
        ],
        numbered: false,
    },
    Table {
        name: "transition",
        columns: &[
            ("n", Number),
            ("id", Text),
            ("source", Text),
            ("job_id", Text),
            ("seq", Number),
            ("from_state", Text),
            ("to_state", Text),
            ("seen_before", Number),
            ("seen_at", Number),
            ("skipped", Text),
            ("late", Flag),
            ("job", Text),
        ],
        numbered: true,
    },
    Table {
        name: "alert",
        columns: &[
            ("id", Text),
            ("rule", Text),
            ("source", Text),
            ("subject", Text),
            ("resource", Text),
            ("severity", Text),
            ("count", Number),
            ("first_seen", Number),
            ("last_seen", Number),
            ("resolved", Flag),
        ],
        numbered: false,
    },
    Table {
        name: "told",
        columns: &[
            ("alert", Text),
            ("receiver", Text),
            ("delivery", Text),
            ("severity", Text),
            ("at", Number),
            ("held_back", Number),
            ("heard_at", Number),
            ("lost", Flag),
        ],
        numbered: false,
    },
    Table {
        name: "muted",
        columns: &[
            ("alert", Text),
            ("rule", Text),
            ("by", Text),
            ("id", Text),
            ("source", Text),
            ("job_id", Text),
            ("seq", Number),
            ("from_state", Text),
            ("to_state", Text),
            ("seen_before", Number),
            ("seen_at", Number),
            ("skipped", Text),
            ("late", Flag),
            ("job", Text),
        ],
        numbered: false,
    },
    Table {
        name: "silence",
        columns: &[
            ("id", Text),
            ("matchers", Text),
            ("starts_at", Number),
            ("ends_at", Number),
            ("author", Text),
            ("comment", Text),
        ],
        numbered: false,
    },
    Table {
        name: "delivery",
        columns: &[
            ("n", Number),
            ("id", Text),
            ("receiver", Text),
            ("source", Text),
            ("subject", Text),
            ("event", Text),
            ("title", Text),
            ("created_at", Number),
            ("seen_at", Number),
            ("state", Text),
            ("due_at", Number),
            ("set_at", Number),
            ("budget_from", Number),
            ("attempts", Number),
            ("tries", Number),
            ("refused_since", Number),
            ("progress", Text),
            ("note", Text),
            ("ended_at", Number),
            ("parked", Flag),
        ],
        numbered: true,
    },
    Table { name: "payload", columns: &[("delivery", Number), ("bytes", Bytes)], numbered: false },
    Table {
        name: "attempt",
        columns: &[
            ("delivery", Number),
            ("number", Number),
            ("at", Number),
            ("took", Number),
            ("outcome", Text),
            ("detail", Text),
        ],
        numbered: false,
    },
    Table {
        name: "member",
        columns: &[("delivery", Number), ("receiver", Text), ("source", Text), ("subject", Text)],
        numbered: false,
    },
    Table {
        name: "trouble",
        columns: &[
            ("receiver", Text),
            ("since", Number),
            ("refused", Flag),
            ("dead", Flag),
            ("retired", Flag),
            ("held_since", Number),
        ],
        numbered: false,
    },
    Table {
        name: "held",
        columns: &[
            ("n", Number),
            ("id", Text),
            ("receiver", Text),
            ("source", Text),
            ("subject", Text),
            ("event", Text),
            ("title", Text),
            ("created_at", Number),
            ("payload", Bytes),
            ("severity", Text),
            ("class", Text),
            ("grp", Text),
            ("due_at", Number),
            ("data", Text),
        ],
        numbered: true,
    },
    Table {
        name: "gathering",
        columns: &[("receiver", Text), ("grp", Text), ("until", Number), ("wait", Number), ("classes", Text)],
        numbered: false,
    },
    Table {
        name: "reserve",
        columns: &[
            ("of", Text),
            ("instead_of", Text),
            ("due_at", Number),
            ("id", Text),
            ("receiver", Text),
            ("source", Text),
            ("subject", Text),
            ("event", Text),
            ("title", Text),
            ("payload", Bytes),
        ],
        numbered: false,
    },
    Table {
        name: "fate",
        columns: &[
            ("transition", Text),
            ("source", Text),
            ("job", Text),
            ("rule", Text),
            ("receiver", Text),
            ("outcome", Text),
            ("delivery", Text),
            ("why", Text),
            ("at", Number),
        ],
        numbered: false,
    },
    Table {
        name: "follow_up",
        columns: &[
            ("id", Text),
            ("name", Text),
            ("alert", Text),
            ("created_at", Number),
            ("asked", Flag),
            ("approved", Flag),
            ("consent_by", Text),
            ("consent_at", Number),
            ("started_at", Number),
        ],
        numbered: false,
    },
    Table { name: "numbered", columns: &[("key", Number), ("seq", Number)], numbered: false },
    Table {
        name: "pruning",
        columns: &[("one", Number), ("at", Number), ("kept_from", Number), ("removed", Number), ("excess", Number)],
        numbered: false,
    },
];

impl Table {
    /// Its columns' names, with commas between.
    pub(super) fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// The values of one column.
#[derive(Debug)]
pub(super) enum Column {
    Numbers(Vec<Option<i64>>),
    Flags(Vec<Option<bool>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Number => Self::Numbers(Vec::new()),
            Flag => Self::Flags(Vec::new()),
            Text => Self::Texts(Vec::new()),
            Bytes => Self::Bytes(Vec::new()),
        }
    }
}

/// What is on its way.
#[derive(Debug)]
pub(super) enum Parcel {
    /// So many rows there are in all.
    All(u64),
    /// Some rows of a table, column by column.
    Rows { table: &'static str, rows: usize, columns: Vec<Column> },
    /// The last number that a table's rows ever had.
    Last { table: &'static str, n: i64 },
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The tables, each with its rows.
    pub rows: Vec<super::care::Rows>,
    /// Where they are now.
    pub to: String,
}

/// Copies a state that no agent has open into a database in which there is none: all of it, or nothing.
///
/// # Errors
/// See [`Error`].
pub async fn copy(from: &Place, to: &Place, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Copied, Error> {
    let path = match (from.url.strip_prefix("sqlite:"), to.is_shared()) {
        (Some(path), true) => std::path::PathBuf::from(path),
        (_, _) => {
            return Err(Error::Failed(
                "a state is copied from a file into a database: from sqlite:PATH to postgres://…".into(),
            ));
        }
    };
    let source = tokio::task::spawn_blocking(move || sqlite::care::alone(&path));
    let source = source.await.map_err(|error| Error::Failed(error.to_string()))??;
    let (send, receive) = mpsc::channel(QUEUE_MAX);
    let pour = tokio::task::spawn_blocking(move || source.pour(|parcel| send.blocking_send(parcel).is_ok()));
    let pour = async { pour.await.map_err(|error| Error::Failed(error.to_string()))? };
    postgres::copy::fill(to, receive, pour, progress).await
}
