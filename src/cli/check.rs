//! `jobwatch check`: everything that is wrong with the configuration and the rules, in one run and without the network.

use std::io::Write as _;

use super::{Exit, Format, Global, say_report, show};
use crate::config::{self, Purpose};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// How to print what is wrong.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Check {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let path = global.config_path();
        let (config, mut report) = config::load(&path, Purpose::Check);
        let unusable = report.has_errors();
        let rules = config.as_ref().map(|config| {
            let (rules, found) = config::rules(&config.rules, Some(&config.known));
            report.merge(found);
            rules
        });
        let mut out = anstream::stdout();
        match self.format {
            Format::Json => writeln!(out, "{:#}", report.json())?,
            Format::Text => say_report(&report)?,
        }
        if unusable {
            return Ok(Exit::Config);
        }
        if report.has_errors() {
            return Ok(Exit::No);
        }
        if let (Format::Text, Some(config), Some(rules)) = (self.format, config, rules) {
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
        Ok(Exit::Done)
    }
}
