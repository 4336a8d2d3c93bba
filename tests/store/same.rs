//! The same history on each engine: the same notifications, byte for byte, and the same to look at in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jobwatch::agent::{Agent, Observer, Replica, Seen, Setup};
use jobwatch::clock::Clock;
use jobwatch::cloud::Project;
use jobwatch::config::{self, Config, Purpose};
use jobwatch::deliver::act::{Deed, Done};
use jobwatch::deliver::{Receiver, Sent};
use jobwatch::model::delivery::{Claimed, DeliveryState, Outcome, Owed};
use jobwatch::model::follow_up::{Consent, Ending, FollowUp};
use jobwatch::model::index::Index;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::{Fault, FaultKind, Listing, Point, Rows};
use jobwatch::model::name::{DeliveryId, JobId, ReceiverName};
use jobwatch::model::notification::SourceFacts;
use jobwatch::model::time::Timestamp;
use jobwatch::source::{self, Source};
use jobwatch::store::view::{AlertFilter, JobFilter, SourceFilter, TransitionFilter};
use jobwatch::store::{self, Access, Again, Error, Filter, Span, Store};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::history::{Order, SOURCES, Scene, Step, Weather, history};
use crate::world::START;

const RULES: &str = r#"
schema = 1

[[rule]]
id = "failed"
when = { to = "Failed" }
severity = "error"
notify = ["pager", "wide"]
cooldown = "301s"
resolve = { to = "Success" }

[[rule]]
id = "creation"
when = { to = "Failed" }
match = { type = "CreateInstance" }
severity = "critical"
key = ["source", "resource_name"]
notify = ["pager", "duty", "chat"]
resolve = { to = "Success", scope = "resource" }

[[rule]]
id = "acted-on"
when = { to = "Failed" }
match = { type = "CreateInstance" }
severity = "info"
notify = ["wide"]
resolve = { to = "Success" }
then = ["look", "mend"]

[[rule]]
id = "grouped"
when = { to = "Failed" }
notify = ["mail", "chat"]
group = { by = ["source", "reason_class"], wait = "61s" }
resolve = { to = "Success" }

[[rule]]
id = "many"
when = { to = "Failed", count = 3, within = "10m", per = ["reason_class"] }
notify = ["chat", "mail"]

[[rule]]
id = "never-seen"
when = { to = "Failed", new = "reason_class", memory = "1h" }
notify = ["wide", "duty"]

[[rule]]
id = "stuck"
when = { stays = ["Creating", "Running"], for = "6m" }
notify = ["mail", "duty"]

[[rule]]
id = "deleted"
when = { gone_from = "Running" }
notify = ["chat", "wide"]

[[rule]]
id = "edited"
when = { changed = ["reason"] }
severity = "info"
notify = ["wide"]

[[rule]]
id = "in-hours"
when = { to = "*" }
severity = "info"
notify = ["chat"]
active = ["hours"]
"#;

const CONFIG: &str = r#"
[agent]
state = "sqlite:state.db"
notify = ["mail"]
blind_after = "3m"

[source_defaults]
kind = "swr"
endpoint = "https://swr.example.org"
credentials = { kind = "token", token = { file = "secret" } }
strategy = "incremental"

[[source]]
name = "lab"
project_id = "p1"
[[source]]
name = "prod"
project_id = "p2"
[[source]]
name = "stage"
project_id = "p3"

# It hears of nothing too late: its urgent messages go to the mail as well.
[receiver.pager]
kind = "webhook"
url = { file = "url" }
secret = { file = "secret" }
fallback = "mail"
rate = "unlimited"
concurrency = 1
retry = { first = "5s", max = "4m", give_up_after = "20m", escalate_after = "2m" }

[receiver.mail]
kind = "email"
server = "smtps://mail.example.org"
from = "jobwatch <jobwatch@example.org>"
to = ["ops@example.org"]
rate = "4/m"
concurrency = 1

[receiver.chat]
kind = "slack"
url = { file = "url" }
rate = "3/m"
concurrency = 1
retry = { give_up_after = "15m" }

[receiver.duty]
kind = "pagerduty"
routing_key = { file = "secret" }
rate = "20/h"
concurrency = 1

# Several at once: of each job, one after the other. It hears what came of follow-ups, too, and
# is never in trouble: of what is sent side by side, it is not said what came last.
[receiver.wide]
kind = "webhook"
url = { file = "url" }
secret = { file = "secret" }
rate = "10/m"
concurrency = 4

[window.hours]
zone = "UTC"
times = [{ days = ["mon-sun"], from = "08:20", to = "08:50" }]

[follow_up.look]
kind = "command"
command = ["/bin/true"]

# The only one that does something: of two that do, it is not said which comes first. Beyond its limit it wants a word.
[follow_up.mend]
kind = "command"
command = ["/bin/true"]
mode = "auto"
limit = "3/h"
wait = "70s"
"#;

/// What the world is at the moment, for both sides of the agent.
#[derive(Default)]
struct World {
    scenes: BTreeMap<String, Scene>,
    weather: BTreeMap<ReceiverName, Weather>,
    /// What was said to somebody, in order.
    heard: BTreeMap<ReceiverName, Vec<(Timestamp, Claimed)>>,
    /// What was done, in order.
    deeds: Vec<String>,
    /// Whatever is done says that it began, and waits for leave to end.
    gate: Option<Arc<(Notify, Notify)>>,
}

type Shared = Arc<Mutex<World>>;

/// A listing that the story writes.
struct Script {
    facts: Arc<SourceFacts>,
    stay: Stay,
    world: Shared,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

impl Script {
    fn scene(&self) -> Scene {
        self.world.lock().unwrap().scenes.get(self.facts.name.as_str()).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Source for Script {
    fn facts(&self) -> &Arc<SourceFacts> {
        &self.facts
    }

    async fn list(&self, index: &Index, whole: bool) -> Listing {
        let Scene { shown, blind, .. } = self.scene();
        let mut rows = Rows { listed: shown.iter().map(|job| index.key(job.id.as_str())).collect(), ..Rows::default() };
        rows.jobs = shown.into_iter().filter(|job| index.is_news(job)).collect();
        // Whoever comes anew does not know when the listing was last read whole.
        match (blind, whole || self.stay == Stay::Once) {
            (true, _) => {
                let fault = Fault { kind: FaultKind::Unavailable, text: "HTTP 503".into(), retry_after: None };
                Listing::Incomplete { rows, fault }
            }
            (false, true) => Listing::Complete(rows),
            (false, false) => Listing::Brief(rows),
        }
    }

    async fn show(&self, id: &JobId) -> Point {
        self.scene().points.get(id).cloned().unwrap_or(Point::NotFound)
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    fn project(&self) -> Option<Project<'_>> {
        None
    }

    fn credential(&self) -> String {
        String::new()
    }

    async fn examine(&self) -> Vec<source::Finding> {
        Vec::new()
    }
}

/// Somebody whose messages are worded as they really are, and who answers as the weather is.
#[derive(Debug)]
struct Ear {
    name: ReceiverName,
    real: Arc<dyn Receiver>,
    world: EarWorld,
}

struct EarWorld(Shared);

impl fmt::Debug for EarWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

#[async_trait]
impl Receiver for Ear {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        self.real.freeze(owed)
    }

    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent {
        let mut world = self.world.0.lock().unwrap();
        // The number of a claim is the engine's own affair.
        let claimed = Claimed { token: 0, ..claimed.clone() };
        let mut progress = claimed.progress.clone();
        progress.push(format!("try {}", claimed.tries));
        let id = claimed.frozen.id.clone();
        world.heard.entry(self.name.clone()).or_default().push((now, claimed));
        let why = "as the weather is".to_owned();
        let outcome = match world.weather.get(&self.name).copied().unwrap_or_default() {
            Weather::Away => Outcome::Unreachable { why, retry_after: None },
            Weather::Busy => Outcome::Unreachable { why, retry_after: Some(Duration::from_secs(75)) },
            Weather::Strict if id.as_str().bytes().map(u32::from).sum::<u32>().is_multiple_of(3) => {
                Outcome::Refused { why }
            }
            Weather::Retired => Outcome::Retired { why },
            Weather::Fair | Weather::Strict => Outcome::Accepted { note: "HTTP 204".into() },
        };
        Sent { outcome, progress }
    }

    fn target(&self) -> String {
        self.real.target()
    }

    fn ends_by_id(&self) -> bool {
        self.real.ends_by_id()
    }
}

struct Hand(Shared);

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hand")
    }
}

#[async_trait]
impl Deed for Hand {
    fn intent(&self, follow_up: &FollowUp) -> Result<String, String> {
        Ok(format!("mend {}", follow_up.resource()))
    }

    fn touches_cloud(&self) -> bool {
        true
    }

    async fn perform(&self, follow_up: &FollowUp, _: Option<Project<'_>>) -> Done {
        let gate = {
            let mut world = self.0.lock().unwrap();
            world.deeds.push(follow_up.id.to_string());
            world.gate.clone()
        };
        if let Some(gate) = gate {
            gate.0.notify_one();
            gate.1.notified().await;
        }
        let ending = if follow_up.id.as_str().ends_with(['0', '1', '2', '3']) { Ending::Failed } else { Ending::Done };
        Done { ending, what: "as it was meant".into(), code: Some(0), output: "line\n".into() }
    }
}

struct Nobody;

impl Observer for Nobody {
    fn see(&self, seen: &Seen<'_>) {
        assert!(!matches!(seen, Seen::StoreFailed { .. } | Seen::PollLost { .. }), "{seen:?}");
    }
}

fn config(directory: &Path) -> Config {
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("secret", "whsec_Y2FuYXJ5LXNlY3JldC1jYW5hcnktc2VjcmV0LTEyMw==");
    write("url", "https://hooks.example.org/x");
    write("jobwatch.toml", CONFIG);
    std::fs::create_dir_all(directory.join("rules")).unwrap();
    write("rules/all.toml", RULES);
    let (config, report) = config::load(&directory.join("jobwatch.toml"), Purpose::Run);
    assert!(!report.has_errors(), "{:#?}", report.lines().collect::<Vec<_>>());
    config.unwrap()
}

/// Whether an agent stays between two rounds, or comes for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Always,
    Once,
}

/// What is left of a history when it is over.
#[derive(Debug, PartialEq)]
struct Trace {
    heard: BTreeMap<ReceiverName, Vec<(Timestamp, Claimed)>>,
    deeds: Vec<String>,
    shown: BTreeMap<&'static str, Vec<String>>,
}

/// An agent with these listings and receivers.
fn agent_on(store: &Arc<dyn Store>, world: &Shared, clock: &Clock, stay: Stay) -> Arc<Agent> {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    let (rules, report) = config::rules(&config.rules, Some(&config.known));
    assert!(!report.has_errors(), "{:#?}", report.lines().collect::<Vec<_>>());
    for setup in &mut config.sources {
        setup.source = Arc::new(Script { facts: Arc::clone(setup.source.facts()), stay, world: Arc::clone(world) });
    }
    for (name, setup) in &mut config.receivers {
        let ear = EarWorld(Arc::clone(world));
        setup.receiver = Arc::new(Ear { name: name.clone(), real: Arc::clone(&setup.receiver), world: ear });
    }
    for setup in config.follow_ups.values_mut() {
        setup.deed = Arc::new(Hand(Arc::clone(world)));
    }
    Agent::new(Setup {
        store: Arc::clone(store),
        clock: clock.clone(),
        chance: || 0.5,
        sources: config.sources,
        receivers: config.receivers,
        follow_ups: config.follow_ups,
        rules,
        watch: config.watch,
        retention: config.retention,
        // Leases are of real time, in which a history takes no long.
        replica: Replica { name: "one".into(), lease: Duration::from_secs(60) },
        observer: Arc::new(Nobody),
        heartbeat: None,
    })
}

/// Lets a history happen on an engine.
async fn happens(store: Arc<dyn Store>, steps: &[Step], stay: Stay) -> Trace {
    let (world, clock) = (Shared::default(), Clock::manual(START));
    let agent = agent_on(&store, &world, &clock, stay);
    for step in steps {
        wait(&agent, &world, &clock, step.pause).await;
        {
            let mut world = world.lock().unwrap();
            world.scenes = step.scenes.iter().map(|(source, scene)| ((*source).to_owned(), scene.clone())).collect();
            world.weather.clone_from(&step.weather);
        }
        for order in &step.orders {
            obey(&*store, order, clock.now()).await;
        }
        let plans = match stay {
            Stay::Once => agent.once().await,
            Stay::Always => {
                agent.attend().await;
                agent.round().await
            }
        };
        assert_eq!(plans.len(), SOURCES.len());
    }
    wait(&agent, &world, &clock, Duration::ZERO).await;
    agent.leave().await;
    let shown = shown(&*store).await;
    let World { heard, deeds, .. } = std::mem::take(&mut *world.lock().unwrap());
    Trace { heard, deeds, shown }
}

/// Lets time pass, delivering whatever becomes due on the way.
async fn wait(agent: &Arc<Agent>, world: &Shared, clock: &Clock, pause: Duration) {
    let heard = || world.lock().unwrap().heard.values().map(Vec::len).sum::<usize>();
    let end = clock.now().plus(pause);
    let mut looked = false;
    loop {
        let (before, now) = (heard(), clock.now());
        let due = agent.turn().await;
        // What came of one's messages may be told to another, at the same time.
        if heard() != before || !looked && due.is_some_and(|due| due <= now) {
            looked = heard() == before;
            continue;
        }
        looked = false;
        if now >= end {
            return;
        }
        let next = due.map_or(end, |due| due.min(end));
        clock.advance(next.since(now).max(Duration::from_millis(1)));
    }
}

async fn obey(store: &dyn Store, order: &Order, now: Timestamp) {
    match order {
        Order::Silence(silence) => store.silence(silence.clone()).await.unwrap(),
        Order::RetryDead => drop(store.again(Again::Dead(None), now).await.unwrap()),
        Order::RetryPending(receiver) => drop(store.again(Again::Pending(receiver.clone()), now).await.unwrap()),
        Order::Drop(count) => {
            let filter = Filter { state: Some(DeliveryState::Pending), limit: *count, ..Filter::default() };
            let ids: Vec<DeliveryId> =
                store.deliveries(filter).await.unwrap().items.into_iter().map(|one| one.id).collect();
            store.end(ids, "dropped by ada", now).await.unwrap();
        }
        Order::Consent(approved) => {
            let waiting = store.follow_ups(1_000).await.unwrap().into_iter().filter(|one| one.state == "waiting");
            for one in waiting {
                let consent = Consent { approved: *approved, by: "ada".into() };
                assert!(store.consent(&one.id, consent, now).await.unwrap());
            }
        }
    }
}

/// When an attempt ended is of real time: that it did is compared.
fn masked(mut value: Value) -> String {
    for key in ["ended_at", "delivered_at"] {
        mask(&mut value, key);
    }
    // It is noted when somebody looks.
    if let Value::Object(map) = &mut value {
        map.remove("parked");
    }
    value.to_string()
}

/// When something was delivered is of real time, in a history within the second.
fn whole_seconds(text: &str) -> String {
    regex::Regex::new(r"(\d\d:\d\d:\d\d)\.\d+Z").unwrap().replace_all(text, "${1}Z").into_owned()
}

fn mask(value: &mut Value, key: &str) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if name == key && !value.is_null() {
                    *value = "then".into();
                }
                mask(value, key);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// All pages of a list.
macro_rules! pages {
    ($store:expr, $list:ident, $filter:ident) => {{
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = $store.$list($filter { before, limit: 100, ..$filter::default() }).await.unwrap();
            all.extend(page.items.iter().map(|item| masked(serde_json::to_value(item).unwrap())));
            before = page.next;
            if before.is_none() {
                break all;
            }
        }
    }};
}

/// What people see of a state.
async fn shown(store: &dyn Store) -> BTreeMap<&'static str, Vec<String>> {
    fn each<T: fmt::Debug>(all: Vec<T>) -> Vec<String> {
        all.iter().map(|one| format!("{one:?}")).collect()
    }
    let span = || Span { limit: 10_000, ..Span::default() };
    let mut deliveries = pages!(store, deliveries, Filter);
    // What is done side by side has no order; in which order things were told is seen by whoever heard them.
    deliveries.sort();
    let mut attempts = Vec::new();
    for delivery in &deliveries {
        let delivery: Value = serde_json::from_str(delivery).unwrap();
        let id = DeliveryId::from(delivery["id"].as_str().unwrap());
        let dossier = store.dossier(&id).await.unwrap().unwrap();
        let said =
            dossier.attempts.iter().map(|one| format!("{} {} {} {}", one.number, one.at, one.outcome, one.detail));
        attempts.push(format!("{id}: {}", said.collect::<Vec<_>>().join(", ")));
    }
    let now = START;
    BTreeMap::from([
        ("deliveries", deliveries),
        ("attempts", attempts),
        ("transitions", pages!(store, transitions, TransitionFilter)),
        ("alerts", pages!(store, alerts, AlertFilter)),
        ("jobs", pages!(store, jobs, JobFilter)),
        ("sources", pages!(store, sources, SourceFilter)),
        ("history", each(store.history(span()).await.unwrap())),
        ("fates", each(store.fates(span()).await.unwrap()).iter().map(|fate| whole_seconds(fate)).collect()),
        ("follow-ups", each(store.follow_ups(10_000).await.unwrap())),
        ("outbox", each(store.outbox().await.unwrap())),
        ("troubles", each(store.troubles().await.unwrap())),
        ("waiting", each(store.waiting().await.unwrap())),
        ("silences", each(store.silences(now).await.unwrap())),
        ("sights", each(store.sights().await.unwrap())),
        ("holding", each(store.holding(now).await.unwrap())),
    ])
}

/// Says where two traces part.
fn compare(what: &str, one: &Trace, other: &Trace) {
    for (receiver, heard) in &one.heard {
        let also = other.heard.get(receiver).map_or(&[][..], Vec::as_slice);
        // What is sent side by side has no order but of time and job.
        let in_order = |heard: &[(Timestamp, Claimed)]| {
            let mut heard = heard.to_vec();
            if receiver.as_str() == "wide" {
                heard.sort_by_key(|(at, claimed)| (*at, claimed.frozen.lane.to_string()));
            }
            heard
        };
        let (heard, also) = (in_order(heard), in_order(also));
        for (n, (one, other)) in heard.iter().zip(&also).enumerate() {
            assert_eq!(brief(one), brief(other), "{what}: {receiver} hears something else at {n}");
            assert_eq!(one.1.frozen.payload, other.1.frozen.payload, "{what}: {receiver} at {n}");
            assert_eq!(one, other, "{what}: {receiver} at {n}");
        }
        assert_eq!(heard.len(), also.len(), "{what}: {receiver} hears more");
    }
    assert_eq!(one.heard.len(), other.heard.len(), "{what}");
    assert_eq!(one.deeds, other.deeds, "{what}");
    let once: BTreeSet<&String> = one.deeds.iter().collect();
    assert_eq!(once.len(), one.deeds.len(), "{what}: nothing is done twice");
    for (name, rows) in &one.shown {
        for (n, (one, other)) in rows.iter().zip(&other.shown[name]).enumerate() {
            assert_eq!(one, other, "{what}: {name} at {n}");
        }
        assert_eq!(rows.len(), other.shown[name].len(), "{what}: {name}");
    }
}

fn brief((at, claimed): &(Timestamp, Claimed)) -> String {
    let Claimed { frozen, tries, .. } = claimed;
    format!("{at} {} {} {} after {tries}", frozen.id, frozen.title, frozen.lane)
}

async fn on_sqlite(steps: &[Step], stay: Stay) -> Result<Trace, Error> {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("state.db").display());
    let store = store::open(&store::Place::new(url), Access::Agent).await?;
    Ok(happens(store, steps, stay).await)
}

async fn on_postgres(cluster: &Cluster, steps: &[Step], stay: Stay) -> Result<Trace, Error> {
    let url = cluster.url(&cluster.database().await);
    let store = store::open(&store::Place::new(url), Access::Agent).await?;
    Ok(happens(store, steps, stay).await)
}

/// Of how many histories, how long they are, and how many are told at once.
const HISTORIES: u64 = 8;
const STEPS: usize = 30;
const AT_ONCE: u64 = 4;
/// Generous, because the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_history_gives_the_same_notifications_on_both_engines_byte_for_byte() {
    let cluster = Arc::new(Cluster::start().await);
    let (mut telling, mut messages) = (JoinSet::new(), 0);
    for seed in 0..HISTORIES + AT_ONCE {
        if seed >= AT_ONCE {
            messages += telling.join_next().await.unwrap().unwrap();
        }
        if seed < HISTORIES {
            telling.spawn(tell(Arc::clone(&cluster), seed));
        }
    }
    assert!(messages > 1_000, "{messages} messages are no storm");
}

/// Returns how many messages the history made.
async fn tell(cluster: Arc<Cluster>, seed: u64) -> usize {
    let receivers: Vec<ReceiverName> = ["pager", "mail", "chat", "duty"].map(Into::into).into();
    let steps = history(seed, STEPS, &receivers);
    let stay = if seed.is_multiple_of(2) { Stay::Always } else { Stay::Once };
    let both = async { tokio::join!(on_sqlite(&steps, stay), on_postgres(&cluster, &steps, stay)) };
    // Whoever looks again and again for what cannot be done now comes to no end.
    let both = tokio::time::timeout(PATIENCE, both).await;
    let (here, there) = both.unwrap_or_else(|_| panic!("history {seed} comes to no end"));
    let (here, there) = (here.unwrap(), there.unwrap());
    compare(&format!("history {seed}"), &here, &there);
    here.heard.values().map(Vec::len).sum::<usize>()
}

/// Jobs of `prod` that were created and are in this status.
fn created(status: Status) -> BTreeMap<String, Scene> {
    let job = |id: &str| {
        let job = Job { kind: Some("CreateInstance".into()), ..Job::bare(id, status.clone()) };
        Job { resource_id: Some(id.into()), ..job }
    };
    let shown = vec![job("a"), job("b")];
    let points = shown.iter().map(|job| (job.id.clone(), Point::Found(job.clone()))).collect();
    BTreeMap::from([("prod".to_owned(), Scene { shown, points, ..Scene::default() })])
}

#[tokio::test]
async fn while_one_replica_does_something_another_does_nothing_like_it_and_its_turn_ends() {
    let cluster = Cluster::start().await;
    let url = cluster.url(&cluster.database().await);
    let open = async || store::open(&store::Place::new(url.as_str()), Access::Agent).await.unwrap();
    let (world, clock) = (Shared::default(), Clock::manual(START));
    let agents = [open().await, open().await].map(|store| agent_on(&store, &world, &clock, Stay::Always));
    let ([one, other], watcher) = (&agents, open().await);
    for status in [Status::Running, Status::Failed] {
        world.lock().unwrap().scenes = created(status);
        one.attend().await;
        one.round().await;
    }
    let gate = Arc::new((Notify::new(), Notify::new()));
    world.lock().unwrap().gate = Some(Arc::clone(&gate));
    clock.advance(Duration::from_secs(71));
    let beside = async {
        gate.0.notified().await;
        // What it cannot do at the same time it has given back.
        while watcher.replicas().await.unwrap()[0].claims > 1 {}
        other.turn().await;
        assert_eq!(world.lock().unwrap().deeds.len(), 1, "the other one waits for it");
        world.lock().unwrap().gate = None;
        gate.1.notify_one();
    };
    let both = async { tokio::join!(one.turn(), beside) };
    tokio::time::timeout(PATIENCE, both).await.expect("a turn that ends");
    assert_eq!(world.lock().unwrap().deeds.len(), 2);
}
