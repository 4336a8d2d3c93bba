//! What is measured of the state, in PostgreSQL. Counts of jobs are made only for the sources that are named: the asker knows
//! where something changed.

use tokio_postgres::{Client, Row};

use super::Fault;
use super::value::{Txt, instant, number, string, time, values};
use crate::model::follow_up::FollowUp;
use crate::model::job::Status;
use crate::model::name::{ReceiverName, SourceName};
use crate::store::{Backlog, Gauges, Seeing};

pub(super) async fn gauges(client: &Client, counted: &[SourceName]) -> Result<Gauges, Fault> {
    let (seeing, jobs, mut outbox) = tokio::try_join!(seeing(client), jobs(client, counted), pending(client))?;
    outbox.retain(|backlog| !FollowUp::is_receiver(&backlog.receiver));
    Ok(Gauges { seeing, jobs, outbox })
}

async fn seeing(client: &Client) -> Result<Vec<Seeing>, Fault> {
    let rows = client
        .query_typed(
            r#"SELECT name, complete_at, blind_since FROM jobwatch.source ORDER BY name COLLATE "C""#,
            values![],
        )
        .await?;
    let seeing = |row: &Row| {
        Ok(Seeing {
            source: SourceName::from(string(row, "name")?),
            complete_at: time(row, "complete_at")?,
            blind_since: time(row, "blind_since")?,
        })
    };
    rows.iter().map(seeing).collect()
}

async fn jobs(client: &Client, counted: &[SourceName]) -> Result<Vec<(SourceName, Status, u64)>, Fault> {
    if counted.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<Txt<'_>> = counted.iter().map(|name| Txt(name.as_str())).collect();
    let rows = client.query_typed(JOBS, values![names]).await?;
    let count = |row: &Row| {
        let source = SourceName::from(string(row, "source")?);
        Ok((source, Status::read(&string(row, "status")?), number(row, "count")?))
    };
    rows.iter().map(count).collect()
}

/// For each source from the index alone.
const JOBS: &str = r#"SELECT c.name AS source, j.status, j.count
    FROM unnest($1::text[]) WITH ORDINALITY AS c(name, place),
         LATERAL (SELECT status, count(*) AS count FROM jobwatch.job
                  WHERE source = c.name AND NOT gone GROUP BY status) AS j
    ORDER BY c.place, j.status COLLATE "C""#;

/// What is owed to whom, follow-ups too. The oldest is the one with the lowest number: so no row is looked at but that one.
pub(super) async fn pending(client: &Client) -> Result<Vec<Backlog>, Fault> {
    let rows = client
        .query_typed(
            r#"SELECT o.receiver, o.pending, d.created_at AS oldest
               FROM (SELECT receiver, count(*) AS pending, min(n) AS oldest FROM jobwatch.delivery
                     WHERE state = 'pending' GROUP BY receiver) AS o
               JOIN jobwatch.delivery AS d ON d.n = o.oldest ORDER BY o.receiver COLLATE "C""#,
            values![],
        )
        .await?;
    let backlog = |row: &Row| {
        Ok(Backlog {
            receiver: ReceiverName::from(string(row, "receiver")?),
            pending: number(row, "pending")?,
            oldest: instant(row, "oldest")?,
        })
    };
    rows.iter().map(backlog).collect()
}
