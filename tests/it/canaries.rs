//! A canary in every place that takes a secret, and far ends that repeat what they are sent: none is ever seen.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};

use crate::reload::{address, ask};
use crate::world::{World, beside, bind, failed, said, soon};

/// Answers everybody 400, with all that was sent.
async fn parrot() -> std::net::SocketAddr {
    let (listener, address) = bind().await;
    let repeat = |uri: Uri, headers: HeaderMap, body: Bytes| async move {
        (StatusCode::BAD_REQUEST, format!("{uri} {headers:?} {}", String::from_utf8_lossy(&body)))
    };
    beside(async move { axum::serve(listener, Router::new().fallback(repeat)).await.unwrap() });
    address
}

/// An `@` that stands for itself.
const AT: char = '\u{1}';

/// Names of files with secrets, and what is in them.
#[derive(Default)]
struct Cage(Vec<(String, String)>);

impl Cage {
    /// A reference to a file with this secret, in which `@` stands for the canary.
    fn keep(&mut self, world: &World, shape: &str) -> String {
        let canary = format!("canary{:04}feather{:04}", self.0.len(), self.0.len() * 7 + 1);
        let name = format!("secret-{}", self.0.len());
        world.write(&name, &shape.replace('@', &canary).replace(AT, "@"));
        self.0.push((name.clone(), canary));
        format!("{{ file = \"{name}\" }}")
    }
}

/// Receivers with a secret in every key that takes one, all of them told by one rule.
fn receivers(world: &World, cage: &mut Cage, parrot: &str) -> (Vec<String>, String) {
    let (mut names, mut text) = (Vec::new(), String::new());
    let mut add = |kind: &str, keys: &str| {
        let name = format!("r{}", names.len());
        let open = if kind == "email" { "" } else { "allow_targets = [\"127.0.0.1\"]\n" };
        write!(text, "[receiver.{name}]\nkind = \"{kind}\"\nrate = \"unlimited\"\n{open}{keys}\n").unwrap();
        names.push(name);
    };
    let mut keep = |shape: &str| cage.keep(world, shape);
    let url =
        |keep: &mut dyn FnMut(&str) -> String| format!("url = {}\n", keep(&format!("http://{parrot}/hook/@?key=x")));
    // The canary itself is the base64 of a key.
    let (hook, signed) = (url(&mut keep), keep("whsec_@@AA"));
    let header = format!("headers = {{ Authorization = {} }}\n", keep("Bearer @"));
    add("webhook", &format!("{hook}secret = {signed}\n{header}"));
    add("webhook", &format!("{}secret = {}\nsignature = \"hmac-sha256\"\n", url(&mut keep), keep("@")));
    add("webhook", &format!("{}proxy = {}\n", url(&mut keep), keep(&format!("http://user:@{AT}{parrot}"))));
    for kind in ["slack", "discord", "teams", "wecom"] {
        add(kind, &url(&mut keep));
    }
    for kind in ["dingtalk", "feishu"] {
        add(kind, &format!("{}secret = {}\n", url(&mut keep), keep("@")));
    }
    add("pagerduty", &format!("routing_key = {}\nurl = \"http://{parrot}/enqueue\"\n", keep("@")));
    add("github", &format!("repository = \"a/b\"\ntoken = {}\nurl = \"http://{parrot}\"\n", keep("@")));
    let header = format!("headers = {{ Authorization = {} }}\n", keep("Bearer @"));
    add("alertmanager", &format!("url = \"http://{parrot}\"\n{header}"));
    let key = |keep: &mut dyn FnMut(&str) -> String| {
        let (access, secret, token) = (keep("@"), keep("@"), keep("@"));
        format!(
            "credentials = {{ kind = \"ak_sk\", access_key = {access}, secret_key = {secret}, security_token = {token} }}\n"
        )
    };
    let place = format!("endpoint = \"http://{parrot}\"\nregion = \"ap-southeast-3\"\nproject_id = \"p1\"\n");
    add("smn", &format!("topic_urn = \"urn:smn:ap-southeast-3:p1:jobs\"\n{place}{}", key(&mut keep)));
    add(
        "eventgrid",
        &format!("channel_id = \"c1\"\n{place}credentials = {{ kind = \"token\", token = {} }}\n", keep("@")),
    );
    let mail = world.mail;
    let people = "from = \"j@example.org\"\nto = \"o@example.org\"\n";
    add("email", &format!("server = \"smtp+plain://{mail}\"\nuser = \"u\"\npassword = {}\n{people}", keep("@")));
    (names, text)
}

#[tokio::test]
async fn a_canary_in_every_place_for_a_secret_is_seen_nowhere() {
    let world = World::new().await;
    let mut cage = Cage::default();
    let parrot = parrot().await.to_string();
    let (names, receivers) = receivers(&world, &mut cage, &parrot);
    let heartbeat = cage.keep(&world, &format!("http://{parrot}/beat/@"));
    let token = cage.keep(&world, "@");
    let config = world.config("poll_every = \"100ms\"", "");
    let agent = format!(
        "state = \"sqlite:state.db\"\nheartbeat = {{ url = {heartbeat}, every = \"10s\", allow_targets = [\"127.0.0.1\"] }}"
    );
    let config = config.replace("state = \"sqlite:state.db\"", &agent);
    let admin = format!("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = {token}\n");
    world.write("jobwatch.toml", &format!("{config}\n{receivers}\n{admin}"));
    world.write(
        "rules/failed.toml",
        &format!("schema = 1\n[[rule]]\nid = \"failed\"\nwhen = {{ to = \"Failed\" }}\nnotify = {names:?}\n"),
    );

    let mut service = world.run_with(&["-vv"]);
    let at = address(&mut service).await;
    service.logged("baseline").await;
    world.swr.set_jobs(vec![failed("a", 1, "x")]);
    // Each is told once, and says what it was told.
    for name in &names {
        service.logged(&format!("receiver=\"{name}\"")).await;
    }
    let mut seen = Vec::new();
    for arguments in [&["check"] as &[_], &["deliveries", "list"], &["jobs"], &["alerts"], &["doctor"]] {
        let (out, error) = said(&world.jobwatch(arguments).await);
        seen.extend([(arguments.join(" "), out), (format!("{arguments:?} on standard error"), error)]);
    }
    let (listed, _) = said(&world.jobwatch(&["deliveries", "list", "--format", "json"]).await);
    let rows: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let ids: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(ids.len() >= names.len(), "{listed}");
    let secret = std::fs::read_to_string(world.path(&cage.0.last().unwrap().0)).unwrap();
    let bearer = format!("authorization: Bearer {secret}");
    for id in ids {
        seen.push((format!("deliveries show {id}"), said(&world.jobwatch(&["deliveries", "show", id]).await).0));
        let (status, _, body) = ask(at, &format!("GET /api/v1/deliveries/{id}"), &["host: localhost", &bearer]).await;
        assert_eq!(status, 200, "{body}");
        seen.push((format!("the interface about {id}"), body));
    }
    for path in ["/", "/metrics", "/readyz", "/api/v1/deliveries", "/api/v1/alerts", "/api/v1/jobs", "/api/v1/sources"]
    {
        let (_, head, body) = ask(at, &format!("GET {path}"), &["host: localhost", &bearer]).await;
        seen.push((path.to_owned(), format!("{head}{body}")));
    }
    seen.push(("the process list".into(), std::fs::read_to_string(format!("/proc/{}/cmdline", service.id())).unwrap()));
    for name in ["state.db", "state.db-wal", "state.db.lock"] {
        seen.push((name.to_owned(), String::from_utf8_lossy(&std::fs::read(world.path(name)).unwrap()).into_owned()));
    }
    service.signal("TERM");
    soon("the end", async { service.ended().await }).await;
    seen.push(("the log".into(), service.log()));
    for (name, canary) in &cage.0 {
        for (place, text) in &seen {
            let found = text.find(canary.as_str());
            let around = found
                .map(|at| String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(80)..(at + 40).min(text.len())]));
            assert!(found.is_none(), "{name} was seen in {place}: {around:?}");
        }
    }
}
