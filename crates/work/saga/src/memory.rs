//! Sagas in this process's memory: for tests, and for what may be forgotten when the process ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{SharedClock, Timestamp};

use crate::change;
use crate::error::SagaError;
use crate::instance::{Asked, Instance, ParkReason, SagaId, Status, kind_of};
use crate::journal::Entry;
use crate::store::{
    Beat, ClaimRequest, Claimed, Claims, Filter, NewInstance, NewSignal, Remedy, SagaStore, Settle, Signal,
    check,
};

/// Sagas in memory.
#[derive(Debug)]
pub struct MemorySagas {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<SagaId, Row>,
    keys: HashMap<(String, String, String), SagaId>,
}

#[derive(Debug)]
struct Row {
    instance: Instance,
    journal: Vec<Entry>,
    signals: Vec<Signal>,
}

impl MemorySagas {
    /// None yet.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&mut self, tenant: &str, id: SagaId) -> Result<&mut Row, SagaError> {
        let row = self.rows.get_mut(&id).filter(|row| row.instance.tenant == tenant);
        row.ok_or(SagaError::NotFound(id))
    }

    fn held(&mut self, id: SagaId, fence: u64) -> Result<&mut Row, SagaError> {
        let held = |row: &&mut Row| row.instance.fence == fence && row.instance.worker.is_some();
        self.rows.get_mut(&id).filter(held).ok_or(SagaError::LeaseLost(id))
    }

    fn due(&self, kinds: &[String]) -> Vec<(Timestamp, SagaId)> {
        let known = |row: &&Row| kinds.contains(&kind_of(&row.instance.name, row.instance.version));
        let due = |row: &Row| Some((row.instance.due_at?, row.instance.id));
        let mut due: Vec<_> = self.rows.values().filter(known).filter_map(due).collect();
        due.sort();
        due
    }
}

#[async_trait]
impl SagaStore for MemorySagas {
    async fn start(&self, new: &NewInstance) -> Result<SagaId, SagaError> {
        let mut state = self.lock();
        if let Some(key) = &new.key {
            let key = (new.tenant.clone(), new.name.clone(), key.clone());
            if let Some(id) = state.keys.get(&key) {
                return Ok(*id);
            }
            state.keys.insert(key, new.id);
        }
        let instance = change::begin(new, self.clock.utc());
        state.rows.insert(new.id, Row { instance, journal: Vec::new(), signals: Vec::new() });
        Ok(new.id)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Claims, SagaError> {
        let (mut state, now) = (self.lock(), self.clock.utc());
        let due = state.due(&request.kinds);
        let mut claimed = Vec::new();
        for (_, id) in due.into_iter().take_while(|(at, _)| *at <= now) {
            if claimed.len() >= usize::try_from(request.max).unwrap_or(usize::MAX) {
                break;
            }
            let Some(row) = state.rows.get_mut(&id) else { continue };
            change::claim(&mut row.instance, &request.worker, now.saturating_add(request.lease));
            claimed.push(Claimed {
                instance: row.instance.clone(),
                journal: row.journal.clone(),
                signals: row.signals.clone(),
            });
        }
        let next = state.due(&request.kinds).first().map(|(at, _)| *at).filter(|at| *at > now);
        Ok(Claims { now, claimed, next })
    }

    async fn append(&self, id: SagaId, fence: u64, entry: &Entry) -> Result<(), SagaError> {
        let mut state = self.lock();
        let row = state.held(id, fence)?;
        if row.journal.last().map_or(0, |last| last.seq) + 1 != entry.seq {
            return Err(SagaError::LeaseLost(id));
        }
        row.journal.push(entry.clone());
        Ok(())
    }

    async fn settle(&self, id: SagaId, fence: u64, settle: &Settle) -> Result<(), SagaError> {
        let (mut state, now) = (self.lock(), self.clock.utc());
        change::settle(&mut state.held(id, fence)?.instance, settle, now);
        Ok(())
    }

    async fn heartbeat(
        &self,
        worker: &str,
        held: &[SagaId],
        lease: Duration,
    ) -> Result<Vec<Beat>, SagaError> {
        let (mut state, until) = (self.lock(), self.clock.utc().saturating_add(lease));
        let mut beats = Vec::new();
        for id in held {
            let Some(row) = state.rows.get_mut(id) else { continue };
            let instance = &mut row.instance;
            if instance.worker.as_deref() == Some(worker) {
                instance.due_at = Some(until);
                let cancel = instance.cancel.clone();
                beats.push(Beat { id: *id, fence: instance.fence, pokes: instance.pokes, cancel });
            }
        }
        Ok(beats)
    }

    async fn signal(
        &self,
        tenant: &str,
        id: SagaId,
        signal: &NewSignal,
        most: u64,
    ) -> Result<bool, SagaError> {
        let (mut state, now) = (self.lock(), self.clock.utc());
        let row = state.of(tenant, id)?;
        if signal.id.is_some() && row.signals.iter().any(|known| known.id == signal.id) {
            return Ok(false);
        }
        check(id, row.instance.status, "signalled", !row.instance.status.is_over())?;
        let number = row.signals.len() as u64 + 1;
        if number > most {
            return Err(SagaError::TooManySignals { id, limit: most });
        }
        let NewSignal { name, id, payload } = signal.clone();
        row.signals.push(Signal { number, name, id, payload, at: now });
        change::poke(&mut row.instance, now);
        Ok(true)
    }

    async fn signals(&self, id: SagaId, after: u64) -> Result<Vec<Signal>, SagaError> {
        let state = self.lock();
        let signals = state.rows.get(&id).map(|row| row.signals.as_slice()).unwrap_or_default();
        Ok(signals.iter().filter(|signal| signal.number > after).cloned().collect())
    }

    async fn cancel(&self, tenant: &str, id: SagaId, asked: &Asked) -> Result<(), SagaError> {
        let (mut state, now) = (self.lock(), self.clock.utc());
        change::cancel(&mut state.of(tenant, id)?.instance, asked, now)
    }

    async fn remedy(&self, tenant: &str, id: SagaId, remedy: Remedy, asked: &Asked) -> Result<(), SagaError> {
        let (mut state, now) = (self.lock(), self.clock.utc());
        let row = state.of(tenant, id)?;
        let last = row.journal.last().map_or(0, |entry| entry.seq);
        row.journal.push(change::remedy(&mut row.instance, remedy, asked, last, now)?);
        Ok(())
    }

    async fn get(&self, tenant: &str, id: SagaId) -> Result<Option<Instance>, SagaError> {
        Ok(self.lock().of(tenant, id).ok().map(|row| row.instance.clone()))
    }

    async fn journal(&self, id: SagaId, after: u64, limit: u32) -> Result<Vec<Entry>, SagaError> {
        let state = self.lock();
        let journal = state.rows.get(&id).map(|row| row.journal.as_slice()).unwrap_or_default();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(journal.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Instance>, SagaError> {
        let fits = |instance: &&Instance| {
            filter.tenant.as_ref().is_none_or(|tenant| *tenant == instance.tenant)
                && filter.name.as_ref().is_none_or(|name| *name == instance.name)
                && filter.status.is_none_or(|status| status == instance.status)
                && (filter.key.is_none() || filter.key == instance.key)
                && filter.before.is_none_or(|before| instance.id < before)
        };
        let limit = usize::try_from(filter.page()).unwrap_or(usize::MAX);
        let state = self.lock();
        let newest_first = state.rows.values().rev().map(|row| &row.instance);
        Ok(newest_first.filter(fits).take(limit).cloned().collect())
    }

    async fn parked(&self) -> Result<u64, SagaError> {
        let state = self.lock();
        Ok(state.rows.values().filter(|row| row.instance.status == Status::Parked).count() as u64)
    }

    async fn park_unregistered(&self, kinds: &[String], after: Duration, max: u32) -> Result<u64, SagaError> {
        let (mut state, now) = (self.lock(), self.clock.utc());
        let mut parked = 0;
        for row in state.rows.values_mut() {
            let instance = &mut row.instance;
            let kind = kind_of(&instance.name, instance.version);
            let late = instance.due_at.is_some_and(|at| at <= now.saturating_sub(after));
            if late && instance.parked.is_none() && !kinds.contains(&kind) && parked < u64::from(max) {
                instance.status = Status::Parked;
                instance.parked = Some(ParkReason::Unregistered { kind });
                instance.worker = None;
                parked += 1;
            }
        }
        Ok(parked)
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, SagaError> {
        let (mut state, before) = (self.lock(), self.clock.utc().saturating_sub(keep));
        let over = |row: &&Row| row.instance.ended_at.is_some_and(|at| at <= before);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let ids: Vec<_> = state.rows.values().filter(over).map(|row| row.instance.id).take(max).collect();
        for id in &ids {
            state.rows.remove(id);
        }
        state.keys.retain(|_, id| !ids.contains(id));
        Ok(ids.len() as u64)
    }
}
