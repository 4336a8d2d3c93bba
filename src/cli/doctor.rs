//! `jobwatch doctor`: everything that seeing and telling depend on, one line each, with the mend.
//!
//! Nobody is told anything, and nothing is written: where a message would be needed, `jobwatch probe` sends one.

mod machine;

use std::io::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::state::bytes;
use super::{Exit, Format, Global, show};
use crate::agent::{ReceiverSetup, SourceSetup};
use crate::clock::Clock;
use crate::cloud::credential::MACHINE;
use crate::config::{Config, Purpose};
use crate::model::name::ReceiverName;
use crate::source::{Finding, Health};
use crate::store::care;

/// With more sources than this, only those with something to mend are shown.
const SHOWN_MAX: usize = 20;
/// Whatever is looked at ends by then: all steps of one source, or of one receiver.
const LOOK_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Doctor {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let Some((config, rules)) = global.load(Purpose::Run)? else { return Ok(Exit::Config) };
        let mut chart = Chart::new(self.format);
        let count = rules.rules.len();
        let rules = if count == 1 { "1 rule".to_owned() } else { format!("{count} rules") };
        let text = format!("{}: {rules}", global.config_path().display());
        chart.note("", vec![Finding::new("configuration", Health::Good, text)])?;
        let clock = Clock::system();
        let state = match config.state.is_shared() {
            true => bounded(care::examine(&config.state, &move || clock.now())).await,
            false => machine::state(&config.state.url),
        };
        chart.note("", state)?;
        chart.note("", room(&config).await.into_iter().collect())?;
        chart.note("", machine::unit().await)?;
        let brief = config.sources.len() > SHOWN_MAX;
        let mut well = 0;
        for setup in &config.sources {
            let mut findings = bounded(setup.source.examine()).await;
            let is_well = findings.iter().all(|finding| finding.health == Health::Good);
            well += usize::from(is_well);
            findings.retain(|finding| !brief || finding.health != Health::Good);
            chart.note(&source_name(setup), findings)?;
        }
        if brief {
            let text = format!("{well} of {} are well", config.sources.len());
            chart.note("", vec![Finding::new("sources", Health::Good, text)])?;
        }
        if config.sources.iter().any(|setup| setup.source.credential().ends_with(MACHINE)) {
            chart.note("", machine::walled().await)?;
        }
        for (whose, findings) in receivers(config.receivers.iter()).await {
            chart.note(&whose, findings)?;
        }
        chart.end()
    }
}

pub(super) fn source_name(setup: &SourceSetup) -> String {
    format!("source {}", setup.source.facts().name)
}

/// Looks at all receivers side by side.
pub(super) async fn receivers(
    all: impl Iterator<Item = (&ReceiverName, &ReceiverSetup)>,
) -> Vec<(String, Vec<Finding>)> {
    let now = Clock::system().now();
    let look = async |(name, setup): (&ReceiverName, &ReceiverSetup)| {
        let mut findings = bounded(setup.receiver.examine(now)).await;
        if findings.is_empty() {
            let text = format!("{}: only a message tells: jobwatch probe receiver {name}", setup.receiver.target());
            findings.push(Finding::new("target", Health::Good, text));
        }
        (format!("receiver {name}"), findings)
    };
    join_all(all.map(look)).await
}

/// Whatever the far end does.
pub(super) async fn bounded(look: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let late = || {
        let text = format!("no end within {} s: check the network and the far end", LOOK_MAX.as_secs());
        vec![Finding::new("time", Health::Bad, text)]
    };
    tokio::time::timeout(LOOK_MAX, look).await.unwrap_or_else(|_| late())
}

/// What was found, printed as it comes or all at the end.
pub(super) struct Chart {
    format: Format,
    found: Vec<serde_json::Value>,
    bad: bool,
}

impl Chart {
    pub(super) fn new(format: Format) -> Self {
        Self { format, found: Vec::new(), bad: false }
    }

    /// What was found about one.
    pub(super) fn note(&mut self, whose: &str, findings: Vec<Finding>) -> std::io::Result<()> {
        let mut out = anstream::stdout();
        for finding in findings {
            self.bad |= finding.health == Health::Bad;
            match self.format {
                Format::Text => {
                    let whose = if whose.is_empty() { String::new() } else { format!("{whose}: ") };
                    print(&mut out, &whose, &finding)?;
                }
                Format::Json => self.found.push(json!({
                    "of": whose,
                    "what": finding.what,
                    "health": word(finding.health).trim(),
                    "text": show::tame(&finding.text),
                })),
            }
        }
        Ok(())
    }

    pub(super) fn end(self) -> anyhow::Result<Exit> {
        if self.format == Format::Json {
            writeln!(anstream::stdout(), "{}", show::json(&self.found.into()))?;
        }
        Ok(if self.bad { Exit::No } else { Exit::Done })
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "ok  ",
        Health::Doubtful => "warn",
        Health::Bad => "FAIL",
    }
}

/// One line.
pub(super) fn print(out: &mut impl std::io::Write, whose: &str, finding: &Finding) -> std::io::Result<()> {
    let colour = match finding.health {
        Health::Good => show::GREEN,
        Health::Doubtful => show::YELLOW,
        Health::Bad => show::RED,
    };
    let (mark, text) = (word(finding.health), show::tame(&finding.text));
    writeln!(out, "{colour}{mark}{}  {whose}{}: {text}", show::PLAIN, finding.what)
}

/// Whether the state is as large as it may be, if there is one that can be looked at.
async fn room(config: &Config) -> Option<Finding> {
    let last = care::info(&config.state, false).await.ok()?.pruning?;
    let (health, text) = match (config.retention.size_max, last.excess) {
        (Some(max), excess @ 1..) => (
            Health::Doubtful,
            format!(
                "{} larger than [retention] size_max ({}), and nothing more can be forgotten: raise it, or end what is owed \
                 to nobody (`jobwatch state info`)",
                bytes(excess),
                bytes(max)
            ),
        ),
        (_, _) => (Health::Good, format!("history is kept from {}", last.kept_from)),
    };
    Some(Finding::new("state", health, text))
}
