//! A connection whose statements are timed, limited and remembered when they fail.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use either::Either;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use runtime_kernel::Deadline;
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Describe, Execute, Executor, SqlStr};

use crate::backend::Backend;
use crate::backend::private::Hidden;
use crate::watch::{Timing, Watch};

/// Said by statements of a transaction that a failure has ended already.
pub(crate) const UNDONE: &str = "the transaction was undone by an earlier failure";

/// One pooled connection, used as `&mut *conn` wherever sqlx takes an executor.
///
/// Statements given to it are timed, stopped at the statement limit, and remembered when they fail inside a
/// transaction. It dereferences to sqlx's own connection, whose methods are neither timed nor remembered; the
/// limit holds there too.
///
/// Dropped in the middle of a statement or a transaction, it stops the statement and undoes the transaction
/// before the pool gets it back.
pub struct Conn<DB: Backend> {
    /// `None` only while being dropped.
    inner: Option<PoolConnection<DB>>,
    pub(crate) state: State<DB>,
}

/// What is known of a connection beside the connection.
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, every combination possible")]
pub(crate) struct State<DB: Backend> {
    pub(crate) guard: DB::Guard,
    pub(crate) watch: Arc<Watch>,
    pub(crate) deadline: Deadline,
    /// The limit of each statement, before the deadline narrows it.
    pub(crate) statement_timeout: Option<Duration>,
    /// A statement was started and not seen to its end.
    busy: bool,
    pub(crate) in_transaction: bool,
    /// The transaction can no longer commit.
    pub(crate) doomed: bool,
    /// sqlx's connection was handed out, so a failure may have gone unseen.
    pub(crate) unseen: bool,
}

impl<DB: Backend> Conn<DB> {
    /// Takes a connection over and puts a guard on it.
    pub(crate) async fn new(
        inner: PoolConnection<DB>,
        watch: &Arc<Watch>,
        deadline: Deadline,
    ) -> sqlx::Result<Self> {
        let state = State {
            guard: DB::guard(&Hidden(watch)),
            watch: Arc::clone(watch),
            deadline,
            statement_timeout: watch.statement_timeout,
            busy: true,
            in_transaction: false,
            doomed: false,
            unseen: false,
        };
        let mut conn = Self { inner: Some(inner), state };
        let (inner, state) = conn.parts()?;
        DB::install(inner, &state.guard).await?;
        state.busy = false;
        Ok(conn)
    }

    pub(crate) fn parts(&mut self) -> sqlx::Result<(&mut DB::Connection, &mut State<DB>)> {
        let inner = self.inner.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        Ok((&mut **inner, &mut self.state))
    }
}

impl<DB: Backend> State<DB> {
    /// The limit of a statement that starts now.
    pub(crate) fn limit(&self) -> Option<Duration> {
        let left = self.deadline.remaining(&*self.watch.clock);
        [self.statement_timeout, left].into_iter().flatten().min()
    }

    async fn ready(&mut self, inner: &mut DB::Connection) -> sqlx::Result<()> {
        if self.busy {
            DB::install(inner, &self.guard).await?;
            self.busy = false;
        }
        self.doomed |= self.in_transaction && DB::fired(&self.guard);
        if self.doomed {
            return Err(sqlx::Error::Protocol(UNDONE.to_owned()));
        }
        Ok(())
    }

    fn begin(&mut self) {
        DB::arm(&self.guard, self.limit());
        self.busy = true;
    }

    fn end(&mut self, error: Option<&sqlx::Error>) {
        DB::arm(&self.guard, None);
        self.busy = false;
        self.doomed |= self.in_transaction && error.is_some_and(DB::dooms);
    }
}

impl<DB: Backend> Deref for Conn<DB> {
    type Target = DB::Connection;

    #[expect(clippy::expect_used, reason = "the connection is there until drop")]
    fn deref(&self) -> &DB::Connection {
        self.inner.as_deref().expect("present until drop")
    }
}

impl<DB: Backend> DerefMut for Conn<DB> {
    #[expect(clippy::expect_used, reason = "the connection is there until drop")]
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.state.unseen = true;
        DB::arm(&self.state.guard, self.state.limit());
        self.inner.as_deref_mut().expect("present until drop")
    }
}

impl<DB: Backend> fmt::Debug for Conn<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("database", &DB::NAME)
            .field("in_transaction", &self.state.in_transaction)
            .finish_non_exhaustive()
    }
}

impl<DB: Backend> Drop for Conn<DB> {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let abandoned = self.state.busy || self.state.in_transaction;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if abandoned => {
                runtime.spawn(DB::recover(inner, self.state.guard.clone()));
            }
            Ok(_) => {
                DB::arm(&self.state.guard, None);
                drop(inner);
            }
            // Nobody is left to clean it up; closing it makes the database do so.
            Err(_) => drop(inner.detach()),
        }
    }
}

/// A query taken apart, so that its text can be read before it runs.
pub(crate) struct Taken<DB: Database> {
    sql: SqlStr,
    arguments: Option<DB::Arguments>,
    persistent: bool,
}

impl<DB: Database> Taken<DB> {
    pub(crate) fn of<'q>(mut query: impl Execute<'q, DB>) -> sqlx::Result<Self> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let persistent = query.persistent();
        Ok(Self { arguments, persistent, sql: query.sql() })
    }
}

impl<DB: Database> Execute<'_, DB> for Taken<DB> {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&DB::Statement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

pub(crate) type Step<DB> = Either<<DB as Database>::QueryResult, <DB as Database>::Row>;

/// Written out for each database: a generic implementation sends the compiler round in circles when it infers `DB`.
macro_rules! executor {
    ($database:ty) => {
        impl<'c> Executor<'c> for &'c mut Conn<$database> {
            type Database = $database;

            fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step<$database>>>
            where
                'c: 'e,
                E: 'q + Execute<'q, $database>,
            {
                let query = Taken::of(query);
                Box::pin(try_stream! {
                    let (inner, state) = self.parts()?;
                    state.ready(inner).await?;
                    let query = query?;
                    let mut timing = state.watch.start(query.sql.clone());
                    state.begin();
                    let mut steps = inner.fetch_many(query);
                    while let Some(step) = steps.next().await {
                        match step {
                            Ok(step) => {
                                timing.rows += u64::from(step.is_right());
                                yield step;
                            }
                            Err(error) => {
                                finish(state, &mut timing, Some(&error));
                                Err(error)?;
                            }
                        }
                    }
                    finish(state, &mut timing, None);
                })
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, sqlx::Result<Option<<$database as Database>::Row>>>
            where
                'c: 'e,
                E: 'q + Execute<'q, $database>,
            {
                let query = Taken::of(query);
                Box::pin(async move {
                    let (inner, state) = self.parts()?;
                    state.ready(inner).await?;
                    let query = query?;
                    let mut timing = state.watch.start(query.sql.clone());
                    state.begin();
                    let row = inner.fetch_optional(query).await;
                    timing.rows = u64::from(matches!(row, Ok(Some(_))));
                    finish(state, &mut timing, row.as_ref().err());
                    row
                })
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [<$database as Database>::TypeInfo],
            ) -> BoxFuture<'e, sqlx::Result<<$database as Database>::Statement>>
            where
                'c: 'e,
            {
                Box::pin(async move {
                    let (inner, state) = self.parts()?;
                    state.ready(inner).await?;
                    state.begin();
                    let statement = inner.prepare_with(sql, parameters).await;
                    state.end(statement.as_ref().err());
                    statement
                })
            }

            fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<$database>>>
            where
                'c: 'e,
            {
                Box::pin(async move {
                    let (inner, state) = self.parts()?;
                    state.ready(inner).await?;
                    state.begin();
                    let described = inner.describe(sql).await;
                    state.end(described.as_ref().err());
                    described
                })
            }
        }
    };
}

#[cfg(feature = "postgres")]
executor!(sqlx::Postgres);
#[cfg(feature = "sqlite")]
executor!(sqlx::Sqlite);

fn finish<DB: Backend>(state: &mut State<DB>, timing: &mut Timing, error: Option<&sqlx::Error>) {
    timing.failed = error.is_some();
    state.end(error);
}
