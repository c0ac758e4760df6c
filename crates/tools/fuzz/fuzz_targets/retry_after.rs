//! No `Retry-After` panics, white space around it means nothing, and a date is never further away than it says.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use runtime_client::parse_retry_after;
use runtime_kernel::Timestamp;

fuzz_target!(|text: &str| {
    let early = parse_retry_after(text, Timestamp::UNIX_EPOCH);
    let late = parse_retry_after(text, Timestamp::MAX);
    assert_eq!(early, parse_retry_after(&format!("  {text}\t"), Timestamp::UNIX_EPOCH));
    assert_eq!(early.is_some(), late.is_some());
    // Seconds do not depend on the time of day; a date in the past is no wait.
    assert!(late == early || late == Some(Duration::ZERO), "{text:?}: {early:?} {late:?}");
});
