//! Warnings: what can be read and probably does not mean what it says.
//!
//! A warning never keeps a rule from working, so it may be wrong now and then; it says how to write what was meant, and
//! there is always a way to write it that is not warned of.

use std::collections::HashMap;
use std::ops::Range;

use regex_syntax::ast::{Ast, RepetitionKind};
use regex_syntax::hir::{Hir, HirKind};

use super::clauses::quoted;
use crate::document::{Item, Level, Problem, Table, Value, suggest};
use crate::model::job::Status;
use crate::model::name::{ReceiverName, SourceName};
use crate::rules::matcher::{Clause, Field, Test};
use crate::rules::{Rule, When};

const NEVER: &str = "never-fires";

/// Rules that can never fire.
pub(super) fn never(
    rule: &Table<'_>,
    when: &When,
    matches: &[Clause],
    except: &[Clause],
    sources: Option<&[SourceName]>,
) {
    let looked_at = match when {
        When::Step { to, .. } | When::Burst { to, .. } | When::New { to, .. } => to.as_deref(),
        When::Stays { status, .. } => Some(&**status),
        When::Gone { from } => from.as_deref(),
        When::Changed { .. } => None,
    };
    let of = |clauses: &[Clause], field: Field| clauses.iter().position(|clause| clause.field() == field);
    if let (Some(looked_at), Some(at)) = (looked_at, of(matches, Field::Status))
        && !looked_at.iter().any(|status| matches[at].admits(status.as_str()))
    {
        let message = format!("this rule never fires: `when` has no status that is {}", matches[at].wants());
        at_clause(rule, "match", Field::Status, NEVER, message, "name the status in `when` alone");
    }
    if let (Some(looked_at), [only]) = (looked_at, except)
        && only.field() == Field::Status
        && looked_at.iter().all(|status| only.admits(status.as_str()))
    {
        let message = "this rule never fires: `except` has every status of `when`";
        at_clause(rule, "except", Field::Status, NEVER, message, "name the status in `when` alone");
    }
    let excluded = |except: &Clause| matches.iter().any(|clause| clause.implies(except));
    if let [first, ..] = except
        && except.iter().all(excluded)
    {
        let message = "this rule never fires: `except` excludes everything that `match` lets through";
        at_clause(rule, "except", first.field(), NEVER, message, "drop one of the two, or narrow `except`");
    }
    for (key, clauses) in [("match", matches), ("except", except)] {
        if let (Some(sources), Some(at)) = (sources, of(clauses, Field::Source)) {
            unknown_sources(rule, key, &clauses[at], sources);
        }
    }
}

fn unknown_sources(rule: &Table<'_>, key: &'static str, clause: &Clause, sources: &[SourceName]) {
    let known: Vec<&str> = sources.iter().map(SourceName::as_str).collect();
    let Some(value) = value_of(rule, key, Field::Source) else { return };
    let parts = if value.is_array() { value.items().unwrap_or_default() } else { vec![value] };
    let names = parts.iter().filter(|part| part.is_string()).filter_map(Value::string);
    let mut told = false;
    for name in names.filter(|name| !known.contains(&name.value.as_str())) {
        told = true;
        let message = format!("there is no source `{}`", name.value);
        rule.report(Level::Warning, "unknown-source", name.span, message, suggest(&name.value, &known));
    }
    if !told && key == "match" && !known.iter().any(|source| clause.admits(source)) {
        let message = format!("this rule never fires: no source is {}", clause.wants());
        at_clause(rule, key, Field::Source, NEVER, message, format!("the sources: {}", known.join(", ")));
    }
}

fn value_of<'t>(rule: &Table<'t>, key: &'static str, field: Field) -> Option<Value<'t>> {
    rule.value(key)?.table()?.value(field.as_str())
}

fn at_clause(
    rule: &Table<'_>,
    key: &'static str,
    field: Field,
    code: &'static str,
    message: impl Into<String>,
    help: impl Into<String>,
) {
    if let Some(value) = value_of(rule, key, field) {
        value.warn(code, message, help);
    }
}

/// A job may run again after a failure, so one that is still `Failed` is worth a rule. Nothing comes after `Success`.
pub(super) fn for_ever(value: &Value<'_>, list: &[Status]) {
    if list.contains(&Status::Success) {
        let message = "a job stays `Success` for ever: this fires for each one that ends well, only later";
        value.warn("stays-for-ever", message, "when = { to = \"Success\" } fires at once");
    }
}

/// Only a failure has a reason.
pub(super) fn without_reason(value: &Value<'_>, to: &[Status]) {
    let has_reason = |status: &Status| match status {
        Status::Failed | Status::Other(_) => true,
        Status::Creating | Status::Initializing | Status::Running | Status::Success => false,
    };
    if !to.iter().any(has_reason) {
        let message = "this rule never fires: a job has a reason when it is `Failed`";
        value.warn(NEVER, message, "to = \"Failed\"");
    }
}

/// A word that a list has twice: perhaps another was meant.
pub(super) fn twice(value: &Value<'_>, words: &[Item<String>]) {
    for (at, word) in words.iter().enumerate() {
        if words[..at].iter().any(|before| before.value == word.value) {
            let message = format!("`{}` has `{}` twice", value.key, word.value);
            value.report(Level::Warning, "twice", word.span.clone(), message, "remove one, or name what was meant");
        }
    }
}

/// The tests of one field together: one of them must hold.
pub(super) fn choice(value: &Value<'_>, field: Field, any: &[Test]) {
    let always = |test: &Test| matches!(test, Test::Exists(true));
    let never = |test: &Test| matches!(test, Test::Exists(false));
    let not = |test: &Test| matches!(test, Test::Not(_));
    if matches!(field, Field::Id | Field::Status | Field::Source) && any.iter().any(|test| always(test) || never(test))
    {
        let message = format!("every job has `{}`: this holds for all, or for none", field.as_str());
        value.warn("exists", message, "remove it");
    } else if any.iter().any(always) && any.len() > 1 {
        let message = "in a list one has to hold: beside `exists = true`, the others say nothing";
        value.warn("says-nothing", message, "remove `exists = true`, or the others");
    } else if any.iter().any(not) && any.iter().filter(|test| !never(test)).count() > 1 {
        let message = "in a list one has to hold: beside `not`, the others say little or nothing";
        value.warn("says-nothing", message, "name all that are unwanted in one: { not = [\"a\", \"b\"] }");
    } else if any.iter().enumerate().any(|(at, test)| any[..at].contains(test)) {
        value.warn("twice", format!("`{}` has the same test twice", value.key), "remove one, or name what was meant");
    }
}

/// What a text looks like that is taken as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Glob,
    Regex,
}

impl Look {
    /// Reasons are sentences: brackets, question marks and bars alone mean nothing in them.
    fn of(field: Field, text: &str) -> Option<Self> {
        let sentence = matches!(field, Field::Reason | Field::ReasonClass);
        let is_regex = Self::is_regex(text) || ["[0-9", "[a-z", "[^"].iter().any(|mark| text.contains(mark));
        let either = || text.split_once('|').is_some_and(|(before, after)| before.contains('(') && after.contains(')'));
        if is_regex || either() || !sentence && text.contains('|') {
            return Some(Self::Regex);
        }
        let within = |open: char, close: char, inner: fn(&str) -> bool| {
            text.split_once(open)
                .and_then(|(_, rest)| rest.split_once(close))
                .is_some_and(|(between, _)| inner(between))
        };
        let brackets = || within('[', ']', |between| !between.is_empty()) || within('{', '}', |one| one.contains(','));
        (text.contains('*') || !sentence && (text.contains('?') || brackets())).then_some(Self::Glob)
    }

    /// Whether it has what only regular expressions have.
    fn is_regex(text: &str) -> bool {
        const MARKS: &[&str] = &[".*", ".+", r"\d", r"\w", r"\s", r"\b", r"\S", r"\.", "(?"];
        MARKS.iter().any(|mark| text.contains(mark)) || text.starts_with('^') || text.ends_with('$')
    }

    fn name(self) -> &'static str {
        match self {
            Self::Glob => "a glob",
            Self::Regex => "a regular expression",
        }
    }

    fn operator(self) -> &'static str {
        match self {
            Self::Glob => "glob",
            Self::Regex => "regex",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Glob => "looks-like-glob",
            Self::Regex => "looks-like-regex",
        }
    }
}

/// A plain value.
pub(super) fn exact(value: &Value<'_>, field: Field, text: &str) {
    if let Some(look) = Look::of(field, text) {
        let message = format!("a plain value is exact, and this looks like {}", look.name());
        value.warn(look.code(), message, format!("did you mean {{ {} = {} }}?", look.operator(), quoted(text)));
    }
}

/// A word of `not`, which takes no patterns.
pub(super) fn unwanted(value: &Value<'_>, field: Field, text: &str) {
    if let Some(look) = Look::of(field, text) {
        let message = format!("`not` takes plain values, and this looks like {}", look.name());
        let (name, operator, text) = (field.as_str(), look.operator(), quoted(text));
        value.warn(look.code(), message, format!("did you mean except = {{ {name} = {{ {operator} = {text} }} }}?"));
    }
}

/// The operand of `prefix`, `suffix` and `contains`.
pub(super) fn as_it_is(value: &Value<'_>, field: Field, text: &str) {
    let Some(look) = Look::of(field, text) else { return };
    let message = format!("`{}` takes plain text, and this looks like {}", value.key, look.name());
    let bare = text.trim_matches('*');
    let help = match look {
        Look::Glob if bare != text && !bare.is_empty() && Look::of(field, bare).is_none() => {
            format!("leave the `*` out: {{ {} = {} }}", value.key, quoted(bare))
        }
        Look::Glob | Look::Regex => format!("did you mean {{ {} = {} }}?", look.operator(), quoted(text)),
    };
    value.warn(look.code(), message, help);
}

/// A glob that is none.
pub(super) fn glob(value: &Value<'_>, text: &str) {
    if Look::is_regex(text) {
        let help = format!("did you mean {{ regex = {} }}?", quoted(text));
        value.warn("looks-like-regex", "this glob looks like a regular expression", help);
    } else if !text.contains(['*', '?', '[', '{', '\\']) {
        let help = format!("a plain value says the same: {}", quoted(text));
        value.warn("plain-text", "this glob has no `*`, `?`, `[` or `{`: it is plain text", help);
    }
}

/// A regular expression that is plain text, or a glob.
pub(super) fn regex(value: &Value<'_>, text: &str) {
    let literal = regex_syntax::parse(text).ok().as_ref().and_then(literal);
    if let Some(literal) = literal {
        let help = format!("{{ contains = {} }} says the same", quoted(&literal));
        value.warn("plain-text", "this regular expression is plain text", help);
    } else if let Some(span) = repeated_by_mistake(text) {
        let message = "here `*` repeats the character before it, any number of times, also none";
        let help = format!("did you mean {{ glob = {} }}? any text is `.*` in a regular expression", quoted(text));
        value.report(Level::Warning, "looks-like-glob", value.part(span), message, help);
    }
}

/// The text, when an expression is nothing else.
fn literal(hir: &Hir) -> Option<String> {
    if let HirKind::Literal(literal) = hir.kind() { String::from_utf8(literal.0.to_vec()).ok() } else { None }
}

/// A `*` after a plain character at the end, or after a mark between words: `prod*`, `prod-*-eu`.
fn repeated_by_mistake(text: &str) -> Option<Range<usize>> {
    let ast = regex_syntax::ast::parse::Parser::new().parse(text).ok()?;
    let parts = if let Ast::Concat(concat) = &ast { concat.asts.as_slice() } else { std::slice::from_ref(&ast) };
    parts.iter().enumerate().find_map(|(at, part)| {
        let Ast::Repetition(repetition) = part else { return None };
        let Ast::Literal(repeated) = &*repetition.ast else { return None };
        let last = at + 1 == parts.len() && !repeated.c.is_whitespace();
        let mark = matches!(repeated.c, '-' | '_' | '/') && at > 0;
        let star = repetition.op.kind == RepetitionKind::ZeroOrMore && repetition.greedy;
        (star && (last || mark)).then_some(repetition.span.start.offset..repetition.span.end.offset)
    })
}

/// Rules that say the same to the same receivers: all but one are copies that were never changed.
#[derive(Default)]
pub(super) struct Copies {
    seen: HashMap<String, String>,
}

impl Copies {
    /// Remembers a rule, whose id stands there; the warning, if there was one like it.
    pub(super) fn look(&mut self, rule: &Rule, span: Range<usize>, place: String) -> Option<Problem> {
        let Rule { when, matches, except, active, .. } = rule;
        let mut told: Vec<&str> = rule.notify.iter().map(ReceiverName::as_str).collect();
        told.sort_unstable();
        let active: Vec<&str> = active.iter().map(|window| window.name.as_str()).collect();
        let meaning = format!("{when:?} {matches:?} {except:?} {told:?} {active:?}");
        let first = self.seen.get(&meaning);
        let Some(first) = first else {
            self.seen.insert(meaning, format!("`{}` ({place})", rule.id()));
            return None;
        };
        Some(Problem {
            level: Level::Warning,
            code: "copy",
            message: format!("this rule fires whenever {first} does, and tells the same receivers"),
            span,
            help: Some("change what it is to look at, or remove one of the two".to_owned()),
        })
    }
}
