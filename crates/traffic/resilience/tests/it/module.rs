//! The section `resilience` in an app.

use runtime_kernel::config::Config;
use runtime_resilience::ResilienceConfig;

#[test]
fn a_partly_given_policy_keeps_the_rest_of_the_well_known_one() {
    let config = Config::builder()
        .set("resilience.retry.expensive.max_attempts", serde_json::json!(8))
        .build()
        .unwrap();
    let section = config.section::<ResilienceConfig>().unwrap();
    let expensive = &section.retry["expensive"];
    assert_eq!((expensive.max_attempts, expensive.max_delay.as_secs()), (8, 10));
}

#[test]
fn a_wrong_policy_is_refused_with_its_path() {
    let config =
        Config::builder().set("resilience.retry.mine.factor", serde_json::json!(0.5)).build().unwrap();
    let error = config.section::<ResilienceConfig>().unwrap_err().to_string();
    assert!(error.contains("resilience.retry.mine.factor") && error.contains("must be 1 to 100"), "{error}");
}
