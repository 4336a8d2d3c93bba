//! The cloud: a project for each source, at an address of its own for each replica, so that the cloud knows who polls.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use jobwatch::clock::{Clock, Stopwatch};
use jobwatch::simulator::{Scenario, Swr, serve};

use super::oracle::Poll;
use super::story::Story;
use super::{TOKEN, beside, bind};

/// A project with larger pages than this gives them all the same.
const PAGES: [usize; 3] = [100, 20, 7];

pub(crate) struct Cloud {
    /// Of each replica, where it finds each source.
    pub(crate) addresses: Vec<Vec<SocketAddr>>,
    polls: Arc<Mutex<Vec<Poll>>>,
    /// Which process of each replica polls.
    processes: Arc<Vec<AtomicU32>>,
}

impl Cloud {
    /// The story begins when the stopwatch did.
    pub(crate) async fn of(story: &Story, replicas: usize, watch: Stopwatch) -> Self {
        let start = Clock::system().now().minus(watch.elapsed());
        let polls: Arc<Mutex<Vec<Poll>>> = Arc::default();
        let processes: Arc<Vec<AtomicU32>> = Arc::new((0..replicas).map(|_| AtomicU32::new(0)).collect());
        let mut addresses = vec![Vec::new(); replicas];
        for (number, source) in story.sources.iter().enumerate() {
            let text = story.scenario(source, TOKEN, PAGES[number % PAGES.len()]);
            let scenario = Scenario::read(&text, Path::new(source)).unwrap();
            let swr = Swr::new(scenario, move || start.plus(watch.elapsed()));
            for (replica, addresses) in addresses.iter_mut().enumerate() {
                let (polls, processes) = (Arc::clone(&polls), Arc::clone(&processes));
                let router = swr.router().layer(from_fn(move |request: Request, next: Next| {
                    if is_first(&request) {
                        let who = (replica, processes[replica].load(Ordering::SeqCst));
                        let mut polls = polls.lock().unwrap();
                        polls.push(Poll { at: watch.elapsed(), source: number, who });
                    }
                    next.run(request)
                }));
                let (listener, address) = bind().await;
                beside(serve(listener, router, std::future::pending()));
                addresses.push(address);
            }
        }
        Self { addresses, polls, processes }
    }

    /// Another process of a replica begins.
    pub(crate) fn renewed(&self, replica: usize) {
        self.processes[replica].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn process(&self, replica: usize) -> u32 {
        self.processes[replica].load(Ordering::SeqCst)
    }

    pub(crate) fn polls(&self) -> Vec<Poll> {
        self.polls.lock().unwrap().clone()
    }

    /// The sources that a replica polls: those where the last poll was its own.
    pub(crate) fn held_by(&self, replica: usize) -> Vec<usize> {
        let polls = self.polls.lock().unwrap();
        let last = |source: &usize| {
            polls.iter().rfind(|poll| poll.source == *source).is_some_and(|poll| poll.who.0 == replica)
        };
        let sources = polls.iter().map(|poll| poll.source + 1).max().unwrap_or(0);
        (0..sources).filter(last).collect()
    }

    /// Whether any of them has begun a poll after a moment.
    pub(crate) fn is_polled_by(&self, whom: &[usize], after: Duration) -> bool {
        let polls = self.polls.lock().unwrap();
        polls.iter().rev().take_while(|poll| poll.at > after).any(|poll| whom.contains(&poll.who.0))
    }

    /// The first poll of a source after a moment by somebody of whom this is true.
    pub(crate) fn first(&self, source: usize, after: Duration, of: impl Fn(&Poll) -> bool) -> Option<Duration> {
        let polls = self.polls.lock().unwrap();
        polls.iter().find(|poll| poll.source == source && poll.at > after && of(poll)).map(|poll| poll.at)
    }
}

/// Whether a request begins a poll: the first page of a whole listing, or of the first status of a brief one.
fn is_first(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let value = |key: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
    };
    request.uri().path().ends_with("/jobs")
        && value("offset").is_none_or(|offset| offset == "0")
        && value("status").is_none_or(|status| status == "Creating")
}
