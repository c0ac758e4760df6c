//! Who goes where.
#![allow(clippy::cast_precision_loss, reason = "a million users")]

use proptest::prelude::*;
use runtime_kernel::Timestamp;
use runtime_rollout::{Kind, Plan, Rollout, Side, bucket};

fn at(weight: u32) -> Rollout {
    let mut rollout = Rollout::new("checkout", Kind::Canary, Plan::default(), Timestamp::UNIX_EPOCH);
    rollout.weight = weight;
    rollout
}

#[test]
fn of_a_million_users_each_weight_gets_its_share_within_a_tenth_of_a_per_cent() {
    let buckets: Vec<_> = (0..1_000_000).map(|user| bucket("checkout", &format!("user-{user}"))).collect();
    for weight in [0, 1, 50, 100, 500, 1_000, 2_500, 5_000, 9_000, 9_999, 10_000] {
        let share = buckets.iter().filter(|bucket| **bucket < weight).count() as f64 / 1e6;
        assert!((share - f64::from(weight) / 1e4).abs() < 0.001, "{weight}: {share}");
    }
    // Another rollout draws anew: who is early in one is not early in all.
    let both = (0..100_000)
        .zip(&buckets)
        .filter(|(user, own)| bucket("search", &format!("user-{user}")) < 1_000 && **own < 1_000)
        .count();
    assert!((900..1_100).contains(&both), "{both}");
}

#[test]
fn places_are_the_same_in_every_version_and_process() {
    // The first eight bytes of SHA-256, scaled to ten thousand: worked out by another implementation.
    for (subject, place) in [("user-1", 1_657), ("user-2", 722), ("", 9_280), ("ünïcode", 2_955)] {
        assert_eq!(bucket("checkout", subject), place, "{subject}");
    }
}

proptest! {
    #[test]
    fn who_is_in_stays_in_while_the_weight_grows(subject in ".{0,40}", weights in prop::collection::vec(0u32..=10_000, 2..10)) {
        let mut weights = weights;
        weights.sort_unstable();
        let sides: Vec<_> = weights.iter().map(|weight| at(*weight).side(&subject)).collect();
        prop_assert!(sides.is_sorted());
        prop_assert_eq!(at(0).side(&subject), Side::Primary);
        prop_assert_eq!(at(10_000).side(&subject), Side::Canary);
    }

    #[test]
    fn who_is_pinned_goes_there_at_any_weight(subject in "[a-z]{1,8}", weight in 0u32..=10_000, canary: bool) {
        let side = if canary { Side::Canary } else { Side::Primary };
        let mut rollout = at(weight);
        rollout.pins.insert(subject.clone(), side);
        prop_assert_eq!(rollout.side(&subject), side);
    }
}
