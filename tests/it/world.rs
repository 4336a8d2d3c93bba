//! The smallest world that shows it: a simulated cloud, an inbox, a mailbox, a directory with a configuration, and the
//! jobwatch that is under test, as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobwatch::clock::Clock;
use jobwatch::model::job::{Job, Status};
use jobwatch::simulator::{Inbox, Mailbox, Scenario, Swr, serve};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

/// Nothing in a story takes longer than this; what does has failed. Generous, because the machine may be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A token that must appear nowhere but in requests.
pub(crate) const TOKEN: &str = "canary-token-5f1d9c";
/// A webhook secret that must appear nowhere at all.
pub(crate) const SECRET: &str = "whsec_Y2FuYXJ5LXNlY3JldC1jYW5hcnktc2VjcmV0LTEyMw==";

/// Waits for something with patience, and says what was waited for.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) swr: Swr,
    pub(crate) inbox: Inbox,
    pub(crate) mailbox: Mailbox,
    pub(crate) cloud: SocketAddr,
    pub(crate) mail: SocketAddr,
    /// The environment of the jobwatch under test.
    pub(crate) environment: Vec<(&'static str, String)>,
}

pub(crate) async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Runs beside the story; it ends with the story's runtime.
#[expect(clippy::disallowed_methods, reason = "a server of the story, not of the product")]
pub(crate) fn beside(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

impl World {
    /// No jobs yet, everybody answers well, one rule: every failure is told to `oncall`.
    pub(crate) async fn new() -> Self {
        let scenario = format!("token = \"{TOKEN}\"\nproject_id = \"p1\"\n");
        let scenario = Scenario::read(&scenario, Path::new("story")).unwrap();
        let clock = Clock::system();
        let swr = Swr::new(scenario, move || clock.now());
        swr.set_jobs(Vec::new());
        let (inbox, mailbox) = (Inbox::new(), Mailbox::new());
        let ((cloud_at, cloud), (web_at, web), (mail_at, mail)) = (bind().await, bind().await, bind().await);
        beside(serve(cloud_at, swr.router(), std::future::pending()));
        beside(serve(web_at, inbox.router(), std::future::pending()));
        let server = mailbox.clone();
        beside(async move { server.serve(mail_at, std::future::pending()).await });
        let directory = tempfile::tempdir().unwrap();
        let world = Self { directory, swr, inbox, mailbox, cloud, mail, environment: Vec::new() };
        std::fs::create_dir(world.path("rules")).unwrap();
        world.write("token", TOKEN);
        world.write("url", &format!("http://{web}/hook/canary-path-77"));
        world.write("secret", SECRET);
        world.write("jobwatch.toml", &world.config("poll_every = \"100ms\"", ""));
        world.write("rules/failed.toml", &rule("failed", "Failed", "oncall"));
        world
    }

    /// A configuration with more keys for its source and for `oncall`.
    pub(crate) fn config(&self, source: &str, oncall: &str) -> String {
        let Self { cloud, mail, .. } = self;
        // Most stories look at every message; those about storms say how many are too many.
        let rate = if oncall.contains("rate =") { "" } else { "rate = \"unlimited\"" };
        format!(
            r#"[agent]
state = "sqlite:state.db"
notify = ["ops"]

[[source]]
name = "prod"
kind = "swr"
endpoint = "http://{cloud}"
project_id = "p1"
credentials = {{ kind = "token", token = {{ file = "token" }} }}
{source}

[receiver.oncall]
kind = "webhook"
url = {{ file = "url" }}
secret = {{ file = "secret" }}
allow_targets = ["127.0.0.1"]
{rate}
{oncall}

[receiver.ops]
kind = "email"
server = "smtp+plain://{mail}"
from = "jobwatch <jobwatch@example.org>"
to = ["ops@example.org"]
"#
        )
    }

    /// Writes the configuration with other credentials, and more keys for the source.
    pub(crate) fn identify(&self, credentials: &str, source: &str) {
        let config = self.config(&format!("poll_every = \"100ms\"\n{source}"), "");
        let token = "credentials = { kind = \"token\", token = { file = \"token\" } }";
        assert!(config.contains(token));
        self.write("jobwatch.toml", &config.replace(token, &format!("credentials = {credentials}")));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], arguments)
    }

    /// A command that is given to others to start: a tracer, say.
    fn command_under(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let words: Vec<&str> =
            wrapper.iter().chain(&[env!("CARGO_BIN_EXE_jobwatch")]).chain(arguments).copied().collect();
        let mut command = Command::new(words[0]);
        command.current_dir(self.directory.path()).args(&words[1..]).env_clear().kill_on_drop(true);
        command.env("PATH", "/usr/bin:/bin").envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn jobwatch(&self, arguments: &[&str]) -> Output {
        self.jobwatch_under(&[], arguments).await
    }

    /// Runs a command to its end, or to what the wrapper makes of it.
    pub(crate) async fn jobwatch_under(&self, wrapper: &[&str], arguments: &[&str]) -> Output {
        soon("a command to end", self.command_under(wrapper, arguments).stdin(Stdio::null()).output()).await.unwrap()
    }

    /// Starts a command that goes on, and is read line by line.
    pub(crate) fn follow(&self, arguments: &[&str]) -> Following {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Following { child, lines: Some(lines) }
    }

    /// Starts the service.
    pub(crate) fn run(&self) -> Service {
        self.run_with(&[])
    }

    pub(crate) fn run_with(&self, arguments: &[&str]) -> Service {
        let arguments: Vec<&str> = ["run"].iter().chain(arguments).copied().collect();
        let mut child = self.command(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (log, lines) = (Arc::new(Mutex::new(String::new())), watch::Sender::new(0));
        let stderr = child.stderr.take().unwrap();
        let lines_seen = lines.subscribe();
        beside(keep_log(stderr, Arc::clone(&log), lines));
        Service { child, log, lines: lines_seen }
    }

    /// The same, and what goes on is in the log each time.
    pub(crate) async fn watched_closely(&self) -> Service {
        let mut service = self.run_with(&["-v"]);
        service.logged("baseline").await;
        service
    }

    /// The agent has seen the source: what changes from here on is news.
    pub(crate) async fn watched(&self) -> Service {
        let mut service = self.run();
        service.logged("baseline").await;
        service
    }
}

async fn keep_log(from: impl AsyncRead + Unpin, log: Arc<Mutex<String>>, lines: watch::Sender<usize>) {
    let mut reader = BufReader::new(from).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        let mut log = log.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
        lines.send_modify(|count| *count += 1);
    }
}

/// A rule file with one rule.
pub(crate) fn rule(id: &str, to: &str, receiver: &str) -> String {
    format!("schema = 1\n[[rule]]\nid = \"{id}\"\nwhen = {{ to = \"{to}\" }}\nnotify = [\"{receiver}\"]\n")
}

/// A command that goes on.
pub(crate) struct Following {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Following {
    pub(crate) async fn line(&mut self) -> String {
        let lines = self.lines.as_mut().unwrap();
        soon("a line", lines.next_line()).await.unwrap().expect("the command went on")
    }

    /// Nobody reads it any more.
    pub(crate) fn close(&mut self) {
        self.lines = None;
    }

    pub(crate) fn interrupt(&self) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    }

    pub(crate) async fn ended(mut self) -> ExitStatus {
        soon("the command to end", self.child.wait()).await.unwrap()
    }
}

/// A running jobwatch. It is killed, by its id, when the story drops it.
pub(crate) struct Service {
    child: Child,
    log: Arc<Mutex<String>>,
    lines: watch::Receiver<usize>,
}

impl Service {
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log holds this text; returns the first line that does.
    pub(crate) async fn logged(&mut self, text: &str) -> String {
        self.logged_times(text, 1).await
    }

    /// Waits until the log holds this text on so many lines; returns the last of them.
    pub(crate) async fn logged_times(&mut self, text: &str, times: usize) -> String {
        let log = Arc::clone(&self.log);
        let find = || {
            let log = log.lock().unwrap();
            log.lines().filter(|line| line.contains(text)).nth(times - 1).map(ToOwned::to_owned)
        };
        let waiting = async {
            loop {
                self.lines.mark_unchanged();
                if let Some(line) = find() {
                    return line;
                }
                if self.lines.changed().await.is_err() {
                    return find().unwrap_or_else(|| panic!("the log ends without {text:?}:\n{}", log.lock().unwrap()));
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {text:?} in the log:\n{}", self.log()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends a signal by the process's id.
    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("the service to end", self.child.wait()).await.unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.signal("TERM");
        assert!(soon("the agent to stop", self.ended()).await.success());
    }

    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.ended().await;
    }
}

/// A job that was last changed so many seconds into the story.
pub(crate) fn job(id: &str, status: &str, updated: u32) -> Job {
    let mut job = Job::bare(id, Status::read(status));
    job.resource_name = Some(format!("instance-{id}").into());
    job.kind = Some("CreateInstance".into());
    job.created_at = Some("2026-11-24T08:00:00.000000Z".into());
    job.updated_at =
        Some(format!("2026-11-24T{:02}:{:02}:{:02}Z", 8 + updated / 3600, updated / 60 % 60, updated % 60).into());
    job
}

pub(crate) fn failed(id: &str, updated: u32, reason: &str) -> Job {
    Job { reason: Some(reason.into()), ..job(id, "Failed", updated) }
}

/// Standard output and standard error of a command.
pub(crate) fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
