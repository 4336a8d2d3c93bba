//! A simulated cloud in a process of its own, and what a process has used.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jobwatch::clock::Clock;
use jobwatch::model::job::{Job, Status};
use jobwatch::simulator::{Scenario, Swr, serve};
use serde_json::{Value, json};

/// What every request of the server is counted in.
#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    bytes: u64,
    first: Option<f64>,
    /// When each project was last listed, and the longest time between two listings.
    polled: HashMap<String, (Instant, f64)>,
    polls: u64,
}

/// As the API's example has it.
pub(crate) fn job(n: usize, unfinished: usize) -> Job {
    let text = |text: String| Some(text.into_boxed_str());
    Job {
        id: format!("36db69c5-b2d5-11eb-bb2c-{n:012}").into(),
        instance_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_name: text(format!("instance-{n}")),
        kind: text("CreateInstance".into()),
        status: if n < unfinished { Status::Running } else { Status::Success },
        reason: None,
        created_at: text("2021-05-12T03:50:38.305978Z".into()),
        updated_at: text("2021-05-12T03:50:43.315473Z".into()),
    }
}

/// Runs as the cloud until it is killed: every project has these jobs.
pub(crate) fn run_cloud(count: usize, unfinished: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let scenario = Scenario::read("token = \"t\"\nproject_id = \"*\"\n", "bench".as_ref()).unwrap();
        let clock = Clock::system();
        let swr = Swr::new(scenario, move || clock.now());
        swr.set_jobs((0..count).map(|n| job(n, unfinished)).collect());
        let counts = Arc::new(Mutex::new(Counts::default()));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let counted = swr.router().layer(from_fn_with_state(Arc::clone(&counts), count_request));
        let router = Router::new().route("/counts", get(show)).with_state(counts).merge(counted);
        serve(listener, router, std::future::pending()).await;
    });
}

async fn count_request(State(counts): State<Arc<Mutex<Counts>>>, request: Request, next: Next) -> Response {
    let project = request.uri().path().split('/').nth(2).unwrap_or_default().to_owned();
    let starts = request.uri().query().is_some_and(|query| query.contains("offset=100"));
    {
        let mut counts = counts.lock().unwrap();
        counts.first.get_or_insert(epoch());
        if starts {
            counts.polls += 1;
            let now = Instant::now();
            let (last, longest) = counts.polled.entry(project).or_insert((now, 0.0));
            *longest = longest.max(now.duration_since(*last).as_secs_f64());
            *last = now;
        }
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut counts = counts.lock().unwrap();
    counts.requests += 1;
    counts.bytes += body.len() as u64;
    (parts, body).into_response()
}

/// What was counted since the last time this was asked.
async fn show(State(counts): State<Arc<Mutex<Counts>>>) -> String {
    let counts = std::mem::take(&mut *counts.lock().unwrap());
    let gaps: Vec<f64> = counts.polled.values().map(|(_, longest)| *longest).collect();
    json!({ "requests": counts.requests, "bytes": counts.bytes, "first": counts.first, "polls": counts.polls, "gaps": gaps })
        .to_string()
}

/// A part of this benchmark in a process of its own; killed when dropped.
pub(crate) struct Part {
    pub(crate) child: Child,
    /// The first line it printed.
    pub(crate) line: String,
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn part(arguments: &[&str]) -> Part {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program).arg("part").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Part { child, line: line.trim().to_owned() }
}

/// Asks the cloud what it counted.
pub(crate) fn counts(cloud: SocketAddr) -> Value {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(cloud).unwrap();
    stream.write_all(b"GET /counts HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

pub(crate) fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The time that every thread of a process spent on a CPU.
pub(crate) fn cpu(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let spent = |path: &Path| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(|thread| spent(&thread.ok()?.path())).sum())
}

/// A line of `/proc/PID/status`, in MB.
pub(crate) fn memory(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_000.0
}
