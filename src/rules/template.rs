//! What a rule says: Jinja templates that are proved when the rule is loaded, and a built-in text for when one still fails.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::{Labels, reason_class};
use crate::model::alert::{Alert, Severity};
use crate::model::job::{Job, Status};
use crate::model::name::{AlertId, RuleId, SourceName, TransitionId};
use crate::model::notification::{RuleFacts, SourceFacts};
use crate::model::time::{Timestamp, span};
use crate::model::transition::{State, Transition};

/// Instructions one template may spend; a small message spends some fifty.
const FUEL: u64 = 50_000;
/// Templates and what they render are no longer than this.
pub(super) const TEXT_MAX: usize = 64 * 1024;
/// Titles are cut to this many characters.
const TITLE_MAX: usize = 300;

/// The names a template can use.
pub(super) const NAMES: &[&str] = &[
    "job.id",
    "job.instance_id",
    "job.resource_id",
    "job.resource_name",
    "job.type",
    "job.status",
    "job.reason",
    "job.created_at",
    "job.updated_at",
    "source.name",
    "source.kind",
    "source.region",
    "source.project_id",
    "transition.from",
    "transition.to",
    "transition.seen_before",
    "transition.seen_at",
    "transition.skipped",
    "transition.late",
    "rule.id",
    "rule.about",
    "rule.runbook",
    "rule.severity",
    "rule.labels",
    "alert.id",
    "alert.count",
    "alert.first_seen",
    "alert.held_back",
    "reason",
    "reason_class",
    "now",
];

/// A rule's templates, compiled.
pub struct Message {
    environment: Environment<'static>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.environment.templates().map(|(name, _)| name)).finish()
    }
}

/// Everything a template may speak of.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The step.
    pub transition: &'a Transition,
    /// The class of the job's reason.
    pub reason_class: &'a str,
    /// The rule that fired.
    pub rule: &'a RuleFacts,
    /// Its severity.
    pub severity: Severity,
    /// Where it was seen.
    pub source: &'a SourceFacts,
    /// The rule's standing finding.
    pub alert: &'a Alert,
    /// Matches since the receiver was last told of it.
    pub held_back: u32,
    /// The rule found so many in this time.
    pub burst: Option<Duration>,
    /// The time.
    pub now: Timestamp,
}

/// A message in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
    /// A template failed, and the built-in text stands in its place.
    pub fault: Option<String>,
}

/// What is wrong with a template: where in its text, what, and the mend.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) range: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) help: String,
}

impl Message {
    /// No templates: the built-in text says it.
    pub(super) fn builtin() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        Self { environment }
    }

    /// Adds the template for `part` (`title` or `body`) after proving it.
    pub(super) fn add(&mut self, part: &'static str, source: String, labels: &Labels) -> Result<(), Flaw> {
        if source.len() > TEXT_MAX {
            let message = format!("the template is longer than {TEXT_MAX} bytes");
            return Err(Flaw { range: None, message, help: "shorten it".into() });
        }
        self.environment.add_template_owned(part, source).map_err(|error| flaw(&error, ""))?;
        self.prove(part, labels).inspect_err(|_| self.environment.remove_template(part))
    }

    /// Every name is known, and the template renders for a full, a minimal and a hostile job.
    fn prove(&self, part: &str, labels: &Labels) -> Result<(), Flaw> {
        let template = self.environment.get_template(part).map_err(|error| flaw(&error, ""))?;
        let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        names.sort();
        for name in names {
            let known = NAMES.iter().any(|known| *known == name || known.starts_with(&format!("{name}.")))
                || name.strip_prefix("rule.labels.").is_some_and(|label| labels.contains_key(label))
                || self.environment.globals().any(|(global, _)| name == global);
            if !known {
                let range = template.source().find(name.as_str()).map(|at| at..at + name.len());
                let help = crate::document::nearest(&name, NAMES.iter().copied()).map_or_else(
                    || format!("a template can use: {}", NAMES.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(Flaw { range, message: format!("unknown variable `{name}`"), help });
            }
        }
        for (sample, world) in samples(labels) {
            self.part(part, &world.context()).map_err(|error| flaw(&error, sample))?;
        }
        Ok(())
    }

    fn part(&self, part: &str, context: &Context<'_>) -> Result<String, minijinja::Error> {
        self.environment.get_template(part)?.render(value(context))
    }

    fn has(&self, part: &str) -> bool {
        self.environment.templates().any(|(name, _)| name == part)
    }

    /// The message in words. Cannot fail: the built-in text stands in for a template that does.
    pub fn render(&self, context: &Context<'_>) -> Rendered {
        let mut rendered = builtin(context);
        for (part, place) in [("title", &mut rendered.title), ("body", &mut rendered.body)] {
            if !self.has(part) {
                continue;
            }
            match self.part(part, context) {
                Ok(text) => *place = text,
                Err(error) => {
                    rendered.fault = Some(format!("rule `{}`: its {part} failed: {error}", context.rule.id));
                }
            }
        }
        if let Some(fault) = &rendered.fault {
            rendered.body = format!("{}\n\n({fault}; this is the built-in text.)", rendered.body);
        }
        rendered.tidy()
    }
}

impl Rendered {
    /// Fit for every medium: one line, and lines without control characters, both of bounded length.
    #[must_use]
    pub fn tidy(self) -> Self {
        Self { title: one_line(&self.title), body: plain(&self.body), fault: self.fault }
    }
}

fn flaw(error: &minijinja::Error, sample: &str) -> Flaw {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    let sample = if sample.is_empty() { String::new() } else { format!(" (with a {sample} job)") };
    let help = match error.kind() == minijinja::ErrorKind::OutOfFuel {
        true => "a template may do only so much work: simplify it".into(),
        false => String::new(),
    };
    Flaw { range: error.range(), message: format!("the template does not work{sample}: {detail}"), help }
}

/// What jobwatch says when no template does: what happened, and why.
pub fn builtin(context: &Context<'_>) -> Rendered {
    let Transition { job, from, to, seen_before, seen_at, skipped, changed, late, .. } = context.transition;
    let kind = job.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("job");
    let reason = job.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let failed = *to == State::Is(Status::Failed);
    let stayed = span(seen_at.since(seen_before.unwrap_or(*seen_at)));
    let title = match reason {
        _ if context.transition.is_change() => format!("{}: {kind}: {} changed", job.title(), changed.join(" and ")),
        _ if context.transition.is_stay() => format!("{}: {kind} has been {to} for {stayed}", job.title()),
        Some(reason) if failed => format!("{}: {reason}", job.title()),
        Some(_) | None => format!("{}: {kind} {from} → {to}", job.title()),
    };
    let title = match context.burst {
        Some(within) => format!("{} times within {}: {title}", context.alert.count, span(within)),
        None => title,
    };
    let mut body = match from {
        _ if context.transition.is_change() => {
            format!("{kind} of {} is {to}; new: {}.\n", job.title(), changed.join(", "))
        }
        _ if context.transition.is_stay() => format!("{kind} of {} has been {to} for {stayed}.\n", job.title()),
        State::Unseen => format!("{kind} of {} was first seen in {to}.\n", job.title()),
        State::Is(_) | State::Gone => format!("{kind} of {} went from {from} to {to}.\n", job.title()),
    };
    match reason {
        Some(reason) => body += &format!("Reason: {reason}\n"),
        None if failed => body += "The cloud gave no reason.\n",
        None => {}
    }
    if !skipped.is_empty() {
        let states = skipped.iter().map(Status::as_str).collect::<Vec<_>>().join(", ");
        body += &format!("Not seen on the way: {states}.\n");
    }
    if *late {
        let gap = seen_before.map(|before| format!(" of {}", span(seen_at.since(before)))).unwrap_or_default();
        body += &format!("Noticed late, after a gap{gap} in watching.\n");
    }
    Rendered { title: one_line(&title), body: plain(&body), fault: None }
}

fn value(context: &Context<'_>) -> Value {
    let Context { transition, reason_class, rule, severity, source, alert, held_back, burst: _, now } = context;
    let Job { id, instance_id, resource_id, resource_name, kind, status, reason, created_at, updated_at } =
        &*transition.job;
    let text = |field: &Option<Box<str>>| field.as_deref().unwrap_or_default().to_owned();
    let skipped = transition.skipped.iter().map(|status| Value::from(status.as_str()));
    context! {
        job => context! {
            id => id.as_str(), instance_id => text(instance_id), resource_id => text(resource_id),
            resource_name => text(resource_name), type => text(kind), status => status.as_str(), reason => text(reason),
            created_at => text(created_at), updated_at => text(updated_at),
        },
        source => context! {
            name => source.name.as_str(), kind => source.kind.as_str(), region => source.region.clone().unwrap_or_default(),
            project_id => source.project_id.as_str(),
        },
        transition => context! {
            from => transition.from.to_string(), to => transition.to.to_string(), skipped => Value::from_iter(skipped),
            seen_before => transition.seen_before.map(|at| at.to_string()).unwrap_or_default(),
            seen_at => transition.seen_at.to_string(), late => transition.late,
        },
        rule => context! {
            id => rule.id.as_str(), about => rule.about.as_str(), runbook => rule.runbook.clone().unwrap_or_default(),
            severity => severity.as_str(), labels => rule.labels.iter().map(|(name, text)| (name.clone(), text.clone())).collect::<Value>(),
        },
        alert => context! {
            id => alert.id.as_str(), count => alert.count, held_back => held_back, first_seen => alert.first_seen.to_string(),
        },
        reason => text(reason),
        reason_class => Value::from(*reason_class),
        now => now.to_string(),
    }
}

/// Text from the cloud cannot break out of its line.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    match line.char_indices().nth(TITLE_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Lines and tabs stay; other control characters do not.
fn plain(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim().to_owned()
}

/// A made-up world to prove templates in.
struct Sample {
    transition: Transition,
    rule: RuleFacts,
    source: SourceFacts,
    alert: Alert,
}

impl Sample {
    fn context(&self) -> Context<'_> {
        Context {
            transition: &self.transition,
            reason_class: "",
            rule: &self.rule,
            severity: Severity::Critical,
            source: &self.source,
            alert: &self.alert,
            held_back: 0,
            burst: None,
            now: self.transition.seen_at,
        }
    }
}

fn samples(labels: &Labels) -> [(&'static str, Sample); 3] {
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
    let hostile = "\u{202e}{{ 7*7 }}\r\nBcc: x <script>alert(1)</script> @everyone 夜间 \u{0}'\"\\";
    let hostile = Job { resource_name: text(hostile), reason: text(hostile), kind: text(hostile), ..full.clone() };
    [
        ("full", sample(full, labels, true)),
        ("minimal", sample(Job::bare("a", Status::Failed), &BTreeMap::new(), false)),
        ("hostile", sample(hostile, labels, true)),
    ]
    .map(|(name, mut sample)| {
        sample.rule.labels.clone_from(labels);
        (name, sample)
    })
}

fn sample(job: Job, labels: &Labels, known: bool) -> Sample {
    let at = Timestamp::from_micros(1_620_791_445_000_000);
    let source = SourceName::from("prod");
    let rule = RuleId::from("sample");
    let (from, seen_before) = if known { (State::Is(Status::Running), Some(at)) } else { (State::Unseen, None) };
    Sample {
        alert: Alert {
            id: AlertId::from("alr_sample"),
            rule: rule.clone(),
            source: source.clone(),
            subject: job.id.clone(),
            resource: None,
            severity: Severity::Critical,
            count: 1,
            first_seen: at,
            last_seen: at,
            resolved: false,
            told: Vec::new(),
        },
        rule: RuleFacts {
            id: rule,
            about: "A sample".into(),
            runbook: known.then(|| "https://wiki.example.org/".into()),
            labels: labels.clone(),
        },
        transition: Transition {
            id: TransitionId::from("evt_sample"),
            source: source.clone(),
            to: State::Is(job.status.clone()),
            job: job.into(),
            from,
            seen_before,
            seen_at: at,
            skipped: if known { Vec::new() } else { vec![Status::Running] },
            changed: Vec::new(),
            late: !known,
            seq: 1,
        },
        source: SourceFacts {
            name: source,
            kind: "swr".into(),
            region: known.then(|| "ap-southeast-3".into()),
            project_id: "0605768a3300d5762f8cc01d2b3e4f50".into(),
        },
    }
}

/// The class of a job's reason, or nothing.
pub fn class_of(job: &Job) -> String {
    job.reason.as_deref().map(reason_class).unwrap_or_default()
}
