//! Retry budgets.

use std::cell::Cell;
use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use runtime_kernel::{Clock, Context, Error, ErrorKind, ManualClock, Retry, Source, SystemClock};
use runtime_resilience::{BudgetConfig, Jitter, RetryBudget, RetryConfig, RetryPolicy, Stop, retry};

fn share(ratio: f64, min_per_second: u32) -> BudgetConfig {
    BudgetConfig::Share { ratio, min_per_second, window: Duration::from_secs(10) }
}

#[test]
fn a_share_of_the_calls_and_a_few_in_any_case() {
    let clock = ManualClock::new();
    for (ratio, min, calls, allowed) in
        [(0.2, 0, 100, 20), (0.2, 1, 100, 30), (0.0, 1, 100, 10), (0.1, 0, 5, 0), (0.0, 0, 9, 0)]
    {
        let budget = RetryBudget::new(share(ratio, min)).unwrap();
        (0..calls).for_each(|_| budget.called(clock.now()));
        let spent = (0..1_000).filter(|_| budget.spend(clock.now(), Retry::Backoff)).count();
        assert_eq!(spent, allowed, "{ratio} {min} {calls}");
    }
}

#[test]
fn calls_and_retries_of_long_ago_no_longer_count() {
    let clock = ManualClock::new();
    let budget = RetryBudget::new(share(0.5, 0)).unwrap();
    (0..10).for_each(|_| budget.called(clock.now()));
    assert!((0..5).all(|_| budget.spend(clock.now(), Retry::Backoff)));
    assert!(!budget.spend(clock.now(), Retry::Backoff));
    clock.advance(Duration::from_secs(11));
    assert!(!budget.spend(clock.now(), Retry::Backoff), "no calls, no retries");
    (0..2).for_each(|_| budget.called(clock.now()));
    assert!(budget.spend(clock.now(), Retry::Backoff) && !budget.spend(clock.now(), Retry::Backoff));
}

#[test]
fn a_purse_pays_by_what_went_wrong() {
    let clock = ManualClock::new();
    let config = BudgetConfig::Tokens { capacity: 30, cost: 14, throttled_cost: 5 };
    let throttled = Retry::After(Duration::ZERO);
    let budget = RetryBudget::new(config).unwrap();
    assert_eq!((0..9).filter(|_| budget.spend(clock.now(), Retry::Backoff)).count(), 2);
    assert!(!budget.spend(clock.now(), throttled), "2 left");
    let budget = RetryBudget::new(config).unwrap();
    assert_eq!((0..9).filter(|_| budget.spend(clock.now(), throttled)).count(), 6);
}

#[tokio::test(start_paused = true)]
async fn successes_fill_the_purse_again() {
    let clock = SystemClock;
    let policy = RetryPolicy::constant(Duration::from_secs(1)).unwrap();
    let config = BudgetConfig::Tokens { capacity: 10, cost: 10, throttled_cost: 10 };
    let policy = policy.with_budget(Some(config)).unwrap();
    let context = Context::new(Source::Internal, &clock);
    let failing = Cell::new(true);
    let call = async |fails: u32| {
        retry(&policy, &clock, &context, &mut StdRng::seed_from_u64(1), |attempt| {
            std::future::ready(if failing.get() && attempt <= fails {
                Err(Error::new(ErrorKind::Unavailable, "down", "down"))
            } else {
                Ok(attempt)
            })
        })
        .await
    };
    assert_eq!(call(1).await.unwrap(), 2, "paid, and returned by its success");
    assert_eq!(call(1).await.unwrap(), 2);
    assert_eq!(call(9).await.unwrap_err().stop(), Stop::Budget, "one retry, and no second");
    assert_eq!(call(9).await.unwrap_err().attempts(), 1);
    for _ in 0..10 {
        assert_eq!(call(0).await.unwrap(), 1);
    }
    assert_eq!(call(1).await.unwrap(), 2, "ten successes, ten tokens");
}

#[tokio::test(start_paused = true)]
async fn retries_are_charged_before_they_wait() {
    let clock = SystemClock;
    let policy = RetryPolicy::constant(Duration::from_mins(1)).unwrap().with_jitter(Jitter::None).unwrap();
    let policy = policy.with_budget(Some(share(0.0, 1))).unwrap();
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let policy = policy.clone();
        tasks.push(tokio::spawn(async move {
            let context = Context::new(Source::Internal, &clock);
            let mut rng = StdRng::seed_from_u64(1);
            let down =
                |_| std::future::ready(Err::<(), _>(Error::new(ErrorKind::Unavailable, "down", "down")));
            retry(&policy, &clock, &context, &mut rng, down).await.unwrap_err().attempts()
        }));
    }
    let mut retried = 0;
    for task in tasks {
        retried += u32::from(task.await.unwrap() > 1);
    }
    assert_eq!(retried, 10, "one per second of the window, although none of them had begun");
}

#[test]
fn clones_of_a_policy_share_its_budget_and_the_well_known_ones_have_one() {
    let clock = ManualClock::new();
    let policy = RetryPolicy::default().with_budget(Some(share(0.0, 1))).unwrap();
    let (one, other) = (policy.budget().unwrap(), policy.clone());
    assert!((0..10).all(|_| one.spend(clock.now(), Retry::Backoff)));
    assert!(!other.budget().unwrap().spend(clock.now(), Retry::Backoff));
    assert_eq!(RetryConfig::default().budget, Some(BudgetConfig::DEFAULT));
    assert!(RetryPolicy::none().budget().is_none());
}

#[test]
fn a_budget_that_makes_no_sense_names_its_key() {
    let window = Duration::from_secs(10);
    for (config, key) in [
        (BudgetConfig::Share { ratio: -0.1, min_per_second: 0, window }, "budget.share.ratio"),
        (BudgetConfig::Share { ratio: f64::NAN, min_per_second: 0, window }, "budget.share.ratio"),
        (
            BudgetConfig::Share { ratio: 0.1, min_per_second: 0, window: Duration::ZERO },
            "budget.share.window",
        ),
        (BudgetConfig::Tokens { capacity: 0, cost: 0, throttled_cost: 0 }, "budget.tokens.capacity"),
        (BudgetConfig::Tokens { capacity: 5, cost: 6, throttled_cost: 0 }, "budget.tokens.cost"),
    ] {
        assert_eq!(RetryBudget::new(config).unwrap_err().key, key);
        assert_eq!(RetryPolicy::default().with_budget(Some(config)).unwrap_err().key, key);
    }
}
