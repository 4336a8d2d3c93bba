//! What is measured of the state. Each question is answered from an index alone, and counts of jobs only for the sources that
//! are named: the asker knows where something changed.

use rusqlite::{Connection, Row, params};

use super::{instant, time};
use crate::model::follow_up::FollowUp;
use crate::model::job::Status;
use crate::model::name::{ReceiverName, SourceName};
use crate::store::{Backlog, Gauges, Seeing};

pub(super) fn gauges(connection: &Connection, counted: &[SourceName]) -> rusqlite::Result<Gauges> {
    Ok(Gauges { seeing: seeing(connection)?, jobs: jobs(connection, counted)?, outbox: outbox(connection)? })
}

fn seeing(connection: &Connection) -> rusqlite::Result<Vec<Seeing>> {
    connection
        .prepare_cached("SELECT name, complete_at, blind_since FROM source")?
        .query_map([], |row| {
            Ok(Seeing {
                source: SourceName::from(row.get::<_, String>("name")?),
                complete_at: time(row, "complete_at")?,
                blind_since: time(row, "blind_since")?,
            })
        })?
        .collect()
}

fn jobs(connection: &Connection, counted: &[SourceName]) -> rusqlite::Result<Vec<(SourceName, Status, u64)>> {
    let mut select = connection
        .prepare_cached("SELECT status, count(*) AS count FROM job WHERE source = ?1 AND NOT gone GROUP BY status")?;
    let mut found = Vec::new();
    for source in counted {
        let mut rows = select.query(params![source.as_str()])?;
        while let Some(row) = rows.next()? {
            let (status, count): (String, i64) = (row.get("status")?, row.get("count")?);
            found.push((source.clone(), Status::read(&status), u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok(found)
}

/// The oldest is the one with the lowest number: so no row is looked at but that one.
fn outbox(connection: &Connection) -> rusqlite::Result<Vec<Backlog>> {
    let mut select = connection.prepare_cached(
        "SELECT receiver, pending, (SELECT created_at FROM delivery WHERE n = oldest) AS oldest
         FROM (SELECT receiver, count(*) AS pending, min(n) AS oldest FROM delivery INDEXED BY delivery_lane
               WHERE state = 'pending' GROUP BY receiver)",
    )?;
    let backlog = |row: &Row<'_>| {
        Ok(Backlog {
            receiver: ReceiverName::from(row.get::<_, String>("receiver")?),
            pending: u64::try_from(row.get::<_, i64>("pending")?).unwrap_or(0),
            oldest: instant(row, "oldest")?,
        })
    };
    let all = select.query_map([], backlog)?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|backlog| !FollowUp::is_receiver(&backlog.receiver)).collect())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::store::sqlite::MIGRATIONS;

    #[test]
    fn counting_looks_at_indexes_alone() {
        let connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|step| connection.execute_batch(step).unwrap());
        let plan = |select: &str| -> String {
            let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {select}")).unwrap();
            let lines = explained.query_map([], |row| row.get::<_, String>("detail")).unwrap();
            lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
        };
        let jobs = plan("SELECT status, count(*) AS count FROM job WHERE source = 'x' AND NOT gone GROUP BY status");
        assert_eq!(jobs, "SEARCH job USING COVERING INDEX job_by_status (source=?)");
        let outbox = plan(
            "SELECT receiver, count(*) AS pending, min(n) AS oldest FROM delivery WHERE state = 'pending' GROUP BY receiver",
        );
        assert!(outbox.starts_with("SCAN delivery USING COVERING INDEX delivery_"), "{outbox}");
    }
}
