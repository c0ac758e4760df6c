//! Where the cron suites of the world disagree, said aloud.

use serde::{Deserialize, Serialize};

/// What becomes of a time the local clock jumps over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DstGap {
    /// It does not happen (OCPS 1.4, section 4.3.1).
    #[default]
    Skip,
    /// It happens at the first second after the gap. Several times in one gap happen once.
    FireAfter,
    /// It happens at the last second before the gap. Several times in one gap happen once.
    FireBefore,
}

/// What becomes of a time the local clock shows twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DstOverlap {
    /// It happens the first time (OCPS 1.4, section 4.3.1).
    #[default]
    First,
    /// It happens both times.
    Both,
    /// It happens the second time.
    Last,
}

/// What happens when the local clock is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dst {
    /// Times that are jumped over.
    pub gap: DstGap,
    /// Times that come twice.
    pub overlap: DstOverlap,
}

/// How a restricted day of the month and a restricted day of the week are taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DayRule {
    /// Either is enough; only `*` and `?` leave a field unrestricted (OCPS 1.0, section 6.1).
    #[default]
    Either,
    /// Either is enough, but a field that *begins* with `*` (also `*/2`) makes it both, as Vixie cron's source has it.
    EitherUnlessStar,
    /// Both are needed (Cronos; what `+` before the weekday asks for in one expression).
    Both,
}

/// Which expressions name an interval rather than a time of day, and so go by [`Dialect::interval`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intervals {
    /// Those whose second, minute or hour begins with `*`, or is `H/n` (Vixie).
    #[default]
    Star,
    /// Those with a `*`, a range or a step in second, minute or hour (Cronos).
    Steps,
}

/// What may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Syntax {
    /// What OCPS 1.0 to 1.4 allow.
    #[default]
    Strict,
    /// Also `5/15` for `5-59/15`, ranges that wrap (`22-2`, `FRI-MON`), lower-case `l` and `w`, and steps longer than
    /// their field.
    Lenient,
}

/// How an expression is read. The default is OCPS, which is Vixie cron with declared extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Dialect {
    /// What may be written.
    pub syntax: Syntax,
    /// Day of the month and of the week together.
    pub days: DayRule,
    /// Which expressions are intervals.
    pub intervals: Intervals,
    /// Changes of the clock, for times of day: `30 2 * * *`.
    pub fixed: Dst,
    /// Changes of the clock, for intervals: `*/15 * * * *`. Unless told, minutes that do not exist are skipped and
    /// minutes that come twice count twice: such a schedule follows elapsed time.
    pub interval: Dst,
}

impl Default for Dialect {
    fn default() -> Self {
        Self::OCPS
    }
}

impl Dialect {
    const fn elapsed() -> Dst {
        Dst { gap: DstGap::Skip, overlap: DstOverlap::Both }
    }

    /// OCPS 1.4, the default.
    pub const OCPS: Self = Self {
        syntax: Syntax::Strict,
        days: DayRule::Either,
        intervals: Intervals::Star,
        fixed: Dst { gap: DstGap::Skip, overlap: DstOverlap::First },
        interval: Self::elapsed(),
    };

    /// Debian's cron: a time of day that is jumped over happens right after.
    pub const VIXIE: Self = Self {
        syntax: Syntax::Lenient,
        days: DayRule::EitherUnlessStar,
        fixed: Dst { gap: DstGap::FireAfter, overlap: DstOverlap::First },
        ..Self::OCPS
    };

    /// Hangfire's Cronos.
    pub const CRONOS: Self = Self {
        syntax: Syntax::Lenient,
        days: DayRule::Both,
        intervals: Intervals::Steps,
        fixed: Dst { gap: DstGap::FireAfter, overlap: DstOverlap::First },
        interval: Dst { gap: DstGap::FireAfter, overlap: DstOverlap::Both },
    };

    /// Go's `robfig/cron`: what the wall shows, no more and no less.
    pub const ROBFIG: Self = Self {
        syntax: Syntax::Lenient,
        fixed: Dst { gap: DstGap::Skip, overlap: DstOverlap::Both },
        ..Self::OCPS
    };

    /// The same with another policy for times of day that are jumped over.
    #[must_use]
    pub const fn gap(mut self, gap: DstGap) -> Self {
        self.fixed.gap = gap;
        self
    }

    /// The same with another policy for times of day that come twice.
    #[must_use]
    pub const fn overlap(mut self, overlap: DstOverlap) -> Self {
        self.fixed.overlap = overlap;
        self
    }
}
