//! The behaviours of CrossBridge's health checks, each kept or deliberately different.
//!
//! Different, and why:
//! - Degraded is a level of its own that passes (there it counts as a failure: one degraded check makes the whole unhealthy).
//! - One failing check of several does not make the whole degraded, but unhealthy if it is critical and degraded if it is
//!   optional: which of the two is said where the check is made, not by counting.
//! - There is no `unknown`: a check that has not been looked at says so and fails readiness, whoever asks for it.
//! - A name given twice is refused when the registry is built (there the second takes the first one's place).
//! - Checks are fixed once the registry is built: there is no removing, clearing or process-wide registry.
//! - Asking never looks: `is_healthy()` there runs every check, each time.
//! - A check that panics is unhealthy like any other failure (there it is `unknown`, and forgotten).
//! - A ping whose answer says no is not healthy (there the answer is not read).

use std::time::Duration;

use runtime_health::{
    Check, CheckConfig, HealthBuilder, HealthConfig, HealthError, HealthRegistry, Outcome, Status,
};
use runtime_kernel::{Clock, SystemClock};
use serde_json::json;

fn fixed(name: &'static str, outcome: Outcome) -> Check {
    Check::from_fn(name, move || std::future::ready(outcome.clone()))
}

async fn looked(checks: impl IntoIterator<Item = Check>) -> HealthRegistry {
    let registry = checks.into_iter().fold(HealthRegistry::builder(), HealthBuilder::check).build().unwrap();
    registry.refresh().await;
    registry
}

#[test]
fn statuses_have_the_same_words() {
    let words = [Status::Healthy, Status::Degraded, Status::Unhealthy].map(Status::as_str);
    assert_eq!(words, ["healthy", "degraded", "unhealthy"]);
    assert_eq!(serde_json::to_value(Status::Degraded).unwrap(), "degraded");
}

#[tokio::test]
async fn a_result_has_its_status_time_duration_message_and_details() {
    let outcome = Outcome::unhealthy("Connection refused").detail("host", "db1").detail("port", 5432);
    let registry = looked([fixed("database", outcome), fixed("cache", Outcome::healthy())]).await;
    let report = serde_json::to_value(registry.readiness()).unwrap();
    let [database, cache] = [&report["checks"][0], &report["checks"][1]];
    assert_eq!(database["status"], "unhealthy");
    assert_eq!(database["message"], "Connection refused");
    assert_eq!(database["details"], json!({ "host": "db1", "port": 5432 }));
    assert!(database["checked_at"].as_str().unwrap().ends_with('Z'), "with its zone: {database}");
    assert!(database["duration_ms"].is_u64());
    assert_eq!((&cache["status"], cache.get("message")), (&json!("healthy"), None));
}

#[tokio::test]
async fn every_kind_of_check_is_healthy_fails_and_tells_its_error() {
    type Answer = Result<Vec<f32>, String>;
    let ping = |answer: Result<bool, String>| match answer {
        Ok(true) => Outcome::healthy(),
        Ok(false) => Outcome::unhealthy("it said no"),
        Err(error) => Outcome::unhealthy(error),
    };
    let provider = |answer: Answer| match answer {
        Ok(vector) if vector.is_empty() => Outcome::unhealthy("empty"),
        other => Outcome::from(other),
    };
    let down = || Err("Connection failed".to_owned());
    for (outcome, status, message) in [
        (ping(Ok(true)), Status::Healthy, None),
        (ping(Ok(false)), Status::Unhealthy, Some("it said no")),
        (ping(Err("Connection failed".to_owned())), Status::Unhealthy, Some("Connection failed")),
        (provider(Ok(vec![0.1])), Status::Healthy, None),
        (provider(Ok(vec![])), Status::Unhealthy, Some("empty")),
        (provider(down()), Status::Unhealthy, Some("Connection failed")),
        (Outcome::from(Ok::<_, String>(())), Status::Healthy, None),
    ] {
        let registry = looked([fixed("any", outcome)]).await;
        let check = registry.readiness().checks.remove(0);
        assert_eq!((check.status, check.message.as_deref()), (status, message));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_check_returns_and_its_time_is_told_and_one_that_hangs_does_not_hold_the_rest() {
    let slow = Check::from_fn("slow", || async {
        SystemClock.sleep(Duration::from_millis(100)).await;
        Outcome::healthy()
    });
    let hangs = Check::from_fn("hangs", std::future::pending).timeout(Duration::from_secs(1));
    let registry = looked([slow, hangs, fixed("fast", Outcome::healthy())]).await;
    let report = registry.readiness();
    let times: Vec<_> = report.checks.iter().map(|check| check.duration_ms.unwrap()).collect();
    assert_eq!(times, [100, 1_000, 0]);
    assert_eq!(report.checks[1].message.as_deref(), Some("the check took too long"));
}

#[tokio::test]
async fn the_whole_of_several_services() {
    let [up, down] = [Outcome::healthy, || Outcome::unhealthy("down")];
    for (checks, status) in [
        (vec![], Status::Healthy),
        (vec![fixed("a", up()), fixed("b", up())], Status::Healthy),
        // There: degraded, whatever failed.
        (vec![fixed("a", up()), fixed("b", down())], Status::Unhealthy),
        (vec![fixed("a", up()), fixed("b", down()).optional()], Status::Degraded),
        (vec![fixed("a", down()), fixed("b", down())], Status::Unhealthy),
        // There: unhealthy.
        (vec![fixed("a", Outcome::degraded("slow"))], Status::Degraded),
        (
            vec![Check::from_fn("a", || async { panic!("boom") }).optional(), fixed("b", up())],
            Status::Degraded,
        ),
    ] {
        let registry = looked(checks.clone()).await;
        let report = registry.readiness();
        assert_eq!((report.status, report.checks.len()), (status, checks.len()), "{checks:?}");
    }
    // Which ones failed.
    let registry = looked([fixed("a", up()), fixed("b", down()), fixed("c", down())]).await;
    let report = registry.readiness();
    let failed: Vec<_> = report.checks.iter().filter(|check| check.status != Status::Healthy).collect();
    assert_eq!(failed.iter().map(|check| &*check.name).collect::<Vec<_>>(), ["b", "c"]);
}

#[tokio::test]
async fn what_was_never_looked_at_says_so_and_a_name_is_given_once() {
    let registry = HealthRegistry::builder().check(fixed("a", Outcome::healthy())).build().unwrap();
    assert_eq!(registry.readiness().checks[0].message.as_deref(), Some("not checked yet"));
    let twice = HealthRegistry::builder().check(fixed("a", Outcome::healthy()));
    let twice = twice.check(fixed("a", Outcome::healthy())).build().unwrap_err();
    assert_eq!(twice, HealthError::Duplicate("a".to_owned()));
    // Shared by cloning, as there by being the process's only one.
    let same = registry.clone();
    registry.refresh().await;
    assert_eq!(same.readiness().status, Status::Healthy);
}

fn said(change: impl FnOnce(&mut CheckConfig)) -> CheckConfig {
    let mut config = CheckConfig::default();
    change(&mut config);
    config
}

#[tokio::test(start_paused = true)]
async fn what_configuration_says_of_a_check_takes_effect() {
    let mut config = HealthConfig::default();
    config.checks = [
        ("provider", said(|check| check.enabled = Some(false))),
        ("provider.main", said(|check| check.timeout = Some(Duration::from_secs(2)))),
        ("store", said(|check| check.critical = Some(false))),
        ("nobody", said(|check| check.failure_threshold = Some(9))),
    ]
    .map(|(name, said)| (name.to_owned(), said))
    .into();
    config.disable_when_degraded = vec!["previews".to_owned()];
    let build = |config: &HealthConfig| {
        [
            Check::from_fn("provider.main", std::future::pending).optional(),
            fixed("provider.spare", Outcome::unhealthy("down")),
            fixed("store", Outcome::unhealthy("down")),
        ]
        .into_iter()
        .fold(HealthRegistry::builder().config(config.clone()), HealthBuilder::check)
        .build()
        .unwrap()
    };
    let registry = build(&config);
    let start = SystemClock.now();
    registry.refresh().await;
    assert_eq!(SystemClock.now() - start, Duration::from_secs(2));
    let report = registry.readiness();
    let names: Vec<_> = report.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["provider.main", "store"], "the group is off but for one");
    assert_eq!((report.status, &report.disabled), (Status::Degraded, &config.disable_when_degraded));
    assert!(report.is_passing() && !registry.allows("previews") && registry.allows("orders"));

    config.degraded_passes = false;
    let registry = build(&config);
    registry.refresh().await;
    assert!(!registry.readiness().is_passing() && registry.liveness().is_passing());

    config.enabled = false;
    let registry = build(&config);
    assert_eq!((registry.readiness().status, registry.readiness().checks.len()), (Status::Healthy, 0));
    assert!(registry.allows("previews"));
}

#[tokio::test(start_paused = true)]
async fn those_who_follow_are_told_once_for_each_change() {
    let (said, say) =
        (std::sync::Arc::new(std::sync::Mutex::new(Outcome::healthy())), Duration::from_secs(10));
    let asked = std::sync::Arc::clone(&said);
    let check = Check::from_fn("a", move || std::future::ready(asked.lock().unwrap().clone()));
    let registry = HealthRegistry::builder().check(check.failure_threshold(2)).build().unwrap();
    let mut changes = registry.changes();
    let running = registry.clone();
    let running = tokio::spawn(async move { running.run(std::future::pending()).await });
    changes.changed().await.unwrap();
    assert_eq!(*changes.borrow_and_update(), Status::Healthy);
    *said.lock().unwrap() = Outcome::unhealthy("down");
    let start = SystemClock.now();
    changes.changed().await.unwrap();
    assert_eq!((*changes.borrow_and_update(), SystemClock.now() - start), (Status::Unhealthy, say * 2));
    registry.set_unready("leaving");
    assert!(!changes.has_changed().unwrap(), "unhealthy already");
    running.abort();
}
