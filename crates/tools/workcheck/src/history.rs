//! What processes saw, one JSON line each, in a file per process.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use runtime_kernel::{Clock as _, SystemClock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::WorkcheckError;

/// Something a process saw. Jobs are named by the number their payload carries, which outlives an answer that never came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A call that enqueues has returned: the job is durable.
    Enqueued {
        /// Which job.
        job: u64,
        /// When the call began, in microseconds.
        called: i64,
    },
    /// The store named another job that holds the unique key.
    Duplicate {
        /// Which job was not added.
        job: u64,
    },
    /// The transaction that enqueued it was rolled back.
    Undone {
        /// Which job must not exist.
        job: u64,
    },
    /// The call failed: the job may or may not exist.
    Unknown {
        /// Which job.
        job: u64,
    },
    /// A claim was answered.
    Claimed {
        /// Which job.
        job: u64,
        /// Under which lease.
        fence: u64,
    },
    /// Its handler began.
    Began {
        /// Which job.
        job: u64,
        /// Under which lease.
        fence: u64,
    },
    /// Its handler ended.
    Ended {
        /// Which job.
        job: u64,
        /// Under which lease.
        fence: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A report was answered.
    Reported {
        /// Which job.
        job: u64,
        /// Under which lease.
        fence: u64,
        /// Whether it ends the job for good.
        last: bool,
        /// Whether it was accepted.
        accepted: bool,
        /// When the call began, in microseconds.
        called: i64,
    },
}

/// When somebody saw something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<E = Event> {
    /// The machine's time, in microseconds; the database's, since both are one machine.
    pub at: i64,
    /// What was seen.
    #[serde(flatten)]
    pub event: E,
}

/// A history being written. A line is one `write`, so that what a killed process saw is there to the last whole line.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Mutex<File>>);

impl History {
    pub(crate) fn create(path: &Path) -> Result<Self, WorkcheckError> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Keeps what was seen just now. A history that cannot be written ends the process: silence would look like safety.
    pub(crate) fn saw<E: Serialize>(&self, event: E) {
        let record = Record { at: now(), event };
        let Ok(mut line) = serde_json::to_vec(&record) else { return };
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&line) {
            eprintln!("the history cannot be written: {error}");
            std::process::abort();
        }
    }
}

/// The machine's time, whatever a skewed clock says.
pub(crate) fn now() -> i64 {
    SystemClock.utc().as_microsecond()
}

/// Every record of the histories in a folder, in the order of time.
pub(crate) fn read<E: DeserializeOwned>(folder: &Path) -> Result<Vec<Record<E>>, WorkcheckError> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        // A process that was killed may leave half a line at the end.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            records.push(serde_json::from_str(line)?);
        }
    }
    records.sort_by_key(|record: &Record<E>| record.at);
    Ok(records)
}
