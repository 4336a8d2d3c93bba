//! The configuration: the file as typed, read once into what it means.
//!
//! Everything that is wrong is found in one run, with its place; nothing of a configuration with errors is used. Below
//! this floor nobody knows that there is a file.

mod footprint;
mod outline;
mod schema;
mod secret;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use crate::agent::{FollowUpSetup, HeartbeatSetup, Mode, ReceiverSetup, Retention, SourceSetup, Strategy};
use crate::clock::Clock;
use crate::cloud::{Limits, Pool};
use crate::deliver::heartbeat::Heartbeat;
use crate::deliver::{self, Carrier, act};
use crate::diff::Policy;
use crate::document::{File, Item, Level, Notes, Problem, Report, Table, Value, parse, suggest};
use crate::http::{Egress, Proxy};
use crate::model::name::{FollowUpName, ReceiverName, SourceName};
use crate::plan::{Disagreement, Guard, Permit, Rate, SelfWatch, rehearse};
use crate::retry::Schedule;
use crate::rules::{Expectation, Rule, RuleSet, RuleTest, Surroundings, Window, load as load_rules};
use crate::source;
use crate::store::{self, Place};
pub use footprint::{Footprint, Look};
pub use outline::Outline;
pub use schema::schema;
use secret::Vault;
pub use secret::variable;

/// The starter that `init` writes.
pub const STARTER: &str = include_str!("default.toml");
/// Where a configuration is looked for when none is named.
pub const PLACES: [&str; 2] = ["./jobwatch.toml", "/etc/jobwatch/jobwatch.toml"];

/// Files of the configuration and rules are no longer than this.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where the admin interface listens that says nothing else.
const ADMIN_LISTEN: &str = "127.0.0.1:9477";
/// A token for the admin interface that is shorter can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// How often a follow-up is done without somebody's word, if nothing is said.
const LIMIT: Rate = Rate { count: 10, per: Duration::from_secs(3_600) };
/// More rule files than this are not read.
const RULE_FILES_MAX: usize = 1_000;
/// History is not kept for longer than some ten years.
const HISTORY_MAX: Duration = Duration::from_secs(3_660 * 86_400);
/// Where the state is when nothing is said.
const STATE: &str = "sqlite:/var/lib/jobwatch/state.db";
/// As many connections to a shared state may be asked for.
const CONNECTIONS: Range<i64> = 2..101;
/// As long as a source may stay with a replica that is not heard of, and how long it does if nothing is said.
const LEASES: Range<Duration> = Duration::from_secs(2)..Duration::from_secs(301);
const LEASE: Duration = Duration::from_secs(15);
/// What a state may be bounded to, in bytes.
const SIZES: Range<u64> = 16 << 20..1 << 50;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// What the configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run: everything must be there, secrets too.
    Run,
    /// To be looked at: a secret that is not on this machine is only a warning.
    Check,
}

/// A configuration as it is meant.
#[derive(Debug)]
pub struct Config {
    /// Where the state is.
    pub state: Place,
    /// How long a source stays with a replica that is not heard of.
    pub lease: Duration,
    /// Directories and files of rules.
    pub rules: Vec<PathBuf>,
    /// When rules are read anew.
    pub reload: Reload,
    /// The admin interface, if there is one.
    pub admin: Option<Admin>,
    /// Who hears of the agent's own troubles.
    pub watch: SelfWatch,
    /// Who outside is told that all is well.
    pub heartbeat: Option<HeartbeatSetup>,
    /// How long history is kept.
    pub retention: Retention,
    /// What is watched: those sources whose secrets are here.
    pub sources: Vec<SourceSetup>,
    /// How many sources there are.
    pub source_count: usize,
    /// Who hears.
    pub receivers: BTreeMap<ReceiverName, ReceiverSetup>,
    /// What can be done.
    pub follow_ups: BTreeMap<FollowUpName, FollowUpSetup>,
    /// What rule files may name.
    pub known: Known,
}

/// When rules are read anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reload {
    /// When somebody asks for it.
    #[default]
    Ask,
    /// When their files change as well.
    Watch,
}

/// The admin interface.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What those who use it must know.
    pub token: Option<SecretString>,
}

/// What rule files may name.
#[derive(Clone, Debug)]
pub struct Known {
    /// All receivers, also those whose secrets are not here.
    pub receivers: Vec<ReceiverName>,
    /// The windows.
    pub windows: Vec<Arc<Window>>,
    /// All sources, also those whose secrets are not here.
    pub sources: Vec<SourceName>,
    /// All follow-ups.
    pub follow_ups: Vec<FollowUpName>,
    /// What is of no use unless a rule names it.
    idle: Vec<Idle>,
}

/// A receiver, a window or a follow-up that nothing in the configuration uses.
#[derive(Clone, Debug)]
struct Idle {
    kind: IdleKind,
    name: String,
    file: Arc<File>,
    span: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
enum IdleKind {
    Receiver,
    Window,
    FollowUp,
}

/// Reads a configuration file. There is a configuration if its table could be read; it is fit for use only if the report
/// has no errors.
pub fn load(path: &Path, purpose: Purpose) -> (Option<Config>, Report) {
    load_noting(path, purpose, None)
}

/// As [`load`], and notes what is asked for.
pub fn load_noting(path: &Path, purpose: Purpose, notes: Option<&Notes>) -> (Option<Config>, Report) {
    let mut report = Report::default();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            report.unreadable(
                path,
                format!("the configuration cannot be read: {error}"),
                "`jobwatch init` writes a starter; --config names another file",
            );
            return (None, report);
        }
    };
    let file = Arc::new(File { path: path.to_owned(), text: text.into() });
    let (table, syntax) = parse(&file.text);
    if !syntax.is_empty() {
        report.add(&file, syntax);
        return (None, report);
    }
    let problems: RefCell<Vec<Problem>> = RefCell::default();
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let top = Table::root(&table, &problems).noted(notes);
    let pool = Pool::new(Clock::system(), limits(&top));
    let config = Reader { base, purpose, pool, file: Arc::clone(&file) }.file(top);
    let mut problems = problems.into_inner();
    // What is wrong with the defaults is wrong once, not once for each source.
    let mut seen = HashSet::new();
    problems.retain(|problem| seen.insert((problem.span.clone(), problem.code, problem.message.clone())));
    report.add(&file, problems);
    (Some(config), report)
}

/// A table that stands alone, with secrets in plain text: for tests of what is read from tables.
#[cfg(test)]
pub(crate) fn with_table<T>(text: &str, read: impl FnOnce(&Table<'_>, &dyn crate::document::Secrets) -> T) -> T {
    let (table, syntax) = parse(text);
    assert!(syntax.is_empty(), "{syntax:?}");
    let problems = RefCell::default();
    let vault = Vault { base: PathBuf::new(), inline: true, absent: Level::Error };
    let done = read(&Table::root(&table, &problems), &vault);
    assert!(problems.borrow().is_empty(), "{problems:?}");
    done
}

/// Reads every rule file below `paths`. `known` is what they may name, if that is known.
pub fn rules(paths: &[PathBuf], known: Option<&Known>) -> (RuleSet, Report) {
    let Reading { rules, report, .. } = read_rules(paths, known);
    (rules, report)
}

/// Rules as they were read.
#[derive(Debug)]
pub struct Reading {
    /// The rules; fit for use only if the report has no errors.
    pub rules: RuleSet,
    /// What is wrong with them.
    pub report: Report,
    /// What they were read from.
    pub footprint: Footprint,
}

/// Reads every rule file below `paths`, and remembers what was read.
pub fn read_rules(paths: &[PathBuf], known: Option<&Known>) -> Reading {
    let mut report = Report::default();
    let footprint = RefCell::new(Footprint::new(paths));
    let read = |path: &Path| footprint.borrow_mut().read(path);
    let mut files = Vec::new();
    for path in paths {
        match rule_files(path) {
            Ok(found) => files.extend(found),
            Err(error) => report.unreadable(
                path,
                format!("the rules cannot be read: {error}"),
                "[agent] rules names files or directories of *.toml",
            ),
        }
    }
    let texts = files.iter().filter_map(|path| match read(path) {
        Ok(text) => Some(Arc::new(File { path: path.clone(), text: text.into() })),
        Err(error) => {
            report.unreadable(
                path,
                format!("the rule file cannot be read: {error}"),
                "it must be UTF-8 and at most 1 MiB",
            );
            None
        }
    });
    let texts: Vec<_> = texts.collect();
    let read_body = |path: &Path| read(path).map_err(|error| error.to_string());
    let (receivers, windows) = (known.map(|known| &*known.receivers), known.map(|known| &*known.windows));
    let sources = known.map(|known| &*known.sources);
    let follow_ups = known.map(|known| &*known.follow_ups);
    let (set, found) = load_rules(&texts, &Surroundings { read: &read_body, receivers, windows, sources, follow_ups });
    report.merge(found);
    if !report.has_errors() {
        for test in &set.tests {
            report.add(&test.file, disagreements(&set, test));
        }
        // A rule that could not be read may be the one that uses it.
        for idle in known.iter().flat_map(|known| &known.idle) {
            report.add(&idle.file, idle.unless_used(&set));
        }
    }
    let footprint = footprint.into_inner();
    let set = RuleSet { digest: footprint.digest(), ..set };
    Reading { rules: set, report, footprint }
}

/// Where a test in a rule file and its rule disagree, as problems of that file.
pub fn disagreements(rules: &RuleSet, test: &RuleTest) -> Vec<Problem> {
    let problem = |disagreement: Disagreement| {
        let wanted = disagreement.expectation.and_then(|n| test.expect.get(n));
        let wish = match wanted {
            Some(Expectation { fires: false, .. }) => "that the rule does not fire".to_owned(),
            Some(Expectation { title: Some(title), .. }) => format!("`{title}`"),
            Some(_) => "that the rule fires".to_owned(),
            None => "nothing".to_owned(),
        };
        Problem {
            level: Level::Error,
            code: "test-failed",
            message: format!("rule `{}`, test `{}`: {}", test.rule, test.name, disagreement.what),
            span: wanted.map_or(test.span.clone(), |wanted| wanted.span.clone()),
            help: Some(format!("the test expects {wish}: mend the rule, or the test")),
        }
    };
    rehearse(rules, test).into_iter().map(problem).collect()
}

impl Idle {
    fn unless_used(&self, rules: &RuleSet) -> Option<Problem> {
        let name = &self.name;
        let used = |rule: &Rule| match self.kind {
            IdleKind::Receiver => rule.notify.iter().any(|receiver| receiver.as_str() == name),
            IdleKind::Window => rule.active.iter().any(|window| window.name == *name),
            IdleKind::FollowUp => rule.then.iter().any(|then| then.as_str() == name),
        };
        let (code, what, help) = match self.kind {
            IdleKind::Receiver => {
                ("unused-receiver", "receiver", format!("a rule names it: notify = [{name:?}]; or remove it"))
            }
            IdleKind::Window => {
                ("unused-window", "window", format!("a rule names it: active = [{name:?}]; or remove it"))
            }
            IdleKind::FollowUp => {
                ("unused-follow-up", "follow-up", format!("a rule names it: then = [{name:?}]; or remove it"))
            }
        };
        (!rules.rules.iter().any(used)).then(|| Problem {
            level: Level::Warning,
            code,
            message: format!("nobody uses the {what} `{name}`"),
            span: self.span.clone(),
            help: Some(help),
        })
    }
}

fn rule_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if footprint::is_rule_name(&path) {
            found.push(path);
        }
    }
    if found.len() > RULE_FILES_MAX {
        return Err(std::io::Error::other(format!("more than {RULE_FILES_MAX} rule files")));
    }
    found.sort();
    Ok(found)
}

/// A whole text file of bounded length.
fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// A state's URL, with paths that are relative to the configuration made whole.
fn located(url: &str, base: &Path) -> String {
    if let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        return format!("sqlite:{}", base.join(path).display());
    }
    let Some((address, settings)) = url.split_once('?') else { return url.to_owned() };
    let whole = |setting: &str| match setting.split_once('=') {
        Some(("sslrootcert", path)) => {
            let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
            let path = base.join(&*path).display().to_string();
            format!("sslrootcert={}", percent_encoding::utf8_percent_encode(&path, percent_encoding::NON_ALPHANUMERIC))
        }
        Some(_) | None => setting.to_owned(),
    };
    format!("{address}?{}", settings.split('&').map(whole).collect::<Vec<_>>().join("&"))
}

struct Reader {
    base: PathBuf,
    purpose: Purpose,
    pool: Pool,
    file: Arc<File>,
}

impl Reader {
    fn file(&self, top: Table<'_>) -> Config {
        let agent = top.table("agent");
        let vault = Vault {
            base: self.base.clone(),
            inline: agent.as_ref().and_then(|agent| agent.flag("allow_inline_secrets")).unwrap_or(false),
            absent: match self.purpose {
                Purpose::Run => Level::Error,
                Purpose::Check => Level::Warning,
            },
        };
        let (names, receivers, idle) = self.receivers(&top, &vault);
        let (sources, source_names, source_count) = self.sources(&top, &vault);
        let known: Vec<&str> = names.iter().map(ReceiverName::as_str).collect();
        let state = agent.as_ref().and_then(|agent| self.state(agent, &vault));
        let lease = agent.as_ref().and_then(|agent| agent.duration("lease", LEASES));
        let rules = agent
            .as_ref()
            .and_then(|agent| agent.strings("rules"))
            .map(|paths| paths.into_iter().map(|path| self.base.join(path.value)).collect::<Vec<_>>());
        let watch = SelfWatch {
            notify: agent
                .as_ref()
                .and_then(|agent| agent.strings("notify").map(|names| some_of(agent, names, &known)))
                .unwrap_or_default(),
            blind_after: agent
                .as_ref()
                .and_then(|agent| agent.duration("blind_after", SECOND..DAY))
                .unwrap_or(Duration::from_secs(300)),
        };
        if watch.notify.is_empty() {
            let help = "[agent] notify = [\"…\"]: who hears when a source cannot be seen or a receiver refuses";
            let span = agent.as_ref().map_or(top.span(), Table::span);
            top.report(Level::Warning, "nobody-told", span, "nobody hears of the agent's own troubles", help);
        }
        let reload =
            agent.as_ref().and_then(|agent| agent.word("reload", &[("ask", Reload::Ask), ("watch", Reload::Watch)]));
        let heartbeat = agent.as_ref().and_then(|agent| {
            let table = agent.table("heartbeat")?;
            let read = self.heartbeat(&table, &vault);
            table.finish();
            read
        });
        if let Some(agent) = agent {
            agent.known(&["requests_per_second", "requests_per_second_per_host"]);
            agent.finish();
        }
        let admin = top.table("admin").and_then(|table| {
            let admin = admin(&table, &vault);
            table.finish();
            admin
        });
        let retention = top.table("retention").map(|table| {
            let retention = retention(&table);
            table.finish();
            retention
        });
        let (deeds, follow_ups) = self.follow_ups(&top);
        let windows = windows(&top);
        let mut idle = idle;
        idle.retain(|idle| !watch.notify.iter().any(|receiver| receiver.as_str() == idle.name));
        let names_of_windows = top.table("window").map(|table| table.entries()).unwrap_or_default();
        idle.extend(deeds.iter().map(|name| self.idle(IdleKind::FollowUp, name.clone())));
        let deeds = deeds.into_iter().map(|name| FollowUpName::from(name.value)).collect();
        idle.extend(names_of_windows.into_iter().map(|(name, _)| self.idle(IdleKind::Window, name)));
        top.finish();
        Config {
            state: state.unwrap_or_else(|| Place::new(STATE)),
            lease: lease.unwrap_or(LEASE),
            rules: rules.unwrap_or_else(|| vec![self.base.join("rules")]),
            reload: reload.unwrap_or_default(),
            admin,
            watch,
            heartbeat,
            retention: retention.unwrap_or_default(),
            sources,
            source_count,
            receivers,
            follow_ups,
            known: Known { receivers: names, windows, sources: source_names, follow_ups: deeds, idle },
        }
    }

    fn idle(&self, kind: IdleKind, name: Item<String>) -> Idle {
        Idle { kind, name: name.value, file: Arc::clone(&self.file), span: name.span }
    }

    fn state(&self, agent: &Table<'_>, vault: &Vault) -> Option<Place> {
        const HELP: &str = "state = \"sqlite:/var/lib/jobwatch/state.db\", or \"postgres://jobwatch@db.example.org/jobwatch\" for several replicas";
        let state = agent.string("state");
        let named = state.as_ref().map_or(STATE, |state| state.value.as_str());
        let mut place = Place::new(located(named, &self.base));
        if !place.is_shared() {
            for key in ["state_password", "state_connections", "lease"] {
                if let Some(value) = agent.misplaced(key) {
                    let message = format!("`{key}` is of no use with a state that is a file");
                    value.error(
                        "state",
                        message,
                        "remove it, or share a state: state = \"postgres://USER@HOST/DATABASE\"",
                    );
                }
            }
        }
        let connections = agent.integer("state_connections", CONNECTIONS).and_then(|count| usize::try_from(count).ok());
        place.connections = connections.unwrap_or(Place::CONNECTIONS);
        // Of one that has no place, where it comes from is not asked.
        let given = agent.value("state_password").filter(|_| place.is_shared());
        let password = given.as_ref().and_then(|value| value.secret(vault));
        let Item { span, .. } = state?;
        let mut sound = true;
        if place.password.is_some() {
            sound = false;
            let refuse = |message: &str| {
                agent.error("state", span.clone(), message, "state_password = { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }; none in the URL");
            };
            match (given.is_some(), vault.inline) {
                (true, _) => refuse("the password stands in the URL, too"),
                (false, true) => sound = true,
                (false, false) => {
                    refuse("a password stands in the URL: [agent] allow_inline_secrets = true permits that")
                }
            }
        }
        if let Some(password) = password {
            place.password = Some(password.value);
        }
        if let Err(why) = store::check(&place) {
            agent.error("state", span, why, HELP);
            return None;
        }
        sound.then_some(place)
    }

    fn sources(&self, top: &Table<'_>, vault: &Vault) -> (Vec<SourceSetup>, Vec<SourceName>, usize) {
        let tables = top.tables("source");
        if tables.is_empty() {
            top.error(
                "no-source",
                0..0,
                "nothing is watched: there is no [[source]]",
                "`jobwatch init` writes a starter that has one",
            );
        }
        let defaults = top.table("source_defaults");
        let (mut taken, mut asked, count) = (BTreeSet::new(), Vec::new(), tables.len());
        let read =
            |table: Table<'_>| self.source(table.with_defaults(defaults.as_ref()), vault, &mut taken, &mut asked);
        let sources = tables.into_iter().filter_map(read).collect();
        if let Some(defaults) = defaults {
            asked.retain(|key| *key != "name");
            if let Some(name) = defaults.misplaced("name") {
                name.error("source-defaults", "every source has a name of its own", "name it in its [[source]]");
            }
            if !asked.is_empty() {
                defaults.known(&asked);
                defaults.finish();
            }
        }
        (sources, taken.iter().map(|name| SourceName::from(name.as_str())).collect(), count)
    }

    fn source(
        &self,
        table: Table<'_>,
        vault: &Vault,
        taken: &mut BTreeSet<String>,
        asked: &mut Vec<&'static str>,
    ) -> Option<SourceSetup> {
        let name = table.required("name", "a short word such as name = \"prod\"");
        let name = name.filter(|name| sound_name(&table, name));
        if let Some(name) = &name
            && !taken.insert(name.value.clone())
        {
            table.error(
                "duplicate-name",
                name.span.clone(),
                format!("there are two sources `{}`", name.value),
                "a source's memory is kept under its name: give each its own",
            );
        }
        let kinds: Vec<(&str, &source::Kind)> = source::KINDS.iter().map(|kind| (kind.name, kind)).collect();
        // Without it, nobody knows which keys belong here.
        let kind = kind(&table, &kinds)?;
        let poll_every = table.duration("poll_every", Duration::from_millis(100)..DAY).unwrap_or(30 * SECOND);
        let timeout = table.duration("timeout", SECOND..600 * SECOND).unwrap_or(40 * SECOND);
        let ca = self.ca(&table);
        let proxy = proxy(&table, vault);
        let gone_after = table.integer("gone_after", 1..101).and_then(|n| u8::try_from(n).ok());
        let baseline_within = baseline(&table);
        let mode =
            table.word("strategy", &[("full", Mode::Full), ("incremental", Mode::Incremental), ("auto", Mode::Auto)]);
        let full_every = table.duration("full_every", SECOND..DAY);
        let vanish = table.integer("vanish_percent_max", 1..101).and_then(|n| u8::try_from(n).ok());
        let common = source::Common {
            name: SourceName::from(name.as_ref().map_or("unnamed", |name| name.value.as_str())),
            timeout,
            ca,
            proxy: proxy.clone().flatten(),
            pool: &self.pool,
            secrets: vault,
        };
        // A proxy that cannot be read is not left out: nothing is asked past it.
        let made = (kind.read)(&table, &common).filter(|_| proxy.is_some());
        asked.extend(table.asked());
        table.finish();
        let defaults = Policy::default();
        let policy = Policy {
            gone_after: gone_after.unwrap_or(defaults.gone_after),
            late_after: (3 * poll_every).max(60 * SECOND),
            vanish_percent_max: vanish.unwrap_or(defaults.vanish_percent_max),
            baseline_within,
            ..defaults
        };
        let usual = Strategy::default();
        let strategy =
            Strategy { mode: mode.unwrap_or(usual.mode), full_every: full_every.unwrap_or(usual.full_every) };
        name?;
        Some(SourceSetup { source: made?, poll_every, policy, strategy })
    }

    /// The names of all, those that can be used, and those that are nobody's fallback.
    fn receivers(
        &self,
        top: &Table<'_>,
        vault: &Vault,
    ) -> (Vec<ReceiverName>, BTreeMap<ReceiverName, ReceiverSetup>, Vec<Idle>) {
        let entries = top.table("receiver").map(|table| table.entries()).unwrap_or_default();
        let words: Vec<String> = entries.iter().map(|(name, _)| name.value.clone()).collect();
        let known: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut receivers = BTreeMap::new();
        for (name, value) in &entries {
            let Some(table) = value.table() else { continue };
            sound_name(&table, name);
            let name = ReceiverName::from(name.value.as_str());
            if let Some(setup) = self.receiver(&name, table, vault, &known) {
                receivers.insert(name, setup);
            }
        }
        let tables = entries.iter().filter(|(_, value)| value.is_table()).filter_map(|(_, value)| value.table());
        // Also that of a receiver which is not made, because its secret is not on this machine.
        let fallbacks = tables.filter_map(|table| table.value("fallback").filter(Value::is_string)?.string());
        let fallbacks: HashSet<String> = fallbacks.map(|fallback| fallback.value).collect();
        let idle = entries.into_iter().map(|(name, _)| name).filter(|name| !fallbacks.contains(&name.value));
        let idle = idle.map(|name| self.idle(IdleKind::Receiver, name)).collect();
        (words.iter().map(|name| ReceiverName::from(name.as_str())).collect(), receivers, idle)
    }

    fn receiver(&self, name: &ReceiverName, table: Table<'_>, vault: &Vault, known: &[&str]) -> Option<ReceiverSetup> {
        let kinds: Vec<(&str, &deliver::Kind)> = deliver::KINDS.iter().map(|kind| (kind.name, kind)).collect();
        let kind = kind(&table, &kinds)?;
        let timeout = table.duration("timeout", SECOND..600 * SECOND).unwrap_or(15 * SECOND);
        let schedule = schedule(&table);
        let fallback = table.string("fallback").and_then(|item| {
            if item.value == name.as_str() {
                table.error("fallback", item.span, "a receiver cannot be its own fallback", "name another receiver");
                return None;
            }
            some_of(&table, vec![item], known).pop()
        });
        let proxy = match kind.carrier {
            Carrier::Http => proxy(&table, vault),
            Carrier::Own => no_proxy(&table, kind.name),
        };
        let common = deliver::Common {
            name: name.clone(),
            timeout,
            egress: egress(&table),
            ca: self.ca(&table),
            proxy: proxy.clone().flatten(),
            base: &self.base,
            pool: &self.pool,
            secrets: vault,
        };
        let made = (kind.read)(&table, &common).filter(|_| proxy.is_some());
        let rate = rate(&table, kind.per_minute);
        let concurrency = table.integer("concurrency", 1..65).and_then(|n| usize::try_from(n).ok());
        table.finish();
        Some(ReceiverSetup {
            receiver: made?,
            concurrency: concurrency.unwrap_or(kind.concurrency),
            timeout,
            schedule,
            fallback,
            text_max: kind.text_max,
            rate,
        })
    }

    /// The names of all, and those that can be used.
    fn follow_ups(&self, top: &Table<'_>) -> (Vec<Item<String>>, BTreeMap<FollowUpName, FollowUpSetup>) {
        let entries = top.table("follow_up").map(|table| table.entries()).unwrap_or_default();
        let mut follow_ups = BTreeMap::new();
        for (name, value) in &entries {
            let Some(table) = value.table() else { continue };
            sound_name(&table, name);
            if let Some(setup) = self.follow_up(table) {
                follow_ups.insert(FollowUpName::from(name.value.as_str()), setup);
            }
        }
        (entries.into_iter().map(|(name, _)| name).collect(), follow_ups)
    }

    fn follow_up(&self, table: Table<'_>) -> Option<FollowUpSetup> {
        let kinds: Vec<(&str, &act::Kind)> = act::KINDS.iter().map(|kind| (kind.name, kind)).collect();
        let kind = kind(&table, &kinds)?;
        let permit =
            table.word("mode", &[("dry_run", Permit::DryRun), ("auto", Permit::Auto), ("approve", Permit::Approve)]);
        let limit = limit(&table);
        let wait = table.duration("wait", Duration::ZERO..30 * DAY).unwrap_or_default();
        let timeout = table.duration("timeout", SECOND..3_601 * SECOND).unwrap_or(60 * SECOND);
        let made = (kind.read)(&table, &act::Common { timeout, base: &self.base, read: &read });
        table.finish();
        let guard = Guard { permit: permit.unwrap_or_default(), limit, wait };
        Some(FollowUpSetup { deed: made?, guard, timeout })
    }

    /// It goes where a receiver may go.
    fn heartbeat(&self, table: &Table<'_>, vault: &Vault) -> Option<HeartbeatSetup> {
        let every = table.duration("every", SECOND..DAY).unwrap_or(60 * SECOND);
        let overdue_after = table.duration("overdue_after", SECOND..7 * DAY).unwrap_or(900 * SECOND);
        let timeout = table.duration("timeout", SECOND..60 * SECOND).unwrap_or(15 * SECOND);
        let proxy = proxy(table, vault);
        let common = deliver::Common {
            name: ReceiverName::from("heartbeat"),
            timeout,
            egress: egress(table),
            ca: self.ca(table),
            proxy: proxy.clone().flatten(),
            base: &self.base,
            pool: &self.pool,
            secrets: vault,
        };
        let heartbeat = Heartbeat::read(table, &common).filter(|_| proxy.is_some());
        Some(HeartbeatSetup { heartbeat: heartbeat?, every, overdue_after })
    }

    fn ca(&self, table: &Table<'_>) -> Option<Vec<u8>> {
        let name = table.string("ca_file")?;
        let path = self.base.join(&name.value);
        let text = read(&path).map_err(|error| {
            table.error(
                "ca-file",
                name.span,
                format!("`{}` cannot be read: {error}", path.display()),
                "certificates in PEM form",
            );
        });
        text.ok().map(String::into_bytes)
    }
}

/// `[admin]`: nothing when it is switched off, or when something is wrong with it.
fn admin(table: &Table<'_>, vault: &Vault) -> Option<Admin> {
    const HELP: &str = "listen = \"127.0.0.1:9477\", or \"\" to switch it off";
    let listen = table.string("listen");
    let token = table.secret("token", vault);
    if let Some(token) = &token
        && token.value.expose_secret().len() < TOKEN_BYTES_MIN
    {
        let message = format!("`token` is shorter than {TOKEN_BYTES_MIN} characters");
        table.error("token", token.span.clone(), message, "`openssl rand -hex 32` makes a good one");
    }
    let address = listen.as_ref().map_or(ADMIN_LISTEN, |listen| &*listen.value);
    let span = listen.as_ref().map_or(table.span(), |listen| listen.span.clone());
    if address.is_empty() {
        return None;
    }
    let Ok(listen) = address.parse::<SocketAddr>() else {
        table.error("listen", span, format!("`{address}` is no address and port"), HELP);
        return None;
    };
    if !listen.ip().to_canonical().is_loopback() && !table.has("token") {
        let message = format!("whoever reaches {listen} could use the admin interface");
        table.error("token", span, message, "token = { credential = \"admin-token\" }, or a loopback address");
        return None;
    }
    Some(Admin { listen, token: token.map(|token| token.value) })
}

/// How many requests a second the operator allows.
fn limits(top: &Table<'_>) -> Limits {
    let defaults = Limits::default();
    let Some(agent) = top.table("agent") else { return defaults };
    let read = |key| agent.integer(key, 1..100_001).and_then(|n| u32::try_from(n).ok());
    Limits {
        per_second: read("requests_per_second").unwrap_or(defaults.per_second),
        per_host: read("requests_per_second_per_host").unwrap_or(defaults.per_host),
    }
}

/// Names appear in paths, labels and tables.
fn sound_name(table: &Table<'_>, name: &Item<String>) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.value.is_empty() && name.value.len() <= 64 && name.value.chars().all(sound);
    if !good {
        table.error(
            "name",
            name.span.clone(),
            "a name is made of letters, digits, `-`, `_` and `.`",
            "up to 64 of them",
        );
    }
    good
}

fn kind<'k, T>(table: &Table<'_>, kinds: &[(&'static str, &'k T)]) -> Option<&'k T> {
    let words: Vec<&str> = kinds.iter().map(|(word, _)| *word).collect();
    let word = table.required("kind", &suggest("", &words))?;
    let found = kinds.iter().find(|(name, _)| *name == word.value).map(|(_, kind)| *kind);
    if found.is_none() {
        let help = suggest(&word.value, &words);
        table.error("unknown-kind", word.span, format!("there is no kind `{}`", word.value), help);
    }
    found
}

/// The receivers named; those that do not exist are reported.
fn some_of(table: &Table<'_>, names: Vec<Item<String>>, known: &[&str]) -> Vec<ReceiverName> {
    let mut found = Vec::new();
    for name in names {
        if known.contains(&name.value.as_str()) {
            found.push(ReceiverName::from(name.value));
        } else {
            let help = suggest(&name.value, known);
            table.error("unknown-receiver", name.span, format!("there is no receiver `{}`", name.value), help);
        }
    }
    found
}

fn baseline(table: &Table<'_>) -> Option<Duration> {
    const HELP: &str = "baseline = \"quiet\", or baseline = { notify_if_updated_within = \"15m\" }";
    let value = table.value("baseline")?;
    if value.is_table() {
        let inner = value.table()?;
        let within = inner.duration("notify_if_updated_within", Duration::ZERO..30 * DAY);
        if within.is_none() && inner.entries().is_empty() {
            inner.missing("notify_if_updated_within", HELP);
        }
        inner.finish();
        return within;
    }
    let word = value.string()?;
    if word.value != "quiet" {
        table.error("baseline", word.span, format!("`baseline` cannot be `{}`", word.value), HELP);
    }
    None
}

fn schedule(table: &Table<'_>) -> Schedule {
    let mut schedule = Schedule::default();
    let Some(retry) = table.table("retry") else { return schedule };
    if let Some(first) = retry.duration("first", Duration::from_millis(100)..DAY) {
        schedule.first = first;
    }
    if let Some(max) = retry.duration("max", Duration::from_millis(100)..DAY) {
        schedule.max = max;
    }
    if let Some(after) = retry.duration("give_up_after", SECOND..30 * DAY) {
        schedule.give_up_after = after;
    }
    if let Some(after) = retry.duration("escalate_after", SECOND..DAY) {
        schedule.escalate_after = after;
    }
    if schedule.first > schedule.max {
        retry.error("retry", retry.span(), "`first` is longer than `max`", "retry = { first = \"5s\", max = \"1h\" }");
    }
    retry.finish();
    schedule
}

/// `[window.NAME]`: weekly times that rules can name.
fn retention(table: &Table<'_>) -> Retention {
    const HELP: &str = "size_max = \"1GB\" (or MB, TB), at least 16MB, or size_max = \"unlimited\"";
    let usual = Retention::default();
    let history = table.duration("history", DAY..HISTORY_MAX).unwrap_or(usual.history);
    let Some(text) = table.string("size_max") else { return Retention { history, ..usual } };
    if text.value == "unlimited" {
        return Retention { history, size_max: None };
    }
    let units = [("MB", 1_u64 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];
    let size = units.into_iter().find_map(|(unit, bytes)| {
        let count = text.value.strip_suffix(unit)?;
        let count: u64 = count.bytes().all(|byte| byte.is_ascii_digit()).then(|| count.parse().ok())??;
        count.checked_mul(bytes).filter(|size| SIZES.contains(size))
    });
    if size.is_none() {
        table.error("size", text.span, format!("`{}` is no size that a state can have", text.value), HELP);
    }
    Retention { history, size_max: size.or(usual.size_max) }
}

fn windows(top: &Table<'_>) -> Vec<Arc<Window>> {
    let entries = top.table("window").map(|table| table.entries()).unwrap_or_default();
    let read = |(name, value): (Item<String>, Value<'_>)| {
        let table = value.table()?;
        sound_name(&table, &name);
        let window = Window::read(&name.value, &table);
        table.finish();
        window.map(Arc::new)
    };
    entries.into_iter().filter_map(read).collect()
}

/// How many messages a receiver gets; `None` is as many as there are.
fn rate(table: &Table<'_>, per_minute: usize) -> Option<Rate> {
    const HELP: &str = "rate = \"10/m\" (or /s, /h), or rate = \"unlimited\"";
    let Some(text) = table.string("rate") else { return Some(Rate { count: per_minute, ..Rate::default() }) };
    let rate = match text.value.split_once('/') {
        None if text.value == "unlimited" => return None,
        None => None,
        Some((count, unit)) => {
            let per =
                [("s", SECOND), ("m", 60 * SECOND), ("h", 3_600 * SECOND)].into_iter().find(|(word, _)| *word == unit);
            let count = count.parse().ok().filter(|count| (1..=100_000).contains(count));
            count.zip(per).map(|(count, (_, per))| Rate { count, per })
        }
    };
    if rate.is_none() {
        table.error("rate", text.span, format!("`{}` is no rate", text.value), HELP);
    }
    rate
}

/// How often a follow-up is done without somebody's word.
fn limit(table: &Table<'_>) -> Rate {
    let Some(text) = table.string("limit") else { return LIMIT };
    let limit = text.value.split_once('/').and_then(|(count, unit)| {
        let units = [("m", 60 * SECOND), ("h", 3_600 * SECOND), ("d", DAY)];
        let per = units.into_iter().find(|(word, _)| *word == unit).map(|(_, per)| per)?;
        let count = count.parse().ok().filter(|count| (1..=1_000).contains(count))?;
        Some(Rate { count, per })
    });
    limit.unwrap_or_else(|| {
        table.error("limit", text.span, format!("`{}` is no limit", text.value), "limit = \"2/h\" (or /m, /d)");
        LIMIT
    })
}

/// `proxy`: nothing in it is none, where the defaults name one. `None` when it cannot be read; the table has been told.
fn proxy(table: &Table<'_>, vault: &Vault) -> Option<Option<Proxy>> {
    let Some(value) = table.value("proxy") else { return Some(None) };
    let plain = value.is_string().then(|| value.string()).flatten();
    let (text, code) = match plain {
        Some(text) if text.value.is_empty() => return Some(None),
        // Without a user it is no secret.
        Some(text) if !text.value.contains('@') => (SecretString::from(text.value), "proxy"),
        Some(_) | None => (value.secret(vault)?.value, "secret"),
    };
    let read = Proxy::read(text.expose_secret()).map_err(|(message, help)| value.error(code, message, help));
    read.ok().map(Some)
}

/// A kind that has no use for `proxy`.
fn no_proxy(table: &Table<'_>, kind: &str) -> Option<Option<Proxy>> {
    if let Some(value) = table.misplaced("proxy") {
        let help = "remove it: only what is sent in HTTP requests goes through a proxy";
        value.error("proxy", format!("`{kind}` knows no proxy"), help);
    }
    Some(None)
}

fn egress(table: &Table<'_>) -> Egress {
    let nets = table.strings("allow_targets").unwrap_or_default().into_iter().filter_map(|text| {
        let net =
            text.value.parse::<IpNet>().ok().or_else(|| text.value.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
        if net.is_none() {
            table.error(
                "network",
                text.span,
                format!("`{}` is no network", text.value),
                "allow_targets = [\"10.1.0.0/16\", \"::1\"]",
            );
        }
        net
    });
    Egress::public(nets.collect())
}
