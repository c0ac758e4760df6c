//! Health inside a running app.

use std::time::Duration;

use runtime_health::{Check, HEALTH, HealthApp, HealthModule, HealthRegistry, Outcome, Status};
use runtime_kernel::app::{App, Module, SHUTDOWN, SetupError};
use runtime_kernel::config::Config;
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::Stage;

const NUMBER: Token<u32> = Token::new("number");

struct Feature;

impl Module for Feature {
    fn name(&self) -> &'static str {
        "feature"
    }
    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.services().value(NUMBER, 7_u32);
        app.health_check(Check::from_fn("plain", || async { Outcome::healthy() }));
        app.health_check_with("number", Check::optional, |services| async move {
            match services.get(NUMBER).await {
                Ok(number) => Outcome::degraded("as a figure").detail("number", *number),
                Err(error) => Outcome::unhealthy(error.report()),
            }
        });
        Ok(())
    }
}

async fn until(registry: &HealthRegistry, what: impl Fn(&HealthRegistry) -> bool) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !what(registry) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contributed_checks_run_and_a_shutdown_fails_readiness_before_anything_stops() {
    let app = App::new(Config::default()).with(HealthModule).with(Feature);
    let app = app.build().unwrap();
    let registry = (*app.container().get(HEALTH).await.unwrap()).clone();
    let shutdown = (*app.container().get(SHUTDOWN).await.unwrap()).clone();
    assert!(!registry.readiness().is_passing() && !registry.startup().is_passing());
    let seen = registry.clone();
    shutdown.hook(Stage::Drain, "look", Duration::from_secs(5), move || async move {
        assert!(!seen.readiness().is_passing());
        assert!(seen.liveness().is_passing());
        Ok(())
    });
    let running = tokio::spawn(app.run());
    until(&registry, |registry| registry.startup().is_passing()).await;
    let report = registry.readiness();
    assert_eq!(report.status, Status::Degraded);
    assert_eq!(report.checks[1].details["number"], 7);
    shutdown.trigger("test");
    let exit = running.await.unwrap();
    assert_eq!(exit.code(), 0, "{exit:?}");
}

#[test]
fn two_modules_cannot_check_under_one_name() {
    struct Again;
    impl Module for Again {
        fn name(&self) -> &'static str {
            "again"
        }
        fn register(&self, app: &mut App) -> Result<(), SetupError> {
            app.health_check(Check::from_fn("plain", || async { Outcome::healthy() }));
            Ok(())
        }
    }
    let error = App::new(Config::default()).with(HealthModule).with(Feature).with(Again).build().unwrap_err();
    assert!(error.to_string().contains("`plain` is registered twice"), "{error}");
}

#[test]
fn a_threshold_of_zero_is_refused_with_its_path() {
    let config = Config::builder().set("health.failure_threshold", 0).build().unwrap();
    let error = App::new(config).with(HealthModule).build().unwrap_err();
    assert!(error.to_string().contains("health.failure_threshold"), "{error}");
}
