//! The embedded engine: one SQLite file in WAL mode, one thread that owns the only connection that writes.
//!
//! Commits and records are made with `synchronous=FULL`: when they return, a power cut takes nothing back. Claims, and
//! commits of polls that found nothing new, need no more than `NORMAL`: a claim that is lost only means that the delivery is
//! claimed again, and a poll that is lost is made again. What waits at the same time is written together (`writer`).

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};
use writer::{Asked, Work};

pub(super) mod care;
mod finding;
mod follow_up;
mod gauge;
mod glance;
mod load;
mod outbox;
mod pace;
mod past;
mod prune;
mod view;
mod writer;

use super::glance::{Glance, Look};
use super::rows::json;
use super::share::{Begun, Bounds};
use super::view::{
    AlertFilter, AlertKey, AlertView, JobFilter, JobKey, JobView, NumberKey, OutboxView, Page, SourceFilter, SourceKey,
    SourceView, TransitionFilter, TransitionView,
};
use super::{
    Access, Again, Answer, AttemptRow, Commit, Delivery, Dossier, Dropped, Error, Filter, Finding, Gathered, Gauges,
    Lapse, Lapsed, PaceOf, Past, Prune, Pruned, Pruning, Record, Request, Room, Span, Store, Told, Trouble, Turns,
    Wanted,
};
use crate::model::alert::{Fate, Silence};
use crate::model::delivery::{Claimed, DeliveryState, Frozen, Held};
use crate::model::follow_up::{Consent, FollowUp, Listed, Standing};
use crate::model::index::Index;
use crate::model::job::{Job, Status, Text};
use crate::model::memory::{Memory, Pacing, Sight};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::snapshot::{Change, Known};
use crate::model::time::Timestamp;
use crate::model::transition::Transition;

/// `JobW`: how a state is told from any other SQLite file.
const APPLICATION_ID: i64 = 0x4a6f_6257;
/// Each step takes a state from version *n* to *n + 1*.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/sqlite-1.sql"),
    include_str!("schema/sqlite-2.sql"),
    include_str!("schema/sqlite-3.sql"),
    include_str!("schema/sqlite-4.sql"),
    include_str!("schema/sqlite-5.sql"),
];
/// How long another process's short transaction is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that may wait for the writer; more and the asker waits.
const QUEUE_MAX: usize = 256;
/// Statements that are kept prepared: more than there are.
const STATEMENTS_MAX: usize = 256;
/// As much of the file is kept in memory, in kB: what a storm touches at once.
const CACHE_KB: i64 = 16 << 10;
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 64 << 20;

/// A state file. Dropping it does what is queued, closes the file and gives the lock back.
pub(super) struct Sqlite {
    path: Arc<PathBuf>,
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has closed the file as well.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sqlite {
    pub(super) async fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path, access));
        opened.await.map_err(|error| Error::Failed(error.to_string()))?
    }

    /// Runs `work`, which looks only, on the thread that has the connection.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let path = Arc::clone(&self.path);
        self.ask(|answer| {
            Work::Alone(Box::new(move |connection| {
                // Nobody may wait any more.
                drop(answer.send(work(connection).map_err(|error| sort(&path, &error))));
            }))
        })
        .await
    }

    /// Makes a change, which is kept for good when this returns.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(|answer| Asked::work(work, true, answer, Arc::clone(&self.path))).await
    }

    /// Makes a change that a power cut may take back.
    async fn jot<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(|answer| Asked::work(work, false, answer, Arc::clone(&self.path))).await
    }

    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Work) -> Result<T, Error> {
        let (answer, wait) = oneshot::channel();
        let ended = || Error::Failed("the store's thread has ended".into());
        self.queue.as_ref().ok_or_else(ended)?.send(work(answer)).await.map_err(|_| ended())?;
        wait.await.map_err(|_| ended())?
    }
}

fn sort(path: &Path, error: &rusqlite::Error) -> Error {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Unusable(format!(
            "the state {path} is damaged ({error}); it was left as it is: restore a copy, or move it away to begin anew"
        )),
        Some(ErrorCode::DiskFull) => Error::Failed(format!("no room on the disk for {path}")),
        _ => Error::Failed(format!("the state {path}: {error}")),
    }
}

fn open(path: &Path, access: Access) -> Result<Sqlite, Error> {
    let shown = path.display().to_string();
    let io = |error: std::io::Error| Error::Failed(format!("the state {shown}: {error}"));
    let lock = match access {
        Access::Agent => {
            if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
            }
            Some(lock(path)?)
        }
        Access::Visitor if !path.exists() => return Err(Error::Missing(path.display().to_string())),
        Access::Visitor => None,
    };
    if access == Access::Agent {
        // SQLite would make the file with the umask's rights; its WAL takes them over from it.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| sort(path, &error))?;
    let connection = prepare(connection, access, path)?;
    let (queue, mut work) = writer::queue();
    let path = Arc::new(path.to_owned());
    let named = Arc::clone(&path);
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            let mut connection = connection;
            writer::serve(&mut connection, &mut work, &named);
            // The lock goes last: whoever takes it next finds the file closed.
            drop(connection);
            drop(lock);
        })
        .map_err(io)?;
    Ok(Sqlite { path, queue: Some(queue), thread: Some(thread) })
}

/// A connection of a command beside the agent.
fn beside(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::Missing(path.display().to_string()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| sort(path, &error))?;
    prepare(connection, Access::Visitor, path)
}

/// Takes the lock beside the state, or says who has it.
fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let io = |error: std::io::Error| Error::Failed(format!("{}: {error}", name.display()));
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
            write!(file, "{}", std::process::id()).map_err(io)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.read_to_string(&mut holder));
            let holder = if holder.is_empty() { "unknown".to_owned() } else { holder };
            Err(Error::InUse(format!(
                "the state {} is in use by another jobwatch (process {holder}): one agent at a time",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Looks at the file before touching it, then brings it to the present version.
fn prepare(mut connection: Connection, access: Access, path: &Path) -> Result<Connection, Error> {
    let fail = |error: rusqlite::Error| sort(path, &error);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // A statement is not prepared anew because it is asked about something else.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(fail)?;
    connection.pragma_update(None, "cache_size", -CACHE_KB).map_err(fail)?;
    // What a savepoint may have to undo is kept in memory, not in a file of its own.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(fail)?;
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id").map_err(fail)?, number("user_version").map_err(fail)?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let path_shown = path.display();
    if tables > 0 && application != APPLICATION_ID {
        return Err(Error::Unusable(format!(
            "{path_shown} is a database of another program; it was left as it is: name another file in [agent] state"
        )));
    }
    if version > known {
        return Err(Error::Unusable(format!(
            "the state {path_shown} was written by a newer jobwatch (version {version}, this one knows {known}); it was left as it is"
        )));
    }
    if access == Access::Visitor && tables > 0 && version < known {
        return Err(Error::Failed(format!(
            "the state {path_shown} was written by an earlier jobwatch: start `jobwatch run` once, which takes it over"
        )));
    }
    if access == Access::Agent {
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail)?;
        if check != "ok" {
            return Err(Error::Unusable(format!(
                "the state {path_shown} is damaged ({check}); it was left as it is: restore a copy, or move it away to begin anew"
            )));
        }
        if tables == 0 {
            // Only before anything is written: what is forgotten later is given back to the disk in small steps.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fail)?;
        }
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(fail)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX).map_err(fail)?;
    } else if tables == 0 {
        return Err(Error::Missing(path_shown.to_string()));
    }
    connection.pragma_update(None, "foreign_keys", true).map_err(fail)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    if access == Access::Agent {
        migrate(&mut connection, version).map_err(fail)?;
        connection
            .execute("UPDATE delivery SET claim_token = NULL, claim_until = NULL WHERE claim_until IS NOT NULL AND state = 'pending'", [])
            .map_err(fail)?;
    }
    Ok(connection)
}

fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    for (version, step) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(from).unwrap_or(0)) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[async_trait]
impl Store for Sqlite {
    async fn load(&self, source: &SourceName, wanted: Wanted) -> Result<Memory, Error> {
        let source = source.clone();
        self.run(move |connection| load::load(connection, &source, &wanted)).await
    }

    async fn index(&self, source: &SourceName) -> Result<(Index, bool), Error> {
        let source = source.clone();
        self.run(move |connection| {
            let mut index = Index::default();
            let mut jobs = connection.prepare_cached("SELECT * FROM job WHERE source = ?1 AND NOT gone")?;
            let mut rows = jobs.query([source.as_str()])?;
            while let Some(row) = rows.next()? {
                index.put(&known(row)?.1);
            }
            let baseline = connection
                .prepare_cached("SELECT 1 FROM source WHERE name = ?1 AND complete_at IS NOT NULL")?
                .exists([source.as_str()])?;
            Ok((index, baseline))
        })
        .await
    }

    async fn sights(&self) -> Result<Vec<(SourceName, Sight)>, Error> {
        self.run(|connection| {
            let mut select = connection.prepare_cached("SELECT name, blind_since, told_since, vanished FROM source")?;
            let rows =
                select.query_map([], |row| Ok((SourceName::from(row.get::<_, String>("name")?), sight(row)?)))?;
            rows.collect()
        })
        .await
    }

    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.write(move |connection| {
            for (source, since) in &told.sources {
                connection
                    .prepare_cached("UPDATE source SET told_since = ?2 WHERE name = ?1")?
                    .execute(params![source.as_str(), since.map(Timestamp::micros)])?;
            }
            write_deliveries(connection, &told.deliveries)?;
            Ok(())
        })
        .await
    }

    async fn commit(&self, commit: Commit) -> Result<usize, Error> {
        // A poll that found nothing new only moves the time it was made at: no promise hangs on that.
        let idle = commit.changes.is_empty()
            && commit.alerts.is_empty()
            && commit.deliveries.is_empty()
            && commit.held.is_empty()
            && commit.muted.is_empty()
            && commit.unmuted.is_empty()
            && commit.follow_ups.is_empty();
        let work = move |connection: &Connection| write_commit(connection, &commit);
        if idle { self.jot(work).await } else { self.write(work).await }
    }

    async fn claim(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, Error> {
        let receiver = receiver.clone();
        self.jot(move |connection| outbox::claim(connection, &receiver, now, until, limit)).await
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<bool>, Error> {
        self.write(move |connection| outbox::record(connection, &records)).await
    }

    async fn escalate(&self, receiver: &ReceiverName, now: Timestamp) -> Result<Vec<ReceiverName>, Error> {
        // Mostly there is nothing to write.
        if self.next_escalation(receiver).await?.is_none_or(|due| due > now) {
            return Ok(Vec::new());
        }
        let receiver = receiver.clone();
        self.write(move |connection| outbox::escalate(connection, &receiver, now)).await
    }

    async fn next_escalation(&self, receiver: &ReceiverName) -> Result<Option<Timestamp>, Error> {
        let receiver = receiver.clone();
        self.run(move |connection| {
            let due: Option<i64> = connection
                .prepare_cached("SELECT min(due_at) FROM reserve WHERE instead_of = ?1")?
                .query_row([receiver.as_str()], |row| row.get(0))?;
            Ok(due.map(Timestamp::from_micros))
        })
        .await
    }

    async fn overdue(
        &self,
        receiver: &ReceiverName,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Delivery>, Error> {
        let receiver = receiver.clone();
        self.run(move |connection| {
            let overdue = outbox::overdue(connection, &receiver, before, now, 1)?;
            let mut select = connection.prepare_cached("SELECT * FROM delivery WHERE n = ?1")?;
            overdue.first().map(|n| select.query_row([n], delivery)).transpose()
        })
        .await
    }

    async fn lapse(&self, lapse: Lapse) -> Result<Lapsed, Error> {
        self.write(move |connection| outbox::lapse(connection, &lapse)).await
    }

    async fn reopen(&self, receiver: &ReceiverName, now: Timestamp) -> Result<bool, Error> {
        let receiver = receiver.clone();
        self.write(move |connection| outbox::reopen(connection, receiver.as_str(), now)).await
    }

    async fn release(&self, claimed: Vec<Claimed>) -> Result<(), Error> {
        self.jot(move |connection| {
            for Claimed { frozen, token, .. } in &claimed {
                connection
                    .prepare_cached(
                        "UPDATE delivery SET claim_token = NULL, claim_until = NULL WHERE id = ?1 AND claim_token = ?2",
                    )?
                    .execute(params![frozen.id.as_str(), token])?;
            }
            Ok(())
        })
        .await
    }

    async fn next_due(&self, receiver: &ReceiverName) -> Result<Option<Timestamp>, Error> {
        let receiver = receiver.clone();
        self.run(move |connection| outbox::next_due(connection, &receiver)).await
    }

    async fn trouble(&self, receiver: &ReceiverName) -> Result<Trouble, Error> {
        let receiver = receiver.clone();
        self.run(move |connection| {
            let told = connection
                .prepare_cached("SELECT * FROM trouble WHERE receiver = ?1")?
                .query_row([receiver.as_str()], outbox::trouble)
                .optional()?;
            Ok(told.unwrap_or_default())
        })
        .await
    }

    async fn troubles(&self) -> Result<Vec<(ReceiverName, Trouble)>, Error> {
        self.run(|connection| {
            let mut select = connection.prepare_cached("SELECT * FROM trouble ORDER BY receiver")?;
            let row =
                |row: &Row<'_>| Ok((ReceiverName::from(row.get::<_, String>("receiver")?), outbox::trouble(row)?));
            select.query_map([], row)?.collect()
        })
        .await
    }

    async fn glance(&self, look: Look) -> Result<Glance, Error> {
        self.run(move |connection| glance::glance(connection, look)).await
    }

    async fn end(&self, ids: Vec<DeliveryId>, note: &str, now: Timestamp) -> Result<Vec<Dropped>, Error> {
        let note = note.to_owned();
        self.write(move |connection| outbox::end(connection, &ids, &note, now)).await
    }

    async fn sources(&self, filter: SourceFilter) -> Result<Page<SourceView, SourceKey>, Error> {
        self.run(move |connection| view::sources(connection, &filter)).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Page<JobView, JobKey>, Error> {
        self.run(move |connection| view::jobs(connection, &filter)).await
    }

    async fn transitions(&self, filter: TransitionFilter) -> Result<Page<TransitionView, NumberKey>, Error> {
        self.run(move |connection| view::transitions(connection, &filter)).await
    }

    async fn transitions_after(
        &self,
        filter: TransitionFilter,
        mark: i64,
    ) -> Result<(Vec<TransitionView>, i64), Error> {
        self.run(move |connection| view::transitions_after(connection, &filter, mark)).await
    }

    async fn alerts(&self, filter: AlertFilter) -> Result<Page<AlertView, AlertKey>, Error> {
        self.run(move |connection| view::alerts(connection, &filter)).await
    }

    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, Error> {
        let id = id.clone();
        self.run(move |connection| view::alert_of(connection, &id)).await
    }

    async fn deliveries(&self, filter: Filter) -> Result<Page<Delivery, NumberKey>, Error> {
        self.run(move |connection| view::deliveries(connection, &filter)).await
    }

    async fn deliveries_after(&self, filter: Filter, mark: i64) -> Result<(Vec<Delivery>, i64), Error> {
        self.run(move |connection| view::deliveries_after(connection, &filter, mark)).await
    }

    async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, Error> {
        let id = id.clone();
        self.run(move |connection| view::delivery_of(connection, &id)).await
    }

    async fn marks(&self) -> Result<(i64, i64), Error> {
        self.run(|connection| view::marks(connection)).await
    }

    async fn outbox(&self) -> Result<Vec<OutboxView>, Error> {
        self.run(|connection| view::outbox(connection)).await
    }

    async fn dossier(&self, id: &DeliveryId) -> Result<Option<Dossier>, Error> {
        let id = id.clone();
        self.run(move |connection| {
            let found = connection
                .prepare_cached("SELECT * FROM delivery JOIN payload ON payload.delivery = n WHERE id = ?1")?
                .query_row([id.as_str()], |row| {
                    Ok((row.get::<_, i64>("n")?, delivery(row)?, row.get::<_, Vec<u8>>("bytes")?))
                })
                .optional()?;
            let Some((n, delivery, payload)) = found else { return Ok(None) };
            let mut select = connection.prepare_cached("SELECT * FROM attempt WHERE delivery = ?1 ORDER BY number")?;
            let attempts = select.query_map([n], attempt)?.collect::<rusqlite::Result<_>>()?;
            Ok(Some(Dossier { delivery, attempts, payload }))
        })
        .await
    }

    async fn waiting(&self) -> Result<Vec<(ReceiverName, usize)>, Error> {
        self.run(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT receiver, count(*) FROM (SELECT receiver FROM delivery WHERE state = 'pending'
                                                 UNION ALL SELECT receiver FROM held) GROUP BY receiver",
            )?;
            let count = |row: &Row<'_>| Ok((ReceiverName::from(row.get::<_, String>(0)?), row.get::<_, i64>(1)?));
            let rows = select.query_map([], count)?.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(rows.into_iter().map(|(name, count)| (name, usize::try_from(count).unwrap_or(0))).collect())
        })
        .await
    }

    async fn gauges(&self, counted: Vec<SourceName>) -> Result<Gauges, Error> {
        self.run(move |connection| gauge::gauges(connection, &counted)).await
    }

    async fn pacing(&self, receivers: Vec<PaceOf>, now: Timestamp) -> Result<Pacing, Error> {
        self.run(move |connection| pace::pacing(connection, &receivers, now)).await
    }

    async fn held(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(i64, Held)>, Error> {
        let receiver = receiver.clone();
        self.run(move |connection| pace::held(connection, &receiver, now, limit, bytes_max)).await
    }

    async fn holding(&self, now: Timestamp) -> Result<Vec<(ReceiverName, Timestamp)>, Error> {
        self.run(move |connection| pace::holding(connection, now)).await
    }

    async fn gathered(&self, gathered: Vec<Gathered>, _turns: Turns, now: Timestamp) -> Result<(), Error> {
        self.write(move |connection| pace::gathered(connection, &gathered, now)).await
    }

    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, Error> {
        self.run(move |connection| finding::silences(connection, now)).await
    }

    async fn silence(&self, silence: Silence) -> Result<(), Error> {
        self.write(move |connection| finding::write_silence(connection, &silence)).await
    }

    async fn findings(&self, limit: usize) -> Result<Vec<Finding>, Error> {
        self.run(move |connection| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let alerts = finding::alerts(connection, "NOT resolved ORDER BY last_seen DESC, id LIMIT ?1", &[&limit])?;
            let mut job = connection.prepare_cached("SELECT * FROM job WHERE source = ?1 AND id = ?2")?;
            let with_job = |alert: crate::model::alert::Alert| {
                let row = job.query_row([alert.source.as_str(), alert.subject.as_str()], known).optional()?;
                Ok(Finding { alert, known: row.map(|(_, known)| known) })
            };
            alerts.into_iter().map(with_job).collect()
        })
        .await
    }

    async fn find(&self, what: &str, limit: usize) -> Result<Vec<(SourceName, JobId)>, Error> {
        let what = what.to_owned();
        self.run(move |connection| past::find(connection, &what, limit)).await
    }

    async fn past(&self, source: &SourceName, job: &JobId) -> Result<Past, Error> {
        let (source, job) = (source.clone(), job.clone());
        self.run(move |connection| past::past(connection, &source, &job)).await
    }

    async fn history(&self, span: Span) -> Result<Vec<std::sync::Arc<Transition>>, Error> {
        self.run(move |connection| past::history(connection, &span)).await
    }

    async fn fates(&self, span: Span) -> Result<Vec<(Fate, Timestamp, Option<String>)>, Error> {
        self.run(move |connection| past::fates(connection, &span)).await
    }

    async fn ask(&self, what: &str, now: Timestamp) -> Result<i64, Error> {
        let what = what.to_owned();
        self.write(move |connection| {
            connection.execute("DELETE FROM request WHERE asked_at < ?1 - 86400000000", [now.micros()])?;
            connection.execute("INSERT INTO request (what, asked_at) VALUES (?1, ?2)", params![what, now.micros()])?;
            Ok(connection.last_insert_rowid())
        })
        .await
    }

    async fn requests(&self, now: Timestamp) -> Result<Vec<Request>, Error> {
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "SELECT n, what FROM request WHERE answered_at IS NULL AND asked_at > ?1 - 60000000 ORDER BY n",
                )?
                .query_map([now.micros()], |row| Ok(Request { n: row.get(0)?, what: row.get(1)? }))?
                .collect()
        })
        .await
    }

    async fn answer(&self, n: i64, answer: Answer, now: Timestamp) -> Result<(), Error> {
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE request SET answered_at = ?2, accepted = ?3, answer = ?4 WHERE n = ?1 AND answered_at IS NULL")?
                .execute(params![n, now.micros(), answer.accepted, answer.text])?;
            Ok(())
        })
        .await
    }

    async fn answered(&self, n: i64) -> Result<Option<Answer>, Error> {
        self.run(move |connection| {
            connection
                .prepare_cached("SELECT accepted, answer FROM request WHERE n = ?1 AND answered_at IS NOT NULL")?
                .query_row([n], |row| Ok(Answer { accepted: row.get(0)?, text: row.get(1)? }))
                .optional()
        })
        .await
    }

    async fn standing(&self, follow_up: FollowUp, since: Timestamp) -> Result<Option<Standing>, Error> {
        self.run(move |connection| follow_up::standing(connection, &follow_up, since)).await
    }

    async fn begin(&self, claimed: Claimed, bounds: Bounds) -> Result<Begun, Error> {
        self.write(move |connection| follow_up::begin(connection, &claimed, bounds.now)).await
    }

    async fn consent(&self, id: &DeliveryId, consent: Consent, now: Timestamp) -> Result<bool, Error> {
        let id = id.clone();
        self.write(move |connection| follow_up::consent(connection, &id, &consent, now)).await
    }

    async fn follow_ups(&self, limit: usize) -> Result<Vec<Listed>, Error> {
        self.run(move |connection| follow_up::list(connection, limit)).await
    }

    async fn prune(&self, step: Prune) -> Result<Pruned, Error> {
        // What a power cut brings back is forgotten the next time.
        self.jot(move |connection| prune::prune(connection, &step)).await
    }

    async fn room(&self) -> Result<Room, Error> {
        self.run(|connection| prune::room(connection)).await
    }

    async fn reclaim(&self, bytes: u64) -> Result<(), Error> {
        self.run(move |connection| prune::reclaim(connection, bytes)).await
    }

    async fn pruning(&self) -> Result<Option<Pruning>, Error> {
        self.run(|connection| prune::pruning(connection)).await
    }

    async fn pruned(&self, pruning: Pruning) -> Result<(), Error> {
        self.jot(move |connection| prune::note(connection, &pruning)).await
    }

    async fn again(&self, which: Again, now: Timestamp) -> Result<Vec<DeliveryId>, Error> {
        self.write(move |connection| outbox::again(connection, &which, now)).await
    }
}

fn sight(row: &Row<'_>) -> rusqlite::Result<Sight> {
    Ok(Sight {
        blind_since: time(row, "blind_since")?,
        told_since: time(row, "told_since")?,
        vanished: row.get("vanished")?,
    })
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

fn instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

fn text(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Text>> {
    Ok(row.get::<_, Option<String>>(column)?.map(String::into_boxed_str))
}

fn known(row: &Row<'_>) -> rusqlite::Result<(JobId, Known)> {
    let id = JobId::from(row.get::<_, String>("id")?);
    let job = Job {
        id: id.clone(),
        instance_id: text(row, "instance_id")?,
        resource_id: text(row, "resource_id")?,
        resource_name: text(row, "resource_name")?,
        kind: text(row, "type")?,
        status: Status::read(&row.get::<_, String>("status")?),
        reason: text(row, "reason")?,
        created_at: text(row, "created_at")?,
        updated_at: text(row, "updated_at")?,
    };
    let known = Known {
        job,
        seq: row.get("seq")?,
        status_since: instant(row, "status_since")?,
        seen_at: instant(row, "seen_at")?,
        missing: row.get("missing")?,
        stale: row.get("stale")?,
        gone: row.get("gone")?,
    };
    Ok((id, known))
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: DeliveryId::from(row.get::<_, String>("id")?),
        receiver: ReceiverName::from(row.get::<_, String>("receiver")?),
        source: row.get("source")?,
        subject: row.get("subject")?,
        event: row.get("event")?,
        title: row.get("title")?,
        state: row.get::<_, String>("state")?.parse().unwrap_or(DeliveryState::Pending),
        created_at: instant(row, "created_at")?,
        due_at: instant(row, "due_at")?,
        parked: row.get("parked")?,
        attempts: row.get("attempts")?,
        note: row.get("note")?,
        ended_at: time(row, "ended_at")?,
    })
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    Ok(AttemptRow {
        number: row.get("number")?,
        at: instant(row, "at")?,
        took: Duration::from_micros(u64::try_from(row.get::<_, i64>("took")?).unwrap_or(0)),
        outcome: row.get("outcome")?,
        detail: row.get("detail")?,
    })
}

/// Returns how many deliveries were new.
fn write_commit(connection: &Connection, commit: &Commit) -> rusqlite::Result<usize> {
    write_source(connection, commit)?;
    for change in &commit.changes {
        write_change(connection, &commit.source, change)?;
    }
    for alert in &commit.alerts {
        finding::write_alert(connection, alert)?;
    }
    finding::write_muted(connection, &commit.muted, &commit.unmuted)?;
    finding::write_fates(connection, &commit.source, &commit.fates, commit.at)?;
    for group in &commit.groups {
        pace::write_group(connection, group)?;
    }
    pace::write_held(connection, &commit.held)?;
    let written = write_deliveries(connection, &commit.deliveries)?;
    outbox::write_reserves(connection, &commit.reserves)?;
    follow_up::write(connection, &commit.follow_ups)?;
    Ok(written)
}

fn write_source(connection: &Connection, commit: &Commit) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO source (name, complete_at, blind_since, vanished) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET complete_at = coalesce(excluded.complete_at, complete_at),
             blind_since = excluded.blind_since, vanished = excluded.vanished",
        )?
        .execute(params![
            commit.source.as_str(),
            commit.complete.then(|| commit.at.micros()),
            commit.sight.blind_since.map(Timestamp::micros),
            commit.sight.vanished,
        ])?;
    Ok(())
}

fn write_change(connection: &Connection, source: &SourceName, change: &Change) -> rusqlite::Result<()> {
    let Known { job, seq, status_since, seen_at, missing, stale, gone } = &change.known;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO job (source, id, status, instance_id, resource_id, resource_name, type, reason,
             created_at, updated_at, seq, status_since, seen_at, missing, stale, gone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            source.as_str(),
            job.id.as_str(),
            job.status.as_str(),
            job.instance_id,
            job.resource_id,
            job.resource_name,
            job.kind,
            job.reason,
            job.created_at,
            job.updated_at,
            seq,
            status_since.micros(),
            seen_at.micros(),
            missing,
            stale,
            gone,
        ])?;
    change.transition.as_ref().map_or(Ok(()), |transition| write_transition(connection, transition))
}

fn write_transition(connection: &Connection, transition: &Transition) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO transition (id, source, job_id, seq, from_state, to_state, seen_before, seen_at, skipped, late, job)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(rusqlite::params_from_iter(past::step_columns(transition)))?;
    Ok(())
}

/// Returns how many were new.
fn write_deliveries(connection: &Connection, deliveries: &[Frozen]) -> rusqlite::Result<usize> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO delivery (id, receiver, source, subject, event, title, created_at, seen_at, state, due_at, set_at, budget_from)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'pending', ?7, ?7, ?7) ON CONFLICT (id) DO NOTHING",
    )?;
    let mut bytes = connection.prepare_cached("INSERT INTO payload (delivery, bytes) VALUES (?1, ?2)")?;
    let mut written = 0;
    for Frozen { id, receiver, lane, event, title, created_at, seen_at, payload } in deliveries {
        let values = params![
            id.as_str(),
            receiver.as_str(),
            lane.source_name(),
            lane.subject.as_str(),
            event,
            title,
            created_at.micros(),
            seen_at.map(Timestamp::micros),
        ];
        if insert.execute(values)? == 1 {
            bytes.execute(params![connection.last_insert_rowid(), payload])?;
            written += 1;
        }
    }
    Ok(written)
}
