//! One poll of 100, 10,000 and 100,000 unchanged jobs, whole and brief, beside a bare loop that fetches, parses and
//! compares the same pages from the same server in the same run. Every part is a process of its own.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod shared;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jobwatch::agent::{Agent, Observer, Seen, Setup};
use jobwatch::clock::Clock;
use jobwatch::config::{self, Purpose};
use jobwatch::store::{self, Access};
use serde::Deserialize;
use shared::{counts, cpu, epoch, memory, part};

/// Jobs that are at work in every listing.
const UNFINISHED: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "part", "cloud", count] => shared::run_cloud(count.parse().unwrap(), UNFINISHED),
        [_, "part", "bare", cloud, polls] => block(bare(cloud.parse().unwrap(), polls.parse().unwrap())),
        [_, "part", "polls", directory, polls] => block(polls_of(Path::new(directory), polls.parse().unwrap())),
        _ => all(),
    }
}

fn block(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

fn all() {
    println!(
        "{:>8}  {:<6} {:>9} {:>7} {:>9} {:>10} {:>8} {:>8}",
        "jobs", "", "CPU ms", "ratio", "requests", "kB", "RSS MB", "peak MB"
    );
    for (count, polls) in [(100, 200), (10_000, 20), (100_000, 5)] {
        let server = part(&["cloud", &count.to_string()]);
        let cloud: SocketAddr = server.line.parse().unwrap();
        let polls_text = polls.to_string();
        let mut floor = 0.0;
        let mut whole = 0.0;
        for kind in ["bare", "full", "brief"] {
            let directory = tempfile::tempdir().unwrap();
            write(directory.path(), cloud, if kind == "full" { "full" } else { "incremental" });
            let path = directory.path().display().to_string();
            if kind != "bare" {
                // The baseline is made by another process: what is measured is a service that was restarted.
                drop(part(&["polls", &path, "0"]));
            }
            counts(cloud);
            let done = match kind {
                "bare" => part(&["bare", &server.line, &polls_text]),
                _ => part(&["polls", &path, &polls_text]),
            };
            let spent: Vec<f64> = done.line.split(' ').map(|word| word.parse().unwrap()).collect();
            let [ms, rss, peak, requests, kb] = spent[..] else { panic!("{}", done.line) };
            match kind {
                "bare" => floor = ms,
                "full" => whole = ms,
                _ => {}
            }
            println!(
                "{count:>8}  {kind:<6} {ms:>9.2} {:>7.3} {requests:>9} {kb:>10.1} {rss:>8.1} {peak:>8.1}",
                ms / floor
            );
            if kind == "brief" {
                println!("{:>8}  brief / full: {:.4}", "", ms / whole);
            }
        }
    }
    start_to_first_request();
}

/// The configuration for one source.
fn write(directory: &Path, cloud: SocketAddr, strategy: &str) {
    let config = format!(
        "[agent]\nstate = \"sqlite:s.db\"\nnotify = []\nallow_inline_secrets = true\n[[source]]\nname = \"prod\"\nkind = \"swr\"\n\
         endpoint = \"http://{cloud}\"\nproject_id = \"p\"\ncredentials = {{ kind = \"token\", token = \"t\" }}\nstrategy = \"{strategy}\"\n\
         full_every = \"23h\"\n",
    );
    std::fs::write(
        directory.join("jobwatch.toml"),
        config.replace("[agent]", "[agent]\nrequests_per_second = 100000\nrequests_per_second_per_host = 100000"),
    )
    .unwrap();
    std::fs::create_dir_all(directory.join("rules")).unwrap();
    std::fs::write(directory.join("rules/none.toml"), "schema = 1\n").unwrap();
}

/// Prints what one poll took of this process, after `polls` of them.
fn report(spent: std::time::Duration, polls: u32, cloud: SocketAddr) {
    let me = std::process::id();
    let counted = counts(cloud);
    let each = |name: &str| counted[name].as_f64().unwrap() / f64::from(polls.max(1));
    println!(
        "{} {} {} {} {}",
        spent.as_secs_f64() * 1e3 / f64::from(polls.max(1)),
        memory(me, "VmRSS:"),
        memory(me, "VmHWM:"),
        each("requests"),
        each("bytes") / 1e3
    );
}

struct Nobody;

impl Observer for Nobody {
    fn see(&self, _: &Seen<'_>) {}
}

async fn polls_of(directory: &Path, polls: u32) {
    let (config, report_) = config::load(&directory.join("jobwatch.toml"), Purpose::Run);
    assert!(!report_.has_errors(), "{:?}", report_.lines().collect::<Vec<_>>());
    let config = config.unwrap();
    let text = std::fs::read_to_string(directory.join("jobwatch.toml")).unwrap();
    let cloud: SocketAddr = text.split("http://").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let (rules, _) = config::rules(&config.rules, Some(&config.known));
    let agent = Agent::new(Setup {
        replica: Default::default(),
        store: store::open(&config.state, Access::Agent).await.unwrap(),
        clock: Clock::system(),
        chance: || 0.5,
        sources: config.sources,
        receivers: config.receivers,
        follow_ups: Default::default(),
        rules,
        watch: config.watch,
        retention: config.retention,
        observer: Arc::new(Nobody),
        heartbeat: None,
    });
    // The first is always whole: the index is made, connections are opened.
    agent.once().await;
    counts(cloud);
    let before = cpu(std::process::id());
    for _ in 0..polls {
        agent.once().await;
    }
    report(cpu(std::process::id()) - before, polls, cloud);
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    jobs: Vec<Row>,
}

#[derive(Deserialize, PartialEq)]
struct Row {
    id: String,
    instance_id: Option<String>,
    resource_id: Option<String>,
    resource_name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    status: String,
    reason: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
}

/// What anybody would write first: fetch every page, parse it, compare each row with the one known.
async fn bare(cloud: SocketAddr, polls: u32) {
    jobwatch::http::use_ring();
    let client = reqwest::Client::new();
    let mut known: HashMap<String, Row> = HashMap::new();
    let mut changed = 0;
    let mut before = cpu(std::process::id());
    for poll in 0..=polls {
        let mut offset = 0;
        loop {
            let url = format!("http://{cloud}/v2/p/jobs?offset={offset}&limit=100");
            let answer = client.get(url).header("X-Auth-Token", "t").send().await.unwrap().bytes().await.unwrap();
            let page: Page = serde_json::from_slice(&answer).unwrap();
            for row in page.jobs {
                if known.get(&row.id) != Some(&row) {
                    changed += 1;
                    known.insert(row.id.clone(), row);
                }
            }
            offset += 100;
            if offset >= page.total {
                break;
            }
        }
        if poll == 0 {
            changed = 0;
            counts(cloud);
            before = cpu(std::process::id());
        }
    }
    assert_eq!(changed, 0);
    report(cpu(std::process::id()) - before, polls, cloud);
}

/// From starting the program to its first request, with a state of 100 jobs.
fn start_to_first_request() {
    let server = part(&["cloud", "100"]);
    let cloud: SocketAddr = server.line.parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), cloud, "auto");
    let mut best = f64::MAX;
    for _ in 0..10 {
        counts(cloud);
        let start = epoch();
        let mut run = Command::new(env!("CARGO_BIN_EXE_jobwatch"))
            .arg("poll")
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        run.wait().unwrap();
        best = best.min(counts(cloud)["first"].as_f64().unwrap() - start);
    }
    println!("from start to the first request: {:.1} ms", best * 1e3);
}
