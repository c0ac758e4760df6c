//! The wiring.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_telemetry::{METRICS, MetricsApp, Telemetry, TelemetryConfig, TelemetryModule};

#[tokio::test]
async fn every_module_counts_in_the_registry_that_is_served() {
    struct Early;
    impl runtime_kernel::app::Module for Early {
        fn name(&self) -> &'static str {
            "early"
        }
        fn register(&self, app: &mut App) -> Result<(), runtime_kernel::app::SetupError> {
            let hits = app.metrics().counter("hits_total", "Hits.").map_err(runtime_kernel::Error::from)?;
            for path in ["a", "b", "c"] {
                hits.with(&[("path", path)]).inc();
            }
            Ok(())
        }
    }
    let config = Config::builder().set("telemetry.max_series", 2).build().unwrap();
    let (_, guard) =
        Telemetry::new(TelemetryConfig::default()).unwrap().stream(std::io::sink()).build().unwrap();
    let app = App::new(config).with(TelemetryModule::with(guard)).with(Early).build().unwrap();
    let metrics = app.container().get(METRICS).await.unwrap();
    let text = metrics.render();
    assert!(text.contains(r#"hits_total{path="__overflow__"} 1"#), "the configured cap holds");
    assert!(text.contains(r#"build_info{service="runtime",version=""#), "{text}");
}

#[test]
fn a_bad_level_is_refused_with_its_place() {
    let config = Config::builder().set("telemetry.levels", "loud").build();
    let said = match config.map(|config| App::new(config).with(TelemetryModule::new()).build()) {
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
        Ok(Ok(_)) => panic!("accepted"),
    };
    assert!(said.contains("telemetry.levels") && said.contains("loud"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_the_levels() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runtime.json");
    std::fs::write(&file, r#"{"telemetry":{"levels":"warn"}}"#).unwrap();
    let config = Config::builder().file(&file).build().unwrap();
    let settings = TelemetryConfig::of(&config).unwrap();
    let (_, guard) = Telemetry::new(settings).unwrap().stream(std::io::sink()).build().unwrap();
    let guard = Arc::new(guard);
    assert_eq!(guard.levels().current(), "warn");
    let app = App::new(config.clone()).with(TelemetryModule::with(Arc::clone(&guard))).build().unwrap();
    let shutdown = (*app.container().get(runtime_kernel::app::SHUTDOWN).await.unwrap()).clone();
    let running = tokio::spawn(app.run());
    std::fs::write(&file, r#"{"telemetry":{"levels":"info,http=debug"}}"#).unwrap();
    config.reload().unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while guard.levels().current() != "info,http=debug" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the levels follow");
    shutdown.trigger("test");
    running.await.unwrap();
}
