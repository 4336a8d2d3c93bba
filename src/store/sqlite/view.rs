//! What people look at, in SQLite: each list goes along an index in its own order, and no page looks at more than a bounded
//! number of rows, however few of them are wanted.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Rows, named_params};

use super::finding::severity;
use super::past::step;
use super::{delivery, gauge, instant, known, outbox, text, time};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName};
use crate::model::time::Timestamp;
use crate::model::transition::State;
use crate::store::view::{
    AlertFilter, AlertKey, AlertView, Cursor, JobFilter, JobKey, JobView, Key, MutedView, NumberKey, OutboxView,
    PAGE_MAX, Page, SourceFilter, SourceKey, SourceView, ToldView, TransitionFilter, TransitionView,
};
use crate::store::{Backlog, Delivery, Filter, Trouble};

/// Rows that one page looks at: some ten milliseconds. Where there are more, the page says how to go on.
const LOOKED_AT_MAX: usize = 20_000;

/// Rows about one job of any source: jobs are found by source, and there are few sources beside jobs.
const OF_JOB: &str = "source IN (SELECT name FROM source WHERE :source IS NULL OR name = :source)";

/// Goes along rows, whose column `fits` says which are wanted, until there are enough.
fn page<T, K: Key>(
    mut rows: Rows<'_>,
    limit: usize,
    key: impl Fn(&Row<'_>) -> rusqlite::Result<K>,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Page<T, K>> {
    let limit = limit.clamp(1, PAGE_MAX);
    let (mut items, mut looked, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let fits: bool = row.get("fits")?;
        if looked == LOOKED_AT_MAX || (fits && items.len() == limit) {
            return Ok(Page { items, next: last.map(Cursor) });
        }
        looked += 1;
        last = Some(key(row)?);
        if fits {
            items.push(read(row)?);
        }
    }
    Ok(Page { items, next: None })
}

fn number_key(row: &Row<'_>, at: &str) -> rusqlite::Result<NumberKey> {
    Ok((row.get(at)?, row.get("n")?))
}

/// Before everything that comes next.
fn newest(before: Option<&Cursor<NumberKey>>) -> NumberKey {
    before.map_or((i64::MAX, i64::MAX), |cursor| cursor.0)
}

fn source(row: &Row<'_>, column: &str) -> rusqlite::Result<SourceName> {
    Ok(SourceName::from(row.get::<_, String>(column)?))
}

fn micros(at: Option<Timestamp>) -> i64 {
    at.map_or(i64::MIN, Timestamp::micros)
}

pub(super) fn sources(connection: &Connection, filter: &SourceFilter) -> rusqlite::Result<Page<SourceView, SourceKey>> {
    let after = filter.before.as_ref().map_or("", |Cursor((name,))| name.as_str());
    let mut select = connection.prepare_cached(
        "SELECT *, :source IS NULL OR name = :source AS fits FROM source WHERE name > :after ORDER BY name",
    )?;
    let rows = select.query(named_params! {
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":after": after,
    })?;
    let mut jobs = connection.prepare_cached(JOBS_BY_STATUS)?;
    page(
        rows,
        filter.limit,
        |row| Ok((source(row, "name")?,)),
        |row| {
            let name = source(row, "name")?;
            let (mut by_status, mut gone) = (BTreeMap::new(), 0);
            let mut rows = jobs.query([name.as_str()])?;
            while let Some(row) = rows.next()? {
                gone += count(row, 2)?;
                let here = count(row, 1)?;
                if here > 0 {
                    by_status.insert(row.get(0)?, here);
                }
            }
            Ok(SourceView {
                complete_at: time(row, "complete_at")?,
                blind_since: time(row, "blind_since")?,
                told_since: time(row, "told_since")?,
                jobs: by_status,
                gone,
                name,
            })
        },
    )
}

const JOBS_BY_STATUS: &str = "SELECT status, sum(NOT gone), sum(gone) FROM job WHERE source = ?1 GROUP BY status";

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn jobs_along(filter: &JobFilter) -> String {
    let index = match filter.source {
        Some(_) => "job_by_source_and_time WHERE source = :source",
        None => "job_by_time WHERE true",
    };
    format!(
        "SELECT *, (:source IS NULL OR source = :source)
             AND (:states = '[]' OR iif(gone, 'gone', status) IN (SELECT value FROM json_each(:states)))
             AND (:job IS NULL OR id = :job OR resource_name IS :job OR resource_id IS :job) AS fits
         FROM job INDEXED BY {index} AND status_since >= :since
         AND (status_since, source, id) < (:at, :before_source, :before_id)
         ORDER BY status_since DESC, source DESC, id DESC"
    )
}

pub(super) fn jobs(connection: &Connection, filter: &JobFilter) -> rusqlite::Result<Page<JobView, JobKey>> {
    let (at, before_source, before_id) = match &filter.before {
        Some(Cursor((at, source, id))) => (*at, source.as_str(), id.as_str()),
        None => (i64::MAX, "", ""),
    };
    let states: Vec<String> = filter.states.iter().map(State::to_string).collect();
    let mut select = connection.prepare_cached(&jobs_along(filter))?;
    let rows = select.query(named_params! {
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":states": super::json(&states),
        ":job": filter.job,
        ":since": micros(filter.since),
        ":at": at,
        ":before_source": before_source,
        ":before_id": before_id,
    })?;
    let key = |row: &Row<'_>| {
        Ok((row.get("status_since")?, source(row, "source")?, JobId::from(row.get::<_, String>("id")?)))
    };
    page(rows, filter.limit, key, |row| {
        let (_, known) = known(row)?;
        Ok(JobView {
            source: source(row, "source")?,
            status_since: known.status_since,
            seen_at: known.seen_at,
            transitions: known.seq,
            missing: known.missing,
            gone: known.gone,
            job: known.job,
        })
    })
}

const STEP_FITS: &str = "(:source IS NULL OR source = :source) AND (:job IS NULL OR job_id = :job)
    AND (:from IS NULL OR from_state = :from) AND (:to IS NULL OR to_state = :to) AND seen_at >= :since";

fn steps_along(filter: &TransitionFilter) -> String {
    let along = match filter {
        TransitionFilter { job: Some(_), .. } => format!("transition_by_job WHERE {OF_JOB} AND job_id = :job"),
        TransitionFilter { source: Some(_), .. } => "transition_by_source_and_time WHERE source = :source".into(),
        TransitionFilter { .. } => "transition_by_time WHERE true".into(),
    };
    format!(
        "SELECT *, {STEP_FITS} AS fits FROM transition INDEXED BY {along} AND seen_at >= :since
         AND (seen_at, n) < (:at, :n) ORDER BY seen_at DESC, n DESC"
    )
}

pub(super) fn transitions(
    connection: &Connection,
    filter: &TransitionFilter,
) -> rusqlite::Result<Page<TransitionView, NumberKey>> {
    let (at, n) = newest(filter.before.as_ref());
    let mut select = connection.prepare_cached(&steps_along(filter))?;
    let rows = select.query(named_params! {
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":job": filter.job,
        ":from": filter.from.as_ref().map(State::to_string),
        ":to": filter.to.as_ref().map(State::to_string),
        ":since": micros(filter.since),
        ":at": at,
        ":n": n,
    })?;
    page(rows, filter.limit, |row| number_key(row, "seen_at"), transition)
}

pub(super) fn transitions_after(
    connection: &Connection,
    filter: &TransitionFilter,
    mark: i64,
) -> rusqlite::Result<(Vec<TransitionView>, i64)> {
    let statement = format!("SELECT *, {STEP_FITS} AS fits FROM transition WHERE n > :mark ORDER BY n");
    let mut select = connection.prepare_cached(&statement)?;
    let rows = select.query(named_params! {
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":job": filter.job,
        ":from": filter.from.as_ref().map(State::to_string),
        ":to": filter.to.as_ref().map(State::to_string),
        ":since": micros(filter.since),
        ":mark": mark,
    })?;
    news(rows, mark, filter.limit, transition)
}

/// Goes along rows in the order they were committed. Also returns the number of the last one that was looked at.
fn news<T>(
    mut rows: Rows<'_>,
    mut mark: i64,
    limit: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<(Vec<T>, i64)> {
    let (mut items, mut looked) = (Vec::new(), 0);
    while items.len() < limit.clamp(1, PAGE_MAX) && looked < LOOKED_AT_MAX {
        let Some(row) = rows.next()? else { break };
        looked += 1;
        mark = row.get("n")?;
        if row.get("fits")? {
            items.push(read(row)?);
        }
    }
    Ok((items, mark))
}

fn transition(row: &Row<'_>) -> rusqlite::Result<TransitionView> {
    Ok(TransitionView::from(&*step(row)?))
}

fn alerts_along(filter: &AlertFilter) -> String {
    let along = match filter {
        AlertFilter { job: Some(_), .. } => format!("alert_by_subject WHERE {OF_JOB} AND subject = :job"),
        AlertFilter { standing: Some(true), .. } => "alert_standing WHERE NOT resolved".into(),
        AlertFilter { .. } => "alert_by_time WHERE true".into(),
    };
    format!(
        "SELECT *, (:source IS NULL OR source = :source) AND (:rule IS NULL OR rule = :rule)
             AND (:severity IS NULL OR severity = :severity) AND (:job IS NULL OR subject = :job)
             AND (:standing IS NULL OR resolved <> :standing) AS fits
         FROM alert INDEXED BY {along} AND last_seen >= :since AND (last_seen, id) < (:at, :id)
         ORDER BY last_seen DESC, id DESC"
    )
}

pub(super) fn alerts(connection: &Connection, filter: &AlertFilter) -> rusqlite::Result<Page<AlertView, AlertKey>> {
    let (at, id) = match &filter.before {
        Some(Cursor((at, id))) => (*at, id.as_str()),
        None => (i64::MAX, ""),
    };
    let mut select = connection.prepare_cached(&alerts_along(filter))?;
    let rows = select.query(named_params! {
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":rule": filter.rule.as_ref().map(RuleId::as_str),
        ":severity": filter.severity.map(|severity| severity.as_str()),
        ":job": filter.job,
        ":standing": filter.standing,
        ":since": micros(filter.since),
        ":at": at,
        ":id": id,
    })?;
    let key = |row: &Row<'_>| Ok((row.get("last_seen")?, AlertId::from(row.get::<_, String>("id")?)));
    page(rows, filter.limit, key, |row| alert(connection, row))
}

pub(super) fn alert_of(connection: &Connection, id: &AlertId) -> rusqlite::Result<Option<AlertView>> {
    connection
        .prepare_cached("SELECT * FROM alert WHERE id = ?1")?
        .query_row([id.as_str()], |row| alert(connection, row))
        .optional()
}

fn alert(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<AlertView> {
    let id = AlertId::from(row.get::<_, String>("id")?);
    let source = source(row, "source")?;
    let subject = JobId::from(row.get::<_, String>("subject")?);
    let job = connection
        .prepare_cached("SELECT * FROM job WHERE source = ?1 AND id = ?2")?
        .query_row([source.as_str(), subject.as_str()], known)
        .optional()?;
    // `told` has what a cooldown or an end needs; the others stand in the fates of the job that was last spoken of.
    let told = connection
        .prepare_cached(
            "SELECT t.*, d.ended_at, coalesce(d.state, iif(EXISTS (SELECT 1 FROM held AS h WHERE h.id = t.delivery),
                 'held', 'forgotten')) AS state
             FROM (SELECT receiver, delivery, at, held_back FROM told WHERE alert = :alert
                   UNION ALL
                   SELECT receiver, delivery, max(at), 0 FROM fate WHERE source = :source AND job = :job AND rule = :rule
                   AND outcome = 'told' AND delivery IS NOT NULL AND at >= :began
                   AND receiver NOT IN (SELECT receiver FROM told WHERE alert = :alert) GROUP BY receiver) AS t
             LEFT JOIN delivery AS d ON d.id = t.delivery ORDER BY t.receiver",
        )?
        .query_map(
            named_params! {
                ":alert": id.as_str(),
                ":source": source.as_str(),
                ":job": subject.as_str(),
                ":rule": row.get_ref("rule")?.as_str()?,
                ":began": row.get::<_, i64>("first_seen")?,
            },
            told,
        )?
        .collect::<rusqlite::Result<_>>()?;
    let muted = |row: &Row<'_>| Ok(MutedView { job: JobId::from(row.get::<_, String>(0)?), by: row.get(1)? });
    let muted = connection
        .prepare_cached("SELECT job_id, by FROM muted WHERE alert = ?1 ORDER BY job_id LIMIT 100")?
        .query_map([id.as_str()], muted)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(AlertView {
        id,
        rule: RuleId::from(row.get::<_, String>("rule")?),
        source,
        severity: severity(row)?,
        standing: !row.get::<_, bool>("resolved")?,
        subject,
        job: job.map(|(_, known)| known.job),
        resource: text(row, "resource")?,
        count: row.get("count")?,
        first_seen: instant(row, "first_seen")?,
        last_seen: instant(row, "last_seen")?,
        told,
        muted,
    })
}

fn told(row: &Row<'_>) -> rusqlite::Result<ToldView> {
    let state: String = row.get("state")?;
    Ok(ToldView {
        receiver: ReceiverName::from(row.get::<_, String>("receiver")?),
        delivery: DeliveryId::from(row.get::<_, String>("delivery")?),
        decided_at: instant(row, "at")?,
        delivered_at: time(row, "ended_at")?.filter(|_| state == "delivered"),
        state,
        held_back: row.get("held_back")?,
    })
}

const DELIVERY_FITS: &str = "(:receiver IS NULL OR receiver = :receiver) AND (:state IS NULL OR state = :state)
    AND (:source IS NULL OR source = :source) AND (:job IS NULL OR subject = :job) AND created_at >= :since";

fn deliveries_along(filter: &Filter) -> String {
    use crate::model::delivery::DeliveryState::{Dead, Delivered, Dropped, Pending};
    let along = match (filter, filter.state) {
        (Filter { job: Some(_), .. }, _) => "delivery_by_subject WHERE subject = :job",
        (_, Some(Dead)) => "delivery_given_up WHERE state = 'dead'",
        (_, Some(Dropped)) => "delivery_given_up WHERE state = 'dropped'",
        (Filter { receiver: Some(_), .. }, Some(Pending | Delivered) | None) => {
            "delivery_recent WHERE receiver = :receiver"
        }
        (Filter { receiver: None, .. }, Some(Pending | Delivered) | None) => "delivery_by_time WHERE true",
    };
    format!(
        "SELECT *, {DELIVERY_FITS} AS fits FROM delivery INDEXED BY {along} AND created_at >= :since
         AND (created_at, n) < (:at, :n) ORDER BY created_at DESC, n DESC"
    )
}

pub(super) fn deliveries(connection: &Connection, filter: &Filter) -> rusqlite::Result<Page<Delivery, NumberKey>> {
    let (at, n) = newest(filter.before.as_ref());
    let mut select = connection.prepare_cached(&deliveries_along(filter))?;
    let rows = select.query(named_params! {
        ":receiver": filter.receiver.as_ref().map(ReceiverName::as_str),
        ":state": filter.state.map(|state| state.as_str()),
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":job": filter.job,
        ":since": micros(filter.since),
        ":at": at,
        ":n": n,
    })?;
    page(rows, filter.limit, |row| number_key(row, "created_at"), delivery)
}

pub(super) fn deliveries_after(
    connection: &Connection,
    filter: &Filter,
    mark: i64,
) -> rusqlite::Result<(Vec<Delivery>, i64)> {
    let statement = format!("SELECT *, {DELIVERY_FITS} AS fits FROM delivery WHERE n > :mark ORDER BY n");
    let mut select = connection.prepare_cached(&statement)?;
    let rows = select.query(named_params! {
        ":receiver": filter.receiver.as_ref().map(ReceiverName::as_str),
        ":state": filter.state.map(|state| state.as_str()),
        ":source": filter.source.as_ref().map(SourceName::as_str),
        ":job": filter.job,
        ":since": micros(filter.since),
        ":mark": mark,
    })?;
    news(rows, mark, filter.limit, delivery)
}

pub(super) fn delivery_of(connection: &Connection, id: &DeliveryId) -> rusqlite::Result<Option<Delivery>> {
    connection.prepare_cached("SELECT * FROM delivery WHERE id = ?1")?.query_row([id.as_str()], delivery).optional()
}

/// The numbers of the last transition and of the last delivery.
pub(super) fn marks(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let last = |table: &str| {
        connection.prepare_cached(&format!("SELECT coalesce(max(n), 0) FROM {table}"))?.query_row([], |row| row.get(0))
    };
    Ok((last("transition")?, last("delivery")?))
}

const HELD: &str = "SELECT receiver, count(*) FROM held GROUP BY receiver";
// In the words of the index, which SQLite compares literally.
const DEAD: &str = "SELECT receiver, count(*) FROM delivery WHERE state IN ('dead', 'dropped') AND state = 'dead'
    GROUP BY receiver";

pub(super) fn outbox(connection: &Connection) -> rusqlite::Result<Vec<OutboxView>> {
    let mut found: BTreeMap<String, OutboxView> = BTreeMap::new();
    let blank = |name: &str| OutboxView {
        receiver: ReceiverName::from(name),
        pending: 0,
        oldest_at: None,
        held: 0,
        dead: 0,
        trouble: Trouble::default(),
    };
    let mut of = |name: String, say: &mut dyn FnMut(&mut OutboxView)| {
        let blank = blank(&name);
        say(found.entry(name).or_insert(blank));
    };
    for Backlog { receiver, pending, oldest } in gauge::pending(connection)? {
        of(receiver.to_string(), &mut |view| (view.pending, view.oldest_at) = (pending, Some(oldest)));
    }
    for (statement, held) in [(HELD, true), (DEAD, false)] {
        let mut select = connection.prepare_cached(statement)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let many = count(row, 1)?;
            of(row.get(0)?, &mut |view| *(if held { &mut view.held } else { &mut view.dead }) = many);
        }
    }
    let mut troubles = connection.prepare_cached("SELECT * FROM trouble")?;
    let mut rows = troubles.query([])?;
    while let Some(row) = rows.next()? {
        let trouble = outbox::trouble(row)?;
        of(row.get("receiver")?, &mut |view| view.trouble = trouble);
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::model::delivery::DeliveryState;
    use crate::store::sqlite::migrate;
    use crate::store::sqlite::outbox::tests::plan;

    #[test]
    fn every_list_goes_along_an_index_in_its_own_order_and_sorts_nothing_but_one_job_s_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, 0).unwrap();
        let source = Some(SourceName::from("prod"));
        let job = Some("a".to_owned());
        let receiver = Some(ReceiverName::from("oncall"));
        let by_state = |state| Filter { state: Some(state), ..Filter::default() };
        for (statement, index) in [
            (jobs_along(&JobFilter::default()), "job_by_time (status_since"),
            (
                jobs_along(&JobFilter { source: source.clone(), ..JobFilter::default() }),
                "job_by_source_and_time (source=? AND status_since",
            ),
            (steps_along(&TransitionFilter::default()), "transition_by_time (seen_at"),
            (
                steps_along(&TransitionFilter { source: source.clone(), ..TransitionFilter::default() }),
                "transition_by_source_and_time (source=? AND seen_at",
            ),
            (alerts_along(&AlertFilter::default()), "alert_by_time (last_seen"),
            (
                alerts_along(&AlertFilter { standing: Some(true), ..AlertFilter::default() }),
                "alert_standing (last_seen",
            ),
            (deliveries_along(&Filter::default()), "delivery_by_time (created_at"),
            (deliveries_along(&Filter { receiver, ..Filter::default() }), "delivery_recent (receiver=? AND created_at"),
            (
                deliveries_along(&Filter { job: job.clone(), ..Filter::default() }),
                "delivery_by_subject (subject=? AND created_at",
            ),
            (deliveries_along(&by_state(DeliveryState::Dead)), "delivery_given_up (state=? AND created_at"),
            (deliveries_along(&by_state(DeliveryState::Dropped)), "delivery_given_up (state=? AND created_at"),
            (JOBS_BY_STATUS.into(), "COVERING INDEX job_by_status (source=?"),
            (DEAD.into(), "COVERING INDEX delivery_ended (state=?"),
            (gauge::PENDING.into(), "COVERING INDEX delivery_lane"),
            (HELD.into(), "COVERING INDEX held_"),
        ] {
            let plan = plan(&connection, &statement);
            assert!(plan.contains(index), "{statement}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{statement}\n{plan}");
            let counts = statement == gauge::PENDING || statement == HELD;
            assert!(
                counts || !plan.lines().any(|line| line.starts_with("SCAN") && !line.contains("json_each")),
                "{plan}"
            );
        }
        for (statement, index) in [
            (
                steps_along(&TransitionFilter { job: job.clone(), ..TransitionFilter::default() }),
                "transition_by_job (source=? AND job_id=?",
            ),
            (alerts_along(&AlertFilter { job, ..AlertFilter::default() }), "alert_by_subject (source=? AND subject=?"),
        ] {
            let plan = plan(&connection, &statement);
            assert!(plan.contains(index), "{statement}\n{plan}");
        }
    }
}
