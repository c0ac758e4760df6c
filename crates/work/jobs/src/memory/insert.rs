//! Enqueues: all jobs of a call, or none.

use std::collections::{BTreeSet, HashMap};

use runtime_kernel::{Timestamp, Uuid};

use super::links::Group;
use super::{Entry, State, later};
use crate::error::JobsError;
use crate::job::{Enqueued, Job, JobId, JobState};
use crate::links::BatchId;
use crate::store::{Insert, Origin, Progress, limit_name, unique_name};

impl State {
    /// `opened` is a batch to be opened with these jobs.
    pub(super) fn insert(
        &mut self,
        jobs: &[Insert],
        opened: Option<(BatchId, Origin)>,
        now: Timestamp,
    ) -> Result<Vec<Enqueued>, JobsError> {
        let opening = opened.as_ref().map(|(batch, origin)| (*batch, &*origin.tenant));
        let (done, holders) = self.check(jobs, opening, now)?;
        let mut entries = Vec::with_capacity(jobs.len());
        for (insert, done) in jobs.iter().zip(&done).filter(|(_, done)| !done.duplicate) {
            entries.push((insert, Self::entry(insert, now)?));
            debug_assert_eq!(insert.id, done.id);
        }
        let mut decide = BTreeSet::new();
        if let Some((batch, origin)) = opened {
            let tenant = origin.tenant.to_string();
            let group = Group { tenant, batch: true, ..Group::new(now) };
            self.ties.groups.insert(batch.as_uuid(), group);
            decide.insert(batch.as_uuid());
        }
        for (insert, mut entry) in entries {
            let id = insert.id;
            if let Some(key) = &entry.unique {
                let until = insert.job.unique_for.map(|period| later(now, period));
                self.unique.insert(key.clone(), (id, until));
            }
            if let Some(group) = self.wait_for(insert, &holders, &entry.tenant, now) {
                entry.job.state = JobState::Waiting;
                decide.insert(group);
            }
            if let Some(batch) = insert.job.batch.map(BatchId::as_uuid)
                && let Some(group) = self.ties.groups.get_mut(&batch)
            {
                group.total += 1;
                group.open += 1;
                group.changed_at = now;
                group.members.push((id, None));
                self.ties.counted.insert((id, batch));
            }
            self.jobs.insert(id, entry);
        }
        let gone = self.settle(&decide, now);
        self.tell_waiters(gone.into_iter().collect(), now);
        Ok(done)
    }

    /// Finds duplicates, and whatever refuses the call.
    fn check(
        &self,
        jobs: &[Insert],
        opened: Option<(BatchId, &str)>,
        now: Timestamp,
    ) -> Result<(Vec<Enqueued>, HashMap<JobId, JobId>), JobsError> {
        let mut taken: HashMap<String, JobId> = HashMap::new();
        let mut holders: HashMap<JobId, JobId> = HashMap::new();
        let mut earlier = BTreeSet::new();
        let mut done = Vec::with_capacity(jobs.len());
        for Insert { id, job, origin } in jobs {
            let tenant = &*origin.tenant;
            if let Some(key) = job.unique_key.as_ref().map(|key| unique_name(tenant, &job.kind, key)) {
                let in_force =
                    |(_, until): &&(JobId, Option<Timestamp>)| until.is_none_or(|until| until > now);
                let kept = self.unique.get(&key).filter(in_force).map(|(holder, _)| *holder);
                if let Some(holder) = taken.get(&key).copied().or(kept) {
                    holders.insert(*id, holder);
                    done.push(Enqueued { id: holder, duplicate: true });
                    continue;
                }
                taken.insert(key, *id);
            }
            for before in &job.after {
                let before = holders.get(&before.id).copied().unwrap_or(before.id);
                let kept =
                    self.jobs.get(&before).is_some_and(|entry| tenant.is_empty() || entry.tenant == tenant);
                if !kept && !earlier.contains(&before) {
                    return Err(JobsError::NotFound(before));
                }
            }
            for (batch, joins) in [(job.batch, true), (job.after_batch, false)] {
                let Some(batch) = batch.filter(|batch| opened.is_none_or(|(opened, _)| opened != *batch))
                else {
                    continue;
                };
                let group = self.ties.groups.get(&batch.as_uuid()).filter(|group| group.batch);
                let group = group.filter(|group| tenant.is_empty() || group.tenant == tenant);
                let group = group.ok_or(JobsError::NoBatch(batch))?;
                if joins && (group.open == 0 || group.closed) {
                    return Err(JobsError::BatchOver(batch));
                }
            }
            earlier.insert(*id);
            done.push(Enqueued { id: *id, duplicate: false });
        }
        Ok((done, holders))
    }

    /// Lets a job wait, if it is to: says for which group.
    fn wait_for(
        &mut self,
        insert: &Insert,
        holders: &HashMap<JobId, JobId>,
        tenant: &str,
        now: Timestamp,
    ) -> Option<Uuid> {
        let (id, job) = (insert.id, &insert.job);
        let group = if job.after.is_empty() { job.after_batch?.as_uuid() } else { id.as_uuid() };
        self.ties.waits.insert(id, (group, job.trigger));
        if job.after.is_empty() {
            return Some(group);
        }
        let mut own = Group { tenant: tenant.to_owned(), ..Group::new(now) };
        let mut ended = std::collections::BTreeMap::new();
        for before in &job.after {
            let other = holders.get(&before.id).copied().unwrap_or(before.id);
            if !self.ties.counted.insert((other, group)) {
                continue;
            }
            own.members.push((other, before.name.clone()));
            own.open += 1;
            let state = self.jobs.get(&other).map(|entry| entry.job.state);
            if let Some(state) = state.filter(|state| state.is_finished()) {
                ended.insert(other, state);
            }
        }
        own.count(&ended);
        self.ties.groups.insert(group, own);
        Some(group)
    }

    fn entry(insert: &Insert, now: Timestamp) -> Result<Entry, JobsError> {
        let Insert { id, job, origin } = insert;
        let context = serde_json::from_str(&origin.context)
            .map_err(|error| JobsError::Corrupt(format!("an origin: {error}")))?;
        Ok(Entry {
            tenant: origin.tenant.to_string(),
            unique_until_started: job.unique_until_started,
            unique: job.unique_key.as_ref().map(|key| unique_name(&origin.tenant, &job.kind, key)),
            key: job.key.as_ref().map(|key| limit_name(&origin.tenant, key)),
            allowance: job.max_attempts,
            payload: job.payload.to_string(),
            context: origin.context.to_string(),
            fence: 0,
            lease_until: now,
            progress: Progress::default(),
            job: Job {
                id: *id,
                kind: job.kind.clone(),
                queue: job.queue.clone(),
                state: JobState::Available,
                priority: job.priority,
                payload: job.payload.clone(),
                context,
                attempt: 0,
                max_attempts: job.max_attempts,
                timeout: job.timeout,
                created_at: now,
                run_at: job.run_at.unwrap_or(now),
                finished_at: None,
                result: None,
                reason: None,
                cancel_requested: false,
                attempts: Vec::new(),
            },
        })
    }
}
