//! `jobwatch state`: what the state holds, a copy of it, its room given back; all of it while the agent runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Exit, Format, Global, say_report, show};
use crate::clock::Clock;
use crate::config::{self, Config, Purpose};
use crate::model::time::span;
use crate::store::care::{self, Compacted, Info, Progress};
use crate::store::{self, Room};

#[derive(Debug, clap::Subcommand)]
pub(super) enum States {
    /// What the state holds, how large it is, and when something was last forgotten. The agent may run.
    Info {
        /// Read the whole file, too, and say whether it is sound.
        #[arg(long)]
        check: bool,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Writes a copy of the state as it is at one moment. The agent may run, and waits for nothing.
    Backup {
        /// Where to; nothing is overwritten.
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// Writes the whole file anew without its free room. Needed once for a state that an early version made; the agent may
    /// run, and what it writes waits meanwhile.
    Compact,
}

impl States {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, report) = config::load(&global.config_path(), Purpose::Check);
        let Some(config) = config.filter(|_| !report.has_errors()) else {
            say_report(&report)?;
            return Ok(Exit::Config);
        };
        let done = match self {
            Self::Info { check, format } => info(&config, check, format),
            Self::Backup { to } => backup(&config, to),
            Self::Compact => compact(&config),
        };
        match done {
            Ok(exit) => Ok(exit),
            Err(error) => match error.downcast::<store::Error>() {
                Ok(error) => {
                    writeln!(anstream::stderr(), "error: {error}")?;
                    Ok(if matches!(error, store::Error::Unusable(_)) { Exit::Config } else { Exit::Failed })
                }
                Err(error) => Err(error),
            },
        }
    }
}

fn info(config: &Config, check: bool, format: Format) -> anyhow::Result<Exit> {
    let info = care::info(&config.state, check)?;
    let mut out = anstream::stdout();
    match format {
        Format::Json => writeln!(out, "{}", show::json(&as_json(&info)))?,
        Format::Text => print(&mut out, &info, config)?,
    }
    Ok(if info.check.is_none_or(|check| check == "ok") { Exit::Done } else { Exit::No })
}

fn as_json(info: &Info) -> Value {
    let Info { path, version, size, wal, room, rows, oldest, newest, pending, dead, pruning, check } = info;
    let rows: serde_json::Map<String, Value> =
        rows.iter().map(|rows| (rows.table.to_owned(), rows.rows.into())).collect();
    let pruning = pruning.map(|last| {
        json!({ "at": last.at, "kept_from": last.kept_from, "removed": last.removed, "excess_bytes": last.excess })
    });
    json!({
        "path": path, "version": version, "size_bytes": size, "wal_bytes": wal, "used_bytes": room.used,
        "free_bytes": room.free, "shrinks": room.shrinks, "rows": rows, "oldest": oldest, "newest": newest,
        "pending": pending, "dead": dead, "pruning": pruning, "check": check,
    })
}

fn print(out: &mut impl std::io::Write, info: &Info, config: &Config) -> anyhow::Result<()> {
    let Info { path, version, size, wal, room, rows, oldest, newest, pending, dead, pruning, check } = info;
    let Room { used, free, shrinks } = room;
    writeln!(out, "state     {} (version {version})", path.display())?;
    writeln!(
        out,
        "size      {}: {} in use, {} free; {} of log",
        bytes(*size),
        bytes(*used),
        bytes(*free),
        bytes(*wal)
    )?;
    if !shrinks {
        writeln!(out, "          free room is used again, but not given back: `jobwatch state compact` changes that")?;
    }
    let max = config.retention.size_max.map_or("any size".to_owned(), bytes);
    writeln!(out, "kept      {} of history, {max}", span(config.retention.history))?;
    match (oldest, newest) {
        (Some(oldest), Some(newest)) => writeln!(out, "history   from {oldest} to {newest}")?,
        (_, _) => writeln!(out, "history   none yet")?,
    }
    match pruning {
        None => writeln!(out, "forgotten nothing yet")?,
        Some(last) => {
            let ago = span(Clock::system().now().since(last.at));
            writeln!(out, "forgotten {} rows, {ago} ago: what was older than {}", last.removed, last.kept_from)?;
            if last.excess > 0 {
                let excess = bytes(last.excess);
                writeln!(out, "          {excess} more than [retention] size_max, and nothing more can be forgotten")?;
            }
        }
    }
    writeln!(out, "owed      {pending} deliveries; {dead} were given up")?;
    for rows in rows.iter().filter(|rows| rows.rows > 0) {
        writeln!(out, "          {:>10} {}", rows.rows, rows.table)?;
    }
    match check.as_deref() {
        None => {}
        Some("ok") => writeln!(out, "check     {}the file is sound{}", show::GREEN, show::PLAIN)?,
        Some(wrong) => writeln!(
            out,
            "check     {}damaged{}: {}\n          stop the agent and put a copy in its place",
            show::RED,
            show::PLAIN,
            show::tame(wrong)
        )?,
    }
    Ok(())
}

fn backup(config: &Config, to: PathBuf) -> anyhow::Result<Exit> {
    let shows = std::io::stderr().is_terminal();
    let mut err = anstream::stderr();
    let mut last = None;
    let mut progress = |Progress { done, all }: Progress| {
        let percent = (done * 100).checked_div(all).unwrap_or(100);
        if shows && last.replace(percent) != Some(percent) {
            // A terminal that is gone is no reason to stop.
            drop(write!(err, "\r{percent:>3} %"));
        }
    };
    let size = care::backup(&config.state, &to, &mut progress);
    if shows {
        drop(write!(err, "\r     \r"));
    }
    writeln!(anstream::stdout(), "{}: {}, checked", to.display(), bytes(size?))?;
    Ok(Exit::Done)
}

fn compact(config: &Config) -> anyhow::Result<Exit> {
    let watch = Clock::system().stopwatch();
    let Compacted { before, after } = care::compact(&config.state)?;
    let took = watch.elapsed().as_secs_f64();
    writeln!(anstream::stdout(), "{} before, {} now; it took {took:.1} s", bytes(before), bytes(after))?;
    Ok(Exit::Done)
}

/// A number of bytes as people read it.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1_u64 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    let unit = units.into_iter().find(|(size, _)| count >= *size);
    unit.map_or(format!("{count} B"), |(size, unit)| {
        let tenths = u128::from(count) * 10 / u128::from(size);
        if tenths >= 100 {
            format!("{} {unit}", tenths / 10)
        } else {
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_said_in_two_digits_or_more() {
        let said = [0, 1_023, 1_024, 10 << 10, 1_500 << 10, u64::MAX].map(bytes);
        assert_eq!(said, ["0 B", "1023 B", "1.0 kB", "10 kB", "1.4 MB", "16777215 TB"]);
    }
}
