//! Webhooks: ten thousand jobs that fail between two polls, one that fails alone, and a dead receiver's queue beside them.
//! E-mail: a thousand from the outbox, beside as many over one bare SMTP connection.
//!
//! `cargo bench --bench delivery`. Everything runs in this process, on loopback; the floor is what reqwest alone does with the
//! same far end, an axum server that reads a request and answers 204.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use jobwatch::agent::{Observer, Seen, Shutdown, Tasks};
use jobwatch::model::delivery::Verdict;
use jobwatch::model::job::{Job, Status};
use jobwatch::simulator::Mailbox;
use stage::{Stage, bind, job, stage};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

const MANY: usize = 10_000;
/// Steps of each job before anything is timed.
const FLIPS: usize = 10;
const MAILS: usize = 1_000;
const ROUNDS: usize = 3;
/// Single failures that are timed.
const SINGLE: usize = 60;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    jobwatch::http::use_ring();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bare = best_bare().await;
        println!("bare reqwest loop: {bare:.0} a second, {:.3} ms for one alone", single_bare().await);
        for beside in [Beside::Nothing, Beside::Dead] {
            let far_end = far_end().await;
            let (stage, counter) = set_up(&far_end, beside).await;
            println!("{beside:?} beside it:");
            println!("  one failure: {}", single(&stage, &far_end).await);
            let mut rates = Vec::new();
            for round in 0..ROUNDS {
                let (poll, rate) = storm(&stage, &counter, FLIPS + SINGLE + round).await;
                rates.push(rate);
                println!("  {MANY} failures: seen, planned and committed in {poll:.0?}, then {rate:.0} webhooks a second, recorded");
            }
            let best = rates.into_iter().fold(0.0, f64::max);
            println!("  {:.2} of the bare loop", best / bare);
        }
        let (mut took, mut floor) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let (mails, data) = mails().await;
            took = took.min(mails);
            floor = floor.min(bare_mail(&data).await);
        }
        println!("{MAILS} e-mails from the outbox in {took:.0?}, over one bare connection in {floor:.0?}");
    });
}

/// A far end that takes everything, and how much it has taken.
struct FarEnd {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    arrived: watch::Receiver<Option<Instant>>,
}

async fn far_end() -> FarEnd {
    let listener = bind().await;
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (tell, arrived) = watch::channel(None);
    let count = Arc::clone(&taken);
    let take = move |body: Bytes| {
        assert!(!body.is_empty());
        count.fetch_add(1, Ordering::Relaxed);
        tell.send_replace(Some(Instant::now()));
        std::future::ready(StatusCode::NO_CONTENT)
    };
    let router = Router::new().fallback(post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    FarEnd { address, taken, arrived }
}

fn body() -> String {
    "x".repeat(1_400)
}

/// The best rate of several widths.
async fn best_bare() -> f64 {
    let mut best = 0.0_f64;
    for width in [4, 16, 64] {
        for _ in 0..ROUNDS {
            best = best.max(bare(width).await);
        }
    }
    best
}

async fn bare(width: usize) -> f64 {
    let far_end = far_end().await;
    let client = reqwest::Client::builder().http1_only().build().unwrap();
    let (url, body) = (format!("http://{}/", far_end.address), body());
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..width {
        let (client, url, body, next) = (client.clone(), url.clone(), body.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < MANY {
                client.post(&url).body(body.clone()).send().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    MANY as f64 / start.elapsed().as_secs_f64()
}

/// The median time of one post alone, in milliseconds.
async fn single_bare() -> f64 {
    let far_end = far_end().await;
    let (client, url, body) = (reqwest::Client::new(), format!("http://{}/", far_end.address), body());
    let mut all = Vec::new();
    for _ in 0..SINGLE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        client.post(&url).body(body.clone()).send().await.unwrap();
        all.push(start.elapsed());
    }
    all.sort();
    all[all.len() / 2].as_secs_f64() * 1e3
}

/// Counts what is delivered and recorded, and sees when a poll is over.
struct Counter {
    delivered: watch::Sender<usize>,
    committed: watch::Sender<Option<Instant>>,
}

impl Counter {
    fn new() -> Arc<Self> {
        Arc::new(Self { delivered: watch::Sender::new(0), committed: watch::Sender::new(None) })
    }
}

impl Observer for Counter {
    fn see(&self, seen: &Seen<'_>) {
        if let Seen::Attempted { verdict: Verdict::Delivered, .. } = seen {
            self.delivered.send_modify(|count| *count += 1);
        }
        if let Seen::Polled { deliveries: 1.., .. } = seen {
            self.committed.send_modify(|at| *at = Some(Instant::now()));
        }
    }
}

/// What else the agent has to tell.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    /// A receiver that nobody hears, with a hundred thousand deliveries pending.
    Dead,
}

/// An agent that tells this far end, after ten thousand jobs took ten steps each.
async fn set_up(far_end: &FarEnd, beside: Beside) -> (Stage, Arc<Counter>) {
    let table = |name: &str, url: String| {
        format!(
            "[receiver.{name}]\nkind = \"webhook\"\nurl = \"{url}\"\nallow_targets = [\"127.0.0.1\"]\nrate = \"unlimited\"\nconcurrency = 32\n"
        )
    };
    let mut receivers = table("web", format!("http://{}/", far_end.address));
    // Nobody listens there.
    receivers += &table("dead", "http://127.0.0.1:9/".into());
    let notify: &[&str] = match beside {
        Beside::Nothing => &["web"],
        Beside::Dead => &["web", "dead"],
    };
    let counter = Counter::new();
    let stage = stage(notify, &receivers, Arc::<Counter>::clone(&counter)).await;
    stage.agent.once().await;
    for flip in 0..FLIPS {
        stage.swr.set_jobs(all(flip));
        stage.agent.once().await;
    }
    (stage, counter)
}

/// Every job after so many steps.
fn all(steps: usize) -> Vec<Job> {
    (0..MANY).map(|n| job(n, status(steps), steps)).collect()
}

fn status(steps: usize) -> Status {
    if steps.is_multiple_of(2) { Status::Running } else { Status::Failed }
}

/// All jobs take a step: how long the poll takes that sees it, and the rate of webhooks that are delivered and recorded,
/// from the end of the commit on.
async fn storm(stage: &Stage, counter: &Counter, steps: usize) -> (Duration, f64) {
    let mut committed = counter.committed.subscribe();
    committed.mark_unchanged();
    let before = *counter.delivered.borrow();
    stage.swr.set_jobs(all(steps));
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let start = Instant::now();
    stage.agent.start(&tasks, &shutdown);
    committed.changed().await.unwrap();
    let committed = committed.borrow().unwrap();
    counter.delivered.subscribe().wait_for(|count| *count >= before + MANY).await.unwrap();
    let rate = MANY as f64 / committed.elapsed().as_secs_f64();
    shutdown.request();
    tasks.finished(Duration::from_secs(30)).await;
    (committed - start, rate)
}

/// The median and the worst time from the answer of the listing that shows it to a webhook's arrival.
async fn single(stage: &Stage, far_end: &FarEnd) -> String {
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    stage.agent.start(&tasks, &shutdown);
    let mut arrived = far_end.arrived.clone();
    let (mut times, mut jobs) = (Vec::new(), all(FLIPS - 1));
    // The first listing is read whole.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..SINGLE {
        tokio::time::sleep(Duration::from_millis(130)).await;
        let taken = far_end.taken.load(Ordering::Relaxed);
        arrived.mark_unchanged();
        jobs[0] = job(0, status(FLIPS + n), FLIPS + n);
        stage.swr.set_jobs(jobs.clone());
        arrived.changed().await.unwrap();
        let arrival = arrived.borrow().unwrap();
        let answered = stage.answered.lock().unwrap().unwrap();
        assert_eq!(far_end.taken.load(Ordering::Relaxed), taken + 1);
        times.push(arrival.saturating_duration_since(answered).as_secs_f64() * 1e3);
    }
    shutdown.request();
    tasks.finished(Duration::from_secs(30)).await;
    times.sort_by(f64::total_cmp);
    format!(
        "{:.2} ms from the listing's answer to the webhook in the median, {:.2} ms at most",
        times[times.len() / 2],
        times.last().unwrap()
    )
}

/// How long a thousand e-mails take from the outbox, each with its record; and one of them.
async fn mails() -> (Duration, String) {
    let (mailbox, listener) = (Mailbox::new(), bind().await);
    let server = format!("smtp+plain://{}", listener.local_addr().unwrap());
    let serving = mailbox.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let receiver = format!(
        "[receiver.m]\nkind = \"email\"\nserver = \"{server}\"\nfrom = \"j@example.org\"\nto = \"o@example.org\"\nrate = \"unlimited\"\n"
    );
    let counter = Counter::new();
    let stage = stage(&["m"], &receiver, Arc::<Counter>::clone(&counter)).await;
    stage.agent.once().await;
    stage.swr.set_jobs((0..MAILS).map(|n| job(n, Status::Failed, 1)).collect());
    let mut committed = counter.committed.subscribe();
    committed.mark_unchanged();
    stage.agent.once().await;
    let took = committed.borrow().unwrap().elapsed();
    assert_eq!((mailbox.connections(), *counter.delivered.borrow()), (1, MAILS));
    (took, mailbox.next(0).await.data)
}

/// How long the same takes one connection that knows all answers in advance.
async fn bare_mail(data: &str) -> Duration {
    let (mailbox, mail) = (Mailbox::new(), bind().await);
    let stream = TcpStream::connect(mail.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move { mailbox.serve(mail, std::future::pending()).await });
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let message = format!("{data}.\r\n");
    let start = Instant::now();
    for _ in 0..MAILS {
        for text in ["MAIL FROM:<j@example.org>\r\n", "RCPT TO:<o@example.org>\r\n", "DATA\r\n", &message] {
            stream.get_mut().write_all(text.as_bytes()).await.unwrap();
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            assert!(line.starts_with(['2', '3']), "{line}");
        }
    }
    start.elapsed()
}
