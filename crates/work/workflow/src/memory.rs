//! Workflows in memory: for tests and for what may be forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use runtime_kernel::{SharedClock, Timestamp};

use crate::definition::{Definition, Version, VersionState};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{Change, Due, InstanceFilter, Loaded, Standing, VersionFilter, WorkflowStore, page};
use crate::task::Task;

/// Workflows that end with the process.
#[derive(Debug)]
pub struct MemoryWorkflows {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    versions: BTreeMap<(String, String, u32), Version>,
    instances: BTreeMap<(String, InstanceId), Row>,
    /// Which instance decides about an entity.
    active: HashMap<(String, String, String), InstanceId>,
}

#[derive(Debug)]
struct Row {
    definition: Arc<Definition>,
    instance: Instance,
    events: Vec<Event>,
    actions: HashMap<String, String>,
}

impl MemoryWorkflows {
    /// An empty store by this clock.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entity(instance: &Instance) -> (String, String, String) {
    (instance.tenant.clone(), instance.entity_type.clone(), instance.entity_id.clone())
}

fn fits<T: PartialEq>(wanted: Option<&T>, is: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == is)
}

#[async_trait]
impl WorkflowStore for MemoryWorkflows {
    async fn now(&self) -> Result<Timestamp, WorkflowError> {
        Ok(self.clock.utc())
    }

    async fn add_version(&self, tenant: &str, version: &Version) -> Result<bool, WorkflowError> {
        let key = (tenant.to_owned(), version.definition.code.clone(), version.number);
        let mut state = self.state();
        if state.versions.contains_key(&key) {
            return Ok(false);
        }
        state.versions.insert(key, version.clone());
        Ok(true)
    }

    async fn versions(&self, tenant: &str, filter: &VersionFilter) -> Result<Vec<Version>, WorkflowError> {
        let state = self.state();
        let mut found: Vec<Version> = state
            .versions
            .iter()
            .filter(|((owner, code, _), version)| {
                owner == tenant
                    && fits(filter.code.as_ref(), code)
                    && fits(filter.entity_type.as_ref(), &version.definition.entity_type)
                    && fits(filter.state.as_ref(), &version.state)
            })
            .map(|(_, version)| version.clone())
            .collect();
        found.sort_by(|a, b| (&a.definition.code, b.number).cmp(&(&b.definition.code, a.number)));
        Ok(found)
    }

    async fn set_state(
        &self,
        tenant: &str,
        code: &str,
        number: u32,
        from: VersionState,
        to: VersionState,
    ) -> Result<bool, WorkflowError> {
        let mut state = self.state();
        let key = (tenant.to_owned(), code.to_owned(), number);
        if state.versions.get(&key).is_none_or(|version| version.state != from) {
            return Ok(false);
        }
        for ((owner, other, nth), version) in &mut state.versions {
            if owner == tenant && other == code {
                if *nth == number {
                    version.state = to;
                } else if to == VersionState::Active && version.state == VersionState::Active {
                    version.state = VersionState::Deprecated;
                }
            }
        }
        Ok(true)
    }

    async fn create(
        &self,
        definition: &Definition,
        change: &Change,
    ) -> Result<Option<InstanceId>, WorkflowError> {
        let mut state = self.state();
        let entity = entity(&change.instance);
        if let Some(other) = state.active.get(&entity) {
            return Ok(Some(*other));
        }
        let id = change.instance.id;
        if !change.instance.status.is_end() {
            state.active.insert(entity, id);
        }
        let mark = change.mark.clone().map(|mark| (mark.id, mark.fingerprint));
        let row = Row {
            definition: Arc::new(definition.clone()),
            instance: change.instance.clone(),
            events: change.events.clone(),
            actions: mark.into_iter().collect(),
        };
        state.instances.insert((change.instance.tenant.clone(), id), row);
        Ok(None)
    }

    async fn load(
        &self,
        tenant: &str,
        id: InstanceId,
        action: Option<&str>,
    ) -> Result<Option<Loaded>, WorkflowError> {
        let now = self.clock.utc();
        let state = self.state();
        Ok(state.instances.get(&(tenant.to_owned(), id)).map(|row| Loaded {
            definition: Arc::clone(&row.definition),
            instance: row.instance.clone(),
            done: action.and_then(|action| row.actions.get(action).cloned()),
            now,
        }))
    }

    async fn commit(&self, change: &Change) -> Result<bool, WorkflowError> {
        let mut state = self.state();
        let instance = &change.instance;
        let Some(row) = state.instances.get_mut(&(instance.tenant.clone(), instance.id)) else {
            return Ok(false);
        };
        if row.instance.revision != change.from {
            return Ok(false);
        }
        row.instance = instance.clone();
        row.events.extend(change.events.iter().cloned());
        if let Some(mark) = &change.mark {
            row.actions.insert(mark.id.clone(), mark.fingerprint.clone());
        }
        if instance.status.is_end() {
            state.active.remove(&entity(instance));
        }
        Ok(true)
    }

    async fn due(&self, after: Option<&Due>, limit: u32) -> Result<Vec<Due>, WorkflowError> {
        let now = self.clock.utc();
        let state = self.state();
        let mut due: Vec<Due> = state
            .instances
            .iter()
            .filter_map(|((tenant, id), row)| {
                let at = row.instance.next_at().filter(|at| *at <= now)?;
                let later = after.is_none_or(|after| (after.at, after.id) < (at, *id));
                later.then(|| Due { at, tenant: tenant.clone(), id: *id })
            })
            .collect();
        due.sort_by_key(|due| (due.at, due.id));
        due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(due)
    }

    async fn tasks(
        &self,
        tenant: &str,
        holder: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Task, i64)>, WorkflowError> {
        let now = self.clock.utc();
        let state = self.state();
        let rows = state.instances.iter().filter(|((owner, _), _)| owner == tenant);
        let mut tasks: Vec<(Task, i64)> = rows
            .flat_map(|(_, row)| row.instance.tasks())
            .filter(|task| holder.is_none_or(|holder| task.holder == holder))
            .map(|task| (task.urgency(now), task))
            .map(|(urgency, task)| (task, urgency))
            .collect();
        tasks.sort_by(|(a, x), (b, y)| {
            let key = |task: &Task| {
                (task.due_at.unwrap_or(Timestamp::MAX), task.opened_at, task.instance, task.seat)
            };
            y.cmp(x).then_with(|| key(a).cmp(&key(b))).then_with(|| a.step.cmp(&b.step))
        });
        tasks.truncate(usize::try_from(page(Some(limit))).unwrap_or(usize::MAX));
        Ok(tasks)
    }

    async fn standing(&self) -> Result<Standing, WorkflowError> {
        let now = self.clock.utc();
        let state = self.state();
        let mut standing = Standing::default();
        for row in state.instances.values() {
            for task in row.instance.tasks() {
                standing.open += 1;
                standing.overdue += u64::from(task.due_at.is_some_and(|at| at <= now));
            }
            standing.parked += u64::from(row.instance.is_parked());
        }
        Ok(standing)
    }

    async fn instances(&self, tenant: &str, filter: &InstanceFilter) -> Result<Vec<Instance>, WorkflowError> {
        let state = self.state();
        let rows = state.instances.iter().rev().filter(|((owner, _), _)| owner == tenant);
        let found = rows.map(|(_, row)| &row.instance).filter(|instance| {
            fits(filter.status.as_ref(), &instance.status)
                && fits(filter.parked.as_ref(), &instance.is_parked())
                && fits(filter.entity_type.as_ref(), &instance.entity_type)
                && fits(filter.entity_id.as_ref(), &instance.entity_id)
                && fits(filter.requester.as_ref(), &instance.requester)
                && filter.before.is_none_or(|before| instance.id < before)
        });
        let limit = usize::try_from(page(filter.limit)).unwrap_or(usize::MAX);
        Ok(found.take(limit).cloned().collect())
    }

    async fn events(
        &self,
        tenant: &str,
        id: InstanceId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, WorkflowError> {
        let state = self.state();
        let row = state.instances.get(&(tenant.to_owned(), id));
        let events = row.map(|row| row.events.iter()).into_iter().flatten();
        let limit = usize::try_from(page(Some(limit))).unwrap_or(usize::MAX);
        Ok(events.filter(|event| event.number > after).take(limit).cloned().collect())
    }
}
