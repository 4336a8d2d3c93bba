//! The thread that owns the connection, and group commit: changes that wait at the same time are written in one transaction,
//! and are durable together. Each is told that it is kept when all of them are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{QUEUE_MAX, sort};
use crate::store::Error;

/// Changes that are written together.
const GROUP_MAX: usize = 64;

/// What is asked of the thread.
pub(super) enum Work {
    /// Something that looks only, or that is its own transaction.
    Alone(Box<dyn FnOnce(&mut Connection) + Send>),
    /// Something that is written.
    Change(Box<dyn Change>),
}

/// One change, which may share its transaction with others.
pub(super) trait Change: Send {
    /// Whether a power cut may not take it back once it is told to be kept.
    fn is_durable(&self) -> bool;

    /// Makes it within a transaction. `false` when it could not be made: nothing of it is to stay.
    fn make(&mut self, connection: &Connection) -> bool;

    /// Tells whoever waits how it ended: `kept` is what came of the transaction.
    fn tell(self: Box<Self>, kept: Result<(), Error>);
}

/// A change somebody waits for.
pub(super) struct Asked<T, F> {
    work: Option<F>,
    durable: bool,
    made: Option<rusqlite::Result<T>>,
    answer: oneshot::Sender<Result<T, Error>>,
    path: Arc<PathBuf>,
}

impl<T, F> Asked<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    pub(super) fn work(work: F, durable: bool, answer: oneshot::Sender<Result<T, Error>>, path: Arc<PathBuf>) -> Work {
        Work::Change(Box::new(Self { work: Some(work), durable, made: None, answer, path }))
    }
}

impl<T, F> Change for Asked<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    fn is_durable(&self) -> bool {
        self.durable
    }

    fn make(&mut self, connection: &Connection) -> bool {
        self.made = self.work.take().map(|work| work(connection));
        matches!(self.made, Some(Ok(_)))
    }

    fn tell(self: Box<Self>, kept: Result<(), Error>) {
        let end = match self.made {
            Some(Err(error)) => Err(sort(&self.path, &error)),
            Some(Ok(value)) => kept.map(|()| value),
            None => Err(kept.err().unwrap_or_else(|| Error::Failed("it was not written".into()))),
        };
        // Nobody may wait any more: the asker was cancelled, and the work is done all the same.
        drop(self.answer.send(end));
    }
}

/// How the connection is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// What is committed is on the disk.
    Full,
    /// What is committed is in order, and may be lost with the power.
    Normal,
}

/// Does what it is asked until nobody can ask any more.
pub(super) fn serve(connection: &mut Connection, work: &mut mpsc::Receiver<Work>, path: &Path) {
    let mut level = Level::Full;
    while let Some(first) = work.blocking_recv() {
        let mut next = Some(first);
        while let Some(one) = next.take() {
            match one {
                Work::Alone(work) => work(connection),
                Work::Change(first) => {
                    let mut group = vec![first];
                    while group.len() < GROUP_MAX {
                        match work.try_recv() {
                            Ok(Work::Change(another)) => group.push(another),
                            // It may want to see what was asked for before it.
                            Ok(alone @ Work::Alone(_)) => {
                                next = Some(alone);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    write(connection, group, &mut level, path);
                }
            }
        }
    }
}

fn write(connection: &mut Connection, mut group: Vec<Box<dyn Change>>, level: &mut Level, path: &Path) {
    let durable = group.iter().any(|change| change.is_durable());
    let kept = make(connection, &mut group, if durable { Level::Full } else { Level::Normal }, level);
    let kept = kept.map_err(|error| sort(path, &error));
    group.into_iter().for_each(|change| change.tell(kept.clone()));
}

fn make(
    connection: &mut Connection,
    group: &mut [Box<dyn Change>],
    wanted: Level,
    level: &mut Level,
) -> rusqlite::Result<()> {
    if *level != wanted {
        let name = if wanted == Level::Full { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", name)?;
        *level = wanted;
    }
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let [alone] = group {
        // What could not be made is rolled back with the transaction.
        return if alone.make(&transaction) { transaction.commit() } else { Ok(()) };
    }
    for change in group {
        let savepoint = transaction.savepoint()?;
        if change.make(&savepoint) {
            savepoint.commit()?;
        } else {
            // Dropped, it is rolled back.
            drop(savepoint);
            if transaction.is_autocommit() {
                // The error was one that took the whole transaction back, a full disk say: that is what this says.
                return transaction.commit();
            }
        }
    }
    transaction.commit()
}

/// A queue for as many as may wait.
pub(super) fn queue() -> (mpsc::Sender<Work>, mpsc::Receiver<Work>) {
    mpsc::channel(QUEUE_MAX)
}
