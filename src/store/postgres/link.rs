//! Connections to PostgreSQL: what a URL says, how they are made, and how many there are.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::ExposeSecret as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{Error, Place};

/// A connection is made within this time, or is not.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A connection of the pool is waited for no longer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// What was sent and not acknowledged for so long was sent to a host that is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What a URL says.
pub(super) struct Target {
    config: Config,
    tls: Option<ClientConfig>,
    /// Without anything secret.
    pub(super) shown: String,
}

impl Target {
    /// Reads the URL.
    pub(super) fn read(place: &Place) -> Result<Self, Error> {
        Self::parse(place).map_err(|why| Error::Unusable(format!("[agent] state: {why}")))
    }

    /// The same, in words that stand beside the URL.
    pub(in crate::store) fn parse(place: &Place) -> Result<Self, String> {
        let (address, settings) = place.url.split_once('?').unwrap_or((&place.url, ""));
        let (mut mode, mut root, mut others) = (None, None, Vec::new());
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value.to_owned()),
                Some(("sslrootcert", value)) => {
                    root = Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
                }
                _ => others.push(setting),
            }
        }
        let url = match others.is_empty() {
            true => address.to_owned(),
            false => format!("{address}?{}", others.join("&")),
        };
        // The error of the library may repeat what it could not read.
        let mut config = Config::from_str(&url)
            .map_err(|_| "this is no postgres URL: postgres://USER@HOST:PORT/DATABASE".to_owned())?;
        if let Some(password) = &place.password {
            config.password(password.expose_secret());
        }
        let near = config.get_hosts().iter().all(is_near);
        let tls = match mode.as_deref() {
            Some("disable") => None,
            None if near => None,
            Some("verify-full") | None => Some(tls(root.as_deref())?),
            Some(other) => {
                return Err(format!(
                    "sslmode={other} does not prove who the database is: verify-full (with sslrootcert=PATH for an authority of your own), or disable where nobody else is on the way"
                ));
            }
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(CONNECT_MAX).keepalives_idle(SILENCE_MAX).tcp_user_timeout(SILENCE_MAX);
        config.application_name("jobwatch");
        let shown = shown(&config);
        Ok(Self { config, tls, shown })
    }

    /// A pool of as many connections, none of which is made before it is needed.
    pub(super) fn pool(&self, connections: usize) -> Result<Pool, Error> {
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &self.tls {
            Some(tls) => Manager::from_config(self.config.clone(), MakeRustlsConnect::new(tls.clone()), how),
            None => Manager::from_config(self.config.clone(), NoTls, how),
        };
        let pool = Pool::builder(manager)
            .max_size(connections.max(2))
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(CONNECT_MAX))
            .recycle_timeout(Some(CONNECT_MAX))
            .runtime(Runtime::Tokio1);
        pool.build().map_err(|error| Error::Failed(error.to_string()))
    }

    /// Whether what goes there stays on this host.
    pub(super) fn is_near(&self) -> bool {
        self.config.get_hosts().iter().all(is_near)
    }

    /// For a connection of one's own.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tls(&self) -> Option<MakeRustlsConnect> {
        self.tls.clone().map(MakeRustlsConnect::new)
    }
}

/// Whether what goes there leaves this host.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

fn shown(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".into(),
    };
    let port = config.get_ports().first().map_or(String::new(), |port| format!(":{port}"));
    format!("postgres://{host}{port}/{}", config.get_dbname().or(config.get_user()).unwrap_or_default())
}

fn tls(root: Option<&str>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match root {
        None => builder.with_platform_verifier().map_err(|error| error.to_string())?,
        Some(path) => builder.with_root_certificates(roots(Path::new(path))?),
    };
    Ok(builder.with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| format!("sslrootcert {}: {error}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("sslrootcert {}: {error}", path.display()))?;
        roots.add(certificate).map_err(|error| format!("sslrootcert {}: {error}", path.display()))?;
    }
    match roots.is_empty() {
        true => Err(format!("sslrootcert {} has no certificate in it", path.display())),
        false => Ok(roots),
    }
}

/// A connection on loan. One that is not given back expressly is closed: nobody knows what it was in the middle of.
pub(super) struct Loan(Option<Object>);

impl Loan {
    pub(super) fn new(object: Object) -> Self {
        Self(Some(object))
    }

    pub(super) fn client(&self) -> &tokio_postgres::Client {
        self.0.as_ref().expect("it is there until it is given back")
    }

    /// It can be used again.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
