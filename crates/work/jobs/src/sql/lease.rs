//! A lease: the jobs one claim took, as one row.

use std::sync::Arc;

use runtime_db::sqlx::{self, Row as _};
use runtime_db::{Tx, on_connection};
use runtime_kernel::Uuid;

use super::body::{pack, unpack};
use super::row::{Ended, Row};
use super::{KEPT_LEASES, SqlStore};
use crate::error::JobsError;
use crate::store::ClaimRequest;

/// What a lease holds; never changes. Which of its jobs have ended is the database's to say.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
    pub(super) worker: String,
    pub(super) claimed_at: i64,
    pub(super) rows: Vec<Row>,
    /// Where each job is, by id.
    places: Vec<(Uuid, usize)>,
}

impl Lease {
    pub(super) fn new(id: i64, worker: String, claimed_at: i64, rows: Vec<Row>) -> Self {
        let mut places: Vec<_> = rows.iter().enumerate().map(|(place, row)| (row.id, place)).collect();
        places.sort_unstable();
        Self { id, worker, claimed_at, rows, places }
    }

    pub(super) fn place(&self, id: Uuid) -> Option<usize> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.places.get(found).map(|(_, place)| *place)
    }

    /// Its jobs that have not ended.
    pub(super) fn open<'a>(&'a self, ended: &'a Ended) -> impl Iterator<Item = &'a Row> + 'a {
        self.rows.iter().enumerate().filter(|(place, _)| !ended.has(*place)).map(|(_, row)| row)
    }
}

impl SqlStore {
    /// Writes a lease over claimed rows and keeps it at hand once the claim is committed.
    pub(super) async fn write_lease(
        &self,
        tx: &mut Tx,
        request: &ClaimRequest,
        rows: Vec<Row>,
    ) -> Result<Lease, JobsError> {
        let now = super::clock(tx.dialect(), "$2");
        let sql = format!(
            "INSERT INTO runtime_jobs_leases (worker, claimed_at, until, ended, body)
             SELECT $1, now, now + $3, $4, $5 FROM (SELECT {now} AS now) AS t RETURNING id, claimed_at"
        );
        let (body, ended) = (pack(&rows)?, Ended::none(rows.len()).0);
        let (id, claimed_at) = on_connection!(tx, conn => {
            let row = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .bind(&request.worker)
                .bind(self.local_now())
                .bind(super::row::micros(request.lease))
                .bind(&ended)
                .bind(&body)
                .fetch_one(&mut *conn)
                .await?;
            (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?)
        })?;
        Ok(Lease::new(id, request.worker.clone(), claimed_at, rows))
    }

    pub(super) fn keep(&self, lease: Lease) {
        let mut kept = self.kept();
        if kept.len() >= KEPT_LEASES
            && let Some(oldest) = kept.keys().min().copied()
        {
            // Its reports will read it back.
            kept.remove(&oldest);
        }
        kept.insert(lease.id, Arc::new(lease));
    }

    /// A lease, from memory or from the database.
    pub(super) async fn lease(&self, tx: &mut Tx, id: i64) -> Result<Option<Arc<Lease>>, JobsError> {
        let kept = self.kept().get(&id).cloned();
        if kept.is_some() {
            return Ok(kept);
        }
        let sql = "SELECT worker, claimed_at, body FROM runtime_jobs_leases WHERE id = $1";
        let found = on_connection!(tx, conn => {
            match sqlx::query(sql).bind(id).fetch_optional(&mut *conn).await? {
                Some(row) => Some((
                    row.try_get::<String, _>(0)?,
                    row.try_get::<i64, _>(1)?,
                    row.try_get::<String, _>(2)?,
                )),
                None => None,
            }
        })?;
        let Some((worker, claimed_at, body)) = found else { return Ok(None) };
        Ok(Some(Arc::new(Lease::new(id, worker, claimed_at, unpack(&body)?))))
    }
}

/// A lease as it stands in the database.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) lease: Lease,
    pub(super) ended: Ended,
}

/// Every lease there is, or all that may hold this job: as many as workers hold, so few.
pub(super) async fn all(tx: &mut Tx, only: Option<Uuid>) -> Result<Vec<Standing>, JobsError> {
    let sql =
        "SELECT id, worker, claimed_at, ended, body FROM runtime_jobs_leases WHERE body LIKE $1 ORDER BY id";
    let pattern = only.map_or_else(|| "%".to_owned(), |id| format!("%{id}%"));
    on_connection!(tx, conn => {
        let rows = sqlx::query(sql).bind(&pattern).fetch_all(&mut *conn).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let rows = unpack(row.try_get(4)?)?;
            let lease = Lease::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, rows);
            found.push(Standing { lease, ended: Ended(row.try_get(3)?) });
        }
        Ok(found)
    })?
}

/// The same on any database: SQLite's transactions exclude each other.
pub(super) async fn lock_any(tx: &mut Tx, id: i64, place: usize) -> Result<bool, JobsError> {
    if tx.dialect() == runtime_db::Dialect::Sqlite { Ok(true) } else { lock(tx, id, place).await }
}

/// Locks a lease for as long as the transaction lasts; whether the job at this place still runs under it.
pub(super) async fn lock(tx: &mut Tx, id: i64, place: usize) -> Result<bool, JobsError> {
    let sql = "SELECT ended FROM runtime_jobs_leases WHERE id = $1 FOR UPDATE";
    let ended: Option<Vec<u8>> =
        on_connection!(tx, conn => sqlx::query_scalar(sql).bind(id).fetch_optional(&mut *conn).await?)?;
    Ok(ended.is_some_and(|ended| !Ended(ended).has(place)))
}
