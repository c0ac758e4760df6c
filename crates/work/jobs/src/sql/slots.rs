//! Limits of keys: who may run now, who waits, and who is next.
//!
//! A slot is one key in one lane. A claim lets a job with a key in, or parks it in `keyed`; whatever frees a place
//! promotes the first of those parked back to `ready`, where it competes by rank with what has come since. Rows of other keys, and jobs without one, are
//! never looked at, so a million parked jobs cost a claim nothing.

use std::collections::{BTreeMap, HashSet};

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Uuid;

use super::row::{COLUMNS, Row, Words, json, waiting_of};
use super::write::{Table, write_waiting};
use super::{SqlStore, clock, locking};
use crate::error::JobsError;
use crate::limit::Pace;
use crate::store::ClaimRequest;

/// A lane and a key in it.
pub(super) type Key = (i64, String);

/// Timers looked at by one claim.
const OPENED: u32 = 200;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    running: i64,
    /// Parked once, now in `ready`.
    promoted: i64,
    parked: i64,
    tat: i64,
    /// When the pace lets the next one in.
    open_at: Option<i64>,
    concurrency: Option<i64>,
    pace: Pace,
}

impl Slot {
    fn is_full(&self) -> bool {
        self.concurrency.is_some_and(|most| self.running >= most)
    }

    fn is_paced(&self) -> bool {
        self.pace.interval > 0
    }

    fn is_early(&self, now: i64) -> bool {
        self.is_paced() && self.pace.opens(self.tat) > now
    }

    fn begin(&mut self, now: i64) {
        self.running += 1;
        if self.is_paced() {
            self.tat = self.pace.begun(self.tat, now);
        }
    }

    /// How many of those parked may go to `ready`. Under a pace one at a time, so that each is measured when it begins.
    fn next_up(&mut self, now: i64) -> i64 {
        self.open_at = None;
        let room = self.concurrency.map_or(i64::MAX, |most| most - self.running - self.promoted);
        if self.parked == 0 || room <= 0 {
            return 0;
        }
        if self.is_paced() {
            if self.promoted > 0 {
                return 0;
            }
            if self.is_early(now) {
                self.open_at = Some(self.pace.opens(self.tat));
                return 0;
            }
            return 1;
        }
        room.min(self.parked)
    }
}

/// What has changed about a slot outside a claim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    /// So many stopped running.
    pub(super) running: i64,
    /// So many promoted ones went.
    pub(super) promoted: i64,
    /// So many parked ones went.
    pub(super) parked: i64,
}

/// The first of a key that a claim has not taken, by rank and id.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    /// In `ready`: a claim that runs at the same time has it, or it was committed late.
    ready: Option<(i64, Uuid)>,
    parked: Option<(i64, Uuid)>,
}

struct Locked {
    now: i64,
    slots: BTreeMap<Key, (Slot, Slot)>,
    /// Keys whose next job is in `ready` already: who ends there promotes the others.
    waits: HashSet<Key>,
}

impl SqlStore {
    /// Lets in what may run of the jobs a claim took; parks the rest. Says whether another look may find more.
    pub(super) async fn admit(
        &self,
        tx: &mut Tx,
        request: &ClaimRequest,
        mut rows: Vec<Row>,
    ) -> Result<(Vec<Row>, bool), JobsError> {
        rows.sort_unstable_by_key(|row| (row.rank, row.id));
        let mut keys: BTreeMap<Key, &str> = BTreeMap::new();
        for row in &rows {
            if let Some(key) = &row.limit_key {
                keys.insert((row.lane(), key.clone()), &row.kind);
            }
        }
        if keys.is_empty() {
            return Ok((rows, false));
        }
        let mut locked = self.lock_slots(tx, keys.keys().cloned().collect(), true).await?;
        for (key, kind) in &keys {
            if let Some((slot, _)) = locked.slots.get_mut(key) {
                let limit = request.limit(kind);
                slot.concurrency = limit.concurrency.map(i64::from);
                slot.pace = limit.pace();
            }
        }
        for row in rows.iter().filter(|row| row.turn) {
            if let Some((slot, _)) = slot_of(&mut locked, row) {
                slot.promoted -= 1;
            }
        }
        let ahead = self.ahead(tx, &locked).await?;
        let (mut admitted, mut parked) = (Vec::with_capacity(rows.len()), Vec::new());
        let mut blocked = HashSet::new();
        let now = locked.now;
        for row in rows {
            let Some((slot, _)) = slot_of(&mut locked, &row) else {
                admitted.push(row);
                continue;
            };
            let key = (row.lane(), row.limit_key.clone().unwrap_or_default());
            let Ahead { ready, parked: kept } = ahead.get(&key).copied().unwrap_or_default();
            let overtakes = ready.is_some_and(|first| first < (row.rank, row.id));
            // It was promoted, and one with a better rank was parked since.
            let outranked = kept.is_some_and(|first| first < (row.rank, row.id));
            // Whoever is held back holds back what comes after it, whether promoted or not.
            let behind = overtakes || outranked || blocked.contains(&key) || (!row.turn && slot.parked > 0);
            if overtakes {
                locked.waits.insert(key.clone());
            }
            let Some((slot, _)) = locked.slots.get_mut(&key) else { continue };
            if behind || slot.is_full() || slot.is_early(now) {
                slot.parked += 1;
                blocked.insert(key);
                parked.push(Row { turn: false, ..row });
            } else {
                slot.begin(now);
                admitted.push(Row { turn: false, ..row });
            }
        }
        write_waiting(tx, Table::Keyed, &parked).await?;
        let promoted = self.promote(tx, &mut locked).await?;
        save(tx, &locked).await?;
        Ok((admitted, promoted || !parked.is_empty()))
    }

    /// Who comes first of each key, beside what this claim has taken, where one might begin. Asked with the slots under
    /// lock, so that another claim that has taken one has either been through here or comes after.
    async fn ahead(&self, tx: &mut Tx, locked: &Locked) -> Result<BTreeMap<Key, Ahead>, JobsError> {
        let open = locked.slots.iter().filter(|(_, (slot, _))| !slot.is_full() && !slot.is_early(locked.now));
        let open: Vec<&Key> = open.map(|(key, _)| key).collect();
        // SQLite has one writer, and so no other claim.
        if open.is_empty() || tx.dialect() == Dialect::Sqlite {
            return Ok(BTreeMap::new());
        }
        let first = |table: &str| {
            format!(
                "LEFT JOIN LATERAL (SELECT j.rank, j.id FROM runtime_jobs_{table} j WHERE j.lane = k.lane
                 AND j.limit_key = k.limit_key ORDER BY j.lane, j.limit_key, j.rank, j.id LIMIT 1) AS {table} ON true"
            )
        };
        let sql = format!(
            "SELECT k.lane, k.limit_key, ready.rank, ready.id, keyed.rank, keyed.id FROM (
                SELECT (value ->> 0)::bigint AS lane, value ->> 1 AS limit_key FROM jsonb_array_elements($1::text::jsonb)
             ) AS k {} {}",
            first("ready"),
            first("keyed")
        );
        let listed = json(&open)?;
        on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
            let mut ahead = BTreeMap::new();
            for row in rows {
                let ready: (Option<i64>, Option<Uuid>) = (row.try_get(2)?, row.try_get(3)?);
                let parked: (Option<i64>, Option<Uuid>) = (row.try_get(4)?, row.try_get(5)?);
                let found = Ahead { ready: ready.0.zip(ready.1), parked: parked.0.zip(parked.1) };
                ahead.insert((row.try_get(0)?, row.try_get(1)?), found);
            }
            Ok(ahead)
        })?
    }

    /// Takes note of jobs that left their slots, and promotes whoever is next.
    pub(super) async fn leave(&self, tx: &mut Tx, left: &BTreeMap<Key, Left>) -> Result<(), JobsError> {
        self.leave_slots(tx, left, false).await
    }

    /// The same for a job that goes from `ready` without having been claimed. Its slot is made, and so locked, because a
    /// claim that still sees the job lets others wait for it.
    pub(super) async fn leave_ready(&self, tx: &mut Tx, left: &BTreeMap<Key, Left>) -> Result<(), JobsError> {
        self.leave_slots(tx, left, true).await
    }

    async fn leave_slots(
        &self,
        tx: &mut Tx,
        left: &BTreeMap<Key, Left>,
        make: bool,
    ) -> Result<(), JobsError> {
        if left.is_empty() {
            return Ok(());
        }
        let mut locked = self.lock_slots(tx, left.keys().cloned().collect(), make).await?;
        for (key, left) in left {
            if let Some((slot, _)) = locked.slots.get_mut(key) {
                slot.running = (slot.running - left.running).max(0);
                slot.promoted = (slot.promoted - left.promoted).max(0);
                slot.parked = (slot.parked - left.parked).max(0);
            }
        }
        #[cfg(feature = "postgres")]
        let promoted = self.promote(tx, &mut locked).await?;
        #[cfg(not(feature = "postgres"))]
        self.promote(tx, &mut locked).await?;
        #[cfg(feature = "postgres")]
        if promoted && tx.dialect() == Dialect::Postgres {
            let (bell, db) = (self.bell.clone(), self.db.clone());
            tx.on_commit(move || bell.ring(&db));
        }
        save(tx, &locked).await
    }

    /// Promotes where a pace lets the next one in by now.
    pub(super) async fn open_slots(&self, tx: &mut Tx) -> Result<(), JobsError> {
        let sql = format!(
            "SELECT lane, limit_key FROM runtime_jobs_slots WHERE open_at <= {} ORDER BY lane, limit_key LIMIT {OPENED} {}",
            clock(tx.dialect(), "$1"),
            locking(tx.dialect())
        );
        let open = on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now()).fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), Left::default())));
            read.collect::<Result<BTreeMap<Key, Left>, sqlx::Error>>()?
        })?;
        self.leave(tx, &open).await
    }

    async fn promote(&self, tx: &mut Tx, locked: &mut Locked) -> Result<bool, JobsError> {
        let mut up = Vec::new();
        for (place, (slot, _)) in &mut locked.slots {
            if locked.waits.contains(place) {
                continue;
            }
            let (lane, key) = place;
            let count = slot.next_up(locked.now);
            if count == 0 {
                continue;
            }
            let first = "SELECT id FROM runtime_jobs_keyed WHERE lane = $1 AND limit_key = $2 ORDER BY rank, id LIMIT $3";
            let sql = match tx.dialect() {
                Dialect::Sqlite => {
                    format!("DELETE FROM runtime_jobs_keyed WHERE id IN ({first}) RETURNING {COLUMNS}")
                }
                Dialect::Postgres => {
                    format!(
                        "DELETE FROM runtime_jobs_keyed WHERE id = ANY(ARRAY({first})) RETURNING {COLUMNS}"
                    )
                }
            };
            let rows: Vec<Row> = on_connection!(tx, conn => {
                let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                    .bind(*lane)
                    .bind(key.as_str())
                    .bind(count)
                    .fetch_all(&mut *conn)
                    .await?;
                let mut words = Words::default();
                rows.iter().map(|row| waiting_of(row, &mut words)).collect::<Result<_, JobsError>>()?
            })?;
            let found = i64::try_from(rows.len()).unwrap_or(0);
            slot.promoted += found;
            // Counted again from what is there, should the two ever differ.
            slot.parked = if found < count { 0 } else { slot.parked - found };
            up.extend(rows.into_iter().map(|row| Row { turn: true, ..row }));
        }
        for row in &up {
            self.low.arrived(row.lane(), row.rank);
        }
        write_waiting(tx, Table::Ready, &up).await?;
        Ok(!up.is_empty())
    }

    /// Locks slots in one order; makes those that do not exist, if asked to.
    async fn lock_slots(&self, tx: &mut Tx, keys: Vec<Key>, make: bool) -> Result<Locked, JobsError> {
        for _ in 0..10 {
            let locked = self.try_lock_slots(tx, &keys, make).await?;
            // One that was there may be forgotten before it is locked: a job let in without it would not be counted.
            if !make || locked.slots.len() == keys.len() {
                return Ok(locked);
            }
        }
        Err(JobsError::Corrupt("a slot is forgotten whenever it is made".to_owned()))
    }

    async fn try_lock_slots(&self, tx: &mut Tx, keys: &[Key], make: bool) -> Result<Locked, JobsError> {
        let listed = json(keys)?;
        let (keys, lock) = match tx.dialect() {
            Dialect::Sqlite => {
                ("SELECT value ->> 0 AS lane, value ->> 1 AS limit_key FROM json_each($1)", "")
            }
            Dialect::Postgres => (
                "SELECT (value ->> 0)::bigint AS lane, value ->> 1 AS limit_key FROM jsonb_array_elements($1::text::jsonb)",
                "FOR UPDATE OF s",
            ),
        };
        if make {
            let sql = format!(
                "INSERT INTO runtime_jobs_slots (lane, limit_key, running, promoted, parked, tat, pace, tolerance)
                 SELECT lane, limit_key, 0, 0, 0, 0, 0, 0 FROM ({keys}) AS k WHERE true ORDER BY lane, limit_key
                 ON CONFLICT DO NOTHING"
            );
            on_connection!(tx, conn => {
                sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).execute(&mut *conn).await?.rows_affected()
            })?;
        }
        // The time is read once all are locked: a pace is not to be measured from before a wait.
        let sql = format!(
            "WITH locked AS (SELECT s.lane, s.limit_key, s.running, s.promoted, s.parked, s.tat, s.open_at, s.concurrency,
             s.pace, s.tolerance FROM runtime_jobs_slots s JOIN ({keys}) AS k ON s.lane = k.lane
             AND s.limit_key = k.limit_key ORDER BY s.lane, s.limit_key {lock}),
             clock AS (SELECT {} AS now FROM (SELECT count(*) FROM locked) AS every)
             SELECT locked.*, (SELECT now FROM clock) FROM locked",
            clock(tx.dialect(), "$2")
        );
        let rows = on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(&listed)
                .bind(self.local_now())
                .fetch_all(&mut *conn)
                .await?;
            let mut read = Vec::with_capacity(rows.len());
            for row in rows {
                let slot = Slot {
                    running: row.try_get(2)?,
                    promoted: row.try_get(3)?,
                    parked: row.try_get(4)?,
                    tat: row.try_get(5)?,
                    open_at: row.try_get(6)?,
                    concurrency: row.try_get(7)?,
                    pace: Pace { interval: row.try_get(8)?, tolerance: row.try_get(9)? },
                };
                read.push(((row.try_get(0)?, row.try_get(1)?), slot, row.try_get(10)?));
            }
            read
        })?;
        let mut locked = Locked { now: 0, slots: BTreeMap::new(), waits: HashSet::new() };
        for (key, slot, now) in rows {
            locked.now = now;
            locked.slots.insert(key, (slot.clone(), slot));
        }
        Ok(locked)
    }
}

/// What [`save`] writes, by column.
const FIELDS: [&str; 8] =
    ["running", "promoted", "parked", "tat", "open_at", "concurrency", "pace", "tolerance"];

fn slot_of<'l>(locked: &'l mut Locked, row: &Row) -> Option<&'l mut (Slot, Slot)> {
    let key = (row.lane(), row.limit_key.clone()?);
    locked.slots.get_mut(&key)
}

/// Writes slots that changed, in one statement.
async fn save(tx: &mut Tx, locked: &Locked) -> Result<(), JobsError> {
    let mut changed = Vec::new();
    for ((lane, key), (slot, _)) in locked.slots.iter().filter(|(_, (slot, was))| slot != was) {
        let Slot { running, promoted, parked, tat, open_at, concurrency, pace } = slot;
        changed.push(serde_json::json!({
            "lane": lane, "limit_key": key, "running": running, "promoted": promoted, "parked": parked, "tat": tat,
            "open_at": open_at, "concurrency": concurrency, "pace": pace.interval, "tolerance": pace.tolerance,
        }));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let listed = json(&changed)?;
    let rows = match tx.dialect() {
        Dialect::Sqlite => {
            let fields = FIELDS.map(|field| format!("value ->> '{field}' AS {field}")).join(", ");
            format!(
                "SELECT value ->> 'lane' AS lane, value ->> 'limit_key' AS limit_key, {fields} FROM json_each($1)"
            )
        }
        Dialect::Postgres => {
            let fields = FIELDS.map(|field| format!("{field} bigint")).join(", ");
            format!(
                "SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS r (lane bigint, limit_key text, {fields})"
            )
        }
    };
    let sets = FIELDS.map(|field| format!("{field} = u.{field}")).join(", ");
    let sql = format!(
        "UPDATE runtime_jobs_slots SET {sets} FROM ({rows}) AS u
         WHERE runtime_jobs_slots.lane = u.lane AND runtime_jobs_slots.limit_key = u.limit_key"
    );
    on_connection!(tx, conn => {
        sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).execute(&mut *conn).await?.rows_affected()
    })?;
    Ok(())
}

/// Forgets slots nothing depends on any more.
pub(super) async fn forget_slots(tx: &mut Tx, now: i64) -> Result<(), JobsError> {
    let sql = format!(
        "DELETE FROM runtime_jobs_slots WHERE (lane, limit_key) IN (SELECT lane, limit_key FROM runtime_jobs_slots
         WHERE running = 0 AND promoted = 0 AND parked = 0 AND tat <= $1 ORDER BY lane, limit_key {})",
        locking(tx.dialect())
    );
    on_connection!(tx, conn => sqlx::query(AssertSqlSafe(sql.clone())).bind(now).execute(&mut *conn).await?.rows_affected())?;
    Ok(())
}
