//! Three replicas on one database while they are killed, paused, cut off and sent away, and the database with them: no step is
//! lost, none is told under two ids, each job's are in order, and its sources are polled again soon.
//!
//! What is true is in [`story`]; [`cloud`] shows it and sees who polls, [`ears`] hear, [`acts`] says what goes wrong, and
//! [`oracle`] judges. It takes `JOBWATCH_CHAOS_SECONDS` (600), and `JOBWATCH_CHAOS_SEED` makes the jobs and the acts, the same
//! for the same seed; which process is where at that moment is the machine's. What happened, the report and the replicas' logs
//! are below `target/tmp/chaos`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

mod acts;
mod cloud;
mod ears;
mod oracle;
#[path = "../postgres/mod.rs"]
#[expect(dead_code, reason = "other stories use the rest")]
mod postgres;
mod replica;
mod report;
mod story;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use jobwatch::clock::{Clock, Stopwatch};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::time::sleep;

use acts::{Act, Deed};
use cloud::Cloud;
use ears::{Ear, Manner};
use oracle::{Poll, Trouble, judge, judge_rate, trespasses, visible};
use postgres::cut::Wire;
use postgres::{Cluster, Settings};
use replica::Replica;
use report::Report;
use story::{QUIET, Story};

const REPLICAS: usize = 3;
const SOURCES: usize = 6;
const LEASE: Duration = Duration::from_secs(3);
/// A source is polled again after so many leases at most …
const LEASES_MAX: u32 = 3;
/// … and so long after its replica left in order.
const HANDOVER_MAX: Duration = Duration::from_secs(1);
/// A machine that does other things as well may be so late.
const SLACK: Duration = Duration::from_secs(1);
/// A replica that was disturbed finds its way back within this time, or another one does its work.
const RECOVERY: Duration = Duration::from_secs(5);
/// A replica that polls nothing is not waited for longer.
const AIMED_MAX: Duration = Duration::from_secs(2);
/// So long after the last act all must be told: what a dead replica had claimed is free again, and the digests have been sent.
const SETTLED: Duration = Duration::from_secs(180);
/// Nothing comes for so long when all is told.
const SILENCE: Duration = Duration::from_secs(8);
/// Nothing takes longer; what does has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const TOKEN: &str = "chaos-token";
/// The rate of one receiver: so many messages in this time.
const PACED: (usize, Duration) = (60, Duration::from_secs(60));
/// The database says who waited for whom.
const MORE: [&str; 2] = ["log_lock_waits=on", "log_line_prefix=%m [%p] "];
const MANNERS: [Manner; 3] = [
    Manner { name: "fast", slowness_ms: 3, errors: 0, throttled: 0, mute: 0 },
    Manner { name: "slow", slowness_ms: 250, errors: 4, throttled: 2, mute: 1 },
    Manner { name: "paced", slowness_ms: 50, errors: 2, throttled: 0, mute: 0 },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_replicas_and_database_each_step_is_told_once_and_in_order() {
    let (seconds, seed) = (number("JOBWATCH_CHAOS_SECONDS", 600), number("JOBWATCH_CHAOS_SEED", 20_261_125));
    // Two streams: a shorter run has fewer of the same acts.
    let (mut jobs, mut rng) = (Rng::with_seed(seed), Rng::with_seed(!seed));
    let story = Story::tell(&mut jobs, SOURCES, Duration::from_secs(seconds));
    let mut stage = Stage::set(&story, seed).await;
    stage.report.line(&format!("seed {seed}, {seconds} s, {} jobs", story.lives.len()));
    stage.begin().await;
    let mut acts = 0;
    while stage.watch.elapsed() < Duration::from_secs(seconds) {
        let act = acts::next(&mut rng, acts);
        stage.play(&act).await;
        acts += 1;
    }
    stage.settle(&story).await;
    stage.end().await;
    let paced = stage.paced().await;
    stage.verdict(&story, paced);
}

/// A number in the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the test says how long, and which one again")]
    let given = std::env::var(name);
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Everything there is.
struct Stage {
    watch: Stopwatch,
    cluster: Cluster,
    database: String,
    cloud: Cloud,
    ears: Vec<Ear>,
    replicas: Vec<Replica>,
    troubles: Vec<Trouble>,
    /// Times in which a replica could not reach the database and could know it.
    cut: Vec<Trouble>,
    report: Report,
}

impl Stage {
    async fn set(story: &Story, seed: u64) -> Self {
        let below = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
        // The logs of the time before.
        drop(std::fs::remove_dir_all(&below));
        std::fs::create_dir_all(&below).unwrap();
        let cluster = Cluster::with(Settings {
            durable: true,
            more: MORE.map(ToOwned::to_owned).to_vec(),
            ..Settings::default()
        })
        .await;
        let database = cluster.database().await;
        // The story begins here.
        let watch = Clock::system().stopwatch();
        let cloud = Cloud::of(story, REPLICAS, watch).await;
        let mut ears = Vec::new();
        for (number, manner) in (0..).zip(MANNERS) {
            ears.push(Ear::open(manner, seed.wrapping_add(number), watch).await);
        }
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let wire = Wire::to(cluster.address()).await;
            let config = replica::config(number, story, &cloud, &ears, &wire, &database);
            let skew = if number == REPLICAS - 1 { "+1h" } else { "" };
            replicas.push(Replica::new(&below, number, wire, skew, &config));
        }
        let report = Report::at(&below.join("report.txt"), watch);
        Self { watch, cluster, database, cloud, ears, replicas, troubles: Vec::new(), cut: Vec::new(), report }
    }

    /// All start at once; when each source is polled steadily, jobs may begin.
    async fn begin(&mut self) {
        let now = self.watch.elapsed();
        self.replicas.iter_mut().for_each(|replica| replica.start(now));
        for source in 0..SOURCES {
            self.polled("the first poll", source, Duration::ZERO, |_| true).await;
        }
        sleep(QUIET.saturating_sub(self.watch.elapsed())).await;
        let sources: Vec<usize> = (0..REPLICAS).map(|replica| self.cloud.held_by(replica).len()).collect();
        assert_eq!(sources, [SOURCES / REPLICAS; REPLICAS], "each has its share");
    }

    /// Waits for a poll of a source. Returns when it was.
    async fn polled(&self, what: &str, source: usize, after: Duration, of: impl Fn(&Poll) -> bool) -> Duration {
        soon(what, async {
            loop {
                if let Some(at) = self.cloud.first(source, after, &of) {
                    return at;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Does it, undoes it, and looks how soon all is polled again.
    async fn play(&mut self, act: &Act) {
        self.report.line(&act.to_string());
        self.aim(act).await;
        let hit = self.watch.elapsed();
        let held: Vec<(usize, (usize, u32))> = act
            .whom
            .iter()
            .flat_map(|replica| self.cloud.held_by(*replica).into_iter().map(|source| (source, *replica)))
            .map(|(source, replica)| (source, (replica, self.cloud.process(replica))))
            .collect();
        self.strike(act).await;
        let struck = self.watch.elapsed();
        match act.meanwhile.as_deref() {
            None => sleep(act.long).await,
            Some(other) => {
                sleep(act.long / 2).await;
                self.aim(other).await;
                let from = self.watch.elapsed();
                self.strike(other).await;
                sleep(other.long).await;
                self.undo(other).await;
                self.troubled(other, from);
                sleep(act.long / 2).await;
            }
        }
        let undone = self.watch.elapsed();
        self.undo(act).await;
        self.troubled(act, hit);
        let ran = self.watch.elapsed();
        // What is measured is one deed alone.
        let mixed = act.meanwhile.is_some() || act.whom.len() > 1;
        for (source, who) in held {
            // Whoever was only cut off polls on for a moment, as he may.
            let other = |poll: &Poll| poll.who.0 != who.0 || poll.at > undone;
            let at = self
                .polled("a source to be polled again", source, hit, |poll| {
                    poll.who != who && other(poll) || poll.at > undone
                })
                .await;
            if mixed {
                continue;
            }
            match act.deed == Deed::Leave {
                true => self.report.handed_over(source, at.saturating_sub(struck)),
                false => self.report.taken_over(act.deed, source, at - hit),
            }
        }
        if act.deed.is_of_database() && !mixed {
            for source in 0..SOURCES {
                let at = self.polled("a source to be polled again", source, ran, |_| true).await;
                self.report.recovered(source, at - ran);
            }
        }
        sleep(act.calm).await;
        self.supervise();
    }

    /// A replica that finds no database when it starts says so and ends; whoever started it starts it again. No other one ends.
    fn supervise(&mut self) {
        for replica in &mut self.replicas {
            let Some(status) = replica.fails() else { continue };
            let disturbed = |trouble: &Trouble| {
                trouble.replica.is_none_or(|number| number == replica.number) && trouble.until > replica.started
            };
            let number = replica.number;
            assert!(self.troubles.iter().any(disturbed) && status.code() == Some(1), "replica {number}: {status}");
            self.report.line(&format!("  replica {number} did not find the database, and is started again"));
            self.cloud.renewed(number);
            replica.start(self.watch.elapsed());
        }
    }

    /// Waits until one of those it is done to is in the middle of a poll, if one is soon.
    async fn aim(&self, act: &Act) {
        let (Some(after), began) = (act.aim, self.watch.elapsed()) else { return };
        while self.watch.elapsed() < began + AIMED_MAX && !self.cloud.is_polled_by(&act.whom, began) {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(after).await;
    }

    async fn strike(&mut self, act: &Act) {
        match act.deed {
            Deed::Stop => self.cluster.stop().await,
            Deed::Crash => self.cluster.kill().await,
            Deed::Kill | Deed::Pause | Deed::Leave | Deed::Cut | Deed::Freeze | Deed::Deafen => {}
        }
        for who in &act.whom {
            let replica = &mut self.replicas[*who];
            match act.deed {
                Deed::Kill => replica.signal(Signal::KILL),
                Deed::Pause => replica.signal(Signal::STOP),
                Deed::Leave => replica.signal(Signal::TERM),
                Deed::Cut => replica.wire.cut().await,
                Deed::Freeze => replica.wire.freeze().await,
                Deed::Deafen => replica.wire.swallow_answers().await,
                Deed::Stop | Deed::Crash => {}
            }
        }
        if matches!(act.deed, Deed::Kill | Deed::Leave) {
            for who in &act.whom {
                let status = self.replicas[*who].ended().await;
                assert!(act.deed == Deed::Kill || status.success(), "replica {who} left with {status}");
            }
        }
        self.report.counts(act);
    }

    async fn undo(&mut self, act: &Act) {
        if act.deed == Deed::Stop {
            self.cluster.run().await;
        }
        for who in &act.whom {
            let replica = &mut self.replicas[*who];
            match act.deed {
                Deed::Kill | Deed::Leave => {
                    self.cloud.renewed(*who);
                    replica.start(self.watch.elapsed());
                }
                Deed::Pause => replica.signal(Signal::CONT),
                Deed::Cut | Deed::Freeze => replica.wire.mend().await,
                Deed::Deafen => {
                    replica.wire.cut().await;
                    replica.wire.mend().await;
                }
                Deed::Stop | Deed::Crash => {}
            }
        }
    }

    /// Notes what was disturbed from then until now, and a little longer.
    fn troubled(&mut self, act: &Act, from: Duration) {
        let now = self.watch.elapsed();
        let trouble = |replica, until| Trouble { replica, from, until };
        if act.deed.is_of_database() {
            self.troubles.push(trouble(None, now + RECOVERY));
        }
        self.troubles.extend(act.whom.iter().map(|who| trouble(Some(*who), now + RECOVERY)));
        if matches!(act.deed, Deed::Cut | Deed::Freeze) {
            self.cut.extend(act.whom.iter().map(|who| trouble(Some(*who), now)));
        }
    }

    /// Waits until each job's last state was told to all, and nothing comes any more.
    async fn settle(&mut self, story: &Story) {
        let calm = self.watch.elapsed();
        self.report.line("calm");
        loop {
            self.supervise();
            let untold: usize = self.ears.iter().map(|ear| report::untold(story, &ear.heard())).sum();
            let now = self.watch.elapsed();
            let last = self.ears.iter().map(Ear::last).max().unwrap_or_default();
            if (untold == 0 && now > last + SILENCE) || now > calm + SETTLED {
                self.report.line(&format!("settled, {untold} untold"));
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// All leave in order.
    async fn end(&mut self) {
        for replica in &mut self.replicas {
            replica.signal(Signal::TERM);
            let status = replica.ended().await;
            assert!(status.success(), "replica {} left with {status}", replica.number);
        }
    }

    /// When the messages of the receiver with a rate were decided. They do not say it themselves: one that was held has the
    /// time of what it tells. Only the state knows.
    async fn paced(&self) -> Vec<i64> {
        let client = self.cluster.client(&self.database).await;
        let rows =
            client.query("SELECT created_at FROM jobwatch.delivery WHERE receiver = 'paced'", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    fn verdict(mut self, story: &Story, paced: Vec<i64>) {
        std::fs::write(self.report.path().with_file_name("database.log"), self.cluster.log()).unwrap();
        let polls = self.cloud.polls();
        let seen = visible(&story.sources, &story.lives, &polls, &self.troubles);
        let mut faults = Vec::new();
        for ear in &self.ears {
            let (name, heard) = (ear.manner.name, ear.heard());
            self.report.heard(name, &heard);
            faults.extend(judge(name, &heard, &story.lives, &seen));
        }
        faults.extend(judge_rate("paced", paced, PACED));
        let mut faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        for (theirs, ours) in trespasses(&polls, &self.cut) {
            faults.push(format!(
                "replica {} polled s{} at {:?}, cut off, when replica {} had begun to at {:?}",
                ours.who.0, ours.source, ours.at, theirs.who.0, theirs.at
            ));
        }
        faults.extend(self.report.late(LEASES_MAX * LEASE + SLACK, HANDOVER_MAX + SLACK));
        self.report.polls(&polls);
        self.report.line(&format!("{} states were to be seen, each by all; {} faults", seen.len(), faults.len()));
        faults.iter().for_each(|fault| self.report.line(fault));
        assert!(faults.is_empty(), "see {}", self.report.path().display());
    }
}

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[expect(clippy::disallowed_methods, reason = "a server of the story, not of the product")]
fn beside(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
