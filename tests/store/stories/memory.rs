//! What a poll is decided from and what it decided: kept to the last field, loaded as far as it is wanted.

use std::sync::Arc;

use jobwatch::model::alert::{self, Alert, Fate, FateOutcome, Muted, Severity, Silence};
use jobwatch::model::delivery::{Frozen, Verdict};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::memory::{Memory, Sight};
use jobwatch::model::name::{JobId, SourceName};
use jobwatch::model::snapshot::{Change, Known};
use jobwatch::model::transition::{State, Transition};
use jobwatch::store::{Backlog, Commit, Gauges, Seeing, Span, Told, Wanted};

use super::Place;
use crate::world::{START, accepted, claim, commit, frozen, ids, kept, known, oncall, prod, record, seconds, told_by};

#[tokio::test]
async fn what_a_poll_decided_is_there_after_a_restart_to_the_last_field() {
    let place = Place::new().await;
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
        let store = place.open().await.unwrap();
        let changes = vec![Change { known: known.clone(), transition: None }];
        let all = Commit { changes, alerts: vec![alert.clone()], sight, ..commit(vec![frozen("msg_1", "a")]) };
        assert_eq!(store.commit(all).await.unwrap(), 1);
    }
    let store = place.open().await.unwrap();
    let memory = store.load(&prod(), Wanted::everything()).await.unwrap();
    let mut expected = Memory { sight, ..Memory::default() };
    expected.snapshot.complete_at = Some(START);
    expected.snapshot.jobs.insert(known.job.id.clone(), known);
    expected.alerts.insert(alert.id.clone(), alert);
    assert_eq!(memory, expected);
    assert_eq!(claim(&*store, 0, 9).await[0].frozen, frozen("msg_1", "a"));
    assert_eq!(store.load(&SourceName::from("other"), Wanted::everything()).await.unwrap(), Memory::default());
}

#[tokio::test]
async fn only_the_jobs_that_are_wanted_are_loaded() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
async fn findings_are_loaded_by_job_by_name_and_by_resource() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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

#[tokio::test]
async fn what_was_told_of_a_blind_source_is_kept_with_the_delivery_that_tells_it_and_a_poll_does_not_undo_it() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let blind = Sight { blind_since: Some(seconds(4)), ..Sight::default() };
    store.commit(Commit { sight: blind, complete: false, ..commit(vec![]) }).await.unwrap();
    let told = Told {
        sources: vec![(prod(), Some(seconds(4)))],
        deliveries: vec![frozen("msg_blind", "agent")],
        ..Told::default()
    };
    store.tell(told).await.unwrap();
    store.commit(Commit { sight: blind, complete: false, ..commit(vec![]) }).await.unwrap();
    let sights = store.sights().await.unwrap();
    assert_eq!(sights, [(prod(), Sight { told_since: Some(seconds(4)), ..blind })]);
    assert_eq!(ids(&claim(&*store, 5, 9).await), ["msg_blind"]);
}

#[tokio::test]
async fn silences_and_what_they_mute_and_what_came_of_each_match_are_there_after_a_restart() {
    let place = Place::new().await;
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
        let store = place.open().await.unwrap();
        store.silence(silence("s1", 60)).await.unwrap();
        store.silence(silence("s2", 30)).await.unwrap();
        let (muted, fates) = (muted.to_vec(), vec![fate.clone()]);
        store.commit(Commit { changes: vec![known("a", 0, false)], muted, fates, ..commit(vec![]) }).await.unwrap();
    }
    let store = place.open().await.unwrap();
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
async fn of_a_long_history_the_newest_steps_are_given_the_oldest_of_them_first() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
async fn what_is_measured_is_what_is_there() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
