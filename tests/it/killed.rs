//! `kill -9` at every commit and at every send: `strace` kills the agent when it is about to make its n-th system call of a
//! kind, for n = 1, 2, 3 … until a run needs no more of them. Each run begins in the same state, and what everybody has heard
//! in the end is compared with what was to be heard, and with what the state said at the kill.
//!
//! The call at which the agent is killed is not made. So the kills between the first page of a transaction and the last of its
//! commit are before it, and those at the next call after it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Arc, Mutex, MutexGuard};

use jobwatch::model::job::Job;
use jobwatch::model::time::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::world::{World, beside, bind, failed, job, said};

/// Runs side by side: each mostly waits.
const RUNS: usize = 12;
/// Attempts at one webhook receiver that are under way at once.
const IN_FLIGHT: usize = 4;
/// The number of the signal.
const KILL: i32 = 9;

const RULES: &str = r#"
schema = 1

[[rule]]
id = "failed"
when = { to = "Failed" }
resolve = { to = "Success" }
notify = ["oncall", "flaky"]
then = ["act"]

[[rule]]
id = "changed"
when = { to = ["Failed", "Success"] }
severity = "info"
notify = ["team"]
group = { by = ["source", "type"], wait = "1s" }

[[rule]]
id = "critical"
when = { to = "Failed" }
match = { id = "a" }
severity = "critical"
notify = ["pager"]
"#;

/// Who hears what of which job, and in what order: the step, and what became of the job in it.
const EXPECTED: &[(&str, &str, &[&str])] = &[
    ("oncall", "a", &["1 Failed", "1 act", "2 Success", "3 Failed", "3 act"]),
    ("oncall", "b", &["2 Failed", "2 act", "3 Success"]),
    ("oncall", "c", &["1 Failed", "1 act", "2 Success", "3 Failed", "3 act"]),
    ("flaky", "a", &["1 Failed", "1 act", "2 Success", "3 Failed", "3 act"]),
    ("flaky", "b", &["2 Failed", "2 act", "3 Success"]),
    ("flaky", "c", &["1 Failed", "1 act", "2 Success", "3 Failed", "3 act"]),
    ("team", "a", &["1 Failed", "2 Success", "3 Failed"]),
    ("team", "b", &["2 Failed", "3 Success"]),
    ("team", "c", &["1 Failed", "2 Success", "3 Failed"]),
    ("pager", "a", &["1 Failed", "3 Failed"]),
    ("deputy", "a", &["1 Failed"]),
];

/// What the listing shows at each step: all is well; two fail while no receiver takes anything; the step in which the agent is
/// killed; and what happens afterwards.
fn step(number: usize) -> Vec<Job> {
    let quota = |id: &str, at: u32| failed(id, at, "quota 17 exceeded");
    match number {
        0 => ["a", "b", "c"].map(|id| job(id, "Running", 0)).into(),
        1 => vec![quota("a", 1), job("b", "Running", 0), quota("c", 1)],
        2 => vec![job("a", "Success", 2), quota("b", 2), job("c", "Success", 2)],
        _ => vec![quota("a", 3), job("b", "Success", 3), quota("c", 3)],
    }
}

/// Something that arrived at a receiver.
#[derive(Clone)]
struct Arrival {
    receiver: String,
    id: String,
    body: Vec<u8>,
    /// Of which job what.
    says: Vec<(String, String)>,
    accepted: bool,
}

/// What a message says: of which job what.
fn says(body: &[u8]) -> Vec<(String, String)> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let event = body["type"].as_str().unwrap();
    let one = |data: &Value| {
        let job = &data["job"];
        let at = Timestamp::parse(job["updated_at"].as_str().unwrap()).unwrap();
        let step = at.since(Timestamp::parse("2026-11-24T08:00:00Z").unwrap()).as_secs();
        let what = if event.contains("follow_up") { "act" } else { job["status"].as_str().unwrap() };
        (job["id"].as_str().unwrap().to_owned(), format!("{step} {what}"))
    };
    let data = &body["data"];
    data["jobs"].as_array().map_or(std::slice::from_ref(data), Vec::as_slice).iter().map(one).collect()
}

enum Answer {
    Accept,
    Later,
    /// The connection ends without one.
    None,
}

/// All receivers of one run.
#[derive(Clone)]
struct Receivers(Arc<Inside>);

struct Inside {
    state: Mutex<State>,
    count: watch::Sender<usize>,
    address: std::net::SocketAddr,
}

#[derive(Default)]
struct State {
    arrivals: Vec<Arrival>,
    /// Nobody takes anything.
    closed: bool,
    /// What was tried before this run began.
    old: BTreeSet<String>,
    /// What `flaky` has heard of in this run.
    heard: BTreeSet<String>,
}

impl State {
    fn judge(&mut self, receiver: &str, id: &str) -> Answer {
        let old = self.old.contains(id);
        match receiver {
            _ if self.closed => Answer::Later,
            // Every other one fails at first, in one way or the other: more in a row and it would be left alone for seconds.
            "flaky" if !old && self.heard.insert(id.to_owned()) => match self.heard.len() % 4 {
                1 => Answer::None,
                3 => Answer::Later,
                _ => Answer::Accept,
            },
            // It takes what the fallback has taken for it.
            "pager" if old && !self.arrivals.iter().any(|one| one.receiver == "deputy") => Answer::Later,
            _ => Answer::Accept,
        }
    }
}

impl Receivers {
    async fn open(closed: bool, old: BTreeSet<String>) -> Self {
        let (listener, address) = bind().await;
        let state = Mutex::new(State { closed, old, ..State::default() });
        let receivers = Self(Arc::new(Inside { state, count: watch::Sender::new(0), address }));
        beside(receivers.clone().serve(listener));
        receivers
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let receivers = self.clone();
            beside(async move {
                // A connection that breaks is the agent's end, or ours.
                drop(receivers.converse(stream).await);
            });
        }
    }

    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some(receiver) = line.split([' ', '/']).nth(2).map(ToOwned::to_owned) else { return Ok(()) };
            let mut headers = BTreeMap::new();
            loop {
                line.clear();
                if stream.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            let mut body = vec![0; headers["content-length"].parse().unwrap()];
            stream.read_exact(&mut body).await?;
            let answer = self.take(receiver, headers["webhook-id"].clone(), body);
            match answer {
                Answer::Accept => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?,
                Answer::Later => {
                    stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
                }
                Answer::None => return Ok(()),
            }
        }
    }

    fn take(&self, receiver: String, id: String, body: Vec<u8>) -> Answer {
        let mut state = self.state();
        let answer = state.judge(&receiver, &id);
        let accepted = matches!(answer, Answer::Accept);
        let says = says(&body);
        state.arrivals.push(Arrival { receiver, id, body, says, accepted });
        self.0.count.send_modify(|count| *count += 1);
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn arrivals(&self) -> Vec<Arrival> {
        self.state().arrivals.clone()
    }

    /// What was said and accepted, by receiver and job, in the order in which it first arrived.
    fn told(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut told: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for arrival in self.arrivals().iter().filter(|one| one.accepted) {
            for (job, what) in &arrival.says {
                let told = told.entry((arrival.receiver.clone(), job.clone())).or_default();
                if !told.contains(what) {
                    told.push(what.clone());
                }
            }
        }
        told
    }

    /// Waits until everything up to this step has been told to everybody.
    async fn heard(&self, step: usize) -> Result<(), String> {
        let mut count = self.0.count.subscribe();
        let missing = || {
            let told = self.told();
            let missing = |(receiver, job, whats): &(&str, &str, &[&str])| {
                let told = told.get(&((*receiver).to_owned(), (*job).to_owned())).cloned().unwrap_or_default();
                let wanted = whats.iter().filter(|what| what[..1].parse::<usize>().unwrap() <= step);
                wanted
                    .filter(|what| !told.iter().any(|told| told == *what))
                    .map(|what| format!("{receiver}: {job} {what}"))
                    .collect::<Vec<_>>()
            };
            EXPECTED.iter().flat_map(missing).collect::<Vec<String>>()
        };
        let waiting = async { while !missing().is_empty() && count.changed().await.is_ok() {} };
        tokio::time::timeout(crate::world::PATIENCE, waiting).await.map_err(|_| missing().join(", "))
    }
}

/// A world with these receivers and rules.
async fn world(receivers: &Receivers) -> World {
    let mut world = World::new().await;
    // Nobody speaks TLS here, and reading a system's certificates under `strace` takes longer than all the rest.
    let nobody = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
    world.write("certificates.pem", &nobody);
    world.environment.push(("SSL_CERT_FILE", world.path("certificates.pem").display().to_string()));
    let retry = "retry = { first = \"100ms\", max = \"100ms\" }";
    let mut config = world.config("poll_every = \"300ms\"", retry);
    for (name, more) in [("flaky", retry), ("team", retry), ("pager", "fallback = \"deputy\""), ("deputy", retry)] {
        config += &format!(
            "[receiver.{name}]\nkind = \"webhook\"\nurl = {{ file = \"{name}\" }}\nallow_targets = [\"127.0.0.1\"]\nrate = \"unlimited\"\n{}\n",
            if name == "pager" { format!("{more}\n{retry}") } else { more.to_owned() },
        );
        world.write(name, &format!("http://{}/{name}", receivers.0.address));
    }
    world.write("url", &format!("http://{}/oncall", receivers.0.address));
    config += "[follow_up.act]\nkind = \"command\"\ncommand = [\"./act.sh\"]\nmode = \"auto\"\nlimit = \"100/h\"\n";
    world.write("jobwatch.toml", &config);
    world.write("rules/failed.toml", RULES);
    let deeds = world.path("deeds");
    world.write("act.sh", &format!("#!/bin/sh\necho \"$JOBWATCH_DELIVERY_ID\" >> {}\n", deeds.display()));
    std::fs::set_permissions(world.path("act.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    world
}

/// A state in which every kind of work is to be done at the next poll: what the first step owed is due and was tried in vain,
/// a group has gathered, and what is critical is due at the fallback.
struct Prepared {
    state: Vec<u8>,
    tried: BTreeSet<String>,
}

async fn prepared() -> Prepared {
    let receivers = Receivers::open(true, BTreeSet::new()).await;
    let world = world(&receivers).await;
    for number in [0, 1] {
        world.swr.set_jobs(step(number));
        let polled = world.jobwatch(&["poll"]).await;
        assert!(polled.status.success(), "{:?}", said(&polled));
    }
    let state = rusqlite::Connection::open(world.path("state.db")).unwrap();
    // An hour passes.
    let hour = "UPDATE delivery SET due_at = due_at - 3600000000 WHERE state = 'pending';
         UPDATE held SET due_at = due_at - 3600000000;
         UPDATE gathering SET until = until - 3600000000;
         UPDATE reserve SET due_at = due_at - 3600000000;";
    state.execute_batch(hour).unwrap();
    let waiting = |table: &str| -> i64 {
        state.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert!(waiting("held") > 0 && waiting("reserve") > 0 && waiting("delivery WHERE state = 'pending'") > 5);
    drop(state);
    assert!(!world.path("state.db-wal").exists(), "the state is one file");
    let tried = receivers.arrivals().into_iter().map(|arrival| arrival.id).collect();
    Prepared { state: std::fs::read(world.path("state.db")).unwrap(), tried }
}

/// What the state says where the agent was killed.
struct Remains {
    /// The poll is written.
    polled: bool,
    /// Deliveries that are to be made, under way or not.
    pending: BTreeSet<String>,
    /// Follow-ups that were begun and not recorded.
    begun: BTreeSet<String>,
}

impl Remains {
    /// Looks at a copy: the next start is to find what the kill left.
    fn of(world: &World) -> Self {
        let copy = world.path("remains");
        std::fs::create_dir(&copy).unwrap();
        for name in ["state.db", "state.db-wal"] {
            // There is no log when the kill came before the first write, or after the last.
            drop(std::fs::copy(world.path(name), copy.join(name)));
        }
        let state = rusqlite::Connection::open(copy.join("state.db")).unwrap();
        sound(&state);
        Self {
            polled: !ids(&state, "SELECT id FROM job WHERE id = 'b' AND status = 'Failed'").is_empty(),
            pending: ids(&state, "SELECT id FROM delivery WHERE state = 'pending'"),
            begun: ids(
                &state,
                "SELECT id FROM follow_up JOIN delivery USING (id) WHERE started_at IS NOT NULL AND state = 'pending'",
            ),
        }
    }
}

fn ids(state: &rusqlite::Connection, sql: &str) -> BTreeSet<String> {
    let mut select = state.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn sound(state: &rusqlite::Connection) {
    let sound: String = state.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

/// What one run showed.
struct Run {
    killed: bool,
    polled: bool,
    /// Something had arrived and was not recorded.
    unrecorded: bool,
    /// A follow-up was begun and not recorded; and it had been done.
    begun: bool,
    done: bool,
    /// The id of everything that is said alone.
    names: BTreeMap<(String, String, String), String>,
}

/// From the same state as every run: a poll that is killed at its n-th call of this kind, and what becomes of it all.
async fn run(prepared: Arc<Prepared>, call: &'static str, n: u32) -> Run {
    let at = format!("killed at {call} number {n}");
    let receivers = Receivers::open(false, prepared.tried.clone()).await;
    let world = world(&receivers).await;
    std::fs::write(world.path("state.db"), &prepared.state).unwrap();
    world.swr.set_jobs(step(2));
    let killed = poll_under_strace(&world, call, n).await;
    let remains = Remains::of(&world);
    let arrived = receivers.arrivals();
    let mut service = world.run();
    for number in [2, 3] {
        world.swr.set_jobs(step(number));
        let heard = receivers.heard(number).await;
        assert!(heard.is_ok(), "{at}: not told: {}\n{}", heard.unwrap_err(), service.log());
    }
    service.signal("TERM");
    assert!(service.ended().await.success(), "{at}: {}", service.log());
    let oracle = Oracle { at: &at, world: &world, remains: &remains, arrivals: receivers.arrivals() };
    oracle.check(&receivers.told());
    Run {
        killed,
        polled: remains.polled,
        unrecorded: arrived.iter().any(|one| one.accepted && remains.pending.contains(&one.id)),
        begun: !remains.begun.is_empty(),
        done: oracle.deeds().iter().any(|deed| remains.begun.contains(deed)),
        names: oracle.names(),
    }
}

/// Whether the poll was killed. One processor for it, and with that one thread that sends: each thread counts for itself.
async fn poll_under_strace(world: &World, call: &str, n: u32) -> bool {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={n}"));
    let processor = processor();
    let pinned = ["taskset", "-c", &processor];
    let strace = ["strace", "-f", "-qq", "-o", "strace", "-e", &trace, "-e", &inject];
    let output = world.jobwatch_under(&[pinned.as_slice(), &strace].concat(), &["poll"]).await;
    let killed = output.status.signal() == Some(KILL);
    assert!(
        killed || output.status.success(),
        "`strace` (Debian's package of that name) has to be there and to be allowed to trace: {}, {:?}",
        output.status,
        said(&output)
    );
    killed
}

/// A processor that this process may use.
fn processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().split([',', '-']).next().unwrap().to_owned()
}

/// What must hold in the end.
struct Oracle<'a> {
    at: &'a str,
    world: &'a World,
    remains: &'a Remains,
    arrivals: Vec<Arrival>,
}

impl Oracle<'_> {
    fn check(&self, told: &BTreeMap<(String, String), Vec<String>>) {
        let at = self.at;
        let expected: BTreeMap<(String, String), Vec<String>> = EXPECTED
            .iter()
            .map(|(receiver, job, whats)| {
                (((*receiver).into(), (*job).into()), whats.iter().map(|what| (*what).to_owned()).collect())
            })
            .collect();
        assert_eq!(*told, expected, "{at}: everything is told, in order");
        self.check_order();
        self.check_names();
        self.check_repetitions();
        self.check_deeds();
        let state = rusqlite::Connection::open(self.world.path("state.db")).unwrap();
        sound(&state);
        let left = "SELECT id FROM delivery WHERE state <> 'delivered' AND receiver NOT LIKE 'follow_up/%'
            UNION SELECT id FROM held UNION SELECT of FROM reserve";
        assert_eq!(ids(&state, left), BTreeSet::new(), "{at}: nothing is left to be told");
    }

    /// Nothing is tried before everything that comes before it about the same job has been accepted.
    fn check_order(&self) {
        let at = self.at;
        let mut accepted: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
        for Arrival { receiver, says, accepted: taken, .. } in &self.arrivals {
            for (n, (job, what)) in says.iter().enumerate() {
                let (.., whats) = EXPECTED.iter().find(|(to, of, _)| to == receiver && of == job).unwrap();
                let missing = whats.iter().take_while(|before| *before != what).find(|before| {
                    !accepted.contains(&(receiver, job, before))
                        && !says[..n].contains(&(job.clone(), (**before).into()))
                });
                assert_eq!(missing, None, "{at}: {receiver} is sent {job} {what} too early");
            }
            if *taken {
                accepted.extend(says.iter().map(|(job, what)| (receiver.as_str(), job.as_str(), what.as_str())));
            }
        }
    }

    /// One id for each message and receiver, and one body for each id.
    fn check_names(&self) {
        let at = self.at;
        let mut bodies: BTreeMap<&str, &[u8]> = BTreeMap::new();
        let mut named: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
        for Arrival { receiver, id, body, says, .. } in &self.arrivals {
            assert_eq!(*bodies.entry(id).or_insert(body), body, "{at}: {id} is sent with the same bytes each time");
            for (job, what) in says {
                let known = *named.entry((receiver, job, what)).or_insert(id);
                assert_eq!(known, id, "{at}: two ids for {job} {what} at {receiver}");
            }
        }
    }

    /// Accepted twice is only what was under way at the kill.
    fn check_repetitions(&self) {
        let at = self.at;
        let mut accepted: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for one in self.arrivals.iter().filter(|one| one.accepted) {
            *accepted.entry((&one.receiver, &one.id)).or_default() += 1;
        }
        let mut repeated: BTreeMap<&str, usize> = BTreeMap::new();
        for ((receiver, id), count) in accepted.into_iter().filter(|(_, count)| *count > 1) {
            assert_eq!(count, 2, "{at}: {id} was accepted and sent again, more often than there were kills");
            assert!(self.remains.pending.contains(id), "{at}: {id} was recorded as delivered and sent again");
            *repeated.entry(receiver).or_default() += 1;
        }
        assert!(repeated.values().all(|count| *count <= IN_FLIGHT), "{at}: {repeated:?} were sent again");
    }

    /// No deed is done twice; what is not known is told as that, and nothing else is.
    fn check_deeds(&self) {
        let at = self.at;
        let deeds = self.deeds();
        let mut reports: BTreeMap<String, Value> = BTreeMap::new();
        for arrival in &self.arrivals {
            let body: Value = serde_json::from_slice(&arrival.body).unwrap();
            let report = &body["data"]["follow_up"];
            // Those of the first step are from before.
            if report.is_object() && !arrival.says[0].1.starts_with('1') {
                reports.insert(report["id"].as_str().unwrap().to_owned(), report.clone());
            }
        }
        assert_eq!(reports.len(), 3, "{at}: {reports:?}");
        assert!(deeds.iter().all(|id| reports.contains_key(id)), "{at}: a deed that nobody heard of: {deeds:?}");
        for (id, report) in reports {
            let (times, outcome) = (deeds.iter().filter(|deed| **deed == id).count(), &report["outcome"]);
            match self.remains.begun.contains(&id) {
                true => {
                    assert!(times <= 1, "{at}: done {times} times");
                    assert_eq!(outcome, "unknown", "{at}");
                    let what = report["what"].as_str().unwrap();
                    assert!(what.ends_with("Whether it was done is not known; it is not tried again."), "{at}: {what}");
                }
                false => assert_eq!((times, outcome), (1, &"done".into()), "{at}"),
            }
        }
    }

    /// The follow-up of each deed.
    fn deeds(&self) -> Vec<String> {
        let deeds = std::fs::read_to_string(self.world.path("deeds")).unwrap_or_default();
        deeds.lines().map(ToOwned::to_owned).collect()
    }

    /// The ids of what was said alone. Those of follow-ups are made from when the finding began, which no two runs share.
    fn names(&self) -> BTreeMap<(String, String, String), String> {
        let alone = |arrival: &Arrival| {
            let [(job, what)] = arrival.says.as_slice() else { return None };
            let named = ((arrival.receiver.clone(), job.clone(), what.clone()), arrival.id.clone());
            Some(named).filter(|_| !what.ends_with("act"))
        };
        self.arrivals.iter().filter_map(alone).collect()
    }
}

/// What all runs of a family showed together.
#[derive(Default)]
struct Tally {
    kills: BTreeMap<&'static str, usize>,
    unpolled: usize,
    polled: usize,
    unrecorded: usize,
    undone: usize,
    done: usize,
    names: BTreeMap<(String, String, String), String>,
}

impl Tally {
    fn note(&mut self, call: &'static str, run: Run) {
        for (said, id) in run.names {
            let known = self.names.entry(said.clone()).or_insert_with(|| id.clone());
            assert_eq!(*known, id, "{said:?} has another id after another kill");
        }
        if run.killed {
            *self.kills.entry(call).or_default() += 1;
            *if run.polled { &mut self.polled } else { &mut self.unpolled } += 1;
            self.unrecorded += usize::from(run.unrecorded);
            self.done += usize::from(run.begun && run.done);
            self.undone += usize::from(run.begun && !run.done);
        }
    }
}

/// Kills at every `stride`-th of each of these calls.
#[expect(clippy::print_stdout, reason = "how many moments a run covered")]
async fn killed_at_each(calls: &[(&'static str, u32)]) -> Tally {
    let prepared = Arc::new(prepared().await);
    let mut tally = Tally::default();
    for (call, stride) in calls {
        let (mut next, mut more, mut runs) = (1, true, JoinSet::new());
        while more || !runs.is_empty() {
            // One at first: a call that is not used at all needs no more.
            while more && runs.len() < if tally.kills.contains_key(call) { RUNS } else { 1 } {
                runs.spawn(run(Arc::clone(&prepared), call, next));
                next += stride;
            }
            let run = runs.join_next().await.unwrap().unwrap();
            more &= run.killed;
            tally.note(call, run);
        }
    }
    let Tally { kills, unpolled, polled, unrecorded, undone, done, .. } = &tally;
    println!(
        "killed {} times, {kills:?}: {unpolled} before the poll was written, {polled} after; {unrecorded} when something had \
         arrived and was not recorded; {undone} when a follow-up was begun and not done, {done} when it was done and not recorded",
        kills.values().sum::<usize>()
    );
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_commit_everything_is_told_in_order_and_nothing_is_done_twice() {
    // Each page of a commit is two writes, and each commit two pages or more: there is a kill between any two commits.
    let tally = killed_at_each(&[("pwrite64", 3), ("fsync", 1), ("fdatasync", 1)]).await;
    assert!(tally.unpolled > 0 && tally.polled > 0 && tally.unrecorded > 0 && tally.done > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_send_everything_is_told_in_order_and_nothing_is_done_twice() {
    // A pipe is made for a command that is about to be started.
    let tally = killed_at_each(&[("writev", 1), ("sendto", 1), ("sendmsg", 1), ("pipe2", 1)]).await;
    assert!(tally.unpolled > 0 && tally.polled > 0 && tally.undone > 0);
}
