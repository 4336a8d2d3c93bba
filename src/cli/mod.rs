//! What an operator types: one file a command, and the exit codes.

mod alerts;
mod check;
mod completions;
mod deliveries;
mod demo;
mod diff;
mod doctor;
mod follow_ups;
mod grid;
mod init;
mod jobs;
mod list;
mod man;
mod poll;
mod probe;
mod reload;
mod replicas;
mod rules;
mod run;
mod schema;
mod show;
mod silence;
mod simulate;
mod state;
mod transitions;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use annotate_snippets::Renderer;
use anstream::ColorChoice;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, PLACES, Purpose, Reading};
use crate::document::{Level, Report, duration};
use crate::model::time::Timestamp;
use crate::ops::log;
use crate::store::{Access, Store};

/// Watches cloud jobs and tells people, and programs, why they failed.
///
/// Polls Huawei Cloud SWR's job listing, notices what changed since the last look, and tells the receivers that your
/// rules name, with the failure reason. Begin with `jobwatch demo`.
#[derive(Debug, Parser)]
#[command(name = "jobwatch", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug, Default)]
struct Global {
    /// The configuration [default: ./jobwatch.toml, else /etc/jobwatch/jobwatch.toml].
    #[arg(long, global = true, value_name = "FILE", env = "JOBWATCH_CONFIG")]
    config: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Say more; twice for everything. RUST_LOG overrides.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only what is wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// When to use colour.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
    Journal,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

/// How tables and plans are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The service: poll, plan, deliver, until SIGTERM or SIGINT; SIGHUP reads the rules anew.
    Run,
    /// The main job in one minute with nothing configured.
    Demo(demo::Demo),
    /// Write a commented starter configuration and rules.
    Init(init::Init),
    /// Read configuration and rules, without the network, and say everything that is wrong.
    Check(check::Check),
    /// One poll of every source, then exit.
    Poll(poll::Poll),
    /// Ask the running agent to read its rules anew, and say what it answers.
    Reload(reload::Reload),
    /// Compare two saved API answers: the transitions, and what the rules would send.
    Diff(diff::Diff),
    /// The jobs that are known, as they were last seen.
    Jobs(jobs::Jobs),
    /// The steps that listings showed, and those to come.
    Transitions(transitions::Transitions),
    /// The findings of rules, and who was told of them.
    Alerts(alerts::Alerts),
    /// What was sent to whom, what is stuck, and sending it again.
    Deliveries(deliveries::Deliveries),
    /// What was done about findings, and what waits for somebody's word.
    #[command(subcommand)]
    FollowUps(follow_ups::FollowUps),
    /// Test rules, and ask why they spoke or did not.
    #[command(subcommand)]
    Rules(rules::Rules),
    /// Keep quiet about something for a while.
    #[command(subcommand)]
    Silence(silence::Silences),
    /// Look at the state, copy it, give its room back, carry it over into a database.
    #[command(subcommand)]
    State(state::States),
    /// The agents that share a state: who lives, and who polls what.
    Replicas(replicas::Replicas),
    /// The JSON Schema of a file, for editors.
    #[command(subcommand)]
    Schema(schema::Schema),
    /// One listing, or one test message, through the real path; nothing is written.
    #[command(subcommand)]
    Probe(probe::Probe),
    /// Everything that seeing and telling depend on, one line each, with the mend.
    Doctor(doctor::Doctor),
    /// The SWR simulator alone, for trying rules against it.
    Simulate(simulate::Simulate),
    /// A script that makes a shell complete commands, options, and the names in the configuration.
    Completions(completions::Completions),
    /// The manual page of the program, or of one of its commands.
    Man(man::Man),
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done.
    Done,
    /// Failed at run time.
    Failed,
    /// The answer is "no".
    No,
    /// The configuration cannot be used: starting again does not help (`EX_CONFIG` of sysexits.h).
    Config,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::No => 3,
            Exit::Config => 78,
        })
    }
}

/// Runs the command line. Wrong usage ends with 2, as clap does.
pub fn main() -> ExitCode {
    if completions::answered() {
        return ExitCode::SUCCESS;
    }
    let Cli { global, command } = Cli::parse();
    match global.color {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    }
    .write_global();
    match global.start_log(&command).and_then(|()| run(&global, command)) {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone as well: then there is nobody to tell.
            drop(writeln!(anstream::stderr(), "error: {error:#}"));
            Exit::Failed.into()
        }
    }
}

fn run(global: &Global, command: Command) -> anyhow::Result<Exit> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match command {
        Command::Run => runtime.block_on(run::run(global)),
        Command::Demo(demo) => runtime.block_on(demo.run()),
        Command::Init(init) => init.run(),
        Command::Check(check) => runtime.block_on(check.run(global)),
        Command::Poll(poll) => runtime.block_on(poll.run(global)),
        Command::Reload(reload) => runtime.block_on(reload.run(global)),
        Command::Diff(diff) => diff.run(global),
        Command::Jobs(jobs) => runtime.block_on(jobs.run(global)),
        Command::Transitions(transitions) => runtime.block_on(transitions.run(global)),
        Command::Alerts(alerts) => runtime.block_on(alerts.run(global)),
        Command::Deliveries(deliveries) => runtime.block_on(deliveries.run(global)),
        Command::FollowUps(follow_ups) => runtime.block_on(follow_ups.run(global)),
        Command::Rules(rules) => runtime.block_on(rules.run(global)),
        Command::Silence(silence) => runtime.block_on(silence.run(global)),
        Command::State(state) => runtime.block_on(state.run(global)),
        Command::Replicas(replicas) => runtime.block_on(replicas.run(global)),
        Command::Schema(schema) => schema.run(),
        Command::Probe(probe) => runtime.block_on(probe.run(global)),
        Command::Doctor(doctor) => runtime.block_on(doctor.run(global)),
        Command::Simulate(simulate) => runtime.block_on(simulate.run()),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

/// The reader of our output went away: no reason to complain.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let pipe = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(pipe))
}

/// A configuration with its rules, and what these were read from.
type Loaded = (config::Config, crate::rules::RuleSet, config::Footprint);

impl Global {
    /// The service tells what happens; other commands only what is wrong.
    fn start_log(&self, command: &Command) -> anyhow::Result<()> {
        let service = matches!(command, Command::Run);
        let level = match (self.quiet, self.verbose, service) {
            (true, _, _) => "error",
            (_, 0, false) => "warn",
            (_, 0, true) | (_, 1, false) => "info",
            (_, 1, true) | (_, 2, _) => "debug",
            (_, _, _) => "trace",
        };
        let directives =
            config::variable("RUST_LOG").unwrap_or_else(|| format!("warn,deadpool=error,jobwatch={level}"));
        let format = match self.log_format {
            LogFormat::Text => log::Format::Text,
            LogFormat::Json => log::Format::Json,
            LogFormat::Journal => log::Format::Journal,
        };
        let colour = match self.color {
            Colour::Auto => config::variable("NO_COLOR").is_none(),
            Colour::Always => true,
            Colour::Never => false,
        };
        log::init(format, &directives, colour).map_err(anyhow::Error::msg)
    }

    /// The configuration file: the one named, else the first that exists.
    fn config_path(&self) -> PathBuf {
        let found = || PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        self.config.clone().or_else(found).unwrap_or_else(|| PathBuf::from(PLACES[0]))
    }

    /// The configuration with its rules, or nothing after everything that is wrong has been said.
    fn load(&self, purpose: Purpose) -> anyhow::Result<Option<(config::Config, crate::rules::RuleSet)>> {
        Ok(self.load_all(purpose)?.map(|(config, rules, _)| (config, rules)))
    }

    /// [`Self::load`], with what the rules were read from.
    fn load_all(&self, purpose: Purpose) -> anyhow::Result<Option<Loaded>> {
        let (config, mut report) = config::load(&self.config_path(), purpose);
        let loaded = config.map(|config| {
            let Reading { rules, report: found, footprint } = config::read_rules(&config.rules, Some(&config.known));
            report.merge(found);
            (config, rules, footprint)
        });
        say_report(&report)?;
        Ok(loaded.filter(|_| !report.has_errors()))
    }
}

impl Global {
    /// The configuration and its state, for a command beside the agent; or how to end, after it has been said why. Only the
    /// state's place is needed: neither the rules nor the secrets need to be in order.
    async fn visit(&self) -> anyhow::Result<Result<(config::Config, Arc<dyn Store>), Exit>> {
        let (config, report) = config::load(&self.config_path(), Purpose::Check);
        let Some(config) = config.filter(|_| !report.has_errors()) else {
            say_report(&report)?;
            return Ok(Err(Exit::Config));
        };
        match run::open(&config, Access::Visitor).await {
            Ok(store) => Ok(Ok((config, store))),
            Err((error, exit)) => {
                writeln!(anstream::stderr(), "error: {error}")?;
                Ok(Err(exit))
            }
        }
    }
}

/// A point in time as people type it.
#[derive(Clone, Copy, Debug)]
enum Since {
    Ago(std::time::Duration),
    At(Timestamp),
}

impl Since {
    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(span) => now.minus(span),
            Self::At(at) => at,
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    let ago = duration(text).map(Since::Ago);
    ago.or_else(|| Timestamp::parse(text).map(Since::At))
        .ok_or_else(|| "such as 30m, 2h, 14d or 2026-11-24T08:00:00Z".into())
}

/// Prints what is wrong with files to standard error.
fn say_report(report: &Report) -> std::io::Result<()> {
    if report.is_empty() {
        return Ok(());
    }
    let mut out = anstream::stderr();
    write!(out, "{}", report.render(&Renderer::styled()))?;
    let count = |level, word: &str| match report.count(level) {
        0 => None,
        1 => Some(format!("1 {word}")),
        many => Some(format!("{many} {word}s")),
    };
    let counts: Vec<String> =
        [count(Level::Error, "error"), count(Level::Warning, "warning")].into_iter().flatten().collect();
    writeln!(out, "{}", counts.join(", "))
}

/// The rules that are shipped: what `init` writes, and what `demo` and `diff` use when there are no others.
const SHIPPED_RULES: &[(&str, &str)] = &[
    ("README.md", include_str!("../../rules/README.md")),
    ("instance-creation-failed.toml", include_str!("../../rules/instance-creation-failed.toml")),
    ("other-job-failed.toml", include_str!("../../rules/other-job-failed.toml")),
    ("burst-of-one-cause.toml", include_str!("../../rules/burst-of-one-cause.toml")),
    ("new-cause.toml", include_str!("../../rules/new-cause.toml")),
    ("instance-ready.toml", include_str!("../../rules/instance-ready.toml")),
    ("failed-job-runs-again.toml", include_str!("../../rules/failed-job-runs-again.toml")),
    ("deleted-at-work.toml", include_str!("../../rules/deleted-at-work.toml")),
    ("stuck.toml", include_str!("../../rules/stuck.toml")),
    ("unknown-status.toml", include_str!("../../rules/unknown-status.toml")),
];

/// Rules that ask for follow-ups: `init` writes them where they are not read before somebody wants them.
const RECIPES: &[(&str, &str)] =
    &[("remove-failed-instance.toml", include_str!("../../rules/recipes/remove-failed-instance.toml"))];
