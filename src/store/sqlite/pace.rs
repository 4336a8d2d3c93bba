//! Gathering in SQLite: what is held, what groups have gathered, how much was said lately.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::finding::severity;
use super::{instant, json};
use crate::model::delivery::{Frozen, Held, Lane};
use crate::model::memory::{Opened, Pacing};
use crate::model::name::{DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::time::Timestamp;
use crate::store::{Gathered, PaceOf};

/// When something held is due at the time `?2`: if it was held a minute ahead of that, the clock was set back, and it is due.
const DUE: &str = "iif(created_at > ?2 + 60000000, min(due_at, ?2), due_at)";

/// That a message about the same job as `h` is tried again, alone or in a digest.
const STUCK: &str = "EXISTS (SELECT 1 FROM delivery AS e WHERE e.receiver = h.receiver AND e.source = h.source
        AND e.subject = h.subject AND e.state = 'pending' AND e.attempts > 0)
    OR EXISTS (SELECT 1 FROM member AS m JOIN delivery AS e ON e.n = m.delivery WHERE m.receiver = h.receiver
        AND m.source = h.source AND m.subject = h.subject AND e.attempts > 0)";

pub(super) fn pacing(connection: &Connection, receivers: &[PaceOf], now: Timestamp) -> rusqlite::Result<Pacing> {
    let mut pacing = Pacing::default();
    // The agent's own affairs have no source and do not count; a digest has none either, and does.
    let mut recent = connection.prepare_cached(
        "SELECT count(*), count(iif(source = '', 1, NULL)) FROM (SELECT source FROM delivery
         WHERE receiver = ?1 AND created_at > ?2 AND created_at <= ?3 + 60000000 AND (source != '' OR subject LIKE 'digest/%')
         LIMIT ?4)",
    )?;
    let mut any = connection.prepare_cached("SELECT 1 FROM held WHERE receiver = ?1")?;
    let mut waiting = connection.prepare_cached(&format!("SELECT 1 FROM held WHERE receiver = ?1 AND {DUE} <= ?2"))?;
    let mut held = connection.prepare_cached(&format!(
        "SELECT max({DUE}) FROM held WHERE receiver = ?1 AND source = ?3 AND subject = ?4",
    ))?;
    let mut groups = connection.prepare_cached("SELECT * FROM gathering WHERE receiver = ?1 AND until > ?2")?;
    for PaceOf { receiver, lately, lanes } in receivers {
        if let Some((since, limit)) = lately {
            let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
            let lately = params![receiver.as_str(), since.micros(), now.micros(), limit];
            let (count, digests): (i64, i64) = recent.query_row(lately, |row| Ok((row.get(0)?, row.get(1)?)))?;
            pacing.recent.insert(receiver.clone(), usize::try_from(count).unwrap_or(0));
            pacing.digests.insert(receiver.clone(), usize::try_from(digests).unwrap_or(0));
        }
        if any.exists([receiver.as_str()])? {
            if waiting.exists(params![receiver.as_str(), now.micros()])? {
                pacing.waiting.insert(receiver.clone());
            }
            for lane in lanes {
                let values = params![receiver.as_str(), now.micros(), lane.source_name(), lane.subject.as_str()];
                let due: Option<i64> = held.query_row(values, |row| row.get(0))?;
                if let Some(due) = due.map(Timestamp::from_micros) {
                    pacing.held.insert((receiver.clone(), lane.clone()), due);
                }
            }
        }
        let opened = |row: &Row<'_>| Ok((row.get::<_, String>("grp")?, opened(row)?));
        for row in groups.query_map(params![receiver.as_str(), now.micros()], opened)? {
            let (group, opened) = row?;
            pacing.groups.insert((receiver.clone(), group), opened);
        }
    }
    Ok(pacing)
}

fn lane(row: &Row<'_>) -> rusqlite::Result<Lane> {
    let source: String = row.get("source")?;
    Ok(Lane {
        source: Some(source).filter(|source| !source.is_empty()).map(SourceName::from),
        subject: JobId::from(row.get::<_, String>("subject")?),
    })
}

fn opened(row: &Row<'_>) -> rusqlite::Result<Opened> {
    let classes: BTreeSet<String> = serde_json::from_str(&row.get::<_, String>("classes")?).unwrap_or_default();
    let wait = Duration::from_micros(u64::try_from(row.get::<_, i64>("wait")?).unwrap_or(0));
    Ok(Opened { until: instant(row, "until")?, wait, classes })
}

pub(super) fn write_group(
    connection: &Connection,
    (receiver, group, opened): &(ReceiverName, String, Opened),
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO gathering (receiver, grp, until, wait, classes) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            receiver.as_str(),
            group,
            opened.until.micros(),
            i64::try_from(opened.wait.as_micros()).unwrap_or(i64::MAX),
            json(&opened.classes),
        ])?;
    Ok(())
}

pub(super) fn write_held(connection: &Connection, held: &[Held]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO held (id, receiver, source, subject, event, title, created_at, payload, severity, class, grp, due_at, data)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
         WHERE NOT EXISTS (SELECT 1 FROM delivery WHERE id = ?1) ON CONFLICT (id) DO NOTHING",
    )?;
    for Held { frozen, severity, class, group, due_at, data } in held {
        insert.execute(params![
            frozen.id.as_str(),
            frozen.receiver.as_str(),
            frozen.lane.source_name(),
            frozen.lane.subject.as_str(),
            frozen.event,
            frozen.title,
            frozen.created_at.micros(),
            frozen.payload,
            severity.as_str(),
            class,
            group,
            due_at.micros(),
            data.to_string(),
        ])?;
    }
    Ok(())
}

pub(super) fn held(
    connection: &Connection,
    receiver: &ReceiverName,
    now: Timestamp,
    limit: usize,
    bytes_max: usize,
) -> rusqlite::Result<Vec<(i64, Held)>> {
    // Chosen by number first: what is not read is not sorted either.
    let mut select = connection.prepare_cached(&format!(
        "SELECT * FROM held WHERE n IN (SELECT n FROM held AS h WHERE receiver = ?1 AND {DUE} <= ?2 AND NOT ({STUCK})
                                        ORDER BY n LIMIT ?3) ORDER BY n",
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = select.query(params![receiver.as_str(), now.micros(), limit])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let data = row.get_ref("data")?.as_str()?;
        bytes += data.len();
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        let frozen = Frozen {
            id: DeliveryId::from(row.get::<_, String>("id")?),
            receiver: receiver.clone(),
            lane: lane(row)?,
            event: row.get("event")?,
            title: row.get("title")?,
            created_at: instant(row, "created_at")?,
            seen_at: Some(instant(row, "created_at")?),
            payload: row.get("payload")?,
        };
        let held = Held {
            frozen,
            severity: severity(row)?,
            class: row.get("class")?,
            group: row.get("grp")?,
            due_at: instant(row, "due_at")?,
            data: serde_json::from_str(data).unwrap_or_default(),
        };
        found.push((row.get("n")?, held));
    }
    Ok(found)
}

pub(super) fn holding(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<(ReceiverName, Timestamp)>> {
    let due = |row: &Row<'_>| Ok((ReceiverName::from(row.get::<_, String>("receiver")?), instant(row, "due")?));
    connection
        .prepare_cached(
            "SELECT receiver, min(iif(created_at > ?1 + 60000000, min(due_at, ?1), due_at)) AS due FROM held GROUP BY receiver",
        )?
        .query_map([now.micros()], due)?
        .collect()
}

pub(super) fn gathered(connection: &Connection, gathered: &[Gathered], now: Timestamp) -> rusqlite::Result<()> {
    for Gathered { frozen, held, reserve } in gathered {
        super::write_deliveries(connection, std::slice::from_ref(frozen))?;
        super::outbox::write_reserves(connection, reserve.as_slice())?;
        let n: i64 = connection
            .prepare_cached("SELECT n FROM delivery WHERE id = ?1")?
            .query_row([frozen.id.as_str()], |row| row.get(0))?;
        for one in held {
            let taken: Option<(String, String, String, String)> = connection
                .prepare_cached("DELETE FROM held WHERE n = ?1 RETURNING id, source, subject, grp")?
                .query_row([one], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .optional()?;
            let Some((id, source, subject, group)) = taken else { continue };
            if id != frozen.id.as_str() {
                connection
                    .prepare_cached(
                        "INSERT OR IGNORE INTO member (delivery, receiver, source, subject) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![n, frozen.receiver.as_str(), source, subject])?;
                for table in ["told", "fate"] {
                    connection
                        .prepare_cached(&format!("UPDATE {table} SET delivery = ?2 WHERE delivery = ?1"))?
                        .execute([id.as_str(), frozen.id.as_str()])?;
                }
            }
            // A group that had something to tell goes on gathering.
            connection
                .prepare_cached("UPDATE gathering SET until = ?3 + wait WHERE receiver = ?1 AND grp = ?2")?
                .execute(params![frozen.receiver.as_str(), group, now.micros()])?;
        }
    }
    connection.prepare_cached("DELETE FROM gathering WHERE until < ?1 - 86400000000")?.execute([now.micros()])?;
    Ok(())
}
