//! A replica: the real program as a process, with a configuration of its own and a network of its own to the database.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::cloud::Cloud;
use super::ears::Ear;
use super::postgres::cut::Wire;
use super::postgres::{PASSWORD, ROLE};
use super::story::Story;
use super::{LEASE, PACED, TOKEN, soon};

/// Where Debian keeps it, below a directory for each architecture.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

pub(crate) struct Replica {
    pub(crate) number: usize,
    directory: PathBuf,
    pub(crate) wire: Wire,
    /// How far its clock is wrong, as faketime says it; it is right if this is empty.
    skew: &'static str,
    child: Option<Child>,
    /// When it was last started.
    pub(crate) started: Duration,
}

impl Replica {
    /// What each needs to run, below this directory. It is not started.
    pub(crate) fn new(below: &Path, number: usize, wire: Wire, skew: &'static str, config: &str) -> Self {
        let directory = below.join(format!("replica-{number}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::create_dir(directory.join("rules")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        write("jobwatch.toml", config);
        write("token", TOKEN);
        write("password", PASSWORD);
        write("rules/all.toml", RULES);
        Self { number, directory, wire, skew, child: None, started: Duration::ZERO }
    }

    pub(crate) fn start(&mut self, now: Duration) {
        self.started = now;
        let log = OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.args(["run", "-v"]).current_dir(&self.directory).env_clear().env("PATH", "/usr/bin:/bin");
        if !self.skew.is_empty() {
            command.env("LD_PRELOAD", faketime()).env("FAKETIME", self.skew).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let errors: File = log.try_clone().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::from(log)).stderr(Stdio::from(errors)).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        soon("a replica to end", child.wait()).await.unwrap()
    }

    /// How it ended, if it did without having been asked to.
    pub(crate) fn fails(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }
}

fn faketime() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").unwrap().map(|place| place.unwrap().path().join(FAKETIME));
    places.into_iter().find(|path| path.exists()).expect("a wrong clock: apt-get install faketime")
}

/// Every step of every job, and every deletion, to all.
const RULES: &str = r#"schema = 1

[[rule]]
id = "moved"
when = { to = "*" }
notify = ["fast", "slow", "paced"]

[[rule]]
id = "deleted"
when = { gone_from = "*" }
notify = ["fast", "slow", "paced"]
"#;

/// The configuration of a replica: the same for all, but for the ways to the database and to the cloud.
pub(crate) fn config(
    replica: usize,
    story: &Story,
    cloud: &Cloud,
    ears: &[Ear],
    wire: &Wire,
    database: &str,
) -> String {
    let mut text = format!(
        "[agent]\nstate = \"postgres://{ROLE}@{}/{database}\"\nstate_password = {{ file = \"password\" }}\nlease = \"{}s\"\n\
         notify = []\nallow_inline_secrets = true\n",
        wire.address(),
        LEASE.as_secs(),
    );
    for (number, source) in story.sources.iter().enumerate() {
        let strategy = if number == 0 { "strategy = \"incremental\"" } else { "" };
        write!(
            text,
            "\n[[source]]\nname = \"{source}\"\nkind = \"swr\"\nendpoint = \"http://{}\"\nproject_id = \"{source}\"\n\
             poll_every = \"{}ms\"\ncredentials = {{ kind = \"token\", token = {{ file = \"token\" }} }}\n{strategy}\n",
            cloud.addresses[replica][number],
            500 + 100 * number,
        )
        .unwrap();
    }
    for ear in ears {
        let rate = match ear.manner.name {
            "paced" => format!("{}/m", PACED.0),
            _ => "unlimited".into(),
        };
        write!(
            text,
            "\n[receiver.{}]\nkind = \"webhook\"\nurl = \"http://{}/hook\"\nallow_targets = [\"127.0.0.1\"]\nrate = \"{rate}\"\n\
             timeout = \"3s\"\nretry = {{ first = \"500ms\", max = \"3s\", give_up_after = \"1d\" }}\n",
            ear.manner.name, ear.address,
        )
        .unwrap();
    }
    text
}
