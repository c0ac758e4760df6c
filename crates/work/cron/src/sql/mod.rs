//! Schedules in a database: one implementation for SQLite and Postgres, in plain statements both understand.

mod claim;
mod rows;
mod run;

use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::Row;
use runtime_db::{Database, Dialect, Tx};
use runtime_kernel::{Context, Source, Timestamp};

pub(crate) use self::claim::FiredInTx;
use self::rows::{COLUMNS, json, micros, number, stored, timestamp};
use self::run::{change, rows};
use crate::catch_up::CatchUp;
use crate::error::CronError;
use crate::store::{
    Claim, ClaimedTick, Filter, Key, Look, Put, Ready, ScheduleStore, Stored, TickRecord, TickState, Verdict,
    missed_note, namespace, same_times,
};
use crate::timetable::jitter;

/// Schedules in the database a service has anyway, so that a tick and its effect can be one transaction.
///
/// Time comes from the database: Postgres is asked for it in each transaction; SQLite lives on this machine, so its time
/// is this process's clock.
#[derive(Clone, Debug)]
pub struct SqlStore {
    db: Database,
}

impl SqlStore {
    /// Schedules in this database. Its tables come with [`migrations`](crate::migrations).
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    /// One schedule, locked against others who mean to change it.
    async fn lock(tx: &mut Tx, key: &Key) -> Result<Option<Stored>, CronError> {
        let lock = if tx.dialect() == Dialect::Postgres { "FOR UPDATE" } else { "" };
        Self::load(tx, key, lock).await
    }

    async fn load(tx: &mut Tx, key: &Key, lock: &str) -> Result<Option<Stored>, CronError> {
        let sql = format!("SELECT {COLUMNS} FROM cron_schedules WHERE tenant = $1 AND name = $2 {lock}");
        let mut found = rows!(tx, sql, [&key.tenant, &key.name], |row| stored!(row));
        Ok(found.pop())
    }

    async fn put_in(&self, tx: &mut Tx, put: &Put) -> Result<Option<Stored>, CronError> {
        let now = tx.time().await?.as_microsecond();
        let key = Key { tenant: namespace(&put.context), name: put.schedule.name.clone() };
        let timetable = put.schedule.check(&key.tenant)?;
        let old = Self::lock(tx, &key).await?;
        let found = old.as_ref().map_or(0, |old| old.revision);
        if let Some(expected) = put.expected.filter(|expected| *expected != found) {
            return Err(CronError::Changed { schedule: key.to_string(), expected, found });
        }
        if let Some(old) = old.as_ref().filter(|old| old.schedule == put.schedule && old.origin == put.origin)
        {
            return Ok(Some(old.clone()));
        }
        let next = match &old {
            Some(old) if same_times(&old.schedule, &put.schedule) => old.next,
            _ => timetable.next_after(timestamp(now)),
        };
        let new = Stored {
            key,
            paused: old.as_ref().is_some_and(|old| old.paused),
            schedule: put.schedule.clone(),
            revision: found + 1,
            origin: put.origin,
            context: put.context.clone(),
            next,
        };
        let (schedule, context) = (json(&new.schedule)?, json(&new.context)?);
        let (revision, origin) = (signed(new.revision), new.origin.as_str());
        let next = new.next.map(runtime_kernel::Timestamp::as_microsecond);
        let (tenant, name) = (&new.key.tenant, &new.key.name);
        let written = if found > 0 {
            let sql = "UPDATE cron_schedules SET schedule = $3, revision = $4, origin = $5, context = $6,
                next_at = $7, action = $8 WHERE tenant = $1 AND name = $2";
            change!(tx, sql, tenant, name, &schedule, revision, origin, &context, next, &put.schedule.action)
        } else {
            // Not this one, which another may have added since it was looked for.
            let sql = "SELECT count(*) AS n FROM cron_schedules WHERE tenant = $1 AND name <> $2";
            let kept = rows!(tx, sql, [tenant, name], |row| row.try_get::<i64, _>("n")?).pop().unwrap_or(0);
            if kept >= i64::from(put.limit) {
                return Err(CronError::Full(put.limit));
            }
            let sql = "INSERT INTO cron_schedules
                (tenant, name, schedule, revision, origin, context, next_at, action, paused)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0) ON CONFLICT (tenant, name) DO NOTHING";
            change!(tx, sql, tenant, name, &schedule, revision, origin, &context, next, &put.schedule.action)
        };
        Ok((written == 1).then_some(new))
    }

    async fn look_in(&self, tx: &mut Tx, max: u32) -> Result<Look, CronError> {
        let (now, max) = (tx.time().await?.as_microsecond(), i64::from(max));
        let sql = format!(
            "SELECT {COLUMNS} FROM cron_schedules WHERE paused = 0 AND next_at <= $1
             ORDER BY next_at, tenant, name LIMIT $2"
        );
        let due = rows!(tx, sql, [now, max], |row| stored!(row));
        let sql = "SELECT t.tenant, t.name, t.fire_time, s.action FROM (
            SELECT tenant, name, fire_time FROM cron_ticks WHERE state = 'pending' AND due_at <= $1
            UNION ALL
            SELECT tenant, name, fire_time FROM cron_ticks WHERE state = 'running' AND lease_until < $1) AS t
            JOIN cron_schedules s ON s.tenant = t.tenant AND s.name = t.name
            ORDER BY t.fire_time, t.tenant, t.name LIMIT $2";
        let ready = rows!(tx, sql, [now, max], |row| Ready {
            fire_time: timestamp(row.try_get("fire_time")?),
            key: Key { tenant: row.try_get("tenant")?, name: row.try_get("name")? },
            action: row.try_get("action")?,
        });
        let sql = "SELECT min(at) AS at FROM (
            SELECT min(next_at) AS at FROM cron_schedules WHERE paused = 0 AND next_at > $1
            UNION ALL SELECT min(due_at) FROM cron_ticks WHERE state = 'pending' AND due_at > $1
            UNION ALL SELECT min(lease_until) FROM cron_ticks WHERE state = 'running' AND lease_until >= $1) AS times";
        let next = rows!(tx, sql, [now], |row| row.try_get::<Option<i64>, _>("at")?).pop().flatten();
        let wait = next.map(|next| Duration::from_micros(next.saturating_sub(now).unsigned_abs()));
        Ok(Look { due, ready, now: timestamp(now), wait })
    }

    async fn advance_in(
        &self,
        tx: &mut Tx,
        leader: u64,
        seen: &Stored,
        plan: &CatchUp,
    ) -> Result<bool, CronError> {
        let now = tx.time().await?.as_microsecond();
        let sql = "SELECT id FROM cron_leader WHERE fence = $1 AND until >= $2";
        if rows!(tx, sql, [signed(leader), now], |row| row.try_get::<i64, _>("id")?).is_empty() {
            return Ok(false);
        }
        let (tenant, name) = (&seen.key.tenant, &seen.key.name);
        let before = seen.next.map(runtime_kernel::Timestamp::as_microsecond);
        let after = plan.next.map(runtime_kernel::Timestamp::as_microsecond);
        let sql = "UPDATE cron_schedules SET next_at = $5
            WHERE tenant = $1 AND name = $2 AND revision = $3 AND next_at = $4 AND paused = 0";
        if change!(tx, sql, tenant, name, signed(seen.revision), before, after) == 0 {
            return Ok(false);
        }
        let label = seen.key.to_string();
        for fire_time in &plan.fire {
            let due = fire_time.as_microsecond().saturating_add(micros(jitter(
                &label,
                *fire_time,
                seen.schedule.jitter,
            )));
            insert_tick(tx, &seen.key, fire_time.as_microsecond(), due, false).await?;
        }
        if let Some(first) = before.filter(|_| plan.missed > 0)
            && insert_tick(tx, &seen.key, first, first, false).await?
        {
            let (state, note) = (TickState::Missed, missed_note(plan.missed));
            claim::end(tx, &seen.key, first, state, now, Some(&note), seen.schedule.keep).await?;
        }
        Ok(true)
    }
}

/// Adds a waiting tick; says whether there was none of that time.
async fn insert_tick(
    tx: &mut Tx,
    key: &Key,
    fire_time: i64,
    due: i64,
    manual: bool,
) -> Result<bool, CronError> {
    let sql = "INSERT INTO cron_ticks (tenant, name, fire_time, state, due_at, attempt, fence, manual)
        VALUES ($1, $2, $3, 'pending', $4, 0, 0, $5) ON CONFLICT (tenant, name, fire_time) DO NOTHING";
    Ok(change!(tx, sql, &key.tenant, &key.name, fire_time, due, i64::from(manual)) == 1)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl ScheduleStore for SqlStore {
    async fn put(&self, put: Put) -> Result<Stored, CronError> {
        // Of two who add the same name at once, the second finds it on its second look.
        for _ in 0..3 {
            let work = async |mut tx: Tx| self.put_in(&mut tx, &put).await;
            if let Some(stored) = self.db.transaction(&self.context(), work).await? {
                return Ok(stored);
            }
        }
        Err(CronError::Changed { schedule: put.schedule.name, expected: 0, found: 1 })
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, CronError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let found = Self::load(&mut tx, key, "").await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Stored>, CronError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM cron_schedules WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR origin = $2)
             AND ($3 IS NULL OR tenant > $3 OR (tenant = $3 AND name > $4)) ORDER BY tenant, name LIMIT $5"
        );
        let origin = filter.origin.map(super::store::Origin::as_str);
        let (tenant, name) = filter.after.as_ref().map(|after| (&after.tenant, &after.name)).unzip();
        let limit = i64::from(filter.limit);
        let found = rows!(tx, sql, [&filter.tenant, origin, tenant, name, limit], |row| stored!(row));
        tx.rollback().await?;
        Ok(found)
    }

    async fn remove(&self, key: &Key) -> Result<bool, CronError> {
        let remove = async |mut tx: Tx| {
            let tx = &mut tx;
            let sql = "DELETE FROM cron_schedules WHERE tenant = $1 AND name = $2";
            let removed = change!(tx, sql, &key.tenant, &key.name) == 1;
            change!(tx, "DELETE FROM cron_ticks WHERE tenant = $1 AND name = $2", &key.tenant, &key.name);
            Ok::<_, CronError>(removed)
        };
        self.db.transaction(&self.context(), remove).await
    }

    async fn pause(&self, key: &Key, paused: bool) -> Result<Stored, CronError> {
        let pause = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = tx.time().await?.as_microsecond();
            let found = Self::lock(tx, key).await?;
            let mut stored = found.ok_or_else(|| CronError::NotFound(key.name.clone()))?;
            if stored.paused != paused {
                if !paused {
                    stored.next = stored.schedule.timetable(&key.tenant)?.next_after(timestamp(now));
                }
                stored.paused = paused;
                stored.revision += 1;
                let next = stored.next.map(runtime_kernel::Timestamp::as_microsecond);
                let sql = "UPDATE cron_schedules SET paused = $3, revision = $4, next_at = $5
                    WHERE tenant = $1 AND name = $2";
                let (paused, revision) = (i64::from(paused), signed(stored.revision));
                change!(tx, sql, &key.tenant, &key.name, paused, revision, next);
            }
            Ok::<_, CronError>(stored)
        };
        self.db.transaction(&self.context(), pause).await
    }

    async fn trigger(&self, key: &Key) -> Result<Timestamp, CronError> {
        let trigger = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = tx.time().await?.as_microsecond();
            if Self::lock(tx, key).await?.is_none() {
                return Err(CronError::NotFound(key.name.clone()));
            }
            let mut at = now;
            while !insert_tick(tx, key, at, now, true).await? {
                at += 1;
            }
            Ok(timestamp(at))
        };
        self.db.transaction(&self.context(), trigger).await
    }

    async fn history(&self, key: &Key, limit: u32) -> Result<Vec<TickRecord>, CronError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let sql =
            "SELECT fire_time, state, due_at, attempt, manual, fired_at, finished_at, note FROM cron_ticks
            WHERE tenant = $1 AND name = $2 ORDER BY fire_time DESC LIMIT $3";
        let found = rows!(tx, sql, [&key.tenant, &key.name, i64::from(limit)], |row| TickRecord {
            fire_time: timestamp(row.try_get("fire_time")?),
            state: rows::state(&row.try_get::<String, _>("state")?)?,
            due: timestamp(row.try_get("due_at")?),
            attempt: number(row.try_get("attempt")?),
            manual: row.try_get::<i64, _>("manual")? == 1,
            fired_at: row.try_get::<Option<i64>, _>("fired_at")?.map(timestamp),
            finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(timestamp),
            note: row.try_get("note")?,
        });
        tx.rollback().await?;
        Ok(found)
    }

    async fn lead(&self, holder: &str, lease: Duration) -> Result<Option<u64>, CronError> {
        let lead = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = tx.time().await?.as_microsecond();
            // Taken over only once the lease has run out; the fence grows with every change of hands.
            let sql = "INSERT INTO cron_leader (id, holder, fence, until) VALUES (1, $1, 1, $3)
                ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until,
                fence = cron_leader.fence + CASE WHEN cron_leader.holder = $1 AND cron_leader.until >= $2 THEN 0 ELSE 1 END
                WHERE cron_leader.holder = $1 OR cron_leader.until < $2 RETURNING fence";
            let until = now.saturating_add(micros(lease));
            let fence = rows!(tx, sql, [holder, now, until], |row| row.try_get::<i64, _>("fence")?).pop();
            Ok::<_, CronError>(fence.map(number))
        };
        self.db.transaction(&self.context(), lead).await
    }

    async fn resign(&self, holder: &str) -> Result<(), CronError> {
        let resign = async |mut tx: Tx| {
            let tx = &mut tx;
            change!(tx, "UPDATE cron_leader SET until = 0, holder = '' WHERE holder = $1", holder);
            Ok::<_, CronError>(())
        };
        self.db.transaction(&self.context(), resign).await
    }

    async fn look(&self, max: u32) -> Result<Look, CronError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let look = self.look_in(&mut tx, max).await?;
        tx.rollback().await?;
        Ok(look)
    }

    async fn advance(&self, leader: u64, seen: &Stored, plan: &CatchUp) -> Result<bool, CronError> {
        let work = async |mut tx: Tx| self.advance_in(&mut tx, leader, seen, plan).await;
        self.db.transaction(&self.context(), work).await
    }

    async fn claim(&self, key: &Key, fire_time: Timestamp, lease: Duration) -> Result<Claim, CronError> {
        let work = async |mut tx: Tx| self.claim_in(&mut tx, key, fire_time, lease).await;
        self.db.transaction(&self.context(), work).await
    }

    async fn extend(&self, claimed: &ClaimedTick, lease: Duration) -> Result<bool, CronError> {
        let extend = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = tx.time().await?.as_microsecond();
            let sql =
                "UPDATE cron_ticks SET lease_until = $5 WHERE tenant = $1 AND name = $2 AND fire_time = $3
                AND fence = $4 AND state = 'running' AND lease_until >= $6";
            let (at, fence) = (claimed.fire_time.as_microsecond(), signed(claimed.fence));
            let until = now.saturating_add(micros(lease));
            let key = &claimed.key;
            Ok::<_, CronError>(change!(tx, sql, &key.tenant, &key.name, at, fence, until, now) == 1)
        };
        self.db.transaction(&self.context(), extend).await
    }

    async fn finish(&self, claimed: &ClaimedTick, verdict: Verdict) -> Result<bool, CronError> {
        let work = async |mut tx: Tx| self.finish_in(&mut tx, claimed, &verdict).await;
        self.db.transaction(&self.context(), work).await
    }

    fn sql(&self) -> Option<&SqlStore> {
        Some(self)
    }
}
