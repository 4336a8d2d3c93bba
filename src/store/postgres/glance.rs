//! The state at one moment, for the status page, in PostgreSQL. No list is read further than asked.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use super::value::{Txt, flag, instant, many, number, string, text, time, values};
use super::{Fault, finding, follow_up, known, past, view};
use crate::model::alert::FateOutcome;
use crate::model::name::{DeliveryId, ReceiverName, SourceName};
use crate::model::snapshot::Known;
use crate::model::time::Timestamp;
use crate::model::transition::State;
use crate::store::glance::{Failure, Glance, Heard, Look, Queue, Stuck, Tally};
use crate::store::view::{PAGE_MAX, SourceFilter, SourceView};

const MINUTE: i64 = 60_000_000;
/// What came of one failure is read up to here: more rules and receivers than this hear of no job.
const HEARD_MAX: usize = 50;
/// Everything that is read in it is of the moment of its first statement. It holds up nobody.
const MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '15s'; \
     SET LOCAL idle_in_transaction_session_timeout = '20s'";

pub(super) async fn glance(client: &Client, look: Look) -> Result<Glance, Fault> {
    client.batch_execute(MOMENT).await?;
    match read(client, look).await {
        Ok(glance) => {
            client.batch_execute("COMMIT").await?;
            Ok(glance)
        }
        Err(fault) => {
            // If this fails, too, the connection is no more: the first fault says why.
            drop(client.batch_execute("ROLLBACK").await);
            Err(fault)
        }
    }
}

async fn read(client: &Client, look: Look) -> Result<Glance, Fault> {
    let (sources, unfinished, tallies, begun, failures, queues, silences, waiting) = tokio::try_join!(
        sources(client),
        unfinished(client, look.rows_max),
        tallies(client, look),
        begun(client),
        failures(client, look.rows_max),
        queues(client),
        finding::silences(client, look.now),
        follow_up::waiting(client, look.rows_max),
    )?;
    Ok(Glance { sources, unfinished, tallies, begun, failures, queues, silences, waiting })
}

async fn sources(client: &Client) -> Result<Vec<SourceView>, Fault> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = view::sources(client, &SourceFilter { before, limit: PAGE_MAX, ..SourceFilter::default() }).await?;
        all.extend(page.items);
        before = page.next;
        if before.is_none() {
            return Ok(all);
        }
    }
}

async fn unfinished(client: &Client, limit: usize) -> Result<Vec<(SourceName, Known)>, Fault> {
    let rows = client
        .query_typed(
            r#"SELECT * FROM jobwatch.job WHERE NOT gone AND status NOT IN ('Failed', 'Success')
               ORDER BY status_since, source COLLATE "C", id COLLATE "C" LIMIT $1"#,
            values![many(limit)],
        )
        .await?;
    rows.iter().map(|row| Ok((SourceName::from(string(row, "source")?), known(row)?.1))).collect()
}

async fn tallies(client: &Client, look: Look) -> Result<Vec<Tally>, Fault> {
    let rows = client
        .query_typed(
            r#"SELECT seen_at / 60000000 AS minute, from_state, to_state, count(*) AS count FROM
                   (SELECT seen_at, from_state, to_state FROM jobwatch.transition WHERE seen_at >= $1
                    ORDER BY seen_at DESC, n DESC LIMIT $2) AS newest
               GROUP BY 1, 2, 3 ORDER BY 1, from_state COLLATE "C", to_state COLLATE "C""#,
            values![look.since.micros(), many(look.steps_max)],
        )
        .await?;
    let tally = |row: &Row| {
        Ok(Tally {
            minute: Timestamp::from_micros(number::<i64>(row, "minute")?.saturating_mul(MINUTE)),
            from: State::read(&string(row, "from_state")?),
            to: State::read(&string(row, "to_state")?),
            count: number(row, "count")?,
        })
    };
    rows.iter().map(tally).collect()
}

async fn begun(client: &Client) -> Result<Option<Timestamp>, Fault> {
    let row = client.query_typed_one("SELECT min(seen_at) AS begun FROM jobwatch.transition", values![]).await?;
    time(&row, "begun")
}

async fn failures(client: &Client, limit: usize) -> Result<Vec<Failure>, Fault> {
    let rows = client
        .query_typed(
            "SELECT * FROM jobwatch.transition WHERE to_state = 'Failed' ORDER BY seen_at DESC, n DESC LIMIT $1",
            values![many(limit)],
        )
        .await?;
    let steps = rows.iter().map(past::step).collect::<Result<Vec<_>, _>>()?;
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Txt<'_>> = steps.iter().map(|step| Txt(step.id.as_str())).collect();
    let mut heard: HashMap<String, Vec<Heard>> = HashMap::new();
    for row in client.query_typed(HEARD, values![ids, many(HEARD_MAX)]).await? {
        heard.entry(string(&row, "transition")?).or_default().push(heard_by(&row)?);
    }
    let with_heard = |step: std::sync::Arc<crate::model::transition::Transition>| {
        let heard = heard.remove(step.id.as_str()).unwrap_or_default();
        Failure { step, heard }
    };
    Ok(steps.into_iter().map(with_heard).collect())
}

const HEARD: &str = r#"SELECT f.transition, f.receiver, f.outcome, f.why, d.state, d.ended_at, d.note,
        EXISTS (SELECT 1 FROM jobwatch.held AS h WHERE h.id = f.delivery) AS held
    FROM unnest($1::text[]) AS s(id),
         LATERAL (SELECT * FROM jobwatch.fate WHERE transition = s.id
                  ORDER BY receiver COLLATE "C", outcome <> 'told', rule COLLATE "C" LIMIT $2) AS f
    LEFT JOIN jobwatch.delivery AS d ON d.id = f.delivery
    ORDER BY f.transition, f.receiver COLLATE "C", f.outcome <> 'told', f.rule COLLATE "C""#;

fn heard_by(row: &Row) -> Result<Heard, Fault> {
    let receiver = string(row, "receiver")?;
    Ok(Heard {
        receiver: (!receiver.is_empty()).then(|| ReceiverName::from(receiver)),
        outcome: string(row, "outcome")?.parse().unwrap_or(FateOutcome::Counted),
        why: string(row, "why")?,
        state: text(row, "state")?.and_then(|word| word.parse().ok()),
        held: flag(row, "held")?,
        ended_at: time(row, "ended_at")?,
        note: text(row, "note")?.map(String::from).unwrap_or_default(),
    })
}

async fn queues(client: &Client) -> Result<Vec<Queue>, Fault> {
    let outbox = view::outbox(client).await?;
    let late: Vec<_> = outbox.iter().filter(|view| view.pending > 0).map(|view| view.receiver.clone()).collect();
    let (troubles, mut stuck) = tokio::try_join!(troubles(client), stuck(client, &late))?;
    let queue = |outbox: crate::store::view::OutboxView| Queue {
        trouble_since: troubles.get(outbox.receiver.as_str()).copied(),
        stuck: stuck.remove(outbox.receiver.as_str()),
        outbox,
    };
    Ok(outbox.into_iter().map(queue).collect())
}

async fn troubles(client: &Client) -> Result<HashMap<String, Timestamp>, Fault> {
    let rows = client.query_typed("SELECT receiver, since FROM jobwatch.trouble", values![]).await?;
    rows.iter().map(|row| Ok((string(row, "receiver")?, instant(row, "since")?))).collect()
}

async fn stuck(client: &Client, receivers: &[ReceiverName]) -> Result<HashMap<String, Stuck>, Fault> {
    if receivers.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<Txt<'_>> = receivers.iter().map(|name| Txt(name.as_str())).collect();
    let rows = client.query_typed(STUCK, values![names]).await?;
    let stuck = |row: &Row| {
        let stuck = Stuck {
            id: DeliveryId::from(string(row, "id")?),
            title: string(row, "title")?,
            attempts: number(row, "attempts")?,
            since: instant(row, "since")?,
            note: string(row, "note")?,
            due_at: instant(row, "due_at")?,
        };
        Ok((string(row, "receiver")?, stuck))
    };
    rows.iter().map(stuck).collect()
}

const STUCK: &str = "SELECT d.receiver, d.id, d.title, d.attempts, d.note, d.due_at,
        coalesce((SELECT min(at) FROM jobwatch.attempt WHERE delivery = d.n), d.created_at) AS since
    FROM unnest($1::text[]) AS r(name),
         LATERAL (SELECT * FROM jobwatch.delivery WHERE receiver = r.name AND state = 'pending' AND attempts > 0
                  ORDER BY n LIMIT 1) AS d";
