//! Who may look at a state, and what is asked of the agent that holds it.

use jobwatch::store::{self, Error, Filter};

use super::Place;
use crate::world::{commit, frozen, seconds};

#[tokio::test]
async fn a_visitor_makes_no_state_and_sees_what_the_agent_wrote() {
    let place = Place::new().await;
    assert!(matches!(place.visit().await, Err(Error::Missing(_))));
    assert!(place.is_untouched().await);
    let agent = place.open().await.unwrap();
    agent.commit(commit(vec![frozen("msg_1", "a")])).await.unwrap();
    let visitor = place.visit().await.unwrap();
    assert_eq!(visitor.deliveries(Filter { limit: 9, ..Filter::default() }).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_request_is_answered_once_and_found_by_no_agent_that_comes_too_late() {
    let place = Place::new().await;
    let store = place.open().await.unwrap();
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
