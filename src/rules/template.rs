//! What a rule says: Jinja templates that are proved when the rule is loaded, and a built-in text for when one still fails.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::filter;
use super::proof::{self, Flaw, help, said};
use super::sample::samples;
use super::{Labels, When, reason_class};
use crate::model::alert::{Alert, Severity};
use crate::model::job::{Job, Status};
use crate::model::notification::{RuleFacts, SourceFacts};
use crate::model::text;
use crate::model::time::{Timestamp, span};
use crate::model::transition::{State, Transition};

/// Work that one template may do: an instruction costs 1, and so do 64 bytes that are read or made, also in between. A small
/// message costs some fifty, and one that turns the longest reason over and over some thousands. It bounds time and memory.
const FUEL: u64 = 50_000;
/// A template that writes more than this has gone wrong; one that writes less is cut to [`TEXT_MAX`]. It leaves room for the
/// longest reason a dozen times.
const OUT_MAX: usize = 1 << 20;
/// How deep a loop may call itself.
const RECURSION_MAX: usize = 50;
/// A status is cut here.
const STATE_MAX: usize = 60;
/// What is said about why a template failed is cut here.
const FAULT_MAX: usize = 300;
/// The built-in text has as many bytes of the reason; a webhook's `reason` has all of it.
const REASON_MAX: usize = 32 * 1024;
/// Templates and what they render are no longer than this.
pub(super) const TEXT_MAX: usize = 64 * 1024;
/// Titles are cut to this many characters.
const TITLE_MAX: usize = 300;

/// A rule's templates, compiled.
pub struct Message {
    environment: Environment<'static>,
    /// What people call the templates that there are.
    labels: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.labels.values()).finish()
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

/// Where a template is used: what its samples must be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use<'a> {
    /// The rule's labels.
    pub(super) labels: &'a Labels,
    /// The steps that the rule looks at; every kind of step if that could not be read.
    pub(super) when: Option<&'a When>,
}

impl Message {
    /// No templates: the built-in text says it.
    pub(super) fn builtin() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Plain text. Each target escapes what it is given, so that nobody can forget to.
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_debug(true);
        filter::install(&mut environment);
        Self { environment, labels: BTreeMap::new() }
    }

    /// Adds the template for `part` (`title` or `body`) after proving it. `file` is where it stands, if in a file of its own.
    pub(super) fn add(
        &mut self,
        part: &'static str,
        file: Option<&str>,
        source: String,
        usage: Use<'_>,
    ) -> Result<(), Flaw> {
        if source.len() > TEXT_MAX {
            let message = format!("the template is longer than {TEXT_MAX} bytes");
            return Err(Flaw { range: None, message, help: "shorten it".into() });
        }
        proof::measure(&source)?;
        self.environment.add_template_owned(part, source).map_err(|error| Flaw::of(&error))?;
        self.prove(part, usage).inspect_err(|_| self.environment.remove_template(part))?;
        self.labels.insert(part, file.map_or_else(|| part.to_owned(), |file| format!("{part} ({file})")));
        Ok(())
    }

    /// Every name is known, and the template renders for jobs that are full, minimal and hostile, in each kind of step.
    fn prove(&self, part: &str, usage: Use<'_>) -> Result<(), Flaw> {
        let template = self.environment.get_template(part).map_err(|error| Flaw::of(&error))?;
        proof::prove(template.source(), usage.labels, &self.environment)?;
        for (name, world) in samples(usage) {
            self.part(part, &world.context()).map_err(|error| {
                let message = format!("the template does not work (with a {name} job): {}", said(&error));
                Flaw { range: error.range(), message, help: help(&error).into() }
            })?;
        }
        Ok(())
    }

    fn part(&self, part: &str, context: &Context<'_>) -> Result<String, minijinja::Error> {
        let mut out = Bounded(Vec::new());
        self.environment.get_template(part)?.render_captured_to(value(context), &mut out)?;
        Ok(String::from_utf8_lossy(&out.0).into_owned())
    }

    /// The message in words. Cannot fail: the built-in text stands in for a template that does, and the body then holds the
    /// reason, and says which template failed, where and why.
    pub fn render(&self, context: &Context<'_>) -> Rendered {
        let mut rendered = builtin(context);
        let mut faults = Vec::new();
        let mut written = |part| match self.part(part, context) {
            _ if !self.labels.contains_key(part) => None,
            Ok(text) => Some(text),
            Err(error) => {
                faults.push(self.fault(part, &error));
                None
            }
        };
        // A title of nothing but blanks is none.
        let title = written("title").map(|title| one_line(&title)).filter(|title| !title.is_empty());
        let body = written("body").map(|body| plain(&body));
        rendered.title = title.unwrap_or(rendered.title);
        if faults.is_empty() {
            rendered.body = body.unwrap_or(rendered.body);
        } else {
            let fault = format!("rule `{}`: {}", context.rule.id, faults.join("; "));
            let (first, rest) = match body {
                Some(body) => (body, format!("{}\n\n", rendered.body)),
                None => (rendered.body, String::new()),
            };
            let rest = format!("{rest}({fault}. This is the built-in text.)");
            let room = TEXT_MAX.saturating_sub(rest.len() + 2);
            rendered.body = format!("{}\n\n{rest}", text::cut(&first, room));
            rendered.fault = Some(fault);
        }
        rendered.tidy()
    }

    /// Which template failed, where in it, and why.
    fn fault(&self, part: &str, error: &minijinja::Error) -> String {
        let label = self.labels.get(part).map_or(part, String::as_str);
        let source = self.environment.get_template(part).ok();
        let before = source.as_ref().zip(error.range()).and_then(|(source, range)| source.source().get(..range.start));
        let place = match (before, error.line()) {
            (Some(before), _) => {
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
                format!(" at {line}:{column}")
            }
            (None, Some(line)) => format!(" in line {line}"),
            (None, None) => String::new(),
        };
        format!("its {label} failed{place}: {}", text::line(&said(error), FAULT_MAX))
    }
}

/// Refuses more than [`OUT_MAX`]: one value can be a list without end, whose fuel is counted when it has been written.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUT_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Rendered {
    /// Fit for every medium: one line, and lines without control characters, both of bounded length.
    #[must_use]
    pub fn tidy(self) -> Self {
        Self { title: one_line(&self.title), body: plain(&self.body), fault: self.fault }
    }
}

/// What jobwatch says when no template does: what happened, and why.
pub fn builtin(context: &Context<'_>) -> Rendered {
    let Transition { job, from, to, seen_before, seen_at, skipped, changed, late, .. } = context.transition;
    let (name, kind) = (job.called(), job.kind_called());
    let state = |state: &State| text::line(&state.to_string(), STATE_MAX);
    let reason = job.reason.as_deref().filter(|reason| !one_line(reason).is_empty());
    let failed = *to == State::Is(Status::Failed);
    let (from_state, to) = (state(from), state(to));
    let stayed = span(seen_at.since(seen_before.unwrap_or(*seen_at)));
    let title = match reason {
        _ if context.transition.is_change() => format!("{name}: {kind}: {} changed", changed.join(" and ")),
        _ if context.transition.is_stay() => format!("{name}: {kind} has been {to} for {stayed}"),
        Some(reason) if failed => format!("{name}: {reason}"),
        Some(_) | None => format!("{name}: {kind} {from_state} → {to}"),
    };
    let title = match context.burst {
        Some(within) => format!("{} times within {}: {title}", context.alert.count, span(within)),
        None => title,
    };
    let mut body = match from {
        _ if context.transition.is_change() => {
            format!("{kind} of {name} is {to}; new: {}.\n", changed.join(", "))
        }
        _ if context.transition.is_stay() => format!("{kind} of {name} has been {to} for {stayed}.\n"),
        State::Unseen => format!("{kind} of {name} was first seen in {to}.\n"),
        State::Is(_) | State::Gone => format!("{kind} of {name} went from {from_state} to {to}.\n"),
    };
    match reason {
        // Further lines are seen to belong to it.
        Some(reason) => body += &format!("Reason: {}\n", text::lines(reason, REASON_MAX).replace('\n', "\n  ")),
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
    let word = |field: &Option<Box<str>>| field.as_deref().unwrap_or_default().to_owned();
    let skipped = transition.skipped.iter().map(|status| Value::from(status.as_str()));
    context! {
        job => context! {
            id => id.as_str(), instance_id => word(instance_id), resource_id => word(resource_id),
            resource_name => word(resource_name), type => word(kind), status => status.as_str(), reason => word(reason),
            created_at => word(created_at), updated_at => word(updated_at),
        },
        source => context! {
            name => source.name.as_str(), kind => source.kind.as_str(), region => source.region.clone().unwrap_or_default(),
            project_id => source.project_id.as_str(),
        },
        transition => context! {
            from => transition.from.to_string(), to => transition.to.to_string(), skipped => Value::from_iter(skipped),
            seen_before => transition.seen_before.map(|at| at.to_string()).unwrap_or_default(),
            seen_at => transition.seen_at.to_string(), late => transition.late,
            changed => Value::from_iter(transition.changed.iter().map(|field| Value::from(*field))),
        },
        rule => context! {
            id => rule.id.as_str(), about => rule.about.as_str(), runbook => rule.runbook.clone().unwrap_or_default(),
            severity => severity.as_str(), labels => Value::from(rule.labels.clone()),
        },
        alert => context! {
            id => alert.id.as_str(), count => alert.count, held_back => held_back, first_seen => alert.first_seen.to_string(),
        },
        reason => word(reason),
        reason_class => Value::from(*reason_class),
        now => now.to_string(),
    }
}

fn one_line(text: &str) -> String {
    text::line(text, TITLE_MAX)
}

fn plain(text: &str) -> String {
    text::lines(text, TEXT_MAX)
}

/// The class of a job's reason, or nothing.
pub fn class_of(job: &Job) -> String {
    job.reason.as_deref().map(reason_class).unwrap_or_default()
}
