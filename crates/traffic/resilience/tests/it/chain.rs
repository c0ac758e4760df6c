//! One retry loop per chain of calls.

use std::cell::Cell;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use runtime_kernel::{Context, Deadline, Error, ErrorKind, Source, SystemClock};
use runtime_resilience::{HedgeConfig, Jitter, Pipeline, Repeat, RetryPolicy, retry};

fn failing() -> Error {
    Error::new(ErrorKind::Unavailable, "test.down", "down")
}

fn policy() -> RetryPolicy {
    RetryPolicy::constant(Duration::from_millis(1)).unwrap().with_jitter(Jitter::None).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_is_called_by_one_that_asks_again_does_not() {
    for (caller_retries, expected) in [(false, 3), (true, 1)] {
        let context = Context::new(Source::Http, &SystemClock).with_caller_retries(caller_retries);
        let made = Cell::new(0);
        let operation = |_| {
            made.set(made.get() + 1);
            async { Err::<(), _>(failing()) }
        };
        retry(&policy(), &SystemClock, &context, &mut StdRng::seed_from_u64(1), operation).await.unwrap_err();
        assert_eq!(made.take(), expected, "the function");
        Pipeline::new().retry(policy()).run_for(&context, operation).await.unwrap_err();
        assert_eq!(made.take(), expected, "the pipeline");
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_done_twice_is_neither_retried_nor_hedged() {
    let pipeline =
        Pipeline::new().retry(policy()).hedge(HedgeConfig::after(Duration::from_millis(1))).unwrap();
    let made = Cell::new(0);
    let slow = |_| {
        made.set(made.get() + 1);
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err::<(), _>(failing())
        }
    };
    pipeline.run_with(Repeat::Never, Deadline::NONE, slow).await.unwrap_err();
    assert_eq!(made.take(), 1);
    pipeline.run_with(Repeat::Unsent, Deadline::NONE, slow).await.unwrap_err();
    assert_eq!(made.take(), 3, "the error says it may be repeated");
    let timed = Pipeline::new().retry(policy().with_attempt_timeout(Duration::from_millis(5)).unwrap());
    for (repeat, expected) in [(Repeat::Unsent, 1), (Repeat::Always, 3)] {
        timed.run_with(repeat, Deadline::NONE, slow).await.unwrap_err();
        assert_eq!(made.take(), expected, "after a time-out nobody knows");
    }
}
