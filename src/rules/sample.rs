//! Made-up worlds in which the templates of a rule are proved: what can come of each form of `when`, at its barest, at its
//! fullest and at its worst.

use std::sync::Arc;
use std::time::Duration;

use super::When;
use super::template::{Context, Use};
use crate::model::alert::{Alert, Severity};
use crate::model::job::{Job, Status};
use crate::model::name::{AlertId, RuleId, SourceName, TransitionId};
use crate::model::notification::{RuleFacts, SourceFacts};
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};

/// As long as sources let a reason be.
const LONG: usize = 64 * 1024;
/// What somebody might put into a name or a reason.
const HOSTILE: &str =
    "\u{202e}{{ 7*7 }}\r\nBcc: x <script>alert(1)</script> @everyone <!channel> 夜间 \u{0}\u{1b}[31m'\"\\";

/// A made-up world.
pub(super) struct Sample {
    transition: Transition,
    rule: RuleFacts,
    source: SourceFacts,
    alert: Alert,
    held_back: u32,
    burst: Option<Duration>,
}

impl Sample {
    pub(super) fn context(&self) -> Context<'_> {
        Context {
            transition: &self.transition,
            reason_class: self.transition.job.reason.as_deref().unwrap_or_default().get(..100).unwrap_or_default(),
            rule: &self.rule,
            severity: Severity::Critical,
            source: &self.source,
            alert: &self.alert,
            held_back: self.held_back,
            burst: self.burst,
            now: self.transition.seen_at.plus(Duration::from_secs(6 * 60)),
        }
    }
}

/// How a job moves.
struct Move {
    from: State,
    to: State,
    changed: Vec<&'static str>,
    burst: Option<Duration>,
}

/// Each kind of job in each kind of step that the rule looks at.
pub(super) fn samples(usage: Use<'_>) -> Vec<(&'static str, Sample)> {
    let text = |text: &str| Some(Box::from(text));
    let full = Job {
        id: "36db69c5-b2d5-11eb-b044-0255ac101219".into(),
        instance_id: text("36ce7f50-b2d5-11eb-b044-0255ac101219"),
        resource_id: text("36ce7f50-b2d5-11eb-b044-0255ac101219"),
        resource_name: text("test-public"),
        kind: text("CreateInstance"),
        status: Status::Failed,
        reason: text("failed to select cce cluster"),
        created_at: text("2021-05-12T03:50:38.305978Z"),
        updated_at: text("2021-05-12T03:50:43.315473Z"),
    };
    let long = format!("{HOSTILE}{}", "夜<".repeat((LONG - HOSTILE.len()) / 4));
    let hostile = Job {
        id: HOSTILE.into(),
        resource_name: text(HOSTILE),
        reason: text(&long),
        kind: text(HOSTILE),
        created_at: text("yesterday"),
        updated_at: text("9999-12-31T23:59:59.999999999Z"),
        ..full.clone()
    };
    let mut samples = Vec::new();
    for step in moves(usage.when) {
        for (name, job) in [("full", &full), ("minimal", &Job::bare("a", Status::Failed)), ("hostile", &hostile)] {
            samples.push((name, sample(job.clone(), &step, name != "minimal", usage)));
        }
    }
    samples
}

/// The steps that a form of `when` lets through, one of each kind.
fn moves(when: Option<&When>) -> Vec<Move> {
    let is = |status: &Status| State::Is(status.clone());
    let step = |from: State, to: State| Move { from, to, changed: Vec::new(), burst: None };
    let any = |to: &Option<Vec<Status>>| to.clone().unwrap_or_else(|| Status::KNOWN.to_vec());
    match when {
        Some(When::Step { from, to, .. }) => {
            let from = from.clone().unwrap_or_else(|| vec![State::Unseen, State::Is(Status::Running)]);
            let steps = from.iter().flat_map(|from| any(to).into_iter().map(|to| step(from.clone(), State::Is(to))));
            steps.collect()
        }
        Some(When::Stays { status, .. }) => status.iter().map(|status| step(is(status), is(status))).collect(),
        Some(When::Gone { from }) => any(from).iter().map(|from| step(is(from), State::Gone)).collect(),
        Some(When::Burst { to, within, .. }) => {
            let burst = |to| Move { burst: Some(*within), ..step(State::Unseen, State::Is(to)) };
            any(to).into_iter().map(burst).collect()
        }
        Some(When::New { to, .. }) => any(to).into_iter().map(|to| step(State::Unseen, State::Is(to))).collect(),
        Some(When::Changed { fields }) => {
            let changed: Vec<&'static str> = fields.iter().map(|field| field.as_str()).collect();
            let failed = || State::Is(Status::Failed);
            vec![Move { changed, ..step(failed(), failed()) }]
        }
        None => {
            let failed = || State::Is(Status::Failed);
            vec![step(State::Unseen, failed()), step(failed(), failed()), step(failed(), State::Gone)]
        }
    }
}

fn sample(mut job: Job, step: &Move, known: bool, usage: Use<'_>) -> Sample {
    let at = Timestamp::from_micros(1_620_791_445_000_000);
    let source = SourceName::from("prod");
    let rule = RuleId::from("sample");
    if let State::Is(status) = &step.to {
        job.status = status.clone();
    }
    let count = if step.burst.is_some() { 5 } else { 1 };
    Sample {
        alert: Alert {
            id: AlertId::from("alr_sample"),
            rule: rule.clone(),
            source: source.clone(),
            subject: job.id.clone(),
            resource: None,
            severity: Severity::Critical,
            count,
            first_seen: at,
            last_seen: at,
            resolved: false,
            told: Vec::new(),
        },
        rule: RuleFacts {
            id: rule,
            about: "A sample".into(),
            runbook: known.then(|| "https://wiki.example.org/".into()),
            labels: usage.labels.clone(),
        },
        transition: Transition {
            id: TransitionId::from("evt_sample"),
            source: source.clone(),
            job: Arc::new(job),
            to: step.to.clone(),
            from: step.from.clone(),
            seen_before: (step.from != State::Unseen).then_some(at),
            seen_at: at.plus(Duration::from_secs(30)),
            skipped: if known { Vec::new() } else { vec![Status::Initializing, Status::Running] },
            changed: step.changed.clone(),
            late: !known,
            seq: 1,
        },
        source: SourceFacts {
            name: source,
            kind: "swr".into(),
            region: known.then(|| "ap-southeast-3".into()),
            project_id: "0605768a3300d5762f8cc01d2b3e4f50".into(),
        },
        held_back: u32::from(known) * 3,
        burst: step.burst,
    }
}
