//! Time budgets as they travel between services.

use std::time::Duration;

/// The header that carries a remaining time over plain HTTP: a number with its unit (`250ms`, `2s`), or milliseconds.
pub const X_REQUEST_TIMEOUT: &str = "x-request-timeout";

/// The header that carries a remaining time over gRPC.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Reads a `grpc-timeout`: at most eight digits and a unit of `H M S m u n` (gRPC over HTTP/2, "Requests").
///
/// ```
/// use std::time::Duration;
/// use runtime_resilience::{grpc_timeout, parse_grpc_timeout};
///
/// assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
/// assert_eq!(parse_grpc_timeout("123456789m"), None);
/// assert_eq!(grpc_timeout(Duration::from_millis(250)), "250000u");
/// ```
pub fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes a `grpc-timeout`: in the finest unit that fits eight digits, rounded down, so that no budget grows by
/// travelling.
pub fn grpc_timeout(left: Duration) -> String {
    const HOUR: u128 = 3_600_000_000_000;
    let units =
        [("n", 1), ("u", 1_000), ("m", 1_000_000), ("S", 1_000_000_000), ("M", HOUR / 60), ("H", HOUR)];
    let nanos = left.as_nanos();
    let fits = units.into_iter().map(|(unit, size)| (unit, nanos / size)).find(|(_, n)| *n < 100_000_000);
    fits.map_or_else(|| "99999999H".to_owned(), |(unit, amount)| format!("{amount}{unit}"))
}

/// Reads an `x-request-timeout`: a duration with its unit, or a bare number of milliseconds.
pub fn parse_request_timeout(text: &str) -> Option<Duration> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_millis);
    }
    runtime_kernel::units::duration::parse(text).ok()
}

/// Writes an `x-request-timeout`, in whole milliseconds, rounded down.
pub fn request_timeout(left: Duration) -> String {
    format!("{}ms", left.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_budget_never_grows_by_travelling(nanos in 0u64..u64::MAX) {
            let left = Duration::from_nanos(nanos);
            for (text, read) in [
                (grpc_timeout(left), parse_grpc_timeout as fn(&str) -> Option<Duration>),
                (request_timeout(left), parse_request_timeout),
            ] {
                let back = read(&text).unwrap();
                prop_assert!(back <= left && left.checked_sub(back).unwrap() <= Duration::from_hours(1), "{left:?} {text}");
            }
        }
    }

    #[test]
    fn timeouts_are_read_as_they_are_written_and_nothing_else_is() {
        for (text, expected) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("99999999m", Some(99_999_999)),
            ("", None),
            ("m", None),
            ("5", None),
            ("-5m", None),
            ("5x", None),
            ("5é", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected.map(Duration::from_millis), "{text}");
        }
        for (text, expected) in
            [("250", Some(250)), ("2s", Some(2_000)), ("", None), ("soon", None), ("-1s", None)]
        {
            assert_eq!(
                parse_request_timeout(text).filter(|_| !text.is_empty()),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }
}
