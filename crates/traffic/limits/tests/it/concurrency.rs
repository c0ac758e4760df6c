//! Who may begin.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use runtime_kernel::{Deadline, Error, ErrorKind, ManualClock};
use runtime_limits::{
    AlgorithmConfig, ConcurrencyConfig, ConcurrencyLimit, Criticality, Overloaded, Permit, QueueConfig,
};

#[test]
fn no_more_are_under_way_than_may_be_and_a_dropped_permit_makes_room() {
    let limit = ConcurrencyLimit::new(ConcurrencyConfig::fixed(2)).unwrap();
    let [a, b] = [(); 2].map(|()| limit.acquire(Criticality::CriticalPlus).unwrap());
    let refused = limit.acquire(Criticality::CriticalPlus).unwrap_err();
    assert_eq!(refused, Overloaded::Full { in_flight: 2, limit: 2 });
    assert_eq!(limit.rejected(), 1);
    let error = Error::from(refused);
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "limits.overloaded"));
    drop(a);
    b.succeeded();
    assert_eq!(limit.in_flight(), 0);
}

#[test]
fn what_matters_least_is_turned_away_first() {
    for (criticality, places) in [
        (Criticality::Sheddable, 20),
        (Criticality::SheddablePlus, 24),
        (Criticality::Critical, 27),
        (Criticality::CriticalPlus, 30),
    ] {
        let limit = ConcurrencyLimit::new(ConcurrencyConfig::fixed(30)).unwrap();
        let held: Vec<_> = (0..40).map_while(|_| limit.acquire(criticality).ok()).collect();
        assert_eq!(held.len(), places, "{criticality:?}");
    }
    let one = ConcurrencyLimit::new(ConcurrencyConfig::fixed(1)).unwrap();
    assert!(one.acquire(Criticality::Sheddable).is_ok(), "nobody is locked out of an idle service");
}

#[test]
fn the_limit_moves_once_a_window_and_not_for_calls_that_say_nothing() {
    let clock = ManualClock::new();
    let mut config = ConcurrencyConfig::default();
    config.algorithm = AlgorithmConfig::Aimd { timeout: Duration::from_secs(1) };
    (config.initial, config.min_samples) = (4, 3);
    let limit = ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap();
    let calls = |n: usize, succeed: bool| {
        let held: Vec<_> = (0..n).map(|_| limit.acquire(Criticality::CriticalPlus).unwrap()).collect();
        clock.advance(Duration::from_millis(10));
        for permit in held {
            if succeed { permit.succeeded() } else { drop(permit) }
        }
    };
    calls(4, true);
    assert_eq!(limit.limit(), 4, "the window is not over");
    clock.advance(Duration::from_millis(100));
    calls(4, false);
    assert_eq!(limit.limit(), 4, "cancelled calls teach nothing");
    calls(4, true);
    assert_eq!(limit.limit(), 5);
    clock.advance(Duration::from_millis(100));
    for _ in 0..3 {
        limit.acquire(Criticality::CriticalPlus).unwrap().overloaded();
    }
    assert_eq!(limit.limit(), 4);
}

/// Takes and returns one call after the other until so many windows have turned.
fn windows(clock: &ManualClock, limit: &ConcurrencyLimit, n: usize) {
    for _ in 0..n * 10 {
        let permit = limit.acquire(Criticality::CriticalPlus).unwrap();
        clock.advance(Duration::from_millis(10));
        permit.succeeded();
    }
}

fn hold(limit: &ConcurrencyLimit, n: usize) -> Vec<Permit> {
    (0..n).map(|_| limit.acquire(Criticality::CriticalPlus).unwrap()).collect()
}

#[test]
fn calls_that_hang_while_it_measures_do_not_keep_everybody_out() {
    for algorithm in [AlgorithmConfig::Gradient2, AlgorithmConfig::Vegas] {
        let clock = ManualClock::new();
        let mut config = ConcurrencyConfig::default();
        config.algorithm = algorithm;
        let start = || ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap();

        let limit = start();
        let _hang = hold(&limit, 4);
        assert!(limit.acquire(Criticality::CriticalPlus).is_err(), "at first it measures with the least");
        clock.advance(Duration::from_mins(10));
        assert!(limit.acquire(Criticality::CriticalPlus).is_ok());
        assert_eq!(limit.limit(), 20, "{algorithm:?}");

        let limit = start();
        windows(&clock, &limit, 5);
        let before = limit.limit();
        assert!(before >= 20, "{algorithm:?}: {before}");
        let _hang = hold(&limit, 4);
        let mut turned = 0;
        while limit.limit() > 4 {
            windows(&clock, &limit, 1);
            turned += 1;
            assert!(turned <= 300, "{algorithm:?} did not measure again");
        }
        assert!(limit.acquire(Criticality::CriticalPlus).is_err());
        clock.advance(Duration::from_secs(5));
        assert!(limit.acquire(Criticality::CriticalPlus).is_err(), "fifty windows are not over");
        clock.advance(Duration::from_mins(10));
        assert!(limit.acquire(Criticality::Sheddable).is_ok());
        assert_eq!(limit.limit(), before, "{algorithm:?} takes its limit back");
        windows(&clock, &limit, 5);
        assert!(limit.limit() >= before, "and goes on from there");
    }
}

#[tokio::test]
async fn who_waits_in_line_gets_in_when_a_measurement_is_given_up() {
    let clock = ManualClock::new();
    let mut config = ConcurrencyConfig::default();
    config.queue = Some(QueueConfig::default());
    let limit = ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap();
    let _hang = hold(&limit, 4);
    let [mut first, mut second] =
        [(); 2].map(|()| Box::pin(limit.wait(Criticality::Critical, Deadline::NONE)));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    clock.advance(Duration::from_mins(10));
    assert!(matches!(futures_util::poll!(second.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn a_measurement_that_idled_is_not_given_up_and_slow_calls_are_measured_in_part() {
    let clock = ManualClock::new();
    let limit = ConcurrencyLimit::with_clock(ConcurrencyConfig::default(), Arc::new(clock.clone())).unwrap();
    clock.advance(Duration::from_mins(10));
    let held = hold(&limit, 4);
    assert!(limit.acquire(Criticality::CriticalPlus).is_err(), "nobody hangs: they have just begun");
    // Of ten samples, which make a window, there are eight after six seconds.
    clock.advance(Duration::from_secs(3));
    held.into_iter().for_each(Permit::succeeded);
    let held = hold(&limit, 4);
    clock.advance(Duration::from_secs(3));
    held.into_iter().for_each(Permit::succeeded);
    let _held = hold(&limit, 4);
    assert!(limit.acquire(Criticality::CriticalPlus).is_ok());
    assert_eq!(limit.limit(), 20);
    // Ten times what was measured is too much.
    for _ in 0..5 {
        let held = hold(&limit, usize::try_from(limit.limit() - limit.in_flight()).unwrap());
        clock.advance(Duration::from_secs(30));
        held.into_iter().for_each(Permit::succeeded);
    }
    assert!(limit.limit() < 20, "{}", limit.limit());
}

#[test]
fn one_call_beyond_the_time_out_lowers_the_limit_whatever_the_others_took() {
    let clock = ManualClock::new();
    let mut config = ConcurrencyConfig::default();
    config.algorithm = AlgorithmConfig::Aimd { timeout: Duration::from_secs(1) };
    for (slowest, expected) in [(1_000, 21), (1_001, 18), (5_000, 18)] {
        let limit = ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap();
        let mut held = hold(&limit, 10);
        let last = held.pop().unwrap();
        clock.advance(Duration::from_millis(1));
        held.into_iter().for_each(Permit::succeeded);
        clock.advance(Duration::from_millis(slowest - 1));
        last.succeeded();
        assert_eq!(limit.limit(), expected, "nine of 1 ms and one of {slowest} ms");
    }
}

#[test]
fn many_threads_never_exceed_it() {
    let limit = ConcurrencyLimit::new(ConcurrencyConfig::fixed(3)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Ok(permit) = limit.acquire(Criticality::CriticalPlus) {
                        assert!(limit.in_flight() <= 3);
                        permit.succeeded();
                    }
                }
            });
        }
    });
    assert_eq!(limit.in_flight(), 0);
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_key() {
    for (change, key) in [
        ((|c| c.min = 0) as fn(&mut ConcurrencyConfig), "min"),
        (|c| c.max = 1, "max"),
        (|c| c.initial = 2_000, "initial"),
        (|c| c.window = Duration::ZERO, "window"),
        (|c| c.min_samples = 0, "min_samples"),
        (|c| c.algorithm = AlgorithmConfig::Aimd { timeout: Duration::ZERO }, "algorithm.aimd.timeout"),
    ] {
        let mut config = ConcurrencyConfig::default();
        change(&mut config);
        assert_eq!(ConcurrencyLimit::new(config).unwrap_err().key, key);
    }
    let read: ConcurrencyConfig =
        serde_json::from_str(r#"{"algorithm":{"aimd":{"timeout":"1s"}},"max":50}"#).unwrap();
    assert_eq!((read.algorithm, read.max), (AlgorithmConfig::Aimd { timeout: Duration::from_secs(1) }, 50));
}
