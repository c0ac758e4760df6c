//! What the tests share: a receiver of effects that honours idempotency keys, and workers that run until a saga rests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_kernel::{Context, Error, ErrorKind, ManualClock, SharedClock, Source, SystemClock};
use runtime_saga::store::SagaStore;
use runtime_saga::{
    Definition, Definitions, Instance, MemorySagas, SagaConfig, SagaId, Sagas, StepKey, What, Worker,
};

/// The world outside: applies each key once, and remembers every call.
#[derive(Clone, Default)]
pub struct Outside(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    applied: BTreeMap<String, String>,
    calls: Vec<String>,
}

impl Outside {
    pub fn call(&self, key: &StepKey, what: &str) {
        let mut state = self.0.lock().unwrap();
        state.calls.push(what.to_owned());
        let before = state.applied.insert(key.as_str().to_owned(), what.to_owned());
        assert!(before.is_none_or(|before| before == what), "one key, two effects");
    }

    pub fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    /// How often each effect was applied.
    pub fn applied(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for what in self.0.lock().unwrap().applied.values() {
            *counts.entry(what.clone()).or_default() += 1;
        }
        counts
    }
}

pub async fn nothing(_key: StepKey) -> Result<(), Error> {
    Ok(())
}

pub fn refused() -> Error {
    Error::new(ErrorKind::Conflict, "test.refused", "refused")
}

pub fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "test.unavailable", "unavailable")
}

pub fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

pub fn config() -> SagaConfig {
    let mut config = SagaConfig::default();
    config.poll_interval = Duration::from_millis(50);
    config
}

pub fn sagas(store: &Arc<dyn SagaStore>, clock: &SharedClock, definitions: Vec<Definition>) -> Sagas {
    let known = definitions.into_iter().fold(Definitions::new(), |known, one| known.with(one).unwrap());
    Sagas::new(Arc::clone(store), known, config(), Arc::clone(clock))
}

/// A store in memory and the clock that rules it.
pub fn memory() -> (Arc<dyn SagaStore>, ManualClock, SharedClock) {
    let clock = ManualClock::new();
    let shared: SharedClock = Arc::new(clock.clone());
    (Arc::new(MemorySagas::new(Arc::clone(&shared))), clock, shared)
}

/// A worker that runs until it is dropped.
pub struct Running(tokio::task::JoinHandle<()>);

impl Running {
    pub fn start(sagas: &Sagas) -> Self {
        let worker = Worker::new(sagas.clone()).unwrap();
        Self(tokio::spawn(async move { worker.run(std::future::pending()).await }))
    }

    /// As a crash would end it.
    pub async fn kill(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until a saga is as told.
pub async fn until(sagas: &Sagas, id: SagaId, is: impl Fn(&Instance) -> bool) -> Instance {
    let watch = async {
        loop {
            let instance = sagas.get(&context(), id).await.unwrap();
            if is(&instance) {
                return instance;
            }
            tokio::task::yield_now().await;
        }
    };
    let Ok(instance) = tokio::time::timeout(Duration::from_mins(1), watch).await else {
        panic!("{:#?}", sagas.show(&context(), id, 0).await.unwrap());
    };
    instance
}

/// Waits until nobody has it in hand and it waits for something later.
pub async fn rests(sagas: &Sagas, id: SagaId) -> Instance {
    until(sagas, id, |instance| instance.worker.is_none() && instance.fence > 0).await
}

pub async fn over(sagas: &Sagas, id: SagaId) -> Instance {
    until(sagas, id, |instance| instance.status.is_over() || instance.parked.is_some()).await
}

/// The names of what was done and undone, in order.
pub async fn done_and_undone(sagas: &Sagas, id: SagaId) -> (Vec<String>, Vec<String>) {
    let (mut done, mut undone) = (Vec::new(), Vec::new());
    for entry in sagas.show(&context(), id, 0).await.unwrap().journal {
        match entry.what {
            What::StepDone { name, .. } => done.push(name),
            What::Compensated { name } => undone.push(name),
            _ => {}
        }
    }
    (done, undone)
}
