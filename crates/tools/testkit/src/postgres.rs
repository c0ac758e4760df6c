//! Postgres: a fresh database per test on a shared server, or a private server to be mistreated.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::error::TestkitError;
use crate::shared::{self, Slot, check};

const VARIABLE: &str = "RUNTIME_TEST_POSTGRES_URL";

/// A database of its own on the shared server; dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    admin: String,
    name: String,
}

/// Creates a fresh, empty database on the shared server, which is started when none runs.
///
/// # Errors
/// Postgres is not installed, or does not start.
pub async fn database() -> Result<TestDatabase, TestkitError> {
    let admin = match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => url,
        _ => shared_server().await?,
    };
    let name = format!("t_{}", uuid::Uuid::now_v7().simple());
    create(&admin, &name).await?;
    Ok(TestDatabase { url: with_database(&admin, &name), admin, name })
}

impl TestDatabase {
    /// Where to connect.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // On a thread of its own: a test's runtime may be gone already.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&admin).await.ok()?;
                connection
                    .execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
                    .await
                    .ok()
            })
        });
        // A database that stays behind goes with its server.
        let _ = dropped.join();
    }
}

/// A private server that a test may stop, break and restart. Stopped and removed when dropped.
#[derive(Debug)]
pub struct Server {
    cluster: Cluster,
    port: u16,
}

impl Server {
    /// Starts a server of its own in a new folder.
    ///
    /// # Errors
    /// Postgres is not installed, or does not start.
    pub async fn start() -> Result<Self, TestkitError> {
        Self::start_in(&std::env::temp_dir(), &[]).await
    }

    /// Starts a server of its own whose data lie in a new folder under `parent`, with settings of its own:
    /// `("shared_buffers", "1GB")`.
    ///
    /// # Errors
    /// As [`start`](Self::start); the folder cannot be written.
    pub async fn start_in(parent: &Path, settings: &[(&str, &str)]) -> Result<Self, TestkitError> {
        let parent = parent.to_path_buf();
        let settings: Vec<String> =
            settings.iter().map(|(key, value)| format!(" -c {key}={value}")).collect();
        let settings = settings.concat();
        blocking(move || {
            let folder = tempfile::Builder::new().prefix("runtime-postgres-").tempdir_in(parent)?.keep();
            let cluster = Cluster { settings, ..Cluster::create(&folder)? };
            let port = crate::free_port()?;
            cluster.start(port)?;
            cluster.watch(&shared::this_process_lives())?;
            Ok(Self { cluster, port })
        })
        .await
    }

    /// Where to connect for one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates a database and says where to connect.
    ///
    /// # Errors
    /// Postgres refuses.
    pub async fn create_database(&self, name: &str) -> Result<String, TestkitError> {
        create(&self.url("postgres"), name).await?;
        Ok(self.url(name))
    }

    /// Stops it as a power failure would: no checkpoint, no goodbye; the next start recovers from the log.
    ///
    /// # Errors
    /// `pg_ctl` fails.
    pub async fn stop_immediate(&mut self) -> Result<(), TestkitError> {
        let cluster = self.cluster.clone();
        blocking(move || cluster.stop("immediate")).await
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// `pg_ctl` fails.
    pub async fn restart(&mut self) -> Result<(), TestkitError> {
        let (cluster, port) = (self.cluster.clone(), self.port);
        blocking(move || cluster.start(port)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The watchdog does the same should this process be killed before.
        let _ = self.cluster.stop("immediate");
        let _ = std::fs::remove_dir_all(&self.cluster.folder);
    }
}

async fn shared_server() -> Result<String, TestkitError> {
    static KEPT: Once = Once::new();
    let port = blocking(|| {
        let slot = Slot::open("postgres")?;
        let port = if let Some(port) = slot.running() {
            port
        } else {
            let folder = slot.folder.join(format!("data-{}", uuid::Uuid::now_v7().simple()));
            std::fs::create_dir_all(&folder)?;
            let cluster = Cluster::create(&folder)?;
            let port = crate::free_port()?;
            cluster.start(port)?;
            slot.started(port)?;
            cluster.watch(&shared::recently_used(&slot.marker()))?;
            port
        };
        KEPT.call_once(|| slot.keep_alive());
        Ok(port)
    })
    .await?;
    Ok(format!("postgres://postgres@127.0.0.1:{port}/postgres"))
}

/// A data folder and the programs that serve it.
#[derive(Clone, Debug)]
struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    /// Postgres refuses to run as root.
    user: Option<(u32, u32)>,
    /// Beside the usual ones.
    settings: String,
}

impl Cluster {
    fn create(folder: &Path) -> Result<Self, TestkitError> {
        let programs = programs()?;
        let user = if shared::user_id()? == 0 {
            Some((shared::id(&["-u", "postgres"])?, shared::id(&["-g", "postgres"])?))
        } else {
            None
        };
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid))?;
        }
        let cluster = Self { folder: folder.to_path_buf(), programs, user, settings: String::new() };
        let mut initdb = cluster.command("initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ]);
        check("initdb", initdb.arg(cluster.data()))?;
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn start(&self, port: u16) -> Result<(), TestkitError> {
        let options = format!(
            "-p {port} -h 127.0.0.1 -k {} -c max_connections=300 -c shared_buffers=64MB{}",
            self.folder.display(),
            self.settings
        );
        let mut start = self.command("pg_ctl");
        start.args(["-w", "-t", "60", "-D"]).arg(self.data()).arg("-o").arg(options);
        check("pg_ctl start", start.arg("-l").arg(self.folder.join("log")).arg("start")).map(|_| ())
    }

    fn stop(&self, how: &str) -> Result<(), TestkitError> {
        let mut stop = self.command("pg_ctl");
        check("pg_ctl stop", stop.args(["-w", "-m", how, "-D"]).arg(self.data()).arg("stop")).map(|_| ())
    }

    fn watch(&self, alive: &str) -> Result<(), TestkitError> {
        let (pg_ctl, folder) = (self.programs.join("pg_ctl"), self.folder.display());
        let stop = format!("'{}' -m immediate -D '{folder}/data' stop; rm -rf '{folder}'", pg_ctl.display());
        shared::watchdog(alive, &stop, |command| self.become_user(command))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.folder);
        self.become_user(&mut command);
        command
    }

    fn become_user(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
    }
}

fn programs() -> Result<PathBuf, TestkitError> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let missing = TestkitError::Missing { program: "postgres", package: "postgresql", variable: VARIABLE };
    shared::find("initdb", folders).and_then(|file| file.parent().map(Path::to_path_buf)).ok_or(missing)
}

async fn create(admin: &str, name: &str) -> Result<(), TestkitError> {
    let mut connection = PgConnection::connect(admin).await?;
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    connection.close().await?;
    Ok(())
}

fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
    query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TestkitError> + Send + 'static,
) -> Result<T, TestkitError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| TestkitError::Io(std::io::Error::other(error)))?
}
