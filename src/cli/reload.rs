//! `jobwatch reload`: asks the running agent to read its rules anew, and says what it answered.

use std::io::Write as _;
use std::time::Duration;

use super::run::{RELOAD, clock, open};
use super::{Exit, Global, say_report};
use crate::config::{self, Purpose};
use crate::store::{Access, Answer};

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    /// How long an agent may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

impl Reload {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        // Only where the state is matters; secrets may be elsewhere.
        let (config, report) = config::load(&global.config_path(), Purpose::Check);
        let Some(config) = config.filter(|_| !report.has_errors()) else {
            say_report(&report)?;
            return Ok(Exit::Config);
        };
        let store = match open(&config, Access::Visitor).await {
            Ok(store) => store,
            Err((error, exit)) => {
                writeln!(anstream::stderr(), "error: {error}")?;
                return Ok(exit);
            }
        };
        let clock = clock(&*store).await?;
        let n = store.ask(RELOAD, clock.now()).await?;
        let waiting = async {
            loop {
                if let Some(answer) = store.answered(n).await? {
                    return Ok::<_, anyhow::Error>(answer);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(self.wait), waiting).await {
            return say(&answer?);
        }
        // Taken back, so that an agent that starts later does not answer nobody; unless it was answered just now.
        let nobody = Answer { accepted: false, text: String::new() };
        store.answer(n, nobody.clone(), clock.now()).await?;
        match store.answered(n).await? {
            Some(answer) if answer != nobody => say(&answer),
            Some(_) | None => {
                let wait = self.wait;
                writeln!(anstream::stderr(), "error: no agent answered within {wait} s: is `jobwatch run` running?")?;
                Ok(Exit::Failed)
            }
        }
    }
}

/// Says what the agent answered: its errors and warnings to standard error, the outcome to standard output.
fn say(answer: &Answer) -> anyhow::Result<Exit> {
    let mut errors = anstream::stderr();
    if !answer.accepted {
        writeln!(errors, "{}", answer.text.trim_end())?;
        writeln!(errors, "error: the agent refused the rules on disk: the old ones stay in force")?;
        return Ok(Exit::No);
    }
    let (warnings, outcome) = answer.text.rsplit_once('\n').unwrap_or(("", &answer.text));
    if !warnings.trim().is_empty() {
        writeln!(errors, "{}\n", warnings.trim_end())?;
    }
    writeln!(anstream::stdout(), "{outcome}")?;
    Ok(Exit::Done)
}
