//! Follow-ups in SQLite: a delivery each, and what must be known of it for ever.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{finding, instant, known, time};
use crate::model::delivery::Claimed;
use crate::model::follow_up::{Consent, FollowUp, Listed, Standing};
use crate::model::name::{AlertId, DeliveryId, FollowUpName, JobId, SourceName};
use crate::model::time::Timestamp;
use crate::store::Errand;
use crate::store::rows::follow_up_state;
use crate::store::share::Begun;

/// Those that are known already are not written again, also when their deliveries are no longer kept.
pub(super) fn write(connection: &Connection, errands: &[Errand]) -> rusqlite::Result<usize> {
    let mut row = connection.prepare_cached(
        "INSERT INTO follow_up (id, name, alert, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
    )?;
    let mut due = connection.prepare_cached("UPDATE delivery SET due_at = ?2 WHERE id = ?1")?;
    let mut written = 0;
    for errand in errands {
        let Errand { follow_up, at, due_at } = errand;
        let FollowUp { id, name, topic, .. } = follow_up;
        if row.execute(params![id.as_str(), name.as_str(), topic.alert.id.as_str(), at.micros()])? == 0 {
            continue;
        }
        written += super::write_deliveries(connection, &[errand.frozen()])?;
        due.execute(params![id.as_str(), due_at.micros()])?;
    }
    Ok(written)
}

pub(super) fn standing(
    connection: &Connection,
    follow_up: &FollowUp,
    since: Timestamp,
) -> rusqlite::Result<Option<Standing>> {
    let row = connection
        .prepare_cached("SELECT * FROM follow_up WHERE id = ?1")?
        .query_row([follow_up.id.as_str()], |row| {
            let approved: Option<bool> = row.get("approved")?;
            let by: Option<String> = row.get("consent_by")?;
            let consent = approved.map(|approved| Consent { approved, by: by.unwrap_or_default() });
            Ok((time(row, "started_at")?, consent))
        })
        .optional()?;
    let Some((started, consent)) = row else { return Ok(None) };
    let alert = finding::alerts(connection, "id = ?1", &[&follow_up.topic.alert.id.as_str()])?.pop();
    let lane = follow_up.lane();
    let job = connection
        .prepare_cached("SELECT * FROM job WHERE source = ?1 AND id = ?2")?
        .query_row([lane.source_name(), lane.subject.as_str()], |row| {
            let known = known(row)?.1;
            Ok((known.job.status, known.gone))
        })
        .optional()?;
    let recent: i64 = connection
        .prepare_cached("SELECT count(*) FROM follow_up WHERE name = ?1 AND started_at > ?2")?
        .query_row(params![follow_up.name.as_str(), since.micros()], |row| row.get(0))?;
    Ok(Some(Standing { started, consent, alert, job, recent: usize::try_from(recent).unwrap_or(usize::MAX) }))
}

/// There is one agent, who sees to it himself that no two are under way at once and that no limit is passed.
pub(super) fn begin(connection: &Connection, claimed: &Claimed, now: Timestamp) -> rusqlite::Result<Begun> {
    let begun = connection.execute(
        "UPDATE follow_up SET started_at = ?3 WHERE id = ?1 AND started_at IS NULL AND EXISTS
         (SELECT 1 FROM delivery WHERE id = ?1 AND claim_token = ?2 AND state = 'pending')",
        params![claimed.frozen.id.as_str(), claimed.token, now.micros()],
    )?;
    Ok(if begun == 1 { Begun::Yes } else { Begun::No })
}

/// It waits for somebody's word from now on.
pub(super) fn ask(connection: &Connection, id: &DeliveryId) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE follow_up SET asked = 1 WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// `false` when it does not wait for a word.
pub(super) fn consent(
    connection: &Connection,
    id: &DeliveryId,
    consent: &Consent,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let taken = connection.execute(
        "UPDATE follow_up SET approved = ?2, consent_by = ?3, consent_at = ?4
         WHERE id = ?1 AND asked AND approved IS NULL AND started_at IS NULL
         AND EXISTS (SELECT 1 FROM delivery WHERE id = ?1 AND state = 'pending')",
        params![id.as_str(), consent.approved, consent.by, now.micros()],
    )?;
    connection.execute(
        "UPDATE delivery SET due_at = ?2, set_at = ?2 WHERE id = ?1 AND state = 'pending' AND ?3",
        params![id.as_str(), now.micros(), taken == 1],
    )?;
    Ok(taken == 1)
}

pub(super) fn list(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Listed>> {
    connection
        .prepare_cached(
            "SELECT f.*, d.source, d.subject, d.title, d.state, d.note FROM follow_up AS f JOIN delivery AS d ON d.id = f.id
             ORDER BY f.created_at DESC, f.id LIMIT ?1",
        )?
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], listed)?
        .collect()
}

/// Those that wait for somebody's word, the oldest first.
pub(super) fn waiting(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Listed>> {
    connection
        .prepare_cached(
            "SELECT f.*, d.source, d.subject, d.title, d.state, d.note FROM follow_up AS f JOIN delivery AS d ON d.id = f.id
             WHERE f.asked AND f.approved IS NULL AND f.started_at IS NULL AND d.state = 'pending'
             ORDER BY f.created_at LIMIT ?1",
        )?
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], listed)?
        .collect()
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let (delivery, started_at): (String, _) = (row.get("state")?, time(row, "started_at")?);
    let (asked, approved): (bool, Option<bool>) = (row.get("asked")?, row.get("approved")?);
    let state = follow_up_state(&delivery, started_at, asked, approved);
    Ok(Listed {
        id: DeliveryId::from(row.get::<_, String>("id")?),
        name: FollowUpName::from(row.get::<_, String>("name")?),
        source: SourceName::from(row.get::<_, String>("source")?),
        job: JobId::from(row.get::<_, String>("subject")?),
        alert: AlertId::from(row.get::<_, String>("alert")?),
        title: row.get("title")?,
        state: state.to_owned(),
        created_at: instant(row, "created_at")?,
        started_at,
        note: row.get("note")?,
    })
}
