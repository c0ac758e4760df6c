//! Lets time pass: any number of processes may look, and each thing due is done by one.

use std::future::Future;

use runtime_kernel::Error;

use crate::error::WorkflowError;
use crate::workflows::Workflows;

impl Workflows {
    /// Does everything that is due by the store's time: warnings, reminders, escalations, expiries, and looking again for
    /// people that could not be found. Each is done once, by whoever writes it first. Says how many instances moved.
    ///
    /// An instance that fails is logged and does not keep others from their turn.
    ///
    /// # Errors
    /// When the store cannot say what is due.
    pub async fn run_due(&self) -> Result<u64, WorkflowError> {
        let (mut moved, mut after) = (0, None);
        loop {
            let batch = self.config().batch;
            let due = self.store.due(after.as_ref(), batch).await?;
            for due in &due {
                match self.tick(&due.tenant, due.id).await {
                    Ok(done) => moved += u64::from(done),
                    Err(error) => {
                        let error = Error::from(error);
                        tracing::error!(instance = %due.id, error = %error.report(), "a workflow could not go on");
                    }
                }
            }
            let full = due.len() >= usize::try_from(batch).unwrap_or(usize::MAX);
            after = due.into_iter().next_back();
            if !full {
                return Ok(moved);
            }
        }
    }
}

/// Looks every `tick` for what is due, until `stop` is ready. Any number may run at once.
pub async fn keep_time(workflows: &Workflows, stop: impl Future<Output = ()> + Send) {
    let mut away = false;
    tokio::pin!(stop);
    loop {
        let ran = workflows.run_due().await;
        match &ran {
            Ok(0) => {}
            Ok(moved) => tracing::debug!(moved, "workflows went on by themselves"),
            Err(_) if away => {}
            Err(error) => tracing::warn!(%error, "what is due cannot be read; it stays due"),
        }
        away = ran.is_err();
        tokio::select! {
            () = &mut stop => return,
            () = workflows.clock.sleep(workflows.config().tick) => {}
        }
    }
}
