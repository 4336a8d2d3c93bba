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
use super::template::{Flaw, Message, TEXT_MAX};
use super::{Labels, Rule, RuleSet, When, testing};
use crate::document::{File, Item, Level, Problem, Report, Table, Value, parse, suggest};
use crate::model::alert::Severity;
use crate::model::job::Status;
use crate::model::name::{ReceiverName, RuleId};
use crate::model::notification::RuleFacts;
use crate::model::transition::State;

/// The version of the rule language.
const SCHEMA: i64 = 1;
/// A compiled pattern may take no more memory than this.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// A pattern may be no longer than this.
const PATTERN_MAX: usize = 1024;

const SEVERITIES: &[(&str, Severity)] = &[
    ("info", Severity::Info),
    ("warning", Severity::Warning),
    ("error", Severity::Error),
    ("critical", Severity::Critical),
];

/// Keys of the rule language that this version cannot honour: refused, because a rule that is half obeyed is worse.
const RULE_KEYS_LATER: &[&str] = &["key", "group", "cooldown", "resolve", "then", "active", "enabled"];
const WHEN_KEYS_LATER: &[&str] = &["count", "within", "per", "new", "memory", "changed"];
const LATER: &str = "remove it; this version knows `when = { from, to, gaps }`, `{ stays, for }`, `{ gone_from }`, `match`, `except`, `severity`, `notify`, `message`, `runbook`, `labels`";

/// What is read beside the rule files themselves.
pub struct Surroundings<'a> {
    /// Reads a `body_file`.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The receivers that exist; `None` if that is not known.
    pub receivers: Option<&'a [ReceiverName]>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("receivers", &self.receivers).finish_non_exhaustive()
    }
}

/// Loads rule files. The rules are all that could be read; they are fit for use only if the report has no errors.
pub fn load(files: &[Arc<File>], surroundings: &Surroundings<'_>) -> (RuleSet, Report) {
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
        for (rule, span, tests) in reader.file(Table::root(&table, &problems)) {
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

struct Defaults {
    severity: Option<Severity>,
    notify: Option<Vec<ReceiverName>>,
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
        let Some(table) = table else { return Defaults { severity: None, notify: None } };
        let severity = table.word("severity", SEVERITIES);
        let notify = self.notify(&table);
        for key in ["cooldown", "group"] {
            table.not_yet(key, LATER);
        }
        table.finish();
        Defaults { severity, notify }
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
        let message = self.message(&table, &labels);
        let runbook = table.string("runbook").map(|runbook| runbook.value);
        let tests = testing::read(&table, self.file);
        for key in RULE_KEYS_LATER {
            table.not_yet(key, LATER);
        }
        let span = id.as_ref().map_or(table.span(), |id| id.span.clone());
        table.finish();
        let id = RuleId::from(id?.value);
        let facts = RuleFacts { about: about.unwrap_or_else(|| id.to_string()), id, runbook, labels };
        let rule = Rule { facts, when: when?, matches: matches?, except: except?, severity, notify, message };
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

    fn when(&self, table: Table<'_>) -> Option<When> {
        for key in WHEN_KEYS_LATER {
            table.not_yet(key, "this version knows `when = { from, to, gaps }`, `{ stays, for }` and `{ gone_from }`");
        }
        if let Some(value) = table.value("gone_from") {
            let from = statuses(&table, &value);
            alone(&table, "gone_from", &["from", "to", "gaps", "stays", "for"]);
            table.finish();
            return Some(When::Gone { from: from? });
        }
        if let Some(value) = table.value("stays") {
            let status = match statuses(&table, &value) {
                Some(None) => {
                    let message = "`stays` names the statuses: every job ends, and stays so for ever";
                    value.error("stays", message, "stays = \"Running\"");
                    None
                }
                other => other.flatten(),
            };
            let at_least = table.duration("for", Duration::from_secs(1)..Duration::from_secs(366 * 86_400));
            if !table.has("for") {
                table.missing("for", "how long? when = { stays = \"Running\", for = \"30m\" }");
            }
            alone(&table, "stays", &["from", "to", "gaps"]);
            table.finish();
            return Some(When::Stays { status: status?, at_least: at_least? });
        }
        let from = table.value("from").map(|value| (states(&table, &value), value.span()));
        let to = match table.value("to") {
            Some(value) => Some(statuses(&table, &value)),
            None => {
                table.missing(
                    "to",
                    "which status? to = \"Failed\", to = [\"Failed\", \"Success\"], or to = \"*\" for any",
                );
                None
            }
        };
        let gaps = table.word("gaps", &[("allow", true), ("strict", false)]);
        let (from, place) = from.map_or((Some(None), 0..0), |(from, place)| (from, place));
        if let (Some(Some(from)), Some(Some(to)), None, false) = (&from, &to, gaps, table.has("gaps"))
            && let Some(state) = skippable(from, to.as_deref())
        {
            let message = format!("a poll may not see a job in `{state}`: then this rule does not fire");
            let help =
                "gaps = \"allow\" fires also when the job passed it unseen; gaps = \"strict\" says that this is meant";
            table.report(Level::Warning, "skippable-from", place, message, help);
        }
        table.finish();
        Some(When::Step { from: from?, to: to??, gaps: gaps.unwrap_or(false) })
    }

    fn message(&self, rule: &Table<'_>, labels: &Labels) -> Message {
        let mut message = Message::builtin();
        let Some(table) = rule.table("message") else { return message };
        if let Some(title) = table.string("title") {
            self.template(&table, &mut message, "title", title, labels);
        }
        let inline = table.string("body");
        match (inline, table.string("body_file")) {
            (Some(_), Some(file)) => {
                table.error("two-bodies", file.span, "`body` and `body_file` exclude each other", "keep one");
            }
            (Some(body), None) => self.template(&table, &mut message, "body", body, labels),
            (None, Some(file)) => self.body_file(&table, &mut message, &file, labels),
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
        labels: &Labels,
    ) {
        let written = &self.file.text[text.span.clone()];
        let quote = if written.starts_with("\"\"\"") || written.starts_with("'''") { 3 } else { 1 };
        let skip = quote + usize::from(quote == 3 && written[3..].starts_with('\n'));
        let literal = written.get(skip..).is_some_and(|inner| inner.starts_with(&text.value));
        if let Err(flaw) = message.add(part, text.value, labels) {
            let range = flaw.range.filter(|_| literal);
            let start = text.span.start + skip;
            let span = range.map_or(text.span.clone(), |range| start + range.start..start + range.end);
            table.error("template", span, format!("`{part}`: {}", flaw.message), flaw.help);
        }
    }

    fn body_file(&self, table: &Table<'_>, message: &mut Message, name: &Item<String>, labels: &Labels) {
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
                if let Err(Flaw { range, message, help }) = message.add("body", text, labels) {
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

const STATUSES: &[&str] = &["Creating", "Initializing", "Running", "Failed", "Success"];
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
fn alone(table: &Table<'_>, form: &str, others: &[&'static str]) {
    for key in others {
        if let Some(other) = table.value(key) {
            other.error("two-forms", format!("`{form}` and `{key}` exclude each other"), "make two rules of it");
        }
    }
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
        if let Some(operand) = table.value(operator) {
            found.push(make(field, &operand));
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

type Make = fn(Field, &Value<'_>) -> Option<Vec<Test>>;

const OPERATORS: &[(&str, Make)] = &[
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
    ("older_than", |field, operand| age(field, operand).map(|span| vec![Test::OlderThan(span)])),
    ("newer_than", |field, operand| age(field, operand).map(|span| vec![Test::NewerThan(span)])),
];

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

fn age(field: Field, operand: &Value<'_>) -> Option<std::time::Duration> {
    if field == Field::Age {
        return operand.duration();
    }
    operand.error("operators", format!("`{}` is for `age`", operand.key), "age = { older_than = \"30m\" }");
    None
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
    if operand.is_array() { operand.items()?.iter().map(one).collect() } else { Some(vec![one(operand)?]) }
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
