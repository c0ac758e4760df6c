//! A job as its tables keep it, and as it is read back.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use runtime_db::sqlx;
use runtime_kernel::{Timestamp, Uuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::JobsError;
use crate::job::{Job, JobId, JobState};
use crate::store::{Claimed, Filter};

/// The columns of a waiting job, in the order of [`Row`].
pub(super) const COLUMNS: &str = "id, lane, rank, run_at, created_at, priority, attempt, max_attempts, allowance, \
     claims, timeout, queue, kind, tenant, unique_key, limit_key, context, payload, turn";

/// The columns of waiting jobs that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    All,
    /// Without those that have their default in all of them: jobs just enqueued, without limits, keys and links.
    Plain,
}

/// The columns of a finished job: what ended it, then what it was.
pub(super) const FINISHED: &str = "id, state, finished_at, started_at, worker, result, run_at, created_at, priority, \
     attempt, max_attempts, allowance, claims, timeout, queue, kind, tenant, unique_key, limit_key, context, payload";

/// A job that waits or runs.
#[derive(Clone, Debug, PartialEq)]
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
    pub(super) timeout: Option<i64>,
    pub(super) queue: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) tenant: Arc<str>,
    pub(super) unique_key: Option<String>,
    pub(super) limit_key: Option<String>,
    pub(super) context: Arc<str>,
    pub(super) payload: Arc<str>,
    /// It was parked for its key's limit and is next.
    pub(super) turn: bool,
    /// Others wait for it or count it; kept as a bit of the column `turn`.
    pub(super) linked: bool,
}

/// Words that come again and again, each kept once: rows read together share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    known: Vec<Arc<str>>,
    next: usize,
    written: String,
}

impl Words {
    /// How many of the latest are compared with.
    const KNOWN: usize = 8;

    pub(super) fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = Arc::from(text);
        if let Some(oldest) = self.known.get_mut(self.next) {
            *oldest = Arc::clone(&word);
        } else {
            self.known.push(Arc::clone(&word));
        }
        self.next = (self.next + 1) % Self::KNOWN;
        word
    }

    /// A value as JSON.
    pub(super) fn text(&mut self, value: &serde_json::Value) -> Arc<str> {
        self.written.clear();
        // Writing into a string cannot fail.
        let _ = write!(self.written, "{value}");
        Arc::from(self.written.as_str())
    }
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

/// The bit of the column `turn` that says [`Row::linked`].
pub(super) const LINKED: i32 = 2;

impl Row {
    /// The column `turn`.
    pub(super) fn marks(&self) -> i32 {
        i32::from(self.turn) | if self.linked { LINKED } else { 0 }
    }

    pub(super) fn lane(&self) -> i64 {
        lane(&self.queue, &self.kind)
    }

    pub(super) fn claimed(&self, fence: i64) -> Claimed {
        Claimed {
            id: JobId::from(self.id),
            fence: number(fence),
            kind: Arc::clone(&self.kind),
            queue: Arc::clone(&self.queue),
            payload: Arc::clone(&self.payload),
            context: Arc::clone(&self.context),
            attempt: number(i64::from(self.attempt)),
            max_attempts: number(i64::from(self.max_attempts)),
            timeout: self.timeout.map(duration),
        }
    }

    pub(super) fn fits(&self, filter: &Filter) -> bool {
        filter.tenant.as_ref().is_none_or(|tenant| **tenant == *self.tenant)
            && filter.kind.as_ref().is_none_or(|kind| **kind == *self.kind)
            && filter.queue.as_ref().is_none_or(|queue| **queue == *self.queue)
            && filter.before.is_none_or(|before| self.id < before.as_uuid())
    }

    /// The job, without attempts.
    pub(super) fn job(&self, state: JobState, end: Option<&End>) -> Result<Job, JobsError> {
        let kept = end.and_then(|end| end.result.as_deref());
        let (result, reason) = match state {
            JobState::Cancelled => (None, kept.map(read).transpose()?),
            _ => (kept.map(read).transpose()?, None),
        };
        Ok(Job {
            id: JobId::from(self.id),
            kind: self.kind.to_string(),
            queue: self.queue.to_string(),
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
            reason,
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
            &$r str: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
            i32: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
            i64: sqlx::Decode<$r, R::Database> + sqlx::Type<R::Database>,
        $body
    };
}

reading! {
    /// Reads the columns both kinds of table have; `from` is the place of `run_at`.
    fn row_of<'r>(row, rank: i64, from: usize, words: &mut Words) -> Result<Row, JobsError> {
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
            queue: words.word(row.try_get(from + 8)?),
            kind: words.word(row.try_get(from + 9)?),
            tenant: words.word(row.try_get(from + 10)?),
            unique_key: row.try_get(from + 11)?,
            limit_key: row.try_get(from + 12)?,
            context: words.word(row.try_get(from + 13)?),
            payload: Arc::from(row.try_get::<&str, _>(from + 14)?),
            turn: false,
            linked: false,
        })
    }
}

reading! {
    /// Reads a waiting job: [`COLUMNS`].
    fn waiting_of<'r>(row, words: &mut Words) -> Result<Row, JobsError> {
        let turn: i32 = row.try_get(18)?;
        Ok(Row { turn: turn & 1 != 0, linked: turn & LINKED != 0, ..row_of(row, row.try_get(2)?, 3, words)? })
    }
}

reading! {
    /// Reads a finished job: [`FINISHED`].
    fn finished_of<'r>(row, words: &mut Words) -> Result<(Row, End), JobsError> {
        let end = End {
            state: state_of(row.try_get(1)?)?,
            at: row.try_get(2)?,
            started: row.try_get(3)?,
            worker: row.try_get(4)?,
            result: row.try_get(5)?,
        };
        Ok((row_of(row, 0, 6, words)?, end))
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

/// Which jobs of a lease have ended, a bit each; behind them, once there is one, which have been [linked](Row::linked)
/// since they were claimed.
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

    /// How many have ended, of so many.
    pub(super) fn count(&self, of: usize) -> usize {
        self.0.iter().take(of.div_ceil(8)).map(|byte| byte.count_ones() as usize).sum()
    }

    pub(super) fn links(&self, position: usize, of: usize) -> bool {
        self.has(of.div_ceil(8) * 8 + position)
    }

    pub(super) fn link(&mut self, position: usize, of: usize) {
        let bytes = of.div_ceil(8);
        self.0.resize(bytes * 2, 0);
        self.set(bytes * 8 + position);
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
