//! Warnings: what can be read and probably does not mean what it says.

use crate::document::{Level, Table};
use crate::model::job::Status;
use crate::rules::When;
use crate::rules::matcher::{Clause, Field};

/// A rule that looks at steps to one status and wants a job in another can never fire.
pub(super) fn warn_of_impossible(rule: &Table<'_>, when: &When, matches: &[Clause]) {
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
