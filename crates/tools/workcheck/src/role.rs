//! What a process of a herd is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime_db::Database;
use runtime_kernel::{Clock as _, SharedClock, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Skewed;
use crate::error::WorkcheckError;
use crate::history::History;
use crate::load::open;
use crate::{fleet, outbox};

/// What a process is, as its first argument tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Role {
    /// The database.
    pub url: String,
    /// How many seconds its clock is ahead.
    pub ahead: i64,
    /// What it does there.
    pub part: Part,
}

/// What a process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// Sends what waits in the outbox.
    Relay(outbox::RelayPart),
    /// Applies what is sent.
    Consumer(outbox::ConsumerPart),
    /// Runs sagas.
    Sagas(fleet::SagaPart),
    /// Decides workflows and lets time pass for them.
    Workflows(fleet::WorkflowPart),
    /// Fires what is due.
    Ticks(fleet::TickPart),
}

/// A process's own view of what it shares.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) db: Database,
    pub(crate) clock: SharedClock,
    pub(crate) history: History,
}

impl Role {
    pub(crate) const fn name(&self) -> &'static str {
        match self.part {
            Part::Relay(_) => "relay",
            Part::Consumer(_) => "consumer",
            Part::Sagas(_) => "sagas",
            Part::Workflows(_) => "workflows",
            Part::Ticks(_) => "ticks",
        }
    }

    /// Reads what the driver has written after `member`.
    ///
    /// # Errors
    /// [`WorkcheckError::Usage`], [`WorkcheckError::Json`].
    pub fn parse(args: &[String]) -> Result<(Self, PathBuf), WorkcheckError> {
        let [role, history] = args else {
            return Err(WorkcheckError::Usage("member ROLE HISTORY".to_owned()));
        };
        Ok((serde_json::from_str(role)?, PathBuf::from(history)))
    }
}

/// Does what its role says until it is told to stop, or killed.
///
/// # Errors
/// The history cannot be written, or a limit cannot be used.
pub async fn serve((role, history): (Role, PathBuf)) -> Result<(), WorkcheckError> {
    let clock: SharedClock = Arc::new(Skewed { ahead: role.ahead });
    let mut told = signal(SignalKind::terminate())?;
    let stop = async move {
        told.recv().await;
    };
    let db = loop {
        match open(&role.url, 8, clock.clone()).await {
            Ok(db) => break db,
            // The server may be down just now.
            Err(error) => eprintln!("{error}"),
        }
        SystemClock.sleep(Duration::from_millis(100)).await;
    };
    let process = Process { db, clock, history: History::create(&history)? };
    match role.part {
        Part::Relay(part) => outbox::relay(&part, process, stop).await,
        Part::Consumer(part) => outbox::consume(&part, process, stop).await,
        Part::Sagas(part) => fleet::run_sagas(&part, process, stop).await,
        Part::Workflows(part) => fleet::run_workflows(&part, process, stop).await,
        Part::Ticks(part) => fleet::run_ticks(&part, process, stop).await,
    }
}
