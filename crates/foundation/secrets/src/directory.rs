//! Secrets in files, one each, as Docker and Kubernetes mount them.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime_kernel::units::ByteSize;
use zeroize::Zeroizing;

use crate::{SecretError, SecretName, SecretProvider, SecretString};

/// Reads `db.password` from the file `db.password` of a directory, anew each time: a file replaced, or a symbolic
/// link swapped as Kubernetes does it, is seen at the next call.
///
/// One line ending at the end is not part of the secret; an empty file counts as not set. A file that is larger than
/// the limit (64 KiB), not a regular file, or not UTF-8 is refused. A file that everybody may read, or others may
/// write, is used and warned about once.
#[derive(Clone, Debug)]
pub struct DirectorySecrets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    limit: ByteSize,
    warned: Mutex<HashSet<SecretName>>,
}

/// How many files are remembered as warned about.
const MAX_WARNED: usize = 1_024;

impl DirectorySecrets {
    /// Over a directory, which need not exist: then nothing is set.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::with_limit(directory, ByteSize::kib(64))
    }

    /// The same with another limit for one secret's size.
    pub fn with_limit(directory: impl Into<PathBuf>, limit: ByteSize) -> Self {
        Self(Arc::new(Inner { directory: directory.into(), limit, warned: Mutex::default() }))
    }
}

#[async_trait]
impl SecretProvider for DirectorySecrets {
    fn name(&self) -> &'static str {
        "the secrets directory"
    }

    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        let (inner, asked) = (Arc::clone(&self.0), name.clone());
        let read = tokio::task::spawn_blocking(move || inner.read(&asked)).await;
        read.unwrap_or_else(|error| Err(unavailable(name, error.to_string())))
    }
}

impl Inner {
    fn read(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        let unusable = |why| SecretError::Unusable { name: name.clone(), why };
        let path = self.directory.join(name.as_str());
        // Looked at before it is opened: opening a pipe waits for a writer.
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(unavailable(name, error.kind().to_string())),
        };
        if !metadata.is_file() {
            return Err(unusable("it is not a regular file"));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        let limit = self.limit.as_u64();
        // One allocation: a vector that grows leaves copies behind.
        bytes.reserve_exact(usize::try_from(metadata.len().min(limit)).unwrap_or_default().saturating_add(1));
        match File::open(&path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes)) {
            Ok(_) => {}
            // Replaced between the two calls; the next one finds the new file.
            Err(error) if error.kind() == IoKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(name, error.kind().to_string())),
        }
        if bytes.len() as u64 > limit {
            return Err(unusable("it is larger than the limit"));
        }
        self.warn(name, &path, &metadata);
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable("it is not valid UTF-8"))?;
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Ok((!line.is_empty()).then(|| SecretString::from(line)))
    }

    #[cfg(unix)]
    fn warn(&self, name: &SecretName, path: &Path, metadata: &Metadata) {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o026 == 0 {
            return;
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < MAX_WARNED && warned.insert(name.clone()) {
            tracing::warn!(
                target: "secrets",
                path = %path.display(),
                mode = format_args!("{mode:03o}"),
                "others may read or write this file; 0400 would do"
            );
        }
    }

    #[cfg(not(unix))]
    fn warn(&self, _: &SecretName, _: &Path, _: &Metadata) {}
}

fn unavailable(name: &SecretName, why: String) -> SecretError {
    SecretError::Unavailable { name: name.clone(), provider: "the secrets directory", why }
}
