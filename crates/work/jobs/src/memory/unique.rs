//! Unique keys: taken by a job, given up when it ends or when their period is over.

use runtime_kernel::Timestamp;

use super::State;
use crate::job::{JobId, JobState};

impl State {
    /// Frees the unique key of a job that finished, unless it was taken for a period.
    pub(super) fn free(&mut self, id: JobId) {
        if let Some(key) = self.jobs.get(&id).and_then(|entry| entry.unique.clone())
            && self.unique.get(&key).is_some_and(|(holder, until)| *holder == id && until.is_none())
        {
            self.unique.remove(&key);
        }
    }

    /// Takes the unique key of a finished job again; says whether it could.
    pub(super) fn take_again(&mut self, id: JobId, now: Timestamp) -> bool {
        let Some(key) = self.jobs.get(&id).and_then(|entry| entry.unique.clone()) else { return true };
        let in_force = |(_, until): &&(JobId, Option<Timestamp>)| until.is_none_or(|until| until > now);
        if let Some((holder, _)) = self.unique.get(&key).filter(in_force) {
            return *holder == id;
        }
        self.unique.insert(key, (id, None));
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.unique_until_started = false;
        }
        true
    }

    /// Frees it if the job has finished; says how it did.
    pub(super) fn free_if_finished(&mut self, id: JobId) -> Option<(JobId, JobState)> {
        let state = self.jobs.get(&id)?.job.state;
        state.is_finished().then(|| {
            self.free(id);
            (id, state)
        })
    }
}
