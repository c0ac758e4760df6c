//! Days and the dates they have in the Gregorian calendar, which is taken to have held always.
//!
//! Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2014): years are counted from March, so that a leap day is
//! the last of its year, and in eras of 400 years, which all have as many days.

/// Days of 400 years.
const ERA: i64 = 146_097;
/// Days from 1 March 400 years before the year 0000 to 1970. So far back, no number below is less than 0.
const SHIFT: i64 = 719_468 + ERA;

/// Days since 1970 began, or nothing if there is no such day.
pub(super) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let (from_march, years) = if month > 2 { (month - 3, year + 400) } else { (month + 9, year + 400 - 1) };
    let (era, year_of_era) = (years / 400, years % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * ERA + day_of_era - SHIFT;
    // 30 February would be 2 March.
    (date(days) == (year, month, day)).then_some(days)
}

/// Year, month and day, so many days after 1970 began, or before. No earlier than the year 0000.
pub(super) fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + SHIFT;
    let (era, day_of_era) = (shifted / ERA, shifted % ERA);
    let leap = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / (ERA - 1);
    let year_of_era = (day_of_era - leap) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era - 400 + i64::from(month <= 2);
    (year, month, day)
}
