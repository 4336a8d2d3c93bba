//! `match` and `except`: fields, operators and patterns.

use globset::GlobBuilder;
use regex::RegexBuilder;

use super::when::{STATUSES, no_status};
use super::{AGE, SECOND, lint, not_empty};
use crate::document::{Table, Value, nearest, suggest};
use crate::rules::matcher::{Clause, FIELDS, Field, Glob, Test};

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
        // Every value is read, also after one that is wrong.
        true => values.iter().map(|value| tests(field, value)).collect::<Vec<_>>().into_iter().collect(),
        false => Some(vec![tests(field, value)?]),
    };
    let any = not_empty(value, Some(any?.into_iter().flatten().collect()))?;
    lint::choice(value, field, &any);
    Some(Clause { field, any })
}

fn tests(field: Field, value: &Value<'_>) -> Option<Vec<Test>> {
    if !value.is_table() {
        if field == Field::Age {
            return value.mistyped("{ older_than = \"30m\" } or { newer_than = \"2h\" }");
        }
        let text = exact(field, value)?;
        lint::exact(value, field, &text);
        return Some(vec![Test::Exact(text)]);
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
    let known: Vec<&str> = OPERATORS.iter().map(|(name, _)| *name).collect();
    let strange =
        table.entries().into_iter().map(|(name, _)| name).filter(|name| !known.contains(&name.value.as_str()));
    for name in strange {
        let message = format!("there is no operator `{}`", name.value);
        value.error_at("unknown-key", name.span, message, operator(&name.value, &known));
    }
    if found.len() > 1 {
        let help = "write a list of objects for `or`, a second field for `and`";
        value.error("operators", "an object holds one operator", help);
        return None;
    }
    if table.entries().is_empty() {
        value.error("operators", "an object needs an operator", format!("one of: {}", known.join(", ")));
    }
    // What is beside the operator was reported: the clause cannot be used.
    found.pop()?.filter(|_| table.entries().len() == 1)
}

/// The operator that was meant: a misspelt one, or another language's word for it.
fn operator(word: &str, known: &[&str]) -> String {
    const ELSEWHERE: &[(&str, &str)] = &[
        ("startswith", "prefix"),
        ("beginswith", "prefix"),
        ("endswith", "suffix"),
        ("includes", "contains"),
        ("has", "contains"),
        ("like", "glob"),
        ("wildcard", "glob"),
        ("match", "regex"),
        ("matches", "regex"),
        ("pattern", "regex"),
        ("re", "regex"),
        ("ne", "not"),
        ("notin", "not"),
        ("older", "older_than"),
        ("newer", "newer_than"),
        ("younger_than", "newer_than"),
    ];
    let bare = word.to_lowercase().replace(['_', '-'], "");
    match ELSEWHERE.iter().find(|(other, _)| *other == bare || *other == word) {
        Some((_, meant)) => format!("did you mean `{meant}`?"),
        None if matches!(bare.as_str(), "eq" | "equals" | "is" | "exact" | "in")
            && nearest(word, known.iter().copied()).is_none() =>
        {
            "a plain value is exact, a list is any of them: type = \"CreateInstance\"".to_owned()
        }
        None => suggest(word, known),
    }
}

pub(in crate::rules) type Make = fn(Field, &Value<'_>) -> Option<Vec<Test>>;

pub(in crate::rules) const OPERATORS: &[(&str, Make)] = &[
    ("glob", |_, operand| patterns(operand, glob)),
    ("regex", |_, operand| patterns(operand, regex)),
    ("prefix", |field, operand| plain(field, operand, Test::Prefix)),
    ("suffix", |field, operand| plain(field, operand, Test::Suffix)),
    ("contains", |field, operand| plain(field, operand, Test::Contains)),
    ("not", |field, operand| {
        let one = |item: &Value<'_>| exact(field, item).inspect(|text| lint::unwanted(item, field, text));
        let words: Vec<Option<String>> = match operand.is_array() {
            true => operand.items()?.iter().map(one).collect(),
            false => vec![one(operand)],
        };
        not_empty(operand, words.into_iter().collect()).map(|words| vec![Test::Not(words)])
    }),
    ("exists", |_, operand| Some(vec![Test::Exists(operand.flag()?)])),
    ("older_than", |_, operand| operand.duration_in(SECOND..AGE).map(|span| vec![Test::OlderThan(span)])),
    ("newer_than", |_, operand| operand.duration_in(SECOND..AGE).map(|span| vec![Test::NewerThan(span)])),
];

/// Whether an operator says something about a field.
pub(in crate::rules) fn fits(field: Field, operator: &str) -> bool {
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
        value.error("unknown-status", format!("unknown status `{text}`"), no_status(&text, STATUSES));
        return None;
    }
    Some(text)
}

/// An operator that takes its operand as it is.
fn plain(field: Field, operand: &Value<'_>, make: fn(String) -> Test) -> Option<Vec<Test>> {
    patterns(operand, |text, value| {
        lint::as_it_is(value, field, &text);
        Some(make(text))
    })
}

fn patterns(operand: &Value<'_>, make: impl Fn(String, &Value<'_>) -> Option<Test>) -> Option<Vec<Test>> {
    let one = |value: &Value<'_>| {
        let text = value.string()?.value;
        if text.is_empty() || text.len() > PATTERN_MAX {
            value.error("pattern", format!("a pattern has 1 to {PATTERN_MAX} bytes"), "");
            return None;
        }
        make(text, value)
    };
    if operand.is_array() {
        let found: Vec<Option<Test>> = operand.items()?.iter().map(one).collect();
        return not_empty(operand, found.into_iter().collect());
    }
    Some(vec![one(operand)?])
}

fn glob(text: String, value: &Value<'_>) -> Option<Test> {
    match GlobBuilder::new(&text).literal_separator(false).backslash_escape(true).build() {
        Ok(glob) => {
            lint::glob(value, &text);
            Some(Test::Glob(Glob::new(&glob)))
        }
        Err(error) => {
            value.error(
                "pattern",
                format!("this glob does not work: {}", error.kind()),
                "`*` any text, `?` one ASCII character, `[ab]` one of, `{a,b}` either",
            );
            None
        }
    }
}

fn regex(text: String, value: &Value<'_>) -> Option<Test> {
    const HELP: &str = "syntax: docs.rs/regex; look-around and back-references do not exist";
    let (part, words) = match RegexBuilder::new(&text).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(regex) => {
            lint::regex(value, &text);
            return Some(Test::Regex(regex));
        }
        // The engine's own error has no place.
        Err(error) => match regex_syntax::parse(&text) {
            Err(regex_syntax::Error::Parse(error)) => (Some(*error.span()), error.kind().to_string()),
            Err(regex_syntax::Error::Translate(error)) => (Some(*error.span()), error.kind().to_string()),
            Err(_) | Ok(_) => (None, error.to_string()),
        },
    };
    let span = part.map_or(value.span(), |part| value.part(part.start.offset..part.end.offset));
    let help = match text.strip_prefix('*') {
        Some(_) => format!("did you mean {{ glob = {} }}? ({HELP})", quoted(&text)),
        None => HELP.to_owned(),
    };
    value.error_at("pattern", span, format!("this regular expression does not work: {words}"), help);
    None
}

/// A text as a file has it.
pub(super) fn quoted(text: &str) -> String {
    if text.contains(['\\', '"']) && !text.contains(['\'', '\n']) { format!("'{text}'") } else { format!("{text:?}") }
}
