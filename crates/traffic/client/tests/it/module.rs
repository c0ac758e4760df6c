//! The section `client`.

use runtime_client::{ClientConfig, ClientModule, HTTP_CLIENT};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_resilience::ResilienceModule;
use runtime_telemetry::TelemetryModule;
use serde_json::json;

#[test]
fn the_section_is_read_and_checked() {
    let config = Config::builder()
        .set("client.timeout", json!("3s"))
        .set("client.allow_private", json!(["10.0.0.0/8"]))
        .build()
        .unwrap();
    let section = config.section::<ClientConfig>().unwrap();
    assert_eq!((section.timeout.as_secs(), section.allow_private.len()), (3, 1));
    let config = Config::builder().set("client.allow_private", json!(["10.0.0.0/80"])).build().unwrap();
    let error = config.section::<ClientConfig>().unwrap_err().to_string();
    assert!(error.contains("client.allow_private") && error.contains("10.0.0.0/80"), "{error}");
}

#[tokio::test]
async fn hosts_are_guarded_by_the_pipelines_the_configuration_names() {
    for (pipeline, found) in [("payments", true), ("nosuch", false)] {
        let config = Config::builder()
            .set("resilience.pipeline.payments.retry", "quick")
            .set("client.pipelines", serde_json::json!({ "api.example.com": pipeline }))
            .build()
            .unwrap();
        let app = App::new(config).with(TelemetryModule::new()).with(ResilienceModule).with(ClientModule);
        let container = app.build().unwrap().container().clone();
        let client = container.get(HTTP_CLIENT).await;
        assert_eq!(client.is_ok(), found, "{client:?}");
        if let Err(error) = client {
            assert!(error.to_string().contains("nosuch"), "{error}");
        }
    }
}
