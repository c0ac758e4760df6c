//! Schedules in this process: for tests, and for services without a database.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{SharedClock, Timestamp};

use crate::catch_up::CatchUp;
use crate::error::CronError;
use crate::store::{
    Candidate, Claim, ClaimedTick, Decision, Filter, Key, LOST, Look, OVERLAPPED, Put, Ready, ScheduleStore,
    Stored, TickRecord, TickState, Verdict, decide, missed_note, namespace, same_times,
};
use crate::timetable::jitter;

/// Schedules in memory. They are gone when the process is. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct MemoryStore {
    clock: SharedClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    schedules: BTreeMap<Key, Stored>,
    ticks: BTreeMap<(Key, i64), Row>,
    leader: Option<(String, Timestamp)>,
    fence: u64,
}

#[derive(Clone)]
struct Row {
    tick: TickRecord,
    fence: u64,
    lease_until: Timestamp,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store on a clock.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    fn open(&self) -> (MutexGuard<'_, State>, Timestamp) {
        (self.state.lock().unwrap_or_else(PoisonError::into_inner), self.clock.utc())
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(at.as_microsecond().saturating_add(micros)).unwrap_or(at)
}

fn new_tick(fire_time: Timestamp, due: Timestamp, manual: bool) -> Row {
    let state = TickState::Pending;
    let tick = TickRecord {
        fire_time,
        state,
        due,
        attempt: 0,
        manual,
        fired_at: None,
        finished_at: None,
        note: None,
    };
    Row { tick, fence: 0, lease_until: Timestamp::UNIX_EPOCH }
}

impl State {
    fn of(&self, key: &Key) -> impl DoubleEndedIterator<Item = (&(Key, i64), &Row)> {
        self.ticks.range((key.clone(), i64::MIN)..=(key.clone(), i64::MAX))
    }

    fn end(&mut self, key: &Key, at: i64, state: TickState, now: Timestamp, note: Option<String>) {
        if let Some(row) = self.ticks.get_mut(&(key.clone(), at)) {
            row.tick.state = state;
            row.tick.finished_at = Some(now);
            row.tick.note = note;
        }
        let keep = self.schedules.get(key).map_or(0, |stored| stored.schedule.keep as usize);
        let finished = self.of(key).rev().filter(|(_, row)| row.tick.state.is_finished());
        let old: Vec<_> = finished.skip(keep).map(|(id, _)| id.clone()).collect();
        for id in old {
            self.ticks.remove(&id);
        }
    }

    fn held(&mut self, claimed: &ClaimedTick) -> Option<&mut Row> {
        let row = self.ticks.get_mut(&(claimed.key.clone(), claimed.fire_time.as_microsecond()))?;
        (row.tick.state == TickState::Running && row.fence == claimed.fence).then_some(row)
    }
}

#[async_trait]
impl ScheduleStore for MemoryStore {
    async fn put(&self, put: Put) -> Result<Stored, CronError> {
        let (mut state, now) = self.open();
        let key = Key { tenant: namespace(&put.context), name: put.schedule.name.clone() };
        let timetable = put.schedule.check(&key.tenant)?;
        let old = state.schedules.get(&key);
        let found = old.map_or(0, |old| old.revision);
        if let Some(expected) = put.expected.filter(|expected| *expected != found) {
            return Err(CronError::Changed { schedule: key.to_string(), expected, found });
        }
        if let Some(old) = old.filter(|old| old.schedule == put.schedule && old.origin == put.origin) {
            return Ok(old.clone());
        }
        let same_tenant = state.schedules.keys().filter(|other| other.tenant == key.tenant).count();
        if found == 0 && same_tenant >= put.limit as usize {
            return Err(CronError::Full(put.limit));
        }
        let next = match old {
            Some(old) if same_times(&old.schedule, &put.schedule) => old.next,
            _ => timetable.next_after(now),
        };
        let stored = Stored {
            key: key.clone(),
            paused: old.is_some_and(|old| old.paused),
            schedule: put.schedule,
            revision: found + 1,
            origin: put.origin,
            context: put.context,
            next,
        };
        state.schedules.insert(key, stored.clone());
        Ok(stored)
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, CronError> {
        Ok(self.open().0.schedules.get(key).cloned())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Stored>, CronError> {
        let (state, _) = self.open();
        let wanted = |stored: &&Stored| {
            filter.tenant.as_ref().is_none_or(|tenant| *tenant == stored.key.tenant)
                && filter.origin.is_none_or(|origin| origin == stored.origin)
                && filter.after.as_ref().is_none_or(|after| stored.key > *after)
        };
        Ok(state.schedules.values().filter(wanted).take(filter.limit as usize).cloned().collect())
    }

    async fn remove(&self, key: &Key) -> Result<bool, CronError> {
        let (mut state, _) = self.open();
        let ticks: Vec<_> = state.of(key).map(|(id, _)| id.clone()).collect();
        for id in ticks {
            state.ticks.remove(&id);
        }
        Ok(state.schedules.remove(key).is_some())
    }

    async fn pause(&self, key: &Key, paused: bool) -> Result<Stored, CronError> {
        let (mut state, now) = self.open();
        let stored = state.schedules.get_mut(key).ok_or_else(|| CronError::NotFound(key.name.clone()))?;
        if stored.paused != paused {
            if !paused {
                stored.next = stored.schedule.timetable(&key.tenant)?.next_after(now);
            }
            stored.paused = paused;
            stored.revision += 1;
        }
        Ok(stored.clone())
    }

    async fn trigger(&self, key: &Key) -> Result<Timestamp, CronError> {
        let (mut state, now) = self.open();
        if !state.schedules.contains_key(key) {
            return Err(CronError::NotFound(key.name.clone()));
        }
        let mut at = now;
        while state.ticks.contains_key(&(key.clone(), at.as_microsecond())) {
            at = later(at, Duration::from_micros(1));
        }
        state.ticks.insert((key.clone(), at.as_microsecond()), new_tick(at, now, true));
        Ok(at)
    }

    async fn history(&self, key: &Key, limit: u32) -> Result<Vec<TickRecord>, CronError> {
        let (state, _) = self.open();
        Ok(state.of(key).rev().take(limit as usize).map(|(_, row)| row.tick.clone()).collect())
    }

    async fn lead(&self, holder: &str, lease: Duration) -> Result<Option<u64>, CronError> {
        let (mut state, now) = self.open();
        match &state.leader {
            Some((other, until)) if other != holder && *until >= now => return Ok(None),
            Some((same, until)) if same == holder && *until >= now => {}
            _ => state.fence += 1,
        }
        state.leader = Some((holder.to_owned(), later(now, lease)));
        Ok(Some(state.fence))
    }

    async fn resign(&self, holder: &str) -> Result<(), CronError> {
        let (mut state, _) = self.open();
        if state.leader.as_ref().is_some_and(|(leader, _)| leader == holder) {
            state.leader = None;
        }
        Ok(())
    }

    async fn look(&self, max: u32) -> Result<Look, CronError> {
        let (state, now) = self.open();
        let live = state.schedules.values().filter(|stored| !stored.paused);
        let planned = live.filter_map(|stored| stored.next.map(|next| (next, stored)));
        let (mut due, later): (Vec<_>, Vec<_>) = planned.partition(|(next, _)| *next <= now);
        due.sort_by_key(|(next, stored)| (*next, &stored.key));
        let mut ready = Vec::new();
        let mut wait: Option<Timestamp> = later.into_iter().map(|(next, _)| next).min();
        for ((key, _), row) in &state.ticks {
            let at = match row.tick.state {
                TickState::Pending => row.tick.due,
                TickState::Running => row.lease_until,
                _ => continue,
            };
            if (row.tick.state == TickState::Pending && at <= now) || at < now {
                let Some(stored) = state.schedules.get(key) else { continue };
                let (fire_time, action) = (row.tick.fire_time, stored.schedule.action.clone());
                ready.push(Ready { fire_time, key: key.clone(), action });
            } else {
                wait = Some(wait.map_or(at, |wait| wait.min(at)));
            }
        }
        ready.sort();
        let max = max as usize;
        Ok(Look {
            due: due.into_iter().take(max).map(|(_, stored)| stored.clone()).collect(),
            ready: ready.into_iter().take(max).collect(),
            now,
            wait: wait.map(|at| {
                Duration::from_micros(at.as_microsecond().saturating_sub(now.as_microsecond()).unsigned_abs())
            }),
        })
    }

    async fn advance(&self, leader: u64, seen: &Stored, plan: &CatchUp) -> Result<bool, CronError> {
        let (mut state, now) = self.open();
        let leads = state.fence == leader && state.leader.as_ref().is_some_and(|(_, until)| *until >= now);
        let Some(stored) = state.schedules.get_mut(&seen.key) else { return Ok(false) };
        if !leads || stored.revision != seen.revision || stored.next != seen.next || stored.paused {
            return Ok(false);
        }
        stored.next = plan.next;
        let (name, most) = (seen.key.to_string(), seen.schedule.jitter);
        for fire_time in &plan.fire {
            let due = later(*fire_time, jitter(&name, *fire_time, most));
            let id = (seen.key.clone(), fire_time.as_microsecond());
            state.ticks.entry(id).or_insert_with(|| new_tick(*fire_time, due, false));
        }
        if let Some(first) = seen.next.filter(|_| plan.missed > 0) {
            let id = (seen.key.clone(), first.as_microsecond());
            if let std::collections::btree_map::Entry::Vacant(e) = state.ticks.entry(id) {
                e.insert(new_tick(first, first, false));
                let note = Some(missed_note(plan.missed));
                state.end(&seen.key, first.as_microsecond(), TickState::Missed, now, note);
            }
        }
        Ok(true)
    }

    async fn claim(&self, key: &Key, fire_time: Timestamp, lease: Duration) -> Result<Claim, CronError> {
        let (mut state, now) = self.open();
        let id = (key.clone(), fire_time.as_microsecond());
        let (Some(stored), Some(row)) = (state.schedules.get(key).cloned(), state.ticks.get(&id).cloned())
        else {
            return Ok(Claim::Taken);
        };
        let lost = row.tick.state == TickState::Running && row.lease_until < now;
        if !lost && (row.tick.state != TickState::Pending || row.tick.due > now) {
            return Ok(Claim::Taken);
        }
        let mut candidate = Candidate { attempt: row.tick.attempt, lost, begun: 0, earlier: 0, waiting: 0 };
        for ((_, at), other) in
            state.of(key).filter(|(other, row)| **other != id && !row.tick.state.is_finished())
        {
            candidate.begun += u32::from(other.tick.attempt > 0);
            candidate.earlier += u32::from(*at < id.1);
            candidate.waiting += u32::from(*at < id.1 && other.tick.attempt == 0);
        }
        match decide(&stored.schedule, candidate) {
            Decision::Wait => return Ok(Claim::Waits),
            Decision::Skip => {
                state.end(key, id.1, TickState::Skipped, now, Some(OVERLAPPED.to_owned()));
                return Ok(Claim::Skipped);
            }
            Decision::GiveUp => {
                state.end(key, id.1, TickState::Failed, now, Some(LOST.to_owned()));
                return Ok(Claim::Lost);
            }
            Decision::Run => {}
        }
        let Some(row) = state.ticks.get_mut(&id) else { return Ok(Claim::Taken) };
        row.tick.state = TickState::Running;
        row.tick.attempt += 1;
        row.tick.fired_at = Some(now);
        row.fence += 1;
        row.lease_until = later(now, lease);
        Ok(Claim::Claimed(Box::new(ClaimedTick {
            key: key.clone(),
            fire_time,
            stored,
            fired_at: now,
            attempt: row.tick.attempt,
            fence: row.fence,
            manual: row.tick.manual,
        })))
    }

    async fn extend(&self, claimed: &ClaimedTick, lease: Duration) -> Result<bool, CronError> {
        let (mut state, now) = self.open();
        let Some(row) = state.held(claimed).filter(|row| row.lease_until >= now) else { return Ok(false) };
        row.lease_until = later(now, lease);
        Ok(true)
    }

    async fn finish(&self, claimed: &ClaimedTick, verdict: Verdict) -> Result<bool, CronError> {
        let (mut state, now) = self.open();
        let Some(row) = state.held(claimed) else { return Ok(false) };
        let (ended, note) = match verdict {
            Verdict::Done => (TickState::Done, None),
            Verdict::Skipped(note) => (TickState::Skipped, Some(note)),
            Verdict::Failed(note) => (TickState::Failed, Some(note)),
            Verdict::Retry(delay, note) => {
                row.tick.state = TickState::Pending;
                row.tick.due = later(now, delay);
                row.tick.note = Some(note);
                return Ok(true);
            }
            Verdict::Waits(delay) => {
                row.tick.state = TickState::Pending;
                row.tick.due = later(now, delay);
                row.tick.attempt = row.tick.attempt.saturating_sub(1);
                return Ok(true);
            }
        };
        state.end(&claimed.key, claimed.fire_time.as_microsecond(), ended, now, note);
        Ok(true)
    }
}
