//! A state that is carried over from a file into a database is the same state: in every row, in everything that is looked at,
//! in what is forgotten of it, and in how it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::model::name::{ReceiverName, SourceName};
use jobwatch::model::time::Timestamp;
use jobwatch::store::glance::Look;
use jobwatch::store::view::{AlertFilter, JobFilter, SourceFilter, TransitionFilter};
use jobwatch::store::{self, Access, Filter, Mark, Part, Place, Prune, Span, Store, Wanted};
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::postgres::{Cluster, PASSWORD, ROLE};
use crate::retention::live;
use crate::stage::Stage;
use crate::world::{World, failed, job, said};

/// What a column holds, as text.
type Rows = Vec<Vec<Option<String>>>;

/// The columns that both have, with their types in the database, by table.
async fn columns(
    cluster: &Cluster,
    database: &str,
    file: &rusqlite::Connection,
) -> BTreeMap<String, Vec<(String, String)>> {
    let query = "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
                 WHERE table_schema = 'jobwatch' ORDER BY ordinal_position";
    let mut columns = BTreeMap::<String, Vec<(String, String)>>::new();
    for row in cluster.client(database).await.query(query, &[]).await.unwrap() {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let known = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        let known: i64 = file.query_row(known, [&table, &column], |row| row.get(0)).unwrap();
        if known == 1 && table != "request" {
            columns.entry(table).or_default().push((column, row.get(2)));
        }
    }
    columns
}

fn rows_of_file(file: &rusqlite::Connection, table: &str, columns: &[(String, String)]) -> Rows {
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let mut select = file.prepare(&format!("SELECT {} FROM {table}", names.join(", "))).unwrap();
    let value = |value: ValueRef<'_>| match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        // The database has no place for this.
        ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap().replace('\0', "\u{fffd}")),
        ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        ValueRef::Real(_) => unreachable!("there is none"),
    };
    let mut all: Rows = select
        .query_map([], |row| Ok((0..columns.len()).map(|at| value(row.get_ref(at).unwrap())).collect()))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    all.sort();
    all
}

async fn rows_of_database(cluster: &Cluster, database: &str, table: &str, columns: &[(String, String)]) -> Rows {
    let one = |(column, kind): &(String, String)| match kind.as_str() {
        "bytea" => format!("encode({column}, 'hex')"),
        "boolean" => format!("{column}::int::text"),
        _ => format!("{column}::text"),
    };
    let select: Vec<String> = columns.iter().map(one).collect();
    let query = format!("SELECT {} FROM jobwatch.{table}", select.join(", "));
    let rows = cluster.client(database).await.query(&query, &[]).await.unwrap();
    let mut all: Rows = rows.iter().map(|row| (0..columns.len()).map(|at| row.get(at)).collect()).collect();
    all.sort();
    all
}

/// Compares every row. Returns how many each table has.
async fn same_rows(world: &World, cluster: &Cluster, database: &str) -> BTreeMap<String, usize> {
    let file = rusqlite::Connection::open(world.path("state.db")).unwrap();
    let mut counts = BTreeMap::new();
    for (table, columns) in columns(cluster, database, &file).await {
        let here = rows_of_file(&file, &table, &columns);
        let there = rows_of_database(cluster, database, &table, &columns).await;
        let differs = here.iter().zip(&there).find(|(here, there)| here != there);
        assert!(differs.is_none(), "{table} {columns:?}\n{differs:?}");
        assert_eq!(here.len(), there.len(), "{table}");
        counts.insert(table, here.len());
    }
    counts
}

/// Everything that people and agents see of a state.
async fn seen(store: &dyn Store, now: Timestamp) -> Vec<String> {
    let mut all = Vec::new();
    let mut see = |what: &str, found: &dyn Debug| all.push(format!("{what}: {found:#?}"));
    let (prod, flaky) = (SourceName::from("prod"), ReceiverName::from("flaky"));
    let deliveries = store.deliveries(Filter { limit: 10_000, ..Filter::default() }).await.unwrap().items;
    for delivery in &deliveries {
        see("dossier", &store.dossier(&delivery.id).await.unwrap());
    }
    see("deliveries", &deliveries);
    let jobs = store.jobs(JobFilter { limit: 10_000, ..JobFilter::default() }).await.unwrap().items;
    see("jobs", &jobs);
    let steps = store.history(Span { limit: 10_000, ..Span::default() }).await.unwrap();
    for step in &steps {
        see("past", &store.past(&prod, &step.job.id).await.unwrap());
    }
    see("history", &steps);
    see(
        "transitions",
        &store.transitions(TransitionFilter { limit: 10_000, ..TransitionFilter::default() }).await.unwrap().items,
    );
    see("alerts", &store.alerts(AlertFilter { limit: 10_000, ..AlertFilter::default() }).await.unwrap().items);
    see("sources", &store.sources(SourceFilter { limit: 10, ..SourceFilter::default() }).await.unwrap().items);
    let fates = store.fates(Span { limit: 10_000, ..Span::default() }).await.unwrap();
    // Of one moment, in no order.
    see("fates", &fates.iter().map(|fate| format!("{fate:?}")).collect::<BTreeSet<_>>());
    see("findings", &store.findings(10_000).await.unwrap());
    see("silences", &store.silences(now).await.unwrap());
    see("follow-ups", &store.follow_ups(10_000).await.unwrap());
    see("troubles", &store.troubles().await.unwrap());
    see("waiting", &store.waiting().await.unwrap());
    see("sights", &store.sights().await.unwrap());
    see("outbox", &store.outbox().await.unwrap());
    see("held", &store.held(&flaky, now.plus(Duration::from_secs(86_400)), 100, 1 << 20).await.unwrap());
    see("holding", &store.holding(now).await.unwrap());
    see("next due", &store.next_due(&flaky).await.unwrap());
    see("pruning", &store.pruning().await.unwrap());
    let memory = store.load(&prod, Wanted { now, ..Wanted::everything() }).await.unwrap();
    // In no order.
    let mut known: Vec<String> = memory.snapshot.jobs.iter().map(|known| format!("{known:?}")).collect();
    known.sort();
    see("snapshot", &known);
    let mut alerts: Vec<String> = memory.alerts.values().map(|alert| format!("{alert:?}")).collect();
    alerts.sort();
    see("memory", &alerts);
    let look = Look { now, since: now.minus(Duration::from_secs(86_400)), steps_max: 1_000, rows_max: 100 };
    see("glance", &store.glance(look).await.unwrap());
    all
}

async fn forget(store: &dyn Store, before: Timestamp, now: Timestamp) -> usize {
    let mut removed = 0;
    for part in Part::ALL {
        let mut from = Mark::default();
        loop {
            let step = Prune { part, before, dead_before: before, lasting: Arc::from([]), from, limit: 7, now };
            let pruned = store.prune(step).await.unwrap();
            removed += pruned.removed;
            match pruned.next {
                Some(mark) => from = mark,
                None => break,
            }
        }
    }
    removed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_carried_over_is_the_same_and_is_forgotten_alike() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let (Stage { mut world, agent, store, clock }, _, _) = live(7, "3650d", false).await;
    world.environment.push(("JOBWATCH_STATE_PASSWORD", PASSWORD.to_owned()));
    let to = format!("postgres://{ROLE}@{}/{database}", cluster.address());
    let copy = ["state", "copy", "--from", "sqlite:state.db", "--to", &to];
    let output = world.jobwatch(&copy).await;
    assert_eq!(output.status.code(), Some(1), "an agent has it");
    assert!(said(&output).1.contains("is in use by another jobwatch"), "{:?}", said(&output));
    drop((agent, store));
    // What no history has: rows of a kind that seldom stands, in every table, and numbers that were given and forgotten.
    let file = rusqlite::Connection::open(world.path("state.db")).unwrap();
    file.execute_batch(RARE).unwrap();
    drop(file);
    let output = world.jobwatch(&copy).await;
    assert!(output.status.success(), "{:?}", said(&output));
    assert!(said(&output).0.contains("as many as in state.db"), "{:?}", said(&output));
    assert_eq!(said(&output).1, "", "progress is for terminals");
    let counts = same_rows(&world, &cluster, &database).await;
    let empty: Vec<&String> = counts.iter().filter(|(_, count)| **count == 0).map(|(table, _)| table).collect();
    assert_eq!(empty, [] as [&String; 0], "every table was put to the test: {counts:?}");

    let url = cluster.url(&database);
    let now = clock.now();
    let (here, there) = (Place::new(format!("sqlite:{}", world.path("state.db").display())), Place::new(url.as_str()));
    let (here, there) =
        (store::open(&here, Access::Visitor).await.unwrap(), store::open(&there, Access::Visitor).await.unwrap());
    for (here, there) in seen(&*here, now).await.iter().zip(seen(&*there, now).await) {
        let here = here.replace("a\\0b", "a\u{fffd}b");
        let differs = here.lines().zip(there.lines()).find(|(here, there)| here != there);
        assert!(here == there, "{}\n{differs:#?}", &here[..here.len().min(300)]);
    }
    for days in [300, 100, 30, 0] {
        let before = now.minus(Duration::from_secs(days * 86_400));
        assert_eq!(forget(&*here, before, now).await, forget(&*there, before, now).await, "{days}");
        same_rows(&world, &cluster, &database).await;
    }
    let (used, size) = (there.room().await.unwrap().used, "SELECT pg_total_relation_size('jobwatch.delivery')");
    let size: i64 = cluster.client(&database).await.query_one(size, &[]).await.unwrap().get(0);
    assert!(used > 0 && used < size.unsigned_abs() * 20, "{used}");
    let next = "SELECT nextval(pg_get_serial_sequence('jobwatch.transition', 'n'))";
    let next: i64 = cluster.client(&database).await.query_one(next, &[]).await.unwrap().get(0);
    assert_eq!(next, 123_457, "no number is given twice");

    let output = world.jobwatch(&copy).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("there is a state in the database already"), "{:?}", said(&output));
}

/// What stands in a table only for a while.
const RARE: &str = "
    INSERT OR REPLACE INTO trouble VALUES ('flaky', 5, 1, 0, 1, 6);
    INSERT INTO gathering VALUES ('flaky', 'g\u{1f600}', 5, 6, '[\"a\"]');
    INSERT INTO held (id, receiver, source, subject, event, title, created_at, payload, severity, class, grp, due_at, data)
        VALUES ('h1', 'flaky', 'prod', 'j', 'io.jobwatch.job.failed', 't''\"\\', 5, x'00ff10', 'error', 'c', 'g', 9, '{}');
    INSERT INTO reserve VALUES ('r1', 'flaky', 5, 'r2', 'oncall', 'prod', 'j', 'io.jobwatch.job.failed', 't', x'');
    INSERT INTO muted SELECT 'm1', 'cooled', 's', id, source, job_id, seq, from_state, to_state, seen_before, seen_at, skipped,
        late, job FROM transition LIMIT 1;
    INSERT OR IGNORE INTO member SELECT n, receiver, source, subject FROM delivery LIMIT 3;
    INSERT INTO numbered VALUES (-5, 7);
    INSERT OR IGNORE INTO pruning VALUES (1, 2, 3, 4, 5);
    INSERT OR IGNORE INTO silence VALUES ('s', '[\"rule=x\"]', 1, 1800000000000000000, 'me', 'a' || char(0) || 'b');
    UPDATE sqlite_sequence SET seq = 123456 WHERE name IN ('transition', 'delivery');
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_on_in_the_database_where_the_file_ends() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 0), job("b", "Running", 0)]);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    world.swr.set_jobs(vec![failed("a", 1, "x"), job("b", "Running", 0)]);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    world.write("database-password", PASSWORD);
    let url = format!("postgres://{ROLE}@{}/{database}", cluster.address());
    let state = format!("state = \"{url}\"\nstate_password = {{ file = \"database-password\" }}");
    let config = world.config("", "").replace("state = \"sqlite:state.db\"", &state);
    world.write("jobwatch.toml", &config);

    let with_password = url.replace('@', &format!(":{PASSWORD}@"));
    let output = world.jobwatch(&["state", "copy", "--from", "sqlite:state.db", "--to", &with_password]).await;
    assert_eq!(output.status.code(), Some(2));
    let output = world.jobwatch(&["state", "copy", "--from", &url, "--to", "sqlite:other.db"]).await;
    assert_eq!(output.status.code(), Some(1), "not yet this way");
    let output = world.jobwatch(&["state", "info"]).await;
    assert!(said(&output).1.contains("there is no state at postgres://127.0.0.1"), "{:?}", said(&output));
    let output = world.jobwatch(&["state", "copy", "--from", "sqlite:state.db", "--to", &url]).await;
    assert!(output.status.success(), "{:?}", said(&output));

    let info = world.jobwatch(&["state", "info", "--format", "json"]).await;
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((&info["rows"]["transition"], &info["rows"]["delivery"]), (&1.into(), &1.into()));
    assert!(info["server"].is_string() && info["size_bytes"].as_u64() >= info["used_bytes"].as_u64(), "{info}");
    let (text, _) = said(&world.jobwatch(&["state", "info"]).await);
    for line in [", PostgreSQL 1", "replicas  0 living of 0", "kept      90 d of history", "forgotten 0 rows"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let output = world.jobwatch(&["state", "info", "--check"]).await;
    assert!(output.status.code() == Some(1) && said(&output).1.contains("pg_amcheck"), "{:?}", said(&output));
    let output = world.jobwatch(&["state", "backup", "x"]).await;
    assert!(output.status.code() == Some(1) && said(&output).1.contains("pg_dump"), "{:?}", said(&output));
    let output = world.jobwatch(&["state", "compact"]).await;
    assert!(output.status.success() && said(&output).0.contains("autovacuum"), "{:?}", said(&output));
    let (text, _) = said(&world.jobwatch(&["doctor"]).await);
    for line in [
        "ok    state: postgres://127.0.0.1",
        "a state of version 1",
        "ok    database TLS: none: the database is on this host",
        "ok    database rights: it can be written",
        "ok    database clock: this host's and the database's agree",
        "ok    connections: ",
        "durability: ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }

    world.swr.set_jobs(vec![failed("a", 1, "x"), failed("b", 2, "x")]);
    let output = world.jobwatch(&["poll"]).await;
    assert!(output.status.success(), "{:?}", said(&output));
    let query = "SELECT string_agg(n || ' ' || job_id, ', ' ORDER BY n) FROM jobwatch.transition";
    let steps: String = cluster.client(&database).await.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(steps, "1 a, 2 b");
    assert!(!text.contains(PASSWORD));
}

#[tokio::test]
async fn what_somebody_has_at_hand_is_forgotten_the_next_time_and_replicas_that_ended_with_their_answers() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let store = store::open(&Place::new(cluster.url(&database)), Access::Agent).await.unwrap();
    let client = cluster.client(&database).await;
    let old = "
        INSERT INTO jobwatch.delivery (id, receiver, source, subject, event, title, created_at, state, due_at, set_at, budget_from, ended_at)
            SELECT 'd' || n, 'oncall', 'prod', 'j' || n, 'e', 't', n, 'delivered', n, n, n, n FROM generate_series(1, 3) AS n;
        INSERT INTO jobwatch.payload SELECT n, '\\x00' FROM jobwatch.delivery;
        INSERT INTO jobwatch.told VALUES ('a', 'oncall', 'd1', 'error', 1, 0), ('a', 'flaky', 'd2', 'error', 1, 0);
        INSERT INTO jobwatch.job SELECT 'prod', 'j' || n, 'Failed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, n, n, n, 3, 0, true
            FROM generate_series(1, 3) AS n;
        INSERT INTO jobwatch.replica VALUES ('r', 'host 7', '1', 'x', 'y', 1, 1, 2);
        INSERT INTO jobwatch.request (n, what, asked_at) VALUES (1, 'reload', 1);
        INSERT INTO jobwatch.answer VALUES (1, 'r', 'host 7', 2, true, '');";
    client.batch_execute(old).await.unwrap();
    let busy = cluster.client(&database).await;
    busy.batch_execute("BEGIN; SELECT 1 FROM jobwatch.delivery WHERE id = 'd2' FOR UPDATE").await.unwrap();
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    let left = async |what: &str| -> i64 {
        client.query_one(&format!("SELECT count(*) FROM jobwatch.{what}"), &[]).await.unwrap().get(0)
    };
    // Nobody is waited for.
    assert_eq!(forget(&*store, now, now).await, 2 + 3 + 2);
    assert_eq!((left("delivery").await, left("payload").await, left("job").await), (1, 1, 0));
    assert_eq!((left("replica").await, left("request").await, left("answer").await), (0, 0, 0));
    assert_eq!((left("told WHERE heard_at = 1").await, left("told WHERE heard_at IS NULL").await), (1, 1));
    busy.batch_execute("COMMIT").await.unwrap();
    assert_eq!(forget(&*store, now, now).await, 1);
    assert_eq!((left("delivery").await, left("payload").await), (0, 0));
    // Those that come back are numbered on.
    let ids = ["j1", "j3", "j4"].map(|id| id.into()).to_vec();
    let memory = store.load(&SourceName::from("prod"), Wanted { ids, now, ..Wanted::default() }).await.unwrap();
    let numbers: BTreeMap<String, u32> =
        memory.snapshot.numbers.iter().map(|(id, seq)| (id.as_str().to_owned(), *seq)).collect();
    assert_eq!(numbers, BTreeMap::from([("j1".to_owned(), 1), ("j3".to_owned(), 3)]));
}

#[tokio::test]
async fn nothing_is_kept_of_a_copy_that_cannot_come_to_its_end() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let mut world = World::new().await;
    world.environment.push(("JOBWATCH_STATE_PASSWORD", PASSWORD.to_owned()));
    world.swr.set_jobs(vec![job("a", "Running", 0)]);
    assert!(world.jobwatch(&["poll"]).await.status.success());
    // One word in the database, for which there is no room there twice.
    let twice = "INSERT INTO silence SELECT 's' || char(n), '[]', 1, 2, '', '' FROM (SELECT 0 AS n UNION SELECT 65533)";
    let file = rusqlite::Connection::open(world.path("state.db")).unwrap();
    file.execute_batch(twice).unwrap();
    let to = format!("postgres://{ROLE}@{}/{database}", cluster.address());
    let copy = ["state", "copy", "--from", "sqlite:state.db", "--to", &to];
    let output = world.jobwatch(&copy).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("duplicate key value"), "{:?}", said(&output));
    let any = "SELECT to_regnamespace('jobwatch') IS NOT NULL";
    assert!(!cluster.client(&database).await.query_one(any, &[]).await.unwrap().get::<_, bool>(0));
    file.execute_batch("DELETE FROM silence").unwrap();
    drop(file);
    let output = world.jobwatch(&["state", "copy", "--from", "sqlite:none.db", "--to", &to]).await;
    assert!(said(&output).1.contains("there is no state at none.db"), "{:?}", said(&output));
    assert!(!world.path("none.db.lock").exists());
    assert!(world.jobwatch(&copy).await.status.success());
    world.environment.clear();
    let output = world.jobwatch(&copy).await;
    assert!(said(&output).1.contains("password missing (set [agent] state_password)"), "{:?}", said(&output));
}

#[tokio::test]
async fn replicas_are_listed_by_who_lives_and_a_file_has_one_agent() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let world = World::new().await;
    assert!(world.jobwatch(&["poll"]).await.status.success());
    let output = world.jobwatch(&["replicas"]).await;
    assert!(output.status.success() && said(&output).1.contains("the state is a file"), "{:?}", said(&output));
    let output = world.jobwatch(&["replicas", "--format", "json"]).await;
    assert_eq!(said(&output).0, "[]\n");
    world.write("database-password", PASSWORD);
    let url = format!("postgres://{ROLE}@{}/{database}", cluster.address());
    let state = format!("state = \"{url}\"\nstate_password = {{ file = \"database-password\" }}");
    world.write(
        "jobwatch.toml",
        &world.config("poll_every = \"100ms\"", "").replace("state = \"sqlite:state.db\"", &state),
    );
    let service = world.watched().await;
    let output = world.jobwatch(&["replicas", "--format", "json"]).await;
    let replicas: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(replicas.as_array().unwrap().len(), 1, "{replicas}");
    let facts = ["living", "housekeeping", "holds", "claims", "rules_differ"].map(|key| replicas[0][key].clone());
    assert_eq!(serde_json::json!(facts), serde_json::json!([true, true, ["prod"], 0, false]));
    let (text, _) = said(&world.jobwatch(&["replicas"]).await);
    assert!(text.contains("living") && text.contains("as others") && text.contains("housekeeping"), "{text}");
    service.stop().await;
    assert_eq!(said(&world.jobwatch(&["replicas"]).await).0, "no replica has been there lately\n");
}
