//! Decisions about one receiver, by several replicas.
//!
//! Whoever makes deliveries for a receiver takes its turn first, and has it until his transaction ends. So the numbers of a
//! receiver's deliveries are in the order in which they came to be seen, and what was decided on a count of what it was told
//! lately is refused when somebody else has decided since.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::Fault;
use super::value::{Txt, number, string, text, values};
use crate::model::name::ReceiverName;
use crate::store::share::Health;
use crate::store::{Error, Turns};

/// Takes the turns of receivers, in an order that is the same for all.
pub(super) async fn take<'a>(
    client: &Client,
    receivers: impl Iterator<Item = &'a str>,
    expected: &Turns,
) -> Result<(), Fault> {
    // By name, so that no two wait for each other.
    let all: BTreeMap<&str, ()> = receivers.map(|receiver| (receiver, ())).collect();
    let receivers: Vec<Txt<'_>> = all.keys().map(|receiver| Txt(receiver)).collect();
    if receivers.is_empty() {
        return Ok(());
    }
    let rows = client
        .query_typed(
            "INSERT INTO jobwatch.turn AS t (receiver, version) SELECT receiver, 1 FROM unnest($1::text[]) AS receiver
             ON CONFLICT (receiver) DO UPDATE SET version = t.version + 1 RETURNING receiver, version",
            values![receivers],
        )
        .await?;
    for row in &rows {
        let (receiver, version): (String, i64) = (string(row, "receiver")?, number(row, "version")?);
        let wrong = |(name, seen): &&(ReceiverName, i64)| name.as_str() == receiver && seen + 1 != version;
        if expected.iter().find(wrong).is_some() {
            return Err(Fault::Said(Error::Overtaken));
        }
    }
    Ok(())
}

/// What is to be expected of the turns of receivers, if nobody takes them meanwhile.
pub(super) async fn turns(client: &Client, receivers: &[Txt<'_>]) -> Result<Vec<(ReceiverName, i64)>, Fault> {
    let receivers = receivers.to_vec();
    let rows = client
        .query_typed(
            "SELECT receiver, coalesce(t.version, 0) AS version
             FROM unnest($1::text[]) AS receiver LEFT JOIN jobwatch.turn AS t USING (receiver)",
            values![receivers],
        )
        .await?;
    rows.iter().map(|row| Ok((ReceiverName::from(string(row, "receiver")?), number(row, "version")?))).collect()
}

/// How a receiver fares.
pub(super) async fn health(client: &Client, receiver: &ReceiverName) -> Result<Health, Fault> {
    let select = "SELECT version, state FROM jobwatch.health WHERE receiver = $1";
    match client.query_typed_opt(select, values![Txt(receiver.as_str())]).await? {
        None => Ok(Health::default()),
        Some(row) => Ok(Health { version: number(&row, "version")?, state: text(&row, "state")?.map(String::from) }),
    }
}

/// Says how it fares, if nobody has said anything since.
pub(super) async fn set_health(
    client: &Client,
    receiver: &ReceiverName,
    seen: i64,
    state: Option<&str>,
) -> Result<Health, Fault> {
    let name = Txt(receiver.as_str());
    let changed = match (state, seen) {
        (Some(state), 0) => {
            let insert =
                "INSERT INTO jobwatch.health (receiver, version, state) VALUES ($1, nextval('jobwatch.token'), $2)
                ON CONFLICT (receiver) DO NOTHING RETURNING version, state";
            client.query_typed_opt(insert, values![name, Txt(state)]).await?
        }
        (Some(state), seen) => {
            let update = "UPDATE jobwatch.health SET version = nextval('jobwatch.token'), state = $2
                WHERE receiver = $1 AND version = $3 RETURNING version, state";
            client.query_typed_opt(update, values![name, Txt(state), seen]).await?
        }
        (None, seen) => {
            let delete = "DELETE FROM jobwatch.health WHERE receiver = $1 AND version = $2 RETURNING version, state";
            match client.query_typed_opt(delete, values![name, seen]).await? {
                Some(_) => {
                    super::news::due(client, [receiver.as_str()]).await?;
                    return Ok(Health::default());
                }
                None => None,
            }
        }
    };
    match changed {
        Some(row) => {
            super::news::due(client, [receiver.as_str()]).await?;
            Ok(Health { version: number(&row, "version")?, state: text(&row, "state")?.map(String::from) })
        }
        None => health(client, receiver).await,
    }
}
