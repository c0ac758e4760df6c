//! What goes on the audit record: what is done to keys and jobs, and keys that were refused.

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use runtime_apikey::{KeyEvent, KeyId};
use runtime_audit::{AUDIT, Audit, AuditEvent, Outcome, Severity};
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, Principal, Source, SystemClock};

/// The audit, once the app has started.
pub(crate) type Told = Arc<OnceLock<Arc<Audit>>>;

/// Puts what was done to a key on record, durably, before anybody is told that it was done.
pub(crate) async fn key(
    container: &Container,
    context: &Context,
    action: &'static str,
    id: KeyId,
) -> Result<(), Error> {
    let event = AuditEvent::new(action).context(context).target("api_key", id.to_string());
    Ok(container.get(AUDIT).await?.record(event.severity(Severity::Critical)).await?)
}

/// Puts the first key on record; queued, for the record is not written before the app has started.
pub(crate) async fn first_key(container: &Container, id: KeyId) -> Result<(), Error> {
    let context = Context::new(Source::Internal, &SystemClock).with_principal(Principal::system("runtime"));
    let event = AuditEvent::new("keys.created").context(&context).target("api_key", id.to_string());
    Ok(container.get(AUDIT).await?.record(event.severity(Severity::Warning)).await?)
}

/// Puts what was done to a job on record.
pub(crate) async fn job(
    container: &Container,
    context: &Context,
    action: &'static str,
    id: &str,
) -> Result<(), Error> {
    let event = AuditEvent::new(action).context(context).target("job", id);
    Ok(container.get(AUDIT).await?.record(event).await?)
}

/// Puts an order about a schedule on record, durably.
pub(crate) async fn schedule(
    container: &Container,
    context: &Context,
    action: &'static str,
    name: &str,
) -> Result<(), Error> {
    let event = AuditEvent::new(action).context(context).target("schedule", name);
    Ok(container.get(AUDIT).await?.record(event).await?)
}

/// Puts an order about a saga on record, durably.
pub(crate) async fn saga(
    container: &Container,
    context: &Context,
    action: &'static str,
    id: &str,
) -> Result<(), Error> {
    let event = AuditEvent::new(action).context(context).target("saga", id);
    Ok(container.get(AUDIT).await?.record(event).await?)
}

/// Puts an order about a subscription on record, durably.
pub(crate) async fn subscription(
    container: &Container,
    context: &Context,
    action: &'static str,
    name: &str,
) -> Result<(), Error> {
    let event = AuditEvent::new(action).context(context).target("subscription", name);
    Ok(container.get(AUDIT).await?.record(event).await?)
}

/// Puts an order about messages of the outbox on record, durably.
pub(crate) async fn outbox(
    container: &Container,
    context: &Context,
    action: &'static str,
    what: &str,
) -> Result<(), Error> {
    let event = AuditEvent::new(action).context(context).target("outbox", what);
    Ok(container.get(AUDIT).await?.record(event).await?)
}

/// Puts every key that did not hold on record. Bounded by the audit's queue; what does not fit is counted there.
pub(crate) fn refusals(told: &Told) -> impl Fn(&KeyEvent) + Send + Sync + 'static {
    let told = Arc::clone(told);
    move |event| {
        let (KeyEvent::Rejected { id, reason }, Some(audit)) = (event, told.get()) else { return };
        let refused = AuditEvent::new("auth.failed")
            .severity(Severity::Warning)
            .outcome(Outcome::Denied)
            .meta("reason", reason.to_string());
        let refused = match id {
            Some(id) => refused.target("api_key", id.to_string()),
            None => refused,
        };
        // What is not critical never waits.
        let _ = audit.record(refused).now_or_never();
    }
}
