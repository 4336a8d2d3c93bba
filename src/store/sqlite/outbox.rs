//! The outbox of the embedded engine: claims, records, copies for the fallback, and what operators do with deliveries.
//!
//! Nothing here looks at everything that is pending, however much that is. A delivery that is found to wait for another one
//! about the same job is *parked*: claims do not look at it again until one of those before it has ended. So what stands in
//! the index of what is due can mostly be claimed, and each delivery that waits is looked at once for each that it waits for.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{follow_up, instant, json, time, write_deliveries};
use crate::model::delivery::{Claimed, DeliveryState, Frozen, Lane, Reserve, Verdict};
use crate::model::name::{DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::time::Timestamp;
use crate::store::rows::Aftermath;
use crate::store::{Again, Dropped, Lapse, Lapsed, Record, Trouble};

/// Deliveries that one claim looks at; each is claimed or parked. There is another claim at once if this was too few.
const LOOKED_AT_MAX: usize = 2_000;

/// That nothing pending comes before delivery `d`: about its job, alone or in a digest, or about any of the jobs in it.
const FIRST: &str = "NOT EXISTS (SELECT 1 FROM delivery AS e WHERE e.receiver = d.receiver AND e.source = d.source
        AND e.subject = d.subject AND e.state = 'pending' AND e.n < d.n)
    AND NOT EXISTS (SELECT 1 FROM member AS m WHERE m.receiver = d.receiver AND m.source = d.source
        AND m.subject = d.subject AND m.delivery < d.n)
    AND NOT EXISTS (SELECT 1 FROM member AS m WHERE m.delivery = d.n AND (
        EXISTS (SELECT 1 FROM delivery AS e WHERE e.receiver = m.receiver AND e.source = m.source
            AND e.subject = m.subject AND e.state = 'pending' AND e.n < d.n)
        OR EXISTS (SELECT 1 FROM member AS o WHERE o.receiver = m.receiver AND o.source = m.source
            AND o.subject = m.subject AND o.delivery < d.n)))";

/// Nothing is claimed for a receiver that retired, until it is opened again.
fn is_held(connection: &Connection, receiver: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM trouble WHERE receiver = ?1 AND held_since IS NOT NULL")?
        .exists([receiver])
}

pub(super) fn claim(
    connection: &Connection,
    receiver: &ReceiverName,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Claimed>> {
    let mut found = Found { limit, claimed: Vec::new(), waiting: Vec::new() };
    if !is_held(connection, receiver.as_str())? {
        found.look(connection, "due_at <= :now", "due_at, n", receiver, now)?;
        // The clock was set back: what was to be due soon would be due in a long time.
        found.look(connection, "set_at > :now + 60000000 AND due_at > :now", "set_at", receiver, now)?;
    }
    for n in &found.waiting {
        connection.prepare_cached("UPDATE delivery SET parked = 1 WHERE n = ?1")?.execute([n])?;
    }
    for (n, one) in &mut found.claimed {
        // Every claim has a token of its own: who lost it can no longer record.
        one.token = connection
            .prepare_cached(
                "UPDATE delivery SET claim_token = coalesce(claim_token, 0) + 1 + abs(random() % 1000000000), claim_until = ?2
                 WHERE n = ?1 RETURNING claim_token",
            )?
            .query_row(params![*n, until.micros()], |row| row.get(0))?;
        one.frozen.payload = connection
            .prepare_cached("SELECT bytes FROM payload WHERE delivery = ?1")?
            .query_row([*n], |row| row.get(0))?;
    }
    Ok(found.claimed.into_iter().map(|(_, claimed)| claimed).collect())
}

/// What a claim finds.
struct Found {
    limit: usize,
    claimed: Vec<(i64, Claimed)>,
    /// Those that wait for another one.
    waiting: Vec<i64>,
}

impl Found {
    fn look(
        &mut self,
        connection: &Connection,
        due: &str,
        order: &str,
        receiver: &ReceiverName,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let mut select = connection.prepare_cached(&looking(due, order))?;
        let mut rows = select.query(named_params! { ":receiver": receiver.as_str(), ":now": now.micros() })?;
        while self.claimed.len() < self.limit && self.claimed.len() + self.waiting.len() < LOOKED_AT_MAX {
            let Some(row) = rows.next()? else { break };
            match row.get("is_first")? {
                true => self.claimed.push((row.get("n")?, claimed_row(row)?)),
                false => self.waiting.push(row.get("n")?),
            }
        }
        Ok(())
    }
}

fn looking(due: &str, order: &str) -> String {
    format!(
        "SELECT d.*, (SELECT r.due_at FROM reserve AS r WHERE r.of = d.id) AS escalate_at, {FIRST} AS is_first
         FROM delivery AS d WHERE receiver = :receiver AND state = 'pending' AND NOT parked AND {due}
         AND (claim_until IS NULL OR claim_until <= :now) ORDER BY {order}"
    )
}

/// When a claim may find something. What waits for another one counts until a claim has looked at it.
pub(super) fn next_due(connection: &Connection, receiver: &ReceiverName) -> rusqlite::Result<Option<Timestamp>> {
    let receiver = receiver.as_str();
    if is_held(connection, receiver)? {
        return Ok(None);
    }
    let due: Option<i64> = connection
        .prepare_cached(
            "SELECT due_at FROM delivery WHERE receiver = ?1 AND state = 'pending' AND NOT parked
             AND claim_until IS NULL ORDER BY due_at, n LIMIT 1",
        )?
        .query_row([receiver], |row| row.get(0))
        .optional()?;
    let lapse: Option<i64> = connection
        .prepare_cached(
            "SELECT min(claim_until) FROM delivery
             WHERE receiver = ?1 AND state = 'pending' AND claim_until IS NOT NULL",
        )?
        .query_row([receiver], |row| row.get(0))?;
    Ok(due.into_iter().chain(lapse).min().map(Timestamp::from_micros))
}

pub(super) fn record(connection: &Connection, records: &[Record]) -> rusqlite::Result<Vec<bool>> {
    let mut kept = Vec::new();
    let mut known: Option<(&ReceiverName, Trouble)> = None;
    for record in records {
        let written = write_attempt(connection, record)?;
        if written {
            let trouble = (&record.claimed.frozen.receiver, record.trouble);
            if known.replace(trouble) != Some(trouble) {
                write_trouble(connection, record)?;
            }
            write_deliveries(connection, &record.deliveries)?;
            if record.asks {
                follow_up::ask(connection, &record.claimed.frozen.id)?;
            }
        }
        kept.push(written);
    }
    Ok(kept)
}

fn claimed_row(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        frozen: frozen(row, Vec::new())?,
        budget_from: instant(row, "budget_from")?,
        tries: row.get("tries")?,
        refused_since: time(row, "refused_since")?,
        escalate_at: time(row, "escalate_at")?,
        progress: serde_json::from_str(&row.get::<_, String>("progress")?).unwrap_or_default(),
        token: 0,
    })
}

fn frozen(row: &Row<'_>, payload: Vec<u8>) -> rusqlite::Result<Frozen> {
    let source: String = row.get("source")?;
    Ok(Frozen {
        id: DeliveryId::from(row.get::<_, String>("id")?),
        receiver: ReceiverName::from(row.get::<_, String>("receiver")?),
        lane: Lane {
            source: Some(source).filter(|source| !source.is_empty()).map(SourceName::from),
            subject: JobId::from(row.get::<_, String>("subject")?),
        },
        event: row.get("event")?,
        title: row.get("title")?,
        created_at: instant(row, "created_at")?,
        seen_at: time(row, "seen_at")?,
        payload,
    })
}

/// `false` when the claim was lost.
fn write_attempt(connection: &Connection, record: &Record) -> rusqlite::Result<bool> {
    let Record { claimed, attempt, verdict, .. } = record;
    let ended = attempt.at.plus(attempt.took);
    let Aftermath { state, due_at, ended_at, refused_since } = Aftermath::of(record);
    let written: Option<(i64, i64)> = connection
        .prepare_cached(
            "UPDATE delivery SET state = ?3, due_at = ?4, set_at = ?9, ended_at = ?5, attempts = attempts + 1, tries = tries + 1, refused_since = ?6,
             progress = ?7, note = ?8, claim_token = NULL, claim_until = NULL
             WHERE id = ?1 AND claim_token = ?2 AND state = 'pending' RETURNING n, attempts",
        )?
        .query_row(
            params![
                claimed.frozen.id.as_str(),
                claimed.token,
                state.as_str(),
                due_at.micros(),
                ended_at.map(Timestamp::micros),
                refused_since.map(Timestamp::micros),
                json(&attempt.progress),
                attempt.outcome.detail(),
                attempt.at.micros(),
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((n, number)) = written else { return Ok(false) };
    if ended_at.is_some() {
        unpark(connection, n)?;
    }
    match verdict {
        Verdict::Delivered if claimed.escalate_at.is_none() => {}
        Verdict::Delivered => {
            connection.prepare_cached("DELETE FROM reserve WHERE of = ?1")?.execute([claimed.frozen.id.as_str()])?;
        }
        // Given up before its time: the copy need not wait.
        Verdict::Dead => {
            connection
                .prepare_cached("UPDATE reserve SET due_at = min(due_at, ?2) WHERE of = ?1")?
                .execute(params![claimed.frozen.id.as_str(), ended.micros()])?;
        }
        Verdict::RetryAt(_) | Verdict::Held => {}
    }
    connection
        .prepare_cached(
            "INSERT INTO attempt (delivery, number, at, took, outcome, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            n,
            number,
            attempt.at.micros(),
            i64::try_from(attempt.took.as_micros()).unwrap_or(i64::MAX),
            attempt.outcome.as_str(),
            attempt.outcome.detail(),
        ])?;
    Ok(true)
}

fn write_trouble(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let receiver = record.claimed.frozen.receiver.as_str();
    let Trouble { refused, dead, retired, held_since } = record.trouble;
    if record.trouble == Trouble::default() {
        connection.prepare_cached("DELETE FROM trouble WHERE receiver = ?1")?.execute([receiver])?;
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO trouble (receiver, since, refused, dead, retired, held_since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (receiver) DO UPDATE SET refused = excluded.refused, dead = excluded.dead,
             retired = excluded.retired, held_since = excluded.held_since",
        )?
        .execute(params![
            receiver,
            record.attempt.at.micros(),
            refused,
            dead,
            retired,
            held_since.map(Timestamp::micros)
        ])?;
    Ok(())
}

/// A delivery has ended: what waited for it is looked at again. Of each job that is the next one, alone and in a digest: those
/// behind it wait for it.
fn unpark(connection: &Connection, n: i64) -> rusqlite::Result<()> {
    // Mostly nobody waits.
    let anybody = connection
        .prepare_cached(
            "SELECT 1 FROM delivery WHERE receiver = (SELECT receiver FROM delivery WHERE n = ?1) AND state = 'pending' AND parked",
        )?
        .exists([n])?;
    if anybody {
        connection
            .prepare_cached(
                "WITH lane AS (
                    SELECT receiver, source, subject FROM delivery WHERE n = ?1
                    UNION SELECT receiver, source, subject FROM member WHERE delivery = ?1),
                 next AS (
                    SELECT (SELECT min(e.n) FROM delivery AS e WHERE e.receiver = lane.receiver AND e.source = lane.source
                        AND e.subject = lane.subject AND e.state = 'pending') AS n FROM lane
                    UNION SELECT (SELECT min(o.delivery) FROM member AS o WHERE o.receiver = lane.receiver
                        AND o.source = lane.source AND o.subject = lane.subject AND o.delivery <> ?1) FROM lane)
                 UPDATE delivery SET parked = 0 WHERE n IN (SELECT n FROM next) AND parked AND state = 'pending'",
            )?
            .execute([n])?;
    }
    connection.prepare_cached("DELETE FROM member WHERE delivery = ?1")?.execute([n])?;
    Ok(())
}

pub(super) fn write_reserves(connection: &Connection, reserves: &[Reserve]) -> rusqlite::Result<()> {
    // A delivery that was decided before is the same one, whatever became of it: its copy is not made again.
    let mut insert = connection.prepare_cached(
        "INSERT INTO reserve (of, instead_of, due_at, id, receiver, source, subject, event, title, payload)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM delivery
         WHERE id = ?1 AND state = 'pending' AND attempts = 0 AND NOT EXISTS (SELECT 1 FROM delivery WHERE id = ?4)
         ON CONFLICT (of) DO NOTHING",
    )?;
    for Reserve { of, instead_of, due_at, frozen } in reserves {
        insert.execute(params![
            of.as_str(),
            instead_of.as_str(),
            due_at.micros(),
            frozen.id.as_str(),
            frozen.receiver.as_str(),
            frozen.lane.source_name(),
            frozen.lane.subject.as_str(),
            frozen.event,
            frozen.title,
            frozen.payload,
        ])?;
    }
    Ok(())
}

/// Copies that are due.
const URGENT: &str = "instead_of = ?1 AND due_at <= ?2";

pub(super) fn escalate(
    connection: &Connection,
    receiver: &ReceiverName,
    now: Timestamp,
) -> rusqlite::Result<Vec<ReceiverName>> {
    let values = params![receiver.as_str(), now.micros()];
    let copies: Vec<Frozen> = connection
        .prepare_cached(&format!(
            "SELECT *, ?2 AS created_at, NULL AS seen_at FROM reserve WHERE {URGENT} ORDER BY due_at, of"
        ))?
        .query_map(values, |row| frozen(row, row.get("payload")?))?
        .collect::<rusqlite::Result<_>>()?;
    write_deliveries(connection, &copies)?;
    connection.prepare_cached(&format!("DELETE FROM reserve WHERE {URGENT}"))?.execute(values)?;
    Ok(copies.into_iter().map(|copy| copy.receiver).collect())
}

/// Deliveries that are given up in one transaction.
const LAPSES_MAX: usize = 500;

/// The numbers of those whose budget began before this, which nobody has at hand; the oldest first.
pub(super) fn overdue(
    connection: &Connection,
    receiver: &ReceiverName,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<i64>> {
    if is_held(connection, receiver.as_str())? {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = params![receiver.as_str(), before.micros(), now.micros(), limit];
    connection.prepare_cached(OVERDUE)?.query_map(values, |row| row.get(0))?.collect()
}

const OVERDUE: &str = "SELECT n FROM delivery
    WHERE receiver = ?1 AND state = 'pending' AND refused_since IS NULL AND budget_from < ?2
    AND (claim_until IS NULL OR claim_until <= ?3) ORDER BY budget_from, n LIMIT ?4";

pub(super) fn lapse(connection: &Connection, lapse: &Lapse) -> rusqlite::Result<Lapsed> {
    let Lapse { receiver, before, note, now, notices } = lapse;
    let lapsed = overdue(connection, receiver, *before, *now, LAPSES_MAX)?;
    if lapsed.is_empty() {
        return Ok(Lapsed::default());
    }
    for n in &lapsed {
        connection
            .prepare_cached(
                "UPDATE delivery SET state = 'dead', ended_at = ?2, due_at = ?2, set_at = ?2, parked = 0, claim_token = NULL,
                 claim_until = NULL, note = ?3 || CASE note WHEN '' THEN '' ELSE '; before that: ' || note END WHERE n = ?1",
            )?
            .execute(params![n, now.micros(), note])?;
        // Given up: the copy need not wait.
        connection
            .prepare_cached(
                "UPDATE reserve SET due_at = min(due_at, ?2) WHERE of = (SELECT id FROM delivery WHERE n = ?1)",
            )?
            .execute(params![n, now.micros()])?;
        unpark(connection, *n)?;
    }
    let told = connection
        .prepare_cached(
            "INSERT INTO trouble (receiver, since, refused, dead, retired) VALUES (?1, ?2, 0, 1, 0)
             ON CONFLICT (receiver) DO UPDATE SET dead = 1 WHERE NOT dead",
        )?
        .execute(params![receiver.as_str(), now.micros()])?
        == 1;
    if told {
        write_deliveries(connection, notices)?;
    }
    Ok(Lapsed { count: lapsed.len(), told })
}

pub(super) fn trouble(row: &Row<'_>) -> rusqlite::Result<Trouble> {
    Ok(Trouble {
        refused: row.get("refused")?,
        dead: row.get("dead")?,
        retired: row.get("retired")?,
        held_since: time(row, "held_since")?,
    })
}

/// Deliveries of a receiver that retired are tried again, with all their time before them. `false` if it had not.
pub(super) fn reopen(connection: &Connection, receiver: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let opened = connection
        .prepare_cached("UPDATE trouble SET held_since = NULL WHERE receiver = ?1 AND held_since IS NOT NULL")?
        .execute([receiver])?;
    if opened == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "UPDATE delivery SET budget_from = ?2, tries = 0, refused_since = NULL WHERE receiver = ?1 AND state = 'pending'",
        )?
        .execute(params![receiver, now.micros()])?;
    Ok(true)
}

pub(super) fn again(connection: &Connection, which: &Again, now: Timestamp) -> rusqlite::Result<Vec<DeliveryId>> {
    const OWED: &str =
        "UPDATE delivery SET state = 'pending', parked = 0, due_at = ?1, set_at = ?1, budget_from = ?1, tries = 0,
         refused_since = NULL, ended_at = NULL, progress = CASE state WHEN 'delivered' THEN '[]' ELSE progress END";
    let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let mut done: Vec<(String, String)> = Vec::new();
    {
        // A follow-up is never done again.
        let update = |condition: &str| {
            let told = "receiver NOT GLOB 'follow_up/*'";
            connection.prepare(&format!("{OWED} WHERE {condition} AND {told} RETURNING id, receiver"))
        };
        match which {
            Again::Dead(receiver) => {
                let receiver = receiver.as_ref().map(ReceiverName::as_str);
                let mut update = update("state = 'dead' AND (?2 IS NULL OR receiver = ?2)")?;
                done.extend(
                    update.query_map(params![now.micros(), receiver], row)?.collect::<rusqlite::Result<Vec<_>>>()?,
                );
            }
            Again::Pending(receiver) => {
                // Those that wait for others go on waiting.
                let mut update = update("state = 'pending' AND NOT parked AND receiver = ?2")?;
                let rows = update.query_map(params![now.micros(), receiver.as_str()], row)?;
                done.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
                reopen(connection, receiver.as_str(), now)?;
            }
            Again::These(ids) => {
                let mut update = update("id = ?2")?;
                for id in ids {
                    done.extend(update.query_row(params![now.micros(), id.as_str()], row).optional()?);
                }
            }
        }
    }
    let receivers: std::collections::BTreeSet<&str> = done.iter().map(|(_, receiver)| receiver.as_str()).collect();
    for receiver in receivers {
        reopen(connection, receiver, now)?;
    }
    Ok(done.into_iter().map(|(id, _)| DeliveryId::from(id)).collect())
}

pub(super) fn end(
    connection: &Connection,
    ids: &[DeliveryId],
    note: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<Dropped>> {
    let mut fates = Vec::new();
    for id in ids {
        let found: Option<(i64, String, Option<i64>)> = connection
            .prepare_cached("SELECT n, state, claim_until FROM delivery WHERE id = ?1")?
            .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((n, state, claim_until)) = found else {
            fates.push(Dropped::Unknown);
            continue;
        };
        if state != DeliveryState::Pending.as_str() && state != DeliveryState::Dead.as_str() {
            fates.push(Dropped::Ended);
            continue;
        }
        connection
            .prepare_cached(
                "UPDATE delivery SET state = 'dropped', ended_at = ?2, claim_token = NULL, claim_until = NULL, parked = 0,
                 note = ?3 || CASE note WHEN '' THEN '' ELSE '; before that: ' || note END WHERE n = ?1",
            )?
            .execute(params![n, now.micros(), note])?;
        connection.prepare_cached("DELETE FROM reserve WHERE of = ?1")?.execute([id.as_str()])?;
        unpark(connection, n)?;
        fates.push(if claim_until.is_some_and(|until| until > now.micros()) {
            Dropped::UnderWay
        } else {
            Dropped::Done
        });
    }
    Ok(fates)
}

#[cfg(test)]
pub(super) mod tests {
    use rusqlite::Connection;

    use super::{OVERDUE, looking};
    use crate::store::sqlite::migrate;

    /// How SQLite goes about a statement, a line for each step.
    pub(in crate::store::sqlite) fn plan(connection: &Connection, statement: &str) -> String {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        let mut rows = explain.raw_query();
        let mut plan = String::new();
        while let Some(row) = rows.next().unwrap() {
            plan += &format!("{}\n", row.get::<_, String>("detail").unwrap());
        }
        plan
    }

    #[test]
    fn what_is_overdue_is_found_without_looking_at_what_is_not() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        let plan = plan(&connection, OVERDUE);
        assert!(plan.contains("SEARCH delivery USING INDEX delivery_budget (receiver=? AND budget_from<?)"), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn a_claim_goes_along_what_is_due_and_looks_at_nothing_else() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        for (due, order, index) in [
            ("due_at <= :now", "due_at, n", "delivery_due (receiver=? AND due_at<?)"),
            ("set_at > :now + 60000000 AND due_at > :now", "set_at", "delivery_set (receiver=? AND set_at>?)"),
        ] {
            let plan = plan(&connection, &looking(due, order));
            assert!(plan.contains(&format!("SEARCH d USING INDEX {index}")), "{plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
