//! The embedded engine: the stories of every engine, and what is true of one file alone, damaged, foreign or newer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jobwatch::model::alert::Alert;
use jobwatch::model::delivery::Verdict;
use jobwatch::model::time::Timestamp;
use jobwatch::store::{self, Access, Again, Error, Store, Wanted};
use tempfile::TempDir;

use crate::world::{START, accepted, claim, ids, kept, prod, record, told_by};

#[path = "stories/mod.rs"]
mod stories;

/// Where a state may be made.
struct Place {
    directory: TempDir,
}

impl Place {
    /// Where nobody else can write while a page is read, it looks at no more than 20,000 rows.
    const PAGES_OF_20_000: usize = 2;

    async fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("deep/state.db")
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        store::open(&store::Place::new(self.url()), Access::Agent).await
    }

    async fn visit(&self) -> Result<Arc<dyn Store>, Error> {
        store::open(&store::Place::new(self.url()), Access::Visitor).await
    }

    async fn is_untouched(&self) -> bool {
        fs::read_dir(self.directory.path()).unwrap().next().is_none()
    }
}

/// The file of a state that was made and left.
async fn made(place: &Place) -> PathBuf {
    drop(place.open().await.unwrap());
    place.path()
}

/// Opening is refused as unusable, and not a byte is changed.
async fn refused(place: &Place) -> String {
    let before = fs::read(place.path()).unwrap();
    let error = place.open().await.unwrap_err();
    let Error::Unusable(text) = error else { panic!("{error:?}") };
    assert_eq!(fs::read(place.path()).unwrap(), before, "it was left as it is");
    text
}

#[tokio::test]
async fn a_state_that_is_no_database_is_refused_and_left_alone() {
    let place = Place::new().await;
    let path = place.path();
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "this is a shopping list, long enough to be looked at as a header\n".repeat(9)).unwrap();
    assert!(refused(&place).await.contains("damaged"));
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_left_alone() {
    let place = Place::new().await;
    let path = place.path();
    fs::create_dir(path.parent().unwrap()).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    assert!(refused(&place).await.contains("another program"));
}

#[tokio::test]
async fn a_state_of_an_older_version_is_taken_over_with_what_was_found_and_what_is_owed() {
    let place = Place::new().await;
    let path = place.path();
    fs::create_dir(path.parent().unwrap()).unwrap();
    {
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch(include_str!("../../src/store/schema/sqlite-1.sql")).unwrap();
        old.execute_batch(include_str!("../../src/store/schema/sqlite-2.sql")).unwrap();
        old.execute_batch(
            "PRAGMA application_id = 0x4a6f6257; PRAGMA user_version = 2;
             INSERT INTO source VALUES ('prod', 1800000000000000, NULL, NULL, 0);
             INSERT INTO job (source, id, status, seq, status_since, seen_at, missing, stale, gone)
             VALUES ('prod', 'a', 'Failed', 3, 5, 6, 0, 0, 0);
             INSERT INTO alert (id, rule, source, subject, severity, count, first_seen, last_seen)
             VALUES ('alr_a', 'failed', 'prod', 'a', 'error', 7, 11, 12);
             INSERT INTO delivery (id, receiver, source, subject, event, title, created_at, payload, state, due_at, set_at,
                                   budget_from, attempts, tries)
             VALUES ('msg_a', 'oncall', 'prod', 'a', 'e', 'a failed', 11, x'66726f7a656e', 'pending', 13, 12, 11, 1, 1),
                    ('msg_b', 'oncall', 'prod', 'b', 'e', 'b failed', 11, x'66726f7a656e', 'dead', 13, 12, 11, 9, 9);",
        )
        .unwrap();
    }
    let early = place.visit().await.map(drop).unwrap_err();
    assert!(matches!(&early, Error::Failed(why) if why.contains("start `jobwatch run` once")), "{early:?}");
    let store = place.open().await.unwrap();
    let memory = store.load(&prod(), Wanted { ids: vec!["a".into()], ..Wanted::default() }).await.unwrap();
    let at = Timestamp::from_micros;
    let found = Alert { count: 7, first_seen: at(11), last_seen: at(12), told: vec![], ..told_by("alr_a", "a", "") };
    assert_eq!(memory.alerts.into_values().collect::<Vec<_>>(), [found]);
    assert_eq!(memory.snapshot.jobs.len(), 1);
    let claims = claim(&*store, 0, 9).await;
    assert_eq!(ids(&claims), ["msg_a"]);
    assert_eq!((claims[0].frozen.payload.as_slice(), claims[0].tries), (b"frozen".as_slice(), 1));
    assert!(kept(&*store, record(claims[0].clone(), accepted(), Verdict::Delivered)).await.unwrap());
    assert_eq!(store.again(Again::Dead(None), START).await.unwrap(), ["msg_b".into()]);
    assert!(store.holding(START).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_state_of_a_newer_version_is_refused_and_left_alone() {
    let place = Place::new().await;
    let path = made(&place).await;
    {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
    }
    assert!(refused(&place).await.contains("newer"));
}

#[tokio::test]
async fn a_state_with_a_torn_page_is_refused_and_left_alone() {
    let place = Place::new().await;
    let path = made(&place).await;
    {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
    }
    let mut bytes = fs::read(&path).unwrap();
    let page = 4096;
    bytes[page * 3..page * 4].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    assert!(refused(&place).await.contains("damaged"));
}

#[tokio::test]
async fn the_state_is_readable_by_its_owner_alone() {
    let place = Place::new().await;
    let path = made(&place).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[tokio::test]
async fn an_engine_that_does_not_exist_is_refused() {
    let place = Place::new().await;
    let other = place.url().replace("sqlite:", "mysql:");
    assert!(matches!(store::open(&store::Place::new(other), Access::Agent).await, Err(Error::Unusable(_))));
}

#[tokio::test]
async fn a_second_agent_is_refused_and_told_who_is_there() {
    let place = Place::new().await;
    let _first = place.open().await.unwrap();
    let error = place.open().await.unwrap_err();
    let Error::InUse(text) = error else { panic!("{error:?}") };
    assert!(text.contains(&std::process::id().to_string()) && text.contains("state.db"), "{text}");
}
