//! Through a proxy and not past it: a real one on loopback, which makes tunnels, forwards what is asked in the clear, and
//! wants to know who asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use jobwatch::config::{self, Purpose};
use jobwatch::model::delivery::DeliveryState;
use jobwatch::model::name::ReceiverName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::stage::{Stage, minutes};
use crate::tls::{acceptor, certificate, certificate_for, server};
use crate::world::{World, beside, bind, failed, job, said, soon};

/// What must be seen nowhere but on the way to the proxy.
const USER: &str = "canary-user-41";
const PASSWORD: &str = "canary-password-42";

/// A proxy. It takes one request on each connection.
#[derive(Clone)]
struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What it was asked, first lines alone.
    asked: Vec<String>,
    /// What it was asked, as it came.
    heads: String,
    /// Where names lead that nobody else knows.
    names: HashMap<String, SocketAddr>,
    /// Who may ask: nobody else, if anybody is named.
    guest: Option<String>,
    /// It breaks off every connection.
    away: bool,
    /// It answers everything with this.
    answer: Option<String>,
}

impl Proxy {
    async fn start() -> Self {
        Self::start_over(None).await
    }

    async fn start_over(tls: Option<TlsAcceptor>) -> Self {
        let (listener, address) = bind().await;
        let proxy = Self { address, state: Arc::default() };
        let served = proxy.clone();
        beside(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (one, tls) = (served.clone(), tls.clone());
                beside(async move {
                    // Who goes away in the middle is no news.
                    match tls {
                        None => drop(one.serve(stream).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(one.serve(stream).await);
                            }
                        }
                    }
                });
            }
        });
        proxy
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Nobody else may ask.
    fn admit(&self, user: &str, password: &str) {
        self.state().guest = Some(BASE64.encode(format!("{user}:{password}").as_bytes()));
    }

    async fn serve(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut some = [0; 4096];
            match client.read(&mut some).await? {
                0 => return Ok(()),
                length => read.extend_from_slice(&some[..length]),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let line = head.lines().next().unwrap().to_owned();
        let answer = {
            let mut state = self.state();
            if state.away {
                return Ok(());
            }
            state.asked.push(line.clone());
            state.heads += &head;
            let known = |guest: &String| {
                head.lines()
                    .any(|line| line.to_lowercase().starts_with("proxy-authorization: basic") && line.ends_with(guest))
            };
            let closed = state.guest.as_ref().is_some_and(|guest| !known(guest));
            let wants = || {
                "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"here\"\r\n\r\nwho is there?"
                    .to_owned()
            };
            closed.then(wants).or(state.answer.clone())
        };
        if let Some(answer) = answer {
            client
                .write_all(format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1)).as_bytes())
                .await?;
            return client.shutdown().await;
        }
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (authority, path) = match target.strip_prefix("http://") {
            Some(rest) => rest.split_once('/').unwrap(),
            None => (target, ""),
        };
        let known = self.state().names.get(authority).copied();
        let mut far = match known {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect(authority).await,
        }?;
        if method == "CONNECT" {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        } else {
            let own = |line: &&str| !line.to_lowercase().starts_with("proxy-");
            let headers: Vec<&str> = head.trim_end().lines().skip(1).filter(own).collect();
            let head = format!("{method} /{path} HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n", headers.join("\r\n"));
            far.write_all(head.as_bytes()).await?;
            far.write_all(&read[end..]).await?;
        }
        copy_bidirectional(&mut client, &mut far).await.map(drop)
    }
}

/// A world whose `oncall` is told at `url` through `proxy`, and trusts `ca`.
async fn world(url: &str, proxy: &str, ca: &str) -> World {
    let world = World::new().await;
    world.write("ca.pem", ca);
    world.write("url", url);
    world.write("proxy", proxy);
    let oncall = "ca_file = \"ca.pem\"\nproxy = { file = \"proxy\" }";
    // Not even this machine is allowed, and the proxy is.
    let config = world.config("poll_every = \"100ms\"", oncall).replace("allow_targets = [\"127.0.0.1\"]\n", "");
    world.write("jobwatch.toml", &config);
    world
}

/// Everything that is kept, said or shown, where no secret may be.
async fn sinks(world: &World, log: String) -> String {
    let mut all = log;
    for command in
        [&["deliveries", "list"] as &[&str], &["check"], &["doctor"], &["deliveries", "list", "--format", "json"]]
    {
        let (out, errors) = said(&world.jobwatch(command).await);
        all += &format!("{out}{errors}");
    }
    for name in ["state.db", "state.db-wal"] {
        all += &String::from_utf8_lossy(&std::fs::read(world.path(name)).unwrap());
    }
    world.mailbox.mails().iter().for_each(|mail| all += &mail.data);
    all
}

fn holds_no_secret(text: &str) {
    let code = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
    for secret in [USER, PASSWORD, &code] {
        assert!(!text.contains(secret), "{secret} was seen");
    }
}

#[tokio::test]
async fn a_webhook_goes_through_a_tunnel_to_a_name_that_only_the_proxy_knows() {
    let (certificate, key) = certificate_for("hooks.invalid");
    let (port, mut told) = server(&certificate, &key).await;
    let proxy = Proxy::start().await;
    proxy.admit(USER, PASSWORD);
    let name = format!("hooks.invalid:{port}");
    proxy.state().names.insert(name.clone(), ([127, 0, 0, 1], port).into());
    // By a name, which the guard would not let pass as a target.
    let through = format!("http://{USER}:{PASSWORD}@localhost:{}", proxy.address.port());
    let world = world(&format!("https://{name}/hook/canary-path-77"), &through, &certificate).await;
    let mut service = world.run_with(&["-vv"]);
    service.logged("baseline").await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let request = soon("the request", told.recv()).await.unwrap();
    assert!(request.starts_with("POST /hook/canary-path-77 HTTP/1.1\r\n"), "{request}");
    assert!(!request.to_lowercase().contains("proxy-"), "what is for the proxy is for the proxy alone: {request}");
    service.logged("delivered").await;
    assert_eq!(proxy.asked(), [format!("CONNECT {name} HTTP/1.1")]);
    let heads = proxy.state().heads.clone();
    assert!(!heads.contains("canary-path-77") && !heads.contains("whsec"), "{heads}");
    holds_no_secret(&sinks(&world, service.log()).await);
}

#[tokio::test]
async fn a_proxy_may_be_spoken_to_over_tls_itself() {
    let (certificate, key) = certificate();
    let (port, mut told) = server(&certificate, &key).await;
    let proxy = Proxy::start_over(Some(acceptor(&certificate, &key))).await;
    // The target is called `localhost`, which it may be here when that is allowed.
    let world = world(
        &format!("https://localhost:{port}/hook"),
        &format!("https://localhost:{}", proxy.address.port()),
        &certificate,
    )
    .await;
    let config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    world.write("jobwatch.toml", &config.replace("ca_file =", "allow_targets = [\"127.0.0.0/8\", \"::1\"]\nca_file ="));
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let request = soon("the request", told.recv()).await.unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    service.logged("delivered").await;
    assert_eq!(proxy.asked(), [format!("CONNECT localhost:{port} HTTP/1.1")]);
}

#[tokio::test]
async fn the_certificate_is_the_targets_whoever_is_in_between() {
    let (certificate, key) = certificate_for("hooks.invalid");
    let (port, mut told) = server(&certificate, &key).await;
    let proxy = Proxy::start().await;
    let name = format!("hooks.invalid:{port}");
    proxy.state().names.insert(name.clone(), ([127, 0, 0, 1], port).into());
    let other = certificate_for("hooks.invalid").0;
    let world = world(&format!("https://{name}/hook"), &format!("http://{}", proxy.address), &other).await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("not delivered").await;
    assert!(line.contains("certificate") && line.contains(&format!("through the proxy {}", proxy.address)), "{line}");
    assert!(told.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_is_a_refusal_that_says_so_whether_it_makes_tunnels_or_forwards() {
    for (url, user, words) in [
        ("https://hooks.invalid/hook", None, "wants a user and a password (407)"),
        ("https://hooks.invalid/hook", Some(USER), "does not accept the user and the password in `proxy` (407)"),
        ("http://127.0.0.1:9/hook", None, "wants a user and a password (407)"),
        ("http://127.0.0.1:9/hook", Some(USER), "does not accept the user and the password in `proxy` (407)"),
    ] {
        let proxy = Proxy::start().await;
        proxy.admit("somebody", "else");
        let user = user.map_or(String::new(), |user| format!("{user}:{PASSWORD}@"));
        let world = World::new().await;
        world.write("url", url);
        world.write("proxy", &format!("http://{user}{}", proxy.address));
        let stage = Stage::in_world(world, "proxy = { file = \"proxy\" }").await;
        stage.poll(vec![]).await;
        stage.poll(vec![failed("a", 1, "x")]).await;
        stage.until(Duration::from_secs(1)).await;
        let delivery = stage.oncall().await;
        assert_eq!(delivery.state, DeliveryState::Pending);
        assert!(
            delivery.note.contains(words) && delivery.note.contains(&proxy.address.to_string()),
            "{}",
            delivery.note
        );
        let mails = stage.world.mailbox.mails();
        assert_eq!(mails.len(), 1, "a refusal is told at once");
        assert!(mails[0].data.contains("refuses what it is sent"), "{}", mails[0].data);
        holds_no_secret(&sinks(&stage.world, String::new()).await);
        // Tried again slowly, and well when somebody has mended it. `doctor` asked as well.
        let asked = proxy.asked().len();
        stage.until(minutes(2)).await;
        assert_eq!(proxy.asked().len(), asked, "not hammered");
        assert!(asked <= 2, "{asked}");
    }
}

#[tokio::test]
async fn what_a_proxy_says_when_it_forwards_is_shown_without_the_user_and_the_password() {
    let proxy = Proxy::start().await;
    let code = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
    proxy.state().answer = Some(format!("403 Forbidden\r\n\r\n<p>{USER} ({PASSWORD}, {code}) may not"));
    let world = World::new().await;
    world.write("proxy", &format!("http://{USER}:{PASSWORD}@{}", proxy.address));
    let config = world.config("poll_every = \"100ms\"\nproxy = { file = \"proxy\" }", "proxy = { file = \"proxy\" }");
    world.write("jobwatch.toml", &config);
    // The source as well, whose errors are read in another way.
    let mut service = world.run_with(&["-vv"]);
    service.logged("no complete listing").await;
    let json = format!("403 Forbidden\r\nContent-Type: application/json\r\n\r\n{{\"error_msg\":\"{USER} may not\"}}");
    proxy.state().answer = Some(json);
    service.logged("[redacted] may not").await;
    proxy.state().answer = None;
    service.logged("baseline").await;
    let mut config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    service.stop().await;
    // Now the receiver alone.
    config = config.replacen("poll_every = \"100ms\"\nproxy = { file = \"proxy\" }", "poll_every = \"100ms\"", 1);
    world.write("jobwatch.toml", &config);
    proxy.state().answer = Some(format!("403 Forbidden\r\n\r\n<p>{USER} ({PASSWORD}, {code}) may not"));
    let mut service = world.run_with(&["-vv"]);
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("[hidden] ([hidden], [hidden]) may not").await;
    assert!(line.contains("HTTP 403"), "{line}");
    holds_no_secret(&sinks(&world, service.log()).await);
}

#[tokio::test]
async fn a_proxy_that_is_away_is_waited_for_and_nothing_goes_past_it() {
    let proxy = Proxy::start().await;
    proxy.state().away = true;
    let world = World::new().await;
    let stage = Stage::in_world(world, &format!("proxy = \"http://{}\"", proxy.address)).await;
    stage.poll(vec![]).await;
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.until(minutes(5)).await;
    let delivery = stage.oncall().await;
    assert_eq!(delivery.state, DeliveryState::Pending);
    assert!(delivery.attempts > 2, "{} attempts in five minutes", delivery.attempts);
    assert_eq!((stage.world.inbox.count(), stage.world.mailbox.mails().len()), (0, 0), "unreachable is no refusal");
    proxy.state().away = false;
    stage.until(minutes(20)).await;
    assert_eq!(stage.oncall().await.state, DeliveryState::Delivered);
    assert_eq!((stage.world.inbox.count(), proxy.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_and_one_that_makes_no_tunnel_are_named() {
    let (listener, nobody) = bind().await;
    drop(listener);
    let proxy = Proxy::start().await;
    proxy.state().answer = Some("403 Forbidden\r\n\r\nno".into());
    for (address, words) in [
        (nobody, "Connection refused"),
        (proxy.address, "it makes no connection to the target: it cannot reach it, or does not allow it"),
    ] {
        let world = world("https://hooks.invalid/hook", &format!("http://{address}"), &certificate().0).await;
        let mut service = world.watched().await;
        world.swr.set_jobs(vec![failed("a", 1, "x")]);
        let line = service.logged("not delivered").await;
        assert!(line.contains(&format!("through the proxy {address}: ")) && line.contains(words), "{line}");
        assert!(line.contains("will be tried again"), "{line}");
    }
}

#[tokio::test]
async fn the_environments_proxies_are_ignored() {
    let proxy = Proxy::start().await;
    let mut world = World::new().await;
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        world.environment.push((name, format!("http://{}", proxy.address)));
    }
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    service.logged("delivered").await;
    assert_eq!((world.inbox.count(), proxy.asked()), (1, vec![]));
}

#[tokio::test]
async fn the_guard_judges_what_the_proxy_is_asked_for_and_not_the_proxy() {
    let proxy = Proxy::start().await;
    let through = format!("http://{}", proxy.address);
    // An address that is not allowed is refused when the configuration is read.
    for address in ["10.1.2.3", "169.254.169.254", "[::1]", "127.0.0.1"] {
        let world = world(&format!("https://{address}/hook"), &through, &certificate().0).await;
        let output = world.jobwatch(&["check"]).await;
        assert_eq!(output.status.code(), Some(78));
        assert!(said(&output).1.contains("loopback, private or otherwise special"), "{}", said(&output).1);
    }
    // A name that leads only there is refused when it is asked for.
    let world = world("https://localhost/hook", &through, &certificate().0).await;
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    let line = service.logged("somebody must mend this").await;
    assert!(line.contains("localhost (") && line.contains("list it in `allow_targets`"), "{line}");
    assert_eq!(proxy.asked(), [] as [&str; 0], "{line}");
}

#[tokio::test]
async fn all_that_a_source_asks_goes_through_its_proxy_and_the_machines_key_does_not() {
    let proxy = Proxy::start().await;
    proxy.admit(USER, PASSWORD);
    let mut world = World::new().await;
    world.environment.push(("HOME", "/nowhere".into()));
    world.write("proxy", &format!("http://{USER}:{PASSWORD}@{}", proxy.address));
    let iam = format!("http://{}", world.cloud);
    let through = "proxy = { file = \"proxy\" }";
    world.write("password", "simulated-password");
    world.identify(
        &format!("{{ kind = \"password\", user = \"watcher\", domain = \"example\", password = {{ file = \"password\" }}, iam_endpoint = \"{iam}\" }}"),
        through,
    );
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "x")]);
    soon("the webhook", world.inbox.next(0)).await;
    service.logged("delivered").await;
    let requests = world.swr.requests();
    let asked = proxy.asked();
    assert!(asked[0].starts_with(&format!("POST {iam}/v3/auth/tokens")), "{asked:?}");
    assert!(asked[1..].iter().all(|line| line.starts_with(&format!("GET {iam}/v2/p1/jobs?"))), "{asked:?}");
    assert!(usize::try_from(requests).unwrap() <= asked.len(), "nothing went past it");
    holds_no_secret(&sinks(&world, service.log()).await);
    let (out, _) = said(&world.jobwatch(&["doctor"]).await);
    assert!(
        out.contains(&format!(
            "ok    source prod: proxy: 127.0.0.1 is looked up and connected to by {}",
            proxy.address
        )),
        "{out}"
    );
    service.stop().await;

    world.identify(&format!("{{ kind = \"metadata\", endpoint = \"{iam}\" }}"), through);
    let before = proxy.asked().len();
    let _service = world.run();
    world.swr.set_jobs(vec![failed("a", 2, "x"), failed("b", 2, "y")]);
    soon("the webhook", world.inbox.next(1)).await;
    let asked = proxy.asked().split_off(before);
    assert!(
        !asked.is_empty() && asked.iter().all(|line| line.starts_with(&format!("GET {iam}/v2/p1/jobs?"))),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_proxy_that_is_away_blinds_the_source_that_has_it_and_no_other_with_the_same_password() {
    let proxy = Proxy::start().await;
    proxy.state().away = true;
    let world = World::new().await;
    world.write("password", "simulated-password");
    let credentials = format!(
        "{{ kind = \"password\", user = \"watcher\", domain = \"example\", password = {{ file = \"password\" }}, iam_endpoint = \"http://{}\" }}",
        world.cloud
    );
    world.identify(&credentials, &format!("proxy = \"http://{}\"", proxy.address));
    let config = std::fs::read_to_string(world.path("jobwatch.toml")).unwrap();
    let near = format!(
        "[[source]]\nname = \"near\"\nkind = \"swr\"\nendpoint = \"http://{}\"\nproject_id = \"p1\"\ncredentials = {credentials}\n",
        world.cloud
    );
    world.write("jobwatch.toml", &format!("{config}{near}"));
    let mut service = world.run();
    let line = service.logged("no complete listing").await;
    assert!(line.contains("prod") && line.contains(&format!("through the proxy {}", proxy.address)), "{line}");
    assert!(service.logged("baseline").await.contains("source=\"near\""), "{}", service.log());
    assert_eq!(proxy.asked(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_source_whose_proxy_wants_credentials_says_that_the_configuration_is_to_be_mended() {
    let proxy = Proxy::start().await;
    proxy.admit(USER, PASSWORD);
    let world = World::new().await;
    world.write(
        "jobwatch.toml",
        &world.config(&format!("poll_every = \"100ms\"\nproxy = \"http://{}\"", proxy.address), ""),
    );
    let mut service = world.run();
    let line = service.logged("no complete listing").await;
    assert!(line.contains("misdirected") && line.contains("wants a user and a password (407)"), "{line}");
    let output = world.jobwatch(&["doctor"]).await;
    let (out, _) = said(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(out.contains("FAIL  source prod: connection: ") && out.contains("(407)"), "{out}");
}

#[tokio::test]
async fn what_is_wrong_with_a_proxy_is_said_with_the_mend_and_without_its_password() {
    let world = World::new().await;
    world.write("socks", &format!("socks5://{USER}:{PASSWORD}@host:1080"));
    world.write("garbled", &format!("{USER}:{PASSWORD}@host:3128"));
    let webhook = "[receiver.oncall]\nkind = \"webhook\"\nurl = { file = \"url\" }\nallow_targets = [\"127.0.0.1\"]\n";
    let source = "[[source]]\nname = \"a\"\nkind = \"swr\"\nendpoint = \"http://127.0.0.1:1\"\nproject_id = \"p\"\ncredentials = { kind = \"token\", token = { file = \"token\" } }\n";
    let email = "[receiver.oncall]\nkind = \"email\"\nserver = \"smtps://mail.example.org\"\nfrom = \"a@example.org\"\nto = \"b@example.org\"\n";
    let github = "[receiver.oncall]\nkind = \"github\"\nrepository = \"a/b\"\ntoken = { file = \"token\" }\nurl = \"https://[2606:2800:220:1::1]\"\n";
    let six = source.replace("http://127.0.0.1:1", "https://[2606:2800:220:1::1]");
    let plain = format!("proxy = \"http://{USER}:{PASSWORD}@host:3128\"\n");
    for (table, proxy, words, mend) in [
        (webhook, "proxy = \"socks5://host:1080\"\n", "`proxy` is socks5", "needs an HTTP proxy before it"),
        (webhook, "proxy = { file = \"socks\" }\n", "`proxy` is socks5", "needs an HTTP proxy before it"),
        (webhook, "proxy = { file = \"garbled\" }\n", "begins with neither", "http://host:port"),
        (webhook, "proxy = \"host:3128\"\n", "begins with neither", "http://host:port"),
        (webhook, "proxy = \"http://host:3128/x\"\n", "more than a host and a port", "http://host:port"),
        (webhook, plain.as_str(), "a secret stands here in plain text", "write { env = \"NAME\" }"),
        (source, plain.as_str(), "a secret stands here in plain text", "write { env = \"NAME\" }"),
        (source, "proxy = 5\n", "`proxy` is a TOML integer", "a secret belongs here"),
        (webhook, "proxy = \"http://host:3128\"\n", "`url`: a loopback address is not this machine's", "or no `proxy`"),
        (source, "proxy = \"http://host:3128\"\n", "a loopback address is not this machine's", "https://"),
        (github, "proxy = \"http://host:3128\"\n", "makes no tunnel to an IPv6 address", "name the host"),
        (six.as_str(), "proxy = \"http://host:3128\"\n", "makes no tunnel to an IPv6 address", "https://"),
        (email, "proxy = \"http://host:3128\"\n", "`email` knows no proxy", "remove it"),
    ] {
        world.write("jobwatch.toml", &format!("{table}{proxy}"));
        let output = world.jobwatch(&["check"]).await;
        let (_, report) = said(&output);
        assert_eq!(output.status.code(), Some(78), "{proxy}\n{report}");
        assert!(report.contains(words) && report.contains(mend), "{table}{proxy}\n{report}");
        holds_no_secret(&report);
    }
    // With leave, and with none at all.
    for (agent, proxy) in
        [("allow_inline_secrets = true\n", plain.replace("host", "127.0.0.1")), ("", "proxy = \"\"\n".into())]
    {
        world.write(
            "jobwatch.toml",
            &format!("[agent]\nstate = \"sqlite:x\"\nnotify = [\"oncall\"]\n{agent}{source}{proxy}{webhook}{proxy}"),
        );
        let output = world.jobwatch(&["check"]).await;
        assert!(output.status.success(), "{}", said(&output).1);
    }
}

#[tokio::test]
async fn a_proxy_whose_secret_is_not_here_is_not_passed_by() {
    let world = World::new().await;
    let config = world.config("poll_every = \"100ms\"\nproxy = { file = \"absent\" }", "proxy = { file = \"absent\" }");
    world.write("jobwatch.toml", &config);
    let output = world.jobwatch(&["run"]).await;
    assert_eq!(output.status.code(), Some(78));
    assert_eq!((world.swr.requests(), world.inbox.count()), (0, 0));
    // To a check on another machine that is a warning, and what cannot be used is not there.
    let (config, report) = config::load(&world.path("jobwatch.toml"), Purpose::Check);
    let config = config.unwrap();
    assert!(!report.has_errors() && config.sources.is_empty(), "{:?}", config.sources);
    let receivers: Vec<&str> = config.receivers.keys().map(ReceiverName::as_str).collect();
    assert_eq!(receivers, ["ops"]);
}
