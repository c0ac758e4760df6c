//! A job as its tables keep it, and as it is read back.

use std::time::Duration;

use runtime_db::sqlx;
use runtime_kernel::{Timestamp, Uuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::JobsError;
use crate::job::{Job, JobId, JobState};
use crate::store::{Claimed, Filter};

/// The columns of a waiting job, in the order of [`Row`].
pub(super) const COLUMNS: &str = "id, lane, rank, run_at, created_at, priority, attempt, max_attempts, allowance, \
     claims, timeout, queue, kind, tenant, unique_key, limit_key, context, payload, turn";

/// The columns of a finished job: what ended it, then what it was.
pub(super) const FINISHED: &str = "id, state, finished_at, started_at, worker, result, run_at, created_at, priority, \
     attempt, max_attempts, allowance, claims, timeout, queue, kind, tenant, unique_key, limit_key, context, payload";

/// A job that waits or runs. Inside a lease it is JSON, so a field added later must have a default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) rank: i64,
    pub(super) run_at: i64,
    pub(super) created_at: i64,
    pub(super) priority: i32,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) allowance: i32,
    pub(super) claims: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<i64>,
    pub(super) queue: String,
    pub(super) kind: String,
    pub(super) tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limit_key: Option<String>,
    pub(super) context: String,
    pub(super) payload: String,
    /// It was parked for its key's limit and is next.
    #[serde(default, skip)]
    pub(super) turn: bool,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) state: JobState,
    pub(super) at: i64,
    /// The attempt that ended it, if one did.
    pub(super) started: Option<i64>,
    pub(super) worker: Option<String>,
    pub(super) result: Option<String>,
}

impl Row {
    pub(super) fn lane(&self) -> i64 {
        lane(&self.queue, &self.kind)
    }

    pub(super) fn claimed(&self, fence: i64) -> Claimed {
        Claimed {
            id: JobId::from(self.id),
            fence: number(fence),
            kind: self.kind.clone(),
            queue: self.queue.clone(),
            payload: self.payload.clone(),
            context: self.context.clone(),
            attempt: number(i64::from(self.attempt)),
            max_attempts: number(i64::from(self.max_attempts)),
            timeout: self.timeout.map(duration),
        }
    }

    pub(super) fn fits(&self, filter: &Filter) -> bool {
        filter.tenant.as_ref().is_none_or(|tenant| *tenant == self.tenant)
            && filter.kind.as_ref().is_none_or(|kind| *kind == self.kind)
            && filter.queue.as_ref().is_none_or(|queue| *queue == self.queue)
            && filter.before.is_none_or(|before| self.id < before.as_uuid())
    }

    /// The job, without attempts.
    pub(super) fn job(&self, state: JobState, end: Option<&End>) -> Result<Job, JobsError> {
        let result = end.and_then(|end| end.result.as_deref()).map(read).transpose()?;
        Ok(Job {
            id: JobId::from(self.id),
            kind: self.kind.clone(),
            queue: self.queue.clone(),
            state,
            priority: i16::try_from(self.priority).unwrap_or_default(),
            payload: read(&self.payload)?,
            context: read(&self.context)?,
            attempt: number(i64::from(self.attempt)),
            max_attempts: number(i64::from(self.max_attempts)),
            timeout: self.timeout.map(duration),
            created_at: timestamp(self.created_at),
            run_at: timestamp(self.run_at),
            finished_at: end.map(|end| timestamp(end.at)),
            result,
            cancel_requested: false,
            attempts: Vec::new(),
        })
    }
}

/// What a driver must read for a row to be read on it.
macro_rules! reading {
    ($(#[$doc:meta])* fn $name:ident<$r:lifetime>($row:ident $(, $arg:ident: $type:ty)*) -> $out:ty $body:block) => {
        $(#[$doc])*
        pub(super) fn $name<$r, R>($row: &$r R $(, $arg: $type)*) -> $out
        where
            R: sqlx::Row,
            usize: sqlx::ColumnIndex<R>,
            Uuid: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
            String: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
            i32: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
            i64: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
        $body
    };
}

reading! {
    /// Reads the columns both kinds of table have; `from` is the place of `run_at`.
    fn row_of<'r>(row, rank: i64, from: usize) -> Result<Row, JobsError> {
        Ok(Row {
            id: row.try_get(0)?,
            rank,
            run_at: row.try_get(from)?,
            created_at: row.try_get(from + 1)?,
            priority: row.try_get(from + 2)?,
            attempt: row.try_get(from + 3)?,
            max_attempts: row.try_get(from + 4)?,
            allowance: row.try_get(from + 5)?,
            claims: row.try_get(from + 6)?,
            timeout: row.try_get(from + 7)?,
            queue: row.try_get(from + 8)?,
            kind: row.try_get(from + 9)?,
            tenant: row.try_get(from + 10)?,
            unique_key: row.try_get(from + 11)?,
            limit_key: row.try_get(from + 12)?,
            context: row.try_get(from + 13)?,
            payload: row.try_get(from + 14)?,
            turn: false,
        })
    }
}

reading! {
    /// Reads a waiting job: [`COLUMNS`].
    fn waiting_of<'r>(row) -> Result<Row, JobsError> {
        let turn: i32 = row.try_get(18)?;
        Ok(Row { turn: turn == 1, ..row_of(row, row.try_get(2)?, 3)? })
    }
}

reading! {
    /// Reads a finished job: [`FINISHED`].
    fn finished_of<'r>(row) -> Result<(Row, End), JobsError> {
        let end = End {
            state: state_of(row.try_get(1)?)?,
            at: row.try_get(2)?,
            started: row.try_get(3)?,
            worker: row.try_get(4)?,
            result: row.try_get(5)?,
        };
        Ok((row_of(row, 0, 6)?, end))
    }
}

/// A finished state's number in its table.
pub(super) const fn state_number(state: JobState) -> i32 {
    match state {
        JobState::Dead => 1,
        JobState::Cancelled => 2,
        _ => 0,
    }
}

pub(super) fn state_of(number: i32) -> Result<JobState, JobsError> {
    match number {
        0 => Ok(JobState::Completed),
        1 => Ok(JobState::Dead),
        2 => Ok(JobState::Cancelled),
        _ => Err(JobsError::Corrupt(format!("unknown state {number}"))),
    }
}

/// Where a queue's jobs of one kind stand in the index: FNV-1a of both names. Two lanes of one number share a stretch of
/// the index, nothing else, because claims compare the names too.
pub(super) fn lane(queue: &str, kind: &str) -> i64 {
    let bytes = queue.bytes().chain([0]).chain(kind.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.cast_signed()
}

/// Which jobs of a lease have ended, a bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(pub(super) Vec<u8>);

impl Ended {
    pub(super) fn none(of: usize) -> Self {
        Self(vec![0; of.div_ceil(8)])
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.0.get(position / 8).is_some_and(|byte| byte & (1 << (position % 8)) != 0)
    }

    pub(super) fn set(&mut self, position: usize) {
        if let Some(byte) = self.0.get_mut(position / 8) {
            *byte |= 1 << (position % 8);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, JobsError> {
    serde_json::to_string(value).map_err(|error| JobsError::Invalid(error.to_string()))
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, JobsError> {
    serde_json::from_str(text).map_err(|error| JobsError::Corrupt(error.to_string()))
}

pub(super) fn number<N: TryFrom<i64> + Default>(value: i64) -> N {
    N::try_from(value).unwrap_or_default()
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}

pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(number(micros))
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
