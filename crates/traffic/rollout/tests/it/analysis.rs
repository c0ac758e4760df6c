//! Whether the canary is worse: how often the test is wrong, and how soon it is right.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "counts of requests"
)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime_rollout::{Analysis, AnalysisConfig, Counts, Verdict};

/// So many requests, each failing and slow with these probabilities.
fn requests(rng: &mut StdRng, requests: u64, fails: f64, slow: f64) -> Counts {
    let mut count = |chance: f64| {
        if chance == 0.0 {
            return 0;
        }
        u64::try_from((0..requests).filter(|_| rng.random_range(0.0..1.0) < chance).count()).unwrap()
    };
    Counts { requests, failed: count(fails), slow: count(slow) }
}

/// Looks after each second, with this share of 200 requests a second on the canary: the verdict, after how many seconds, and
/// how many of the canary's requests had failed.
fn run(
    seed: u64,
    share: f64,
    seconds: u64,
    primary: f64,
    canary: f64,
    config: &AnalysisConfig,
) -> (Verdict, u64, u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut a, mut b, mut analysis) = (Counts::default(), Counts::default(), Analysis::default());
    for second in 1..=seconds {
        // Shares of a whole request come as one now and then.
        let mine = (share * (second * 200) as f64) as u64 - (share * ((second - 1) * 200) as f64) as u64;
        a = a.plus(requests(&mut rng, 200 - mine, primary, 0.0));
        b = b.plus(requests(&mut rng, mine, canary, 0.0));
        let verdict = analysis.look(config, a, b);
        if verdict != Verdict::NoWorse {
            return (verdict, second, b.failed);
        }
    }
    (Verdict::NoWorse, seconds, b.failed)
}

#[test]
fn a_canary_that_is_no_worse_is_rolled_back_less_often_than_declared_however_often_it_is_looked_at() {
    let mut config = AnalysisConfig::default();
    config.alpha = 0.05;
    for (share, fails) in [(0.01, 0.01), (0.05, 0.2), (0.5, 0.01)] {
        let wrong = |seed: &u64| run(*seed, share, 100, fails, fails, &config).0 != Verdict::NoWorse;
        let wrong = (0..200).filter(wrong).count();
        // 200 runs of 100 looks; 5 % of them would be 10.
        assert!(wrong <= 10, "{wrong} of 200 at a share of {share} failing {fails}");
    }
    let better =
        (0..50).filter(|seed| run(*seed, 0.5, 100, 0.05, 0.01, &config).0 != Verdict::NoWorse).count();
    assert_eq!(better, 0, "a canary that fails less is left alone");
}

#[test]
fn a_bad_canary_is_found_within_the_declared_error_budget() {
    let mut config = AnalysisConfig::default();
    config.error_budget = Some(100);
    for (share, primary, canary) in
        [(0.01, 0.01, 0.5), (0.05, 0.01, 0.1), (0.05, 0.001, 0.03), (0.5, 0.01, 0.03), (0.25, 0.1, 0.2)]
    {
        let (mut found, mut most, mut times) = (0, 0, Vec::new());
        for seed in 0..30 {
            let (verdict, seconds, failed) = run(seed, share, 3_600, primary, canary, &config);
            found += u32::from(verdict != Verdict::NoWorse);
            let extra = failed as f64 * (1.0 - primary / canary);
            most = most.max(failed);
            times.push(seconds);
            // One look later than the budget ran out, at most.
            assert!(
                extra <= 100.0 + 200.0 * share * canary * 3.0 + 3.0 * (failed as f64).sqrt(),
                "{extra} more than there should be"
            );
        }
        times.sort_unstable();
        assert_eq!(
            found, 30,
            "{share} {primary} {canary}: after {} s in the middle, {most} failed at most",
            times[15]
        );
    }
}

#[test]
fn slowness_is_found_as_well_and_told_apart() {
    let config = AnalysisConfig::default();
    let (mut analysis, mut rng) = (Analysis::default(), StdRng::seed_from_u64(3));
    let (mut a, mut b) = (Counts::default(), Counts::default());
    let verdict = (0..600).find_map(|_| {
        a = a.plus(requests(&mut rng, 190, 0.01, 0.02));
        b = b.plus(requests(&mut rng, 10, 0.01, 0.2));
        Some(analysis.look(&config, a, b)).filter(|verdict| *verdict != Verdict::NoWorse)
    });
    assert_eq!(verdict, Some(Verdict::SlowerMore));
}

#[test]
fn nothing_is_said_of_nothing() {
    let (mut analysis, config) = (Analysis::default(), AnalysisConfig::default());
    for _ in 0..1_000 {
        assert_eq!(analysis.look(&config, Counts::default(), Counts::default()), Verdict::NoWorse);
    }
    let few = Counts { requests: 3, failed: 3, slow: 0 };
    assert_eq!(analysis.look(&config, Counts::default(), few), Verdict::NoWorse, "nothing to compare with");
}
