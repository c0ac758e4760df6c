//! What the two databases do differently beneath the same pool, connection and transaction.

use std::fmt::Debug;
use std::time::Duration;

use sqlx::SqlStr;
use sqlx::pool::PoolConnection;

use crate::watch::Watch;

/// A database this crate drives: `sqlx::Sqlite` or `sqlx::Postgres`. Sealed.
pub trait Backend: private::Driver {}

impl<DB: private::Driver> Backend for DB {}

pub(crate) mod private {
    use super::{Debug, Duration, PoolConnection, SqlStr, Watch};

    /// The differences, out of users' sight.
    pub trait Driver: sqlx::Database {
        /// What stops a running statement from outside; shared with the database's side.
        type Guard: Clone + Debug + Send + Sync + 'static;

        /// A guard that stops nothing yet.
        #[doc(hidden)]
        fn guard(watch: &Hidden<'_>) -> Self::Guard;

        /// Puts the guard on a connection, once whatever still runs there has ended.
        #[doc(hidden)]
        fn install(
            connection: &mut Self::Connection,
            guard: &Self::Guard,
        ) -> impl Future<Output = sqlx::Result<()>> + Send;

        /// Gives the next statement a limit; `None` lifts it.
        #[doc(hidden)]
        fn arm(guard: &Self::Guard, limit: Option<Duration>);

        /// Whether the guard has stopped a statement since it was installed.
        #[doc(hidden)]
        fn fired(guard: &Self::Guard) -> bool;

        /// Whether an error leaves the transaction unable to commit.
        #[doc(hidden)]
        fn dooms(error: &sqlx::Error) -> bool;

        /// Asks the database whether the transaction is still sound, when a failure may have gone unseen.
        #[doc(hidden)]
        fn can_commit(connection: &mut Self::Connection) -> impl Future<Output = bool> + Send;

        /// Whether rolling back to a savepoint heals a doomed transaction.
        #[doc(hidden)]
        const SAVEPOINT_HEALS: bool;

        /// The statement that opens a transaction whose statements have this limit.
        #[doc(hidden)]
        fn begin_sql(limit: Option<Duration>, usual: Option<Duration>) -> Option<SqlStr>;

        /// Stops what runs on an abandoned connection, undoes its transaction and gives it back, or closes it.
        #[doc(hidden)]
        fn recover(
            connection: PoolConnection<Self>,
            guard: Self::Guard,
        ) -> impl Future<Output = ()> + Send + 'static;
    }

    /// Keeps the crate's own types out of the sealed trait's signature.
    #[derive(Debug)]
    pub struct Hidden<'a>(
        #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "only SQLite's guard reads a clock"))]
        pub(crate) &'a Watch,
    );
}
