//! What every Huawei Cloud service has in common: who we are there, how a request is signed, how an error looks.
//!
//! [`Api`] makes one request for a caller and does with the answer what has nothing to do with its content: it proves who
//! asks, keeps to the budget, corrects the clock, renews a credential once and lets a refused one rest. What sources
//! share (credentials, connections, hosts) is in their [`Pool`].

mod api;
pub(crate) mod credential;
pub mod error;
mod guard;
mod host;
mod iam;
mod metadata;
pub mod region;
pub mod sign;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

pub use api::{Api, Call, Project};
pub use credential::Credential;

use crate::clock::Clock;
use crate::http::{Client, Egress, Error, Options, Proxy, Url};
use guard::Guard;
use host::{Budget, Host};

/// A page of 100 jobs is some 34 kB; this leaves room for reasons of a hundred kB each.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Requests a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To all hosts together.
    pub per_second: u32,
    /// To one host. The gateway's guide states 200 a second for one API.
    pub per_host: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_second: 400, per_host: 200 }
    }
}

/// How requests get there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    /// The longest a request may take.
    pub(crate) timeout: Duration,
    /// Certificates to trust.
    pub(crate) ca: Option<&'a [u8]>,
    /// What they go through.
    pub(crate) proxy: Option<&'a Proxy>,
}

/// What the sources of one process share.
pub struct Pool {
    clock: Clock,
    limits: Limits,
    whole: Arc<Budget>,
    clients: Mutex<HashMap<String, Client>>,
    credentials: Mutex<HashMap<String, Arc<Credential>>>,
    guards: Mutex<HashMap<String, Arc<Guard>>>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty one.
    pub fn new(clock: Clock, limits: Limits) -> Self {
        Self {
            clock,
            limits,
            whole: Arc::new(Budget::new(limits.per_second)),
            clients: Mutex::default(),
            credentials: Mutex::default(),
            guards: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// A client for this route; the same one for the same.
    fn client(&self, route: Route<'_>) -> Result<Client, Error> {
        let Route { timeout, ca, proxy } = route;
        let through = proxy.map(Proxy::identity).unwrap_or_default();
        let ca_text = String::from_utf8_lossy(ca.unwrap_or_default());
        let key = fingerprint(&[&timeout.as_millis().to_string(), &ca_text, through.expose_secret()]);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = Client::new(Options {
            timeout,
            body_max: BODY_BYTES_MAX,
            // Where it connects is the operator's own word.
            egress: Egress::anywhere(),
            proxy: proxy.cloned(),
            ca: ca.map(<[u8]>::to_vec),
            gzip: true,
            http2: true,
        })?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn host(&self, url: &Url) -> Arc<Host> {
        let name = authority(url);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(name.clone());
        Arc::clone(host.or_insert_with(|| Arc::new(Host::new(&name, &self.whole, self.limits.per_host))))
    }

    /// The guard of everything that names itself like this.
    fn guard(&self, name: &str) -> Arc<Guard> {
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(guards.entry(name.to_owned()).or_insert_with(|| Arc::new(Guard::new())))
    }

    /// The credential with this fingerprint, or a new one.
    fn credential(&self, key: String, make: impl FnOnce(String) -> Credential) -> Arc<Credential> {
        let mut credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(credentials.entry(key.clone()).or_insert_with(|| Arc::new(make(key))))
    }
}

/// Host and port as the `Host` header has them.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What tells texts apart without keeping them: some are secrets.
fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}
