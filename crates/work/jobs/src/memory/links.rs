//! Jobs that wait for others, and batches: the same counts the databases keep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime_kernel::{Timestamp, Uuid};

use super::{State, later};
use crate::error::JobsError;
use crate::job::{Failure, JobId, JobState};
use crate::links::{Batch, BatchId, Decision, Links, Prerequisite, Trigger};
use crate::store::{
    Load, PREREQUISITE_FAILED, Retention, nothing_failed, prerequisite_failed, prerequisite_forgotten, rank,
};

/// What counts jobs: a batch, or one job that waits for others, under whose id it is kept.
pub(super) struct Group {
    pub(super) tenant: String,
    pub(super) batch: bool,
    pub(super) total: u64,
    pub(super) open: i64,
    pub(super) dead: i64,
    pub(super) cancelled: i64,
    pub(super) cause: Option<JobId>,
    pub(super) closed: bool,
    pub(super) created_at: Timestamp,
    pub(super) changed_at: Timestamp,
    pub(super) members: Vec<(JobId, Option<String>)>,
}

impl Group {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            tenant: String::new(),
            batch: false,
            total: 0,
            open: 0,
            dead: 0,
            cancelled: 0,
            cause: None,
            closed: false,
            created_at: now,
            changed_at: now,
            members: Vec::new(),
        }
    }

    fn failed(&self) -> i64 {
        self.dead + self.cancelled
    }

    /// Counts jobs that have ended; says whether any has failed.
    pub(super) fn count(&mut self, ended: &BTreeMap<JobId, JobState>) -> bool {
        let mut cause = None;
        for (id, state) in ended {
            self.open -= 1;
            match state {
                JobState::Dead => self.dead += 1,
                JobState::Cancelled => self.cancelled += 1,
                _ => continue,
            }
            cause = cause.or(Some(*id));
        }
        self.cause = self.cause.or(cause);
        cause.is_some()
    }
}

/// Every tie between jobs.
#[derive(Default)]
pub(super) struct Ties {
    pub(super) groups: BTreeMap<Uuid, Group>,
    /// Which groups count a job.
    pub(super) counted: BTreeSet<(JobId, Uuid)>,
    /// Which group a job waits for, or has waited for.
    pub(super) waits: BTreeMap<JobId, (Uuid, Trigger)>,
}

impl Ties {
    fn groups_of(&self, id: JobId) -> impl Iterator<Item = Uuid> + '_ {
        let all = (id, Uuid::nil())..=(id, Uuid::max());
        self.counted.range(all).map(|(_, group)| *group)
    }

    fn by_group(&self, ended: &BTreeMap<JobId, JobState>) -> BTreeMap<Uuid, BTreeMap<JobId, JobState>> {
        let mut groups: BTreeMap<Uuid, BTreeMap<JobId, JobState>> = BTreeMap::new();
        for (id, state) in ended {
            for group in self.groups_of(*id) {
                groups.entry(group).or_default().insert(*id, *state);
            }
        }
        groups
    }

    fn forget(&mut self, id: JobId) {
        self.waits.remove(&id);
        self.forget_group(id.as_uuid());
    }

    fn forget_group(&mut self, id: Uuid) {
        if let Some(group) = self.groups.remove(&id) {
            for (member, _) in group.members {
                self.counted.remove(&(member, id));
            }
        }
    }
}

impl State {
    /// Tells those who wait for jobs that these have ended; and those who wait for them, if that ends them.
    pub(super) fn tell_waiters(&mut self, ended: Vec<(JobId, JobState)>, now: Timestamp) {
        let mut ended: BTreeMap<JobId, JobState> = ended.into_iter().collect();
        while !ended.is_empty() {
            let mut decided = BTreeSet::new();
            for (id, ended) in self.ties.by_group(&ended) {
                let Some(group) = self.ties.groups.get_mut(&id) else { continue };
                group.changed_at = now;
                if group.count(&ended) || group.open == 0 {
                    decided.insert(id);
                }
            }
            ended = self.settle(&decided, now);
        }
    }

    /// Lets go or cancels what waits for these groups, by their counts; says which were cancelled.
    pub(super) fn settle(&mut self, groups: &BTreeSet<Uuid>, now: Timestamp) -> BTreeMap<JobId, JobState> {
        let (mut run, mut cancel) = (Vec::new(), BTreeMap::new());
        for (job, (id, trigger)) in &self.ties.waits {
            let Some(group) = self.ties.groups.get(id).filter(|_| groups.contains(id)) else { continue };
            match trigger.decide(group.open, group.failed()) {
                Decision::Wait => {}
                Decision::Run => run.push(*job),
                Decision::Failed => {
                    let cause = group.cause.unwrap_or_else(|| JobId::from(*id));
                    cancel.insert(*job, prerequisite_failed(cause));
                }
                Decision::Spared => {
                    cancel.insert(*job, nothing_failed());
                }
            }
        }
        for id in run {
            if let Some(entry) = self.jobs.get_mut(&id).filter(|entry| entry.job.state == JobState::Waiting) {
                let at = entry.job.run_at.max(now);
                entry.wait(at);
            }
        }
        self.give_up(cancel, now)
    }

    /// Cancels jobs that never can run.
    fn give_up(&mut self, jobs: BTreeMap<JobId, Failure>, now: Timestamp) -> BTreeMap<JobId, JobState> {
        let mut gone = BTreeMap::new();
        for (id, reason) in jobs {
            if let Some(entry) = self.jobs.get_mut(&id).filter(|entry| entry.job.state == JobState::Waiting) {
                entry.finish(now, JobState::Cancelled);
                entry.job.reason = Some(reason);
                gone.insert(id, JobState::Cancelled);
                self.free(id);
            }
        }
        gone
    }

    /// Counts redriven jobs as open again, and lets those wait again that were cancelled because one of them had failed.
    pub(super) fn reopen(&mut self, back: &[JobId], now: Timestamp) {
        let mut reopened: BTreeMap<JobId, JobState> = back.iter().map(|id| (*id, JobState::Dead)).collect();
        while !reopened.is_empty() {
            let mut whole = BTreeSet::new();
            for (id, states) in self.ties.by_group(&reopened) {
                let Some(group) = self.ties.groups.get_mut(&id) else { continue };
                for state in states.values() {
                    group.open += 1;
                    match state {
                        JobState::Dead => group.dead -= 1,
                        _ => group.cancelled -= 1,
                    }
                }
                group.changed_at = now;
                if group.failed() == 0 {
                    group.cause = None;
                    whole.insert(id);
                }
            }
            let waits = self.ties.waits.iter();
            let candidates: Vec<JobId> = waits
                .filter(|(_, (group, trigger))| whole.contains(group) && *trigger == Trigger::Completed)
                .map(|(job, _)| *job)
                .collect();
            reopened = BTreeMap::new();
            for id in candidates {
                let by_failure = self.jobs.get(&id).is_some_and(|entry| {
                    entry.job.state == JobState::Cancelled
                        && entry.job.reason.as_ref().is_some_and(|reason| reason.code == PREREQUISITE_FAILED)
                });
                if by_failure && self.take_again(id, now) {
                    if let Some(entry) = self.jobs.get_mut(&id) {
                        entry.job.state = JobState::Waiting;
                        entry.job.finished_at = None;
                        entry.job.reason = None;
                    }
                    reopened.insert(id, JobState::Cancelled);
                }
            }
        }
    }

    /// Whether a finished job must be kept, because one that waited for it has not ended.
    pub(super) fn is_awaited(&self, id: JobId) -> bool {
        self.ties.groups_of(id).any(|group| {
            self.ties.groups.get(&group).is_some_and(|group| !group.batch)
                && self.jobs.get(&JobId::from(group)).is_some_and(|entry| !entry.job.state.is_finished())
        })
    }

    /// Forgets the links of jobs that are forgotten; what has waited for one of them to be redriven has waited in vain.
    pub(super) fn forget_links(&mut self, gone: &BTreeMap<JobId, JobState>, now: Timestamp) {
        let failed = gone.iter().filter(|(_, state)| **state != JobState::Completed);
        let mut vain = BTreeMap::new();
        for (group, ended) in self.ties.by_group(&failed.map(|(id, state)| (*id, *state)).collect()) {
            let Some((cause, _)) = ended.first_key_value() else { continue };
            for (job, (awaited, trigger)) in &self.ties.waits {
                if *awaited == group && *trigger == Trigger::Eventually {
                    vain.insert(*job, prerequisite_forgotten(*cause));
                }
            }
        }
        let told = self.give_up(vain, now);
        self.tell_waiters(told.into_iter().collect(), now);
        for id in gone.keys() {
            self.ties.forget(*id);
        }
    }

    /// Forgets batches that have been over for longer than anything of them may still be redriven.
    pub(super) fn forget_batches(&mut self, retention: &Retention, now: Timestamp) {
        let Some(keep) = retention.longest() else { return };
        let waited_for = |id: &Uuid| {
            self.ties.waits.iter().any(|(job, (group, _))| {
                group == id && self.jobs.get(job).is_some_and(|entry| entry.job.state == JobState::Waiting)
            })
        };
        let old: Vec<Uuid> = self
            .ties
            .groups
            .iter()
            .filter(|(_, group)| group.batch && group.open == 0 && later(group.changed_at, keep) < now)
            .map(|(id, _)| *id)
            .filter(|id| !waited_for(id))
            .collect();
        for id in old {
            self.ties.forget_group(id);
        }
    }

    pub(super) fn batch(&self, id: BatchId, tenant: Option<&str>) -> Option<Batch> {
        let group = self.ties.groups.get(&id.as_uuid()).filter(|group| group.batch)?;
        if tenant.is_some_and(|tenant| tenant != group.tenant) {
            return None;
        }
        let number = |count: i64| u64::try_from(count).unwrap_or_default();
        Some(Batch {
            id,
            total: group.total,
            open: number(group.open),
            completed: group.total.saturating_sub(number(group.open + group.failed())),
            dead: number(group.dead),
            cancelled: number(group.cancelled),
            cause: group.cause,
            closed: group.closed,
            created_at: group.created_at,
        })
    }

    pub(super) fn cancel_batch(
        &mut self,
        id: BatchId,
        tenant: Option<&str>,
        max: u32,
        now: Timestamp,
    ) -> Result<u64, JobsError> {
        self.batch(id, tenant).ok_or(JobsError::NoBatch(id))?;
        let Some(group) = self.ties.groups.get_mut(&id.as_uuid()) else { return Ok(0) };
        group.closed = true;
        let members: BTreeSet<JobId> = group.members.iter().map(|(id, _)| *id).collect();
        let mut ended = Vec::new();
        for id in &members {
            if ended.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
                break;
            }
            let Some(entry) = self.jobs.get_mut(id) else { continue };
            if matches!(entry.job.state, JobState::Waiting | JobState::Available) {
                entry.finish(now, JobState::Cancelled);
                ended.push((*id, JobState::Cancelled));
                self.free(*id);
            }
        }
        let mut count = ended.len() as u64;
        self.tell_waiters(ended, now);
        if count == 0 {
            for id in members {
                let running = |entry: &&mut super::Entry| entry.job.state == JobState::Running;
                if let Some(entry) = self.jobs.get_mut(&id).filter(running) {
                    count += u64::from(!std::mem::replace(&mut entry.job.cancel_requested, true));
                }
            }
        }
        Ok(count)
    }

    pub(super) fn links(&self, id: JobId) -> Links {
        let mut links = Links::default();
        let own = self.ties.groups.get(&id.as_uuid());
        for (member, name) in own.into_iter().flat_map(|group| &group.members) {
            let job = self.jobs.get(member).map(|entry| &entry.job).filter(|job| job.state.is_finished());
            let failure = job.filter(|job| job.state != JobState::Completed).and_then(|job| {
                let last = job.attempts.last().and_then(|attempt| attempt.error.clone());
                job.reason.clone().or(last.filter(|_| job.state == JobState::Dead))
            });
            links.after.push(Prerequisite {
                id: *member,
                name: name.clone(),
                state: job.map(|job| job.state),
                result: job.and_then(|job| job.result.clone()),
                failure,
            });
        }
        let is_batch = |id: &Uuid| self.ties.groups.get(id).is_some_and(|group| group.batch);
        let awaited = self.ties.waits.get(&id).map(|(group, _)| *group);
        links.after_batch = awaited.filter(is_batch).map(BatchId::from);
        links.batch = self.ties.groups_of(id).find(is_batch).map(BatchId::from);
        links
    }

    /// How much of a queue waits.
    pub(super) fn load(&self, queue: &str, most: u64, now: Timestamp, ageing: Duration) -> Load {
        let mut depth = 0_u64;
        let mut heads: BTreeMap<&str, (i64, Timestamp)> = BTreeMap::new();
        for entry in self.jobs.values() {
            let job = &entry.job;
            if job.queue != queue || job.state != JobState::Available || job.run_at > now {
                continue;
            }
            depth += 1;
            let head = (rank(job.run_at.as_microsecond(), job.priority, ageing), job.run_at);
            let first = heads.entry(&job.kind).or_insert(head);
            *first = head.min(*first);
        }
        let age = heads.values().map(|(_, at)| now.duration_since(*at)).max();
        Load { depth: depth.min(most.saturating_add(1)), age: age.unwrap_or_default() }
    }
}
