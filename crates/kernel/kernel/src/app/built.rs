//! An app that is whole and can be run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::exit::ExitReport;
use super::start::StartHook;
use super::supervise::{ServiceEnd, ServiceReport, supervise};
use super::{Importance, Run, Service, SupervisionConfig};
use crate::config::Config;
use crate::container::{Container, DisposeReport};
use crate::lifecycle::{OsSignals, Shutdown, StopReason};
use crate::{Error, ErrorKind, Mode, SharedClock};

/// A checked app. Running it starts what its mode asks for; it ends when its shutdown is triggered.
pub struct BuiltApp {
    pub(super) container: Container,
    pub(super) config: Config,
    pub(super) mode: Mode,
    pub(super) clock: SharedClock,
    pub(super) shutdown: Shutdown,
    pub(super) supervision: SupervisionConfig,
    pub(super) starting: Vec<StartHook>,
    pub(super) running: Vec<Arc<dyn Service>>,
    pub(super) disposed: Disposed,
}

type Reports = Arc<Mutex<Vec<ServiceReport>>>;

impl BuiltApp {
    /// The container, for commands that need a part of the app without running it.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the process does.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The shutdown. A clone kept aside ends the app from outside: `shutdown.trigger("test is over")`.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The names of the services this mode runs, in the order of starting.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        self.bound().map(|service| service.name())
    }

    /// Runs until SIGTERM, SIGINT, a failure or [`Shutdown::trigger`], then goes down in order. A second signal
    /// ends at once; what blocks a thread is then left behind, so end the runtime with
    /// [`shutdown_background`](tokio::runtime::Runtime::shutdown_background).
    ///
    /// Dropping the future aborts every service.
    pub async fn run(self) -> ExitReport {
        let shutdown = self.shutdown.clone();
        let _listening = match OsSignals::listen() {
            Ok(mut signals) => Some(AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let signal = signals.next().await;
                    tracing::info!(%signal, "received");
                    shutdown.signalled(signal);
                }
            }))),
            Err(error) => {
                tracing::error!(%error, "signals cannot be heard: they will end the process without a shutdown");
                None
            }
        };
        self.run_without_signals().await
    }

    /// As [`run`](Self::run) but deaf to signals: for tests, and for programs that hear them on their own and call
    /// [`Shutdown::signalled`].
    pub async fn run_without_signals(mut self) -> ExitReport {
        for hook in std::mem::take(&mut self.starting) {
            if self.shutdown.is_triggered() {
                break;
            }
            hook.run(self.container.clone(), &self.shutdown).await;
        }
        let reports = Reports::default();
        if !self.shutdown.is_triggered() {
            for service in self.bound() {
                self.start(service, &reports);
            }
            tracing::info!(mode = %self.mode, services = lock(&reports).len(), "running");
        }
        let shutdown = self.shutdown.run().await;
        ExitReport {
            reason: shutdown.reason.clone(),
            services: std::mem::take(&mut *lock(&reports)),
            shutdown,
            container: self.disposed.report(),
        }
    }

    fn bound(&self) -> impl Iterator<Item = &Arc<dyn Service>> {
        self.running.iter().filter(|service| service.modes().iter().any(|part| self.mode.includes(*part)))
    }

    fn start(&self, service: &Arc<dyn Service>, reports: &Reports) {
        let stage = service.stops_at();
        let name = service.name();
        let importance = service.importance();
        let run = Run {
            services: self.container.clone(),
            stop: self.shutdown.signal(stage),
            clock: Arc::clone(&self.clock),
            mode: self.mode,
        };
        let at = lock(reports).len();
        // Until it says otherwise, it was cut.
        lock(reports).push(ServiceReport { name, restarts: 0, end: ServiceEnd::Cut });

        let (restarts, ends) = (Arc::clone(reports), Arc::clone(reports));
        let restarted = move || with(&restarts, at, |report| report.restarts += 1);
        let supervised = supervise(Arc::clone(service), run, self.supervision.clone(), restarted);
        let shutdown = self.shutdown.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let end = supervised.await;
            with(&ends, at, |report| report.end = end.clone());
            if let (ServiceEnd::GaveUp(message), Importance::Critical) = (&end, importance) {
                let (service, message) = (name.to_owned(), message.clone());
                shutdown.trigger(StopReason::ServiceGaveUp { service, message });
            }
            end
        }));
        // The hook owns the task: cut the one and the other is aborted.
        self.shutdown.hook(stage, name, Duration::MAX, move || async move {
            match task.await {
                Ok(ServiceEnd::FailedWhileStopping(message)) => Err(Error::new(
                    ErrorKind::Internal,
                    "app.service",
                    "a service failed while it was stopping",
                )
                .with_source(message)),
                // Given up long ago, and dealt with then.
                Ok(_) => Ok(()),
                Err(join) => Err(Error::internal(join)),
            }
        });
    }
}

impl fmt::Debug for BuiltApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltApp")
            .field("mode", &self.mode)
            .field("services", &self.services().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The container's place among the shutdown hooks, taken before there is one.
#[derive(Clone, Default)]
pub(super) struct Disposed(Arc<(OnceLock<Container>, Mutex<Option<DisposeReport>>)>);

impl Disposed {
    pub(super) fn hold(&self, container: Container) {
        // Held once, by the build that made it.
        let _ = self.0.0.set(container);
    }

    pub(super) async fn dispose(self) -> Result<(), Error> {
        let Some(container) = self.0.0.get() else { return Ok(()) };
        let report = container.dispose().await;
        let result = if report.is_clean() {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Internal, "container.dispose", "not everything was disposed properly")
                .with_source(report.to_string()))
        };
        *lock(&self.0.1) = Some(report);
        result
    }

    fn report(&self) -> Option<DisposeReport> {
        lock(&self.0.1).take()
    }
}

fn with(reports: &Reports, at: usize, change: impl FnOnce(&mut ServiceReport)) {
    if let Some(report) = lock(reports).get_mut(at) {
        change(report);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
