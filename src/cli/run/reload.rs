//! Reading the rules anew, whichever of four doors that is asked at: SIGHUP, `jobwatch reload`, `POST /-/reload`, files that change.
//!
//! Behind each is [`Reloader::reload`]: read, prove, run the rules' own tests, and only then put in force. One at a time.
//! Only rules are read, not the configuration: sources, receivers and windows are those of the start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annotate_snippets::Renderer;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use crate::agent::{Agent, Asker, Shutdown, Tasks};
use crate::clock::Clock;
use crate::config::{self, Footprint, Known, Look, Reading};
use crate::document::{Level, Report};
use crate::ops::admin;
use crate::store::{self, Answer, Request, Store};

/// What `jobwatch reload` asks for.
pub(in crate::cli) const RELOAD: &str = "reload";
/// All replicas answer within this time, or not every one of them does.
const ANSWERED_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether a command asks for something.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A file can be written twice within one tick of the clock that dates it: so often after it was read, its words are
/// looked at as well.
const DOUBTFUL_LOOKS: u32 = 2;
/// An answer to a command is cut here.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What came of reading the rules anew.
#[derive(Clone, Debug)]
pub(super) enum Reloaded {
    /// They are in force.
    Accepted {
        /// How many.
        rules: usize,
        /// How many tests of theirs were played.
        tests: usize,
        /// What may not be meant.
        warnings: Report,
    },
    /// They cannot be used; the old ones stay in force.
    Refused(Report),
}

/// Reads the rules anew.
pub(super) struct Reloader {
    agent: Arc<Agent>,
    shared: Shared,
    paths: Vec<PathBuf>,
    known: Known,
    /// Held while rules are read: one after the other.
    desk: Arc<Mutex<Desk>>,
    /// SIGHUP came.
    hang_up: Notify,
}

/// The state, through which commands ask, and the clock that all who share it go by.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
}

/// What was read last, whoever asked for it.
struct Desk {
    footprint: Footprint,
    /// Looks at the files since then.
    looks: u32,
}

impl Reloader {
    /// `footprint` is what the rules in force were read from.
    pub(super) fn new(
        agent: Arc<Agent>,
        shared: Shared,
        paths: Vec<PathBuf>,
        known: Known,
        footprint: Footprint,
    ) -> Arc<Self> {
        let desk = Arc::new(Mutex::new(Desk { footprint, looks: 0 }));
        Arc::new(Self { agent, shared, paths, known, desk, hang_up: Notify::new() })
    }

    /// Opens the doors, but for HTTP.
    pub(super) fn start(self: &Arc<Self>, when: config::Reload, tasks: &Tasks, stop: &Shutdown) {
        tasks.spawn(until(stop.clone(), Arc::clone(self).obey()));
        tasks.spawn(until(stop.clone(), Arc::clone(self).answer()));
        match when {
            config::Reload::Ask => {}
            config::Reload::Watch => tasks.spawn(until(stop.clone(), Arc::clone(self).watch())),
        }
    }

    /// SIGHUP came. If one is being obeyed, it is obeyed once more afterwards.
    pub(super) fn hang_up(&self) {
        self.hang_up.notify_one();
    }

    /// Reads the rules anew, after whoever does it already. Nothing has changed if this is abandoned.
    pub(super) async fn reload(&self, by: Asker) -> Reloaded {
        let desk = Arc::clone(&self.desk).lock_owned().await;
        self.read(desk, by).await
    }

    async fn read(&self, mut desk: OwnedMutexGuard<Desk>, by: Asker) -> Reloaded {
        let (paths, known) = (self.paths.clone(), self.known.clone());
        let reading = tokio::task::spawn_blocking(move || config::read_rules(&paths, Some(&known))).await;
        let Reading { rules, report, footprint } = reading.unwrap_or_else(|_| self.broken());
        *desk = Desk { footprint, looks: 0 };
        let warnings: Vec<String> = report.lines_of(Level::Warning).collect();
        if report.has_errors() {
            let errors: Vec<String> = report.lines_of(Level::Error).collect();
            self.agent.refuse_rules(by, &errors, &warnings);
            return Reloaded::Refused(report);
        }
        let (count, tests) = (rules.rules.len(), rules.tests.len());
        self.agent.take_rules(by, rules, &warnings);
        Reloaded::Accepted { rules: count, tests, warnings: report }
    }

    /// Rules that break their reader.
    fn broken(&self) -> Reading {
        let mut report = Report::default();
        let path = self.paths.first().cloned().unwrap_or_default();
        report.unreadable(&path, "reading the rules broke off", "this is a fault in jobwatch: please report it");
        Reading { rules: Default::default(), report, footprint: Footprint::default() }
    }

    async fn obey(self: Arc<Self>) {
        loop {
            self.hang_up.notified().await;
            self.reload(Asker::Signal).await;
        }
    }

    /// Answers commands. A store that fails is told of by those who need it more.
    async fn answer(self: Arc<Self>) {
        let Shared { store, clock } = &self.shared;
        loop {
            // The database is there for more than this question: there, somebody says when one is asked.
            let every = if store.is_shared() { LOOK_EVERY } else { ASKED_EVERY };
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.agent.asked() => {}
            }
            for Request { n, what } in store.requests(clock.now()).await.unwrap_or_default() {
                let answer = match what.as_str() {
                    RELOAD => self.reload(Asker::Command).await.answer(),
                    what => Answer { accepted: false, text: format!("this agent does not know what `{what}` is") },
                };
                // Without an answer the command says that there was none, and the next look finds its request again.
                drop(store.answer(n, answer, clock.now()).await);
            }
        }
    }

    /// Reads the rules anew when their files have changed and then look the same twice: nobody is writing them any more.
    async fn watch(self: Arc<Self>) {
        let mut before: Option<Look> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let desk = Arc::clone(&self.desk).lock_owned().await;
            // Disks can be slow. One that breaks the look is looked at again.
            let Ok((desk, change)) = tokio::task::spawn_blocking(move || change(desk)).await else { continue };
            before = match change {
                Some(look) if before.as_ref() == Some(&look) => {
                    self.read(desk, Asker::Watch).await;
                    None
                }
                change => change,
            };
        }
    }
}

/// How the files look, if they are not what was read.
fn change(mut desk: OwnedMutexGuard<Desk>) -> (OwnedMutexGuard<Desk>, Option<Look>) {
    let look = desk.footprint.look();
    let doubtful = desk.looks < DOUBTFUL_LOOKS;
    desk.looks = desk.looks.saturating_add(1);
    let same = desk.footprint.agrees(&look) && !doubtful || desk.footprint.says_the_same(&look);
    (desk, (!same).then_some(look))
}

async fn until(stop: Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.requested() => {}
    }
}

impl Reloaded {
    /// For a command, in words; the last line of an accepted one is the outcome, what stands before it are warnings.
    fn answer(&self) -> Answer {
        let (accepted, mut text) = match self {
            Self::Accepted { rules, warnings, .. } => (true, warnings.render(&Renderer::plain()) + &in_force(*rules)),
            Self::Refused(report) => (false, report.render(&Renderer::plain())),
        };
        if text.len() > ANSWER_BYTES_MAX {
            let end = text.floor_char_boundary(ANSWER_BYTES_MAX);
            text.truncate(end);
            text += "\n… `jobwatch check` shows all\n";
        }
        Answer { accepted, text }
    }
}

fn in_force(rules: usize) -> String {
    match rules {
        1 => "1 rule is in force".to_owned(),
        many => format!("{many} rules are in force"),
    }
}

#[async_trait]
impl admin::Rules for Reloader {
    async fn reload(&self) -> Result<Value, Value> {
        let ours = Self::reload(self, Asker::Http).await;
        let (mut accepted, mut said) = match &ours {
            Reloaded::Accepted { rules, tests, warnings } => {
                (true, json!({ "accepted": true, "rules": rules, "tests": tests, "warnings": warnings.json() }))
            }
            Reloaded::Refused(report) => {
                let (errors, warnings) = (report.count(Level::Error), report.count(Level::Warning));
                (false, json!({ "accepted": false, "errors": errors, "warnings": warnings, "report": report.json() }))
            }
        };
        if let Some(Answer { accepted: all, text }) = self.ask_all(ours.answer()).await {
            accepted &= all;
            said["accepted"] = accepted.into();
            said["replicas"] = text.into();
        }
        if accepted { Ok(said) } else { Err(said) }
    }
}

impl Reloader {
    /// Has the other replicas do the same, and says what all answered; nothing where there are none.
    async fn ask_all(&self, ours: Answer) -> Option<Answer> {
        let Shared { store, clock } = &self.shared;
        if !store.is_shared() {
            return None;
        }
        let asked = async {
            let n = store.ask(RELOAD, clock.now()).await?;
            store.answer(n, ours, clock.now()).await?;
            loop {
                if let Some(answer) = store.answered(n).await? {
                    return Ok::<_, store::Error>(answer);
                }
                tokio::time::sleep(ASKED_EVERY).await;
            }
        };
        let silent = |text: String| Answer { accepted: false, text };
        Some(match tokio::time::timeout(ANSWERED_MAX, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => silent(error.to_string()),
            Err(_) => silent("not every replica has answered in time: `jobwatch replicas` shows them".into()),
        })
    }
}
