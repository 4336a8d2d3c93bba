//! `jobwatch doctor`: everything that seeing depends on, one line each, with the mend.

use std::io::Write as _;
use std::path::Path;

use super::state::bytes;
use super::{Exit, Global, show};
use crate::config::{Config, Purpose};
use crate::source::{Finding, Health};
use crate::store::care;

/// With more sources than this, only those with something to mend are shown.
const SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let Some((config, rules)) = global.load(Purpose::Run)? else { return Ok(Exit::Config) };
        let mut bad = false;
        let mut out = anstream::stdout();
        let configured = Finding {
            what: "configuration",
            health: Health::Good,
            text: format!("{}: {} rules", global.config_path().display(), rules.rules.len()),
        };
        for finding in [Some(configured), Some(state(&config)), room(&config)].into_iter().flatten() {
            bad |= finding.health == Health::Bad;
            print(&mut out, "", &finding)?;
        }
        let brief = config.sources.len() > SHOWN_MAX;
        let mut well = 0;
        for setup in &config.sources {
            let findings = setup.source.examine().await;
            let name = setup.source.facts().name.as_str();
            let is_well = findings.iter().all(|finding| finding.health == Health::Good);
            well += usize::from(is_well);
            bad |= findings.iter().any(|finding| finding.health == Health::Bad);
            for finding in findings.iter().filter(|finding| !brief || finding.health != Health::Good) {
                print(&mut out, &format!("source {name}: "), finding)?;
            }
        }
        if brief {
            writeln!(out, "{well} of {} sources are well", config.sources.len())?;
        }
        Ok(if bad { Exit::No } else { Exit::Done })
    }
}

/// One line.
pub(super) fn print(out: &mut impl std::io::Write, whose: &str, finding: &Finding) -> std::io::Result<()> {
    let (mark, colour) = match finding.health {
        Health::Good => ("ok  ", show::GREEN),
        Health::Doubtful => ("warn", show::YELLOW),
        Health::Bad => ("BAD ", show::RED),
    };
    writeln!(out, "{colour}{mark}{}  {whose}{}: {}", show::PLAIN, finding.what, show::tame(&finding.text))
}

/// Whether the state is as large as it may be, if there is one that can be looked at.
fn room(config: &Config) -> Option<Finding> {
    let last = care::info(&config.state, false).ok()?.pruning?;
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
    Some(Finding { what: "state", health, text })
}

/// Whether the state can be written.
fn state(config: &Config) -> Finding {
    let path = Path::new(config.state.trim_start_matches("sqlite:"));
    let directory = path.ancestors().skip(1).find(|directory| directory.exists()).unwrap_or(Path::new("."));
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let (health, text) = match tempfile::tempfile_in(directory) {
        Ok(_) => (Health::Good, format!("{} can be written", path.display())),
        Err(error) => (
            Health::Bad,
            format!("{} cannot be written ({error}): the user that runs jobwatch needs it", directory.display()),
        ),
    };
    Finding { what: "state", health, text }
}
