//! Units per second.

use std::convert::Infallible;
use std::sync::Arc;
use std::task;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use runtime_kernel::{Clock, ManualClock};
use runtime_limits::Throttle;
use runtime_testkit::PausedClock;

/// What passed when, against what may pass in each span.
fn within(rate: u64, burst: u64, passed: &[(u128, u128)]) -> Result<(), TestCaseError> {
    for (first, (from, _)) in passed.iter().enumerate() {
        let mut sum = 0;
        for (until, units) in &passed[first..] {
            sum += units;
            let allowed = u128::from(burst) + (u128::from(rate) * (until - from)).div_ceil(1_000_000_000);
            prop_assert!(sum <= allowed, "{sum} > {allowed} from {from} to {until}");
        }
    }
    Ok(())
}

proptest! {
    /// In any span, at most `burst + rate × t`, however often it is asked, for rates up to the largest.
    #[test]
    fn no_span_passes_more_than_burst_and_rate_allow(
        rate in prop_oneof![1u64..2_000, any::<u64>().prop_map(|rate| rate.max(1)), Just(u64::MAX)],
        burst in 1u64..100_000,
        asks in prop::collection::vec((0u64..3_000_000, 1u64..120_000), 1..200),
    ) {
        let clock = ManualClock::new();
        let throttle = Throttle::new(rate, burst, Arc::new(clock.clone())).unwrap();
        let (mut now, mut passed) = (0u128, Vec::new());
        for (nanos, units) in asks {
            clock.advance(Duration::from_nanos(nanos));
            now += u128::from(nanos);
            match throttle.take_now(units) {
                Ok(()) => passed.push((now, u128::from(units))),
                Err(wait) => {
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert!(units <= burst || wait == Duration::MAX);
                }
            }
        }
        within(rate, burst, &passed)?;
    }

    /// The same of those who wait, come when they like, leave, and are overtaken.
    #[test]
    fn no_span_passes_more_to_those_who_wait(
        rate in 1u64..1_000_000_000,
        burst in 1u64..10_000,
        polls in prop::collection::vec((0u64..50_000_000, 0usize..5, any::<u16>(), 0u8..8), 1..300),
    ) {
        let clock = ManualClock::new();
        let throttle = Throttle::new(rate, burst, Arc::new(clock.clone())).unwrap();
        let mut nobody = task::Context::from_waker(task::Waker::noop());
        let (mut now, mut passed) = (0u128, Vec::new());
        let mut waits = [const { None }; 5];
        for (nanos, who, units, leaves) in polls {
            clock.advance(Duration::from_nanos(nanos));
            now += u128::from(nanos);
            let (units, wait) = waits[who].get_or_insert_with(|| {
                let (throttle, units) = (throttle.clone(), 1 + u64::from(units) % burst);
                (units, Box::pin(async move { throttle.take(units).await }))
            });
            if wait.as_mut().poll(&mut nobody).is_ready() {
                passed.push((now, u128::from(*units)));
                waits[who] = None;
            } else if leaves == 0 {
                waits[who] = None;
            }
        }
        within(rate, burst, &passed)?;
        // Nobody is left behind: with the time for all of them, all pass, whoever comes first.
        clock.advance(Duration::from_secs(5 * burst.div_ceil(rate)));
        for (_, wait) in waits.iter_mut().flatten() {
            clock.advance(Duration::from_secs(burst.div_ceil(rate)));
            prop_assert!(wait.as_mut().poll(&mut nobody).is_ready());
        }
    }

    /// The wait it names is enough, and no shorter one is.
    #[test]
    fn the_wait_it_names_is_the_shortest(rate in 1u64..5_000_000_000, burst in 1u64..1_000, units in 1u64..1_000) {
        let units = units.min(burst);
        let clock = ManualClock::new();
        let throttle = Throttle::new(rate, burst, Arc::new(clock.clone())).unwrap();
        throttle.take_now(burst).unwrap();
        let wait = throttle.take_now(units).unwrap_err();
        clock.advance(wait.saturating_sub(Duration::from_nanos(1)));
        prop_assert!(throttle.take_now(units).is_err());
        clock.advance(Duration::from_nanos(1));
        prop_assert!(throttle.take_now(units).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_paced_in_even_parts_and_nothing_is_lost() {
    let clock = Arc::new(PausedClock::default());
    let throttle = Throttle::new(1_000, 100, clock.clone()).unwrap();
    let chunks: Vec<_> = [1usize, 250, 0, 99, 650]
        .iter()
        .map(|size| Ok::<_, Infallible>(Bytes::from(vec![7; *size])))
        .collect();
    let began = clock.now();
    let parts: Vec<_> = throttle.pace(stream::iter(chunks)).map(Result::unwrap).collect().await;
    assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), 1_000);
    assert!(parts.iter().all(|part| (1..=100).contains(&part.len())));
    let took = clock.now() - began;
    assert!(
        (899..=905).contains(&took.as_millis()),
        "a burst of 100 at once, 900 at 1 per millisecond: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn bodies_share_a_throttle_fairly_and_keep_their_length_and_trailers() {
    let clock = Arc::new(PausedClock::default());
    let throttle = Throttle::new(1_000, 10, clock.clone()).unwrap();
    let began = clock.now();
    let body = |size: usize| throttle.pace(Full::new(Bytes::from(vec![1; size])));
    assert_eq!(http_body::Body::size_hint(&body(500)).exact(), Some(500));
    let finish = async |body| {
        let collected = BodyExt::collect(body).await.unwrap();
        (collected.to_bytes().len(), clock.now() - began)
    };
    let ((large, first), (small, second)) = tokio::join!(finish(body(500)), finish(body(100)));
    assert_eq!((large, small), (500, 100));
    assert!(second < Duration::from_millis(230), "the small one takes turns with the large one: {second:?}");
    assert!((585..=600).contains(&first.as_millis()), "{first:?}");
}

/// Streams through a throttle of 1,000 a second and 100 at once that has just passed those, each polled once.
fn polled_once(
    clock: &Arc<PausedClock>,
    streams: usize,
) -> (Throttle, Vec<impl Stream<Item = Result<Bytes, Infallible>> + Unpin>) {
    let throttle = Throttle::new(1_000, 100, clock.clone()).unwrap();
    throttle.take_now(100).unwrap();
    let mut all: Vec<_> = (0..streams).map(|_| throttle.pace(endless())).collect();
    let mut nobody = task::Context::from_waker(task::Waker::noop());
    assert!(all.iter_mut().all(|stream| stream.poll_next_unpin(&mut nobody).is_pending()));
    (throttle, all)
}

fn endless() -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin {
    stream::repeat_with(|| Ok(Bytes::from_static(&[7; 100])))
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_holds_the_others_up_for_its_one_part_and_comes_next_when_it_is() {
    let clock = Arc::new(PausedClock::default());
    let began = clock.now();
    let (throttle, mut paused) = polled_once(&clock, 1);
    let mut read = throttle.pace(endless());
    for part in 1..=5 {
        let passes =
            tokio::time::timeout(Duration::from_mins(1), read.next()).await.expect("it waits for ever");
        assert_eq!(passes.unwrap().unwrap().len(), 100);
        let took = (clock.now() - began).as_millis();
        assert!(took <= 100 + part * 100 + 5, "part {part} after {took} ms");
    }
    assert!(futures_util::poll!(read.next()).is_pending());
    let (first, second) = tokio::join!(
        async {
            paused[0].next().await;
            clock.now() - began
        },
        async {
            read.next().await;
            clock.now() - began
        },
    );
    assert!(first < second && second.as_millis() <= 815, "{first:?} {second:?}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_were_not_read_for_long_pass_no_more_at_once_than_the_burst() {
    let clock = Arc::new(PausedClock::default());
    let (_throttle, paused) = polled_once(&clock, 20);
    tokio::time::advance(Duration::from_hours(1)).await;
    let began = clock.now();
    let each =
        paused.into_iter().map(|mut stream| async move { stream.next().await.unwrap().unwrap().len() });
    assert_eq!(futures_util::future::join_all(each).await, [100; 20]);
    let took = (clock.now() - began).as_millis();
    assert!((1_900..=1_925).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_gives_its_place_up() {
    let clock = Arc::new(PausedClock::default());
    let began = clock.now();
    let (throttle, paused) = polled_once(&clock, 20);
    let mut last = Box::pin(throttle.take(100));
    assert!(futures_util::poll!(last.as_mut()).is_pending());
    drop(paused);
    last.await;
    let took = (clock.now() - began).as_millis();
    assert!((100..=101).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_takes_nothing_and_the_next_is_served() {
    let clock = Arc::new(PausedClock::default());
    let throttle = Throttle::new(10, 10, clock.clone()).unwrap();
    throttle.take(10).await;
    let began = clock.now();
    let waits = [throttle.clone(), throttle.clone()];
    let mut first = Box::pin(waits[0].take(10));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    drop(first);
    waits[1].take(5).await;
    assert_eq!((clock.now() - began).as_millis(), 500);
}

#[test]
fn a_throttle_of_nothing_is_refused() {
    let clock = || Arc::new(ManualClock::new());
    assert_eq!(Throttle::new(0, 1, clock()).unwrap_err().key, "rate");
    assert_eq!(Throttle::new(1, 0, clock()).unwrap_err().key, "burst");
}
