//! One JSON object a line, appended to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{AuditWriter, Durability, blocking, lines};
use crate::{AuditError, AuditEvent};

/// Appends to a file that only its owner may read. A durable write is synced to the medium before it returns.
///
/// The file is opened at the first write and again when another file stands in its place, so that it can be rotated by
/// renaming. A line torn by a crash or a full disk stays on a line of its own; the next event begins a new one.
#[derive(Clone, Debug)]
pub struct FileWriter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Whether the file's last byte is not a line feed.
    torn: bool,
}

impl FileWriter {
    /// Over a path, whose directory must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Inner { path: path.into(), open: Mutex::new(None) }))
    }
}

#[async_trait]
impl AuditWriter for FileWriter {
    fn name(&self) -> &'static str {
        "a file"
    }

    async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError> {
        let bytes = lines(self.name(), events)?;
        let inner = Arc::clone(&self.0);
        blocking(self.name(), move || inner.append(&bytes, durability)).await
    }

    async fn flush(&self) -> Result<(), AuditError> {
        let inner = Arc::clone(&self.0);
        blocking(self.name(), move || match &*inner.open.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(open) => open.file.sync_data(),
            None => Ok(()),
        })
        .await
    }
}

impl Inner {
    fn append(&self, bytes: &[u8], durability: Durability) -> io::Result<()> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = slot.take().filter(|open| is_same(&open.file, &self.path));
        let mut open = match kept {
            Some(open) => open,
            None => open_file(&self.path)?,
        };
        if bytes.is_empty() {
            *slot = Some(open);
            return Ok(());
        }
        let result = if open.torn { open.file.write_all(b"\n") } else { Ok(()) }
            .and_then(|()| {
                open.torn = true;
                open.file.write_all(bytes)
            })
            .and_then(|()| {
                open.torn = false;
                if durability == Durability::Durable { open.file.sync_data() } else { Ok(()) }
            });
        // After a failed sync the pages may be gone though the next sync succeeds: opening anew and writing again is
        // the only way to know.
        if result.is_ok() {
            *slot = Some(open);
        }
        result
    }
}

fn open_file(path: &Path) -> io::Result<Open> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    } else {
        // A new file is durable only once its directory's entry is.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(Open { file, torn: last != [b'\n'] })
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |metadata: io::Result<std::fs::Metadata>| {
        metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok()
    };
    let open = of(file.metadata());
    open.is_some() && open == of(std::fs::metadata(path))
}

#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}
