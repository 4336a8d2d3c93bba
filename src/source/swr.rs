//! `kind = "swr"`: the jobs of Huawei Cloud SWR Enterprise Edition, `GET /v2/{project_id}/jobs`.
//!
//! Lenient about rows (the API declares no field as required and its enums are open), strict about what makes a listing:
//! status 200, one JSON document, a `jobs` array, a `total` that adds up. Anything else is a fault, never an empty list.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::pager::{Page, Pager, Step};
use super::{Common, Kind, Source};
use crate::cloud::credential::Surroundings;
use crate::cloud::error::describe;
use crate::cloud::{Api, Call, Credential, region};
use crate::document::{Level, Table, nearest};
use crate::http::{Answer, Url};
use crate::model::job::{Job, Status, Text};
use crate::model::listing::{Fault, FaultKind, Listing, Point, Rows};
use crate::model::name::JobId;
use crate::model::notification::SourceFacts;

pub(super) const KIND: Kind = Kind { name: "swr", about: "the jobs of Huawei Cloud SWR Enterprise Edition", read };

/// Text fields are cut here: a reason is to be read by people.
const TEXT_MAX: usize = 64 << 10;
/// A listing that moves while it is read is read again this often before it is called incomplete.
const READINGS_MAX: usize = 3;
/// All readings of all pages together may take this long.
const LISTING_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Swr {
    facts: Arc<SourceFacts>,
    api: Api,
    jobs: Url,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Source>> {
    let region = table.string("region");
    let endpoint = table.string("endpoint");
    let project = table.required("project_id", "the project's id: console, \"My Credentials\"");
    if let Some(region) = &region
        && !region::REGIONS.contains(&region.value.as_str())
    {
        let help = nearest(&region.value, region::REGIONS.iter().copied())
            .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
        let level = if endpoint.is_some() { Level::Warning } else { Level::Error };
        let message = format!("`{}` is no region that SWR is known to answer in", region.value);
        table.report(level, "region", region.span.clone(), message, help);
        endpoint.as_ref()?;
    }
    let (text, span) = match (&endpoint, &region) {
        (Some(endpoint), _) => (endpoint.value.clone(), endpoint.span.clone()),
        (None, Some(region)) => (region::swr(&region.value), region.span.clone()),
        (None, None) => {
            table.missing("region", "region = \"ap-southeast-3\", or endpoint = \"https://…\"");
            return None;
        }
    };
    let base = match region::endpoint(&text) {
        Ok(url) => url,
        Err(why) => {
            table.error(
                "endpoint",
                span,
                format!("the endpoint cannot be used: {why}"),
                "https://swr-api.ap-southeast-3.myhuaweicloud.com",
            );
            return None;
        }
    };
    let project = project?;
    let sound = !project.value.is_empty() && project.value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !sound {
        table.error(
            "project",
            project.span,
            "a project id is made of letters and digits",
            "console, \"My Credentials\"",
        );
        return None;
    }
    let jobs = base.join(&format!("v2/{}/jobs", project.value)).ok()?;
    let ca = common.ca.as_deref();
    let around = Surroundings {
        pool: common.pool,
        region: region.as_ref().map(|region| region.value.as_str()),
        project: &project.value,
        timeout: common.timeout,
        ca,
    };
    let credential = Credential::read(table, common.secrets, &around);
    let sts = sts(table, region.as_ref().map(|region| region.value.as_str()));
    let api = Api::new(common.pool, (common.timeout, ca), credential?, &base, &project.value, sts)
        .map_err(|error| {
            table.error("tls", table.span(), format!("the certificates cannot be used: {error}"), "check `ca_file`")
        })
        .ok()?;
    let facts = SourceFacts {
        name: common.name.clone(),
        kind: KIND.name.to_owned(),
        region: region.map(|region| region.value),
        project_id: project.value,
    };
    Some(Arc::new(Swr { facts: Arc::new(facts), api, jobs }))
}

/// Where refusals are explained: the region's, or what `sts_endpoint` says.
fn sts(table: &Table<'_>, region: Option<&str>) -> Option<(Url, String)> {
    let named = table.string("sts_endpoint");
    let text = match (&named, region) {
        (Some(named), _) => named.value.clone(),
        (None, Some(region)) => region::sts(region),
        (None, None) => return None,
    };
    let url = region::endpoint(&text).map_err(|why| {
        let span = named.as_ref().map_or_else(|| table.span(), |named| named.span.clone());
        table.error("endpoint", span, format!("the STS endpoint cannot be used: {why}"), region::sts("cn-north-4"));
    });
    Some((url.ok()?, region.map_or("cn-north-4", region::sts_region).to_owned()))
}

#[async_trait]
impl Source for Swr {
    fn facts(&self) -> &Arc<SourceFacts> {
        &self.facts
    }

    async fn list(&self) -> Listing {
        let all = tokio::time::timeout(LISTING_MAX, self.readings());
        all.await.unwrap_or_else(|_| {
            let text = format!("the listing took longer than {LISTING_MAX:?}");
            Listing::Incomplete { rows: Rows::default(), fault: fault(FaultKind::Unavailable, text) }
        })
    }

    async fn show(&self, id: &JobId) -> Point {
        let mut url = self.jobs.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.push(id.as_str()),
            Err(()) => return Point::Unknown,
        };
        match self.get(url).await {
            Ok(answer) if answer.status == 404 => Point::NotFound,
            Ok(answer) if answer.status == 200 => row(&String::from_utf8_lossy(&answer.body))
                .filter(|job| job.id == *id)
                .map_or(Point::Unknown, Point::Found),
            Ok(_) | Err(_) => Point::Unknown,
        }
    }
}

impl Swr {
    /// Reads the listing until one reading is unbroken.
    async fn readings(&self) -> Listing {
        let mut last = (Rows::default(), String::new());
        for _ in 0..READINGS_MAX {
            match self.reading().await {
                Ok(Step::Whole(rows)) => return Listing::Complete(rows),
                Ok(Step::Broken { rows, why }) => last = (rows, why),
                Ok(Step::Read { .. }) => {}
                Err((rows, fault)) => return Listing::Incomplete { rows, fault },
            }
        }
        let text = format!("the listing moved while it was read, {READINGS_MAX} times: {}", last.1);
        Listing::Incomplete { rows: last.0, fault: fault(FaultKind::Shifted, text) }
    }

    async fn reading(&self) -> Result<Step, (Rows, Fault)> {
        let mut pager = Pager::default();
        let mut step = pager.start();
        while let Step::Read { offset, limit } = step {
            match self.page(offset, limit).await {
                Ok(page) => step = pager.take(page),
                Err(fault) => return Err((pager.abandon(), fault)),
            }
        }
        Ok(step)
    }

    async fn page(&self, offset: usize, limit: usize) -> Result<Page, Fault> {
        let mut url = self.jobs.clone();
        url.query_pairs_mut().append_pair("offset", &offset.to_string()).append_pair("limit", &limit.to_string());
        let answer = self.get(url).await?;
        if answer.status != 200 {
            return Err(self.api.fault(&answer, "swr:instance:listJobs").await);
        }
        page(&answer).map_err(|why| fault(FaultKind::Malformed, format!("HTTP 200, but no listing: {why}")))
    }

    async fn get(&self, url: Url) -> Result<Answer, Fault> {
        self.api.call(&Call::get(url)).await
    }
}

fn fault(kind: FaultKind, text: String) -> Fault {
    Fault { kind, text, retry_after: None }
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    jobs: Option<Vec<&'a RawValue>>,
    total: Option<Value>,
}

/// Reads a page of the listing, or says why it is none.
fn page(answer: &Answer) -> Result<Page, String> {
    if answer.header("content-type").is_some_and(|kind| kind.contains("html")) {
        return Err(describe(answer));
    }
    // A name that is no UTF-8 must not blind the agent.
    read_page(&String::from_utf8_lossy(&answer.body)).map_err(|why| format!("{}: {why}", describe(answer)))
}

/// Reads the body of a page.
pub(super) fn read_page(text: &str) -> Result<Page, String> {
    let text = text.trim_start_matches('\u{feff}');
    let raw: RawPage<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let total = match raw.total {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let total = total.and_then(|total| usize::try_from(total).ok()).ok_or("`total` is missing or no number")?;
    let rows = match raw.jobs {
        Some(rows) => rows,
        None if total == 0 => Vec::new(),
        None => return Err("`jobs` is missing".into()),
    };
    let count = rows.len();
    let jobs: Vec<Job> = rows.into_iter().filter_map(|raw| row(raw.get())).collect();
    Ok(Page { total, unreadable: count - jobs.len(), jobs })
}

/// A row as it comes: any field may be missing, null, or of another type.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RawRow {
    id: Lenient,
    instance_id: Lenient,
    resource_id: Lenient,
    resource_name: Lenient,
    #[serde(rename = "type")]
    kind: Lenient,
    status: Lenient,
    reason: Lenient,
    created_at: Lenient,
    updated_at: Lenient,
}

/// Reads a row. `None` without an id or a status: such a row cannot be watched.
fn row(text: &str) -> Option<Job> {
    let raw: RawRow = serde_json::from_str(text).ok()?;
    Some(Job {
        id: JobId::new(&*raw.id.0?),
        status: Status::read(&raw.status.0?),
        instance_id: raw.instance_id.0,
        resource_id: raw.resource_id.0,
        resource_name: raw.resource_name.0,
        kind: raw.kind.0,
        reason: raw.reason.0,
        created_at: raw.created_at.0,
        updated_at: raw.updated_at.0,
    })
}

/// Text, or what can be read as text. Empty is missing; NUL, which databases refuse, becomes U+FFFD.
#[derive(Default)]
struct Lenient(Option<Text>);

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null => return Ok(Self(None)),
            other @ (Value::Array(_) | Value::Object(_)) => other.to_string(),
        };
        let mut text = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
        if text.len() > TEXT_MAX {
            let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        Ok(Self(Some(text).filter(|text| !text.trim().is_empty()).map(String::into_boxed_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, page};

    fn read(body: &str) -> Result<super::Page, String> {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        page(&Answer { status: 200, headers, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn the_specifications_own_example_reads_whole() {
        let page = read(include_str!("../../tests/fixtures/listing-example.json")).unwrap();
        assert_eq!(page.total, 1);
        let job = &page.jobs[0];
        assert_eq!(job.reason.as_deref(), Some("failed to select cce cluster"));
        assert_eq!((job.title(), job.status.as_str()), ("test-public", "Failed"));
    }

    #[test]
    fn a_bad_row_costs_only_itself() {
        let page = read(
            r#"{"total": 5, "jobs": [{"id":"a","status":"failed","future":[1]},{"status":"Failed"},
            {"id":"c","status":null},"text",{"id":7,"status":"Paused","reason":"a\u0000b"}]}"#,
        )
        .unwrap();
        let read: Vec<(&str, &str)> = page.jobs.iter().map(|job| (job.id.as_str(), job.status.as_str())).collect();
        assert_eq!((read, page.unreadable), (vec![("a", "Failed"), ("7", "Paused")], 3));
        assert_eq!(page.jobs[1].reason.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn what_is_no_listing_is_never_an_empty_one() {
        let deep = "[".repeat(200_000);
        for body in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"total":5}"#,
            r#"{"total":5,"jobs":null}"#,
            r#"{"jobs":[]}"#,
            r#"{"total":-1,"jobs":[]}"#,
            r#"{"total":0,"jobs":[]} {"#,
            "<html>",
            &deep,
        ] {
            assert!(read(body).is_err(), "{}", &body[..body.len().min(40)]);
        }
        assert_eq!(read(r#"{"total":0,"jobs":null}"#).unwrap().jobs, []);
    }
}
