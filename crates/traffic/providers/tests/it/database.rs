//! Database calls that are tried again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime_db::DbError;
use runtime_kernel::{Context, Source, SystemClock};
use runtime_providers::with_database_retry;
use runtime_resilience::RetryPolicy;

#[tokio::test(start_paused = true)]
async fn what_may_help_is_tried_again_and_what_will_not_is_not() {
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
    let context = Context::new(Source::Internal, &SystemClock);
    for (error, attempts) in [
        ((|| DbError::from(runtime_db::sqlx::Error::PoolTimedOut)) as fn() -> DbError, 3),
        (|| DbError::from(runtime_db::sqlx::Error::RowNotFound), 1),
        (|| DbError::Unsupported("never"), 1),
    ] {
        let made = AtomicU32::new(0);
        let operation = || {
            made.fetch_add(1, Ordering::SeqCst);
            async { Err::<(), _>(error()) }
        };
        let failed =
            with_database_retry(&policy, &SystemClock::shared(), &context, operation).await.unwrap_err();
        assert_eq!((made.load(Ordering::SeqCst), failed.attempts()), (attempts, attempts), "{failed}");
    }
}
