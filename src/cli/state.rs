//! `jobwatch state`: what the state holds, a copy of it, its room given back, all of it while the agent runs; and the way
//! from a file into a database, while none does.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use serde_json::{Value, json};

use secrecy::SecretString;

use super::{Exit, Format, Global, say_report, show};
use crate::clock::Clock;
use crate::config::{self, Config, Purpose};
use crate::model::time::span;
use crate::store::care::{self, Compacted, Copied, Home, Info, Progress};
use crate::store::{self, Place, Room};

/// Has the password of a database that is no configuration's state.
const PASSWORD: &str = "JOBWATCH_STATE_PASSWORD";

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
    /// Copies a state from a file, which no agent may have open, into a database in which there is none: all of it, or
    /// nothing. The file stays as it is.
    Copy(Copy),
}

#[derive(Debug, clap::Args)]
pub(super) struct Copy {
    /// The file: sqlite:PATH.
    #[arg(long, value_name = "URL", value_parser = place)]
    from: Place,
    /// The database: postgres://USER@HOST/DATABASE. Its password is that of the configuration, if this is its state; else it
    /// is read from JOBWATCH_STATE_PASSWORD.
    #[arg(long, value_name = "URL", value_parser = place)]
    to: Place,
}

/// Somebody's command line is everybody's to read.
fn place(url: &str) -> Result<Place, String> {
    let place = Place::new(url);
    store::check(&place)?;
    match place.password {
        Some(_) => Err(format!("no password on the command line: [agent] state_password, or {PASSWORD}")),
        None => Ok(place),
    }
}

impl States {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, report) = config::load(&global.config_path(), Purpose::Check);
        let config = config.filter(|_| !report.has_errors());
        let done = match (self, config) {
            // What is configured is of use, and not needed.
            (Self::Copy(copy), config) => copy.run(config).await,
            (Self::Info { .. } | Self::Backup { .. } | Self::Compact, None) => {
                say_report(&report)?;
                return Ok(Exit::Config);
            }
            (Self::Info { check, format }, Some(config)) => info(&config, check, format).await,
            (Self::Backup { to }, Some(config)) => backup(&config, to),
            (Self::Compact, Some(config)) => compact(&config),
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

async fn info(config: &Config, check: bool, format: Format) -> anyhow::Result<Exit> {
    if check && config.state.is_shared() {
        let why = "--check is for a state that is a file: of a database, `pg_amcheck --schema=jobwatch` says whether it is sound";
        writeln!(anstream::stderr(), "error: {why}")?;
        return Ok(Exit::Failed);
    }
    let info = care::info(&config.state, check).await?;
    let mut out = anstream::stdout();
    match format {
        Format::Json => writeln!(out, "{}", show::json(&as_json(&info)))?,
        Format::Text => print(&mut out, &info, config)?,
    }
    Ok(match info.home {
        Home::File { check: Some(check), .. } if check != "ok" => Exit::No,
        Home::File { .. } | Home::Database { .. } => Exit::Done,
    })
}

fn as_json(info: &Info) -> Value {
    let Info { home, version, size, room, rows, oldest, newest, pending, dead, pruning } = info;
    let rows: serde_json::Map<String, Value> =
        rows.iter().map(|rows| (rows.table.to_owned(), rows.rows.into())).collect();
    let pruning = pruning.map(|last| {
        json!({ "at": last.at, "kept_from": last.kept_from, "removed": last.removed, "excess_bytes": last.excess })
    });
    let mut all = json!({
        "version": version, "size_bytes": size, "used_bytes": room.used, "rows": rows, "oldest": oldest, "newest": newest,
        "pending": pending, "dead": dead, "pruning": pruning,
    });
    let own = match home {
        Home::File { path, wal, check } => json!({
            "path": path, "wal_bytes": wal, "free_bytes": room.free, "shrinks": room.shrinks, "check": check,
        }),
        Home::Database { at, server, living, replicas } => json!({
            "database": at, "server": server, "replicas": replicas, "replicas_living": living,
        }),
    };
    if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
        all.extend(own);
    }
    all
}

fn print(out: &mut impl std::io::Write, info: &Info, config: &Config) -> anyhow::Result<()> {
    let Info { home, version, size, room, rows, oldest, newest, pending, dead, pruning } = info;
    let Room { used, free, shrinks } = room;
    match home {
        Home::File { path, wal, .. } => {
            writeln!(out, "state     {} (version {version})", path.display())?;
            let (size, used, free, wal) = (bytes(*size), bytes(*used), bytes(*free), bytes(*wal));
            writeln!(out, "size      {size}: {used} in use, {free} free; {wal} of log")?;
        }
        Home::Database { at, server, living, replicas } => {
            writeln!(out, "state     {at} (version {version}), PostgreSQL {}", show::tame(server))?;
            writeln!(out, "replicas  {living} living of {replicas}: `jobwatch replicas`")?;
            writeln!(out, "size      {}: about {} in use, with indexes", bytes(*size), bytes(*used))?;
        }
    }
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
    let check = match home {
        Home::File { check, .. } => check.as_deref(),
        Home::Database { .. } => None,
    };
    match check {
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

impl Copy {
    async fn run(self, config: Option<Config>) -> anyhow::Result<Exit> {
        let Self { from, mut to } = self;
        let address = |place: &Place| place.url.split('?').next().map(str::to_owned);
        let configured = config.map(|config| config.state).filter(|state| address(state) == address(&to));
        if let Some(state) = &configured
            && !to.url.contains('?')
        {
            // How it proves who it is stands there, too.
            to.url.clone_from(&state.url);
        }
        let password = configured.and_then(|state| state.password);
        to.password = password.or_else(|| config::variable(PASSWORD).map(SecretString::from));
        let mut meter = Meter::new();
        let copied = care::copy(&from, &to, &mut |progress| meter.show(progress)).await;
        meter.end();
        let Copied { rows, to } = copied?;
        let mut out = anstream::stdout();
        for rows in rows.iter().filter(|rows| rows.rows > 0) {
            writeln!(out, "{:>10} {}", rows.rows, rows.table)?;
        }
        let all: u64 = rows.iter().map(|rows| rows.rows).sum();
        let file = from.url.trim_start_matches("sqlite:");
        writeln!(out, "{all} rows are in {to}, as many as in {file}, which stays as it was")?;
        writeln!(
            out,
            "next: [agent] state = \"postgres://…\" in every replica's configuration; no agent goes on with the file"
        )?;
        Ok(Exit::Done)
    }
}

/// How far something is, on a terminal.
struct Meter {
    shows: bool,
    last: Option<u64>,
}

impl Meter {
    fn new() -> Self {
        Self { shows: std::io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, Progress { done, all }: Progress) {
        let percent = (done * 100).checked_div(all).unwrap_or(100);
        if self.shows && self.last.replace(percent) != Some(percent) {
            // A terminal that is gone is no reason to stop.
            drop(write!(anstream::stderr(), "\r{percent:>3} %"));
        }
    }

    fn end(self) {
        if self.shows {
            drop(write!(anstream::stderr(), "\r     \r"));
        }
    }
}

fn backup(config: &Config, to: PathBuf) -> anyhow::Result<Exit> {
    if config.state.is_shared() {
        let why = "the state is in a database, which has its own ways: `pg_dump --format=custom --schema=jobwatch`, restored \
                   with pg_restore while no replica runs, or the backup of the whole server";
        writeln!(anstream::stderr(), "error: {why}")?;
        return Ok(Exit::Failed);
    }
    let mut meter = Meter::new();
    let size = care::backup(&config.state, &to, &mut |progress| meter.show(progress));
    meter.end();
    writeln!(anstream::stdout(), "{}: {}, checked", to.display(), bytes(size?))?;
    Ok(Exit::Done)
}

fn compact(config: &Config) -> anyhow::Result<Exit> {
    if config.state.is_shared() {
        let done = "nothing to do: room that is free in a database is used again, and its autovacuum looks after that";
        writeln!(anstream::stdout(), "{done}")?;
        return Ok(Exit::Done);
    }
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
