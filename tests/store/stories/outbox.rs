//! What is owed: claimed in order, recorded once, never lost.

use std::time::Duration;

use jobwatch::model::delivery::{DeliveryState, Frozen, Outcome, Reserve, Verdict};
use jobwatch::model::name::{DeliveryId, ReceiverName};
use jobwatch::store::{Again, Commit, Dropped, Filter, Record, Trouble, Wanted};

use super::Place;
use crate::world::{START, accepted, claim, commit, frozen, held, ids, kept, oncall, prod, record, seconds, told_by};

#[tokio::test]
async fn a_delivery_that_is_decided_twice_is_owed_once() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    assert_eq!(store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap(), 1);
    assert_eq!(store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b")])).await.unwrap(), 1);
    assert_eq!(ids(&claim(&*store, 0, 9).await), ["msg_1", "msg_2"]);
}

#[tokio::test]
async fn a_lane_is_served_in_order_and_lanes_do_not_wait_for_each_other() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let yesterday = START.minus(Duration::from_secs(86_400));
    let claims = store.claim(&oncall(), yesterday, yesterday.plus(Duration::from_secs(60)), 9).await.unwrap();
    assert_eq!(ids(&claims), ["msg_1"], "it was decided in what is now the future");
}

#[tokio::test]
async fn a_claim_that_lapsed_is_taken_by_the_next_and_its_record_is_refused() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    store.release(claim(&*store, 0, 1).await).await.unwrap();
    let again = claim(&*store, 0, 1).await;
    assert_eq!((ids(&again), again[0].tries), (vec!["msg_1"], 0));
}

#[tokio::test]
async fn a_dead_delivery_is_kept_shown_and_replayed_under_its_id_with_a_fresh_budget() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
    store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b"), frozen("msg_3", "c")])).await.unwrap();
    let mut claims = claim(&*store, 0, 9).await;
    claims[1].token += 1;
    let all = claims.into_iter().map(|claimed| record(claimed, accepted(), Verdict::Delivered)).collect();
    assert_eq!(store.record(all).await.unwrap(), [true, false, true]);
    assert_eq!(store.waiting().await.unwrap(), [(oncall(), 1)]);
}

#[tokio::test]
async fn nothing_is_claimed_for_a_receiver_that_retired_until_it_is_opened_with_all_its_time_before_it() {
    let place = Place::new().await;
    let retired = || Outcome::Retired { why: "HTTP 410".into() };
    let trouble = Trouble { retired: true, held_since: Some(seconds(0)), ..Trouble::default() };
    let open_and_hold = async || {
        let store = place.open().await.unwrap();
        let first = claim(&*store, 700, 1).await.remove(0);
        kept(&*store, Record { trouble, ..record(first, retired(), Verdict::Held) }).await.unwrap();
        store
    };
    {
        let store = place.open().await.unwrap();
        store.commit(commit(vec![frozen("msg_1", "a"), frozen("msg_2", "b")])).await.unwrap();
    }
    drop(open_and_hold().await);
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
async fn a_message_that_was_given_up_told_nobody_so_that_no_cooldown_counts_from_it() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
