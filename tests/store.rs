//! What every engine of the store must do. The engine is made by `open`; the stories know nothing of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::model::alert::{self, Alert, Fate, FateOutcome, Muted, Severity, Silence};
use jobwatch::model::delivery::{Attempt, Claimed, DeliveryState, Frozen, Held, Lane, Outcome, Reserve, Verdict};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::memory::{Memory, Pacing, Sight};
use jobwatch::model::name::{DeliveryId, JobId, ReceiverName, SourceName};
use jobwatch::model::snapshot::{Change, Known};
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::{State, Transition};
use jobwatch::store::{
    self, Access, Again, Backlog, Commit, Dropped, Error, Filter, Gathered, Gauges, PaceOf, Record, Seeing, Span,
    Store, Told, Trouble, Wanted,
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
        seen_at: Some(START),
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

/// Records one attempt. `false` when its claim was lost.
async fn kept(store: &dyn Store, record: Record) -> Result<bool, Error> {
    Ok(store.record(vec![record]).await?.remove(0))
}

async fn claim(store: &dyn Store, at: u64, limit: usize) -> Vec<Claimed> {
    store.claim(&oncall(), seconds(at), seconds(at + 60), limit).await.unwrap()
}

#[tokio::test]
async fn what_is_measured_is_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    assert_eq!(store.gauges(vec![prod()]).await.unwrap(), Gauges::default());
    let job = |id: &str, status: &str, gone: bool| {
        let job = Job::bare(id, Status::read(status));
        let known = Known { job, seq: 1, status_since: START, seen_at: START, missing: 0, stale: 0, gone };
        Change { known, transition: None }
    };
    let changes =
        vec![job("a", "Failed", false), job("b", "Failed", false), job("c", "Odd", false), job("d", "Odd", true)];
    let late = Frozen { created_at: seconds(7), ..frozen("msg_2", "b") };
    let errand = Frozen { receiver: "follow_up/x".into(), ..frozen("msg_3", "c") };
    let mut poll = commit(vec![frozen("msg_1", "a"), late, errand]);
    poll.changes = changes;
    store.commit(poll).await.unwrap();
    let lab = Commit {
        complete: false,
        sight: Sight { blind_since: Some(seconds(3)), ..Sight::default() },
        ..Commit::unchanged("lab".into(), START)
    };
    store.commit(lab).await.unwrap();
    let mut measured = store.gauges(vec![prod(), "lab".into()]).await.unwrap();
    measured.jobs.sort_by_key(|(_, status, _)| status.to_string());
    let seeing = |source: SourceName, complete_at, blind_since| Seeing { source, complete_at, blind_since };
    let backlog = |pending, oldest| Backlog { receiver: oncall(), pending, oldest };
    assert_eq!(measured.jobs, [(prod(), Status::Failed, 2), (prod(), Status::read("Odd"), 1)]);
    assert_eq!(measured.seeing, [seeing("lab".into(), None, Some(seconds(3))), seeing(prod(), Some(START), None)]);
    assert_eq!(measured.outbox, [backlog(2, START)]);
    let claimed = claim(&*store, 1, 1).await.remove(0);
    assert_eq!(claimed.frozen.seen_at, Some(START));
    kept(&*store, record(claimed, accepted(), Verdict::Delivered)).await.unwrap();
    let measured = store.gauges(vec![]).await.unwrap();
    assert_eq!((measured.jobs, measured.outbox), (vec![], vec![backlog(1, seconds(7))]));
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
        lost: false,
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
    assert!(kept(&*store, record(claims.remove(0), why, later)).await.unwrap());
    assert!(claim(&*store, 29, 9).await.is_empty(), "neither the first, which is not due, nor the second, which waits");
    assert_eq!(store.next_due(&oncall()).await.unwrap(), Some(seconds(30)));
    let first = claim(&*store, 30, 9).await;
    assert_eq!(ids(&first), ["msg_1"]);
    assert_eq!(first[0].progress, ["a@example.org"], "what was achieved is handed back");
    assert!(kept(&*store, record(first[0].clone(), accepted(), Verdict::Delivered)).await.unwrap());
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
    assert!(!kept(&*store, record(slow, accepted(), Verdict::Delivered)).await.unwrap());
    assert!(kept(&*store, record(quick, accepted(), Verdict::Delivered)).await.unwrap());
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
    kept(&*store, record(first, refused, Verdict::Dead)).await.unwrap();
    assert_eq!(ids(&claim(&*store, 0, 1).await), ["msg_2"], "a dead one holds nobody up");
    let dead = Filter { state: Some(DeliveryState::Dead), limit: 10, ..Filter::default() };
    let found = store.deliveries(dead.clone()).await.unwrap().items;
    assert_eq!((found.len(), found[0].id.as_str(), found[0].note.as_str()), (1, "msg_1", "HTTP 400"));
    assert_eq!(store.again(Again::Dead(None), seconds(500)).await.unwrap(), [DeliveryId::from("msg_1")]);
    let again = claim(&*store, 500, 1).await.remove(0);
    assert_eq!((again.frozen.id.as_str(), again.tries, again.refused_since), ("msg_1", 0, None));
    assert_eq!(again.budget_from, seconds(500));
    assert!(store.deliveries(dead).await.unwrap().items.is_empty());
    assert!(store.again(Again::These(vec!["msg_9".into()]), START).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_operator_was_told_of_a_receiver_is_remembered_until_it_takes_something() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b")])).await.unwrap();
    let mut claims = claim(&*store, 0, 2).await;
    let told = Trouble { refused: true, ..Trouble::default() };
    let refused = Outcome::Refused { why: "HTTP 403".into() };
    let notice = Frozen { receiver: "mail".into(), ..frozen("msg_3", "receiver/oncall") };
    let first = record(claims.remove(0), refused, Verdict::RetryAt(seconds(300)));
    store.record(vec![Record { trouble: told, deliveries: vec![notice], ..first }]).await.unwrap();
    assert_eq!(store.trouble(&oncall()).await.unwrap(), told);
    store.commit(Commit { held: vec![held("msg_4", "c", 90)], ..commit(vec![]) }).await.unwrap();
    assert_eq!(store.waiting().await.unwrap(), [("mail".into(), 1), (oncall(), 3)], "what is held waits as well");
    kept(&*store, record(claims.remove(0), accepted(), Verdict::Delivered)).await.unwrap();
    assert_eq!(store.trouble(&oncall()).await.unwrap(), Trouble::default());
}

#[tokio::test]
async fn attempts_that_ended_together_are_recorded_together_but_for_one_whose_claim_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b"), frozen("msg_3", "c")])).await.unwrap();
    let mut claims = claim(&*store, 0, 9).await;
    claims[1].token += 1;
    let all = claims.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
    assert_eq!(store.record(all).await.unwrap(), [true, false, true]);
    assert_eq!(store.waiting().await.unwrap(), [(oncall(), 1)]);
}

#[tokio::test]
async fn nothing_is_claimed_for_a_receiver_that_retired_until_it_is_opened_with_all_its_time_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let retired = || Outcome::Retired { why: "HTTP 410".into() };
    let trouble = Trouble { retired: true, held_since: Some(seconds(0)), ..Trouble::default() };
    let open_and_hold = async || {
        let store = open(directory.path()).await.unwrap();
        let first = claim(&*store, 700, 1).await.remove(0);
        kept(&*store, Record { trouble, ..record(first, retired(), Verdict::Held) }).await.unwrap();
        store
    };
    {
        let store = open(directory.path()).await.unwrap();
        store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b")])).await.unwrap();
    }
    drop(open_and_hold().await);
    let store = open(directory.path()).await.unwrap();
    assert!(claim(&*store, 700, 9).await.is_empty());
    assert_eq!(store.next_due(&oncall()).await.unwrap(), None);
    assert_eq!(store.troubles().await.unwrap(), [(oncall(), trouble)], "a restart of the store forgets nothing");
    assert!(store.reopen(&oncall(), seconds(800)).await.unwrap());
    assert!(!store.reopen(&oncall(), seconds(800)).await.unwrap());
    assert_eq!(store.troubles().await.unwrap(), [(oncall(), Trouble { held_since: None, ..trouble })], "it was told");
    let claims = claim(&*store, 800, 9).await;
    assert_eq!((ids(&claims).len(), claims[0].budget_from, claims[0].tries), (2, seconds(800), 0));
    store.release(claims).await.unwrap();
    drop(store);
    let store = open_and_hold().await;
    let done = store.again(Again::Pending(oncall()), seconds(900)).await.unwrap();
    assert_eq!((done.len(), claim(&*store, 900, 9).await.len()), (2, 2), "the operator opened it");
}

#[tokio::test]
async fn the_copy_of_an_urgent_delivery_is_owed_once_when_it_was_not_accepted_in_time_and_never_when_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let reserve = |of: &str, job: &str| Reserve {
        of: of.into(),
        instead_of: oncall(),
        due_at: seconds(180),
        frozen: Frozen {
            receiver: "mail".into(),
            created_at: seconds(180),
            seen_at: None,
            ..frozen(&format!("{of}_copy"), job)
        },
    };
    let owed = Commit {
        reserves: vec![reserve("msg_1", "a"), reserve("msg_2", "b"), reserve("msg_3", "c"), reserve("msg_4", "d")],
        ..commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b"), frozen("msg_3", "c"), frozen("msg_4", "d")])
    };
    store.commit(owed.clone()).await.unwrap();
    let mut claims = claim(&*store, 0, 3).await;
    assert_eq!(claims[0].escalate_at, Some(seconds(180)));
    kept(&*store, record(claims.remove(0), accepted(), Verdict::Delivered)).await.unwrap();
    let why = Outcome::Unreachable { why: "503".into(), retry_after: None };
    kept(&*store, record(claims.remove(0), why.clone(), Verdict::RetryAt(seconds(400)))).await.unwrap();
    kept(&*store, record(claims.remove(0), why, Verdict::Dead)).await.unwrap();
    assert_eq!(store.end(vec!["msg_4".into()], "dropped", START).await.unwrap(), [Dropped::Done]);
    assert_eq!(store.escalate(&oncall(), seconds(1)).await.unwrap(), ["mail".into()], "that of the dead one at once");
    assert_eq!(store.next_escalation(&oncall()).await.unwrap(), Some(seconds(180)));
    assert_eq!(store.escalate(&oncall(), seconds(180)).await.unwrap(), ["mail".into()]);
    assert_eq!(store.escalate(&oncall(), seconds(9_000)).await.unwrap(), [""; 0].map(ReceiverName::from));
    store.commit(owed).await.unwrap();
    assert_eq!(store.next_escalation(&oncall()).await.unwrap(), None, "a poll that is made again makes no new copy");
    let copies = store.claim(&"mail".into(), seconds(180), seconds(240), 9).await.unwrap();
    assert_eq!(ids(&copies), ["msg_3_copy", "msg_2_copy"]);
    assert_eq!(copies[1].frozen, reserve("msg_2", "b").frozen);
}

#[tokio::test]
async fn a_dropped_delivery_is_kept_with_who_and_why_holds_nobody_up_and_is_never_sent() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "a")])).await.unwrap();
    let first = claim(&*store, 0, 9).await.remove(0);
    let ended = store.end(vec!["msg_1".into(), "msg_9".into()], "dropped by ann", seconds(5)).await.unwrap();
    assert_eq!(ended, [Dropped::UnderWay, Dropped::Unknown]);
    assert!(!kept(&*store, record(first, accepted(), Verdict::Delivered)).await.unwrap(), "the order stands");
    assert_eq!(store.end(vec!["msg_1".into()], "dropped by bob", seconds(6)).await.unwrap(), [Dropped::Ended]);
    assert_eq!(ids(&claim(&*store, 5, 9).await), ["msg_2"]);
    let dropped = store.dossier(&"msg_1".into()).await.unwrap().unwrap().delivery;
    let told = (dropped.state, dropped.note.as_str(), dropped.ended_at);
    assert_eq!(told, (DeliveryState::Dropped, "dropped by ann", Some(seconds(5))));
}

#[tokio::test]
async fn what_waits_for_its_job_goes_on_in_order_whatever_ends_replayed_or_gathered() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let owed = (0..6_000).map(|n| frozen(&format!("msg_{n:04}"), if n % 2 == 0 { "even" } else { "odd" })).collect();
    store.commit(commit(owed)).await.unwrap();
    let mut heard = Vec::new();
    for n in 0..40 {
        // One claim looks at so many; there is another one as long as something may be due.
        let mut claims = claim(&*store, 0, 4).await;
        while store.next_due(&oncall()).await.unwrap() == Some(START) {
            claims.extend(claim(&*store, 0, 4).await);
        }
        assert_eq!(claims.len(), 2, "one of each job");
        heard.extend(ids(&claims).into_iter().map(str::to_owned));
        let all = claims.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
        store.record(all).await.unwrap();
        if n == 19 {
            store.again(Again::These(vec!["msg_0010".into()]), START).await.unwrap();
        }
    }
    let even: Vec<&String> = heard.iter().filter(|id| id.ends_with(['0', '2', '4', '6', '8'])).collect();
    let (before, after) = even.split_at(20);
    assert!(before.is_sorted() && after[0] == "msg_0010" && after[1..].is_sorted(), "{even:?}");
    assert_eq!((after[1].as_str(), after.len()), ("msg_0040", 20));
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
    assert_eq!(visitor.deliveries(Filter { limit: 9, ..Filter::default() }).await.unwrap().items.len(), 1);
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
            lost: false,
            held_back: 0,
        }],
    }
}

/// How fast `oncall` is told, as far as it matters for these jobs.
async fn pacing_of(store: &dyn Store, now: Timestamp) -> Pacing {
    let lanes = ["a", "b", "c", "nothing-held"].map(|job| frozen("", job).lane).into();
    let lately = Some((now.minus(Duration::from_secs(60)), 9));
    store.pacing(vec![PaceOf { receiver: oncall(), lately, lanes }], now).await.unwrap()
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
    assert_eq!(store.holding(START).await.unwrap(), [(oncall(), seconds(20))], "over a restart, and once each");
    let pacing = pacing_of(&*store, seconds(1)).await;
    let lane = |job: &str| (oncall(), frozen("", job).lane);
    assert_eq!((pacing.recent[&oncall()], pacing.held[&lane("a")], pacing.held.len()), (1, seconds(20), 3));
    assert!(pacing.waiting.is_empty(), "nothing is due yet");
    assert!(store.held(&oncall(), seconds(19), 9, usize::MAX).await.unwrap().is_empty());
    let due = store.held(&oncall(), seconds(20), 9, usize::MAX).await.unwrap();
    assert_eq!(due.iter().map(|(_, held)| held.frozen.id.as_str()).collect::<Vec<_>>(), ["msg_a", "msg_b"]);

    let told = async || {
        let memory = store.load(&prod(), Wanted { ids: vec!["b".into()], ..Wanted::default() }).await.unwrap();
        let told = &memory.alerts.values().next().unwrap().told[0];
        (told.delivery.to_string(), told.delivered_at)
    };
    assert_eq!(told().await, ("msg_b".to_owned(), None), "what is held is on its way");

    let digest = Frozen { lane: Lane { source: None, subject: "digest/x".into() }, ..frozen("msg_digest", "") };
    let gathered = Gathered { frozen: digest, held: due.iter().map(|(n, _)| *n).collect(), reserve: None };
    store.gathered(vec![gathered.clone()], seconds(20)).await.unwrap();
    store.gathered(vec![gathered], seconds(20)).await.unwrap();
    assert_eq!(store.holding(START).await.unwrap(), [(oncall(), seconds(90))]);
    assert_eq!(told().await, ("msg_digest".to_owned(), None));
    let pacing = pacing_of(&*store, seconds(20)).await;
    assert_eq!((pacing.recent[&oncall()], pacing.digests[&oncall()]), (2, 1), "a digest counts for the rate");

    store.commit(commit(vec![frozen("msg_after", "b"), frozen("msg_other", "d")])).await.unwrap();
    let claims = claim(&*store, 20, 9).await;
    assert_eq!(
        ids(&claims),
        ["msg_before", "msg_other"],
        "the digest waits for a's first, and b's next for the digest"
    );
    for claimed in claims {
        assert!(kept(&*store, record(claimed, accepted(), Verdict::Delivered)).await.unwrap());
    }
    let claims = claim(&*store, 20, 9).await;
    assert_eq!(ids(&claims), ["msg_digest"]);
    assert!(claim(&*store, 20, 9).await.is_empty());
    let later = Outcome::Unreachable { why: "HTTP 503".into(), retry_after: None };
    kept(&*store, record(claims[0].clone(), later, Verdict::RetryAt(seconds(500)))).await.unwrap();
    assert_eq!(
        store.next_due(&oncall()).await.unwrap(),
        Some(seconds(500)),
        "what waits for the digest is not due before"
    );
    let claims = claim(&*store, 500, 9).await;
    kept(&*store, record(claims[0].clone(), accepted(), Verdict::Delivered)).await.unwrap();
    assert_eq!(ids(&claim(&*store, 500, 9).await), ["msg_after"]);
}

#[tokio::test]
async fn what_is_held_is_not_parked_by_a_clock_that_is_set_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    store.commit(Commit { held: vec![held("msg_a", "a", 20)], ..commit(vec![frozen("msg_b", "b")]) }).await.unwrap();
    let yesterday = START.minus(Duration::from_secs(86_400));
    assert_eq!(store.holding(yesterday).await.unwrap(), [(oncall(), yesterday)]);
    assert_eq!(store.held(&oncall(), yesterday, 9, usize::MAX).await.unwrap().len(), 1);
    let pacing = pacing_of(&*store, yesterday).await;
    assert_eq!(pacing.held.values().collect::<Vec<_>>(), [&yesterday], "what follows waits no longer");
    assert!(pacing.waiting.contains(&oncall()));
    assert_eq!(pacing.recent[&oncall()], 0, "what lies ahead was not said lately");
}

#[tokio::test]
async fn no_more_of_what_is_held_is_loaded_than_is_asked_for_in_bytes_but_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let all = ["a", "b", "c"].map(|job| held(&format!("msg_{job}"), job, 0));
    let one = all[0].data.to_string().len();
    store.commit(Commit { held: all.to_vec(), ..commit(vec![]) }).await.unwrap();
    let count = async |bytes: usize| store.held(&oncall(), START, 9, bytes).await.unwrap().len();
    assert_eq!([count(1).await, count(one).await, count(2 * one).await, count(9 * one).await], [1, 1, 2, 3]);
}

#[tokio::test]
async fn what_follows_a_message_that_is_tried_again_waits_for_it_and_keeps_no_digest_of_others_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let digest = Frozen { lane: Lane { source: None, subject: "digest/x".into() }, ..frozen("msg_digest", "") };
    let first = vec![held("msg_c", "c", 0), held("msg_d", "d", 0)];
    store.commit(Commit { held: first, ..commit(vec![frozen("msg_a", "a")]) }).await.unwrap();
    let numbers = store.held(&oncall(), START, 9, usize::MAX).await.unwrap().into_iter().map(|(n, _)| n).collect();
    store.gathered(vec![Gathered { frozen: digest, held: numbers, reserve: None }], START).await.unwrap();
    let later = ["a", "b", "c"].map(|job| held(&format!("msg_{job}2"), job, 0));
    store.commit(Commit { held: later.to_vec(), ..commit(vec![]) }).await.unwrap();
    let due = async || -> Vec<String> {
        let due = store.held(&oncall(), START, 9, usize::MAX).await.unwrap();
        due.into_iter().map(|(_, held)| held.frozen.id.to_string()).collect()
    };
    assert_eq!(due().await, ["msg_a2", "msg_b2", "msg_c2"], "what was not tried yet is soon out of the way");
    for claimed in claim(&*store, 0, 9).await {
        let refused = Outcome::Refused { why: "HTTP 413".into() };
        assert!(kept(&*store, record(claimed, refused, Verdict::RetryAt(seconds(500)))).await.unwrap());
    }
    assert_eq!(due().await, ["msg_b2"]);
    for claimed in claim(&*store, 500, 9).await {
        assert!(kept(&*store, record(claimed, accepted(), Verdict::Delivered)).await.unwrap());
    }
    assert_eq!(due().await, ["msg_a2", "msg_b2", "msg_c2"]);
}

#[tokio::test]
async fn a_poll_that_was_decided_before_a_digest_was_made_does_not_forget_that_digest() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let alert = told_by("alr_a", "a", "msg_a");
    let both = vec![held("msg_a", "a", 0), held("msg_b", "b", 0)];
    store.commit(Commit { held: both, alerts: vec![alert.clone()], ..commit(vec![]) }).await.unwrap();
    let digest = Frozen { lane: Lane { source: None, subject: "digest/x".into() }, ..frozen("msg_digest", "") };
    let numbers = store.held(&oncall(), START, 9, usize::MAX).await.unwrap().into_iter().map(|(n, _)| n).collect();
    store.gathered(vec![Gathered { frozen: digest, held: numbers, reserve: None }], START).await.unwrap();
    let mut counted = alert;
    counted.told[0].held_back = 4;
    store.commit(Commit { alerts: vec![counted.clone()], ..commit(vec![]) }).await.unwrap();
    let told = async || {
        let memory = store.load(&prod(), Wanted { ids: vec!["a".into()], ..Wanted::default() }).await.unwrap();
        let told = memory.alerts.values().next().unwrap().told[0].clone();
        (told.delivery.to_string(), told.held_back, told.delivered_at)
    };
    assert_eq!(told().await, ("msg_digest".to_owned(), 4, None));
    counted.told[0] =
        alert::Told { delivery: "msg_next".into(), at: seconds(30), held_back: 0, ..counted.told[0].clone() };
    store.commit(Commit { alerts: vec![counted], ..commit(vec![]) }).await.unwrap();
    assert_eq!(told().await.0, "msg_next");
}

#[tokio::test]
async fn of_a_long_history_the_newest_steps_are_given_the_oldest_of_them_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let step = |n: u32| {
        let mut change = known(&format!("j{n}"), 0, false);
        let job = Arc::new(change.known.job.clone());
        change.transition = Some(Arc::new(Transition {
            id: format!("evt_{n}").as_str().into(),
            source: prod(),
            from: State::Unseen,
            to: State::Is(job.status.clone()),
            seen_before: None,
            seen_at: seconds(u64::from(n)),
            skipped: Vec::new(),
            changed: Vec::new(),
            late: false,
            seq: 1,
            job,
        }));
        change
    };
    store.commit(Commit { changes: (1..=5).map(step).collect(), ..commit(vec![]) }).await.unwrap();
    let span = Span { source: Some(prod()), since: seconds(2), limit: 3 };
    let steps = store.history(span).await.unwrap();
    assert_eq!(steps.iter().map(|step| step.id.as_str()).collect::<Vec<_>>(), ["evt_3", "evt_4", "evt_5"]);
}

#[tokio::test]
async fn a_message_that_was_given_up_told_nobody_so_that_no_cooldown_counts_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let alerts = vec![told_by("alr_a", "a", "msg_a")];
    store.commit(Commit { alerts, ..commit(vec![frozen("msg_a", "a")]) }).await.unwrap();
    let told = async || {
        let memory = store.load(&prod(), Wanted { ids: vec!["a".into()], ..Wanted::default() }).await.unwrap();
        memory.alerts.values().next().unwrap().told.first().map(|told| (told.lost, told.delivered_at)).unwrap()
    };
    assert_eq!(told().await, (false, None), "on its way");
    let claims = claim(&*store, 0, 1).await;
    let refused = Outcome::Refused { why: "HTTP 404".into() };
    kept(&*store, record(claims[0].clone(), refused, Verdict::Dead)).await.unwrap();
    assert_eq!(told().await, (true, None));
    store.again(Again::Dead(None), seconds(5)).await.unwrap();
    let claims = claim(&*store, 5, 1).await;
    kept(&*store, record(claims[0].clone(), accepted(), Verdict::Delivered)).await.unwrap();
    assert_eq!(told().await, (false, Some(START.plus(Duration::from_millis(3)))), "delivered when the attempt ended");
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
    let other = Transition { job: Arc::new(Job::bare("b", Status::Failed)), seen_at: seconds(4), ..step.clone() };
    let muted = [step, other].map(|step| Muted {
        alert: "alr_a".into(),
        rule: "failed".into(),
        transition: Arc::new(step),
        by: "silence s1".into(),
    });
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
        let (muted, fates) = (muted.to_vec(), vec![fate.clone()]);
        store.commit(Commit { changes: vec![known("a", 0, false)], muted, fates, ..commit(vec![]) }).await.unwrap();
    }
    let store = open(directory.path()).await.unwrap();
    assert_eq!(store.silences(START).await.unwrap(), [silence("s2", 30), silence("s1", 60)]);
    let memory = store.load(&prod(), Wanted { now: seconds(30), ..Wanted::default() }).await.unwrap();
    assert_eq!((memory.silences, &memory.muted), (vec![silence("s1", 60)], &muted.to_vec()));
    assert!(memory.timed.contains_key("a"), "whether it still stands can be told");
    let past = store.past(&prod(), &"a".into()).await.unwrap();
    assert_eq!(past.fates, [(fate.clone(), START)]);
    let fates = store.fates(Span { limit: 9, ..Span::default() }).await.unwrap();
    assert_eq!(fates, [(fate, START, None)]);
    assert_eq!(store.find("evt_1", 9).await.unwrap(), [(prod(), "a".into())]);
    store.commit(Commit { unmuted: vec![muted[0].key()], ..commit(vec![]) }).await.unwrap();
    assert_eq!(store.load(&prod(), Wanted::default()).await.unwrap().muted, muted[1..], "each job's part by itself");
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

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
    async fn a_state_of_an_older_version_is_taken_over_with_what_was_found_and_what_is_owed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/state.db");
        fs::create_dir(path.parent().unwrap()).unwrap();
        {
            let old = rusqlite::Connection::open(&path).unwrap();
            old.execute_batch(include_str!("../src/store/schema/sqlite-1.sql")).unwrap();
            old.execute_batch(include_str!("../src/store/schema/sqlite-2.sql")).unwrap();
            old.execute_batch(
                "PRAGMA application_id = 0x4a6f6257; PRAGMA user_version = 2;
                 INSERT INTO source VALUES ('prod', 1800000000000000, NULL, NULL, 0);
                 INSERT INTO job (source, id, status, seq, status_since, seen_at, missing, stale, gone)
                 VALUES ('prod', 'a', 'Failed', 3, 5, 6, 0, 0, 0);
                 INSERT INTO alert (id, rule, source, subject, severity, count, first_seen, last_seen)
                 VALUES ('alr_a', 'failed', 'prod', 'a', 'error', 7, 11, 12);
                 INSERT INTO delivery (id, receiver, source, subject, event, title, created_at, payload, state, due_at, set_at,
                                       budget_from, attempts, tries)
                 VALUES ('msg_a', 'oncall', 'prod', 'a', 'e', 'a failed', 11, x'66726f7a656e', 'pending', 13, 12, 11, 1, 1),
                        ('msg_b', 'oncall', 'prod', 'b', 'e', 'b failed', 11, x'66726f7a656e', 'dead', 13, 12, 11, 9, 9);",
            )
            .unwrap();
        }
        let early = store::open(&url(directory.path()), Access::Visitor).await.map(drop).unwrap_err();
        assert!(matches!(&early, Error::Failed(why) if why.contains("start `jobwatch run` once")), "{early:?}");
        let store = open(directory.path()).await.unwrap();
        let memory = store.load(&prod(), Wanted { ids: vec!["a".into()], ..Wanted::default() }).await.unwrap();
        let at = Timestamp::from_micros;
        let found =
            Alert { count: 7, first_seen: at(11), last_seen: at(12), told: vec![], ..told_by("alr_a", "a", "") };
        assert_eq!(memory.alerts.into_values().collect::<Vec<_>>(), [found]);
        assert_eq!(memory.snapshot.jobs.len(), 1);
        let claims = claim(&*store, 0, 9).await;
        assert_eq!(ids(&claims), ["msg_a"]);
        assert_eq!((claims[0].frozen.payload.as_slice(), claims[0].tries), (b"frozen".as_slice(), 1));
        assert!(kept(&*store, record(claims[0].clone(), accepted(), Verdict::Delivered)).await.unwrap());
        assert_eq!(store.again(Again::Dead(None), START).await.unwrap(), ["msg_b".into()]);
        assert!(store.holding(START).await.unwrap().is_empty());
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
