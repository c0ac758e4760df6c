use std::sync::Arc;
use std::time::Duration;

use runtime_health::{Finding, HEALTH, HealthApp, HealthModule, check};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::Config;
use runtime_kernel::container::Token;

const GREETING: Token<String> = Token::new("test.greeting");

struct Greeter;

impl Module for Greeter {
    fn name(&self) -> &'static str {
        "greeter"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.services().value(GREETING, "hello".to_owned());
        app.health_check(check("optional", || async { Ok(Finding::unhealthy("down")) })).optional();
        app.health_checks().add_with("greeting", |services| async move {
            let greeting = services.get(GREETING).await?;
            Ok(Finding::degraded(greeting.as_str()))
        });
        Ok(())
    }
}

#[tokio::test]
async fn an_app_runs_its_modules_checks_and_is_unready_while_it_stops() {
    let app = App::new(Config::default()).with(HealthModule).with(Greeter).build().unwrap();
    let health = app.container().get(HEALTH).await.unwrap();
    let shutdown = app.shutdown().clone();
    assert!(!health.readiness().passes());

    let running = tokio::spawn(app.run_without_signals());
    tokio::time::timeout(Duration::from_secs(10), async {
        while !health.readiness().passes() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let messages: Vec<_> = health.readiness().checks.into_iter().filter_map(|check| check.message).collect();
    assert_eq!(messages, ["down", "hello"]);

    shutdown.trigger("test");
    let report = running.await.unwrap();
    assert_eq!(report.code(), 0);
    assert_eq!(health.readiness().reason, Some("stopping"));
    assert_eq!(Arc::strong_count(&health), 1, "the registry does not keep its own container alive");
}

#[test]
fn a_setting_of_zero_is_refused_with_its_name() {
    let config = Config::builder().set("health.timeout", "0s").build().unwrap();
    let error = App::new(config).with(HealthModule).build().unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
}
