//! Reading a listing that does not stand still: whole and brief, against a cloud in memory that changes between requests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobwatch::diff::{Points, Policy, to_confirm, to_sample, vanished};
use jobwatch::model::index::Index;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::{Fault, Listing, Point};
use jobwatch::model::memory::Memory;
use jobwatch::model::name::JobId;
use jobwatch::model::notification::SourceFacts;
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Input, Plan, plan};
use jobwatch::rules::RuleSet;
use jobwatch::source::pager::{Page, Row};
use jobwatch::source::survey::{Shelf, Survey};

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const WORDS: [&str; 5] = ["Creating", "Initializing", "Running", "Success", "Failed"];

/// The cloud. Its order of rows is of no meaning, and it may change before every request.
struct Cloud {
    state: Mutex<State>,
    /// How likely a change is before a request.
    churn: f64,
    /// What `total` says under a filter, and whether the filter is true.
    filter: Filter,
}

#[derive(Clone, Copy, PartialEq)]
enum Filter {
    True,
    CountsAll,
    Ignored,
    Empty,
    TotalIsPage,
}

struct State {
    jobs: Vec<Job>,
    serial: u32,
    requests: usize,
    chance: fastrand::Rng,
}

impl State {
    /// Something happens: a job appears, goes, moves on, or ends.
    fn change(&mut self) {
        self.serial += 1;
        let (what, at) = (self.chance.u8(0..10), self.chance.usize(0..=self.jobs.len()));
        match what {
            0..3 => {
                let job = self.job(&format!("n{:06}", self.serial), 0);
                self.jobs.insert(at, job);
            }
            3 if at < self.jobs.len() => drop(self.jobs.remove(at)),
            4 => {
                // Comes and ends at once.
                let job = self.job(&format!("n{:06}", self.serial), 4);
                self.jobs.insert(at, job);
            }
            5 => self.chance.clone().shuffle(&mut self.jobs),
            _ if at < self.jobs.len() => {
                // Mostly one that is at work.
                let busy = self.jobs.iter().position(|job| !job.status.is_final());
                let at = busy.filter(|_| self.chance.u8(0..3) > 0).unwrap_or(at);
                let id = self.jobs[at].id.to_string();
                let rank = WORDS.iter().position(|word| *word == self.jobs[at].status.as_str()).unwrap();
                let next = (rank + 1 + self.chance.usize(0..2)).min(4);
                // An ended job runs again now and then.
                let again = rank >= 3 && self.chance.u8(0..4) == 0;
                match (rank >= 3, again) {
                    (false, _) => self.jobs[at] = self.job(&id, next),
                    (true, true) => self.jobs[at] = self.job(&id, 2),
                    (true, false) => {}
                }
            }
            _ => {}
        }
    }

    fn job(&self, id: &str, rank: usize) -> Job {
        let mut job = Job::bare(id, Status::read(WORDS[rank]));
        job.reason = (rank == 4).then(|| format!("reason {}", self.serial).into());
        job.created_at = Some("2026-11-24T08:00:00Z".into());
        job.updated_at = Some(START.plus(Duration::from_secs(self.serial.into())).to_string().into());
        job
    }
}

impl Cloud {
    fn new(seed: u64, count: usize, churn: f64) -> Self {
        let mut state = State { jobs: Vec::new(), serial: 0, requests: 0, chance: fastrand::Rng::with_seed(seed) };
        for n in 0..count {
            let rank = if n % 40 == 0 { 2 } else { 3 };
            let job = state.job(&format!("j{n:06}"), rank);
            state.jobs.push(job);
        }
        Self { state: Mutex::new(state), churn, filter: Filter::True }
    }

    fn change(&self) {
        self.state.lock().unwrap().change();
    }

    fn requested(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        while state.chance.f64() < self.churn {
            state.change();
        }
        state
    }

    fn requests(&self) -> usize {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    fn jobs(&self) -> Vec<Job> {
        self.state.lock().unwrap().jobs.clone()
    }
}

impl Shelf for Cloud {
    fn page(
        &self,
        status: Option<&Status>,
        offset: usize,
        limit: usize,
        index: &Index,
    ) -> impl Future<Output = Result<Page, Fault>> + Send {
        assert!(limit <= 100 && offset.is_multiple_of(limit), "offset {offset} is no multiple of {limit}");
        let state = self.requested();
        let status = status.filter(|_| self.filter != Filter::Ignored);
        let fits = |job: &&Job| status.is_none_or(|status| job.status == *status && self.filter != Filter::Empty);
        let listed: Vec<&Job> = state.jobs.iter().filter(fits).collect();
        let page: Vec<&Job> = listed.iter().copied().skip(offset).take(limit).collect();
        let total = match self.filter {
            Filter::CountsAll => state.jobs.len(),
            Filter::TotalIsPage => page.len(),
            Filter::True | Filter::Ignored | Filter::Empty => listed.len(),
        };
        let row = |job: &Job| Row { key: index.key(job.id.as_str()), job: index.is_news(job).then(|| job.clone()) };
        let page = Page { total, rows: page.into_iter().map(row).collect(), unreadable: 0 };
        async move {
            // Pages that are read side by side take turns.
            tokio::task::yield_now().await;
            Ok(page)
        }
    }

    async fn show(&self, id: &JobId) -> Result<Point, Fault> {
        let state = self.requested();
        let found = state.jobs.iter().find(|job| job.id == *id).cloned();
        Ok(found.map_or(Point::NotFound, Point::Found))
    }
}

/// Who watches the cloud: what the agent does at a poll, without a store.
struct Watcher {
    memory: Memory,
    index: Index,
    survey: Survey,
    now: Timestamp,
}

impl Watcher {
    fn new() -> Self {
        Self { memory: Memory::default(), index: Index::default(), survey: Survey::default(), now: START }
    }

    async fn poll(&mut self, cloud: &Cloud, whole: bool) -> (Plan, &'static str) {
        let index = &self.index;
        let whole = whole || self.memory.snapshot.complete_at.is_none() || !index.missing().is_empty();
        let listing = self.survey.list(cloud, index, whole).await;
        let (kind, unlisted) = match &listing {
            Listing::Complete(rows) => ("whole", index.unlisted(&rows.listed)),
            Listing::Brief(_) => ("brief", Default::default()),
            Listing::Incomplete { .. } => ("incomplete", Default::default()),
        };
        let news: BTreeSet<&JobId> = listing.rows().jobs.iter().map(|job| &job.id).collect();
        let mut before = self.memory.clone();
        before.snapshot.jobs.retain(|id, _| unlisted.contains(&index.key(id.as_str())) || news.contains(id));
        let (policy, living) = (Policy::default(), index.len());
        let ask = match vanished(&before.snapshot, &listing, &policy, living) {
            Some(_) => to_sample(&before.snapshot, &listing, 20),
            None => to_confirm(&before.snapshot, &listing, &policy, 20),
        };
        let mut points = Points::new();
        for id in ask {
            points.insert(id.clone(), cloud.show(id).await.unwrap());
        }
        let source =
            Arc::new(SourceFacts { name: "prod".into(), kind: "swr".into(), region: None, project_id: "p".into() });
        let (rules, now) = (&RuleSet::default(), self.now);
        let plan =
            plan(Input { source: &source, before: &before, living, listing, points, rules, policy: &policy, now });
        for change in &plan.difference.changes {
            self.index.put(&change.known);
            self.memory.snapshot.jobs.insert(change.known.job.id.clone(), change.known.clone());
        }
        self.memory.sight = plan.sight;
        if plan.complete {
            self.memory.snapshot.complete_at = Some(now);
        }
        self.now = now.plus(Duration::from_secs(30));
        (plan, kind)
    }

    /// Every job that the last complete listing showed, as it is known.
    fn known(&self) -> BTreeMap<String, Job> {
        let living = self.memory.snapshot.jobs.values().filter(|known| !known.gone && known.missing == 0);
        living.map(|known| (known.job.id.to_string(), known.job.clone())).collect()
    }
}

fn by_id(jobs: Vec<Job>) -> BTreeMap<String, Job> {
    jobs.into_iter().map(|job| (job.id.to_string(), job)).collect()
}

/// Random histories between polls: whoever mostly looks briefly knows, at the latest after the next whole listing, what
/// whoever always lists in full knows, and was told of the same endings.
#[tokio::test]
async fn brief_looks_find_what_whole_listings_find() {
    let (mut briefs, mut polls, mut early, mut missed, mut told) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let cloud = Cloud::new(seed, 350, 0.0);
        let (mut careful, mut thrifty) = (Watcher::new(), Watcher::new());
        let (mut ends, mut found) = (BTreeSet::new(), BTreeSet::new());
        for round in 0..30 {
            for _ in 0..fastrand::Rng::with_seed(seed * 1_000 + round).usize(0..4) {
                cloud.change();
            }
            let (all, _) = careful.poll(&cloud, true).await;
            let (some, kind) = thrifty.poll(&cloud, round % 10 == 9).await;
            polls += 1;
            briefs += usize::from(kind == "brief");
            let ended = |plan: &Plan| -> Vec<String> {
                let failures = plan.difference.transitions().filter(|step| step.to.to_string() == "Failed");
                failures.map(|step| step.job.id.to_string()).collect()
            };
            ends.extend(ended(&all));
            found.extend(ended(&some));
            early += usize::from(kind == "brief" && !ended(&some).is_empty());
            if kind == "whole" {
                let there = by_id(cloud.jobs());
                assert_eq!(thrifty.known(), there, "seed {seed}, round {round}");
                let stands = |id: &&String| there.get(*id).is_some_and(|job| job.status == Status::Failed);
                let told = |ids: &BTreeSet<String>| ids.iter().filter(stands).cloned().collect::<Vec<_>>();
                assert_eq!(told(&found), told(&ends), "seed {seed}, round {round}: the same failures were told");
            }
        }
        // What failed at once, hidden by a deletion, and was deleted itself before the next whole listing.
        missed += ends.difference(&found).count();
        told += ends.len();
    }
    assert!(missed * 100 < told, "{missed} of {told} failures did not stand until a whole listing");
    assert!(briefs * 10 > polls * 3, "{briefs} of {polls} polls were brief");
    assert!(early > 100, "brief looks found failures by themselves {early} times");
}

/// Jobs appear, go and move on between any two requests. No job is called gone that is there, no job goes back to an older
/// state, and no ending that stands for two polls is missed.
#[tokio::test]
async fn a_listing_that_never_stands_still_makes_nobody_gone_and_loses_no_ending() {
    let (mut kinds, mut gone) = (BTreeMap::<&str, u32>::new(), 0);
    for seed in 0..2_000 {
        let churn = [0.02, 0.1, 0.3][usize::try_from(seed % 3).unwrap()];
        let cloud = Cloud::new(seed, 230, churn);
        let mut watcher = Watcher::new();
        let mut exposed: BTreeMap<(String, String), u32> = BTreeMap::new();
        for round in 0..8 {
            let before = watcher.memory.snapshot.jobs.clone();
            let start = by_id(cloud.jobs());
            let (plan, kind) = watcher.poll(&cloud, seed % 2 == 0).await;
            *kinds.entry(kind).or_default() += 1;
            let now = by_id(cloud.jobs());
            for step in plan.difference.transitions() {
                let id = step.job.id.as_str();
                if step.to.to_string() == "gone" {
                    gone += 1;
                    assert!(!now.contains_key(id), "seed {seed}, round {round}: {id} is there");
                } else if let Some(known) = before.get(id) {
                    assert!(step.job.updated() > known.job.updated(), "seed {seed}, round {round}: {id} went back");
                }
            }
            // An ending that stood during this whole poll was exposed to it.
            let ended =
                |job: &Job| job.status.is_final().then(|| (job.id.to_string(), format!("{:?}", job.updated_at)));
            let stood: BTreeSet<_> = start.values().filter_map(ended).collect();
            let stands: BTreeSet<_> = now.values().filter_map(ended).collect();
            exposed.retain(|ending, _| stands.contains(ending));
            for ending in stood.intersection(&stands) {
                *exposed.entry(ending.clone()).or_default() += 1;
            }
            if seed % 2 == 0 && watcher.memory.snapshot.complete_at.is_some() {
                for ((id, updated), polls) in &exposed {
                    let known = watcher.memory.snapshot.jobs.get(id.as_str());
                    let knows = known.is_some_and(|known| format!("{:?}", known.job.updated_at) == *updated);
                    assert!(*polls < 2 || knows, "seed {seed}, round {round}: the end of {id} was missed");
                }
            }
        }
    }
    // The generator is worth something only if all of it happens.
    assert!(kinds.len() == 3 && kinds.values().all(|count| *count > 100), "{kinds:?}");
    assert!(gone > 100, "{gone} jobs were found gone");
}

/// Two backends, one of them behind: the listing flaps between the two, and what is known does not.
#[tokio::test]
async fn two_backends_of_which_one_lags_make_no_steps_back() {
    for seed in 0..200 {
        let (current, behind) = (Cloud::new(seed, 120, 0.0), Cloud::new(seed, 120, 0.0));
        for cloud in [&current, &behind] {
            cloud.state.lock().unwrap().jobs.iter_mut().for_each(|job| job.status = Status::Creating);
        }
        let mut watcher = Watcher::new();
        let mut steps: BTreeMap<(String, String, String), u32> = BTreeMap::new();
        for round in 0..20 {
            let lagging = round % 2 == 1;
            // The one behind is shown what the other one said a poll ago.
            let (plan, _) = watcher.poll(if lagging { &behind } else { &current }, true).await;
            for step in plan.difference.transitions() {
                let stamp = format!("{:?}", step.job.updated_at);
                let count = steps.entry((step.job.id.to_string(), step.to.to_string(), stamp)).or_default();
                *count += 1;
                assert_eq!(*count, 1, "seed {seed}, round {round}: {} → {} again", step.job.id, step.to);
            }
            if lagging {
                behind.state.lock().unwrap().jobs = current.jobs();
                for _ in 0..30 {
                    let mut state = current.state.lock().unwrap();
                    let count = state.jobs.len();
                    let at = state.chance.usize(0..count);
                    let rank = WORDS.iter().position(|word| *word == state.jobs[at].status.as_str()).unwrap();
                    if rank < 3 {
                        state.serial += 1;
                        let id = state.jobs[at].id.to_string();
                        let next = state.chance.usize(rank + 1..5);
                        state.jobs[at] = state.job(&id, next);
                    }
                }
            }
        }
    }
}

async fn after(cloud: &Cloud, changes: impl Fn(&Cloud)) -> (Watcher, Vec<&'static str>, Plan) {
    let mut watcher = Watcher::new();
    let mut kinds = vec![watcher.poll(cloud, true).await.1];
    changes(cloud);
    let (plan, kind) = watcher.poll(cloud, false).await;
    kinds.push(kind);
    (watcher, kinds, plan)
}

fn fail(cloud: &Cloud) {
    let mut state = cloud.state.lock().unwrap();
    state.serial += 1;
    let at = state.jobs.iter().position(|job| !job.status.is_final()).unwrap();
    let id = state.jobs[at].id.to_string();
    state.jobs[at] = state.job(&id, 4);
}

#[tokio::test]
async fn a_failure_among_ten_thousand_jobs_costs_a_brief_look_six_requests() {
    let mut cloud = Cloud::new(1, 10_000, 0.0);
    cloud.state.get_mut().unwrap().jobs.retain(|job| job.status.is_final() || job.id.as_str() < "j000100");
    cloud.requests();
    let (_, kinds, plan) = after(&cloud, |cloud| {
        assert!(cloud.requests() > 90, "the baseline was read whole");
        fail(cloud);
    })
    .await;
    assert_eq!((kinds, plan.difference.transitions().count()), (vec!["whole", "brief"], 1));
    assert_eq!(cloud.requests(), 5, "three statuses, the job that left them, and the number of all");
}

#[tokio::test]
async fn a_total_under_a_filter_may_count_what_it_likes() {
    for filter in [Filter::True, Filter::CountsAll] {
        let cloud = Cloud { filter, ..Cloud::new(1, 350, 0.0) };
        let (_, kinds, plan) = after(&cloud, fail).await;
        assert_eq!((kinds[1], plan.difference.transitions().count()), ("brief", 1));
    }
}

#[tokio::test]
async fn a_filter_that_is_not_true_is_noticed_and_everything_is_listed_in_full_from_then_on() {
    let cloud = Cloud { filter: Filter::Ignored, ..Cloud::new(1, 350, 0.0) };
    let (mut watcher, kinds, plan) = after(&cloud, fail).await;
    assert_eq!((kinds[1], plan.difference.transitions().count()), ("whole", 1));
    assert!(watcher.survey.remark().unwrap().contains("the filter for"), "{:?}", watcher.survey.remark());
    cloud.requests();
    assert_eq!(watcher.poll(&cloud, false).await.1, "whole");
    assert_eq!(cloud.requests(), 5, "four pages and the first one again: the filter is not tried any more");
}

#[tokio::test]
async fn a_filter_that_hides_jobs_or_a_total_that_does_not_count_is_noticed() {
    for filter in [Filter::Empty, Filter::TotalIsPage] {
        // With one job on a page, a total that counts the page is taken for an empty list: there is nothing to be whole.
        let cloud = Cloud { filter, ..Cloud::new(1, 60, 0.0) };
        let (mut watcher, kinds, plan) = after(&cloud, fail).await;
        assert_eq!((kinds[1], plan.difference.transitions().count()), ("whole", 1), "nothing is missed");
        for _ in 0..4 {
            assert_eq!(watcher.poll(&cloud, false).await.1, "whole");
        }
        assert!(watcher.survey.remark().is_some(), "and the operator hears of it");
    }
}

/// A cloud whose listing moves under every reading, and hides another job from each.
struct Hiding {
    jobs: Vec<Job>,
    requests: Mutex<usize>,
}

impl Shelf for Hiding {
    fn page(
        &self,
        _: Option<&Status>,
        offset: usize,
        limit: usize,
        index: &Index,
    ) -> impl Future<Output = Result<Page, Fault>> + Send {
        let mut requests = self.requests.lock().unwrap();
        // Three requests a reading: two pages, and the first again.
        let (reading, first_again) = (*requests / 3, *requests % 3 == 2);
        *requests += 1;
        let mut listed: Vec<&Job> =
            self.jobs.iter().enumerate().filter(|(n, _)| *n != reading).map(|(_, job)| job).collect();
        if first_again {
            listed.swap(0, 50);
        }
        let row = |job: &&Job| Row { key: index.key(job.id.as_str()), job: Some((*job).clone()) };
        let rows = listed.iter().skip(offset).take(limit).map(row).collect();
        let page = Page { total: listed.len(), rows, unreadable: 0 };
        std::future::ready(Ok(page))
    }

    async fn show(&self, _: &JobId) -> Result<Point, Fault> {
        Ok(Point::Unknown)
    }
}

#[tokio::test]
async fn what_one_broken_reading_missed_another_one_shows() {
    let jobs = Cloud::new(1, 150, 0.0).jobs();
    let cloud = Hiding { jobs, requests: Mutex::default() };
    let listing = Survey::default().list(&cloud, &Index::default(), true).await;
    let Listing::Incomplete { rows, fault } = listing else { panic!("{listing:?}") };
    assert!(fault.text.contains("3 times"), "{fault}");
    assert_eq!((rows.jobs.len(), rows.listed.len()), (150, 150));
}
