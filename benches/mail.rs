//! A thousand e-mails from the outbox, beside as many over one bare SMTP connection.
//!
//! `cargo bench --bench mail`. Both write to the simulator's mailbox, in this process, without TLS.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jobwatch::agent::{Agent, Observer, Seen, Setup};
use jobwatch::clock::Clock;
use jobwatch::config::{self, Purpose};
use jobwatch::model::job::{Job, Status};
use jobwatch::simulator::{Mailbox, Scenario, Swr, serve};
use jobwatch::store::{self, Access};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const MAILS: usize = 1_000;
const ROUNDS: usize = 3;

#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn see(&self, _: &Seen<'_>) {}
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{:<58} {:>12} {:>12} {:>7}", "what", "took", "floor", "ratio");
    let (mut took, mut floor) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let (mails, data) = runtime.block_on(outbox());
        took = took.min(mails);
        floor = floor.min(runtime.block_on(bare(&data)));
    }
    let ratio = took.as_secs_f64() / floor.as_secs_f64();
    println!(
        "{:<58} {took:>12.1?} {floor:>12.1?} {ratio:>7.2}",
        "1,000 e-mails from the outbox / one bare SMTP connection"
    );
}

fn job(n: usize, status: Status, minute: u8) -> Job {
    Job {
        resource_name: Some(format!("instance-{n}").into()),
        kind: Some("CreateInstance".into()),
        reason: (status == Status::Failed).then(|| "failed to select cce cluster".into()),
        updated_at: Some(format!("2021-05-12T03:{minute:02}:43.315473Z").into()),
        ..Job::bare(format!("36db69c5-{n}").as_str(), status)
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

/// How long a thousand e-mails take from the outbox, each with its record; and one of them.
async fn outbox() -> (Duration, String) {
    let scenario = Scenario::read("token = \"t\"\nproject_id = \"p\"\n", "bench".as_ref()).unwrap();
    let (clock, mailbox) = (Clock::system(), Mailbox::new());
    let now = clock.clone();
    let swr = Swr::new(scenario, move || now.now());
    swr.set_jobs((0..MAILS).map(|n| job(n, Status::Running, 1)).collect());
    let (cloud, mail) = (bind().await, bind().await);
    let (cloud_at, mail_at) = (cloud.local_addr().unwrap(), mail.local_addr().unwrap());
    tokio::spawn(serve(cloud, swr.router(), std::future::pending()));
    let server = mailbox.clone();
    tokio::spawn(async move { server.serve(mail, std::future::pending()).await });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    let config = format!(
        "[agent]\nstate = \"sqlite:s.db\"\nnotify = [\"m\"]\nallow_inline_secrets = true\n[[source]]\nname = \"prod\"\nkind = \"swr\"\n\
         endpoint = \"http://{cloud_at}\"\nproject_id = \"p\"\ncredentials = {{ kind = \"token\", token = \"t\" }}\n\
         [receiver.m]\nkind = \"email\"\nserver = \"smtp+plain://{mail_at}\"\nfrom = \"j@example.org\"\nto = \"o@example.org\"\nrate = \"unlimited\"\n"
    );
    std::fs::write(&path, config).unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    let rule = "schema = 1\n[[rule]]\nid = \"failed\"\nwhen = { to = \"Failed\" }\nnotify = [\"m\"]\n";
    std::fs::write(directory.path().join("rules/failed.toml"), rule).unwrap();
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
        rules,
        watch: config.watch,
        observer: Arc::new(Nobody),
        heartbeat: None,
        follow_ups: Default::default(),
    });
    agent.once().await;
    swr.set_jobs((0..MAILS).map(|n| job(n, Status::Failed, 2)).collect());
    let beside = mailbox.clone();
    let timed = tokio::spawn(async move {
        beside.next(0).await;
        let start = Instant::now();
        beside.next(MAILS - 1).await;
        start.elapsed()
    });
    agent.once().await;
    assert_eq!(mailbox.connections(), 1);
    (timed.await.unwrap(), mailbox.next(0).await.data)
}

/// How long the same takes one connection that knows all answers in advance.
async fn bare(data: &str) -> Duration {
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
