//! Findings of rules in SQLite: alerts and who was told of them, what is muted, silences, fates.

use rusqlite::{Connection, Row, params};

use super::past::{step, step_columns};
use super::{instant, json, text, time};
use crate::model::alert::{Alert, Fate, FateOutcome, Muted, Severity, Silence, Told};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName, TransitionId};
use crate::model::time::Timestamp;

fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    Ok(Alert {
        id: AlertId::from(row.get::<_, String>("id")?),
        rule: RuleId::from(row.get::<_, String>("rule")?),
        source: SourceName::from(row.get::<_, String>("source")?),
        subject: JobId::from(row.get::<_, String>("subject")?),
        resource: text(row, "resource")?,
        severity: severity(row)?,
        count: row.get("count")?,
        first_seen: instant(row, "first_seen")?,
        last_seen: instant(row, "last_seen")?,
        resolved: row.get("resolved")?,
        told: Vec::new(),
    })
}

pub(super) fn severity(row: &Row<'_>) -> rusqlite::Result<Severity> {
    Ok(row.get::<_, String>("severity")?.parse().unwrap_or(Severity::Warning))
}

/// The findings that `condition` chooses, with who was told of them.
pub(super) fn alerts(
    connection: &Connection,
    condition: &str,
    values: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<Vec<Alert>> {
    let mut found: Vec<Alert> = connection
        .prepare_cached(&format!("SELECT * FROM alert WHERE {condition}"))?
        .query_map(values, alert)?
        .collect::<rusqlite::Result<_>>()?;
    let mut told = connection.prepare_cached(
        "SELECT t.*, d.state, d.ended_at, EXISTS (SELECT 1 FROM held AS h WHERE h.id = t.delivery) AS held
         FROM told AS t LEFT JOIN delivery AS d ON d.id = t.delivery
         WHERE t.alert = ?1 ORDER BY t.receiver",
    )?;
    for alert in &mut found {
        let rows = told.query_map([alert.id.as_str()], |row| {
            let at = instant(row, "at")?;
            let state = row.get::<_, Option<String>>("state")?;
            let delivered_at = match state.as_deref() {
                Some("delivered") => time(row, "ended_at")?,
                Some(_) => None,
                None if row.get("held")? => None,
                // Forgotten but for when it was heard; what is forgotten altogether is counted from when it was decided.
                None => time(row, "heard_at")?.or(Some(at)),
            };
            Ok(Told {
                receiver: ReceiverName::from(row.get::<_, String>("receiver")?),
                delivery: DeliveryId::from(row.get::<_, String>("delivery")?),
                severity: severity(row)?,
                at,
                delivered_at,
                lost: match state.as_deref() {
                    Some(state) => matches!(state, "dead" | "dropped"),
                    None => row.get("lost")?,
                },
                held_back: row.get("held_back")?,
            })
        })?;
        alert.told = rows.collect::<rusqlite::Result<_>>()?;
    }
    Ok(found)
}

pub(super) fn write_alert(connection: &Connection, alert: &Alert) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO alert (id, rule, source, subject, resource, severity, count, first_seen, last_seen, resolved)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            alert.id.as_str(),
            alert.rule.as_str(),
            alert.source.as_str(),
            alert.subject.as_str(),
            alert.resource,
            alert.severity.as_str(),
            alert.count,
            alert.first_seen.micros(),
            alert.last_seen.micros(),
            alert.resolved,
        ])?;
    if alert.told.is_empty() {
        connection.prepare_cached("DELETE FROM told WHERE alert = ?1")?.execute([alert.id.as_str()])?;
    }
    let mut insert = connection.prepare_cached(
        // It may be told in a digest by now, which a poll that was decided before does not know.
        "INSERT INTO told (alert, receiver, delivery, severity, at, held_back) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (alert, receiver) DO UPDATE SET delivery = iif(at = excluded.at, delivery, excluded.delivery),
         heard_at = iif(at = excluded.at, heard_at, NULL), lost = iif(at = excluded.at, lost, 0),
         severity = excluded.severity, at = excluded.at, held_back = excluded.held_back",
    )?;
    for told in &alert.told {
        insert.execute(params![
            alert.id.as_str(),
            told.receiver.as_str(),
            told.delivery.as_str(),
            told.severity.as_str(),
            told.at.micros(),
            told.held_back,
        ])?;
    }
    Ok(())
}

pub(super) fn muted(connection: &Connection, source: &SourceName) -> rusqlite::Result<Vec<Muted>> {
    connection
        .prepare_cached("SELECT * FROM muted WHERE source = ?1 ORDER BY seen_at, alert, job_id")?
        .query_map([source.as_str()], |row| {
            Ok(Muted {
                alert: AlertId::from(row.get::<_, String>("alert")?),
                rule: RuleId::from(row.get::<_, String>("rule")?),
                transition: step(row)?,
                by: row.get("by")?,
            })
        })?
        .collect()
}

pub(super) fn write_muted(
    connection: &Connection,
    muted: &[Muted],
    unmuted: &[(AlertId, JobId)],
) -> rusqlite::Result<()> {
    for (alert, job) in unmuted {
        connection
            .prepare_cached("DELETE FROM muted WHERE alert = ?1 AND job_id = ?2")?
            .execute([alert.as_str(), job.as_str()])?;
    }
    for Muted { alert, rule, transition, by } in muted {
        let columns = step_columns(transition);
        let mut values: Vec<&dyn rusqlite::ToSql> = Vec::new();
        let (alert, rule) = (alert.as_str(), rule.as_str());
        values.push(&alert);
        values.push(&rule);
        values.push(by);
        values.extend(columns.iter().map(|value| value as &dyn rusqlite::ToSql));
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO muted (alert, rule, by, id, source, job_id, seq, from_state, to_state, seen_before,
                 seen_at, skipped, late, job) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(values.as_slice())?;
    }
    Ok(())
}

/// Silences that are not over.
pub(super) fn silences(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<Silence>> {
    connection
        .prepare_cached("SELECT * FROM silence WHERE ends_at > ?1 ORDER BY ends_at, id")?
        .query_map([now.micros()], |row| {
            Ok(Silence {
                id: row.get("id")?,
                matchers: serde_json::from_str(&row.get::<_, String>("matchers")?).unwrap_or_default(),
                starts_at: instant(row, "starts_at")?,
                ends_at: instant(row, "ends_at")?,
                author: row.get("author")?,
                comment: row.get("comment")?,
            })
        })?
        .collect()
}

pub(super) fn write_silence(connection: &Connection, silence: &Silence) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO silence (id, matchers, starts_at, ends_at, author, comment) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            silence.id,
            json(&silence.matchers),
            silence.starts_at.micros(),
            silence.ends_at.micros(),
            silence.author,
            silence.comment,
        ])?;
    Ok(())
}

pub(super) fn write_fates(
    connection: &Connection,
    source: &SourceName,
    fates: &[Fate],
    at: Timestamp,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO fate (transition, source, job, rule, receiver, outcome, delivery, why, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for Fate { rule, transition, subject, receiver, outcome, delivery, why } in fates {
        insert.execute(params![
            transition.as_str(),
            source.as_str(),
            subject.as_str(),
            rule.as_str(),
            receiver.as_ref().map_or("", ReceiverName::as_str),
            outcome.as_str(),
            delivery.as_ref().map(DeliveryId::as_str),
            why,
            at.micros(),
        ])?;
    }
    Ok(())
}

pub(super) fn fate(row: &Row<'_>) -> rusqlite::Result<Fate> {
    Ok(Fate {
        rule: RuleId::from(row.get::<_, String>("rule")?),
        transition: TransitionId::from(row.get::<_, String>("transition")?),
        subject: JobId::from(row.get::<_, String>("job")?),
        receiver: Some(row.get::<_, String>("receiver")?).filter(|name| !name.is_empty()).map(ReceiverName::from),
        outcome: row.get::<_, String>("outcome")?.parse().unwrap_or(FateOutcome::Told),
        delivery: row.get::<_, Option<String>>("delivery")?.map(DeliveryId::from),
        why: row.get("why")?,
    })
}
