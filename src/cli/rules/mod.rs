//! `jobwatch rules`: what rule files say of themselves, why a rule spoke or did not, and what other rules would have said.

mod backtest;
mod explain;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Exit, Format, Global, Since, completions, say_report, show, since};
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
    /// Why somebody was told or not, clause by clause: with cooldown, group, silence and merge, and what would have made a
    /// rule fire.
    Explain(explain::Explain),
    /// What the rules on disk would have said about recorded history, beside what was said.
    Backtest(backtest::Backtest),
}

impl Rules {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        match self {
            Self::Test { paths } => test(&paths, global),
            Self::Explain(explain) => explain.run(global).await,
            Self::Backtest(backtest) => backtest.run(global).await,
        }
    }
}

fn test(paths: &[PathBuf], global: &Global) -> anyhow::Result<Exit> {
    let (rules, report) = load(paths, global);
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
    let tests = rules.tests.len();
    writeln!(out, "{tests} {}, {failed} failed", if tests == 1 { "test" } else { "tests" })?;
    if !untested.is_empty() {
        writeln!(out, "{}without a test: {}{}", show::DIM, untested.join(", "), show::PLAIN)?;
    }
    Ok(if report.has_errors() { Exit::No } else { Exit::Done })
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
