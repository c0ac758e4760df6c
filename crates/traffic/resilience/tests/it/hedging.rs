//! Hedging.

use std::cell::RefCell;
use std::time::Duration;

use runtime_kernel::{Clock, Deadline, SystemClock};
use runtime_resilience::{BudgetConfig, HedgeConfig, Pipeline, RetryBudget, hedge};

const CLOCK: SystemClock = SystemClock;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Each attempt's time and answer.
async fn run(
    plan: &[(u64, Result<u32, u32>)],
    attempts: u32,
    deadline: Deadline,
    budget: Option<&RetryBudget>,
) -> (Result<u32, u32>, u64, u32) {
    let (start, made) = (CLOCK.now(), RefCell::new(0));
    let mut config = HedgeConfig::after(millis(100));
    config.max_attempts = attempts;
    let result = hedge(config, &CLOCK, deadline, budget, |n| {
        *made.borrow_mut() += 1;
        let (time, answer) = plan[n as usize - 1];
        async move {
            CLOCK.sleep(millis(time)).await;
            answer
        }
    })
    .await;
    let took = u64::try_from((CLOCK.now() - start).as_millis()).unwrap();
    (result, took, made.into_inner())
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_counts_and_an_early_one_needs_no_other() {
    for (plan, attempts, expected) in [
        (&[(50, Ok(1)), (0, Ok(2))][..], 2, (Ok(1), 50, 1)),
        (&[(500, Ok(1)), (50, Ok(2))], 2, (Ok(2), 150, 2)),
        (&[(130, Ok(1)), (50, Ok(2))], 2, (Ok(1), 130, 2)),
        (&[(500, Ok(1)), (500, Ok(2)), (10, Ok(3))], 3, (Ok(3), 210, 3)),
        // A failure waits for those that are under way, and for the next at once when none is.
        (&[(150, Err(1)), (100, Ok(2))], 2, (Ok(2), 200, 2)),
        (&[(10, Err(1)), (20, Ok(2))], 2, (Ok(2), 30, 2)),
        (&[(10, Err(1)), (20, Err(2))], 2, (Err(2), 30, 2)),
    ] {
        assert_eq!(run(plan, attempts, Deadline::NONE, None).await, expected, "{plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_that_could_not_be_waited_for() {
    let deadline = Deadline::after(&CLOCK, millis(90));
    assert_eq!(run(&[(500, Ok(1)), (0, Ok(2))], 2, deadline, None).await, (Ok(1), 500, 1));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_asks_no_more() {
    let config = BudgetConfig::Tokens { capacity: 1, cost: 1, throttled_cost: 1 };
    let budget = RetryBudget::new(config).unwrap();
    assert_eq!(run(&[(500, Ok(1)), (50, Ok(2))], 2, Deadline::NONE, Some(&budget)).await, (Ok(2), 150, 2));
    assert_eq!(run(&[(500, Ok(1)), (50, Ok(2))], 2, Deadline::NONE, Some(&budget)).await, (Ok(1), 500, 1));
    assert_eq!(run(&[(10, Err(1)), (50, Ok(2))], 2, Deadline::NONE, Some(&budget)).await, (Err(1), 10, 1));
}

#[test]
fn a_hedge_that_makes_no_sense_names_its_key() {
    let mut config = HedgeConfig::default();
    config.max_attempts = 1;
    assert_eq!(Pipeline::new().hedge(config).unwrap_err().key, "max_attempts");
}
