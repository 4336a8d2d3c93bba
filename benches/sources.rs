//! Two thousand sources of a hundred jobs each, polled every thirty seconds by one process: how late polls are, and what
//! the process uses. `cargo bench --bench sources` takes three minutes.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod shared;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shared::{counts, cpu, job, memory, part};

const SOURCES: usize = 2_000;
const EVERY: f64 = 30.0;
/// Polls are spread by a tenth of the interval.
const SPREAD: f64 = 0.1;
const MEASURED: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "part") {
        return shared::run_cloud(100, 3);
    }
    // As the row of a listing is written.
    let row = serde_json::to_string(&job(1, 0)).unwrap().len();
    let server = part(&["cloud"]);
    let cloud: SocketAddr = server.line.parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config = format!(
        "[agent]\nstate = \"sqlite:s.db\"\nnotify = []\nallow_inline_secrets = true\n\
         requests_per_second = 2000\nrequests_per_second_per_host = 2000\n[source_defaults]\nkind = \"swr\"\n\
         endpoint = \"http://{cloud}\"\npoll_every = \"{EVERY}s\"\ncredentials = {{ kind = \"token\", token = \"t\" }}\n"
    );
    for n in 0..SOURCES {
        write!(config, "[[source]]\nname = \"s{n}\"\nproject_id = \"p{n}\"\n").unwrap();
    }
    std::fs::write(directory.path().join("jobwatch.toml"), config).unwrap();
    std::fs::create_dir_all(directory.path().join("rules")).unwrap();
    std::fs::write(directory.path().join("rules/none.toml"), "schema = 1\n").unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_jobwatch"))
        .args(["run", "-q"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Every source has its first turn in the first interval.
    std::thread::sleep(Duration::from_secs_f64(EVERY * 1.2));
    counts(cloud);
    let (start, before) = (Instant::now(), cpu(run.id()));
    std::thread::sleep(MEASURED);
    let counted = counts(cloud);
    let (took, spent) = (start.elapsed().as_secs_f64(), (cpu(run.id()) - before).as_secs_f64());
    let (rss, peak) = (memory(run.id(), "VmRSS:"), memory(run.id(), "VmHWM:"));
    run.kill().unwrap();
    run.wait().unwrap();
    let mut gaps: Vec<f64> = counted["gaps"].as_array().unwrap().iter().map(|gap| gap.as_f64().unwrap()).collect();
    gaps.sort_by(f64::total_cmp);
    let (polls, late) = (counted["polls"].as_f64().unwrap(), gaps.last().unwrap() - EVERY * (1.0 + SPREAD));
    println!("{} sources, rows of {row} bytes, {polls} polls in {took:.0} s", gaps.len());
    println!(
        "latest poll: {late:+.3} s beyond its interval and spread; median of the longest gaps {:.1} s",
        gaps[gaps.len() / 2]
    );
    println!(
        "CPU {:.1} % of one core ({:.2} ms a poll), {rss:.0} MB resident, {peak:.0} MB at its peak",
        spent / took * 100.0,
        spent / polls * 1e3
    );
}
