//! The status page in a real browser: what it shows, that it stays right by itself, for whom it can be read, and that
//! nothing in it leads out.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jobwatch::model::job::Job;
use jobwatch::simulator::{Inbox, serve};
use serde_json::{Value, json};

use crate::browser::{Browser, left_behind};
use crate::reload::{address, ask};
use crate::world::{Service, World, beside, bind, failed, job, said, soon};

const TAB: char = '\u{e004}';
const RETURN: char = '\u{e007}';

/// A world with three receivers that fail, each in its way.
struct Failing {
    world: World,
    service: Service,
    admin: SocketAddr,
    refusing: Inbox,
}

const RULE: &str = "schema = 1\n[[rule]]\nid = \"failed\"\nwhen = { to = \"Failed\" }\n\
                    notify = [\"broken\", \"away\", \"refusing\"]\n";

impl Failing {
    async fn with(jobs: Vec<Job>, admin: &str) -> Self {
        let world = World::new().await;
        world.swr.set_jobs(jobs);
        world.inbox.answer_with(503, &[]);
        let refusing = Inbox::new();
        refusing.answer_with(403, &[]);
        let ((listener, gone), (at, refuses)) = (bind().await, bind().await);
        drop(listener);
        beside(serve(at, refusing.router(), std::future::pending()));
        let hook = |name: &str, to: &str| {
            format!(
                "[receiver.{name}]\nkind = \"webhook\"\nurl = {{ file = \"{to}\" }}\nsecret = {{ file = \"secret\" }}\n\
                 allow_targets = [\"127.0.0.1\"]\nrate = \"unlimited\"\n"
            )
        };
        world.write("away-url", &format!("http://{gone}/"));
        world.write("refusing-url", &format!("http://{refuses}/"));
        let config = world.config("poll_every = \"500ms\"", "");
        let (before, after) =
            (config.split("[receiver.oncall]").next().unwrap(), config.split("[receiver.ops]").nth(1));
        let hooks = hook("broken", "url") + &hook("away", "away-url") + &hook("refusing", "refusing-url");
        let tail = after.unwrap();
        world.write(
            "jobwatch.toml",
            &format!("{before}{hooks}[receiver.ops]{tail}\n[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n"),
        );
        world.write("rules/failed.toml", RULE);
        world.write("admin-token", "canary-admin-token:4711\n");
        let mut service = world.run();
        let admin = address(&mut service).await;
        service.logged("baseline").await;
        Self { world, service, admin, refusing }
    }
}

/// Ten thousand jobs as a busy project has them.
fn ten_thousand() -> Vec<Job> {
    let status = |n: u32| match n % 100 {
        0..92 => "Success",
        92..98 => "Failed",
        98 => "Running",
        _ => "Creating",
    };
    (0..10_000).map(|n| job(&format!("{n:05}"), status(n), n % 3_000)).collect()
}

fn ended(jobs: &mut [Job], which: usize, reason: &str) {
    jobs[which] = failed(&format!("{which:05}"), 4_000, reason);
}

#[tokio::test]
async fn the_page_of_ten_thousand_jobs_shows_what_fails_and_why_and_goes_on_by_itself() {
    let mut jobs = ten_thousand();
    let Failing { world, mut service, admin, refusing } = Failing::with(jobs.clone(), "").await;
    ended(&mut jobs, 98, "failed to select cce cluster: quota exceeded for vpc 'net-1'");
    world.swr.set_jobs(jobs.clone());
    soon("a refusal", refusing.reached(1)).await;
    service.logged_times("not delivered", 2).await;
    let browser = Browser::open().await;
    browser.go(&format!("http://{admin}/")).await;
    browser.until("document.querySelectorAll('#failures tbody tr').length === 1").await;
    browser.until("document.querySelectorAll('#receivers .state.bad').length === 3").await;

    let page = browser.text("main").await;
    for words in [
        "needs attention",
        "3 receivers do not take what they are sent: away, broken, refusing",
        "10,000",
        "failed to select cce cluster: quota exceeded for vpc 'net-1'",
        "instance-00098",
        "Connection refused",
        "HTTP 503",
        "HTTP 403",
        "not delivered yet",
        "and 187 more",
    ] {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
    let failure = browser.text("#failures tbody tr").await;
    assert!(failure.starts_with("failed to select"), "the reason comes first: {failure}");

    // Live: the same document, its focus, scroll and what is open stay; only what is news changes.
    browser.run("window.same = true; document.querySelector('summary').click(); document.querySelector('summary').focus(); scrollTo(0, 200)").await;
    let scrolled = browser.run("return scrollY").await;
    ended(&mut jobs, 198, "second reason");
    world.swr.set_jobs(jobs.clone());
    browser.until("document.querySelector('#failures tbody tr').innerText.startsWith('second reason')").await;
    browser.until("document.querySelectorAll('#failures tbody tr').length === 2").await;
    let kept = "return [window.same, document.activeElement.tagName, document.querySelector('details').open, scrollY]";
    assert_eq!(browser.run(kept).await, json!([true, "SUMMARY", true, scrolled]));
    let jobs_said = browser.text("#timeline table").await;
    assert!(
        jobs_said.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|failed| failed != "0")),
        "{jobs_said}"
    );

    // Nothing is asked for but from this address, and nothing was forbidden on the way.
    let own = format!("http://{admin}/");
    let requested = browser.requested().await;
    assert!(requested.len() >= 5, "the page, its style, script and icon, and the next look: {requested:?}");
    for url in &requested {
        assert!(url.starts_with(&own) || url.starts_with("data:"), "{url}");
    }
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    let took = "const [it] = performance.getEntriesByType('navigation'); return it.responseStart - it.requestStart";
    println!("from request to answer: {} ms", browser.run(took).await);

    // The keyboard: everything that can be done is reached in the order it is read, and it shows where it is.
    browser.go(&own).await;
    browser.until("!document.querySelector('#pause').hidden").await;
    let links = browser.run("return document.querySelectorAll('a[href], button, summary').length").await;
    let (mut reached, mut last) = (Vec::new(), -1.0);
    for _ in 0..links.as_u64().unwrap() {
        browser.press(TAB).await;
        let at = browser
            .run("const it = document.activeElement; const box = it.getBoundingClientRect(); const style = getComputedStyle(it);
                 return [it.textContent.trim(), box.top + scrollY, parseFloat(style.outlineWidth), style.outlineStyle, it.classList.contains('skip')]")
            .await;
        assert!(at[2].as_f64().unwrap() >= 2.0 && at[3] != "none", "the focus shows: {at}");
        let top = at[1].as_f64().unwrap();
        assert!(top >= last - 30.0 || at[4] == true, "from top to bottom: {at} after {reached:?}");
        last = if at[4] == true { last } else { top };
        reached.push(at[0].as_str().unwrap().to_owned());
    }
    for words in ["Skip to what there is to see", "Pause", "The same in figures", "metrics"] {
        assert!(reached.iter().any(|text| text == words), "{words:?} is not in {reached:?}");
    }

    // Who pauses it keeps what stands there; who goes on has what is.
    browser.run("document.querySelector('#pause').focus()").await;
    browser.press(RETURN).await;
    browser.until("document.querySelector('#link').innerText.startsWith('paused at')").await;
    ended(&mut jobs, 298, "third reason");
    world.swr.set_jobs(jobs.clone());
    service.logged("third reason").await;
    assert!(!browser.text("#failures").await.contains("third reason"));
    browser.press(RETURN).await;
    browser.until("document.querySelector('#failures').innerText.includes('third reason')").await;
    browser.until("document.querySelector('#link').innerText === 'live'").await;

    // And when nobody answers any more, it says so.
    service.kill().await;
    browser.until("document.querySelector('#link').innerText.startsWith('connection lost at')").await;
}

/// What is wrong for somebody who cannot see it, or not well. axe-core knows more than what is written by hand here; it is
/// installed by `./test`, and not part of this tree.
#[expect(clippy::print_stdout, reason = "what was not asked")]
async fn barriers(browser: &Browser) -> Value {
    let by_hand = browser.run(include_str!("barriers.js")).await;
    assert_eq!(by_hand, json!([]), "by hand");
    let Ok(axe) = std::fs::read_to_string(left_behind("axe/node_modules/axe-core/axe.min.js")) else {
        println!("axe-core is not here: not asked");
        return json!([]);
    };
    let script = format!(
        "{axe}; return axe.run(document, {{ resultTypes: ['violations'] }}).then((found) => found.violations.map((it) =>
             [it.id, it.help, it.nodes.slice(0, 3).map((node) => [node.html, node.failureSummary])]))"
    );
    browser.run(&script).await
}

#[tokio::test]
async fn the_page_can_be_read_in_light_and_dark_on_a_phone_and_by_a_screen_reader() {
    let mut jobs: Vec<Job> = ten_thousand().into_iter().take(400).collect();
    let Failing { world, mut service, admin, .. } = Failing::with(jobs.clone(), "").await;
    ended(&mut jobs, 98, "failed to select cce cluster: quota exceeded");
    ended(&mut jobs, 198, &"a_reason_without_a_place_to_break_".repeat(20));
    world.swr.set_jobs(jobs);
    let silence = [
        "silence",
        "add",
        "type=DeleteInstance",
        "--for",
        "2h",
        "--author",
        "Kim",
        "--comment",
        "the network is being moved",
    ];
    let made = world.jobwatch(&silence).await;
    assert!(made.status.success(), "{:?}", said(&made));
    service.logged_times("not delivered", 2).await;
    let browser = Browser::open().await;
    let mut backgrounds = Vec::new();
    for (name, scheme, width) in
        [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 360), ("phone-dark", "dark", 360)]
    {
        browser.prefer(scheme).await;
        browser.resize(width, 900).await;
        browser.go(&format!("http://{admin}/")).await;
        browser.until("document.querySelectorAll('#receivers .state.bad').length === 3").await;
        browser.until("document.querySelector('#link').innerText === 'live'").await;
        assert!(browser.text("#silences").await.contains("type=DeleteInstance"));
        let wide = "return [document.documentElement.scrollWidth, innerWidth]";
        let wide = browser.run(wide).await;
        assert!(wide[0].as_u64() <= Some(u64::from(width)), "{name}: {wide}");
        let open = "document.querySelectorAll('details').forEach((it) => { it.open = true })";
        browser.run(open).await;
        assert_eq!(barriers(&browser).await, json!([]), "{name}");
        backgrounds.push(browser.run("return getComputedStyle(document.body).backgroundColor").await);
        browser.picture(&format!("status-{name}.png")).await;
    }
    assert_ne!(backgrounds[0], backgrounds[1], "dark is another page");
    assert_eq!((&backgrounds[0], &backgrounds[1]), (&backgrounds[2], &backgrounds[3]));
}

#[tokio::test]
async fn hostile_text_on_the_page_runs_nothing_asks_for_nothing_and_turns_no_letter_round() {
    // Who is asked for something from a text of the cloud hears it.
    let beacon = Inbox::new();
    let (at, listens) = bind().await;
    beside(serve(at, beacon.router(), std::future::pending()));
    let texts = [
        format!("<script>fetch('http://{listens}/', {{ method: 'POST' }}); window.ran = 1</script>"),
        format!("<img src=http://{listens}/x onerror='window.ran = 1'><svg onload='window.ran = 1'>"),
        format!("\"><style>@import 'http://{listens}/'</style><a href='javascript:window.ran=1'>x</a>"),
        format!("</bdi></td></table><iframe src=http://{listens}/></iframe><base href=http://{listens}/>"),
        "{{ 7 * 7 }} {% for x in range(9) %}{% endfor %}".to_owned(),
        "inv\u{202e}gpj.exe \u{2066}x\u{2069} \u{0}nul\u{1b}[2J".to_owned(),
        "x' onmouseover=window.ran=1 y=\" autofocus onfocus=window.ran=1 z=\"".to_owned(),
        format!("e{}", "\u{301}".repeat(10_000)),
    ];
    let made = |n: usize, text: &str| {
        let start: String = text.chars().take(200).collect();
        let mut job = failed(&format!("{start}{n}"), 10, text);
        job.resource_name = Some(text.into());
        job.kind = Some(text.into());
        job
    };
    let jobs: Vec<Job> = texts.iter().enumerate().map(|(n, text)| made(n, text)).collect();
    let strange: Vec<Job> =
        texts.iter().enumerate().map(|(n, text)| Job { reason: None, ..job(&format!("s{n}"), text, 1) }).collect();
    let Failing { world, mut service, admin, .. } = Failing::with(strange.clone(), "").await;
    world.swr.set_jobs([strange, jobs].concat());
    service.logged_times("not delivered", 2).await;
    let browser = Browser::open().await;
    browser.go(&format!("http://{admin}/")).await;
    browser.until("document.querySelectorAll('#failures tbody tr').length === 8").await;
    browser.until("document.querySelector('#link').innerText === 'live'").await;
    let page = browser.text("main").await;
    for text in [&texts[0], &texts[4]] {
        assert!(page.contains(text.as_str()), "it is shown as it came: {text}");
    }
    assert!(page.contains("invgpj.exe x \u{fffd}nul [2J"), "without what hides and turns:\n{page}");
    let foreign = "return [window.ran ?? null, document.querySelectorAll('main :is(script, style, img, iframe, base, object, link, meta)').length,
        document.querySelectorAll('main a:not([href^=\"#\"])').length, document.querySelectorAll('[onerror], [onload], [onfocus], [style]').length]";
    assert_eq!(browser.run(foreign).await, json!([null, 0, 0, 0]));
    let own = format!("http://{admin}/");
    assert!(browser.requested().await.iter().all(|url| url.starts_with(&own)));
    assert_eq!(browser.complaints().await, [] as [String; 0], "the policy had nothing to forbid");
    assert_eq!(beacon.count(), 0);
}

#[tokio::test]
async fn no_answer_lets_a_browser_run_or_load_what_is_not_ours_and_what_is_known_is_not_sent_again() {
    let failing = Failing::with(Vec::new(), "").await;
    let admin = failing.admin;
    for path in ["/", "/style.css", "/script.js", "/icon.svg", "/metrics", "/livez", "/nothing"] {
        let (_, head, body) = ask(admin, &format!("GET {path}"), &["host: localhost"]).await;
        let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
        // The page has forms, which post to this address.
        let posts = if path == "/" { "form-action 'self'" } else { "form-action 'none'" };
        for words in ["frame-ancestors 'none'", "base-uri 'none'", posts] {
            assert!(policy.contains(words), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"), "{path}: {policy}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        if path == "/" {
            let inline = ["<style", " style=", " onclick=", "javascript:", "//", "<script>"];
            let found: Vec<_> = inline.iter().filter(|words| body.contains(**words)).collect();
            assert_eq!(found, [] as [&&str; 0], "{body}");
        }
    }
    let (status, head, body) = ask(admin, "GET /", &["host: localhost"]).await;
    assert_eq!(status, 200);
    assert!(body.contains("The source is seen, and nothing is stuck"), "{body}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_uppercase();
    let (status, _, body) = ask(admin, "GET /", &["host: localhost", "if-none-match: \"OTHER\""]).await;
    assert_eq!((status, body.is_empty()), (200, false));
    // Each poll moves the time at which the source was seen; between two, the page stays what it is.
    let mut known = tag;
    loop {
        let line = format!("if-none-match: {known}");
        let (status, head, body) = ask(admin, "GET /", &["host: localhost", &line]).await;
        if status == 304 {
            assert_eq!(body, "");
            break;
        }
        known = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_uppercase();
    }
    assert_eq!(ask(admin, "POST /", &["host: localhost", "content-length: 0"]).await.0, 405, "it only shows");
}

#[tokio::test]
async fn with_a_token_a_browser_asks_for_it_as_a_password_and_the_page_stays_live() {
    let admin = "token = { file = \"admin-token\" }";
    let Failing { world, mut service, admin, .. } = Failing::with(Vec::new(), admin).await;
    let basic = |text: &str| format!("authorization: Basic {}", BASE64_STANDARD.encode(text));
    for (line, status) in [
        ("x: y".to_owned(), 401),
        (basic("any:canary-admin-token:4712"), 401),
        (basic("canary-admin-token:4711"), 401),
        (basic("any"), 401),
        ("authorization: Basic ????".to_owned(), 401),
        (basic("any:canary-admin-token:4711"), 200),
        (basic(":canary-admin-token:4711"), 200),
        ("authorization: Bearer canary-admin-token:4711".to_owned(), 200),
    ] {
        for path in ["GET /", "GET /script.js"] {
            let (answered, head, _) = ask(admin, path, &["host: localhost", &line]).await;
            assert_eq!(answered, status, "{path} {line}");
            assert_eq!(head.contains("www-authenticate: basic realm=\"jobwatch\""), status == 401, "{head}");
        }
    }
    let line = basic("any:canary-admin-token:4711");
    let foreign = ["host: localhost", &line, "sec-fetch-site: cross-site", "content-length: 0"];
    assert_eq!(ask(admin, "POST /-/reload", &foreign).await.0, 403, "what a browser adds by itself opens nothing");

    let browser = Browser::open().await;
    browser.go(&format!("http://me:canary-admin-token%3A4711@{admin}/")).await;
    browser.until("document.querySelector('#link').innerText === 'live'").await;
    browser.run("window.same = true").await;
    world.swr.set_jobs(vec![failed("a", 10, "told while somebody looks")]);
    browser
        .until("window.same && document.querySelector('#failures').innerText.includes('told while somebody looks')")
        .await;
    assert!(!browser.run("return document.documentElement.outerHTML").await.as_str().unwrap().contains("canary"));
    service.logged("not delivered").await;
    assert!(!service.log().contains("canary-admin-token"));
}

/// How often a message reached an inbox, by its id.
fn heard(inbox: &Inbox, id: &str) -> usize {
    inbox.received().iter().filter(|received| received.header("webhook-id") == id).count()
}

#[tokio::test]
async fn what_was_given_up_is_sent_again_by_a_button_which_the_keyboard_reaches_and_a_screen_reader_names() {
    let world = World::new().await;
    let retry = "retry = { first = \"100ms\", give_up_after = \"1s\" }";
    let config = world.config("poll_every = \"500ms\"", retry) + "[admin]\nlisten = \"127.0.0.1:0\"\n";
    world.write("jobwatch.toml", &config);
    world.write("rules/failed.toml", &RULE.replace("\"broken\", \"away\", \"refusing\"", "\"oncall\""));
    world.inbox.answer_with(503, &[]);
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    world.swr.set_jobs(vec![failed("a", 10, "no subnet"), failed("b", 10, "no quota")]);
    service.logged_times("the delivery is dead", 2).await;

    let browser = Browser::open().await;
    browser.go(&format!("http://{admin}/")).await;
    browser.until("document.querySelectorAll('#undelivered tbody tr').length === 2").await;
    browser.until("document.querySelector('#link').innerText === 'live'").await;
    assert!(browser.text("#undelivered").await.contains("HTTP 503"));
    assert_eq!(browser.run("return document.querySelector('.points a').hash").await, "#undelivered");
    assert_eq!(barriers(&browser).await, json!([]));
    let row = "return [...document.querySelectorAll('#undelivered tbody tr')].map((row) => row.dataset.key)";
    let ids = browser.run(row).await;
    let [first, second] = [0, 1].map(|n| ids[n].as_str().unwrap().to_owned());
    let before = [&first, &second].map(|id| heard(&world.inbox, id));
    browser.picture("given-up.png").await;
    browser.resize(360, 800).await;
    browser.picture("given-up-phone.png").await;

    // Until the far end takes it: what is tried in vain stays on the page.
    world.inbox.answer_with(200, &[]);
    browser.run("document.querySelector('#undelivered button').focus()").await;
    let name = browser.run("return document.activeElement.ariaLabel").await;
    assert!(
        name.as_str().unwrap().starts_with("Send again: ") && name.as_str().unwrap().ends_with(", to oncall"),
        "{name}"
    );
    browser.press(RETURN).await;
    browser.until("document.querySelector('[role=status]#done').innerText.startsWith('It is sent again now: ')").await;
    browser.picture("sent-again.png").await;
    browser.until("document.querySelectorAll('#undelivered tbody tr').length === 1").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "undelivered-head", "it stays where it was");
    assert_eq!(
        [&first, &second].map(|id| heard(&world.inbox, id)),
        [before[0] + 1, before[1]],
        "under its id, and it alone"
    );
    assert_eq!(browser.run("return location.pathname + location.hash").await, "/");
    assert_eq!(browser.complaints().await, [] as [String; 0]);

    // Where nobody answers, that is said, and the button is there to be pressed again.
    service.kill().await;
    browser.run("document.querySelector('#undelivered button').focus()").await;
    browser.press(RETURN).await;
    browser.until("document.querySelector('#done').innerText.startsWith('It could not be sent again: ')").await;
    assert_eq!(browser.run("return document.activeElement.ariaDisabled").await, Value::Null);
}

#[tokio::test]
async fn without_scripts_and_with_a_token_the_button_does_the_same_and_another_site_cannot_press_it() {
    let admin = "token = { file = \"admin-token\" }";
    let Failing { world, mut service, admin, refusing } = Failing::with(Vec::new(), admin).await;
    world.swr.set_jobs(vec![failed("a", 10, "no subnet")]);
    soon("a refusal", refusing.reached(1)).await;
    service.logged_times("not delivered", 2).await;
    let id = refusing.received()[0].header("webhook-id").to_owned();
    let retry = format!("POST /api/v1/deliveries/{id}/retry");
    let token = format!("authorization: Basic {}", BASE64_STANDARD.encode("any:canary-admin-token:4711"));
    for (line, status) in [
        ("origin: http://evil.example", 403),
        ("origin: null", 403),
        ("sec-fetch-site: same-site", 403),
        ("sec-fetch-site: cross-site", 403),
    ] {
        let lines = ["host: localhost", &token, line, "accept: text/html", "content-length: 0"];
        assert_eq!(ask(admin, &retry, &lines).await.0, status, "{line}");
    }
    assert_eq!(ask(admin, &retry.replace("POST", "GET"), &["host: localhost", &token]).await.0, 405);
    assert_eq!(ask(admin, &retry, &["host: localhost", "content-length: 0"]).await.0, 401);
    assert_eq!(heard(&refusing, &id), 1);

    let browser = Browser::open().await;
    browser.chromium("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.go(&format!("http://me:canary-admin-token%3A4711@{admin}/")).await;
    browser.until("document.querySelectorAll('#undelivered tbody tr').length === 3").await;
    assert_eq!(browser.run("return document.querySelector('#pause').hidden").await, true, "no script ran");
    refusing.answer_with(200, &[]);
    let button = format!("document.querySelector('form[action*=\"{id}\"] button')");
    browser.run(&format!("{button}.focus()")).await;
    browser.press(RETURN).await;
    soon("it comes again", refusing.reached(2)).await;
    assert_eq!(heard(&refusing, &id), 2, "under its id");
    browser.until("location.pathname + location.hash === '/#undelivered'").await;
    // By itself it would be loaded anew after half a minute.
    let shown = async || {
        browser.go(&format!("http://{admin}/")).await;
        browser.run("return document.querySelectorAll('#undelivered tbody tr').length").await
    };
    soon("it is no longer there", async { while shown().await != json!(2) {} }).await;
    assert_eq!(browser.complaints().await, [] as [String; 0]);
}
