//! One authorised request, and what its answer means for the credential, the clock and the budget.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::credential::{Credential, Held, Proof};
use super::error::{ApiError, unreached};
use super::guard::{JUDGED_AFTER, Pass, REST, Resting};
use super::host::Host;
use super::sign::{self, DATE};
use super::{Pool, Route, authority};
use crate::clock::Clock;
use crate::http::{Answer, Client, Error, Method, Overlong, Proxy, Url};
use crate::model::listing::{Fault, FaultKind};
use crate::model::time::{Timestamp, span};

/// The same refusal is asked about this often at the most.
const DECODED_FOR: Duration = Duration::from_secs(600);
/// What STS takes.
const ENCODED_MAX: usize = 10_240;
/// How long a host that did not say is left alone when it throttles.
const PAUSE: Duration = Duration::from_secs(10);

/// A service, spoken to in one project's name.
#[derive(Debug)]
pub struct Api {
    client: Client,
    credential: Arc<Credential>,
    host: Arc<Host>,
    clock: Clock,
    project: String,
    sts: Option<Sts>,
}

/// Where refusals are explained.
#[derive(Debug)]
struct Sts {
    url: Url,
    region: String,
    host: Arc<Host>,
    known: Mutex<Option<(Timestamp, String)>>,
}

/// Where a project's jobs are listed, for whoever acts in its name.
#[derive(Clone, Copy, Debug)]
pub struct Project<'a> {
    /// Who speaks for it.
    pub api: &'a Api,
    /// The listing of its jobs; what else it has stands beside.
    pub jobs: &'a Url,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// GET, mostly.
    pub method: Method,
    /// With its query.
    pub url: Url,
    /// JSON, as it is sent.
    pub body: Option<&'a str>,
}

impl Call<'_> {
    /// A GET.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, body: None }
    }
}

impl Api {
    /// Speaks to the service at `base`. `sts` is where refusals are explained, with its region.
    pub(crate) fn new(
        pool: &Pool,
        route: Route<'_>,
        credential: Arc<Credential>,
        base: &Url,
        project: &str,
        sts: Option<(Url, String)>,
    ) -> Result<Self, Error> {
        let sts = sts.map(|(url, region)| Sts { host: pool.host(&url), url, region, known: Mutex::default() });
        Ok(Self {
            client: pool.client(route)?,
            credential,
            host: pool.host(base),
            clock: pool.clock.clone(),
            project: project.to_owned(),
            sts,
        })
    }

    /// Who asks.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What requests go through.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.client.proxy()
    }

    /// Takes every trace of what is secret out of a text that came from elsewhere.
    fn redact(&self, text: &str) -> String {
        self.client.redact(&self.credential.redact(text))
    }

    /// What the operator should know although requests are answered.
    pub fn remark(&self) -> Option<String> {
        self.host.remark()
    }

    /// Whether anybody answers there, without saying who asks.
    ///
    /// # Errors
    /// Nobody does, or not in a way that can be trusted.
    pub async fn reach(&self, url: &Url) -> Result<(), Fault> {
        let sent = self.client.send(self.client.request(Method::GET, url.clone()), Overlong::Cut).await;
        let answer = sent.map_err(|error| unreached(&authority(url), &error))?;
        self.host.learn(&answer, self.clock.now());
        Ok(())
    }

    /// The certificate that the host showed, if it was asked for one; nothing but its name is asked for.
    ///
    /// # Errors
    /// Nobody answers, or not in a way that can be trusted.
    pub async fn certificate(&self, url: &Url) -> Result<Option<Vec<u8>>, Fault> {
        self.client.reach(url).await.map_err(|error| unreached(&authority(url), &error))
    }

    /// Gets what requests are to carry, and carries it nowhere.
    ///
    /// # Errors
    /// There is none: whoever is to give it does not.
    pub async fn prove(&self) -> Result<(), Fault> {
        self.credential.proof(&self.clock).await.map(drop)
    }

    /// Makes the request. An answer that refuses it is an answer; [`Api::fault`] says what it means.
    ///
    /// # Errors
    /// Nothing was sent, or nothing came back.
    pub async fn call(&self, call: &Call<'_>) -> Result<Answer, Fault> {
        self.call_at(&self.host, call).await
    }

    async fn call_at(&self, host: &Host, call: &Call<'_>) -> Result<Answer, Fault> {
        let (mut corrected, mut renewed) = (false, false);
        let mut held = self.credential.proof(&self.clock).await?;
        loop {
            // The pass is given back when the answer has been judged, and no sooner: who comes next is to know the verdict.
            let (answer, _pass) = self.attempt(host, call, &held).await?;
            let now = self.clock.now();
            if answer.status != 401 {
                self.credential.guard.accepted();
                host.learn(&answer, now);
                if answer.status == 429 {
                    let wait = ApiError::read(&answer).asked(&answer).unwrap_or(PAUSE);
                    host.pause(&self.credential.id, now.plus(wait));
                }
                return Ok(answer);
            }
            let error = ApiError::read(&answer);
            // The clock first: a request with the right time may well be accepted.
            let there = error.server_time().or_else(|| answer.header("date").and_then(Timestamp::parse_http));
            if !corrected && self.credential.signs() && there.is_some_and(|there| host.set(there, now)) {
                corrected = true;
                continue;
            }
            if !renewed && let Some(other) = self.credential.renew(&held, &self.clock).await? {
                renewed = true;
                held = other;
                continue;
            }
            if self.credential.signs() {
                self.credential.guard.refused(now, &self.redact(&error.line(&answer)));
            }
            return Ok(answer);
        }
    }

    /// One request over the wire.
    async fn attempt(&self, host: &Host, call: &Call<'_>, held: &Held) -> Result<(Answer, Option<Pass<'_>>), Fault> {
        if let Some(remains) = host.paused(&self.credential.id, self.clock.now()) {
            let text = format!("throttled: nothing is asked for another {}", span(remains));
            return Err(Fault { kind: FaultKind::Throttled, text, retry_after: Some(remains) });
        }
        host.spend().await;
        let request = self.request(host, call, held)?;
        let signs = self.credential.signs();
        let mut pass = match signs {
            true => Some(self.credential.guard.enter(|| self.clock.now()).await.map_err(|rest| self.resting(&rest))?),
            false => None,
        };
        let mut sending = pin!(self.client.send(request, Overlong::Fail));
        let answer = tokio::select! {
            answer = &mut sending => answer,
            () = tokio::time::sleep(JUDGED_AFTER), if signs => {
                // Not refused so far: others need not wait for a slow answer.
                drop(pass.take());
                sending.await
            }
        };
        answer.map(|answer| (answer, pass)).map_err(|error| unreached(&authority(&call.url), &error))
    }

    fn request(&self, host: &Host, call: &Call<'_>, held: &Held) -> Result<reqwest::RequestBuilder, Fault> {
        let mut url = call.url.clone();
        let mut headers = vec![("Accept", "application/json".to_owned())];
        let mut secrets = Vec::new();
        let body = call.body.unwrap_or_default();
        if call.body.is_some() {
            headers.push(("Content-Type", "application/json".to_owned()));
        }
        match &held.proof {
            Proof::Token(token) => secrets.push(("X-Auth-Token", token.expose_secret().to_owned())),
            Proof::Key(key) => {
                let query: Vec<(Cow<'_, str>, Cow<'_, str>)> = call.url.query_pairs().collect();
                let date = sign::date(host.time(self.clock.now()));
                // Only what no proxy changes is signed; the gateway does not ask for more.
                let signed = sign::sign(
                    key,
                    &sign::Request {
                        method: call.method.as_str(),
                        host: &authority(&call.url),
                        path: call.url.path(),
                        query: &query,
                        headers: &[(DATE, &date)],
                        body: body.as_bytes(),
                        date: &date,
                    },
                );
                url.set_query(Some(sign::canonical_query(&query).as_str()).filter(|query| !query.is_empty()));
                headers.push((DATE, date));
                headers.push(("X-Project-Id", self.project.clone()));
                secrets.push(("Authorization", signed.authorization));
                secrets.extend(
                    key.security_token.as_ref().map(|token| ("X-Security-Token", token.expose_secret().to_owned())),
                );
            }
        }
        let mut request = self.client.request(call.method.clone(), url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in secrets {
            let mut value = reqwest::header::HeaderValue::from_str(&value).map_err(|_| Fault {
                kind: FaultKind::Unauthorized,
                text: "the credential holds characters that cannot be sent".into(),
                retry_after: None,
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        Ok(if call.body.is_some() { request.body(body.to_owned()) } else { request })
    }

    fn resting(&self, rest: &Resting) -> Fault {
        let text = format!(
            "{} rests for another {}, because more than five failures would lock it for everybody. It was refused: {}",
            self.credential.label(),
            span(rest.remains),
            rest.why
        );
        Fault { kind: FaultKind::Unauthorized, text, retry_after: Some(rest.remains) }
    }

    /// What an answer that is no success means, in words for the operator, and what to do about it. `permission` is the
    /// one the call needs.
    pub async fn fault(&self, answer: &Answer, permission: &str) -> Fault {
        let error = ApiError::read(answer);
        let mut fault = error.fault(answer, self.credential.advice());
        fault.text = self.redact(&fault.text);
        if answer.status == 401 && self.credential.signs() {
            let label = self.credential.label();
            fault.text +=
                &format!("; {label} is left alone for {}, lest the cloud locks it: check the key", span(REST));
            fault.retry_after = Some(REST);
        }
        if answer.status == 403 && error.is_permission() {
            fault.text += &format!("; the user needs the permission {permission}");
        }
        if let (Some(encoded), Some(sts)) = (&error.encoded, &self.sts) {
            fault.text += &format!("; {}", self.explain(encoded, sts).await);
        }
        fault
    }

    /// Why the cloud refused, in its own words, or the command that tells.
    async fn explain(&self, encoded: &str, sts: &Sts) -> String {
        let now = self.clock.now();
        let known = sts.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, words)) = known.filter(|(at, _)| now.since(*at) < DECODED_FOR) {
            return words;
        }
        let decoded = if self.credential.signs() && encoded.len() <= ENCODED_MAX {
            self.decode(encoded, sts).await
        } else {
            None
        };
        let words = match decoded {
            Some(words) => format!("STS explains: {words}"),
            None => format!(
                "what exactly is missing tells: hcloud STS DecodeAuthorizationMessage --cli-region={} --encoded_message={}",
                sts.region,
                encoded.chars().filter(char::is_ascii_graphic).take(ENCODED_MAX).collect::<String>()
            ),
        };
        *sts.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, words.clone()));
        words
    }

    async fn decode(&self, encoded: &str, sts: &Sts) -> Option<String> {
        let url = sts.url.join("v5/decode-authorization-message").ok()?;
        let body = json!({ "encoded_message": encoded }).to_string();
        let call = Call { method: Method::POST, url, body: Some(&body) };
        let answer = self.call_at(&sts.host, &call).await.ok().filter(|answer| answer.status == 200)?;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        let message: Value = serde_json::from_str(answer.get("decoded_message")?.as_str()?).ok()?;
        let words = super::error::plain_words(&message);
        (!words.is_empty()).then(|| self.redact(&words))
    }
}

#[cfg(test)]
mod tests {
    use super::{Api, Arc, Call, Clock, Duration, Pool, Timestamp, Url};
    use crate::cloud::credential::{Credential, Surroundings};
    use crate::cloud::{Limits, Route};
    use crate::config;
    use crate::simulator::{Scenario, Swr, serve};

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    struct World {
        swr: Swr,
        clock: Clock,
        pool: Pool,
        base: Url,
        api: Api,
        jobs: Url,
    }

    /// A service that is asked with these credentials, at a time that stands still.
    async fn world(credentials: &str) -> World {
        let scenario = Scenario::read("token = \"t\"\nproject_id = \"p1\"\n", "story".as_ref()).unwrap();
        let clock = Clock::manual(START);
        let now = clock.clone();
        let swr = Swr::new(scenario, move || now.now());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let router = swr.router();
        #[expect(clippy::disallowed_methods, reason = "a server of the story, not of the product")]
        tokio::spawn(async move { serve(listener, router, std::future::pending()).await });
        let pool = Pool::new(clock.clone(), Limits::default());
        let base = Url::parse(&base).unwrap();
        let api = api(&pool, &base, credentials);
        let jobs = base.join("v2/p1/jobs").unwrap();
        World { swr, clock, pool, base, api, jobs }
    }

    fn api(pool: &Pool, base: &Url, credentials: &str) -> Api {
        let text = format!("credentials = {}", credentials.replace("$BASE", base.as_str()));
        let route = Route { timeout: Duration::from_secs(5), ca: None, proxy: None };
        let around = Surroundings { pool, region: None, project: "p1", route };
        let credential = config::with_table(&text, |table, secrets| Credential::read(table, secrets, &around));
        Api::new(pool, route, credential.unwrap(), base, "p1", None).unwrap()
    }

    impl World {
        async fn ask(&self) -> u16 {
            self.api.call(&Call::get(self.jobs.clone())).await.unwrap().status
        }
    }

    #[tokio::test]
    async fn a_token_that_was_revoked_is_renewed_once_a_minute_and_no_more() {
        let world = world(
            r#"{ kind = "password", user = "watcher", domain = "example", password = "simulated-password", iam_endpoint = "$BASE" }"#,
        )
        .await;
        assert_eq!(world.ask().await, 200);
        world.clock.advance(Duration::from_secs(61));
        world.swr.accounts().tokens.clear();
        assert_eq!((world.ask().await, world.swr.accounts().issued), (200, 2));
        world.swr.accounts().tokens.clear();
        assert_eq!((world.ask().await, world.swr.accounts().issued), (401, 2), "one renewal a minute, not a storm");
        world.clock.advance(Duration::from_secs(61));
        assert_eq!((world.ask().await, world.swr.accounts().issued), (200, 3));
    }

    #[tokio::test]
    async fn a_refused_key_is_tried_again_after_six_minutes_and_works_when_it_was_mended_there() {
        let world = world(r#"{ kind = "ak_sk", access_key = "SIMULATEDKEY", secret_key = "rotated" }"#).await;
        assert_eq!(world.ask().await, 401);
        let resting = world.api.call(&Call::get(world.jobs.clone())).await.unwrap_err();
        assert!(resting.text.contains("rests for another 6 min"), "{}", resting.text);
        assert_eq!(resting.retry_after, Some(Duration::from_secs(360)));
        world.swr.accounts().keys.insert("SIMULATEDKEY".into(), "rotated".into());
        world.clock.advance(Duration::from_secs(361));
        assert_eq!((world.ask().await, world.swr.accounts().refused), (200, 1));
    }

    #[tokio::test]
    async fn a_key_that_rests_rests_for_everybody_who_has_it_whatever_secret_they_have_for_it() {
        let world = world(r#"{ kind = "ak_sk", access_key = "SIMULATEDKEY", secret_key = "wrong" }"#).await;
        assert_eq!(world.ask().await, 401);
        for secret in ["wrong", "also-wrong", "simulated-secret"] {
            let credentials = format!(r#"{{ kind = "ak_sk", access_key = "SIMULATEDKEY", secret_key = "{secret}" }}"#);
            let other = api(&world.pool, &world.base, &credentials);
            assert!(other.call(&Call::get(world.jobs.clone())).await.is_err(), "{secret}");
        }
        assert_eq!(world.swr.accounts().refused, 1);
    }

    #[tokio::test]
    async fn who_is_throttled_asks_nothing_until_the_window_is_over() {
        let world = world(r#"{ kind = "token", token = "t" }"#).await;
        world.swr.set_fault(Some(crate::simulator::Fault::Throttled));
        assert_eq!(world.ask().await, 429);
        world.swr.set_fault(None);
        let requests = world.swr.requests();
        let paused = world.api.call(&Call::get(world.jobs.clone())).await.unwrap_err();
        assert_eq!((paused.retry_after, world.swr.requests()), (Some(Duration::from_secs(2)), requests));
        world.clock.advance(Duration::from_secs(2));
        assert_eq!(world.ask().await, 200);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_thousand_requests_with_one_wrong_key_are_one_failure() {
        let world = world(r#"{ kind = "ak_sk", access_key = "SIMULATEDKEY", secret_key = "wrong" }"#).await;
        let world = Arc::new(world);
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let world = Arc::clone(&world);
            asking.spawn(async move { drop(world.api.call(&Call::get(world.jobs.clone())).await) });
        }
        asking.join_all().await;
        assert_eq!(world.swr.accounts().refused, 1);
    }
}
