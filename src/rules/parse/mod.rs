//! Rule files in, rules or problems out. Strict: what is not understood is refused, with its place and a mend.

mod clauses;
mod lint;
mod when;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clauses::clauses;
pub(super) use clauses::{OPERATORS, PATTERN_BYTES_MAX, PATTERN_MAX, fits};
use when::statuses;
pub(super) use when::{CHANGING, STATUSES, WHEN_KEYS};

use super::matcher::{FIELDS, Field};
use super::proof::Flaw;
use super::template::{Message, TEXT_MAX, Use};
use super::{Group, Labels, PER_JOB, Resolve, Rule, RuleSet, Scope, When, Window, testing};
use crate::document::{File, Item, Level, Notes, Problem, Report, Table, Value, nearest, parse, suggest};
use crate::model::alert::Severity;
use crate::model::name::{FollowUpName, ReceiverName, RuleId, SourceName};
use crate::model::notification::RuleFacts;

/// The version of the rule language.
pub(super) const SCHEMA: i64 = 1;

pub(super) const SEVERITIES: &[(&str, Severity)] = &[
    ("info", Severity::Info),
    ("warning", Severity::Warning),
    ("error", Severity::Error),
    ("critical", Severity::Critical),
];

/// A year: longer than any of these makes sense.
const LONG: Duration = Duration::from_secs(366 * 86_400);
/// No job is as old as that.
const AGE: Duration = Duration::from_secs(10 * 366 * 86_400);
const SECOND: Duration = Duration::from_secs(1);

/// What is read beside the rule files themselves.
pub struct Surroundings<'a> {
    /// Reads a `body_file`.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The receivers that exist; `None` if that is not known.
    pub receivers: Option<&'a [ReceiverName]>,
    /// The windows that exist; `None` if that is not known.
    pub windows: Option<&'a [Arc<Window>]>,
    /// The sources that exist; `None` if that is not known.
    pub sources: Option<&'a [SourceName]>,
    /// The follow-ups that exist; `None` if that is not known.
    pub follow_ups: Option<&'a [FollowUpName]>,
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
    let mut copies = lint::Copies::default();
    for file in files {
        let (table, syntax) = parse(&file.text);
        let problems = RefCell::default();
        if !syntax.is_empty() {
            report.add(file, syntax);
            misspelt_headers(&Table::root(&table, &problems));
            report.add(file, problems.into_inner());
            continue;
        }
        let reader = Reader { file, surroundings, bodies: RefCell::default() };
        for (rule, span, tests) in reader.file(Table::root(&table, &problems).noted(notes)) {
            let (line, _) = file.place(span.start);
            let place = format!("{}:{line}", file.path.display());
            if let Some(first) = known.insert(rule.id().clone(), place.clone()) {
                let message = format!("the id `{}` is taken by the rule at {first}", rule.id());
                let help = Some("a rule's memory is kept under its id: give each rule its own".to_owned());
                problems.borrow_mut().push(Problem { level: Level::Error, code: "duplicate-id", message, span, help });
            } else {
                problems.borrow_mut().extend(copies.look(&rule, span, place));
            }
            set.tests.extend(tests.into_iter().map(|test| test.of(&rule)));
            set.rules.push(rule);
        }
        report.add(file, problems.into_inner());
        report.merge(reader.bodies.into_inner());
    }
    (set, report)
}

/// A `[[rul]]` before a `[[rule.test]]` is no TOML, and the parser says so somewhere else.
fn misspelt_headers(top: &Table<'_>) {
    let known = ["schema", "defaults", "rule"];
    for (name, _) in top.entries().into_iter().filter(|(name, _)| !known.contains(&name.value.as_str())) {
        if nearest(&name.value, known).is_some() {
            top.error("unknown-key", name.span, format!("unknown key `{}`", name.value), suggest(&name.value, &known));
        }
    }
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
            None => top.missing("schema", "write `schema = 1` at the top"),
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
        let when = match table.value("when") {
            Some(when) => when.table().and_then(when::when),
            None => {
                table.missing("when", "which transitions? when = { to = \"Failed\" }");
                None
            }
        };
        let matches = clauses(&table, "match");
        let except = clauses(&table, "except");
        if let (Some(when), Some(matches), Some(except)) = (&when, &matches, &except) {
            lint::never(&table, when, matches, except, self.surroundings.sources);
        }
        let severity = table.word("severity", SEVERITIES).or(defaults.severity).unwrap_or(Severity::Warning);
        let notify = match self.notify(&table) {
            Some(notify) => notify,
            None if table.has("notify") => Vec::new(),
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
        let then = self.then(&table);
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
            then,
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
        if let Some(value) = table.value("notify") {
            lint::twice(&value, &names);
            if value.is_array() && names.is_empty() {
                value.warn("nobody-told", "`notify` is empty: nobody is told", "notify = [\"oncall\"]");
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
        if let Some(value) = table.value("active") {
            lint::twice(&value, &names);
            if value.is_array() && names.is_empty() {
                value.warn("empty", "`active` is empty: the rule speaks at any time", "name a window, or remove it");
            }
        }
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

    /// What is to be done about a new finding.
    fn then(&self, table: &Table<'_>) -> Vec<FollowUpName> {
        let names = table.strings("then").unwrap_or_default();
        if let Some(value) = table.value("then") {
            lint::twice(&value, &names);
            if value.is_array() && names.is_empty() {
                value.warn("empty", "`then` is empty: nothing is done", "name a follow-up, or remove it");
            }
        }
        let mut then: Vec<FollowUpName> = Vec::new();
        for name in names {
            if let Some(known) = self.surroundings.follow_ups
                && !known.iter().any(|known| known.as_str() == name.value)
            {
                let words: Vec<&str> = known.iter().map(FollowUpName::as_str).collect();
                let message = format!("there is no follow-up `{}`", name.value);
                let help = match words.is_empty() {
                    true => format!("follow-ups stand in the configuration: [follow_up.{}]", name.value),
                    false => suggest(&name.value, &words),
                };
                table.error("unknown-follow-up", name.span, message, help);
                continue;
            }
            let name = FollowUpName::from(name.value);
            if !then.contains(&name) {
                then.push(name);
            }
        }
        then
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

/// Whether findings or groups can be told apart by a field.
pub(super) fn tells_apart(field: Field) -> bool {
    !matches!(field, Field::Age | Field::Status)
}

/// Fields that tell findings or groups apart; `job.` may stand before those of a job.
fn fields(value: &Value<'_>) -> Option<Vec<Field>> {
    let known: Vec<&str> = FIELDS.iter().filter(|(_, field)| tells_apart(*field)).map(|(name, _)| *name).collect();
    let words = value.strings()?;
    lint::twice(value, &words);
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
            }
            to
        }
        None => {
            resolve.missing("to", "which status ends it? to = \"Success\"");
            None
        }
    };
    let scope = resolve.word("scope", &[("job", Scope::Job), ("resource", Scope::Resource)]);
    resolve.finish();
    Some(Resolve { to: to?, scope: scope.unwrap_or(Scope::Job) })
}

fn not_empty<T>(value: &Value<'_>, list: Option<Vec<T>>) -> Option<Vec<T>> {
    if list.as_ref().is_some_and(Vec::is_empty) {
        value.error("empty", format!("`{}` is an empty list", value.key), "put something in it, or remove it");
        return None;
    }
    list
}
