//! `jobwatch probe`: one listing, or one test message, through the real path; nothing is written.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::{Exit, Global, completions, doctor, show};
use crate::clock::Clock;
use crate::config::{Config, Purpose};
use crate::model::alert::Severity;
use crate::model::delivery::{Claimed, Frozen, Lane, Outcome, Owed};
use crate::model::index::Index;
use crate::model::listing::Listing;
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Event, Notification, Topic};
use crate::source::{Finding, Health};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Probe {
    /// List a source once, whole, and say what was found.
    Source {
        /// Its name.
        #[arg(add = completions::sources())]
        name: String,
    },
    /// Send one clearly marked test message.
    Receiver {
        /// Its name.
        #[arg(add = completions::receivers())]
        name: String,
    },
}

impl Probe {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let Some((config, _)) = global.load(Purpose::Run)? else { return Ok(Exit::Config) };
        match self {
            Self::Source { name } => source(&config, &name).await,
            Self::Receiver { name } => receiver(&config, &name).await,
        }
    }
}

/// A clearly marked message, over the receiver's real path but past the outbox: it is sent once, now, or not at all.
async fn receiver(config: &Config, name: &str) -> anyhow::Result<Exit> {
    let Some((name, setup)) = config.receivers.iter().find(|(known, _)| known.as_str() == name) else {
        let known: Vec<&str> = config.receivers.keys().map(ReceiverName::as_str).collect();
        anyhow::bail!("there is no receiver `{name}`; {}", crate::document::suggest(name, &known));
    };
    let (clock, moment) = (Clock::system(), Clock::system().now());
    let title = format!("jobwatch probe: a test message to {name}");
    let notification = Notification {
        event: Event::Probe,
        time: moment,
        severity: Severity::Info,
        title: title.clone(),
        body: "Nothing has failed. Somebody ran `jobwatch probe receiver` to see whether messages arrive here.".into(),
        topic: Topic::Probe(name.clone()),
    };
    let lane = Lane { source: None, subject: JobId::from(format!("probe/{name}")) };
    let id = DeliveryId::from(derive("msg", &["jobwatch/probe/v1", name.as_str(), &moment.micros().to_string()]));
    let owed = Owed { id: id.clone(), receiver: name.clone(), lane: lane.clone(), notification, pace: None };
    let frozen = Frozen {
        id,
        receiver: name.clone(),
        lane,
        event: Event::Probe.as_str().to_owned(),
        title,
        created_at: moment,
        seen_at: None,
        payload: setup.receiver.freeze(&owed),
    };
    let claimed = Claimed {
        frozen,
        budget_from: moment,
        tries: 0,
        refused_since: None,
        escalate_at: None,
        progress: Vec::new(),
        token: 0,
    };
    let watch = clock.stopwatch();
    let sent = setup.receiver.send(&claimed, moment).await;
    let (health, word) = match &sent.outcome {
        Outcome::Accepted { .. } => (Health::Good, "accepted"),
        Outcome::Refused { .. } => (Health::Bad, "refused"),
        Outcome::Retired { .. } => (Health::Bad, "retired"),
        Outcome::Unreachable { .. } => (Health::Bad, "not reached"),
    };
    let took = watch.elapsed().as_secs_f64();
    let text = format!(
        "{word} by {} in {took:.2} s: {} ({})",
        setup.receiver.target(),
        sent.outcome.detail(),
        claimed.frozen.id
    );
    doctor::print(&mut anstream::stdout(), &format!("receiver {name}: "), &Finding { what: "probe", health, text })?;
    Ok(if health == Health::Good { Exit::Done } else { Exit::No })
}

async fn source(config: &Config, name: &str) -> anyhow::Result<Exit> {
    let known: Vec<&str> = config.sources.iter().map(|setup| setup.source.facts().name.as_str()).collect();
    let Some(setup) = config.sources.iter().find(|setup| setup.source.facts().name.as_str() == name) else {
        anyhow::bail!("there is no source `{name}`; {}", crate::document::suggest(name, &known));
    };
    let watch = Clock::system().stopwatch();
    let listing = setup.source.list(&Index::default(), true).await;
    let took = watch.elapsed().as_secs_f64();
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    for job in &listing.rows().jobs {
        *statuses.entry(job.status.to_string()).or_default() += 1;
    }
    let counts: Vec<String> = statuses.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let counts = if counts.is_empty() { "no jobs".to_owned() } else { counts.join(", ") };
    let (health, text) = match &listing {
        Listing::Complete(_) | Listing::Brief(_) => (Health::Good, format!("complete in {took:.2} s: {counts}")),
        Listing::Incomplete { fault, .. } => (Health::Bad, format!("{fault} (read before that: {counts})")),
    };
    let mut out = anstream::stdout();
    doctor::print(
        &mut out,
        "",
        &Finding { what: "credential", health: Health::Good, text: setup.source.credential() },
    )?;
    doctor::print(&mut out, "", &Finding { what: "listing", health, text })?;
    for remark in setup.source.remarks() {
        doctor::print(&mut out, "", &Finding { what: "note", health: Health::Doubtful, text: remark })?;
    }
    if health == Health::Bad {
        writeln!(out, "{}`jobwatch doctor` looks at each step{}", show::DIM, show::PLAIN)?;
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}
