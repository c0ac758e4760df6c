//! What is known of a job before it is accepted: its kind, what that wants of the payload, and of whoever asks.

use runtime_kernel::{Context, Error, ErrorKind, Reach};
use serde::Deserialize;
use serde_json::Value;

use crate::event_publish::{self, EventPublish};
use crate::http_request::{self, HttpRequest};
use crate::maintenance;

/// Refuses a job of a built-in kind that could only fail, or that does what its sender may not. Other kinds are their
/// handlers' to judge.
pub(crate) fn check(context: &Context, kind: &str, payload: &Value) -> Result<(), Error> {
    match kind {
        http_request::KIND => HttpRequest::deserialize(payload).map_err(|e| unreadable(kind, &e))?.check(),
        event_publish::KIND => {
            let allowed = |principal: &runtime_kernel::Principal| principal.allows("events:write");
            if !context.principal.as_deref().is_some_and(allowed) {
                let message = "publishing events needs the scope `events:write`";
                return Err(Error::new(ErrorKind::Forbidden, "auth.scope_missing", message));
            }
            EventPublish::deserialize(payload).map_err(|e| unreadable(kind, &e))?.check()
        }
        _ if kind.starts_with(maintenance::PREFIX) => {
            let everywhere = context.principal.as_ref().is_some_and(|p| p.reach == Reach::Everywhere);
            let refused = || {
                let message = "maintenance is about the data of all tenants";
                Error::new(ErrorKind::Forbidden, "jobs.operators_only", message)
            };
            everywhere.then_some(()).ok_or_else(refused)
        }
        _ => Ok(()),
    }
}

fn unreadable(kind: &str, error: &serde_json::Error) -> Error {
    let message = format!("the payload is not a valid {kind}");
    Error::new(ErrorKind::Invalid, "job.payload_invalid", message).with_detail("/payload", error.to_string())
}
