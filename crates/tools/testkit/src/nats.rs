//! NATS with JetStream: a shared server with a prefix per test, and servers of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use tempfile::TempDir;

use crate::binary::{Running, Spawn};
use crate::error::TestkitError;
use crate::shared::{self, Slot};

const VARIABLE: &str = "RUNTIME_TEST_NATS_URL";

/// A part of the shared NATS that no other test touches, as long as every stream and subject starts with the prefix.
#[derive(Clone, Debug)]
pub struct TestNats {
    url: String,
    prefix: String,
}

impl TestNats {
    /// Where to connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What every stream and subject of the test starts with: letters, digits and a dash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The shared server, started when none runs, and a prefix of one's own.
///
/// # Errors
/// NATS is not installed, or does not start.
pub async fn server() -> Result<TestNats, TestkitError> {
    let url = match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => url,
        _ => {
            let start = tokio::task::spawn_blocking(shared_server).await;
            start.map_err(|error| TestkitError::Io(std::io::Error::other(error)))??
        }
    };
    Ok(TestNats { url, prefix: format!("t-{}", uuid::Uuid::now_v7().simple()) })
}

/// A server of the test's own, to be mistreated. Killed when dropped.
#[derive(Debug)]
pub struct OwnNats {
    process: Running,
    port: u16,
    folder: TempDir,
}

/// Starts a server nobody else uses.
///
/// # Errors
/// NATS is not installed, or does not start.
pub async fn own() -> Result<OwnNats, TestkitError> {
    let (folder, port) = (tempfile::tempdir()?, crate::free_port()?);
    let process = run(folder.path(), port).await?;
    Ok(OwnNats { process, port, folder })
}

impl OwnNats {
    /// Where to connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it and waits until it is gone; what it had acknowledged stays on disk.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> Result<(), TestkitError> {
        self.process.kill9().await
    }

    /// Starts it again after [`kill`](Self::kill), on the same port with the same streams.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<(), TestkitError> {
        self.process = run(self.folder.path(), self.port).await?;
        Ok(())
    }
}

async fn run(folder: &Path, port: u16) -> Result<Running, TestkitError> {
    let process = Spawn::new(program()?, folder).args(arguments(folder, port)).start()?;
    crate::until("nats-server listening", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await?;
    Ok(process)
}

fn arguments(folder: &Path, port: u16) -> Vec<String> {
    let store = folder.join("jetstream").display().to_string();
    ["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd", &store].map(ToOwned::to_owned).into()
}

fn shared_server() -> Result<String, TestkitError> {
    static KEPT: Once = Once::new();
    let slot = Slot::open("nats")?;
    let port = if let Some(port) = slot.running() { port } else { start(&slot)? };
    KEPT.call_once(|| slot.keep_alive());
    Ok(format!("nats://127.0.0.1:{port}"))
}

fn start(slot: &Slot) -> Result<u16, TestkitError> {
    use std::os::unix::process::CommandExt;
    let port = crate::free_port()?;
    let mut server = Command::new(program()?);
    server.args(arguments(&slot.folder, port)).current_dir(&slot.folder).process_group(0);
    // It does not daemonise by itself; what is left behind belongs to the watchdog.
    let child = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    slot.started(port)?;
    let stop = format!("kill {}; rm -rf '{}'", child.id(), slot.folder.join("jetstream").display());
    shared::watchdog(&shared::recently_used(&slot.marker()), &stop, |_| {})?;
    for _ in 0..1000 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    Err(TestkitError::Late("nats-server listening".to_owned()))
}

fn program() -> Result<PathBuf, TestkitError> {
    let missing =
        TestkitError::Missing { program: "nats-server", package: "nats-server", variable: VARIABLE };
    // Debian keeps it where the path of a plain user may not look.
    shared::find("nats-server", [PathBuf::from("/usr/sbin")]).ok_or(missing)
}
