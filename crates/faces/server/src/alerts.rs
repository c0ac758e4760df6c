//! Tells a webhook when the whole gets better or worse.

use std::sync::Arc;

use async_trait::async_trait;
use runtime_client::HTTP_CLIENT;
use runtime_health::{HEALTH, HealthConfig, HealthRegistry, Status};
use runtime_kernel::app::{App, Run, Service, SetupError};
use runtime_kernel::{Context, Error, SharedClock, Source};
use runtime_resilience::RETRY_POLICIES;
use serde_json::json;

/// Follows the health if a webhook is configured.
pub(crate) fn follow(app: &mut App) -> Result<(), SetupError> {
    let health: HealthConfig = app.section()?;
    let service = app.config().service_name();
    if let Some(url) = health.alerts.slack_webhook {
        let clock = app.shared_clock();
        app.service(Alerts { url, service, clock });
    }
    Ok(())
}

struct Alerts {
    /// As secret as a password.
    url: String,
    service: String,
    clock: SharedClock,
}

#[async_trait]
impl Service for Alerts {
    fn name(&self) -> &'static str {
        "alerts"
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let health = run.services.get(HEALTH).await?;
        let client = run.services.get(HTTP_CLIENT).await?;
        let policy = run.services.get(RETRY_POLICIES).await?.get("default")?.clone();
        let mut changes = health.changes();
        let mut told = Status::Healthy;
        loop {
            tokio::select! {
                () = run.stop.stopped() => return Ok(()),
                next = changes.changed() => if next.is_err() { return Ok(()) },
            }
            let now = *changes.borrow_and_update();
            // That it stops was wanted.
            if health.is_leaving() {
                return Ok(());
            }
            // What came and went while the last message was under way is not worth one.
            if now == std::mem::replace(&mut told, now) {
                continue;
            }
            let context = Context::new(Source::Internal, &*self.clock);
            let message = json!({ "text": text(&self.service, &health) });
            // Said twice is better than not said.
            let request = client.post(&self.url).json(&message).repeatable(true).retry(policy.clone());
            match request.send(&context).await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => tracing::warn!(status = answer.status().as_u16(), "an alert was refused"),
                // Its text may hold the URL.
                Err(error) => {
                    let code = runtime_kernel::Classify::code(&error);
                    tracing::warn!(code, "an alert could not be sent");
                }
            }
        }
    }
}

fn text(service: &str, health: &HealthRegistry) -> String {
    let report = health.readiness();
    let bad = report.checks.iter().filter(|check| check.status != Status::Healthy);
    let bad = bad.map(|check| format!("{} {}", check.name, check.status.as_str())).collect::<Vec<_>>();
    let why = report.reason.as_deref().into_iter().map(str::to_owned).chain(bad).collect::<Vec<_>>();
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.join(", ")) };
    format!("{service} is {}{why}", report.status.as_str())
}
