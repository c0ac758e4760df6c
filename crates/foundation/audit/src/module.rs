//! The app's audit: a handle in the container, a service that writes until everything else has stopped.

use std::sync::Arc;

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::Stage;
use runtime_kernel::{Context, Error, Principal, Source};
use runtime_telemetry::MetricsApp;

use crate::{
    Audit, AuditConfig, AuditError, AuditEvent, AuditTask, AuditWriter, FanOut, FileWriter, StreamWriter,
    WriterKind,
};

/// The app's audit handle.
pub const AUDIT: Token<Audit> = Token::new("audit");

impl Section for AuditConfig {
    const PATH: &'static str = "audit";
    const LOCKED: &'static [&'static str] = &["writers", "file"];

    fn validate(&self) -> Result<(), Invalid> {
        self.check().map_err(|error| match error {
            AuditError::Setting { field, message } => Invalid::new(field, message),
            other => Invalid::new("", other.to_string()),
        })
    }
}

/// How a module contributes a writer.
pub trait AuditApp {
    /// Adds a writer to those the configuration names.
    fn audit_writer(&mut self, writer: impl AuditWriter);
}

impl AuditApp for App {
    fn audit_writer(&mut self, writer: impl AuditWriter) {
        self.contribute::<Writers>().0.push(Arc::new(writer));
    }
}

#[derive(Default)]
struct Writers(Vec<Arc<dyn AuditWriter>>);

/// Puts [`AUDIT`] into the container and writes its queue; records `runtime.started` and `runtime.stopping`.
///
/// Events go to standard output unless `audit.writers` or [`default_writer`](Self::default_writer) say otherwise.
#[derive(Debug)]
pub struct AuditModule {
    default: Arc<dyn AuditWriter>,
}

impl Default for AuditModule {
    fn default() -> Self {
        Self { default: Arc::new(StreamWriter::stdout()) }
    }
}

impl AuditModule {
    /// Events on standard output, unless the configuration names another place.
    pub fn new() -> Self {
        Self::default()
    }

    /// Events here, unless the configuration names another place.
    #[must_use]
    pub fn default_writer(self, writer: impl AuditWriter) -> Self {
        Self { default: Arc::new(writer) }
    }
}

impl Module for AuditModule {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.section::<AuditConfig>()?;
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: AuditConfig = app.section()?;
        let Writers(contributed) = app.take_contribution();
        let named = |kind: &WriterKind| -> Arc<dyn AuditWriter> {
            match kind {
                WriterKind::Stdout => Arc::new(StreamWriter::stdout()),
                WriterKind::File => Arc::new(FileWriter::new(&config.file)),
            }
        };
        let writers = match &config.writers {
            Some(writers) => writers.iter().map(named).collect(),
            None => vec![Arc::clone(&self.default)],
        };
        let writer = FanOut::new(writers.into_iter().chain(contributed));
        let metrics = app.metrics();
        let (audit, task) =
            Audit::queued(writer, config, app.shared_clock(), &metrics).map_err(Error::from)?;
        app.services().value(AUDIT, audit.clone());
        app.service(AuditService { audit, task });
        Ok(())
    }
}

struct AuditService {
    audit: Audit,
    task: AuditTask,
}

#[async_trait]
impl Service for AuditService {
    fn name(&self) -> &'static str {
        "audit"
    }

    /// After the workers, whose last events it writes.
    fn stops_at(&self) -> Stage {
        Stage::Flush
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let context =
            Context::new(Source::Internal, &*run.clock).with_principal(Principal::system("runtime"));
        let event = |action| AuditEvent::new(action).context(&context).meta("mode", run.mode.to_string());
        self.audit.record(event("runtime.started")).await?;
        let stop = async {
            run.stop.stopped().await;
            // Never waits, and never fails: it is not critical.
            let _ = self.audit.record(event("runtime.stopping")).await;
        };
        Ok(self.task.run(stop).await?)
    }
}
