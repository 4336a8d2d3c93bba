//! What a command asks of the running replicas: each answers for itself, and the command hears of all.

use tokio_postgres::Client;

use super::value::{Txt, flag, number, string, values};
use super::{Fault, news};
use crate::model::time::Timestamp;
use crate::store::{Answer, Request};

/// A request that is older is nobody's any more, in microseconds.
const FRESH_MICROS: i64 = 60_000_000;

pub(super) async fn ask(client: &Client, what: &str, now: Timestamp) -> Result<i64, Fault> {
    client
        .execute_typed("DELETE FROM jobwatch.request WHERE asked_at < $1 - 86400000000", values![now.micros()])
        .await?;
    let insert = "INSERT INTO jobwatch.request (what, asked_at) VALUES ($1, $2) RETURNING n";
    let row = client.query_typed_one(insert, values![Txt(what), now.micros()]).await?;
    news::say(client, "request").await?;
    number(&row, "n")
}

/// Those that this replica has not answered.
pub(super) async fn open(client: &Client, replica: &str, now: Timestamp) -> Result<Vec<Request>, Fault> {
    let rows = client
        .query_typed(
            "SELECT n, what FROM jobwatch.request AS q WHERE asked_at > $3 - $2
                 AND NOT EXISTS (SELECT 1 FROM jobwatch.answer AS a WHERE a.request = q.n AND a.replica = $1) ORDER BY n",
            values![Txt(replica), FRESH_MICROS, now.micros()],
        )
        .await?;
    rows.iter().map(|row| Ok(Request { n: number(row, "n")?, what: string(row, "what")? })).collect()
}

pub(super) async fn answer(
    client: &Client,
    replica: &str,
    n: i64,
    answer: &Answer,
    now: Timestamp,
) -> Result<(), Fault> {
    client
        .execute_typed(
            "INSERT INTO jobwatch.answer (request, replica, name, at, accepted, answer)
             SELECT $1, $2, coalesce((SELECT name FROM jobwatch.replica WHERE id = $2), ''), $3, $4, $5
             WHERE EXISTS (SELECT 1 FROM jobwatch.request WHERE n = $1) ON CONFLICT DO NOTHING",
            values![n, Txt(replica), now.micros(), answer.accepted, Txt(&answer.text)],
        )
        .await?;
    Ok(())
}

/// The answers of all, when every replica that lives has answered.
pub(super) async fn answered(client: &Client, n: i64) -> Result<Option<Answer>, Fault> {
    let open = client
        .query_typed(
            "SELECT 1 FROM jobwatch.living AS r WHERE r.started_at <= (SELECT asked_at FROM jobwatch.request WHERE n = $1)
                 AND NOT EXISTS (SELECT 1 FROM jobwatch.answer AS a WHERE a.request = $1 AND a.replica = r.id)",
            values![n],
        )
        .await?;
    let rows = client
        .query_typed(
            "SELECT name, accepted, answer FROM jobwatch.answer WHERE request = $1 ORDER BY name COLLATE \"C\", replica",
            values![n],
        )
        .await?;
    if rows.is_empty() || !open.is_empty() {
        return Ok(None);
    }
    if let [only] = &rows[..] {
        return Ok(Some(Answer { accepted: flag(only, "accepted")?, text: string(only, "answer")? }));
    }
    // The outcomes are the last line; what stands before it in an answer, and what was refused, comes before.
    let (mut accepted, mut text, mut outcomes) = (true, String::new(), Vec::new());
    for row in &rows {
        let (name, said): (String, String) = (string(row, "name")?, string(row, "answer")?);
        let (before, outcome) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
        match flag(row, "accepted")? {
            true if before.is_empty() => {}
            true => text += &format!("{name}:\n{before}\n"),
            false => text += &format!("{name} refused it:\n{}\n", said.trim_end()),
        }
        match flag(row, "accepted")? {
            true => outcomes.push(format!("{name}: {outcome}")),
            false => accepted = false,
        }
    }
    Ok(Some(Answer { accepted, text: text + &outcomes.join("; ") }))
}
