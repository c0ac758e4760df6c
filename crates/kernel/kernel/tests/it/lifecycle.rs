//! The laws of going down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_kernel::config::{Config, Section};
use runtime_kernel::lifecycle::{OsSignal, Outcome, Shutdown, ShutdownConfig, Stage, StopReason, StopSignal};
use runtime_kernel::{Clock, Error, SystemClock};

type Log = Arc<Mutex<Vec<String>>>;

const SECOND: Duration = Duration::from_secs(1);

fn logging(shutdown: &Shutdown, log: &Log, stage: Stage, name: &'static str) {
    let log = Arc::clone(log);
    shutdown.hook(stage, name, SECOND, move || async move {
        log.lock().unwrap().push(name.to_owned());
        Ok(())
    });
}

fn hanging(shutdown: &Shutdown, stage: Stage, name: &'static str, timeout: Duration) {
    shutdown.hook(stage, name, timeout, std::future::pending);
}

fn with_timeout(timeout: Duration) -> Shutdown {
    let shutdown = Shutdown::new();
    shutdown.configure(ShutdownConfig::default().with_timeout(timeout));
    shutdown
}

#[tokio::test]
async fn stages_run_in_order_and_hooks_of_a_stage_last_in_first_out() {
    let shutdown = Shutdown::new();
    let log = Log::default();
    for (stage, name) in [
        (Stage::Close, "close 1"),
        (Stage::Unready, "unready 1"),
        (Stage::Close, "close 2"),
        (Stage::Work, "work 1"),
        (Stage::Intake, "intake 1"),
        (Stage::Close, "close 3"),
        (Stage::Flush, "flush 1"),
        (Stage::Drain, "drain 1"),
        (Stage::Unready, "unready 2"),
    ] {
        logging(&shutdown, &log, stage, name);
    }
    shutdown.trigger("done");
    let report = shutdown.run().await;
    let expected = [
        "unready 2",
        "unready 1",
        "drain 1",
        "intake 1",
        "work 1",
        "flush 1",
        "close 3",
        "close 2",
        "close 1",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    assert_eq!(report.hooks.iter().map(|hook| &*hook.name).collect::<Vec<_>>(), expected);
    assert!(report.is_clean());
    assert_eq!(report.reason, StopReason::Requested("done".into()));
}

#[tokio::test]
async fn a_stage_signal_fires_when_its_stage_begins_and_not_before() {
    let shutdown = Shutdown::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for stage in Stage::ALL {
        let (watched, seen) = (shutdown.clone(), Arc::clone(&seen));
        shutdown.hook(stage, stage.as_str(), SECOND, move || async move {
            seen.lock().unwrap().push(Stage::ALL.map(|stage| watched.signal(stage).is_stopped()));
            Ok(())
        });
    }
    assert!(!shutdown.requested().is_stopped());
    shutdown.trigger("done");
    assert!(shutdown.requested().is_stopped());
    assert!(!shutdown.signal(Stage::Unready).is_stopped());
    shutdown.run().await;
    let begun: Vec<usize> =
        seen.lock().unwrap().iter().map(|row| row.iter().filter(|on| **on).count()).collect();
    assert_eq!(begun, [1, 2, 3, 4, 5, 6]);
    shutdown.signal(Stage::Close).stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_panics_or_hangs_is_cut_and_reported_and_the_rest_still_run() {
    let shutdown = Shutdown::new();
    let log = Log::default();
    logging(&shutdown, &log, Stage::Close, "last");
    shutdown.hook(Stage::Close, "failing", SECOND, || async { Err(Error::invalid("cannot")) });
    shutdown.hook(Stage::Work, "panicking", SECOND, || async { panic!("oh {}", "no") });
    shutdown.hook(Stage::Work, "panicking at once", SECOND, || -> std::future::Ready<Result<(), Error>> {
        panic!("oh")
    });
    hanging(&shutdown, Stage::Unready, "hanging", Duration::from_secs(2));
    shutdown.trigger(OsSignal::Terminate);
    let report = shutdown.run().await;
    assert_eq!(*log.lock().unwrap(), ["last"]);
    let outcome = |name: &str| report.hook(name).unwrap().outcome.to_string();
    assert_eq!(outcome("hanging"), "cut: its own timeout passed");
    assert_eq!(report.hook("hanging").unwrap().elapsed, Duration::from_secs(2));
    assert_eq!(outcome("panicking"), "panicked: oh no");
    assert_eq!(outcome("panicking at once"), "panicked: oh");
    assert_eq!(outcome("failing"), "failed: cannot");
    assert_eq!(outcome("last"), "done");
    assert!(!report.is_clean());
    assert_eq!(report.reason, StopReason::Signal(OsSignal::Terminate));
    assert!(report.to_string().contains("unready `hanging` cut"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn hooks_that_hang_cannot_take_the_whole_budget_from_those_behind_them() {
    let shutdown = with_timeout(Duration::from_secs(16));
    let log = Log::default();
    logging(&shutdown, &log, Stage::Close, "close");
    let slow = Arc::clone(&log);
    shutdown.hook(Stage::Flush, "flush", SECOND, move || async move {
        tokio::time::sleep(Duration::from_millis(900)).await;
        slow.lock().unwrap().push("flush".into());
        Ok(())
    });
    hanging(&shutdown, Stage::Intake, "intake", Duration::from_hours(1));
    shutdown.trigger("done");
    let report = shutdown.run().await;
    assert_eq!(*log.lock().unwrap(), ["flush", "close"]);
    assert!(matches!(report.hook("intake").unwrap().outcome, Outcome::OutOfBudget));
    assert_eq!(report.hook("intake").unwrap().elapsed, Duration::from_secs(12));
    assert!(report.elapsed < Duration::from_secs(13), "{:?}", report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn however_many_hooks_hang_the_whole_ends_in_time_and_those_behind_them_get_their_moment() {
    let shutdown = with_timeout(Duration::from_secs(10));
    let log = Log::default();
    logging(&shutdown, &log, Stage::Close, "moment");
    for stage in Stage::ALL {
        for _ in 0..5 {
            hanging(&shutdown, stage, "hanging", Duration::from_hours(1));
        }
    }
    shutdown.trigger("done");
    let report = shutdown.run().await;
    assert!(report.elapsed <= Duration::from_millis(10_310), "{:?}", report.elapsed);
    assert_eq!(report.hooks.len(), 31);
    assert_eq!(*log.lock().unwrap(), ["moment"]);
}

#[tokio::test(start_paused = true)]
async fn the_drain_delay_passes_between_unready_and_what_follows_and_is_not_taken_from_the_budget() {
    let shutdown = Shutdown::new();
    let config = ShutdownConfig::default()
        .with_timeout(Duration::from_secs(4))
        .with_drain_delay(Duration::from_secs(20));
    shutdown.configure(config);
    let started = SystemClock.now();
    let at = Arc::new(Mutex::new(Vec::new()));
    for stage in [Stage::Unready, Stage::Intake] {
        let at = Arc::clone(&at);
        shutdown.hook(stage, stage.as_str(), SECOND, move || async move {
            at.lock().unwrap().push((SystemClock.now() - started).as_secs());
            Ok(())
        });
    }
    hanging(&shutdown, Stage::Close, "hanging", Duration::from_hours(1));
    shutdown.trigger("done");
    let report = shutdown.run().await;
    assert_eq!(*at.lock().unwrap(), [0, 20]);
    assert_eq!(report.elapsed.as_secs(), 24);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once_and_the_report_names_what_did_not_run() {
    let shutdown = Shutdown::new();
    let log = Log::default();
    logging(&shutdown, &log, Stage::Close, "never");
    hanging(&shutdown, Stage::Work, "hanging", Duration::from_secs(10));
    let signals = shutdown.clone();
    let started = SystemClock.now();
    let (report, ()) = tokio::join!(shutdown.run(), async move {
        signals.signalled(OsSignal::Terminate);
        tokio::time::sleep(Duration::from_millis(50)).await;
        signals.signalled(OsSignal::Interrupt);
    });
    assert_eq!(SystemClock.now() - started, Duration::from_millis(50));
    assert_eq!((report.is_forced, report.forced_by), (true, Some(OsSignal::Interrupt)));
    assert_eq!(report.reason, StopReason::Signal(OsSignal::Terminate));
    assert_eq!(report.hooks.len(), 2);
    assert!(report.hooks.iter().all(|hook| matches!(hook.outcome, Outcome::Forced)), "{report}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_cuts_the_drain_delay_too() {
    let shutdown = Shutdown::new();
    shutdown.configure(ShutdownConfig::default().with_drain_delay(Duration::from_mins(10)));
    let signals = shutdown.clone();
    let (report, ()) = tokio::join!(shutdown.run(), async move {
        signals.signalled(OsSignal::Interrupt);
        tokio::time::sleep(SECOND).await;
        signals.signalled(OsSignal::Interrupt);
    });
    assert!(report.is_forced);
    assert_eq!(report.elapsed, SECOND);
    assert!(shutdown.signal(Stage::Close).is_stopped(), "whoever waits for a later stage is let go");
}

#[tokio::test]
async fn hooks_registered_while_going_down_run_even_for_a_stage_that_has_passed() {
    let shutdown = Shutdown::new();
    let log = Log::default();
    logging(&shutdown, &log, Stage::Close, "close");
    let (late, late_log) = (shutdown.clone(), Arc::clone(&log));
    shutdown.hook(Stage::Work, "registering", SECOND, move || async move {
        logging(&late, &late_log, Stage::Unready, "late for unready");
        logging(&late, &late_log, Stage::Work, "late for work");
        logging(&late, &late_log, Stage::Close, "late for close");
        Ok(())
    });
    shutdown.trigger("done");
    let report = shutdown.run().await;
    assert_eq!(*log.lock().unwrap(), ["late for unready", "late for work", "late for close", "close"]);
    assert!(report.is_clean());
    logging(&shutdown, &log, Stage::Close, "too late");
    assert_eq!(log.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_first_reason_counts() {
    let shutdown = Shutdown::new();
    shutdown.trigger("first");
    shutdown.trigger("second");
    assert_eq!(shutdown.run().await.reason.to_string(), "first");
}

#[tokio::test]
async fn work_under_a_stop_signal_ends_when_it_fires() {
    let shutdown = Shutdown::new();
    let stop = shutdown.requested();
    assert_eq!(stop.until(async { 1 }).await, Some(1));
    shutdown.trigger("done");
    assert_eq!(stop.until(std::future::pending::<u8>()).await, None);
    assert!(!StopSignal::never().is_stopped());
}

#[test]
fn times_that_make_no_sense_are_refused() {
    for (path, value, text) in [
        ("shutdown.timeout", "0s", "must be more than 0s"),
        ("shutdown.timeout", "2h", "at most 1h"),
        ("shutdown.drain_delay", "61m", "must be at most 1h"),
    ] {
        let config = Config::builder().set(path, value).build().unwrap();
        let error = config.section::<ShutdownConfig>().unwrap_err();
        assert!(error.to_string().contains(text), "{path}={value}: {error}");
    }
    let config = Config::builder().set("shutdown.timeout", "20s").build().unwrap();
    assert_eq!(config.section::<ShutdownConfig>().unwrap().timeout, Duration::from_secs(20));
    assert_eq!(ShutdownConfig::default().timeout, Duration::from_secs(15));
    assert_eq!(ShutdownConfig::PATH, "shutdown");
}
