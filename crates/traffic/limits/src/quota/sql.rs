//! Quotas in SQLite or Postgres, by the same statements.

use async_trait::async_trait;
use runtime_db::{Database, DbError, Tx, on_connection, sqlx};
use runtime_kernel::{Context, Error, Source};

use super::store::{Account, QuotaStore};

// What is asked for is compared with the room that is left, so that no sum can overflow.
const TAKE: &str = "INSERT INTO runtime_quota (tenant, name, period, used) \
     SELECT $1, $2, $3, $4 WHERE CAST($4 AS BIGINT) <= CAST($5 AS BIGINT) \
     ON CONFLICT (tenant, name, period) DO UPDATE SET used = runtime_quota.used + excluded.used \
     WHERE runtime_quota.used <= CAST($5 AS BIGINT) - excluded.used RETURNING used";
// The period before stays: by another machine's clock, or one that is put back, it is not over.
const FORGET: &str = "DELETE FROM runtime_quota WHERE tenant = $1 AND name = $2 AND period < \
     (SELECT MAX(period) FROM runtime_quota WHERE tenant = $1 AND name = $2 AND period < $3)";
const RELEASE: &str = "UPDATE runtime_quota SET used = used - $4 \
     WHERE tenant = $1 AND name = $2 AND period = $3 AND used >= $4 RETURNING used";
const USED: &str = "SELECT used FROM runtime_quota WHERE tenant = $1 AND name = $2 AND period = $3";

/// Quotas in a database that [`quota_migrations`](crate::quota_migrations) have prepared.
#[derive(Clone, Debug)]
pub struct SqlQuotas {
    db: Database,
}

macro_rules! query {
    ($kind:ident, $sql:expr, $account:expr $(, $more:expr)*) => {
        sqlx::$kind($sql)
            .bind($account.tenant.clone())
            .bind($account.name.clone())
            .bind($account.period)
            $(.bind($more))*
    };
}

impl SqlQuotas {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// [`QuotaStore::take`] in the caller's transaction: it is taken if and only if that commits.
    ///
    /// # Errors
    /// The database failed.
    pub async fn take_in(
        tx: &mut Tx,
        account: &Account,
        amount: u64,
        limit: u64,
    ) -> Result<Result<u64, u64>, DbError> {
        let limit = signed(limit);
        let taken = match i64::try_from(amount) {
            Ok(0) | Err(_) => None,
            Ok(amount) => changed(tx, TAKE, account, amount, Some(limit)).await?,
        };
        let Some(used) = taken else {
            let used = used(tx, account).await?;
            let nothing = amount == 0 && signed(used) <= limit;
            return Ok(if nothing { Ok(used) } else { Err(used) });
        };
        if account.period > 0 && used == signed(amount) {
            forget(tx, account).await?;
        }
        Ok(Ok(unsigned(used)))
    }

    /// [`QuotaStore::release`] in the caller's transaction.
    ///
    /// # Errors
    /// The database failed.
    pub async fn release_in(
        tx: &mut Tx,
        account: &Account,
        amount: u64,
    ) -> Result<Result<u64, u64>, DbError> {
        let released = match i64::try_from(amount) {
            Ok(0) | Err(_) => None,
            Ok(amount) => changed(tx, RELEASE, account, amount, None).await?,
        };
        if let Some(left) = released {
            return Ok(Ok(unsigned(left)));
        }
        let used = used(tx, account).await?;
        Ok(if amount == 0 { Ok(used) } else { Err(used) })
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }
}

async fn changed(
    tx: &mut Tx,
    sql: &'static str,
    account: &Account,
    amount: i64,
    limit: Option<i64>,
) -> Result<Option<i64>, DbError> {
    macro_rules! run {
        ($conn:ident) => {
            match limit {
                Some(limit) => {
                    query!(query_scalar, sql, account, amount, limit).fetch_optional(&mut *$conn).await?
                }
                None => query!(query_scalar, sql, account, amount).fetch_optional(&mut *$conn).await?,
            }
        };
    }
    on_connection!(tx, conn => run!(conn))
}

async fn used(tx: &mut Tx, account: &Account) -> Result<u64, DbError> {
    on_connection!(tx, conn => {
        let used: Option<i64> = query!(query_scalar, USED, account).fetch_optional(&mut *conn).await?;
        unsigned(used.unwrap_or(0))
    })
}

async fn forget(tx: &mut Tx, account: &Account) -> Result<(), DbError> {
    on_connection!(tx, conn => {
        query!(query, FORGET, account).execute(&mut *conn).await?;
    })
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).unwrap_or(0)
}

#[async_trait]
impl QuotaStore for SqlQuotas {
    async fn take(&self, account: &Account, amount: u64, limit: u64) -> Result<Result<u64, u64>, Error> {
        let context = self.context();
        let taken = self.db.transaction(&context, async |mut tx| {
            let taken = Self::take_in(&mut tx, account, amount, limit).await?;
            tx.commit().await.map(|()| taken)
        });
        taken.await.map_err(Error::from)
    }

    async fn release(&self, account: &Account, amount: u64) -> Result<Result<u64, u64>, Error> {
        let context = self.context();
        let released = self.db.transaction(&context, async |mut tx| {
            let released = Self::release_in(&mut tx, account, amount).await?;
            tx.commit().await.map(|()| released)
        });
        released.await.map_err(Error::from)
    }

    async fn used(&self, account: &Account) -> Result<u64, Error> {
        let sql = USED;
        #[cfg(feature = "sqlite")]
        if let Some(pools) = self.db.sqlite() {
            let used: Option<i64> = query!(query_scalar, sql, account)
                .fetch_optional(&pools.read)
                .await
                .map_err(|error| Error::from(DbError::from(error)))?;
            return Ok(unsigned(used.unwrap_or(0)));
        }
        #[cfg(feature = "postgres")]
        if let Some(pool) = self.db.postgres() {
            let used: Option<i64> = query!(query_scalar, sql, account)
                .fetch_optional(pool)
                .await
                .map_err(|error| Error::from(DbError::from(error)))?;
            return Ok(unsigned(used.unwrap_or(0)));
        }
        Err(DbError::Unsupported("quotas have no store for this database").into())
    }
}
