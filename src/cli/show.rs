//! A plan in print: the transitions, and what would be sent to whom.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::model::job::Status;
use crate::model::text::is_hidden;
use crate::model::time::span;
use crate::model::transition::{State, Transition};
use crate::plan::Plan;

/// Bold, for headings.
pub(super) const BOLD: &str = "\x1b[1m";
/// Dim, for what matters less.
pub(super) const DIM: &str = "\x1b[2m";
/// As it should be.
pub(super) const GREEN: &str = "\x1b[32m";
/// It works, and should be mended.
pub(super) const YELLOW: &str = "\x1b[33m";
/// It does not work.
pub(super) const RED: &str = "\x1b[1;31m";
/// It goes on.
pub(super) const BLUE: &str = "\x1b[34m";
/// It begins.
pub(super) const CYAN: &str = "\x1b[36m";
/// Back to normal.
pub(super) const PLAIN: &str = "\x1b[0m";

/// The colour of a state.
pub(super) fn colour(state: &State) -> &'static str {
    match state {
        State::Is(Status::Failed) => RED,
        State::Is(Status::Success) => GREEN,
        State::Is(Status::Running) => BLUE,
        State::Is(Status::Creating | Status::Initializing) => CYAN,
        State::Is(Status::Other(_)) | State::Gone => YELLOW,
        State::Unseen => DIM,
    }
}

/// `from → to`, in colour.
pub(super) fn arrow(transition: &Transition) -> String {
    between(&transition.from, &transition.to)
}

/// [`arrow`], of the states alone.
pub(super) fn between(from: &State, to: &State) -> String {
    let word = |state: &State| tame(&state.to_string());
    format!("{}{}{PLAIN} → {}{}{PLAIN}", colour(from), word(from), colour(to), word(to))
}

/// Text from the cloud in a terminal: no control characters.
pub(super) fn tame(text: &str) -> String {
    crate::deliver::tame(text, 2_000)
}

/// JSON for a screen: what a terminal or an eye would obey is written as an escape, which is the same JSON.
pub(super) fn json(value: &Value) -> String {
    escaped(&format!("{value:#}"))
}

/// [`json`], on one line.
pub(super) fn json_line(value: &Value) -> String {
    escaped(&value.to_string())
}

fn escaped(json: &str) -> String {
    let mut safe = String::new();
    for c in json.chars() {
        if c != '\n' && (c.is_control() || is_hidden(c)) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| safe += &format!("\\u{unit:04x}"));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Prints a plan for people.
pub(super) fn plan(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let mut quiet = true;
    if plan.difference.baseline {
        writeln!(out, "baseline: {} jobs are recorded; changes are told from the next poll on", plan.jobs)?;
        quiet = false;
    }
    for transition in plan.difference.transitions() {
        quiet = false;
        one(out, transition)?;
        let matched: Vec<&str> =
            plan.matches.iter().filter(|(_, step)| step.id == transition.id).map(|(rule, _)| rule.as_str()).collect();
        match matched.as_slice() {
            [] => writeln!(out, "  {DIM}no rule matches{PLAIN}")?,
            rules => writeln!(out, "  rule {}", rules.join(", "))?,
        }
    }
    for owed in &plan.owed {
        quiet = false;
        let told = &owed.notification;
        writeln!(out, "\n{BOLD}to {}{PLAIN} [{}] {}", owed.receiver, told.severity, tame(&told.title))?;
        for line in told.body.lines() {
            writeln!(out, "    {}", tame(line))?;
        }
        writeln!(out, "    {DIM}{} · {}{PLAIN}", told.event.as_str(), owed.id)?;
    }
    for follow_up in &plan.follow_ups {
        quiet = false;
        writeln!(out, "\n{BOLD}follow-up{PLAIN} {}", tame(&follow_up.title()))?;
    }
    let missing: Vec<_> = plan
        .difference
        .changes
        .iter()
        .map(|change| &change.known)
        .filter(|known| known.missing > 0 && !known.gone)
        .collect();
    for known in missing {
        quiet = false;
        writeln!(
            out,
            "{}: not in this listing ({} so far); nothing is concluded from that yet",
            tame(known.job.title()),
            known.missing
        )?;
    }
    if quiet {
        writeln!(out, "nothing changed")?;
    }
    Ok(())
}

/// Prints a transition for people.
pub(super) fn one(out: &mut impl Write, transition: &Transition) -> io::Result<()> {
    let job = &transition.job;
    writeln!(out, "{BOLD}{}{PLAIN} {} {}", job.called(), job.kind_called(), arrow(transition))?;
    if let Some(reason) = &job.reason {
        writeln!(out, "  reason: {}", tame(reason))?;
    }
    let between = match transition.seen_before {
        Some(before) if before == transition.seen_at => "compared as they are".to_owned(),
        Some(before) => {
            format!("between {before} and {} ({})", transition.seen_at, span(transition.seen_at.since(before)))
        }
        None => format!("first seen at {}", transition.seen_at),
    };
    writeln!(out, "  {DIM}job {} · {between}{PLAIN}", tame(job.id.as_str()))?;
    if !transition.skipped.is_empty() {
        let states: Vec<&str> = transition.skipped.iter().map(Status::as_str).collect();
        writeln!(out, "  {DIM}passed unseen: {}{PLAIN}", states.join(", "))?;
    }
    Ok(())
}

/// A plan for programs.
pub(super) fn plan_json(plan: &Plan) -> Value {
    let step = |transition: &Transition| {
        json!({
            "id": transition.id, "job": *transition.job, "from": transition.from, "to": transition.to,
            "seen_before": transition.seen_before, "seen_at": transition.seen_at, "skipped": transition.skipped,
            "late": transition.late,
            "rules": plan.matches.iter().filter(|(_, step)| step.id == transition.id).map(|(rule, _)| rule).collect::<Vec<_>>(),
        })
    };
    let follow_ups = plan.follow_ups.iter().map(|follow_up| {
        let alert = &follow_up.topic.alert.id;
        json!({ "id": follow_up.id, "name": follow_up.name, "alert": alert, "job": follow_up.lane().subject })
    });
    let owed = plan.owed.iter().map(|owed| {
        json!({
            "id": owed.id, "receiver": owed.receiver, "type": owed.notification.event.as_str(),
            "data": owed.notification.data(),
        })
    });
    json!({
        "source": plan.source.name, "at": plan.at, "complete": plan.complete, "baseline": plan.difference.baseline,
        "transitions": plan.difference.transitions().map(|transition| step(transition)).collect::<Vec<_>>(),
        "deliveries": owed.collect::<Vec<_>>(),
        "follow_ups": follow_ups.collect::<Vec<_>>(),
    })
}
