//! The servers that stories about PostgreSQL rely on, and the network before them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_postgres::{Client, NoTls};

use crate::postgres::cut::Wire;
use crate::postgres::pool::Pool;
use crate::postgres::{Cluster, PASSWORD, Settings};
use crate::tls::certificate;
use crate::world::{beside, bind, soon};

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = soon("a connection", tokio_postgres::connect(url, NoTls)).await?;
    beside(async move { drop(connection.await) });
    Ok(client)
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_database_outlives_a_restart_and_a_kill_of_its_server_at_the_same_address() {
    let mut cluster = Cluster::start().await;
    let url = cluster.url(&cluster.database().await);
    let client = connect(&url).await.unwrap();
    client.batch_execute("CREATE TABLE n AS SELECT 1::bigint AS n").await.unwrap();
    cluster.restart().await;
    assert!(client.batch_execute("SELECT 1").await.is_err(), "the connection is gone");
    let client = connect(&url).await.unwrap();
    client.batch_execute("INSERT INTO n VALUES (2)").await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO n VALUES (4)").await.unwrap();
    cluster.kill().await;
    assert_eq!(number(&connect(&url).await.unwrap(), "SELECT sum(n)::bigint FROM n").await, 3);
    assert!(cluster.log().contains("not properly shut down"), "{}", cluster.log());
}

#[tokio::test]
async fn each_database_is_empty_belongs_to_its_role_and_wants_the_password() {
    let cluster = Cluster::start().await;
    let (one, other) = (cluster.database().await, cluster.database().await);
    assert_ne!(one, other);
    connect(&cluster.url(&one)).await.unwrap().batch_execute("CREATE TABLE n (n int)").await.unwrap();
    connect(&cluster.url(&other)).await.unwrap().batch_execute("CREATE TABLE n (n int)").await.unwrap();
    let wrong = cluster.url(&one).replace(PASSWORD, "guess");
    assert!(connect(&wrong).await.unwrap_err().as_db_error().unwrap().message().contains("password"));
    let order = "SELECT count(*) FROM (VALUES ('b'), ('C')) AS t (n) WHERE n < 'a' COLLATE \"C\"";
    assert_eq!(number(&cluster.client(&one).await, order).await, 1, "bytes are compared when that is asked for");
    assert_eq!(number(&cluster.client(&one).await, &order.replace("COLLATE \"C\"", "")).await, 0);
}

#[tokio::test]
async fn a_server_is_durable_and_strict_when_the_story_wants_that() {
    let more = vec!["statement_timeout=1234ms".to_owned()];
    let cluster = Cluster::with(Settings { durable: true, tls: None, more }).await;
    let client = cluster.client("postgres").await;
    for (setting, value) in [("fsync", "on"), ("full_page_writes", "on"), ("statement_timeout", "1234ms")] {
        let is: String = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
        assert_eq!(is, value, "{setting}");
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_takes_no_connection_without_tls() {
    let cluster = Cluster::with(Settings { tls: Some(certificate()), ..Settings::default() }).await;
    let client = cluster.client("postgres").await;
    let on: String = client.query_one("SHOW ssl", &[]).await.unwrap().get(0);
    assert_eq!(on, "on");
    let url = cluster.url_at(format!("localhost:{}", cluster.address().port()), "postgres");
    let error = connect(&format!("{url}?sslmode=disable")).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("no encryption"), "{error:?}");
}

#[tokio::test]
async fn a_server_goes_with_its_directory_when_its_story_ends() {
    let cluster = Cluster::start().await;
    let (directory, address) = (cluster.directory().to_owned(), cluster.address());
    assert!(directory.exists() && TcpStream::connect(address).is_ok());
    drop(cluster);
    assert!(!directory.exists() && TcpStream::connect(address).is_err());
}

/// In the environment of the process that a story starts of itself, to kill it.
const GOES_ON: &str = "JOBWATCH_TEST_GOES_ON";

#[expect(clippy::disallowed_methods, reason = "a story's own environment")]
fn is_to_go_on() -> bool {
    std::env::var_os(GOES_ON).is_some()
}

/// A process with a server, until nobody holds its standard input.
#[expect(clippy::print_stdout, reason = "the story that started it reads where the server is")]
async fn go_on() {
    let cluster = Cluster::start().await;
    println!("\n{} {}", cluster.address(), cluster.directory().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn a_server_goes_with_its_directory_when_the_process_of_its_story_is_killed() {
    if is_to_go_on() {
        return go_on().await;
    }
    let mut story = Command::new(std::env::current_exe().unwrap());
    let name = "database::a_server_goes_with_its_directory_when_the_process_of_its_story_is_killed";
    story.args(["--exact", name, "--nocapture"]).env(GOES_ON, "1").process_group(0);
    let mut story = tokio::process::Command::from(story)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut out = story.stdout.take().unwrap();
    let (address, directory) = loop {
        let mut some = vec![0; 4096];
        let length = soon("the address", out.read(&mut some)).await.unwrap();
        assert_ne!(length, 0, "{text}");
        text.push_str(std::str::from_utf8(&some[..length]).unwrap());
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        if let Some((address, directory)) = complete.lines().last().and_then(|line| line.split_once(" /")) {
            break (address.to_owned(), PathBuf::from(format!("/{directory}")));
        }
    };
    // A connection ends with the server.
    let mut open = tokio::net::TcpStream::connect(&address).await.unwrap();
    story.kill().await.unwrap();
    soon("the server to end", open.read_to_end(&mut Vec::new())).await.ok();
    soon("the directory to go", async {
        while fs::exists(&directory).unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(TcpStream::connect(&address).is_err());
}

#[tokio::test]
async fn a_wire_is_cut_frozen_and_mended_when_the_story_says_so() {
    let (listener, target) = bind().await;
    beside(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            beside(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    let wire = Wire::to(target).await;
    let dial = async || tokio::net::TcpStream::connect(wire.address()).await;
    let echo = async |stream: &mut tokio::net::TcpStream, text: &str| -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        Ok(String::from_utf8(back).unwrap())
    };
    let mut old = dial().await.unwrap();
    assert_eq!(soon("an echo", echo(&mut old, "one")).await.unwrap(), "one");

    wire.freeze().await;
    let mut new = dial().await.unwrap();
    let moment = std::time::Duration::from_millis(50);
    for stream in [&mut old, &mut new] {
        assert!(tokio::time::timeout(moment, echo(stream, "two")).await.is_err(), "nothing comes through");
    }
    wire.mend().await;
    for stream in [&mut old, &mut new] {
        let mut back = [0; 3];
        soon("what was frozen", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"two");
    }

    wire.cut().await;
    assert!(soon("the end", echo(&mut old, "three")).await.is_err());
    assert_eq!(dial().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    wire.cut().await;
    wire.mend().await;
    assert_eq!(soon("an echo", echo(&mut dial().await.unwrap(), "four")).await.unwrap(), "four");
}

#[tokio::test]
async fn a_wire_that_swallows_answers_lets_a_commit_arrive_that_nobody_hears_of() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let wire = Wire::to(cluster.address()).await;
    let client = connect(&cluster.url_at(wire.address(), &database)).await.unwrap();
    let witness = cluster.client(&database).await;
    wire.swallow_answers().await;
    let create = client.batch_execute("CREATE TABLE n (n int)");
    let arrived =
        async { while number(&witness, "SELECT count(*) FROM pg_tables WHERE tablename = 'n'").await == 0 {} };
    tokio::select! {
        answer = create => panic!("{answer:?}"),
        () = soon("the commit", arrived) => {}
    }
    wire.cut().await;
    assert!(client.batch_execute("SELECT 1").await.is_err());
}

#[tokio::test]
async fn before_a_database_a_pool_gives_each_transaction_another_session() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let pool = Pool::before(&cluster).await;
    let url = cluster.url_at(pool.address(), &database);
    let wrong = url.replace(PASSWORD, "guess");
    assert!(connect(&wrong).await.is_err());
    let (one, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    // Two at once, so that there are two sessions.
    one.batch_execute("BEGIN").await.unwrap();
    other.batch_execute("BEGIN; COMMIT").await.unwrap();
    one.batch_execute("COMMIT").await.unwrap();
    let mut sessions = BTreeSet::new();
    for _ in 0..4 {
        let rows = one.query_typed("SELECT pg_backend_pid()", &[]).await.unwrap();
        sessions.insert(rows[0].get::<_, i32>(0));
    }
    assert_eq!(sessions.len(), 2, "{}", pool.log());
    pool.stop().await;
    assert!(one.batch_execute("SELECT 1").await.is_err());
}
