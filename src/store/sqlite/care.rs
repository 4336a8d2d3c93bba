//! A state as a file: what it holds, a copy of it, and its room given back, beside the agent that uses it.
//!
//! All of it is done on a connection of its own. A copy is made within one read transaction: it is what was kept at one
//! moment, however much the agent commits meanwhile, and nobody waits for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{MIGRATIONS, beside, lock, prune, sort};
use crate::model::time::Timestamp;
use crate::store::Error;
use crate::store::care::{Compacted, Home, Info, Progress, Rows};
use crate::store::copy::{BATCH_BYTES, BATCH_ROWS, Column, Parcel, TABLES as COPIED, Table};
use crate::store::rows::COUNTED;

/// Pages that are copied between two reports of progress: 4 MB.
const PAGES: i32 = 1_000;
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
        let rows = COUNTED.map(|table| Ok(Rows { table, rows: number(&format!("SELECT count(*) FROM {table}"))? }));
        Ok(Info {
            home: Home::File { path: path.to_owned(), wal, check },
            version: MIGRATIONS.len(),
            size,
            room: prune::room(connection)?,
            rows: rows.into_iter().collect::<rusqlite::Result<_>>()?,
            oldest: time("SELECT min(seen_at) FROM transition")?,
            newest: time("SELECT max(seen_at) FROM transition")?,
            pending: number("SELECT count(*) FROM delivery WHERE state = 'pending'")?,
            dead: number("SELECT count(*) FROM delivery WHERE state IN ('dead', 'dropped') AND state = 'dead'")?,
            pruning: prune::pruning(connection)?,
        })
    };
    // All of one moment.
    connection.execute_batch("BEGIN").and_then(|()| describe(&connection)).map_err(fail)
}

/// A state that no agent has open, and none can while this is there.
pub(in crate::store) struct Alone {
    path: PathBuf,
    // It goes before the lock does.
    connection: Connection,
    #[expect(dead_code, reason = "it is there to be dropped")]
    lock: File,
}

/// Takes the place of the agent, to read what is there.
pub(in crate::store) fn alone(path: &Path) -> Result<Alone, Error> {
    if !path.exists() {
        return Err(Error::Missing(path.display().to_string()));
    }
    let lock = lock(path)?;
    let connection = beside(path)?;
    match verdict(&connection, "quick_check").map_err(|error| sort(path, &error))?.as_str() {
        "ok" => Ok(Alone { path: path.to_owned(), connection, lock }),
        wrong => {
            Err(Error::Unusable(format!("the state {} is damaged ({wrong}): restore a copy first", path.display())))
        }
    }
}

impl Alone {
    /// Hands over every row, table by table, until that is not wanted any more.
    pub(in crate::store) fn pour(self, mut each: impl FnMut(Parcel) -> bool) -> Result<(), Error> {
        let fail = |error: rusqlite::Error| sort(&self.path, &error);
        self.connection.execute_batch("BEGIN").map_err(fail)?;
        let count = |table: &Table| self.number(&format!("SELECT count(*) FROM {}", table.name));
        let all = COPIED.iter().map(count).sum::<rusqlite::Result<i64>>().map_err(fail)?;
        if !each(Parcel::All(u64::try_from(all).unwrap_or(0))) {
            return Ok(());
        }
        for table in COPIED {
            if !self.pour_table(table, &mut each).map_err(fail)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn number(&self, select: &str) -> rusqlite::Result<i64> {
        self.connection.query_row(select, [], |row| row.get(0))
    }

    /// `false` when no more is wanted.
    fn pour_table(&self, table: &Table, each: &mut impl FnMut(Parcel) -> bool) -> rusqlite::Result<bool> {
        let empty = || table.columns.iter().map(|(_, kind)| Column::of(*kind)).collect::<Vec<_>>();
        let mut select = self.connection.prepare(&format!("SELECT {} FROM {}", table.names(), table.name))?;
        let mut rows = select.query([])?;
        let (mut columns, mut held, mut bytes) = (empty(), 0, 0);
        loop {
            let row = rows.next()?;
            if let Some(row) = row {
                for (at, column) in columns.iter_mut().enumerate() {
                    bytes += put(column, row.get_ref(at)?)?;
                }
                held += 1;
            }
            let full = held >= BATCH_ROWS || bytes >= BATCH_BYTES;
            if held > 0 && (full || row.is_none()) {
                let columns = std::mem::replace(&mut columns, empty());
                if !each(Parcel::Rows { table: table.name, rows: held, columns }) {
                    return Ok(false);
                }
                (held, bytes) = (0, 0);
            }
            if row.is_none() {
                break;
            }
        }
        if table.numbered {
            let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1";
            let n: i64 = self.connection.query_row(last, [table.name], |row| row.get(0))?;
            return Ok(n == 0 || each(Parcel::Last { table: table.name, n }));
        }
        Ok(true)
    }
}

/// Puts a value into its column. Returns how long it is.
fn put(column: &mut Column, value: ValueRef<'_>) -> rusqlite::Result<usize> {
    let bytes = || value.as_bytes_or_null().map_err(rusqlite::Error::from).map(|bytes| bytes.map(<[u8]>::to_vec));
    let length = match column {
        Column::Numbers(numbers) => {
            numbers.push(value.as_i64_or_null()?);
            0
        }
        Column::Flags(flags) => {
            flags.push(value.as_i64_or_null()?.map(|flag| flag != 0));
            0
        }
        Column::Texts(texts) => {
            // No text of the database has a place for U+0000.
            let text = bytes()?.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}"));
            let length = text.as_ref().map_or(0, String::len);
            texts.push(text);
            length
        }
        Column::Bytes(blobs) => {
            let bytes = bytes()?;
            let length = bytes.as_ref().map_or(0, Vec::len);
            blobs.push(bytes);
            length
        }
    };
    Ok(length)
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
    use super::COUNTED;
    use crate::store::copy;
    use crate::store::sqlite::migrate;

    #[test]
    fn every_column_of_every_table_is_copied_but_what_is_an_agents_that_runs() {
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        let mut select = connection
            .prepare(
                "SELECT t.name, c.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
                 WHERE t.type = 'table' AND t.name NOT GLOB 'sqlite_*' ORDER BY t.name, c.cid",
            )
            .unwrap();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let all: Vec<(String, String)> = select.query_map([], read).unwrap().map(Result::unwrap).collect();
        let copied = |table: &str, column: &str| {
            copy::TABLES
                .iter()
                .any(|known| known.name == table && known.columns.iter().any(|(name, _)| *name == column))
        };
        let left = all.iter().filter(|(table, column)| !copied(table, column));
        let left: Vec<String> = left.map(|(table, column)| format!("{table}.{column}")).collect();
        let requests = ["n", "what", "asked_at", "answered_at", "accepted", "answer"];
        let mut known = vec!["delivery.claim_token".to_owned(), "delivery.claim_until".to_owned()];
        known.extend(requests.map(|column| format!("request.{column}")));
        assert_eq!(left, known);
    }

    #[test]
    fn every_table_that_grows_is_counted() {
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        let mut select = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
            .unwrap();
        let all = select.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        let missing: Vec<String> = all.filter(|table| !COUNTED.contains(&table.as_str())).collect();
        // One row a delivery, one a receiver, and one alone.
        assert_eq!(missing, ["trouble", "gathering", "member", "payload", "pruning"]);
    }
}
