//! Forgetting in SQLite: one bounded step at a time, along an index, oldest first.
//!
//! What is looked at and kept, because somebody needs it, is behind the mark of the next step: one time through costs as
//! much as there is old, however much of it stays.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::instant;
use crate::model::time::Timestamp;
use crate::store::retention::{LEFT_MICROS, Mark, Part, Prune, Pruned, Pruning, Room, key};

/// Rows of a part that are old, each with whether nobody needs it. Who might, stands beside each condition.
fn old(part: Part) -> &'static str {
    match part {
        // `rules explain` and `rules backtest`, about the history that is kept.
        Part::Fates => {
            "SELECT at, 0 AS n, '' AS source, '' AS id, transition, rule, receiver, 1 AS over FROM fate
             WHERE at < :before ORDER BY at LIMIT :limit"
        }
        // Of a job that is there, the last step says how it came to where it is.
        Part::Transitions => {
            "SELECT seen_at AS at, n, '' AS source, '' AS id,
                EXISTS (SELECT 1 FROM transition AS l WHERE l.source = t.source AND l.job_id = t.job_id AND l.seq > t.seq)
                OR NOT EXISTS (SELECT 1 FROM job AS j WHERE j.source = t.source AND j.id = t.job_id AND NOT j.gone) AS over
             FROM transition AS t WHERE seen_at < :before AND (seen_at, n) > (:at, :n) ORDER BY seen_at, n LIMIT :limit"
        }
        // What is pending is owed; of what was given up, a copy for the fallback may not be due yet.
        Part::Deliveries => {
            "SELECT created_at AS at, n, '' AS source, id, state,
                state <> 'pending' AND coalesce(ended_at, created_at) < iif(state = 'dead', :dead_before, :before)
                AND NOT EXISTS (SELECT 1 FROM reserve AS r WHERE r.of = d.id) AS over
             FROM delivery AS d WHERE created_at < :before AND (created_at, n) > (:at, :n) ORDER BY created_at, n LIMIT :limit"
        }
        // The id of a follow-up is made from when its finding began: while that one stands, it can be asked for again.
        Part::FollowUps => {
            "SELECT created_at AS at, 0 AS n, '' AS source, id,
                coalesce(started_at, created_at) < :before
                AND NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.id = f.id)
                AND NOT EXISTS (SELECT 1 FROM alert AS a WHERE a.id = f.alert AND NOT a.resolved
                                AND a.first_seen <= f.created_at) AS over
             FROM follow_up AS f WHERE created_at < :before AND (created_at, id) > (:at, :id)
             ORDER BY created_at, id LIMIT :limit"
        }
        // A job has its number as long as it has steps; a follow-up looks at it when it is its turn, and so does what is muted.
        Part::Jobs => {
            "SELECT seen_at AS at, 0 AS n, source, id, seq,
                NOT EXISTS (SELECT 1 FROM transition AS t WHERE t.source = j.source AND t.job_id = j.id)
                AND NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.subject = j.id AND d.source = j.source AND d.state = 'pending')
                AND NOT EXISTS (SELECT 1 FROM muted AS m WHERE m.source = j.source AND m.job_id = j.id) AS over
             FROM job AS j WHERE gone AND seen_at < :before AND (seen_at, source, id) > (:at, :source, :id)
             ORDER BY seen_at, source, id LIMIT :limit"
        }
        // One that is over still says that a job's stay was told, while the job stays. One that stands is a cooldown, an end
        // to be told, an episode that goes on: until its job is forgotten, and as long as there is its rule if others can
        // go on with it. What waits for a word or a turn looks at it, too.
        Part::Alerts => {
            "SELECT last_seen AS at, 0 AS n, '' AS source, id,
                NOT EXISTS (SELECT 1 FROM json_each(:lasting) AS l WHERE l.value = a.rule)
                AND NOT EXISTS (SELECT 1 FROM job AS j WHERE j.source = a.source AND j.id = a.subject
                                AND (NOT a.resolved OR NOT j.gone AND j.status_since <= a.last_seen))
                AND NOT EXISTS (SELECT 1 FROM muted AS m WHERE m.alert = a.id)
                AND NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.subject = a.subject AND d.source = a.source AND d.state = 'pending')
                AND NOT EXISTS (SELECT 1 FROM told AS t JOIN delivery AS d ON d.id = t.delivery
                                WHERE t.alert = a.id AND d.state = 'pending')
                AND NOT EXISTS (SELECT 1 FROM told AS t JOIN held AS h ON h.id = t.delivery WHERE t.alert = a.id) AS over
             FROM alert AS a WHERE last_seen < :before AND (last_seen, id) > (:at, :id) ORDER BY last_seen, id LIMIT :limit"
        }
        // Few rows: they are looked at in no order.
        Part::Leftovers => {
            "SELECT ends_at AS at, 0 AS n, '' AS source, id, 1 AS over FROM silence WHERE ends_at < :before LIMIT :limit"
        }
    }
}

/// A row that nobody needs.
struct Over {
    mark: Mark,
    /// What else its part has to know of it.
    words: [String; 3],
    number: i64,
}

pub(super) fn prune(connection: &Connection, step: &Prune) -> rusqlite::Result<Pruned> {
    let lasting: Vec<&str> = step.lasting.iter().map(|rule| rule.as_str()).collect();
    let (before, dead_before) = (step.before.micros(), step.dead_before.micros());
    let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(old(step.part))?;
    let all = named_params! {
        ":before": before, ":dead_before": dead_before, ":lasting": super::json(&lasting), ":at": step.from.at,
        ":n": step.from.n, ":source": step.from.source, ":id": step.from.id, ":limit": limit,
    };
    // Each part asks for some of them.
    let values: Vec<(&str, &dyn rusqlite::ToSql)> =
        all.iter().filter(|(name, _)| matches!(select.parameter_index(name), Ok(Some(_)))).copied().collect();
    let mut rows = select.query(values.as_slice())?;
    let (mut looked, mut last, mut over) = (0, None, Vec::new());
    while let Some(row) = rows.next()? {
        looked += 1;
        let mark = mark(row)?;
        if row.get("over")? {
            over.push(read(step.part, row, mark.clone())?);
        }
        last = Some(mark);
    }
    drop(rows);
    over.iter().try_for_each(|over| forget(connection, step.part, over))?;
    let mut removed = over.len();
    if step.part == Part::Leftovers {
        removed += leftovers(connection, step.now)?;
    }
    Ok(Pruned { removed, next: last.filter(|_| looked == step.limit) })
}

fn mark(row: &Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark { at: row.get("at")?, n: row.get("n")?, source: row.get("source")?, id: row.get("id")? })
}

fn read(part: Part, row: &Row<'_>, mark: Mark) -> rusqlite::Result<Over> {
    let (words, number) = match part {
        Part::Fates => ([row.get("transition")?, row.get("rule")?, row.get("receiver")?], 0),
        Part::Jobs => (Default::default(), row.get("seq")?),
        Part::Transitions | Part::Deliveries | Part::FollowUps | Part::Alerts | Part::Leftovers => Default::default(),
    };
    Ok(Over { mark, words, number })
}

fn forget(connection: &Connection, part: Part, over: &Over) -> rusqlite::Result<()> {
    let Over { mark: Mark { n, source, id, .. }, words, number } = over;
    let delete = |statement: &str, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(statement)?.execute(values).map(drop)
    };
    match part {
        Part::Fates => {
            let [transition, rule, receiver] = words;
            let statement = "DELETE FROM fate WHERE transition = ?1 AND rule = ?2 AND receiver = ?3";
            delete(statement, &[transition, rule, receiver])
        }
        Part::Transitions => delete("DELETE FROM transition WHERE n = ?1", &[n]),
        Part::Deliveries => {
            // A cooldown counts from when it was heard, and who never heard of a beginning is not told the end.
            delete(
                "UPDATE told SET (heard_at, lost) = (SELECT iif(state = 'delivered', ended_at, NULL), state <> 'delivered'
                                                     FROM delivery WHERE n = ?1) WHERE delivery = ?2",
                &[n, id],
            )?;
            delete("DELETE FROM delivery WHERE n = ?1", &[n])
        }
        Part::FollowUps => delete("DELETE FROM follow_up WHERE id = ?1", &[id]),
        Part::Jobs => {
            delete(
                "INSERT INTO numbered (key, seq) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET seq = max(seq, excluded.seq)",
                &[&key(source, id), number],
            )?;
            delete("DELETE FROM job WHERE source = ?1 AND id = ?2", &[source, id])
        }
        Part::Alerts => {
            delete("DELETE FROM told WHERE alert = ?1", &[id])?;
            delete("DELETE FROM alert WHERE id = ?1", &[id])
        }
        Part::Leftovers => delete("DELETE FROM silence WHERE id = ?1", &[id]),
    }
}

/// Requests that were made long ago, and groups of which nothing is held.
fn leftovers(connection: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    let before = now.micros().saturating_sub(LEFT_MICROS);
    let requests = connection.prepare_cached("DELETE FROM request WHERE asked_at < ?1")?.execute([before])?;
    let groups = connection
        .prepare_cached(
            "DELETE FROM gathering WHERE until < ?1 AND NOT EXISTS
             (SELECT 1 FROM held AS h WHERE h.receiver = gathering.receiver AND h.grp = gathering.grp)",
        )?
        .execute([before])?;
    Ok(requests + groups)
}

/// Whether any job was ever forgotten.
pub(super) fn any_numbered(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM numbered")?.exists([])
}

/// The last number of a job that is forgotten.
pub(super) fn numbered(connection: &Connection, source: &str, job: &str) -> rusqlite::Result<Option<u32>> {
    let mut select = connection.prepare_cached("SELECT seq FROM numbered WHERE key = ?1")?;
    select.query_row([key(source, job)], |row| row.get(0)).optional()
}

pub(super) fn room(connection: &Connection) -> rusqlite::Result<Room> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let bytes = |pages: i64, size: i64| u64::try_from(pages.saturating_mul(size)).unwrap_or(0);
    let (pages, free, size) = (number("page_count")?, number("freelist_count")?, number("page_size")?);
    Ok(Room { used: bytes(pages - free, size), free: bytes(free, size), shrinks: number("auto_vacuum")? == 2 })
}

/// Gives so many free bytes back to the disk.
pub(super) fn reclaim(connection: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / size.max(1);
    let mut shrink = connection.prepare(&format!("PRAGMA incremental_vacuum({})", pages.max(1)))?;
    // It goes on a page for each row that is asked for.
    let mut rows = shrink.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

pub(super) fn pruning(connection: &Connection) -> rusqlite::Result<Option<Pruning>> {
    let read = |row: &Row<'_>| {
        let count = |column: &str| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0));
        let (at, kept_from) = (instant(row, "at")?, instant(row, "kept_from")?);
        Ok(Pruning { at, kept_from, removed: count("removed")?, excess: count("excess")? })
    };
    connection.prepare_cached("SELECT * FROM pruning")?.query_row([], read).optional()
}

pub(super) fn note(connection: &Connection, pruning: &Pruning) -> rusqlite::Result<()> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO pruning (one, at, kept_from, removed, excess) VALUES (1, ?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            pruning.at.micros(),
            pruning.kept_from.micros(),
            count(pruning.removed),
            count(pruning.excess)
        ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{Part, old};
    use crate::store::sqlite::migrate;
    use crate::store::sqlite::outbox::tests::plan;

    #[test]
    fn forgetting_goes_along_an_index_from_where_it_was_and_asks_who_needs_a_row_by_index() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        for (part, along) in [
            (Part::Fates, "SEARCH fate USING COVERING INDEX fate_by_time (at<?)"),
            (Part::Transitions, "SEARCH t USING INDEX transition_by_time (seen_at>? AND seen_at<?)"),
            (Part::Deliveries, "SEARCH d USING INDEX delivery_by_time (created_at>? AND created_at<?)"),
            (Part::FollowUps, "SEARCH f USING INDEX follow_up_by_time ((created_at,id)>(?,?) AND created_at<?)"),
            (Part::Jobs, "SEARCH j USING INDEX job_gone ((seen_at,source,id)>(?,?,?) AND seen_at<?)"),
            (Part::Alerts, "SEARCH a USING INDEX alert_by_time ((last_seen,id)>(?,?) AND last_seen<?)"),
        ] {
            let plan = plan(&connection, old(part));
            assert!(plan.contains(along), "{part:?}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{part:?}\n{plan}");
            let scans = plan.lines().filter(|line| line.contains("SCAN") && !line.contains("VIRTUAL TABLE"));
            // The list of rules is no table, and there is one constant row.
            let scans: Vec<&str> = scans.filter(|line| !line.contains("json_each")).collect();
            assert_eq!(scans, [] as [&str; 0], "{part:?}\n{plan}");
        }
    }
}
