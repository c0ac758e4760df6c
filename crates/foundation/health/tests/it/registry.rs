//! The registry against checks that fail, hang and panic.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_health::{
    Check, HealthBuilder, HealthConfig, HealthError, HealthRegistry, Outcome, Probe, Status,
};
use runtime_kernel::{Clock, ManualClock, SystemClock};
use serde_json::json;

/// A check that says what it was last told to say.
#[derive(Clone)]
struct Said(Arc<Mutex<Outcome>>, Arc<AtomicU32>);

impl Said {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Outcome::healthy())), Arc::default())
    }
    fn say(&self, outcome: Outcome) {
        *self.0.lock().unwrap() = outcome;
    }
    fn check(&self, name: &'static str) -> Check {
        let said = self.clone();
        Check::from_fn(name, move || {
            said.1.fetch_add(1, Ordering::SeqCst);
            let outcome = said.0.lock().unwrap().clone();
            async move { outcome }
        })
    }
    fn looks(&self) -> u32 {
        self.1.load(Ordering::SeqCst)
    }
}

fn fixed(name: &'static str, outcome: Outcome) -> Check {
    Check::from_fn(name, move || std::future::ready(outcome.clone()))
}

fn of(checks: impl IntoIterator<Item = Check>) -> HealthRegistry {
    checks.into_iter().fold(HealthRegistry::builder(), HealthBuilder::check).build().unwrap()
}

#[tokio::test]
async fn the_whole_is_as_bad_as_what_counts() {
    type Row<'a> = (&'a [(Outcome, bool)], Status, u16);
    let (ok, slow, down) = (Outcome::healthy, || Outcome::degraded("slow"), || Outcome::unhealthy("down"));
    let table: [Row<'_>; 8] = [
        (&[], Status::Healthy, 200),
        (&[(ok(), true), (ok(), false)], Status::Healthy, 200),
        (&[(slow(), true), (ok(), true)], Status::Degraded, 200),
        (&[(slow(), false)], Status::Degraded, 200),
        (&[(down(), false)], Status::Degraded, 200),
        (&[(down(), true)], Status::Unhealthy, 503),
        (&[(down(), true), (ok(), true), (slow(), true)], Status::Unhealthy, 503),
        (&[(down(), false), (slow(), true)], Status::Degraded, 200),
    ];
    for (outcomes, status, http) in table {
        let names = ["a", "b", "c"];
        let registry = of(outcomes.iter().zip(names).map(|((outcome, critical), name)| {
            let check = fixed(name, outcome.clone());
            if *critical { check } else { check.optional() }
        }));
        registry.refresh().await;
        let report = registry.readiness();
        assert_eq!((report.status, report.http_status()), (status, http), "{outcomes:?}");
        assert_eq!(report.is_passing(), http == 200);
    }
}

#[tokio::test]
async fn a_probe_never_looks_itself() {
    let said = Said::new();
    let registry = of([said.check("db")]);
    assert_eq!(registry.readiness().status, Status::Unhealthy, "nothing is known yet");
    assert_eq!(registry.readiness().checks[0].message.as_deref(), Some("not checked yet"));
    registry.refresh().await;
    said.say(Outcome::unhealthy("down"));
    for _ in 0..100 {
        assert_eq!(registry.readiness().status, Status::Healthy);
    }
    assert_eq!(said.looks(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_or_panicking_check_hurts_nobody_else() {
    let registry = of([
        Check::from_fn("hangs", pending::<Outcome>).timeout(Duration::from_secs(2)),
        Check::from_fn("panics", || async { panic!("boom") }),
        fixed("fine", Outcome::healthy()),
    ]);
    let start = SystemClock.now();
    registry.refresh().await;
    assert_eq!(SystemClock.now() - start, Duration::from_secs(2), "all at the same time, cut at the timeout");
    let report = registry.readiness();
    let said: Vec<_> = report.checks.iter().map(|check| (check.status, check.message.as_deref())).collect();
    assert_eq!(
        said,
        [
            (Status::Unhealthy, Some("the check took too long")),
            (Status::Unhealthy, Some("the check panicked")),
            (Status::Healthy, None),
        ]
    );
    assert_eq!(report.checks[0].duration_ms, Some(2_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_that_blocks_its_thread_is_not_started_again_beside_itself() {
    let (open, gate) = std::sync::mpsc::sync_channel::<()>(0);
    let (gate, looks) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&looks);
    let blocking = Check::from_fn("blocks", move || {
        let (gate, looks) = (Arc::clone(&gate), Arc::clone(&counted));
        async move {
            looks.fetch_add(1, Ordering::SeqCst);
            // Until the other end is dropped.
            let _ = gate.lock().unwrap().recv();
            Outcome::healthy()
        }
    });
    let registry = of([blocking.timeout(Duration::from_millis(20)).failure_threshold(1)]);
    registry.refresh().await;
    registry.refresh().await;
    assert_eq!(looks.load(Ordering::SeqCst), 1);
    assert_eq!(registry.readiness().checks[0].message.as_deref(), Some("the last look is still stuck"));
    drop(open);
}

#[tokio::test]
async fn thresholds_hold_a_flapping_check_steady() {
    let said = Said::new();
    let registry = of([said.check("db").failure_threshold(3).success_threshold(2)]);
    let up = Outcome::healthy;
    let down = || Outcome::unhealthy("down");
    for (step, (outcome, expected)) in [
        (up(), Status::Healthy),
        (down(), Status::Healthy),
        (down(), Status::Healthy),
        (up(), Status::Healthy),
        (down(), Status::Healthy),
        (down(), Status::Healthy),
        (down(), Status::Unhealthy),
        (up(), Status::Unhealthy),
        (down(), Status::Unhealthy),
        (up(), Status::Unhealthy),
        (Outcome::degraded("slow"), Status::Degraded),
        (up(), Status::Healthy),
    ]
    .into_iter()
    .enumerate()
    {
        said.say(outcome);
        registry.refresh().await;
        assert_eq!(registry.readiness().status, expected, "step {step}");
    }
}

#[tokio::test]
async fn the_first_look_counts_by_itself() {
    let registry = of([fixed("db", Outcome::unhealthy("down")).failure_threshold(5)]);
    registry.refresh().await;
    assert_eq!(registry.readiness().status, Status::Unhealthy);
}

#[tokio::test]
async fn a_result_nobody_renews_does_not_stay_healthy() {
    let clock = ManualClock::new();
    let mut config = HealthConfig::default();
    (config.interval, config.timeout) = (Duration::from_secs(10), Duration::from_secs(5));
    let registry = HealthRegistry::builder()
        .config(config)
        .clock(Arc::new(clock.clone()))
        .check(fixed("db", Outcome::healthy()))
        .check(fixed("loop", Outcome::healthy()).probe(Probe::Liveness))
        .build()
        .unwrap();
    registry.refresh().await;
    clock.advance(Duration::from_secs(45));
    assert_eq!(registry.readiness().status, Status::Healthy);
    clock.advance(Duration::from_millis(1));
    assert_eq!(registry.readiness().status, Status::Unhealthy);
    assert_eq!(registry.liveness().status, Status::Healthy, "a restart is not asked for on a guess");
}

#[tokio::test]
async fn each_probe_has_its_own_checks_and_rules() {
    let (ready, live, start) = (Said::new(), Said::new(), Said::new());
    let registry = of([
        ready.check("db"),
        live.check("loop").probe(Probe::Liveness).failure_threshold(1),
        start.check("warm-up").probe(Probe::Startup).failure_threshold(1),
    ]);
    start.say(Outcome::unhealthy("cold"));
    assert!(registry.liveness().is_passing(), "a process that is coming up is not restarted");
    assert!(!registry.startup().is_passing());
    registry.refresh().await;
    assert!(!registry.startup().is_passing(), "not marked as started");
    registry.mark_started();
    assert!(!registry.startup().is_passing(), "its check has not passed yet");
    start.say(Outcome::healthy());
    registry.refresh().await;
    assert!(registry.startup().is_passing());
    start.say(Outcome::unhealthy("cold"));
    live.say(Outcome::unhealthy("stuck"));
    registry.refresh().await;
    assert!(registry.startup().is_passing(), "once up, always up");
    assert!(!registry.liveness().is_passing());
    assert!(registry.readiness().is_passing(), "the others' checks are not its own");
}

#[tokio::test]
async fn leaving_fails_readiness_and_nothing_else() {
    let registry = of([fixed("db", Outcome::healthy())]);
    registry.refresh().await;
    registry.mark_started();
    registry.set_unready("shutting down");
    let report = registry.readiness();
    assert_eq!((report.status, report.reason.as_deref()), (Status::Unhealthy, Some("shutting down")));
    assert!(registry.liveness().is_passing() && registry.startup().is_passing());
}

#[tokio::test(start_paused = true)]
async fn the_background_looks_at_each_checks_own_interval_until_it_is_stopped() {
    let (often, seldom) = (Said::new(), Said::new());
    let registry = of([
        often.check("often").interval(Duration::from_secs(1)),
        seldom.check("seldom").interval(Duration::from_secs(4)),
        Check::from_fn("hangs", pending::<Outcome>).optional().timeout(Duration::from_millis(500)),
    ]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let background = registry.clone();
    let running = tokio::spawn(async move { background.run(async { drop(stopped.await) }).await });
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(registry.startup().is_passing(), "marked as started after the first round");
    // Rounds at 0 and, after the first round's 0.5 s, every interval.
    assert_eq!((often.looks(), seldom.looks()), (9, 3));
    stop.send(()).unwrap();
    running.await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!((often.looks(), seldom.looks()), (9, 3));
}

#[tokio::test]
async fn details_are_for_those_who_may_see_them() {
    let registry = HealthRegistry::builder()
        .clock(Arc::new(ManualClock::new()))
        .check(fixed("db", Outcome::degraded("pool at 90 %").detail("used", 9)))
        .build()
        .unwrap();
    registry.refresh().await;
    let report = registry.readiness();
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({"status": "degraded", "checks": [{
            "name": "db", "status": "degraded", "critical": true, "message": "pool at 90 %", "details": {"used": 9},
            "checked_at": "2026-01-01T00:00:00Z", "duration_ms": 0, "consecutive_failures": 0,
        }]})
    );
    assert_eq!(serde_json::to_value(report.summary()).unwrap(), json!({"status": "degraded"}));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let build = |checks: Vec<Check>| {
        checks.into_iter().fold(HealthRegistry::builder(), HealthBuilder::check).build().unwrap_err()
    };
    let ok = || fixed("db", Outcome::healthy());
    assert_eq!(build(vec![ok(), ok()]), HealthError::Duplicate("db".into()));
    for bad in [
        ok().timeout(Duration::ZERO),
        ok().interval(Duration::ZERO),
        ok().failure_threshold(0),
        ok().success_threshold(0),
        fixed("", Outcome::healthy()),
    ] {
        assert!(matches!(build(vec![bad]), HealthError::Setting { .. }));
    }
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn each_status_is_a_gauge() {
    let (metrics, said) = (runtime_telemetry::Metrics::new(), Said::new());
    let registry = HealthRegistry::builder()
        .metrics(&metrics)
        .check(said.check("db").failure_threshold(1))
        .build()
        .unwrap();
    for (outcome, shown) in
        [(Outcome::healthy(), "1"), (Outcome::degraded("slow"), "0.5"), (Outcome::unhealthy("down"), "0")]
    {
        said.say(outcome);
        registry.refresh().await;
        let line = format!("health_check_status{{check=\"db\"}} {shown}\n");
        assert!(metrics.render().contains(&line), "{line}");
    }
}
