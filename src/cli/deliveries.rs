//! `jobwatch deliveries`: what was sent to whom, what is stuck, and what to do about it.

use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use serde_json::{Value, json};

use super::{Exit, Format, Global, Since, completions, show, since};
use crate::clock::Clock;
use crate::deliver::tame;
use crate::model::delivery::DeliveryState;
use crate::model::name::{DeliveryId, ReceiverName};
use crate::model::time::{Timestamp, span};
use crate::store::{Again, AttemptRow, Delivery, Dossier, Dropped, Filter, Store};

/// Titles and answers in a table are cut to this many characters; `show` has them whole.
const CELL_MAX: usize = 60;
/// As much of a comment is kept, in characters.
const COMMENT_MAX: usize = 300;
/// What `--state` can be.
const STATES: [&str; 4] = ["pending", "delivered", "dead", "dropped"];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Deliveries {
    /// Deliveries, newest first.
    List(List),
    /// One delivery with every attempt and the bytes that are sent.
    Show {
        /// The delivery's id.
        #[arg(add = completions::deliveries())]
        id: String,
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Send again, under the same id: at once, or with the next start if the agent is not running.
    Retry {
        /// The deliveries' ids.
        #[arg(required_unless_present_any = ["dead", "receiver"], value_name = "ID", add = completions::deliveries())]
        ids: Vec<String>,
        /// Every dead one.
        #[arg(long, conflicts_with = "ids")]
        dead: bool,
        /// Everything that is pending for this receiver; one that retired is opened again. With `--dead`, the dead ones.
        #[arg(long, value_name = "NAME", conflicts_with = "ids", add = completions::receivers())]
        receiver: Option<String>,
    },
    /// End deliveries that are pending or dead: they are kept, and never sent again.
    Drop {
        /// The deliveries' ids.
        #[arg(required = true, value_name = "ID", add = completions::deliveries())]
        ids: Vec<String>,
        /// Who orders it.
        #[arg(long, value_name = "NAME", env = "USER")]
        author: String,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        comment: String,
    },
    /// Deliveries with the bytes that are sent, one JSON object a line, oldest first.
    Export(Export),
}

/// Of which deliveries; all of them where nothing is said.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only to this receiver.
    #[arg(long, value_name = "NAME", add = completions::receivers())]
    receiver: Option<String>,
    /// Only in this state.
    #[arg(long, value_parser = STATES)]
    state: Option<String>,
    /// Only about this job.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only decided within this time, such as `2h` or `14d`, or since this instant.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

impl Which {
    fn filter(self, limit: usize, now: Timestamp) -> Filter {
        Filter {
            receiver: self.receiver.map(ReceiverName::from),
            state: self.state.and_then(|word| word.parse().ok()),
            job: self.job,
            since: self.since.map(|since| since.before(now)),
            limit,
            ..Filter::default()
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    which: Which,
    /// At most this many, the newest.
    #[arg(long, default_value_t = 100_000)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
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
            Self::Retry { ids, dead, receiver } => retry(&*store, ids, dead, receiver.map(ReceiverName::from)).await,
            Self::Drop { ids, author, comment } => end(&*store, ids, &author, &comment).await,
            Self::Export(export) => export.run(&*store).await,
        }
    }
}

impl List {
    async fn run(self, store: &dyn Store) -> anyhow::Result<Exit> {
        let now = Clock::system().now();
        let rows = all(store, self.which.filter(self.limit, now)).await?;
        let mut out = anstream::stdout();
        match self.format {
            Format::Json => writeln!(out, "{}", show::json(&json!(rows)))?,
            Format::Text if rows.is_empty() => writeln!(out, "no deliveries")?,
            Format::Text => writeln!(out, "{}", table(&rows, now))?,
        }
        for (receiver, trouble) in store.troubles().await? {
            if let Some(since) = trouble.held_since {
                writeln!(
                    anstream::stderr(),
                    "{receiver} said {} ago that it is no more: what is pending for it is held until \
                     `jobwatch deliveries retry --receiver {receiver}`, or a start of the service",
                    span(now.since(since))
                )?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Export {
    async fn run(self, store: &dyn Store) -> anyhow::Result<Exit> {
        let now = Clock::system().now();
        let mut out = anstream::stdout();
        for row in all(store, self.which.filter(self.limit, now)).await?.into_iter().rev() {
            let Some(dossier) = store.dossier(&row.id).await? else { continue };
            writeln!(out, "{}", whole(&dossier))?;
        }
        Ok(Exit::Done)
    }
}

/// As many as are wanted, page by page.
async fn all(store: &dyn Store, mut filter: Filter) -> anyhow::Result<Vec<Delivery>> {
    let (wanted, mut rows) = (filter.limit, Vec::new());
    while rows.len() < wanted {
        filter.limit = wanted - rows.len();
        let page = store.deliveries(filter.clone()).await?;
        rows.extend(page.items);
        filter.before = page.next;
        if filter.before.is_none() {
            break;
        }
    }
    Ok(rows)
}

/// A delivery with everything about it. A payload that is JSON is shown as such.
fn whole(dossier: &Dossier) -> Value {
    let Dossier { delivery, attempts, payload } = dossier;
    let text = String::from_utf8_lossy(payload);
    let payload = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
    json!({ "delivery": delivery, "attempts": attempts, "payload": payload })
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
    let Some(dossier) = store.dossier(&DeliveryId::from(id)).await? else {
        writeln!(anstream::stderr(), "error: there is no delivery {id}")?;
        return Ok(Exit::No);
    };
    let mut out = anstream::stdout();
    let all = whole(&dossier);
    if format == Format::Json {
        writeln!(out, "{}", show::json(&all))?;
        return Ok(Exit::Done);
    }
    let Dossier { delivery, attempts, .. } = dossier;
    let (bold, plain) = (show::BOLD, show::PLAIN);
    writeln!(out, "{bold}{}{plain}", show::tame(&delivery.title))?;
    writeln!(out, "id        {}", delivery.id)?;
    writeln!(out, "receiver  {}", delivery.receiver)?;
    writeln!(out, "about     {} {}", delivery.source, show::tame(&delivery.subject))?;
    writeln!(out, "type      {}", delivery.event)?;
    writeln!(out, "state     {}", delivery.state)?;
    writeln!(out, "decided   {}", delivery.created_at)?;
    let ended = delivery.ended_at.map(|at| at.to_string()).unwrap_or_default();
    match delivery.state {
        DeliveryState::Pending => {}
        DeliveryState::Delivered | DeliveryState::Dead => writeln!(out, "ended     {ended}")?,
        DeliveryState::Dropped => writeln!(out, "ended     {ended}, {}", show::tame(&delivery.note))?,
    }
    if let Some(next) = next(store, &delivery, attempts.last()).await? {
        writeln!(out, "next      {next}")?;
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
    writeln!(out, "\n{bold}payload{plain}\n{}", show::json(&all["payload"]))?;
    Ok(Exit::Done)
}

/// What happens next to a delivery, and why.
async fn next(store: &dyn Store, delivery: &Delivery, last: Option<&AttemptRow>) -> anyhow::Result<Option<String>> {
    let (id, receiver) = (&delivery.id, &delivery.receiver);
    Ok(match delivery.state {
        DeliveryState::Delivered | DeliveryState::Dropped => None,
        DeliveryState::Dead => {
            Some(format!("nothing: it was given up; `jobwatch deliveries retry {id}` sends it again"))
        }
        DeliveryState::Pending if store.trouble(receiver).await?.held_since.is_some() => {
            Some(format!("nothing: {receiver} retired; `jobwatch deliveries retry --receiver {receiver}` opens it"))
        }
        DeliveryState::Pending if delivery.parked => Some(
            "when what was decided before about the same job has ended: messages about one job keep their order".into(),
        ),
        DeliveryState::Pending => {
            let why = match last.map(|attempt| attempt.outcome.as_str()) {
                None => "its first attempt",
                Some("refused") => "it was refused, which is tried again slowly",
                Some(_) => "the receiver could not be reached",
            };
            Some(format!("not before {}: {why}", delivery.due_at))
        }
    })
}

async fn retry(
    store: &dyn Store,
    ids: Vec<String>,
    dead: bool,
    receiver: Option<ReceiverName>,
) -> anyhow::Result<Exit> {
    let wanted: Vec<DeliveryId> = ids.into_iter().map(DeliveryId::from).collect();
    let mut out = anstream::stdout();
    let held = match &receiver {
        Some(name) if !dead => store.trouble(name).await?.held_since.is_some(),
        Some(_) | None => false,
    };
    let which = match receiver.clone() {
        receiver if dead => Again::Dead(receiver),
        Some(receiver) => Again::Pending(receiver),
        None => Again::These(wanted.clone()),
    };
    let done = store.again(which, Clock::system().now()).await?;
    if let Some(receiver) = receiver.filter(|_| held) {
        writeln!(out, "{receiver} is open again")?;
    }
    for id in &done {
        writeln!(out, "{id} is due now")?;
    }
    if wanted.is_empty() && done.is_empty() {
        writeln!(out, "nothing is {}", if dead { "dead" } else { "pending" })?;
    }
    let unknown: Vec<&DeliveryId> = wanted.iter().filter(|id| !done.contains(id)).collect();
    for id in &unknown {
        writeln!(anstream::stderr(), "error: there is no delivery {id}")?;
    }
    Ok(if unknown.is_empty() { Exit::Done } else { Exit::No })
}

async fn end(store: &dyn Store, ids: Vec<String>, author: &str, comment: &str) -> anyhow::Result<Exit> {
    let ids: Vec<DeliveryId> = ids.into_iter().map(DeliveryId::from).collect();
    let mut note = format!("dropped by {}", tame(author, CELL_MAX));
    if !comment.is_empty() {
        note = format!("{note}: {}", tame(comment, COMMENT_MAX));
    }
    let ended = store.end(ids.clone(), &note, Clock::system().now()).await?;
    let (mut out, mut exit) = (anstream::stdout(), Exit::Done);
    for (id, what) in ids.iter().zip(ended) {
        let wrong = match what {
            Dropped::Done => {
                writeln!(out, "{id} is dropped")?;
                continue;
            }
            Dropped::UnderWay => {
                writeln!(out, "{id} is dropped; an attempt is under way and may still arrive")?;
                continue;
            }
            Dropped::Ended => format!("{id} has ended already"),
            Dropped::Unknown => format!("there is no delivery {id}"),
        };
        writeln!(anstream::stderr(), "error: {wrong}")?;
        exit = Exit::No;
    }
    Ok(exit)
}
