//! Windows: weekly times in a zone of the IANA database, in which a rule may speak.

use jiff::Timestamp as Instant;
use jiff::civil::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::document::{Item, Table, Value, nearest, suggest};
use crate::model::time::Timestamp;

/// A named set of weekly times.
#[derive(Clone, Debug)]
pub struct Window {
    /// Its name in the configuration.
    pub name: String,
    zone: TimeZone,
    spans: Vec<Span>,
}

/// On these days, from one time to another; over midnight when the end is not after the start.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// From Monday on.
    days: [bool; 7],
    from: Time,
    to: Time,
}

pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EXAMPLE: &str =
    "[window.office] zone = \"Europe/Berlin\", times = [{ days = [\"mon-fri\"], from = \"08:00\", to = \"18:00\" }]";

/// A zone of the IANA database that is built in: no machine's own one decides when somebody is told.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

impl Window {
    /// Reads `[window.NAME]`. `None` when something was wrong; the table has been told.
    pub fn read(name: &str, table: &Table<'_>) -> Option<Self> {
        let zone = table.required("zone", "a zone of the IANA database: zone = \"Europe/Berlin\"");
        let zone = zone.and_then(|item| known_zone(table, item));
        let spans = spans(table);
        Some(Self { name: name.to_owned(), zone: zone?, spans: spans? })
    }

    /// Whether the window is open at this moment. A time that the clocks skip in spring is the moment they skip to.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let Ok(instant) = Instant::from_microsecond(now.micros()) else { return true };
        let local = instant.to_zoned_datetime(self.zone.clone()).datetime();
        let (time, day) = (local.time(), usize::from(local.weekday().to_monday_zero_offset().unsigned_abs()));
        let yesterday = (day + 6) % 7;
        self.spans.iter().any(|span| match span.from < span.to {
            true => span.days[day] && span.from <= time && time < span.to,
            // Over midnight: the evening belongs to the day that is named, the morning to the one after it.
            false => span.days[day] && span.from <= time || span.days[yesterday] && time < span.to,
        })
    }
}

fn known_zone(table: &Table<'_>, item: Item<String>) -> Option<TimeZone> {
    let found = zone(&item.value);
    if found.is_none() {
        let database = TimeZoneDatabase::bundled();
        let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
        let help = match nearest(&item.value, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "such as \"UTC\" or \"Asia/Shanghai\"".to_owned(),
        };
        table.error("zone", item.span, format!("there is no time zone `{}`", item.value), help);
    }
    found
}

fn spans(table: &Table<'_>) -> Option<Vec<Span>> {
    let Some(times) = table.value("times") else {
        table.missing("times", EXAMPLE);
        return None;
    };
    let items = times.items()?;
    if items.is_empty() {
        times.error("empty", "`times` is empty: the window is never open", EXAMPLE);
        return None;
    }
    let read: Vec<Option<Span>> = items.iter().map(span).collect();
    read.into_iter().collect()
}

fn span(value: &Value<'_>) -> Option<Span> {
    let table = value.table()?;
    let days = match table.strings("days") {
        None if !table.has("days") => Some([true; 7]),
        None => None,
        Some(words) => {
            let mut days = [false; 7];
            let mut sound = true;
            for word in words {
                match range(&word.value) {
                    Some(named) => named.into_iter().for_each(|day| days[day] = true),
                    None => {
                        let help = format!("{}; or a range such as \"mon-fri\"", suggest(&word.value, &DAYS));
                        table.error("day", word.span, format!("`{}` is no day", word.value), help);
                        sound = false;
                    }
                }
            }
            sound.then_some(days)
        }
    };
    let (from, to) = (clock(&table, "from"), clock(&table, "to"));
    table.finish();
    let (from, to) = (from?, to?);
    if from == to {
        value.error("window", "the window ends when it begins", "from = \"00:00\", to = \"24:00\" is a whole day");
        return None;
    }
    Some(Span { days: days?, from, to })
}

/// The days of `mon` or `fri-mon`.
fn range(word: &str) -> Option<Vec<usize>> {
    let at = |word: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(word.trim()));
    let Some((first, last)) = word.split_once('-') else { return Some(vec![at(word)?]) };
    let (first, last) = (at(first)?, at(last)?);
    let count = (last + 7 - first) % 7;
    Some((first..=first + count).map(|day| day % 7).collect())
}

fn clock(table: &Table<'_>, key: &'static str) -> Option<Time> {
    let item = table.required(key, "a time such as \"08:00\"")?;
    if item.value == "24:00" {
        return Some(Time::MAX);
    }
    let read = item.value.split_once(':').and_then(|(hour, minute)| {
        let sound = hour.len() == 2 && minute.len() == 2;
        sound.then(|| Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok())?
    });
    if read.is_none() {
        table.error(
            "time",
            item.span,
            format!("`{}` is no time of the day", item.value),
            "such as \"08:00\" or \"24:00\"",
        );
    }
    read
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{Timestamp, Window};
    use crate::document::{Table, parse};

    fn window(text: &str) -> Result<Window, Vec<String>> {
        let (table, syntax) = parse(text);
        assert!(syntax.is_empty(), "{syntax:?}");
        let problems = RefCell::default();
        let table = Table::root(&table, &problems);
        let window = Window::read("w", &table);
        table.finish();
        let said: Vec<String> = problems.borrow().iter().map(|problem| problem.message.clone()).collect();
        if said.is_empty() { Ok(window.unwrap()) } else { Err(said) }
    }

    fn open(window: &Window, at: &str) -> bool {
        window.is_open(Timestamp::parse(at).unwrap())
    }

    #[test]
    fn a_window_is_open_by_the_clocks_of_its_zone_in_summer_and_in_winter() {
        let office =
            window("zone = \"Europe/Berlin\"\ntimes = [{ days = [\"mon-fri\"], from = \"08:00\", to = \"18:00\" }]")
                .unwrap();
        // 24 November 2026 is a Tuesday; Berlin is one hour ahead of UTC then, and two in July.
        assert!(!open(&office, "2026-11-24T06:59:59Z") && open(&office, "2026-11-24T07:00:00Z"));
        assert!(open(&office, "2026-11-24T16:59:59Z") && !open(&office, "2026-11-24T17:00:00Z"));
        assert!(!open(&office, "2026-07-14T05:59:59Z") && open(&office, "2026-07-14T06:00:00Z"));
        assert!(!open(&office, "2026-11-28T12:00:00Z"), "a Saturday");
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_on() {
        let night = window("zone = \"UTC\"\ntimes = [{ days = \"fri\", from = \"22:00\", to = \"06:00\" }]").unwrap();
        assert!(open(&night, "2026-11-27T22:00:00Z") && open(&night, "2026-11-28T05:59:00Z"));
        assert!(!open(&night, "2026-11-27T05:00:00Z") && !open(&night, "2026-11-28T22:00:00Z"));
        let weekend =
            window("zone = \"UTC\"\ntimes = [{ days = \"sat-sun\", from = \"00:00\", to = \"24:00\" }]").unwrap();
        assert!(open(&weekend, "2026-11-29T23:59:59.9Z") && !open(&weekend, "2026-11-30T00:00:00Z"));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        assert_eq!(
            window("zone = \"Europe/Berlín\"\ntimes = [{ from = \"08:00\", to = \"18:00\" }]").unwrap_err(),
            ["there is no time zone `Europe/Berlín`"]
        );
        assert_eq!(window("zone = \"UTC\"\ntimes = []").unwrap_err(), ["`times` is empty: the window is never open"]);
        let bad = "zone = \"UTC\"\ntimes = [{ days = \"mo\", from = \"8:00\", to = \"25:00\" }]";
        assert_eq!(
            window(bad).unwrap_err(),
            ["`mo` is no day", "`8:00` is no time of the day", "`25:00` is no time of the day"]
        );
    }
}
