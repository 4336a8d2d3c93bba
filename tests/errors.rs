//! Every row of the error table, from a server that answers so: what it is taken for, what the operator reads, and when
//! the cloud is asked again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use jobwatch::config::{self, Purpose};
use jobwatch::model::index::Index;
use jobwatch::model::listing::{Fault, FaultKind, Listing};
use jobwatch::simulator::serve;
use jobwatch::source::Source;

type Answer = (u16, &'static [(&'static str, &'static str)], String);

#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn respond(State(server): State<Server>, uri: Uri) -> Response {
    server.asked.lock().unwrap().push(uri.query().unwrap_or_default().to_owned());
    let (status, headers, body) = server.answer.lock().unwrap().clone();
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

impl Server {
    async fn start() -> (Self, Arc<dyn Source>) {
        let server = Self { answer: Arc::new(Mutex::new((200, &[], String::new()))), asked: Arc::default() };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(respond).with_state(server.clone());
        #[expect(clippy::disallowed_methods, reason = "a server of the story, not of the product")]
        tokio::spawn(serve(listener, router, std::future::pending()));
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[agent]\nallow_inline_secrets = true\nnotify = []\n[[source]]\nname = \"prod\"\nkind = \"swr\"\nproject_id = \"p1\"\n\
             endpoint = \"http://{address}\"\ncredentials = {{ kind = \"token\", token = \"canary-token\" }}\n"
        );
        let path = directory.path().join("jobwatch.toml");
        std::fs::write(&path, text).unwrap();
        let (config, report) = config::load(&path, Purpose::Run);
        assert!(!report.has_errors(), "{:?}", report.lines().collect::<Vec<_>>());
        (server, Arc::clone(&config.unwrap().sources[0].source))
    }

    fn set(&self, status: u16, headers: &'static [(&'static str, &'static str)], body: &str) {
        *self.answer.lock().unwrap() = (status, headers, body.to_owned());
    }
}

async fn fault(source: &dyn Source) -> Fault {
    match source.list(&Index::default(), true).await {
        Listing::Incomplete { rows, fault } => {
            assert!(rows.jobs.is_empty());
            fault
        }
        other @ (Listing::Complete(_) | Listing::Brief(_)) => panic!("{other:?}"),
    }
}

const AUTH: &str = "the credential was not accepted: a token lasts 24 hours";
const SETUP: &str = "check `region` and `endpoint`";

/// Status, gateway code, what it is taken for, and what the operator reads.
#[rustfmt::skip]
const GATEWAY: &[(u16, &str, FaultKind, &str)] = &[
    (404, "0101", FaultKind::Misdirected, SETUP),
    (404, "0103", FaultKind::Misdirected, "check `endpoint`"),
    (400, "0106", FaultKind::Misdirected, "check `endpoint`"),
    (400, "0201", FaultKind::Misdirected, "check `region`, `endpoint` and `project_id`"),
    (413, "0201", FaultKind::Misdirected, "check `region`"),
    (414, "0201", FaultKind::Misdirected, "check `region`"),
    (494, "0201", FaultKind::Misdirected, "headers are too long: use a token without a catalogue"),
    (502, "0201", FaultKind::Unavailable, ""),
    (504, "0201", FaultKind::Unavailable, "smaller pages are asked for"),
    (504, "0203", FaultKind::Unavailable, "smaller pages are asked for"),
    (401, "0301", FaultKind::Unauthorized, AUTH),
    (403, "0302", FaultKind::Unauthorized, "may not call this API"),
    (401, "0303", FaultKind::Unauthorized, "application's credential"),
    (403, "0304", FaultKind::Unauthorized, "may not call this API"),
    (401, "0305", FaultKind::Unauthorized, "application's credential"),
    (403, "0306", FaultKind::Unauthorized, "may not be called from here"),
    (401, "0307", FaultKind::Unauthorized, "expired, was revoked, or belongs to another region"),
    (403, "0310", FaultKind::Misdirected, "check `project_id`"),
    (403, "0401", FaultKind::Misdirected, "refuses this machine's address"),
    (403, "0402", FaultKind::Misdirected, "refuses this machine's address"),
    (403, "0404", FaultKind::Misdirected, "refuses the service's address"),
    (405, "0501", FaultKind::Misdirected, "quota is used up"),
    (405, "0502", FaultKind::Misdirected, "frozen or in arrears"),
    (500, "0601", FaultKind::Unavailable, ""),
    (400, "0602", FaultKind::Misdirected, "cannot read the request"),
    (500, "0605", FaultKind::Unavailable, ""),
    (500, "0606", FaultKind::Unavailable, ""),
    (400, "0607", FaultKind::Misdirected, "cannot read the request"),
    (500, "0608", FaultKind::Unavailable, ""),
    (500, "0609", FaultKind::Unavailable, ""),
    (502, "0610", FaultKind::Unavailable, ""),
    (500, "0611", FaultKind::Unavailable, ""),
    (500, "0612", FaultKind::Unavailable, ""),
    (503, "0613", FaultKind::Unavailable, "identity service is away"),
    (500, "0705", FaultKind::Unavailable, ""),
    (403, "0801", FaultKind::Misdirected, "not available to this user in this region"),
    (403, "0802", FaultKind::Misdirected, "not available to this user in this region"),
];

#[tokio::test]
async fn every_code_of_the_gateway_is_sorted_by_what_helps_whatever_its_prefix() {
    let (server, source) = Server::start().await;
    for (status, code, kind, words) in GATEWAY {
        for prefix in ["APIGW", "APIG"] {
            let body =
                format!(r#"{{"error_msg":"what went wrong","error_code":"{prefix}.{code}","request_id":"r-17"}}"#);
            server.set(*status, &[], &body);
            let fault = fault(&*source).await;
            let line = format!("HTTP {status} {prefix}.{code}: what went wrong (request r-17)");
            assert!(fault.text.starts_with(&line) && fault.text.contains(words), "{code}: {}", fault.text);
            assert_eq!((fault.kind, fault.retry_after), (*kind, None), "{prefix}.{code}");
        }
    }
}

/// Status, body, what it is taken for, and what the operator reads.
#[rustfmt::skip]
const SERVICE: &[(u16, &str, FaultKind, &str)] = &[
    (400, r#"{"error_code":"SVCSTG.SWR.4000016","error_msg":"Request error"}"#, FaultKind::Misdirected, "HTTP 400 SVCSTG.SWR.4000016: Request error; check"),
    (401, r#"{"error_code":"SVCSTG.SWR.4010000","error_msg":"Unauthorized"}"#, FaultKind::Unauthorized, AUTH),
    (403, r#"{"error_code":"SVCSTG.SWR.4030170","error_msg":"Insufficient permissions","errors":[{"errorCode":"x","errorMessage":"y"}]}"#, FaultKind::Unauthorized, "the user needs the permission swr:instance:listJobs"),
    (404, r#"{"errors":[{"errorCode":"SVCSTG.SWR.4040004","errorMessage":"not found","detail":""}]}"#, FaultKind::Misdirected, "HTTP 404 SVCSTG.SWR.4040004: not found; check `region`"),
    (500, r#"[{"errorCode":"SVCSTG.SWR.5000001","errorMessage":"internal","detail":""}]"#, FaultKind::Unavailable, "HTTP 500 SVCSTG.SWR.5000001: internal"),
    (401, r#"{"error":{"code":401,"message":"The token is bad","title":"Unauthorized"}}"#, FaultKind::Unauthorized, "HTTP 401 401: The token is bad"),
    (503, "", FaultKind::Unavailable, "HTTP 503: an empty body"),
    (418, "?", FaultKind::Misdirected, "HTTP 418: 1 bytes of application/json; check"),
    (204, "", FaultKind::Malformed, "HTTP 204: an empty body; this is no answer of the called API"),
    (301, "", FaultKind::Misdirected, "redirects are not followed: check `endpoint`"),
    (200, "", FaultKind::Malformed, "HTTP 200, but no listing: an empty body"),
    (200, "[]", FaultKind::Malformed, "HTTP 200, but no listing: 2 bytes of application/json"),
    (200, r#"{"error_code":"SVCSTG.SWR.5000001","error_msg":"internal"}"#, FaultKind::Malformed, "`total` is missing"),
    (200, r#"{"total":3,"jobs":[]}"#, FaultKind::Shifted, "the listing ends after 0 rows, but `total` is 3"),
];

#[tokio::test]
async fn every_shape_of_the_service_is_read_and_no_error_is_an_empty_listing() {
    let (server, source) = Server::start().await;
    for (status, body, kind, words) in SERVICE {
        server.set(*status, &[], body);
        let fault = fault(&*source).await;
        assert!(fault.text.contains(words), "{body}: {}", fault.text);
        assert_eq!((fault.kind, fault.retry_after), (*kind, None), "{body}");
    }
}

#[tokio::test]
async fn throttling_is_waited_out_for_as_long_as_it_says() {
    let throttled = |policy: &str| {
        format!(r#"{{"error_code":"APIGW.0308","error_msg":"The throttling threshold has been reached: {policy}"}}"#)
    };
    type Case = (&'static [(&'static str, &'static str)], String, Option<u64>);
    let cases: [Case; 4] = [
        (&[], throttled("policy user over ratelimit,limit:200,time:5 minute"), Some(300)),
        (&[], throttled("policy ip over ratelimit,limit:5,time:1 second"), Some(1)),
        (&[("retry-after", "7")], throttled("policy api over ratelimit,limit:2000,time:1 minute"), Some(7)),
        (&[], "slow down".into(), None),
    ];
    for (headers, body, seconds) in cases {
        // A throttled host is left alone: each case has its own.
        let (server, source) = Server::start().await;
        server.set(429, headers, &body);
        let first = fault(&*source).await;
        assert_eq!((first.kind, first.retry_after), (FaultKind::Throttled, seconds.map(Duration::from_secs)), "{body}");
        let second = fault(&*source).await;
        assert!(second.text.contains("nothing is asked for another"), "{}", second.text);
        assert_eq!(server.asked.lock().unwrap().len(), 1, "the cloud was not asked again");
    }
}

#[tokio::test]
async fn after_a_504_smaller_pages_are_asked_for_and_offsets_stay_aligned() {
    let (server, source) = Server::start().await;
    server.set(504, &[], r#"{"error_code":"APIGW.0201","error_msg":"Backend timeout"}"#);
    for _ in 0..4 {
        fault(&*source).await;
    }
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked, ["limit=100&offset=0", "limit=50&offset=0", "limit=25&offset=0", "limit=25&offset=0"]);
}

#[tokio::test]
async fn what_a_gateway_echoes_of_the_request_reaches_nobody() {
    let (server, source) = Server::start().await;
    let echo = r#"{"error_code":"APIGW.0301","error_msg":"verify aksk signature fail, canonicalRequest:GET|/|x-auth-token:canary-token"}"#;
    server.set(401, &[], echo);
    assert!(!fault(&*source).await.text.contains("canary"));
    server.set(400, &[], r#"{"error_code":"X","error_msg":"bad canary-token"}"#);
    assert!(fault(&*source).await.text.contains("bad [redacted]"));
}
