//! The outbox of the shared engine: claims, records, copies for the fallback, and what operators do with deliveries.
//!
//! Several replicas claim at once, and none waits for another (`SKIP LOCKED`). A claim is a row of its own with a token, so
//! that claiming writes nothing to the outbox and its indexes. A delivery that is found to wait for another one about the
//! same job is *parked*: claims do not look at it again until one of those before it has ended. It is parked only while the
//! one before it is held still, so that whoever ends that one finds it parked.

use std::collections::BTreeSet;

use tokio_postgres::{Client, Row};

use super::commit::{insert, write_deliveries};
use super::value::{Bound, Txt, bound, flag, instant, many, micros, number, string, text, time, values};
use super::{Fault, delivery, follow_up, json, news, turn};
use crate::model::delivery::{Claimed, DeliveryState, Frozen, Lane, Outcome, Reserve, Verdict};
use crate::model::name::{DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::time::Timestamp;
use crate::store::rows::Aftermath;
use crate::store::{Again, Delivery, Dropped, Lapse, Lapsed, Record, Trouble, Turns};

/// Deliveries that one claim looks at; each is claimed or parked. There is another claim at once if this was too few.
const LOOKED_AT_MAX: usize = 2_000;
/// Those that are looked at together, at least.
const LOOKED_AT_MIN: usize = 32;

/// What is asked for in a claim.
pub(super) struct Asked<'a> {
    /// By whom.
    pub(super) replica: &'a str,
    pub(super) receiver: &'a ReceiverName,
    pub(super) now: Timestamp,
    pub(super) until: Timestamp,
    /// So many; where how the receiver fares is given, so many with those that are under way.
    pub(super) limit: usize,
    /// How the receiver fares, as it was read: the claim is void if that has changed.
    pub(super) seen: Option<i64>,
}

/// The number of one that comes before delivery `d`: about its job, alone or in a digest, or about any of the jobs in it.
const BEFORE: &str = "LEAST(
        (SELECT min(e.n) FROM jobwatch.delivery AS e WHERE e.receiver = d.receiver AND e.source = d.source
            AND e.subject = d.subject AND e.state = 'pending' AND e.n < d.n),
        (SELECT min(m.delivery) FROM jobwatch.member AS m WHERE m.receiver = d.receiver AND m.source = d.source
            AND m.subject = d.subject AND m.delivery < d.n),
        (SELECT min(e.n) FROM jobwatch.member AS m JOIN jobwatch.delivery AS e ON e.receiver = m.receiver
            AND e.source = m.source AND e.subject = m.subject AND e.state = 'pending' AND e.n < d.n WHERE m.delivery = d.n),
        (SELECT min(o.delivery) FROM jobwatch.member AS m JOIN jobwatch.member AS o ON o.receiver = m.receiver
            AND o.source = m.source AND o.subject = m.subject AND o.delivery < d.n WHERE m.delivery = d.n))";

/// Nothing is claimed for a receiver that retired, until it is opened again.
const OPEN: &str =
    "NOT EXISTS (SELECT 1 FROM jobwatch.trouble AS t WHERE t.receiver = $1 AND t.held_since IS NOT NULL)";

/// Nobody has delivery `d` at hand at the time `$2`.
const LOOSE: &str = "NOT EXISTS (SELECT 1 FROM jobwatch.claim AS c WHERE c.delivery = d.n AND c.until > $2)";

pub(super) async fn claim(client: &Client, asked: &Asked<'_>) -> Result<Vec<Claimed>, Fault> {
    let limit = match asked.seen {
        None => asked.limit,
        Some(seen) => match spared(client, asked, seen).await? {
            Some(under_way) => asked.limit.saturating_sub(under_way),
            None => 0,
        },
    };
    let mut claimed = Vec::new();
    // What is due; and if the clock was set back, what was to be due soon and would be due in a long time.
    for (due, order) in
        [("d.due_at <= $2", "d.due_at, d.n"), ("d.set_at > $2 + 60000000 AND d.due_at > $2", "d.set_at, d.n")]
    {
        let mut looked = 0;
        while claimed.len() < limit && looked < LOOKED_AT_MAX {
            let chunk = (limit - claimed.len()).max(LOOKED_AT_MIN).min(LOOKED_AT_MAX - looked);
            let rows = look(client, asked, due, order, chunk).await?;
            looked += rows.len();
            let whole = rows.len() < chunk;
            let wanted = limit - claimed.len();
            let (mut first, mut waiting) = (Vec::new(), Vec::new());
            for row in rows {
                match row.try_get::<_, Option<i64>>("before")? {
                    // What comes behind the last that is wanted is left as it is.
                    _ if first.len() == wanted => break,
                    None => first.push(row),
                    Some(_) => waiting.push(row),
                }
            }
            park(client, &waiting).await?;
            let took = take(client, asked, &first).await?;
            // Somebody else has what is not parked and was not taken: looking again would find the same.
            let stuck = took.is_empty() && waiting.is_empty();
            claimed.extend(took);
            if whole || stuck {
                break;
            }
        }
    }
    Ok(claimed)
}

/// How many are under way for a receiver that is spared; nothing if how it fares has changed. Whoever asks after this waits.
async fn spared(client: &Client, asked: &Asked<'_>, seen: i64) -> Result<Option<usize>, Fault> {
    let receiver = Txt(asked.receiver.as_str());
    let lock = "SELECT version FROM jobwatch.health WHERE receiver = $1 FOR UPDATE";
    let row = client.query_typed_opt(lock, values![receiver]).await?;
    if row.map_or(Ok(0), |row| number(&row, "version"))? != seen {
        return Ok(None);
    }
    let count = "SELECT count(*) AS count FROM jobwatch.claim AS c JOIN jobwatch.delivery AS d ON d.n = c.delivery
        WHERE c.receiver = $1 AND c.until > $2 AND d.state = 'pending'";
    let row = client.query_typed_one(count, values![receiver, asked.now.micros()]).await?;
    number(&row, "count").map(Some)
}

/// Locks deliveries that are due, and says which one each has to wait for.
async fn look(client: &Client, asked: &Asked<'_>, due: &str, order: &str, limit: usize) -> Result<Vec<Row>, Fault> {
    let statement = format!(
        "SELECT d.*, p.bytes, {BEFORE} AS before,
             (SELECT r.due_at FROM jobwatch.reserve AS r WHERE r.of = d.id) AS escalate_at
         FROM jobwatch.delivery AS d JOIN jobwatch.payload AS p ON p.delivery = d.n
         WHERE d.receiver = $1 AND d.state = 'pending' AND NOT d.parked AND {due} AND {OPEN} AND {LOOSE}
         ORDER BY {order} LIMIT $3 FOR UPDATE OF d SKIP LOCKED"
    );
    Ok(client.query_typed(&statement, values![Txt(asked.receiver.as_str()), asked.now.micros(), many(limit)]).await?)
}

/// Those that wait are not looked at again until what they wait for has ended. One whose predecessor is just being ended
/// is left as it is.
async fn park(client: &Client, waiting: &[Row]) -> Result<(), Fault> {
    if waiting.is_empty() {
        return Ok(());
    }
    let numbers = |column| waiting.iter().map(|row| Ok(row.try_get(column)?)).collect::<Result<Vec<i64>, Fault>>();
    client
        .execute_typed(
            "WITH before AS (
                 SELECT n FROM jobwatch.delivery WHERE n = ANY($2) AND state = 'pending' ORDER BY n FOR SHARE SKIP LOCKED)
             UPDATE jobwatch.delivery AS d SET parked = TRUE FROM unnest($1::bigint[], $2::bigint[]) AS w (n, before)
             WHERE d.n = w.n AND w.before IN (SELECT n FROM before)",
            values![numbers("n")?, numbers("before")?],
        )
        .await?;
    Ok(())
}

/// Claims deliveries; those that somebody has claimed since they were looked at are left to him.
async fn take(client: &Client, asked: &Asked<'_>, rows: &[Row]) -> Result<Vec<Claimed>, Fault> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = rows.iter().map(|row| Ok(row.try_get("n")?)).collect::<Result<Vec<i64>, Fault>>()?;
    let taken = client
        .query_typed(
            // Every claim has a token of its own: who lost it can no longer record.
            "INSERT INTO jobwatch.claim AS c (delivery, receiver, replica, token, until)
             SELECT n, $2, $3, nextval('jobwatch.token'), $4 FROM unnest($1::bigint[]) AS n
             ON CONFLICT (delivery) DO UPDATE SET replica = excluded.replica, token = excluded.token, until = excluded.until
             WHERE c.until <= $5 RETURNING delivery, token",
            values![numbers, Txt(asked.receiver.as_str()), Txt(asked.replica), asked.until.micros(), asked.now.micros()],
        )
        .await?;
    let mut tokens = std::collections::HashMap::new();
    for row in &taken {
        tokens.insert(number::<i64>(row, "delivery")?, number::<i64>(row, "token")?);
    }
    let mut claimed = Vec::new();
    for (row, n) in rows.iter().zip(&numbers) {
        if let Some(token) = tokens.get(n) {
            claimed.push(claimed_row(row, *token)?);
        }
    }
    Ok(claimed)
}

fn claimed_row(row: &Row, token: i64) -> Result<Claimed, Fault> {
    Ok(Claimed {
        frozen: frozen(row, row.try_get("bytes")?)?,
        budget_from: instant(row, "budget_from")?,
        tries: number(row, "tries")?,
        refused_since: time(row, "refused_since")?,
        escalate_at: time(row, "escalate_at")?,
        progress: serde_json::from_str(&string(row, "progress")?).unwrap_or_default(),
        token,
    })
}

fn frozen(row: &Row, payload: Vec<u8>) -> Result<Frozen, Fault> {
    Ok(Frozen {
        id: DeliveryId::from(string(row, "id")?),
        receiver: ReceiverName::from(string(row, "receiver")?),
        lane: lane(row)?,
        event: string(row, "event")?,
        title: string(row, "title")?,
        created_at: instant(row, "created_at")?,
        seen_at: time(row, "seen_at")?,
        payload,
    })
}

pub(super) fn lane(row: &Row) -> Result<Lane, Fault> {
    Ok(Lane {
        source: Some(string(row, "source")?).filter(|source| !source.is_empty()).map(SourceName::from),
        subject: JobId::from(string(row, "subject")?),
    })
}

/// When a claim may find something. What waits for another one counts until a claim has looked at it.
pub(super) async fn next_due(client: &Client, receiver: &ReceiverName) -> Result<Option<Timestamp>, Fault> {
    let row = client
        .query_typed_one(
            &format!(
                "SELECT LEAST(
                     (SELECT d.due_at FROM jobwatch.delivery AS d WHERE d.receiver = $1 AND d.state = 'pending' AND NOT d.parked
                          AND NOT EXISTS (SELECT 1 FROM jobwatch.claim AS c WHERE c.delivery = d.n)
                      ORDER BY d.due_at, d.n LIMIT 1),
                     (SELECT min(c.until) FROM jobwatch.claim AS c JOIN jobwatch.delivery AS d ON d.n = c.delivery
                      WHERE c.receiver = $1 AND d.state = 'pending' AND NOT d.parked)) AS due WHERE {OPEN}
                 UNION ALL SELECT NULL LIMIT 1"
            ),
            values![Txt(receiver.as_str())],
        )
        .await?;
    time(&row, "due")
}

pub(super) async fn release(client: &Client, claimed: &[Claimed]) -> Result<(), Fault> {
    let ids: Vec<Txt<'_>> = claimed.iter().map(|claimed| Txt(claimed.frozen.id.as_str())).collect();
    let tokens: Vec<i64> = claimed.iter().map(|claimed| claimed.token).collect();
    client
        .execute_typed(
            "DELETE FROM jobwatch.claim AS c USING jobwatch.delivery AS d, unnest($1::text[], $2::bigint[]) AS g (id, token)
             WHERE d.id = g.id AND c.delivery = d.n AND c.token = g.token",
            values![ids, tokens],
        )
        .await?;
    Ok(())
}

pub(super) async fn record(client: &Client, records: &[Record]) -> Result<Vec<bool>, Fault> {
    let owed: Vec<Frozen> = records.iter().flat_map(|record| record.deliveries.iter().cloned()).collect();
    if !owed.is_empty() {
        turn::take(client, owed.iter().map(|frozen| frozen.receiver.as_str()), &Turns::new()).await?;
    }
    let (written, ended) = write_attempts(client, records).await?;
    let kept: Vec<&Record> =
        records.iter().zip(&written).filter(|(_, kept)| **kept).map(|(record, _)| record).collect();
    // On their way together.
    tokio::try_join!(pass_on(client, &ended), forget_reserves(client, &kept), tell_of(client, &kept))?;
    Ok(written)
}

/// What the operator is told of the receivers' trouble, and what is known of it from here on.
async fn tell_of(client: &Client, kept: &[&Record]) -> Result<(), Fault> {
    let mut known: Option<(&ReceiverName, Trouble)> = None;
    let mut news = Vec::new();
    for record in kept {
        // Another replica may have told the same meanwhile.
        if record.deliveries.is_empty() || is_news(client, record).await? {
            news.extend(record.deliveries.iter().cloned());
        }
        let trouble = (&record.claimed.frozen.receiver, record.trouble);
        if known.replace(trouble) != Some(trouble) {
            write_trouble(client, record).await?;
        }
        if record.asks {
            follow_up::ask(client, &record.claimed.frozen.id).await?;
        }
    }
    insert(client, &news).await?;
    news::due(client, news.iter().map(|frozen| frozen.receiver.as_str())).await
}

/// Copies of what was accepted are not needed; of what was given up before its time they need not wait.
async fn forget_reserves(client: &Client, kept: &[&Record]) -> Result<(), Fault> {
    let accepted: Vec<Txt<'_>> = kept
        .iter()
        .filter(|record| record.verdict == Verdict::Delivered && record.claimed.escalate_at.is_some())
        .map(|record| Txt(record.claimed.frozen.id.as_str()))
        .collect();
    if !accepted.is_empty() {
        client.execute_typed("DELETE FROM jobwatch.reserve WHERE of = ANY($1)", values![accepted]).await?;
    }
    for record in kept.iter().filter(|record| record.verdict == Verdict::Dead) {
        let at = record.attempt.at.plus(record.attempt.took).micros();
        hurry(client, &[Txt(record.claimed.frozen.id.as_str())], at).await?;
    }
    Ok(())
}

/// Whether what the operator is told of a receiver's trouble is not known already.
async fn is_news(client: &Client, record: &Record) -> Result<bool, Fault> {
    let Trouble { refused, dead, retired, .. } = record.trouble;
    let known = client
        .query_typed_opt(
            "SELECT 1 FROM jobwatch.trouble WHERE receiver = $1 AND refused >= $2 AND dead >= $3 AND retired >= $4 FOR UPDATE",
            values![Txt(record.claimed.frozen.receiver.as_str()), refused, dead, retired],
        )
        .await?;
    Ok(known.is_none())
}

/// `false` for those whose claim was lost; and the numbers of those that have ended.
async fn write_attempts(client: &Client, records: &[Record]) -> Result<(Vec<bool>, Vec<i64>), Fault> {
    let all: Vec<Aftermath> = records.iter().map(Aftermath::of).collect();
    let ids: Vec<Txt<'_>> = records.iter().map(|record| Txt(record.claimed.frozen.id.as_str())).collect();
    let details: Vec<Txt<'_>> = records.iter().map(|record| Txt(record.attempt.outcome.detail())).collect();
    let rows = client
        .query_typed(
            "WITH given AS (
                 SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                     $8::text[], $9::bigint[], $10::bigint[], $11::text[]) WITH ORDINALITY
                     AS g (id, token, state, due_at, ended_at, refused_since, progress, note, at, took, outcome, place)),
             owned AS (
                 DELETE FROM jobwatch.claim AS c USING jobwatch.delivery AS d, given AS g
                 WHERE d.id = g.id AND c.delivery = d.n AND c.token = g.token RETURNING c.delivery, g.place),
             written AS (
                 UPDATE jobwatch.delivery AS d SET state = g.state, due_at = g.due_at, set_at = g.at, ended_at = g.ended_at,
                     attempts = d.attempts + 1, tries = d.tries + 1, refused_since = g.refused_since, progress = g.progress,
                     note = g.note
                 FROM owned AS o JOIN given AS g USING (place) WHERE d.n = o.delivery AND d.state = 'pending'
                 RETURNING d.n, d.attempts, g.place),
             noted AS (
                 INSERT INTO jobwatch.attempt (delivery, number, at, took, outcome, detail)
                 SELECT w.n, w.attempts, g.at, g.took, g.outcome, g.note FROM written AS w JOIN given AS g USING (place))
             SELECT n, place FROM written",
            values![
                ids,
                records.iter().map(|record| record.claimed.token).collect::<Vec<_>>(),
                all.iter().map(|after| Txt(after.state.as_str())).collect::<Vec<_>>(),
                all.iter().map(|after| after.due_at.micros()).collect::<Vec<_>>(),
                all.iter().map(|after| micros(after.ended_at)).collect::<Vec<_>>(),
                all.iter().map(|after| micros(after.refused_since)).collect::<Vec<_>>(),
                records.iter().map(|record| json(&record.attempt.progress)).collect::<Vec<_>>(),
                details,
                records.iter().map(|record| record.attempt.at.micros()).collect::<Vec<_>>(),
                records.iter().map(|record| many(usize::try_from(record.attempt.took.as_micros()).unwrap_or(usize::MAX))).collect::<Vec<_>>(),
                records.iter().map(|record| Txt(record.attempt.outcome.as_str())).collect::<Vec<_>>(),
            ],
        )
        .await?;
    let (mut kept, mut over) = (vec![false; records.len()], Vec::new());
    for row in &rows {
        let place = usize::try_from(number::<i64>(row, "place")? - 1).unwrap_or(usize::MAX);
        if let (Some(kept), Some(ended)) = (kept.get_mut(place), all.get(place)) {
            *kept = true;
            if ended.ended_at.is_some() {
                over.push(number(row, "n")?);
            }
        }
    }
    Ok((kept, over))
}

async fn hurry(client: &Client, of: &[Txt<'_>], at: i64) -> Result<(), Fault> {
    let of = of.to_vec();
    client
        .execute_typed("UPDATE jobwatch.reserve SET due_at = LEAST(due_at, $2) WHERE of = ANY($1)", values![of, at])
        .await?;
    Ok(())
}

async fn write_trouble(client: &Client, record: &Record) -> Result<(), Fault> {
    let receiver = Txt(record.claimed.frozen.receiver.as_str());
    let Trouble { refused, dead, retired, held_since } = record.trouble;
    // Only what is accepted ends it: who knew of no trouble did not know what another replica has found.
    if matches!(record.attempt.outcome, Outcome::Accepted { .. }) {
        client.execute_typed("DELETE FROM jobwatch.trouble WHERE receiver = $1", values![receiver]).await?;
    } else if record.trouble != Trouble::default() {
        client
            .execute_typed(
                "INSERT INTO jobwatch.trouble AS t (receiver, since, refused, dead, retired, held_since)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (receiver) DO UPDATE SET refused = t.refused OR excluded.refused, dead = t.dead OR excluded.dead,
                 retired = t.retired OR excluded.retired, held_since = coalesce(t.held_since, excluded.held_since)",
                values![receiver, record.attempt.at.micros(), refused, dead, retired, micros(held_since)],
            )
            .await?;
    }
    Ok(())
}

/// What comes next may end while it is looked for, so often.
const NEXT_TRIES_MAX: u32 = 20;

/// Deliveries have ended: what waited for them is looked at again. Of each job that is the next one, alone and in a digest:
/// those behind it wait for it.
///
/// The next one is held before it is let go on. If it has ended by then, whoever ended it may have found those before it still
/// pending and left everything as it was: then the one behind it is looked for.
async fn unpark(client: &Client, ended: &[i64]) -> Result<(), Fault> {
    if ended.is_empty() {
        return Ok(());
    }
    let ended = ended.to_vec();
    for _ in 0..NEXT_TRIES_MAX {
        let rows = client.query_typed(NEXT, values![ended]).await?;
        let next = rows.iter().map(|row| number(row, "n")).collect::<Result<Vec<i64>, _>>()?;
        if next.is_empty() {
            return Ok(());
        }
        let hold = "SELECT n FROM jobwatch.delivery WHERE n = ANY($1) AND state = 'pending' ORDER BY n FOR UPDATE";
        let held = client.query_typed(hold, values![next]).await?.len();
        let go_on = "UPDATE jobwatch.delivery SET parked = FALSE WHERE n = ANY($1) AND parked AND state = 'pending'";
        client.execute_typed(go_on, values![next]).await?;
        if held == next.len() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is next for each job of deliveries that have ended, if anything waits for that receiver at all.
const NEXT: &str = "WITH ended AS (SELECT n, receiver, source, subject FROM jobwatch.delivery WHERE n = ANY($1)),
     lane AS (
         SELECT receiver, source, subject FROM ended
         UNION SELECT receiver, source, subject FROM jobwatch.member WHERE delivery = ANY($1)),
     next AS (
         SELECT (SELECT min(e.n) FROM jobwatch.delivery AS e WHERE e.receiver = lane.receiver
             AND e.source = lane.source AND e.subject = lane.subject AND e.state = 'pending') AS n FROM lane
         UNION SELECT (SELECT min(o.delivery) FROM jobwatch.member AS o WHERE o.receiver = lane.receiver
             AND o.source = lane.source AND o.subject = lane.subject AND o.delivery <> ALL($1)) FROM lane)
     SELECT n FROM next WHERE n IS NOT NULL
     AND EXISTS (SELECT 1 FROM jobwatch.delivery AS d JOIN ended USING (receiver) WHERE d.state = 'pending' AND d.parked)";

/// The ended ones are in nobody's way any more.
async fn forget_members(client: &Client, ended: &[i64]) -> Result<(), Fault> {
    if !ended.is_empty() {
        let ended = ended.to_vec();
        client.execute_typed("DELETE FROM jobwatch.member WHERE delivery = ANY($1)", values![ended]).await?;
    }
    Ok(())
}

/// What waited for deliveries that have ended goes on.
async fn pass_on(client: &Client, ended: &[i64]) -> Result<(), Fault> {
    // In this order: what a digest kept waiting is found by its members.
    unpark(client, ended).await?;
    forget_members(client, ended).await
}

pub(super) async fn write_reserves(client: &Client, reserves: &[Reserve]) -> Result<(), Fault> {
    for Reserve { of, instead_of, due_at, frozen } in reserves {
        // A delivery that was decided before is the same one, whatever became of it: its copy is not made again.
        client
            .execute_typed(
                "INSERT INTO jobwatch.reserve (of, instead_of, due_at, id, receiver, source, subject, event, title, payload)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM jobwatch.delivery
                 WHERE id = $1 AND state = 'pending' AND attempts = 0
                 AND NOT EXISTS (SELECT 1 FROM jobwatch.delivery WHERE id = $4)
                 ON CONFLICT (of) DO NOTHING",
                values![
                    Txt(of.as_str()),
                    Txt(instead_of.as_str()),
                    due_at.micros(),
                    Txt(frozen.id.as_str()),
                    Txt(frozen.receiver.as_str()),
                    Txt(frozen.lane.source_name()),
                    Txt(frozen.lane.subject.as_str()),
                    Txt(&frozen.event),
                    Txt(&frozen.title),
                    &frozen.payload[..],
                ],
            )
            .await?;
    }
    Ok(())
}

pub(super) async fn escalate(
    client: &Client,
    receiver: &ReceiverName,
    now: Timestamp,
) -> Result<Vec<ReceiverName>, Fault> {
    // Taken out first: of two replicas one finds them.
    let rows = client
        .query_typed(
            "WITH due AS (DELETE FROM jobwatch.reserve WHERE instead_of = $1 AND due_at <= $2 RETURNING *)
             SELECT *, $2 AS created_at, NULL::bigint AS seen_at FROM due ORDER BY due_at, of COLLATE \"C\"",
            values![Txt(receiver.as_str()), now.micros()],
        )
        .await?;
    let copies = rows.iter().map(|row| frozen(row, row.try_get("payload")?)).collect::<Result<Vec<_>, Fault>>()?;
    write_deliveries(client, &copies).await?;
    Ok(copies.into_iter().map(|copy| copy.receiver).collect())
}

pub(super) async fn next_escalation(client: &Client, receiver: &ReceiverName) -> Result<Option<Timestamp>, Fault> {
    let select = "SELECT min(due_at) AS due FROM jobwatch.reserve WHERE instead_of = $1";
    time(&client.query_typed_one(select, values![Txt(receiver.as_str())]).await?, "due")
}

/// Deliveries that are given up in one transaction.
const LAPSES_MAX: usize = 500;

/// Those whose budget began before this, which nobody has at hand; the oldest first.
fn overdue(columns: &str, locking: &str) -> String {
    format!(
        "SELECT {columns} FROM jobwatch.delivery AS d
         WHERE d.receiver = $1 AND d.state = 'pending' AND d.refused_since IS NULL AND d.budget_from < $3 AND {OPEN} AND {LOOSE}
         ORDER BY d.budget_from, d.n LIMIT $4 {locking}"
    )
}

pub(super) async fn first_overdue(
    client: &Client,
    receiver: &ReceiverName,
    before: Timestamp,
    now: Timestamp,
) -> Result<Option<Delivery>, Fault> {
    client
        .query_typed_opt(&overdue("d.*", ""), values![Txt(receiver.as_str()), now.micros(), before.micros(), 1_i64])
        .await?
        .map(|row| delivery(&row))
        .transpose()
}

pub(super) async fn lapse(client: &Client, lapse: &Lapse) -> Result<Lapsed, Fault> {
    let Lapse { receiver, before, note, now, notices } = lapse;
    turn::take(client, notices.iter().map(|frozen| frozen.receiver.as_str()), &Turns::new()).await?;
    let rows = client
        .query_typed(
            &overdue("d.n, d.id", "FOR UPDATE OF d SKIP LOCKED"),
            values![Txt(receiver.as_str()), now.micros(), before.micros(), many(LAPSES_MAX)],
        )
        .await?;
    if rows.is_empty() {
        return Ok(Lapsed::default());
    }
    let numbers = rows.iter().map(|row| number(row, "n")).collect::<Result<Vec<i64>, _>>()?;
    let ids = rows.iter().map(|row| string(row, "id")).collect::<Result<Vec<_>, _>>()?;
    client
        .execute_typed(
            "UPDATE jobwatch.delivery SET state = 'dead', ended_at = $2, due_at = $2, set_at = $2, parked = FALSE,
             note = $3 || CASE note WHEN '' THEN '' ELSE '; before that: ' || note END WHERE n = ANY($1)",
            values![numbers, now.micros(), Txt(note)],
        )
        .await?;
    // Given up: the copies need not wait.
    hurry(client, &ids.iter().map(|id| Txt(id)).collect::<Vec<_>>(), now.micros()).await?;
    pass_on(client, &numbers).await?;
    client.execute_typed("DELETE FROM jobwatch.claim WHERE delivery = ANY($1)", values![numbers]).await?;
    let told = client
        .execute_typed(
            "INSERT INTO jobwatch.trouble AS t (receiver, since, refused, dead, retired) VALUES ($1, $2, FALSE, TRUE, FALSE)
             ON CONFLICT (receiver) DO UPDATE SET dead = TRUE WHERE NOT t.dead",
            values![Txt(receiver.as_str()), now.micros()],
        )
        .await?
        == 1;
    if told {
        insert(client, notices).await?;
        news::due(client, notices.iter().map(|frozen| frozen.receiver.as_str())).await?;
    }
    Ok(Lapsed { count: rows.len(), told })
}

fn trouble(row: &Row) -> Result<Trouble, Fault> {
    Ok(Trouble {
        refused: flag(row, "refused")?,
        dead: flag(row, "dead")?,
        retired: flag(row, "retired")?,
        held_since: time(row, "held_since")?,
    })
}

pub(super) async fn trouble_of(client: &Client, receiver: &ReceiverName) -> Result<Trouble, Fault> {
    let select = "SELECT * FROM jobwatch.trouble WHERE receiver = $1";
    let row = client.query_typed_opt(select, values![Txt(receiver.as_str())]).await?;
    row.map_or(Ok(Trouble::default()), |row| trouble(&row))
}

pub(super) async fn troubles(client: &Client) -> Result<Vec<(ReceiverName, Trouble)>, Fault> {
    let rows = client.query_typed("SELECT * FROM jobwatch.trouble ORDER BY receiver COLLATE \"C\"", &[]).await?;
    rows.iter().map(|row| Ok((ReceiverName::from(string(row, "receiver")?), trouble(row)?))).collect()
}

pub(super) async fn waiting(client: &Client) -> Result<Vec<(ReceiverName, usize)>, Fault> {
    let rows = client
        .query_typed(
            "SELECT receiver, count(*) AS count FROM (SELECT receiver FROM jobwatch.delivery WHERE state = 'pending'
                 UNION ALL SELECT receiver FROM jobwatch.held) AS w GROUP BY receiver ORDER BY receiver COLLATE \"C\"",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok((ReceiverName::from(string(row, "receiver")?), number(row, "count")?))).collect()
}

/// Deliveries of receivers that retired are tried again, with all their time before them. Returns those that had.
pub(super) async fn reopen(client: &Client, receivers: &[&str], now: Timestamp) -> Result<Vec<String>, Fault> {
    let receivers: Vec<Txt<'_>> = receivers.iter().map(|receiver| Txt(receiver)).collect();
    let rows = client
        .query_typed(
            "UPDATE jobwatch.trouble SET held_since = NULL WHERE receiver = ANY($1) AND held_since IS NOT NULL RETURNING receiver",
            values![receivers],
        )
        .await?;
    let opened = rows.iter().map(|row| string(row, "receiver")).collect::<Result<Vec<_>, _>>()?;
    if !opened.is_empty() {
        client
            .execute_typed(
                "UPDATE jobwatch.delivery SET budget_from = $2, tries = 0, refused_since = NULL
                 WHERE receiver = ANY($1) AND state = 'pending'",
                values![opened, now.micros()],
            )
            .await?;
    }
    Ok(opened)
}

pub(super) async fn again(client: &Client, which: &Again, now: Timestamp) -> Result<Vec<DeliveryId>, Fault> {
    const OWED: &str = "UPDATE jobwatch.delivery SET state = 'pending', parked = FALSE, due_at = $1, set_at = $1,
        budget_from = $1, tries = 0, refused_since = NULL, ended_at = NULL,
        progress = CASE state WHEN 'delivered' THEN '[]' ELSE progress END";
    let at = now.micros();
    let ids: Vec<Txt<'_>>;
    let named: Option<Txt<'_>>;
    let (condition, value): (&str, Bound<'_>) = match which {
        Again::Dead(receiver) => {
            named = receiver.as_ref().map(|receiver| Txt(receiver.as_str()));
            ("state = 'dead' AND ($2::text IS NULL OR receiver = $2)", bound(&named))
        }
        Again::Pending(receiver) => {
            named = Some(Txt(receiver.as_str()));
            // Those that wait for others go on waiting.
            ("state = 'pending' AND NOT parked AND receiver = $2", bound(&named))
        }
        Again::These(all) => {
            ids = all.iter().map(|id| Txt(id.as_str())).collect();
            ("id = ANY($2)", bound(&ids))
        }
    };
    // A follow-up is never done again.
    let statement = format!("{OWED} WHERE {condition} AND receiver NOT LIKE 'follow\\_up/%' RETURNING id, receiver, n");
    let rows = client.query_typed(&statement, &[bound(&at), value]).await?;
    let mut done = Vec::new();
    let mut receivers = BTreeSet::new();
    for row in &rows {
        done.push((number::<i64>(row, "n")?, string(row, "id")?));
        receivers.insert(string(row, "receiver")?);
    }
    done.sort_unstable();
    if let Again::Pending(receiver) = which {
        receivers.insert(receiver.as_str().to_owned());
    }
    let names: Vec<&str> = receivers.iter().map(String::as_str).collect();
    reopen(client, &names, now).await?;
    news::due(client, names).await?;
    let done = done.into_iter().map(|(_, id)| id);
    Ok(match which {
        // In the order they were asked for.
        Again::These(all) => {
            let known: BTreeSet<String> = done.collect();
            all.iter().filter(|id| known.contains(id.as_str())).cloned().collect()
        }
        Again::Dead(_) | Again::Pending(_) => done.map(DeliveryId::from).collect(),
    })
}

pub(super) async fn end(
    client: &Client,
    ids: &[DeliveryId],
    note: &str,
    now: Timestamp,
) -> Result<Vec<Dropped>, Fault> {
    let mut fates = Vec::new();
    for id in ids {
        let found = client
            .query_typed_opt(
                "SELECT d.n, d.state, (SELECT c.until FROM jobwatch.claim AS c WHERE c.delivery = d.n) AS until
                 FROM jobwatch.delivery AS d WHERE d.id = $1 FOR UPDATE OF d",
                values![Txt(id.as_str())],
            )
            .await?;
        let Some(row) = found else {
            fates.push(Dropped::Unknown);
            continue;
        };
        let (n, state, until) = (number::<i64>(&row, "n")?, text(&row, "state")?, time(&row, "until")?);
        let open =
            [DeliveryState::Pending, DeliveryState::Dead].iter().any(|open| state.as_deref() == Some(open.as_str()));
        if !open {
            fates.push(Dropped::Ended);
            continue;
        }
        client
            .execute_typed(
                "UPDATE jobwatch.delivery SET state = 'dropped', ended_at = $2, parked = FALSE,
                 note = $3 || CASE note WHEN '' THEN '' ELSE '; before that: ' || note END WHERE n = $1",
                values![n, now.micros(), Txt(note)],
            )
            .await?;
        client.execute_typed("DELETE FROM jobwatch.reserve WHERE of = $1", values![Txt(id.as_str())]).await?;
        pass_on(client, &[n]).await?;
        client.execute_typed("DELETE FROM jobwatch.claim WHERE delivery = $1", values![n]).await?;
        fates.push(if until.is_some_and(|until| until > now) { Dropped::UnderWay } else { Dropped::Done });
    }
    Ok(fates)
}
