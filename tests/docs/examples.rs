//! What stands in `toml` loads, and passes its tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jobwatch::config::{self, Config, Known, Purpose, disagreements};
use jobwatch::document::File;
use jobwatch::model::name::ReceiverName;
use jobwatch::rules::{self, RuleSet, Surroundings, Window};
use jobwatch::simulator::Scenario;
use regex::Regex;

use crate::page::{Block, CONFIGURATION, OPERATING, README, RULES, SYSTEMD};

/// Said of secrets that are not on this machine.
const NOT_HERE: [&str; 3] =
    ["the environment has no", "there are no systemd credentials", "cannot be read: No such file"];

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
    let lines: Vec<String> = report.lines().filter(|line| !NOT_HERE.iter().any(|words| line.contains(words))).collect();
    assert_eq!(lines, [] as [&str; 0], "{part}");
    config.unwrap()
}

/// A rule file that has nothing wrong with it, and passes its tests.
fn rules_of(text: &str, windows: &[Arc<Window>], receivers: &[ReceiverName]) -> RuleSet {
    let file = Arc::new(File { path: "block.toml".into(), text: text.into() });
    let none = |_: &Path| Err("no files here".to_owned());
    let surroundings = Surroundings {
        read: &none,
        receivers: Some(receivers),
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
    for document in [&*RULES, &*README, &*CONFIGURATION, &*OPERATING, &*SYSTEMD] {
        let blocks = document.blocks("toml");
        let has = |block: &&Block<'_>, heads: &[&str]| {
            block.text.lines().any(|line| heads.iter().any(|head| line.starts_with(head)))
        };
        let of_configuration = |block: &&Block<'_>| {
            has(block, &["[agent]", "[[source]]", "[receiver", "[window", "[retention]", "[admin]", "[follow_up"])
        };
        let configured: Vec<Known> =
            blocks.iter().filter(of_configuration).map(|block| configuration(block.text).known).collect();
        let windows: Vec<Arc<Window>> = configured.iter().flat_map(|known| known.windows.clone()).collect();
        let mut receivers: Vec<ReceiverName> = configured.into_iter().flat_map(|known| known.receivers).collect();
        receivers.extend(["oncall".into(), "ops-mail".into()]);
        for block in &blocks {
            let kind = match block {
                block if has(&block, &["schema = 1"]) => {
                    tests += rules_of(block.text, &windows, &receivers).tests.len();
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

/// The blocks that say in their first line which file they are, written there.
fn written(blocks: &[Block<'_>], home: &Path) -> Vec<PathBuf> {
    let file = |block: &Block<'_>| {
        let name = block.text.lines().next()?.strip_prefix("# ")?.strip_suffix(".toml")?;
        let path = home.join(format!("{name}.toml"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, block.text).unwrap();
        Some(path)
    };
    blocks.iter().filter_map(file).collect()
}

#[test]
fn every_set_up_of_the_guide_is_whole_and_check_has_nothing_to_say_about_it() {
    let home = tempfile::tempdir().unwrap();
    let files = written(&OPERATING.blocks("toml"), home.path());
    assert_eq!(files.len(), 5, "two set-ups, one of them with a story");
    std::fs::write(home.path().join("trial/token"), "demo-token").unwrap();
    let secrets = home.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    for secret in Regex::new(r#"credential = "([a-z-]+)""#).unwrap().captures_iter(&OPERATING.text) {
        let text = if secret[1].ends_with("-url") { "https://hook.example.org/1" } else { "0123456789abcdef" };
        std::fs::write(secrets.join(&secret[1]), text).unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.args(arguments).env("CREDENTIALS_DIRECTORY", &secrets).output().unwrap()
    };
    for path in files.iter().filter(|path| path.ends_with("jobwatch.toml")) {
        let path = path.to_str().unwrap();
        let output = run(&["--config", path, "check"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{path}: {said}");
        let output = run(&["--config", path, "rules", "test"]);
        assert!(output.status.success(), "{path}: {output:?}");
    }
}
