//! Loading what a poll is decided with: the jobs that are wanted, and what was found about them.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, ToSql};

use super::{finding, known, past, prune, sight, time};
use crate::model::alert::Alert;
use crate::model::memory::Memory;
use crate::model::name::{JobId, SourceName};
use crate::model::snapshot::Snapshot;
use crate::store::{Span, Wanted};

/// With more jobs than this, reading all of a source's rows once is cheaper than looking each up.
const SCAN_FROM: usize = 500;
/// Steps that are loaded to count bursts; of more, the newest: a burst is large enough long before that.
const RECENT_MAX: usize = 50_000;

pub(super) fn load(connection: &Connection, source: &SourceName, wanted: &Wanted) -> rusqlite::Result<Memory> {
    let head = connection
        .prepare_cached("SELECT complete_at, blind_since, told_since, vanished FROM source WHERE name = ?1")?
        .query_row([source.as_str()], |row| Ok((time(row, "complete_at")?, sight(row)?)))
        .optional()?;
    let (complete_at, sight) = head.unwrap_or_default();
    let snapshot = Snapshot { complete_at, ..Snapshot::default() };
    let mut memory = Memory { snapshot, sight, ..Memory::default() };
    let ids = wanted_ids(connection, source, wanted)?;
    jobs(connection, source, &ids, &mut memory)?;
    numbers(connection, source, &ids, &mut memory)?;
    memory.silences = finding::silences(connection, wanted.now)?;
    memory.muted = finding::muted(connection, source)?;
    timed(connection, source, wanted, &mut memory)?;
    if let Some(since) = wanted.recent {
        let span = Span { source: Some(source.clone()), since, limit: RECENT_MAX };
        memory.recent = past::history(connection, &span)?;
    }
    let subjects: HashSet<JobId> = ids.into_iter().chain(memory.timed.keys().cloned()).collect();
    let found = findings(connection, source, wanted, &subjects, &memory)?;
    memory.alerts.extend(found.into_iter().map(|alert| (alert.id.clone(), alert)));
    Ok(memory)
}

fn wanted_ids(connection: &Connection, source: &SourceName, wanted: &Wanted) -> rusqlite::Result<HashSet<JobId>> {
    let mut ids: HashSet<JobId> = wanted.ids.iter().cloned().collect();
    if let Some(others) = &wanted.others {
        let mut every = connection.prepare_cached("SELECT id FROM job WHERE source = ?1 AND NOT gone")?;
        let mut rows = every.query([source.as_str()])?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str()?;
            if others(id) {
                ids.insert(JobId::from(id));
            }
        }
    }
    Ok(ids)
}

fn jobs(
    connection: &Connection,
    source: &SourceName,
    ids: &HashSet<JobId>,
    memory: &mut Memory,
) -> rusqlite::Result<()> {
    if ids.len() > SCAN_FROM {
        let mut jobs = connection.prepare_cached("SELECT * FROM job WHERE source = ?1")?;
        for row in jobs.query_map([source.as_str()], known)? {
            memory.snapshot.jobs.extend(Some(row?).filter(|(id, _)| ids.contains(id)));
        }
        return Ok(());
    }
    let mut job = connection.prepare_cached("SELECT * FROM job WHERE source = ?1 AND id = ?2")?;
    for id in ids {
        memory.snapshot.jobs.extend(job.query_row([source.as_str(), id.as_str()], known).optional()?);
    }
    Ok(())
}

/// The numbers of those that are not known any more.
fn numbers(
    connection: &Connection,
    source: &SourceName,
    ids: &HashSet<JobId>,
    memory: &mut Memory,
) -> rusqlite::Result<()> {
    let Snapshot { jobs, numbers, .. } = &mut memory.snapshot;
    if jobs.len() == ids.len() || !prune::any_numbered(connection)? {
        return Ok(());
    }
    for id in ids.iter().filter(|id| !jobs.contains_key(*id)) {
        let number = prune::numbered(connection, source.as_str(), id.as_str())?;
        numbers.extend(number.map(|number| (id.clone(), number)));
    }
    Ok(())
}

/// Jobs whose time in their status matters, and those that something was muted about.
fn timed(connection: &Connection, source: &SourceName, wanted: &Wanted, memory: &mut Memory) -> rusqlite::Result<()> {
    for status in &wanted.statuses {
        let mut timed =
            connection.prepare_cached("SELECT * FROM job WHERE source = ?1 AND status = ?2 AND NOT gone")?;
        for row in timed.query_map([source.as_str(), status.as_str()], known)? {
            memory.timed.extend(Some(row?));
        }
    }
    let mut job = connection.prepare_cached("SELECT * FROM job WHERE source = ?1 AND id = ?2")?;
    for muted in &memory.muted {
        let row = job.query_row([source.as_str(), muted.transition.job.id.as_str()], known).optional()?;
        memory.timed.extend(row);
    }
    Ok(())
}

fn findings(
    connection: &Connection,
    source: &SourceName,
    wanted: &Wanted,
    subjects: &HashSet<JobId>,
    memory: &Memory,
) -> rusqlite::Result<Vec<Alert>> {
    let alerts = |condition: &str, values: &[&dyn ToSql]| finding::alerts(connection, condition, values);
    let mut found = Vec::new();
    let mut named = wanted.findings.clone();
    if let Some(naming) = &wanted.named {
        named.extend(memory.snapshot.jobs.values().flat_map(|known| naming(&known.job)));
    }
    named.extend(memory.muted.iter().map(|muted| muted.alert.clone()));
    for id in &named {
        found.extend(alerts("id = ?1", &[&id.as_str()])?);
    }
    for resource in &wanted.resources {
        let condition = "source = ?1 AND resource = ?2 AND NOT resolved";
        found.extend(alerts(condition, &[&source.as_str(), resource])?);
    }
    if subjects.len() > SCAN_FROM {
        let every = alerts("source = ?1", &[&source.as_str()])?;
        found.extend(every.into_iter().filter(|alert| subjects.contains(&alert.subject)));
        return Ok(found);
    }
    for id in subjects {
        found.extend(alerts("source = ?1 AND subject = ?2", &[&source.as_str(), &id.as_str()])?);
    }
    Ok(found)
}
