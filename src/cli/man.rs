//! `jobwatch man`: the manual pages, made from the command line that the program reads.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, Exit};

/// The part of the manual: programs that people call.
const SECTION: &str = "1";

/// What the page of the program says beside its options: heading, and terms with what they are.
const MORE: &[(&str, &[(&str, &str)])] = &[
    (
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "Failed at run time."),
            ("2", "Wrong usage."),
            ("3", "The answer is \"no\": rules have errors, there is no such delivery."),
            ("78", "The configuration cannot be used; starting again does not help."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("JOBWATCH_CONFIG", "The configuration, where --config does not name one."),
            ("RUST_LOG", "What is logged, such as jobwatch=debug."),
            ("NO_COLOR", "No colour, if it is set to anything."),
            (
                "HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK, HUAWEICLOUD_SDK_SECURITY_TOKEN, HUAWEICLOUD_SDK_CREDENTIALS_FILE",
                "Where a source says credentials = { kind = \"auto\" }.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            ("./jobwatch.toml, /etc/jobwatch/jobwatch.toml", "The configuration: the first that exists."),
            ("/etc/jobwatch/rules", "The rules, unless the configuration names others."),
            ("/var/lib/jobwatch/state.db", "The state of the service."),
        ],
    ),
];

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Of which command [default: of the program].
    #[arg(value_name = "COMMAND", conflicts_with = "directory")]
    path: Vec<String>,
    /// Write all pages into this directory, which is made.
    #[arg(long = "dir", value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        if let Some(directory) = self.directory {
            std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
            write_all(&program, &directory)?;
            return Ok(Exit::Done);
        }
        let mut command = &program;
        for name in &self.path {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            command = command
                .find_subcommand(name)
                .with_context(|| format!("there is no command `{name}`; {}", crate::document::suggest(name, &known)))?;
        }
        anstream::stdout().write_all(&page(command)?)?;
        Ok(Exit::Done)
    }
}

/// The pages of a command and of all below it.
fn write_all(command: &clap::Command, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(Page::new(command.clone()).section(SECTION).get_filename());
    std::fs::write(&path, page(command)?).with_context(|| path.display().to_string())?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| write_all(below, directory))
}

/// A page without a date: the same program has the same pages, whenever they are made.
fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let source = format!("jobwatch {}", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone()).section(SECTION).source(source).manual("jobwatch");
    let mut text = Vec::new();
    page.render(&mut text)?;
    if command.get_name() == "jobwatch" {
        more().to_writer(&mut text)?;
    } else {
        let mut also = Roff::new();
        also.control("SH", ["SEE ALSO"]).text([bold("jobwatch"), roman("(1)")]);
        also.to_writer(&mut text)?;
    }
    Ok(ascii(&String::from_utf8_lossy(&text)).into_bytes())
}

/// groff reads ASCII, whatever the locale; it has its own names for the others.
fn ascii(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for c in page.chars() {
        match c.is_ascii() {
            true => text.push(c),
            false => text.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    text
}

fn more() -> Roff {
    let mut roff = Roff::new();
    for (heading, terms) in MORE {
        roff.control("SH", [*heading]);
        for (term, meaning) in *terms {
            roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
        }
    }
    roff
}
