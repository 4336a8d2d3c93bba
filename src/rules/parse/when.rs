//! `when`: exactly one of its forms, with the keys of that form and no others.

use std::time::Duration;

use super::{LONG, SECOND, fields, lint, not_empty};
use crate::document::{Item, Level, Table, Value, nearest, suggest};
use crate::model::job::Status;
use crate::model::transition::State;
use crate::rules::{Field, When};

/// The keys of all forms of `when`, and the form each belongs to.
pub(in crate::rules) const WHEN_KEYS: &[(&str, &[&str])] = &[
    ("stays", &["stays", "for"]),
    ("gone_from", &["gone_from"]),
    ("changed", &["changed"]),
    ("new", &["new", "memory", "to"]),
    ("count", &["count", "within", "per", "to"]),
    ("to", &["to", "from", "gaps"]),
];

pub(in crate::rules) const STATUSES: &[&str] = &["Creating", "Initializing", "Running", "Failed", "Success"];

const OTHER_STATUS: &str = "a word that the cloud's documents do not have is matched by `when = { to = \"*\" }` with `match = { status = { glob = \"…\" } }`";

/// The steps that a rule looks at; `None` when something was wrong.
pub(super) fn when(table: Table<'_>) -> Option<When> {
    let (form, own) = form(&table);
    alone(&table, form, own);
    match form {
        "stays" => stays(table),
        "gone_from" => {
            let from = table.value("gone_from").and_then(|value| statuses(&table, &value));
            table.finish();
            Some(When::Gone { from: from? })
        }
        "changed" => {
            let fields = table.value("changed").and_then(|value| changed(&value));
            table.finish();
            Some(When::Changed { fields: fields? })
        }
        "new" => {
            let class = table.word("new", &[("reason_class", ())]);
            let memory = needed(&table, "memory", "how long is a reason remembered? memory = \"30d\"");
            let to = to(&table);
            if let (Some(Some(to)), Some(place)) = (&to, table.value("to")) {
                lint::without_reason(&place, to);
            }
            if !table.has("new") {
                table.missing("new", "what is new? new = \"reason_class\"");
            }
            table.finish();
            class?;
            Some(When::New { to: to?, memory: memory? })
        }
        "count" => {
            if !table.has("count") {
                table.missing("count", "how many? count = 10");
            }
            let count = table.integer("count", 2..10_001).and_then(|count| u32::try_from(count).ok());
            let within = needed(&table, "within", "in what time? within = \"10m\"");
            let per = table.value("per").map(|value| fields(&value));
            let to = to(&table);
            table.finish();
            Some(When::Burst { to: to?, count: count?, within: within?, per: per.unwrap_or(Some(Vec::new()))? })
        }
        _ => step(table),
    }
}

/// Which form it is: by the key that gives it its name, else by one that only this form has, else by one that is misspelt.
fn form(table: &Table<'_>) -> (&'static str, &'static [&'static str]) {
    const TO: (&str, &[&str]) = WHEN_KEYS[WHEN_KEYS.len() - 1];
    let all: Vec<&str> = WHEN_KEYS.iter().flat_map(|(_, keys)| *keys).copied().collect();
    let own = |word: &str| WHEN_KEYS.iter().find(|(_, keys)| word != TO.0 && keys.contains(&word));
    let named = WHEN_KEYS.iter().find(|(form, _)| *form != TO.0 && table.has(form));
    let by_key = || all.iter().filter(|key| table.has(key)).find_map(|key| own(key));
    let by_misspelt = || {
        let names =
            table.entries().into_iter().map(|(name, _)| name.value).filter(|name| !all.contains(&name.as_str()));
        names.filter_map(|name| nearest(&name, all.iter().copied())).find_map(own)
    };
    let to = || table.has(TO.0).then_some(&TO);
    named.or_else(by_key).or_else(to).or_else(by_misspelt).copied().unwrap_or(TO)
}

fn stays(table: Table<'_>) -> Option<When> {
    let status = match table.value("stays") {
        None => {
            table.missing("stays", "in which status? stays = \"Running\"");
            None
        }
        Some(value) => match statuses(&table, &value) {
            Some(None) => {
                let message = "`stays` names the statuses: every job ends, and stays so for ever";
                value.error("stays", message, "stays = \"Running\"");
                None
            }
            Some(Some(list)) => {
                lint::for_ever(&value, &list);
                Some(list)
            }
            None => None,
        },
    };
    let at_least = needed(&table, "for", "how long? when = { stays = \"Running\", for = \"30m\" }");
    table.finish();
    Some(When::Stays { status: status?, at_least: at_least? })
}

fn to(table: &Table<'_>) -> Option<Option<Vec<Status>>> {
    let Some(value) = table.value("to") else {
        let help = "which status? to = \"Failed\", to = [\"Failed\", \"Success\"], or to = \"*\" for any";
        table.missing("to", help);
        return None;
    };
    statuses(table, &value)
}

fn step(table: Table<'_>) -> Option<When> {
    let from = table.value("from").map(|value| (states(&table, &value), value.span()));
    let to = to(&table);
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

/// Reports keys that belong to another form of `when`.
fn alone(table: &Table<'_>, form: &str, own: &[&str]) {
    let mut others: Vec<&'static str> = WHEN_KEYS.iter().flat_map(|(_, keys)| *keys).copied().collect();
    others.sort_unstable();
    others.dedup();
    // Only what is there counts as asked for: a misspelt key is compared with those of this form.
    for key in others.into_iter().filter(|key| !own.contains(key) && table.has(key)) {
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

/// The fields of a row whose change can be told.
pub(in crate::rules) const CHANGING: &[&str] = &["instance_id", "resource_id", "resource_name", "type", "reason"];

/// The fields of a row whose change a rule looks at.
pub(super) fn changed(value: &Value<'_>) -> Option<Vec<Field>> {
    let words = value.strings()?;
    let strange = |word: &&Item<String>| !CHANGING.contains(&word.value.strip_prefix("job.").unwrap_or(&word.value));
    for word in words.iter().filter(strange) {
        let message = format!("`{}` is nothing whose change can be told", word.value);
        let help = match word.value.as_str() {
            "status" => "a change of status is when = { to = … }".to_owned(),
            other => suggest(other, CHANGING),
        };
        value.error_at("unknown-field", word.span.clone(), message, help);
    }
    if words.iter().any(|word| strange(&word)) {
        return None;
    }
    not_empty(value, fields(value))
}

/// `None` when something was wrong; `Some(None)` for `"*"`.
pub(super) fn statuses(table: &Table<'_>, value: &Value<'_>) -> Option<Option<Vec<Status>>> {
    let words = value.strings()?;
    if let [only] = words.as_slice()
        && only.value == "*"
    {
        return Some(None);
    }
    lint::twice(value, &words);
    // Every word is looked at, also after one that is wrong.
    let list: Vec<Option<Status>> = words.iter().map(|word| status(table, word, &["*"])).collect();
    let list: Option<Vec<Status>> = list.into_iter().collect();
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
    lint::twice(value, &words);
    let list: Vec<Option<State>> = words.iter().map(state).collect();
    not_empty(value, list.into_iter().collect()).map(Some)
}

/// The status that was meant; else all there are, and the way to others.
pub(super) fn no_status(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{} ({OTHER_STATUS})", suggest(word, known)),
    }
}

fn status(table: &Table<'_>, word: &Item<String>, more: &[&'static str]) -> Option<Status> {
    let found = Status::KNOWN.into_iter().find(|status| status.as_str() == word.value);
    if found.is_none() {
        let known: Vec<&str> = STATUSES.iter().chain(more).copied().collect();
        let help = no_status(&word.value, &known);
        table.error("unknown-status", word.span.clone(), format!("unknown status `{}`", word.value), help);
    }
    found
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
