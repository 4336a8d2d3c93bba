//! The figures that documents quote: each as a ratio to a floor that is measured in the same run, best of several.
//!
//! `cargo bench`. Absolute numbers depend on the machine; ratios much less.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobwatch::agent::{Agent, Observer, Seen, Setup};
use jobwatch::clock::Clock;
use jobwatch::config::{self, Purpose};
use jobwatch::diff::{Points, Policy, diff};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::Listing;
use jobwatch::model::name::SourceName;
use jobwatch::model::snapshot::{Known, Snapshot};
use jobwatch::model::time::Timestamp;
use jobwatch::simulator::{Inbox, Scenario, Swr, serve};
use jobwatch::store::{self, Access};

const ROUNDS: usize = 7;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("{:<58} {:>12} {:>12} {:>7}", "what", "took", "floor", "ratio");
    listing();
    differ();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(load());
    runtime.block_on(wire());
}

fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let one = |work: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    };
    (0..ROUNDS).map(|_| one(&mut work)).min().unwrap()
}

fn line(what: &str, took: Duration, floor: Duration) {
    println!("{what:<58} {took:>12.1?} {floor:>12.1?} {:>7.2}", took.as_secs_f64() / floor.as_secs_f64());
}

fn job(n: usize) -> Job {
    let text = |text: String| Some(text.into_boxed_str());
    Job {
        id: format!("36db69c5-b2d5-11eb-b044-{n:012}").into(),
        instance_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_name: text(format!("instance-{n}")),
        kind: text("CreateInstance".into()),
        status: Status::Success,
        reason: None,
        created_at: text("2021-05-12T03:50:38.305978Z".into()),
        updated_at: text("2021-05-12T03:50:43.315473Z".into()),
    }
}

/// A page of a hundred jobs read, beside the same text read into a general JSON value.
fn listing() {
    let jobs: Vec<Job> = (0..100).map(job).collect();
    let page = serde_json::json!({ "total": 100, "jobs": jobs }).to_string();
    let took = best(|| (0..100).map(|_| jobwatch::source::saved(&page).unwrap().1).sum::<usize>());
    let floor =
        best(|| (0..100).map(|_| serde_json::from_str::<serde_json::Value>(&page).unwrap()["total"].as_u64()).max());
    line("100 pages of 100 jobs read / into serde_json::Value", took, floor);
}

/// 100,000 jobs compared when none changed, beside a look-up and a comparison of each.
fn differ() {
    let jobs: Vec<Job> = (0..100_000).map(job).collect();
    let known = |job: &Job| {
        let at = Timestamp::default();
        let known =
            Known { job: job.clone(), seq: 0, status_since: at, seen_at: at, missing: 0, stale: 0, gone: false };
        (job.id.clone(), known)
    };
    let snapshot = Snapshot { jobs: jobs.iter().map(known).collect(), complete_at: Some(Timestamp::default()) };
    let mut copies: Vec<Vec<Job>> = (0..ROUNDS).map(|_| jobs.clone()).collect();
    let (source, policy) = (SourceName::from("prod"), Policy::default());
    let took = best(|| {
        let listing = Listing::Complete(copies.pop().unwrap().into());
        diff(&source, &snapshot, listing, Points::new(), &policy, Timestamp::default()).changes.len()
    });
    let mut copies: Vec<Vec<Job>> = (0..ROUNDS).map(|_| jobs.clone()).collect();
    let floor = best(|| {
        let jobs = copies.pop().unwrap();
        jobs.into_iter().filter(|job| snapshot.jobs.get(&job.id).is_some_and(|known| known.job == *job)).count()
    });
    line("100,000 unchanged jobs compared / looked up and compared", took, floor);
}

/// A snapshot of 100,000 jobs read from the store, beside copying it in memory.
async fn load() {
    let directory = tempfile::tempdir().unwrap();
    let store =
        store::open(&format!("sqlite:{}", directory.path().join("s.db").display()), Access::Agent).await.unwrap();
    let (source, at) = (SourceName::from("prod"), Timestamp::default());
    let change = |n| {
        let known = Known { job: job(n), seq: 0, status_since: at, seen_at: at, missing: 0, stale: 0, gone: false };
        jobwatch::model::snapshot::Change { known, transition: None }
    };
    let changes = (0..100_000).map(change).collect();
    store.commit(store::Commit { changes, ..store::Commit::unchanged(source.clone(), at) }).await.unwrap();
    let (mut took, mut floor) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let memory = store.load(&source, jobwatch::store::Wanted::everything()).await.unwrap();
        took = took.min(start.elapsed());
        let start = Instant::now();
        let copy: HashMap<_, _> = memory.snapshot.jobs.iter().map(|(id, known)| (id.clone(), known.clone())).collect();
        floor = floor.min(start.elapsed());
        black_box(copy);
    }
    line("a snapshot of 100,000 jobs loaded / copied in memory", took, floor);
}

struct Nobody;

impl Observer for Nobody {
    fn see(&self, _: &Seen<'_>) {}
}

/// From the beginning of the poll that sees a failure to the record of its webhook, with listing, plan, commit, claim and
/// two more writes in it, beside one bare GET of the listing and one bare POST.
async fn wire() {
    let scenario = Scenario::read("token = \"t\"\nproject_id = \"p\"\n", "bench".as_ref()).unwrap();
    let clock = Clock::system();
    let (now, inbox) = (clock.clone(), Inbox::new());
    let swr = Swr::new(scenario, move || now.now());
    swr.set_jobs(Vec::new());
    let (cloud, web) = (bind().await, bind().await);
    let (cloud_at, web_at) = (cloud.local_addr().unwrap(), web.local_addr().unwrap());
    tokio::spawn(serve(cloud, swr.router(), std::future::pending()));
    tokio::spawn(serve(web, inbox.router(), std::future::pending()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    let config = format!(
        "[agent]\nstate = \"sqlite:s.db\"\nnotify = [\"w\"]\nallow_inline_secrets = true\n[[source]]\nname = \"prod\"\nkind = \"swr\"\n\
         endpoint = \"http://{cloud_at}\"\nproject_id = \"p\"\ncredentials = {{ kind = \"token\", token = \"t\" }}\n\
         [receiver.w]\nkind = \"webhook\"\nurl = \"http://{web_at}/\"\nallow_targets = [\"127.0.0.1\"]\nrate = \"unlimited\"\n"
    );
    std::fs::write(&path, config).unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    let rule = "schema = 1\n[[rule]]\nid = \"all\"\nwhen = { to = \"*\" }\nnotify = [\"w\"]\n";
    std::fs::write(directory.path().join("rules/all.toml"), rule).unwrap();
    let (config, report) = config::load(&path, Purpose::Run);
    assert!(!report.has_errors(), "{:?}", report.lines().collect::<Vec<_>>());
    let config = config.unwrap();
    let (rules, _) = config::rules(&config.rules, Some(&config.known));
    let agent = Agent::new(Setup {
        store: store::open(&config.state, Access::Agent).await.unwrap(),
        clock,
        chance: || 0.5,
        sources: config.sources,
        receivers: config.receivers,
        follow_ups: Default::default(),
        rules,
        watch: config.watch,
        observer: Arc::new(Nobody),
        heartbeat: None,
    });
    agent.once().await;
    let (client, mut took, mut floor) = (reqwest::Client::new(), Duration::MAX, Duration::MAX);
    for n in 0..50 {
        let mut changed = job(0);
        changed.status = if n % 2 == 0 { Status::Failed } else { Status::Running };
        changed.updated_at = Some(format!("2021-05-12T04:00:{n:02}Z").into());
        swr.set_jobs(vec![changed]);
        let count = inbox.count();
        let start = Instant::now();
        let _poll = agent.once().await;
        inbox.reached(count + 1).await;
        took = took.min(start.elapsed());
        let start = Instant::now();
        let url = format!("http://{cloud_at}/v2/p/jobs?offset=0&limit=100");
        client.get(url).header("X-Auth-Token", "t").send().await.unwrap().bytes().await.unwrap();
        client.post(format!("http://{web_at}/")).body("x").send().await.unwrap();
        floor = floor.min(start.elapsed());
    }
    line("a poll that sees a failure, to its record / a GET and a POST", took, floor);
}

async fn bind() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}
