//! PostgreSQL: the stories of every engine, each in a database of its own.

use std::sync::Arc;

use jobwatch::store::{self, Access, Error, Store};

use crate::cluster::{self, Cluster};

#[path = "stories/mod.rs"]
mod stories;

/// Where a state may be made.
struct Place {
    cluster: Cluster,
    database: String,
}

impl Place {
    /// A page keeps nobody waiting.
    const PAGES_OF_20_000: usize = 1;

    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let database = cluster.database().await;
        Self { cluster, database }
    }

    fn url(&self) -> String {
        self.cluster.url(&self.database)
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        store::open(&store::Place::new(self.url()), Access::Agent).await
    }

    async fn visit(&self) -> Result<Arc<dyn Store>, Error> {
        store::open(&store::Place::new(self.url()), Access::Visitor).await
    }

    async fn is_untouched(&self) -> bool {
        let query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let found: i64 = self.cluster.client(&self.database).await.query_one(query, &[]).await.unwrap().get(0);
        found == 0
    }
}

/// What is said when it cannot be opened.
async fn refusal(place: &store::Place) -> String {
    match store::open(place, Access::Agent).await {
        Ok(_) => panic!("{} was opened", place.url),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_database_is_believed_only_with_its_certificate_and_told_nothing_in_the_clear() {
    jobwatch::http::use_ring();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (theirs, others) = (certificate("localhost"), certificate("localhost"));
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (root, other) = (file("root.pem", &theirs.0), file("other.pem", &others.0));
    let cluster = Cluster::with(cluster::Settings { tls: Some(theirs), ..Default::default() }).await;
    let database = cluster.database().await;
    let port = cluster.address().port();
    let at = |host: &str, settings: &str| {
        store::Place::new(format!("{}?{settings}", cluster.url_at(format!("{host}:{port}"), &database)))
    };
    let good = store::open(&at("localhost", &format!("sslmode=verify-full&sslrootcert={root}")), Access::Agent).await;
    assert!(good.unwrap().is_shared());
    let foreign = refusal(&at("localhost", &format!("sslmode=verify-full&sslrootcert={other}"))).await;
    assert!(foreign.contains("invalid peer certificate"), "{foreign}");
    let nobody = refusal(&at("localhost", "sslmode=verify-full")).await;
    assert!(nobody.contains("invalid peer certificate"), "{nobody}");
    let elsewhere = refusal(&at("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={root}"))).await;
    assert!(elsewhere.contains("invalid peer certificate"), "{elsewhere}");
    let clear = refusal(&at("localhost", "sslmode=disable")).await;
    assert!(clear.contains("no encryption"), "{clear}");
    let weak = refusal(&at("localhost", "sslmode=require")).await;
    assert!(weak.contains("sslmode=require does not prove who the database is: verify-full"), "{weak}");
}

#[tokio::test]
async fn a_wrong_password_a_missing_database_and_one_that_is_not_ours_are_told_with_what_mends_it() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let place = |password: &str, database: &str| store::Place {
        url: format!("postgres://{}@{}/{database}", cluster::ROLE, cluster.address()),
        password: Some(password.to_owned().into()),
        connections: 2,
    };
    assert!(store::open(&place(cluster::PASSWORD, &database), Access::Agent).await.is_ok());
    let wrong = refusal(&place("canary-wrong-1", &database)).await;
    assert!(wrong.contains("password authentication failed") && wrong.contains("[agent] state_password"), "{wrong}");
    assert!(!wrong.contains("canary"), "{wrong}");
    let missing = refusal(&place(cluster::PASSWORD, "nowhere")).await;
    assert!(missing.contains("\"nowhere\" does not exist") && missing.contains("createdb"), "{missing}");
    // The database `postgres` is the superuser's.
    let theirs = refusal(&place(cluster::PASSWORD, "postgres")).await;
    assert!(theirs.contains("permission denied") && theirs.contains("needs CREATE on the database"), "{theirs}");
}

#[tokio::test]
async fn a_newer_state_is_gone_on_with_as_long_as_it_says_that_this_version_can() {
    let place = Place::new().await;
    place.open().await.unwrap();
    let client = place.cluster.client(&place.database).await;
    // Another replica was renewed first: the state is of the next version, which this one can go on with.
    client.batch_execute("UPDATE jobwatch.version SET version = version + 1").await.unwrap();
    assert!(place.open().await.is_ok() && place.visit().await.is_ok());
    let version: i64 = client.query_one("SELECT version FROM jobwatch.version", &[]).await.unwrap().get(0);
    // And of the one after it, which it cannot.
    client.batch_execute("UPDATE jobwatch.version SET version = version + 1, readable_from = version").await.unwrap();
    let newer = refusal(&store::Place::new(place.url())).await;
    assert!(newer.contains("was written by a newer jobwatch") && newer.contains("it was left as it is"), "{newer}");
    let now: i64 = client.query_one("SELECT version FROM jobwatch.version", &[]).await.unwrap().get(0);
    assert_eq!(now, version + 1);
}

#[tokio::test]
async fn replicas_that_start_together_make_one_state() {
    let place = Place::new().await;
    let opened = futures_util::future::join_all((0..8).map(|_| place.open())).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    let client = place.cluster.client(&place.database).await;
    let rows: i64 = client.query_one("SELECT count(*) FROM jobwatch.version", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1);
}
