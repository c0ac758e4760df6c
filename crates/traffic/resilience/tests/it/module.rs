//! The section `resilience` in an app.

use runtime_kernel::config::Config;
use runtime_resilience::{ResilienceConfig, RetryPolicies};

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

#[test]
fn switched_off_every_policy_makes_one_attempt_and_keeps_its_other_figures() {
    let config = Config::builder().set("resilience.retries", false).build().unwrap();
    let policies = RetryPolicies::new(config.section::<ResilienceConfig>().unwrap()).unwrap();
    for name in ["default", "expensive", "quick", "conservative", "aws"] {
        assert_eq!(policies.get(name).unwrap().max_attempts(), 1, "{name}");
    }
    assert_eq!(policies.get("expensive").unwrap().config().max_delay.as_secs(), 10);
}
