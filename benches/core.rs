//! The figures that documents quote: each as a ratio to a floor that is measured in the same run, best of several.
//!
//! `cargo bench`. Absolute numbers depend on the machine; ratios much less.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jobwatch::agent::Pulse;
use jobwatch::clock::Clock;
use jobwatch::diff::{Points, Policy, diff};
use jobwatch::model::delivery::{Frozen, Lane};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::Listing;
use jobwatch::model::name::{ReceiverName, SourceName};
use jobwatch::model::snapshot::{Known, Snapshot};
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::{State, Transition};
use jobwatch::ops::page::{Page, Setup, Witness};
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
    runtime.block_on(page(10_000));
    runtime.block_on(page(100_000));
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
    let snapshot = Snapshot {
        jobs: jobs.iter().map(known).collect(),
        complete_at: Some(Timestamp::default()),
        ..Snapshot::default()
    };
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
        store::open(&store::Place::new(format!("sqlite:{}", directory.path().join("s.db").display())), Access::Agent)
            .await
            .unwrap();
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

/// The status page of so many jobs, a tenth of which failed in the last day and are owed to three receivers, beside the reading of
/// those jobs for the index. Nothing of it is kept from one to the next.
async fn page(jobs: usize) {
    static NOW: AtomicI64 = AtomicI64::new(1_800_000_000_000_000);
    fn later() -> Timestamp {
        Timestamp::from_micros(NOW.fetch_add(2_000_000, Ordering::Relaxed))
    }
    let directory = tempfile::tempdir().unwrap();
    let store =
        store::open(&store::Place::new(format!("sqlite:{}", directory.path().join("s.db").display())), Access::Agent)
            .await
            .unwrap();
    let (source, now) = (SourceName::from("prod"), later());
    let receivers: Vec<ReceiverName> = ["oncall", "pager", "archive"].into_iter().map(ReceiverName::from).collect();
    let status = |n: usize| match n % 10 {
        0 => Status::Failed,
        1 if n % 50 == 1 => Status::Running,
        _ => Status::Success,
    };
    let change = |n: usize| {
        let seen_at = now.minus(Duration::from_secs((n % 86_000) as u64));
        let job = Job { status: status(n), ..job(n) };
        let step = (n % 10 < 2).then(|| {
            Arc::new(Transition {
                id: format!("t{n}").into(),
                source: source.clone(),
                job: Arc::new(job.clone()),
                from: State::Is(Status::Running),
                to: State::Is(job.status.clone()),
                seen_before: None,
                seen_at,
                skipped: Vec::new(),
                changed: Vec::new(),
                late: false,
                seq: 1,
            })
        });
        let known = Known { job, seq: 1, status_since: seen_at, seen_at, missing: 0, stale: 0, gone: false };
        jobwatch::model::snapshot::Change { known, transition: step }
    };
    let owed = |n: usize| Frozen {
        id: format!("d{n}").into(),
        receiver: receivers[n % 3].clone(),
        lane: Lane { source: Some(source.clone()), subject: format!("j{n}").into() },
        event: "io.jobwatch.job.failed".into(),
        title: "failed".into(),
        created_at: now,
        seen_at: None,
        payload: Vec::new(),
    };
    let changes = (0..jobs).map(change).collect();
    let deliveries = (0..3 * jobs / 10).map(owed).collect();
    let commit = store::Commit { changes, deliveries, ..store::Commit::unchanged(source.clone(), now) };
    store.commit(commit).await.unwrap();
    let pulse = Arc::new(Pulse::new(&Clock::system()));
    let setup = Setup { sources: vec![source.clone()], receivers: receivers.clone(), started: now };
    let page = Page::new(setup, Arc::clone(&store), pulse, Arc::new(Witness::new(0, Arc::new(later))), Arc::new(later));
    let (mut took, mut floor) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(page.html().await);
        took = took.min(start.elapsed());
        let start = Instant::now();
        black_box(store.index(&source).await.unwrap());
        floor = floor.min(start.elapsed());
    }
    line(&format!("the status page of {jobs} jobs / their index read"), took, floor);
}
