//! `jobwatch replicas`: the agents that share a state, who of them lives, and who polls what.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Value, json};

use super::grid::{Cell, Grid, cell};
use super::{Exit, Format, Global, show};
use crate::clock::Clock;
use crate::model::time::{Timestamp, span};
use crate::store::share::ReplicaView;

/// As much of an id is shown to people.
const ID_MAX: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Replicas {
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Replicas {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (_, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        if !store.is_shared() {
            // Not among what a program reads.
            let what = "the state is a file: the one agent that has it is all there is (`jobwatch doctor` says whether it runs)";
            writeln!(anstream::stderr(), "{what}")?;
        }
        let replicas = store.replicas().await?;
        let now = store.time().await?.unwrap_or_else(|| Clock::system().now());
        let mut out = anstream::stdout();
        let odd = Odd::among(&replicas);
        match self.format {
            Format::Json => {
                let all: Vec<Value> = replicas.iter().map(|replica| odd.json(replica)).collect();
                writeln!(out, "{:#}", Value::from(all))?;
            }
            Format::Text if replicas.is_empty() => {
                if store.is_shared() {
                    writeln!(out, "no replica has been there lately")?;
                }
            }
            Format::Text => {
                let mut grid = Grid::new(&[
                    "STATE",
                    "[NAME]",
                    "ID",
                    "(VERSION)",
                    "SINCE",
                    "SEEN",
                    "SOURCES",
                    "AT HAND",
                    "RULES",
                    "(ROLE)",
                ]);
                replicas.iter().for_each(|replica| grid.row(odd.row(replica, now)));
                grid.print(&mut out)?;
            }
        }
        Ok(Exit::Done)
    }
}

/// What most of the replicas that live have in common, and who differs.
struct Odd<'a> {
    rules: Option<&'a str>,
    sources: Option<&'a str>,
}

impl<'a> Odd<'a> {
    fn among(replicas: &'a [ReplicaView]) -> Self {
        let most = |of: fn(&ReplicaView) -> &str| {
            let mut counts = BTreeMap::<&str, usize>::new();
            replicas
                .iter()
                .filter(|replica| replica.living)
                .for_each(|replica| *counts.entry(of(replica)).or_default() += 1);
            let max = counts.values().copied().max()?;
            let mut first = counts.into_iter().filter(|(_, count)| *count == max).map(|(digest, _)| digest);
            // Of two halves, neither is the odd one: both are shown to differ.
            first.next().filter(|_| first.next().is_none())
        };
        Self { rules: most(|replica| &replica.rules), sources: most(|replica| &replica.sources) }
    }

    /// One that is gone differs from nobody.
    fn rules(&self, replica: &ReplicaView) -> bool {
        replica.living && self.rules != Some(replica.rules.as_str())
    }

    fn sources(&self, replica: &ReplicaView) -> bool {
        replica.living && self.sources != Some(replica.sources.as_str())
    }

    fn json(&self, replica: &ReplicaView) -> Value {
        let mut value = json!(replica);
        value["rules_differ"] = self.rules(replica).into();
        value["sources_differ"] = self.sources(replica).into();
        value
    }

    fn row(&self, replica: &ReplicaView, now: Timestamp) -> [Cell; 10] {
        let state = match replica.living {
            true => Cell::coloured("living", show::GREEN),
            false => Cell::coloured("gone", show::DIM),
        };
        let rules = match (replica.living, self.rules(replica), self.sources(replica)) {
            (false, _, _) => cell(""),
            (true, false, false) => cell("as others"),
            (true, true, false) => Cell::coloured("differ", show::YELLOW),
            (true, false, true) => Cell::coloured("sources differ", show::YELLOW),
            (true, true, true) => Cell::coloured("all differ", show::YELLOW),
        };
        let ago = |at: Timestamp| format!("{} ago", span(now.since(at)));
        [
            state,
            cell(&replica.name),
            cell(replica.id.chars().take(ID_MAX).collect::<String>()),
            cell(&replica.version),
            cell(ago(replica.started_at)),
            cell(ago(replica.seen_at)),
            cell(replica.holds.len()),
            cell(replica.claims),
            rules,
            cell(if replica.housekeeping { "housekeeping" } else { "" }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(id: &str, rules: &str, living: bool) -> ReplicaView {
        let at = Timestamp::from_micros(1_800_000_000_000_000);
        ReplicaView {
            id: id.into(),
            name: format!("host-{id} 7"),
            version: "1".into(),
            rules: rules.into(),
            sources: "s".into(),
            started_at: at,
            seen_at: at,
            living,
            housekeeping: false,
            holds: vec!["prod".into()],
            claims: 0,
        }
    }

    #[test]
    fn the_one_with_other_rules_is_shown_and_of_two_halves_both_are() {
        let differ = |rules: &[(&str, bool)]| -> Vec<bool> {
            let all: Vec<ReplicaView> = rules.iter().map(|(rules, living)| replica("a", rules, *living)).collect();
            let odd = Odd::among(&all);
            all.iter().map(|replica| odd.json(replica)["rules_differ"].as_bool().unwrap()).collect()
        };
        assert_eq!(differ(&[("x", true)]), [false]);
        assert_eq!(differ(&[("x", true), ("y", true), ("x", true)]), [false, true, false]);
        assert_eq!(differ(&[("x", true), ("y", true)]), [true, true]);
        assert_eq!(differ(&[("x", true), ("y", false)]), [false, false]);
    }
}
