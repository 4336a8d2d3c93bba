//! What goes wrong, and for how long. The seed says.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::{LEASE, REPLICAS};

/// What is done to a replica, or to the database. It is undone after its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// kill -9.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// SIGTERM: it leaves in order.
    Leave,
    /// Its connections to the database are reset, and new ones refused.
    Cut,
    /// Its connections to the database stand still.
    Freeze,
    /// What it asks of the database arrives, no answer does; then it is cut.
    Deafen,
    /// The database is stopped.
    Stop,
    /// The database is killed in the middle of what it does, and started at once.
    Crash,
}

/// What is done to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) deed: Deed,
    /// Replicas, if it is done to them.
    pub(crate) whom: Vec<usize>,
    /// So long after one of them began a poll: in the middle of what follows from it. At any moment, if there is nothing.
    pub(crate) aim: Option<Duration>,
    pub(crate) long: Duration,
    /// What goes wrong in the middle of it.
    pub(crate) meanwhile: Option<Box<Act>>,
    /// The calm after it.
    pub(crate) calm: Duration,
}

impl Deed {
    pub(crate) fn is_of_database(self) -> bool {
        match self {
            Self::Stop | Self::Crash => true,
            Self::Kill | Self::Pause | Self::Leave | Self::Cut | Self::Freeze | Self::Deafen => false,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deed, whom, aim, long, .. } = self;
        write!(f, "{deed:?} {whom:?} for {:.1} s", long.as_secs_f64())?;
        if let Some(aim) = aim {
            write!(f, ", {} ms into a poll", aim.as_millis())?;
        }
        match &self.meanwhile {
            Some(act) => write!(f, ", meanwhile {act}"),
            None => Ok(()),
        }
    }
}

/// What follows from a poll takes about so long: the listing, what is known, and the commit.
const AIM_MAX_MS: u64 = 40;
/// The first of them come in turn, so that none is missing in a short run.
const FIRST: [Deed; 8] =
    [Deed::Kill, Deed::Pause, Deed::Leave, Deed::Crash, Deed::Cut, Deed::Freeze, Deed::Deafen, Deed::Stop];

/// What goes wrong as the n-th.
pub(crate) fn next(rng: &mut Rng, n: usize) -> Act {
    let deed = match FIRST.get(n) {
        Some(deed) => *deed,
        None => any(rng),
    };
    let mut act = one(rng, deed);
    if n >= FIRST.len() {
        match rng.u8(0..10) {
            // Something else with it; of three replicas, one is left.
            0..=2 => {
                let mut other = any(rng);
                while other.is_of_database() && deed.is_of_database() {
                    other = any(rng);
                }
                let mut other = one(rng, other);
                if other.whom == act.whom {
                    other.whom = vec![(act.whom[0] + 1) % REPLICAS];
                }
                act.meanwhile = Some(Box::new(other));
            }
            // All at once.
            3 if !deed.is_of_database() => {
                act.whom = (0..REPLICAS).collect();
                act.long = act.long.min(2 * LEASE);
            }
            _ => {}
        }
    }
    act
}

fn any(rng: &mut Rng) -> Deed {
    match rng.u8(0..100) {
        0..25 => Deed::Kill,
        25..45 => Deed::Pause,
        45..58 => Deed::Leave,
        58..68 => Deed::Cut,
        68..78 => Deed::Freeze,
        78..86 => Deed::Deafen,
        86..93 => Deed::Stop,
        _ => Deed::Crash,
    }
}

fn one(rng: &mut Rng, deed: Deed) -> Act {
    let leases = |rng: &mut Rng, from: f64, to: f64| LEASE.mul_f64(from + (to - from) * rng.f64());
    let long = match deed {
        // Sometimes started again before anybody misses it.
        Deed::Kill | Deed::Leave => leases(rng, 0.0, 3.0),
        // Sometimes longer than what it had claimed stays claimed.
        Deed::Pause if rng.u8(0..4) == 0 => Duration::from_secs(40),
        Deed::Pause => leases(rng, 1.2, 3.0),
        Deed::Cut | Deed::Freeze | Deed::Deafen => leases(rng, 0.3, 4.0),
        Deed::Stop => leases(rng, 0.0, 2.5),
        Deed::Crash => Duration::ZERO,
    };
    let whom = if deed.is_of_database() { Vec::new() } else { vec![rng.usize(0..REPLICAS)] };
    let aims = !whom.is_empty() && deed != Deed::Leave && rng.u8(0..5) < 3;
    let aim = aims.then(|| Duration::from_millis(rng.u64(0..AIM_MAX_MS)));
    Act { deed, whom, aim, long, meanwhile: None, calm: leases(rng, 0.3, 2.5) }
}

#[test]
fn the_same_seed_does_the_same_and_leaves_nobody_down() {
    let acts = |seed| {
        let mut rng = Rng::with_seed(seed);
        (0..200).map(|n| next(&mut rng, n)).collect::<Vec<_>>()
    };
    assert_eq!(acts(1), acts(1));
    assert_ne!(acts(1), acts(2));
    for act in acts(3) {
        assert!(act.long <= Duration::from_secs(40) && act.whom.is_empty() == act.deed.is_of_database());
        let other = act.meanwhile.as_deref();
        assert!(other.is_none_or(|other| other.whom.iter().all(|one| !act.whom.contains(one))), "{act}");
    }
}
