//! Typed reading of TOML tables: values by key, every problem with its place.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::notes::{Notes, Trail};
use super::problem::{Level, Problem};
use super::suggest;

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
        Self::new(table.get_ref(), table.span(), problems, None)
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
        self.error("missing-key", self.span(), format!("`{key}` is missing"), help);
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
        let value = self.value(key)?;
        let duration = value.duration()?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let help = format!("anything from {:?} to {:?}", range.start, range.end);
        self.error("out-of-range", value.span(), format!("`{key}` is out of range"), help);
        None
    }

    /// One of a set of words.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        if let Some(trail) = &self.trail {
            trail.ask(key, &words.iter().map(|(word, _)| *word).collect::<Vec<_>>());
        }
        let item = self.string(key)?;
        let found = words.iter().find(|(word, _)| *word == item.value).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
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

    /// Reports every key that nobody asked for.
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
        let help = Some(help.into()).filter(|help| !help.is_empty());
        let problem = Problem { level: Level::Error, code, message: message.into(), span: self.span(), help };
        self.problems.borrow_mut().push(problem);
    }

    /// Reports an error about a part of this value.
    pub fn error_at(
        &self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.problems.borrow_mut().push(Problem { level: Level::Error, code, message: message.into(), span, help });
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
        let text = self.string()?;
        let read = duration(&text.value);
        if read.is_none() {
            let help = "a number and one of ms, s, m, h, d: \"500ms\", \"30s\", \"5m\", \"2h\", \"14d\"";
            self.error("not-a-duration", format!("`{}` is not a duration: `{}`", self.key, text.value), help);
        }
        read
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
