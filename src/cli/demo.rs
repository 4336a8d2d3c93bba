//! `jobwatch demo`: the main job in one minute. The cloud is simulated, the two receivers are small servers on loopback;
//! configuration, polling, rules, store and delivery are the real ones.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mail_parser::MessageParser;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::run::{assemble, open};
use super::show::{BOLD, DIM, PLAIN, arrow, colour, tame};
use super::{Exit, SHIPPED_RULES};
use crate::agent::{GRACE, Observer, Seen, Shutdown, Tasks};
use crate::clock::{Clock, Stopwatch};
use crate::config::{self, Purpose};
use crate::model::delivery::Verdict;
use crate::model::job::Status;
use crate::model::transition::{State, Transition};
use crate::simulator::{Inbox, Mail, Mailbox, Received, Scenario, Swr, serve};
use crate::store::Access;

/// What the agent is given beyond the story's own length to notice and deliver the end of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// A webhook secret that protects nothing.
const SECRET: &str = "whsec_am9id2F0Y2gtZGVtby1zZWNyZXQtMDEyMzQ1Njc4OQ==";

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Leave everything running afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// What the printer is told.
enum News {
    Baseline(usize),
    Step(Arc<Transition>),
    Polled,
    Delivered,
    Webhook(Received),
    Mail(Mail),
}

/// Passes on what the agent does.
struct Reporter(UnboundedSender<News>);

impl Observer for Reporter {
    fn see(&self, seen: &Seen<'_>) {
        // When the printer is gone, the demo is over.
        let tell = |news| drop(self.0.send(news));
        match seen {
            Seen::Polled { plan, .. } => {
                if plan.difference.baseline {
                    tell(News::Baseline(plan.jobs));
                }
                plan.difference.transitions().for_each(|transition| tell(News::Step(Arc::clone(transition))));
                tell(News::Polled);
            }
            Seen::Attempted { verdict: Verdict::Delivered, .. } => tell(News::Delivered),
            Seen::Remarked { .. }
            | Seen::Attempted { .. }
            | Seen::Escalated { .. }
            | Seen::Lapsed { .. }
            | Seen::Rested { .. }
            | Seen::Recovered { .. }
            | Seen::FollowedUp { .. }
            | Seen::Returned { .. }
            | Seen::Pruned { .. }
            | Seen::Oversized { .. }
            | Seen::Leased { .. }
            | Seen::StoreFailed { .. }
            | Seen::RulesTaken { .. }
            | Seen::RulesRefused { .. }
            | Seen::Beaten { .. }
            | Seen::PollLost { .. } => {}
        }
    }
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let (tasks, shutdown, clock) = (Tasks::new(), Shutdown::new(), Clock::system());
        let directory = tempfile::tempdir().context("a temporary directory")?;
        let scenario = Scenario::demo();
        let story = scenario.settles_after();
        let (project, token) = (scenario.project_id().to_owned(), scenario.token().to_owned());
        let swr = Swr::new(scenario, {
            let clock = clock.clone();
            move || clock.now()
        });
        let (inbox, mailbox) = (Inbox::new(), Mailbox::new());
        let (cloud, web, mail) = (bind().await?, bind().await?, bind().await?);
        let addresses = Addresses { cloud: cloud.local_addr()?, web: web.local_addr()?, mail: mail.local_addr()? };
        let stop = |shutdown: &Shutdown| {
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        };
        tasks.spawn(serve(cloud, swr.router(), stop(&shutdown)));
        tasks.spawn(serve(web, inbox.router(), stop(&shutdown)));
        let server = mailbox.clone();
        let stopped = stop(&shutdown);
        tasks.spawn(async move { server.serve(mail, stopped).await });
        let (tell, news) = unbounded_channel();
        tasks.spawn(forward_webhooks(inbox.clone(), tell.clone(), shutdown.clone()));
        tasks.spawn(forward_mails(mailbox.clone(), tell.clone(), shutdown.clone()));

        let path = write_files(directory.path(), &addresses, &project, &token)?;
        let (config, mut report) = config::load(&path, Purpose::Run);
        let config = config.context("the demo's configuration")?;
        let (rules, found) = config::rules(&config.rules, Some(&config.known));
        report.merge(found);
        if let Some(line) = report.lines().next() {
            anyhow::bail!("the demo's own files cannot be used: {line}");
        }
        let store = open(&config, Access::Agent).await.map_err(|(error, _)| error)?;
        let agent = assemble(config, rules, store, Clock::system(), Arc::new(Reporter(tell)));
        let mut printer = Printer { out: anstream::stdout(), watch: clock.stopwatch(), seen: Tally::default() };
        printer.intro(&addresses, story)?;
        agent.start(&tasks, &shutdown);
        tokio::select! {
            // When time is up, the summary says what is missing.
            shown = tokio::time::timeout(story + PATIENCE, printer.follow(news)) => shown.unwrap_or(Ok(()))?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Failed),
        }
        let told = printer.outro()?;
        if self.keep {
            writeln!(printer.out, "\nStill running; the files are in {}. Ctrl-C ends it.", directory.path().display())?;
            tokio::signal::ctrl_c().await?;
        }
        shutdown.request();
        tasks.finished(GRACE).await;
        Ok(if told { Exit::Done } else { Exit::Failed })
    }
}

struct Addresses {
    cloud: SocketAddr,
    web: SocketAddr,
    mail: SocketAddr,
}

async fn bind() -> anyhow::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", 0)).await.context("a loopback port")
}

async fn forward_webhooks(inbox: Inbox, tell: UnboundedSender<News>, shutdown: Shutdown) {
    for n in 0.. {
        tokio::select! {
            received = inbox.next(n) => drop(tell.send(News::Webhook(received))),
            () = shutdown.requested() => return,
        }
    }
}

async fn forward_mails(mailbox: Mailbox, tell: UnboundedSender<News>, shutdown: Shutdown) {
    for n in 0.. {
        tokio::select! {
            mail = mailbox.next(n) => drop(tell.send(News::Mail(mail))),
            () = shutdown.requested() => return,
        }
    }
}

/// The demo's configuration is a file like any other, and is read like any other.
fn write_files(
    directory: &Path,
    addresses: &Addresses,
    project: &str,
    token: &str,
) -> anyhow::Result<std::path::PathBuf> {
    let Addresses { cloud, web, mail } = addresses;
    let config = format!(
        r#"[agent]
state = "sqlite:state.db"
rules = ["rules"]
notify = ["ops-mail"]

[[source]]
name = "demo"
kind = "swr"
endpoint = "http://{cloud}"
project_id = "{project}"
poll_every = "1s"
credentials = {{ kind = "token", token = {{ file = "token" }} }}

[receiver.oncall]
kind = "webhook"
url = {{ file = "url" }}
secret = {{ file = "secret" }}
allow_targets = ["127.0.0.1"]

[receiver.ops-mail]
kind = "email"
server = "smtp+plain://{mail}"
from = "jobwatch <jobwatch@example.org>"
to = ["oncall@example.org"]
"#
    );
    let rules = directory.join("rules");
    std::fs::create_dir(&rules)?;
    for (name, text) in SHIPPED_RULES {
        std::fs::write(rules.join(name), text)?;
    }
    for (name, text) in [("token", token), ("url", &format!("http://{web}/hook")), ("secret", SECRET)] {
        std::fs::write(directory.join(name), text)?;
    }
    let path = directory.join("jobwatch.toml");
    std::fs::write(&path, config)?;
    Ok(path)
}

#[derive(Default)]
struct Tally {
    polls: usize,
    steps: usize,
    failed: usize,
    ended: usize,
    webhooks: usize,
    mails: usize,
    delivered: usize,
    reason: String,
    webhook_told: bool,
    mail_told: bool,
}

struct Printer {
    out: anstream::Stdout,
    watch: Stopwatch,
    seen: Tally,
}

impl Printer {
    fn intro(&mut self, addresses: &Addresses, story: Duration) -> std::io::Result<()> {
        let out = &mut self.out;
        writeln!(
            out,
            "{BOLD}jobwatch demo{PLAIN}: three registry instances are ordered; the cloud accepts each order at once."
        )?;
        writeln!(
            out,
            "One creation will fail minutes later (here: seconds), and the cloud tells nobody. jobwatch looks every second.\n"
        )?;
        writeln!(out, "{DIM}  simulated SWR API   http://{}", addresses.cloud)?;
        writeln!(out, "  receiver oncall     webhook to http://{}", addresses.web)?;
        writeln!(out, "  receiver ops-mail   e-mail through smtp://{}", addresses.mail)?;
        writeln!(out, "  the rules           the shipped ones, rules/*.toml")?;
        writeln!(out, "  this takes          about {} seconds{PLAIN}\n", story.as_secs() + 3)?;
        out.flush()
    }

    /// Prints what happens until the story has ended and everything owed has arrived.
    async fn follow(&mut self, mut news: UnboundedReceiver<News>) -> std::io::Result<()> {
        while let Some(one) = news.recv().await {
            self.print(one)?;
            self.out.flush()?;
            let Tally { ended, failed, webhooks, mails, delivered, .. } = self.seen;
            let arrived = webhooks + mails;
            if ended >= 3
                && failed > 0
                && self.seen.webhook_told
                && self.seen.mail_told
                && mails >= 3
                && delivered >= arrived
            {
                break;
            }
        }
        Ok(())
    }

    fn print(&mut self, news: News) -> std::io::Result<()> {
        let at = self.watch.elapsed();
        let at = format!("{DIM}{:02}:{:02}{PLAIN}", at.as_secs() / 60, at.as_secs() % 60);
        match news {
            News::Polled => self.seen.polls += 1,
            News::Delivered => self.seen.delivered += 1,
            News::Baseline(jobs) => {
                writeln!(
                    self.out,
                    "{at}  {DIM}baseline: {jobs} job was there before; it is known now and no news{PLAIN}"
                )?;
            }
            News::Step(step) => self.step(&at, &step)?,
            News::Webhook(received) => self.webhook(&received)?,
            News::Mail(mail) => self.mail(&at, &mail)?,
        }
        Ok(())
    }

    fn step(&mut self, at: &str, step: &Transition) -> std::io::Result<()> {
        self.seen.steps += 1;
        let job = &step.job;
        writeln!(self.out, "{at}  {:<16} {:<15} {}", job.called(), job.kind_called(), arrow(step))?;
        if job.status.is_final() {
            self.seen.ended += 1;
        }
        if let (Status::Failed, Some(reason)) = (&job.status, &job.reason) {
            self.seen.failed += 1;
            self.seen.reason = reason.to_string();
            writeln!(self.out, "       {}{}{PLAIN}\n", colour(&State::Is(Status::Failed)), tame(reason))?;
        }
        Ok(())
    }

    fn webhook(&mut self, received: &Received) -> std::io::Result<()> {
        self.seen.webhooks += 1;
        let header = |name: &str| {
            let found = received.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap_or_default();
        self.seen.webhook_told |= body["data"]["reason"] == self.seen.reason.as_str();
        let out = &mut self.out;
        writeln!(out, "       {BOLD}▶ webhook to oncall{PLAIN}")?;
        for name in ["content-type", "webhook-id", "webhook-timestamp", "webhook-signature"] {
            writeln!(out, "       {DIM}{name}: {}{PLAIN}", tame(header(name)))?;
        }
        for line in format!("{body:#}").lines() {
            let strong = line.contains("\"reason\"") || line.contains("\"title\"");
            let (on, off) = if strong { (BOLD, PLAIN) } else { ("", "") };
            writeln!(out, "       {on}{}{off}", tame_keeping_indent(line))?;
        }
        writeln!(out)
    }

    fn mail(&mut self, at: &str, mail: &Mail) -> std::io::Result<()> {
        self.seen.mails += 1;
        let parsed = MessageParser::default().parse(mail.data.as_bytes());
        let text = parsed.as_ref().and_then(|mail| mail.body_text(0)).unwrap_or_default();
        let subject = parsed.as_ref().and_then(|mail| mail.subject()).unwrap_or_default();
        let told = !self.seen.reason.is_empty() && text.contains(&self.seen.reason);
        let out = &mut self.out;
        if !told {
            let first = text.lines().next().unwrap_or_default();
            return writeln!(out, "{at}  {DIM}▶ e-mail to {}: {}{PLAIN}", mail.to.join(", "), tame(first));
        }
        self.seen.mail_told = true;
        writeln!(out, "       {BOLD}▶ e-mail to {}{PLAIN}", mail.to.join(", "))?;
        writeln!(out, "       {DIM}Subject: {}{PLAIN}", tame(subject))?;
        for name in ["Message-ID", "Auto-Submitted"] {
            let prefix = format!("{name}:").to_ascii_lowercase();
            if let Some(line) = mail.data.lines().find(|line| line.to_ascii_lowercase().starts_with(&prefix)) {
                writeln!(out, "       {DIM}{}{PLAIN}", tame(line))?;
            }
        }
        for line in text.lines() {
            writeln!(out, "       {}", tame_keeping_indent(line))?;
        }
        writeln!(out)
    }

    /// The summary. Whether the failure reached both receivers with its reason.
    fn outro(&mut self) -> std::io::Result<bool> {
        let Tally { polls, steps, webhooks, mails, webhook_told, mail_told, .. } = self.seen;
        let took = self.watch.elapsed().as_secs();
        let told = webhook_told && mail_told;
        let out = &mut self.out;
        writeln!(
            out,
            "\n{BOLD}{steps} transitions seen in {polls} polls, {webhooks} webhook and {mails} e-mails delivered, {took} seconds.{PLAIN}"
        )?;
        if told {
            writeln!(out, "The failed creation reached on-call by both ways, with its reason.\n")?;
            writeln!(
                out,
                "Next: `jobwatch init` writes a configuration to fill in; `jobwatch check` says what is wrong with it."
            )?;
        } else {
            writeln!(out, "The failed creation did not reach both receivers: this is a fault, please report it.")?;
        }
        out.flush()?;
        Ok(told)
    }
}

/// As [`tame`], with the blanks at the beginning of the line.
fn tame_keeping_indent(line: &str) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    format!("{}{}", " ".repeat(indent), tame(line))
}
