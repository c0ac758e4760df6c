//! RFC 3339 (§5.6), the text form of times.

use super::{SECOND, Timestamp, civil};

const DAY: i64 = 86_400;

/// A time's text without its `Z`.
pub(super) struct Text([u8; 26]);

/// Every digit of a time.
pub(super) fn write(time: Timestamp) -> Text {
    let second = time.as_second();
    let ((year, month, day), of_day) = (civil::date(second.div_euclid(DAY)), second.rem_euclid(DAY));
    let mut text = *b"0000-00-00T00:00:00.000000";
    let [y1, y2, y3, y4, _, m1, m2, _, d1, d2, _, h1, h2, _, n1, n2, _, s1, s2, _, fraction @ ..] = &mut text;
    digits([y1, y2, y3, y4], year);
    digits([m1, m2], month);
    digits([d1, d2], day);
    digits([h1, h2], of_day / 3_600);
    digits([n1, n2], of_day / 60 % 60);
    digits([s1, s2], of_day % 60);
    digits(fraction.each_mut(), time.subsec_microsecond().into());
    Text(text)
}

fn digits<const N: usize>(places: [&mut u8; N], mut number: i64) {
    for place in places.into_iter().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

impl Text {
    /// With so many digits of the second's fraction, or with those that say something.
    pub(super) fn to(&self, digits: Option<usize>) -> &str {
        let zeros = || self.0.iter().rev().take_while(|byte| **byte == b'0').count().min(6);
        let digits = digits.map_or_else(|| 6 - zeros(), |digits| digits.min(6));
        let end = if digits == 0 { 19 } else { 20 + digits };
        self.0.get(..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// Reads what [`write`] wrote, and what else the RFC allows: offsets, any number of digits, small letters, a space
/// before the time of day, and the 60th second that a leap second is, which counts as the 59th.
pub(super) fn read(text: &[u8]) -> Result<Timestamp, &'static str> {
    let short = "it needs a date, a time of day and an offset";
    let (moment, rest) = text.split_first_chunk::<19>().ok_or(short)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b't' | b' ', h1, h2, b':', n1, n2, b':', s1, s2] =
        *moment
    else {
        return Err("its parts are not where they belong");
    };
    let letters = "there are letters among its digits";
    let number = |bytes: &[u8]| number(bytes).ok_or(letters);
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?);
    let days = civil::days(year, month, day).ok_or("there is no such day")?;
    if hour > 23 || minute > 59 || second > 60 {
        return Err("there is no such time of day");
    }
    let (micros, rest) = fraction(rest)?;
    let offset = offset(rest)?;
    let seconds = days * DAY + hour * 3_600 + minute * 60 + second.min(59) - offset;
    Timestamp::from_microsecond(seconds * SECOND + micros)
        .map_err(|_| "it lies outside the years 0000 to 9999")
}

/// Microseconds of the second, and what comes after.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), &'static str> {
    let [b'.', text @ ..] = text else { return Ok((0, text)) };
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(count);
    if digits.is_empty() {
        return Err("there are no digits after the point");
    }
    let micros = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
    Ok((micros.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')), rest))
}

/// Seconds that the time is ahead of UTC.
fn offset(text: &[u8]) -> Result<i64, &'static str> {
    let (sign, [h1, h2, b':', m1, m2]) = (match text {
        [b'Z' | b'z'] => return Ok(0),
        [] => return Err("it needs an offset, `Z` or `+01:00`"),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => (0, &[][..]),
    }) else {
        return Err("its offset is neither `Z` nor like `+01:00`");
    };
    match (number(&[*h1, *h2]), number(&[*m1, *m2])) {
        (Some(hours @ 0..24), Some(minutes @ 0..60)) => Ok(sign * (hours * 3_600 + minutes * 60)),
        _ => Err("there is no such offset"),
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    digits.iter().try_fold(0, |sum, byte| Some(sum * 10 + digit(byte)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::Timestamp;

    fn theirs(time: Timestamp) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_microsecond(time.as_microsecond()).ok()
    }

    #[test]
    fn what_is_allowed_is_read() {
        // The examples of RFC 3339 §5.8, and the corners of §5.6.
        for (text, expected) in [
            ("1985-04-12T23:20:50.52Z", "1985-04-12T23:20:50.52Z"),
            ("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57Z"),
            ("1990-12-31T23:59:60Z", "1990-12-31T23:59:59Z"),
            ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59Z"),
            ("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.87Z"),
            ("2026-01-01t00:00:00z", "2026-01-01T00:00:00Z"),
            ("2026-01-01 00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00.1234567891234Z", "2026-01-01T00:00:00.123456Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2000-02-29T00:00:00+23:59", "2000-02-28T00:01:00Z"),
        ] {
            assert_eq!(
                text.parse::<Timestamp>().map(|time| time.to_string()).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("", "a date, a time of day"),
            ("2026-01-01", "a date, a time of day"),
            ("2026-01-01T00:00Z", "a date, a time of day"),
            ("2026-01-01T00:00:00", "needs an offset"),
            ("2026-01-01T00:00:00.5", "needs an offset"),
            ("2026-01-01T00:00:00.Z", "no digits after the point"),
            ("2026-01-01T00:00:00,5Z", "neither `Z` nor"),
            ("2026-01-01T00:00:00ZZ", "neither `Z` nor"),
            ("2026-01-01T00:00:00+0100", "neither `Z` nor"),
            ("2026-01-01T00:00:00+01", "neither `Z` nor"),
            ("2026-01-01T00:00:00+24:00", "no such offset"),
            ("2026-01-01T00:00:00+00:60", "no such offset"),
            ("2026-01-01T24:00:00Z", "no such time of day"),
            ("2026-01-01T00:60:00Z", "no such time of day"),
            ("2026-01-01T00:00:61Z", "no such time of day"),
            ("2026-13-01T00:00:00Z", "no such day"),
            ("2026-00-01T00:00:00Z", "no such day"),
            ("2026-01-00T00:00:00Z", "no such day"),
            ("2026-02-29T00:00:00Z", "no such day"),
            ("1900-02-29T00:00:00Z", "no such day"),
            ("2026-99-99T00:00:00Z", "no such day"),
            ("2026/01/01T00:00:00Z", "not where they belong"),
            ("+2026-01-01T00:00:00Z", "not where they belong"),
            ("2026-01-01X00:00:00Z", "not where they belong"),
            ("202a-01-01T00:00:00Z", "letters among"),
            ("２026-01-01T00:00:00Z", "not where they belong"),
            ("0000-01-01T00:00:00+00:01", "outside the years"),
            ("9999-12-31T23:59:59-00:01", "outside the years"),
        ] {
            let error = text.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = "x".repeat(100_000).parse::<Timestamp>().unwrap_err().to_string();
        assert!(long.len() < 200, "a caller's text is not repeated without end");
    }

    #[test]
    fn a_precision_gives_the_second_so_many_digits() {
        let time: Timestamp = "2026-01-01T00:00:00.1201Z".parse().unwrap();
        for (text, expected) in [
            (format!("{time:.0}"), "2026-01-01T00:00:00Z"),
            (format!("{time:.3}"), "2026-01-01T00:00:00.120Z"),
            (format!("{time:.6}"), "2026-01-01T00:00:00.120100Z"),
            (format!("{time:.9}"), "2026-01-01T00:00:00.120100Z"),
        ] {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn every_day_of_three_eras_is_written_and_read_as_jiff_does() {
        let day = |date: &str| format!("{date}T00:00:00Z").parse::<Timestamp>().unwrap().as_second() / 86_400;
        let (first, later) = (day("0000-01-01")..day("0401-01-01"), day("1599-01-01")..day("2401-01-01"));
        for day in first.chain(later) {
            let time = Timestamp::from_second(day * 86_400).unwrap();
            let text = time.to_string();
            assert_eq!(text, theirs(time).unwrap().to_string());
            assert_eq!(text.parse(), Ok(time));
        }
    }

    proptest! {
        #[test]
        fn times_are_written_as_jiff_writes_them_and_read_back(
            micros in Timestamp::MIN.as_microsecond()..=Timestamp::MAX.as_microsecond(),
            digits in 0..=6_usize,
        ) {
            let time = Timestamp::from_microsecond(micros).unwrap();
            let text = time.to_string();
            prop_assert_eq!(text.parse(), Ok(time));
            if let Some(theirs) = theirs(time) {
                prop_assert_eq!(text, theirs.to_string());
                prop_assert_eq!(format!("{time:.digits$}"), format!("{theirs:.digits$}"));
            }
        }

        #[test]
        fn text_is_read_as_jiff_reads_it(
            (year, month, day) in (1..=9_998_u32, 0..=13_u32, 0..=32_u32),
            (hour, minute, second) in (0..=24_u32, 0..=60_u32, 0..=61_u32),
            fraction in "(\\.[0-9]{1,6}(000)?)?",
            offset in "Z|z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]",
            between in "[Tt ]",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{fraction}{offset}");
            let theirs = text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
            prop_assert_eq!(text.parse().ok().map(Timestamp::as_microsecond), theirs, "{}", text);
        }

        #[test]
        fn whatever_is_read_does_not_panic(text in "[0-9TtZz :.+-]{0,40}|\\PC{0,40}") {
            if let Ok(time) = text.parse::<Timestamp>() {
                prop_assert_eq!(time.to_string().parse(), Ok(time));
            }
        }
    }
}
