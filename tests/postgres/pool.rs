//! PgBouncer as many run it: a connection to it is no session, every transaction may meet another one.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::{Cluster, Owner, PASSWORD, ROLE, Server, TRIES, Undertaker, free_port, quick_place};

const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// Sessions for all: fewer than connections, so that these must share them, and each turn is another's.
const SESSIONS: u32 = 3;

/// A running PgBouncer before a [`Cluster`], in transaction mode. It ends when it is dropped, as the server does.
#[derive(Debug)]
pub(crate) struct Pool {
    port: u16,
    server: Option<Server>,
    log: Arc<Mutex<String>>,
    // The last field: it goes when the server does.
    #[expect(dead_code, reason = "it is there to be dropped")]
    undertaker: Undertaker,
}

impl Pool {
    pub(crate) async fn before(cluster: &Cluster) -> Self {
        let owner = Owner::who();
        let (directory, undertaker) = Undertaker::of(&quick_place(), owner, "pgbouncer.pid");
        let data = directory.join("data");
        fs::create_dir(&data).unwrap();
        owner.gets(&data);
        owner.keeps(&data.join("users"), &format!("\"{ROLE}\" \"{PASSWORD}\"\n"));
        let mut pool = Self { port: 0, server: None, log: Arc::default(), undertaker };
        for _ in 0..TRIES {
            pool.port = free_port();
            owner.keeps(&data.join("pgbouncer.ini"), &settings(&data, pool.port, cluster.address()));
            let mut command = owner.runs(Path::new(PROGRAM));
            command.arg("pgbouncer.ini").current_dir(&data);
            pool.server = Server::start(command, "process up: PgBouncer", &pool.log).await;
            if pool.server.is_some() {
                return pool;
            }
        }
        panic!("no PgBouncer could be started (apt-get install pgbouncer):\n{}", pool.log());
    }

    /// For [`Cluster::url_at`].
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Ends it with every connection through it.
    pub(crate) async fn stop(mut self) {
        self.server.take().expect("it runs").end(Signal::TERM).await;
    }
}

fn settings(data: &Path, port: u16, server: SocketAddr) -> String {
    format!(
        "[databases]\n* = host={} port={}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npidfile = {}\n\
         auth_type = scram-sha-256\nauth_file = users\n\
         pool_mode = transaction\ndefault_pool_size = {SESSIONS}\nserver_round_robin = 1\nmax_client_conn = 200\n",
        server.ip(),
        server.port(),
        data.join("pgbouncer.pid").display(),
    )
}
