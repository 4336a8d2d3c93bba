//! `jobwatch run`: the service.

mod reload;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Exit, Global};
use crate::agent::{Agent, GRACE, Observer, Replica, Setup, Shutdown, Tasks};
use crate::clock::Clock;
use crate::config::{self, Config, Purpose};
use crate::model::follow_up::FollowUp;
use crate::model::time::Timestamp;
use crate::ops::admin::{Admin, Inside};
use crate::ops::log::Log;
use crate::ops::metrics::{Metrics, Subjects};
use crate::ops::page::{Now, Page, Setup as PageSetup, Witness};
use crate::ops::systemd::{self, Notifier};
use crate::rules::RuleSet;
use crate::store::{self, Access, Store};
pub(super) use reload::RELOAD;
use reload::Reloader;

/// The loops need this much longer than their deliveries.
const STOP_MARGIN: Duration = Duration::from_secs(10);

pub(super) async fn run(global: &Global) -> anyhow::Result<Exit> {
    let Some((config, rules, footprint)) = global.load_all(Purpose::Run)? else { return Ok(Exit::Config) };
    let store = match open(&config, Access::Agent).await {
        Ok(store) => store,
        Err((error, exit)) => {
            error!("{error}");
            return Ok(exit);
        }
    };
    let admin = match bind(config.admin.clone()).await {
        Ok(admin) => admin,
        Err(error) => {
            error!("{error}");
            return Ok(Exit::Failed);
        }
    };
    let (sources, receivers, count) = (config.sources.len(), config.receivers.len(), rules.rules.len());
    warn_of_orphans(&*store, &config).await;
    let clock = match clock(&*store).await {
        Ok(clock) => clock,
        Err(error) => {
            error!("{error}");
            return Ok(Exit::Failed);
        }
    };
    let now: Now = {
        let clock = clock.clone();
        Arc::new(move || clock.now())
    };
    let metrics = Arc::new(measure(&config, &rules, Arc::clone(&store), clock.clone()));
    let witness = Arc::new(Witness::new(count, Arc::clone(&now)));
    let about = PageSetup {
        sources: config.sources.iter().map(|setup| setup.source.facts().name.clone()).collect(),
        receivers: config.receivers.keys().cloned().collect(),
        started: now(),
    };
    // The log comes last: what it says is measured already.
    let observers: Vec<Arc<dyn Observer>> = vec![
        Arc::<Metrics>::clone(&metrics),
        Arc::<Witness>::clone(&witness),
        Arc::new(Notifier::new(sources)),
        Arc::new(Log::new({
            let now = Arc::clone(&now);
            move || now()
        })),
    ];
    let (paths, known, when) = (config.rules.clone(), config.known.clone(), config.reload);
    let agent = assemble(config, rules, Arc::clone(&store), clock.clone(), Arc::new(observers));
    let shared = reload::Shared { store: Arc::clone(&store), clock };
    let reloader = Reloader::new(Arc::clone(&agent), shared, paths, known, footprint);
    let mut signals = Signals::new()?;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    agent.start(&tasks, &shutdown);
    tasks.spawn(systemd::watchdog(Arc::clone(agent.pulse()), shutdown.clone()));
    reloader.start(when, &tasks, &shutdown);
    if let Some(admin) = admin {
        let rules = Arc::<Reloader>::clone(&reloader);
        let pulse = Arc::clone(agent.pulse());
        let page = Arc::new(Page::new(about, Arc::clone(&store), pulse, witness, now));
        let inside = Inside { agent: Arc::clone(&agent), store, metrics, rules, page };
        tasks.spawn(admin.serve(inside, tasks.clone(), shutdown.clone()));
    }
    info!(sources, receivers, rules = count, version = env!("CARGO_PKG_VERSION"), "watching");
    while let Event::Reload = signals.next().await {
        reloader.hang_up();
    }
    info!("stopping: deliveries that are under way may finish");
    systemd::stopping();
    shutdown.request();
    let in_time = tokio::select! {
        in_time = tasks.finished(GRACE + STOP_MARGIN) => in_time,
        // Asked twice: at once. What is under way is sent again under its id.
        _ = signals.next() => false,
    };
    info!("stopped");
    Ok(if in_time { Exit::Done } else { Exit::Failed })
}

/// The clock that all who share the store go by.
pub(super) async fn clock(store: &dyn Store) -> Result<Clock, store::Error> {
    Ok(store.time().await?.map_or_else(Clock::system, Clock::steered))
}

/// The time on that clock.
pub(super) async fn now(store: &dyn Store) -> Result<Timestamp, store::Error> {
    Ok(clock(store).await?.now())
}

/// Puts an agent together from a configuration.
pub(super) fn assemble(
    config: Config,
    rules: RuleSet,
    store: Arc<dyn Store>,
    clock: Clock,
    observer: Arc<dyn Observer>,
) -> Arc<Agent> {
    Agent::new(Setup {
        store,
        clock,
        chance: fastrand::f64,
        sources: config.sources,
        receivers: config.receivers,
        follow_ups: config.follow_ups,
        rules,
        watch: config.watch,
        retention: config.retention,
        replica: Replica { name: name(), lease: config.lease },
        observer,
        heartbeat: config.heartbeat,
    })
}

/// Opens the state, or says why not and how to end.
pub(super) async fn open(config: &Config, access: Access) -> Result<Arc<dyn Store>, (store::Error, Exit)> {
    store::open(&config.state, access).await.map_err(|error| {
        let exit = match error {
            store::Error::Unusable(_) => Exit::Config,
            store::Error::InUse(_)
            | store::Error::Missing(_)
            | store::Error::Failed(_)
            | store::Error::Fenced(_)
            | store::Error::Overtaken => Exit::Failed,
        };
        (error, exit)
    })
}

/// What other replicas, and people, call this one.
fn name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}

/// Binds the admin interface, if there is one.
async fn bind(admin: Option<config::Admin>) -> anyhow::Result<Option<Admin>> {
    let Some(config::Admin { listen, token }) = admin else { return Ok(None) };
    let bound = Admin::bind(listen, token).await.and_then(|admin| {
        info!(address = %admin.address()?, "the admin interface listens");
        Ok(admin)
    });
    bound.map(Some).map_err(|error| anyhow::anyhow!("[admin] listen: {listen} cannot be bound: {error}"))
}

/// The metrics of all that is configured.
fn measure(config: &Config, rules: &RuleSet, store: Arc<dyn Store>, clock: Clock) -> Metrics {
    let subjects = Subjects {
        sources: config.sources.iter().map(|setup| setup.source.facts().name.clone()).collect(),
        receivers: config.receivers.keys().cloned().collect(),
        rules: rules.rules.iter().map(|rule| rule.id().clone()).collect(),
    };
    Metrics::new(subjects, store, move || clock.now())
}

/// Deliveries to receivers that the configuration no longer has: kept, and said.
async fn warn_of_orphans(store: &dyn Store, config: &Config) {
    for (receiver, count) in store.waiting().await.unwrap_or_default() {
        let known = config.follow_ups.keys().any(|name| FollowUp::receiver(name) == receiver);
        if !known && !config.receivers.contains_key(&receiver) {
            let receiver = receiver.as_str();
            warn!(receiver, count, "deliveries wait for a receiver that the configuration does not have");
        }
    }
}

enum Event {
    Stop,
    Reload,
}

struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hang_up.recv() => Event::Reload,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.terminate.recv() => Event::Stop,
        }
    }
}
