//! A real browser for a story: Debian's Chromium, spoken to in WebDriver's JSON through its own driver.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jobwatch::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::world::{PATIENCE, soon};

/// How long a page has before it is looked at again.
const GLANCE: Duration = Duration::from_millis(50);
/// The flags without which Chromium asks its maker's hosts for things, or wants a screen.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--window-size=1280,1000",
];

/// A browser with one window. It ends with the story.
pub(crate) struct Browser {
    driver: Child,
    client: reqwest::Client,
    /// Where commands go.
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    /// The browser is a child of the driver; both are in the driver's group.
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.driver);
        // Who is gone already needs neither.
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        self.driver.wait().ok();
    }
}

impl Browser {
    pub(crate) async fn open() -> Self {
        // Another story of this process may have done it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut driver = std::process::Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver is here: apt-get install chromium chromium-driver, or ./test, which does that");
        let port = soon("the driver's port", port(driver.stdout.take().unwrap())).await;
        let profile = tempfile::tempdir().unwrap();
        let flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        let flags = [flags, vec![format!("--user-data-dir={}", profile.path().display())]].concat();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let mut browser =
            Self { driver, client, session: format!("http://127.0.0.1:{port}/session"), _profile: profile };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        }}});
        let opened = browser.post("", &wanted).await;
        browser.session = format!("{}/{}", browser.session, opened["sessionId"].as_str().unwrap());
        // What it shows at the start is its own.
        browser.go("about:blank").await;
        browser.requested().await;
        browser
    }

    async fn post(&self, command: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{command}", self.session)).body(body.to_string());
        answer(command, request).await
    }

    pub(crate) async fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// What a script returns; it may wait for promises.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true on the page, without loading it again.
    pub(crate) async fn until(&self, expression: &str) {
        let script = format!("try {{ return Boolean({expression}) }} catch {{ return false }}");
        let watch = Clock::system().stopwatch();
        while self.run(&script).await != json!(true) {
            let text = || async { self.text("body").await };
            assert!(watch.elapsed() < PATIENCE, "waited in vain for {expression}; the page says:\n{}", text().await);
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// What people read in the first element of this kind.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({selector:?}).innerText")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Presses a key: `\u{e004}` is Tab, `\u{e007}` Enter.
    pub(crate) async fn press(&self, key: char) {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] })).await;
    }

    /// A command of Chromium's own protocol.
    pub(crate) async fn chromium(&self, command: &str, parameters: Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await;
    }

    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.chromium("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.chromium("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Every address that was asked for since this was last asked.
    pub(crate) async fn requested(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "performance" })).await;
        let entries = log.as_array().unwrap().iter();
        let messages = entries.map(|entry| serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap());
        let sent = messages.filter(|message| message["message"]["method"] == "Network.requestWillBeSent");
        sent.map(|message| message["message"]["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// What the browser complained of since this was last asked: errors of scripts, and what the policy forbade.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" })).await;
        let entries = log.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// A picture of the page, for whoever wants to look at it, beside what the tests leave behind.
    pub(crate) async fn picture(&self, name: &str) {
        let height = self.run("return document.documentElement.scrollHeight").await.as_u64().unwrap();
        let width = self.run("return innerWidth").await.as_u64().unwrap();
        self.resize(u32::try_from(width).unwrap(), u32::try_from(height).unwrap()).await;
        let request = self.client.get(format!("{}/screenshot", self.session));
        let png = BASE64_STANDARD.decode(answer("/screenshot", request).await.as_str().unwrap()).unwrap();
        std::fs::write(left_behind(name), png).unwrap();
    }
}

/// A file in the place that cargo keeps for tests.
pub(crate) fn left_behind(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

async fn port(stdout: ChildStdout) -> u16 {
    let stdout = tokio::process::ChildStdout::from_std(stdout).unwrap();
    let mut lines = BufReader::new(stdout).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the driver starts");
        if let Some((_, port)) = line.split_once("successfully on port ") {
            // The rest of what it says is not read, and it goes on all the same.
            return port.trim_end_matches('.').parse().unwrap();
        }
    }
}

async fn answer(command: &str, request: reqwest::RequestBuilder) -> Value {
    let text = request.send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(answer["value"]["error"].is_null(), "{command}: {}", answer["value"]);
    answer["value"].clone()
}
