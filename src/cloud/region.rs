//! Where the services answer, by region.

use crate::http::{Proxy, Url, is_loopback};

/// The regions of the official SDKs' table for SWR. Being listed does not prove that Enterprise Edition is sold there.
pub const REGIONS: &[&str] = &[
    "ae-ad-1",
    "af-north-1",
    "af-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "cn-east-2",
    "cn-east-3",
    "cn-east-4",
    "cn-east-5",
    "cn-north-1",
    "cn-north-2",
    "cn-north-4",
    "cn-north-9",
    "cn-north-11",
    "cn-north-12",
    "cn-south-1",
    "cn-south-2",
    "cn-south-4",
    "cn-southwest-2",
    "cn-southwest-3",
    "eu-west-0",
    "eu-west-101",
    "la-north-2",
    "la-south-2",
    "me-east-1",
    "my-kualalumpur-1",
    "na-mexico-1",
    "ru-moscow-1",
    "ru-northwest-2",
    "sa-brazil-1",
    "sa-peru-1",
    "tr-west-1",
];

/// The endpoint of SWR in a region.
pub fn swr(region: &str) -> String {
    service("swr-api", region)
}

/// The endpoint of SMN, the notification service, in a region.
pub fn smn(region: &str) -> String {
    service("smn", region)
}

/// The endpoint of EventGrid, the event bus, in a region.
pub fn event_grid(region: &str) -> String {
    service("eg", region)
}

fn service(name: &str, region: &str) -> String {
    let cloud = if region == "eu-west-101" { "myhuaweicloud.eu" } else { "myhuaweicloud.com" };
    format!("https://{name}.{region}.{cloud}")
}

/// Regions without an IAM endpoint of their own, by the SDKs' table: the global one serves them.
const IAM_GLOBAL: &[&str] =
    &["af-north-1", "ap-southeast-5", "cn-north-11", "cn-south-4", "cn-southwest-3", "ru-northwest-2", "sa-peru-1"];
/// Regions with an STS endpoint; messages of the others are taken to the default one.
const STS: &[&str] = &[
    "af-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "cn-east-3",
    "cn-north-4",
    "cn-south-1",
    "cn-southwest-2",
    "la-south-2",
    "sa-brazil-1",
    "tr-west-1",
];

/// The endpoint of the identity service for a region.
pub fn iam(region: &str) -> String {
    match region {
        "eu-west-101" => "https://iam.eu-west-101.myhuaweicloud.eu".into(),
        region if IAM_GLOBAL.contains(&region) => "https://iam.myhuaweicloud.com".into(),
        region => format!("https://iam.{region}.myhuaweicloud.com"),
    }
}

/// The region whose security token service serves this one.
pub fn sts_region(region: &str) -> &str {
    if STS.contains(&region) { region } else { "cn-north-4" }
}

/// The endpoint of the security token service for a region.
pub fn sts(region: &str) -> String {
    format!("https://sts.{}.myhuaweicloud.com", sts_region(region))
}

/// An endpoint with a slash at its end, so that paths can be joined to it.
///
/// # Errors
/// Says why credentials must not be sent there.
pub fn endpoint(text: &str, proxy: Option<&Proxy>) -> Result<Url, String> {
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|error| error.to_string())?;
    if let Some(proxy) = proxy {
        proxy.carries(&url)?;
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err("http is accepted for loopback addresses only: credentials would travel in clear".into()),
        other => Err(format!("{other} is not https")),
    }
}
