//! `jobwatch deliveries`: what was sent to whom, what is stuck, and sending it again.

use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use serde_json::json;

use super::{Exit, Format, Global, Since, show, since};
use crate::clock::Clock;
use crate::deliver::tame;
use crate::model::delivery::DeliveryState;
use crate::model::name::{DeliveryId, ReceiverName};
use crate::model::time::{Timestamp, span};
use crate::store::{Again, Delivery, Dossier, Filter, Store};

/// Titles and answers in a table are cut to this many characters; `show` has them whole.
const CELL_MAX: usize = 60;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Deliveries {
    /// Deliveries, newest first.
    List(List),
    /// One delivery with every attempt and the bytes that are sent.
    Show {
        /// The delivery's id.
        id: String,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Send again, under the same id: at once, or with the next start if the agent is not running.
    Retry {
        /// The deliveries' ids.
        #[arg(required_unless_present = "dead")]
        ids: Vec<String>,
        /// Every dead one.
        #[arg(long, conflicts_with = "ids")]
        dead: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only to this receiver.
    #[arg(long, value_name = "NAME")]
    receiver: Option<String>,
    /// Only in this state.
    #[arg(long, value_parser = ["pending", "delivered", "dead"])]
    state: Option<String>,
    /// Only about this job.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only decided within this time, such as `2h` or `14d`, or since this instant.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// At most this many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How to print them.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Deliveries {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (_, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        match self {
            Self::List(list) => list.run(&*store).await,
            Self::Show { id, format } => show_one(&*store, &id, format).await,
            Self::Retry { ids, dead } => retry(&*store, ids, dead).await,
        }
    }
}

impl List {
    async fn run(self, store: &dyn Store) -> anyhow::Result<Exit> {
        let now = Clock::system().now();
        let filter = Filter {
            receiver: self.receiver.map(ReceiverName::from),
            state: self.state.and_then(|word| word.parse().ok()),
            job: self.job,
            since: self.since.map(|since| since.before(now)),
            limit: self.limit,
        };
        let rows = store.deliveries(filter).await?;
        let mut out = anstream::stdout();
        match self.format {
            Format::Json => writeln!(out, "{:#}", json!(rows))?,
            Format::Text if rows.is_empty() => writeln!(out, "no deliveries")?,
            Format::Text => writeln!(out, "{}", table(&rows, now))?,
        }
        Ok(Exit::Done)
    }
}

fn table(rows: &[Delivery], now: Timestamp) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ID", "RECEIVER", "STATE", "AGE", "TRIES", "TITLE", "LAST ANSWER"]);
    for row in rows {
        table.add_row([
            Cell::new(&row.id),
            Cell::new(&row.receiver),
            Cell::new(row.state),
            Cell::new(span(now.since(row.created_at))),
            Cell::new(row.attempts),
            Cell::new(tame(&row.title, CELL_MAX)),
            Cell::new(tame(&row.note, CELL_MAX)),
        ]);
    }
    table
}

async fn show_one(store: &dyn Store, id: &str, format: Format) -> anyhow::Result<Exit> {
    let Some(Dossier { delivery, attempts, payload }) = store.dossier(&DeliveryId::from(id)).await? else {
        writeln!(anstream::stderr(), "error: there is no delivery {id}")?;
        return Ok(Exit::No);
    };
    let mut out = anstream::stdout();
    let payload = String::from_utf8_lossy(&payload).into_owned();
    let payload = serde_json::from_str(&payload).unwrap_or_else(|_| json!(payload));
    if format == Format::Json {
        writeln!(out, "{:#}", json!({ "delivery": delivery, "attempts": attempts, "payload": payload }))?;
        return Ok(Exit::Done);
    }
    let (bold, plain) = (show::BOLD, show::PLAIN);
    writeln!(out, "{bold}{}{plain}", show::tame(&delivery.title))?;
    writeln!(out, "id        {}", delivery.id)?;
    writeln!(out, "receiver  {}", delivery.receiver)?;
    writeln!(out, "about     {} {}", delivery.source, show::tame(&delivery.subject))?;
    writeln!(out, "type      {}", delivery.event)?;
    writeln!(out, "state     {}", delivery.state)?;
    writeln!(out, "decided   {}", delivery.created_at)?;
    match delivery.state {
        DeliveryState::Pending => writeln!(out, "due       {}", delivery.due_at)?,
        DeliveryState::Delivered | DeliveryState::Dead => {
            writeln!(out, "ended     {}", delivery.ended_at.map(|at| at.to_string()).unwrap_or_default())?;
        }
    }
    writeln!(out, "\n{bold}attempts{plain}")?;
    for attempt in &attempts {
        let (number, at, outcome) = (attempt.number, attempt.at, &attempt.outcome);
        writeln!(
            out,
            "{number:>4}  {at}  {:>7} ms  {outcome}: {}",
            attempt.took.as_millis(),
            show::tame(&attempt.detail)
        )?;
    }
    if attempts.is_empty() {
        writeln!(out, "  none yet")?;
    }
    writeln!(out, "\n{bold}payload{plain}\n{payload:#}")?;
    Ok(Exit::Done)
}

async fn retry(store: &dyn Store, ids: Vec<String>, dead: bool) -> anyhow::Result<Exit> {
    let wanted: Vec<DeliveryId> = ids.into_iter().map(DeliveryId::from).collect();
    let which = if dead { Again::Dead } else { Again::These(wanted.clone()) };
    let done = store.again(which, Clock::system().now()).await?;
    let mut out = anstream::stdout();
    for id in &done {
        writeln!(out, "{id} is due now")?;
    }
    if dead && done.is_empty() {
        writeln!(out, "nothing is dead")?;
    }
    let unknown: Vec<&DeliveryId> = wanted.iter().filter(|id| !done.contains(id)).collect();
    for id in &unknown {
        writeln!(anstream::stderr(), "error: there is no delivery {id}")?;
    }
    Ok(if unknown.is_empty() { Exit::Done } else { Exit::No })
}
