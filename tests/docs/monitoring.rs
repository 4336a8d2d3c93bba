//! The dashboard, the alert rules, and the page on them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use jobwatch::ops::metrics::{CATALOGUE, Kind};
use regex::Regex;
use serde_json::Value;

use crate::page::{MONITORING, Words, root, words};

/// The metrics that a text asks for, with the labels it names of each.
fn asked(text: &str) -> BTreeMap<String, Words> {
    let mut found: BTreeMap<String, Words> = BTreeMap::new();
    let selector = Regex::new(r#"\b(jobwatch_[a-z_]+)(?:\{([^}]*)\})?"#).unwrap();
    let label = Regex::new(r#"(\w+)=~?\\?""#).unwrap();
    for one in selector.captures_iter(text) {
        let labels = one.get(2).map_or("", |labels| labels.as_str());
        let names = label.captures_iter(labels).map(|name| name[1].to_owned());
        found.entry(one[1].to_owned()).or_default().extend(names);
    }
    found
}

#[test]
fn the_dashboard_and_the_alert_rules_ask_for_metrics_and_labels_that_there_are() {
    let read = |name: &str| std::fs::read_to_string(root().join("systemd/monitoring").join(name)).unwrap();
    let entry = |name: &str| {
        CATALOGUE.iter().find(|entry| match entry.kind {
            Kind::Histogram => {
                ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(entry.name))
            }
            Kind::Counter | Kind::Gauge => entry.name == name,
        })
    };
    for file in ["jobwatch-rules.yml", "jobwatch-rules-test.yml", "dashboard.json"] {
        for (name, labels) in asked(&read(file)) {
            let entry = entry(&name).unwrap_or_else(|| panic!("{file}: there is no {name}"));
            let known = words(entry.labels.iter().copied().chain(["job", "instance"]));
            assert!(labels.is_subset(&known), "{file}: {name} has {known:?}, not {labels:?}");
        }
    }
    let dashboard = read("dashboard.json");
    let shown = asked(&dashboard);
    for entry in CATALOGUE {
        let is_shown = shown.keys().any(|name| name.starts_with(entry.name));
        assert!(is_shown, "the dashboard does not show {}", entry.name);
    }
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    let ids: BTreeSet<i64> =
        parsed["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), parsed["panels"].as_array().unwrap().len());
}

#[test]
fn the_page_on_monitoring_has_every_alert_and_the_file_a_test_of_each() {
    let read = |name: &str| std::fs::read_to_string(root().join("systemd/monitoring").join(name)).unwrap();
    let rules = read("jobwatch-rules.yml");
    let names = |text: &str, key: &str| -> Words {
        let name = Regex::new(&format!(r"{key}: (\w+)")).unwrap();
        name.captures_iter(text).map(|found| found[1].to_owned()).collect()
    };
    let alerts = names(&rules, "alert");
    assert_eq!(MONITORING.firsts("alert"), alerts);
    let tests = read("jobwatch-rules-test.yml");
    assert_eq!(names(&tests, "alertname"), alerts);
    let rings = Regex::new(r"alertname: (\w+)\n\s+exp_alerts").unwrap();
    let rung: Words = rings.captures_iter(&tests).map(|found| found[1].to_owned()).collect();
    assert_eq!(rung, alerts, "each is seen to ring");
    // Prometheus's own tool, where it is installed; `./test` sees to that.
    let judge = |arguments: &[&str]| {
        let run = Command::new("promtool").args(arguments).current_dir(root().join("systemd/monitoring")).output();
        if let Ok(output) = run {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    };
    judge(&["check", "rules", "jobwatch-rules.yml"]);
    judge(&["test", "rules", "jobwatch-rules-test.yml"]);
}
