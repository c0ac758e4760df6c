//! What workers do to rows: claim, extend, park what nobody knows.

use std::collections::HashMap;
use std::time::Duration;

use runtime_db::sqlx::{self, AssertSqlSafe};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Timestamp;

use super::row::{COLUMNS, Row, instance, json, parse, time, unsigned};
use super::{SqlSagas, listed};
use crate::error::SagaError;
use crate::instance::{ParkReason, SagaId};
use crate::journal::Entry;
use crate::store::{Beat, ClaimRequest, Claimed, Claims, Signal};

/// Rows of one statement's list.
const CHUNK: usize = 500;

fn locking(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => "FOR UPDATE SKIP LOCKED",
    }
}

fn after(now: Timestamp, by: Duration) -> i64 {
    now.saturating_add(by).as_microsecond()
}

impl SqlSagas {
    pub(super) async fn claim_due(&self, tx: &mut Tx, request: &ClaimRequest) -> Result<Claims, SagaError> {
        let now = tx.time().await?;
        let kinds = listed(request.kinds.len(), 5);
        let sql = format!(
            "UPDATE saga_instances SET due_at = $2, worker = $3, fence = fence + 1, parked = NULL,
               status = CASE WHEN failure IS NULL THEN 'running' ELSE 'compensating' END
             WHERE id IN (SELECT id FROM saga_instances WHERE due_at <= $1 AND kind IN ({kinds})
               ORDER BY due_at, id LIMIT $4 {}) RETURNING {COLUMNS}",
            locking(tx.dialect()),
        );
        let (until, limit) = (after(now, request.lease), i64::from(request.max));
        let found: Vec<Row> = on_connection!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql.clone()))
                .bind(now.as_microsecond()).bind(until).bind(&request.worker).bind(limit);
            for kind in &request.kinds {
                query = query.bind(kind);
            }
            query.fetch_all(&mut *conn).await?
        })?;
        let mut instances = found.into_iter().map(instance).collect::<Result<Vec<_>, _>>()?;
        instances.sort_by_key(|instance| instance.id);
        let ids: Vec<_> = instances.iter().map(|instance| instance.id.to_string()).collect();
        let mut journals: HashMap<String, Vec<Entry>> = self.all_of(tx, "saga_journal", "seq", &ids).await?;
        let mut signals: HashMap<String, Vec<Signal>> =
            self.all_of(tx, "saga_signals", "number", &ids).await?;
        let claimed: Vec<_> = instances
            .into_iter()
            .zip(&ids)
            .map(|(instance, id)| {
                let journal = journals.remove(id).unwrap_or_default();
                Claimed { instance, journal, signals: signals.remove(id).unwrap_or_default() }
            })
            .collect();
        let full = claimed.len() >= usize::try_from(request.max).unwrap_or(usize::MAX);
        let next = if full { None } else { self.next_due(tx, &request.kinds, now).await? };
        Ok(Claims { now, claimed, next })
    }

    async fn next_due(
        &self,
        tx: &mut Tx,
        kinds: &[String],
        now: Timestamp,
    ) -> Result<Option<Timestamp>, SagaError> {
        let list = listed(kinds.len(), 2);
        let sql = format!(
            "SELECT due_at FROM saga_instances WHERE due_at > $1 AND kind IN ({list}) ORDER BY due_at LIMIT 1"
        );
        let next: Option<i64> = on_connection!(tx, conn => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(now.as_microsecond());
            for kind in kinds {
                query = query.bind(kind);
            }
            query.fetch_optional(&mut *conn).await?
        })?;
        next.map(time).transpose()
    }

    /// Everything of these sagas in a table, in order.
    async fn all_of<T: serde::de::DeserializeOwned>(
        &self,
        tx: &mut Tx,
        table: &str,
        order: &str,
        ids: &[String],
    ) -> Result<HashMap<String, Vec<T>>, SagaError> {
        let mut all: HashMap<String, Vec<T>> = HashMap::new();
        for ids in ids.chunks(CHUNK) {
            let list = listed(ids.len(), 1);
            let sql = format!("SELECT saga, data FROM {table} WHERE saga IN ({list}) ORDER BY saga, {order}");
            let found: Vec<(String, String)> = on_connection!(tx, conn => {
                let mut query = sqlx::query_as(AssertSqlSafe(sql.clone()));
                for id in ids {
                    query = query.bind(id);
                }
                query.fetch_all(&mut *conn).await?
            })?;
            for (id, data) in found {
                all.entry(id).or_default().push(parse(&data)?);
            }
        }
        Ok(all)
    }

    pub(super) async fn extend(
        &self,
        tx: &mut Tx,
        worker: &str,
        held: &[SagaId],
        lease: Duration,
    ) -> Result<Vec<Beat>, SagaError> {
        let until = after(tx.time().await?, lease);
        let mut beats = Vec::new();
        for ids in held.chunks(CHUNK) {
            let list = listed(ids.len(), 3);
            let sql = format!(
                "UPDATE saga_instances SET due_at = $1 WHERE worker = $2 AND id IN ({list})
                 RETURNING id, fence, pokes, cancel"
            );
            let found: Vec<(String, i64, i64, Option<String>)> = on_connection!(tx, conn => {
                let mut query = sqlx::query_as(AssertSqlSafe(sql.clone())).bind(until).bind(worker);
                for id in ids {
                    query = query.bind(id.to_string());
                }
                query.fetch_all(&mut *conn).await?
            })?;
            for (id, fence, pokes, cancel) in found {
                beats.push(Beat {
                    id: id.parse().map_err(|_| SagaError::Corrupt(format!("`{id}` is no id")))?,
                    fence: unsigned(fence),
                    pokes: unsigned(pokes),
                    cancel: cancel.as_deref().map(parse).transpose()?,
                });
            }
        }
        Ok(beats)
    }

    pub(super) async fn park_unknown(
        &self,
        tx: &mut Tx,
        kinds: &[String],
        late: Duration,
        max: u32,
    ) -> Result<u64, SagaError> {
        let before = tx.time().await?.saturating_sub(late).as_microsecond();
        // A list that is empty is no list in SQL; no type has this name.
        let none = ["@".to_owned()];
        let kinds = if kinds.is_empty() { &none } else { kinds };
        let list = listed(kinds.len(), 3);
        let sql = format!(
            "SELECT id, kind FROM saga_instances WHERE due_at <= $1 AND parked IS NULL AND kind NOT IN ({list})
             LIMIT $2 {}",
            locking(tx.dialect()),
        );
        let found: Vec<(String, String)> = on_connection!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql.clone())).bind(before).bind(i64::from(max));
            for kind in kinds {
                query = query.bind(kind);
            }
            query.fetch_all(&mut *conn).await?
        })?;
        let parked = found.len() as u64;
        for (id, kind) in found {
            let reason = json(&ParkReason::Unregistered { kind })?;
            super::execute!(tx, PARK, &id, &reason);
        }
        Ok(parked)
    }
}

const PARK: &str = "UPDATE saga_instances SET status = 'parked', parked = $2, worker = NULL WHERE id = $1";
