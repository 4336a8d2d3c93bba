//! What is old is forgotten, and nobody can tell it from what is said; copies are whole while the agent writes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use jobwatch::model::alert::Silence;
use jobwatch::model::job::Job;
use jobwatch::store::{self, Access};
use serde_json::Value;

use crate::stage::{START, Stage};
use crate::world::{World, failed, job, rule, said, soon};

const DAY: Duration = Duration::from_secs(86_400);
/// Histories that are lived through twice.
const HISTORIES: u64 = 8;
/// Polls of each.
const POLLS: usize = 45;

/// Cooldowns, ends, stays, bursts, new reasons, groups, follow-ups: each way in which the past decides what is told.
const RULES: &str = r#"
schema = 1

[[rule]]
id = "cooled"
when = { to = "Failed" }
notify = ["oncall"]
cooldown = "40d"
then = ["act"]

[[rule]]
id = "ended"
when = { to = "Failed" }
resolve = { to = "Success" }
notify = ["flaky"]

[[rule]]
id = "resource"
when = { to = "Failed" }
key = ["resource_id"]
resolve = { to = "Success", scope = "resource" }
notify = ["oncall"]
then = ["act"]

[[rule]]
id = "stays"
when = { stays = "Failed", for = "5d" }
resolve = { to = "Running", scope = "resource" }
notify = ["oncall"]

[[rule]]
id = "burst"
when = { to = "Failed", count = 3, within = "20d", per = ["type"] }
notify = ["oncall"]

[[rule]]
id = "new"
when = { to = "Failed", new = "reason_class", memory = "60d" }
notify = ["oncall"]

[[rule]]
id = "gone"
when = { gone_from = "*" }
notify = ["flaky"]
group = { by = ["source"], wait = "1h" }
"#;

/// A world whose history is kept for so long.
async fn stage(history: &str) -> Stage {
    let world = World::new().await;
    world.write("rules/failed.toml", RULES);
    let flaky = "[receiver.flaky]\nkind = \"webhook\"\nurl = { file = \"flaky\" }\nallow_targets = [\"127.0.0.1\"]\nrate = \"unlimited\"\nretry = { give_up_after = \"1h\" }\n";
    let url = std::fs::read_to_string(world.path("url")).unwrap();
    world.write("flaky", &url.replace("/hook/", "/flaky/"));
    let act = "[follow_up.act]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n";
    Stage::with(world, &format!("{flaky}{act}[retention]\nhistory = \"{history}\"\nsize_max = \"unlimited\"\n")).await
}

/// Lives through a history; what everybody was told, in order, with all words. `prunes`: at random moments.
pub(crate) async fn live(seed: u64, history: &str, prunes: bool) -> (Stage, Vec<String>, u64) {
    let stage = stage(history).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut when = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    let (mut heard, mut removed) = (Vec::new(), 0);
    stage.poll(Vec::new()).await;
    for n in 0..POLLS {
        let pause = match random.u8(0..8) {
            0..4 => Duration::from_secs(random.u64(30..7_200)),
            4..7 => DAY.mul_f64(random.f64() * 9.0),
            _ => DAY.mul_f64(random.f64() * 45.0),
        };
        stage.until(stage.clock.now().since(START) + pause).await;
        for _ in 0..random.u8(0..4) {
            // An id that is gone never comes back here: then it would be another job.
            let id = format!("j{:02}-{}", random.u8(0..8), n / 15);
            let status = ["Creating", "Running", "Running", "Failed", "Failed", "Success"][random.usize(0..6)];
            let reasons = ["quota exceeded", "subnet is full", "no such image"];
            let mut job = match status {
                "Failed" => failed(&id, u32::try_from(n).unwrap() + 1, reasons[random.usize(0..3)]),
                status => job(&id, status, u32::try_from(n).unwrap() + 1),
            };
            job.resource_id = Some(format!("r{}", random.u8(0..3)).into());
            jobs.insert(id, job);
        }
        // Those of an earlier part of the story disappear one by one.
        if n % 15 > 4 && random.bool() {
            let old = jobs.keys().find(|id| !id.ends_with(&format!("-{}", n / 15))).cloned();
            old.and_then(|id| jobs.remove(&id));
        }
        if random.u8(0..10) == 0 {
            let now = stage.clock.now();
            let silence = Silence {
                id: format!("s{n}"),
                matchers: vec!["rule=~cooled|ended|stays".into()],
                starts_at: now,
                ends_at: now.plus(DAY.mul_f64(random.f64() * 25.0)),
                author: "a".into(),
                comment: "c".into(),
            };
            stage.store.silence(silence).await.unwrap();
        }
        stage.world.inbox.answer_with(if random.u8(0..4) == 0 { 500 } else { 204 }, &[]);
        let prune = when.u8(0..3) == 0;
        if prunes && prune {
            removed += stage.agent.prune().await.unwrap();
        }
        stage.poll(jobs.values().cloned().collect()).await;
        let received = stage.world.inbox.take();
        let mut news: Vec<String> = received.iter().filter(|received| received.status < 300).map(words).collect();
        // Messages about different jobs arrive in any order.
        news.sort();
        heard.extend(news);
    }
    (stage, heard, removed)
}

/// A message without what differs from one world to the other: ports.
fn words(received: &jobwatch::simulator::Received) -> String {
    let mut body: Value = serde_json::from_slice(&received.body).unwrap();
    body["data"]["source"]["endpoint"] = Value::Null;
    format!("{} {} {body}", received.path, received.header("webhook-id"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_the_same_whether_history_is_forgotten_at_random_moments_or_never() {
    let seed =
        jobwatch::config::variable("SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} repeats this");
    let (mut told, mut forgotten) = (0, 0);
    for n in 0..HISTORIES {
        let seed = seed.wrapping_add(n);
        let ((kept, whole, none), (pruned, heard, removed)) =
            tokio::join!(live(seed, "3650d", false), live(seed, "10d", true));
        assert_eq!(none, 0);
        let differs = whole.iter().zip(&heard).find(|(whole, heard)| whole != heard);
        assert!(differs.is_none(), "history {seed}:\n{}\n{}", differs.unwrap().0, differs.unwrap().1);
        assert_eq!(whole.len(), heard.len(), "history {seed}");
        told += heard.len();
        forgotten += removed;
        let count = |stage: &Stage, table: &str| count(&stage.world, &format!("SELECT count(*) FROM {table}"));
        assert!(count(&pruned, "transition") <= count(&kept, "transition"));
    }
    assert!(told > 200 && forgotten > 200, "{told} messages, {forgotten} rows forgotten: a weak test");
}

fn count(world: &World, sql: &str) -> u64 {
    let state = rusqlite::Connection::open(world.path("state.db")).unwrap();
    u64::try_from(state.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
}

#[tokio::test]
async fn of_old_history_only_what_is_needed_is_left_and_an_id_that_comes_back_is_numbered_on() {
    let world = World::new().await;
    let retention = "[retention]\nhistory = \"10d\"\n";
    let stage = Stage::with(world, retention).await;
    stage.poll(vec![job("a", "Running", 0), job("b", "Running", 0)]).await;
    let b = || failed("b", 1, "x");
    stage.poll(vec![failed("a", 1, "x"), b()]).await;
    // Three listings without it, and the single-job call says 404.
    for _ in 0..4 {
        stage.poll(vec![b()]).await;
    }
    let first: BTreeSet<String> = stage.all().await.iter().map(|delivery| delivery.id.to_string()).collect();
    assert_eq!(first.len(), 2);
    assert_eq!(stage.agent.prune().await.unwrap(), 0, "nothing is old");
    stage.clock.advance(11 * DAY);
    stage.poll(vec![b()]).await;
    stage.agent.prune().await.unwrap();
    let left = |table: &str| count(&stage.world, &format!("SELECT count(*) FROM {table}"));
    let tables = ["transition", "fate", "delivery", "payload", "attempt", "job", "alert", "numbered"];
    // The job that is there, its last step and its finding; and a number of the one that is not.
    assert_eq!(tables.map(left), [1, 0, 0, 0, 0, 1, 1, 1]);
    stage.poll(vec![failed("a", 1, "x"), b()]).await;
    let again = stage.oncall().await;
    assert_eq!(again.subject, "a");
    assert!(!first.contains(again.id.as_str()), "an id that was sent is not used for something else");
}

#[tokio::test]
async fn what_was_given_up_is_kept_as_long_as_history_and_what_is_owed_for_ever() {
    let world = World::new().await;
    let stage = Stage::in_world(world, "retry = { give_up_after = \"1h\" }\n[retention]\nhistory = \"10d\"").await;
    stage.poll(vec![job("a", "Running", 0), job("b", "Running", 0)]).await;
    stage.world.inbox.answer_with(503, &[]);
    stage.poll(vec![failed("a", 1, "x"), job("b", "Running", 0)]).await;
    stage.until(Duration::from_secs(7_200)).await;
    assert_eq!(stage.oncall().await.state.as_str(), "dead");
    stage.clock.advance(9 * DAY);
    stage.agent.prune().await.unwrap();
    assert_eq!(stage.oncall().await.state.as_str(), "dead", "nine days old");
    // Pending for as long as nobody claims it: the loops of this story stand still.
    stage.world.inbox.answer_with(410, &[]);
    stage.poll(vec![failed("a", 1, "x"), failed("b", 2, "x")]).await;
    stage.clock.advance(100 * DAY);
    stage.agent.prune().await.unwrap();
    let left = stage.all().await.into_iter().filter(|delivery| delivery.receiver.as_str() == "oncall");
    let left: Vec<_> = left.map(|delivery| (delivery.subject, delivery.state.as_str())).collect();
    assert_eq!(left, [("b".to_owned(), "pending")]);
}

#[tokio::test]
async fn a_state_that_stays_too_large_is_told_once_and_so_is_its_end() {
    let world = World::new().await;
    let stage = Stage::with(world, "[retention]\nsize_max = \"16MB\"\n").await;
    let told = async || {
        let all = stage.all().await.into_iter().rev();
        let ours = all.filter(|delivery| delivery.receiver.as_str() == "ops" && delivery.subject == "state");
        ours.map(|delivery| (delivery.event, delivery.title)).collect::<Vec<_>>()
    };
    // What is for it is held, for as long as nobody opens it.
    stage.world.inbox.answer_with(410, &[]);
    let long = "x".repeat(58_000);
    for day in 0..20 {
        let jobs = (0..30).map(|n| match day % 2 {
            0 => failed(&format!("j{n:02}"), day + 1, &long),
            _ => job(&format!("j{n:02}"), "Running", day + 1),
        });
        stage.poll(jobs.collect()).await;
    }
    for _ in 0..3 {
        stage.clock.advance(DAY);
        stage.agent.prune().await.unwrap();
    }
    assert!(stage.store.pruning().await.unwrap().unwrap().excess > 0, "{:?}", stage.store.room().await);
    let larger = "the state is larger than it may be, and nothing more can be forgotten".to_owned();
    let begun = ("io.jobwatch.agent.oversized".to_owned(), larger);
    assert_eq!(told().await, std::slice::from_ref(&begun));

    let owed: Vec<_> =
        stage.all().await.into_iter().filter(|delivery| delivery.receiver.as_str() == "oncall").collect();
    let ids = owed.into_iter().map(|delivery| delivery.id).collect();
    stage.store.end(ids, "nobody is to get it", stage.clock.now()).await.unwrap();
    for _ in 0..3 {
        stage.clock.advance(DAY);
        stage.agent.prune().await.unwrap();
    }
    assert_eq!(stage.store.pruning().await.unwrap().unwrap().excess, 0);
    let over = ("io.jobwatch.agent.fits_again".to_owned(), "the state is no longer larger than it may be".to_owned());
    assert_eq!(told().await, [begun, over]);
}

#[tokio::test]
async fn a_state_that_is_too_large_loses_its_oldest_history_first_and_gives_the_room_back() {
    let world = World::new().await;
    let stage = Stage::with(world, "[retention]\nsize_max = \"16MB\"\n").await;
    let long = "x".repeat(58_000);
    for day in 0..20 {
        let jobs = (0..30).map(|n| match day % 2 {
            0 => failed(&format!("j{n:02}"), day + 1, &long),
            _ => job(&format!("j{n:02}"), "Running", day + 1),
        });
        stage.poll(jobs.collect()).await;
        stage.clock.advance(DAY);
    }
    stage.agent.prune().await.unwrap();
    let room = stage.store.room().await.unwrap();
    assert!(room.used <= 16 << 20 && room.used > 10 << 20, "no more than is needed went: {room:?}");
    assert!(room.shrinks && room.free <= room.used / 5, "{room:?}");
    assert_eq!(stage.store.pruning().await.unwrap().unwrap().excess, 0);
    let ask = |sql: &str| count(&stage.world, sql);
    assert_eq!(ask("SELECT max(n) FROM transition"), 570, "the first day is the baseline");
    let oldest = ask("SELECT min(seen_at) FROM transition");
    assert!(oldest > u64::try_from(START.plus(2 * DAY).micros()).unwrap(), "the oldest went");
    assert_eq!(ask(&format!("SELECT count(*) FROM transition WHERE seen_at >= {oldest}")) % 30, 0, "whole days");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_made_while_the_agent_commits_in_bursts_is_whole_and_a_state() {
    let world = World::new().await;
    world.write("rules/failed.toml", &rule("all", "*", "oncall"));
    world.write("jobwatch.toml", &world.config("poll_every = \"100ms\"", ""));
    // One page: a listing shows all of them as they were at one moment.
    world.swr.set_jobs((0..90).map(|n| job(&format!("j{n:03}"), "Running", 0)).collect());
    let service = world.watched().await;
    let mut sizes = BTreeSet::new();
    for n in 1..=6_u32 {
        let status = if n % 2 == 0 { "Running" } else { "Failed" };
        let inbox = world.inbox.count();
        world.swr.set_jobs((0..90).map(|i| job(&format!("j{i:03}"), status, n)).collect());
        soon("the burst", world.inbox.reached(inbox + 1)).await;
        let to = format!("copy-{n}.db");
        let output = world.jobwatch(&["state", "backup", &to]).await;
        assert!(output.status.success(), "{:?}", said(&output));
        assert_eq!(said(&output).1, "", "progress is for terminals");
        assert_eq!(std::fs::metadata(world.path(&to)).unwrap().permissions().mode() & 0o777, 0o600);
        let copy = rusqlite::Connection::open(world.path(&to)).unwrap();
        let ask = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let sound: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        // Written together, copied together.
        assert_eq!(ask("SELECT count(*) FROM transition") % 90, 0);
        assert_eq!(ask("SELECT count(*) FROM transition"), ask("SELECT count(*) FROM delivery"));
        assert_eq!(ask("SELECT count(*) FROM payload"), ask("SELECT count(*) FROM delivery"));
        sizes.insert(ask("SELECT count(*) FROM transition"));
        drop(copy);
        let url = format!("sqlite:{}", world.path(&to).display());
        drop(store::open(&store::Place::new(url), Access::Agent).await.unwrap());
    }
    assert!(sizes.len() > 1, "{sizes:?}");
    let output = world.jobwatch(&["state", "backup", "copy-1.db"]).await;
    assert!(said(&output).1.contains("copy-1.db exists: name another file"), "{:?}", said(&output));
    assert_eq!(output.status.code(), Some(1));
    let parts = std::fs::read_dir(world.directory.path()).unwrap();
    let parts = parts.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part")).count();
    assert_eq!(parts, 0);
    service.stop().await;
}

#[tokio::test]
async fn the_state_is_described_beside_the_agent_and_made_smaller() {
    let world = World::new().await;
    let output = world.jobwatch(&["state", "info"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("`jobwatch run` makes it"), "{:?}", said(&output));
    world.swr.set_jobs(vec![job("a", "Running", 0)]);
    let service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    soon("a webhook", world.inbox.reached(1)).await;
    let output = world.jobwatch(&["state", "info", "--check", "--format", "json"]).await;
    let info: Value = serde_json::from_slice(&output.stdout).unwrap();
    let facts = ["version", "dead", "check", "shrinks", "pruning"].map(|key| info[key].clone());
    assert_eq!(facts, [5.into(), 0.into(), "ok".into(), true.into(), Value::Null]);
    assert_eq!((&info["rows"]["transition"], &info["rows"]["delivery"]), (&1.into(), &1.into()));
    assert!(info["oldest"] == info["newest"] && info["oldest"].is_string());
    let (text, _) = said(&world.jobwatch(&["state", "info", "--check"]).await);
    for line in ["kept      90 d of history, 1.0 GB", "forgotten nothing yet", "check     the file is sound"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let output = world.jobwatch(&["state", "compact"]).await;
    assert!(output.status.success(), "{:?}", said(&output));
    world.swr.set_jobs(vec![job("a", "Running", 2), failed("b", 2, "x")]);
    soon("another webhook, after it", world.inbox.reached(2)).await;
    service.stop().await;
}

/// Rows that nothing needs, as a time before this one left them.
fn bury(world: &World, rows: u32) {
    let state = rusqlite::Connection::open(world.path("state.db")).unwrap();
    let text = format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO transition (id, source, job_id, seq, from_state, to_state, seen_at, skipped, late, job)
         SELECT 'old' || n, 'prod', 'old' || n, 1, 'unseen', 'Failed', n, '[]', 0, '{{}}' FROM n;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO delivery (id, receiver, source, subject, event, title, created_at, state, due_at, set_at, budget_from, ended_at)
         SELECT 'old' || n, 'oncall', 'prod', 'old' || n, 'e', 't', n, 'delivered', n, n, n, n FROM n;
         INSERT INTO payload (delivery, bytes) SELECT n, zeroblob(500) FROM delivery WHERE id GLOB 'old*';"
    );
    state.execute_batch(&text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_forgets_the_rest_is_forgotten_later_and_nothing_else_is_lost() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 0), job("b", "Running", 0)]);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    world.swr.set_jobs(vec![failed("a", 1, "x"), job("b", "Running", 0)]);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    bury(&world, 4_000);
    let left = |what: &str| count(&world, &format!("SELECT count(*) FROM {what}"));
    assert_eq!(left("transition"), 4_001);
    let mut kills = 0;
    for calls in [3, 10, 25, 60, 120, 400] {
        rusqlite::Connection::open(world.path("state.db")).unwrap().execute("DELETE FROM pruning", []).unwrap();
        let inject = format!("inject=pwrite64:signal=KILL:when={calls}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", &inject];
        let output = world.jobwatch_under(&strace, &["poll"]).await;
        kills += u32::from(!output.status.success());
        let sound: String = rusqlite::Connection::open(world.path("state.db"))
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
        assert_eq!(left("delivery WHERE id NOT GLOB 'old*'"), 1);
        assert_eq!(left("payload"), left("delivery"), "each with its bytes or neither");
    }
    assert!(kills > 2, "{kills} kills");
    while left("transition") > 1 || left("delivery") > 1 {
        rusqlite::Connection::open(world.path("state.db")).unwrap().execute("DELETE FROM pruning", []).unwrap();
        assert!(world.jobwatch(&["poll"]).await.status.success());
    }
    world.swr.set_jobs(vec![failed("a", 1, "x"), failed("b", 2, "x")]);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    let mut told: Vec<String> =
        world.inbox.take().iter().map(|received| received.header("webhook-id").to_owned()).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 2, "both failures, each under one id");
}
