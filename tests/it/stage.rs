//! An agent in this process, in a world of real servers, with a clock that the story moves.

use std::sync::Arc;
use std::time::Duration;

use jobwatch::agent::{Agent, Observer, Seen, Setup};
use jobwatch::clock::Clock;
use jobwatch::config::{self, Purpose};
use jobwatch::model::time::Timestamp;
use jobwatch::store::{self, Access, Delivery, Filter, Store};

use crate::world::{World, soon};

/// An agent in this process, whose clock the story moves.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) agent: Arc<Agent>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
}

struct Nobody;

impl Observer for Nobody {
    fn see(&self, _: &Seen<'_>) {}
}

pub(crate) const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

impl Stage {
    pub(crate) async fn new(oncall: &str) -> Self {
        Self::in_world(World::new().await, oncall).await
    }

    /// With the rules that stand in the world.
    pub(crate) async fn in_world(world: World, oncall: &str) -> Self {
        let config = world.config("", oncall);
        Self::set_up(world, &config).await
    }

    /// With these follow-ups.
    pub(crate) async fn with(world: World, follow_ups: &str) -> Self {
        let config = world.config("", "");
        Self::set_up(world, &format!("{config}\n{follow_ups}")).await
    }

    async fn set_up(world: World, config: &str) -> Self {
        world.write("jobwatch.toml", config);
        let (config, report) = config::load(&world.path("jobwatch.toml"), Purpose::Run);
        assert!(!report.has_errors(), "{:?}", report.lines().collect::<Vec<_>>());
        let config = config.unwrap();
        let (rules, report) = config::rules(&config.rules, Some(&config.known));
        assert!(!report.has_errors());
        let store = store::open(&config.state, Access::Agent).await.unwrap();
        let clock = Clock::manual(START);
        let agent = Agent::new(Setup {
            replica: Default::default(),
            store: Arc::clone(&store),
            clock: clock.clone(),
            chance: || 1.0,
            sources: config.sources,
            receivers: config.receivers,
            follow_ups: config.follow_ups,
            rules,
            watch: config.watch,
            retention: config.retention,
            observer: Arc::new(Nobody),
            heartbeat: None,
        });
        Self { world, agent, store, clock }
    }

    pub(crate) async fn poll(&self, jobs: Vec<jobwatch::model::job::Job>) {
        self.world.swr.set_jobs(jobs);
        for (_, plan) in soon("a poll", self.agent.once()).await {
            assert!(plan.unwrap().complete);
        }
    }

    pub(crate) async fn all(&self) -> Vec<Delivery> {
        self.store.deliveries(Filter { limit: 1_000, ..Filter::default() }).await.unwrap().items
    }

    pub(crate) async fn oncall(&self) -> Delivery {
        self.all().await.into_iter().find(|delivery| delivery.receiver.as_str() == "oncall").unwrap()
    }

    /// Lets time pass until `end` from the start, delivering whatever becomes due on the way.
    pub(crate) async fn until(&self, end: Duration) {
        let end = START.plus(end);
        loop {
            let due = soon("deliveries", self.agent.turn()).await;
            let next = due.map_or(end, |due| due.min(end));
            let now = self.clock.now();
            if now >= end {
                return;
            }
            self.clock.advance(next.since(now).max(Duration::from_millis(1)));
        }
    }
}

pub(crate) fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}
