//! Links from page to page lead to a file that is there, and to a heading in it.

use std::path::Path;

use regex::Regex;

use crate::page::{Words, root};

const PAGES: &[&str] = &[
    "README.md",
    "OPERATING.md",
    "CONFIGURATION.md",
    "AUTOMATION.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benches/README.md",
    "rules/README.md",
    "systemd/README.md",
    "systemd/monitoring/README.md",
];

/// The names by which the headings of a page are linked to.
fn anchors(text: &str) -> Words {
    let outside: String = text.split("\n```").step_by(2).collect();
    let heading = Regex::new(r"(?m)^#+ (.+)$").unwrap();
    let name = |text: &str| -> String {
        let kept = text.to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    heading.captures_iter(&outside).map(|found| name(&found[1])).collect()
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut count = 0;
    for page in PAGES {
        let path = root().join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        for found in link.captures_iter(&text).filter(|found| !found[1].contains("://")) {
            count += 1;
            let (file, anchor) = found[1].split_once('#').unwrap_or((&found[1], ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap_or(Path::new("")).join(file) };
            assert!(target.exists(), "{page}: {}", &found[1]);
            let is_there = |anchor| anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor);
            assert!(anchor.is_empty() || is_there(anchor), "{page}: {}", &found[1]);
        }
    }
    assert!(count > 30, "{count}");
}
