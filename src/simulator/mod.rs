//! The cloud in a box, and two who listen: what the demo, `simulate` and the tests share. All of it answers on loopback.
//!
//! [`Scenario`] is a story told in TOML; [`Swr`] answers the SWR API from it, with faults on demand; [`Inbox`] is a
//! webhook receiver and [`Mailbox`] a mail server that keep what they are sent.

mod api;
mod fault;
mod identity;
mod inbox;
mod mailbox;
mod scenario;

use std::future::Future;

use axum::Router;
use tokio::net::TcpListener;

pub use api::Swr;
pub use fault::Fault;
pub use identity::Accounts;
pub use inbox::{Inbox, Received};
pub use mailbox::{Mail, Mailbox};
pub use scenario::Scenario;

/// Serves until `stop` is done; connections that are open then are closed.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    tokio::select! {
        // The only error is one of the listener's, and a listener on loopback has none.
        ended = axum::serve(listener, router).into_future() => drop(ended),
        () = stop => {}
    }
}
