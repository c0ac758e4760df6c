use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use runtime_health::{Finding, HealthCheck, HealthConfig, HealthError, HealthRegistry, Status, check};
use runtime_kernel::{Clock, Error, ErrorKind, ManualClock, SystemClock};

fn fixed(name: &'static str, finding: Finding) -> impl HealthCheck {
    check(name, move || {
        let finding = finding.clone();
        async move { Ok(finding) }
    })
}

/// A check that finds what the dial says: 0 healthy, 1 degraded, 2 unhealthy.
fn dialled(name: &'static str, dial: &Arc<AtomicU8>) -> impl HealthCheck {
    let dial = Arc::clone(dial);
    check(name, move || {
        let at = dial.load(Ordering::Relaxed);
        async move {
            Ok(match at {
                0 => Finding::healthy(),
                1 => Finding::degraded("slow"),
                _ => Finding::unhealthy("down"),
            })
        }
    })
}

#[tokio::test]
async fn the_whole_is_the_worst_critical_check_and_optional_ones_only_degrade_it() {
    use Status::{Degraded, Healthy, Unhealthy};
    let find = |status| match status {
        Healthy => Finding::healthy(),
        Degraded => Finding::degraded("x"),
        Unhealthy => Finding::unhealthy("x"),
    };
    for (critical, optional, whole) in [
        (Healthy, Healthy, Healthy),
        (Healthy, Degraded, Degraded),
        (Healthy, Unhealthy, Degraded),
        (Degraded, Healthy, Degraded),
        (Unhealthy, Healthy, Unhealthy),
        (Unhealthy, Unhealthy, Unhealthy),
    ] {
        let health = HealthRegistry::builder()
            .check(fixed("critical", find(critical)))
            .check(fixed("optional", find(optional)))
            .optional()
            .build(SystemClock::shared())
            .unwrap();
        health.run_once().await;
        assert_eq!(health.readiness().status, whole, "{critical:?} {optional:?}");
        assert!(health.liveness().passes(), "a dependency never fails liveness");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_or_panics_is_unhealthy_and_holds_nobody_up() {
    let health = HealthRegistry::builder()
        .check(check("hangs", || async { std::future::pending().await }))
        .check(check("panics", || async { panic!("secret detail") }))
        .check(check("fails", || async { Err(Error::internal(std::io::Error::other("password=hunter2"))) }))
        .check(fixed("works", Finding::healthy()))
        .build(SystemClock::shared())
        .unwrap();
    let started = SystemClock.now();
    health.run_once().await;
    assert_eq!(SystemClock.now() - started, Duration::from_secs(5), "one timeout, not three");

    let report = health.readiness();
    let status: Vec<_> = report.checks.iter().map(|check| check.status).collect();
    assert_eq!(status, [Status::Unhealthy, Status::Unhealthy, Status::Unhealthy, Status::Healthy]);
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains("no answer within 5s"), "{json}");
    assert!(!json.contains("hunter2") && !json.contains("secret detail"), "{json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_blocks_its_thread_is_not_piled_up() {
    let starts = Arc::new(AtomicU32::new(0));
    let (release, blocked) = std::sync::mpsc::sync_channel::<()>(0);
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let counted = Arc::clone(&starts);
    let health = HealthRegistry::builder()
        .check(check("blocks", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let blocked = Arc::clone(&blocked);
            async move {
                let _ = blocked.lock().unwrap().recv();
                Ok(Finding::healthy())
            }
        }))
        .timeout(Duration::from_millis(50))
        .build(SystemClock::shared())
        .unwrap();
    health.run_once().await;
    health.run_once().await;
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    assert_eq!(health.readiness().checks[0].message.as_deref(), Some("an earlier run still hangs"));
    drop(release);
}

#[tokio::test]
async fn a_status_turns_at_its_thresholds() {
    let mut config = HealthConfig::default();
    config.success_threshold = 2;
    let dial = Arc::new(AtomicU8::new(0));
    let health = HealthRegistry::builder()
        .check(dialled("db", &dial))
        .config(config)
        .build(Arc::new(ManualClock::new()))
        .unwrap();
    let rounds = [
        (0, Status::Healthy),
        (2, Status::Healthy),
        (2, Status::Healthy),
        (2, Status::Unhealthy),
        (0, Status::Unhealthy),
        (2, Status::Unhealthy),
        (0, Status::Unhealthy),
        (0, Status::Healthy),
        (1, Status::Degraded),
        (2, Status::Degraded),
        (0, Status::Healthy),
    ];
    for (at, (found, status)) in rounds.into_iter().enumerate() {
        dial.store(found, Ordering::Relaxed);
        health.run_once().await;
        assert_eq!(health.readiness().checks[0].status, status, "round {at}");
    }
}

#[tokio::test]
async fn startup_stays_passed_and_readiness_does_not() {
    let dial = Arc::new(AtomicU8::new(2));
    let mut config = HealthConfig::default();
    config.failure_threshold = 1;
    let health = HealthRegistry::builder()
        .check(dialled("db", &dial))
        .config(config)
        .build(SystemClock::shared())
        .unwrap();
    assert_eq!(health.startup().reason, Some("starting"));
    assert_eq!(health.readiness().checks[0].message.as_deref(), Some("not checked yet"));
    health.run_once().await;
    assert!(!health.startup().passes(), "the first result counts at once");
    dial.store(0, Ordering::Relaxed);
    health.run_once().await;
    assert!(health.startup().passes() && health.readiness().passes());
    dial.store(2, Ordering::Relaxed);
    health.run_once().await;
    assert!(health.startup().passes() && !health.readiness().passes());
}

#[tokio::test]
async fn a_process_set_unready_gets_no_work_though_its_checks_work() {
    let health = HealthRegistry::builder()
        .check(fixed("db", Finding::healthy()))
        .build(SystemClock::shared())
        .unwrap();
    health.run_once().await;
    health.set_unready();
    let report = health.readiness();
    assert_eq!((report.status, report.reason), (Status::Unhealthy, Some("stopping")));
    assert!(health.liveness().passes() && health.startup().passes());
    health.set_ready();
    assert!(health.readiness().passes());
}

#[tokio::test(start_paused = true)]
async fn rounds_follow_the_interval_and_probes_run_no_check() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let health = Arc::new(
        HealthRegistry::builder()
            .check(check("counted", move || {
                counted.fetch_add(1, Ordering::Relaxed);
                async { Ok(Finding::healthy()) }
            }))
            .build(SystemClock::shared())
            .unwrap(),
    );
    health.run(SystemClock.sleep(Duration::from_secs(25))).await;
    assert_eq!(runs.load(Ordering::Relaxed), 3, "at 0, 10 and 20 s");
    for _ in 0..100 {
        assert!(health.readiness().passes() && health.liveness().passes() && health.startup().passes());
    }
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn liveness_fails_only_while_rounds_that_should_run_have_stalled() {
    let clock = ManualClock::new();
    let health = Arc::new(
        HealthRegistry::builder()
            .check(fixed("db", Finding::healthy()))
            .build(Arc::new(clock.clone()))
            .unwrap(),
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let health = Arc::clone(&health);
        async move {
            health
                .run(async {
                    let _ = stopped.await;
                })
                .await;
        }
    });
    while !health.readiness().passes() {
        tokio::task::yield_now().await;
    }
    // The runtime gets no turn between these lines: to the registry it looks stalled.
    clock.advance(Duration::from_secs(75));
    assert!(health.liveness().passes());
    clock.advance(Duration::from_secs(1));
    assert_eq!(health.liveness().reason, Some("stalled"));
    drop(stop);
    running.await.unwrap();
    assert!(health.liveness().passes(), "stopped on purpose");
}

#[test]
fn names_are_unique_and_settings_not_zero() {
    let twice = HealthRegistry::builder()
        .check(fixed("db", Finding::healthy()))
        .check(fixed("db", Finding::healthy()))
        .build(SystemClock::shared());
    let error = twice.unwrap_err();
    assert_eq!(error, HealthError::Duplicate("db".into()));
    assert_eq!(Error::from(error).kind(), ErrorKind::Invalid);

    let mut config = HealthConfig::default();
    config.interval = Duration::ZERO;
    let zero = HealthRegistry::builder().config(config).build(SystemClock::shared());
    assert_eq!(zero.unwrap_err(), HealthError::Setting("interval"));
}
