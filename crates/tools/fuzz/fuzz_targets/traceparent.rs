//! A `traceparent` never panics, and what parses is written back in its own form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime_kernel::{RequestId, TraceContext};

fuzz_target!(|text: &str| {
    if let Ok(trace) = text.parse::<TraceContext>() {
        assert_eq!(trace.to_traceparent().parse(), Ok(trace));
    }
    if let Some(id) = RequestId::accept(text) {
        assert_eq!(id.to_string(), text);
    }
});
