//! The section `discovery` in an app.

use runtime_client::ClientModule;
use runtime_discovery::{DiscoveryConfig, DiscoveryModule, SERVICES};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_telemetry::TelemetryModule;
use serde_json::json;

#[tokio::test]
async fn services_are_there_by_name() {
    let config = Config::builder()
        .set("discovery.services.orders.source", json!({ "fixed": ["10.0.0.1:80", "[::1]:80;weight=2"] }))
        .set("discovery.services.orders.balance", "rendezvous")
        .build()
        .unwrap();
    let app = App::new(config)
        .with(TelemetryModule::new())
        .with(DiscoveryModule)
        .with(ClientModule)
        .build()
        .unwrap();
    let services = app.container().get(SERVICES).await.unwrap();
    assert_eq!(services.balancer("orders").unwrap().counts(), (0, 0), "nobody watches before the app runs");
    assert!(services.balancer("nosuch").unwrap_err().to_string().contains("nosuch"));
    assert_eq!(services.iter().count(), 1);
}

#[test]
fn a_service_that_makes_no_sense_names_its_key() {
    for (name, service, key) in [
        ("Orders", json!({ "source": { "env": "X" } }), "discovery.services.Orders"),
        (
            "orders",
            json!({ "source": { "dns": { "name": "" } } }),
            "discovery.services.orders.source.dns.name",
        ),
        (
            "orders",
            json!({ "source": { "file": { "path": "x", "every": "0s" } } }),
            "discovery.services.orders.source.file.every",
        ),
        (
            "orders",
            json!({ "source": { "env": "X" }, "outliers": { "max_ejected_percent": 101 } }),
            "discovery.services.orders.outliers.max_ejected_percent",
        ),
        ("orders", json!({ "source": { "fixed": ["nonsense"] } }), "discovery.services.orders.source"),
    ] {
        let config = Config::builder().set(&format!("discovery.services.{name}"), service).build().unwrap();
        let error = config.section::<DiscoveryConfig>().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}
