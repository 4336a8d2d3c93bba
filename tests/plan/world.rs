//! A source that is polled every thirty seconds, in plain values: each poll is decided, and remembered as a store would.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::config::{self, Purpose};
use jobwatch::diff::{Points, Policy};
use jobwatch::document::File;
use jobwatch::model::delivery::Owed;
use jobwatch::model::index::Index;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::{Fault, FaultKind, Listing};
use jobwatch::model::memory::Memory;
use jobwatch::model::name::JobId;
use jobwatch::model::notification::SourceFacts;
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Input, Plan, SelfWatch, View, lookout, plan};
use jobwatch::rules::{Facts, RuleSet, Surroundings, Window, load, reason_class};

pub(crate) const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// A source that is polled every thirty seconds, and all that is remembered of it.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) rules: RuleSet,
    pub(crate) policy: Policy,
    pub(crate) watch: SelfWatch,
    pub(crate) points: Points,
    pub(crate) now: Timestamp,
}

pub(crate) fn rules(text: &str) -> RuleSet {
    let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
    let none = |_: &Path| Err("no files here".to_owned());
    let (rules, report) =
        load(&[file], &Surroundings { read: &none, receivers: None, windows: None, sources: None, follow_ups: None });
    assert!(!report.has_errors(), "{}", report.lines().collect::<Vec<_>>().join("\n"));
    rules
}

pub(crate) const TELL_FAILURES: &str = r#"
schema = 1
[[rule]]
id = "failed"
when = { to = "Failed" }
notify = ["oncall"]
"#;

impl World {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            memory: Memory::default(),
            rules: rules(text),
            policy: Policy { late_after: Duration::from_secs(90), ..Policy::default() },
            watch: SelfWatch { notify: vec!["ops".into()], blind_after: Duration::from_secs(300) },
            points: Points::new(),
            now: START,
        }
    }

    /// A world whose baseline was these jobs.
    pub(crate) fn knowing(text: &str, jobs: &[Job]) -> Self {
        let mut world = Self::new(text);
        world.see(jobs);
        world
    }

    pub(crate) fn see(&mut self, jobs: &[Job]) -> Plan {
        self.poll(Listing::Complete(jobs.to_vec().into()))
    }

    pub(crate) fn see_part(&mut self, jobs: &[Job]) -> Plan {
        let fault = Fault { kind: FaultKind::Unavailable, text: "HTTP 503".into(), retry_after: None };
        self.poll(Listing::Incomplete { rows: jobs.to_vec().into(), fault })
    }

    /// What is told of the sources' visibility now.
    pub(crate) fn look(&mut self, plan: &Plan) -> Vec<Owed> {
        let view = View {
            source: Arc::clone(&plan.source),
            sight: plan.sight,
            fault: plan.fault.clone(),
            seen_since: None,
            told_at: None,
        };
        let outlook = lookout(&[&view], &self.watch, true, plan.at);
        outlook.told.iter().for_each(|(_, since)| self.memory.sight.told_since = *since);
        outlook.owed
    }

    /// Decides a poll, remembers what it says as a store would, and lets half a minute pass.
    pub(crate) fn poll(&mut self, listing: Listing) -> Plan {
        let source =
            Arc::new(SourceFacts { name: "prod".into(), kind: "swr".into(), region: None, project_id: "p".into() });
        let points = std::mem::take(&mut self.points);
        // A store gives as much of the past as the rules count.
        let since = self.now.minus(self.rules.counted().unwrap_or_default());
        self.memory.recent.retain(|step| step.seen_at >= since);
        let (before, rules, policy, now) = (&self.memory, &self.rules, &self.policy, self.now);
        let living = before.snapshot.jobs.values().filter(|known| !known.gone).count();
        let (small, rows) = indexed(before, &listing, rules);
        let narrow = Input { source: &source, before: &small, living, listing: rows, points, rules, policy, now };
        let points = narrow.points.clone();
        let narrow = plan(narrow);
        let plan = plan(Input { source: &source, before, living, listing, points, rules, policy, now });
        assert_eq!(sorted(narrow), sorted(plan.clone()), "what the index leaves out makes no difference");
        plan.remember(&mut self.memory);
        self.now = now.plus(Duration::from_secs(30));
        plan
    }
}

/// The listing as a source gives it that compares rows with an index while it reads, and the memory as it is loaded then.
pub(crate) fn indexed(memory: &Memory, listing: &Listing, rules: &RuleSet) -> (Memory, Listing) {
    let mut index = Index::default();
    memory.snapshot.jobs.values().for_each(|known| index.put(known));
    let mut rows = listing.rows().clone();
    rows.listed = rows.jobs.iter().map(|job| index.key(job.id.as_str())).collect();
    rows.jobs.retain(|job| index.is_news(job));
    let unlisted = if matches!(listing, Listing::Complete(_)) { index.unlisted(&rows.listed) } else { HashSet::new() };
    let mut small = memory.clone();
    // What a store gives a rule that measures time, and to tell whether what was muted still stands.
    small.timed = memory.snapshot.jobs.clone();
    let is_muted = |id: &JobId| memory.muted.iter().any(|muted| muted.transition.job.id == *id);
    small.timed.retain(|id, known| !known.gone || is_muted(id));
    // And the findings that it gives: about jobs that are loaded, by what rules say a job belongs to, by resource.
    let class = |job: &Job| job.reason.as_deref().map(reason_class).unwrap_or_default();
    let source = "prod".into();
    let named = |job: &Job| -> Vec<_> {
        rules.wide_findings(&Facts { job, reason_class: &class(job), source: &source, now: START }).collect()
    };
    let shown = &rows.jobs;
    let gone = small.snapshot.jobs.iter().filter(|(id, _)| unlisted.contains(&index.key(id.as_str())));
    let wide: HashSet<_> = shown.iter().chain(gone.map(|(_, known)| &known.job)).flat_map(named).collect();
    let muted: HashSet<_> = small.muted.iter().map(|muted| &muted.alert).collect();
    small.alerts.retain(|id, alert| {
        let on_resource = shown.iter().any(|job| job.resource_id.is_some() && job.resource_id == alert.resource);
        small.timed.contains_key(&alert.subject)
            || shown.iter().any(|job| job.id == alert.subject)
            || wide.contains(id)
            || muted.contains(id)
            || on_resource && rules.by_resource()
    });
    small
        .snapshot
        .jobs
        .retain(|id, _| unlisted.contains(&index.key(id.as_str())) || rows.jobs.iter().any(|job| job.id == *id));
    let listing = match listing {
        Listing::Complete(_) => Listing::Complete(rows),
        Listing::Brief(_) => Listing::Brief(rows),
        Listing::Incomplete { fault, .. } => Listing::Incomplete { rows, fault: fault.clone() },
    };
    (small, listing)
}

/// What a listing leaves out is found in no particular order.
pub(crate) fn sorted(mut plan: Plan) -> Plan {
    plan.difference.changes.sort_by(|a, b| a.known.job.id.cmp(&b.known.job.id));
    plan.owed.sort_by(|a, b| a.id.cmp(&b.id));
    plan.matches.sort_by(|a, b| (&a.1.id, &a.0).cmp(&(&b.1.id, &b.0)));
    plan.fates.sort_by(|a, b| (&a.transition, &a.rule, &a.receiver).cmp(&(&b.transition, &b.rule, &b.receiver)));
    plan
}

pub(crate) fn job(id: &str, status: &str, updated: u32) -> Job {
    let mut job = Job::bare(id, Status::read(status));
    job.created_at = Some("2026-11-24T08:00:00.000000Z".into());
    job.updated_at = Some(format!("2026-11-24T08:{:02}:{:02}.000000Z", updated / 60, updated % 60).into());
    job
}

pub(crate) fn failed(id: &str, updated: u32, reason: &str) -> Job {
    Job { reason: Some(reason.into()), ..job(id, "Failed", updated) }
}

/// `a: Running → Failed` for every step.
pub(crate) fn steps(plan: &Plan) -> Vec<String> {
    plan.difference.transitions().map(|step| format!("{}: {} → {}", step.job.id, step.from, step.to)).collect()
}

pub(crate) fn told(plan: &Plan) -> Vec<(&str, &str)> {
    plan.owed.iter().map(|owed| (owed.receiver.as_str(), owed.notification.title.as_str())).collect()
}

/// Windows as the configuration has them.
pub(crate) fn windows(text: &str) -> Vec<Arc<Window>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    std::fs::write(&path, text).unwrap();
    config::load(&path, Purpose::Check).0.unwrap().known.windows
}
