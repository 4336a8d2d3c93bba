//! `jobwatch poll`: one cycle and exit, for a timer or for looking; with `--dry-run` nothing is written and nothing sent.

use std::io::Write as _;
use std::sync::Arc;

use super::run::{assemble, clock, open};
use super::{Exit, Format, Global, completions, show};
use crate::agent::Observer;
use crate::clock::Clock;
use crate::config::Purpose;
use crate::model::name::SourceName;
use crate::ops::log::Log;
use crate::plan::Plan;
use crate::store::{self, Access};

#[derive(Debug, clap::Args)]
pub(super) struct Poll {
    /// Only this source.
    #[arg(long, value_name = "NAME", add = completions::sources())]
    source: Option<String>,
    /// Print what would be written and sent; write and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Poll {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let Some((mut config, rules)) = global.load(Purpose::Run)? else { return Ok(Exit::Config) };
        if let Some(name) = &self.source {
            config.sources.retain(|setup| setup.source.facts().name.as_str() == name);
            if config.sources.is_empty() {
                anyhow::bail!("there is no source `{name}` in {}", global.config_path().display());
            }
        }
        let sources: Vec<SourceName> = config.sources.iter().map(|setup| setup.source.facts().name.clone()).collect();
        let access = if self.dry_run { Access::Visitor } else { Access::Agent };
        let store = match open(&config, access).await {
            Ok(store) => store,
            Err((store::Error::Missing(_), _)) if self.dry_run => store::nothing(),
            Err((error, exit)) => {
                writeln!(anstream::stderr(), "error: {error}")?;
                return Ok(exit);
            }
        };
        let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(Log::new(|| Clock::system().now()))];
        let clock = clock(&*store).await?;
        let agent = assemble(config, rules, store, clock, Arc::new(observers));
        let plans = if self.dry_run { agent.rehearse().await } else { agent.once().await };
        self.print(&plans)?;
        let left = sources.iter().filter(|source| plans.iter().all(|(name, _)| name != *source));
        for source in left {
            writeln!(anstream::stderr(), "source {source}: left to the replica that polls it")?;
        }
        let all_complete = plans.iter().all(|(_, plan)| plan.as_ref().is_ok_and(|plan| plan.complete));
        Ok(if all_complete { Exit::Done } else { Exit::Failed })
    }

    fn print(&self, plans: &[(SourceName, Result<Plan, store::Error>)]) -> anyhow::Result<()> {
        let mut out = anstream::stdout();
        if self.format == Format::Json {
            let done: Vec<_> =
                plans.iter().filter_map(|(_, plan)| Some(show::plan_json(plan.as_ref().ok()?))).collect();
            writeln!(out, "{}", show::json(&serde_json::Value::Array(done)))?;
            return Ok(());
        }
        for (name, plan) in plans {
            match plan {
                Ok(plan) => {
                    let complete = match &plan.fault {
                        None => "complete listing".to_owned(),
                        Some(fault) => format!("incomplete listing: {}", show::tame(&fault.text)),
                    };
                    writeln!(out, "{}source {name}{}: {} jobs known, {complete}", show::BOLD, show::PLAIN, plan.jobs)?;
                    show::plan(&mut out, plan)?;
                }
                Err(error) => writeln!(out, "source {name}: {error}")?,
            }
        }
        if self.dry_run {
            writeln!(out, "\n{}dry run: nothing was written, nothing was sent{}", show::DIM, show::PLAIN)?;
        }
        Ok(())
    }
}
