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
    let mut select = connection.prepare_cached(JOBS)?;
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

const JOBS: &str = "SELECT status, count(*) AS count FROM job WHERE source = ?1 AND NOT gone GROUP BY status";
/// The oldest is the one with the lowest number: so no row is looked at but that one.
pub(super) const PENDING: &str =
    "SELECT receiver, pending, (SELECT created_at FROM delivery WHERE n = oldest) AS oldest
    FROM (SELECT receiver, count(*) AS pending, min(n) AS oldest FROM delivery INDEXED BY delivery_lane
          WHERE state = 'pending' GROUP BY receiver)";

/// What is owed to whom, follow-ups too.
pub(super) fn pending(connection: &Connection) -> rusqlite::Result<Vec<Backlog>> {
    let backlog = |row: &Row<'_>| {
        Ok(Backlog {
            receiver: ReceiverName::from(row.get::<_, String>("receiver")?),
            pending: u64::try_from(row.get::<_, i64>("pending")?).unwrap_or(0),
            oldest: instant(row, "oldest")?,
        })
    };
    connection.prepare_cached(PENDING)?.query_map([], backlog)?.collect()
}

fn outbox(connection: &Connection) -> rusqlite::Result<Vec<Backlog>> {
    let all = pending(connection)?;
    Ok(all.into_iter().filter(|backlog| !FollowUp::is_receiver(&backlog.receiver)).collect())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{JOBS, PENDING};
    use crate::store::sqlite::migrate;
    use crate::store::sqlite::outbox::tests::plan;

    #[test]
    fn counting_looks_at_indexes_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        let jobs = plan(&connection, JOBS);
        assert_eq!(jobs.trim(), "SEARCH job USING COVERING INDEX job_by_status (source=?)");
        let outbox = plan(&connection, PENDING);
        assert!(outbox.contains("SCAN delivery USING COVERING INDEX delivery_lane"), "{outbox}");
        assert!(outbox.contains("SEARCH delivery USING INTEGER PRIMARY KEY (rowid=?)"), "{outbox}");
    }
}
