//! Receivers that are services of Huawei Cloud: all that they share. A kind is what is its own, a [`Service`]: its wording, the
//! permission that it needs, and what it means by a 200.
//!
//! Who asks, the signature, a wrong clock and a key that is to rest are [`Api`]'s business, shared with the sources: an access
//! key is locked by the cloud for all who use it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::post::{RETRY_AFTER_MAX, retry_after};
use super::{Common, Receiver, Sent, reach};
use crate::cloud::credential::Surroundings;
use crate::cloud::{Api, Call, Credential, Route, region};
use crate::document::{Item, Level, Table, nearest};
use crate::http::{Answer, Method, Url};
use crate::model::delivery::{Claimed, Outcome, Owed};
use crate::model::examination::{Finding, Health};
use crate::model::listing::{Fault, FaultKind};
use crate::model::time::Timestamp;

/// What a region's name is made of.
pub(super) const REGION: &str = "^[a-z0-9-]+$";
/// What an id or a name in a path is made of.
pub(super) const WORD: &str = "^[A-Za-z0-9_-]+$";

/// What is a kind's own.
pub(super) trait Service: Send + Sync + 'static {
    /// The permission that its call needs.
    const PERMISSION: &'static str;

    /// The body in its final wording. Pure, and without secrets: it is stored.
    fn word(&self, owed: &Owed) -> Vec<u8>;

    /// What a 200 with this body means; `None` if it is no answer of this service. What is secret has been taken out of it.
    fn judge(&self, said: &Value) -> Option<Outcome>;
}

/// Where a service is asked, as the table says it.
pub(super) struct Site {
    pub(super) region: Option<Item<String>>,
    endpoint: Option<Item<String>>,
    pub(super) project: Option<Item<String>>,
}

/// That, with what the kind knows besides.
pub(super) struct Place {
    pub(super) region: String,
    pub(super) project: String,
    /// Where the service answers in that region.
    pub(super) usual: fn(&str) -> String,
    /// Where an endpoint that cannot be used came from, if the table has none.
    pub(super) span: std::ops::Range<usize>,
    /// After the endpoint.
    pub(super) path: String,
}

impl Site {
    /// Reads `region`, `endpoint` and `project_id`.
    pub(super) fn read(table: &Table<'_>) -> Self {
        // Credentials are asked for only when it is known where to, and are no strangers before.
        table.known(&["credentials"]);
        Self { region: table.string("region"), endpoint: table.string("endpoint"), project: table.string("project_id") }
    }

    /// `None` when a region or a project cannot be; `help` says what to do without one.
    pub(super) fn check(&self, table: &Table<'_>, help: &str) -> Option<()> {
        if let Some(item) = &self.region {
            check_region(table, item)?;
        }
        if let Some(item) = self.project.as_ref().filter(|item| !is_word(&item.value)) {
            table.error("project", item.span.clone(), "a project id is made of letters and digits", help);
            return None;
        }
        Some(())
    }

    /// A receiver at this place.
    pub(super) fn receiver(
        self,
        table: &Table<'_>,
        common: &Common<'_>,
        place: &Place,
        service: impl Service,
    ) -> Option<Arc<dyn Receiver>> {
        let Place { region, project, usual, span, path } = place;
        let (text, span) = match self.endpoint {
            Some(endpoint) => (endpoint.value, endpoint.span),
            None => (usual(region), span.clone()),
        };
        let route = Route { timeout: common.timeout, ca: common.ca.as_deref(), proxy: common.proxy.as_ref() };
        let base = region::endpoint(&text, route.proxy).map_err(|why| {
            table.error("endpoint", span, format!("the endpoint cannot be used: {why}"), usual("ap-southeast-3"));
        });
        let base = base.ok()?;
        let url = base.join(path).ok()?;
        let around = Surroundings { pool: common.pool, region: Some(region), project, route };
        let credential = Credential::read(table, common.secrets, &around)?;
        let api = Api::new(common.pool, route, credential, &base, project, None).map_err(|error| {
            table.error("tls", table.span(), format!("the certificates cannot be used: {error}"), "check `ca_file`");
        });
        Some(Arc::new(Asked { api: api.ok()?, url, timeout: common.timeout, service }))
    }
}

pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

pub(super) fn is_region(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// New regions appear, so one that is not known is only doubtful.
fn check_region(table: &Table<'_>, item: &Item<String>) -> Option<()> {
    let near = || nearest(&item.value, region::REGIONS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    if !is_region(&item.value) {
        let help = near().unwrap_or_else(|| "region = \"ap-southeast-3\"".to_owned());
        table.error("region", item.span.clone(), format!("`{}` is no region", item.value), help);
        return None;
    }
    if !region::REGIONS.contains(&item.value.as_str()) {
        let message = format!("`{}` is no known region", item.value);
        table.report(Level::Warning, "region", item.span.clone(), message, near().unwrap_or_default());
    }
    Some(())
}

struct Asked<S> {
    api: Api,
    url: Url,
    timeout: Duration,
    service: S,
}

impl<S: Service> fmt::Debug for Asked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("host", &self.target()).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Service> Receiver for Asked<S> {
    fn freeze(&self, owed: &Owed) -> Vec<u8> {
        self.service.word(owed)
    }

    async fn send(&self, claimed: &Claimed, now: Timestamp) -> Sent {
        // A renewed token or a corrected clock is a second request.
        let asking = tokio::time::timeout(self.timeout, self.ask(&claimed.frozen.payload, now));
        let late = || Outcome::Unreachable { why: "no answer in time".into(), retry_after: None };
        asking.await.unwrap_or_else(|_| late()).into()
    }

    fn target(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// As far as goes without a call that the service would act on.
    async fn examine(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !reach::name(&self.url, self.api.proxy(), &mut findings).await {
            return findings;
        }
        let mut origin = self.url.clone();
        origin.set_path("/");
        match self.api.certificate(&origin).await {
            Ok(certificate) => {
                findings.push(Finding::new("connection", Health::Good, format!("{} answers", self.target())));
                findings.extend(reach::tls(certificate.as_deref(), now));
            }
            Err(fault) => {
                let mend = "check `region`, `endpoint`, the network, its firewall, `proxy`, and `ca_file` for certificates of your own";
                findings.push(Finding::new("connection", Health::Bad, format!("{fault}: {mend}")));
                return findings;
            }
        }
        // Its answer dates requests from now on.
        if self.api.reach(&origin).await.is_ok() {
            findings.push(match self.api.remark() {
                None => Finding::new("clock", Health::Good, "agrees with the cloud's to the minute"),
                Some(remark) => Finding::new("clock", Health::Doubtful, remark),
            });
        }
        let label = self.api.credential().label();
        findings.push(match self.api.prove().await {
            Ok(()) => {
                let text = format!("{label}; only a message tells whether it has the permission {}", S::PERMISSION);
                Finding::new("credential", Health::Good, text)
            }
            Err(fault) => Finding::new("credential", Health::Bad, format!("{fault} ({label})")),
        });
        findings
    }
}

impl<S: Service> Asked<S> {
    async fn ask(&self, body: &[u8], now: Timestamp) -> Outcome {
        let Ok(body) = std::str::from_utf8(body) else {
            return Outcome::Refused { why: "the stored message cannot be read".into() };
        };
        let call = Call { method: Method::POST, url: self.url.clone(), body: Some(body) };
        match self.api.call(&call).await {
            Ok(answer) => self.judge(&answer, now).await,
            Err(fault) => unsent(fault),
        }
    }

    async fn judge(&self, answer: &Answer, now: Timestamp) -> Outcome {
        if answer.status == 200 {
            let said = self.api.credential().redact(&String::from_utf8_lossy(&answer.body));
            let said: Value = serde_json::from_str(&said).unwrap_or_default();
            if let Some(outcome) = self.service.judge(&said) {
                return outcome;
            }
        }
        let fault = self.api.fault(answer, S::PERMISSION).await;
        let mut why = fault.text;
        if let Some(clock) = self.api.remark() {
            why += &format!("; {clock}");
        }
        match answer.status {
            408 | 425 | 429 | 500.. => {
                let after = retry_after(answer, now).max(fault.retry_after);
                Outcome::Unreachable { why, retry_after: after.map(|after| after.min(RETRY_AFTER_MAX)) }
            }
            _ => Outcome::Refused { why },
        }
    }
}

/// Nothing was sent, or nobody said so.
fn unsent(fault: Fault) -> Outcome {
    let Fault { kind, text: why, retry_after } = fault;
    match kind {
        FaultKind::Unauthorized | FaultKind::Misdirected => Outcome::Refused { why },
        FaultKind::Throttled
        | FaultKind::Unavailable
        | FaultKind::Malformed
        | FaultKind::Shifted
        | FaultKind::Vanished => {
            Outcome::Unreachable { why, retry_after: retry_after.map(|after| after.min(RETRY_AFTER_MAX)) }
        }
    }
}
