//! Database calls that are tried again when they lost a race or the connection.

use runtime_kernel::{Classify, Context, SharedClock};
use runtime_resilience::{RetryError, RetryPolicy, SharedRng, retry};

/// Runs a database operation under a policy: again when the error says that it may help. `runtime_db::DbError` knows by the
/// database's own codes (deadlocks, serialization failures, a busy database, a lost connection), not by words.
///
/// The operation is run as a whole, its transaction included. One whose `COMMIT` may have succeeded must say that it is not
/// to be repeated, as `DbError` does.
///
/// # Errors
/// [`RetryError`], which turns into the last error by `?`.
pub async fn with_database_retry<T, E, Fut>(
    policy: &RetryPolicy,
    clock: &SharedClock,
    context: &Context,
    mut operation: impl FnMut() -> Fut,
) -> Result<T, RetryError<E>>
where
    E: Classify,
    Fut: Future<Output = Result<T, E>>,
{
    retry(policy, &**clock, context, &mut SharedRng::from_os(), |_| operation()).await
}
