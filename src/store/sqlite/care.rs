//! A state as a file: what it holds, a copy of it, and its room given back, beside the agent that uses it.
//!
//! All of it is done on a connection of its own. A copy is made within one read transaction: it is what was kept at one
//! moment, however much the agent commits meanwhile, and nobody waits for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{MIGRATIONS, beside, prune, sort};
use crate::model::time::Timestamp;
use crate::store::Error;
use crate::store::care::{Compacted, Info, Progress, Rows};

/// Pages that are copied between two reports of progress: 4 MB.
const PAGES: i32 = 1_000;
/// Tables whose rows are counted.
const TABLES: [&str; 15] = [
    "source",
    "job",
    "transition",
    "alert",
    "told",
    "muted",
    "fate",
    "delivery",
    "attempt",
    "held",
    "reserve",
    "follow_up",
    "silence",
    "numbered",
    "request",
];
/// Another process that holds the lock for a moment is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

pub(in crate::store) fn info(path: &Path, check: bool) -> Result<Info, Error> {
    let connection = beside(path)?;
    let fail = |error: rusqlite::Error| sort(path, &error);
    let check = match check {
        true => Some(verdict(&connection, "quick_check").map_err(fail)?),
        false => None,
    };
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let (size, wal) = (length(path), length(Path::new(&name)));
    let describe = |connection: &Connection| {
        let number = |select: &str| {
            let count = connection.query_row(select, [], |row| row.get::<_, i64>(0))?;
            Ok::<_, rusqlite::Error>(u64::try_from(count).unwrap_or(0))
        };
        let time = |select: &str| {
            let at: Option<i64> = connection.query_row(select, [], |row| row.get(0))?;
            Ok::<_, rusqlite::Error>(at.map(Timestamp::from_micros))
        };
        let rows = TABLES.map(|table| Ok(Rows { table, rows: number(&format!("SELECT count(*) FROM {table}"))? }));
        Ok(Info {
            path: path.to_owned(),
            version: MIGRATIONS.len(),
            size,
            wal,
            room: prune::room(connection)?,
            rows: rows.into_iter().collect::<rusqlite::Result<_>>()?,
            oldest: time("SELECT min(seen_at) FROM transition")?,
            newest: time("SELECT max(seen_at) FROM transition")?,
            pending: number("SELECT count(*) FROM delivery WHERE state = 'pending'")?,
            dead: number("SELECT count(*) FROM delivery WHERE state IN ('dead', 'dropped') AND state = 'dead'")?,
            pruning: prune::pruning(connection)?,
            check,
        })
    };
    // All of one moment.
    connection.execute_batch("BEGIN").and_then(|()| describe(&connection)).map_err(fail)
}

/// What SQLite says about a file: `ok`, or what is wrong with it.
fn verdict(connection: &Connection, pragma: &str) -> rusqlite::Result<String> {
    let mut check = connection.prepare(&format!("PRAGMA {pragma}(10)"))?;
    let lines: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(lines.join("; "))
}

/// Writes a copy, checks it, and only then gives it its name.
pub(in crate::store) fn backup(path: &Path, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<u64, Error> {
    let failed = |error: std::io::Error| Error::Failed(format!("{}: {error}", to.display()));
    let taken = || Error::Failed(format!("{} exists: name another file, or move it away", to.display()));
    if to.symlink_metadata().is_ok() {
        return Err(taken());
    }
    let source = beside(path)?;
    let unfinished = Unfinished::beside(to).map_err(failed)?;
    copy(path, &source, &unfinished.0, progress)?;
    drop(source);
    File::open(&unfinished.0).and_then(|file| file.sync_all()).map_err(failed)?;
    // The name is taken by whoever makes the file; what is renamed to it replaces that empty one and no other.
    let named = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    if let Err(error) = named {
        return Err(if error.kind() == std::io::ErrorKind::AlreadyExists { taken() } else { failed(error) });
    }
    std::fs::rename(&unfinished.0, to).map_err(failed)?;
    let directory = to.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    std::fs::metadata(to).map(|meta| meta.len()).map_err(failed)
}

/// A copy that has no name yet; what is left of one that did not come to its end is removed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(to: &Path) -> std::io::Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has another name by now, or is of no use.
        drop(std::fs::remove_file(&self.0));
    }
}

fn copy(path: &Path, source: &Connection, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    let fail = |error: rusqlite::Error| sort(path, &error);
    let lost = |error: rusqlite::Error| Error::Failed(format!("{}: {error}", to.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags).map_err(lost)?;
    // A transaction that has read something stays at that moment. Without it, whatever is written begins the copy anew.
    source.execute_batch("BEGIN").map_err(fail)?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fail)?;
    {
        let backup = Backup::new(source, &mut copy).map_err(lost)?;
        loop {
            let step = backup.step(PAGES).map_err(lost)?;
            let rusqlite::backup::Progress { remaining, pagecount } = backup.progress();
            let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
            progress(Progress { done: count(pagecount - remaining), all: count(pagecount) });
            if step == StepResult::Done {
                break;
            }
            if step != StepResult::More {
                // Only whoever opens the unfinished copy can keep it waiting.
                return Err(Error::Failed(format!("{} is in use", to.display())));
            }
        }
    }
    source.execute_batch("COMMIT").map_err(fail)?;
    // One file, without a log beside it.
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(lost)?;
    match verdict(&copy, "integrity_check").map_err(lost)?.as_str() {
        "ok" => Ok(()),
        wrong => Err(Error::Unusable(format!(
            "the state {} is damaged, and so would be its copy, which was not kept ({wrong}): restore an earlier one",
            path.display()
        ))),
    }
}

/// Writes the whole file anew without its free room, and so that from then on it can be given back in steps.
pub(in crate::store) fn compact(path: &Path) -> Result<Compacted, Error> {
    let connection = beside(path)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| sort(path, &error))?;
    let length = || std::fs::metadata(path).map_or(0, |meta| meta.len());
    let before = length();
    let compact = || {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.execute_batch("VACUUM")?;
        // The file is cut when the log has gone into it; somebody who reads may put that off.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    compact().map_err(|error| sort(path, &error))?;
    Ok(Compacted { before, after: length() })
}

#[cfg(test)]
mod tests {
    use super::TABLES;
    use crate::store::sqlite::migrate;

    #[test]
    fn every_table_that_grows_is_counted() {
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        let mut select = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
            .unwrap();
        let all = select.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        let missing: Vec<String> = all.filter(|table| !TABLES.contains(&table.as_str())).collect();
        // One row a delivery, one a receiver, and one alone.
        assert_eq!(missing, ["trouble", "gathering", "member", "payload", "pruning"]);
    }
}
