//! `jobwatch check`: everything that is wrong with the configuration and the rules, in one run and without the network; with
//! `--online`, each source is listed once and each receiver's host is reached as well.

use std::io::Write as _;

use super::doctor::{Chart, bounded, receivers, source_name};
use super::{Exit, Format, Global, say_report, show};
use crate::config::{self, Config, Purpose};
use crate::model::index::Index;
use crate::model::listing::Listing;
use crate::source::{Finding, Health};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// List each source once and reach each receiver's host, too; nobody is told anything.
    #[arg(long)]
    online: bool,
    /// How to print what is wrong.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Check {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let path = global.config_path();
        // Who asks others needs the secrets.
        let purpose = if self.online { Purpose::Run } else { Purpose::Check };
        let (config, mut report) = config::load(&path, purpose);
        let unusable = report.has_errors();
        let rules = config.as_ref().map(|config| {
            let (rules, found) = config::rules(&config.rules, Some(&config.known));
            report.merge(found);
            rules
        });
        let mut out = anstream::stdout();
        match self.format {
            // What is found online is the answer, when nothing keeps from asking.
            Format::Json if self.online && !report.has_errors() => {}
            Format::Json => writeln!(out, "{:#}", report.json())?,
            Format::Text => say_report(&report)?,
        }
        if unusable {
            return Ok(Exit::Config);
        }
        if report.has_errors() {
            return Ok(Exit::No);
        }
        if let (Format::Text, Some(config), Some(rules)) = (self.format, &config, rules) {
            let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
            let (sources, receivers) =
                (plural(config.source_count, "source"), plural(config.known.receivers.len(), "receiver"));
            let rules = plural(rules.rules.len(), "rule");
            if global.verbose > 0 {
                for setup in &config.sources {
                    let name = &setup.source.facts().name;
                    writeln!(out, "source {name}: {}", show::tame(&setup.source.credential()))?;
                }
            }
            writeln!(out, "{} can be used: {sources}, {receivers}, {rules}", path.display())?;
        }
        match config.filter(|_| self.online) {
            Some(config) => online(&config, self.format).await,
            None => Ok(Exit::Done),
        }
    }
}

/// One whole listing of each source, and the way to each receiver.
async fn online(config: &Config, format: Format) -> anyhow::Result<Exit> {
    let mut chart = Chart::new(format);
    for setup in &config.sources {
        let look = async {
            vec![match setup.source.list(&Index::default(), true).await {
                Listing::Complete(rows) | Listing::Brief(rows) => {
                    Finding::new("listing", Health::Good, format!("complete: {} jobs", rows.jobs.len()))
                }
                Listing::Incomplete { fault, .. } => {
                    Finding::new("listing", Health::Bad, format!("{fault}: jobwatch doctor looks at each step"))
                }
            }]
        };
        chart.note(&source_name(setup), bounded(look).await)?;
    }
    for (whose, findings) in receivers(config.receivers.iter()).await {
        chart.note(&whose, findings)?;
    }
    chart.end()
}
