//! What the page says of the replicas that share a state: who is there, and who polls what.

use std::collections::BTreeSet;

use serde::Serialize;

use super::view::{Level, Moment, Point};
use crate::model::name::SourceName;
use crate::model::text::line;
use crate::model::time::Timestamp;
use crate::store::share::ReplicaView;

/// Sources of a replica that are named.
const SOURCES_MAX: usize = 12;
/// Names are cut here.
const NAME_MAX: usize = 120;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ReplicaRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) state: &'static str,
    pub(super) version: String,
    pub(super) started: Moment,
    pub(super) seen: Moment,
    /// How many sources it polls, and the first of them.
    pub(super) sources: usize,
    pub(super) named: Vec<String>,
    pub(super) more: usize,
    /// Deliveries that it has at hand.
    pub(super) claims: u64,
    pub(super) housekeeping: bool,
}

/// A row each; nothing where one agent has the state to itself.
pub(super) fn rows(replicas: &[ReplicaView], now: Timestamp) -> Vec<ReplicaRow> {
    replicas.iter().map(|replica| row(replica, now)).collect()
}

fn row(replica: &ReplicaView, now: Timestamp) -> ReplicaRow {
    let (level, state) = match replica.living {
        true => (Level::Good, "there"),
        false => (Level::Warn, "not heard of"),
    };
    let name = |source: &SourceName| line(source.as_str(), NAME_MAX);
    ReplicaRow {
        id: line(&replica.id, NAME_MAX),
        name: line(&replica.name, NAME_MAX),
        level,
        state,
        version: line(&replica.version, NAME_MAX),
        started: Moment::new(replica.started_at, now),
        seen: Moment::new(replica.seen_at, now),
        sources: replica.holds.len(),
        named: replica.holds.iter().take(SOURCES_MAX).map(name).collect(),
        more: replica.holds.len().saturating_sub(SOURCES_MAX),
        claims: replica.claims,
        housekeeping: replica.housekeeping,
    }
}

/// What of it needs attention.
pub(super) fn points(replicas: &[ReplicaView]) -> Vec<Point> {
    let say = |text: String| Point { level: Level::Warn, text, part: "replicas" };
    let mut points = Vec::new();
    match replicas.iter().filter(|replica| !replica.living).count() {
        0 => {}
        1 => points.push(say("1 replica is not heard of".to_owned())),
        many => points.push(say(format!("{many} replicas are not heard of"))),
    }
    let living = replicas.iter().filter(|replica| replica.living);
    let kinds: BTreeSet<(&str, &str)> = living.map(|replica| (&*replica.rules, &*replica.sources)).collect();
    if kinds.len() > 1 {
        points.push(say("the replicas do not have the same rules and configuration".to_owned()));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::{Level, ReplicaView, Timestamp, points, rows};

    fn replica(name: &str, rules: &str, living: bool, holds: usize) -> ReplicaView {
        ReplicaView {
            id: format!("id-{name}"),
            name: name.to_owned(),
            version: "1".into(),
            rules: rules.to_owned(),
            sources: String::new(),
            started_at: Timestamp::from_micros(0),
            seen_at: Timestamp::from_micros(0),
            living,
            housekeeping: holds == 13,
            holds: (0..holds).map(|n| format!("s{n}").into()).collect(),
            claims: 2,
        }
    }

    #[test]
    fn a_replica_that_is_gone_and_others_that_differ_need_attention() {
        let alike = [replica("a", "x", true, 13), replica("b", "x", true, 1)];
        assert_eq!(points(&alike), []);
        let rows = rows(&alike, Timestamp::from_micros(60_000_000));
        assert_eq!((rows[0].sources, rows[0].named.len(), rows[0].more, rows[0].level), (13, 12, 1, Level::Good));
        let said = |replicas: &[ReplicaView]| points(replicas).into_iter().map(|point| point.text).collect::<Vec<_>>();
        assert_eq!(said(&[replica("a", "x", true, 1), replica("b", "y", false, 0)]), ["1 replica is not heard of"]);
        let unlike = said(&[replica("a", "x", true, 1), replica("b", "y", true, 1)]);
        assert_eq!(unlike, ["the replicas do not have the same rules and configuration"]);
        assert_eq!(said(&[]), [""; 0]);
    }
}
