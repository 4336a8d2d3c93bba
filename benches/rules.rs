//! What rules cost: planning with two hundred of them, beside the same work without any.
//!
//! `cargo bench --bench rules`. One thread; best of several rounds.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobwatch::diff::{Points, Policy};
use jobwatch::document::File;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::Listing;
use jobwatch::model::memory::Memory;
use jobwatch::model::notification::SourceFacts;
use jobwatch::model::snapshot::Known;
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Input, Plan, plan};
use jobwatch::rules::{RuleSet, Surroundings, load};
use minijinja::{Environment, context};

const ROUNDS: usize = 5;
const RULES: usize = 200;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("{:<66} {:>11} {:>11} {:>7}", "what", "took", "floor", "ratio");
    every_job_moves();
    few_jobs_move();
    templates();
}

fn line(what: &str, took: Duration, floor: Duration) {
    println!("{what:<66} {took:>11.1?} {floor:>11.1?} {:>7.2}", took.as_secs_f64() / floor.as_secs_f64());
}

fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let one = |work: &mut dyn FnMut() -> T| {
        let start = Instant::now();
        let made = work();
        let took = start.elapsed();
        drop(black_box(made));
        took
    };
    (0..ROUNDS).map(|_| one(&mut work)).min().unwrap()
}

fn job(n: usize, status: Status) -> Job {
    let text = |text: String| Some(text.into_boxed_str());
    let failed = status == Status::Failed;
    Job {
        id: format!("36db69c5-b2d5-11eb-b044-{n:012}").into(),
        instance_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_name: text(format!("team-{}-instance-{n}", n % 1_000)),
        kind: text("CreateInstance".into()),
        status,
        reason: failed.then(|| format!("node {n} of subnet 10.0.{}.0/24: quota {n} exceeded", n % 250).into()),
        created_at: text("2021-05-12T03:50:38.305978Z".into()),
        updated_at: text(format!("2021-05-12T03:5{}:43.315473Z", if failed { 1 } else { 0 })),
    }
}

/// Two hundred rules as a platform team has them: one for each of its customers, by name, with a pattern on the reason, a
/// cooldown and a group; and every tenth one of another form.
fn rules(message: &str) -> RuleSet {
    let one = |n: usize| {
        let when = match n % 10 {
            7 => "{ to = \"Failed\", count = 50, within = \"10m\", per = [\"reason_class\"] }",
            8 => "{ to = \"Failed\", new = \"reason_class\", memory = \"30d\" }",
            9 => "{ stays = \"Running\", for = \"1h\" }",
            _ => "{ from = [\"Creating\", \"Initializing\", \"Running\"], to = \"Failed\", gaps = \"allow\" }",
        };
        let mut text = format!(
            "[[rule]]\nid = \"r{n}\"\nwhen = {when}\n\
             match = {{ type = \"CreateInstance\", resource_name = {{ glob = \"team-{n}-*\" }}, reason = {{ regex = '(?i)quota|subnet' }} }}\n\
             except = {{ reason = {{ contains = \"cancelled by user\" }} }}\nnotify = [\"oncall\"]\n\
             group = {{ by = [\"source\", \"reason_class\"], wait = \"20s\" }}\n"
        );
        if n % 10 < 7 {
            text += "cooldown = \"10m\"\nresolve = { to = \"Success\", scope = \"resource\" }\n";
        }
        text + message
    };
    let text = format!("schema = 1\n{}", (0..RULES).map(one).collect::<String>());
    let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
    let none = |_: &Path| Err("no files here".to_owned());
    let (rules, report) =
        load(&[file], &Surroundings { read: &none, receivers: None, windows: None, sources: None, follow_ups: None });
    assert!(!report.has_errors(), "{:?}", report.lines().collect::<Vec<_>>());
    rules
}

fn before(count: usize) -> Memory {
    let at = Timestamp::from_micros(1_620_791_400_000_000);
    let mut memory = Memory::default();
    memory.snapshot.complete_at = Some(at);
    for job in (0..count).map(|n| job(n, Status::Running)) {
        let id = job.id.clone();
        let known = Known { job, seq: 0, status_since: at, seen_at: at, missing: 0, stale: 0, gone: false };
        memory.snapshot.jobs.insert(id, known);
    }
    memory
}

fn decide(before: &Memory, rules: &RuleSet, jobs: Vec<Job>) -> Plan {
    let source = SourceFacts { name: "prod".into(), kind: "swr".into(), region: None, project_id: "p".into() };
    let now = Timestamp::from_micros(1_620_791_530_000_000);
    plan(Input {
        source: &Arc::new(source),
        before,
        living: before.snapshot.jobs.len(),
        listing: Listing::Complete(jobs.into()),
        points: Points::new(),
        rules,
        policy: &Policy::default(),
        now,
    })
}

/// With and without rules, the time to plan these jobs.
fn both(before: &Memory, rules: &RuleSet, jobs: &[Job]) -> (Duration, Duration) {
    let mut copies: Vec<Vec<Job>> = std::iter::repeat_with(|| jobs.to_vec()).take(2 * ROUNDS).collect();
    let took = best(|| decide(before, rules, copies.pop().unwrap()));
    let none = RuleSet::default();
    let floor = best(|| decide(before, &none, copies.pop().unwrap()));
    (took, floor)
}

fn every_job_moves() {
    let (before, rules) = (before(50_000), rules(""));
    let jobs: Vec<Job> = (0..50_000).map(|n| job(n, Status::Failed)).collect();
    let said = decide(&before, &rules, jobs.clone()).owed.len();
    let (took, floor) = both(&before, &rules, &jobs);
    line(&format!("50,000 jobs fail, 200 rules, {said} messages / no rules"), took, floor);
}

fn few_jobs_move() {
    let (before, rules) = (before(50_000), rules(""));
    let status = |n: usize| if n.is_multiple_of(500) { Status::Failed } else { Status::Running };
    let jobs: Vec<Job> = (0..50_000).map(|n| job(n, status(n))).collect();
    let (took, floor) = both(&before, &rules, &jobs);
    line("50,000 jobs, 100 of them fail, 200 rules / no rules", took, floor);
}

/// Every step is told, in a message of the rule's own.
fn templates() {
    const TITLE: &str = "{{ job.resource_name }}: {{ reason }}";
    const BODY: &str = "{{ job.type }} of {{ job.resource_name }} in {{ source.name }} went {{ transition.from }} → {{ transition.to }}.\n{% if reason %}Reason: {{ reason }}{% endif %}";
    let rules = rules(&format!("message = {{ title = {TITLE:?}, body = {BODY:?} }}\n"));
    let before = before(1_000);
    let jobs: Vec<Job> = (0..1_000)
        .map(|n| Job { resource_name: Some(format!("team-{}-instance", n % 7).into()), ..job(n, Status::Failed) })
        .collect();
    let said = decide(&before, &rules, jobs.clone()).owed.len();
    let (took, _) = both(&before, &rules, &jobs);
    let mut environment = Environment::new();
    environment.add_template("title", TITLE).unwrap();
    environment.add_template("body", BODY).unwrap();
    let (title, body) = (environment.get_template("title").unwrap(), environment.get_template("body").unwrap());
    let floor = best(|| {
        let render = |job: &Job| {
            let context = context! {
                job => context! { resource_name => job.resource_name.as_deref(), type => job.kind.as_deref() },
                reason => job.reason.as_deref(), source => context! { name => "prod" },
                transition => context! { from => "Running", to => "Failed" },
            };
            (title.render(&context).unwrap(), body.render(&context).unwrap())
        };
        jobs.iter().map(render).collect::<Vec<_>>()
    });
    line(&format!("1,000 steps, 200 rules, {said} messages / the templates alone"), took, floor);
}
