//! A state that comes from elsewhere, into a database in which there is none.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::{Client, Row};

use super::value::{Bound, bound, flag, number, string, values};
use super::{Fault, Postgres, known_version, look, migrate, version};
use crate::store::care::{Progress, Rows};
use crate::store::copy::{Column, Copied, Parcel, TABLES};
use crate::store::{Access, Error, Place};

/// Without the bounds of what agents do: nobody waits for it.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = 0; \
     SET LOCAL idle_in_transaction_session_timeout = 0";
/// A step that takes longer than this has failed.
const STEP_MAX: Duration = Duration::from_secs(300);

/// Writes all that comes, in one transaction, if `pour` comes to a good end.
pub(in crate::store) async fn fill(
    place: &Place,
    parcels: mpsc::Receiver<Parcel>,
    pour: impl Future<Output = Result<(), Error>>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Copied, Error> {
    let store = Postgres::found(place).await?;
    let loan = store.connect().await?;
    let client = loan.client();
    let write = async {
        client.batch_execute(BEGIN).await?;
        take(client, parcels, progress).await
    };
    // Whoever fails ends the other: the channel is closed.
    let (written, poured) = tokio::join!(write, pour);
    let rows = match written {
        Err(Fault::Sql(error)) => return Err(store.sort(&error)),
        Err(Fault::Said(error)) => return Err(error),
        Ok(rows) => poured.map(|()| rows)?,
    };
    client.batch_execute("COMMIT").await.map_err(|error| store.sort(&error))?;
    loan.give_back();
    Ok(Copied { rows, to: store.target.shown.clone() })
}

impl Postgres {
    /// A database that can have a state.
    async fn found(place: &Place) -> Result<Self, Error> {
        let store = Self::beside(place)?;
        let found = store.read(&(), |client, ()| Box::pin(look(client))).await?;
        store.judge(&found, Access::Agent)?;
        Ok(store)
    }
}

async fn take(
    client: &Client,
    mut parcels: mpsc::Receiver<Parcel>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Rows>, Fault> {
    prepare(client).await?;
    let (mut all, mut done) = (0, 0);
    let mut counts = vec![0_u64; TABLES.len()];
    while let Some(parcel) = parcels.recv().await {
        match parcel {
            Parcel::All(rows) => all = rows,
            Parcel::Rows { table, rows, columns } => {
                insert(client, table, &columns).await?;
                done += rows as u64;
                if let Some(count) =
                    TABLES.iter().position(|known| known.name == table).and_then(|at| counts.get_mut(at))
                {
                    *count += rows as u64;
                }
                progress(Progress { done, all });
            }
            Parcel::Last { table, n } => {
                let sequence = format!("SELECT setval(pg_get_serial_sequence('jobwatch.{table}', 'n'), $1)");
                client.query_typed(&sequence, values![n]).await?;
            }
        }
    }
    let mut rows = Vec::new();
    for (table, sent) in TABLES.iter().zip(counts) {
        let name = table.name;
        let row = client.query_typed_one(&format!("SELECT count(*) AS rows FROM jobwatch.{name}"), &[]).await?;
        let found: u64 = number(&row, "rows")?;
        if found != sent {
            return Err(Fault::Said(Error::Failed(format!(
                "{name}: {sent} rows were copied and {found} are there: nothing was kept of the copy"
            ))));
        }
        rows.push(Rows { table: name, rows: found });
        // What the planner knows is nothing until then.
        client.batch_execute(&format!("ANALYZE jobwatch.{name}")).await?;
    }
    Ok(rows)
}

/// Makes the tables, sees that nothing is in them, and keeps everybody else out until the end.
async fn prepare(client: &Client) -> Result<(), Fault> {
    migrate(client).await?;
    let said = |why: String| Err(Fault::Said(Error::Failed(why)));
    if version(client).await?.is_none_or(|(version, _)| version != known_version()) {
        return said("the database has a state of a newer jobwatch: copy with that one".into());
    }
    let tables = client
        .query_typed(
            "SELECT quote_ident(relname) AS name FROM pg_class
             WHERE relnamespace = 'jobwatch'::regnamespace AND relkind = 'r' AND relname <> 'version' ORDER BY relname",
            &[],
        )
        .await?;
    let names: Vec<String> = tables.iter().map(|row: &Row| string(row, "name")).collect::<Result<_, _>>()?;
    let all: Vec<String> = names.iter().map(|name| format!("jobwatch.{name}")).collect();
    client.batch_execute(&format!("LOCK TABLE {} IN EXCLUSIVE MODE", all.join(", "))).await?;
    for name in names {
        let any = format!("SELECT EXISTS (SELECT 1 FROM jobwatch.{name}) AS any");
        if flag(&client.query_typed_one(&any, &[]).await?, "any")? {
            return said(format!(
                "there is a state in the database already (`{name}` has rows); nothing was written: name an empty database, or \
                 give that state up first (DROP SCHEMA jobwatch CASCADE)"
            ));
        }
    }
    Ok(())
}

async fn insert(client: &Client, table: &str, columns: &[Column]) -> Result<(), Fault> {
    let Some(known) = TABLES.iter().find(|known| known.name == table) else { return Ok(()) };
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    let statement =
        format!("INSERT INTO jobwatch.{table} ({}) SELECT * FROM unnest({})", known.names(), places.join(", "));
    let values: Vec<Bound<'_>> = columns
        .iter()
        .map(|column| match column {
            Column::Numbers(numbers) => bound(numbers),
            Column::Flags(flags) => bound(flags),
            Column::Texts(texts) => bound(texts),
            Column::Bytes(bytes) => bound(bytes),
        })
        .collect();
    let written = tokio::time::timeout(STEP_MAX, client.execute_typed(&statement, &values)).await;
    written.map_err(|_| {
        Fault::Said(Error::Failed(format!(
            "the database did not take a step of the copy within {} s",
            STEP_MAX.as_secs()
        )))
    })??;
    Ok(())
}
