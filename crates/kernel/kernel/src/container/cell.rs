//! A value that is built once however many callers race for it.

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::Error;

/// An `Arc<T>` whose type only its token knows.
pub(super) type Value = Box<dyn Any + Send + Sync>;

/// Built once, read without a lock from then on.
///
/// The builder is one of the callers: when it is cancelled or panics, the next in line builds. When it fails, all
/// that were in line get that failure and whoever comes later builds again.
#[derive(Default)]
pub(super) struct Cell {
    value: OnceLock<Value>,
    line: tokio::sync::Mutex<()>,
    failed: Mutex<Failed>,
}

#[derive(Default)]
struct Failed {
    rounds: u64,
    last: Option<Arc<Error>>,
}

impl Cell {
    pub(super) fn filled(value: Value) -> Self {
        Self { value: OnceLock::from(value), ..Self::default() }
    }

    pub(super) fn get(&self) -> Option<&Value> {
        self.value.get()
    }

    pub(super) async fn get_or_build(
        &self,
        build: impl Future<Output = Result<Value, Error>>,
    ) -> Result<&Value, Arc<Error>> {
        let arrived = self.failed(|failed| failed.rounds);
        let _turn = self.line.lock().await;
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        if let Some(error) = self.failed(|failed| failed.last.clone().filter(|_| failed.rounds != arrived)) {
            return Err(error);
        }
        match build.await {
            Ok(value) => Ok(self.value.get_or_init(|| value)),
            Err(error) => {
                let error = Arc::new(error);
                self.failed(|failed| {
                    failed.rounds += 1;
                    failed.last = Some(Arc::clone(&error));
                });
                Err(error)
            }
        }
    }

    fn failed<R>(&self, read: impl FnOnce(&mut Failed) -> R) -> R {
        read(&mut self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
