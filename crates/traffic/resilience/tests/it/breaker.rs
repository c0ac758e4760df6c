//! Circuit breakers, in the cases where others fail among others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use runtime_kernel::{Classify, Error, ErrorKind, ManualClock, SystemClock};
use runtime_resilience::{
    BreakerConfig, BreakerState, Breakers, CircuitBreaker, Guarded, Outcome, Rejection, SharedRng,
    Transition, Window,
};

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn config() -> BreakerConfig {
    let mut config = BreakerConfig::default();
    config.open_jitter = 0.0;
    config
}

pub(super) fn breaker(config: BreakerConfig) -> (CircuitBreaker, ManualClock) {
    let clock = ManualClock::new();
    let shared = Arc::new(clock.clone());
    (CircuitBreaker::with("b", config, shared, SharedRng::seeded(1), |_| {}).unwrap(), clock)
}

fn report(breaker: &CircuitBreaker, outcome: Outcome) {
    breaker.acquire().unwrap().record(outcome);
}

#[test]
fn after_a_hundred_thousand_successes_a_window_of_a_hundred_opens_within_a_hundred_failures() {
    for healthy in [0, 100, 1_000, 100_000] {
        let (breaker, _) = breaker(config());
        for _ in 0..healthy {
            report(&breaker, Outcome::Success);
        }
        let mut failures = 0;
        while breaker.state() == BreakerState::Closed {
            report(&breaker, Outcome::Failure);
            failures += 1;
            assert!(failures <= 100, "after {healthy} successes");
        }
        assert_eq!(failures, if healthy == 0 { 20 } else { 50 }, "after {healthy} successes");
    }
}

/// The smallest window there is, so that each mark pushes out the other's.
#[test]
fn what_two_record_at_once_is_counted_once_and_taken_back_once() {
    const ROUNDS: usize = 50_000;
    let mut config = BreakerConfig::consecutive(1_000_000);
    config.window = Window::Calls(1);
    let (breaker, _) = breaker(config);
    let (arrived, mut wrong) = (AtomicUsize::new(0), Vec::new());
    // Nobody sleeps, so that both go on at the same moment.
    let meet = |meeting: usize| {
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < 2 * meeting {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                meet(2 * round + 1);
                report(&breaker, Outcome::Success);
                meet(2 * round + 2);
            }
        });
        for round in 0..ROUNDS {
            breaker.reset();
            meet(2 * round + 1);
            report(&breaker, Outcome::Failure);
            meet(2 * round + 2);
            let seen = breaker.snapshot();
            if seen.calls != 1 || seen.failed > 1 {
                wrong.push(seen);
            }
        }
    });
    assert_eq!(wrong, []);
}

#[test]
fn as_many_calls_as_may_be_asked_for_can_be_the_least_that_count() {
    let mut config = config();
    (config.window, config.minimum_calls) = (Window::Time(secs(10)), 100_000);
    let (breaker, _) = breaker(config);
    for _ in 0..99_999 {
        report(&breaker, Outcome::Failure);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    report(&breaker, Outcome::Failure);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_window_of_time_forgets_what_is_older() {
    let mut config = config();
    (config.window, config.minimum_calls) = (Window::Time(secs(10)), 10);
    let (breaker, clock) = breaker(config);
    for _ in 0..9 {
        report(&breaker, Outcome::Failure);
    }
    clock.advance(secs(11));
    for _ in 0..9 {
        report(&breaker, Outcome::Failure);
    }
    assert_eq!((breaker.state(), breaker.snapshot().calls), (BreakerState::Closed, 9));
    report(&breaker, Outcome::Failure);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn slow_calls_open_it_too() {
    let mut config = config();
    (config.slow_call, config.slow_call_rate, config.minimum_calls) = (Some(secs(1)), 0.5, 4);
    let (breaker, clock) = breaker(config);
    for took in [1, 2, 1, 2] {
        let permit = breaker.acquire().unwrap();
        clock.advance(secs(took));
        permit.record(Outcome::Success);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn failures_in_a_row_open_it_whatever_the_rate() {
    let (breaker, _) = breaker(BreakerConfig::consecutive(3));
    for outcome in [
        Outcome::Failure,
        Outcome::Failure,
        Outcome::Success,
        Outcome::Failure,
        Outcome::Ignored,
        Outcome::Failure,
    ] {
        report(&breaker, outcome);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    report(&breaker, Outcome::Failure);
    assert_eq!(breaker.state(), BreakerState::Open);
}

/// Opens a breaker of three failures in a row.
fn opened() -> (CircuitBreaker, ManualClock) {
    let mut config = BreakerConfig::consecutive(3);
    (config.open_jitter, config.half_open_calls) = (0.0, 2);
    let (breaker, clock) = breaker(config);
    for _ in 0..3 {
        report(&breaker, Outcome::Failure);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    (breaker, clock)
}

#[test]
fn while_open_it_refuses_and_says_for_how_long() {
    let (breaker, clock) = opened();
    clock.advance(secs(4));
    let refused = breaker.acquire().unwrap_err();
    assert_eq!(refused, Rejection::BreakerOpen { retry_after: Some(secs(6)) });
    let error = Error::from(refused);
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "breaker.open"));
    assert_eq!(breaker.snapshot().rejected, 1);
}

#[test]
fn half_open_lets_so_many_through_and_they_decide() {
    for (first, second, after) in [
        (Outcome::Success, Outcome::Success, BreakerState::Closed),
        (Outcome::Failure, Outcome::Success, BreakerState::Open),
        (Outcome::Success, Outcome::Failure, BreakerState::Open),
    ] {
        let (breaker, clock) = opened();
        clock.advance(secs(10));
        let (a, b) = (breaker.acquire().unwrap(), breaker.acquire().unwrap());
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.acquire().is_err(), "two, not three");
        a.record(first);
        b.record(second);
        assert_eq!(breaker.state(), after, "{first:?} {second:?}");
    }
}

#[test]
fn a_cancelled_probe_gives_its_place_back() {
    let (breaker, clock) = opened();
    clock.advance(secs(10));
    for _ in 0..10 {
        let (a, b) = (breaker.acquire().unwrap(), breaker.acquire().unwrap());
        drop(a);
        b.record(Outcome::Ignored);
    }
    report(&breaker, Outcome::Success);
    report(&breaker, Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn probes_that_never_answer_do_not_wedge_it() {
    let (breaker, clock) = opened();
    clock.advance(secs(10));
    let (lost, late) = (breaker.acquire().unwrap(), breaker.acquire().unwrap());
    assert!(breaker.acquire().is_err());
    clock.advance(secs(30));
    let fresh = [breaker.acquire().unwrap(), breaker.acquire().unwrap()];
    late.record(Outcome::Failure);
    drop(lost);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "what the first probes say no longer counts");
    assert!(breaker.acquire().is_err(), "nor does it make room");
    for permit in fresh {
        permit.record(Outcome::Success);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_late_result_of_an_earlier_generation_is_ignored() {
    let (breaker, clock) = opened_with_one_under_way();
    let (breaker, late_success, late_failure) = breaker;
    late_success.record(Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Open, "a late success does not close an open breaker");
    clock.advance(secs(9));
    late_failure.record(Outcome::Failure);
    clock.advance(secs(1));
    assert!(breaker.acquire().is_ok(), "a late failure does not keep it open longer");
}

type Late = runtime_resilience::OwnedPermit;

fn opened_with_one_under_way() -> ((CircuitBreaker, Late, Late), ManualClock) {
    let mut config = BreakerConfig::consecutive(3);
    config.open_jitter = 0.0;
    let (breaker, clock) = breaker(config);
    let (a, b) = (breaker.acquire_owned().unwrap(), breaker.acquire_owned().unwrap());
    for _ in 0..3 {
        report(&breaker, Outcome::Failure);
    }
    ((breaker, a, b), clock)
}

#[test]
fn it_stays_open_longer_each_time_up_to_a_limit_and_starts_anew_once_closed() {
    let (breaker, clock) = opened();
    let mut waits = Vec::new();
    for _ in 0..6 {
        let Err(Rejection::BreakerOpen { retry_after: Some(wait) }) = breaker.acquire() else {
            panic!("open")
        };
        waits.push(wait.as_secs());
        clock.advance(wait);
        report(&breaker, Outcome::Failure);
    }
    assert_eq!(waits, [10, 20, 40, 80, 120, 120]);
    clock.advance(secs(120));
    report(&breaker, Outcome::Success);
    report(&breaker, Outcome::Success);
    for _ in 0..3 {
        report(&breaker, Outcome::Failure);
    }
    assert_eq!(breaker.acquire().unwrap_err().retry_after(), Some(secs(10)));
}

#[test]
fn jitter_makes_it_longer_by_a_share_at_most() {
    let mut lengths = Vec::new();
    for seed in 0..50 {
        let mut config = BreakerConfig::consecutive(1);
        config.open_jitter = 0.5;
        let clock = Arc::new(ManualClock::new());
        let breaker = CircuitBreaker::with("b", config, clock, SharedRng::seeded(seed), |_| {}).unwrap();
        report(&breaker, Outcome::Failure);
        lengths.push(breaker.acquire().unwrap_err().retry_after().unwrap());
    }
    assert!(lengths.iter().all(|time| (secs(10)..=secs(15)).contains(time)));
    assert!(lengths.iter().max().unwrap().saturating_sub(*lengths.iter().min().unwrap()) > secs(3));
}

#[test]
fn orders_hold_until_they_are_taken_back() {
    let (breaker, clock) = breaker(BreakerConfig::consecutive(1));
    breaker.force_open();
    clock.advance(secs(1_000_000));
    assert_eq!(breaker.acquire().unwrap_err(), Rejection::BreakerOpen { retry_after: None });
    breaker.disable();
    for _ in 0..10 {
        report(&breaker, Outcome::Failure);
    }
    assert_eq!((breaker.state(), breaker.snapshot().failed), (BreakerState::Disabled, 0));
    breaker.watch_only();
    for _ in 0..10 {
        report(&breaker, Outcome::Failure);
    }
    assert_eq!(
        (breaker.state(), breaker.snapshot().failed),
        (BreakerState::MetricsOnly, 1),
        "a window of one call"
    );
    breaker.reset();
    assert_eq!((breaker.state(), breaker.snapshot().failed), (BreakerState::Closed, 0));
    let names: Vec<_> = breaker.transitions().iter().map(|t| t.to.as_str()).collect();
    assert_eq!(names, ["forced_open", "disabled", "metrics_only", "closed"]);
}

#[test]
fn somebody_is_told_of_every_transition() {
    let (told, clock) = (Arc::new(Mutex::new(Vec::new())), ManualClock::new());
    let tell = Arc::clone(&told);
    let mut config = BreakerConfig::consecutive(1);
    (config.open_jitter, config.half_open_calls) = (0.0, 1);
    let observe =
        move |transition: &Transition| tell.lock().unwrap().push((transition.to, transition.open_for));
    let breaker =
        CircuitBreaker::with("b", config, Arc::new(clock.clone()), SharedRng::seeded(1), observe).unwrap();
    report(&breaker, Outcome::Failure);
    clock.advance(secs(10));
    report(&breaker, Outcome::Success);
    let expected =
        [(BreakerState::Open, Some(secs(10))), (BreakerState::HalfOpen, None), (BreakerState::Closed, None)];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn what_an_error_means_decides_whether_it_counts() {
    for (kind, outcome) in [
        (ErrorKind::Timeout, Outcome::Failure),
        (ErrorKind::Unavailable, Outcome::Failure),
        (ErrorKind::Internal, Outcome::Failure),
        (ErrorKind::Cancelled, Outcome::Ignored),
        (ErrorKind::Invalid, Outcome::Success),
        (ErrorKind::NotFound, Outcome::Success),
        (ErrorKind::RateLimited, Outcome::Success),
    ] {
        assert_eq!(Outcome::of_kind(kind), outcome, "{kind}");
    }
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_key() {
    for (change, key) in [
        ((|c| c.window = Window::Calls(0)) as fn(&mut BreakerConfig), "window"),
        (|c| c.window = Window::Time(Duration::from_millis(1)), "window"),
        (|c| c.failure_rate = 0.0, "failure_rate"),
        (|c| c.failure_rate = f64::NAN, "failure_rate"),
        (|c| c.slow_call_rate = 1.1, "slow_call_rate"),
        (|c| c.slow_call = Some(Duration::ZERO), "slow_call"),
        (|c| c.minimum_calls = 0, "minimum_calls"),
        (|c| c.consecutive_failures = Some(0), "consecutive_failures"),
        (|c| c.open_for = Duration::ZERO, "open_for"),
        (|c| c.max_open = secs(1), "max_open"),
        (|c| c.open_growth = 0.5, "open_growth"),
        (|c| c.open_jitter = -0.1, "open_jitter"),
        (|c| c.half_open_calls = 0, "half_open_calls"),
        (|c| c.half_open_timeout = Duration::ZERO, "half_open_timeout"),
    ] {
        let mut config = BreakerConfig::default();
        change(&mut config);
        assert_eq!(CircuitBreaker::new("b", config).unwrap_err().key, key);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("down")]
struct Down;

impl Classify for Down {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }

    fn code(&self) -> &'static str {
        "down"
    }
}

#[tokio::test]
async fn calls_are_made_watched_and_turned_away() {
    let (breaker, _) = breaker(BreakerConfig::consecutive(2));
    let judge = Outcome::of::<u32, Down>;
    assert_eq!(breaker.call(judge, || async { Ok::<u32, Down>(7) }).await.unwrap(), 7);
    for _ in 0..2 {
        let failed = breaker.call(judge, || async { Err(Down) }).await.unwrap_err();
        assert!(matches!(failed, Guarded::Failed(Down)));
    }
    let turned_away = breaker.call(judge, || async { panic!("not called") }).await.unwrap_err();
    assert!(matches!(turned_away, Guarded::Rejected(Rejection::BreakerOpen { .. })));
}

proptest! {
    /// A call is dropped after any number of polls: the probe's place comes back.
    #[test]
    fn a_call_dropped_at_any_await_gives_its_place_back(polls in 0usize..6, total in 1usize..6) {
        let (breaker, clock) = opened();
        clock.advance(secs(10));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let work = || async {
                for _ in 0..total {
                    tokio::task::yield_now().await;
                }
                Ok::<u32, Down>(1)
            };
            let mut call = Box::pin(breaker.call(Outcome::of::<u32, Down>, work));
            for _ in 0..polls.min(total) {
                std::future::poll_fn(|cx| {
                    let _ = call.as_mut().poll(cx);
                    std::task::Poll::Ready(())
                })
                .await;
            }
            drop(call);
        });
        let places = [breaker.acquire().unwrap(), breaker.acquire().unwrap()];
        prop_assert!(breaker.acquire().is_err());
        for place in places {
            place.record(Outcome::Success);
        }
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
    }
}

#[test]
fn many_threads_lose_no_mark_and_let_no_probe_too_many_through() {
    for window in [Window::Calls(1_000), Window::Time(secs(10))] {
        let mut config = config();
        (config.window, config.minimum_calls) = (window, 1_000);
        let (breaker, _) = breaker(config);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..5_000 {
                        report(&breaker, if n % 4 == 0 { Outcome::Failure } else { Outcome::Success });
                    }
                });
            }
        });
        let seen = breaker.snapshot();
        match window {
            Window::Calls(_) => {
                assert!(seen.calls == 1_000 && (200..=300).contains(&seen.failed), "{seen:?}");
            }
            _ => assert_eq!((seen.calls, seen.failed), (20_000, 5_000)),
        }
    }
    let (breaker, clock) = opened();
    clock.advance(secs(10));
    let passed = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    if let Ok(permit) = breaker.acquire_owned() {
                        passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::mem::forget(permit);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 2);
}

#[test]
fn breakers_by_key_are_bounded_and_a_failing_one_is_never_forgotten() {
    let rng = SharedRng::seeded(1);
    let breakers =
        Breakers::new(BreakerConfig::consecutive(1), 3, SystemClock::shared(), rng, |_| {}).unwrap();
    for key in ["a", "b", "c"] {
        assert_eq!(breakers.get(key).name(), key);
    }
    report(&breakers.get("a"), Outcome::Failure);
    let _ = breakers.get("b");
    assert_eq!(breakers.get("d").name(), "d", "c was asked for longest ago");
    let names: Vec<_> = breakers.all().iter().map(|b| b.name().to_owned()).collect();
    assert_eq!(names, ["a", "b", "d"]);
    for key in ["b", "d"] {
        report(&breakers.get(key), Outcome::Failure);
    }
    assert_eq!(breakers.get("e").name(), "(others)", "all three fail, and none is forgotten");
    report(&breakers.get("f"), Outcome::Success);
    assert_eq!(breakers.all().len(), 4);
    assert_eq!(breakers.get("a").state(), BreakerState::Open);
}
