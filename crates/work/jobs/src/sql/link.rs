//! Enqueues jobs that wait for others, or that a batch counts.
//!
//! A job others wait for is marked where it is, so that whoever ends it knows: a waiting one by a bit of its row, a running
//! one by a bit of its lease. Both are locked until the one that waits is committed, so that no end is missed between. What
//! has ended already is counted as it has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Uuid;
use serde::Serialize;

use super::SqlStore;
use super::awaiting::{Change, among, change_groups, listed, lock_groups};
use super::row::{LINKED, Row, Words, json, state_of};
use super::write::{Table, write_waiting};
use crate::error::JobsError;
use crate::job::{Enqueued, JobId, JobState};
use crate::links::{BatchId, Trigger};
use crate::store::{Insert, Origin};

/// How often a job that moves is looked for wherever it can be.
const LOOKS: usize = 10;

/// Members written by one statement.
const CHUNK: usize = 5000;

/// A job others are to wait for.
struct Found {
    tenant: String,
    /// How it has ended, if it has.
    state: Option<JobState>,
}

/// One row of `members`.
#[derive(Serialize)]
struct Member<'a> {
    group_id: Uuid,
    job_id: Uuid,
    place: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// A job on its way in, and what it waits for.
struct Fresh<'a> {
    insert: &'a Insert,
    row: Row,
    after: Vec<(Uuid, Option<&'a str>)>,
}

impl SqlStore {
    pub(super) async fn open_batch(
        &self,
        tx: &mut Tx,
        batch: BatchId,
        origin: &Origin,
        jobs: &[Insert],
    ) -> Result<Vec<Enqueued>, JobsError> {
        let now = self.now(tx).await?;
        let group =
            Group { id: batch.as_uuid(), tenant: &origin.tenant, batch: true, change: Change::default() };
        write_group(tx, &group, now).await?;
        self.add_in(tx, jobs, Some(batch)).await
    }

    pub(super) async fn add_linked(&self, tx: &mut Tx, jobs: &[Insert]) -> Result<Vec<Enqueued>, JobsError> {
        self.add_in(tx, jobs, None).await
    }

    /// Adds jobs; `opened` is a batch of this transaction.
    async fn add_in(
        &self,
        tx: &mut Tx,
        jobs: &[Insert],
        opened: Option<BatchId>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        let now = self.now(tx).await?;
        let (done, mut fresh) = self.take_keys(tx, jobs, now).await?;
        let here: HashMap<Uuid, usize> =
            fresh.iter().enumerate().map(|(place, fresh)| (fresh.row.id, place)).collect();
        let outside: BTreeSet<Uuid> = fresh
            .iter()
            .flat_map(|fresh| &fresh.after)
            .map(|(id, _)| *id)
            .filter(|id| !here.contains_key(id))
            .collect();
        let found = self.mark(tx, outside).await?;
        for place in 0..fresh.len() {
            let Some(waiter) = fresh.get(place) else { continue };
            let (before, tenant) = (waiter.after.clone(), waiter.row.tenant.clone());
            for (id, _) in before {
                let Some(other) = here.get(&id) else {
                    let visible = |found: &&Found| tenant.is_empty() || *found.tenant == *tenant;
                    found.get(&id).filter(visible).ok_or(JobsError::NotFound(JobId::from(id)))?;
                    continue;
                };
                // Whoever is waited for comes first, so that none wait for each other.
                let other = fresh.get_mut(*other).filter(|_| *other < place);
                other.ok_or(JobsError::NotFound(JobId::from(id)))?.row.linked = true;
            }
        }
        let mut decide: BTreeSet<Uuid> = opened.map(BatchId::as_uuid).into_iter().collect();
        let mut members = Vec::new();
        for fresh in fresh.iter().filter(|fresh| !fresh.after.is_empty()) {
            let mut change = Change::default();
            for (place, (id, name)) in fresh.after.iter().enumerate() {
                members.push(Member { group_id: fresh.row.id, job_id: *id, place, name: *name });
                change.open += 1;
                if let Some(state) = found.get(id).and_then(|found| found.state) {
                    change.add(*id, state);
                }
            }
            let (id, tenant) = (fresh.row.id, &*fresh.row.tenant);
            write_group(tx, &Group { id, tenant, batch: false, change }, now).await?;
            decide.insert(id);
        }
        decide.extend(self.join(tx, &fresh, opened, &mut members, now).await?);
        write_members(tx, &members).await?;
        self.write_fresh(tx, fresh).await?;
        let counts = lock_groups(tx, decide.iter()).await?;
        let (_, gone) = self.settle(tx, &counts, now).await?;
        self.tell_waiters(tx, gone, now).await?;
        Ok(done)
    }

    /// Takes unique keys. What waits for a job that is a duplicate waits for the one that holds the key.
    async fn take_keys<'a>(
        &self,
        tx: &mut Tx,
        jobs: &'a [Insert],
        now: i64,
    ) -> Result<(Vec<Enqueued>, Vec<Fresh<'a>>), JobsError> {
        let mut holders: HashMap<JobId, JobId> = HashMap::new();
        let (mut done, mut fresh) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let mut words = Words::default();
        let mut taken = self.holders(tx, jobs).await?;
        for (place, insert) in jobs.iter().enumerate() {
            let holder = taken.remove(&place);
            done.push(Enqueued { id: holder.unwrap_or(insert.id), duplicate: holder.is_some() });
            if let Some(holder) = holder {
                holders.insert(insert.id, holder);
                continue;
            }
            let mut after: Vec<(Uuid, Option<&str>)> = Vec::with_capacity(insert.job.after.len());
            let mut seen = BTreeSet::new();
            for before in &insert.job.after {
                let id = holders.get(&before.id).copied().unwrap_or(before.id).as_uuid();
                if seen.insert(id) {
                    after.push((id, before.name.as_deref()));
                }
            }
            let mut row = self.row(insert, now, &mut words);
            row.linked = insert.job.batch.is_some();
            fresh.push(Fresh { insert, row, after });
        }
        Ok((done, fresh))
    }

    /// Counts jobs into the batches they name, and finds those they wait for; says whose callbacks came.
    async fn join<'a>(
        &self,
        tx: &mut Tx,
        fresh: &'a [Fresh<'a>],
        opened: Option<BatchId>,
        members: &mut Vec<Member<'a>>,
        now: i64,
    ) -> Result<Vec<Uuid>, JobsError> {
        let mut joined: BTreeMap<Uuid, (i64, &str)> = BTreeMap::new();
        let mut awaited: BTreeMap<Uuid, &str> = BTreeMap::new();
        for Fresh { insert, row, .. } in fresh {
            if let Some(batch) = insert.job.batch.map(BatchId::as_uuid) {
                let (count, _) = joined.entry(batch).or_insert((0, &row.tenant));
                members.push(Member { group_id: batch, job_id: row.id, place: 0, name: None });
                *count += 1;
            }
            if let Some(batch) = insert.job.after_batch {
                awaited.insert(batch.as_uuid(), &row.tenant);
            }
        }
        for (batch, tenant) in joined.iter().map(|(id, (_, tenant))| (id, tenant)).chain(&awaited) {
            let state = batch_of(tx, *batch).await?;
            let visible = |state: &(String, bool)| tenant.is_empty() || state.0 == **tenant;
            let (_, over) = state.filter(visible).ok_or(JobsError::NoBatch(BatchId::from(*batch)))?;
            if over && joined.contains_key(batch) && opened != Some(BatchId::from(*batch)) {
                return Err(JobsError::BatchOver(BatchId::from(*batch)));
            }
        }
        let changes: BTreeMap<Uuid, Change> = joined
            .iter()
            .map(|(id, (count, _))| (*id, Change { open: *count, ..Change::default() }))
            .collect();
        change_groups(tx, &changes, now).await?;
        let sql = "UPDATE runtime_jobs_groups SET total = total + $2 WHERE id = $1";
        for (id, (count, _)) in &joined {
            on_connection!(tx, conn => {
                sqlx::query(sql).bind(id).bind(count).execute(&mut *conn).await?.rows_affected()
            })?;
        }
        Ok(awaited.into_keys().collect())
    }

    /// Writes the jobs themselves, each where it belongs, and what they wait for.
    async fn write_fresh(&self, tx: &mut Tx, fresh: Vec<Fresh<'_>>) -> Result<(), JobsError> {
        let (mut awaiting, mut ready, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for Fresh { insert, row, after } in fresh {
            let group =
                if after.is_empty() { insert.job.after_batch.map(BatchId::as_uuid) } else { Some(row.id) };
            if let Some(group) = group {
                write_wait(tx, row.id, group, insert.job.trigger).await?;
                awaiting.push(row);
            } else if insert.job.run_at.is_some() {
                later.push(row);
            } else {
                if row.priority < 0 {
                    self.low.arrived(row.lane(), row.rank);
                }
                ready.push(row);
            }
        }
        for (table, rows) in [(Table::Awaiting, awaiting), (Table::Ready, ready), (Table::Later, later)] {
            write_waiting(tx, table, &rows).await?;
        }
        Ok(())
    }

    /// Marks jobs as waited for, wherever they are, and keeps them there until the transaction ends. A job moves while one
    /// looks: what was passed already is looked at again.
    async fn mark(&self, tx: &mut Tx, mut jobs: BTreeSet<Uuid>) -> Result<HashMap<Uuid, Found>, JobsError> {
        let mut found = HashMap::with_capacity(jobs.len());
        for _ in 0..LOOKS {
            for table in Table::ALL {
                if jobs.is_empty() {
                    return Ok(found);
                }
                let sql = format!(
                    "UPDATE {} SET turn = turn | {LINKED} WHERE id {} RETURNING id, tenant",
                    table.name(),
                    among(tx.dialect())
                );
                let listed = listed(jobs.iter())?;
                let marked: Vec<(Uuid, String)> = on_connection!(tx, conn => {
                    let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
                    let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                    read.collect::<Result<_, sqlx::Error>>()?
                })?;
                for (id, tenant) in marked {
                    jobs.remove(&id);
                    found.insert(id, Found { tenant, state: None });
                }
            }
            self.mark_running(tx, &mut jobs, &mut found).await?;
            for (id, state, tenant) in ended(tx, &jobs).await? {
                jobs.remove(&id);
                found.insert(id, Found { tenant, state: Some(state) });
            }
            if tx.dialect() == Dialect::Sqlite {
                break;
            }
        }
        Ok(found)
    }

    async fn mark_running(
        &self,
        tx: &mut Tx,
        jobs: &mut BTreeSet<Uuid>,
        found: &mut HashMap<Uuid, Found>,
    ) -> Result<(), JobsError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let (dialect, listed) = (tx.dialect(), json(&jobs)?);
        let each = match dialect {
            Dialect::Sqlite => "SELECT value AS id FROM json_each($1)",
            Dialect::Postgres => "SELECT value AS id FROM jsonb_array_elements_text($1::text::jsonb)",
        };
        let sql = format!(
            "SELECT id FROM runtime_jobs_leases
             WHERE EXISTS (SELECT 1 FROM ({each}) AS j WHERE runtime_jobs_leases.body LIKE '%' || j.id || '%')"
        );
        let leases: Vec<i64> = on_connection!(tx, conn => {
            sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?
        })?;
        for (id, held) in self.lock_leases(tx, &leases).await? {
            let Some(lease) = self.lease(tx, id).await? else { continue };
            let (mut bits, size, mut marked) = (held.ended, lease.rows.len(), false);
            for (place, row) in lease.rows.iter().enumerate() {
                if !bits.has(place) && jobs.remove(&row.id) {
                    bits.link(place, size);
                    marked = true;
                    found.insert(row.id, Found { tenant: row.tenant.to_string(), state: None });
                }
            }
            if marked {
                let sql = "UPDATE runtime_jobs_leases SET ended = $2 WHERE id = $1";
                on_connection!(tx, conn => {
                    sqlx::query(sql).bind(id).bind(&bits.0).execute(&mut *conn).await?.rows_affected()
                })?;
            }
        }
        Ok(())
    }
}

/// Which of these have ended, and how; kept from being redriven or forgotten meanwhile.
async fn ended(tx: &mut Tx, jobs: &BTreeSet<Uuid>) -> Result<Vec<(Uuid, JobState, String)>, JobsError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let lock = super::patient_lock(tx.dialect());
    let sql = format!(
        "SELECT id, state, tenant FROM runtime_jobs_finished WHERE id {} ORDER BY id {lock}",
        among(tx.dialect())
    );
    let listed = listed(jobs.iter())?;
    on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
        let mut ended = Vec::with_capacity(rows.len());
        for row in rows {
            ended.push((row.try_get(0)?, state_of(row.try_get(1)?)?, row.try_get(2)?));
        }
        Ok(ended)
    })?
}

/// A batch's tenant and whether it takes no more jobs; locked.
async fn batch_of(tx: &mut Tx, id: Uuid) -> Result<Option<(String, bool)>, JobsError> {
    let lock = super::patient_lock(tx.dialect());
    let sql = format!(
        "SELECT tenant, CASE WHEN open = 0 OR closed = 1 THEN 1 ELSE 0 END FROM runtime_jobs_groups
         WHERE id = $1 AND batch = 1 {lock}"
    );
    let found: Option<(String, i32)> = on_connection!(tx, conn => {
        match sqlx::query(AssertSqlSafe(sql.clone())).bind(id).fetch_optional(&mut *conn).await? {
            Some(row) => Some((row.try_get(0)?, row.try_get(1)?)),
            None => None,
        }
    })?;
    Ok(found.map(|(tenant, over)| (tenant, over == 1)))
}

struct Group<'a> {
    id: Uuid,
    tenant: &'a str,
    batch: bool,
    change: Change,
}

async fn write_group(tx: &mut Tx, group: &Group<'_>, now: i64) -> Result<(), JobsError> {
    let sql = "INSERT INTO runtime_jobs_groups
        (id, tenant, batch, total, open, dead, cancelled, cause, closed, created_at, changed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $9)";
    let Change { open, dead, cancelled, cause } = group.change;
    // What has ended before is counted as ended members are.
    on_connection!(tx, conn => {
        sqlx::query(sql)
            .bind(group.id)
            .bind(group.tenant)
            .bind(i32::from(group.batch))
            .bind(open + dead + cancelled)
            .bind(open)
            .bind(dead)
            .bind(cancelled)
            .bind(cause)
            .bind(now)
            .execute(&mut *conn)
            .await?
            .rows_affected()
    })?;
    Ok(())
}

async fn write_wait(tx: &mut Tx, job: Uuid, group: Uuid, trigger: Trigger) -> Result<(), JobsError> {
    let sql = "INSERT INTO runtime_jobs_waits (job_id, group_id, rule) VALUES ($1, $2, $3)";
    on_connection!(tx, conn => {
        sqlx::query(sql).bind(job).bind(group).bind(trigger.number()).execute(&mut *conn).await?.rows_affected()
    })?;
    Ok(())
}

async fn write_members(tx: &mut Tx, members: &[Member<'_>]) -> Result<(), JobsError> {
    let rows = match tx.dialect() {
        Dialect::Sqlite => {
            "SELECT unhex(replace(value ->> 'group_id', '-', '')), unhex(replace(value ->> 'job_id', '-', '')),
             value ->> 'place', value ->> 'name' FROM json_each($1)"
        }
        Dialect::Postgres => {
            "SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS r (group_id uuid, job_id uuid, place int, name text)"
        }
    };
    let sql = format!("INSERT INTO runtime_jobs_members (group_id, job_id, place, name) {rows}");
    for chunk in members.chunks(CHUNK) {
        let listed = json(chunk)?;
        on_connection!(tx, conn => {
            sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).execute(&mut *conn).await?.rows_affected()
        })?;
    }
    Ok(())
}
