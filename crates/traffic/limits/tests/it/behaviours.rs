//! The behaviours of vyro's backpressure controller and route limiter, each kept or deliberately different.
//!
//! Different, and why:
//! - A place is given back by its permit, on a panic as well, and cannot be given back twice (there `release` is the
//!   caller's to remember, and stops at 0 in silence).
//! - A limit of 0 is an error with its name (there it is clamped to 1).
//! - Whether there is room is asked by taking it: `should_reject` there is a guess by the time it is acted upon.
//! - What matters least is turned away first, and callers may wait in a line; both are new.

use runtime_limits::{
    ConcurrencyConfig, ConcurrencyLimit, Criticality, LimitRule, LimitsConfig, SemaphoreLimit,
};

fn limit(places: u32) -> ConcurrencyLimit {
    ConcurrencyLimit::new(ConcurrencyConfig::fixed(places)).unwrap()
}

#[test]
fn vyro_1_and_2_so_many_get_in_the_next_does_not_and_a_place_comes_back() {
    for (places, asks, inside) in [(2, 3, 2), (1, 2, 1), (256, 300, 256)] {
        let limit = limit(places);
        let mut held: Vec<_> =
            (0..asks).map_while(|_| limit.acquire(Criticality::CriticalPlus).ok()).collect();
        assert_eq!((held.len(), limit.in_flight()), (inside, u32::try_from(inside).unwrap()));
        held.pop();
        assert_eq!(limit.in_flight() + 1, u32::try_from(inside).unwrap());
        assert!(limit.acquire(Criticality::CriticalPlus).is_ok());
    }
}

#[test]
fn vyro_1_a_panic_gives_its_place_back() {
    let limit = limit(1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permit = limit.acquire(Criticality::Critical).unwrap();
        panic!("on the way");
    }));
    assert!(panicked.is_err() && limit.in_flight() == 0);
}

#[test]
fn vyro_2_a_limit_of_nothing_is_refused_by_name_and_routes_have_their_own() {
    assert!(ConcurrencyLimit::new(ConcurrencyConfig::fixed(0)).is_err());
    let mut hot = LimitRule::default();
    (hot.name, hot.paths) = ("hot".to_owned(), vec!["/hot".to_owned()]);
    hot.limit = Some(ConcurrencyConfig::fixed(0));
    let mut config = LimitsConfig::default();
    config.rules = vec![hot];
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("rules.0.limit.min"), "{error}");
}

#[test]
fn vyro_3_a_plain_semaphore_counts_what_is_held() {
    let semaphore = SemaphoreLimit::new(2, 0).unwrap();
    let held = [semaphore.acquire_now(1).unwrap(), semaphore.acquire_now(1).unwrap()];
    assert!(semaphore.acquire_now(1).is_err());
    drop(held);
    assert!(semaphore.acquire_now(2).is_ok());
}
