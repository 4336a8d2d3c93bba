//! `jobwatch diff`: two saved API answers in, transitions and what the rules would say out. No state, no network.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::{Exit, Format, Global, SHIPPED_RULES, say_report, show};
use crate::clock::Clock;
use crate::config::{self, Purpose};
use crate::diff::{Points, Policy};
use crate::document::{File, Report};
use crate::model::listing::{Fault, FaultKind, Listing, Rows};
use crate::model::memory::Memory;
use crate::model::notification::SourceFacts;
use crate::plan::{Input, plan};
use crate::rules::{RuleSet, Surroundings, load};
use crate::source;

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// The earlier answer of `GET /v2/{project_id}/jobs`; `-` reads standard input.
    before: PathBuf,
    /// The later answer; `-` reads standard input.
    after: PathBuf,
    /// Rule files or directories [default: those of the configuration, else ./rules, else the shipped ones].
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Diff {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        if self.before == Path::new("-") && self.after == Path::new("-") {
            anyhow::bail!("standard input can be read only once: name a file for one of the two");
        }
        let (before, _) = answer(&self.before)?;
        let (after, whole) = answer(&self.after)?;
        let (rules, report) = self.rules(global);
        say_report(&report)?;
        if report.has_errors() {
            return Ok(Exit::No);
        }
        let mut out = anstream::stdout();
        if !whole && self.format == Format::Text {
            writeln!(
                out,
                "{} is a page of a longer listing: jobs that are not in it are not missing",
                self.after.display()
            )?;
        }
        let now = Clock::system().now();
        let source = Arc::new(SourceFacts {
            name: "diff".into(),
            kind: "swr".to_owned(),
            region: None,
            project_id: "-".to_owned(),
        });
        let listing = match whole {
            true => Listing::Complete(after),
            false => Listing::Incomplete {
                rows: after,
                fault: Fault { kind: FaultKind::Malformed, text: "one page of several".into(), retry_after: None },
            },
        };
        // Two saved answers: nobody can be asked whether what is missing is really gone.
        let (policy, points) = (Policy { vanish_percent_max: 100, ..Policy::default() }, Points::new());
        let baseline = plan(Input {
            source: &source,
            before: &Memory::default(),
            living: 0,
            listing: Listing::Complete(before),
            points: Points::new(),
            rules: &RuleSet::default(),
            policy: &policy,
            now,
        });
        let mut memory = Memory::default();
        memory.snapshot.complete_at = Some(now);
        let known = baseline.difference.changes.into_iter().map(|change| (change.known.job.id.clone(), change.known));
        memory.snapshot.jobs.extend(known);
        let (before, rules, policy, living) = (&memory, &rules, &policy, memory.snapshot.jobs.len());
        let plan = plan(Input { source: &source, before, living, listing, points, rules, policy, now });
        match self.format {
            Format::Json => writeln!(out, "{}", show::json(&show::plan_json(&plan)))?,
            Format::Text => show::plan(&mut out, &plan)?,
        }
        Ok(Exit::Done)
    }

    fn rules(&self, global: &Global) -> (RuleSet, Report) {
        if !self.rules.is_empty() {
            return config::rules(&self.rules, None);
        }
        let path = global.config_path();
        if path.exists()
            && let (Some(config), _) = config::load(&path, Purpose::Check)
        {
            return config::rules(&config.rules, Some(&config.known));
        }
        if Path::new("rules").is_dir() {
            return config::rules(&[PathBuf::from("rules")], None);
        }
        shipped()
    }
}

/// The shipped rules, proved like any others.
pub(super) fn shipped() -> (RuleSet, Report) {
    let file = |(name, text): &(&str, &str)| Arc::new(File { path: name.into(), text: (*text).into() });
    let files: Vec<_> = SHIPPED_RULES.iter().filter(|(name, _)| name.ends_with(".toml")).map(file).collect();
    let none = |path: &Path| Err(format!("{} is not among the shipped files", path.display()));
    load(&files, &Surroundings { read: &none, receivers: None, windows: None, sources: None, follow_ups: None })
}

/// A saved answer, and whether it holds every job it counts.
fn answer(path: &Path) -> anyhow::Result<(Rows, bool)> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| shown.to_string())?
    };
    let (rows, total) =
        source::saved(&text).map_err(|why| anyhow::anyhow!("{shown} is no answer of the listing call: {why}"))?;
    let whole = rows.jobs.len() + rows.unreadable >= total;
    Ok((rows, whole))
}
