//! `kind = "command"`: a program on this host, started without a shell.
//!
//! It is told of the match on its standard input (JSON: the `data` of a webhook, with `follow_up.id`), and knows nothing of
//! the agent's environment. It is a process group of its own: at the timeout, and when the agent lets go of it, the whole
//! group is killed.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::sync::Mutex;

use super::{Common, Deed, Done, Kind, OUTPUT_MAX};
use crate::cloud::Project;
use crate::document::Table;
use crate::document::schema::{one_or_many, table};
use crate::model::follow_up::{Ending, FollowUp};
use crate::model::text::{line, lines};

pub(super) const KIND: Kind = Kind { name: "command", about: "a program on this host, without a shell", read, schema };

/// Where programs are found that are named without a path.
const PATH: &str = "/usr/bin:/bin";
/// Who has ended may have left somebody behind who holds its output: that one gets this long.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// The program in a line of text is cut here.
const NAME_MAX: usize = 200;

#[derive(Debug)]
struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    timeout: Duration,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Deed>> {
    const HELP: &str = "command = [\"/usr/local/bin/page\", \"--now\"]: a program and its arguments, without a shell";
    let words = table.strings("command");
    if words.is_none() && !table.has("command") {
        table.missing("command", HELP);
    }
    let words = words?;
    let bad = words
        .iter()
        .find(|word| word.value.contains('\0'))
        .or_else(|| words.first().filter(|word| word.value.is_empty()));
    if let Some(bad) = bad {
        table.error("command", bad.span.clone(), "this cannot be started", HELP);
        return None;
    }
    let mut words = words.into_iter().map(|word| word.value);
    let Some(program) = words.next() else {
        let span = table.value("command").map_or(table.span(), |value| value.span());
        table.error("command", span, "`command` is empty", HELP);
        return None;
    };
    // It is started in another directory than the agent.
    let program = match program.contains('/') {
        true => std::path::absolute(common.base.join(program)).ok()?,
        false => PathBuf::from(program),
    };
    Some(Arc::new(Program { program, arguments: words.collect(), timeout: common.timeout }))
}

fn schema() -> Vec<Value> {
    let words = "A program and its arguments, started without a shell.";
    let command = one_or_many(words, &serde_json::json!({ "type": "string" }), 1);
    vec![table("", &["command"], [("command", command)])]
}

#[async_trait]
impl Deed for Program {
    fn intent(&self, _: &FollowUp) -> Result<String, String> {
        Ok(format!("run {}", self.shown()))
    }

    fn touches_cloud(&self) -> bool {
        false
    }

    async fn perform(&self, follow_up: &FollowUp, _: Option<Project<'_>>) -> Done {
        let input = follow_up.input().to_string();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("JOBWATCH_FOLLOW_UP", follow_up.name.as_str())
            .env("JOBWATCH_DELIVERY_ID", follow_up.id.as_str())
            .env("JOBWATCH_ALERT_ID", follow_up.topic.alert.id.as_str())
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Done::not(format!("{} could not be started: {error}", self.shown())),
        };
        let group = Group::of(child.id());
        let output = Output::default();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let talking = async {
            tokio::join!(feed(stdin, input.as_bytes()), output.take(stdout), output.take(stderr));
        };
        tokio::pin!(talking);
        let limit = tokio::time::sleep(self.timeout);
        tokio::pin!(limit);
        let mut said = false;
        let ended = loop {
            tokio::select! {
                () = &mut talking, if !said => said = true,
                ended = child.wait() => break Some(ended),
                () = &mut limit => break None,
            }
        };
        if ended.is_none() {
            group.kill();
            // It is dead: this is to be rid of it, and to take what it said.
            drop(child.wait().await);
        }
        if !said && tokio::time::timeout(LEFT_BEHIND, &mut talking).await.is_err() {
            // Somebody of the group holds the output still, so the group's number is not anybody else's.
            group.kill();
            drop(tokio::time::timeout(LEFT_BEHIND, &mut talking).await);
        }
        group.forget();
        self.report(ended, output.text().await)
    }
}

impl Program {
    fn shown(&self) -> String {
        line(&self.program.to_string_lossy(), NAME_MAX)
    }

    fn report(&self, ended: Option<std::io::Result<ExitStatus>>, output: String) -> Done {
        use std::os::unix::process::ExitStatusExt as _;
        let shown = self.shown();
        let (ending, what, code) = match ended {
            None => {
                let what = format!("{shown} did not end within {:?} and was killed", self.timeout);
                (Ending::Failed, what, None)
            }
            Some(Err(error)) => (Ending::Unknown, format!("{shown} was lost sight of: {error}"), None),
            Some(Ok(status)) => match (status.code(), status.signal()) {
                (Some(0), _) => (Ending::Done, format!("{shown} ended well"), Some(0)),
                (Some(code), _) => (Ending::Failed, format!("{shown} ended with exit code {code}"), Some(code)),
                (None, signal) => {
                    (Ending::Failed, format!("{shown} was ended by signal {}", signal.unwrap_or_default()), None)
                }
            },
        };
        Done { ending, what, code, output }
    }
}

/// Hands over the input. A program that does not read it has no need of it.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    let Some(mut stdin) = stdin else { return };
    drop(stdin.write_all(input).await);
    drop(stdin.shutdown().await);
}

/// What a program says on both ways, as it comes; what is too much is read and thrown away.
#[derive(Default)]
struct Output {
    kept: Mutex<Vec<u8>>,
    cut: AtomicBool,
}

impl Output {
    async fn take(&self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut part = vec![0; 8 << 10];
        while let Ok(length @ 1..) = from.read(&mut part).await {
            let mut kept = self.kept.lock().await;
            let room = OUTPUT_MAX - kept.len();
            kept.extend_from_slice(&part[..length.min(room)]);
            self.cut.fetch_or(length > room, Ordering::Relaxed);
        }
    }

    async fn text(&self) -> String {
        let kept = self.kept.lock().await;
        let mut text = lines(&String::from_utf8_lossy(&kept), OUTPUT_MAX);
        if self.cut.load(Ordering::Relaxed) {
            text += "\n… (cut)";
        }
        text
    }
}

/// A process group; killed when it is let go of too early, because the agent stops.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        Self(leader.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            // It may be gone already, and that is as good.
            kill_process_group(group, Signal::KILL).ok();
        }
    }

    /// Nothing is left of it.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
