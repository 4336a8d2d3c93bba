//! What is held back, and the messages that it is gathered into.

use std::time::Duration;

use jobwatch::model::alert;
use jobwatch::model::delivery::{Frozen, Lane, Outcome, Verdict};
use jobwatch::model::memory::Pacing;
use jobwatch::model::time::Timestamp;
use jobwatch::store::{Commit, Gathered, PaceOf, Store, Wanted};

use super::Place;
use crate::world::{START, accepted, claim, commit, frozen, held, ids, kept, oncall, prod, record, seconds, told_by};

/// How fast `oncall` is told, as far as it matters for these jobs.
async fn pacing_of(store: &dyn Store, now: Timestamp) -> Pacing {
    let lanes = ["a", "b", "c", "nothing-held"].map(|job| frozen("", job).lane).into();
    let lately = Some((now.minus(Duration::from_secs(60)), 9));
    store.pacing(vec![PaceOf { receiver: oncall(), lately, lanes }], now).await.unwrap()
}

#[tokio::test]
async fn what_is_held_is_told_in_one_message_that_is_in_order_with_all_that_is_said_of_each_job_in_it() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let alerts = vec![told_by("alr_b", "b", "msg_b")];
    let all = vec![held("msg_a", "a", 20), held("msg_b", "b", 20), held("msg_c", "c", 90)];
    let first = Commit { held: all, alerts, ..commit(vec![frozen("msg_before", "a")]) };
    store.commit(first.clone()).await.unwrap();
    store.commit(first).await.unwrap();
    drop(store);
    let store = place.open().await.unwrap();
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
    store.gathered(vec![gathered.clone()], vec![], seconds(20)).await.unwrap();
    store.gathered(vec![gathered], vec![], seconds(20)).await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let all = ["a", "b", "c"].map(|job| held(&format!("msg_{job}"), job, 0));
    let one = all[0].data.to_string().len();
    store.commit(Commit { held: all.to_vec(), ..commit(vec![]) }).await.unwrap();
    let count = async |bytes: usize| store.held(&oncall(), START, 9, bytes).await.unwrap().len();
    assert_eq!([count(1).await, count(one).await, count(2 * one).await, count(9 * one).await], [1, 1, 2, 3]);
}

#[tokio::test]
async fn what_follows_a_message_that_is_tried_again_waits_for_it_and_keeps_no_digest_of_others_waiting() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let digest = Frozen { lane: Lane { source: None, subject: "digest/x".into() }, ..frozen("msg_digest", "") };
    let first = vec![held("msg_c", "c", 0), held("msg_d", "d", 0)];
    store.commit(Commit { held: first, ..commit(vec![frozen("msg_a", "a")]) }).await.unwrap();
    let numbers = store.held(&oncall(), START, 9, usize::MAX).await.unwrap().into_iter().map(|(n, _)| n).collect();
    store.gathered(vec![Gathered { frozen: digest, held: numbers, reserve: None }], vec![], START).await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    let alert = told_by("alr_a", "a", "msg_a");
    let both = vec![held("msg_a", "a", 0), held("msg_b", "b", 0)];
    store.commit(Commit { held: both, alerts: vec![alert.clone()], ..commit(vec![]) }).await.unwrap();
    let digest = Frozen { lane: Lane { source: None, subject: "digest/x".into() }, ..frozen("msg_digest", "") };
    let numbers = store.held(&oncall(), START, 9, usize::MAX).await.unwrap().into_iter().map(|(n, _)| n).collect();
    store.gathered(vec![Gathered { frozen: digest, held: numbers, reserve: None }], vec![], START).await.unwrap();
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
