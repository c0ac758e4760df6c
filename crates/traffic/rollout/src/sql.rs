//! Rollouts in SQLite or Postgres, by the same statements.

use async_trait::async_trait;
use runtime_db::{Database, DbError, Tx, on_connection, sqlx};
use runtime_kernel::{Context, Error, Source};
use sqlx::Row;

use crate::analysis::Counts;
use crate::error::RolloutError;
use crate::state::{Rollout, Side};
use crate::store::{Evidence, RolloutStore};

const LIST: &str =
    "SELECT data FROM runtime_rollouts WHERE CAST($1 AS TEXT) IS NULL OR name = $1 ORDER BY name";
const INSERT: &str = "INSERT INTO runtime_rollouts (name, revision, generation, data) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING";
const UPDATE: &str = "UPDATE runtime_rollouts SET revision = $2, generation = $3, data = $4 WHERE name = $1 AND revision = $2 - 1";
const FORGET: &str = "DELETE FROM runtime_rollout_evidence WHERE name = $1 AND generation <> $2";
const ADD: &str = "INSERT INTO runtime_rollout_evidence (name, generation, side, requests, failed, slow) \
     SELECT $1, $2, $3, $4, $5, $6 FROM runtime_rollouts WHERE name = $1 AND generation = $2 \
     ON CONFLICT (name, generation, side) DO UPDATE SET requests = runtime_rollout_evidence.requests + excluded.requests, \
     failed = runtime_rollout_evidence.failed + excluded.failed, slow = runtime_rollout_evidence.slow + excluded.slow";
const SEEN: &str =
    "SELECT side, requests, failed, slow FROM runtime_rollout_evidence WHERE name = $1 AND generation = $2";

/// Rollouts in a database that [`crate::migrations`] have prepared.
#[derive(Clone, Debug)]
pub struct SqlRollouts {
    db: Database,
}

impl SqlRollouts {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    async fn read(&self, name: Option<&str>) -> Result<Vec<Rollout>, RolloutError> {
        let mut tx = self.db.begin(&self.context()).await.map_err(failed)?;
        let rows = read(&mut tx, name).await.map_err(failed)?;
        tx.rollback().await.map_err(failed)?;
        rows.iter()
            .map(|data| {
                serde_json::from_str(data).map_err(|error| RolloutError::Store(Error::internal(error)))
            })
            .collect()
    }
}

fn failed(error: DbError) -> RolloutError {
    RolloutError::Store(error.into())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

async fn read(tx: &mut Tx, name: Option<&str>) -> Result<Vec<String>, DbError> {
    let name = name.map(ToOwned::to_owned);
    on_connection!(tx, conn => sqlx::query_scalar(LIST).bind(name.clone()).fetch_all(&mut *conn).await?)
}

async fn write(tx: &mut Tx, sql: &'static str, rollout: &Rollout, data: &str) -> Result<u64, DbError> {
    on_connection!(tx, conn => {
        sqlx::query(sql)
            .bind(rollout.name.clone())
            .bind(signed(rollout.revision))
            .bind(signed(rollout.generation))
            .bind(data.to_owned())
            .execute(&mut *conn)
            .await?
            .rows_affected()
    })
}

async fn forget(tx: &mut Tx, rollout: &Rollout) -> Result<(), DbError> {
    on_connection!(tx, conn => {
        let query = sqlx::query(FORGET).bind(rollout.name.clone()).bind(signed(rollout.generation));
        query.execute(&mut *conn).await.map(drop)?;
    })
}

async fn add(tx: &mut Tx, name: &str, generation: u64, side: Side, seen: Counts) -> Result<(), DbError> {
    on_connection!(tx, conn => {
        sqlx::query(ADD)
            .bind(name.to_owned())
            .bind(signed(generation))
            .bind(side.as_str())
            .bind(signed(seen.requests))
            .bind(signed(seen.failed))
            .bind(signed(seen.slow))
            .execute(&mut *conn)
            .await
            .map(drop)?;
    })
}

async fn seen(tx: &mut Tx, name: &str, generation: u64) -> Result<Evidence, DbError> {
    macro_rules! rows {
        ($conn:ident) => {{
            let rows = sqlx::query(SEEN)
                .bind(name.to_owned())
                .bind(signed(generation))
                .fetch_all(&mut *$conn)
                .await?;
            let mut evidence = Evidence::default();
            for row in rows {
                let side: String = row.try_get(0)?;
                let count = |column: usize| row.try_get::<i64, _>(column).map(unsigned);
                if let Some(side) = Side::parse(&side) {
                    *evidence.side(side) = Counts { requests: count(1)?, failed: count(2)?, slow: count(3)? };
                }
            }
            evidence
        }};
    }
    on_connection!(tx, conn => rows!(conn))
}

#[async_trait]
impl RolloutStore for SqlRollouts {
    async fn list(&self) -> Result<Vec<Rollout>, RolloutError> {
        self.read(None).await
    }

    async fn get(&self, name: &str) -> Result<Option<Rollout>, RolloutError> {
        Ok(self.read(Some(name)).await?.pop())
    }

    async fn put(&self, rollout: &Rollout) -> Result<bool, RolloutError> {
        let data =
            serde_json::to_string(rollout).map_err(|error| RolloutError::Store(Error::internal(error)))?;
        let context = self.context();
        let put = self.db.transaction(&context, async |mut tx| {
            let sql = if rollout.revision == 1 { INSERT } else { UPDATE };
            let written = write(&mut tx, sql, rollout, &data).await? == 1;
            if written {
                forget(&mut tx, rollout).await?;
            }
            tx.commit().await.map(|()| written)
        });
        put.await.map_err(failed)
    }

    async fn add(&self, name: &str, generation: u64, new: Evidence) -> Result<Evidence, RolloutError> {
        let context = self.context();
        let added = self.db.transaction(&context, async |mut tx| {
            for (side, counts) in [(Side::Primary, new.primary), (Side::Canary, new.canary)] {
                if counts.requests > 0 {
                    add(&mut tx, name, generation, side, counts).await?;
                }
            }
            let seen = seen(&mut tx, name, generation).await?;
            tx.commit().await.map(|()| seen)
        });
        added.await.map_err(failed)
    }
}
