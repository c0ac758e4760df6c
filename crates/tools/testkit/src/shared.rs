//! One server for all test processes of a user: found by a state file, kept alive by use, gone a minute after.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::TestkitError;

/// How long an unused server lives: twice what a heartbeat takes at worst, rounded up to `find -mmin`'s minutes.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A server's folder, locked while it is looked for or started.
pub(crate) struct Slot {
    pub(crate) folder: PathBuf,
    _lock: File,
}

impl Slot {
    /// The folder of a shared server, created on first use.
    pub(crate) fn open(name: &str) -> Result<Self, TestkitError> {
        let folder = std::env::temp_dir().join(format!("runtime-testkit-{}", user_id()?)).join(name);
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    /// The port of a server that runs, if one does.
    pub(crate) fn running(&self) -> Option<u16> {
        self.touch().ok()?;
        let port: u16 = fs::read_to_string(self.folder.join("port")).ok()?.trim().parse().ok()?;
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(port)
    }

    /// Notes the port of a started server.
    pub(crate) fn started(&self, port: u16) -> Result<(), TestkitError> {
        self.touch()?;
        Ok(fs::write(self.folder.join("port"), port.to_string())?)
    }

    /// The file whose age says when the server was last used.
    pub(crate) fn marker(&self) -> PathBuf {
        self.folder.join("used")
    }

    fn touch(&self) -> std::io::Result<()> {
        touch(&self.marker())
    }

    /// Marks the server as used for as long as this process lives.
    pub(crate) fn keep_alive(&self) {
        let marker = self.marker();
        std::thread::spawn(move || {
            while touch(&marker).is_ok() {
                std::thread::park_timeout(HEARTBEAT);
            }
        });
    }
}

fn touch(path: &Path) -> std::io::Result<()> {
    File::create(path)?.write_all(b"1")
}

/// Leaves behind a shell that runs `stop` once `alive` no longer holds. It is no child the test waits for.
pub(crate) fn watchdog(alive: &str, stop: &str, as_user: impl Fn(&mut Command)) -> Result<(), TestkitError> {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("while {alive}; do sleep 1; done; {stop}")).process_group(0);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    as_user(&mut shell);
    shell.spawn()?;
    Ok(())
}

/// A condition for [`watchdog`]: the marker was touched within the last minute or so.
pub(crate) fn recently_used(marker: &Path) -> String {
    format!("[ -n \"$(find '{}' -mmin -2 2>/dev/null)\" ]", marker.display())
}

/// A condition for [`watchdog`]: this process lives.
pub(crate) fn this_process_lives() -> String {
    format!("[ -d /proc/{} ]", std::process::id())
}

/// Runs a command to its end; its output belongs to the error.
pub(crate) fn check(what: &str, command: &mut Command) -> Result<String, TestkitError> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let output = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Err(TestkitError::Failed { what: what.to_owned(), output })
}

/// A numeric id, as `id` prints it.
pub(crate) fn id(args: &[&str]) -> Result<u32, TestkitError> {
    let text = check("id", Command::new("id").args(args))?;
    text.trim().parse().map_err(|_| TestkitError::Failed { what: "id".to_owned(), output: text })
}

pub(crate) fn user_id() -> Result<u32, TestkitError> {
    id(&["-u"])
}

/// A program on the path or in one of the extra folders.
pub(crate) fn find(program: &str, extra: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = extra.into_iter().chain(std::env::split_paths(&path)).collect();
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}
