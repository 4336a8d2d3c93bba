//! Typed reading of TOML tables: values by key, every problem with its place.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SpanTotal, Unit};
use secrecy::SecretString;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::notes::{Notes, Trail};
use super::problem::{Level, Problem};
use super::{nearest, suggest};

/// Parses a file. Syntax errors are returned as problems, all of them.
pub fn parse<'t>(text: &'t str) -> (Spanned<DeTable<'t>>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problem = |error: toml::de::Error| Problem {
        level: Level::Error,
        code: "syntax",
        message: format!("this is not TOML: {}", error.message()),
        span: error.span().unwrap_or(0..0),
        help: None,
    };
    (table, errors.into_iter().map(problem).collect())
}

/// The code of what is not there, and the words for it.
const MISSING: &str = "missing-key";

fn lacks(key: &str) -> String {
    format!("`{key}` is missing")
}

/// A table being read. See the module's words.
#[derive(Debug)]
pub struct Table<'t> {
    entries: &'t DeTable<'t>,
    /// Where a key is looked for that is not in `entries`.
    defaults: Option<(&'t DeTable<'t>, Option<Trail<'t>>)>,
    span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
    later: RefCell<Vec<(&'static str, &'static str)>>,
    problems: &'t RefCell<Vec<Problem>>,
    /// Where what is asked is noted; nowhere outside tests.
    trail: Option<Trail<'t>>,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T> {
    /// The value.
    pub value: T,
    /// The bytes it was written in.
    pub span: Range<usize>,
}

/// A value whose type is yet to be asked for.
#[derive(Debug)]
pub struct Value<'t> {
    /// The key it stands under.
    pub key: String,
    value: &'t Spanned<DeValue<'t>>,
    problems: &'t RefCell<Vec<Problem>>,
    trail: Option<Trail<'t>>,
}

/// A reference to a secret, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "PATH" }`
    File(String),
    /// `{ credential = "NAME" }`, a systemd credential.
    Credential(String),
    /// A literal string.
    Inline(String),
}

/// Who turns a reference into the secret. A refusal is a problem (its level, message and mend), not an accident.
pub trait Secrets {
    /// The secret, or why it cannot be had.
    ///
    /// # Errors
    /// How bad it is, what is wrong and what would mend it.
    fn resolve(&self, secret: &Secret) -> Result<SecretString, (Level, String, String)>;

    /// The place of a secret that can change while the agent runs; `None` for those that can't.
    fn living(&self, secret: &Secret) -> Option<Arc<dyn Living>>;

    /// A variable of the environment, empty ones being none.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file and, since it may change, its place.
    ///
    /// # Errors
    /// It can't be read.
    fn file(&self, path: &str) -> std::io::Result<(SecretString, Arc<dyn Living>)>;
}

/// The place of a secret that can change while the agent runs.
pub trait Living: fmt::Debug + Send + Sync {
    /// The secret, if its place has changed since it was last read and can be read.
    fn fresh(&self) -> Option<SecretString>;
}

/// A secret as it is, and where it comes from if it can change.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The secret.
    pub value: SecretString,
    /// Where it can be read anew.
    pub living: Option<Arc<dyn Living>>,
}

impl<'t> Table<'t> {
    /// The top of a document.
    pub fn root(table: &'t Spanned<DeTable<'t>>, problems: &'t RefCell<Vec<Problem>>) -> Self {
        // What is missing from a whole file is missing at its top.
        Self::new(table.get_ref(), 0..0, problems, None)
    }

    fn new(
        entries: &'t DeTable<'t>,
        span: Range<usize>,
        problems: &'t RefCell<Vec<Problem>>,
        trail: Option<Trail<'t>>,
    ) -> Self {
        if let Some(trail) = &trail {
            trail.enter();
        }
        Self { entries, defaults: None, span, asked: RefCell::default(), later: RefCell::default(), problems, trail }
    }

    /// This table, with what is asked of it and of the tables in it noted down.
    #[must_use]
    pub fn noted(self, notes: Option<&'t Notes>) -> Self {
        Self { trail: notes.map(Trail::root), ..self }
    }

    /// This table, with another one's values for the keys that it lacks.
    #[must_use]
    pub fn with_defaults(self, defaults: Option<&Self>) -> Self {
        Self { defaults: defaults.map(|defaults| (defaults.entries, defaults.trail.clone())), ..self }
    }

    /// The keys that were asked for so far.
    pub fn asked(&self) -> Vec<&'static str> {
        self.asked.borrow().clone()
    }

    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Reports an error at a place in this document.
    pub fn error(&self, code: &'static str, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.report(Level::Error, code, span, message, help);
    }

    /// Reports a problem at a place in this document. An empty `help` is none.
    pub fn report(
        &self,
        level: Level,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.problems.borrow_mut().push(Problem { level, code, message: message.into(), span, help });
    }

    /// The value under `key`, of whatever type. Every other reader comes through here.
    pub fn value(&self, key: &'static str) -> Option<Value<'t>> {
        if let Some(trail) = &self.trail {
            trail.ask(key, &[]);
        }
        self.misplaced(key)
    }

    /// The value under a key that has no place here: known, so that the reader can refuse it in better words than that
    /// it is unknown.
    pub fn misplaced(&self, key: &'static str) -> Option<Value<'t>> {
        self.asked.borrow_mut().push(key);
        let own = self.entries.get(key).map(|value| (value, &self.trail));
        let inherited = || self.defaults.as_ref().and_then(|(table, trail)| Some((table.get(key)?, trail)));
        let (value, trail) = own.or_else(inherited)?;
        let trail = trail.as_ref().map(|trail| trail.under(key));
        Some(Value { key: key.to_owned(), value, problems: self.problems, trail })
    }

    /// Whether something stands under `key`, whatever it is.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key) || self.defaults.as_ref().is_some_and(|(defaults, _)| defaults.contains_key(key))
    }

    /// Reports that `key` is missing.
    pub fn missing(&self, key: &str, help: impl Into<String>) {
        self.error(MISSING, self.span(), lacks(key), help);
    }

    /// Announces keys that somebody else has read.
    pub fn known(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend(keys);
        if let Some(trail) = &self.trail {
            keys.iter().for_each(|key| trail.ask(key, &[]));
        }
    }

    /// Announces a key that is spelt right but that this version cannot honour, and why; it is refused, not ignored.
    pub fn not_yet(&self, key: &'static str, instead: &'static str) {
        self.later.borrow_mut().push((key, instead));
    }

    /// A string.
    pub fn string(&self, key: &'static str) -> Option<Item<String>> {
        self.value(key)?.string()
    }

    /// A string that must be there; `help` says what to write.
    pub fn required(&self, key: &'static str, help: &str) -> Option<Item<String>> {
        match self.value(key) {
            Some(value) => value.string(),
            None => {
                self.missing(key, help);
                None
            }
        }
    }

    /// A string or a list of strings.
    pub fn strings(&self, key: &'static str) -> Option<Vec<Item<String>>> {
        self.value(key)?.strings()
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        self.value(key)?.flag()
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, range: Range<i64>) -> Option<i64> {
        self.value(key)?.integer(range)
    }

    /// A duration such as `"30s"`, within `range`.
    pub fn duration(&self, key: &'static str, range: Range<Duration>) -> Option<Duration> {
        self.value(key)?.duration_in(range)
    }

    /// One of a set of words.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        if let Some(trail) = &self.trail {
            trail.ask(key, &known);
        }
        let value = self.value(key)?;
        if !value.value.get_ref().is_str() {
            return value.mistyped(&format!("a word ({})", known.join(", ")));
        }
        let item = value.string()?;
        let found = words.iter().find(|(word, _)| *word == item.value).map(|(_, value)| *value);
        if found.is_none() {
            self.error(
                "unknown-word",
                item.span,
                format!("`{key}` cannot be `{}`", item.value),
                suggest(&item.value, &known),
            );
        }
        found
    }

    /// A secret, fetched through `secrets`.
    pub fn secret(&self, key: &'static str, secrets: &dyn Secrets) -> Option<Item<SecretString>> {
        self.value(key)?.secret(secrets)
    }

    /// A secret that may change while the agent runs, fetched through `secrets`.
    pub fn kept(&self, key: &'static str, secrets: &dyn Secrets) -> Option<Item<Kept>> {
        self.value(key)?.kept(secrets)
    }

    /// A nested table.
    pub fn table(&self, key: &'static str) -> Option<Table<'t>> {
        self.value(key)?.table()
    }

    /// An array of tables, `[[key]]`.
    pub fn tables(&self, key: &'static str) -> Vec<Table<'t>> {
        self.value(key).and_then(|value| value.items()).into_iter().flatten().filter_map(|item| item.table()).collect()
    }

    /// All entries of a table whose keys are names.
    pub fn entries(&self) -> Vec<(Item<String>, Value<'t>)> {
        let name =
            |key: &'t Spanned<toml::de::DeString<'t>>| Item { value: key.get_ref().to_string(), span: key.span() };
        let entry = |(key, value): (&'t Spanned<toml::de::DeString<'t>>, &'t Spanned<DeValue<'t>>)| {
            let trail = self.trail.as_ref().map(|trail| trail.under(key.get_ref()));
            (name(key), Value { key: key.get_ref().to_string(), value, problems: self.problems, trail })
        };
        self.entries.iter().map(entry).collect()
    }

    /// Reports every key that nobody asked for. A key that is missing because it is misspelt is one mistake, not two.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        let later = self.later.borrow();
        for (key, _) in self.entries.iter() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            if let Some((_, instead)) = later.iter().find(|(known, _)| *known == name) {
                self.error("not-yet", key.span(), format!("`{name}` is not available in this version"), *instead);
                continue;
            }
            let mut known: Vec<&str> = asked.clone();
            known.sort_unstable();
            known.dedup();
            if let Some(meant) = nearest(name, known.iter().copied()) {
                let words = lacks(meant);
                let same = |problem: &Problem| {
                    problem.code == MISSING && problem.span == self.span && problem.message == words
                };
                self.problems.borrow_mut().retain(|problem| !same(problem));
            }
            self.error("unknown-key", key.span(), format!("unknown key `{name}`"), suggest(name, &known));
        }
    }
}

impl<'t> Value<'t> {
    /// Where it stands.
    pub fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Reports an error about this value.
    pub fn error(&self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.error_at(code, self.span(), message, help);
    }

    /// Reports what probably is not meant.
    pub fn warn(&self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.report(Level::Warning, code, self.span(), message, help);
    }

    /// Where a part of its text stands: exactly, when nothing in it is written otherwise than it is.
    pub fn part(&self, part: Range<usize>) -> Range<usize> {
        let (span, length) = (self.span(), self.value.get_ref().as_str().map_or(0, str::len));
        // One quote on each side, and as many bytes as the text: nothing was escaped.
        if span.len() == length + 2 { span.start + 1 + part.start..span.start + 1 + part.end } else { span }
    }

    /// Reports an error about a part of this value.
    pub fn error_at(
        &self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report(Level::Error, code, span, message, help);
    }

    /// Reports a problem with a part of this value. An empty `help` is none.
    pub fn report(
        &self,
        level: Level,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.problems.borrow_mut().push(Problem { level, code, message: message.into(), span, help });
    }

    /// Reports that it has the wrong type.
    pub fn mistyped<T>(&self, wanted: &str) -> Option<T> {
        let found = self.value.get_ref().type_str();
        self.error("wrong-type", format!("`{}` is a TOML {found}", self.key), format!("{wanted} belongs here"));
        None
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// Whether it is a string.
    pub fn is_string(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Whether it is a list.
    pub fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// As a string.
    pub fn string(&self) -> Option<Item<String>> {
        match self.value.get_ref().as_str() {
            Some(text) => Some(Item { value: text.to_owned(), span: self.span() }),
            None => self.mistyped("a string"),
        }
    }

    /// As a string or a list of strings.
    pub fn strings(&self) -> Option<Vec<Item<String>>> {
        if self.is_array() {
            return Some(self.items()?.iter().filter_map(Value::string).collect());
        }
        if self.value.get_ref().is_str() {
            return Some(self.string().into_iter().collect());
        }
        self.mistyped("a string or a list of strings")
    }

    /// As `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.mistyped("`true` or `false`"))
    }

    /// As a whole number within `range`.
    pub fn integer(&self, range: Range<i64>) -> Option<i64> {
        let Some(number) = self.value.get_ref().as_integer() else { return self.mistyped("a whole number") };
        let number = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let help = format!("anything from {} to {}", range.start, range.end - 1);
            self.error("out-of-range", format!("`{}` is out of range", self.key), help);
        }
        number
    }

    /// As a duration such as `"30s"`.
    pub fn duration(&self) -> Option<Duration> {
        const HELP: &str = "a number and one of ms, s, m, h, d: \"500ms\", \"30s\", \"5m\", \"2h\", \"14d\"";
        let Some(text) = self.value.get_ref().as_str() else { return self.mistyped("a duration such as \"30s\"") };
        let read = duration(text);
        if read.is_none() {
            let unitless =
                || text.trim().parse::<u32>().ok().map(|n| format!("the unit is missing: \"{n}s\", \"{n}m\""));
            let meant = || meant(text).map(|meant| format!("did you mean \"{}\"?", as_written(meant)));
            let help = unitless().or_else(meant).unwrap_or_else(|| HELP.to_owned());
            self.error("not-a-duration", format!("`{}` is not a duration: `{text}`", self.key), help);
        }
        read
    }

    /// As a duration such as `"30s"`, within `range`.
    pub fn duration_in(&self, range: Range<Duration>) -> Option<Duration> {
        let duration = self.duration()?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let help = format!("at least {}, less than {}", as_written(range.start), as_written(range.end));
        self.error("out-of-range", format!("`{}` is out of range", self.key), help);
        None
    }

    /// As a list.
    pub fn items(&self) -> Option<Vec<Value<'t>>> {
        let Some(array) = self.value.get_ref().as_array() else { return self.mistyped("a list") };
        let item = |(at, value)| {
            let trail = self.trail.as_ref().map(|trail| trail.at(at));
            Value { key: self.key.clone(), value, problems: self.problems, trail }
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// As a table.
    pub fn table(&self) -> Option<Table<'t>> {
        match self.value.get_ref().as_table() {
            Some(entries) => Some(Table::new(entries, self.span(), self.problems, self.trail.clone())),
            None => self.mistyped("a table"),
        }
    }

    /// As a secret.
    pub fn secret(&self, secrets: &dyn Secrets) -> Option<Item<SecretString>> {
        self.kept(secrets).map(|item| Item { value: item.value.value, span: item.span })
    }

    /// As a secret that may change while the agent runs.
    pub fn kept(&self, secrets: &dyn Secrets) -> Option<Item<Kept>> {
        const HELP: &str = "write { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";
        let secret = if self.is_table() {
            let table = self.table()?;
            let found = [
                table.string("env").map(|item| Secret::Env(item.value)),
                table.string("file").map(|item| Secret::File(item.value)),
                table.string("credential").map(|item| Secret::Credential(item.value)),
            ];
            table.finish();
            let mut found = found.into_iter().flatten();
            match (found.next(), found.next()) {
                (Some(secret), None) => secret,
                _ => {
                    self.error("not-a-secret", format!("`{}` must name exactly one place", self.key), HELP);
                    return None;
                }
            }
        } else if let Some(text) = self.value.get_ref().as_str() {
            Secret::Inline(text.to_owned())
        } else {
            return self.mistyped("a secret");
        };
        match secrets.resolve(&secret) {
            Ok(value) => {
                let living = secrets.living(&secret);
                Some(Item { value: Kept { value, living }, span: self.span() })
            }
            Err((level, message, help)) => {
                let message = format!("`{}`: {message}", self.key);
                let problem = Problem { level, code: "secret", message, span: self.span(), help: Some(help) };
                self.problems.borrow_mut().push(problem);
                None
            }
        }
    }
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `14d`. `None` for anything else.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

/// What was meant by another way to write a duration: `10 min`, `1h30m`, `1.5h`, `2 weeks`.
fn meant(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.trim().to_lowercase().parse().ok()?;
    let total = span.total(SpanTotal::from(Unit::Second).days_are_24_hours()).ok()?;
    Duration::try_from_secs_f64(total).ok().filter(|meant| duration(&as_written(*meant)) == Some(*meant))
}

/// A duration as files have it, in the greatest unit that needs no fraction.
fn as_written(span: Duration) -> String {
    let (seconds, ms) = (span.as_secs(), span.as_millis());
    match [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)].into_iter().find(|(_, unit)| seconds % unit == 0) {
        Some((unit, length)) if span.subsec_nanos() == 0 && seconds > 0 => format!("{}{unit}", seconds / length),
        Some(_) | None if ms == 0 => "0s".to_owned(),
        Some(_) | None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::{as_written, meant};

    #[test]
    fn other_ways_to_write_a_duration_are_understood_well_enough_to_say_how_it_is_written() {
        let said = |text| meant(text).map(as_written);
        let ways = [
            ("10 min", Some("10m")),
            ("10 Minutes", Some("10m")),
            ("1h30m", Some("90m")),
            ("1.5h", Some("90m")),
            ("2 weeks", Some("14d")),
            ("24 hours", Some("1d")),
            ("90sec", Some("90s")),
            ("1500 ms", Some("1500ms")),
            ("soon", None),
            ("1 month", None),
            ("-5m", None),
            ("", None),
        ];
        for (text, wanted) in ways {
            assert_eq!(said(text).as_deref(), wanted, "{text}");
        }
    }
}
