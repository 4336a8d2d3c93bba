//! What stands in `toml` loads, and passes its tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jobwatch::config::{self, Config, Purpose, disagreements};
use jobwatch::document::File;
use jobwatch::rules::{self, RuleSet, Surroundings, Window};
use jobwatch::simulator::Scenario;

use crate::page::{Block, README, RULES, SYSTEMD};

/// A file of the configuration, from a part of one.
fn configuration(part: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let mut whole = part.to_owned();
    if !part.contains("[[source]]") {
        whole += "\n[[source]]\nname = \"prod\"\nkind = \"swr\"\nregion = \"ap-southeast-3\"\nproject_id = \"p\"\ncredentials = { kind = \"metadata\" }\n";
    }
    if !part.contains("[agent]") {
        whole += "[agent]\nnotify = [\"ops-mail\"]\n";
    }
    for name in ["oncall", "ops-mail"] {
        if !part.contains(&format!("[receiver.{name}]")) {
            whole += &format!(
                "[receiver.{name}]\nkind = \"email\"\nserver = \"smtps://mail.example.org\"\nfrom = \"a@example.org\"\nto = \"b@example.org\"\n"
            );
        }
    }
    let path = directory.path().join("jobwatch.toml");
    std::fs::write(&path, whole).unwrap();
    let (config, report) = config::load(&path, Purpose::Check);
    let lines: Vec<String> = report.lines().filter(|line| !line.contains("the environment has no")).collect();
    assert_eq!(lines, [] as [&str; 0], "{part}");
    config.unwrap()
}

/// A rule file that has nothing wrong with it, and passes its tests.
fn rules_of(text: &str, windows: &[Arc<Window>]) -> RuleSet {
    let file = Arc::new(File { path: "block.toml".into(), text: text.into() });
    let none = |_: &Path| Err("no files here".to_owned());
    let receivers = ["oncall".into(), "ops-mail".into()];
    let surroundings = Surroundings {
        read: &none,
        receivers: Some(&receivers),
        windows: Some(windows),
        sources: None,
        follow_ups: None,
    };
    let (set, report) = rules::load(&[file], &surroundings);
    assert_eq!(report.lines().collect::<Vec<_>>(), [] as [&str; 0], "{text}");
    for test in &set.tests {
        let found: Vec<String> = disagreements(&set, test).into_iter().map(|problem| problem.message).collect();
        assert_eq!(found, [] as [&str; 0], "{text}");
    }
    set
}

#[test]
fn every_example_in_the_documents_loads_and_passes_its_tests() {
    let mut seen = BTreeMap::from([("rules", 0), ("configuration", 0), ("scenario", 0)]);
    let mut tests = 0;
    for document in [&*RULES, &*README, &*SYSTEMD] {
        let blocks = document.blocks("toml");
        let has = |block: &&Block<'_>, heads: &[&str]| {
            block.text.lines().any(|line| heads.iter().any(|head| line.starts_with(head)))
        };
        let of_configuration = |block: &&Block<'_>| {
            has(block, &["[agent]", "[[source]]", "[receiver", "[window", "[admin]", "[follow_up"])
        };
        let windows: Vec<Arc<Window>> =
            blocks.iter().filter(of_configuration).flat_map(|block| configuration(block.text).known.windows).collect();
        for block in &blocks {
            let kind = match block {
                block if has(&block, &["schema = 1"]) => {
                    tests += rules_of(block.text, &windows).tests.len();
                    "rules"
                }
                block if has(&block, &["[[job]]", "[[fault]]"]) => {
                    let read = Scenario::read(block.text, Path::new("block.toml"));
                    assert!(read.is_ok(), "{}", read.unwrap_err().lines().collect::<Vec<_>>().join("\n"));
                    "scenario"
                }
                block if of_configuration(&block) => "configuration",
                block => panic!("{}:{}: what is this?\n{}", document.name, block.line, block.text),
            };
            *seen.get_mut(kind).unwrap() += 1;
        }
    }
    assert!(seen.values().all(|count| *count > 0) && tests > 0, "{seen:?}, {tests} tests");
}
