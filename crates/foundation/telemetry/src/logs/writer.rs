//! Writes lines on a thread of its own, so that a stuck pipe never stops the service.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;

use super::fields::{Fields, Value};
use super::format::Style;
use super::layer::{Record, Sink};
use crate::TelemetryError;

/// How many bytes wait for a slow stream; further lines are dropped and counted.
const MAX_PENDING: usize = 4 << 20;

/// The queue between those who log and the thread that writes. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Shared>);

struct Shared {
    style: Style,
    state: Mutex<State>,
    work: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    writing: bool,
    dropped: u64,
    /// Somebody waits for what is pending.
    hurry: bool,
    /// Nobody will flush any more: each line is waited for.
    closing: bool,
}

/// How long lines gather before they are written together, unless so many bytes wait or one of them is a warning: a
/// thread woken for every line takes the processor from those who log.
const GATHER: Duration = Duration::from_millis(20);
const GATHERED: usize = 256 << 10;

/// How long a line is waited for once the guard is gone.
const LAST_LINES: Duration = Duration::from_millis(200);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(crate) fn start(style: Style, stream: Box<dyn Write + Send>) -> Result<Self, TelemetryError> {
        let shared =
            Arc::new(Shared { style, state: Mutex::default(), work: Condvar::new(), idle: Condvar::new() });
        let writer = Self(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("telemetry-log".to_owned())
            .spawn(move || run(&shared, stream))
            .map_err(TelemetryError::Thread)?;
        Ok(writer)
    }

    /// From now on a line is written before whoever logs it goes on: the process is about to end.
    pub(crate) fn close(&self) {
        self.0.lock().closing = true;
    }

    /// Waits until everything taken so far is written.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let busy = |state: &mut State| state.writing || !state.pending.is_empty();
        let mut state = self.0.lock();
        state.hurry = true;
        self.0.work.notify_one();
        let (_state, result) =
            self.0.idle.wait_timeout_while(state, timeout, busy).unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            return Err(TelemetryError::Flush("the log stream does not take its lines".to_owned()));
        }
        Ok(())
    }
}

impl Sink for Writer {
    fn take(&self, record: &Record<'_>) {
        thread_local!(static LINE: RefCell<String> = const { RefCell::new(String::new()) });
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.0.style.write(line, record);
            let mut state = self.0.lock();
            if state.pending.len() + line.len() > MAX_PENDING {
                state.dropped += 1;
                return;
            }
            let (before, closing) = (state.pending.len(), state.closing);
            if state.dropped > 0 {
                let mut note = String::new();
                self.0.style.write(&mut note, &dropped(record, std::mem::take(&mut state.dropped)));
                state.pending.extend_from_slice(note.as_bytes());
            }
            state.pending.extend_from_slice(line.as_bytes());
            let after = state.pending.len();
            let urgent = record.level <= Level::WARN && !state.hurry;
            state.hurry |= urgent;
            drop(state);
            if before == 0 || urgent || (before < GATHERED && after >= GATHERED) {
                self.0.work.notify_one();
            }
            if closing {
                let _ = self.flush(LAST_LINES);
            }
        });
    }
}

fn dropped<'a>(record: &Record<'_>, count: u64) -> Record<'a> {
    let mut fields = Fields::default();
    fields.set("message", Value::Text("log lines were dropped: the stream is too slow".to_owned()));
    fields.set("dropped", Value::Uint(count));
    Record { ts: record.ts, level: Level::WARN, target: "telemetry", fields }
}

fn run(shared: &Shared, mut stream: Box<dyn Write + Send>) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        state.writing = false;
        while state.pending.is_empty() {
            state.hurry = false;
            shared.idle.notify_all();
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let gathering = |state: &mut State| !state.hurry && state.pending.len() < GATHERED;
        (state, _) =
            shared.work.wait_timeout_while(state, GATHER, gathering).unwrap_or_else(PoisonError::into_inner);
        state.writing = true;
        std::mem::swap(&mut state.pending, &mut batch);
        drop(state);
        // A closed stream has nobody to complain to.
        let _ = stream.write_all(&batch).and_then(|()| stream.flush());
        batch.clear();
        batch.shrink_to(2 * GATHERED);
    }
}
