//! Which endpoint a call goes to.
#![allow(clippy::cast_precision_loss, reason = "counts of calls")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use runtime_discovery::{Balancer, Endpoint, NoEndpoint, Outcome, OutlierConfig, Strategy};
use runtime_kernel::{Clock, ManualClock};

use super::sources::endpoints;

fn balancer(strategy: Strategy, clock: &ManualClock, texts: &[&str]) -> Balancer {
    let balancer = Balancer::with_clock(strategy, OutlierConfig::default(), Arc::new(clock.clone())).unwrap();
    balancer.update(&endpoints(texts));
    balancer
}

fn shares(balancer: &Balancer, calls: u32) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        let picked = balancer.pick().unwrap();
        *shares.entry(picked.endpoint().authority()).or_insert(0.0) += 1.0 / f64::from(calls);
        picked.done(Outcome::Success);
    }
    shares
}

#[test]
fn round_robin_goes_by_weight_and_spreads_each_ones_turns() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::RoundRobin, &clock, &["a:1;weight=5", "b:1", "c:1"]);
    let turns: String = (0..14)
        .map(|_| {
            let picked = balancer.pick().unwrap();
            let host = picked.endpoint().host.clone();
            picked.done(Outcome::Success);
            host
        })
        .collect();
    assert_eq!(turns, "aabacaaaabacaa");
}

#[test]
fn rendezvous_keeps_a_key_where_it_is_and_shares_by_weight() {
    let clock = ManualClock::new();
    let texts = ["a:1", "b:1", "c:1;weight=2", "d:1"];
    let balancer = balancer(Strategy::Rendezvous, &clock, &texts);
    let place = |key: u32| balancer.pick_for(Some(&key.to_le_bytes()), None).unwrap().endpoint().authority();
    let before: Vec<_> = (0..20_000).map(place).collect();
    assert_eq!(before, (0..20_000).map(place).collect::<Vec<_>>());
    let share = |name: &str| before.iter().filter(|place| *place == name).count() as f64 / 20_000.0;
    assert!((share("c:1") - 0.4).abs() < 0.02 && (share("a:1") - 0.2).abs() < 0.02, "{}", share("c:1"));
    balancer.update(&endpoints(&["a:1", "c:1;weight=2", "d:1"]));
    for (key, before) in (0..20_000).zip(&before) {
        assert!(before == "b:1" || place(key) == *before, "only what was on b moves");
    }
}

#[test]
fn the_faster_endpoint_gets_more_and_a_peak_counts_at_once() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::PeakEwma, &clock, &["fast:1", "slow:1", "middle:1"]);
    let mut calls = BTreeMap::new();
    for _ in 0..3_000 {
        // Always four under way.
        let picked: Vec<_> = (0..4).map(|_| balancer.pick().unwrap()).collect();
        for picked in picked {
            let host = picked.endpoint().host.clone();
            clock.advance(Duration::from_millis(match host.as_str() {
                "fast" => 1,
                "middle" => 4,
                _ => 40,
            }));
            *calls.entry(host).or_insert(0) += 1;
            picked.done(Outcome::Success);
        }
    }
    assert!(calls["fast"] > calls["middle"] && calls["middle"] > calls["slow"], "{calls:?}");
    // The fast one stalls once: from then on it is avoided, until the peak is forgotten.
    let stalled = loop {
        let picked = balancer.pick().unwrap();
        if picked.endpoint().host == "fast" {
            break picked;
        }
    };
    clock.advance(Duration::from_secs(5));
    drop(stalled);
    let fast = |calls: u32| {
        let mut fast = 0.0;
        for _ in 0..calls {
            let picked = balancer.pick().unwrap();
            fast += if picked.endpoint().host == "fast" { 1.0 / f64::from(calls) } else { 0.0 };
            clock.advance(Duration::from_millis(1));
            picked.done(Outcome::Success);
        }
        fast
    };
    assert!(fast(300) < 0.1, "a call that was given up after five seconds counts");
    clock.advance(Duration::from_mins(3));
    assert!(fast(300) > 0.2, "forgotten");
}

#[test]
fn an_endpoint_that_never_answers_is_tried_now_and_then_however_often_it_took_as_long() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::PeakEwma, &clock, &["stuck:1", "slow:1"]);
    let mut stuck = 0;
    for _ in 0..200 {
        let picked = balancer.pick().unwrap();
        if picked.endpoint().host == "stuck" {
            stuck += 1;
            clock.advance(Duration::from_secs(5));
            drop(picked);
        } else {
            clock.advance(Duration::from_secs(1));
            picked.done(Outcome::Success);
        }
    }
    assert!((2..40).contains(&stuck), "{stuck}");
}

#[test]
fn the_turns_of_one_that_is_left_alone_are_shared_by_the_others() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::RoundRobin, &clock, &["a:1;weight=3", "b:1", "c:1", "d:1;weight=2"]);
    balancer.pick().unwrap().done(Outcome::Throttled(Some(Duration::from_mins(1))));
    let shares = shares(&balancer, 400);
    let share = |host: &str| shares.get(host).copied().unwrap_or(0.0);
    for (host, expected) in [("a:1", 0.0), ("b:1", 0.25), ("c:1", 0.25), ("d:1", 0.5)] {
        assert!((share(host) - expected).abs() < 0.01, "{shares:?}");
    }
}

#[test]
fn those_that_fail_are_left_alone_for_longer_each_time_but_never_too_many() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::RoundRobin, &clock, &["a:1", "b:1", "c:1", "d:1"]);
    let fail = |host: &str, times: u32| {
        let mut failed = 0;
        for _ in 0..200 {
            let picked = balancer.pick().unwrap();
            if picked.endpoint().host == host && failed < times {
                failed += 1;
                picked.done(Outcome::Failure);
            } else {
                drop(picked);
            }
        }
        failed
    };
    let calls = |host: &str| shares(&balancer, 40).get(&format!("{host}:1")).copied().unwrap_or(0.0);
    fail("a", 4);
    assert!(calls("a") > 0.0, "four in a row are not five, and a success ends the row");
    fail("a", 5);
    assert!(calls("a") < 0.001 && balancer.counts() == (4, 1));
    fail("b", 5);
    fail("c", 5);
    assert!(calls("b") < 0.001 && balancer.counts() == (4, 2));
    assert!(calls("c") > 0.0, "half of them are out: no more may go");
    clock.advance(Duration::from_secs(30));
    assert!(calls("a") > 0.0, "back after 30 s");
    fail("a", 5);
    clock.advance(Duration::from_secs(59));
    assert!(calls("a") < 0.001);
    clock.advance(Duration::from_secs(1));
    assert!(calls("a") > 0.0, "the second time after twice as long");
}

#[test]
fn the_only_endpoint_is_called_however_often_it_fails() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::PeakEwma, &clock, &["a:1"]);
    for _ in 0..20 {
        balancer.pick().unwrap().done(Outcome::Failure);
    }
    assert_eq!(balancer.counts(), (1, 0));
}

#[test]
fn those_that_ask_to_be_left_alone_are() {
    let clock = ManualClock::new();
    for strategy in [Strategy::PeakEwma, Strategy::RoundRobin, Strategy::Rendezvous] {
        let balancer = balancer(strategy, &clock, &["a:1", "b:1"]);
        let throttle = |host: &str, wait: Option<u64>| loop {
            let picked = balancer.pick().unwrap();
            if picked.endpoint().host == host {
                break picked.done(Outcome::Throttled(wait.map(Duration::from_secs)));
            }
        };
        throttle("a", Some(10));
        assert_eq!(shares(&balancer, 50).keys().collect::<Vec<_>>(), ["b:1"]);
        throttle("b", None);
        let error = balancer.pick().unwrap_err();
        assert_eq!(error, NoEndpoint::Throttled { retry_after: Duration::from_secs(1) });
        clock.advance(Duration::from_secs(1));
        assert_eq!(shares(&balancer, 50).keys().collect::<Vec<_>>(), ["b:1"]);
        clock.advance(Duration::from_secs(9));
        assert_eq!(shares(&balancer, 200).len(), 2);
        throttle("a", Some(86_400));
        clock.advance(Duration::from_mins(1));
        assert_eq!(shares(&balancer, 200).len(), 2, "a minute at most");
    }
}

#[test]
fn a_retry_goes_elsewhere_if_there_is_an_elsewhere() {
    let clock = ManualClock::new();
    let failed = Endpoint::parse("a:1").unwrap();
    for strategy in [Strategy::PeakEwma, Strategy::RoundRobin, Strategy::Rendezvous] {
        let two = balancer(strategy, &clock, &["a:1", "b:1"]);
        for key in 0..50u8 {
            assert_eq!(two.pick_for(Some(&[key]), Some(&failed)).unwrap().endpoint().host, "b");
        }
        let one = balancer(strategy, &clock, &["a:1"]);
        assert_eq!(one.pick_for(None, Some(&failed)).unwrap().endpoint().host, "a");
    }
}

#[test]
fn a_retry_goes_elsewhere_among_those_that_failed_as_well() {
    let clock = ManualClock::new();
    for strategy in [Strategy::PeakEwma, Strategy::RoundRobin, Strategy::Rendezvous] {
        let balancer = balancer(strategy, &clock, &["a:1", "b:1", "c:1", "d:1"]);
        for host in ["a", "a", "a", "a", "a", "b", "b", "b", "b", "b", "c", "d"] {
            let picked = loop {
                let picked = balancer.pick().unwrap();
                if picked.endpoint().host == host {
                    break picked;
                }
            };
            let throttled = matches!(host, "c" | "d");
            picked.done(if throttled { Outcome::Throttled(None) } else { Outcome::Failure });
        }
        assert_eq!(balancer.counts(), (4, 4));
        let failed = Endpoint::parse("a:1").unwrap();
        for key in 0..50u8 {
            assert_eq!(balancer.pick_for(Some(&[key]), Some(&failed)).unwrap().endpoint().host, "b");
        }
    }
}

#[test]
fn nothing_known_and_nothing_there_are_told_apart_and_what_is_learnt_stays() {
    let clock = ManualClock::new();
    let balancer =
        Balancer::with_clock(Strategy::RoundRobin, OutlierConfig::default(), Arc::new(clock)).unwrap();
    assert_eq!(balancer.pick().unwrap_err(), NoEndpoint::Unknown);
    balancer.update(&endpoints(&["a:1", "b:1"]));
    for _ in 0..10 {
        let picked = balancer.pick().unwrap();
        let outcome = if picked.endpoint().host == "a" { Outcome::Failure } else { Outcome::Success };
        picked.done(outcome);
    }
    balancer.update(&endpoints(&["c:1", "b:1", "a:1"]));
    assert_eq!(balancer.counts(), (3, 1), "a is still left alone");
    balancer.update(&[]);
    assert_eq!(balancer.pick().unwrap_err(), NoEndpoint::Empty);
}

#[test]
fn what_is_learnt_stays_when_weight_and_attributes_change() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::RoundRobin, &clock, &["a:1", "b:1", "c:1"]);
    for outcome in [Outcome::Throttled(Some(Duration::from_mins(1))), Outcome::Failure] {
        let host = if outcome == Outcome::Failure { "b" } else { "a" };
        let mut times = if outcome == Outcome::Failure { 5 } else { 1 };
        while times > 0 {
            let picked = balancer.pick().unwrap();
            if picked.endpoint().host == host {
                times -= 1;
                picked.done(outcome);
            }
        }
    }
    assert_eq!(balancer.counts(), (3, 2));
    let changed = endpoints(&["a:1;weight=2", "b:1;version=2", "c:1"]);
    balancer.update(&changed);
    assert_eq!((balancer.endpoints(), balancer.counts()), (changed, (3, 2)));
}

#[test]
fn calls_under_way_count_when_a_weight_changes() {
    let clock = ManualClock::new();
    let balancer = balancer(Strategy::PeakEwma, &clock, &["a:1", "b:1"]);
    let avoid = Endpoint::parse("b:1").unwrap();
    let waiting: Vec<_> = (0..10).map(|_| balancer.pick_for(None, Some(&avoid)).unwrap()).collect();
    balancer.update(&endpoints(&["a:1;weight=2", "b:1"]));
    assert_eq!(balancer.pick().unwrap().endpoint().host, "b", "ten wait at a");
    drop(waiting);
    assert_eq!(balancer.pick().unwrap().endpoint().host, "a", "none waits there, and it weighs more");
}

#[test]
fn two_that_fail_at_once_do_not_both_take_the_last_place() {
    let clock = ManualClock::new();
    let mut config = OutlierConfig::default();
    (config.consecutive_failures, config.max_ejected_percent) = (1, 0);
    let balancer = Balancer::with_clock(Strategy::RoundRobin, config, Arc::new(clock.clone())).unwrap();
    // Many, so that counting them takes a while.
    balancer.update(&(0..500).map(|n| Endpoint::new(format!("e{n}"), 80)).collect::<Vec<_>>());
    for round in 0..1_000 {
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for picked in [balancer.pick().unwrap(), balancer.pick().unwrap()] {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    picked.done(Outcome::Failure);
                });
            }
        });
        assert_eq!(balancer.counts(), (500, 1), "round {round}");
        clock.advance(config.max_ejection);
    }
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_key() {
    for (change, key) in [
        ((|c| c.base_ejection = Duration::ZERO) as fn(&mut OutlierConfig), "outliers.base_ejection"),
        (|c| c.max_ejection = Duration::from_secs(1), "outliers.max_ejection"),
        (|c| c.max_ejected_percent = 101, "outliers.max_ejected_percent"),
    ] {
        let mut config = OutlierConfig::default();
        change(&mut config);
        assert!(Balancer::new(Strategy::PeakEwma, config).unwrap_err().to_string().contains(key));
    }
}

proptest! {
    /// However calls go and endpoints come and go: what is picked is there, is not left alone while another is not, and
    /// no more than half are ejected.
    #[test]
    fn what_is_picked_may_be_called(
        strategy in prop_oneof![Just(Strategy::PeakEwma), Just(Strategy::RoundRobin), Just(Strategy::Rendezvous)],
        steps in prop::collection::vec((0u8..6, 0u8..8, 0u64..20_000), 1..300),
    ) {
        let clock = ManualClock::new();
        let balancer = Balancer::with_clock(strategy, OutlierConfig::default(), Arc::new(clock.clone())).unwrap();
        let mut present = vec![Endpoint::new("e0", 80)];
        balancer.update(&present);
        let mut throttled: BTreeMap<String, std::time::Instant> = BTreeMap::new();
        for (step, which, millis) in steps {
            clock.advance(Duration::from_millis(millis));
            match step {
                0 => {
                    present = (0..=which).map(|n| Endpoint::new(format!("e{n}"), 80)).collect();
                    balancer.update(&present);
                    throttled.retain(|host, _| present.iter().any(|endpoint| endpoint.host == *host));
                }
                _ => match balancer.pick() {
                    Err(NoEndpoint::Throttled { .. }) => {
                        prop_assert!(present.iter().all(|own| throttled.get(&own.host).is_some_and(|until| *until > clock.now())));
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                    Ok(picked) => {
                        let host = picked.endpoint().host.clone();
                        prop_assert!(present.iter().any(|own| own.host == host));
                        prop_assert!(throttled.get(&host).is_none_or(|until| *until <= clock.now()));
                        match step {
                            1 => {
                                throttled.insert(host, clock.now() + Duration::from_secs(7));
                                picked.done(Outcome::Throttled(Some(Duration::from_secs(7))));
                            }
                            2 | 3 => picked.done(Outcome::Failure),
                            _ => picked.done(Outcome::Success),
                        }
                    }
                },
            }
        }
    }
}
