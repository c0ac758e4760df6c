//! The section `limits` in an app.

use runtime_kernel::Mode;
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_limits::{CONCURRENCY, Criticality, LimitsModule};
use runtime_telemetry::{MetricsApp, TelemetryModule};
use serde_json::json;

fn app(rules: [&str; 2]) -> App {
    let one = json!({ "algorithm": "fixed", "initial": 1, "min": 1, "max": 1 });
    let rules = rules.map(|name| json!({ "name": name, "limit": one }));
    let config = Config::builder().set("limits.server", one).set("limits.rules", json!(rules));
    App::new(config.build().unwrap()).mode(Mode::Worker).with(TelemetryModule::new()).with(LimitsModule)
}

#[tokio::test]
async fn refusals_are_counted_once_however_often_they_are_collected() {
    let mut app = app(["reports", "events"]);
    let metrics = app.metrics();
    let app = app.build().unwrap();
    let layer = app.container().get(CONCURRENCY).await.unwrap();
    let mut held = Vec::new();
    for (limit, refusals) in layer.limits().into_iter().zip([100, 5, 0]) {
        held.push(limit.limit.acquire(Criticality::Critical).unwrap());
        for _ in 0..refusals {
            assert!(limit.limit.acquire(Criticality::Critical).is_err());
        }
    }
    for _ in 0..3 {
        let text = metrics.render();
        for (limit, refusals) in [("server", 100), ("reports", 5), ("events", 0)] {
            let line = format!("limits_concurrency_rejected_total{{limit=\"{limit}\"}} {refusals}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}

#[test]
fn two_limits_of_one_name_are_refused() {
    for (rules, key) in [(["server", "events"], "limits.rules.0.name"), (["a", "a"], "limits.rules.1.name")] {
        let Err(error) = app(rules).build() else { panic!("two limits of one name") };
        assert!(error.to_string().contains(key), "{error}");
    }
}
