//! What people look at, in PostgreSQL: each list in its own order, from an index in that order where there is one.
//!
//! Texts are compared byte by byte (`COLLATE "C"`) wherever their order is seen, so that lists and their cursors are the same
//! in every locale of a database, and the same as in SQLite.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, Row};

use super::finding::severity;
use super::gauge;
use super::past::step;
use super::value::{Txt, flag, instant, many, maybe, number, string, text, time, values};
use super::{Fault, attempt, delivery, known};
use crate::model::job::Job;
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName};
use crate::model::time::Timestamp;
use crate::model::transition::State;
use crate::store::view::{
    AlertFilter, AlertKey, AlertView, Cursor, JobFilter, JobKey, JobView, Key, MutedView, NumberKey, OutboxView,
    PAGE_MAX, Page, SourceFilter, SourceKey, SourceView, ToldView, TransitionFilter, TransitionView,
};
use crate::store::{AttemptRow, Backlog, Delivery, Dossier, Filter, Trouble};

/// The rows of a page, and where the next one begins, of rows of which one more than wanted was asked for.
fn page<K: Key>(
    mut rows: Vec<Row>,
    limit: usize,
    key: impl Fn(&Row) -> Result<K, Fault>,
) -> Result<(Vec<Row>, Option<Cursor<K>>), Fault> {
    let limit = bounded(limit);
    if rows.len() <= limit {
        return Ok((rows, None));
    }
    rows.truncate(limit);
    let last = rows.last().map(key).transpose()?;
    Ok((rows, last.map(Cursor)))
}

fn bounded(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

/// So many rows are asked for: one more than wanted says that there are more.
fn asked(limit: usize) -> i64 {
    many(bounded(limit) + 1)
}

fn number_key(row: &Row, at: &str) -> Result<NumberKey, Fault> {
    Ok((number(row, at)?, number(row, "n")?))
}

/// Before everything that comes next.
fn newest(before: Option<&Cursor<NumberKey>>) -> NumberKey {
    before.map_or((i64::MAX, i64::MAX), |cursor| cursor.0)
}

fn source(row: &Row, column: &str) -> Result<SourceName, Fault> {
    Ok(SourceName::from(string(row, column)?))
}

fn named(source: Option<&SourceName>) -> Option<Txt<'_>> {
    maybe(source.map(SourceName::as_str))
}

fn micros(at: Option<Timestamp>) -> i64 {
    at.map_or(i64::MIN, Timestamp::micros)
}

fn word(state: Option<&State>) -> Option<String> {
    state.map(State::to_string)
}

pub(super) async fn sources(client: &Client, filter: &SourceFilter) -> Result<Page<SourceView, SourceKey>, Fault> {
    let after = filter.before.as_ref().map_or("", |Cursor((name,))| name.as_str());
    let rows = client
        .query_typed(
            r#"SELECT * FROM jobwatch.source WHERE ($1::text IS NULL OR name = $1) AND name COLLATE "C" > $2
               ORDER BY name COLLATE "C" LIMIT $3"#,
            values![named(filter.source.as_ref()), Txt(after), asked(filter.limit)],
        )
        .await?;
    let (rows, next) = page(rows, filter.limit, |row| Ok((source(row, "name")?,)))?;
    let names = rows.iter().map(|row| string(row, "name")).collect::<Result<Vec<_>, _>>()?;
    let mut counts = jobs_by_status(client, &names).await?;
    let view = |row: &Row| {
        let name = source(row, "name")?;
        let (jobs, gone) = counts.remove(name.as_str()).unwrap_or_default();
        Ok(SourceView {
            complete_at: time(row, "complete_at")?,
            blind_since: time(row, "blind_since")?,
            told_since: time(row, "told_since")?,
            jobs,
            gone,
            name,
        })
    };
    Ok(Page { items: rows.iter().map(view).collect::<Result<_, Fault>>()?, next })
}

/// How many jobs of each source are in which status, and how many are gone; from the index alone.
async fn jobs_by_status(
    client: &Client,
    sources: &[String],
) -> Result<HashMap<String, (BTreeMap<String, u64>, u64)>, Fault> {
    let mut found: HashMap<String, (BTreeMap<String, u64>, u64)> = HashMap::new();
    if sources.is_empty() {
        return Ok(found);
    }
    let names: Vec<Txt<'_>> = sources.iter().map(|name| Txt(name)).collect();
    let rows = client
        .query_typed(
            "SELECT source, status, gone, count(*) AS count FROM jobwatch.job WHERE source = ANY($1)
             GROUP BY source, status, gone",
            values![names],
        )
        .await?;
    for row in &rows {
        let (by_status, gone) = found.entry(string(row, "source")?).or_default();
        let count: u64 = number(row, "count")?;
        match flag(row, "gone")? {
            true => *gone += count,
            false => drop(by_status.insert(string(row, "status")?, count)),
        }
    }
    Ok(found)
}

pub(super) async fn jobs(client: &Client, filter: &JobFilter) -> Result<Page<JobView, JobKey>, Fault> {
    let (at, before_source, before_id) = match &filter.before {
        Some(Cursor((at, source, id))) => (*at, source.as_str(), id.as_str()),
        None => (i64::MAX, "", ""),
    };
    let states: Vec<String> = filter.states.iter().map(State::to_string).collect();
    let states: Vec<Txt<'_>> = states.iter().map(|state| Txt(state)).collect();
    let rows = client
        .query_typed(
            r#"SELECT * FROM jobwatch.job WHERE ($1::text IS NULL OR source = $1)
                   AND (cardinality($2::text[]) = 0 OR CASE WHEN gone THEN 'gone' ELSE status END = ANY($2))
                   AND ($3::text IS NULL OR id = $3 OR resource_name = $3 OR resource_id = $3)
                   AND status_since >= $4
                   AND (status_since, source COLLATE "C", id COLLATE "C") < ($5, $6, $7)
               ORDER BY status_since DESC, source COLLATE "C" DESC, id COLLATE "C" DESC LIMIT $8"#,
            values![
                named(filter.source.as_ref()),
                states,
                maybe(filter.job.as_deref()),
                micros(filter.since),
                at,
                Txt(before_source),
                Txt(before_id),
                asked(filter.limit),
            ],
        )
        .await?;
    let key = |row: &Row| Ok((number(row, "status_since")?, source(row, "source")?, JobId::from(string(row, "id")?)));
    let (rows, next) = page(rows, filter.limit, key)?;
    let view = |row: &Row| {
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
    };
    Ok(Page { items: rows.iter().map(view).collect::<Result<_, Fault>>()?, next })
}

/// Which steps are wanted; `$1` to `$5`.
const STEP_FITS: &str = "($1::text IS NULL OR source = $1) AND ($2::text IS NULL OR job_id = $2)
    AND ($3::text IS NULL OR from_state = $3) AND ($4::text IS NULL OR to_state = $4) AND seen_at >= $5";

fn steps_along(filter: &TransitionFilter) -> String {
    let rows = match filter.job {
        // One job's, and there are few sources beside jobs: all of them are read, rather than history searched in its order.
        Some(_) => {
            "WITH of_job AS MATERIALIZED (SELECT * FROM jobwatch.transition WHERE job_id = $2 AND source IN
                 (SELECT name FROM jobwatch.source WHERE $1::text IS NULL OR name = $1)) SELECT * FROM of_job"
        }
        None => "SELECT * FROM jobwatch.transition",
    };
    format!("{rows} WHERE {STEP_FITS} AND (seen_at, n) < ($6, $7) ORDER BY seen_at DESC, n DESC LIMIT $8")
}

pub(super) async fn transitions(
    client: &Client,
    filter: &TransitionFilter,
) -> Result<Page<TransitionView, NumberKey>, Fault> {
    let (at, n) = newest(filter.before.as_ref());
    let (from, to) = (word(filter.from.as_ref()), word(filter.to.as_ref()));
    let rows = client
        .query_typed(
            &steps_along(filter),
            values![
                named(filter.source.as_ref()),
                maybe(filter.job.as_deref()),
                maybe(from.as_deref()),
                maybe(to.as_deref()),
                micros(filter.since),
                at,
                n,
                asked(filter.limit),
            ],
        )
        .await?;
    let (rows, next) = page(rows, filter.limit, |row| number_key(row, "seen_at"))?;
    Ok(Page { items: rows.iter().map(transition).collect::<Result<_, _>>()?, next })
}

fn transition(row: &Row) -> Result<TransitionView, Fault> {
    Ok(TransitionView::from(&*step(row)?))
}

pub(super) async fn transitions_after(
    client: &Client,
    filter: &TransitionFilter,
    mark: i64,
) -> Result<(Vec<TransitionView>, i64), Fault> {
    let after = After::of(mark);
    let horizon = horizon(client).await?;
    let (from, to) = (word(filter.from.as_ref()), word(filter.to.as_ref()));
    let fits = async {
        let statement = news_along("transition", STEP_FITS, [6, 7, 8, 9]);
        let rows = client
            .query_typed(
                &statement,
                values![
                    named(filter.source.as_ref()),
                    maybe(filter.job.as_deref()),
                    maybe(from.as_deref()),
                    maybe(to.as_deref()),
                    micros(filter.since),
                    after.tx,
                    after.n,
                    horizon,
                    asked(filter.limit),
                ],
            )
            .await?;
        Ok::<_, Fault>(rows)
    };
    let (rows, last) = tokio::try_join!(fits, last(client, "transition", &after, horizon))?;
    let (rows, mark) = news(rows, filter.limit, mark, last)?;
    Ok((rows.iter().map(transition).collect::<Result<_, _>>()?, mark))
}

// What is new.
//
// Numbers are given out in another order than transactions end: who goes by `n` alone steps over a row whose transaction is
// still open. Nor does it help to leave out rows of transactions from `pg_snapshot_xmin` on, because `n` and the transaction's
// own number are given out in different orders, too. So rows are followed in the order of (tx, n), as far as below it all
// transactions have ended: whatever is committed later has a higher `tx`, and comes later in that order. (The technique is
// known as that of the transactional outbox with `xid8`: https://event-driven.io/en/ordering_in_postgres_outbox/. That the open
// transactions are taken from `pg_locks` is the way of CREATE INDEX CONCURRENTLY, which waits for just those that hold a
// lock on its table.)
//
// A mark is a transaction's number: everything up to its last row was seen. When a page ended amid the rows of one, the mark
// is the negative number `n` of the last row seen.

/// The place in the order of (tx, n) behind which is what is new.
struct After {
    /// Its transaction, unless the row says which.
    tx: Option<i64>,
    /// The number of its row.
    n: i64,
}

impl After {
    fn of(mark: i64) -> Self {
        match mark {
            0.. => Self { tx: Some(mark), n: i64::MAX },
            ..0 => Self { tx: None, n: mark.saturating_neg() },
        }
    }
}

/// The place as a row value, of the values with these numbers. Should the row be forgotten that it was, the next one counts.
fn place(table: &str, tx: usize, n: usize) -> String {
    format!(
        "(coalesce(${tx}::text::xid8, (SELECT m.tx FROM jobwatch.{table} AS m WHERE m.n >= ${n} ORDER BY m.n LIMIT 1)), ${n})"
    )
}

/// What is new in a table, of the values with these numbers: place, horizon, limit.
fn news_along(table: &str, fits: &str, [tx, n, horizon, limit]: [usize; 4]) -> String {
    let place = place(table, tx, n);
    format!(
        "SELECT *, tx::text::bigint AS by FROM jobwatch.{table}
         WHERE {fits} AND (tx, n) > {place} AND tx < ${horizon}::text::xid8 ORDER BY tx, n LIMIT ${limit}"
    )
}

/// The last transaction that wrote a row behind that place, also when nobody wants it.
async fn last(client: &Client, table: &str, after: &After, horizon: i64) -> Result<Option<i64>, Fault> {
    let place = place(table, 1, 2);
    let row = client
        .query_typed_opt(
            &format!(
                "SELECT tx::text::bigint AS by FROM jobwatch.{table}
                 WHERE (tx, n) > {place} AND tx < $3::text::xid8 ORDER BY tx DESC LIMIT 1"
            ),
            values![after.tx, after.n, horizon],
        )
        .await?;
    row.map(|row| number(&row, "by")).transpose()
}

/// What is shown of rows of which one more than wanted was asked for, and where to go on.
fn news(mut rows: Vec<Row>, limit: usize, mark: i64, last: Option<i64>) -> Result<(Vec<Row>, i64), Fault> {
    let limit = bounded(limit);
    if rows.len() <= limit {
        return Ok((rows, last.unwrap_or(mark)));
    }
    let following: i64 = number(&rows[limit], "by")?;
    rows.truncate(limit);
    let (tx, n): (i64, i64) = (number(&rows[limit - 1], "by")?, number(&rows[limit - 1], "n")?);
    Ok((rows, if following == tx { -n } else { tx }))
}

/// The lowest number of a transaction that may still write something here: those below it have ended, and every later statement
/// sees what they wrote. A later one is needed.
///
/// A transaction of this program takes its number with its first change, for which it has locked a table of ours by then, until
/// it ends; so one that had its number when the statement began and has not ended is found by that lock. Others in the same
/// database server, which may be open for hours, do not matter, as they would to `pg_snapshot_xmin`.
async fn horizon(client: &Client) -> Result<i64, Fault> {
    let row = client.query_typed_one(HORIZON, values![]).await?;
    number(&row, "horizon")
}

// Locks are looked at once. They know 32 bits of a transaction's number: it is counted back from the first that had not ended
// (`next`); what is younger is left out. A number is taken a moment before it is locked, too: who has none yet counts as the
// oldest of all. Vacuuming locks nothing in these modes but indexes.
const HORIZON: &str = "WITH lock AS MATERIALIZED (SELECT * FROM pg_locks),
    clock AS (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next,
              pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest),
    writer AS (SELECT virtualtransaction FROM lock
               WHERE locktype = 'relation' AND mode IN ('RowShareLock', 'RowExclusiveLock')
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND relation IN (SELECT oid FROM pg_class
                                WHERE relnamespace = 'jobwatch'::regnamespace AND relkind IN ('r', 'S'))),
    open AS (SELECT coalesce((next - taken.transactionid::text::bigint) & 4294967295, next - oldest) AS behind
             FROM clock CROSS JOIN writer LEFT JOIN lock AS taken ON taken.locktype = 'transactionid'
             AND taken.mode = 'ExclusiveLock' AND taken.granted
             AND taken.virtualtransaction = writer.virtualtransaction)
    SELECT next - coalesce((SELECT max(behind) FROM open WHERE behind < 2147483648), 0) AS horizon FROM clock";

/// Where to begin to follow transitions, and deliveries: behind everything that has ended.
pub(super) async fn marks(client: &Client) -> Result<(i64, i64), Fault> {
    let seen = horizon(client).await? - 1;
    Ok((seen, seen))
}

fn alerts_along(filter: &AlertFilter) -> String {
    let rows = match filter.job {
        Some(_) => {
            "WITH of_job AS MATERIALIZED (SELECT * FROM jobwatch.alert WHERE subject = $4 AND source IN
                 (SELECT name FROM jobwatch.source WHERE $1::text IS NULL OR name = $1)) SELECT * FROM of_job"
        }
        None => "SELECT * FROM jobwatch.alert",
    };
    format!(
        r#"{rows} WHERE ($1::text IS NULL OR source = $1) AND ($2::text IS NULL OR rule = $2)
               AND ($3::text IS NULL OR severity = $3) AND ($4::text IS NULL OR subject = $4)
               AND ($5::boolean IS NULL OR resolved <> $5) AND last_seen >= $6
               AND (last_seen, id COLLATE "C") < ($7, $8)
           ORDER BY last_seen DESC, id COLLATE "C" DESC LIMIT $9"#
    )
}

pub(super) async fn alerts(client: &Client, filter: &AlertFilter) -> Result<Page<AlertView, AlertKey>, Fault> {
    let (at, id) = match &filter.before {
        Some(Cursor((at, id))) => (*at, id.as_str()),
        None => (i64::MAX, ""),
    };
    let rows = client
        .query_typed(
            &alerts_along(filter),
            values![
                named(filter.source.as_ref()),
                maybe(filter.rule.as_ref().map(RuleId::as_str)),
                maybe(filter.severity.map(|severity| severity.as_str())),
                maybe(filter.job.as_deref()),
                filter.standing,
                micros(filter.since),
                at,
                Txt(id),
                asked(filter.limit),
            ],
        )
        .await?;
    let key = |row: &Row| Ok((number(row, "last_seen")?, AlertId::from(string(row, "id")?)));
    let (rows, next) = page(rows, filter.limit, key)?;
    Ok(Page { items: about(client, &rows).await?, next })
}

pub(super) async fn alert_of(client: &Client, id: &AlertId) -> Result<Option<AlertView>, Fault> {
    let rows = client.query_typed("SELECT * FROM jobwatch.alert WHERE id = $1", values![Txt(id.as_str())]).await?;
    Ok(about(client, &rows).await?.pop())
}

/// Rows of `alert`, with everything about them.
async fn about(client: &Client, rows: &[Row]) -> Result<Vec<AlertView>, Fault> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut views = rows.iter().map(alert).collect::<Result<Vec<_>, _>>()?;
    let (mut jobs, mut told, mut muted) =
        tokio::try_join!(subjects(client, &views), told_of(client, &views), muted_of(client, &views))?;
    for view in &mut views {
        let id = view.id.as_str();
        (view.job, view.told, view.muted) =
            (jobs.remove(id), told.remove(id).unwrap_or_default(), muted.remove(id).unwrap_or_default());
    }
    Ok(views)
}

fn alert(row: &Row) -> Result<AlertView, Fault> {
    Ok(AlertView {
        id: AlertId::from(string(row, "id")?),
        rule: RuleId::from(string(row, "rule")?),
        source: source(row, "source")?,
        severity: severity(row)?,
        standing: !flag(row, "resolved")?,
        subject: JobId::from(string(row, "subject")?),
        job: None,
        resource: text(row, "resource")?,
        count: number(row, "count")?,
        first_seen: instant(row, "first_seen")?,
        last_seen: instant(row, "last_seen")?,
        told: Vec::new(),
        muted: Vec::new(),
    })
}

/// The jobs that alerts last spoke of, by alert.
async fn subjects(client: &Client, alerts: &[AlertView]) -> Result<HashMap<String, Job>, Fault> {
    let ids: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.id.as_str())).collect();
    let sources: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.source.as_str())).collect();
    let subjects: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.subject.as_str())).collect();
    let rows = client
        .query_typed(
            "SELECT a.alert, j.* FROM unnest($1::text[], $2::text[], $3::text[]) AS a(alert, in_source, subject)
             JOIN jobwatch.job AS j ON j.source = a.in_source AND j.id = a.subject",
            values![ids, sources, subjects],
        )
        .await?;
    rows.iter().map(|row| Ok((string(row, "alert")?, known(row)?.1.job))).collect()
}

/// Who was told of alerts, by alert and in the order of their names.
async fn told_of(client: &Client, alerts: &[AlertView]) -> Result<HashMap<String, Vec<ToldView>>, Fault> {
    let ids: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.id.as_str())).collect();
    let sources: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.source.as_str())).collect();
    let subjects: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.subject.as_str())).collect();
    let rules: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.rule.as_str())).collect();
    let began: Vec<i64> = alerts.iter().map(|alert| alert.first_seen.micros()).collect();
    let mut found: HashMap<String, Vec<ToldView>> = HashMap::new();
    for row in client.query_typed(TOLD, values![ids, sources, subjects, rules, began]).await? {
        found.entry(string(&row, "alert")?).or_default().push(told(&row)?);
    }
    Ok(found)
}

/// `told` has what a cooldown or an end needs; the others stand in the fates of the job that was last spoken of.
const TOLD: &str = r#"SELECT t.*, d.ended_at, coalesce(d.state, CASE WHEN EXISTS
        (SELECT 1 FROM jobwatch.held AS h WHERE h.id = t.delivery) THEN 'held' ELSE 'forgotten' END) AS state
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS a(id, source, subject, rule, began),
         LATERAL (SELECT alert, receiver, delivery, at, held_back FROM jobwatch.told WHERE alert = a.id
                  UNION ALL
                  (SELECT DISTINCT ON (f.receiver) a.id, f.receiver, f.delivery, f.at, 0 FROM jobwatch.fate AS f
                   WHERE f.source = a.source AND f.job = a.subject AND f.rule = a.rule AND f.outcome = 'told'
                   AND f.delivery IS NOT NULL AND f.at >= a.began
                   AND f.receiver NOT IN (SELECT o.receiver FROM jobwatch.told AS o WHERE o.alert = a.id)
                   ORDER BY f.receiver, f.at DESC, f.transition COLLATE "C")) AS t
    LEFT JOIN jobwatch.delivery AS d ON d.id = t.delivery ORDER BY t.receiver COLLATE "C""#;

fn told(row: &Row) -> Result<ToldView, Fault> {
    let state = string(row, "state")?;
    Ok(ToldView {
        receiver: ReceiverName::from(string(row, "receiver")?),
        delivery: DeliveryId::from(string(row, "delivery")?),
        decided_at: instant(row, "at")?,
        delivered_at: time(row, "ended_at")?.filter(|_| state == "delivered"),
        state,
        held_back: number(row, "held_back")?,
    })
}

/// Jobs of which nobody was told, by alert.
async fn muted_of(client: &Client, alerts: &[AlertView]) -> Result<HashMap<String, Vec<MutedView>>, Fault> {
    let ids: Vec<Txt<'_>> = alerts.iter().map(|alert| Txt(alert.id.as_str())).collect();
    let rows = client
        .query_typed(
            r#"SELECT a.id AS alert, m.job_id, m.by FROM unnest($1::text[]) AS a(id),
                   LATERAL (SELECT job_id, by FROM jobwatch.muted WHERE alert = a.id
                            ORDER BY job_id COLLATE "C" LIMIT 100) AS m
               ORDER BY m.job_id COLLATE "C""#,
            values![ids],
        )
        .await?;
    let mut found: HashMap<String, Vec<MutedView>> = HashMap::new();
    for row in &rows {
        let muted = MutedView { job: JobId::from(string(row, "job_id")?), by: string(row, "by")? };
        found.entry(string(row, "alert")?).or_default().push(muted);
    }
    Ok(found)
}

/// Which deliveries are wanted; `$1` to `$5`.
const DELIVERY_FITS: &str = "($1::text IS NULL OR receiver = $1) AND ($2::text IS NULL OR state = $2)
    AND ($3::text IS NULL OR source = $3) AND ($4::text IS NULL OR subject = $4) AND created_at >= $5";

pub(super) async fn deliveries(client: &Client, filter: &Filter) -> Result<Page<Delivery, NumberKey>, Fault> {
    let (at, n) = newest(filter.before.as_ref());
    let rows = client
        .query_typed(
            &format!(
                "SELECT * FROM jobwatch.delivery WHERE {DELIVERY_FITS} AND (created_at, n) < ($6, $7)
                 ORDER BY created_at DESC, n DESC LIMIT $8"
            ),
            values![
                maybe(filter.receiver.as_ref().map(ReceiverName::as_str)),
                maybe(filter.state.map(|state| state.as_str())),
                named(filter.source.as_ref()),
                maybe(filter.job.as_deref()),
                micros(filter.since),
                at,
                n,
                asked(filter.limit),
            ],
        )
        .await?;
    let (rows, next) = page(rows, filter.limit, |row| number_key(row, "created_at"))?;
    Ok(Page { items: rows.iter().map(delivery).collect::<Result<_, _>>()?, next })
}

pub(super) async fn deliveries_after(
    client: &Client,
    filter: &Filter,
    mark: i64,
) -> Result<(Vec<Delivery>, i64), Fault> {
    let after = After::of(mark);
    let horizon = horizon(client).await?;
    let fits = async {
        let statement = news_along("delivery", DELIVERY_FITS, [6, 7, 8, 9]);
        let rows = client
            .query_typed(
                &statement,
                values![
                    maybe(filter.receiver.as_ref().map(ReceiverName::as_str)),
                    maybe(filter.state.map(|state| state.as_str())),
                    named(filter.source.as_ref()),
                    maybe(filter.job.as_deref()),
                    micros(filter.since),
                    after.tx,
                    after.n,
                    horizon,
                    asked(filter.limit),
                ],
            )
            .await?;
        Ok::<_, Fault>(rows)
    };
    let (rows, last) = tokio::try_join!(fits, last(client, "delivery", &after, horizon))?;
    let (rows, mark) = news(rows, filter.limit, mark, last)?;
    Ok((rows.iter().map(delivery).collect::<Result<_, _>>()?, mark))
}

pub(super) async fn delivery_of(client: &Client, id: &DeliveryId) -> Result<Option<Delivery>, Fault> {
    let row =
        client.query_typed_opt("SELECT * FROM jobwatch.delivery WHERE id = $1", values![Txt(id.as_str())]).await?;
    row.as_ref().map(delivery).transpose()
}

pub(super) async fn outbox(client: &Client) -> Result<Vec<OutboxView>, Fault> {
    let (pending, held, dead, troubles) =
        tokio::try_join!(gauge::pending(client), count(client, HELD), count(client, DEAD), troubles(client))?;
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
    for Backlog { receiver, pending, oldest } in pending {
        of(receiver.to_string(), &mut |view| (view.pending, view.oldest_at) = (pending, Some(oldest)));
    }
    for (receiver, held) in held {
        of(receiver, &mut |view| view.held = held);
    }
    for (receiver, dead) in dead {
        of(receiver, &mut |view| view.dead = dead);
    }
    for (receiver, trouble) in troubles {
        of(receiver, &mut |view| view.trouble = trouble);
    }
    Ok(found.into_values().collect())
}

const HELD: &str = "SELECT receiver, count(*) AS count FROM jobwatch.held GROUP BY receiver";
const DEAD: &str = "SELECT receiver, count(*) AS count FROM jobwatch.delivery WHERE state = 'dead' GROUP BY receiver";

async fn count(client: &Client, statement: &str) -> Result<Vec<(String, u64)>, Fault> {
    let rows = client.query_typed(statement, values![]).await?;
    rows.iter().map(|row| Ok((string(row, "receiver")?, number(row, "count")?))).collect()
}

async fn troubles(client: &Client) -> Result<Vec<(String, Trouble)>, Fault> {
    let rows = client.query_typed("SELECT * FROM jobwatch.trouble", values![]).await?;
    let trouble = |row: &Row| {
        let trouble = Trouble {
            refused: flag(row, "refused")?,
            dead: flag(row, "dead")?,
            retired: flag(row, "retired")?,
            held_since: time(row, "held_since")?,
        };
        Ok((string(row, "receiver")?, trouble))
    };
    rows.iter().map(trouble).collect()
}

pub(super) async fn dossier(client: &Client, id: &DeliveryId) -> Result<Option<Dossier>, Fault> {
    let (found, attempts) = tokio::try_join!(with_payload(client, id), attempts(client, id))?;
    Ok(found.map(|(delivery, payload)| Dossier { delivery, attempts, payload }))
}

async fn with_payload(client: &Client, id: &DeliveryId) -> Result<Option<(Delivery, Vec<u8>)>, Fault> {
    let row = client
        .query_typed_opt(
            "SELECT d.*, p.bytes FROM jobwatch.delivery AS d JOIN jobwatch.payload AS p ON p.delivery = d.n WHERE d.id = $1",
            values![Txt(id.as_str())],
        )
        .await?;
    row.map(|row| Ok((delivery(&row)?, row.try_get("bytes")?))).transpose()
}

async fn attempts(client: &Client, id: &DeliveryId) -> Result<Vec<AttemptRow>, Fault> {
    let rows = client
        .query_typed(
            "SELECT a.* FROM jobwatch.attempt AS a JOIN jobwatch.delivery AS d ON d.n = a.delivery WHERE d.id = $1
             ORDER BY a.number",
            values![Txt(id.as_str())],
        )
        .await?;
    rows.iter().map(attempt).collect()
}
