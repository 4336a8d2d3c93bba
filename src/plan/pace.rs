//! How fast a receiver is told: groups gather, and a receiver's rate holds. Nothing is dropped: what is held is kept, and
//! told in a digest that names every job.
//!
//! A group tells its first notification, and the first of each reason class, at once; the others wait until the group has
//! gathered. A receiver that would exceed its rate is told the first of each class; the others go into digests at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::model::alert::Severity;
use crate::model::delivery::{Held, Lane, Owed};
use crate::model::memory::{Opened, Pacing};
use crate::model::name::{DeliveryId, JobId, ReceiverName, derive};
use crate::model::notification::{Entry, Event, Notification, Topic};
use crate::model::text::{line, shorten};
use crate::model::time::Timestamp;

/// A digest names no more jobs than this; more make several.
pub const DIGEST_MAX: usize = 1_000;
/// Of a receiver's rate, this share (in tenths) is for single notifications once there are too many of them; the rest is
/// left for digests.
const SINGLE_TENTHS: usize = 7;
/// Of a receiver's rate, this share (in tenths) is not used for digests: the first of a new cause finds room.
const RESERVED_TENTHS: usize = 2;
/// A group that never stops remembers no more classes than this; those beyond it wait like any other.
const CLASSES_MAX: usize = 100;
/// A group may have been opened so much later than a poll was decided that is written after it.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// More classes than this are counted, not named, in a digest's title.
const TITLE_CLASSES_MAX: usize = 3;

/// Classes and ids in a text are cut here.
const CLASS_MAX: usize = 200;
/// A digest has no more bytes of data than this, unless one notification alone has more: what is longer is refused by many
/// receivers.
pub const DIGEST_BYTES_MAX: usize = 1 << 20;

/// How many messages a receiver gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At most so many …
    pub count: usize,
    /// … in this time.
    pub per: Duration,
}

impl Default for Rate {
    /// What a person can read.
    fn default() -> Self {
        Self { count: 10, per: Duration::from_secs(60) }
    }
}

/// What becomes of the notifications of one plan.
#[derive(Clone, Debug, Default)]
pub struct Paced {
    /// Told now.
    pub send: Vec<Owed>,
    /// Told later: with the group they wait for and the time.
    pub hold: Vec<(Owed, String, Timestamp)>,
    /// Groups that opened or learned.
    pub groups: BTreeMap<(ReceiverName, String), Opened>,
}

/// Decides what is told now and what is held.
pub fn pace(owed: Vec<Owed>, pacing: &Pacing, rate: &dyn Fn(&ReceiverName) -> Option<Rate>, now: Timestamp) -> Paced {
    let mut paced = Paced::default();
    let mut held = pacing.held.clone();
    let mut hold: Vec<(usize, (Owed, String, Timestamp))> = Vec::new();
    let mut single: HashMap<ReceiverName, Vec<(usize, Owed)>> = HashMap::new();
    let mut order: Vec<ReceiverName> = Vec::new();
    for (at, owed) in owed.into_iter().enumerate() {
        let Some(wish) = owed.pace.clone() else {
            paced.send.push(owed);
            continue;
        };
        let lane = (owed.receiver.clone(), owed.lane.clone());
        if let Some(due) = held.get(&lane).copied() {
            hold.push((at, (owed, String::new(), due.max(now))));
            continue;
        }
        if let Some((group, wait)) = wish.group
            && let Some(until) = paced.join(&owed.receiver, &group, wait, &wish.class, pacing, now)
        {
            held.insert(lane, until);
            hold.push((at, (owed, group, until)));
            continue;
        }
        if !single.contains_key(&owed.receiver) {
            order.push(owed.receiver.clone());
        }
        single.entry(owed.receiver.clone()).or_default().push((at, owed));
    }
    for receiver in order {
        let notifications = single.remove(&receiver).unwrap_or_default();
        let left = rate(&receiver)
            .map_or(usize::MAX, |rate| rate.count.saturating_sub(pacing.recent.get(&receiver).copied().unwrap_or(0)));
        // A stream of single ones would else take whatever room there is from what waits.
        let left = left.saturating_sub(usize::from(pacing.waiting.contains(&receiver)));
        hold.extend(paced.brake(notifications, left).into_iter().map(|(at, owed)| (at, (owed, String::new(), now))));
    }
    // As they were decided, whatever holds them: those about one job are told in that order.
    hold.sort_by_key(|(at, _)| *at);
    paced.hold = hold.into_iter().map(|(_, held)| held).collect();
    paced
}

impl Paced {
    /// When a notification is told with its group; `None` when it is told at once.
    fn join(
        &mut self,
        receiver: &ReceiverName,
        group: &str,
        wait: Duration,
        class: &str,
        pacing: &Pacing,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let key = (receiver.clone(), group.to_owned());
        let known = self.groups.get(&key).or_else(|| pacing.groups.get(&key));
        // One that would gather for much longer than it may is from before the clock was set back.
        match known.filter(|opened| opened.until > now && opened.until <= now.plus(opened.wait).plus(AHEAD_MAX)) {
            Some(opened) if opened.classes.contains(class) || opened.classes.len() >= CLASSES_MAX => Some(opened.until),
            Some(opened) => {
                let mut opened = opened.clone();
                opened.classes.insert(class.to_owned());
                self.groups.insert(key, opened);
                None
            }
            None => {
                let classes = BTreeSet::from([class.to_owned()]);
                self.groups.insert(key, Opened { until: now.plus(wait), wait, classes });
                None
            }
        }
    }

    /// Sends all of them if the receiver's rate allows it; else the first of each cause, those that matter most before
    /// others. Returns the rest.
    fn brake(&mut self, notifications: Vec<(usize, Owed)>, left: usize) -> Vec<(usize, Owed)> {
        let single = match notifications.len() <= left {
            true => (0..notifications.len()).collect(),
            false => firsts(&notifications, (left * SINGLE_TENTHS / 10).max(usize::from(left > 1))),
        };
        let mut rest = Vec::new();
        for (position, (at, owed)) in notifications.into_iter().enumerate() {
            match single.contains(&position) {
                true => self.send.push(owed),
                false => rest.push((at, owed)),
            }
        }
        rest
    }
}

/// The positions of the first of each cause, at most `max`. A cause is what happened, how much it matters, and the class of
/// the reason. What follows something that is held about the same job is held as well.
fn firsts(notifications: &[(usize, Owed)], max: usize) -> HashSet<usize> {
    let mut lanes: HashSet<&Lane> = HashSet::new();
    let mut causes: HashSet<(Severity, &'static str, &str)> = HashSet::new();
    let mut found: Vec<(Severity, usize)> = Vec::new();
    for (at, (_, owed)) in notifications.iter().enumerate() {
        let Notification { severity, event, .. } = owed.notification;
        let class = owed.pace.as_ref().map_or("", |pace| pace.class.as_str());
        if lanes.insert(&owed.lane) && causes.insert((severity, event.as_str(), class)) {
            found.push((severity, at));
        }
    }
    found.sort_by_key(|(severity, at)| (Reverse(*severity), *at));
    found.into_iter().take(max).map(|(_, at)| at).collect()
}

/// How many digests may be made now when `left` more messages are allowed, and so many were made lately: some are left for
/// causes that are yet to come. But one is always made if there was none, so that what is held does not wait for ever.
pub fn digests(rate: Rate, left: usize, lately: usize) -> usize {
    let spare = left.saturating_sub(rate.count * RESERVED_TENTHS / 10);
    match lately {
        0 => spare.max(left.min(1)),
        _ => spare,
    }
}

/// What a receiver takes in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// As much text, in bytes.
    pub text_max: usize,
    /// The end of a finding is told in a message of its own: it ends something there by its id.
    pub ends_apart: bool,
}

/// Puts what is held and due into digests: those of one receiver, in the order they were held. Whatever has no room in
/// `left` messages stays held. Of each digest, the positions of what is in it; one that is alone stays what it was.
pub fn gather(held: &[Held], left: usize, room: Room, now: Timestamp) -> Vec<(Option<Owed>, Vec<usize>)> {
    let is_apart = |held: &Held| room.ends_apart && is_end(held);
    let mut messages = Vec::new();
    let mut from = 0;
    while from < held.len() && messages.len() < left {
        let (mut bytes, mut text) = (0, 0);
        let mut classes = HashSet::new();
        let together = held[from..].iter().take_while(|held| !is_apart(held));
        let fitting = together.take(DIGEST_MAX).take_while(|held| {
            bytes += held.data.to_string().len();
            text += entry_line(held).len();
            if classes.insert(held.class.as_str()) {
                text += class_line(DIGEST_MAX, &held.class).len();
            }
            bytes <= DIGEST_BYTES_MAX && text <= room.text_max
        });
        let count = fitting.count().max(1);
        let chunk = &held[from..from + count];
        let owed = (count > 1).then(|| digest(chunk, now));
        messages.push((owed, (from..from + count).collect()));
        from += count;
    }
    messages
}

/// Whether it says that a finding is over.
pub fn is_end(held: &Held) -> bool {
    held.frozen.event == Event::AlertResolved.as_str()
}

/// A job in a digest's text.
fn entry_line(held: &Held) -> String {
    let lane = &held.frozen.lane;
    let source = lane.source_name();
    format!("  {} [{source} {}]\n", held.frozen.title, line(lane.subject.as_str(), CLASS_MAX))
}

/// A cause in a digest's text, before its jobs.
fn class_line(count: usize, class: &str) -> String {
    format!("{count}× {}\n", class_name(class))
}

fn class_name(class: &str) -> String {
    if class.is_empty() { "no reason given".to_owned() } else { line(class, CLASS_MAX) }
}

/// One message for many, with every job in it by name.
pub fn digest(held: &[Held], now: Timestamp) -> Owed {
    let receiver = held[0].frozen.receiver.clone();
    let severity = held.iter().map(|held| held.severity).max().unwrap_or(Severity::Info);
    let mut classes: Vec<(&str, Vec<&Held>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for held in held {
        let at = *known.entry(held.class.as_str()).or_insert_with(|| {
            classes.push((held.class.as_str(), Vec::new()));
            classes.len() - 1
        });
        classes[at].1.push(held);
    }
    // Most first; equal ones as they came.
    classes.sort_by_key(|(_, held)| std::cmp::Reverse(held.len()));
    let mut named: Vec<String> = classes
        .iter()
        .take(TITLE_CLASSES_MAX)
        .map(|(class, held)| format!("{}× {}", held.len(), shorten(&class_name(class), 80)))
        .collect();
    if classes.len() > TITLE_CLASSES_MAX {
        named.push(format!("{} other causes", classes.len() - TITLE_CLASSES_MAX));
    }
    let mut body = String::new();
    for (class, held) in &classes {
        body += &class_line(held.len(), class);
        held.iter().for_each(|held| body += &entry_line(held));
    }
    let tally = match held.iter().map(|held| &held.frozen.lane).collect::<HashSet<_>>().len() {
        1 => "1 job".to_owned(),
        jobs => format!("{jobs} jobs"),
    };
    let ids: Vec<&str> = held.iter().map(|held| held.frozen.id.as_str()).collect();
    let entry =
        |held: &Held| Entry { title: held.frozen.title.clone(), class: held.class.clone(), data: held.data.clone() };
    let notification = Notification {
        event: Event::Digest,
        time: now,
        severity,
        title: format!("{tally}: {}", named.join(", ")),
        body: body.trim_end().to_owned(),
        topic: Topic::Digest(held.iter().map(entry).collect()),
    };
    let mut parts = vec!["jobwatch/digest/v1", receiver.as_str()];
    parts.extend(ids);
    let id = DeliveryId::from(derive("msg", &parts));
    Owed {
        // In order with everything about each job in it, and with no other digest.
        lane: Lane { source: None, subject: JobId::from(format!("digest/{id}")) },
        id,
        receiver,
        notification,
        pace: None,
    }
}
