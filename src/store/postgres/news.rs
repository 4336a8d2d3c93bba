//! What happens elsewhere, by LISTEN and NOTIFY. A message only wakes a loop that would have woken by itself: whatever is due
//! is read from the tables. A pooler that gives every transaction another connection lets none of them through.

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

use super::value::{Txt, values};
use super::{ANSWER_MAX, Fault, Postgres};
use crate::model::name::ReceiverName;
use crate::store::Error;
use crate::store::share::News;

/// A connection on which nothing is heard is tried this often.
const PING_EVERY: Duration = Duration::from_secs(15);
/// What one says oneself is heard within this time, or nothing is.
const ECHO_MAX: Duration = Duration::from_secs(5);

/// Something may be due for these receivers: said when the transaction ends.
pub(super) async fn due<'a>(client: &Client, receivers: impl IntoIterator<Item = &'a str>) -> Result<(), Fault> {
    let all: BTreeSet<&str> = receivers.into_iter().collect();
    if all.is_empty() {
        return Ok(());
    }
    let receivers: Vec<Txt<'_>> = all.into_iter().map(Txt).collect();
    client
        .query_typed(
            "SELECT pg_notify('jobwatch', 'due ' || receiver) FROM unnest($1::text[]) AS receiver",
            values![receivers],
        )
        .await?;
    Ok(())
}

/// `held`, `follow_up`, `leases`, `request`: said when the transaction ends.
pub(super) async fn say(client: &Client, what: &str) -> Result<(), Fault> {
    client.query_typed("SELECT pg_notify('jobwatch', $1)", values![Txt(what)]).await?;
    Ok(())
}

fn read(text: &str) -> Option<News> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("due", receiver) => Some(News::Due(ReceiverName::from(receiver))),
        ("held", _) => Some(News::Held),
        ("follow_up", _) => Some(News::FollowUp),
        ("leases", _) => Some(News::Leases),
        ("request", _) => Some(News::Request),
        ("echo", _) => Some(News::Begun),
        // A newer version says something that this one does not know.
        (_, _) => None,
    }
}

/// Listens until the connection breaks.
pub(super) async fn listen(store: &Postgres, tell: &(dyn Fn(News) + Send + Sync)) -> Result<(), Fault> {
    match store.target.tls() {
        Some(tls) => {
            let (client, connection) = store.target.config().connect(tls).await?;
            follow(store, client, connection, tell).await
        }
        None => {
            let (client, connection) = store.target.config().connect(NoTls).await?;
            follow(store, client, connection, tell).await
        }
    }
}

async fn follow<S, T>(
    store: &Postgres,
    client: Client,
    mut connection: Connection<S, T>,
    tell: &(dyn Fn(News) + Send + Sync),
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let echoed = tokio::sync::Notify::new();
    let mut heard = pin!(std::future::poll_fn(|context| {
        loop {
            match std::task::ready!(connection.poll_message(context)) {
                Some(Ok(AsyncMessage::Notification(said))) => {
                    let news = read(said.payload());
                    if news == Some(News::Begun) {
                        echoed.notify_one();
                    }
                    news.into_iter().for_each(tell);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Fault::from(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
    }));
    let begin = async {
        client.batch_execute("LISTEN jobwatch").await?;
        // By another connection, as others will: a pooler that is idle may give this one the same session twice.
        store.read("echo", |client, what| Box::pin(say(client, what))).await.map_err(Fault::Said)?;
        let echo = tokio::time::timeout(ECHO_MAX, echoed.notified()).await;
        echo.map_err(|_| Fault::Said(Error::Failed("what the database says to all does not come through: a pooler in between gives every transaction another connection. What others did is found by looking, within seconds".into())))
    };
    tokio::select! {
        ended = &mut heard => return ended,
        begun = tokio::time::timeout(ANSWER_MAX, begin) => begun.unwrap_or_else(|_| Err(silent()))?,
    }
    loop {
        let ping = async {
            tokio::time::sleep(PING_EVERY).await;
            match tokio::time::timeout(ANSWER_MAX, client.batch_execute("SELECT 1")).await {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(silent()),
            }
        };
        tokio::select! {
            ended = &mut heard => return ended,
            ping = ping => ping?,
        }
    }
}

fn silent() -> Fault {
    Fault::Said(Error::Failed("the database does not answer whoever listens".into()))
}
