//! What this machine has to be for jobwatch: a place for the state, and a unit that is hardened.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::model::examination::{Finding, Health};

/// With less room than this for the state, somebody should look; with a tenth of it, nothing goes on for long.
const ROOM_MIN: u64 = 200 << 20;
/// The unit's name.
const UNIT: &str = "jobwatch.service";
/// What `systemd-analyze security` may say of it at most.
const EXPOSURE_MAX: f64 = 1.5;
/// Where the cloud's metadata service answers.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// As long as systemd may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The directory of the state, the file, the room on its disk, and who has it open.
pub(super) fn state(url: &str) -> Vec<Finding> {
    let path = Path::new(url.trim_start_matches("sqlite:"));
    let wanted = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // One that is not there is made, with the rights of the first above it that is.
    let directory = wanted.ancestors().find(|directory| directory.exists()).unwrap_or(Path::new("."));
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut findings = Vec::new();
    let written = match path.exists() {
        true => std::fs::OpenOptions::new().append(true).open(path).map(drop),
        false => Ok(()),
    };
    match written.and_then(|()| tempfile::tempfile_in(directory)) {
        Ok(_) => findings.push(Finding::new("state", Health::Good, format!("{} can be written", path.display()))),
        Err(error) => {
            let text = format!(
                "{} cannot be written ({error}): the user that runs jobwatch needs it; is that you?",
                directory.display()
            );
            findings.push(Finding::new("state", Health::Bad, text));
            return findings;
        }
    }
    findings.extend(rights(path));
    findings.extend(room(directory));
    findings.push(holder(path));
    findings
}

/// Others must not read what is in it: it has the jobs' words, and the bytes of messages.
fn rights(path: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    Some(match mode & 0o077 {
        0 => Finding::new("permissions", Health::Good, format!("{} is its owner's alone", path.display())),
        _ => {
            let path = path.display();
            let text = format!("{path} can be used by others (mode {mode:o}): chmod 600 {path}");
            Finding::new("permissions", Health::Doubtful, text)
        }
    })
}

fn room(directory: &Path) -> Option<Finding> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let text = format!("{} MB free at {}", free >> 20, directory.display());
    Some(match free {
        free if free < ROOM_MIN / 10 => Finding::new("disk", Health::Bad, format!("{text}: make room")),
        free if free < ROOM_MIN => Finding::new("disk", Health::Doubtful, format!("{text}: make room")),
        _ => Finding::new("disk", Health::Good, text),
    })
}

/// Asked of the file that the agent writes its process id to. The lock is not tried: an agent that starts would miss it.
fn holder(path: &Path) -> Finding {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let id = std::fs::read_to_string(PathBuf::from(name)).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let command = id.and_then(|id| Some((id, std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?)));
    match command.filter(|(_, command)| command.trim() == "jobwatch") {
        Some((id, _)) => Finding::new("lock", Health::Good, format!("an agent runs on this state: process {id}")),
        None => Finding::new("lock", Health::Good, "no agent runs on this state"),
    }
}

/// How hardened the unit is, where there is one.
pub(super) async fn unit() -> Vec<Finding> {
    if !Path::new("/run/systemd/system").exists() {
        return Vec::new();
    }
    let arguments = ["security", "--no-pager", UNIT];
    let asked = tokio::process::Command::new("systemd-analyze").args(arguments).kill_on_drop(true).output();
    let Ok(Ok(output)) = tokio::time::timeout(ANSWER_MAX, asked).await else { return Vec::new() };
    exposure(&String::from_utf8_lossy(&output.stdout)).into_iter().collect()
}

/// Whether the unit keeps the service from where the machine's own key comes from. Typed at a shell, doctor itself is not kept.
pub(super) async fn walled() -> Vec<Finding> {
    if !Path::new("/run/systemd/system").exists() {
        return Vec::new();
    }
    let arguments = ["show", "--property=IPAddressDeny,IPAddressAllow", UNIT];
    let asked = tokio::process::Command::new("systemctl").args(arguments).kill_on_drop(true).output();
    let Ok(Ok(output)) = tokio::time::timeout(ANSWER_MAX, asked).await else { return Vec::new() };
    wall(&String::from_utf8_lossy(&output.stdout)).into_iter().collect()
}

/// What `systemctl show` says of a unit: what it allows wins over what it denies.
fn wall(said: &str) -> Option<Finding> {
    let covers = |property: &str| {
        let ranges = said.lines().find_map(|line| line.strip_prefix(property)?.strip_prefix('=')).unwrap_or_default();
        ranges.split_whitespace().any(|range| range.parse::<IpNet>().is_ok_and(|range| range.contains(&METADATA)))
    };
    let text = format!(
        "{UNIT} keeps the service from {METADATA}, which gives the machine's key: `systemctl edit {UNIT}`, and \
         IPAddressAllow={METADATA} below [Service]"
    );
    (covers("IPAddressDeny") && !covers("IPAddressAllow")).then(|| Finding::new("unit", Health::Doubtful, text))
}

/// What `systemd-analyze security` says of a unit that there is.
fn exposure(said: &str) -> Option<Finding> {
    let (_, rest) = said.split_once("Overall exposure level for ")?;
    let level: f64 = rest.split_once(": ")?.1.split_whitespace().next()?.parse().ok()?;
    let text = format!("{UNIT} has an exposure level of {level}");
    Some(match level <= EXPOSURE_MAX {
        true => Finding::new("unit", Health::Good, text),
        false => {
            let mend =
                format!("{text}, more than {EXPOSURE_MAX}: compare it with systemd/{UNIT}; systemctl cat {UNIT}");
            Finding::new("unit", Health::Doubtful, mend)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<(&'static str, Health)> {
        findings.iter().map(|finding| (finding.what, finding.health)).collect()
    }

    #[test]
    fn the_exposure_of_a_unit_is_read_from_what_systemd_says() {
        let said = |level: &str| format!("x\n→ Overall exposure level for jobwatch.service: {level} SOMETHING 🙂\n");
        assert_eq!(exposure(&said("1.3")).unwrap().health, Health::Good);
        let exposed = exposure(&said("9.6")).unwrap();
        assert_eq!(exposed.health, Health::Doubtful);
        assert!(exposed.text.contains("9.6, more than 1.5"), "{}", exposed.text);
        assert_eq!(exposure("Unit jobwatch.service not found."), None);
    }

    #[test]
    fn a_unit_that_keeps_the_service_from_the_machines_key_is_told_with_the_mend() {
        let said = |deny: &str, allow: &str| wall(&format!("IPAddressAllow={allow}\nIPAddressDeny={deny}\n"));
        let told = said("169.254.0.0/16 fe80::/10", "").unwrap();
        assert_eq!((told.what, told.health), ("unit", Health::Doubtful));
        assert!(told.text.contains("IPAddressAllow=169.254.169.254 below [Service]"), "{}", told.text);
        assert!(said("0.0.0.0/0 ::/0", "10.0.0.0/8").is_some());
        assert_eq!(said("169.254.0.0/16 fe80::/10", "169.254.169.254/32"), None);
        assert_eq!(said("fe80::/10", ""), None);
        assert_eq!(said("", ""), None, "there is no such unit");
    }

    #[test]
    fn a_state_that_others_may_read_is_doubtful_and_one_that_is_yet_to_be_made_is_well() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/state.db");
        let url = format!("sqlite:{}", path.display());
        let good = |what| (what, Health::Good);
        assert_eq!(lines(&state(&url)), [good("state"), good("disk"), good("lock")]);
        assert!(!path.parent().unwrap().exists(), "nothing is made");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let found = state(&url);
        assert_eq!(lines(&found)[1], ("permissions", Health::Doubtful));
        assert!(found[1].text.contains("chmod 600"), "{}", found[1].text);
        std::fs::write(home.path().join("file"), "").unwrap();
        let found = state(&format!("sqlite:{}/file/state.db", home.path().display()));
        assert_eq!(lines(&found), [("state", Health::Bad)], "{found:?}");
    }
}
