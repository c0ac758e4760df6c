//! Processes of this program with a role each, to be mistreated: killed and replaced, frozen, told to stop.

use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::{Clock as _, SystemClock};
use runtime_testkit::binary::{Running, Spawn};

use crate::error::WorkcheckError;
use crate::rng::Rng;
use crate::role::Role;

pub(crate) struct Herd {
    program: PathBuf,
    folder: PathBuf,
    members: Vec<(Role, Running)>,
    spawned: u32,
    /// How many were killed.
    pub(crate) killed: usize,
    /// How many were frozen.
    pub(crate) frozen: usize,
}

impl Herd {
    pub(crate) fn new(program: PathBuf, folder: PathBuf) -> Self {
        Self { program, folder, members: Vec::new(), spawned: 0, killed: 0, frozen: 0 }
    }

    pub(crate) fn add(&mut self, role: Role) -> Result<(), WorkcheckError> {
        let running = self.spawn(&role)?;
        self.members.push((role, running));
        Ok(())
    }

    fn spawn(&mut self, role: &Role) -> Result<Running, WorkcheckError> {
        self.spawned += 1;
        let history = self.folder.join(format!("{}-{}.jsonl", role.name(), self.spawned));
        let args = ["member".to_owned(), serde_json::to_string(role)?, history.display().to_string()];
        Ok(Spawn::new(&self.program, &self.folder).args(args).start()?)
    }

    /// `kill -9` of any; another takes its place at once.
    pub(crate) async fn kill(&mut self, rng: &mut Rng) -> Result<(), WorkcheckError> {
        self.kill_one(rng.index(self.members.len())).await
    }

    /// `kill -9` of the one that was added first, or last.
    pub(crate) async fn kill_end(&mut self, last: bool) -> Result<(), WorkcheckError> {
        self.kill_one(if last { self.members.len().saturating_sub(1) } else { 0 }).await
    }

    async fn kill_one(&mut self, victim: usize) -> Result<(), WorkcheckError> {
        let Some((role, _)) = self.members.get(victim) else { return Ok(()) };
        let fresh = self.spawn(&role.clone())?;
        if let Some((_, running)) = self.members.get_mut(victim) {
            self.killed += 1;
            std::mem::replace(running, fresh).kill9().await?;
        }
        Ok(())
    }

    /// Stops one where it is, for so long, and lets it go on as if nothing had been.
    pub(crate) async fn freeze(&mut self, rng: &mut Rng, long: Duration) -> Result<(), WorkcheckError> {
        let victim = rng.index(self.members.len());
        if let Some((_, running)) = self.members.get(victim) {
            self.frozen += 1;
            running.sigstop()?;
            SystemClock.sleep(long).await;
            running.sigcont()?;
        }
        Ok(())
    }

    /// Tells all to stop; those that do not.
    pub(crate) async fn stop(mut self) -> Result<Vec<String>, WorkcheckError> {
        let mut stuck = Vec::new();
        for (_, running) in &self.members {
            running.sigterm()?;
        }
        for (role, running) in &mut self.members {
            if running.exit().await.is_err() {
                stuck.push(format!("{} {}", role.name(), running.pid()));
            }
        }
        Ok(stuck)
    }
}
