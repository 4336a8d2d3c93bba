//! The state at one moment, for the status page. Every list is read along an index and no further than asked.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{finding, follow_up, instant, known, past, time, view};
use crate::model::alert::FateOutcome;
use crate::model::name::{DeliveryId, ReceiverName, SourceName};
use crate::model::snapshot::Known;
use crate::model::time::Timestamp;
use crate::model::transition::State;
use crate::store::glance::{Failure, Glance, Heard, Look, Queue, Stuck, Tally};
use crate::store::view::{OutboxView, PAGE_MAX, SourceFilter, SourceView};

const MINUTE: i64 = 60_000_000;
/// What came of one failure is read up to here: more rules and receivers than this hear of no job.
const HEARD_MAX: usize = 50;

const UNFINISHED: &str =
    "SELECT * FROM job WHERE NOT gone AND status NOT IN ('Failed', 'Success') ORDER BY status_since LIMIT ?1";
const TALLIED: &str = "SELECT seen_at / 60000000, from_state, to_state, count(*) FROM
                 (SELECT seen_at, from_state, to_state FROM transition INDEXED BY transition_tallied WHERE seen_at >= ?1
                  ORDER BY seen_at DESC LIMIT ?2)
             GROUP BY 1, 2, 3 ORDER BY 1";
const FAILED: &str = "SELECT * FROM transition WHERE to_state = 'Failed' ORDER BY seen_at DESC, n DESC LIMIT ?1";
const HEARD: &str = "SELECT f.receiver, f.outcome, f.why, d.state, d.ended_at, d.note,
                EXISTS (SELECT 1 FROM held AS h WHERE h.id = f.delivery) AS held
         FROM fate AS f LEFT JOIN delivery AS d ON d.id = f.delivery
         WHERE f.transition = ?1 ORDER BY f.receiver, f.outcome <> 'told' LIMIT ?2";
const STUCK: &str =
    "SELECT d.id, d.title, d.attempts, d.note, d.due_at, coalesce((SELECT min(at) FROM attempt WHERE delivery = d.n), d.created_at) AS since
             FROM delivery AS d WHERE d.receiver = ?1 AND d.state = 'pending' AND d.attempts > 0 ORDER BY d.n LIMIT 1";

pub(super) fn glance(connection: &Connection, look: Look) -> rusqlite::Result<Glance> {
    // Another process may write meanwhile; this is one moment all the same.
    let moment = connection.unchecked_transaction()?;
    let glance = Glance {
        sources: sources(connection)?,
        unfinished: unfinished(connection, look.rows_max)?,
        tallies: tallies(connection, look)?,
        begun: begun(connection)?,
        failures: failures(connection, look.rows_max)?,
        queues: queues(connection)?,
        silences: finding::silences(connection, look.now)?,
        waiting: follow_up::waiting(connection, look.rows_max)?,
    };
    moment.commit()?;
    Ok(glance)
}

fn sources(connection: &Connection) -> rusqlite::Result<Vec<SourceView>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = view::sources(connection, &SourceFilter { before, limit: PAGE_MAX, ..SourceFilter::default() })?;
        all.extend(page.items);
        before = page.next;
        if before.is_none() {
            return Ok(all);
        }
    }
}

fn unfinished(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<(SourceName, Known)>> {
    connection
        .prepare_cached(UNFINISHED)?
        .query_map([bound(limit)], |row| Ok((SourceName::from(row.get::<_, String>("source")?), known(row)?.1)))?
        .collect()
}

fn tallies(connection: &Connection, look: Look) -> rusqlite::Result<Vec<Tally>> {
    connection
        .prepare_cached(TALLIED)?
        .query_map(params![look.since.micros(), bound(look.steps_max)], |row| {
            Ok(Tally {
                minute: Timestamp::from_micros(row.get::<_, i64>(0)?.saturating_mul(MINUTE)),
                from: State::read(&row.get::<_, String>(1)?),
                to: State::read(&row.get::<_, String>(2)?),
                count: count(row, 3)?,
            })
        })?
        .collect()
}

fn begun(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let first: Option<i64> =
        connection.prepare_cached("SELECT min(seen_at) FROM transition")?.query_row([], |row| row.get(0))?;
    Ok(first.map(Timestamp::from_micros))
}

fn failures(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Failure>> {
    let steps = connection
        .prepare_cached(FAILED)?
        .query_map([bound(limit)], past::step)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut heard = connection.prepare_cached(HEARD)?;
    let with_heard = |step: std::sync::Arc<crate::model::transition::Transition>| {
        let rows = heard.query_map(params![step.id.as_str(), bound(HEARD_MAX)], heard_by)?;
        let heard = rows.collect::<rusqlite::Result<_>>()?;
        Ok(Failure { step, heard })
    };
    steps.into_iter().map(with_heard).collect()
}

fn heard_by(row: &Row<'_>) -> rusqlite::Result<Heard> {
    let receiver: String = row.get("receiver")?;
    Ok(Heard {
        receiver: (!receiver.is_empty()).then(|| ReceiverName::from(receiver)),
        outcome: row.get::<_, String>("outcome")?.parse().unwrap_or(FateOutcome::Counted),
        why: row.get("why")?,
        state: row.get::<_, Option<String>>("state")?.and_then(|word| word.parse().ok()),
        held: row.get("held")?,
        ended_at: time(row, "ended_at")?,
        note: row.get::<_, Option<String>>("note")?.unwrap_or_default(),
    })
}

fn queues(connection: &Connection) -> rusqlite::Result<Vec<Queue>> {
    let mut since = connection.prepare_cached("SELECT since FROM trouble WHERE receiver = ?1")?;
    let queue = |outbox: OutboxView| {
        let name = outbox.receiver.as_str();
        let trouble_since = since.query_row([name], |row| instant(row, "since")).optional()?;
        let stuck = if outbox.pending > 0 { stuck(connection, name)? } else { None };
        Ok(Queue { outbox, trouble_since, stuck })
    };
    view::outbox(connection)?.into_iter().map(queue).collect()
}

fn stuck(connection: &Connection, receiver: &str) -> rusqlite::Result<Option<Stuck>> {
    connection
        .prepare_cached(STUCK)?
        .query_row([receiver], |row| {
            Ok(Stuck {
                id: DeliveryId::from(row.get::<_, String>("id")?),
                title: row.get("title")?,
                attempts: row.get("attempts")?,
                since: instant(row, "since")?,
                note: row.get("note")?,
                due_at: instant(row, "due_at")?,
            })
        })
        .optional()
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    Ok(usize::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::sqlite::migrate;
    use crate::store::sqlite::outbox::tests::plan;

    #[test]
    fn every_list_of_the_page_goes_along_an_index() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        for (statement, index, sorts) in [
            (UNFINISHED, "SCAN job USING INDEX job_unfinished", false),
            (TALLIED, "transition USING COVERING INDEX transition_tallied (seen_at>?)", true),
            (FAILED, "transition USING INDEX transition_failed", false),
            (HEARD, "f USING PRIMARY KEY (transition=?)", true),
            (STUCK, "d USING INDEX delivery_tried (receiver=?)", false),
        ] {
            let plan = plan(&connection, statement);
            assert!(plan.contains(index), "{statement}\n{plan}");
            assert_eq!(plan.contains("TEMP B-TREE"), sorts, "{statement}\n{plan}");
        }
    }
}
