//! `jobwatch deliveries`: what was sent to whom, what is stuck, and what to do about it.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;

use super::grid::{Cell, cell};
use super::list::{self, Follow, Shape};
use super::run::now;
use super::{Exit, Format, Global, Since, completions, show, since};
use crate::clock::Clock;
use crate::config::Config;
use crate::deliver::tame;
use crate::model::delivery::DeliveryState;
use crate::model::name::{DeliveryId, ReceiverName, SourceName};
use crate::model::time::{Timestamp, span};
use crate::store::view::PAGE_MAX;
use crate::store::{self, Again, AttemptRow, Delivery, Dossier, Dropped, Filter, Store};

/// As much of a name is kept, in characters.
const NAME_MAX: usize = 60;
/// Deliveries whose end is waited for.
const OPEN_MAX: usize = 500;
/// As much of a comment is kept, in characters.
const COMMENT_MAX: usize = 300;
/// What `--state` can be.
const STATES: [&str; 4] = ["pending", "delivered", "dead", "dropped"];

#[derive(Debug, clap::Args)]
pub(super) struct Deliveries {
    #[command(subcommand)]
    deed: Option<Deed>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Deed {
    /// Deliveries, newest first; the same without a word.
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
        #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
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
    /// Only about a job of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only about this job.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only decided within this time, such as `2h` or `14d`, or since this instant.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

impl Which {
    fn filter(self, now: Timestamp) -> Filter {
        Filter {
            receiver: self.receiver.map(ReceiverName::from),
            state: self.state.and_then(|word| word.parse().ok()),
            source: self.source.map(SourceName::from),
            job: self.job,
            since: self.since.map(|since| since.before(now)),
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
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    follow: Follow,
}

impl Deliveries {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        // Not clap's own way to say so: that forbids `--config` there as well.
        if self.deed.is_some() && !self.list.is_bare() {
            let text = "what is to be listed stands behind `list`: `jobwatch deliveries list --state dead`\n";
            clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, text).exit();
        }
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        let Some(deed) = self.deed else { return self.list.run(&config, &*store).await };
        match deed {
            Deed::List(list) => list.run(&config, &*store).await,
            Deed::Show { id, format } => show_one(&*store, &id, format).await,
            Deed::Retry { ids, dead, receiver } => retry(&*store, ids, dead, receiver.map(ReceiverName::from)).await,
            Deed::Drop { ids, author, comment } => end(&*store, ids, &author, &comment).await,
            Deed::Export(export) => export.run(&*store).await,
        }
    }
}

const HEAD: [&str; 7] = ["ID", "RECEIVER", "STATE", "AGE", "(TRIES)", "[TITLE]", "([LAST ANSWER])"];

impl List {
    /// Nothing was said of what is to be listed, or how.
    fn is_bare(&self) -> bool {
        let Which { receiver, state, source, job, since } = &self.which;
        let which = [receiver, state, source, job].iter().all(|word| word.is_none()) && since.is_none();
        which && self.shape.is_usual() && !self.follow.follow
    }

    async fn run(self, config: &Config, store: &dyn Store) -> anyhow::Result<Exit> {
        let now = Clock::system().now();
        let (shape, follow, filter) = (self.shape, self.follow.follow, self.which.filter(now));
        // Before the first page: what is committed in between is in both, and nothing in neither.
        let (_, mark) = store.marks().await?;
        let rows = all(store, &filter, shape.limit(follow)).await?;
        if follow {
            let mut news = News { mark, open: BTreeMap::new(), shown: rows.iter().map(|row| row.id.clone()).collect() };
            let pending = Filter { state: Some(DeliveryState::Pending), ..filter.clone() };
            rows.iter().chain(&all(store, &pending, OPEN_MAX).await?).for_each(|row| news.keep(row));
            return shape.follow(rows, async || news.look(store, &filter).await, line).await;
        }
        shape.print(&rows, &list::none("deliveries", config, filter.source.as_ref(), &[]), &HEAD, cells)?;
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
        for row in all(store, &self.which.filter(now), self.limit).await?.into_iter().rev() {
            let Some(dossier) = store.dossier(&row.id).await? else { continue };
            writeln!(out, "{}", dossier.json())?;
        }
        Ok(Exit::Done)
    }
}

async fn all(store: &dyn Store, filter: &Filter, limit: usize) -> Result<Vec<Delivery>, store::Error> {
    let fetch = async |before, limit| store.deliveries(Filter { before, limit, ..filter.clone() }).await;
    list::pages(limit, fetch).await
}

/// What is new about deliveries: they are decided, in the order of their commits, and those that were shown get on.
struct News {
    mark: i64,
    /// Shown before the first look.
    shown: HashSet<DeliveryId>,
    /// Those that were shown and have not ended, with their attempts so far.
    open: BTreeMap<DeliveryId, (DeliveryState, u32)>,
}

impl News {
    fn keep(&mut self, row: &Delivery) {
        self.open.remove(&row.id);
        if row.state == DeliveryState::Pending && self.open.len() < OPEN_MAX {
            self.open.insert(row.id.clone(), (row.state, row.attempts));
        }
    }

    async fn look(&mut self, store: &dyn Store, filter: &Filter) -> Result<Vec<Delivery>, store::Error> {
        let mut rows = Vec::new();
        for (id, said) in self.open.clone() {
            match store.delivery(&id).await? {
                Some(row) if (row.state, row.attempts) == said => {}
                Some(row) => rows.push(row),
                None => drop(self.open.remove(&id)),
            }
        }
        // In whatever state: each begins as a pending one.
        let every = Filter { state: None, limit: PAGE_MAX, ..filter.clone() };
        let (new, mark) = store.deliveries_after(every, self.mark).await?;
        self.mark = mark;
        rows.extend(new.into_iter().filter(|row| !self.shown.remove(&row.id)));
        rows.iter().for_each(|row| self.keep(row));
        rows.retain(|row| filter.state.is_none_or(|state| row.state == state));
        Ok(rows)
    }
}

fn colour(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => show::YELLOW,
        DeliveryState::Delivered => show::GREEN,
        DeliveryState::Dead => show::RED,
        DeliveryState::Dropped => show::DIM,
    }
}

fn cells(row: &Delivery, now: Timestamp) -> Vec<Cell> {
    vec![
        cell(&row.id),
        cell(&row.receiver),
        Cell::coloured(row.state, colour(row.state)),
        cell(span(now.since(row.created_at))),
        cell(row.attempts),
        cell(&row.title),
        cell(&row.note),
    ]
}

fn line(row: &Delivery) -> String {
    let (at, colour, plain) = (list::instant(row.created_at), colour(row.state), show::PLAIN);
    let note = match (row.attempts, row.note.as_str()) {
        (0, "") => String::new(),
        (1, note) => format!(" (attempt 1: {})", show::tame(note)),
        (attempts, note) => format!(" ({attempts} attempts: {})", show::tame(note)),
    };
    format!("{at} {} {colour}{}{plain} {} {}{note}", row.id, row.state, row.receiver, show::tame(&row.title))
}

async fn show_one(store: &dyn Store, id: &str, format: Format) -> anyhow::Result<Exit> {
    let Some(dossier) = store.dossier(&DeliveryId::from(id)).await? else {
        writeln!(anstream::stderr(), "error: there is no delivery {id}")?;
        return Ok(Exit::No);
    };
    let mut out = anstream::stdout();
    let all = dossier.json();
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
        // Also after `retry`, whatever was answered before.
        DeliveryState::Pending if last.is_some() && delivery.due_at <= Clock::system().now() => {
            Some(format!("when its turn comes, while an agent runs: it is due since {}", delivery.due_at))
        }
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
    let done = store.again(which, now(store).await?).await?;
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
    let mut note = format!("dropped by {}", tame(author, NAME_MAX));
    if !comment.is_empty() {
        note = format!("{note}: {}", tame(comment, COMMENT_MAX));
    }
    let ended = store.end(ids.clone(), &note, now(store).await?).await?;
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
