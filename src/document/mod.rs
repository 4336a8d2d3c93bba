//! TOML that knows where it stands: typed reading of a file that finds *every* problem in it, each with its place.
//!
//! [`Table`] hands out values by key and remembers which keys were asked for; [`Table::finish`] reports the others as
//! unknown, with the nearest known one. Reading never stops at the first problem: a value that cannot be used is
//! reported and read as absent. Rule files and the configuration are both read through here.

mod notes;
mod problem;
pub mod schema;
mod table;

pub use notes::{Asked, Notes};
pub use problem::{File, Level, Problem, Report};
pub use table::{Item, Kept, Living, Secret, Secrets, Table, Value, duration, parse};

/// The nearest of `known` to a misspelt `word`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let scored = known.into_iter().filter_map(|name| {
        let known = name.to_lowercase();
        let likeness = strsim::jaro_winkler(&lower, &known);
        // In a word of two letters, one that is wrong is half of it.
        let slip = lower.len() > 1 && strsim::osa_distance(&lower, &known) == 1;
        (slip || likeness > 0.75).then_some((slip, likeness, name))
    });
    scored.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(_, _, name)| name)
}

/// `did you mean …?`, or the whole choice when nothing is near.
pub fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "there is nothing to choose from".to_owned(),
        None => format!("one of: {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}
