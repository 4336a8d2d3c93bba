//! Replicas on a real PostgreSQL: how much two deliver beside one, and what a poll, a delivery and a lease cost the database.
//!
//! The database is started here from Debian's package, with `fsync` on, on this machine: it shares the processors with the
//! agents. The floors are measured in the same run: one replica; pgbench's like, an empty transaction that writes one row.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use jobwatch::agent::{Observer, Seen, Shutdown, Tasks};
use jobwatch::model::delivery::{Frozen, Lane};
use jobwatch::model::job::Status;
use jobwatch::model::name::{DeliveryId, JobId, ReceiverName, SourceName, TransitionId};
use jobwatch::model::snapshot::{Change, Known};
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::{State, Transition};
use jobwatch::store::share::{Attendance, Fence};
use jobwatch::store::{self, Access, Commit, Place, Store, Wanted};
use postgres::{Cluster, Settings};
use stage::{bind, stage_on};

#[path = "../tests/postgres/mod.rs"]
#[expect(dead_code, reason = "tests stop and cut what this only uses")]
mod postgres;
#[expect(dead_code, reason = "other benches have more on the stage")]
mod stage;

/// Deliveries in a run where the receiver is what takes its time …
const SLOW_MANY: usize = 1_000;
/// … so long for each.
const SLOW: Duration = Duration::from_millis(25);
/// Deliveries in a run where it takes none.
const FAST_MANY: usize = 10_000;
/// How long a rate is measured.
const SPAN: Duration = Duration::from_secs(3);
/// Who asks at once: as many as an agent has connections.
const ASKERS: usize = 8;
/// Jobs that fail, to see how much room they take.
const ROWS: usize = 20_000;
/// Leases that one replica takes over.
const LEASES: usize = 100_000;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    jobwatch::http::use_ring();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::with(Settings { durable: true, ..Settings::default() }).await;
        for (what, many, pause) in [("takes 25 ms", SLOW_MANY, SLOW), ("takes no time", FAST_MANY, Duration::ZERO)] {
            let one = deliver(&cluster, 1, many, pause).await;
            let two = deliver(&cluster, 2, many, pause).await;
            println!(
                "a receiver that {what}: one replica {one:.0} webhooks a second, two {two:.0}: {:.2} times as many",
                two / one
            );
        }
        costs(&cluster).await;
        leases(&cluster).await;
        sizes(&cluster).await;
    });
}

struct Nobody;

impl Observer for Nobody {
    fn see(&self, _: &Seen<'_>) {}
}

/// A far end that takes its time, and how much it has taken.
async fn far_end(pause: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let take = post(move || {
        let count = Arc::clone(&count);
        async move {
            tokio::time::sleep(pause).await;
            count.fetch_add(1, Ordering::SeqCst);
            StatusCode::NO_CONTENT
        }
    });
    let listener = bind().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", take)).await });
    (address, taken)
}

fn delivery(n: usize, now: Timestamp) -> Frozen {
    Frozen {
        id: DeliveryId::from(format!("msg_{n:026}")),
        receiver: ReceiverName::from("hook"),
        lane: Lane {
            source: Some("elsewhere".into()),
            subject: JobId::from(format!("36db69c5-b2d5-11eb-b044-{n:012}")),
        },
        event: "io.jobwatch.job.failed".into(),
        title: format!("instance-{n}: failed to select cce cluster"),
        created_at: now,
        seen_at: Some(now),
        payload: vec![b'x'; 1_200],
    }
}

/// How many webhooks a second so many replicas deliver and record.
async fn deliver(cluster: &Cluster, replicas: usize, many: usize, pause: Duration) -> f64 {
    let url = cluster.url(&cluster.database().await);
    let (far_end, taken) = far_end(pause).await;
    let receiver =
        format!("[receiver.hook]\nkind = \"webhook\"\nurl = \"http://{far_end}/\"\nallow_targets = [\"127.0.0.1\"]\n");
    let mut stages = Vec::new();
    for _ in 0..replicas {
        stages.push(stage_on(&url, &["hook"], &receiver, Arc::new(Nobody)).await);
    }
    let store = store::open(&Place::new(&*url), Access::Agent).await.unwrap();
    let now = store.time().await.unwrap().unwrap();
    let deliveries = (0..many).map(|n| delivery(n, now)).collect();
    store.commit(Commit { deliveries, ..Commit::unchanged("elsewhere".into(), now) }).await.unwrap();
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let began = Instant::now();
    stages.iter().for_each(|stage| stage.agent.start(&tasks, &shutdown));
    // Delivered and recorded.
    while store.waiting().await.unwrap().iter().any(|(receiver, _)| receiver.as_str() == "hook") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = many as f64 / began.elapsed().as_secs_f64();
    assert_eq!(taken.load(Ordering::SeqCst), many, "each once");
    shutdown.request();
    tasks.finished(Duration::from_secs(30)).await;
    rate
}

/// How often a second something can be done by all who ask at once.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    work: impl Fn(usize, usize) -> F + Clone + Send + 'static,
) -> f64 {
    let began = Instant::now();
    let mut askers = tokio::task::JoinSet::new();
    for asker in 0..ASKERS {
        let work = work.clone();
        askers.spawn(async move {
            let mut done = 0;
            while began.elapsed() < SPAN {
                work(asker, done).await;
                done += 1;
            }
            done
        });
    }
    askers.join_all().await.into_iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64()
}

/// What polls and deliveries cost.
async fn costs(cluster: &Cluster) {
    let database = cluster.database().await;
    let store = store::open(&Place::new(cluster.url(&database)), Access::Agent).await.unwrap();
    let names: Vec<SourceName> = (0..ASKERS).map(|n| SourceName::from(format!("s{n}"))).collect();
    let attended = store.attend(attendance(names.clone())).await.unwrap();
    let fences: Vec<Fence> = names.iter().map(|name| attended.held[name].clone()).collect();
    let floor = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    for _ in 0..ASKERS {
        floor.lock().await.push(Arc::new(cluster.client(&database).await));
    }
    floor.lock().await[0].batch_execute("CREATE TABLE floor (n BIGINT); GRANT ALL ON floor TO PUBLIC").await.unwrap();
    let clients = floor.lock().await.clone();
    let bare = rate(move |asker, n| {
        let client = Arc::clone(&clients[asker]);
        async move {
            client.execute("INSERT INTO floor VALUES ($1)", &[&(n as i64)]).await.unwrap();
        }
    })
    .await;
    println!("{ASKERS} at once, a second: {bare:.0} bare transactions of one row");
    let now = attended.now;
    let commit = move |source: &SourceName, fence: &Fence| Commit {
        fence: Some(fence.clone()),
        ..Commit::unchanged(source.clone(), now)
    };
    let (idle, of) = (Arc::clone(&store), (names.clone(), fences.clone()));
    let commits = rate(move |asker, _| {
        let (store, commit) = (Arc::clone(&idle), commit(&of.0[asker], &of.1[asker]));
        async move {
            store.commit(commit).await.unwrap();
        }
    })
    .await;
    let (load, of) = (Arc::clone(&store), names.clone());
    let loads = rate(move |asker, _| {
        let (store, source) = (Arc::clone(&load), of[asker].clone());
        async move { drop(store.load(&source, Wanted { now, ..Wanted::default() }).await.unwrap()) }
    })
    .await;
    let (changed, of) = (Arc::clone(&store), (names.clone(), fences.clone()));
    let changes = rate(move |asker, n| {
        let (store, mut commit) = (Arc::clone(&changed), commit(&of.0[asker], &of.1[asker]));
        let known = Known {
            job: stage::job(n % 100, Status::Failed, n % 60),
            seq: 1,
            status_since: now,
            seen_at: now,
            missing: 0,
            stale: 0,
            gone: false,
        };
        commit.changes = vec![Change { known, transition: None }];
        commit.deliveries = vec![delivery(asker * 1_000_000 + n, now)];
        async move {
            store.commit(commit).await.unwrap();
        }
    })
    .await;
    println!(
        "  polls that find nothing new: {loads:.0} loads, {commits:.0} commits ({:.2} of the bare ones)",
        commits / bare
    );
    println!("  polls that find one failure, with its delivery: {changes:.0} commits ({:.2})", changes / bare);
}

fn attendance(wanted: Vec<SourceName>) -> Attendance {
    Attendance {
        name: "bench".into(),
        version: "0".into(),
        rules: String::new(),
        sources: String::new(),
        started_at: Timestamp::from_micros(0),
        ttl: Duration::from_secs(60),
        wanted,
        guest: false,
    }
}

/// What leases cost.
async fn leases(cluster: &Cluster) {
    let url = cluster.url(&cluster.database().await);
    let names: Vec<SourceName> = (0..LEASES).map(|n| SourceName::from(format!("source-{n}"))).collect();
    let one = store::open(&Place::new(&*url), Access::Agent).await.unwrap();
    let began = Instant::now();
    let held = one.attend(attendance(names.clone())).await.unwrap().held.len();
    println!("{held} leases are taken by the first replica in {:.0?}", began.elapsed());
    let began = Instant::now();
    one.attend(attendance(names.clone())).await.unwrap();
    println!("  and renewed in {:.1?}", began.elapsed());
    let two: Arc<dyn Store> = store::open(&Place::new(&*url), Access::Agent).await.unwrap();
    one.leave().await.unwrap();
    let began = Instant::now();
    let held = two.attend(attendance(names)).await.unwrap().held.len();
    println!("  and {held} taken over by another one in {:.0?}", began.elapsed());
}

/// How much room rows take, with their indexes.
async fn sizes(cluster: &Cluster) {
    let database = cluster.database().await;
    let store = store::open(&Place::new(cluster.url(&database)), Access::Agent).await.unwrap();
    let now = store.time().await.unwrap().unwrap();
    let change = |n: usize| {
        let job = stage::job(n, Status::Failed, n % 60);
        let step = Transition {
            id: TransitionId::from(format!("trn_{n:026}")),
            source: "prod".into(),
            from: State::Is(Status::Running),
            to: State::Is(Status::Failed),
            seen_before: Some(now),
            seen_at: now,
            skipped: Vec::new(),
            changed: Vec::new(),
            late: false,
            seq: 1,
            job: Arc::new(job.clone()),
        };
        let known = Known { job, seq: 1, status_since: now, seen_at: now, missing: 0, stale: 0, gone: false };
        Change { known, transition: Some(Arc::new(step)) }
    };
    let began = Instant::now();
    let commit = Commit {
        changes: (0..ROWS).map(change).collect(),
        deliveries: (0..ROWS).map(|n| delivery(n, now)).collect(),
        ..Commit::unchanged("prod".into(), now)
    };
    store.commit(commit).await.unwrap();
    println!("{ROWS} failures with their deliveries are one commit of {:.1?}", began.elapsed());
    let client = cluster.client(&database).await;
    for (table, others) in [("job", &[][..]), ("transition", &[]), ("delivery", &["payload"])] {
        let mut bytes = 0;
        for table in [table].iter().chain(others) {
            let size = format!("SELECT pg_total_relation_size('jobwatch.{table}')");
            bytes += client.query_one(&size, &[]).await.unwrap().get::<_, i64>(0);
        }
        println!("  {} bytes for each row of `{table}`", bytes / ROWS as i64);
    }
}
