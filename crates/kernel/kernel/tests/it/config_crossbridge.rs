//! CrossBridge's section `runtime`: where each key goes, and what its loader did that ours does otherwise.

use runtime_kernel::config::{Config, ConfigError};
use serde_json::{Value as Json, json};

use super::config_support::file;

/// What CrossBridge's documents show, whole.
const FILE: &str = r#"
ai_transformation: { confidence_threshold: 0.8 }
runtime:
  rate_limiting:
    enabled: true
    defaults:
      search:       {capacity: 31,  window_seconds: 61}
      transform:    {capacity: 11,  window_seconds: 60}
      embed:        {capacity: 61,  window_seconds: 60}
      ai_generate:  {capacity: 21,  window_seconds: 60}
      health_check: {capacity: 101, window_seconds: 60}
    cleanup_threshold: 1001
    overrides:
      "user:12345":  {search:    {capacity: 100, window_seconds: 60}}
      "org:premium": {transform: {capacity: 50,  window_seconds: 0.5}}
  retry:
    enabled: true
    default_policy:      {max_attempts: 4, base_delay: 0.6, max_delay: 5.5,  exponential_base: 2.5, jitter: true}
    expensive_policy:    {max_attempts: 6, base_delay: 1.0, max_delay: 10.0, exponential_base: 2.0, jitter: false}
    quick_policy:        {max_attempts: 2, base_delay: 0.1, max_delay: 1.0,  exponential_base: 2.0, jitter: true}
    conservative_policy: {max_attempts: 3, base_delay: 2.0, max_delay: 30.0, exponential_base: 3.0, jitter: true}
    retryable_codes: [429, 500, 502, 503, 504]
    network_timeout: 31
  health_checks:
    enabled: true
    interval: 31
    timeout: 11
    failure_threshold: 4
    providers:
      ai_provider:        {enabled: true, check_type: embed, interval: 60, timeout: 15}
      embedding_provider: {enabled: true, check_type: ping, interval: 61, timeout: 10}
      vector_store:       {enabled: false, check_type: ping,  interval: 30, timeout: 5}
      database:           {enabled: true, check_type: ping,  interval: 20, timeout: 6}
    degraded_mode:
      continue_on_degraded: false
      disable_features: [flaky_detection, coverage_analysis]
      alerts: { slack_webhook: "https://hooks.example.com/x" }
  sidecar: { enabled: true }
"#;

fn load(text: &str) -> Result<Config, ConfigError> {
    let fixture = file("crossbridge.yml", text);
    Config::builder().file(&fixture.path).env([("WINDOW", "90"), ("EMPTY", "")]).build()
}

#[test]
fn every_key_of_the_section_has_a_place() {
    let config = load(FILE).unwrap();
    for (path, value) in [
        ("ratelimit.enabled", json!(true)),
        ("ratelimit.max_keys", json!(1001)),
        ("ratelimit.operations.search", json!({ "capacity": 31, "window": "1m 1s" })),
        ("ratelimit.operations.transform.capacity", json!(11)),
        ("ratelimit.operations.embed.capacity", json!(61)),
        ("ratelimit.operations.ai_generate.capacity", json!(21)),
        ("ratelimit.operations.health_check.capacity", json!(101)),
        ("ratelimit.overrides.user:12345.search", json!({ "capacity": 100, "window": "1m" })),
        ("ratelimit.overrides.org:premium.transform", json!({ "capacity": 50, "window": "500ms" })),
        ("resilience.retries", json!(true)),
        (
            "resilience.retry.default",
            json!({
                "max_attempts": 4, "base_delay": "600ms", "max_delay": "5s 500ms", "factor": 2.5, "jitter": "full",
            }),
        ),
        ("resilience.retry.expensive.max_attempts", json!(6)),
        ("resilience.retry.expensive.jitter", json!("none")),
        ("resilience.retry.quick.base_delay", json!("100ms")),
        ("resilience.retry.conservative.factor", json!(3.0)),
        ("client.retry_statuses", json!([429, 500, 502, 503, 504])),
        ("client.timeout", json!("31s")),
        ("health.enabled", json!(true)),
        ("health.interval", json!("31s")),
        ("health.timeout", json!("11s")),
        ("health.failure_threshold", json!(4)),
        ("health.checks.ai_provider", json!({ "enabled": true, "interval": "1m", "timeout": "15s" })),
        ("providers.chat_check", json!("embed")),
        ("health.checks.embedding_provider.interval", json!("1m 1s")),
        ("providers.embedding_check", json!("ping")),
        ("health.checks.vector_store.enabled", json!(false)),
        ("health.checks.database.timeout", json!("6s")),
        ("health.degraded_passes", json!(false)),
        ("health.disable_when_degraded", json!(["flaky_detection", "coverage_analysis"])),
        ("health.alerts.slack_webhook", json!("https://hooks.example.com/x")),
    ] {
        assert_eq!(config.get::<Json>(path).unwrap(), Some(value), "{path}");
    }
    let explanation = config.explain();
    let at = explanation.leaf("ratelimit.operations.search.capacity").unwrap().winner.to_string();
    assert!(at.contains("crossbridge.yml:7"), "{at}");
    // Sections that are CrossBridge's own are listed, not refused and not taken for ours.
    config.check_unknown().unwrap();
    for path in ["ai_transformation.confidence_threshold", "runtime.sidecar.enabled"] {
        assert!(!explanation.leaf(path).unwrap().used, "{path}");
    }
    assert!(explanation.leaf("runtime.rate_limiting.enabled").is_none());
}

#[test]
fn what_a_section_leaves_out_has_crossbridges_defaults() {
    for (said, path, value) in [
        // One operation does not take the others away.
        (
            "rate_limiting: {defaults: {search: {capacity: 5, window_seconds: 1}}}",
            "ratelimit.operations.embed.capacity",
            json!(60),
        ),
        // What is left out of an operation is what it had.
        (
            "rate_limiting: {defaults: {search: {capacity: 5}}}",
            "ratelimit.operations.search.window",
            json!("1m"),
        ),
        (
            "rate_limiting: {defaults: {own: {window_seconds: 5}}}",
            "ratelimit.operations.own.capacity",
            json!(30),
        ),
        (
            "rate_limiting: {overrides: {me: {embed: {window_seconds: 5}}}}",
            "ratelimit.overrides.me.embed.capacity",
            json!(60),
        ),
        ("rate_limiting: {}", "ratelimit.operations.ai_generate.capacity", json!(20)),
        (
            "rate_limiting: {defaults: null, overrides: null}",
            "ratelimit.operations.search.capacity",
            json!(30),
        ),
        (
            "retry: {default_policy: {max_attempts: 7}}",
            "resilience.retry.default",
            json!({ "max_attempts": 7 }),
        ),
        ("retry: {mine_policy: {max_attempts: 7}}", "resilience.retry.mine.max_attempts", json!(7)),
        ("retry: {enabled: false}\n  health_checks: null", "resilience.retries", json!(false)),
        // Variables, as elsewhere in the same file.
        (
            "rate_limiting: {defaults: {search: {window_seconds: '${WINDOW}'}}}",
            "ratelimit.operations.search.window",
            json!("1m 30s"),
        ),
        ("retry: {network_timeout: '${EMPTY:-7}'}", "client.timeout", json!("7s")),
        (
            "retry: {default_policy: {jitter: '${JITTER:-false}'}}",
            "resilience.retry.default.jitter",
            json!("none"),
        ),
    ] {
        let config = load(&format!("runtime:\n  {said}")).unwrap_or_else(|error| panic!("{said}: {error}"));
        assert_eq!(config.get::<Json>(path).unwrap(), Some(value), "{said}");
    }
}

#[test]
fn our_own_words_in_the_same_file_win_and_other_files_are_not_touched() {
    let config = load("runtime: {retry: {network_timeout: 5}}\nclient: {timeout: 9s}").unwrap();
    assert_eq!(config.get::<String>("client.timeout").unwrap().as_deref(), Some("9s"));
    // What is nearly a section of ours is no section of CrossBridge's.
    let config = load("runtime: {retry: {network_timeout: 5}}\nhtpp: {port: 1}\njira: {}").unwrap();
    let config = config.check_unknown();
    assert!(config.is_ok(), "no section is declared here: {config:?}");
    let fixture = file("crossbridge.yml", "runtime: {retry: {enabled: true}}\nhtpp: {port: 1}\njira: {}");
    let config = Config::builder().file(&fixture.path).section::<super::config_support::Http>().build();
    let error = config.and_then(|config| config.check_unknown()).unwrap_err().to_string();
    assert!(error.contains("did you mean `http`?") && !error.contains("jira"), "{error}");
    for text in ["runtime: {sidecar: {}}", "runtime: 5", "retry: {network_timeout: 5}"] {
        let config = load(text).unwrap();
        assert_eq!(config.get::<Json>("client.timeout").unwrap(), None, "{text}");
        assert!(config.check_unknown().is_err(), "{text}");
    }
}

#[test]
fn what_its_loader_took_in_silence_is_told_with_its_place() {
    for (text, told) in [
        ("runtime: {retry: {default_polcy: {}}}", "did you mean `default_policy`?"),
        ("runtime: {rate_limiting: {cleanup_treshold: 5}}", "did you mean `cleanup_threshold`?"),
        (
            "runtime: {rate_limiting: {defaults: {search: {window: 5}}}}",
            "runtime.rate_limiting.defaults.search.window",
        ),
        ("runtime: {rate_limiting: {defaults: {search: 5}}}", "must be a table"),
        ("runtime: {rate_limiting: [1]}", "runtime.rate_limiting: must be a table"),
        ("runtime: {health_checks: {providers: {database: {check_type: embed}}}}", "must be one of ping"),
        (
            "runtime: {health_checks: {providers: {mine: {callable: module.fn}}}}",
            "register a check named `mine`",
        ),
        ("runtime: {health_checks: {degraded_mode: {alerts: {email: a@b}}}}", "no mail is sent"),
        ("runtime: {health_checks: {degraded_mode: {pause: true}}}", "no key `pause`"),
        (
            "runtime: {rate_limitting: {enabled: false}, retry: {enabled: true}}",
            "did you mean `rate_limiting`?",
        ),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("crossbridge.yml:1"), "{text}: {error}");
    }
}
