//! `jobwatch rules`: what rule files say of themselves.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Exit, Global, say_report, show};
use crate::config::{self, Purpose};
use crate::document::Report;
use crate::rules::RuleSet;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Rules {
    /// Run the tests that stand in rule files, through the function that decides real polls.
    Test {
        /// Files or directories [default: those of the configuration, else ./rules].
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

impl Rules {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let Self::Test { paths } = self;
        let (rules, report) = load(&paths, global);
        say_report(&report)?;
        let mut out = anstream::stdout();
        let mut failed = 0;
        for test in &rules.tests {
            let bad = !config::disagreements(&rules, test).is_empty();
            failed += usize::from(bad);
            let (word, colour) = if bad { ("FAILED", show::RED) } else { ("ok", show::GREEN) };
            writeln!(out, "{colour}{word:<6}{}  {}: {}", show::PLAIN, test.rule, show::tame(&test.name))?;
        }
        let untested: Vec<&str> = rules
            .rules
            .iter()
            .map(|rule| rule.id().as_str())
            .filter(|id| !rules.tests.iter().any(|test| test.rule.as_str() == *id))
            .collect();
        writeln!(out, "{} tests, {failed} failed", rules.tests.len())?;
        if !untested.is_empty() {
            writeln!(out, "{}without a test: {}{}", show::DIM, untested.join(", "), show::PLAIN)?;
        }
        Ok(if report.has_errors() { Exit::No } else { Exit::Done })
    }
}

/// The rules that are named, else those of the configuration, else those in `./rules`.
fn load(paths: &[PathBuf], global: &Global) -> (RuleSet, Report) {
    if !paths.is_empty() {
        return config::rules(paths, None);
    }
    let path = global.config_path();
    if path.exists()
        && let (Some(config), _) = config::load(&path, Purpose::Check)
    {
        return config::rules(&config.rules, Some(&config.known));
    }
    config::rules(&[Path::new("rules").to_owned()], None)
}
