//! Sagas in SQLite or Postgres, by the same statements.

mod claim;
mod row;

use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::{self, AssertSqlSafe};
use runtime_db::{Database, DbError, Dialect, Tx, change as execute, on_connection, tuples as rows};
use runtime_kernel::{Context, Source};

use self::row::{COLUMNS, Row, instance, json, signed, texts};
use crate::change;
use crate::error::SagaError;
use crate::instance::{Asked, Instance, SagaId};
use crate::journal::Entry;
use crate::store::{
    Beat, ClaimRequest, Claims, Filter, NewInstance, NewSignal, Remedy, SagaStore, Settle, Signal, check,
};

/// Evaluates an expression on the pool that writes, whichever database it is.
macro_rules! on_writer {
    ($db:expr, $pool:ident => $run:expr) => {
        match $db.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let $pool = &$db.sqlite().ok_or(DbError::Closed)?.write;
                $run
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let $pool = $db.postgres().ok_or(DbError::Closed)?;
                $run
            }
            #[allow(unreachable_patterns, reason = "which databases there are depends on the features")]
            _ => return Err(DbError::Unsupported("a database runtime-saga has no feature for").into()),
        }
    };
}

const BY_KEY: &str = "SELECT id FROM saga_instances WHERE tenant = $1 AND name = $2 AND unique_key = $3";
const JOURNAL: &str = "SELECT data FROM saga_journal WHERE saga = $1 AND seq > $2 ORDER BY seq LIMIT $3";
const SIGNALS: &str =
    "SELECT data FROM saga_signals WHERE saga = $1 AND number > $2 ORDER BY number LIMIT $3";
const SAME: &str = "SELECT number FROM saga_signals WHERE saga = $1 AND signal_id = $2";
const LAST_SIGNAL: &str = "SELECT COALESCE(MAX(number), 0) FROM saga_signals WHERE saga = $1";
const ADD_SIGNAL: &str = "INSERT INTO saga_signals (saga, number, signal_id, data) VALUES ($1, $2, $3, $4)";
const LAST: &str = "SELECT COALESCE(MAX(seq), 0) FROM saga_journal WHERE saga = $1";
const ADD: &str = "INSERT INTO saga_journal (saga, seq, data) VALUES ($1, $2, $3)";

/// Sagas in a database that [`crate::migrations`] have prepared.
///
/// Time comes from the database: Postgres is asked for it; SQLite lives on this machine, so its time is this process's
/// clock.
#[derive(Clone)]
pub struct SqlSagas {
    db: Database,
    #[cfg(feature = "postgres")]
    bell: runtime_db::Bell,
}

impl SqlSagas {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self {
            db,
            #[cfg(feature = "postgres")]
            bell: runtime_db::Bell::new("runtime_saga"),
        }
    }

    /// Begins a saga inside a transaction of the caller's: it exists when, and only when, that commits.
    ///
    /// # Errors
    /// As [`SagaStore::start`].
    pub async fn start_in(&self, tx: &mut Tx, new: &NewInstance) -> Result<SagaId, SagaError> {
        let begun = change::begin(new, tx.time().await?);
        if row::insert(tx, &begun).await? {
            return Ok(new.id);
        }
        let found = rows!(tx, (String,), BY_KEY, &new.tenant, &new.name, new.key.as_deref());
        let taken = found.first().and_then(|(id,)| id.parse().ok());
        taken.ok_or_else(|| SagaError::Invalid(format!("the id {} is taken", new.id)))
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    /// A row, locked until the transaction ends.
    async fn locked(&self, tx: &mut Tx, id: SagaId) -> Result<Option<Instance>, SagaError> {
        let lock = match tx.dialect() {
            Dialect::Sqlite => "",
            Dialect::Postgres => "FOR UPDATE",
        };
        let sql = format!("SELECT {COLUMNS} FROM saga_instances WHERE id = $1 {lock}");
        let found: Option<Row> = on_connection!(tx, conn => {
            sqlx::query_as(AssertSqlSafe(sql.clone())).bind(id.to_string()).fetch_optional(&mut *conn).await?
        })?;
        found.map(instance).transpose()
    }

    /// The same, of a tenant.
    async fn of(&self, tx: &mut Tx, tenant: &str, id: SagaId) -> Result<Instance, SagaError> {
        let found = self.locked(tx, id).await?.filter(|instance| instance.tenant == tenant);
        found.ok_or(SagaError::NotFound(id))
    }

    async fn add_signal(
        &self,
        tx: &mut Tx,
        tenant: &str,
        id: SagaId,
        signal: &NewSignal,
        most: u64,
    ) -> Result<bool, SagaError> {
        let mut instance = self.of(tx, tenant, id).await?;
        let (text, own) = (id.to_string(), signal.id.as_deref());
        if own.is_some() && !rows!(tx, (i64,), SAME, &text, own).is_empty() {
            return Ok(false);
        }
        check(id, instance.status, "signalled", !instance.status.is_over())?;
        let last = rows!(tx, (i64,), LAST_SIGNAL, &text);
        let number = row::unsigned(last.first().map_or(0, |(last,)| *last)) + 1;
        if number > most {
            return Err(SagaError::TooManySignals { id, limit: most });
        }
        let at = tx.time().await?;
        let NewSignal { name, payload, .. } = signal.clone();
        let kept = json(&Signal { number, name, id: signal.id.clone(), payload, at })?;
        execute!(tx, ADD_SIGNAL, &text, signed(number), own, &kept);
        change::poke(&mut instance, at);
        row::update(tx, &instance).await?;
        Ok(true)
    }

    async fn apply(
        &self,
        tx: &mut Tx,
        tenant: &str,
        id: SagaId,
        remedy: Remedy,
        asked: &Asked,
    ) -> Result<(), SagaError> {
        let mut instance = self.of(tx, tenant, id).await?;
        let (now, text) = (tx.time().await?, id.to_string());
        let last = rows!(tx, (i64,), LAST, &text);
        let last = row::unsigned(last.first().map_or(0, |(last,)| *last));
        let entry = change::remedy(&mut instance, remedy, asked, last, now)?;
        execute!(tx, ADD, &text, signed(entry.seq), json(&entry)?);
        row::update(tx, &instance).await
    }
}

/// `$5, $6, $7`.
fn listed(count: usize, first: usize) -> String {
    let parameters: Vec<_> = (first..first + count).map(|number| format!("${number}")).collect();
    parameters.join(", ")
}

#[async_trait]
impl SagaStore for SqlSagas {
    async fn start(&self, new: &NewInstance) -> Result<SagaId, SagaError> {
        self.db.transaction(&self.context(), async |mut tx: Tx| self.start_in(&mut tx, new).await).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Claims, SagaError> {
        self.db.transaction(&self.context(), async |mut tx: Tx| self.claim_due(&mut tx, request).await).await
    }

    /// One statement: the row of the claim is locked while it writes, so a claim by another waits, or has changed the
    /// fence already.
    async fn append(&self, id: SagaId, fence: u64, entry: &Entry) -> Result<(), SagaError> {
        let lock = match self.db.dialect() {
            Dialect::Sqlite => "",
            Dialect::Postgres => "FOR SHARE",
        };
        let sql = format!(
            "INSERT INTO saga_journal (saga, seq, data) SELECT id, $3, $4 FROM saga_instances
             WHERE id = $1 AND fence = $2 AND worker IS NOT NULL {lock}"
        );
        let (data, id_text) = (json(entry)?, id.to_string());
        let added = on_writer!(self.db, pool => {
            let query = sqlx::query(AssertSqlSafe(sql));
            let query = query.bind(id_text).bind(signed(fence)).bind(signed(entry.seq)).bind(data);
            query.execute(pool).await.map(|done| done.rows_affected()).map_err(DbError::from)
        });
        match added {
            Ok(1) => Ok(()),
            Ok(_) | Err(DbError::Unique { .. }) => Err(SagaError::LeaseLost(id)),
            Err(error) => Err(error.into()),
        }
    }

    async fn settle(&self, id: SagaId, fence: u64, settle: &Settle) -> Result<(), SagaError> {
        let write = async |mut tx: Tx| {
            let held = |instance: &Instance| instance.fence == fence && instance.worker.is_some();
            let held = self.locked(&mut tx, id).await?.filter(held);
            let mut instance = held.ok_or(SagaError::LeaseLost(id))?;
            change::settle(&mut instance, settle, tx.time().await?);
            row::update(&mut tx, &instance).await
        };
        self.db.transaction(&self.context(), write).await
    }

    async fn heartbeat(
        &self,
        worker: &str,
        held: &[SagaId],
        lease: Duration,
    ) -> Result<Vec<Beat>, SagaError> {
        let extend = async |mut tx: Tx| self.extend(&mut tx, worker, held, lease).await;
        self.db.transaction(&self.context(), extend).await
    }

    async fn signal(
        &self,
        tenant: &str,
        id: SagaId,
        signal: &NewSignal,
        most: u64,
    ) -> Result<bool, SagaError> {
        let add = async |mut tx: Tx| self.add_signal(&mut tx, tenant, id, signal, most).await;
        self.db.transaction(&self.context(), add).await
    }

    async fn signals(&self, id: SagaId, after: u64) -> Result<Vec<Signal>, SagaError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let found = texts(&mut tx, SIGNALS, &id.to_string(), after, i64::MAX).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn cancel(&self, tenant: &str, id: SagaId, asked: &Asked) -> Result<(), SagaError> {
        let cancel = async |mut tx: Tx| {
            let mut instance = self.of(&mut tx, tenant, id).await?;
            change::cancel(&mut instance, asked, tx.time().await?)?;
            row::update(&mut tx, &instance).await
        };
        self.db.transaction(&self.context(), cancel).await
    }

    async fn remedy(&self, tenant: &str, id: SagaId, remedy: Remedy, asked: &Asked) -> Result<(), SagaError> {
        let apply = async |mut tx: Tx| self.apply(&mut tx, tenant, id, remedy, asked).await;
        self.db.transaction(&self.context(), apply).await
    }

    async fn get(&self, tenant: &str, id: SagaId) -> Result<Option<Instance>, SagaError> {
        let sql = format!("SELECT {COLUMNS} FROM saga_instances WHERE id = $1 AND tenant = $2");
        let mut tx = self.db.begin(&self.context()).await?;
        let found: Option<Row> = on_connection!(tx, conn => {
            let query = sqlx::query_as(AssertSqlSafe(sql.clone())).bind(id.to_string()).bind(tenant);
            query.fetch_optional(&mut *conn).await?
        })?;
        tx.rollback().await?;
        found.map(instance).transpose()
    }

    async fn journal(&self, id: SagaId, after: u64, limit: u32) -> Result<Vec<Entry>, SagaError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let found = texts(&mut tx, JOURNAL, &id.to_string(), after, i64::from(limit)).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Instance>, SagaError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM saga_instances WHERE (CAST($1 AS TEXT) IS NULL OR tenant = $1)
             AND (CAST($2 AS TEXT) IS NULL OR name = $2) AND (CAST($3 AS TEXT) IS NULL OR status = $3)
             AND (CAST($4 AS TEXT) IS NULL OR unique_key = $4) AND (CAST($5 AS TEXT) IS NULL OR id < $5)
             ORDER BY id DESC LIMIT $6"
        );
        let status = filter.status.map(crate::instance::Status::as_str);
        let before = filter.before.map(|before| before.to_string());
        let mut tx = self.db.begin(&self.context()).await?;
        let found = rows!(
            tx,
            Row,
            sql.as_str(),
            filter.tenant.as_deref(),
            filter.name.as_deref(),
            status,
            filter.key.as_deref(),
            before.as_deref(),
            i64::from(filter.page()),
        );
        tx.rollback().await?;
        found.into_iter().map(instance).collect()
    }

    async fn parked(&self) -> Result<u64, SagaError> {
        const PARKED: &str = "SELECT COUNT(*) FROM saga_instances WHERE status = 'parked'";
        let count = async |mut tx: Tx| {
            let found = rows!(tx, (i64,), PARKED);
            Ok(found.first().map_or(0, |(count,)| u64::try_from(*count).unwrap_or_default()))
        };
        self.db.transaction(&self.context(), count).await
    }

    async fn park_unregistered(&self, kinds: &[String], after: Duration, max: u32) -> Result<u64, SagaError> {
        let park = async |mut tx: Tx| self.park_unknown(&mut tx, kinds, after, max).await;
        self.db.transaction(&self.context(), park).await
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, SagaError> {
        const OVER: &str = "SELECT id FROM saga_instances WHERE ended_at <= $1 ORDER BY ended_at LIMIT $2";
        let forget = async |mut tx: Tx| {
            let before = tx.time().await?.saturating_sub(keep).as_microsecond();
            let over = rows!(tx, (String,), OVER, before, i64::from(max));
            for (id,) in &over {
                execute!(tx, "DELETE FROM saga_journal WHERE saga = $1", id);
                execute!(tx, "DELETE FROM saga_signals WHERE saga = $1", id);
                execute!(tx, "DELETE FROM saga_instances WHERE id = $1", id);
            }
            Ok(over.len() as u64)
        };
        self.db.transaction(&self.context(), forget).await
    }

    fn announce(&self) {
        #[cfg(feature = "postgres")]
        if self.db.dialect() == Dialect::Postgres {
            self.bell.ring(&self.db);
        }
    }

    async fn announced(&self) {
        #[cfg(feature = "postgres")]
        if self.db.dialect() == Dialect::Postgres {
            return self.bell.hear(&self.db).await;
        }
        std::future::pending::<()>().await;
    }
}

impl std::fmt::Debug for SqlSagas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlSagas").field("db", &self.db).finish_non_exhaustive()
    }
}
