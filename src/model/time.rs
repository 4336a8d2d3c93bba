//! An instant, in microseconds: what the cloud writes, what the store keeps, what decisions are handed as `now`.

use std::fmt;
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z. Arithmetic saturates: a hostile date is a far date, never a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Reads RFC 3339 with 0 to 9 fraction digits; a text without a zone is taken as UTC. `None` if it is no time.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let parsed = text.parse::<jiff::Timestamp>();
        let time = parsed.or_else(|_| format!("{text}Z").parse()).ok()?;
        Some(Self(time.as_microsecond()))
    }

    /// Reads the date of an HTTP header (RFC 9110, 5.6.7): `Tue, 15 Nov 1994 08:12:31 GMT`.
    pub fn parse_http(text: &str) -> Option<Self> {
        let zoned = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
        Some(Self(zoned.timestamp().as_microsecond()))
    }

    /// This instant and `span` more.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// This instant less `span`.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many fraction digits as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let far = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        f.pad(&jiff::Timestamp::from_microsecond(self.0).unwrap_or(far).to_string())
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A span as people write it: `45 s`, `6 min 5 s`, `2 h 3 min`, `14 d`. At most two units; under a second, milliseconds.
pub fn span(span: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut seconds = span.as_secs();
    if seconds == 0 {
        return format!("{} ms", span.as_millis());
    }
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if seconds >= size && parts.len() < 2 {
            parts.push(format!("{} {unit}", seconds / size));
            seconds %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Timestamp, span};
    use std::time::Duration;

    #[test]
    fn a_time_reads_with_any_fraction_any_offset_and_without_a_zone() {
        let expected = Some(Timestamp::from_micros(1_620_791_443_315_473));
        assert_eq!(Timestamp::parse("2021-05-12T03:50:43.315473Z"), expected);
        assert_eq!(Timestamp::parse("2021-05-12T03:50:43.315473999Z"), expected);
        assert_eq!(Timestamp::parse("2021-05-12T11:50:43.315473+08:00"), expected);
        assert_eq!(Timestamp::parse(" 2021-05-12T03:50:43.315473 "), expected);
        assert_eq!(Timestamp::parse_http("Wed, 12 May 2021 03:50:43 GMT"), Timestamp::parse("2021-05-12T03:50:43Z"));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::parse(""), None);
    }

    #[test]
    fn a_far_instant_prints_and_never_overflows() {
        assert_eq!(Timestamp::from_micros(i64::MAX).plus(Duration::MAX).to_string(), jiff::Timestamp::MAX.to_string());
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }

    #[test]
    fn a_span_reads_as_people_write_it() {
        let read = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(
            [read(45), read(365), read(7380), read(1_209_600), read(86_401)],
            ["45 s", "6 min 5 s", "2 h 3 min", "14 d", "1 d"]
        );
        assert_eq!(span(Duration::from_millis(80)), "80 ms");
    }
}
