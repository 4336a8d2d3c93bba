//! `kind = "swr"`: the jobs of Huawei Cloud SWR Enterprise Edition, `GET /v2/{project_id}/jobs`.
//!
//! Lenient about rows (the API declares no field as required and its enums are open), strict about what makes a listing:
//! status 200, one JSON document, a `jobs` array, a `total` that adds up. Anything else is a fault, never an empty list.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::pager::{Page, Row};
use super::survey::{Shelf, Survey};
use super::{Common, Finding, Health, Kind, Source};
use crate::cloud::credential::Surroundings;
use crate::cloud::error::{ApiError, describe};
use crate::cloud::{Api, Call, Credential, Project, Route, region};
use crate::document::schema::{about, shaped, table};
use crate::document::{Level, Table, nearest};
use crate::http::{Answer, Proxy, Url};
use crate::model::index::Index;
use crate::model::job::{FIELDS, Job, Status, Text};
use crate::model::listing::{Fault, FaultKind, Listing, Point, Rows};
use crate::model::name::JobId;
use crate::model::notification::SourceFacts;
use crate::model::text::cut;

pub(super) const KIND: Kind =
    Kind { name: "swr", about: "the jobs of Huawei Cloud SWR Enterprise Edition", read, schema };

/// A reason is cut to this many bytes, with `…`: it is to be read by people.
const REASON_MAX: usize = 64 << 10;
/// Any other field is cut here. An id that is longer is none: two of them could become one.
const FIELD_MAX: usize = 1 << 10;
/// All readings of all pages together may take this long.
const LISTING_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Swr {
    facts: Arc<SourceFacts>,
    api: Api,
    jobs: Url,
    survey: Survey,
}

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Source>> {
    // These are asked for only when it is known where to, and are no strangers before.
    table.known(&["credentials", "sts_endpoint"]);
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
    let route = Route { timeout: common.timeout, ca: common.ca.as_deref(), proxy: common.proxy.as_ref() };
    let base = match region::endpoint(&text, route.proxy) {
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
    let around = Surroundings {
        pool: common.pool,
        region: region.as_ref().map(|region| region.value.as_str()),
        project: &project.value,
        route,
    };
    let credential = Credential::read(table, common.secrets, &around);
    let sts = sts(table, region.as_ref().map(|region| region.value.as_str()), route.proxy);
    let api = Api::new(common.pool, route, credential?, &base, &project.value, sts)
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
    Some(Arc::new(Swr { facts: Arc::new(facts), api, jobs, survey: Survey::default() }))
}

fn schema() -> Value {
    let url = "^https?://";
    let known = json!({ "enum": region::REGIONS });
    let region = about(
        "Where it runs; gives the endpoint.",
        json!({ "anyOf": [known, { "type": "string", "description": "Any other region, with `endpoint`." }] }),
    );
    let mut schema = table(
        "",
        &["project_id", "credentials"],
        [
            ("region", region),
            ("endpoint", shaped("Where the API answers; wins over `region`. http:// only for loopback.", url)),
            ("project_id", shaped("The project's id: console, \"My Credentials\".", "^[A-Za-z0-9-]+$")),
            ("credentials", Credential::schema()),
            ("sts_endpoint", shaped("Where a refusal is explained; the region's, if left out.", url)),
        ],
    );
    schema["anyOf"] = json!([
        { "required": ["endpoint"] },
        { "properties": { "region": known }, "required": ["region"] },
    ]);
    let password = json!({ "properties": { "kind": { "const": "password" } }, "required": ["kind"] });
    schema["if"] = json!({ "not": { "required": ["region"] }, "properties": { "credentials": password } });
    schema["then"] = json!({ "properties": { "credentials": { "required": ["iam_endpoint"] } } });
    schema
}

/// Where refusals are explained: the region's, or what `sts_endpoint` says.
fn sts(table: &Table<'_>, region: Option<&str>, proxy: Option<&Proxy>) -> Option<(Url, String)> {
    let named = table.string("sts_endpoint");
    let text = match (&named, region) {
        (Some(named), _) => named.value.clone(),
        (None, Some(region)) => region::sts(region),
        (None, None) => return None,
    };
    let url = region::endpoint(&text, proxy).map_err(|why| {
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

    async fn list(&self, index: &Index, whole: bool) -> Listing {
        let all = tokio::time::timeout(LISTING_MAX, self.survey.list(self, index, whole));
        all.await.unwrap_or_else(|_| {
            let text = format!("the listing took longer than {LISTING_MAX:?}");
            let fault = Fault { kind: FaultKind::Unavailable, text, retry_after: None };
            Listing::Incomplete { rows: Rows::default(), fault }
        })
    }

    async fn show(&self, id: &JobId) -> Point {
        Shelf::show(self, id).await.unwrap_or(Point::Unknown)
    }

    fn remarks(&self) -> Vec<String> {
        self.api.remark().into_iter().chain(self.survey.remark()).collect()
    }

    fn project(&self) -> Option<Project<'_>> {
        Some(Project { api: &self.api, jobs: &self.jobs })
    }

    fn credential(&self) -> String {
        self.api.credential().label().to_owned()
    }

    async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |what, health, text: String| findings.push(Finding { what, health, text });
        let (host, port) = (self.jobs.host_str().unwrap_or_default(), self.jobs.port_or_known_default().unwrap_or(443));
        if let Some(proxy) = self.api.proxy() {
            // Whether it has an address here does not matter.
            find("proxy", Health::Good, format!("{host} is looked up and connected to by {proxy}"));
        } else {
            match tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await {
                Ok(found) => {
                    let addresses: Vec<String> = found.take(4).map(|address| address.ip().to_string()).collect();
                    find("dns", Health::Good, format!("{host} is {}", addresses.join(", ")));
                }
                Err(error) => {
                    let mend =
                        "check `region`, `endpoint` and this machine's resolver; `proxy` where only one leads out";
                    find("dns", Health::Bad, format!("{host} has no address ({error}): {mend}"));
                    return findings;
                }
            }
        }
        if let Err(fault) = self.api.reach(&self.jobs).await {
            let mend =
                "check the network, its firewall, `proxy`, and `ca_file` where a proxy has certificates of its own";
            find("connection", Health::Bad, format!("{fault}: {mend}"));
            return findings;
        }
        let how = if self.jobs.scheme() == "https" { "connected, and the certificate is good" } else { "connected" };
        find("connection", Health::Good, how.into());
        let listed = Shelf::page(self, None, 0, 1, &Index::default()).await;
        match self.api.remark() {
            None => find("clock", Health::Good, "agrees with the cloud's to the minute".into()),
            Some(remark) => find("clock", Health::Doubtful, remark),
        }
        let label = self.credential();
        let project = &self.facts.project_id;
        match listed {
            Ok(page) => {
                find("credential", Health::Good, label);
                let jobs = page.total;
                find("listing", Health::Good, format!("project {project} may be listed: {jobs} jobs"));
            }
            Err(fault) => {
                let what = match fault.kind {
                    FaultKind::Unauthorized if fault.text.contains("HTTP 403") => "permission",
                    FaultKind::Unauthorized => "credential",
                    FaultKind::Misdirected => "region and project",
                    FaultKind::Throttled
                    | FaultKind::Unavailable
                    | FaultKind::Malformed
                    | FaultKind::Shifted
                    | FaultKind::Vanished => "listing",
                };
                find(what, Health::Bad, format!("{} ({label}, project {project})", fault.text));
            }
        }
        findings
    }
}

impl Shelf for Swr {
    async fn page(&self, status: Option<&Status>, offset: usize, limit: usize, index: &Index) -> Result<Page, Fault> {
        let mut url = self.jobs.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &limit.to_string()).append_pair("offset", &offset.to_string());
            if let Some(status) = status {
                query.append_pair("status", status.as_str());
            }
        }
        let answer = self.get(url).await?;
        if answer.status != 200 {
            if answer.status == 504 {
                self.survey.too_slow();
            }
            return Err(self.api.fault(&answer, "swr:instance:listJobs").await);
        }
        page(&answer, index).map_err(|why| {
            let text = format!("HTTP 200, but no listing: {why}");
            Fault { kind: FaultKind::Malformed, text, retry_after: None }
        })
    }

    async fn show(&self, id: &JobId) -> Result<Point, Fault> {
        let mut url = self.jobs.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.push(id.as_str()),
            Err(()) => return Ok(Point::Unknown),
        };
        let answer = self.get(url).await?;
        match answer.status {
            200 => {
                let text = String::from_utf8_lossy(&answer.body);
                let text = mend(&text);
                let job = serde_json::from_str::<RawRow<'_>>(&text).ok();
                let job = job.and_then(RawRow::job).filter(|job| job.id == *id);
                Ok(job.map_or(Point::Unknown, Point::Found))
            }
            404 if ApiError::read(&answer).is_missing_resource(&answer) => Ok(Point::NotFound),
            _ => Err(self.api.fault(&answer, "swr:instance:listJobs").await),
        }
    }
}

impl Swr {
    async fn get(&self, url: Url) -> Result<Answer, Fault> {
        self.api.call(&Call::get(url)).await
    }
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    jobs: Option<Vec<RawRow<'a>>>,
    total: Option<Value>,
}

/// Reads a page of the listing, or says why it is none.
fn page(answer: &Answer, index: &Index) -> Result<Page, String> {
    if answer.header("content-type").is_some_and(|kind| kind.contains("html")) {
        return Err(describe(answer));
    }
    // A name that is no UTF-8 must not blind the agent.
    read_page(&String::from_utf8_lossy(&answer.body), index).map_err(|why| format!("{}: {why}", describe(answer)))
}

/// Reads the body of a page. Rows that say what the index knows come without their job.
pub(super) fn read_page(text: &str, index: &Index) -> Result<Page, String> {
    let text = text.trim_start_matches('\u{feff}');
    let (total, rows) = match serde_json::from_str::<RawPage<'_>>(text) {
        Ok(raw) => (raw.total, raw.jobs.map(|rows| rows.into_iter().map(|row| row.compare(index)).collect::<Vec<_>>())),
        Err(error) => row_by_row(text, index).ok_or_else(|| error.to_string())?,
    };
    let total = match total {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let total = total.and_then(|total| usize::try_from(total).ok()).ok_or("`total` is missing or no number")?;
    let rows = match rows {
        Some(rows) => rows,
        None if total == 0 => Vec::new(),
        None => return Err("`jobs` is missing".into()),
    };
    let count = rows.len();
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    Ok(Page { total, unreadable: count - rows.len(), rows })
}

/// The total, and the rows; `None` for one that cannot be used.
type Parts = (Option<Value>, Option<Vec<Option<Row>>>);

/// Reads a page that is JSON and still holds what cannot be read, such as half of a surrogate pair in somebody's name: it
/// costs that row alone. Slower, and only for such pages.
fn row_by_row(text: &str, index: &Index) -> Option<Parts> {
    #[derive(Deserialize)]
    struct Loose<'a> {
        #[serde(borrow)]
        jobs: Option<Vec<&'a RawValue>>,
        total: Option<Value>,
    }
    let page: Loose<'_> = serde_json::from_str(text).ok()?;
    let row = |row: &RawValue| serde_json::from_str::<RawRow<'_>>(&mend(row.get())).ok()?.compare(index);
    Some((page.total, page.jobs.map(|rows| rows.into_iter().map(row).collect())))
}

/// JSON in which an escape that is half of a surrogate pair, and so no character, is U+FFFD.
fn mend(json: &str) -> Cow<'_, str> {
    let unit = |at: usize| {
        let digits = json.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        let high = unit(at).is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
        let low = |at| unit(at).is_some_and(|unit| (0xdc00..0xe000).contains(&unit));
        if high && low(at + 6) {
            at += 12;
        } else if high || low(at) {
            mended.push_str(&json[copied..at]);
            mended.push_str("\\ufffd");
            at += 6;
            copied = at;
        } else {
            // With the character that is escaped, which may be a backslash itself.
            at += 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8);
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    mended.push_str(&json[copied..]);
    Cow::Owned(mended)
}

/// A row as it comes, by the fields' places in [`NAMES`]. Any may be missing, null, or of another type; a row that is no
/// object has none.
#[derive(Default)]
struct RawRow<'a>([Lenient<'a>; FIELDS]);

/// The fields of a row, in the order of [`Job::fields`].
const NAMES: [&str; FIELDS] =
    ["id", "instance_id", "resource_id", "resource_name", "type", "status", "reason", "created_at", "updated_at"];
const ID: usize = 0;
const STATUS: usize = 5;
const REASON: usize = 6;

impl RawRow<'_> {
    /// The row, with its job if that is news. `None` without an id or a status: such a row cannot be watched.
    fn compare(self, index: &Index) -> Option<Row> {
        let status = Status::read(self.0[STATUS].0.as_deref()?);
        let key = index.key(self.0[ID].0.as_deref()?);
        let mut fields = self.0.each_ref().map(|field| field.0.as_deref());
        fields[STATUS] = Some(status.as_str());
        let known = index.is_known(key, &fields);
        Some(Row { key, job: if known { None } else { self.job() } })
    }

    fn job(self) -> Option<Job> {
        let [id, instance_id, resource_id, resource_name, kind, status, reason, created_at, updated_at] = self.0;
        let text = |field: Lenient<'_>| field.0.map(|text| Text::from(text.into_owned()));
        Some(Job {
            id: JobId::new(&*id.0?),
            status: Status::read(&status.0?),
            instance_id: text(instance_id),
            resource_id: text(resource_id),
            resource_name: text(resource_name),
            kind: text(kind),
            reason: text(reason),
            created_at: text(created_at),
            updated_at: text(updated_at),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawRow<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = RawRow<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut row = RawRow::default();
        while let Some(key) = map.next_key::<Lenient<'de>>()? {
            let name = key.0.as_deref().unwrap_or_default();
            match NAMES.iter().position(|known| *known == name) {
                Some(at) => row.0[at] = map.next_value::<Lenient<'de>>()?.bounded(at),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(row)
    }

    // What is no object is a row without fields: it costs only itself.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawRow::default())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(RawRow::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(RawRow::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(RawRow::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(RawRow::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(RawRow::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(RawRow::default())
    }
}

/// Text, or what can be read as text; borrowed from the page where it stands there as it is. Empty is missing; NUL, which
/// databases refuse, becomes U+FFFD.
#[derive(Default)]
struct Lenient<'a>(Option<Cow<'a, str>>);

impl<'a> Lenient<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        let text = if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text };
        Self(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// No longer than its place allows.
    fn bounded(self, at: usize) -> Self {
        let max = if at == REASON { REASON_MAX } else { FIELD_MAX };
        match self.0 {
            Some(text) if text.len() > max => Self((at != ID).then(|| Cow::Owned(cut(&text, max).into_owned()))),
            text => Self(text),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Lenient<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Lenient<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Lenient::of(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Lenient::of(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Lenient::of(Cow::Owned(flag.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Lenient::of(Cow::Owned(number.to_string())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Lenient::of(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Lenient::of(Cow::Owned(number.to_string())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let value = Value::deserialize(SeqAccessDeserializer::new(seq))?;
        Ok(Lenient::of(Cow::Owned(value.to_string())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let value = Value::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Lenient::of(Cow::Owned(value.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Index, Job, page};

    fn read(body: &str) -> Result<super::Page, String> {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        page(&Answer { status: 200, headers, body: body.as_bytes().to_vec() }, &Index::default())
    }

    fn jobs(page: &super::Page) -> Vec<&Job> {
        page.rows.iter().filter_map(|row| row.job.as_ref()).collect()
    }

    #[test]
    fn the_specifications_own_example_reads_whole() {
        let page = read(include_str!("../../tests/fixtures/listing-example.json")).unwrap();
        assert_eq!(page.total, 1);
        let job = jobs(&page)[0];
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
        let read: Vec<(&str, &str)> =
            jobs(&page).into_iter().map(|job| (job.id.as_str(), job.status.as_str())).collect();
        assert_eq!((read, page.unreadable), (vec![("a", "Failed"), ("7", "Paused")], 3));
        assert_eq!(jobs(&page)[1].reason.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn half_a_character_costs_no_row_and_a_row_that_cannot_be_read_costs_only_itself() {
        let page = read(
            r#"{"total": 4, "jobs": [{"id":"a","status":"Failed","reason":"x\ud800y\\\\ud800 \ud83d\ude00 \udc00\ud800\u0041"},
            {"id":"b","status":"Failed","reason":1e999},{"id":"c","status":"Failed","\ud800":1},{"id":"d","status":"Success"}]}"#,
        )
        .unwrap();
        let read: Vec<(&str, Option<&str>)> =
            jobs(&page).into_iter().map(|job| (job.id.as_str(), job.reason.as_deref())).collect();
        let mended = "x\u{fffd}y\\\\ud800 😀 \u{fffd}\u{fffd}A";
        assert_eq!((read, page.unreadable), (vec![("a", Some(mended)), ("c", None), ("d", None)], 1));
    }

    #[test]
    fn what_is_no_utf_8_is_a_mark_and_costs_no_row() {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        let body =
            b"{\"total\":1,\"jobs\":[{\"id\":\"a\",\"status\":\"Failed\",\"reason\":\"caf\xe9 \xff\"}]}".to_vec();
        let page = page(&Answer { status: 200, headers, body }, &Index::default()).unwrap();
        assert_eq!(jobs(&page)[0].reason.as_deref(), Some("caf\u{fffd} \u{fffd}"));
    }

    #[test]
    fn a_field_is_cut_between_characters_and_an_id_that_would_be_is_none() {
        let (long, id) = ("夜".repeat(1 << 19), "x".repeat(1_025));
        let row = |id: &str| format!(r#"{{"id":"{id}","status":"Failed","reason":"{long}","resource_name":"{long}"}}"#);
        let page = read(&format!(r#"{{"total":2,"jobs":[{},{}]}}"#, row("a"), row(&id))).unwrap();
        let job = jobs(&page)[0];
        let (reason, name) = (job.reason.as_deref().unwrap(), job.resource_name.as_deref().unwrap());
        assert_eq!((page.unreadable, reason.len(), name.len()), (1, 65_535, 1_023));
        assert!(reason.ends_with("夜…") && name.ends_with("夜…"));
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
        assert_eq!(read(r#"{"total":0,"jobs":null}"#).unwrap().rows, []);
    }
}
