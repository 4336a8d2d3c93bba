//! Webhooks over real TLS.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use jobwatch::clock::Clock;

use crate::world::{World, beside, bind, failed, said, soon};

/// A certificate for `localhost` that only who is given it trusts, and its key.
pub(crate) fn certificate() -> (String, String) {
    certificate_for("localhost")
}

/// A certificate for this name.
pub(crate) fn certificate_for(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Who shows this certificate.
pub(crate) fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    jobwatch::http::use_ring();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// An HTTPS server that answers 204 and tells what it was sent.
pub(crate) async fn server(certificate: &str, key: &str) -> (u16, mpsc::UnboundedReceiver<String>) {
    let acceptor = acceptor(certificate, key);
    let (listener, address) = bind().await;
    let (tell, told) = mpsc::unbounded_channel();
    beside(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 16 << 10];
            let length = stream.read(&mut request).await.unwrap_or(0);
            drop(tell.send(String::from_utf8_lossy(&request[..length]).into_owned()));
            drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await);
            drop(stream.shutdown().await);
        }
    });
    (address.port(), told)
}

async fn world(host: &str, port: u16, ca: &str) -> World {
    let world = World::new().await;
    world.write("ca.pem", ca);
    world.write("url", &format!("https://{host}:{port}/hook"));
    world.write("jobwatch.toml", &world.config("poll_every = \"100ms\"", "ca_file = \"ca.pem\""));
    world
}

#[tokio::test]
async fn a_webhook_over_tls_reaches_a_server_whose_certificate_is_trusted() {
    let (certificate, key) = certificate();
    let (port, mut told) = server(&certificate, &key).await;
    let world = world("localhost", port, &certificate).await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let request = soon("the request", told.recv()).await.unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    service.logged("delivered").await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_accepted() {
    let (certificate, key) = certificate();
    let (port, mut told) = server(&certificate, &key).await;
    let world = world("localhost", port, &self::certificate().0).await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("not delivered").await;
    assert!(line.contains("certificate"), "{line}");
    assert!(told.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_accepted() {
    let (certificate, key) = certificate();
    let (port, mut told) = server(&certificate, &key).await;
    let world = world("127.0.0.1", port, &certificate).await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("not delivered").await;
    assert!(line.contains("not valid for name"), "{line}");
    assert!(told.try_recv().is_err(), "nothing was sent");
}

/// A certificate for `localhost` that ends in so many days, and its key.
fn certificate_until(days: u64) -> (String, String) {
    let end = Clock::system().now().plus(std::time::Duration::from_secs(days * 86_400)).to_string();
    let number = |range: std::ops::Range<usize>| end[range].parse::<u16>().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let (month, day) = (u8::try_from(number(5..7)).unwrap(), u8::try_from(number(8..10)).unwrap());
    parameters.not_after = rcgen::date_time_ymd(number(0..4).into(), month, day);
    let key = rcgen::KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn doctor_says_how_long_a_certificate_is_good_and_asks_for_nothing_but_the_host() {
    for (days, line) in
        [(90, "ok    receiver oncall: tls: the certificate is good for "), (9, "warn  receiver oncall: tls: ")]
    {
        let (certificate, key) = certificate_until(days);
        let (port, mut told) = server(&certificate, &key).await;
        let world = world("localhost", port, &certificate).await;
        let output = world.jobwatch(&["doctor"]).await;
        let (out, errors) = said(&output);
        // The day's own hours are left out.
        let left = [days - 1, days].map(|days| format!("good for {days} more days"));
        let found = out.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{out}{errors}"));
        assert!(left.iter().any(|left| found.contains(left.as_str())), "{found}");
        assert!(output.status.success(), "{out}");
        let request = soon("the request", told.recv()).await.unwrap();
        assert!(request.starts_with("HEAD / HTTP/1.1\r\n"), "{request}");
    }
}
