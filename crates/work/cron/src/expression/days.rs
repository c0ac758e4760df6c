//! The days of a month an expression names, as one mask.

use super::civil::month_length;

/// What decides, once both day fields are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Combine {
    /// Neither field is restricted.
    All,
    /// The day of the month alone.
    Month,
    /// The weekday alone.
    Week,
    /// Either.
    Either,
    /// Both.
    Both,
}

/// The two day fields. Bit `n` of a mask of days is day `n`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Days {
    pub(crate) combine: Combine,
    /// `15`.
    pub(crate) dates: u32,
    /// `L-n`: bit `n`.
    pub(crate) from_end: u32,
    /// `nW`: bit `n`.
    pub(crate) near: u32,
    /// `L-nW`: bit `n`.
    pub(crate) near_end: u32,
    /// Weekdays and their `#n`, for months that begin on each weekday.
    pub(crate) by_first: [u32; 7],
    /// `5L`: bit of the weekday.
    pub(crate) last: u8,
}

impl Default for Days {
    fn default() -> Self {
        Self { combine: Combine::All, dates: 0, from_end: 0, near: 0, near_end: 0, by_first: [0; 7], last: 0 }
    }
}

impl Days {
    /// Adds a weekday (0 is Sunday), every one of a month or only the `nth`.
    pub(crate) fn add_weekday(&mut self, weekday: u32, nth: Option<u32>) {
        for (first, mask) in (0..).zip(self.by_first.iter_mut()) {
            let earliest = 1 + (weekday + 7 - first) % 7;
            *mask |= match nth {
                None => (0..5).fold(0, |days, week| days | shifted(earliest + 7 * week)),
                Some(nth) => shifted(earliest + 7 * (nth - 1)),
            };
        }
    }

    /// The days of a month that has this length and begins on this weekday.
    pub(crate) fn mask(&self, leap: bool, month: u32, first: u32) -> u32 {
        let length = month_length(leap, month);
        let all = (u32::MAX >> (31 - length)) & !1;
        let days = match self.combine {
            Combine::All => all,
            Combine::Month => self.of_month(length, first),
            Combine::Week => self.of_week(length, first),
            Combine::Either => self.of_month(length, first) | self.of_week(length, first),
            Combine::Both => self.of_month(length, first) & self.of_week(length, first),
        };
        days & all
    }

    fn of_month(&self, length: u32, first: u32) -> u32 {
        let mut days = self.dates;
        if self.from_end | self.near | self.near_end != 0 {
            for offset in bits(self.from_end).filter(|offset| *offset < length) {
                days |= 1 << (length - offset);
            }
            for day in bits(self.near).filter(|day| *day <= length) {
                days |= 1 << nearest(day, length, first);
            }
            for offset in bits(self.near_end).filter(|offset| *offset < length) {
                days |= 1 << nearest(length - offset, length, first);
            }
        }
        days
    }

    fn of_week(&self, length: u32, first: u32) -> u32 {
        let mut days = self.by_first.get(first as usize).copied().unwrap_or(0);
        for weekday in bits(u32::from(self.last)) {
            let weekday_of_last = (first + length - 1) % 7;
            days |= 1 << (length - (weekday_of_last + 7 - weekday) % 7);
        }
        days
    }
}

/// The working day nearest to a day, within its month (OCPS 1.3, section 4.3).
const fn nearest(day: u32, length: u32, first: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == length => day - 2,
        0 => day + 1,
        _ => day,
    }
}

const fn shifted(day: u32) -> u32 {
    if day > 31 { 0 } else { 1 << day }
}

fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 32).then_some(bit)
    })
}
