//! Gathering in PostgreSQL: what is held, what groups have gathered, how much was said lately.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::commit::insert;
use super::finding::severity;
use super::outbox::{lane, write_reserves};
use super::value::{Txt, flag, instant, many, number, string, time, values};
use super::{Fault, json, news, turn};
use crate::model::delivery::{Frozen, Held, Lane};
use crate::model::memory::{Opened, Pacing};
use crate::model::name::{DeliveryId, ReceiverName};
use crate::model::time::Timestamp;
use crate::store::{Gathered, PaceOf, Turns};

/// When something held is due at the time `$2`: if it was held a minute ahead of that, the clock was set back, and it is due.
const DUE: &str = "CASE WHEN h.created_at > $2 + 60000000 THEN LEAST(h.due_at, $2) ELSE h.due_at END";

/// That a message about the same job as `h` is tried again, alone or in a digest.
const STUCK: &str = "EXISTS (SELECT 1 FROM jobwatch.delivery AS e WHERE e.receiver = h.receiver AND e.source = h.source
        AND e.subject = h.subject AND e.state = 'pending' AND e.attempts > 0)
    OR EXISTS (SELECT 1 FROM jobwatch.member AS m JOIN jobwatch.delivery AS e ON e.n = m.delivery
        WHERE m.receiver = h.receiver AND m.source = h.source AND m.subject = h.subject AND e.attempts > 0)";

pub(super) async fn pacing(client: &Client, receivers: &[PaceOf], now: Timestamp) -> Result<Pacing, Fault> {
    let names: Vec<Txt<'_>> = receivers.iter().map(|pace| Txt(pace.receiver.as_str())).collect();
    // The turns first: what is decided on an older count than they say is refused, on a newer one it does not matter.
    let turns = turn::turns(client, &names).await?;
    let mut pacing = Pacing { turns: turns.into_iter().collect(), ..Pacing::default() };
    for PaceOf { receiver, lately, lanes } in receivers {
        let name = Txt(receiver.as_str());
        let head = async {
            let state = format!(
                "SELECT EXISTS (SELECT 1 FROM jobwatch.held WHERE receiver = $1) AS any,
                     EXISTS (SELECT 1 FROM jobwatch.held AS h WHERE receiver = $1 AND {DUE} <= $2) AS waiting"
            );
            Ok::<_, Fault>(client.query_typed_one(&state, values![name, now.micros()]).await?)
        };
        let groups = async {
            let open = "SELECT * FROM jobwatch.gathering WHERE receiver = $1 AND until > $2";
            Ok(client.query_typed(open, values![name, now.micros()]).await?)
        };
        let (head, groups, recent) = tokio::try_join!(head, groups, recent(client, name, *lately, now))?;
        if let Some((count, digests)) = recent {
            pacing.recent.insert(receiver.clone(), count);
            pacing.digests.insert(receiver.clone(), digests);
        }
        if flag(&head, "waiting")? {
            pacing.waiting.insert(receiver.clone());
        }
        if flag(&head, "any")? && !lanes.is_empty() {
            for (lane, due) in held_until(client, name, lanes, now).await? {
                pacing.held.insert((receiver.clone(), lane), due);
            }
        }
        for row in &groups {
            pacing.groups.insert((receiver.clone(), string(row, "grp")?), opened(row)?);
        }
    }
    Ok(pacing)
}

/// Messages since then, and how many of them were digests.
async fn recent(
    client: &Client,
    receiver: Txt<'_>,
    lately: Option<(Timestamp, usize)>,
    now: Timestamp,
) -> Result<Option<(usize, usize)>, Fault> {
    let Some((since, limit)) = lately else { return Ok(None) };
    // The agent's own affairs have no source and do not count; a digest has none either, and does.
    let row = client
        .query_typed_one(
            "SELECT count(*) AS count, count(*) FILTER (WHERE source = '') AS digests FROM (SELECT source FROM jobwatch.delivery
                 WHERE receiver = $1 AND created_at > $2 AND created_at <= $3 + 60000000
                 AND (source <> '' OR subject LIKE 'digest/%') LIMIT $4) AS r",
            values![receiver, since.micros(), now.micros(), many(limit)],
        )
        .await?;
    Ok(Some((number(&row, "count")?, number(&row, "digests")?)))
}

/// Until when something is held about jobs, of those about which something is.
async fn held_until(
    client: &Client,
    receiver: Txt<'_>,
    lanes: &[Lane],
    now: Timestamp,
) -> Result<Vec<(Lane, Timestamp)>, Fault> {
    let (sources, subjects): (Vec<Txt<'_>>, Vec<Txt<'_>>) =
        lanes.iter().map(|lane| (Txt(lane.source_name()), Txt(lane.subject.as_str()))).unzip();
    let rows = client
        .query_typed(
            &format!(
                "SELECT h.source, h.subject, max({DUE}) AS due FROM jobwatch.held AS h
                 JOIN unnest($3::text[], $4::text[]) AS l (source, subject) USING (source, subject)
                 WHERE h.receiver = $1 GROUP BY h.source, h.subject"
            ),
            values![receiver, now.micros(), sources, subjects],
        )
        .await?;
    let mut found = Vec::new();
    for row in &rows {
        found.extend(time(row, "due")?.map(|due| Ok::<_, Fault>((lane(row)?, due))).transpose()?);
    }
    Ok(found)
}

fn opened(row: &Row) -> Result<Opened, Fault> {
    let classes: BTreeSet<String> = serde_json::from_str(&string(row, "classes")?).unwrap_or_default();
    Ok(Opened { until: instant(row, "until")?, wait: Duration::from_micros(number(row, "wait")?), classes })
}

pub(super) async fn write_groups(client: &Client, all: &[(ReceiverName, String, Opened)]) -> Result<(), Fault> {
    // Each once, as it is in the end.
    let groups: BTreeMap<(&str, &str), &Opened> =
        all.iter().map(|(receiver, group, opened)| ((receiver.as_str(), group.as_str()), opened)).collect();
    if groups.is_empty() {
        return Ok(());
    }
    client
        .execute_typed(
            "INSERT INTO jobwatch.gathering (receiver, grp, until, wait, classes)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
             ON CONFLICT (receiver, grp) DO UPDATE SET until = excluded.until, wait = excluded.wait, classes = excluded.classes",
            values![
                groups.keys().map(|(receiver, _)| Txt(receiver)).collect::<Vec<_>>(),
                groups.keys().map(|(_, group)| Txt(group)).collect::<Vec<_>>(),
                groups.values().map(|opened| opened.until.micros()).collect::<Vec<_>>(),
                groups.values().map(|opened| i64::try_from(opened.wait.as_micros()).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
                groups.values().map(|opened| json(&opened.classes)).collect::<Vec<_>>(),
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn write_held(client: &Client, held: &[Held]) -> Result<(), Fault> {
    if held.is_empty() {
        return Ok(());
    }
    let texts = |of: fn(&Held) -> &str| held.iter().map(|held| Txt(of(held))).collect::<Vec<_>>();
    client
        .execute_typed(
            "INSERT INTO jobwatch.held (id, receiver, source, subject, event, title, created_at, payload, severity, class, grp,
                 due_at, data)
             SELECT id, receiver, source, subject, event, title, created_at, payload, severity, class, grp, due_at, data
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[],
                 $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[]) WITH ORDINALITY
                 AS g (id, receiver, source, subject, event, title, created_at, payload, severity, class, grp, due_at, data, at)
             WHERE NOT EXISTS (SELECT 1 FROM jobwatch.delivery AS d WHERE d.id = g.id) ORDER BY at
             ON CONFLICT (id) DO NOTHING",
            values![
                texts(|held| held.frozen.id.as_str()),
                texts(|held| held.frozen.receiver.as_str()),
                texts(|held| held.frozen.lane.source_name()),
                texts(|held| held.frozen.lane.subject.as_str()),
                texts(|held| &held.frozen.event),
                texts(|held| &held.frozen.title),
                held.iter().map(|held| held.frozen.created_at.micros()).collect::<Vec<_>>(),
                held.iter().map(|held| &held.frozen.payload[..]).collect::<Vec<_>>(),
                texts(|held| held.severity.as_str()),
                texts(|held| &held.class),
                texts(|held| &held.group),
                held.iter().map(|held| held.due_at.micros()).collect::<Vec<_>>(),
                held.iter().map(|held| held.data.to_string()).collect::<Vec<_>>(),
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn held(
    client: &Client,
    receiver: &ReceiverName,
    now: Timestamp,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<(i64, Held)>, Fault> {
    let statement = format!(
        "SELECT * FROM (
             SELECT h.*, sum(octet_length(h.data)) OVER (ORDER BY h.n) AS bytes, row_number() OVER (ORDER BY h.n) AS place
             FROM jobwatch.held AS h WHERE receiver = $1 AND {DUE} <= $2 AND NOT ({STUCK}) ORDER BY h.n LIMIT $3) AS h
         WHERE h.bytes <= $4 OR h.place = 1 ORDER BY h.n"
    );
    let rows = client
        .query_typed(&statement, values![Txt(receiver.as_str()), now.micros(), many(limit), many(bytes_max)])
        .await?;
    let held = |row: &Row| {
        let created_at = instant(row, "created_at")?;
        let frozen = Frozen {
            id: DeliveryId::from(string(row, "id")?),
            receiver: receiver.clone(),
            lane: lane(row)?,
            event: string(row, "event")?,
            title: string(row, "title")?,
            created_at,
            seen_at: Some(created_at),
            payload: row.try_get("payload")?,
        };
        let held = Held {
            frozen,
            severity: severity(row)?,
            class: string(row, "class")?,
            group: string(row, "grp")?,
            due_at: instant(row, "due_at")?,
            data: serde_json::from_str(&string(row, "data")?).unwrap_or_default(),
        };
        Ok((number(row, "n")?, held))
    };
    rows.iter().map(held).collect()
}

pub(super) async fn holding(client: &Client, now: Timestamp) -> Result<Vec<(ReceiverName, Timestamp)>, Fault> {
    let rows = client
        .query_typed(
            "SELECT receiver, min(CASE WHEN created_at > $1 + 60000000 THEN LEAST(due_at, $1) ELSE due_at END) AS due
             FROM jobwatch.held GROUP BY receiver ORDER BY receiver COLLATE \"C\"",
            values![now.micros()],
        )
        .await?;
    rows.iter().map(|row| Ok((ReceiverName::from(string(row, "receiver")?), instant(row, "due")?))).collect()
}

pub(super) async fn gathered(
    client: &Client,
    gathered: &[Gathered],
    turns: &Turns,
    now: Timestamp,
) -> Result<(), Fault> {
    let receivers = gathered.iter().map(|gathered| gathered.frozen.receiver.as_str());
    turn::take(client, receivers.clone(), turns).await?;
    for Gathered { frozen, held, reserve } in gathered {
        insert(client, std::slice::from_ref(frozen)).await?;
        write_reserves(client, reserve.as_slice()).await?;
        tell(client, frozen, held, now).await?;
    }
    client
        .execute_typed("DELETE FROM jobwatch.gathering WHERE until < $1 - 86400000000", values![now.micros()])
        .await?;
    news::due(client, receivers).await
}

/// What was held is told by a delivery from now on.
async fn tell(client: &Client, frozen: &Frozen, held: &[i64], now: Timestamp) -> Result<(), Fault> {
    let (held, id, receiver) = (held.to_vec(), Txt(frozen.id.as_str()), Txt(frozen.receiver.as_str()));
    let taken = client
        .query_typed("DELETE FROM jobwatch.held WHERE n = ANY($1) RETURNING id, source, subject, grp", values![held])
        .await?;
    let (mut ids, mut sources, mut subjects, mut groups) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &taken {
        groups.push(string(row, "grp")?);
        let one = string(row, "id")?;
        if one != frozen.id.as_str() {
            ids.push(one);
            sources.push(string(row, "source")?);
            subjects.push(string(row, "subject")?);
        }
    }
    if !ids.is_empty() {
        client
            .execute_typed(
                "INSERT INTO jobwatch.member (delivery, receiver, source, subject)
                 SELECT DISTINCT d.n, $2, m.source, m.subject FROM jobwatch.delivery AS d,
                     unnest($3::text[], $4::text[]) AS m (source, subject) WHERE d.id = $1
                 ON CONFLICT DO NOTHING",
                values![id, receiver, sources, subjects],
            )
            .await?;
        for table in ["told", "fate"] {
            let update = format!("UPDATE jobwatch.{table} SET delivery = $1 WHERE delivery = ANY($2)");
            client.execute_typed(&update, values![id, ids]).await?;
        }
    }
    // A group that had something to tell goes on gathering.
    client
        .execute_typed(
            "UPDATE jobwatch.gathering SET until = $3 + wait WHERE receiver = $1 AND grp = ANY($2)",
            values![receiver, groups, now.micros()],
        )
        .await?;
    Ok(())
}
