//! History in SQLite: steps, and what came of them.

use std::sync::Arc;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::finding::fate;
use super::{instant, json, known, time};
use crate::model::alert::Fate;
use crate::model::job::{Job, Status};
use crate::model::name::{JobId, SourceName, TransitionId};
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};
use crate::store::{Past, Span};

/// A step as `transition` has it.
pub(super) fn step(row: &Row<'_>) -> rusqlite::Result<Arc<Transition>> {
    let job: Job = serde_json::from_str(&row.get::<_, String>("job")?)
        .unwrap_or_else(|_| Job::bare(row.get::<_, String>("job_id").unwrap_or_default(), Status::Other("?".into())));
    Ok(Arc::new(Transition {
        id: TransitionId::from(row.get::<_, String>("id")?),
        source: SourceName::from(row.get::<_, String>("source")?),
        from: State::read(&row.get::<_, String>("from_state")?),
        to: State::read(&row.get::<_, String>("to_state")?),
        seen_before: time(row, "seen_before")?,
        seen_at: instant(row, "seen_at")?,
        skipped: serde_json::from_str(&row.get::<_, String>("skipped")?).unwrap_or_default(),
        changed: Vec::new(),
        late: row.get("late")?,
        seq: row.get("seq")?,
        job: Arc::new(job),
    }))
}

/// The columns of a step, in the order of the table.
pub(super) fn step_columns(step: &Transition) -> [Sql; 11] {
    let text = |text: &str| Sql::Text(text.to_owned());
    [
        text(step.id.as_str()),
        text(step.source.as_str()),
        text(step.job.id.as_str()),
        Sql::Integer(i64::from(step.seq)),
        Sql::Text(step.from.to_string()),
        Sql::Text(step.to.to_string()),
        step.seen_before.map_or(Sql::Null, |at| Sql::Integer(at.micros())),
        Sql::Integer(step.seen_at.micros()),
        Sql::Text(json(&step.skipped)),
        Sql::Integer(i64::from(step.late)),
        Sql::Text(json(&*step.job)),
    ]
}

pub(super) fn history(connection: &Connection, span: &Span) -> rusqlite::Result<Vec<Arc<Transition>>> {
    connection
        .prepare_cached(
            "SELECT * FROM (SELECT * FROM transition WHERE seen_at >= ?1 AND (?2 IS NULL OR source = ?2)
                            ORDER BY seen_at DESC, n DESC LIMIT ?3) ORDER BY seen_at, n",
        )?
        .query_map(
            params![
                span.since.micros(),
                span.source.as_ref().map(SourceName::as_str),
                i64::try_from(span.limit).unwrap_or(i64::MAX)
            ],
            step,
        )?
        .collect()
}

/// Jobs that people may mean by this: a job, a resource by name or id, a step, a delivery; the newest first.
pub(super) fn find(connection: &Connection, what: &str, limit: usize) -> rusqlite::Result<Vec<(SourceName, JobId)>> {
    connection
        .prepare_cached(
            "SELECT source, id FROM job WHERE id = ?1 OR resource_name = ?1 OR resource_id = ?1
             OR (source, id) IN (SELECT source, job_id FROM transition WHERE id = ?1
                                 UNION SELECT source, job FROM fate WHERE transition = ?1
                                 UNION SELECT source, job FROM fate WHERE delivery = ?1 AND outcome IN ('told', 'resolved')
                                 UNION SELECT source, subject FROM delivery WHERE id = ?1)
             ORDER BY status_since DESC, source, id LIMIT ?2",
        )?
        .query_map(params![what, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok((SourceName::from(row.get::<_, String>(0)?), JobId::from(row.get::<_, String>(1)?)))
        })?
        .collect()
}

pub(super) fn past(connection: &Connection, source: &SourceName, job: &JobId) -> rusqlite::Result<Past> {
    let key = params![source.as_str(), job.as_str()];
    let steps = connection
        .prepare_cached("SELECT * FROM transition WHERE source = ?1 AND job_id = ?2 ORDER BY n")?
        .query_map(key, step)?
        .collect::<rusqlite::Result<_>>()?;
    let fates = connection
        .prepare_cached("SELECT * FROM fate WHERE source = ?1 AND job = ?2 ORDER BY at, rule, receiver")?
        .query_map(key, |row| Ok((fate(row)?, instant(row, "at")?)))?
        .collect::<rusqlite::Result<_>>()?;
    let known = connection
        .prepare_cached("SELECT * FROM job WHERE source = ?1 AND id = ?2")?
        .query_row(key, |row| Ok(known(row)?.1))
        .optional()?;
    Ok(Past { steps, fates, known })
}

pub(super) fn fates(connection: &Connection, span: &Span) -> rusqlite::Result<Vec<(Fate, Timestamp, Option<String>)>> {
    connection
        .prepare_cached(
            "SELECT f.*, d.title FROM (SELECT * FROM fate WHERE at >= ?1 AND (?2 IS NULL OR source = ?2)
                                       ORDER BY at DESC, transition DESC, rule DESC, receiver DESC LIMIT ?3) AS f
             LEFT JOIN delivery AS d ON d.id = f.delivery
             ORDER BY f.at, f.transition, f.rule, f.receiver",
        )?
        .query_map(
            params![
                span.since.micros(),
                span.source.as_ref().map(SourceName::as_str),
                i64::try_from(span.limit).unwrap_or(i64::MAX)
            ],
            |row| Ok((fate(row)?, instant(row, "at")?, row.get("title")?)),
        )?
        .collect()
}
