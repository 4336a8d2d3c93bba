//! `kill -9` at any moment: no transition without its delivery, no delivery with two ids, order per job kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jobwatch::clock::Clock;
use jobwatch::model::job::Job;
use serde_json::Value;

use crate::world::{Service, World, failed, job, rule, soon};

/// Jobs that all change at once.
const BURST: usize = 1_000;
/// Bursts, and kills: one in each.
const KILLS: u32 = 50;
/// The same for bursts that are gathered.
const DIGEST_KILLS: u32 = 15;

/// Webhooks that are sent and not recorded at any time: four are under way, and what ended meanwhile is recorded together.
const UNRECORDED: usize = 4 * 4;

/// Requests that one listing of the burst's jobs takes: ten full pages, an empty one, and the first once more.
const REQUESTS: u64 = BURST as u64 / 100 + 2;

/// Where in the work of a burst the agent is killed.
#[derive(Debug)]
enum Moment {
    /// When so many pages of the listing that sees the burst were read.
    Listing(u64),
    /// At this share of the time from the last page to the first webhook: in the plan, the commit, the claim.
    Committing(f64),
    /// When so many webhooks of the burst arrived.
    Delivering(usize),
}

/// A burst makes so many webhooks.
fn moment(random: &mut fastrand::Rng, webhooks: usize) -> Moment {
    match random.u8(0..4) {
        0 => Moment::Listing(random.u64(1..REQUESTS)),
        1 | 2 => Moment::Committing(random.f64()),
        _ => Moment::Delivering(random.usize(1..webhooks)),
    }
}

/// All jobs fail, or all are at work again.
fn burst(round: u32) -> Vec<Job> {
    let one = |n: usize| match round % 2 {
        0 => failed(&format!("j{n:04}"), round + 1, &format!("round {round}")),
        _ => job(&format!("j{n:04}"), "Running", round + 1),
    };
    (0..BURST).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_fifty_times_in_bursts_of_a_thousand_nothing_is_lost_renamed_or_out_of_order() {
    let (world, ledger) = survive(KILLS, "", BURST).await;
    ledger.check(KILLS);
    let ids: BTreeSet<&String> = ledger.jobs.values().flatten().map(|(_, id)| id).collect();
    let expected = KILLS as usize * BURST;
    assert_eq!(ids.len(), expected, "a delivery had two ids, or two had one");
    assert_eq!(count(&world, "SELECT count(*) FROM delivery"), expected);
    let repeated = ledger.received - expected;
    assert!(
        repeated <= KILLS as usize * UNRECORDED,
        "{repeated} were sent again, more than can be unrecorded at a kill"
    );
    println!("{} webhooks for {expected} transitions: {repeated} were sent again", ledger.received);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_bursts_are_gathered_into_digests_every_job_of_each_is_named_in_order() {
    let (world, ledger) = survive(DIGEST_KILLS, "rate = \"10/s\"", 2).await;
    ledger.check(DIGEST_KILLS);
    assert_eq!(count(&world, "SELECT count(*) FROM held"), 0);
    assert_eq!(count(&world, "SELECT count(*) FROM member"), 0);
    let webhooks = count(&world, "SELECT count(*) FROM delivery");
    assert!(webhooks < DIGEST_KILLS as usize * 50, "{webhooks} webhooks for {DIGEST_KILLS} bursts");
}

fn count(world: &World, sql: &str) -> usize {
    let state = rusqlite::Connection::open(world.path("state.db")).unwrap();
    usize::try_from(state.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
}

/// Bursts of changes, a kill in each; what arrived in the end. Of each burst, so many webhooks at least.
#[expect(clippy::print_stdout, reason = "the seed repeats a run")]
async fn survive(kills: u32, oncall: &str, webhooks_each: usize) -> (World, Ledger) {
    let seed =
        jobwatch::config::variable("SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} repeats this");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new().await;
    world.write("jobwatch.toml", &world.config("poll_every = \"100ms\"", oncall));
    world.write("rules/failed.toml", &rule("all", "*", "oncall"));
    world.swr.set_jobs((0..BURST).map(|n| job(&format!("j{n:04}"), "Running", 0)).collect());
    let mut service = world.watched().await;
    let mut ledger = Ledger::default();
    let mut started = 0;
    let mut commit = Duration::from_millis(100);
    for round in 0..kills {
        // Between two listings, so that the next one sees the burst from its first page on.
        let seen = world.swr.requests();
        soon(
            "the end of a listing",
            until(|| world.swr.requests() > seen && (world.swr.requests() - started) % REQUESTS == 0),
        )
        .await;
        let (requests, webhooks) = (world.swr.requests(), world.inbox.count());
        world.swr.set_jobs(burst(round));
        let moment = moment(&mut random, webhooks_each);
        soon("the moment of the kill", reach(&world, &moment, requests, webhooks, &mut commit)).await;
        service.kill().await;
        started = world.swr.requests();
        service = world.run();
        soon("the rest of the burst", ledger.fill(&world, round, &service)).await;
    }
    service.signal("TERM");
    assert!(service.ended().await.success(), "{}", service.log());
    ledger.take(&world);
    let expected = kills as usize * BURST;
    assert_eq!(count(&world, "SELECT count(*) FROM transition"), expected, "every burst was seen, none twice");
    assert_eq!(count(&world, "SELECT count(*) FROM delivery WHERE state <> 'delivered'"), 0);
    let state = rusqlite::Connection::open(world.path("state.db")).unwrap();
    let sound: String = state.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    (world, ledger)
}

/// Waits busily, because the moment matters.
async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        tokio::task::yield_now().await;
    }
}

async fn reach(world: &World, moment: &Moment, requests: u64, webhooks: usize, commit: &mut Duration) {
    let pages = match moment {
        Moment::Listing(pages) => *pages,
        Moment::Committing(_) | Moment::Delivering(_) => REQUESTS,
    };
    until(|| world.swr.requests() >= requests + pages).await;
    let watch = Clock::system().stopwatch();
    match moment {
        Moment::Listing(_) => {}
        Moment::Committing(share) => until(|| watch.elapsed() >= commit.mul_f64(*share)).await,
        Moment::Delivering(count) => {
            until(|| world.inbox.count() > webhooks).await;
            *commit = watch.elapsed();
            world.inbox.reached(webhooks + count).await;
        }
    }
}

/// What arrived, by job and round.
#[derive(Default)]
struct Ledger {
    /// For each job, each delivery's round and id in the order in which they arrived.
    jobs: BTreeMap<String, Vec<(u32, String)>>,
    /// What each id came with.
    bodies: BTreeMap<String, Vec<u8>>,
    received: usize,
}

impl Ledger {
    /// Waits until every job has told of this round.
    async fn fill(&mut self, world: &World, round: u32, service: &Service) {
        loop {
            let before = world.inbox.count();
            self.take(world);
            let told = self.jobs.values().filter(|told| told.iter().any(|(known, _)| *known == round)).count();
            if told == BURST {
                return;
            }
            let more = tokio::time::timeout(crate::world::PATIENCE / 2, world.inbox.reached(before + 1)).await;
            assert!(more.is_ok(), "only {told} of {BURST} in round {round}:\n{}", service.log());
        }
    }

    fn take(&mut self, world: &World) {
        for received in world.inbox.take() {
            let body: Value = serde_json::from_slice(&received.body).unwrap();
            let id = received.header("webhook-id").to_owned();
            assert_eq!(body["id"], *id);
            let data = &body["data"];
            for one in data["jobs"].as_array().map_or(std::slice::from_ref(data), Vec::as_slice) {
                let told = self.jobs.entry(one["job"]["id"].as_str().unwrap().to_owned()).or_default();
                told.push((round_of(one), id.clone()));
            }
            let known = self.bodies.entry(id.clone()).or_insert_with(|| received.body.to_vec());
            assert_eq!(*known, received.body, "{id} is sent with the same bytes each time");
            self.received += 1;
        }
    }

    /// Every job was told of in every round, in order.
    fn check(&self, rounds: u32) {
        assert_eq!(self.jobs.len(), BURST);
        for (job, told) in &self.jobs {
            // A message that was sent again says nothing new.
            let mut firsts: Vec<&(u32, String)> = Vec::new();
            for one in told {
                if !firsts.contains(&one) {
                    firsts.push(one);
                }
            }
            let heard: Vec<u32> = firsts.iter().map(|(round, _)| *round).collect();
            assert_eq!(
                heard,
                (0..rounds).collect::<Vec<_>>(),
                "{job} misses a round, or is out of order, or told twice"
            );
        }
    }
}

/// The round that a webhook tells of, from the job's last change.
fn round_of(data: &Value) -> u32 {
    let updated = data["job"]["updated_at"].as_str().unwrap();
    let seconds = jobwatch::model::time::Timestamp::parse(updated).unwrap().seconds();
    let start = jobwatch::model::time::Timestamp::parse("2026-11-24T08:00:00Z").unwrap().seconds();
    u32::try_from(seconds - start).unwrap() - 1
}
