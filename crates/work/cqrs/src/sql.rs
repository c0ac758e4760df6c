//! Answers remembered in a database, for every process that shares it.

use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::Row;
use runtime_db::{Database, Dialect, Tx};
use runtime_kernel::{Context, Source};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::CqrsError;
use crate::idempotency::{Begun, IdempotencyStore, Key};
use crate::memory::micros;
use crate::run::{change, rows};

/// Answers in the database a service has anyway. Its tables come with [`migrations`](crate::migrations).
///
/// Time comes from the database: Postgres is asked for it; SQLite lives on this machine, so its time is this process's.
#[derive(Clone, Debug)]
pub struct SqlIdempotency {
    db: Database,
}

impl SqlIdempotency {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    /// Takes a key until `until`, in the caller's transaction. Where another transaction has it, that one's end is waited for.
    pub(crate) async fn begin_in(
        &self,
        tx: &mut Tx,
        key: &Key,
        fingerprint: &str,
        lease: Duration,
    ) -> Result<Begun, CqrsError> {
        let now = tx.time().await?.as_microsecond();
        let until = now.saturating_add(micros(lease));
        // One statement takes the key, so that of many who begin at once one has it.
        let sql = "INSERT INTO cqrs_idempotency (tenant, command, key, fingerprint, fence, until)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, command, key) DO UPDATE SET
            fingerprint = excluded.fingerprint, until = excluded.until, answer = NULL,
            fence = CASE WHEN cqrs_idempotency.fence >= excluded.fence
                THEN cqrs_idempotency.fence + 1 ELSE excluded.fence END
            WHERE cqrs_idempotency.until < $5 RETURNING fence";
        let taken = rows!(tx, sql, [&key.tenant, &key.command, &key.key, fingerprint, now, until], |row| row
            .try_get::<i64, _>("fence")?);
        if let Some(fence) = taken.first() {
            return Ok(Begun::Started(u64::try_from(*fence).unwrap_or_default()));
        }
        let sql = "SELECT fingerprint, until, answer FROM cqrs_idempotency
            WHERE tenant = $1 AND command = $2 AND key = $3";
        let mut held = rows!(tx, sql, [&key.tenant, &key.command, &key.key], |row| (
            row.try_get::<String, _>("fingerprint")?,
            row.try_get::<i64, _>("until")?,
            row.try_get::<Option<String>, _>("answer")?,
        ));
        let Some((theirs, until, answer)) = held.pop() else {
            // Forgotten between the two statements.
            return Ok(Begun::InFlight(Duration::ZERO));
        };
        if theirs != fingerprint {
            return Ok(Begun::Reused);
        }
        let left = Duration::from_micros(u64::try_from(until.saturating_sub(now)).unwrap_or_default());
        let Some(answer) = answer else { return Ok(Begun::InFlight(left)) };
        let corrupt = |error: serde_json::Error| CqrsError::Corrupt(key.command.clone(), error.to_string());
        serde_json::from_str(&answer).map(Begun::Done).map_err(corrupt)
    }

    /// Remembers the answer in the caller's transaction; `false` when the key is no longer held under the fence.
    pub(crate) async fn finish_in(
        &self,
        tx: &mut Tx,
        key: &Key,
        fence: u64,
        answer: &Value,
        keep: Duration,
    ) -> Result<bool, CqrsError> {
        let now = tx.time().await?.as_microsecond();
        let fence = i64::try_from(fence).unwrap_or(i64::MAX);
        let sql = "UPDATE cqrs_idempotency SET answer = $5, until = $6
            WHERE tenant = $1 AND command = $2 AND key = $3 AND fence = $4 AND answer IS NULL AND until >= $7";
        let until = now.saturating_add(micros(keep));
        let (tenant, command, answer) = (&key.tenant, &key.command, answer.to_string());
        Ok(change!(tx, sql, tenant, command, &key.key, fence, &answer, until, now) == 1)
    }

    /// Whether no other transaction works under the key; until this one ends, it is this one's. Only transactions that ask
    /// are seen, and on SQLite, which has one writer, there is no other.
    pub(crate) async fn alone(&self, tx: &mut Tx, key: &Key) -> Result<bool, CqrsError> {
        if tx.dialect() == Dialect::Sqlite {
            return Ok(true);
        }
        // Of the first 64 bits of a digest: two keys that share them wait for each other, and nothing else.
        let parts = serde_json::json!(["cqrs", key.tenant, key.command, key.key]).to_string();
        let digest = Sha256::digest(parts.as_bytes());
        let lock = digest.iter().take(8).fold(0_i64, |lock, byte| lock << 8 | i64::from(*byte));
        let free = rows!(tx, "SELECT pg_try_advisory_xact_lock($1) AS free", [lock], |row| row
            .try_get::<bool, _>("free")?);
        Ok(free.first().copied().unwrap_or_default())
    }
}

#[async_trait]
impl IdempotencyStore for SqlIdempotency {
    async fn begin(&self, key: &Key, fingerprint: &str, lease: Duration) -> Result<Begun, CqrsError> {
        let begin = async |mut tx: Tx| self.begin_in(&mut tx, key, fingerprint, lease).await;
        self.db.transaction(&self.context(), begin).await
    }

    async fn finish(&self, key: &Key, fence: u64, answer: &Value, keep: Duration) -> Result<bool, CqrsError> {
        let finish = async |mut tx: Tx| self.finish_in(&mut tx, key, fence, answer, keep).await;
        self.db.transaction(&self.context(), finish).await
    }

    async fn abandon(&self, key: &Key, fence: u64) -> Result<(), CqrsError> {
        let fence = i64::try_from(fence).unwrap_or(i64::MAX);
        let abandon = async |mut tx: Tx| {
            let sql = "UPDATE cqrs_idempotency SET until = 0
                WHERE tenant = $1 AND command = $2 AND key = $3 AND fence = $4 AND answer IS NULL";
            change!(tx, sql, &key.tenant, &key.command, &key.key, fence);
            Ok(())
        };
        self.db.transaction(&self.context(), abandon).await
    }

    async fn prune(&self, max: u32) -> Result<u64, CqrsError> {
        let prune = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = tx.time().await?.as_microsecond();
            let sql = "DELETE FROM cqrs_idempotency WHERE until < $1 AND (tenant, command, key) IN
                (SELECT tenant, command, key FROM cqrs_idempotency WHERE until < $1 ORDER BY until LIMIT $2)";
            Ok(change!(tx, sql, now, i64::from(max)))
        };
        self.db.transaction(&self.context(), prune).await
    }
}
