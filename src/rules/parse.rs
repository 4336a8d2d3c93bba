//! Rule files in, rules or problems out. Strict: what is not understood is refused, with its place and a mend.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobBuilder;
use regex::RegexBuilder;

use super::matcher::{Clause, FIELDS, Field, Test};
use super::proof::Flaw;
use super::template::{Message, TEXT_MAX, Use};
use super::{Group, Labels, PER_JOB, Resolve, Rule, RuleSet, Scope, When, Window, testing};
use crate::document::{File, Item, Level, Notes, Problem, Report, Table, Value, parse, suggest};
use crate::model::alert::Severity;
use crate::model::job::Status;
use crate::model::name::{ReceiverName, RuleId};
use crate::model::notification::RuleFacts;
use crate::model::transition::State;

/// The version of the rule language.
pub(super) const SCHEMA: i64 = 1;
/// A compiled pattern may take no more memory than this.
pub(super) const PATTERN_BYTES_MAX: usize = 1 << 20;
/// A pattern may be no longer than this.
pub(super) const PATTERN_MAX: usize = 1024;

pub(super) const SEVERITIES: &[(&str, Severity)] = &[
    ("info", Severity::Info),
    ("warning", Severity::Warning),
    ("error", Severity::Error),
    ("critical", Severity::Critical),
];

/// Keys of the rule language that this version cannot honour: refused, because a rule that is half obeyed is worse.
const RULE_KEYS_LATER: &[&str] = &["then"];
const LATER: &str = "remove it: this version has no follow-ups; a webhook can start one";
/// A year: longer than any of these makes sense.
const LONG: Duration = Duration::from_secs(366 * 86_400);
const SECOND: Duration = Duration::from_secs(1);
/// The keys of all forms of `when`, and the form each belongs to.
pub(super) const WHEN_KEYS: &[(&str, &[&str])] = &[
    ("stays", &["stays", "for"]),
    ("gone_from", &["gone_from"]),
    ("changed", &["changed"]),
    ("new", &["new", "memory", "to"]),
    ("count", &["count", "within", "per", "to"]),
    ("to", &["to", "from", "gaps"]),
];

/// What is read beside the rule files themselves.
pub struct Surroundings<'a> {
    /// Reads a `body_file`.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The receivers that exist; `None` if that is not known.
    pub receivers: Option<&'a [ReceiverName]>,
    /// The windows that exist; `None` if that is not known.
    pub windows: Option<&'a [Arc<Window>]>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("receivers", &self.receivers).finish_non_exhaustive()
    }
}

/// Loads rule files. The rules are all that could be read; they are fit for use only if the report has no errors.
pub fn load(files: &[Arc<File>], surroundings: &Surroundings<'_>) -> (RuleSet, Report) {
    load_noting(files, surroundings, None)
}

/// As [`load`], and notes what is asked for.
pub fn load_noting(files: &[Arc<File>], surroundings: &Surroundings<'_>, notes: Option<&Notes>) -> (RuleSet, Report) {
    let (mut set, mut report) = (RuleSet::default(), Report::default());
    let mut known: BTreeMap<RuleId, String> = BTreeMap::new();
    for file in files {
        let (table, syntax) = parse(&file.text);
        if !syntax.is_empty() {
            report.add(file, syntax);
            continue;
        }
        let problems = RefCell::default();
        let reader = Reader { file, surroundings, bodies: RefCell::default() };
        for (rule, span, tests) in reader.file(Table::root(&table, &problems).noted(notes)) {
            let (line, _) = file.place(span.start);
            if let Some(first) = known.insert(rule.id().clone(), format!("{}:{line}", file.path.display())) {
                let message = format!("the id `{}` is taken by the rule at {first}", rule.id());
                let help = Some("a rule's memory is kept under its id: give each rule its own".to_owned());
                problems.borrow_mut().push(Problem { level: Level::Error, code: "duplicate-id", message, span, help });
            }
            set.tests.extend(tests.into_iter().map(|test| test.of(&rule)));
            set.rules.push(rule);
        }
        report.add(file, problems.into_inner());
        report.merge(reader.bodies.into_inner());
    }
    (set, report)
}

/// A rule, the place of its id, and its tests.
type Read = (Rule, Range<usize>, Vec<testing::Unbound>);

struct Reader<'a> {
    file: &'a Arc<File>,
    surroundings: &'a Surroundings<'a>,
    bodies: RefCell<Report>,
}

#[derive(Default)]
struct Defaults {
    severity: Option<Severity>,
    notify: Option<Vec<ReceiverName>>,
    cooldown: Option<Duration>,
    group: Option<Group>,
}

impl Reader<'_> {
    fn file(&self, top: Table<'_>) -> Vec<Read> {
        match top.value("schema") {
            None => top.error("missing-key", 0..0, "`schema` is missing", "write `schema = 1` at the top"),
            Some(value) => match value.integer(0..i64::MAX) {
                Some(SCHEMA) | None => {}
                Some(other) => {
                    let message = format!("this file is written for schema {other}; this version reads {SCHEMA}");
                    value.error("schema", message, "use a newer jobwatch, or `schema = 1`");
                }
            },
        }
        let defaults = self.defaults(top.table("defaults"));
        let rules = top.tables("rule").into_iter().filter_map(|table| self.rule(table, &defaults)).collect();
        top.finish();
        rules
    }

    fn defaults(&self, table: Option<Table<'_>>) -> Defaults {
        let Some(table) = table else { return Defaults::default() };
        let severity = table.word("severity", SEVERITIES);
        let notify = self.notify(&table);
        let cooldown = table.duration("cooldown", Duration::ZERO..LONG);
        let group = group(&table);
        table.finish();
        Defaults { severity, notify, cooldown, group }
    }

    fn rule(&self, table: Table<'_>, defaults: &Defaults) -> Option<Read> {
        let id = table.required("id", "a stable word such as id = \"create-failed\"");
        let id = id.and_then(|id| self.id(&table, id));
        let about = table.string("about").map(|about| about.value);
        let when = match table.table("when") {
            Some(when) => self.when(when),
            None => {
                table.missing("when", "which transitions? when = { to = \"Failed\" }");
                None
            }
        };
        let matches = clauses(&table, "match");
        if let (Some(when), Some(matches)) = (&when, &matches) {
            warn_of_impossible(&table, when, matches);
        }
        let except = clauses(&table, "except");
        let severity = table.word("severity", SEVERITIES).or(defaults.severity).unwrap_or(Severity::Warning);
        let notify = match self.notify(&table) {
            Some(notify) => notify,
            None => defaults.notify.clone().unwrap_or_else(|| {
                table.missing("notify", "who is told? notify = [\"oncall\"], here or in [defaults]");
                Vec::new()
            }),
        };
        let labels = labels(&table);
        let message = self.message(&table, Use { labels: &labels, when: when.as_ref() });
        let runbook = table.string("runbook").map(|runbook| runbook.value);
        let tests = testing::read(&table, self.file);
        let key = key(&table, when.as_ref());
        let group = group(&table).or_else(|| defaults.group.clone());
        let own_cooldown = table.duration("cooldown", Duration::ZERO..LONG);
        let cooldown = own_cooldown.or(defaults.cooldown).unwrap_or_default();
        let resolve = resolve(&table, when.as_ref());
        let active = self.active(&table);
        if let (Some(When::Burst { within, .. }), true) = (&when, own_cooldown.is_some_and(|own| !own.is_zero()))
            && cooldown > *within
            && let Some(place) = table.value("cooldown")
        {
            let message = "the cooldown is longer than `within`: a burst that goes on is not told again in time";
            table.report(Level::Warning, "long-cooldown", place.span(), message, "make it no longer than `within`");
        }
        for key in RULE_KEYS_LATER {
            table.not_yet(key, LATER);
        }
        let span = id.as_ref().map_or(table.span(), |id| id.span.clone());
        table.finish();
        let id = RuleId::from(id?.value);
        let facts = RuleFacts { about: about.unwrap_or_else(|| id.to_string()), id, runbook, labels };
        let rule = Rule {
            facts,
            when: when?,
            matches: matches?,
            except: except?,
            severity,
            notify,
            message,
            key: key?,
            group,
            cooldown,
            resolve,
            active,
        };
        Some((rule, span, tests))
    }

    fn id(&self, table: &Table<'_>, id: Item<String>) -> Option<Item<String>> {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !id.value.is_empty() && id.value.len() <= 100 && id.value.chars().all(sound) {
            return Some(id);
        }
        table.error("id", id.span, "an id is made of letters, digits, `-`, `_` and `.`", "up to 100 of them");
        None
    }

    fn notify(&self, table: &Table<'_>) -> Option<Vec<ReceiverName>> {
        let names = table.strings("notify")?;
        if let Some(known) = self.surroundings.receivers {
            let words: Vec<&str> = known.iter().map(ReceiverName::as_str).collect();
            for name in names.iter().filter(|name| !words.contains(&name.value.as_str())) {
                let message = format!("there is no receiver `{}`", name.value);
                table.error("unknown-receiver", name.span.clone(), message, suggest(&name.value, &words));
            }
        }
        let mut list: Vec<ReceiverName> = Vec::new();
        for name in names {
            let name = ReceiverName::from(name.value);
            if !list.contains(&name) {
                list.push(name);
            }
        }
        Some(list)
    }

    fn active(&self, table: &Table<'_>) -> Vec<Arc<Window>> {
        let names = table.strings("active").unwrap_or_default();
        let Some(windows) = self.surroundings.windows else { return Vec::new() };
        let words: Vec<&str> = windows.iter().map(|window| window.name.as_str()).collect();
        let one = |name: Item<String>| {
            let found = windows.iter().find(|window| window.name == name.value);
            if found.is_none() {
                let message = format!("there is no window `{}`", name.value);
                let help = match words.is_empty() {
                    true => "windows stand in the configuration: [window.office]".to_owned(),
                    false => suggest(&name.value, &words),
                };
                table.error("unknown-window", name.span, message, help);
            }
            found.cloned()
        };
        names.into_iter().filter_map(one).collect()
    }

    fn when(&self, table: Table<'_>) -> Option<When> {
        let form = WHEN_KEYS.iter().find(|(form, _)| table.has(form));
        if let Some((form, own)) = form {
            alone(&table, form, own);
        }
        match form.map(|(form, _)| *form) {
            Some("stays") => self.stays(table),
            Some("gone_from") => {
                let from = table.value("gone_from").and_then(|value| statuses(&table, &value));
                table.finish();
                Some(When::Gone { from: from? })
            }
            Some("changed") => {
                let fields = table.value("changed").and_then(|value| changed(&value));
                table.finish();
                Some(When::Changed { fields: fields? })
            }
            Some("new") => {
                let class = table.word("new", &[("reason_class", ())]);
                let memory = needed(&table, "memory", "how long is a reason remembered? memory = \"30d\"");
                let to = self.to(&table);
                table.finish();
                class?;
                Some(When::New { to: to?, memory: memory? })
            }
            Some("count") => {
                let count = table.integer("count", 2..10_001).and_then(|count| u32::try_from(count).ok());
                let within = needed(&table, "within", "in what time? within = \"10m\"");
                let per = table.value("per").map(|value| fields(&value));
                let to = self.to(&table);
                table.finish();
                Some(When::Burst { to: to?, count: count?, within: within?, per: per.unwrap_or(Some(Vec::new()))? })
            }
            Some(_) | None => self.step(table),
        }
    }

    fn stays(&self, table: Table<'_>) -> Option<When> {
        let value = table.value("stays")?;
        let status = match statuses(&table, &value) {
            Some(None) => {
                let message = "`stays` names the statuses: every job ends, and stays so for ever";
                value.error("stays", message, "stays = \"Running\"");
                None
            }
            other => other.flatten(),
        };
        let at_least = needed(&table, "for", "how long? when = { stays = \"Running\", for = \"30m\" }");
        table.finish();
        Some(When::Stays { status: status?, at_least: at_least? })
    }

    fn to(&self, table: &Table<'_>) -> Option<Option<Vec<Status>>> {
        let Some(value) = table.value("to") else {
            let help = "which status? to = \"Failed\", to = [\"Failed\", \"Success\"], or to = \"*\" for any";
            table.missing("to", help);
            return None;
        };
        statuses(table, &value)
    }

    fn step(&self, table: Table<'_>) -> Option<When> {
        let from = table.value("from").map(|value| (states(&table, &value), value.span()));
        let to = self.to(&table);
        let gaps = table.word("gaps", &[("allow", true), ("strict", false)]);
        let (from, place) = from.map_or((Some(None), 0..0), |(from, place)| (from, place));
        if let (Some(Some(from)), Some(to)) = (&from, &to)
            && !from.is_empty()
            && to.as_ref().is_some_and(|to| from.iter().all(|from| to.iter().all(|to| *from == State::Is(to.clone()))))
        {
            let message = "`from` and `to` are the same: a job that stays where it is makes no step";
            table.report(Level::Warning, "never-fires", place.clone(), message, "when = { stays = …, for = … }");
        }
        if let (Some(Some(from)), Some(to), None, false) = (&from, &to, gaps, table.has("gaps"))
            && let Some(state) = skippable(from, to.as_deref())
        {
            let message = format!("a poll may not see a job in `{state}`: then this rule does not fire");
            let help =
                "gaps = \"allow\" fires also when the job passed it unseen; gaps = \"strict\" says that this is meant";
            table.report(Level::Warning, "skippable-from", place, message, help);
        }
        table.finish();
        Some(When::Step { from: from?, to: to?, gaps: gaps.unwrap_or(false) })
    }

    fn message(&self, rule: &Table<'_>, usage: Use<'_>) -> Message {
        let mut message = Message::builtin();
        let Some(table) = rule.table("message") else { return message };
        if let Some(title) = table.string("title") {
            self.template(&table, &mut message, "title", title, usage);
        }
        let inline = table.string("body");
        match (inline, table.string("body_file")) {
            (Some(_), Some(file)) => {
                table.error("two-bodies", file.span, "`body` and `body_file` exclude each other", "keep one");
            }
            (Some(body), None) => self.template(&table, &mut message, "body", body, usage),
            (None, Some(file)) => self.body_file(&table, &mut message, &file, usage),
            (None, None) => {}
        }
        table.finish();
        message
    }

    fn template(
        &self,
        table: &Table<'_>,
        message: &mut Message,
        part: &'static str,
        text: Item<String>,
        usage: Use<'_>,
    ) {
        let written = &self.file.text[text.span.clone()];
        let quote = if written.starts_with("\"\"\"") || written.starts_with("'''") { 3 } else { 1 };
        let skip = quote + usize::from(quote == 3 && written[3..].starts_with('\n'));
        let literal = written.get(skip..).is_some_and(|inner| inner.starts_with(&text.value));
        if let Err(flaw) = message.add(part, None, text.value, usage) {
            let range = flaw.range.filter(|_| literal);
            let start = text.span.start + skip;
            let span = range.map_or(text.span.clone(), |range| start + range.start..start + range.end);
            table.error("template", span, format!("`{part}`: {}", flaw.message), flaw.help);
        }
    }

    fn body_file(&self, table: &Table<'_>, message: &mut Message, name: &Item<String>, usage: Use<'_>) {
        let path: PathBuf = self.file.path.parent().unwrap_or(Path::new("")).join(&name.value);
        match (self.surroundings.read)(&path) {
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", path.display());
                table.error("body-file", name.span.clone(), message, "the path is relative to the rule file");
            }
            Ok(text) if text.len() > TEXT_MAX => {
                let message = format!("`{}` is longer than {TEXT_MAX} bytes", path.display());
                table.error("body-file", name.span.clone(), message, "shorten it");
            }
            Ok(text) => {
                let file = Arc::new(File { path, text: text.clone().into() });
                if let Err(Flaw { range, message, help }) = message.add("body", Some(&name.value), text, usage) {
                    let help = Some(help).filter(|help| !help.is_empty());
                    let span = range.unwrap_or(0..0);
                    let problem = Problem { level: Level::Error, code: "template", message, span, help };
                    self.bodies.borrow_mut().add(&file, [problem]);
                }
            }
        }
    }
}

fn labels(table: &Table<'_>) -> Labels {
    let entries = table.table("labels").map(|labels| labels.entries()).unwrap_or_default();
    entries.into_iter().filter_map(|(name, value)| Some((name.value, value.string()?.value))).collect()
}

pub(super) const STATUSES: &[&str] = &["Creating", "Initializing", "Running", "Failed", "Success"];
const OTHER_STATUS: &str = "a word that the cloud's documents do not have is matched by `when = { to = \"*\" }` with `match = { status = { glob = \"…\" } }`";

fn status(table: &Table<'_>, word: &Item<String>, more: &[&'static str]) -> Option<Status> {
    let found = Status::KNOWN.into_iter().find(|status| status.as_str() == word.value);
    if found.is_none() {
        let known: Vec<&str> = STATUSES.iter().chain(more).copied().collect();
        let help = format!("{} ({OTHER_STATUS})", suggest(&word.value, &known));
        table.error("unknown-status", word.span.clone(), format!("unknown status `{}`", word.value), help);
    }
    found
}

/// `None` when something was wrong; `Some(None)` for `"*"`.
fn statuses(table: &Table<'_>, value: &Value<'_>) -> Option<Option<Vec<Status>>> {
    let words = value.strings()?;
    if let [only] = words.as_slice()
        && only.value == "*"
    {
        return Some(None);
    }
    let list: Option<Vec<Status>> = words.iter().map(|word| status(table, word, &["*"])).collect();
    not_empty(value, list).map(Some)
}

/// As [`statuses`], with `unseen` as a further word.
fn states(table: &Table<'_>, value: &Value<'_>) -> Option<Option<Vec<State>>> {
    let words = value.strings()?;
    if let [only] = words.as_slice()
        && only.value == "*"
    {
        return Some(None);
    }
    let state = |word: &Item<String>| match word.value.as_str() {
        "unseen" => Some(State::Unseen),
        _ => status(table, word, &["unseen", "*"]).map(State::Is),
    };
    not_empty(value, words.iter().map(state).collect()).map(Some)
}

/// Reports keys that belong to another form of `when`.
fn alone(table: &Table<'_>, form: &str, own: &[&str]) {
    let mut others: Vec<&'static str> = WHEN_KEYS.iter().flat_map(|(_, keys)| *keys).copied().collect();
    others.sort_unstable();
    others.dedup();
    for key in others.into_iter().filter(|key| !own.contains(key)) {
        if let Some(other) = table.misplaced(key) {
            other.error("two-forms", format!("`{form}` and `{key}` exclude each other"), "make two rules of it");
        }
    }
}

/// A duration that must be there.
fn needed(table: &Table<'_>, key: &'static str, help: &str) -> Option<Duration> {
    if !table.has(key) {
        table.missing(key, help);
    }
    table.duration(key, SECOND..LONG)
}

/// Whether findings or groups can be told apart by a field.
pub(super) fn tells_apart(field: Field) -> bool {
    !matches!(field, Field::Age | Field::Status)
}

/// Fields that tell findings or groups apart; `job.` may stand before those of a job.
fn fields(value: &Value<'_>) -> Option<Vec<Field>> {
    let known: Vec<&str> = FIELDS.iter().filter(|(_, field)| tells_apart(*field)).map(|(name, _)| *name).collect();
    let words = value.strings()?;
    let mut found: Vec<Option<Field>> = Vec::new();
    for word in &words {
        let name = word.value.strip_prefix("job.").unwrap_or(&word.value);
        let field =
            FIELDS.iter().find(|(known_name, _)| *known_name == name && known.contains(&name)).map(|(_, field)| *field);
        if field.is_none() {
            let message = format!("`{}` in `{}` is no field that can tell one from another", word.value, value.key);
            value.error_at("unknown-field", word.span.clone(), message, suggest(name, &known));
        }
        found.push(field);
    }
    let mut fields: Vec<Field> = Vec::new();
    for field in found.into_iter().collect::<Option<Vec<_>>>()? {
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    Some(fields)
}

/// The fields of a row whose change can be told.
pub(super) const CHANGING: &[&str] = &["instance_id", "resource_id", "resource_name", "type", "reason"];

/// The fields of a row whose change a rule looks at.
fn changed(value: &Value<'_>) -> Option<Vec<Field>> {
    let words = value.strings()?;
    let strange = words.iter().find(|word| !CHANGING.contains(&word.value.strip_prefix("job.").unwrap_or(&word.value)));
    if let Some(word) = strange {
        let message = format!("`{}` is nothing whose change can be told", word.value);
        let help = match word.value.as_str() {
            "status" => "a change of status is when = { to = … }".to_owned(),
            other => suggest(other, CHANGING),
        };
        value.error_at("unknown-field", word.span.clone(), message, help);
        return None;
    }
    not_empty(value, fields(value))
}

/// What a finding is about. A stay is about one job: it is told once for each.
fn key(table: &Table<'_>, when: Option<&When>) -> Option<Vec<Field>> {
    let Some(value) = table.value("key") else { return Some(PER_JOB.to_vec()) };
    let own = match when {
        Some(When::Stays { .. }) => Some("`stays` is told once for each job"),
        Some(When::Burst { .. }) => Some("a burst is told apart by its `per`"),
        Some(When::New { .. }) => Some("a new reason is told once for each reason"),
        Some(When::Step { .. } | When::Gone { .. } | When::Changed { .. }) | None => None,
    };
    if let Some(own) = own {
        value.error("key", format!("`key` has no place here: {own}"), "remove it");
        return None;
    }
    not_empty(&value, fields(&value))
}

fn group(table: &Table<'_>) -> Option<Group> {
    let group = table.table("group")?;
    let by = match group.value("by") {
        Some(by) => fields(&by),
        None => {
            group.missing("by", "what is equal within a group? by = [\"source\", \"type\", \"reason_class\"]");
            None
        }
    };
    if !group.has("wait") {
        group.missing("wait", "how long does it gather? wait = \"20s\"");
    }
    let wait = group.duration("wait", SECOND..Duration::from_secs(86_401));
    group.finish();
    Some(Group { by: by?, wait: wait? })
}

fn resolve(table: &Table<'_>, when: Option<&When>) -> Option<Resolve> {
    let resolve = table.table("resolve")?;
    let to = match resolve.value("to") {
        Some(value) => {
            let to = statuses(&resolve, &value);
            let own = match when {
                Some(When::Step { to, .. } | When::Burst { to, .. } | When::New { to, .. }) => {
                    to.as_deref().unwrap_or_default()
                }
                Some(When::Stays { .. } | When::Gone { .. } | When::Changed { .. }) | None => &[],
            };
            let both = to.iter().flatten().flatten().find(|status| own.contains(status));
            if let Some(status) = both {
                let message = format!("`{status}` would begin this finding and end it");
                value.error("resolve", message, "name a status that `when` does not have");
                return None;
            }
            to
        }
        None => {
            resolve.missing("to", "which status ends it? to = \"Success\"");
            None
        }
    };
    let scope = resolve.word("scope", &[("job", Scope::Job), ("resource", Scope::Resource)]);
    if resolve.has("scope") && scope.is_none() {
        return None;
    }
    resolve.finish();
    Some(Resolve { to: to?, scope: scope.unwrap_or(Scope::Job) })
}

/// A state of `from` that a job can pass between two polls, coming from one that is not in `from`, on its way to `to`.
fn skippable<'s>(from: &'s [State], to: Option<&[Status]>) -> Option<&'s State> {
    let rank = |state: &State| match state {
        State::Is(status) => status.rank().map(|rank| rank + 1),
        State::Unseen => Some(0),
        State::Gone => None,
    };
    let known = || Status::KNOWN.into_iter();
    let end = match to {
        Some(to) => to.iter().filter_map(Status::rank).max(),
        None => known().filter_map(|status| status.rank()).max(),
    };
    let before = |passed: u8| {
        let outside =
            std::iter::once(State::Unseen).chain(known().map(State::Is)).filter(|state| !from.contains(state));
        outside.filter_map(|state| rank(&state)).any(|start| start < passed)
    };
    from.iter()
        .find(|state| rank(state).is_some_and(|passed| passed <= end.unwrap_or(0) && before(passed) && passed > 0))
}

fn not_empty<T>(value: &Value<'_>, list: Option<Vec<T>>) -> Option<Vec<T>> {
    if list.as_ref().is_some_and(Vec::is_empty) {
        value.error("empty", format!("`{}` is an empty list: the rule can never fire", value.key), "name a status");
        return None;
    }
    list
}

/// A rule that looks at steps to one status and wants a job in another can never fire.
fn warn_of_impossible(rule: &Table<'_>, when: &When, matches: &[Clause]) {
    let to: Option<&[Status]> = match when {
        When::Step { to, .. } | When::Burst { to, .. } | When::New { to, .. } => to.as_deref(),
        When::Stays { status, .. } => Some(status),
        When::Gone { from } => from.as_deref(),
        When::Changed { .. } => None,
    };
    let wanted = matches.iter().find(|clause| clause.field() == Field::Status).and_then(Clause::exact);
    if let (Some(to), Some(wanted)) = (to, wanted)
        && !to.iter().any(|status| wanted.contains(&status.as_str()))
        && let Some(place) = rule.value("match")
    {
        let message = format!("this rule never fires: a job in `{}` is not in a status of `when`", wanted.join("`, `"));
        rule.report(Level::Warning, "never-fires", place.span(), message, "name the status in `when` alone");
    }
}

/// The clauses of `match` or `except`; `None` when something was wrong.
fn clauses(rule: &Table<'_>, key: &'static str) -> Option<Vec<Clause>> {
    let Some(value) = rule.value(key) else { return Some(Vec::new()) };
    let table = value.table()?;
    let found: Vec<Option<Clause>> = FIELDS
        .iter()
        .filter_map(|(name, field)| Some((*field, table.value(name)?)))
        .map(|(field, value)| clause(field, &value))
        .collect();
    table.finish();
    found.into_iter().collect()
}

fn clause(field: Field, value: &Value<'_>) -> Option<Clause> {
    let values = if value.is_array() { value.items()? } else { Vec::new() };
    let any: Option<Vec<Vec<Test>>> = match value.is_array() {
        true => values.iter().map(|value| tests(field, value)).collect(),
        false => Some(vec![tests(field, value)?]),
    };
    let any = not_empty(value, Some(any?.into_iter().flatten().collect()))?;
    Some(Clause { field, any })
}

fn tests(field: Field, value: &Value<'_>) -> Option<Vec<Test>> {
    if !value.is_table() {
        if field == Field::Age {
            return value.mistyped("{ older_than = \"30m\" } or { newer_than = \"2h\" }");
        }
        return Some(vec![Test::Exact(exact(field, value)?)]);
    }
    let table = value.table()?;
    let mut found: Vec<Option<Vec<Test>>> = Vec::new();
    for (operator, make) in OPERATORS {
        if fits(field, operator) {
            found.extend(table.value(operator).map(|operand| make(field, &operand)));
        } else if let Some(operand) = table.misplaced(operator) {
            let message = format!("`{operator}` is {}for `age`", if field == Field::Age { "not " } else { "" });
            operand.error("operators", message, "age = { older_than = \"30m\" }");
            found.push(None);
        }
    }
    let count = found.len();
    table.finish();
    if count != 1 {
        if count > 1 {
            value.error(
                "operators",
                "an object holds one operator",
                "write a list of objects for `or`, a second field for `and`",
            );
        } else {
            let known: Vec<&str> = OPERATORS.iter().map(|(name, _)| *name).collect();
            value.error("operators", "an object needs an operator", format!("one of: {}", known.join(", ")));
        }
        return None;
    }
    found.pop()?
}

pub(super) type Make = fn(Field, &Value<'_>) -> Option<Vec<Test>>;

pub(super) const OPERATORS: &[(&str, Make)] = &[
    ("glob", |_, operand| patterns(operand, glob)),
    ("regex", |_, operand| patterns(operand, regex)),
    ("prefix", |_, operand| patterns(operand, |text, _| Some(Test::Prefix(text)))),
    ("suffix", |_, operand| patterns(operand, |text, _| Some(Test::Suffix(text)))),
    ("contains", |_, operand| patterns(operand, |text, _| Some(Test::Contains(text)))),
    ("not", |field, operand| {
        let words = match operand.is_array() {
            true => operand.items()?.iter().map(|item| exact(field, item)).collect::<Option<Vec<_>>>()?,
            false => vec![exact(field, operand)?],
        };
        Some(vec![Test::Not(words)])
    }),
    ("exists", |_, operand| Some(vec![Test::Exists(operand.flag()?)])),
    ("older_than", |_, operand| operand.duration().map(|span| vec![Test::OlderThan(span)])),
    ("newer_than", |_, operand| operand.duration().map(|span| vec![Test::NewerThan(span)])),
];

/// Whether an operator says something about a field.
pub(super) fn fits(field: Field, operator: &str) -> bool {
    match operator {
        "exists" => true,
        "older_than" | "newer_than" => field == Field::Age,
        _ => field != Field::Age,
    }
}

/// An exact value. A status that the documents do not have is refused: most are spelling mistakes.
fn exact(field: Field, value: &Value<'_>) -> Option<String> {
    let text = value.string()?.value;
    if field == Field::Status && !STATUSES.contains(&text.as_str()) {
        let help = format!("{} ({OTHER_STATUS})", suggest(&text, STATUSES));
        value.error("unknown-status", format!("unknown status `{text}`"), help);
        return None;
    }
    Some(text)
}

fn patterns(operand: &Value<'_>, make: fn(String, &Value<'_>) -> Option<Test>) -> Option<Vec<Test>> {
    let one = |value: &Value<'_>| {
        let text = value.string()?.value;
        if text.is_empty() || text.len() > PATTERN_MAX {
            value.error("pattern", format!("a pattern has 1 to {PATTERN_MAX} bytes"), "");
            return None;
        }
        make(text, value)
    };
    if !operand.is_array() {
        return Some(vec![one(operand)?]);
    }
    not_empty(operand, operand.items()?.iter().map(one).collect())
}

fn glob(text: String, value: &Value<'_>) -> Option<Test> {
    match GlobBuilder::new(&text).literal_separator(false).backslash_escape(true).build() {
        Ok(glob) => Some(Test::Glob(glob.compile_matcher())),
        Err(error) => {
            value.error(
                "pattern",
                format!("this glob does not work: {}", error.kind()),
                "`*` any text, `?` one character, `[ab]` one of, `{a,b}` either",
            );
            None
        }
    }
}

fn regex(text: String, value: &Value<'_>) -> Option<Test> {
    match RegexBuilder::new(&text).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(regex) => Some(Test::Regex(regex)),
        Err(error) => {
            let words = error.to_string();
            let words = words.lines().last().unwrap_or_default().trim_start_matches("error: ");
            value.error(
                "pattern",
                format!("this regular expression does not work: {words}"),
                "syntax: docs.rs/regex; look-around and back-references do not exist",
            );
            None
        }
    }
}
