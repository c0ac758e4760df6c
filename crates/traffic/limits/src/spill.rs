//! Bytes in memory while they are few, on disk when they become many.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::error::LimitsError;

/// How much is read from disk at a time.
const CHUNK: u64 = 64 * 1024;

/// What is smaller is copied behind what came before: a [`Bytes`] of its own would cost more than its bytes.
const SMALL: usize = 4 * 1024;

/// How much is copied into one piece.
const PIECE: usize = 64 * 1024;

/// When buffers leave memory, and how much disk they may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SpillConfig {
    /// The folder spilled bytes are written to; it is made if it is not there. Default the system's temporary folder.
    pub folder: PathBuf,
    /// How much of one buffer stays in memory. Default 256 KiB.
    pub memory: ByteSize,
    /// How much of all buffers together stays in memory; beyond it they spill earlier. Default 64 MiB.
    pub total_memory: ByteSize,
    /// How much disk all buffers together may take. Default 4 GiB.
    pub disk: ByteSize,
}

impl Default for SpillConfig {
    fn default() -> Self {
        Self {
            folder: std::env::temp_dir(),
            memory: ByteSize::kib(256),
            total_memory: ByteSize::mib(64),
            disk: ByteSize::mib(4 << 10),
        }
    }
}

/// Why bytes were not taken, or not given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// The disk quota of all buffers together is used up. What the buffer held before, it still holds.
    #[error("the spill quota of {quota} is used up ({used} bytes are on disk, {asked} more were asked for)")]
    QuotaExceeded {
        /// The quota.
        quota: ByteSize,
        /// How much is on disk.
        used: u64,
        /// How much more was to be.
        asked: u64,
    },
    /// The disk failed, or is full.
    #[error("spilling to disk failed")]
    Disk(#[from] io::Error),
}

impl Classify for SpillError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::QuotaExceeded { .. } => ErrorKind::Unavailable,
            Self::Disk(error) if error.kind() == io::ErrorKind::StorageFull => ErrorKind::Unavailable,
            Self::Disk(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::QuotaExceeded { .. } => "limits.spill_quota",
            Self::Disk(_) => "limits.spill_disk",
        }
    }
}

runtime_kernel::into_error!(SpillError);

/// Makes buffers that share memory and disk. Cloning shares it.
///
/// Spilled bytes rest in files that have no name: the system takes them back when the buffer is dropped, and just so
/// when the process is killed, so that nothing is left to be swept up.
///
/// ```
/// use runtime_limits::{SpillConfig, SpillPolicy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), runtime_kernel::Error> {
/// let policy = SpillPolicy::new(SpillConfig::default())?;
/// let mut upload = policy.buffer();
/// upload.write(b"one part, ".as_slice().into()).await?;
/// upload.write(b"another".as_slice().into()).await?;
/// let mut reader = upload.reader();
/// while let Some(chunk) = reader.next().await? {
///     println!("{} bytes", chunk.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SpillPolicy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: SpillConfig,
    memory: AtomicU64,
    disk: AtomicU64,
}

impl SpillPolicy {
    /// Buffers under this configuration. Makes the folder.
    ///
    /// # Errors
    /// [`LimitsError`] when the folder cannot be made or written to.
    pub fn new(config: SpillConfig) -> Result<Self, LimitsError> {
        let made =
            std::fs::create_dir_all(&config.folder).and_then(|()| tempfile::tempfile_in(&config.folder));
        made.map_err(|error| LimitsError::new("spill.folder", format!("cannot be written to: {error}")))?;
        Ok(Self { shared: Arc::new(Shared { config, memory: AtomicU64::new(0), disk: AtomicU64::new(0) }) })
    }

    /// An empty buffer.
    pub fn buffer(&self) -> SpillBuffer {
        SpillBuffer {
            policy: self.clone(),
            chunks: Vec::new(),
            tail: BytesMut::new(),
            in_memory: 0,
            file: None,
            on_disk: 0,
            torn: false,
        }
    }

    /// How many bytes are in memory, of all buffers together.
    pub fn in_memory(&self) -> u64 {
        self.shared.memory.load(Ordering::Relaxed)
    }

    /// How many bytes are on disk.
    pub fn on_disk(&self) -> u64 {
        self.shared.disk.load(Ordering::Relaxed)
    }
}

/// Bytes that were written, in memory or on disk. Dropped, they are gone.
pub struct SpillBuffer {
    policy: SpillPolicy,
    chunks: Vec<Bytes>,
    /// Small ones in one piece, after the chunks.
    tail: BytesMut,
    in_memory: u64,
    file: Option<Arc<File>>,
    on_disk: u64,
    /// Whether a write was dropped while the disk was at it.
    torn: bool,
}

fn add(counter: &AtomicU64, bytes: u64, most: u64) -> Result<(), u64> {
    let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= most);
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map(drop)
}

/// Not the bytes: they are somebody's.
impl fmt::Debug for SpillBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillBuffer")
            .field("in_memory", &self.in_memory)
            .field("on_disk", &self.on_disk)
            .field("torn", &self.torn)
            .finish_non_exhaustive()
    }
}

impl SpillBuffer {
    /// Adds bytes. What does not fit in memory any more goes to disk, with all that was there before.
    ///
    /// Not cancel-safe: after a write that was dropped half-way, further writes fail.
    ///
    /// # Errors
    /// [`SpillError`]; the bytes were not taken, and those before are still there.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), SpillError> {
        if self.torn {
            return Err(io::Error::other("an earlier write was dropped half-way").into());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let SpillConfig { memory, total_memory, .. } = &self.policy.shared.config;
        let fits = self.file.is_none() && self.in_memory.saturating_add(size) <= memory.as_u64();
        if fits && add(&self.policy.shared.memory, size, total_memory.as_u64()).is_ok() {
            self.in_memory += size;
            self.keep(bytes);
            return Ok(());
        }
        self.torn = true;
        let spilled = self.spill(bytes, size).await;
        self.torn = false;
        spilled
    }

    fn keep(&mut self, bytes: Bytes) {
        let small = bytes.len() < SMALL;
        if !self.tail.is_empty() && (!small || self.tail.len() + bytes.len() > PIECE) {
            self.chunks.push(std::mem::take(&mut self.tail).freeze());
        }
        if small {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.chunks.push(bytes);
        }
    }

    async fn spill(&mut self, bytes: Bytes, size: u64) -> Result<(), SpillError> {
        let shared = Arc::clone(&self.policy.shared);
        let (quota, asked) = (shared.config.disk, self.in_memory.saturating_add(size));
        add(&shared.disk, asked, quota.as_u64()).map_err(|used| SpillError::QuotaExceeded {
            quota,
            used,
            asked,
        })?;
        let reserved = Reserved { shared: &shared, bytes: asked };
        let (file, at) = (self.file.clone(), self.on_disk);
        let folder = shared.config.folder.clone();
        let mut chunks = self.chunks.clone();
        chunks.extend([Bytes::copy_from_slice(&self.tail), bytes]);
        let written = tokio::task::spawn_blocking(move || {
            let file = file.map_or_else(|| tempfile::tempfile_in(folder).map(Arc::new), Ok)?;
            let mut at = at;
            for chunk in &chunks {
                file.write_all_at(chunk, at)?;
                at += u64::try_from(chunk.len()).unwrap_or(0);
            }
            Ok::<_, io::Error>(file)
        });
        let file = written.await.map_err(io::Error::other)??;
        std::mem::forget(reserved);
        self.file = Some(file);
        self.on_disk += asked;
        shared.memory.fetch_sub(std::mem::take(&mut self.in_memory), Ordering::AcqRel);
        (self.chunks, self.tail) = (Vec::new(), BytesMut::new());
        Ok(())
    }

    /// How many bytes it holds.
    pub fn len(&self) -> u64 {
        self.in_memory + self.on_disk
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are on disk.
    pub fn is_spilled(&self) -> bool {
        self.file.is_some()
    }

    /// Reads from the beginning; any number of readers, one after another or at once.
    pub fn reader(&self) -> SpillReader<'_> {
        SpillReader { buffer: self, at: 0, chunk: 0 }
    }
}

struct Reserved<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.disk.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Drop for SpillBuffer {
    fn drop(&mut self) {
        self.policy.shared.memory.fetch_sub(self.in_memory, Ordering::AcqRel);
        self.policy.shared.disk.fetch_sub(self.on_disk, Ordering::AcqRel);
    }
}

/// Reads a [`SpillBuffer`], chunk by chunk.
pub struct SpillReader<'a> {
    buffer: &'a SpillBuffer,
    at: u64,
    chunk: usize,
}

impl fmt::Debug for SpillReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buffer, at, chunk } = self;
        f.debug_struct("SpillReader").field("buffer", buffer).field("at", at).field("chunk", chunk).finish()
    }
}

impl SpillReader<'_> {
    /// The next bytes, at most 64 KiB at a time from disk; nothing at the end.
    ///
    /// Cancel-safe: dropped, the next call reads the same bytes.
    ///
    /// # Errors
    /// [`SpillError::Disk`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, SpillError> {
        let Some(file) = &self.buffer.file else {
            let SpillBuffer { chunks, tail, .. } = self.buffer;
            let last = (self.chunk == chunks.len() && !tail.is_empty()).then(|| Bytes::copy_from_slice(tail));
            let chunk = chunks.get(self.chunk).cloned().or(last);
            self.chunk += usize::from(chunk.is_some());
            return Ok(chunk);
        };
        let size = (self.buffer.on_disk - self.at).min(CHUNK);
        if size == 0 {
            return Ok(None);
        }
        let (file, at) = (Arc::clone(file), self.at);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = BytesMut::zeroed(usize::try_from(size).unwrap_or(0));
            file.read_exact_at(&mut bytes, at)?;
            Ok::<_, io::Error>(bytes.freeze())
        });
        let bytes = read.await.map_err(io::Error::other)??;
        self.at += size;
        Ok(Some(bytes))
    }
}
