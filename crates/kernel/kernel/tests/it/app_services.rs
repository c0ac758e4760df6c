//! Services that fail, hang and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{App, Importance, Run, Service, ServiceEnd};
use runtime_kernel::config::Config;
use runtime_kernel::lifecycle::StopReason;
use runtime_kernel::{Clock, Error, Mode, SystemClock};

use super::app::{Act, Log, Part, SECOND, part, run_for, said};

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_restarted_with_growing_waits() {
    let log = Log::default();
    let report = run_for(SECOND * 10, Mode::All, vec![part("shaky", Act::FailTwice, &log)]).await;
    assert_eq!((report.services[0].restarts, &report.services[0].end), (2, &ServiceEnd::Stopped));
    assert_eq!(said(&log), ["shaky starts", "shaky starts", "shaky starts", "shaky stops"]);
    assert_eq!(report.code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_critical_service_that_fails_too_often_ends_the_process() {
    for (act, text) in [
        (Act::Fail, "on purpose"),
        (Act::Panic, "panic: on purpose"),
        (Act::ReturnEarly, "it ended before it was told to stop"),
    ] {
        let log = Log::default();
        let parts = vec![part("fine", Act::Behave, &log), part("broken", act, &log)];
        let started = SystemClock.now();
        let report = run_for(Duration::from_hours(1), Mode::All, parts).await;
        let gave_up = StopReason::ServiceGaveUp { service: "broken".into(), message: text.into() };
        assert_eq!(report.reason, gave_up);
        assert_eq!(report.code(), 70);
        assert_eq!(report.services[1].restarts, 5, "five restarts within the window, as configured");
        assert_eq!(report.services[0].end, ServiceEnd::Stopped, "the others stop in order");
        let waited = SystemClock.now() - started;
        // 200 + 400 + 800 + 1600 + 3200 ms, of which up to half is cut off.
        assert!(
            waited >= Duration::from_millis(3_100) && waited <= Duration::from_millis(6_300),
            "{waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_optional_service_that_is_given_up_leaves_the_process_running() {
    let log = Log::default();
    let broken = Part { importance: Importance::Optional, ..part("broken", Act::Panic, &log) };
    let report =
        run_for(Duration::from_hours(1), Mode::All, vec![broken, part("fine", Act::Behave, &log)]).await;
    assert_eq!(report.reason, StopReason::Requested("time is up".into()));
    assert_eq!(report.services[0].end, ServiceEnd::GaveUp("panic: on purpose".into()));
    assert_eq!(report.code(), 0);
}

#[tokio::test(start_paused = true)]
async fn failures_further_apart_than_the_window_never_add_up() {
    struct Daily(AtomicU32);
    #[async_trait]
    impl Service for Daily {
        fn name(&self) -> &'static str {
            "daily"
        }
        async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            run.stop.until(tokio::time::sleep(Duration::from_mins(2))).await;
            if run.stop.is_stopped() { Ok(()) } else { Err(Error::invalid("once more")) }
        }
    }
    let mut app = App::new(Config::default());
    app.service(Daily(AtomicU32::new(0)));
    let built = app.build().unwrap();
    let shutdown = built.shutdown().clone();
    let (report, ()) = tokio::join!(built.run_without_signals(), async move {
        tokio::time::sleep(Duration::from_mins(41)).await;
        shutdown.trigger("done");
    });
    assert_eq!(report.code(), 0, "{report}");
    assert_eq!(report.services[0].restarts, 20);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ignores_its_signal_or_fails_at_the_end_is_reported_and_the_rest_still_stop() {
    let log = Log::default();
    let parts = vec![
        part("fine", Act::Behave, &log),
        part("late", Act::FailWhenStopped, &log),
        part("deaf", Act::IgnoreStop, &log),
    ];
    let report = run_for(SECOND, Mode::All, parts).await;
    let ends: Vec<_> = report.services.iter().map(|service| service.end.clone()).collect();
    assert_eq!(
        ends,
        [ServiceEnd::Stopped, ServiceEnd::FailedWhileStopping("too late".into()), ServiceEnd::Cut]
    );
    assert!(report.shutdown.hook("deaf").unwrap().outcome.is_cut());
    assert_eq!(report.code(), 71);
    assert!(report.shutdown.elapsed <= Duration::from_secs(15));
}
