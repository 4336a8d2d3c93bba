//! `[[rule.test]]`: a story of listings, and what the rule before it is to say. Read here; `plan` plays it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::Rule;
use crate::document::{File, Level, Table, Value, nearest};
use crate::model::job::{Job, Status};
use crate::model::name::RuleId;
use crate::model::time::Timestamp;

/// When a story begins that does not say it: a Friday at eight o'clock in UTC.
const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
/// A story may last this long.
const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The example in every hint.
const HELP: &str = "steps = [{ at = \"0s\", jobs = [{ id = \"a\", status = \"Running\" }] }, { at = \"30s\", jobs = [{ id = \"a\", status = \"Failed\" }] }]";

/// A test that stands in a rule file.
#[derive(Clone, Debug)]
pub struct RuleTest {
    /// What it says of itself.
    pub name: String,
    /// The rule it is about.
    pub rule: RuleId,
    /// When the story begins: rules with hours of their own ask for the time of day.
    pub start: Timestamp,
    /// The listings, in order.
    pub steps: Vec<Step>,
    /// What is to come of them. At a step that is not named here, the rule is to say nothing.
    pub expect: Vec<Expectation>,
    /// Where it stands.
    pub file: Arc<File>,
    /// The place of its table.
    pub span: Range<usize>,
}

/// One whole listing.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, from the start of the story.
    pub at: Duration,
    /// What it says. Fields that are not given are missing; but for `created_at`, which is then the start of the story, and
    /// `updated_at`, which is the time of the step.
    pub jobs: Vec<Job>,
    /// Its place.
    pub span: Range<usize>,
}

/// What is to come of a step.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Which step.
    pub at: Duration,
    /// Whether the rule fires there.
    pub fires: bool,
    /// The title of what it says.
    pub title: Option<String>,
    /// Its place.
    pub span: Range<usize>,
}

/// Reads the tests of a rule.
pub(super) fn read(table: &Table<'_>, file: &Arc<File>) -> Vec<Unbound> {
    table.tables("test").into_iter().filter_map(|table| test(table, file)).collect()
}

/// A test whose rule is not made yet.
pub(super) struct Unbound(RuleTest);

impl Unbound {
    /// The test of this rule.
    pub(super) fn of(self, rule: &Rule) -> RuleTest {
        RuleTest { rule: rule.id().clone(), ..self.0 }
    }
}

fn test(table: Table<'_>, file: &Arc<File>) -> Option<Unbound> {
    let span = table.span();
    let name = table.required("name", "what the test shows: name = \"a failed creation is told once\"");
    let start = start(&table);
    let steps = list(&table, "steps", step);
    let expect = list(&table, "expect", expectation);
    if let Some(steps) = &steps {
        for pair in steps.windows(2).filter(|pair| pair[1].at <= pair[0].at) {
            let help = "each step is later than the one before it";
            table.error("steps", pair[1].span.clone(), "the steps are not in order of time", help);
        }
        for expectation in expect.iter().flatten() {
            if !steps.iter().any(|step| step.at == expectation.at) {
                let help = "`at` is the `at` of a step";
                table.error("expect", expectation.span.clone(), "there is no step at this time", help);
            }
        }
    }
    table.finish();
    let (start, steps, expect, file) = (start?, steps?, expect?, Arc::clone(file));
    Some(Unbound(RuleTest { name: name?.value, rule: RuleId::from(""), start, steps, expect, file, span }))
}

fn start(table: &Table<'_>) -> Option<Timestamp> {
    if !table.has("start") {
        // Asked for, so that it is no unknown key.
        drop(table.value("start"));
        return Some(START);
    }
    let text = table.string("start")?;
    let start = Timestamp::parse(&text.value);
    if start.is_none() {
        let help = "such as start = \"2026-11-24T09:00:00+08:00\"";
        table.error("time", text.span, format!("`{}` is no instant", text.value), help);
    }
    start
}

/// A list that must be there and not be empty; `None` when something was wrong.
fn list<T>(table: &Table<'_>, key: &'static str, read: fn(&Value<'_>) -> Option<T>) -> Option<Vec<T>> {
    let Some(value) = table.value(key) else {
        table.missing(key, HELP);
        return None;
    };
    let items = value.items()?;
    if items.is_empty() {
        value.error("empty", format!("`{key}` is empty: the test shows nothing"), HELP);
    }
    let read: Vec<Option<T>> = items.iter().map(read).collect();
    read.into_iter().collect::<Option<Vec<T>>>().filter(|list| !list.is_empty())
}

fn at(table: &Table<'_>) -> Option<Duration> {
    let at = table.duration("at", Duration::ZERO..SPAN_MAX);
    if at.is_none() && !table.has("at") {
        table.missing("at", "when, from the start of the story: at = \"30s\"");
    }
    at
}

fn step(value: &Value<'_>) -> Option<Step> {
    let table = value.table()?;
    let at = at(&table);
    let jobs = match table.value("jobs") {
        Some(jobs) => jobs.items().map(|items| items.iter().map(job).collect::<Vec<_>>()),
        None => {
            table.missing("jobs", HELP);
            None
        }
    };
    table.finish();
    Some(Step { at: at?, jobs: jobs?.into_iter().collect::<Option<_>>()?, span: value.span() })
}

fn job(value: &Value<'_>) -> Option<Job> {
    let table = value.table()?;
    let (id, status) = (table.required("id", "id = \"a\""), table.required("status", "status = \"Running\""));
    if let Some(status) = &status
        && let Status::Other(word) = Status::read(&status.value)
        && let Some(near) = nearest(word.trim(), Status::KNOWN.iter().map(Status::as_str))
    {
        let message = format!("`{word}` is a status that the documents do not have");
        table.report(Level::Warning, "unknown-status", status.span.clone(), message, format!("did you mean `{near}`?"));
    }
    let text = |key| table.string(key).map(|item| item.value.into_boxed_str());
    let job = Job {
        id: id.as_ref().map_or("", |id| id.value.as_str()).into(),
        instance_id: text("instance_id"),
        resource_id: text("resource_id"),
        resource_name: text("resource_name"),
        kind: text("type"),
        status: Status::read(status.as_ref().map_or("", |status| status.value.as_str())),
        reason: text("reason"),
        created_at: text("created_at"),
        updated_at: text("updated_at"),
    };
    table.finish();
    id.and(status).map(|_| job)
}

fn expectation(value: &Value<'_>) -> Option<Expectation> {
    let table = value.table()?;
    let at = at(&table);
    let fires = table.flag("fires");
    if fires.is_none() && !table.has("fires") {
        table.missing("fires", "fires = true, or fires = false");
    }
    let title = table.string("title").map(|title| title.value);
    table.finish();
    Some(Expectation { at: at?, fires: fires?, title, span: value.span() })
}
