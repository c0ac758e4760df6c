//! Days since 1970 as dates of the proleptic Gregorian calendar, and back, in a handful of multiplications.
//!
//! Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil` and `civil_from_days`.

/// Seconds of a day, as a local clock without changes shows them.
pub(crate) const DAY: i64 = 86_400;

/// The last year that is looked at.
pub(crate) const LAST_YEAR: i32 = 9999;
/// The first one.
pub(crate) const FIRST_YEAR: i32 = 1;

/// A date as year, month from 1, day from 1.
pub(crate) const fn date_of(days: i64) -> (i32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the calendar")]
    (year as i32, month as u32, day as u32)
}

/// The day a date is, since 1970-01-01.
pub(crate) const fn days_of(year: i32, month: u32, day: u32) -> i64 {
    let year = year as i64 - if month <= 2 { 1 } else { 0 };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 } as i64;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The weekday of a day since 1970-01-01, which was a Thursday; Sunday is 0.
pub(crate) const fn weekday(days: i64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "0 to 6")]
    {
        (days + 4).rem_euclid(7) as u32
    }
}

/// Whether February has 29 days.
pub(crate) const fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// How many days a month has, by its number from 1.
pub(crate) const fn month_length(leap: bool, month: u32) -> u32 {
    match month {
        2 => 28 + leap as u32,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_calendar_is_a_date_and_back() {
        let (first, last) = (days_of(FIRST_YEAR, 1, 1), days_of(LAST_YEAR, 12, 31));
        let mut expected = (FIRST_YEAR, 1, 1);
        for days in first..=last {
            let date = date_of(days);
            assert_eq!(date, expected);
            assert_eq!(days_of(date.0, date.1, date.2), days);
            expected.2 += 1;
            if expected.2 > month_length(is_leap(expected.0), expected.1) {
                expected = (expected.0, expected.1 + 1, 1);
            }
            if expected.1 > 12 {
                expected = (expected.0 + 1, 1, 1);
            }
        }
        assert_eq!((weekday(0), weekday(-1), weekday(3)), (4, 3, 0));
    }
}
