//! Spawns a real binary, watches what it prints, and treats it badly.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::error::TestkitError;

/// How long a line, an exit or a signal may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<String>,
    env: HashMap<String, String>,
    folder: PathBuf,
}

impl Spawn {
    /// A program that will run in a folder, with nothing of this process's environment but `PATH`.
    pub fn new(program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: HashMap::new(), folder: folder.into() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Starts the process. It is killed when the value is dropped.
    ///
    /// # Errors
    /// The program does not start.
    pub fn start(&self) -> Result<Running, TestkitError> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env).current_dir(&self.folder).kill_on_drop(true);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = child.id().ok_or_else(|| TestkitError::Late("the process id".to_owned()))?;
        let (stdout, stderr) = (Lines::of(child.stdout.take()), Lines::of(child.stderr.take()));
        Ok(Running { child, pid, stdout, stderr })
    }
}

/// A process that runs, or did.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: u32,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for a line on standard output that has `part` in it.
    ///
    /// # Errors
    /// The stream ends, or a minute passes, without such a line; the error shows all that was said.
    pub async fn wait_for_line(&mut self, part: &str) -> Result<String, TestkitError> {
        let found = tokio::time::timeout(PATIENCE, self.stdout.find(part)).await.ok().flatten();
        found.ok_or_else(|| TestkitError::Late(format!("`{part}` in\n{}\n{}", self.stdout(), self.stderr())))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// A minute passes.
    pub async fn exit(&mut self) -> Result<ExitStatus, TestkitError> {
        let end = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        Ok(end.map_err(|_| TestkitError::Late(format!("the end of the process\n{}", self.stderr())))??)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill9(&mut self) -> Result<(), TestkitError> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// The system refuses.
    pub fn sigterm(&self) -> Result<(), TestkitError> {
        self.signal("TERM")
    }

    /// Asks it to read its configuration again.
    ///
    /// # Errors
    /// The system refuses.
    pub fn sighup(&self) -> Result<(), TestkitError> {
        self.signal("HUP")
    }

    /// Freezes it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn sigstop(&self) -> Result<(), TestkitError> {
        self.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn sigcont(&self) -> Result<(), TestkitError> {
        self.signal("CONT")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn signal(&self, name: &str) -> Result<(), TestkitError> {
        let mut kill = std::process::Command::new("kill");
        crate::shared::check("kill", kill.args(["-s", name, &self.pid.to_string()])).map(|_| ())
    }
}

/// The lines of a stream as they come.
#[derive(Debug)]
struct Lines {
    seen: Arc<Mutex<Vec<String>>>,
    changed: watch::Receiver<usize>,
}

impl Lines {
    fn of(stream: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (count, changed) = watch::channel(0);
        if let Some(stream) = stream {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    count.send_modify(|count| *count += 1);
                }
            });
        }
        Self { seen, changed }
    }

    fn text(&self) -> String {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    async fn find(&mut self, part: &str) -> Option<String> {
        loop {
            self.changed.borrow_and_update();
            let line = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.iter().find(|line| line.contains(part)).cloned()
            };
            if line.is_some() {
                return line;
            }
            if self.changed.changed().await.is_err() {
                // The stream has ended; what came last was seen above unless it came in between.
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                return seen.iter().find(|line| line.contains(part)).cloned();
            }
        }
    }
}

/// The workspace binary of a name, beside the test that asks (`target/debug/<name>`).
///
/// # Errors
/// It has not been built.
pub fn workspace(name: &str) -> Result<PathBuf, TestkitError> {
    let test = std::env::current_exe()?;
    let found =
        test.ancestors().skip(1).take(3).map(|folder: &Path| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| TestkitError::Late(format!("the binary `{name}` beside {}", test.display())))
}
