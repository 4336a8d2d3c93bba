//! Rules that are edited while they are in force: what was told is remembered under the rule's id and is not told again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::diff::{Points, Policy};
use jobwatch::document::File;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::Listing;
use jobwatch::model::memory::Memory;
use jobwatch::model::notification::{SourceFacts, Topic};
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Input, Plan, SelfWatch, plan, rules_accepted, rules_refused};
use jobwatch::rules::{RuleSet, Surroundings, load};
use proptest::prelude::*;

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const STATUSES: [&str; 4] = ["Creating", "Running", "Failed", "Success"];

fn rules(text: &str) -> RuleSet {
    let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
    let none = |_: &Path| Err("no files here".to_owned());
    let (rules, report) =
        load(&[file], &Surroundings { read: &none, receivers: None, windows: None, sources: None, follow_ups: None });
    assert!(!report.has_errors(), "{text}\n{}", report.lines().collect::<Vec<_>>().join("\n"));
    rules
}

/// What an edit makes of a rule; its id stays.
#[derive(Clone, Debug)]
struct Edit {
    /// It is not in the files for a while.
    absent: bool,
    severity: &'static str,
    title: &'static str,
    /// Which jobs it looks at.
    clause: &'static str,
    minutes: u8,
    statuses: &'static str,
}

fn edits() -> impl Strategy<Value = Edit> {
    let severity = prop::sample::select(vec!["info", "warning", "error", "critical"]);
    let title = prop::sample::select(vec!["one", "{{ job.id }}", "{{ rule.id }}: {{ transition.to }}"]);
    let clause = prop::sample::select(vec![
        "",
        "match = { id = [\"a\", \"b\"] }",
        "match = { id = \"a\" }",
        "except = { id = \"c\" }",
        "match = { age = { older_than = \"1m\" } }",
    ]);
    let statuses = prop::sample::select(vec![r#""Running""#, r#"["Running", "Creating"]"#, r#""*""#]);
    (prop::bool::weighted(0.1), severity, title, clause, 1..4_u8, statuses).prop_map(
        |(absent, severity, title, clause, minutes, statuses)| Edit {
            absent,
            severity,
            title,
            clause,
            minutes,
            statuses,
        },
    )
}

impl Edit {
    fn rule(&self, id: &str, when: &str, more: &str) -> String {
        let Self { absent, severity, title, clause, .. } = self;
        if *absent {
            return String::new();
        }
        format!(
            "[[rule]]\nid = \"{id}\"\nwhen = {when}\nseverity = \"{severity}\"\nmessage = {{ title = \"{title}\" }}\n{clause}\n{more}\nnotify = [\"oncall\"]\n"
        )
    }

    /// `stuck` measures time, `failed` has a cooldown longer than any story.
    fn rules(&self) -> RuleSet {
        let statuses = match self.statuses {
            r#""*""# => r#"["Creating", "Initializing", "Running", "Failed", "Success"]"#,
            some => some,
        };
        let stuck = self.rule("stuck", &format!("{{ stays = {statuses}, for = \"{}m\" }}", self.minutes), "");
        let failed = self.rule("failed", "{ to = \"Failed\" }", "cooldown = \"14d\"");
        rules(&format!("schema = 1\n{stuck}{failed}"))
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The operator edits the rules and has them read.
    Reload(Edit),
    /// A job goes to a status.
    Move(usize, usize),
    /// Half a minute passes, and a listing is read.
    Poll,
}

fn stories() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => edits().prop_map(Step::Reload),
        2 => (0..3_usize, 0..STATUSES.len()).prop_map(|(job, status)| Step::Move(job, status)),
        6 => Just(Step::Poll),
    ];
    proptest::collection::vec(step, 1..80)
}

struct World {
    memory: Memory,
    jobs: [(usize, u32); 3],
    now: Timestamp,
}

impl World {
    fn poll(&mut self, rules: &RuleSet) -> Plan {
        let source =
            Arc::new(SourceFacts { name: "prod".into(), kind: "swr".into(), region: None, project_id: "p".into() });
        let row = |(name, (status, step)): (&str, &(usize, u32))| {
            let mut job = Job::bare(name, Status::read(STATUSES[*status]));
            job.created_at = Some(START.to_string().into());
            job.updated_at = Some(START.plus(Duration::from_secs(u64::from(*step))).to_string().into());
            job
        };
        let rows: Vec<Job> = ["a", "b", "c"].into_iter().zip(&self.jobs).map(row).collect();
        let mut before = self.memory.clone();
        // What a store gives a rule that measures time.
        before.timed = before.snapshot.jobs.clone();
        let (policy, listing) = (Policy::default(), Listing::Complete(rows.into()));
        let plan = plan(Input {
            source: &source,
            before: &before,
            living: before.snapshot.jobs.len(),
            listing,
            points: Points::new(),
            rules,
            policy: &policy,
            now: self.now,
        });
        plan.remember(&mut self.memory);
        self.now = self.now.plus(Duration::from_secs(30));
        plan
    }
}

proptest! {
    /// However the rules are edited between the polls: a stay that was told is not told again while it lasts, and what has
    /// a cooldown is told again only when the rule has become more severe than it was when it was told.
    #[test]
    fn no_sequence_of_reloads_tells_again_what_was_told(first in edits(), story in stories()) {
        let mut rules = Edit { absent: false, ..first }.rules();
        let mut world = World { memory: Memory::default(), jobs: [(1, 1); 3], now: START };
        world.poll(&rules);
        let mut stays = std::collections::BTreeSet::new();
        let mut failures = BTreeMap::new();
        let mut ids = std::collections::BTreeSet::new();
        for (n, step) in story.into_iter().enumerate() {
            match step {
                Step::Reload(edit) => rules = edit.rules(),
                Step::Move(job, status) => world.jobs[job] = (status, u32::try_from(n).unwrap() + 2),
                Step::Poll => {
                    let plan = world.poll(&rules);
                    for owed in &plan.owed {
                        let Topic::Job(topic) = &owed.notification.topic else { panic!("{owed:?}") };
                        let job = topic.transition.job.id.to_string();
                        prop_assert!(ids.insert(owed.id.clone()), "an id was used twice");
                        if topic.transition.is_stay() {
                            let stay = (job, topic.transition.seen_before);
                            prop_assert!(stays.insert(stay.clone()), "told again: {stay:?}");
                        } else {
                            let severity = owed.notification.severity;
                            let before = failures.insert(job.clone(), severity);
                            prop_assert!(before.is_none_or(|before| severity > before), "{job} told again at {severity:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rules_that_cannot_be_used_are_one_message_for_each_set_of_errors_and_so_is_their_end() {
    let watch = SelfWatch { notify: vec!["ops".into()], blind_after: Duration::from_secs(300) };
    let errors: Vec<String> = (0..50).map(|n| format!("rules/a.toml:{n}:1: error: {}", "x".repeat(1_000))).collect();
    let later = START.plus(Duration::from_secs(90));
    let id = |errors: &[String], since, now| rules_refused(errors, &watch, since, now)[0].id.clone();
    assert_eq!(id(&errors, START, START), id(&errors, START, later), "told once, however often they are refused");
    assert_ne!(id(&errors, START, later), id(&errors[1..], START, later), "other errors");
    assert_ne!(id(&errors, START, later), id(&errors, later, later), "the same mistake, made once more");

    let told = &rules_refused(&errors, &watch, START, later)[0];
    let data = told.notification.data();
    assert_eq!(told.notification.event.as_str(), "io.jobwatch.agent.reload_failed");
    assert_eq!((&data["state"], &data["severity"]), (&"firing".into(), &"error".into()));
    assert_eq!(data["title"], "the rules on disk cannot be used: 50 errors");
    assert!(data["reason"].as_str().unwrap().starts_with("rules/a.toml:0:1: error: xxx"));
    assert!(data["body"].as_str().unwrap().ends_with("… and 30 more: `jobwatch check` shows all."));
    assert_eq!(data["problems"].as_array().unwrap().len(), 20);
    assert!(data.to_string().len() < 30_000, "bounded");

    let over = &rules_accepted(7, &watch, START, later)[0];
    let data = over.notification.data();
    assert_eq!(over.notification.event.as_str(), "io.jobwatch.agent.reload_succeeded");
    assert_eq!((&data["state"], &data["severity"]), (&"resolved".into(), &"info".into()));
    assert_eq!(data["title"], "the rules on disk can be used again: 7 rules are in force");
    assert_eq!(over.lane, told.lane, "in this order");
    assert!(rules_refused(&errors, &SelfWatch::default(), START, later).is_empty(), "nobody is to hear");
}
