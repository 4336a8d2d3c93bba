//! History in SQLite: steps, and what came of them.

use std::sync::Arc;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::finding::fate;
use super::{instant, json, known, time};
use crate::model::alert::Fate;
use crate::model::job::{Job, Status};
use crate::model::name::{SourceName, TransitionId};
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
            "SELECT * FROM transition WHERE seen_at >= ?1 AND (?2 IS NULL OR source = ?2) ORDER BY seen_at, n LIMIT ?3",
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

pub(super) fn past(connection: &Connection, source: Option<&SourceName>, job: &str) -> rusqlite::Result<Past> {
    let source = source.map(SourceName::as_str);
    let steps: Vec<Arc<Transition>> = connection
        .prepare_cached("SELECT * FROM transition WHERE job_id = ?1 AND (?2 IS NULL OR source = ?2) ORDER BY n")?
        .query_map(params![job, source], step)?
        .collect::<rusqlite::Result<_>>()?;
    let mut select = connection.prepare_cached("SELECT * FROM fate WHERE transition = ?1 ORDER BY rule, receiver")?;
    let mut fates: Vec<(Fate, Timestamp)> = Vec::new();
    for step in &steps {
        let rows = select.query_map([step.id.as_str()], |row| Ok((fate(row)?, instant(row, "at")?)))?;
        fates.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    let known = connection
        .prepare_cached("SELECT * FROM job WHERE id = ?1 AND (?2 IS NULL OR source = ?2) LIMIT 1")?
        .query_row(params![job, source], |row| Ok(known(row)?.1))
        .optional()?;
    Ok(Past { steps, fates, known })
}

pub(super) fn fates(connection: &Connection, since: Timestamp) -> rusqlite::Result<Vec<(Fate, Option<String>)>> {
    connection
        .prepare_cached(
            "SELECT f.*, d.title FROM fate AS f LEFT JOIN delivery AS d ON d.id = f.delivery WHERE f.at >= ?1 ORDER BY f.at",
        )?
        .query_map([since.micros()], |row| Ok((fate(row)?, row.get("title")?)))?
        .collect()
}
