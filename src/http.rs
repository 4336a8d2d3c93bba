//! One HTTP client for every edge: bounded in time and bytes, no redirects, no proxy from the environment, and no
//! connection to an address that the operator did not mean.

pub mod certificate;
mod proxy;

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};
use std::time::Duration;

use ipnet::IpNet;
pub use proxy::{Proxy, is_loopback};
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
/// How long this machine may take to say what a name is that a proxy resolves: it need not know.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// What all requests go through.
    pub proxy: Option<Proxy>,
    /// Certificates (PEM) to trust instead of the system's; a proxy's that is spoken to over TLS too.
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
    proxy: Option<Arc<Proxy>>,
    /// How long names are looked up that the proxy resolves.
    lookup: Duration,
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
    /// The proxy wants to know who asks, and somebody has to tell it.
    #[error("{0}")]
    Unwelcome(String),
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
        // The proxy is where the operator says; what it is asked for is judged before.
        let dialled = if options.proxy.is_some() { Arc::new(Egress::anywhere()) } else { Arc::clone(&egress) };
        let lookup = match options.proxy.is_some() && !egress.anywhere {
            true => LOOKUP_TIMEOUT.min(options.timeout / 4),
            false => Duration::ZERO,
        };
        let timeout = options.timeout.saturating_sub(lookup);
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .gzip(options.gzip)
            .tls_info(true)
            .dns_resolver(Arc::new(Resolver(dialled)));
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(proxy.rule().map_err(|error| broken(&error))?);
        }
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
        Ok(Self { inner, body_max: options.body_max, egress, proxy: options.proxy.map(Arc::new), lookup })
    }

    /// What all requests go through.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_deref()
    }

    /// Takes what is secret about the proxy out of a text that came through it.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.proxy().into_iter().flat_map(Proxy::secrets);
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
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
        if self.proxy.is_some() {
            self.egress.check_name(request.url(), self.lookup).await?;
        }
        // In the clear the proxy itself answers; what comes out of a tunnel is the target's.
        let direct = self.proxy().filter(|_| request.url().scheme() == "http");
        let mut response = self.inner.execute(request).await.map_err(|error| self.sort(&error))?;
        if let Some(proxy) = direct.filter(|_| response.status().as_u16() == 407) {
            return Err(Error::Unwelcome(proxy.unwelcome()));
        }
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
                Err(error) => return Err(self.sort(&error)),
            }
        }
        Ok(Answer { status, headers, body })
    }

    /// Whether anybody answers at the host of this URL, whatever it says: the certificate it showed, if it showed one. The path, which
    /// may be a secret and may do something, is left out.
    ///
    /// # Errors
    /// Nobody does, or not in a way that can be trusted.
    pub async fn reach(&self, url: &Url) -> Result<Option<Vec<u8>>, Error> {
        let mut origin = url.clone();
        origin.set_path("/");
        origin.set_query(None);
        self.egress.check_url(&origin)?;
        if self.proxy.is_some() {
            self.egress.check_name(&origin, self.lookup).await?;
        }
        let response = self.request(Method::HEAD, origin).send().await.map_err(|error| self.sort(&error))?;
        let shown = response.extensions().get::<reqwest::tls::TlsInfo>();
        Ok(shown.and_then(|shown| shown.peer_certificate()).map(<[u8]>::to_vec))
    }

    fn sort(&self, error: &reqwest::Error) -> Error {
        if let Some(Forbidden(name)) = causes(error).find_map(|cause| cause.downcast_ref()) {
            return Error::Forbidden(name.clone());
        }
        match self.proxy() {
            Some(proxy) => through(proxy, error),
            None if error.is_timeout() => Error::Timeout,
            None => broken(error),
        }
    }
}

/// Why nothing came back through a proxy. The library has no type for what the proxy answers, only words.
fn through(proxy: &Proxy, error: &reqwest::Error) -> Error {
    let said = |words: &str| causes(error).any(|cause| cause.to_string() == words);
    if said("tunnel error: proxy authorization required") {
        return Error::Unwelcome(proxy.unwelcome());
    }
    let why = if said("tunnel error: unsuccessful") {
        "it makes no connection to the target: it cannot reach it, or does not allow it".to_owned()
    } else if error.is_timeout() {
        Error::Timeout.to_string()
    } else {
        broken(error).to_string()
    };
    Error::Broken(format!("through the proxy {proxy}: {why}"))
}

/// An error and what caused it, from outside to inside.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// The innermost causes say what happened; the outermost of reqwest's says "error sending request for url (…)".
fn broken(error: &reqwest::Error) -> Error {
    let mut texts = Vec::new();
    for text in causes(error).skip(1).map(ToString::to_string) {
        if !texts.iter().any(|known: &String| known.contains(&text)) {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        texts.push("the request could not be made".into());
    }
    Error::Broken(texts.join(": "))
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
        match literal(url) {
            Some(address) if !self.permits(address) => Err(Error::Forbidden(address.to_string())),
            Some(_) | None => Ok(()),
        }
    }

    /// Judges a URL whose host is a name that a proxy will resolve, by what it is to this machine. That keeps mistakes
    /// away, not somebody who answers the proxy otherwise: what the proxy connects to is the proxy's to decide. A name that
    /// nobody knows here, or not within `patience`, passes: behind a proxy that is usual.
    async fn check_name(&self, url: &Url, patience: Duration) -> Result<(), Error> {
        let host = url.host_str().unwrap_or_default();
        if self.anywhere || literal(url).is_some() {
            return Ok(());
        }
        match tokio::time::timeout(patience, tokio::net::lookup_host((host, 0))).await {
            Ok(Ok(found)) => self.choose(host, found).map(drop).map_err(|Forbidden(name)| Error::Forbidden(name)),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Of a name's addresses, those that are allowed.
    fn choose(&self, name: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Forbidden> {
        let found: Vec<SocketAddr> = found.collect();
        let allowed: Vec<_> = found.iter().copied().filter(|at| self.permits(at.ip())).take(ADDRESSES_MAX).collect();
        match found.first() {
            Some(first) if allowed.is_empty() => Err(Forbidden(format!("{name} ({})", first.ip()))),
            Some(_) | None => Ok(allowed),
        }
    }
}

/// The host, if it is an address.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
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
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = egress.choose(name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

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
    fn of_a_names_addresses_those_are_chosen_that_are_allowed_and_a_name_without_any_is_refused() {
        let egress = Egress::public(vec!["10.1.0.0/16".parse().unwrap()]);
        let choose = |all: &[&str]| {
            let found = all.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0));
            egress.choose("name", found).map(|chosen| chosen.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>())
        };
        let chosen = choose(&["64:ff9b::5db8:d822", "93.184.216.34", "10.2.0.1", "10.1.2.3"]).unwrap();
        assert_eq!(chosen, ["93.184.216.34", "10.1.2.3"]);
        assert_eq!(choose(&["10.2.0.1", "::1"]).unwrap_err().0, "name (10.2.0.1)");
        assert_eq!(choose(&[]).unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn a_listed_network_is_allowed_and_its_neighbour_is_not() {
        let egress = Egress::public(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(egress.permits("10.1.2.3".parse().unwrap()));
        assert!(egress.permits("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!egress.permits("10.2.0.1".parse().unwrap()));
    }
}
