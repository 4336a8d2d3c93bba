//! What every engine of the store must do. The engine is made by `open`; the stories know nothing of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::model::alert::{self, Alert, Fate, FateOutcome, Muted, Severity, Silence};
use jobwatch::model::delivery::{Attempt, Claimed, DeliveryState, Frozen, Held, Lane, Outcome, Verdict};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::memory::{Memory, Sight};
use jobwatch::model::name::{DeliveryId, JobId, ReceiverName, SourceName};
use jobwatch::model::snapshot::{Change, Known};
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::{State, Transition};
use jobwatch::store::{
    self, Access, Again, Commit, Error, Filter, Gathered, Record, Span, Store, Told, Trouble, Wanted,
};

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn url(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("deep/state.db").display())
}

async fn open(directory: &Path) -> Result<Arc<dyn Store>, Error> {
    store::open(&url(directory), Access::Agent).await
}

fn prod() -> SourceName {
    SourceName::from("prod")
}

fn oncall() -> ReceiverName {
    ReceiverName::from("oncall")
}

fn seconds(n: u64) -> Timestamp {
    START.plus(Duration::from_secs(n))
}

fn frozen(id: &str, job: &str) -> Frozen {
    Frozen {
        id: DeliveryId::from(id),
        receiver: oncall(),
        lane: Lane { source: Some(prod()), subject: JobId::from(job) },
        event: "io.jobwatch.job.failed".into(),
        title: format!("{job} failed"),
        created_at: START,
        payload: format!("{{\"job\":\"{job}\"}}").into_bytes(),
    }
}

fn commit(deliveries: Vec<Frozen>) -> Commit {
    Commit { deliveries, ..Commit::unchanged(prod(), START) }
}

fn record(claimed: Claimed, outcome: Outcome, verdict: Verdict) -> Record {
    let attempt =
        Attempt { at: START, took: Duration::from_millis(3), outcome, progress: vec!["a@example.org".into()] };
    Record { claimed, attempt, verdict, trouble: Trouble::default(), deliveries: vec![], asks: false }
}

fn accepted() -> Outcome {
    Outcome::Accepted { note: "HTTP 204".into() }
}

fn ids(claims: &[Claimed]) -> Vec<&str> {
    claims.iter().map(|claim| claim.frozen.id.as_str()).collect()
}

async fn claim(store: &dyn Store, at: u64, limit: usize) -> Vec<Claimed> {
    store.claim(&oncall(), seconds(at), seconds(at + 60), limit).await.unwrap()
}

#[tokio::test]
async fn what_a_poll_decided_is_there_after_a_restart_to_the_last_field() {
    let directory = tempfile::tempdir().unwrap();
    let mut job = Job::bare("a", Status::read("Paused"));
    job.reason = Some("夜间 \"quota\" 17".into());
    job.updated_at = Some("2021-05-12T03:50:43.315473Z".into());
    let known = Known { job, seq: 3, status_since: seconds(1), seen_at: seconds(2), missing: 1, stale: 2, gone: false };
    let told = alert::Told {
        receiver: oncall(),
        delivery: "msg_1".into(),
        severity: Severity::Error,
        at: seconds(9),
        delivered_at: None,
        held_back: 4,
    };
    let alert = Alert {
        id: "alr_1".into(),
        rule: "create-failed".into(),
        source: prod(),
        subject: "a".into(),
        resource: Some("r".into()),
        severity: Severity::Critical,
        count: 2,
        first_seen: seconds(0),
        last_seen: seconds(9),
        resolved: false,
        told: vec![told],
    };
    let sight = Sight { blind_since: Some(seconds(4)), told_since: None, vanished: 3 };
    {
        let store = open(directory.path()).await.unwrap();
        let changes = vec![Change { known: known.clone(), transition: None }];
        let all = Commit { changes, alerts: vec![alert.clone()], sight, ..commit(vec![frozen("msg_1", "a")]) };
        assert_eq!(store.commit(all).await.unwrap(), 1);
    }
    let store = open(directory.path()).await.unwrap();
    let memory = store.load(&prod(), Wanted::everything()).await.unwrap();
    let mut expected = Memory { sight, ..Memory::default() };
    expected.snapshot.complete_at = Some(START);
    expected.snapshot.jobs.insert(known.job.id.clone(), known);
    expected.alerts.insert(alert.id.clone(), alert);
    assert_eq!(memory, expected);
    assert_eq!(claim(&*store, 0, 9).await[0].frozen, frozen("msg_1", "a"));
    assert_eq!(store.load(&SourceName::from("other"), Wanted::everything()).await.unwrap(), Memory::default());
}

fn known(id: &str, missing: u8, gone: bool) -> Change {
    let job = Job::bare(id, Status::Running);
    let known = Known { job, seq: 0, status_since: START, seen_at: START, missing, stale: 0, gone };
    Change { known, transition: None }
}

#[tokio::test]
async fn only_the_jobs_that_are_wanted_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let changes = vec![known("a", 0, false), known("b", 0, false), known("c", 1, false), known("d", 3, true)];
    store.commit(Commit { changes, ..commit(vec![]) }).await.unwrap();
    let load = async |wanted| {
        let memory = store.load(&prod(), wanted).await.unwrap();
        let mut ids: Vec<String> = memory.snapshot.jobs.keys().map(ToString::to_string).collect();
        ids.sort();
        ids
    };
    assert_eq!(load(Wanted::default()).await, [""; 0]);
    assert_eq!(load(Wanted { ids: vec!["a".into(), "d".into(), "x".into()], ..Wanted::default() }).await, ["a", "d"]);
    assert_eq!(
        load(Wanted { ids: vec!["a".into()], others: Some(Arc::new(|id| id >= "c")), ..Wanted::default() }).await,
        ["a", "c"]
    );
    let memory = store.load(&prod(), Wanted { statuses: vec![Status::Running], ..Wanted::default() }).await.unwrap();
    let mut timed: Vec<&str> = memory.timed.keys().map(JobId::as_str).collect();
    timed.sort_unstable();
    assert_eq!((timed, memory.snapshot.jobs.len()), (vec!["a", "b", "c"], 0), "apart from those a listing speaks of");
    let (index, baseline) = store.index(&prod()).await.unwrap();
    assert_eq!((index.len(), baseline), (3, true));
    assert!(!index.is_news(&Job::bare("a", Status::Running)) && index.is_news(&Job::bare("c", Status::Running)));
}

#[tokio::test]
async fn what_was_told_of_a_blind_source_is_kept_with_the_delivery_that_tells_it_and_a_poll_does_not_undo_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let blind = Sight { blind_since: Some(seconds(4)), ..Sight::default() };
    store.commit(Commit { sight: blind, complete: false, ..commit(vec![]) }).await.unwrap();
    let told = Told { sources: vec![(prod(), Some(seconds(4)))], deliveries: vec![frozen("msg_blind", "agent")] };
    store.tell(told).await.unwrap();
    store.commit(Commit { sight: blind, complete: false, ..commit(vec![]) }).await.unwrap();
    let sights = store.sights().await.unwrap();
    assert_eq!(sights, [(prod(), Sight { told_since: Some(seconds(4)), ..blind })]);
    assert_eq!(ids(&claim(&*store, 5, 9).await), ["msg_blind"]);
}

#[tokio::test]
async fn a_delivery_that_is_decided_twice_is_owed_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    assert_eq!(store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap(), 1);
    assert_eq!(store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b")])).await.unwrap(), 1);
    assert_eq!(ids(&claim(&*store, 0, 9).await), ["msg_1", "msg_2"]);
}

#[tokio::test]
async fn a_lane_is_served_in_order_and_lanes_do_not_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let owed = vec![frozen("msg_1", "a"), frozen("msg_2", "a"), frozen("msg_3", "b")];
    store.commit(commit(owed)).await.unwrap();
    let mut claims = claim(&*store, 0, 9).await;
    assert_eq!(ids(&claims), ["msg_1", "msg_3"], "the second of job a waits for the first");
    assert_eq!(store.next_due(&oncall()).await.unwrap(), Some(seconds(60)), "nothing but the lapse of the claims");
    let later = Verdict::RetryAt(seconds(30));
    let why = Outcome::Unreachable { why: "503".into(), retry_after: None };
    assert!(store.record(record(claims.remove(0), why, later)).await.unwrap());
    assert!(claim(&*store, 29, 9).await.is_empty(), "neither the first, which is not due, nor the second, which waits");
    assert_eq!(store.next_due(&oncall()).await.unwrap(), Some(seconds(30)));
    let first = claim(&*store, 30, 9).await;
    assert_eq!(ids(&first), ["msg_1"]);
    assert_eq!(first[0].progress, ["a@example.org"], "what was achieved is handed back");
    assert!(store.record(record(first[0].clone(), accepted(), Verdict::Delivered)).await.unwrap());
    assert_eq!(ids(&claim(&*store, 30, 9).await), ["msg_2"]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_parks_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let yesterday = START.minus(Duration::from_secs(86_400));
    let claims = store.claim(&oncall(), yesterday, yesterday.plus(Duration::from_secs(60)), 9).await.unwrap();
    assert_eq!(ids(&claims), ["msg_1"], "it was decided in what is now the future");
}

#[tokio::test]
async fn a_claim_that_lapsed_is_taken_by_the_next_and_its_record_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let slow = claim(&*store, 0, 1).await.remove(0);
    assert!(claim(&*store, 59, 1).await.is_empty());
    let quick = claim(&*store, 60, 1).await.remove(0);
    assert!(!store.record(record(slow, accepted(), Verdict::Delivered)).await.unwrap());
    assert!(store.record(record(quick, accepted(), Verdict::Delivered)).await.unwrap());
    let dossier = store.dossier(&DeliveryId::from("msg_1")).await.unwrap().unwrap();
    assert_eq!((dossier.delivery.state, dossier.attempts.len()), (DeliveryState::Delivered, 1));
}

#[tokio::test]
async fn a_claim_that_is_given_back_is_due_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    store.release(claim(&*store, 0, 1).await).await.unwrap();
    let again = claim(&*store, 0, 1).await;
    assert_eq!((ids(&again), again[0].tries), (vec!["msg_1"], 0));
}

#[tokio::test]
async fn a_dead_delivery_is_kept_shown_and_replayed_under_its_id_with_a_fresh_budget() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "a")])).await.unwrap();
    let refused = Outcome::Refused { why: "HTTP 400".into() };
    let first = claim(&*store, 0, 1).await.remove(0);
    store.record(record(first, refused, Verdict::Dead)).await.unwrap();
    assert_eq!(ids(&claim(&*store, 0, 1).await), ["msg_2"], "a dead one holds nobody up");
    let dead = Filter { state: Some(DeliveryState::Dead), limit: 10, ..Filter::default() };
    let found = store.deliveries(dead.clone()).await.unwrap();
    assert_eq!((found.len(), found[0].id.as_str(), found[0].note.as_str()), (1, "msg_1", "HTTP 400"));
    assert_eq!(store.again(Again::Dead, seconds(500)).await.unwrap(), [DeliveryId::from("msg_1")]);
    let again = claim(&*store, 500, 1).await.remove(0);
    assert_eq!((again.frozen.id.as_str(), again.tries, again.refused_since), ("msg_1", 0, None));
    assert_eq!(again.budget_from, seconds(500));
    assert!(store.deliveries(dead).await.unwrap().is_empty());
    assert!(store.again(Again::These(vec!["msg_9".into()]), START).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_operator_was_told_of_a_receiver_is_remembered_until_it_takes_something() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b")])).await.unwrap();
    let mut claims = claim(&*store, 0, 2).await;
    let told = Trouble { refused: true, dead: false };
    let refused = Outcome::Refused { why: "HTTP 403".into() };
    let notice = Frozen { receiver: "mail".into(), ..frozen("msg_3", "receiver/oncall") };
    let first = record(claims.remove(0), refused, Verdict::RetryAt(seconds(300)));
    store.record(Record { trouble: told, deliveries: vec![notice], ..first }).await.unwrap();
    assert_eq!(store.trouble(&oncall()).await.unwrap(), told);
    assert_eq!(store.waiting().await.unwrap(), [("mail".into(), 1), (oncall(), 2)]);
    store.record(record(claims.remove(0), accepted(), Verdict::Delivered)).await.unwrap();
    assert_eq!(store.trouble(&oncall()).await.unwrap(), Trouble::default());
}

#[tokio::test]
async fn a_second_agent_is_refused_and_told_who_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path()).await.unwrap();
    let error = open(directory.path()).await.unwrap_err();
    let Error::InUse(text) = error else { panic!("{error:?}") };
    assert!(text.contains(&std::process::id().to_string()) && text.contains("state.db"), "{text}");
}

#[tokio::test]
async fn a_visitor_makes_no_state_and_sees_what_the_agent_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let visit = || store::open(&url(directory.path()).leak()[..], Access::Visitor);
    assert!(matches!(visit().await, Err(Error::Missing(_))));
    assert!(!directory.path().join("deep").exists());
    let agent = open(directory.path()).await.unwrap();
    agent.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let visitor = visit().await.unwrap();
    assert_eq!(visitor.deliveries(Filter { limit: 9, ..Filter::default() }).await.unwrap().len(), 1);
}

fn held(id: &str, job: &str, due: u64) -> Held {
    Held {
        frozen: frozen(id, job),
        severity: Severity::Error,
        class: "quota <n> exceeded".into(),
        group: String::new(),
        due_at: seconds(due),
        data: serde_json::json!({ "title": job }),
    }
}

fn told_by(alert: &str, job: &str, delivery: &str) -> Alert {
    Alert {
        id: alert.into(),
        rule: "failed".into(),
        source: prod(),
        subject: job.into(),
        resource: None,
        severity: Severity::Error,
        count: 1,
        first_seen: START,
        last_seen: START,
        resolved: false,
        told: vec![alert::Told {
            receiver: oncall(),
            delivery: delivery.into(),
            severity: Severity::Error,
            at: START,
            delivered_at: None,
            held_back: 0,
        }],
    }
}

#[tokio::test]
async fn what_is_held_is_told_in_one_message_that_is_in_order_with_all_that_is_said_of_each_job_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let alerts = vec![told_by("alr_b", "b", "msg_b")];
    let all = vec![held("msg_a", "a", 20), held("msg_b", "b", 20), held("msg_c", "c", 90)];
    let first = Commit { held: all, alerts, ..commit(vec![frozen("msg_before", "a")]) };
    store.commit(first.clone()).await.unwrap();
    store.commit(first).await.unwrap();
    drop(store);
    let store = open(directory.path()).await.unwrap();
    assert_eq!(store.holding().await.unwrap(), [(oncall(), seconds(20))], "over a restart, and once each");
    let pacing = store.pacing(vec![(oncall(), START.minus(Duration::from_secs(60)))], seconds(1)).await.unwrap();
    let lane = |job: &str| (oncall(), frozen("", job).lane);
    assert_eq!((pacing.recent[&oncall()], pacing.held[&lane("a")], pacing.held.len()), (1, seconds(20), 3));
    assert!(store.held(&oncall(), seconds(19), 9).await.unwrap().is_empty());
    let due = store.held(&oncall(), seconds(20), 9).await.unwrap();
    assert_eq!(due.iter().map(|(_, held)| held.frozen.id.as_str()).collect::<Vec<_>>(), ["msg_a", "msg_b"]);

    let digest = Frozen { lane: Lane { source: None, subject: "digest/x".into() }, ..frozen("msg_digest", "") };
    let gathered = Gathered { frozen: digest, held: due.iter().map(|(n, _)| *n).collect() };
    store.gathered(vec![gathered.clone()], seconds(20)).await.unwrap();
    store.gathered(vec![gathered], seconds(20)).await.unwrap();
    assert_eq!(store.holding().await.unwrap(), [(oncall(), seconds(90))]);
    let memory = store.load(&prod(), Wanted { ids: vec!["b".into()], ..Wanted::default() }).await.unwrap();
    assert_eq!(memory.alerts.values().next().unwrap().told[0].delivery.as_str(), "msg_digest");

    store.commit(commit(vec![frozen("msg_after", "b"), frozen("msg_other", "d")])).await.unwrap();
    let claims = claim(&*store, 20, 9).await;
    assert_eq!(
        ids(&claims),
        ["msg_before", "msg_other"],
        "the digest waits for a's first, and b's next for the digest"
    );
    for claimed in claims {
        assert!(store.record(record(claimed, accepted(), Verdict::Delivered)).await.unwrap());
    }
    let claims = claim(&*store, 20, 9).await;
    assert_eq!(ids(&claims), ["msg_digest"]);
    assert!(claim(&*store, 20, 9).await.is_empty());
    let later = Outcome::Unreachable { why: "HTTP 503".into(), retry_after: None };
    store.record(record(claims[0].clone(), later, Verdict::RetryAt(seconds(500)))).await.unwrap();
    assert_eq!(
        store.next_due(&oncall()).await.unwrap(),
        Some(seconds(500)),
        "what waits for the digest is not due before"
    );
    let claims = claim(&*store, 500, 9).await;
    store.record(record(claims[0].clone(), accepted(), Verdict::Delivered)).await.unwrap();
    assert_eq!(ids(&claim(&*store, 500, 9).await), ["msg_after"]);
}

#[tokio::test]
async fn a_message_that_was_given_up_told_nobody_so_that_no_cooldown_counts_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let alerts = vec![told_by("alr_a", "a", "msg_a")];
    store.commit(Commit { alerts, ..commit(vec![frozen("msg_a", "a")]) }).await.unwrap();
    let told = async || {
        let memory = store.load(&prod(), Wanted { ids: vec!["a".into()], ..Wanted::default() }).await.unwrap();
        memory.alerts.values().next().unwrap().told.first().map(|told| told.delivered_at)
    };
    assert_eq!(told().await, Some(None), "on its way");
    let claims = claim(&*store, 0, 1).await;
    let refused = Outcome::Refused { why: "HTTP 404".into() };
    store.record(record(claims[0].clone(), refused, Verdict::Dead)).await.unwrap();
    assert_eq!(told().await, None);
    store.again(Again::Dead, seconds(5)).await.unwrap();
    let claims = claim(&*store, 5, 1).await;
    store.record(record(claims[0].clone(), accepted(), Verdict::Delivered)).await.unwrap();
    assert_eq!(told().await, Some(Some(START.plus(Duration::from_millis(3)))), "delivered when the attempt ended");
}

#[tokio::test]
async fn silences_and_what_they_mute_and_what_came_of_each_match_are_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let silence = |id: &str, ends: u64| Silence {
        id: id.into(),
        matchers: vec!["rule=failed".into(), "reason=~.*\"quota\".*".into()],
        starts_at: START,
        ends_at: seconds(ends),
        author: "ada".into(),
        comment: "夜间 work".into(),
    };
    let step = Transition {
        id: "evt_1".into(),
        source: prod(),
        job: Arc::new(Job { reason: Some("x".into()), ..Job::bare("a", Status::Failed) }),
        from: State::Is(Status::read("Paused")),
        to: State::Is(Status::Failed),
        seen_before: Some(START),
        seen_at: seconds(3),
        skipped: vec![Status::Running],
        changed: Vec::new(),
        late: true,
        seq: 7,
    };
    let muted =
        Muted { alert: "alr_a".into(), rule: "failed".into(), transition: Arc::new(step), by: "silence s1".into() };
    let fate = Fate {
        rule: "failed".into(),
        transition: "evt_1".into(),
        subject: "a".into(),
        receiver: Some(oncall()),
        outcome: FateOutcome::Told,
        delivery: Some("msg_a".into()),
        why: "alone".into(),
    };
    {
        let store = open(directory.path()).await.unwrap();
        store.silence(silence("s1", 60)).await.unwrap();
        store.silence(silence("s2", 30)).await.unwrap();
        let (muted, fates) = (vec![muted.clone()], vec![fate.clone()]);
        store.commit(Commit { changes: vec![known("a", 0, false)], muted, fates, ..commit(vec![]) }).await.unwrap();
    }
    let store = open(directory.path()).await.unwrap();
    assert_eq!(store.silences(START).await.unwrap(), [silence("s2", 30), silence("s1", 60)]);
    let memory = store.load(&prod(), Wanted { now: seconds(30), ..Wanted::default() }).await.unwrap();
    assert_eq!((memory.silences, &memory.muted), (vec![silence("s1", 60)], &vec![muted]));
    assert!(memory.timed.contains_key("a"), "whether it still stands can be told");
    let past = store.past(&prod(), &"a".into()).await.unwrap();
    assert_eq!(past.fates, [(fate.clone(), START)]);
    let fates = store.fates(Span { limit: 9, ..Span::default() }).await.unwrap();
    assert_eq!(fates, [(fate, START, None)]);
    assert_eq!(store.find("evt_1", 9).await.unwrap(), [(prod(), "a".into())]);
    store.commit(Commit { unmuted: vec!["alr_a".into()], ..commit(vec![]) }).await.unwrap();
    assert!(store.load(&prod(), Wanted::default()).await.unwrap().muted.is_empty());
}

#[tokio::test]
async fn findings_are_loaded_by_job_by_name_and_by_resource() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let on = |id: &str, job: &str, resource: &str, resolved: bool| Alert {
        resource: Some(resource.into()),
        resolved,
        told: vec![],
        ..told_by(id, job, "msg")
    };
    let alerts = vec![on("alr_1", "a", "r", false), on("alr_2", "b", "r", true), on("alr_3", "c", "s", false)];
    store.commit(Commit { alerts, changes: vec![known("c", 1, false)], ..commit(vec![]) }).await.unwrap();
    let load = async |wanted| {
        let memory = store.load(&prod(), wanted).await.unwrap();
        let mut ids: Vec<String> = memory.alerts.keys().map(ToString::to_string).collect();
        ids.sort();
        ids
    };
    assert_eq!(load(Wanted::default()).await, [""; 0]);
    assert_eq!(load(Wanted { ids: vec!["b".into()], ..Wanted::default() }).await, ["alr_2"]);
    assert_eq!(load(Wanted { resources: vec!["r".into()], ..Wanted::default() }).await, ["alr_1"], "what still stands");
    let named = |job: &Job| -> Vec<_> { vec![if job.id.as_str() == "c" { "alr_2".into() } else { "alr_1".into() }] };
    let findings = ["alr_3".into()].into_iter().collect();
    assert_eq!(load(Wanted { findings, ..Wanted::default() }).await, ["alr_3"]);
    let absent = Wanted { others: Some(Arc::new(|id| id == "c")), named: Some(Arc::new(named)), ..Wanted::default() };
    assert_eq!(load(absent).await, ["alr_2", "alr_3"], "its own, and the one it is named under");
    let open_ones: Vec<String> =
        store.findings(9).await.unwrap().into_iter().map(|finding| finding.alert.id.to_string()).collect();
    assert_eq!(open_ones, ["alr_1", "alr_3"]);
}

/// Engine of one file: what a damaged, foreign or newer one looks like.
mod sqlite {
    use super::{Access, Error, open, store, url};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    async fn made(directory: &Path) -> PathBuf {
        drop(open(directory).await.unwrap());
        directory.join("deep/state.db")
    }

    /// Opening is refused as unusable, and not a byte is changed.
    async fn refused(directory: &Path, path: &Path) -> String {
        let before = fs::read(path).unwrap();
        let error = open(directory).await.unwrap_err();
        let Error::Unusable(text) = error else { panic!("{error:?}") };
        assert_eq!(fs::read(path).unwrap(), before, "it was left as it is");
        text
    }

    #[tokio::test]
    async fn a_state_that_is_no_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("deep")).unwrap();
        let path = directory.path().join("deep/state.db");
        fs::write(&path, "this is a shopping list, long enough to be looked at as a header\n".repeat(9)).unwrap();
        assert!(refused(directory.path(), &path).await.contains("damaged"));
    }

    #[tokio::test]
    async fn a_database_of_another_program_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("deep")).unwrap();
        let path = directory.path().join("deep/state.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
        assert!(refused(directory.path(), &path).await.contains("another program"));
    }

    #[tokio::test]
    async fn a_state_of_a_newer_version_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = made(directory.path()).await;
        {
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        }
        assert!(refused(directory.path(), &path).await.contains("newer"));
    }

    #[tokio::test]
    async fn a_state_with_a_torn_page_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = made(directory.path()).await;
        {
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
        }
        let mut bytes = fs::read(&path).unwrap();
        let page = 4096;
        bytes[page * 3..page * 4].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        assert!(refused(directory.path(), &path).await.contains("damaged"));
    }

    #[tokio::test]
    async fn the_state_is_readable_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = made(directory.path()).await;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[tokio::test]
    async fn an_engine_that_does_not_exist_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let other = url(directory.path()).replace("sqlite:", "mysql:");
        assert!(matches!(store::open(&other, Access::Agent).await, Err(Error::Unusable(_))));
    }
}

#[tokio::test]
async fn a_request_is_answered_once_and_found_by_no_agent_that_comes_too_late() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let first = store.ask("reload", seconds(0)).await.unwrap();
    let second = store.ask("reload", seconds(30)).await.unwrap();
    let found = |requests: Vec<store::Request>| requests.into_iter().map(|request| request.n).collect::<Vec<_>>();
    assert_eq!(found(store.requests(seconds(40)).await.unwrap()), [first, second]);
    assert_eq!(found(store.requests(seconds(70)).await.unwrap()), [second], "the first one is too old");
    let answer = |text: &str| store::Answer { accepted: true, text: text.into() };
    assert_eq!(store.answered(second).await.unwrap(), None);
    store.answer(second, answer("done"), seconds(71)).await.unwrap();
    store.answer(second, answer("once more"), seconds(72)).await.unwrap();
    assert_eq!(store.answered(second).await.unwrap(), Some(answer("done")));
    assert_eq!(found(store.requests(seconds(72)).await.unwrap()), [0; 0]);
    let third = store.ask("reload", seconds(90_000)).await.unwrap();
    assert_eq!(store.answered(second).await.unwrap(), None, "what is older than a day is not kept");
    assert!(third > second, "a number is never used again");
}
