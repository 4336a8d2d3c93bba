//! What several agents on one database may rely on: who polls, who sends, who decides, and what they hear of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jobwatch::model::alert::Severity;
use jobwatch::model::delivery::{Claimed, Frozen, Lane, Outcome, Verdict};
use jobwatch::model::follow_up::FollowUp;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::memory::Sight;
use jobwatch::model::name::SourceName;
use jobwatch::model::notification::{JobTopic, RuleFacts, SourceFacts};
use jobwatch::model::transition::{State, Transition};
use jobwatch::store::share::{Attendance, Attended, Begun, Bounds, Fence, Health, News};
use jobwatch::store::view::{JobFilter, SourceFilter};
use jobwatch::store::{self, Access, Answer, Commit, Errand, Error, Filter, Gathered, PaceOf, Store, Told};
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::cluster::cut::Wire;
use crate::cluster::pool::Pool;
use crate::world::{
    START, accepted, claim, commit, frozen, held, ids, kept, known, oncall, prod, record, seconds, told_by,
};

/// Longer than any story takes.
const LONG: Duration = Duration::from_secs(600);
/// Nothing in a story takes longer; what does has failed.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A database that several share.
struct Place {
    cluster: Cluster,
    database: String,
}

impl Place {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let database = cluster.database().await;
        Self { cluster, database }
    }

    async fn open(&self) -> Arc<dyn Store> {
        open_at(&self.cluster.url(&self.database)).await
    }

    /// For a look past the store, and for mischief.
    async fn witness(&self) -> Client {
        self.cluster.client(&self.database).await
    }
}

async fn open_at(url: &str) -> Arc<dyn Store> {
    store::open(&store::Place::new(url), Access::Agent).await.unwrap()
}

async fn two() -> (Place, Arc<dyn Store>, Arc<dyn Store>) {
    let place = Place::new().await;
    let (one, other) = (place.open().await, place.open().await);
    (place, one, other)
}

fn attendance(wanted: &[&str], ttl: Duration) -> Attendance {
    Attendance {
        name: "host 1".into(),
        version: "1".into(),
        rules: "r".into(),
        sources: "s".into(),
        started_at: START,
        ttl,
        wanted: wanted.iter().map(|source| SourceName::from(*source)).collect(),
        guest: false,
    }
}

async fn attend(store: &dyn Store, wanted: &[&str]) -> Attended {
    store.attend(attendance(wanted, LONG)).await.unwrap()
}

/// Comes, and gives back what is beyond its share. Returns what it holds then.
async fn come(store: &dyn Store, wanted: &[&str]) -> BTreeMap<SourceName, Fence> {
    let Attended { mut held, excess, .. } = attend(store, wanted).await;
    let back = excess.iter().filter_map(|source| held.remove_entry(source)).collect();
    store.hand_back(back).await.unwrap();
    held
}

fn names(held: &BTreeMap<SourceName, Fence>) -> Vec<&str> {
    held.keys().map(SourceName::as_str).collect()
}

/// Everything that a poll can write, under this lease.
fn poll(fence: &Fence, id: &str) -> Commit {
    let (changes, alerts) = (vec![known("a", 0, false)], vec![told_by("alr_a", "a", id)]);
    Commit {
        changes,
        alerts,
        held: vec![held("msg_held", "h", 20)],
        fence: Some(fence.clone()),
        ..commit(vec![frozen(id, "a")])
    }
}

/// How many rows there are of what polls write.
async fn written(store: &dyn Store) -> [usize; 5] {
    let deliveries = store.deliveries(Filter { limit: 99, ..Filter::default() }).await.unwrap().items.len();
    let jobs = store.jobs(JobFilter { limit: 99, ..JobFilter::default() }).await.unwrap().items.len();
    let sources = store.sources(SourceFilter { limit: 99, ..SourceFilter::default() }).await.unwrap().items.len();
    [deliveries, jobs, sources, store.findings(99).await.unwrap().len(), store.holding(START).await.unwrap().len()]
}

fn is_fenced<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Fenced(_)))
}

#[tokio::test]
async fn sources_are_shared_out_evenly_each_to_one_and_housekeeping_to_one_of_all() {
    let place = Place::new().await;
    let stores = [place.open().await, place.open().await, place.open().await];
    let wanted = ["", "a", "b", "c", "d", "e", "f", "g"];
    let alone = come(&*stores[0], &wanted).await;
    assert_eq!(names(&alone), wanted, "who is alone has all");
    for store in &stores {
        come(&**store, &wanted).await;
    }
    for store in &stores {
        come(&**store, &wanted).await;
    }
    let mut shares = Vec::new();
    let mut all = Vec::new();
    for store in &stores {
        let held = come(&**store, &wanted).await;
        shares.push(held.keys().filter(|source| !source.as_str().is_empty()).count());
        all.extend(held.into_keys().map(|source| source.to_string()));
    }
    all.sort();
    shares.sort_unstable();
    assert_eq!((all, shares), (wanted.map(ToOwned::to_owned).to_vec(), vec![2, 2, 3]));
    let replicas = stores[0].replicas().await.unwrap();
    assert_eq!(replicas.iter().filter(|replica| replica.housekeeping).count(), 1);
    assert!(replicas.iter().all(|replica| replica.living));
}

#[tokio::test]
async fn a_replica_that_ends_hands_over_at_once_and_one_that_comes_waits_for_its_share() {
    let (_place, one, other) = two().await;
    let wanted = ["", "a", "b", "c"];
    assert_eq!(names(&come(&*one, &wanted).await), wanted);
    assert!(come(&*other, &wanted).await.is_empty(), "nothing is free");
    let kept = come(&*one, &wanted).await;
    assert_eq!((kept.len() - 1 + come(&*other, &wanted).await.len(), kept.contains_key("")), (3, true));
    one.leave().await.unwrap();
    assert_eq!(names(&come(&*other, &wanted).await), wanted);
    assert_eq!(other.replicas().await.unwrap().len(), 1, "who left is not there");
}

#[tokio::test]
async fn a_replica_that_is_silent_loses_its_leases_when_their_time_is_over() {
    let (_place, one, other) = two().await;
    let brief = Duration::from_millis(400);
    let held = one.attend(attendance(&["a"], brief)).await.unwrap().held;
    assert!(other.attend(attendance(&["a"], brief)).await.unwrap().held.is_empty());
    let taken = soon("the lease to lapse", async {
        loop {
            let mut attended = other.attend(attendance(&["a"], brief)).await.unwrap();
            if let Some(fence) = attended.held.remove("a") {
                return fence;
            }
        }
    });
    let taken = taken.await;
    assert!(taken.epoch > held[&SourceName::from("a")].epoch && taken.holder != held[&SourceName::from("a")].holder);
    assert!(one.attend(attendance(&["a"], brief)).await.unwrap().held.is_empty(), "it is another one's by now");
}

#[tokio::test]
async fn what_was_decided_under_a_lease_that_is_another_s_by_now_is_refused_and_leaves_nothing() {
    let (_place, one, other) = two().await;
    let old = attend(&*one, &["prod"]).await.held.remove("prod").unwrap();
    one.leave().await.unwrap();
    let new = attend(&*other, &["prod"]).await.held.remove("prod").unwrap();
    assert!(is_fenced(one.commit(poll(&old, "msg_1")).await));
    let idle = Commit { fence: Some(old.clone()), ..Commit::unchanged(prod(), START) };
    assert!(is_fenced(one.commit(idle.clone()).await));
    let told = |fence: &Fence| Told {
        sources: vec![(prod(), Some(START))],
        deliveries: vec![frozen("msg_blind", "agent")],
        fences: vec![(prod(), fence.clone())],
    };
    assert!(is_fenced(one.tell(told(&old)).await));
    // Its holder's own, of an earlier time.
    let earlier = Fence { epoch: new.epoch - 1, ..new.clone() };
    assert!(is_fenced(other.commit(poll(&earlier, "msg_1")).await));
    assert!(is_fenced(other.commit(Commit { fence: Some(earlier.clone()), ..idle }).await));
    assert!(is_fenced(other.tell(told(&earlier)).await));
    assert_eq!(written(&*one).await, [0; 5]);
    assert_eq!(other.commit(poll(&new, "msg_1")).await.unwrap(), 1);
    other.tell(told(&new)).await.unwrap();
    assert_eq!(written(&*one).await, [2, 1, 1, 1, 1]);
}

#[tokio::test]
async fn a_lease_that_lapsed_counts_no_more_although_nobody_took_it_and_begins_anew_with_its_holder() {
    let (_place, one, _other) = two().await;
    let old = one.attend(attendance(&["prod"], Duration::from_micros(1))).await.unwrap().held.remove("prod").unwrap();
    assert!(is_fenced(one.commit(poll(&old, "msg_1")).await));
    assert!(is_fenced(one.commit(Commit { fence: Some(old.clone()), ..Commit::unchanged(prod(), START) }).await));
    assert_eq!(written(&*one).await, [0; 5]);
    let new = attend(&*one, &["prod"]).await.held.remove("prod").unwrap();
    assert!(new.holder == old.holder && new.epoch > old.epoch);
    assert!(is_fenced(one.commit(poll(&old, "msg_1")).await), "who was late does not know what happened meanwhile");
    assert_eq!(one.commit(poll(&new, "msg_1")).await.unwrap(), 1);
    assert_eq!(attend(&*one, &["prod"]).await.held[&prod()], new, "who is in time goes on");
}

/// Claims and records until so many are recorded by all together. Returns what this store recorded, in order.
async fn deliver(store: &dyn Store, recorded: &AtomicUsize, all: usize) -> Vec<String> {
    let mut delivered = Vec::new();
    while recorded.load(Ordering::SeqCst) < all {
        let claims = claim(store, 0, 40).await;
        let done: Vec<String> = ids(&claims).into_iter().map(ToOwned::to_owned).collect();
        let records = claims.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
        let kept = store.record(records).await.unwrap();
        assert!(kept.iter().all(|kept| *kept), "nobody else had it");
        recorded.fetch_add(kept.len(), Ordering::SeqCst);
        delivered.extend(done);
    }
    delivered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_deliveries_are_claimed_by_two_at_once_each_recorded_once_and_in_order_for_each_job() {
    const LANES: usize = 300;
    const DEEP: usize = 8;
    let (_place, one, other) = two().await;
    for depth in 0..DEEP {
        let owed = (0..LANES).map(|lane| frozen(&format!("{lane}/{depth}"), &format!("j{lane}"))).collect();
        one.commit(commit(owed)).await.unwrap();
    }
    let recorded = AtomicUsize::new(0);
    let all = LANES * DEEP;
    let both = async { tokio::join!(deliver(&*one, &recorded, all), deliver(&*other, &recorded, all)) };
    let (here, there) = soon("all deliveries", both).await;
    assert!(!here.is_empty() && !there.is_empty());
    let distinct: BTreeSet<&String> = here.iter().chain(&there).collect();
    assert_eq!((distinct.len(), here.len() + there.len()), (all, all));
    for side in [&here, &there] {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for id in side {
            let (lane, depth) = id.split_once('/').unwrap();
            let depth: usize = depth.parse().unwrap();
            assert!(last.insert(lane, depth).is_none_or(|before| before < depth), "{id} came too late");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_claimable_when_that_before_it_is_recorded_never_earlier_and_never_not_at_all() {
    const ROUNDS: usize = 150;
    const LANES: usize = 20;
    let (_place, one, other) = two().await;
    for round in 0..ROUNDS {
        let id = |lane: usize, depth: usize| format!("{round}/{lane}/{depth}");
        let owed = (0..2 * LANES).map(|n| frozen(&id(n % LANES, n / LANES), &format!("j{}", n % LANES))).collect();
        one.commit(commit(owed)).await.unwrap();
        let first = claim(&*one, 0, LANES).await;
        assert_eq!(first.len(), LANES);
        assert!(first.iter().all(|claimed| claimed.frozen.id.as_str().ends_with("/0")));
        let records = first.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
        // One ends what was before while the other finds what waits for it, and parks it.
        let (kept, mut second) = tokio::join!(one.record(records), claim(&*other, 0, LANES));
        assert!(kept.unwrap().into_iter().all(|kept| kept));
        second.extend(claim(&*other, 0, LANES).await);
        assert_eq!(second.len(), LANES, "round {round}: something stays parked");
        assert!(second.iter().all(|claimed| claimed.frozen.id.as_str().ends_with("/1")));
        let records = second.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
        other.record(records).await.unwrap();
    }
}

#[tokio::test]
async fn of_two_that_decide_about_one_receiver_the_second_decides_again() {
    let (_place, one, other) = two().await;
    let pacing = async |store: &dyn Store| {
        let of = PaceOf { receiver: oncall(), lately: Some((START.minus(LONG), 9)), lanes: vec![] };
        let pacing = store.pacing(vec![of], START).await.unwrap();
        (pacing.recent[&oncall()], pacing.turns.into_iter().collect::<store::Turns>())
    };
    let ((seen, first), (_, second)) = (pacing(&*one).await, pacing(&*other).await);
    assert_eq!(seen, 0);
    let decided = |turns: &store::Turns, id: &str| Commit {
        changes: vec![known(id, 0, false)],
        turns: turns.clone(),
        ..commit(vec![frozen(id, id)])
    };
    assert_eq!(one.commit(decided(&first, "a")).await.unwrap(), 1);
    assert_eq!(other.commit(decided(&second, "b")).await.unwrap_err(), Error::Overtaken);
    assert_eq!(written(&*one).await[..2], [1, 1], "nothing of it is written");
    let (seen, second) = pacing(&*other).await;
    assert_eq!((seen, other.commit(decided(&second, "b")).await.unwrap()), (1, 1));

    let all = vec![held("msg_c", "c", 0), held("msg_d", "d", 0)];
    one.commit(Commit { held: all, ..commit(vec![]) }).await.unwrap();
    let ((_, first), (_, second)) = (pacing(&*one).await, pacing(&*other).await);
    let numbers: Vec<i64> =
        one.held(&oncall(), START, 9, usize::MAX).await.unwrap().into_iter().map(|(n, _)| n).collect();
    let digest = |id: &str| Gathered {
        frozen: Frozen {
            lane: Lane { source: None, subject: format!("digest/{id}").as_str().into() },
            ..frozen(id, "")
        },
        held: numbers.clone(),
        reserve: None,
    };
    one.gathered(vec![digest("msg_x")], first, START).await.unwrap();
    assert_eq!(other.gathered(vec![digest("msg_y")], second, START).await.unwrap_err(), Error::Overtaken);
    assert_eq!(ids(&claim(&*one, 0, 9).await), ["a", "b", "msg_x"]);
    assert!(one.holding(START).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_decide_at_once_tell_nobody_more_than_his_rate() {
    const RATE: usize = 100;
    let (_place, one, other) = two().await;
    let tell = async |store: &dyn Store, source: &str| {
        for n in 0.. {
            // As long as there is room, decided on what was told by then, one message to each of two receivers.
            loop {
                let of = |name: &str| PaceOf {
                    receiver: name.into(),
                    lately: Some((START.minus(LONG), 2 * RATE)),
                    lanes: vec![],
                };
                let pacing = store.pacing(vec![of("oncall"), of("mail")], START).await.unwrap();
                if pacing.recent[&oncall()] >= RATE {
                    return n;
                }
                let owed = ["mail", "oncall"].map(|name| Frozen {
                    receiver: name.into(),
                    ..frozen(&format!("{source}/{n}/{name}"), &format!("{source}{n}"))
                });
                let turns = pacing.turns.into_iter().collect();
                let all = Commit { turns, deliveries: owed.to_vec(), ..Commit::unchanged(source.into(), START) };
                match store.commit(all).await {
                    Ok(written) => break assert_eq!(written, 2),
                    Err(error) => assert_eq!(error, Error::Overtaken),
                }
            }
        }
        unreachable!("there is always another number")
    };
    let (here, there) = tokio::join!(tell(&*one, "a"), tell(&*other, "b"));
    assert_eq!(here + there, RATE);
    assert!(here > 0 && there > 0, "{here} and {there}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_spared_has_no_more_under_way_than_its_width_over_all_replicas() {
    let place = Place::new().await;
    let stores = [place.open().await, place.open().await, place.open().await];
    let owed = (0..40).map(|n| frozen(&format!("msg_{n:02}"), &format!("j{n}"))).collect();
    stores[0].commit(commit(owed)).await.unwrap();
    assert_eq!(stores[0].health(&oncall()).await.unwrap(), Some(Health::default()));
    let mut said = stores[0].set_health(&oncall(), 0, Some("away".into())).await.unwrap();
    assert_eq!(stores[1].health(&oncall()).await.unwrap(), Some(said.clone()));
    let other = stores[1].set_health(&oncall(), 0, Some("well".into())).await.unwrap();
    assert_eq!(other, said, "somebody said something since");
    let claim = async |store: &dyn Store, version: i64| {
        store.claim_together(&oncall(), START, seconds(60), 2, version).await.unwrap()
    };
    for round in 0..10 {
        let [one, two, three] = &stores;
        let (mut claims, two, three) =
            tokio::join!(claim(&**one, said.version), claim(&**two, said.version), claim(&**three, said.version));
        claims.extend(two.into_iter().chain(three));
        assert_eq!(claims.len(), 2, "round {round}");
        let old = said.version;
        said = stores[round % 3].set_health(&oncall(), old, Some(format!("away {round}"))).await.unwrap();
        let records: Vec<_> =
            claims.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
        assert!(stores[1].record(records).await.unwrap().into_iter().all(|kept| kept));
        assert!(claim(&*stores[2], old).await.is_empty(), "it was decided on what is no longer so");
    }
    let well = stores[1].set_health(&oncall(), said.version, None).await.unwrap();
    assert_eq!((&well, stores[0].health(&oncall()).await.unwrap()), (&Health::default(), Some(Health::default())));
    assert!(claim(&*stores[2], said.version).await.is_empty());
}

/// Something to be done on a resource.
fn errand(name: &str, alert: &str, job: &str, resource: &str) -> Errand {
    let job = Arc::new(Job { resource_id: Some(resource.into()), ..Job::bare(job, Status::Failed) });
    let transition = Transition {
        id: format!("evt_{alert}").as_str().into(),
        source: prod(),
        from: State::Is(Status::Running),
        to: State::Is(Status::Failed),
        seen_before: None,
        seen_at: START,
        skipped: Vec::new(),
        changed: Vec::new(),
        late: false,
        seq: 1,
        job: Arc::clone(&job),
    };
    let rule = RuleFacts { id: "failed".into(), about: "x".into(), runbook: None, labels: BTreeMap::new() };
    let source = SourceFacts { name: prod(), kind: "swr".into(), region: None, project_id: "p".into() };
    let topic = JobTopic {
        transition: Arc::new(transition),
        reason_class: String::new(),
        rule,
        also: Vec::new(),
        source: Arc::new(source),
        alert: told_by(alert, job.id.as_str(), "msg"),
        held_back: 0,
        follow_up: None,
    };
    assert_eq!(topic.alert.severity, Severity::Error);
    let follow_up = FollowUp::new(name.into(), vec![oncall()], topic, serde_json::Value::Null);
    Errand { follow_up, at: START, due_at: START }
}

#[tokio::test]
async fn of_a_follow_up_one_at_a_time_is_begun_over_all_replicas_and_on_a_resource_and_its_limit_is_kept() {
    let (_place, one, other) = two().await;
    let errands = [("act", "1", "a", "r1"), ("act", "2", "b", "r2"), ("act", "3", "c", "r3"), ("mend", "4", "d", "r1")];
    let errands: Vec<Errand> = errands.map(|(name, alert, job, resource)| errand(name, alert, job, resource)).into();
    let all = Commit { follow_ups: errands.clone(), ..commit(vec![]) };
    one.commit(all.clone()).await.unwrap();
    other.commit(all).await.unwrap();
    let claims = async |store: &dyn Store, name: &str, limit: usize| -> Vec<Claimed> {
        store.claim(&FollowUp::receiver(&name.into()), START, seconds(60), limit).await.unwrap()
    };
    let (mut here, mut there) = (claims(&*one, "act", 1).await, claims(&*other, "act", 9).await);
    let mend = claims(&*other, "mend", 9).await.remove(0);
    assert_eq!((here.len(), there.len()), (1, 2), "each is owed once");
    let bounds = |resource: &str| Bounds {
        resource: format!("prod/{resource}"),
        since: START.minus(LONG),
        limit: 2,
        now: START,
    };
    let first = here.remove(0);
    let begin = async |store: &dyn Store, claimed: &Claimed, resource: &str| {
        store.begin(claimed.clone(), bounds(resource)).await.unwrap()
    };
    assert_eq!(begin(&*one, &first, "r1").await, Begun::Yes);
    assert_eq!(begin(&*other, &first, "r1").await, Begun::No, "it is begun");
    assert_eq!(begin(&*other, &there[0], "r2").await, Begun::Later, "another of its name is under way");
    assert_eq!(begin(&*other, &mend, "r1").await, Begun::Later, "another is at the same resource");
    assert!(kept(&*one, record(first, accepted(), Verdict::Delivered)).await.unwrap());
    assert_eq!(begin(&*other, &mend, "r1").await, Begun::Yes);
    let second = there.remove(0);
    assert_eq!(begin(&*other, &second, "r2").await, Begun::Yes);
    assert!(kept(&*other, record(second, accepted(), Verdict::Delivered)).await.unwrap());
    assert_eq!(begin(&*other, &there[0], "r3").await, Begun::Later, "two of its name were begun");
    let lost = Claimed { token: there[0].token + 1_000, ..there[0].clone() };
    assert_eq!(begin(&*one, &lost, "r3").await, Begun::No, "the claim is another one's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_begin_at_once_on_one_resource_one_may() {
    let (_place, one, other) = two().await;
    for round in 0..40 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let errands = vec![errand("act", &a, &a, "r"), errand("mend", &b, &b, "r")];
        one.commit(Commit { follow_ups: errands, ..commit(vec![]) }).await.unwrap();
        let take = async |store: &dyn Store, name: &str| {
            store.claim(&FollowUp::receiver(&name.into()), START, seconds(60), 1).await.unwrap().remove(0)
        };
        let (here, there) = (take(&*one, "act").await, take(&*other, "mend").await);
        let bounds = || Bounds { resource: "prod/r".into(), since: START.minus(LONG), limit: 99, now: START };
        let (begun, also) = tokio::join!(one.begin(here.clone(), bounds()), other.begin(there.clone(), bounds()));
        let mut both = [begun.unwrap(), also.unwrap()];
        both.sort_by_key(|begun| *begun == Begun::Later);
        assert_eq!(both, [Begun::Yes, Begun::Later], "round {round}");
        one.record(vec![record(here, accepted(), Verdict::Delivered), record(there, accepted(), Verdict::Delivered)])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_request_is_answered_when_every_replica_that_lives_has_answered() {
    let place = Place::new().await;
    let stores = [place.open().await, place.open().await, place.open().await];
    for (n, ttl) in [LONG, LONG, Duration::from_micros(1)].into_iter().enumerate() {
        stores[n].attend(Attendance { name: format!("host {n}"), ..attendance(&[], ttl) }).await.unwrap();
    }
    let visitor = store::open(&store::Place::new(place.cluster.url(&place.database)), Access::Visitor).await.unwrap();
    let n = visitor.ask("reload", seconds(1)).await.unwrap();
    for store in &stores[..2] {
        assert_eq!(store.requests(seconds(2)).await.unwrap().iter().map(|request| request.n).collect::<Vec<_>>(), [n]);
    }
    let answer = |accepted: bool, text: &str| Answer { accepted, text: text.into() };
    stores[0].answer(n, answer(true, "done"), seconds(3)).await.unwrap();
    assert!(stores[0].requests(seconds(3)).await.unwrap().is_empty(), "it has answered");
    assert_eq!(visitor.answered(n).await.unwrap(), None, "another one has not");
    stores[1].answer(n, answer(false, "refused"), seconds(4)).await.unwrap();
    assert_eq!(visitor.answered(n).await.unwrap(), Some(answer(false, "host 1 refused it:\nrefused\nhost 0: done")));
}

/// What a store hears of others from now on.
async fn listening(store: &Arc<dyn Store>) -> mpsc::UnboundedReceiver<News> {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let store = Arc::clone(store);
    beside(async move {
        let error = store.listen(&|news| drop(tell.send(news))).await;
        panic!("nothing is heard any more: {error}");
    });
    assert_eq!(soon("the echo", heard.recv()).await, Some(News::Begun));
    heard
}

#[expect(clippy::disallowed_methods, reason = "beside the story, and ends with its runtime")]
fn beside(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

#[tokio::test]
async fn what_one_does_another_hears() {
    let (_place, one, other) = two().await;
    let mut heard = listening(&other).await;
    let mut hears = async |news: News| assert_eq!(soon("news", heard.recv()).await, Some(news));
    one.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    hears(News::Due(oncall())).await;
    one.commit(Commit { held: vec![held("msg_h", "h", 0)], ..commit(vec![]) }).await.unwrap();
    hears(News::Held).await;
    one.ask("reload", START).await.unwrap();
    hears(News::Request).await;
    attend(&*one, &["a"]).await;
    hears(News::Leases).await;
    one.commit(Commit { follow_ups: vec![errand("act", "1", "a", "r")], ..commit(vec![]) }).await.unwrap();
    hears(News::FollowUp).await;
    one.set_health(&oncall(), 0, Some("away".into())).await.unwrap();
    hears(News::Due(oncall())).await;
    one.leave().await.unwrap();
    hears(News::Leases).await;
}

#[tokio::test]
async fn a_database_that_is_away_is_an_error_in_bounded_time_and_is_used_again_when_it_is_back() {
    let (mut place, one, _other) = two().await;
    one.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let claimed = claim(&*one, 0, 1).await.remove(0);
    place.cluster.stop().await;
    let failed = |what: &str, failed: bool| assert!(failed, "{what} was said to be done");
    let all = async {
        failed("a commit", one.commit(commit(vec![frozen("msg_2", "b")])).await.is_err());
        failed("an idle one", one.commit(Commit::unchanged(prod(), START)).await.is_err());
        failed("a claim", one.claim(&oncall(), START, seconds(9), 9).await.is_err());
        failed("a record", one.record(vec![record(claimed.clone(), accepted(), Verdict::Delivered)]).await.is_err());
        failed("a look", one.deliveries(Filter::default()).await.is_err());
        failed("coming", one.attend(attendance(&["a"], LONG)).await.is_err());
        failed("leaving", one.leave().await.is_err());
        drop(one.listen(&|_| ()).await);
    };
    soon("errors", all).await;
    place.cluster.run().await;
    assert!(kept(&*one, record(claimed, accepted(), Verdict::Delivered)).await.unwrap());
    place.cluster.kill().await;
    assert_eq!(one.commit(commit(vec![frozen("msg_2", "b")])).await.unwrap(), 1);
    assert_eq!(ids(&claim(&*one, 0, 9).await), ["msg_2"]);
}

/// The end of every transaction that writes to this table waits for whoever holds the lock 42.
async fn delay_commits(witness: &Client, table: &str) {
    let trigger = format!(
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON jobwatch.{table} DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION public.wait();
         SELECT pg_advisory_lock(42)"
    );
    witness.batch_execute(&trigger).await.unwrap();
}

/// Until somebody waits for a lock of this kind.
async fn somebody_waits(witness: &Client, kind: &str) {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = $1";
    let waiting = async { while witness.query_one(query, &[&kind]).await.unwrap().get::<_, i64>(0) == 0 {} };
    soon("somebody who waits", waiting).await;
}

/// Makes a change of which nobody hears that it was committed.
async fn unheard<T>(wire: &Wire, witness: &Client, change: impl Future<Output = Result<T, Error>>) {
    let mischief = async {
        somebody_waits(witness, "advisory").await;
        wire.swallow_answers().await;
        witness.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobwatch' AND state <> 'idle'";
        let waiting = async { while witness.query_one(query, &[]).await.unwrap().get::<_, i64>(0) > 0 {} };
        soon("the commit", waiting).await;
        wire.cut().await;
    };
    let (changed, ()) = tokio::join!(change, mischief);
    assert!(changed.is_err(), "nobody heard of it");
    wire.mend().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_there_and_is_not_made_twice() {
    let place = Place::new().await;
    let wire = Wire::to(place.cluster.address()).await;
    let store = open_at(&place.cluster.url_at(wire.address(), &place.database)).await;
    let fence = attend(&*store, &["prod"]).await.held.remove("prod").unwrap();
    let witness = place.witness().await;
    delay_commits(&witness, "delivery").await;
    unheard(&wire, &witness, store.commit(poll(&fence, "msg_1"))).await;
    let all = [1, 1, 1, 1, 1];
    assert_eq!(written(&*store).await, all, "all of it");
    assert_eq!(store.commit(poll(&fence, "msg_1")).await.unwrap(), 0);
    assert_eq!(written(&*store).await, all);
    assert_eq!(ids(&claim(&*store, 0, 9).await), ["msg_1"]);
}

#[tokio::test]
async fn a_record_whose_answer_is_lost_is_there_and_is_not_made_twice() {
    let place = Place::new().await;
    let wire = Wire::to(place.cluster.address()).await;
    let store = open_at(&place.cluster.url_at(wire.address(), &place.database)).await;
    store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let claimed = claim(&*store, 0, 9).await.remove(0);
    let witness = place.witness().await;
    delay_commits(&witness, "attempt").await;
    let done = || record(claimed.clone(), accepted(), Verdict::Delivered);
    unheard(&wire, &witness, store.record(vec![done()])).await;
    assert!(!kept(&*store, done()).await.unwrap(), "it was recorded");
    let dossier = store.dossier(&"msg_1".into()).await.unwrap().unwrap();
    assert_eq!((dossier.attempts.len(), dossier.delivery.attempts), (1, 1));
}

#[tokio::test]
async fn a_commit_that_is_cut_off_before_its_end_leaves_nothing() {
    let place = Place::new().await;
    let wire = Wire::to(place.cluster.address()).await;
    let store = open_at(&place.cluster.url_at(wire.address(), &place.database)).await;
    let fence = attend(&*store, &["prod"]).await.held.remove("prod").unwrap();
    let witness = place.witness().await;
    witness.batch_execute("BEGIN; LOCK jobwatch.payload IN EXCLUSIVE MODE").await.unwrap();
    let mischief = async {
        somebody_waits(&witness, "relation").await;
        wire.cut().await;
        witness.batch_execute("COMMIT").await.unwrap();
    };
    let (made, ()) = tokio::join!(store.commit(poll(&fence, "msg_1")), mischief);
    assert!(made.is_err());
    wire.mend().await;
    assert_eq!(written(&*store).await, [0; 5]);
    assert_eq!(store.commit(poll(&fence, "msg_1")).await.unwrap(), 1);
}

#[tokio::test]
async fn behind_a_pool_that_lets_no_news_through_that_is_said_and_all_else_works() {
    let place = Place::new().await;
    let pool = Pool::before(&place.cluster).await;
    let url = place.cluster.url_at(pool.address(), &place.database);
    let (one, other) = (open_at(&url).await, open_at(&url).await);
    let error = soon("the end of listening", one.listen(&|news| panic!("{news:?}"))).await;
    assert!(error.to_string().contains("a pooler in between"), "{error}");
    let fence = attend(&*one, &["prod"]).await.held.remove("prod").unwrap();
    assert_eq!(one.commit(poll(&fence, "msg_1")).await.unwrap(), 1);
    let why = Outcome::Unreachable { why: "503".into(), retry_after: None };
    let claimed = claim(&*other, 0, 9).await.remove(0);
    assert!(kept(&*other, record(claimed, why, Verdict::RetryAt(seconds(5)))).await.unwrap());
    one.leave().await.unwrap();
    assert!(attend(&*other, &["prod"]).await.held.contains_key("prod"));
    let blind =
        Commit { sight: Sight { blind_since: Some(START), ..Sight::default() }, fence: Some(fence), ..commit(vec![]) };
    assert!(is_fenced(one.commit(blind).await));
}

#[tokio::test]
async fn what_is_free_is_taken_by_who_has_room_whoever_looks_at_the_same_moment() {
    const WANTED: &[&str] = &["a", "b", "c", "d"];
    let (_place, one, other) = two().await;
    come(&*other, WANTED).await;
    come(&*one, WANTED).await;
    let mut held = come(&*other, WANTED).await;
    assert_eq!(attend(&*one, WANTED).await.held.len(), 2);
    for _ in 0..20 {
        other.hand_back(held.pop_first().into_iter().collect()).await.unwrap();
        // Who has his share already leaves it where the other one finds it.
        let (full, attended) = tokio::join!(attend(&*one, WANTED), attend(&*other, WANTED));
        assert_eq!((full.held.len(), attended.held.len()), (2, 2));
        held = attended.held;
    }
}

#[tokio::test]
async fn what_only_one_replica_knows_is_polled_by_it_and_stays_with_it() {
    let (place, one, other) = two().await;
    // The second one has not heard of c and d yet.
    attend(&*one, &["a", "b", "c", "d"]).await;
    attend(&*other, &["a", "b"]).await;
    assert_eq!(names(&come(&*one, &["a", "b", "c", "d"]).await), ["a", "b"]);
    // Nobody wants them for as long as two leases.
    place.witness().await.execute("UPDATE jobwatch.lease SET since = 0 WHERE holder IS NULL", &[]).await.unwrap();
    assert_eq!(names(&come(&*one, &["a", "b", "c", "d"]).await), ["a", "b", "c", "d"]);
    assert_eq!(names(&come(&*one, &["a", "b", "c", "d"]).await), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_guest_takes_what_nobody_polls_and_nobody_makes_room_for_him() {
    let (_place, one, guest) = two().await;
    let visit = async || guest.attend(Attendance { guest: true, ..attendance(&["a", "b", "c"], LONG) }).await.unwrap();
    assert_eq!(names(&come(&*one, &["a", "b"]).await), ["a", "b"]);
    assert_eq!(names(&visit().await.held), ["c"]);
    assert_eq!(names(&come(&*one, &["a", "b"]).await), ["a", "b"]);
    one.leave().await.unwrap();
    assert_eq!(names(&visit().await.held), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_waits_behind_one_that_is_dropped_while_that_before_it_is_recorded_goes_on() {
    let (_place, one, other) = two().await;
    for round in 0..60 {
        let job = format!("job{round}");
        let ids = ["1", "2", "3"].map(|n| format!("msg_{round}_{n}"));
        one.commit(commit(ids.iter().map(|id| frozen(id, &job)).collect())).await.unwrap();
        let first = claim(&*one, 1, 10).await.remove(0);
        assert_eq!(first.frozen.id.as_str(), ids[0]);
        // The second is dropped, by somebody who has more to do, while the first is recorded.
        let dropped = [ids[1].as_str().into(), "msg_none".into()].to_vec();
        let (kept, _) = tokio::join!(kept(&*one, record(first, accepted(), Verdict::Delivered)), async {
            other.end(dropped, "known", seconds(2)).await.unwrap()
        });
        assert!(kept.unwrap());
        let third = claim(&*one, 3, 10).await;
        assert_eq!(crate::world::ids(&third), [ids[2].as_str()], "round {round}");
        assert!(
            self::kept(&*one, record(third.into_iter().next().unwrap(), accepted(), Verdict::Delivered)).await.unwrap()
        );
    }
}
