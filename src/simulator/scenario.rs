//! A story told in TOML: which jobs there are, how they pass through their states, and when answers go wrong.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use crate::document::{File, Report, Table, Value, parse};
use crate::model::job::{Job, Status};
use crate::model::time::Timestamp;

/// The story that the demo tells.
const DEMO: &str = include_str!("demo.toml");
/// More jobs than this are not simulated.
const JOBS_MAX: usize = 200_000;
const DAY: Duration = Duration::from_secs(86_400);

/// A story.
#[derive(Clone, Debug)]
pub struct Scenario {
    project_id: String,
    token: String,
    page_max: usize,
    jobs: Vec<Story>,
    faults: Vec<Spell>,
}

/// One job's life.
#[derive(Clone, Debug)]
struct Story {
    id: String,
    name: String,
    kind: String,
    at: Duration,
    /// Each state, and when it begins, counted from the story's start.
    states: Vec<(Status, Duration)>,
    reason: Option<String>,
    ends: Option<Duration>,
}

/// A time in which answers go wrong.
#[derive(Clone, Copy, Debug)]
struct Spell {
    from: Duration,
    until: Duration,
    fault: Fault,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its places.
    pub fn read(text: &str, path: &Path) -> Result<Self, Report> {
        let file = Arc::new(File { path: path.to_owned(), text: text.into() });
        let mut report = Report::default();
        let (table, syntax) = parse(text);
        if !syntax.is_empty() {
            report.add(&file, syntax);
            return Err(report);
        }
        let problems = RefCell::default();
        let scenario = Self::from_table(Table::root(&table, &problems));
        report.add(&file, problems.into_inner());
        if report.has_errors() { Err(report) } else { Ok(scenario) }
    }

    fn from_table(top: Table<'_>) -> Self {
        let text = |key, default: &str| top.string(key).map_or_else(|| default.to_owned(), |item| item.value);
        let (project_id, token) = (text("project_id", "0605768a3300d5762f8cc01d2b3e4f50"), text("token", "demo-token"));
        let page_max = top.integer("page_max", 1..101).and_then(|n| usize::try_from(n).ok()).unwrap_or(100);
        let mut jobs = Vec::new();
        for table in top.tables("job") {
            read_job(table, &mut jobs);
        }
        let faults = top.tables("fault").into_iter().filter_map(read_fault).collect();
        top.finish();
        Self { project_id, token, page_max, jobs, faults }
    }

    /// The demo's story.
    pub fn demo() -> Self {
        Self::read(DEMO, Path::new("demo.toml")).expect("the demo's story is proved by a test")
    }

    /// The project whose jobs are listed.
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    /// Whether a project's jobs may be listed; a scenario for `*` has every project, each with the same jobs.
    pub(super) fn has_project(&self, project: &str) -> bool {
        self.project_id == "*" || self.project_id == project
    }

    /// What `X-Auth-Token` must be.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The largest page that is given.
    pub(super) fn page_max(&self) -> usize {
        self.page_max
    }

    /// When the last change happens.
    pub fn settles_after(&self) -> Duration {
        let last = |story: &Story| story.ends.or_else(|| story.states.last().map(|(_, at)| *at));
        self.jobs.iter().filter_map(last).max().unwrap_or_default()
    }

    /// The jobs that exist so long after the start, newest first.
    pub fn jobs_at(&self, elapsed: Duration, start: Timestamp) -> Vec<Job> {
        let mut living: Vec<&Story> = self.jobs.iter().filter(|story| story.lives_at(elapsed)).collect();
        living.sort_by_key(|story| std::cmp::Reverse(story.at));
        living.into_iter().map(|story| story.job_at(elapsed, start)).collect()
    }

    /// What goes wrong so long after the start.
    pub(super) fn fault_at(&self, elapsed: Duration) -> Option<Fault> {
        self.faults.iter().find(|spell| (spell.from..spell.until).contains(&elapsed)).map(|spell| spell.fault)
    }
}

impl Story {
    fn lives_at(&self, elapsed: Duration) -> bool {
        elapsed >= self.at && self.ends.is_none_or(|ends| elapsed < ends)
    }

    fn job_at(&self, elapsed: Duration, start: Timestamp) -> Job {
        let (status, since) = self
            .states
            .iter()
            .rev()
            .find(|(_, at)| *at <= elapsed)
            .unwrap_or(self.states.first().expect("a job with no state is refused when the scenario is read"));
        let failed = *status == Status::Failed;
        let text = |text: &str| Some(Box::from(text));
        let instance = uuid(&[&self.id, "instance"]);
        Job {
            id: self.id.as_str().into(),
            instance_id: text(&instance),
            resource_id: text(&instance),
            resource_name: text(&self.name),
            kind: text(&self.kind),
            status: status.clone(),
            reason: self.reason.as_deref().filter(|_| failed).map(Box::from),
            created_at: text(&stamp(start.plus(self.at))),
            updated_at: text(&stamp(start.plus(*since))),
        }
    }
}

/// RFC 3339 with six fraction digits, as the specification's example has them.
fn stamp(at: Timestamp) -> String {
    let whole = Timestamp::from_micros(at.seconds() * 1_000_000).to_string();
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), at.micros().rem_euclid(1_000_000))
}

/// A text in the shape of a UUID, the same for the same parts.
fn uuid(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("/").as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

fn read_job(table: Table<'_>, jobs: &mut Vec<Story>) {
    let name = table.required("name", "what the instance is called: name = \"prod-a\"");
    let kind = table.string("type").map_or_else(|| "CreateInstance".to_owned(), |item| item.value);
    let at = table.duration("at", Duration::ZERO..DAY).unwrap_or_default();
    let path = match table.value("path") {
        Some(value) => read_path(&value, at),
        None => {
            table.missing("path", "path = [[\"Creating\", \"4s\"], [\"Running\", \"6s\"], [\"Failed\"]]");
            None
        }
    };
    let reason = table.string("reason").map(|item| item.value);
    let gone = table.duration("deleted_after", Duration::ZERO..DAY);
    let copies = table.integer("copies", 1..100_001).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let id = table.string("id").map(|item| item.value);
    let span = table.span();
    if jobs.len() + copies > JOBS_MAX {
        table.error("too-many", span, format!("more than {JOBS_MAX} jobs"), "fewer copies");
        return;
    }
    table.finish();
    let (Some(name), Some(states)) = (name, path) else { return };
    let ends = gone.zip(states.last()).map(|(after, (_, at))| *at + after);
    for n in 1..=copies {
        let name = if copies == 1 { name.value.clone() } else { format!("{}-{n}", name.value) };
        let id = match &id {
            Some(id) if copies == 1 => id.clone(),
            Some(id) => format!("{id}-{n}"),
            None => uuid(&[&name]),
        };
        let (kind, states, reason) = (kind.clone(), states.clone(), reason.clone());
        jobs.push(Story { id, name, kind, at, states, reason, ends });
    }
}

fn read_path(value: &Value<'_>, at: Duration) -> Option<Vec<(Status, Duration)>> {
    let (mut states, mut begins) = (Vec::new(), at);
    let steps = value.items()?;
    for (n, step) in steps.iter().enumerate() {
        let words = step.strings()?;
        let last = n + 1 == steps.len();
        match words.as_slice() {
            [status] if last => states.push((Status::read(&status.value), begins)),
            [status, time] => {
                states.push((Status::read(&status.value), begins));
                let Some(time) = crate::document::duration(&time.value) else {
                    step.error("not-a-duration", format!("`{}` is not a duration", time.value), "\"4s\"");
                    return None;
                };
                begins += time;
            }
            _ => {
                step.error("step", "a step is [\"Status\", \"4s\"], the last one [\"Status\"]", "");
                return None;
            }
        }
    }
    if states.is_empty() {
        value.error("empty", "`path` is empty", "path = [[\"Success\"]]");
        return None;
    }
    Some(states)
}

fn read_fault(table: Table<'_>) -> Option<Spell> {
    let from = table.duration("at", Duration::ZERO..DAY).unwrap_or_default();
    let long = table.duration("for", Duration::ZERO..DAY);
    if table.string("kind").is_none() {
        table.missing("kind", "kind = \"server_error\"");
    }
    let fault = table.word("kind", Fault::WORDS);
    table.finish();
    Some(Spell { from, until: long.map_or(Duration::MAX, |long| from + long), fault: fault? })
}

#[cfg(test)]
mod tests {
    use super::{Duration, Path, Scenario, Timestamp};

    const START: Timestamp = Timestamp::from_micros(1_620_791_438_305_978);

    #[test]
    fn a_job_passes_its_states_on_the_clock_and_tells_its_reason_at_the_end() {
        let scenario = Scenario::demo();
        let seen = |seconds| {
            let jobs = scenario.jobs_at(Duration::from_secs(seconds), START);
            let job = jobs.iter().find(|job| job.title() == "prod-payments");
            job.map(|job| (job.status.to_string(), job.reason.is_some()))
        };
        let state = |word: &str, reason| Some((word.to_owned(), reason));
        assert_eq!(seen(5), None);
        assert_eq!(seen(6), state("Creating", false));
        assert_eq!(seen(12), state("Initializing", false));
        assert_eq!(seen(18), state("Running", false));
        assert_eq!(seen(28), state("Failed", true));
        assert_eq!(scenario.settles_after(), Duration::from_secs(32));
        let jobs = scenario.jobs_at(Duration::from_secs(0), START);
        assert_eq!(jobs[0].updated_at.as_deref(), Some("2021-05-12T03:50:38.305978Z"));
    }

    #[test]
    fn a_scenario_that_makes_no_sense_is_refused_with_every_reason() {
        let text = "[[job]]\nname = \"a\"\npath = [[\"Running\"], [\"Failed\"]]\n[[job]]\nnmae = \"b\"\n[[fault]]\nkind = \"html5\"\n";
        let report = Scenario::read(text, Path::new("s.toml")).unwrap_err();
        let lines: Vec<String> = report.lines().collect();
        assert_eq!(lines.len(), 4, "a misspelt name is not also missing: {lines:#?}");
        assert!(lines.iter().any(|line| line.contains("did you mean `name`?")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("did you mean `html`?")), "{lines:#?}");
    }

    #[test]
    fn copies_have_names_and_ids_of_their_own() {
        let text = "[[job]]\nname = \"a\"\npath = [[\"Success\"]]\ncopies = 300\n";
        let scenario = Scenario::read(text, Path::new("s.toml")).unwrap();
        let jobs = scenario.jobs_at(Duration::ZERO, START);
        let ids: std::collections::BTreeSet<_> = jobs.iter().map(|job| job.id.as_str()).collect();
        assert_eq!(ids.len(), 300);
        assert!(ids.iter().all(|id| id.len() == 36));
    }
}
