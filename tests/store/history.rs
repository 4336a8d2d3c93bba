//! A random history of a few sources, the weather at those who hear, and what operators do meanwhile: all of it from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use jobwatch::model::alert::Silence;
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::Point;
use jobwatch::model::name::{JobId, ReceiverName};
use jobwatch::model::time::Timestamp;

use crate::world::START;

pub(crate) const SOURCES: [&str; 3] = ["lab", "prod", "stage"];
const REASONS: [&str; 6] = [
    "quota N exceeded",
    "failed to select cce cluster",
    "subnet 10.0.0.0/24 is full",
    "夜间 \"disk\" N % full",
    "image sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is gone",
    "",
];

/// What happens between two polls, and what these bring.
pub(crate) struct Step {
    /// How long after the step before.
    pub(crate) pause: Duration,
    pub(crate) scenes: BTreeMap<&'static str, Scene>,
    pub(crate) weather: BTreeMap<ReceiverName, Weather>,
    pub(crate) orders: Vec<Order>,
}

/// A source at one moment.
#[derive(Clone, Default)]
pub(crate) struct Scene {
    /// What a listing shows, in its order.
    pub(crate) shown: Vec<Job>,
    /// It is not the whole truth.
    pub(crate) blind: bool,
    /// What there is, as the single-job call knows it.
    pub(crate) points: BTreeMap<JobId, Point>,
}

/// How somebody answers who is told something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Takes all.
    #[default]
    Fair,
    /// Does not answer.
    Away,
    /// Asks for rest.
    Busy,
    /// Refuses every third.
    Strict,
    /// Says that it is no more.
    Retired,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Silence(Silence),
    /// Whatever was given up is owed again.
    RetryDead,
    /// What is pending for this one is due, and it is opened.
    RetryPending(ReceiverName),
    /// The newest deliveries that are pending are dropped.
    Drop(usize),
    /// Follow-ups that wait for a word have it.
    Consent(bool),
}

/// A job on its way.
struct Life {
    job: Job,
    gone: bool,
    /// Listings do not show it, although it is there.
    hidden: u32,
}

/// The history that belongs to a seed.
pub(crate) fn history(seed: u64, steps: usize, receivers: &[ReceiverName]) -> Vec<Step> {
    let mut teller = Teller {
        chance: fastrand::Rng::with_seed(seed),
        now: START,
        made: 0,
        lives: SOURCES.iter().map(|source| (*source, Vec::new())).collect(),
        blind: BTreeMap::new(),
        weather: receivers.iter().map(|receiver| (receiver.clone(), (Weather::Fair, 0))).collect(),
    };
    (0..steps).map(|n| teller.step(n)).collect()
}

struct Teller {
    chance: fastrand::Rng,
    now: Timestamp,
    made: usize,
    lives: BTreeMap<&'static str, Vec<Life>>,
    /// For how many steps sources are not seen.
    blind: BTreeMap<&'static str, u32>,
    weather: BTreeMap<ReceiverName, (Weather, u32)>,
}

impl Teller {
    fn once_in(&mut self, n: u32) -> bool {
        self.chance.u32(..n) == 0
    }

    fn step(&mut self, n: usize) -> Step {
        let pause = Duration::from_secs(self.chance.choice([10, 30, 60, 60, 90, 120, 300]).unwrap_or(60));
        self.now = self.now.plus(pause);
        let mut scenes = BTreeMap::new();
        for source in SOURCES {
            if n == 0 {
                let first = self.chance.usize(3..9);
                let born = std::iter::repeat_with(|| self.born()).take(first).collect();
                self.lives.insert(source, born);
            }
            self.live(source);
            scenes.insert(source, self.scene(source));
        }
        self.turn_weather();
        let weather = self.weather.iter().map(|(receiver, (weather, _))| (receiver.clone(), *weather)).collect();
        Step { pause, scenes, weather, orders: self.orders() }
    }

    fn born(&mut self) -> Life {
        self.made += 1;
        let mut job = Job::bare(format!("j{:04}", self.made), Status::Creating);
        let resource = self.chance.u32(..14);
        job.resource_name = Some(format!("instance-{resource}").into()).filter(|_| !self.once_in(9));
        job.resource_id = Some(format!("r-{resource}").into()).filter(|_| !self.once_in(9));
        job.instance_id = Some(format!("i-{resource}").into()).filter(|_| !self.once_in(4));
        job.kind = self.chance.choice([Some("CreateInstance".into()), Some("DeleteInstance".into()), None]).flatten();
        job.created_at = Some(self.now.to_string().into());
        job.updated_at = job.created_at.clone();
        Life { job, gone: false, hidden: 0 }
    }

    fn reason(&mut self) -> String {
        let number = self.chance.u32(..100).to_string();
        self.chance.choice(REASONS).unwrap_or_default().replace('N', &number)
    }

    /// What happens to a source's jobs.
    fn live(&mut self, source: &'static str) {
        let mut lives = self.lives.remove(source).unwrap_or_default();
        if self.once_in(5) {
            lives.push(self.born());
        }
        // Now and then there is one cause for many, and now and then most are away at once.
        let (storm, sweep) = (self.once_in(25).then(|| self.reason()), self.once_in(40));
        for life in &mut lives {
            life.hidden = life.hidden.saturating_sub(1);
            if sweep && !self.once_in(4) {
                life.hidden = self.chance.u32(1..6);
            }
            match (&storm, life.gone) {
                (Some(reason), false) if !self.once_in(3) => self.moves(life, Status::Failed, Some(reason.clone())),
                (Some(_), _) | (None, true) => {
                    if life.gone && self.once_in(30) {
                        life.gone = false;
                        self.moves(life, Status::Running, None);
                    }
                }
                (None, false) => self.goes_on(life),
            }
        }
        self.lives.insert(source, lives);
    }

    fn goes_on(&mut self, life: &mut Life) {
        match self.chance.u32(..150) {
            0..=3 => self.moves(life, Status::Running, None),
            4..=6 => {
                let reason = self.reason();
                self.moves(life, Status::Failed, Some(reason));
            }
            7..=9 => self.moves(life, Status::Success, None),
            10 => self.moves(life, Status::Initializing, None),
            11 => self.moves(life, Status::read("Paused"), None),
            12 => {
                let (status, reason) = (life.job.status.clone(), self.reason());
                self.moves(life, status, Some(reason));
            }
            13 => life.gone = true,
            14 => life.hidden = self.chance.u32(1..5),
            // An older row than the one that was shown.
            15 => {
                life.job.status = Status::Creating;
                life.job.updated_at = life.job.created_at.clone();
            }
            _ => {}
        }
    }

    fn moves(&mut self, life: &mut Life, status: Status, reason: Option<String>) {
        life.job.status = status;
        life.job.reason = reason.filter(|reason| !reason.is_empty()).map(Into::into);
        let ago = Duration::from_secs(self.chance.u64(..20));
        life.job.updated_at = Some(self.now.minus(ago).to_string().into()).filter(|_| !self.once_in(20));
    }

    fn scene(&mut self, source: &'static str) -> Scene {
        let spell = self.blind.get(source).copied().unwrap_or(0);
        let spell = match spell {
            0 if self.once_in(25) => self.chance.u32(1..14),
            spell => spell.saturating_sub(1),
        };
        self.blind.insert(source, spell);
        let mut scene = Scene { blind: spell > 0, ..Scene::default() };
        for life in self.lives.get(source).into_iter().flatten() {
            let point = match (life.gone, self.chance.u32(..12)) {
                (_, 0) => Point::Unknown,
                (true, _) => Point::NotFound,
                (false, _) => Point::Found(life.job.clone()),
            };
            scene.points.insert(life.job.id.clone(), point);
            if !life.gone && life.hidden == 0 && !(scene.blind && self.chance.bool()) {
                scene.shown.push(life.job.clone());
            }
        }
        if self.once_in(3) {
            self.chance.shuffle(&mut scene.shown);
        }
        scene
    }

    fn turn_weather(&mut self) {
        let receivers: Vec<ReceiverName> = self.weather.keys().cloned().collect();
        for receiver in receivers {
            let (weather, left) = self.weather[&receiver];
            let next = match (weather, left) {
                (Weather::Fair, _) if self.once_in(30) => {
                    let bad = [
                        Weather::Away,
                        Weather::Away,
                        Weather::Busy,
                        Weather::Strict,
                        Weather::Strict,
                        Weather::Retired,
                    ];
                    (self.chance.choice(bad).unwrap_or_default(), self.chance.u32(2..20))
                }
                (Weather::Fair, _) | (_, 0) => (Weather::Fair, 0),
                (weather, left) => (weather, left - 1),
            };
            self.weather.insert(receiver, next);
        }
    }

    fn orders(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        if self.once_in(15) {
            let matchers = [
                vec!["rule=failed"],
                vec!["source=prod", "severity!=info"],
                vec!["reason=~.*quota.*"],
                vec!["type=CreateInstance"],
            ];
            let matchers = self.chance.choice(matchers).unwrap_or_default();
            let ends_at = self.now.plus(Duration::from_secs(self.chance.u64(60..1_500)));
            orders.push(Order::Silence(Silence {
                id: format!("sil_{}", self.chance.u32(..6)),
                matchers: matchers.into_iter().map(ToOwned::to_owned).collect(),
                starts_at: self.now,
                ends_at,
                author: "ada".into(),
                comment: "夜间 work".into(),
            }));
        }
        if self.once_in(20) {
            orders.push(Order::RetryDead);
        }
        if self.once_in(12) {
            let receivers: Vec<ReceiverName> = self.weather.keys().cloned().collect();
            orders.extend(self.chance.choice(receivers).map(Order::RetryPending));
        }
        if self.once_in(25) {
            orders.push(Order::Drop(self.chance.usize(1..4)));
        }
        if self.once_in(8) {
            orders.push(Order::Consent(!self.once_in(4)));
        }
        orders
    }
}
