//! Units per second.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use runtime_kernel::{Clock, ManualClock};
use runtime_limits::Throttle;
use runtime_testkit::PausedClock;

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
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (until, units) in &passed[first..] {
                sum += units;
                let allowed = u128::from(burst) + (u128::from(rate) * (until - from)).div_ceil(1_000_000_000);
                prop_assert!(sum <= allowed, "{sum} > {allowed} from {from} to {until}");
            }
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
