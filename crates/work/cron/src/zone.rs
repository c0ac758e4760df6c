//! A time zone: how far a local clock is from UTC, and when that changes.

use std::fmt;

use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// A time zone of the IANA database. The system's copy is asked first; without one, the copy compiled in.
///
/// ```
/// use runtime_cron::Zone;
///
/// assert_eq!(Zone::get("Europe/Berlin")?.name(), "Europe/Berlin");
/// assert!(Zone::get("Europe/Atlantis").is_err());
/// # Ok::<(), runtime_cron::UnknownZone>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    zone: TimeZone,
    /// The offset of a zone whose clock never changes, so that nothing needs to be looked up.
    fixed: Option<i64>,
}

/// There is no time zone of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{0}`")]
pub struct UnknownZone(pub String);

/// What a local time is. Seconds.
pub(crate) enum Local {
    /// One instant.
    Once(i64),
    /// Two: earlier and later.
    Twice(i64, i64),
    /// None: it is jumped over. The offsets before and after.
    Never(i64, i64),
}

/// A change of the clock, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The first instant with the new offset.
    pub(crate) at: i64,
    /// The local time there would have been.
    pub(crate) old: i64,
    /// The local time there is.
    pub(crate) new: i64,
}

impl Zone {
    /// A zone by its name, or `UTC`.
    ///
    /// # Errors
    /// [`UnknownZone`].
    pub fn get(name: &str) -> Result<Self, UnknownZone> {
        TimeZone::get(name).map(Self::from).map_err(|_| UnknownZone(name.chars().take(80).collect()))
    }

    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self::from(TimeZone::UTC)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// How far the local clock is ahead at an instant.
    #[inline]
    pub(crate) fn offset(&self, second: i64) -> i64 {
        self.fixed.unwrap_or_else(|| instant(second).map_or(0, |at| seconds(self.zone.to_offset(at))))
    }

    /// What a local second is.
    #[inline]
    pub(crate) fn resolve(&self, local: i64) -> Local {
        if let Some(offset) = self.fixed {
            return Local::Once(local - offset);
        }
        let Some(wall) = instant(local).map(|at| Offset::UTC.to_datetime(at)) else {
            return Local::Once(local);
        };
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => Local::Once(local - seconds(offset)),
            AmbiguousOffset::Fold { before, after } => {
                Local::Twice(local - seconds(before), local - seconds(after))
            }
            AmbiguousOffset::Gap { before, after } => Local::Never(seconds(before), seconds(after)),
        }
    }

    /// The first instant whose local time is this one or later.
    pub(crate) fn first_instant(&self, local: i64) -> Option<i64> {
        match self.resolve(local) {
            Local::Once(instant) | Local::Twice(instant, _) => Some(instant),
            Local::Never(old, new) => self.change(local - new, old, new).map(|change| change.at),
        }
    }

    /// The change that makes the offset `after`, looked for from an instant before it.
    pub(crate) fn change(&self, from: i64, before: i64, after: i64) -> Option<Change> {
        let mut following = self.zone.following(instant(from)?);
        let change = following.find(|change| seconds(change.offset()) == after)?;
        let at = change.timestamp().as_second();
        Some(Change { at, old: at + before, new: at + after })
    }
}

fn seconds(offset: Offset) -> i64 {
    i64::from(offset.seconds())
}

/// The one place where our times become jiff's.
fn instant(second: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(second).ok()
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        let fixed = zone.to_fixed_offset().ok().map(seconds);
        Self { zone, fixed }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}
