//! Redis: a shared server with a prefix per test, and servers of a test's own.

mod several;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;

use crate::error::TestkitError;
use crate::shared::{self, Slot};

pub use several::{Node, TestCluster, TestSentinel, TestServer, cluster, own, sentinel};

const VARIABLE: &str = "RUNTIME_TEST_REDIS_URL";

/// A part of the shared Redis that no other test touches, as long as every key starts with the prefix.
#[derive(Clone, Debug)]
pub struct TestRedis {
    url: String,
    prefix: String,
}

impl TestRedis {
    /// Where to connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What every key of the test starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The shared server, started when none runs, and a prefix of one's own.
///
/// # Errors
/// Redis is not installed, or does not start.
pub async fn server() -> Result<TestRedis, TestkitError> {
    let url = match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => url,
        _ => {
            let start = tokio::task::spawn_blocking(shared_server).await;
            start.map_err(|error| TestkitError::Io(std::io::Error::other(error)))??
        }
    };
    Ok(TestRedis { url, prefix: format!("t:{}:", uuid::Uuid::now_v7().simple()) })
}

fn shared_server() -> Result<String, TestkitError> {
    static KEPT: Once = Once::new();
    let slot = Slot::open("redis")?;
    let port = if let Some(port) = slot.running() { port } else { start(&slot)? };
    KEPT.call_once(|| slot.keep_alive());
    Ok(format!("redis://127.0.0.1:{port}/"))
}

fn start(slot: &Slot) -> Result<u16, TestkitError> {
    let port = crate::free_port()?;
    let mut server = Command::new(program()?);
    server.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "yes",
        "--pidfile",
    ]);
    server.arg(slot.folder.join("pid")).stdout(Stdio::null()).current_dir(&slot.folder);
    shared::check("redis-server", &mut server)?;
    slot.started(port)?;
    let pid = slot.folder.join("pid");
    shared::watchdog(
        &shared::recently_used(&slot.marker()),
        &format!("kill \"$(cat '{}')\"", pid.display()),
        |_| {},
    )?;
    // It daemonises before it listens.
    for _ in 0..1000 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    Err(TestkitError::Late("redis-server listening".to_owned()))
}

fn program() -> Result<PathBuf, TestkitError> {
    let missing =
        TestkitError::Missing { program: "redis-server", package: "redis-server", variable: VARIABLE };
    shared::find("redis-server", []).ok_or(missing)
}
