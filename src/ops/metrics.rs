//! The metrics: one catalogue of names and words, and the registry they are read from.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::agent::{Observer, Seen};
use crate::model::time::Timestamp;

/// How the text is to be served.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metric's name, and what it says; the library adds the full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
}

/// Whether the last reload was.
pub const RELOAD_SUCCESSFUL: Entry = Entry {
    name: "jobwatch_config_last_reload_successful",
    help: "Whether the rules on disk could be used when they were last read: 1, or 0 while older ones stay in force",
};
/// When it last was.
pub const RELOAD_SUCCESS_AT: Entry =
    Entry { name: "jobwatch_config_last_reload_success_timestamp_seconds", help: "When the rules in force were read" };
/// Which jobwatch this is.
pub const BUILD_INFO: Entry = Entry { name: "jobwatch_build_info", help: "The version that runs; always 1" };

/// Every metric there is.
pub const CATALOGUE: &[Entry] = &[RELOAD_SUCCESSFUL, RELOAD_SUCCESS_AT, BUILD_INFO];

/// What is counted and measured.
pub struct Metrics {
    registry: Registry,
    reload_successful: Gauge,
    reload_success_at: Gauge<f64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The rules in force were read at `start`.
    pub fn new(start: Timestamp) -> Self {
        let (reload_successful, reload_success_at) = (Gauge::default(), Gauge::default());
        let build: Family<[(&str, &str); 1], Gauge> = Family::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let mut registry = Registry::default();
        registry.register(RELOAD_SUCCESSFUL.name, RELOAD_SUCCESSFUL.help, reload_successful.clone());
        registry.register(RELOAD_SUCCESS_AT.name, RELOAD_SUCCESS_AT.help, reload_success_at.clone());
        registry.register(BUILD_INFO.name, BUILD_INFO.help, build);
        let metrics = Self { registry, reload_successful, reload_success_at };
        metrics.reloaded(start);
        metrics
    }

    /// All of them, as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes what is written to it");
        text
    }

    fn reloaded(&self, at: Timestamp) {
        self.reload_successful.set(1);
        self.reload_success_at.set(at.micros() as f64 / 1e6);
    }
}

impl Observer for Metrics {
    fn see(&self, seen: &Seen<'_>) {
        match seen {
            Seen::RulesTaken { at, .. } => self.reloaded(*at),
            Seen::RulesRefused { .. } => {
                self.reload_successful.set(0);
            }
            Seen::Polled { .. }
            | Seen::Remarked { .. }
            | Seen::Attempted { .. }
            | Seen::Escalated { .. }
            | Seen::Lapsed { .. }
            | Seen::Rested { .. }
            | Seen::Recovered { .. }
            | Seen::FollowedUp { .. }
            | Seen::Returned { .. }
            | Seen::StoreFailed { .. }
            | Seen::PollLost { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CATALOGUE, Metrics, Timestamp};

    #[test]
    fn the_text_has_every_metric_of_the_catalogue_and_no_other() {
        let text = Metrics::new(Timestamp::from_micros(1_500_000)).text();
        let said: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let meant: Vec<String> = CATALOGUE.iter().map(|entry| format!("{} {}.", entry.name, entry.help)).collect();
        assert_eq!(said, meant);
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let version = format!("jobwatch_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            values,
            [
                "jobwatch_config_last_reload_successful 1",
                "jobwatch_config_last_reload_success_timestamp_seconds 1.5",
                version.as_str(),
            ]
        );
    }
}
