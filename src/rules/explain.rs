//! Why a rule fires for a step or does not: clause by clause, and what would have made it fire.

use serde::Serialize;

use super::matcher::{Clause, Facts, Field};
use super::{Rule, When};
use crate::model::job::Status;
use crate::model::time::span;
use crate::model::transition::{State, Transition};

/// Whether a clause holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The job does not have what it looks at. That never makes a rule fire, and never excludes a job.
    CannotTell,
}

/// One clause of a rule, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `when`, `match` or `except`.
    pub part: &'static str,
    /// What it wants, in words.
    pub wants: String,
    /// What it found, in words.
    pub found: String,
    /// Whether it holds.
    pub holds: Holds,
}

/// A rule beside a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Every clause.
    pub lines: Vec<Line>,
    /// Whether the rule has something to say about the step, as far as the step alone can say: how many there were, and what
    /// was told before, may still keep it quiet.
    pub fires: bool,
    /// What would have to be otherwise for it to fire; empty when it does.
    pub missing: Vec<String>,
}

impl Rule {
    /// The rule beside a step. The same clauses decide here and in every poll.
    pub fn explain(&self, step: &Transition, facts: &Facts<'_>) -> Explanation {
        let mut lines = vec![self.when_line(step)];
        lines.extend(self.matches.iter().map(|clause| clause_line("match", clause, facts)));
        let excluded = !self.except.is_empty() && self.except.iter().all(|clause| clause.holds(facts));
        lines.extend(self.except.iter().map(|clause| clause_line("except", clause, facts)));
        let fires = self.looks_at(step) && self.applies(facts);
        let lacking = |line: &&Line| line.part != "except" && line.holds != Holds::Yes;
        let mut missing: Vec<String> = lines.iter().filter(lacking).map(|line| line.wants.clone()).collect();
        if excluded {
            let clauses: Vec<&str> =
                lines.iter().filter(|line| line.part == "except").map(|line| line.wants.as_str()).collect();
            missing.push(format!("not at once: {}", clauses.join(", ")));
        }
        Explanation { lines, fires, missing }
    }

    /// Whether the rule's `when` is about this step, stays and changes among them.
    fn looks_at(&self, step: &Transition) -> bool {
        match &self.when {
            When::Stays { status, at_least } => {
                let long = step.seen_before.is_some_and(|since| step.seen_at >= since.plus(*at_least));
                matches!(&step.to, State::Is(now) if step.is_stay() && status.contains(now)) && long
            }
            When::Changed { fields } => fields.iter().any(|field| step.changed.contains(&field.as_str())),
            When::Step { .. } | When::Gone { .. } | When::Burst { .. } | When::New { .. } => self.when.covers(step),
        }
    }

    fn when_line(&self, step: &Transition) -> Line {
        let holds = if self.looks_at(step) { Holds::Yes } else { Holds::No };
        let Transition { from, to, skipped, changed, .. } = step;
        let found = match (step.is_stay(), step.is_change()) {
            (true, _) => {
                let stayed = span(step.seen_at.since(step.seen_before.unwrap_or(step.seen_at)));
                format!("it has been {to} for {stayed}")
            }
            (_, true) => format!("it is {to}; new: {}", changed.join(", ")),
            _ if skipped.is_empty() => format!("it went {from} → {to}"),
            _ => format!("it went {from} → {to}, not seen on the way: {}", words(skipped, ", ")),
        };
        Line { part: "when", wants: self.when.wants(), found, holds }
    }
}

impl When {
    /// What it looks at, in words.
    pub fn wants(&self) -> String {
        let any =
            |to: &Option<Vec<Status>>| to.as_deref().map_or_else(|| "any status".to_owned(), |to| words(to, " or "));
        match self {
            Self::Step { from, to, gaps } => {
                let gaps = if *gaps { " (or passed unseen)" } else { "" };
                let from = from.as_deref().map(|from| format!("from {}{gaps} ", words(from, " or ")));
                format!("{}to {}", from.unwrap_or_default(), any(to))
            }
            Self::Stays { status, at_least } => format!("{} for {}", words(status, " or "), span(*at_least)),
            Self::Gone { from } => format!("gone, last seen in {}", any(from)),
            Self::Burst { to, count, within, per } => {
                let per = match per.is_empty() {
                    true => String::new(),
                    false => format!(", alike in {}", names(per)),
                };
                format!("to {}, {count} times within {}{per}", any(to), span(*within))
            }
            Self::New { to, memory } => format!("to {} for a reason not seen for {}", any(to), span(*memory)),
            Self::Changed { fields } => format!("a change of {}", names(fields)),
        }
    }
}

fn clause_line(part: &'static str, clause: &Clause, facts: &Facts<'_>) -> Line {
    let name = clause.field().as_str();
    let value = facts.text(clause.field());
    let holds = match (clause.holds(facts), &value) {
        (true, _) => Holds::Yes,
        (false, Some(_)) => Holds::No,
        (false, None) => Holds::CannotTell,
    };
    let found = match (clause.field(), value) {
        (_, None) => format!("the job has no `{name}`"),
        (Field::Age, Some(_)) => {
            let age = facts.job.created().map(|created| span(facts.now.since(created))).unwrap_or_default();
            format!("it is {age} old")
        }
        (_, Some(text)) => format!("it is `{text}`"),
    };
    Line { part, wants: format!("`{name}` is {}", clause.wants()), found, holds }
}

fn words(list: &[impl ToString], between: &str) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| format!("`{}`", field.as_str())).collect::<Vec<_>>().join(", ")
}
