//! One HTTP client for every edge: bounded in time and bytes, no redirects, no proxy from the environment, and no
//! connection to an address that the operator did not mean.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
pub use reqwest::{Method, Url};

/// What the far end sees as our name.
pub const USER_AGENT: &str = concat!("jobwatch/", env!("CARGO_PKG_VERSION"));

/// How long to wait for a connection, TLS included; what remains of the timeout is for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Idle connections that are kept for one host.
const IDLE_MAX: usize = 32;
/// More addresses of one name than this are not tried.
const ADDRESSES_MAX: usize = 16;

/// Makes ring the process's TLS provider. Every maker of a TLS client calls it; only the first call does something.
pub fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A provider installed by somebody else serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest a request may take, from connecting to the last byte.
    pub timeout: Duration,
    /// The largest answer that is read, after decompression; more is an error or is cut, as the caller asks.
    pub body_max: usize,
    /// Where connections may go.
    pub egress: Egress,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Whether compressed answers are asked for.
    pub gzip: bool,
    /// Whether HTTP/2 is spoken where it is offered.
    pub http2: bool,
}

/// A client. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    body_max: usize,
    egress: Arc<Egress>,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers; names in lower case.
    pub headers: reqwest::header::HeaderMap,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, if it is there and printable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What to do when an answer is longer than [`Options::body_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlong {
    /// The request has failed.
    Fail,
    /// The beginning is enough.
    Cut,
}

/// Why there is no answer. The text never holds the URL: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is not one the operator allowed.
    #[error("{0} is a loopback, private or otherwise special address: list it in `allow_targets` if it is meant")]
    Forbidden(String),
    /// The time is up.
    #[error("no answer in time")]
    Timeout,
    /// The answer is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    Overlong(usize),
    /// Connecting, TLS, or the exchange itself failed.
    #[error("{0}")]
    Broken(String),
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(options: Options) -> Result<Self, Error> {
        use_ring();
        let egress = Arc::new(options.egress);
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(options.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .gzip(options.gzip)
            .dns_resolver(Arc::new(Resolver(Arc::clone(&egress))));
        if options.http2 {
            // A connection that died unnoticed is found out before the request's own timeout.
            builder =
                builder.http2_keep_alive_interval(Duration::from_secs(20)).http2_keep_alive_timeout(CONNECT_TIMEOUT);
        } else {
            builder = builder.http1_only();
        }
        if let Some(pem) = &options.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| broken(&error))?;
            builder = builder.tls_certs_only(certificates);
        }
        let inner = builder.build().map_err(|error| broken(&error))?;
        Ok(Self { inner, body_max: options.body_max, egress })
    }

    /// A request to be filled in and handed to [`Client::send`].
    pub fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        self.inner.request(method, url)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// There was no whole answer; see [`Error`].
    pub async fn send(&self, request: reqwest::RequestBuilder, overlong: Overlong) -> Result<Answer, Error> {
        let request = request.build().map_err(|error| broken(&error))?;
        self.egress.check_url(request.url())?;
        let mut response = self.inner.execute(request).await.map_err(|error| sort(&error))?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= self.body_max => body.extend_from_slice(&chunk),
                Ok(Some(chunk)) => match overlong {
                    Overlong::Fail => return Err(Error::Overlong(self.body_max)),
                    Overlong::Cut => {
                        let room = self.body_max - body.len();
                        body.extend_from_slice(&chunk[..room]);
                        break;
                    }
                },
                Ok(None) => break,
                // What was asked for has been done; the rest of the answer is only for people to read.
                Err(_) if overlong == Overlong::Cut => break,
                Err(error) => return Err(sort(&error)),
            }
        }
        Ok(Answer { status, headers, body })
    }
}

fn sort(error: &reqwest::Error) -> Error {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(Forbidden(name)) = cause.downcast_ref() {
            return Error::Forbidden(name.clone());
        }
        source = cause.source();
    }
    if error.is_timeout() { Error::Timeout } else { broken(error) }
}

/// The innermost causes say what happened; the outermost of reqwest's says "error sending request for url (…)".
fn broken(error: &reqwest::Error) -> Error {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !causes.iter().any(|known: &String| known.contains(&text)) {
            causes.push(text);
        }
        source = cause.source();
    }
    if causes.is_empty() {
        causes.push("the request could not be made".into());
    }
    Error::Broken(causes.join(": "))
}

/// Where connections may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    anywhere: bool,
    allowed: Vec<IpNet>,
}

impl Egress {
    /// To every address: for targets that only the operator's own configuration names.
    pub fn anywhere() -> Self {
        Self { anywhere: true, allowed: Vec::new() }
    }

    /// To public addresses, and to those in `allowed`.
    pub fn public(allowed: Vec<IpNet>) -> Self {
        Self { anywhere: false, allowed }
    }

    /// Whether a connection to this address is allowed. IPv4 addresses written as IPv6 are judged as IPv4.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.anywhere || self.allowed.iter().any(|net| net.contains(&address)) || !is_special(address)
    }

    /// Judges a URL whose host is an address. Names are judged when they are resolved.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check_url(&self, url: &Url) -> Result<(), Error> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if !self.permits(address) => Err(Error::Forbidden(address.to_string())),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Networks that are no place on the public internet: IANA's special-purpose registries, IPv4 and IPv6, plus multicast.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

fn is_special(address: IpAddr) -> bool {
    SPECIAL.iter().any(|net| net.parse::<IpNet>().expect("the table holds networks").contains(&address))
}

#[derive(Debug)]
struct Forbidden(String);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allowed", self.0)
    }
}

impl StdError for Forbidden {}

/// Resolves a name and drops the addresses that are not allowed. The connection is made to what this returns, so a
/// name that answers differently the second time gains nothing.
struct Resolver(Arc<Egress>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> =
                found.iter().copied().filter(|at| egress.permits(at.ip())).take(ADDRESSES_MAX).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Forbidden(format!("{} ({})", name.as_str(), found[0].ip())).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Egress, Url};

    #[test]
    fn an_address_that_is_not_public_is_refused_however_it_is_written() {
        let egress = Egress::default();
        let hosts = [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::]",
            "0.0.0.0",
            "169.254.169.254",
            "[fd00:ec2::254]",
            "10.1.2.3",
            "192.168.0.1",
            "172.31.0.1",
            "100.64.0.1",
            "[fe80::1]",
            "[64:ff9b::7f00:1]",
            "255.255.255.255",
        ];
        for host in hosts {
            let url = Url::parse(&format!("https://{host}/hook")).unwrap();
            assert!(egress.check_url(&url).is_err(), "{host} must be refused");
        }
        for host in ["93.184.216.34", "[2606:2800:220:1::1]", "hooks.example.com"] {
            let url = Url::parse(&format!("https://{host}/hook")).unwrap();
            assert!(egress.check_url(&url).is_ok(), "{host} is public");
        }
    }

    #[test]
    fn a_listed_network_is_allowed_and_its_neighbour_is_not() {
        let egress = Egress::public(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(egress.permits("10.1.2.3".parse().unwrap()));
        assert!(egress.permits("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!egress.permits("10.2.0.1".parse().unwrap()));
    }
}
