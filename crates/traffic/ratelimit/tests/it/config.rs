//! What an operator writes, and what is said when it is wrong.

use runtime_kernel::Error;
use runtime_ratelimit::{Operations, RateLimitConfig};
use serde_json::{Value, json};

fn read(value: Value) -> RateLimitConfig {
    serde_json::from_value(value).unwrap()
}

#[test]
fn operations_have_rates_subjects_may_have_their_own_and_the_rest_have_a_default() {
    let config = read(json!({
        "operations": {
            "search": { "capacity": 30, "window": "60s" },
            "transform": { "capacity": 10, "window": "60s" },
        },
        "overrides": { "user:12345": { "search": { "capacity": 100, "window": "60s" } } },
        "default_operation": { "capacity": 7, "window": "1s" },
    }));
    let operations = Operations::new(&config).unwrap();
    for (operation, subject, burst) in [
        ("search", "user:1", 30),
        ("search", "user:12345", 100),
        ("transform", "user:12345", 10),
        ("unknown", "user:12345", 7),
    ] {
        assert_eq!(operations.rate(operation, subject).burst(), burst, "{operation} {subject}");
    }
}

#[test]
fn a_rate_that_is_none_is_named_with_its_key() {
    for (value, expected) in [
        (
            json!({ "operations": { "s": { "capacity": 0, "window": "1s" } } }),
            "`operations.s` `capacity` must be more than 0",
        ),
        (
            json!({ "overrides": { "u": { "s": { "capacity": 1, "window": "0s" } } } }),
            "`overrides.u.s` `window` must be more than 0",
        ),
    ] {
        let error = Operations::new(&read(value)).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(Error::from(error).code(), "ratelimit.invalid_config");
    }
}
