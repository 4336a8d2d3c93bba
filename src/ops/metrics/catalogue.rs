//! Every metric there is: its name, type, labels and words. The registry is made from this, and the documents, the dashboard
//! and the alert rules are checked against it.

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says; the library adds the full stop.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// How polls ended.
pub(super) const POLLS: Entry = Entry {
    name: "jobwatch_polls_total",
    kind: Kind::Counter,
    labels: &["source", "outcome"],
    help: "Polls by outcome: complete, incomplete (the listing moved, or most jobs vanished), unauthorized, throttled, or failed (anything else, a state that did not take it included)",
};
/// How long they took.
pub(super) const POLL_DURATION: Entry = Entry {
    name: "jobwatch_poll_duration_seconds",
    kind: Kind::Histogram,
    labels: &["source"],
    help: "Time from the first request of a poll until what it brought was committed",
};
/// When a source was seen.
pub(super) const COMPLETE_AT: Entry = Entry {
    name: "jobwatch_last_complete_listing_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &["source"],
    help: "When the last complete listing of a source was committed; 0 before the first",
};
/// What there is to see.
pub(super) const JOBS: Entry = Entry {
    name: "jobwatch_jobs",
    kind: Kind::Gauge,
    labels: &["source", "status"],
    help: "Jobs that are listed, by status; statuses beyond the documented five and the first ten others count as other",
};
/// What moved.
pub(super) const TRANSITIONS: Entry = Entry {
    name: "jobwatch_transitions_total",
    kind: Kind::Counter,
    labels: &["source", "from", "to"],
    help: "Steps from one status to another that listings showed; from may be unseen, to may be gone",
};
/// What rules found.
pub(super) const RULE_MATCHES: Entry = Entry {
    name: "jobwatch_rule_matches_total",
    kind: Kind::Counter,
    labels: &["rule"],
    help: "Matches of a rule, told or not; the series of a rule that a reload removed ends",
};
/// What was tried.
pub(super) const ATTEMPTS: Entry = Entry {
    name: "jobwatch_attempts_total",
    kind: Kind::Counter,
    labels: &["receiver", "outcome"],
    help: "Attempts to deliver by outcome: accepted, refused, retired (HTTP 410) or unreachable",
};
/// What came of it.
pub(super) const DELIVERIES: Entry = Entry {
    name: "jobwatch_deliveries_total",
    kind: Kind::Counter,
    labels: &["receiver", "verdict"],
    help: "Deliveries that ended: delivered, or dead (given up, kept, and replayable)",
};
/// What is owed.
pub(super) const PENDING: Entry = Entry {
    name: "jobwatch_outbox_pending",
    kind: Kind::Gauge,
    labels: &["receiver"],
    help: "Deliveries that are owed and have not ended; what waits to be told in a digest is not counted, and follow-ups are not",
};
/// Since when.
pub(super) const OLDEST: Entry = Entry {
    name: "jobwatch_outbox_oldest_seconds",
    kind: Kind::Gauge,
    labels: &["receiver"],
    help: "How long ago the oldest pending delivery was decided; 0 when there is none",
};
/// How fast people hear.
pub(super) const LATENCY: Entry = Entry {
    name: "jobwatch_detection_to_delivery_seconds",
    kind: Kind::Histogram,
    labels: &["receiver"],
    help: "Time from when the listing was read that showed it until the receiver accepted the message; of a digest, that of the first job in it",
};
/// What this replica polls.
pub(super) const LEASES: Entry = Entry {
    name: "jobwatch_leases_held",
    kind: Kind::Gauge,
    labels: &[],
    help: "Sources that this replica polls, of a state that several share; 0 where one agent has it",
};
/// How often that changed.
pub(super) const LEASE_CHANGES: Entry = Entry {
    name: "jobwatch_lease_changes_total",
    kind: Kind::Counter,
    labels: &["change"],
    help: "Sources that this replica began to poll (taken), or left to others or lost to them (lost)",
};
/// How many share the work.
pub(super) const REPLICAS: Entry = Entry {
    name: "jobwatch_replicas_living",
    kind: Kind::Gauge,
    labels: &[],
    help: "Replicas that live, this one among them, as it last knew; 0 while the state does not answer, and where one agent has it",
};
/// Whether the last reload was.
pub(super) const RELOAD_SUCCESSFUL: Entry = Entry {
    name: "jobwatch_config_last_reload_successful",
    kind: Kind::Gauge,
    labels: &[],
    help: "Whether the rules on disk could be used when they were last read: 1, or 0 while older ones stay in force",
};
/// When it last was.
pub(super) const RELOAD_SUCCESS_AT: Entry = Entry {
    name: "jobwatch_config_last_reload_success_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the rules in force were read",
};
/// Which jobwatch this is.
pub(super) const BUILD_INFO: Entry = Entry {
    name: "jobwatch_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "The version that runs; always 1",
};

/// Every metric there is.
pub const CATALOGUE: &[Entry] = &[
    POLLS,
    POLL_DURATION,
    COMPLETE_AT,
    JOBS,
    TRANSITIONS,
    RULE_MATCHES,
    ATTEMPTS,
    DELIVERIES,
    PENDING,
    OLDEST,
    LATENCY,
    LEASES,
    LEASE_CHANGES,
    REPLICAS,
    RELOAD_SUCCESSFUL,
    RELOAD_SUCCESS_AT,
    BUILD_INFO,
];
