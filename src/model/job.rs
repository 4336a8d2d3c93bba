//! One job as the cloud describes it: open words, optional everything but the identifier and the status.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::JobId;
use super::text::line;
use super::time::Timestamp;

/// A text field of a job, shared nowhere and never grown.
pub type Text = Box<str>;

/// One row of the job listing: `JobDetail` in the API's specification.
///
/// The API declares no field as required. A row without an id or a status can't be watched and never becomes a `Job`;
/// every other field may be missing. Times are kept as the text that came, because they identify what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Job id.
    pub id: JobId,
    /// The SWR instance the job works on.
    pub instance_id: Option<Text>,
    /// The resource the job works on; the instance, in the only documented example.
    pub resource_id: Option<Text>,
    /// The resource's name.
    pub resource_name: Option<Text>,
    /// What the job does; `CreateInstance` is the only documented value.
    #[serde(rename = "type")]
    pub kind: Option<Text>,
    /// Where the job stands.
    pub status: Status,
    /// Why it failed.
    pub reason: Option<Text>,
    /// When it was created, as the cloud wrote it.
    pub created_at: Option<Text>,
    /// When it last changed, as the cloud wrote it.
    pub updated_at: Option<Text>,
}

/// Names in a text are cut here, so that they leave room for the rest of a title.
const NAME_MAX: usize = 120;
/// How many fields a row has.
pub const FIELDS: usize = 9;

impl Job {
    /// The fields as text, in the specification's order.
    pub fn fields(&self) -> [Option<&str>; FIELDS] {
        [
            Some(self.id.as_str()),
            self.instance_id.as_deref(),
            self.resource_id.as_deref(),
            self.resource_name.as_deref(),
            self.kind.as_deref(),
            Some(self.status.as_str()),
            self.reason.as_deref(),
            self.created_at.as_deref(),
            self.updated_at.as_deref(),
        ]
    }

    /// A job of which nothing is known but its id and status.
    pub fn bare(id: impl Into<JobId>, status: Status) -> Self {
        Self {
            id: id.into(),
            instance_id: None,
            resource_id: None,
            resource_name: None,
            kind: None,
            status,
            reason: None,
            created_at: None,
            updated_at: None,
        }
    }

    /// When it was created, if that can be read.
    pub fn created(&self) -> Option<Timestamp> {
        self.created_at.as_deref().and_then(Timestamp::parse)
    }

    /// When it last changed, if that can be read.
    pub fn updated(&self) -> Option<Timestamp> {
        self.updated_at.as_deref().and_then(Timestamp::parse)
    }

    /// What people call it, fit for a line of text.
    pub fn called(&self) -> String {
        let name = line(self.title(), NAME_MAX);
        if name.is_empty() { line(self.id.as_str(), NAME_MAX) } else { name }
    }

    /// What it does, in a word that is fit for a line of text.
    pub fn kind_called(&self) -> String {
        let kind = line(self.kind.as_deref().unwrap_or_default(), NAME_MAX);
        if kind.is_empty() { "job".to_owned() } else { kind }
    }

    /// What people call it: its resource's name, else its id.
    pub fn title(&self) -> &str {
        self.resource_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(self.id.as_str())
    }
}

/// Where a job stands. The five documented words, and any other by name: the API's enums are open in practice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Being created.
    Creating,
    /// Being initialised.
    Initializing,
    /// At work.
    Running,
    /// Ended badly; the reason says why.
    Failed,
    /// Ended well.
    Success,
    /// A word the specification does not have, as it came. Neither final nor an error.
    Other(Text),
}

impl Status {
    /// The documented statuses in the order a job passes through them. The order is inferred: no document states it.
    pub const KNOWN: [Self; 5] = [Self::Creating, Self::Initializing, Self::Running, Self::Failed, Self::Success];

    /// Reads the cloud's word; blanks around it and its case do not matter.
    pub fn read(word: &str) -> Self {
        let word = word.trim();
        let known = Self::KNOWN.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(word));
        known.unwrap_or_else(|| Self::Other(word.into()))
    }

    /// The word itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Creating => "Creating",
            Self::Initializing => "Initializing",
            Self::Running => "Running",
            Self::Failed => "Failed",
            Self::Success => "Success",
            Self::Other(word) => word,
        }
    }

    /// Whether the job has ended.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Failed | Self::Success => true,
            Self::Creating | Self::Initializing | Self::Running | Self::Other(_) => false,
        }
    }

    /// How far along its life a job in this status is; both endings are equally far. `None` for an undocumented word.
    pub fn rank(&self) -> Option<u8> {
        match self {
            Self::Creating => Some(0),
            Self::Initializing => Some(1),
            Self::Running => Some(2),
            Self::Failed | Self::Success => Some(3),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn a_status_reads_in_any_case_and_an_unknown_word_stays_as_it_came() {
        assert_eq!(Status::read(" failed "), Status::Failed);
        assert_eq!(Status::read("Paused").as_str(), "Paused");
        assert!(!Status::read("Paused").is_final());
    }
}
