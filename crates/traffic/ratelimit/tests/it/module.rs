//! The module in an app.

use runtime_http::HttpModule;
use runtime_kernel::app::{App, SetupError};
use runtime_kernel::config::Config;
use runtime_ratelimit::RateLimitModule;
use runtime_telemetry::TelemetryModule;
use serde_json::{Value, json};

fn app(rules: Value, store: &str) -> App {
    let config = Config::builder().set("ratelimit.rules", rules).set("ratelimit.store", json!(store));
    let config = config.set("redis.url", json!("redis://127.0.0.1:1")).build().unwrap();
    let app = App::new(config).with(TelemetryModule::new()).with(HttpModule::new("t", "1"));
    #[cfg(feature = "redis")]
    let app = app.with(runtime_redis::RedisModule);
    app.with(RateLimitModule)
}

fn refusal(app: App) -> Option<String> {
    match app.build() {
        Ok(_) => None,
        Err(SetupError::Module { message, .. }) => Some(message),
        Err(other) => Some(other.to_string()),
    }
}

#[tokio::test]
async fn a_wrong_rule_stops_the_start_with_its_key() {
    let message = refusal(app(json!([{ "name": "x" }]), "memory")).unwrap();
    assert!(message.contains("ratelimit.rules.0.rate"), "{message}");
}

#[tokio::test]
async fn both_stores_can_be_chosen() {
    let rule = json!([{ "name": "x", "by": ["ip"], "rate": { "capacity": 1, "window": "1s" } }]);
    for store in ["memory", "redis"] {
        assert_eq!(refusal(app(rule.clone(), store)), None, "{store}");
    }
}
