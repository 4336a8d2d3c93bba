//! Command lines are read by the program, and each command stands in the table.

use std::collections::BTreeSet;
use std::process::Command;

use crate::page::{CONFIGURATION, Document, MONITORING, OPERATING, README, RULES, SYSTEMD, code};

pub(crate) fn jobwatch(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_jobwatch")).args(arguments).output().unwrap()
}

/// The arguments of a command line, if it is one of ours. Brackets say that something may be left out.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next()?.trim();
    let line = line.strip_prefix("CREDENTIALS_DIRECTORY=/etc/jobwatch/secrets ").unwrap_or(line);
    let line = line.strip_prefix("cargo run --release -- ").or_else(|| line.strip_prefix("jobwatch "))?;
    let line = line.split(" > ").next()?.split(" && ").next()?.replace(['[', ']'], "");
    let mut arguments = vec![String::new()];
    let mut quote = None;
    for c in line.trim().chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (' ', None) => arguments.push(String::new()),
            (c, _) => arguments.last_mut().unwrap().push(c),
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    Some(arguments)
}

/// Every command line of a page: in its blocks, and in its text.
fn command_lines(document: &Document) -> Vec<Vec<String>> {
    let blocks = document.blocks("sh");
    let in_blocks = blocks.iter().flat_map(|block| block.text.lines()).map(ToOwned::to_owned);
    let prose: String = document.text.split("```").step_by(2).collect::<Vec<_>>().join("\n").replace(r"\|", "|");
    in_blocks.chain(code(&prose)).filter_map(|line| arguments(&line)).collect()
}

/// That the program reads these arguments. With `--help` it does nothing else.
fn is_read(arguments: &[String]) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
    let output = jobwatch(&arguments);
    let path: Vec<&str> = arguments.iter().copied().take_while(|word| !word.starts_with('-')).collect();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("jobwatch {}\n{}", path.join(" "), String::from_utf8_lossy(&output.stderr))),
    }
}

/// The commands below a path, by its help.
fn commands(path: &[String], found: &mut BTreeSet<Vec<String>>) {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = String::from_utf8(jobwatch(&arguments).stdout).unwrap();
    let below = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let names = below.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    if names.is_empty() {
        found.insert(path.to_vec());
    }
    names.into_iter().for_each(|name| commands(&[path, &[name.to_owned()]].concat(), found));
}

#[test]
fn every_command_line_in_the_documents_is_one_that_the_program_reads() {
    let mut count = 0;
    for document in [&*RULES, &*README, &*CONFIGURATION, &*OPERATING, &*SYSTEMD, &*MONITORING] {
        for line in command_lines(document) {
            count += 1;
            assert_eq!(is_read(&line), Ok(()), "{}: {}", document.name, line.join(" "));
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn the_table_of_commands_has_every_command() {
    let mut all = BTreeSet::new();
    commands(&[], &mut all);
    let rows: Vec<Vec<String>> =
        OPERATING.firsts("command").iter().map(|line| arguments(&format!("jobwatch {line}")).unwrap()).collect();
    for row in &rows {
        assert_eq!(is_read(row), Ok(()), "{row:?}");
    }
    let missing: Vec<&Vec<String>> = all.iter().filter(|path| !rows.iter().any(|row| row.starts_with(path))).collect();
    assert_eq!(missing, [] as [&Vec<String>; 0]);
    let strange: Vec<&Vec<String>> = rows.iter().filter(|row| !all.iter().any(|path| row.starts_with(path))).collect();
    assert_eq!(strange, [] as [&Vec<String>; 0]);
}
