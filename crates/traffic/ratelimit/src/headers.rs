//! What an answer tells its caller about the limits.

use std::fmt::Write;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::HeaderStyle;
use crate::outcome::Standing;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LEGACY: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

/// Writes where the named limit stands. Of several limits on one request the tightest is told.
pub(crate) fn write(headers: &mut HeaderMap, style: HeaderStyle, name: &str, standing: Standing) {
    let (rate, reset) = (standing.rate(), seconds(standing.reset_after()));
    if matches!(style, HeaderStyle::Draft | HeaderStyle::Both) {
        let window = seconds(rate.fill_time()).max(1);
        // Two limiters in one service each say their own: the fields are lists.
        append(headers, POLICY, format_args!("\"{name}\";q={};w={window}", rate.burst()));
        append(headers, LIMIT, format_args!("\"{name}\";r={};t={reset}", standing.remaining()));
    }
    if matches!(style, HeaderStyle::Legacy | HeaderStyle::Both) {
        let values = [u64::from(rate.burst()), u64::from(standing.remaining()), reset];
        for (header, value) in LEGACY.into_iter().zip(values) {
            headers.insert(header, HeaderValue::from(value));
        }
    }
}

/// Writes when to come back.
pub(crate) fn retry_after(headers: &mut HeaderMap, wait: Duration) {
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait).max(1)));
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: std::fmt::Arguments<'_>) {
    let mut text = String::with_capacity(48);
    // Writing to a string cannot fail, and names are checked to be plain.
    let _ = text.write_fmt(value);
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(name, value);
    }
}

/// Whole seconds, rounded up, so that nobody comes back too early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
