//! What one poll brought home, and whether it is the whole truth.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::index::Key;
use super::job::Job;

/// All pages of one poll. Only a complete listing says anything about jobs that are *not* in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Listing {
    /// Every page was read, nothing moved while reading, and the numbers add up.
    Complete(Rows),
    /// Only what can change was asked for, and the numbers add up: there is no job besides those known. What is not among
    /// the rows is as it was.
    Brief(Rows),
    /// Something was missing or moved. The rows are true; their absence means nothing.
    Incomplete {
        /// What was read before or in spite of the fault.
        rows: Rows,
        /// Why the listing is not whole.
        fault: Fault,
    },
}

impl Listing {
    /// What was read.
    pub fn rows(&self) -> &Rows {
        match self {
            Self::Complete(rows) | Self::Brief(rows) | Self::Incomplete { rows, .. } => rows,
        }
    }
}

/// The rows of a listing, one per job id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// The readable rows; where they were compared with an index, only those that say something new.
    pub jobs: Vec<Job>,
    /// The places in the index of all that were read.
    pub listed: HashSet<Key>,
    /// How many rows had no id or no status and could not be used.
    pub unreadable: usize,
}

impl From<Vec<Job>> for Rows {
    fn from(jobs: Vec<Job>) -> Self {
        Self { jobs, listed: HashSet::new(), unreadable: 0 }
    }
}

/// Why a listing is not whole, in words for the operator and a kind for the loop that must decide when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What to do about it.
    pub kind: FaultKind,
    /// What happened, with the cloud's error code, message and request id. Holds no secret.
    pub text: String,
    /// How long the cloud asked to be left alone.
    pub retry_after: Option<Duration>,
}

/// Faults sorted by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The credential was not accepted or may not list: new credentials or a permission help.
    Unauthorized,
    /// Too many requests: waiting helps.
    Throttled,
    /// The request itself is wrong (region, project, path): the configuration helps.
    Misdirected,
    /// The far end or the way to it failed: trying again helps.
    Unavailable,
    /// An answer came that is no listing: trying again may help.
    Malformed,
    /// The listing moved while it was read: reading again helps.
    Shifted,
    /// Most jobs are missing at once: a fault of the source, until the single-job calls say otherwise.
    Vanished,
}

impl FaultKind {
    /// Every kind.
    const ALL: [Self; 7] = [
        Self::Unauthorized,
        Self::Throttled,
        Self::Misdirected,
        Self::Unavailable,
        Self::Malformed,
        Self::Shifted,
        Self::Vanished,
    ];

    /// The kind with this word.
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::Misdirected => "misdirected",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
            Self::Shifted => "shifted",
            Self::Vanished => "vanished",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the single-job call said about one job that listings no longer show.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// It is still there.
    Found(Job),
    /// 404: it is gone.
    NotFound,
    /// The call failed: nothing is known.
    Unknown,
}
