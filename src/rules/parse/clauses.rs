//! `match` and `except`: fields, operators and patterns.

use globset::GlobBuilder;
use regex::RegexBuilder;

use super::not_empty;
use super::when::{OTHER_STATUS, STATUSES};
use crate::document::{Table, Value, suggest};
use crate::rules::matcher::{Clause, FIELDS, Field, Test};

/// A compiled pattern may take no more memory than this.
pub(in crate::rules) const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A pattern may be no longer than this.
pub(in crate::rules) const PATTERN_MAX: usize = 1024;

/// The clauses of `match` or `except`; `None` when something was wrong.
pub(super) fn clauses(rule: &Table<'_>, key: &'static str) -> Option<Vec<Clause>> {
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
