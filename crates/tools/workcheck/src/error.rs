//! What can keep a check from being made.

use runtime_kernel::{Classify, ErrorKind};

/// What can keep a check from being made. What a check finds is no error but its outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkcheckError {
    /// An argument nobody understands.
    #[error("{0}")]
    Usage(String),
    /// The server, or a process, could not be mistreated as planned.
    #[error(transparent)]
    Testkit(#[from] runtime_testkit::TestkitError),
    /// The database.
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// Its tables.
    #[error(transparent)]
    Migrate(#[from] runtime_migrate::MigrateError),
    /// The jobs.
    #[error(transparent)]
    Jobs(#[from] runtime_jobs::JobsError),
    /// The events.
    #[error(transparent)]
    Events(#[from] runtime_events::EventsError),
    /// The schedules.
    #[error(transparent)]
    Cron(#[from] runtime_cron::CronError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] runtime_outbox::OutboxError),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] runtime_telemetry::MetricsError),
    /// The sagas.
    #[error(transparent)]
    Saga(#[from] runtime_saga::SagaError),
    /// The workflows.
    #[error(transparent)]
    Workflow(#[from] runtime_workflow::WorkflowError),
    /// A history file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line of a history, or a payload.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl From<runtime_db::sqlx::Error> for WorkcheckError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl Classify for WorkcheckError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "workcheck.usage",
            _ => "workcheck.failed",
        }
    }
}
