//! Many sources: defaults, a region that is out, a source that hangs, HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use jobwatch::simulator::Fault;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::world::{TOKEN, World, beside, bind, failed, job, said, soon};

/// A configuration with so many sources at the same cloud, and what they share in `[source_defaults]`.
fn crowd(world: &World, count: usize, agent: &str, defaults: &str) {
    let config = world.config("", "");
    let (start, end) = (config.find("[[source]]").unwrap(), config.find("[receiver").unwrap());
    let sources: String =
        (0..count).map(|n| format!("[[source]]\nname = \"s{n:02}\"\nproject_id = \"p1\"\n")).collect();
    let shared = format!(
        "[source_defaults]\nkind = \"swr\"\nendpoint = \"http://{}\"\npoll_every = \"200ms\"\n\
         credentials = {{ kind = \"token\", token = {{ file = \"token\" }} }}\n{defaults}\n",
        world.cloud
    );
    let head = config[..start].replace("[agent]", &format!("[agent]\n{agent}"));
    world.write("jobwatch.toml", &format!("{head}{shared}{sources}{}", &config[end..]));
}

#[tokio::test]
async fn sources_take_what_they_do_not_say_from_the_defaults() {
    let world = World::new().await;
    crowd(&world, 30, "", "");
    let (out, _) = said(&world.jobwatch(&["check"]).await);
    assert!(out.contains("30 sources"), "{out}");
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let mut service = world.run();
    service.logged_times("baseline", 30).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_defaults_is_said_once() {
    let world = World::new().await;
    crowd(&world, 30, "", "pol_every = \"1s\"\nname = \"all\"\ngone_after = 0");
    let output = world.jobwatch(&["check"]).await;
    assert_eq!(output.status.code(), Some(78));
    let (_, errors) = said(&output);
    assert!(errors.contains("3 errors"), "{errors}");
    for words in ["did you mean `poll_every`?", "every source has a name of its own", "`gone_after` is out of range"] {
        assert_eq!(errors.matches(words).count(), 1, "{words}: {errors}");
    }
}

#[tokio::test]
async fn a_region_that_is_out_is_one_message_and_so_is_its_return() {
    let world = World::new().await;
    crowd(&world, 30, "blind_after = \"4s\"", "");
    let mut service = world.run();
    service.logged_times("baseline", 30).await;
    world.swr.set_fault(Some(Fault::BadGateway));
    let blind = soon("the mail about blindness", world.mailbox.next(0)).await;
    assert!(blind.data.contains("io.jobwatch.agent.blind"), "{}", blind.data);
    assert!(blind.data.contains("30 sources: no complete listing"), "{}", blind.data);
    world.swr.set_fault(None);
    let restored = soon("the mail about its end", world.mailbox.next(1)).await;
    assert!(restored.data.contains("sources: listings are complete again"), "{}", restored.data);
    service.logged_times("complete again", 30).await;
    service.signal("TERM");
    assert!(service.ended().await.success());
    assert_eq!(world.mailbox.mails().len(), 2, "no storm");
}

#[tokio::test]
async fn a_source_that_hangs_delays_no_other_though_they_share_a_credential() {
    let world = World::new().await;
    // It accepts connections and says nothing.
    let (silent, address) = bind().await;
    beside(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            kept.push(stream);
        }
    });
    world.write("ak", "SIMULATEDKEY");
    world.write("sk", "simulated-secret");
    let credentials = "{ kind = \"ak_sk\", access_key = { file = \"ak\" }, secret_key = { file = \"sk\" } }";
    world.identify(credentials, "");
    let mut config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    for n in 0..10 {
        config += &format!(
            "[[source]]\nname = \"silent{n}\"\nkind = \"swr\"\nendpoint = \"http://{address}\"\nproject_id = \"p1\"\n\
             poll_every = \"100ms\"\ncredentials = {credentials}\n"
        );
    }
    world.write("jobwatch.toml", &config);
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let _service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "real")]);
    soon("the webhook", world.inbox.next(0)).await;
}

/// A listener whose connections are TLS, and on which HTTP/2 is offered.
struct Secure {
    inner: TcpListener,
    acceptor: TlsAcceptor,
    spoken: tokio::sync::mpsc::UnboundedSender<Option<Vec<u8>>>,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.inner.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                drop(self.spoken.send(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)));
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered_and_signatures_hold_there_too() {
    let world = World::new().await;
    let (certificate, key) = crate::tls::certificate();
    jobwatch::http::use_ring();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (inner, address) = bind().await;
    let (spoken, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let listener = Secure { inner, acceptor: TlsAcceptor::from(Arc::new(config)), spoken };
    let router = world.swr.router();
    beside(async move { axum::serve(listener, router).await.unwrap() });
    world.write("ca.pem", &certificate);
    world.write("ak", "SIMULATEDKEY");
    world.write("sk", "simulated-secret");
    world.identify(
        "{ kind = \"ak_sk\", access_key = { file = \"ak\" }, secret_key = { file = \"sk\" } }",
        "ca_file = \"ca.pem\"",
    );
    let text = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    let endpoint = format!("https://localhost:{}", address.port());
    world.write("jobwatch.toml", &text.replace(&format!("http://{}", world.cloud), &endpoint));
    let mut jobs: Vec<_> = (0..950).map(|n| job(&format!("j{n:03}"), "Success", 1)).collect();
    world.swr.set_jobs(jobs.clone());
    let _service = world.watched().await;
    jobs[17] = failed("j017", 2, "real");
    world.swr.set_jobs(jobs);
    assert_eq!(heard.recv().await.unwrap().as_deref(), Some(b"h2".as_slice()));
    assert!(heard.try_recv().is_err(), "ten pages, one connection");
    assert_eq!(world.swr.accounts().refused, 0);
    // The token of the other stories is of no use here.
    assert!(!text.contains(TOKEN));
}
