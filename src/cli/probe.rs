//! `jobwatch probe`: one listing through the real path, without writing anything.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::{Exit, Global, doctor, show};
use crate::clock::Clock;
use crate::config::Purpose;
use crate::model::index::Index;
use crate::model::listing::Listing;
use crate::source::{Finding, Health};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Probe {
    /// List a source once, whole, and say what was found.
    Source {
        /// Its name.
        name: String,
    },
}

impl Probe {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let Self::Source { name } = self;
        let Some((config, _)) = global.load(Purpose::Run)? else { return Ok(Exit::Config) };
        let known: Vec<&str> = config.sources.iter().map(|setup| setup.source.facts().name.as_str()).collect();
        let Some(setup) = config.sources.iter().find(|setup| setup.source.facts().name.as_str() == name) else {
            anyhow::bail!("there is no source `{name}`; {}", crate::document::suggest(&name, &known));
        };
        let watch = Clock::system().stopwatch();
        let listing = setup.source.list(&Index::default(), true).await;
        let took = watch.elapsed().as_secs_f64();
        let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
        for job in &listing.rows().jobs {
            *statuses.entry(job.status.to_string()).or_default() += 1;
        }
        let counts: Vec<String> = statuses.iter().map(|(status, count)| format!("{count} {status}")).collect();
        let counts = if counts.is_empty() { "no jobs".to_owned() } else { counts.join(", ") };
        let (health, text) = match &listing {
            Listing::Complete(_) | Listing::Brief(_) => (Health::Good, format!("complete in {took:.2} s: {counts}")),
            Listing::Incomplete { fault, .. } => (Health::Bad, format!("{fault} (read before that: {counts})")),
        };
        let mut out = anstream::stdout();
        doctor::print(
            &mut out,
            "",
            &Finding { what: "credential", health: Health::Good, text: setup.source.credential() },
        )?;
        doctor::print(&mut out, "", &Finding { what: "listing", health, text })?;
        for remark in setup.source.remarks() {
            doctor::print(&mut out, "", &Finding { what: "note", health: Health::Doubtful, text: remark })?;
        }
        if health == Health::Bad {
            writeln!(out, "{}`jobwatch doctor` looks at each step{}", show::DIM, show::PLAIN)?;
            return Ok(Exit::No);
        }
        Ok(Exit::Done)
    }
}
