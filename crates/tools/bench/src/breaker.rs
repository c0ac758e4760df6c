//! Circuit breakers beside failsafe's and tower-resilience's.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failsafe::CircuitBreaker as _;
use runtime_resilience::{BreakerConfig, CircuitBreaker, Outcome, Window};
use tower::{Layer, Service};
use tower_resilience::circuitbreaker::CircuitBreakerLayer;

use crate::measure::{interleave, interleave_tails, nanos_on, tail_on};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(60);

/// Answers at once.
#[derive(Clone)]
pub struct Answer;

impl Service<u64> for Answer {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, n: u64) -> Self::Future {
        ready(Ok(n))
    }
}

/// Calls a service that never waits.
pub fn call<S: Service<u64>>(service: &mut S, n: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = service.poll_ready(&mut cx);
    let future = std::pin::pin!(service.call(n));
    black_box(future.poll(&mut cx).is_ready());
}

/// Closed by count and by time, with and without slow calls, and open.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for threads in [1, 2] {
        rows.extend(timed(threads));
    }
    rows
}

fn ours(window: Window, slow: bool) -> CircuitBreaker {
    let mut config = BreakerConfig::default();
    config.window = window;
    config.slow_call = slow.then_some(Duration::from_secs(1));
    CircuitBreaker::new("bench", config).expect("a sound configuration")
}

fn timed(threads: usize) -> Vec<Row> {
    let by_count = ours(Window::Calls(100), false);
    let by_count_slow = ours(Window::Calls(100), true);
    let by_time = ours(Window::Time(Duration::from_secs(10)), true);
    let open = ours(Window::Calls(100), false);
    open.force_open();
    let opened = CircuitBreaker::new("bench", BreakerConfig::consecutive(1)).expect("sound");
    opened.acquire().expect("closed").record(Outcome::Failure);
    let failsafe = failsafe::Config::new().build();
    let layer = CircuitBreakerLayer::builder().sliding_window_size(100).build().expect("sound");
    let theirs = layer.layer(Answer);

    let pass = |breaker: &CircuitBreaker| match breaker.acquire() {
        Ok(permit) => permit.record(Outcome::Success),
        Err(rejection) => drop(black_box(Some(rejection))),
    };
    let theirs = |n: u64| {
        // A clone per call is what a tower stack makes; the state is shared.
        let mut service = theirs.clone();
        call(&mut service, n);
    };
    let failsafe = |n: u64| {
        black_box(failsafe.call(|| Ok::<u64, u64>(n)).is_ok());
    };
    let medians = interleave([
        &mut || nanos_on(threads, WINDOW, |_| pass(&by_count)),
        &mut || nanos_on(threads, WINDOW, |_| pass(&by_count_slow)),
        &mut || nanos_on(threads, WINDOW, |_| pass(&by_time)),
        &mut || nanos_on(threads, WINDOW, |_| pass(&opened)),
        &mut || nanos_on(threads, WINDOW, failsafe),
        &mut || nanos_on(threads, WINDOW, theirs),
    ]);
    let tails = interleave_tails([
        &mut || tail_on(threads, |n| n, |_| pass(&by_count_slow)),
        &mut || tail_on(threads, |n| n, |n| failsafe(*n)),
        &mut || tail_on(threads, |n| n, |n| theirs(*n)),
    ]);
    let row = |name: &str, ours: &[f64], peer: (&str, &[f64])| {
        let name = format!("{name}, {threads} thread{}", if threads == 1 { "" } else { "s" });
        Row::of("breaker", &name, "ns", Better::Less, ours, peer)
    };
    let (failsafe, theirs) = ("failsafe 1.3 default", "tower-resilience 0.13");
    vec![
        row("closed, last 100 calls", &medians[0], (failsafe, &medians[4])),
        row("closed, last 100 calls", &medians[0], (theirs, &medians[5])),
        row("closed, last 100 calls, slow calls told", &medians[1], (failsafe, &medians[4])),
        row("closed, last 100 calls, slow calls told", &medians[1], (theirs, &medians[5])),
        row("closed, last 10 s, slow calls told", &medians[2], (failsafe, &medians[4])),
        row("open, refused", &medians[3], (failsafe, &medians[4])),
        row("closed, slow calls told, p99.9", &tails[0], (failsafe, &tails[1])),
        row("closed, slow calls told, p99.9", &tails[0], (theirs, &tails[2])),
    ]
}
