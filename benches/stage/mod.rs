//! An agent in this process, with a simulated cloud and one receiver, as the benchmarks of deliveries set it up.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};

use jobwatch::agent::{Agent, Observer, Setup};
use jobwatch::clock::Clock;
use jobwatch::config::{self, Purpose};
use jobwatch::model::job::{Job, Status};
use jobwatch::simulator::{Scenario, Swr, serve};
use jobwatch::store::{self, Access};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The agent and its cloud. The state's directory goes with it.
pub(crate) struct Stage {
    pub(crate) agent: Arc<Agent>,
    pub(crate) swr: Swr,
    /// When the cloud last had an answer ready.
    pub(crate) answered: Arc<Mutex<Option<Instant>>>,
    _directory: TempDir,
}

/// An agent whose rule tells these receivers of every step; `receivers` are their tables.
pub(crate) async fn stage(notify: &[&str], receivers: &str, observer: Arc<dyn Observer>) -> Stage {
    stage_on("sqlite:s.db", notify, receivers, observer).await
}

/// The same on a state somewhere else.
pub(crate) async fn stage_on(state: &str, notify: &[&str], receivers: &str, observer: Arc<dyn Observer>) -> Stage {
    let scenario = Scenario::read("token = \"t\"\nproject_id = \"p\"\n", "bench".as_ref()).unwrap();
    let clock = Clock::system();
    let now = clock.clone();
    let swr = Swr::new(scenario, move || now.now());
    swr.set_jobs(Vec::new());
    let listener = bind().await;
    let cloud = listener.local_addr().unwrap();
    let answered = Arc::new(Mutex::new(None));
    let note = Arc::clone(&answered);
    let noted = from_fn(move |request: Request, next: Next| {
        let note = Arc::clone(&note);
        async move {
            let response = next.run(request).await;
            *note.lock().unwrap() = Some(Instant::now());
            response
        }
    });
    tokio::spawn(serve(listener, swr.router().layer(noted), std::future::pending()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobwatch.toml");
    let config = format!(
        "[agent]\nstate = \"{state}\"\nnotify = []\nallow_inline_secrets = true\n\
         requests_per_second = 100000\nrequests_per_second_per_host = 100000\n\
         [[source]]\nname = \"prod\"\nkind = \"swr\"\nendpoint = \"http://{cloud}\"\nproject_id = \"p\"\n\
         credentials = {{ kind = \"token\", token = \"t\" }}\npoll_every = \"100ms\"\n{receivers}"
    );
    std::fs::write(&path, config).unwrap();
    std::fs::create_dir(directory.path().join("rules")).unwrap();
    let rule = format!("schema = 1\n[[rule]]\nid = \"all\"\nwhen = {{ to = \"*\" }}\nnotify = {notify:?}\n");
    std::fs::write(directory.path().join("rules/all.toml"), rule).unwrap();
    let (config, report) = config::load(&path, Purpose::Run);
    assert!(!report.has_errors(), "{:?}", report.lines().collect::<Vec<_>>());
    let config = config.unwrap();
    let (rules, report) = config::rules(&config.rules, Some(&config.known));
    assert!(!report.has_errors(), "{:?}", report.lines().collect::<Vec<_>>());
    let store = store::open(&config.state, Access::Agent).await.unwrap();
    let agent = Agent::new(Setup {
        clock: store.time().await.unwrap().map_or(clock, Clock::steered),
        store,
        chance: || 0.5,
        sources: config.sources,
        receivers: config.receivers,
        follow_ups: Default::default(),
        rules,
        watch: config.watch,
        replica: Default::default(),
        retention: config.retention,
        observer,
        heartbeat: None,
    });
    Stage { agent, swr, answered, _directory: directory }
}

pub(crate) async fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

/// A job as the API writes it; `minute` is when it changed last.
pub(crate) fn job(n: usize, status: Status, minute: usize) -> Job {
    let text = |text: String| Some(text.into_boxed_str());
    Job {
        id: format!("36db69c5-b2d5-11eb-b044-{n:012}").into(),
        instance_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_id: text(format!("36ce7f50-b2d5-11eb-b044-{n:012}")),
        resource_name: text(format!("instance-{n}")),
        kind: text("CreateInstance".into()),
        reason: (status == Status::Failed).then(|| "failed to select cce cluster".into()),
        status,
        created_at: text("2021-05-12T03:50:38.305978Z".into()),
        updated_at: text(format!("2021-05-12T{:02}:{:02}:43.315473Z", 4 + minute / 60, minute % 60)),
    }
}
