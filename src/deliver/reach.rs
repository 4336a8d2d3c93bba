//! Whether a receiver's host can be reached, as `doctor` asks it; nothing is sent that anybody would be told of.

use std::time::Duration;

use crate::http::{Proxy, Url, certificate};
use crate::model::examination::{Finding, Health};
use crate::model::time::Timestamp;

/// A certificate that ends so soon is to be renewed now.
const CERTIFICATE_LEFT_MIN: Duration = Duration::from_secs(14 * 86_400);

/// The host of a URL, or who looks it up in our place. `false` if nobody can be asked.
pub(super) async fn name(url: &Url, proxy: Option<&Proxy>, findings: &mut Vec<Finding>) -> bool {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
    let Some(proxy) = proxy else { return dns(host, port, findings).await };
    // Whether it has an address here does not matter.
    findings.push(Finding::new("proxy", Health::Good, format!("{host} is looked up and connected to by {proxy}")));
    true
}

/// The addresses of a host. `false` if there are none.
pub(super) async fn dns(host: &str, port: u16, findings: &mut Vec<Finding>) -> bool {
    match tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await {
        Ok(found) => {
            let addresses: Vec<String> = found.take(4).map(|address| address.ip().to_string()).collect();
            findings.push(Finding::new("dns", Health::Good, format!("{host} is {}", addresses.join(", "))));
            true
        }
        Err(error) => {
            let mend = "check its address in the configuration, and this machine's resolver";
            findings.push(Finding::new("dns", Health::Bad, format!("{host} has no address ({error}): {mend}")));
            false
        }
    }
}

/// A certificate that was accepted: for how long it will be.
pub(super) fn tls(certificate: Option<&[u8]>, now: Timestamp) -> Option<Finding> {
    let ends = certificate::ends(certificate?)?;
    let left = Timestamp::from_micros(ends.saturating_mul(1_000_000)).since(now);
    let days = left.as_secs() / 86_400;
    Some(match left < CERTIFICATE_LEFT_MIN {
        true => Finding::new(
            "tls",
            Health::Doubtful,
            format!("the certificate is good for {days} more days only: whoever runs the host renews it"),
        ),
        false => Finding::new("tls", Health::Good, format!("the certificate is good for {days} more days")),
    })
}
