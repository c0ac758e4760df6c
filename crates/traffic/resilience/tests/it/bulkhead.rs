//! Bulkheads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_kernel::{Clock, Deadline, SystemClock};
use runtime_resilience::{Bulkhead, BulkheadConfig, Bulkheads, Rejection};

const CLOCK: SystemClock = SystemClock;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_is_turned_away_at_once() {
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(2)).unwrap();
    let (a, _b) = (bulkhead.enter_now().unwrap(), bulkhead.enter(&CLOCK, Deadline::NONE).await.unwrap());
    assert_eq!(bulkhead.enter(&CLOCK, Deadline::NONE).await.unwrap_err(), Rejection::BulkheadFull);
    assert_eq!(bulkhead.under_way(), 2);
    drop(a);
    assert!(bulkhead.enter_now().is_ok());
}

#[tokio::test(start_paused = true)]
async fn so_many_wait_in_the_order_they_came_and_the_rest_are_turned_away() {
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1).waiting(2, secs(10))).unwrap();
    let place = bulkhead.enter_now().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..2 {
        let (bulkhead, order) = (bulkhead.clone(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let _place = bulkhead.enter(&CLOCK, Deadline::NONE).await.unwrap();
            order.lock().unwrap().push(n);
            CLOCK.sleep(secs(1)).await;
        }));
        tokio::task::yield_now().await;
    }
    assert_eq!(bulkhead.waiting(), 2);
    assert_eq!(bulkhead.enter(&CLOCK, Deadline::NONE).await.unwrap_err(), Rejection::BulkheadFull);
    drop(place);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        (order.lock().unwrap().as_slice(), bulkhead.waiting(), bulkhead.under_way()),
        (&[0, 1][..], 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_allowed_or_than_the_deadline() {
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1).waiting(5, secs(3))).unwrap();
    let _place = bulkhead.enter_now().unwrap();
    for (deadline, rejection, waited) in [
        (Deadline::NONE, Rejection::BulkheadTimeout { waited: secs(3) }, 3),
        (Deadline::after(&CLOCK, secs(4)), Rejection::DeadlinePassed, 1),
    ] {
        let start = CLOCK.now();
        assert_eq!(bulkhead.enter(&CLOCK, deadline).await.unwrap_err(), rejection);
        assert_eq!(CLOCK.now() - start, secs(waited));
    }
    assert_eq!(bulkhead.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_leaves_the_queue_and_takes_no_place() {
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1).waiting(1, secs(60))).unwrap();
    let place = bulkhead.enter_now().unwrap();
    assert!(tokio::time::timeout(secs(1), bulkhead.enter(&CLOCK, Deadline::NONE)).await.is_err());
    assert_eq!(bulkhead.waiting(), 0);
    drop(place);
    assert_eq!(bulkhead.under_way(), 0);
}

#[test]
fn bulkheads_by_key_are_apart_and_bounded() {
    let bulkheads = Bulkheads::new(BulkheadConfig::at_once(1), 2).unwrap();
    let payments = bulkheads.get("payments").unwrap().enter_now().unwrap();
    assert!(bulkheads.get("payments").unwrap().enter_now().is_err());
    let search = bulkheads.get("search").unwrap().enter_now().unwrap();
    assert_eq!(bulkheads.get("third").unwrap_err(), Rejection::BulkheadFull);
    drop(search);
    assert!(bulkheads.get("third").is_ok(), "nobody is in search");
    drop(payments);
}

#[test]
fn a_bulkhead_that_makes_no_sense_names_its_key() {
    for (config, key) in [
        (BulkheadConfig::at_once(0), "max_concurrent"),
        (BulkheadConfig::at_once(1).waiting(1_000_001, secs(1)), "max_waiting"),
        (BulkheadConfig::at_once(1).waiting(1, Duration::ZERO), "max_wait"),
    ] {
        assert_eq!(Bulkhead::new(config).unwrap_err().key, key);
    }
}
