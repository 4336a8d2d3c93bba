//! `jobwatch completions`: scripts that make a shell ask the program itself, and what it answers.
//!
//! The shell calls `JOBWATCH_COMPLETE=SHELL jobwatch -- WORD…` with the words up to the cursor. Whatever goes wrong, nothing is
//! said: whoever types has no use for it. Of all files only the configuration that the words name is read, its rules, and the
//! state, and each only where a word asks for it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate, complete};

use super::{Cli, Exit, Global};
use crate::clock::Clock;
use crate::config::{self, Outline};
use crate::deliver::tame;
use crate::store::{self, Access, Filter, Store};

/// Says that a shell asks, and which.
const ASKED_BY: &str = "JOBWATCH_COMPLETE";
/// Nobody waits longer for ids that are in the state.
const STATE_TIMEOUT: Duration = Duration::from_millis(500);
/// As many ids are offered, the newest.
const IDS_MAX: usize = 50;
/// An explanation beside a candidate is cut here.
const HELP_MAX: usize = 80;

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// Into /usr/share/bash-completion/completions/jobwatch, or `source <(jobwatch completions bash)`.
    Bash,
    /// As `_jobwatch` into a directory of $fpath.
    Zsh,
    /// Into ~/.config/fish/completions/jobwatch.fish.
    Fish,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        anstream::stdout().write_all(self.shell.script().as_bytes())?;
        Ok(Exit::Done)
    }
}

impl Shell {
    fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("bash.sh"),
            Self::Zsh => include_str!("zsh.zsh"),
            Self::Fish => include_str!("fish.fish"),
        }
    }

    /// A candidate as the shell's script reads it, in one line.
    fn line(self, candidate: &CompletionCandidate) -> String {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        match self {
            Self::Bash => value.into_owned(),
            Self::Zsh => {
                let value = value.replace('\\', "\\\\").replace(':', "\\:");
                if help.is_empty() { value } else { format!("{value}:{}", help.replace('\\', "\\\\")) }
            }
            Self::Fish if help.is_empty() => value.into_owned(),
            Self::Fish => format!("{value}\t{help}"),
        }
    }
}

/// Answers a shell, if it is one that asks.
pub(super) fn answered() -> bool {
    let Some(shell) = config::variable(ASKED_BY) else { return false };
    let Some(words) = words() else { return false };
    if let Ok(shell) = Shell::from_str(&shell, false) {
        let lines = lines(shell, words);
        // A shell that has gone away needs no answer.
        drop(std::io::stdout().write_all(lines.as_bytes()));
    }
    true
}

fn lines(shell: Shell, words: Vec<OsString>) -> String {
    let last = words.len().saturating_sub(1);
    let nothing_typed = words.last().is_none_or(|word| word.is_empty());
    let here = std::env::current_dir().ok();
    let mut found = complete(&mut Cli::command(), words, last, here.as_deref()).unwrap_or_default();
    // Options are for who types a dash; else they would hide the one name that there is.
    let is_option = |candidate: &CompletionCandidate| candidate.get_value().as_encoded_bytes().starts_with(b"-");
    if nothing_typed && !found.iter().all(is_option) {
        found.retain(|candidate| !is_option(candidate));
    }
    let lines = found.iter().map(|candidate| shell.line(candidate)).filter(|line| !line.contains(['\n', '\r']));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The words up to the cursor, if they are there.
fn words() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == "--").then(|| joined(arguments)).filter(|words| !words.is_empty())
}

/// bash parts `--config=FILE` into three words.
fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        let after_option = joined.last().is_some_and(|last| last.as_encoded_bytes().starts_with(b"--"));
        if !(word == "=" && after_option) {
            joined.push(word);
        }
    }
    joined
}

/// What the configuration that the words name has, the last of them if there are several.
fn outline() -> Outline {
    let mut words = words().unwrap_or_default().into_iter().skip(1);
    let mut named = None;
    while let Some(word) = words.next() {
        if word == "--config" {
            named = words.next();
        } else if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            named = Some(path.into());
        }
    }
    let named = named.or_else(|| config::variable("JOBWATCH_CONFIG").map(OsString::from)).map(at_home);
    Outline::read(&Global { config: named, ..Global::default() }.config_path())
}

/// A shell hands over `~` as it was typed.
fn at_home(path: OsString) -> PathBuf {
    let path = PathBuf::from(path);
    match (path.strip_prefix("~"), config::variable("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        (Ok(_) | Err(_), _) => path,
    }
}

/// A name with its explanation. One that a shell could take for more than a word is not offered.
fn candidate(name: &str, help: &str) -> Option<CompletionCandidate> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    let help = tame(help, HELP_MAX);
    plain.then(|| CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into())))
}

/// The configuration's sources.
pub(super) fn sources() -> ArgValueCandidates {
    ArgValueCandidates::new(|| outline().sources.iter().filter_map(|name| candidate(name, "")).collect())
}

/// The configuration's receivers.
pub(super) fn receivers() -> ArgValueCandidates {
    ArgValueCandidates::new(|| outline().receivers.iter().filter_map(|(name, kind)| candidate(name, kind)).collect())
}

/// The ids of the rules on disk.
pub(super) fn rules() -> ArgValueCandidates {
    ArgValueCandidates::new(|| outline().rules().iter().filter_map(|id| candidate(id, "")).collect())
}

/// The ids of deliveries.
pub(super) fn deliveries() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        recall(async |store| {
            let filter = Filter { limit: IDS_MAX, ..Filter::default() };
            let found = store.deliveries(filter).await?;
            let help = |row: &store::Delivery| format!("to {}, {}", row.receiver, row.state.as_str());
            Ok(found.items.iter().filter_map(|row| candidate(row.id.as_str(), &help(row))).collect())
        })
    })
}

/// The ids of silences that are in force or will be.
pub(super) fn silences() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        recall(async |store| {
            let found = store.silences(Clock::system().now()).await?;
            Ok(found.iter().filter_map(|silence| candidate(&silence.id, &silence.matchers.join(" "))).collect())
        })
    })
}

/// The ids of follow-ups.
pub(super) fn follow_ups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        recall(async |store| {
            let found = store.follow_ups(IDS_MAX).await?;
            let help = |row: &crate::model::follow_up::Listed| format!("{}, {}", row.name, row.state);
            Ok(found.iter().filter_map(|row| candidate(row.id.as_str(), &help(row))).collect())
        })
    })
}

/// What the state says, if it does so soon: a state that is busy keeps its thread waiting, and nobody else.
fn recall<A>(ask: A) -> Vec<CompletionCandidate>
where
    A: AsyncFnOnce(Arc<dyn Store>) -> Result<Vec<CompletionCandidate>, store::Error> + Send + 'static,
{
    let (answer, answered) = std::sync::mpsc::channel();
    let look = move || {
        let state = outline().state?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let found = runtime.block_on(async { ask(store::open(&state, Access::Visitor).await?).await });
        // Who asked may have gone.
        answer.send(found.ok()?).ok()
    };
    std::thread::spawn(look);
    answered.recv_timeout(STATE_TIMEOUT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bash_parts_is_joined_again() {
        let split = ["jobwatch", "--config", "=", "a.toml", "poll", "--source", "=", ""];
        let whole = ["jobwatch", "--config", "a.toml", "poll", "--source", ""];
        assert_eq!(joined(split.iter().map(OsString::from)), whole);
        assert_eq!(joined(["jobwatch", "x", "="].iter().map(OsString::from)), ["jobwatch", "x", "="]);
    }

    #[test]
    fn a_name_that_a_shell_could_take_for_more_is_not_offered() {
        for name in ["", "$(reboot)", "a b", "*", "a;b", "a\nb", "`x`", "\u{1b}[2J", "a/b"] {
            assert!(candidate(name, "").is_none(), "{name:?}");
        }
        for name in ["prod", "on-call_2", "机房", "msg_ABC.1"] {
            assert!(candidate(name, "").is_some(), "{name:?}");
        }
    }
}
