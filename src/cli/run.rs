//! `jobwatch run`: the service.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Exit, Global};
use crate::agent::{Agent, GRACE, Observer, Setup, Shutdown, Tasks};
use crate::clock::Clock;
use crate::config::{self, Config, Purpose};
use crate::ops::log::Log;
use crate::ops::systemd::{self, Notifier};
use crate::rules::RuleSet;
use crate::store::{self, Access, Store};

/// The loops need this much longer than their deliveries.
const STOP_MARGIN: Duration = Duration::from_secs(10);

pub(super) async fn run(global: &Global) -> anyhow::Result<Exit> {
    let Some((config, rules)) = global.load(Purpose::Run)? else { return Ok(Exit::Config) };
    let store = match open(&config, Access::Agent).await {
        Ok(store) => store,
        Err((error, exit)) => {
            error!("{error}");
            return Ok(exit);
        }
    };
    let (sources, receivers, count) = (config.sources.len(), config.receivers.len(), rules.rules.len());
    warn_of_orphans(&*store, &config).await;
    let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(Log::default()), Arc::new(Notifier::new(sources))];
    let (paths, known) = (config.rules.clone(), config.known.clone());
    let agent = assemble(config, rules, store, Arc::new(observers));
    let mut signals = Signals::new()?;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    agent.start(&tasks, &shutdown);
    tasks.spawn(systemd::watchdog(Arc::clone(agent.pulse()), shutdown.clone()));
    info!(sources, receivers, rules = count, version = env!("CARGO_PKG_VERSION"), "watching");
    while let Event::Reload = signals.next().await {
        let (rules, report) = config::rules(&paths, Some(&known));
        report.lines().for_each(|line| warn!("{line}"));
        if report.has_errors() {
            error!("the rules on disk cannot be used: the old ones stay in force");
        } else {
            info!(rules = rules.rules.len(), "the rules were read anew and are in force");
            agent.replace_rules(rules);
        }
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

/// Puts an agent together from a configuration.
pub(super) fn assemble(
    config: Config,
    rules: RuleSet,
    store: Arc<dyn Store>,
    observer: Arc<dyn Observer>,
) -> Arc<Agent> {
    Agent::new(Setup {
        store,
        clock: Clock::system(),
        chance: fastrand::f64,
        sources: config.sources,
        receivers: config.receivers,
        rules,
        watch: config.watch,
        observer,
    })
}

/// Opens the state, or says why not and how to end.
pub(super) async fn open(config: &Config, access: Access) -> Result<Arc<dyn Store>, (store::Error, Exit)> {
    store::open(&config.state, access).await.map_err(|error| {
        let exit = match error {
            store::Error::Unusable(_) => Exit::Config,
            store::Error::InUse(_) | store::Error::Missing(_) | store::Error::Failed(_) => Exit::Failed,
        };
        (error, exit)
    })
}

/// Deliveries to receivers that the configuration no longer has: kept, and said.
async fn warn_of_orphans(store: &dyn Store, config: &Config) {
    for (receiver, count) in store.waiting().await.unwrap_or_default() {
        if !config.receivers.contains_key(&receiver) {
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
