//! A real PostgreSQL for each story: started from Debian's binaries, in a directory of its own, gone when the story ends.
//!
//! [`Cluster`] is the server, [`pool::Pool`] a PgBouncer and [`cut::Wire`] a network before it. The server is copied from a template, which is made once
//! for each version below `target`: `initdb` takes longer than most stories.

use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

pub(crate) mod cut;
pub(crate) mod pool;

/// Who owns the databases of a [`Cluster`], and is nobody else there: no superuser, as in the world.
pub(crate) const ROLE: &str = "jobwatch";
/// A password that must appear nowhere.
pub(crate) const PASSWORD: &str = "canary-database-7c2e";

/// Nothing that a server does here takes longer; what does has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Below those that the system gives to whoever connects, so that a port is still free when its server starts again.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// Bytes of memory that many servers at once do not fill.
const ROOM: u64 = 4 << 30;
/// Two servers may have chosen the same port at the same moment.
const TRIES: usize = 5;
/// Names are sorted here as people sort them, not by their bytes: an order that a story relies on must be asked for.
const INITDB: &[&str] = &[
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--locale-provider=icu",
    "--icu-locale=en-US",
    "--wal-segsize=1",
    "--no-sync",
    "--no-instructions",
];
/// Small, on loopback alone, with nothing outside its directory, and in a zone where a time without a zone is none that anybody expects.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "shared_buffers=16MB",
    "max_connections=60",
    "dynamic_shared_memory_type=mmap",
    "timezone=Asia/Kathmandu",
    "log_timezone=UTC",
];
/// Nobody pulls the plug on most stories.
const HASTE: &[&str] = &["fsync=off", "full_page_writes=off"];

/// What a server is other than the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// What was committed is on the disk.
    pub(crate) durable: bool,
    /// A certificate and its key, in PEM. Then there are no connections without TLS.
    pub(crate) tls: Option<(String, String)>,
    /// More of the server's own settings: `statement_timeout=1s`.
    pub(crate) more: Vec<String>,
}

/// A running server. It ends, with all it kept, when it is dropped, and when the process of the story ends in whatever way.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    port: u16,
    owner: Owner,
    arguments: Vec<String>,
    server: Option<Server>,
    log: Arc<Mutex<String>>,
    databases: AtomicU32,
    // The last field: it goes when the server does.
    #[expect(dead_code, reason = "it is there to be dropped")]
    undertaker: Undertaker,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let owner = Owner::who();
        let place = if settings.durable { std::env::temp_dir() } else { quick_place() };
        let (directory, undertaker) = Undertaker::of(&place, owner, "postmaster.pid");
        copy(&template(owner).await, &directory.join("data"));

        let way = if settings.tls.is_some() { "hostssl" } else { "host" };
        let rules = format!(
            "local all postgres trust\nlocal all all scram-sha-256\n{way} all all 127.0.0.1/32 scram-sha-256\n\
             local replication postgres trust\nhost replication postgres 127.0.0.1/32 trust\n"
        );
        owner.keeps(&directory.join("data/pg_hba.conf"), &rules);
        let mut arguments: Vec<String> = SETTINGS.iter().map(ToString::to_string).collect();
        if !settings.durable {
            arguments.extend(HASTE.iter().map(ToString::to_string));
        }
        if let Some((certificate, key)) = settings.tls {
            owner.keeps(&directory.join("data/server.crt"), &certificate);
            owner.keeps(&directory.join("data/server.key"), &key);
            arguments.push("ssl=on".to_owned());
        }
        arguments.extend(settings.more);
        let mut cluster = Self {
            directory,
            port: 0,
            owner,
            arguments,
            server: None,
            log: Arc::default(),
            databases: AtomicU32::new(0),
            undertaker,
        };
        for _ in 0..TRIES {
            cluster.port = free_port();
            if cluster.try_run().await {
                return cluster;
            }
        }
        panic!("no server could be started:\n{}", cluster.log());
    }

    /// How an agent reaches a database here.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_at(self.address(), database)
    }

    /// The same over a detour, or under another name of this host.
    pub(crate) fn url_at(&self, address: impl Display, database: &str) -> String {
        format!("postgres://{ROLE}:{PASSWORD}@{address}/{database}")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Makes an empty database. Returns its name.
    pub(crate) async fn database(&self) -> String {
        let name = format!("state_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let client = self.client("postgres").await;
        client.batch_execute(&format!("CREATE DATABASE {name} OWNER {ROLE}")).await.unwrap();
        name
    }

    /// A superuser's connection, past the network: for a look at what is there, and for mischief.
    pub(crate) async fn client(&self, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.directory).port(self.port).user("postgres").dbname(database);
        let (client, connection) = soon("a connection", config.connect(NoTls)).await.unwrap();
        beside(async move { drop(connection.await) });
        client
    }

    /// What the server wrote, over all its starts.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Below this lies `data`.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ends every connection and the server with them, in order.
    pub(crate) async fn stop(&mut self) {
        self.end(Signal::INT).await;
    }

    /// Starts a server that was stopped: the same directory, the same port.
    pub(crate) async fn run(&mut self) {
        assert!(self.try_run().await, "the server does not start again:\n{}", self.log());
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    /// Kills the server in the middle of whatever it does, and starts it again.
    pub(crate) async fn kill(&mut self) {
        self.end(Signal::KILL).await;
        self.run().await;
    }

    async fn end(&mut self, signal: Signal) {
        self.server.take().expect("the server runs").end(signal).await;
    }

    /// `false` when the server ended before it was ready.
    async fn try_run(&mut self) -> bool {
        let mut command = self.owner.runs(&binary("postgres"));
        command.arg("-D").arg(self.directory.join("data")).arg("-k").arg(&self.directory);
        command.arg("-p").arg(self.port.to_string());
        command.args(self.arguments.iter().flat_map(|setting| ["-c", setting]));
        self.server = Server::start(command, "database system is ready to accept connections", &self.log).await;
        self.server.is_some()
    }
}

/// A process that serves, and writes what it does to its standard error.
#[derive(Debug)]
struct Server {
    process: tokio::process::Child,
    /// Ends when every process of the server has.
    logged: JoinHandle<()>,
}

impl Server {
    /// Waits until it says that it is ready. `None` when it ended before.
    async fn start(mut command: Command, ready: &str, log: &Arc<Mutex<String>>) -> Option<Self> {
        // A group of its own: whoever interrupts the story leaves the end of the server to the undertaker.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut process = tokio::process::Command::from(command).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::clone(log);
        let keep = move |line: &str| {
            let mut log = log.lock().unwrap();
            log.push_str(line);
            log.push('\n');
        };
        loop {
            let Some(line) = soon("the server to start", lines.next_line()).await.unwrap() else {
                soon("the server to end", process.wait()).await.unwrap();
                return None;
            };
            keep(&line);
            if line.contains(ready) {
                break;
            }
        }
        let logged = beside(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                keep(&line);
            }
        });
        Some(Self { process, logged })
    }

    async fn end(mut self, signal: Signal) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
        soon("the server to end", self.process.wait()).await.unwrap();
        // Every process of the server writes to its log. When all have closed it, the directory is free.
        soon("the server's connections to end", self.logged).await.unwrap();
    }
}

/// A process that waits for the end of the story, or of the story's process, and buries the server then, with its directory.
/// It trusts the number in the server's own file no further than that this process works in the server's directory.
#[derive(Debug)]
struct Undertaker {
    process: Child,
}

impl Undertaker {
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP
        read -r _
        id=$(head -n 1 "$0/data/$1")
        lives() { [ "$(readlink "/proc/$id/cwd")" = "$0/data" ]; }
        lives && kill -QUIT "$id"
        while lives; do sleep 0.01; done
        rm -rf "$0"
    "#;

    /// Makes the directory of a server that will work in `data` below it, and keep its number in this file there.
    fn of(place: &Path, owner: Owner, number: &str) -> (PathBuf, Self) {
        let directory = tempfile::Builder::new().prefix("jobwatch-postgres-").tempdir_in(place).unwrap();
        owner.gets(directory.path());
        let mut command = Command::new("sh");
        command.args(["-c", Self::SCRIPT]).arg(directory.path()).arg(number).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        (directory.keep(), Self { process })
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// Whose processes and files the server's are: it refuses to be root's.
#[derive(Clone, Copy, Debug)]
struct Owner {
    user: u32,
    group: u32,
    is_other: bool,
}

impl Owner {
    fn who() -> Self {
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if me.0 != 0 {
            return Self { user: me.0, group: me.1, is_other: false };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let line = users.lines().find(|line| line.starts_with("postgres:")).expect("Debian's package makes the user");
        let number = |n: usize| line.split(':').nth(n).unwrap().parse().unwrap();
        Self { user: number(2), group: number(3), is_other: true }
    }

    fn runs(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        if self.is_other {
            command.uid(self.user).gid(self.group);
        }
        command
    }

    fn gets(self, path: &Path) {
        chown(path, Some(self.user), Some(self.group)).unwrap();
    }

    /// Writes a file that nobody else reads.
    fn keeps(self, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        self.gets(path);
    }
}

/// The data of a server that never ran, with the role in it.
async fn template(owner: Owner) -> PathBuf {
    let mut recipe = DefaultHasher::new();
    (INITDB, ROLE, PASSWORD, owner.user, home()).hash(&mut recipe);
    let below = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = below.join(format!("postgres-{:016x}", recipe.finish()));
    if made.exists() {
        return made;
    }
    let lock = File::create(below.join("postgres.lock")).unwrap();
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    if !made.exists() {
        // Not below `target` at once: the server's user may not get there.
        let directory = tempfile::tempdir().unwrap();
        owner.gets(directory.path());
        let data = directory.path().join("data");
        let mut initdb = owner.runs(&binary("initdb"));
        succeeded(initdb.args(INITDB).arg("-D").arg(&data).output().unwrap());
        let mut single = owner.runs(&binary("postgres"));
        single.args(["--single", "-F", "-D"]).arg(&data).arg("postgres");
        let mut single = single.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let role = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'\n");
        single.stdin.take().unwrap().write_all(role.as_bytes()).unwrap();
        succeeded(single.wait_with_output().unwrap());
        // Half a template has another name.
        let half = made.with_extension("half");
        drop(fs::remove_dir_all(&half));
        copy(&data, &half);
        fs::rename(&half, &made).unwrap();
    }
    drop(lock);
    made
}

fn copy(from: &Path, to: &Path) {
    succeeded(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).output().unwrap());
    assert_eq!(fs::metadata(from).unwrap().uid(), fs::metadata(to).unwrap().uid());
}

fn succeeded(output: std::process::Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// In memory, where there is room for many servers: a thousand files are made there in a tenth of the time.
fn quick_place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |of| of.f_bavail * of.f_frsize);
    if room > ROOM { memory.to_owned() } else { std::env::temp_dir() }
}

/// Where the newest version lies.
fn home() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let programs = versions.map(|version| version.path()).filter(|path| path.join("bin/initdb").exists());
    programs.max_by_key(number).expect("a PostgreSQL: apt-get install postgresql")
}

fn binary(name: &str) -> PathBuf {
    home().join("bin").join(name)
}

/// A port of loopback that nobody listens on now, and that is given to nobody who does not ask for it.
fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(PORTS))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

#[expect(clippy::disallowed_methods, reason = "beside the story, and ends with its runtime")]
fn beside(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
