//! An instant of wall-clock time, to the microsecond.

mod civil;
mod rfc3339;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SECOND: i64 = 1_000_000;

/// An instant in UTC, to the microsecond, in the years 0000 to 9999.
///
/// That is what RFC 3339 can write and what databases keep, so a time that is stored or sent is the very time that is
/// read back. Finer parts of what it is made from are dropped, towards the past. Leap seconds are not counted, as in
/// POSIX.
///
/// It is written and read as RFC 3339 has it, in JSON too; offsets are read and converted. `{:.3}` writes three digits
/// of the second's fraction (six at most); without a precision as many are written as there are.
///
/// It knows no calendar beyond that: take `jiff` or `chrono` for days and zones, and go through
/// [`as_microsecond`](Self::as_microsecond).
///
/// ```
/// use std::time::Duration;
/// use runtime_kernel::Timestamp;
///
/// let noon: Timestamp = "2026-01-01T13:00:00.250+01:00".parse().unwrap();
/// assert_eq!(noon.to_string(), "2026-01-01T12:00:00.25Z");
/// let later = noon.checked_add(Duration::from_secs(90)).unwrap();
/// assert_eq!(later.duration_since(noon), Duration::from_secs(90));
/// assert_eq!(Timestamp::from_microsecond(later.as_microsecond()), Ok(later));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A time before the year 0000 or after the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time outside the years 0000 to 9999")]
pub struct TimestampOutOfRange;

/// Text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time such as \"2026-01-01T00:00:00Z\": {reason}")]
pub struct NotATimestamp {
    text: Box<str>,
    reason: &'static str,
}

impl Timestamp {
    /// 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200 * SECOND);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * SECOND - 1);
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// So many microseconds after 1970 began, or before.
    ///
    /// # Errors
    /// [`TimestampOutOfRange`].
    pub const fn from_microsecond(microsecond: i64) -> Result<Self, TimestampOutOfRange> {
        if microsecond < Self::MIN.0 || microsecond > Self::MAX.0 {
            return Err(TimestampOutOfRange);
        }
        Ok(Self(microsecond))
    }

    /// So many seconds after 1970 began, or before.
    ///
    /// # Errors
    /// [`TimestampOutOfRange`].
    pub const fn from_second(second: i64) -> Result<Self, TimestampOutOfRange> {
        match second.checked_mul(SECOND) {
            Some(microsecond) => Self::from_microsecond(microsecond),
            None => Err(TimestampOutOfRange),
        }
    }

    /// Microseconds since 1970 began.
    pub const fn as_microsecond(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970 began, rounded towards the past.
    pub const fn as_millisecond(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Whole seconds since 1970 began, rounded towards the past.
    pub const fn as_second(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// Microseconds since the second began.
    #[expect(clippy::cast_possible_truncation, reason = "0 to 999,999")]
    pub const fn subsec_microsecond(self) -> u32 {
        self.0.rem_euclid(SECOND) as u32
    }

    /// So much later.
    ///
    /// # Errors
    /// [`TimestampOutOfRange`].
    pub fn checked_add(self, duration: Duration) -> Result<Self, TimestampOutOfRange> {
        let sum = micros(duration).and_then(|micros| self.0.checked_add(micros));
        sum.map_or(Err(TimestampOutOfRange), Self::from_microsecond)
    }

    /// So much earlier.
    ///
    /// # Errors
    /// [`TimestampOutOfRange`].
    pub fn checked_sub(self, duration: Duration) -> Result<Self, TimestampOutOfRange> {
        let difference = micros(duration).and_then(|micros| self.0.checked_sub(micros));
        difference.map_or(Err(TimestampOutOfRange), Self::from_microsecond)
    }

    /// So much later, [`MAX`](Self::MAX) at the latest.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self::MAX)
    }

    /// So much earlier, [`MIN`](Self::MIN) at the earliest.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        self.checked_sub(duration).unwrap_or(Self::MIN)
    }

    /// How much later than another it is; nothing when it is earlier.
    pub fn duration_since(self, earlier: Self) -> Duration {
        if self > earlier { self.abs_diff(earlier) } else { Duration::ZERO }
    }

    /// How far another lies from it, on either side.
    pub fn abs_diff(self, other: Self) -> Duration {
        Duration::from_micros(self.0.abs_diff(other.0))
    }
}

/// Whole microseconds.
fn micros(duration: Duration) -> Option<i64> {
    let seconds = i64::try_from(duration.as_secs()).ok()?.checked_mul(SECOND)?;
    seconds.checked_add(duration.subsec_micros().into())
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = rfc3339::write(*self);
        f.write_str(text.to(f.precision()))?;
        f.write_str("Z")
    }
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        rfc3339::read(text.as_bytes())
            .map_err(|reason| NotATimestamp { text: text.chars().take(64).collect(), reason })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"2026-01-01T00:00:00Z\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl From<SystemTime> for Timestamp {
    /// [`MIN`](Self::MIN) and [`MAX`](Self::MAX) for what lies beyond.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self::UNIX_EPOCH.saturating_add(after),
            // A part of a microsecond before is rounded towards the past too.
            Err(before) => Self::UNIX_EPOCH.saturating_sub(before.duration() + Duration::from_nanos(999)),
        }
    }
}

impl From<Timestamp> for SystemTime {
    /// The beginning of 1970 for what the platform's clock cannot express.
    fn from(time: Timestamp) -> Self {
        let (epoch, distance) = (SystemTime::UNIX_EPOCH, time.abs_diff(Timestamp::UNIX_EPOCH));
        let there = if time.0 < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
        there.unwrap_or(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn arithmetic_ends_where_years_of_four_digits_do() {
        assert_eq!(Timestamp::MAX.checked_add(MICRO), Err(TimestampOutOfRange));
        assert_eq!(Timestamp::MIN.checked_sub(MICRO), Err(TimestampOutOfRange));
        assert_eq!(Timestamp::UNIX_EPOCH.checked_add(Duration::MAX), Err(TimestampOutOfRange));
        assert_eq!(Timestamp::UNIX_EPOCH.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::UNIX_EPOCH.saturating_sub(Duration::MAX), Timestamp::MIN);
        assert_eq!(Timestamp::from_second(i64::MAX), Err(TimestampOutOfRange));
        assert_eq!(Timestamp::MAX.checked_sub(MICRO).unwrap().checked_add(MICRO), Ok(Timestamp::MAX));
        for end in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(Timestamp::from_microsecond(end.as_microsecond()), Ok(end));
            assert_eq!(end.to_string().parse(), Ok(end));
        }
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn the_time_since_something_later_is_nothing() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(3).unwrap());
        assert_eq!(late.duration_since(early), Duration::from_secs(3));
        assert_eq!(early.duration_since(late), Duration::ZERO);
        assert_eq!(early.abs_diff(late), late.abs_diff(early));
        assert_eq!(Timestamp::MAX.duration_since(Timestamp::MIN).as_micros(), 315_569_519_999_999_999);
    }

    #[test]
    fn parts_are_rounded_towards_the_past() {
        let before: Timestamp = "1969-12-31T23:59:58.000001Z".parse().unwrap();
        assert_eq!(
            (before.as_second(), before.as_millisecond(), before.subsec_microsecond()),
            (-2, -2_000, 1)
        );
        for (nanos, micros) in [(1_999, 1), (-1, -1), (-1_000, -1), (-1_001, -2)] {
            let distance = Duration::from_nanos(i64::unsigned_abs(nanos));
            let time =
                if nanos < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance };
            assert_eq!(Timestamp::from(time).as_microsecond(), micros, "{nanos} ns");
        }
    }

    #[test]
    fn the_systems_time_comes_back() {
        for text in ["1969-12-31T23:59:59.999999Z", "2026-11-21T05:33:20.000001Z", "1601-01-01T00:00:00Z"] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }

    #[test]
    fn json_has_it_as_text_and_says_what_is_wrong_with_other_text() {
        let time: Timestamp = serde_json::from_str(r#""2026-01-01T00:00:00.500Z""#).unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), r#""2026-01-01T00:00:00.5Z""#);
        let error = serde_json::from_str::<Timestamp>(r#""2026-02-30T00:00:00Z""#).unwrap_err();
        assert!(error.to_string().contains("`2026-02-30T00:00:00Z` is not a time"), "{error}");
        assert!(error.to_string().contains("no such day"), "{error}");
        assert!(serde_json::from_str::<Timestamp>("1767225600").is_err());
    }
}
