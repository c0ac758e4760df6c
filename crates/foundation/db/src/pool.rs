//! A pool that is used like sqlx's, and whose statements are timed and limited.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use async_stream::try_stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use runtime_kernel::Deadline;
use sqlx::{Database, Describe, Execute, Executor, SqlStr};

use crate::backend::Backend;
use crate::connection::{Conn, Step, Taken};
use crate::error::DbError;
use crate::watch::Watch;

/// A pool of connections, passed as `&pool` wherever sqlx takes an executor.
///
/// Dereferences to [`sqlx::Pool`]; what is acquired or begun through that is sqlx's own and neither timed nor
/// logged here.
pub struct Pool<DB: Backend> {
    inner: sqlx::Pool<DB>,
    watch: Arc<Watch>,
}

impl<DB: Backend> Pool<DB> {
    pub(crate) fn new(inner: sqlx::Pool<DB>, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }

    /// Waits for a connection, no longer than `acquire_timeout` and the deadline.
    ///
    /// Cancel-safe: nothing is taken when dropped while waiting.
    ///
    /// # Errors
    /// [`DbError::Exhausted`], [`DbError::Deadline`], [`DbError::Closed`], [`DbError::Unreachable`].
    pub async fn conn(&self, deadline: Deadline) -> Result<Conn<DB>, DbError> {
        let conn = deadline.run(&*self.watch.clock, self.open(deadline)).await;
        Ok(conn.map_err(DbError::of_deadline)??)
    }

    async fn open(&self, deadline: Deadline) -> sqlx::Result<Conn<DB>> {
        Conn::new(self.inner.acquire().await?, &self.watch, deadline).await
    }
}

impl<DB: Backend> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), watch: Arc::clone(&self.watch) }
    }
}

impl<DB: Backend> Deref for Pool<DB> {
    type Target = sqlx::Pool<DB>;

    fn deref(&self) -> &sqlx::Pool<DB> {
        &self.inner
    }
}

impl<DB: Backend> fmt::Debug for Pool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("database", &DB::NAME)
            .field("size", &self.inner.size())
            .field("idle", &self.inner.num_idle())
            .finish_non_exhaustive()
    }
}

macro_rules! executor {
    ($database:ty) => {
        impl<'p> Executor<'p> for &'p Pool<$database> {
            type Database = $database;

            fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step<$database>>>
            where
                'p: 'e,
                E: 'q + Execute<'q, $database>,
            {
                let query = Taken::of(query);
                Box::pin(try_stream! {
                    let mut conn = self.open(Deadline::NONE).await?;
                    let mut steps = (&mut conn).fetch_many(query?);
                    while let Some(step) = steps.next().await {
                        yield step?;
                    }
                })
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, sqlx::Result<Option<<$database as Database>::Row>>>
            where
                'p: 'e,
                E: 'q + Execute<'q, $database>,
            {
                let query = Taken::of(query);
                Box::pin(async move {
                    let mut conn = self.open(Deadline::NONE).await?;
                    (&mut conn).fetch_optional(query?).await
                })
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [<$database as Database>::TypeInfo],
            ) -> BoxFuture<'e, sqlx::Result<<$database as Database>::Statement>>
            where
                'p: 'e,
            {
                Box::pin(async move {
                    let mut conn = self.open(Deadline::NONE).await?;
                    (&mut conn).prepare_with(sql, parameters).await
                })
            }

            fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<$database>>>
            where
                'p: 'e,
            {
                Box::pin(async move {
                    let mut conn = self.open(Deadline::NONE).await?;
                    (&mut conn).describe(sql).await
                })
            }
        }
    };
}

#[cfg(feature = "postgres")]
executor!(sqlx::Postgres);
#[cfg(feature = "sqlite")]
executor!(sqlx::Sqlite);
