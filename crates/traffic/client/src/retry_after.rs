//! Reads `Retry-After` (RFC 9110 §10.2.3).

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use runtime_kernel::{Retry, Timestamp};

/// How long to wait, given as seconds or as an HTTP date; a date that has passed is no wait.
///
/// ```
/// use std::time::Duration;
/// use runtime_client::parse_retry_after;
/// use runtime_kernel::Timestamp;
///
/// let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
/// assert_eq!(parse_retry_after("120", now), Some(Duration::from_secs(120)));
/// assert_eq!(parse_retry_after("Thu, 01 Jan 2026 00:00:30 GMT", now), Some(Duration::from_secs(30)));
/// assert_eq!(parse_retry_after("soon", now), None);
/// ```
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than fit are for ever.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    Some(Timestamp::from(httpdate::parse_http_date(value).ok()?).duration_since(now))
}

pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    headers.get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?, now))
}

/// What an answer's status says about trying again: `None` when the answer is to be taken as it is.
pub(crate) fn verdict(
    passing: &[u16],
    status: StatusCode,
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<Retry> {
    if !passing.contains(&status.as_u16()) {
        return None;
    }
    let asked = retry_after(headers, now);
    // Too many requests is throttling even without a hint of how long.
    let otherwise =
        if status == StatusCode::TOO_MANY_REQUESTS { Retry::After(Duration::ZERO) } else { Retry::Backoff };
    Some(asked.map_or(otherwise, Retry::After))
}
