//! What people look at in a state: lists in pages, that stay in order while rows are added.

use std::sync::Arc;
use std::time::Duration;

use jobwatch::model::alert::{self, Alert, Fate, FateOutcome, Muted, Severity};
use jobwatch::model::delivery::{Attempt, DeliveryState, Frozen, Held, Lane, Outcome, Verdict};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::memory::Sight;
use jobwatch::model::name::{AlertId, JobId, ReceiverName, SourceName};
use jobwatch::model::snapshot::{Change, Known};
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::{State, Transition};
use jobwatch::store::view::{
    AlertFilter, AlertView, Cursor, JobFilter, JobView, MutedView, SourceFilter, ToldView, TransitionFilter,
    TransitionView,
};
use jobwatch::store::{Commit, Filter, Record, Store, Trouble};

use super::Place;

fn at(n: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).plus(Duration::from_secs(n))
}

fn job(id: &str, status: &str) -> Job {
    let mut job = Job::bare(id, Status::read(status));
    job.resource_name = Some(format!("instance-{id}").into());
    job.reason = Some("quota".into());
    job
}

/// A job that has been in this state since then, with the step that led there.
fn moved(source: &str, id: &str, status: &str, seq: u32, since: u64) -> Change {
    let job = job(id, status);
    let known =
        Known { job: job.clone(), seq, status_since: at(since), seen_at: at(since), missing: 0, stale: 0, gone: false };
    let transition = Transition {
        id: format!("trn_{source}_{id}_{seq}").as_str().into(),
        source: source.into(),
        job: Arc::new(job),
        from: State::Is(Status::Running),
        to: State::read(status),
        seen_before: None,
        seen_at: at(since),
        skipped: vec![],
        changed: vec![],
        late: false,
        seq,
    };
    Change { known, transition: Some(Arc::new(transition)) }
}

async fn poll(store: &dyn Store, source: &str, time: u64, changes: Vec<Change>) {
    store.commit(Commit { changes, ..Commit::unchanged(source.into(), at(time)) }).await.unwrap();
}

fn frozen(id: &str, receiver: &str, job: &str, created: u64) -> Frozen {
    Frozen {
        id: id.into(),
        receiver: receiver.into(),
        lane: Lane { source: Some("prod".into()), subject: job.into() },
        event: "io.jobwatch.job.failed".into(),
        title: format!("{job} failed"),
        created_at: at(created),
        seen_at: None,
        payload: b"{}".to_vec(),
    }
}

/// The ids of every page of jobs, a page each.
async fn pages(store: &dyn Store, mut filter: JobFilter) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = store.jobs(filter.clone()).await.unwrap();
        pages.push(page.items.iter().map(|view| view.job.id.to_string()).collect());
        filter.before = page.next;
        if filter.before.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn jobs_are_listed_by_when_they_changed_and_chosen_by_source_state_time_and_name() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let mut gone = moved("prod", "c", "Failed", 2, 3);
    gone.known.gone = true;
    let changes = vec![moved("prod", "a", "Failed", 1, 1), moved("prod", "b", "Running", 1, 2), gone];
    poll(&*store, "prod", 5, changes).await;
    // The same id, and the same time, somewhere else.
    poll(&*store, "stage", 5, vec![moved("stage", "a", "Paused", 1, 2)]).await;
    let of = async |filter: JobFilter| pages(&*store, JobFilter { limit: 9, ..filter }).await.concat();
    assert_eq!(of(JobFilter::default()).await, ["c", "a", "b", "a"]);
    assert_eq!(of(JobFilter { source: Some("prod".into()), ..JobFilter::default() }).await, ["c", "b", "a"]);
    let states = vec![State::read("Failed"), State::read("Paused")];
    assert_eq!(of(JobFilter { states, ..JobFilter::default() }).await, ["a", "a"], "what is gone has not failed");
    assert_eq!(of(JobFilter { states: vec![State::Gone], ..JobFilter::default() }).await, ["c"]);
    assert_eq!(of(JobFilter { since: Some(at(2)), ..JobFilter::default() }).await, ["c", "a", "b"]);
    assert_eq!(of(JobFilter { job: Some("instance-b".into()), ..JobFilter::default() }).await, ["b"]);
    assert_eq!(of(JobFilter { job: Some("a".into()), ..JobFilter::default() }).await, ["a", "a"]);
    for limit in [1, 2, 3] {
        let pages = pages(&*store, JobFilter { limit, ..JobFilter::default() }).await;
        assert_eq!(pages.concat(), ["c", "a", "b", "a"], "pages of {limit}");
        assert!(pages.iter().all(|page| page.len() <= limit));
    }
    let page = store.jobs(JobFilter { limit: 1, ..JobFilter::default() }).await.unwrap();
    let expected = JobView {
        source: "prod".into(),
        job: job("c", "Failed"),
        status_since: at(3),
        seen_at: at(3),
        transitions: 2,
        missing: 0,
        gone: true,
    };
    assert_eq!(page.items, [expected]);
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_one_ended_however_many_rows_were_added_meanwhile() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let step = |n: u64| moved("prod", &format!("j{n}"), "Failed", 1, n);
    poll(&*store, "prod", 9, (1..=6).map(step).collect()).await;
    let filter = TransitionFilter { limit: 2, ..TransitionFilter::default() };
    let first = store.transitions(filter.clone()).await.unwrap();
    let ids = |page: &[TransitionView]| page.iter().map(|step| step.job.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&first.items), ["j6", "j5"]);
    poll(&*store, "prod", 10, (7..=9).map(step).collect()).await;
    // As text, as it is handed out.
    let before: Cursor<_> = first.next.unwrap().to_string().parse().unwrap();
    let second = store.transitions(TransitionFilter { before: Some(before), ..filter.clone() }).await.unwrap();
    assert_eq!(ids(&second.items), ["j4", "j3"]);
    let third = store.transitions(TransitionFilter { before: second.next, ..filter.clone() }).await.unwrap();
    assert_eq!((ids(&third.items), third.next), (vec!["j2".into(), "j1".into()], None));
    let since = store.transitions(TransitionFilter { since: Some(at(9)), ..filter }).await.unwrap();
    assert_eq!((ids(&since.items), since.next), (vec!["j9".into()], None));
}

#[tokio::test]
async fn transitions_are_chosen_by_source_job_and_states_and_followed_in_the_order_of_their_commits() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    poll(&*store, "prod", 5, vec![moved("prod", "a", "Failed", 1, 4), moved("prod", "b", "Success", 1, 4)]).await;
    let (mark, _) = store.marks().await.unwrap();
    // Seen earlier, committed later.
    poll(&*store, "stage", 5, vec![moved("stage", "a", "Failed", 1, 3)]).await;
    poll(&*store, "prod", 6, vec![moved("prod", "a", "Success", 2, 6)]).await;
    let of = async |filter: TransitionFilter| {
        let page = store.transitions(TransitionFilter { limit: 9, ..filter }).await.unwrap();
        assert_eq!(page.next, None);
        page.items.into_iter().map(|step| step.id.to_string()).collect::<Vec<_>>()
    };
    let every = TransitionFilter::default;
    assert_eq!(of(every()).await, ["trn_prod_a_2", "trn_prod_b_1", "trn_prod_a_1", "trn_stage_a_1"]);
    let a = TransitionFilter { job: Some("a".into()), ..every() };
    assert_eq!(of(a.clone()).await, ["trn_prod_a_2", "trn_prod_a_1", "trn_stage_a_1"]);
    assert_eq!(of(TransitionFilter { source: Some("stage".into()), ..a }).await, ["trn_stage_a_1"]);
    let to = |word: &str| Some(State::read(word));
    let failed = TransitionFilter { source: Some("prod".into()), to: to("Failed"), ..every() };
    assert_eq!(of(failed).await, ["trn_prod_a_1"]);
    assert_eq!(of(TransitionFilter { from: to("Creating"), ..every() }).await, [""; 0]);
    let follow = async |mark, filter: TransitionFilter| {
        let (items, mark) = store.transitions_after(TransitionFilter { limit: 1, ..filter }, mark).await.unwrap();
        (items.into_iter().map(|step| step.id.to_string()).collect::<Vec<_>>(), mark)
    };
    let (ids, mark) = follow(mark, every()).await;
    assert_eq!(ids, ["trn_stage_a_1"]);
    let (ids, mark) = follow(mark, every()).await;
    assert_eq!(ids, ["trn_prod_a_2"]);
    assert_eq!(follow(mark, every()).await, (vec![], mark));
}

fn alert(id: &str, rule: &str, subject: &str, last: u64) -> Alert {
    Alert {
        id: id.into(),
        rule: rule.into(),
        source: "prod".into(),
        subject: subject.into(),
        resource: None,
        severity: Severity::Critical,
        count: 2,
        first_seen: at(1),
        last_seen: at(last),
        resolved: false,
        told: vec![],
    }
}

fn told(receiver: &str, delivery: &str) -> alert::Told {
    alert::Told {
        receiver: receiver.into(),
        delivery: delivery.into(),
        severity: Severity::Critical,
        at: at(2),
        delivered_at: None,
        lost: false,
        held_back: 3,
    }
}

/// Claims what is due and records this of it.
async fn attempt(store: &dyn Store, receiver: &str, outcome: Outcome, verdict: Verdict, trouble: Trouble) {
    let claims = store.claim(&receiver.into(), at(9), at(99), 1).await.unwrap();
    let record = |claimed| Record {
        claimed,
        attempt: Attempt { at: at(9), took: Duration::ZERO, outcome: outcome.clone(), progress: vec![] },
        verdict,
        trouble,
        deliveries: vec![],
        asks: false,
    };
    assert_eq!(store.record(claims.into_iter().map(record).collect()).await.unwrap(), [true]);
}

fn accepted() -> Outcome {
    Outcome::Accepted { note: "HTTP 204".into() }
}

#[tokio::test]
async fn an_alert_says_who_was_told_and_what_became_of_it_and_what_forbade_it() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let Change { transition, .. } = moved("prod", "a", "Failed", 1, 1);
    let muted = Muted {
        alert: "alr_1".into(),
        rule: "failed".into(),
        transition: transition.unwrap(),
        by: "silence sil_1".into(),
    };
    let fate = |receiver: &str, outcome, delivery: &str| Fate {
        rule: "failed".into(),
        transition: "trn_prod_a_1".into(),
        subject: "a".into(),
        receiver: Some(receiver.into()),
        outcome,
        delivery: Some(delivery.into()),
        why: String::new(),
    };
    let first =
        Alert { told: vec![told("mail", "msg_gone"), told("oncall", "msg_1")], ..alert("alr_1", "failed", "a", 5) };
    let over = Alert { resolved: true, severity: Severity::Info, ..alert("alr_2", "failed", "b", 7) };
    let all = Commit {
        changes: vec![moved("prod", "a", "Failed", 1, 1)],
        alerts: vec![first, over, alert("alr_3", "stuck", "a", 6)],
        deliveries: vec![frozen("msg_1", "oncall", "a", 2)],
        muted: vec![muted],
        fates: vec![fate("chat", FateOutcome::Told, "msg_c"), fate("pager", FateOutcome::HeldBack, "msg_p")],
        ..Commit::unchanged("prod".into(), at(9))
    };
    store.commit(all).await.unwrap();
    attempt(&*store, "oncall", accepted(), Verdict::Delivered, Trouble::default()).await;
    let of = async |filter: AlertFilter| {
        let page = store.alerts(AlertFilter { limit: 9, ..filter }).await.unwrap();
        page.items.into_iter().map(|alert| alert.id.to_string()).collect::<Vec<_>>()
    };
    let every = AlertFilter::default;
    assert_eq!(of(every()).await, ["alr_2", "alr_3", "alr_1"]);
    assert_eq!(of(AlertFilter { standing: Some(true), ..every() }).await, ["alr_3", "alr_1"]);
    assert_eq!(of(AlertFilter { standing: Some(false), ..every() }).await, ["alr_2"]);
    assert_eq!(of(AlertFilter { rule: Some("stuck".into()), ..every() }).await, ["alr_3"]);
    assert_eq!(of(AlertFilter { severity: Some(Severity::Info), ..every() }).await, ["alr_2"]);
    assert_eq!(of(AlertFilter { job: Some("a".into()), ..every() }).await, ["alr_3", "alr_1"]);
    assert_eq!(of(AlertFilter { since: Some(at(6)), ..every() }).await, ["alr_2", "alr_3"]);
    assert_eq!(of(AlertFilter { source: Some("stage".into()), ..every() }).await, [""; 0]);
    let page = store.alerts(AlertFilter { limit: 2, ..every() }).await.unwrap();
    let rest = store.alerts(AlertFilter { limit: 2, before: page.next, ..every() }).await.unwrap();
    let told = |receiver: &str, delivery: &str, state: &str, delivered| ToldView {
        receiver: receiver.into(),
        delivery: delivery.into(),
        decided_at: at(2),
        state: state.into(),
        delivered_at: delivered,
        held_back: 3,
    };
    let expected = AlertView {
        id: AlertId::from("alr_1"),
        rule: "failed".into(),
        source: "prod".into(),
        severity: Severity::Critical,
        standing: true,
        subject: "a".into(),
        job: Some(job("a", "Failed")),
        resource: None,
        count: 2,
        first_seen: at(1),
        last_seen: at(5),
        told: vec![
            ToldView { decided_at: at(9), held_back: 0, ..told("chat", "msg_c", "forgotten", None) },
            told("mail", "msg_gone", "forgotten", None),
            told("oncall", "msg_1", "delivered", Some(at(9))),
        ],
        muted: vec![MutedView { job: JobId::from("a"), by: "silence sil_1".into() }],
    };
    assert_eq!((rest.next, rest.items.as_slice()), (None, std::slice::from_ref(&expected)));
    assert_eq!(store.alert(&"alr_1".into()).await.unwrap(), Some(expected));
}

#[tokio::test]
async fn deliveries_go_by_when_they_were_decided_and_are_followed_by_when_they_were_committed() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let deliveries = vec![frozen("msg_1", "oncall", "a", 3), frozen("msg_2", "mail", "a", 2)];
    store.commit(Commit { deliveries, ..Commit::unchanged("prod".into(), at(3)) }).await.unwrap();
    attempt(&*store, "mail", Outcome::Refused { why: "no".into() }, Verdict::Dead, Trouble::default()).await;
    let (_, mark) = store.marks().await.unwrap();
    let deliveries = vec![frozen("msg_3", "oncall", "b", 4)];
    store.commit(Commit { deliveries, ..Commit::unchanged("prod".into(), at(4)) }).await.unwrap();
    let of = async |filter: Filter| {
        let page = store.deliveries(Filter { limit: 9, ..filter }).await.unwrap();
        page.items.into_iter().map(|delivery| delivery.id.to_string()).collect::<Vec<_>>()
    };
    let every = Filter::default;
    assert_eq!(of(every()).await, ["msg_3", "msg_1", "msg_2"]);
    assert_eq!(of(Filter { receiver: Some("oncall".into()), ..every() }).await, ["msg_3", "msg_1"]);
    assert_eq!(of(Filter { state: Some(DeliveryState::Dead), ..every() }).await, ["msg_2"]);
    assert_eq!(of(Filter { state: Some(DeliveryState::Pending), ..every() }).await, ["msg_3", "msg_1"]);
    assert_eq!(of(Filter { job: Some("a".into()), since: Some(at(3)), ..every() }).await, ["msg_1"]);
    assert_eq!(of(Filter { source: Some("stage".into()), ..every() }).await, [""; 0]);
    let first = store.deliveries(Filter { limit: 2, ..every() }).await.unwrap();
    let second = store.deliveries(Filter { limit: 2, before: first.next, ..every() }).await.unwrap();
    assert_eq!((second.items[0].id.as_str(), second.next), ("msg_2", None));
    let (new, mark) = store.deliveries_after(Filter { limit: 9, ..every() }, mark).await.unwrap();
    assert_eq!(new.iter().map(|delivery| delivery.id.as_str()).collect::<Vec<_>>(), ["msg_3"]);
    assert_eq!(store.deliveries_after(Filter { limit: 9, ..every() }, mark).await.unwrap(), (vec![], mark));
    assert_eq!(store.delivery(&"msg_2".into()).await.unwrap().unwrap().state, DeliveryState::Dead);
}

#[tokio::test]
async fn sources_say_what_they_show_and_since_when_they_are_not_seen() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let mut gone = moved("prod", "d", "Success", 1, 1);
    gone.known.gone = true;
    let changes = vec![
        moved("prod", "a", "Failed", 1, 1),
        moved("prod", "b", "Running", 1, 1),
        moved("prod", "c", "Failed", 1, 1),
        gone,
    ];
    poll(&*store, "prod", 5, changes).await;
    let sight = Sight { blind_since: Some(at(6)), ..Sight::default() };
    let blind = Commit { complete: false, sight, ..Commit::unchanged("stage".into(), at(6)) };
    store.commit(blind).await.unwrap();
    let page = store.sources(SourceFilter { limit: 1, ..SourceFilter::default() }).await.unwrap();
    let prod = &page.items[0];
    assert_eq!((&prod.name, prod.complete_at, prod.blind_since), (&SourceName::from("prod"), Some(at(5)), None));
    assert_eq!(
        prod.jobs.iter().map(|(status, count)| (&**status, *count)).collect::<Vec<_>>(),
        [("Failed", 2), ("Running", 1)]
    );
    assert_eq!(prod.gone, 1);
    let rest = store.sources(SourceFilter { limit: 1, before: page.next, ..SourceFilter::default() }).await.unwrap();
    let stage = &rest.items[0];
    assert_eq!((stage.name.as_str(), stage.complete_at, stage.blind_since), ("stage", None, Some(at(6))));
    assert_eq!(rest.next, None);
}

#[tokio::test]
async fn the_outbox_says_for_each_receiver_what_waits_since_when_and_what_keeps_it() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let held = Held {
        frozen: frozen("msg_h", "mail", "h", 4),
        severity: Severity::Info,
        class: String::new(),
        group: String::new(),
        due_at: at(60),
        data: serde_json::Value::Null,
    };
    let deliveries = vec![
        frozen("msg_1", "oncall", "a", 2),
        frozen("msg_2", "oncall", "b", 3),
        frozen("msg_3", "oncall", "c", 4),
        frozen("msg_4", "chat", "c", 4),
    ];
    store.commit(Commit { deliveries, held: vec![held], ..Commit::unchanged("prod".into(), at(4)) }).await.unwrap();
    attempt(&*store, "oncall", Outcome::Refused { why: "no".into() }, Verdict::Dead, Trouble::default()).await;
    let trouble = Trouble { retired: true, held_since: Some(at(9)), ..Trouble::default() };
    attempt(&*store, "oncall", Outcome::Retired { why: "410".into() }, Verdict::Held, trouble).await;
    attempt(&*store, "chat", accepted(), Verdict::Delivered, Trouble::default()).await;
    let outbox = store.outbox().await.unwrap();
    let seen: Vec<_> =
        outbox.iter().map(|one| (one.receiver.as_str(), one.pending, one.oldest_at, one.held, one.dead)).collect();
    assert_eq!(seen, [("mail", 0, None, 1, 0), ("oncall", 2, Some(at(3)), 0, 1)]);
    assert_eq!(outbox[1].trouble, trouble);
    assert!(outbox.iter().all(|one| one.receiver != ReceiverName::from("chat")), "nothing is to be said of it");
}

#[tokio::test]
async fn a_page_looks_at_a_bounded_number_of_rows_and_says_how_to_go_on() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let change = |n: u64| moved("prod", &format!("j{n}"), if n == 0 { "Failed" } else { "Success" }, 1, n);
    poll(&*store, "prod", 5, (0..20_500).map(change).collect()).await;
    let states = vec![State::read("Failed")];
    let pages = pages(&*store, JobFilter { states, limit: 9, ..JobFilter::default() }).await;
    assert_eq!(pages.concat(), ["j0"]);
    assert_eq!(pages.len(), Place::PAGES_OF_20_000);
}
