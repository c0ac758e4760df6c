//! What travels with a piece of work: request id, trace, deadline, principal and tenant.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::principal::Principal;
use crate::tenant::TenantContext;
use crate::timestamp::Timestamp;
use crate::trace::TraceContext;

/// Names one piece of work in logs and answers. Kept from the caller when it is well-formed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Id);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Id {
    Ours(Uuid),
    Theirs(Arc<str>),
}

impl RequestId {
    /// A new id (UUIDv7).
    pub fn new(clock: &dyn Clock) -> Self {
        Self(Id::Ours(crate::uuid_v7(clock)))
    }

    /// Accepts a caller's id: 1 to 128 visible ASCII characters, no quotes, backslash, `<` or `>`, so that it can
    /// be logged and echoed as it is. `None` otherwise. Ids that print the same are equal, whoever made them.
    pub fn accept(text: &str) -> Option<Self> {
        // One of ours that comes back, from storage or over a hop, is the one that left.
        let ours = Uuid::try_parse(text).ok();
        if let Some(uuid) =
            ours.filter(|uuid| uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text)
        {
            return Some(Self::from(uuid));
        }
        let fits = !text.is_empty() && text.len() <= 128;
        let clean = |b: u8| (0x21..0x7f).contains(&b) && !matches!(b, b'"' | b'\'' | b'\\' | b'<' | b'>');
        (fits && text.bytes().all(clean)).then(|| Self(Id::Theirs(Arc::from(text))))
    }
}

impl From<Uuid> for RequestId {
    fn from(uuid: Uuid) -> Self {
        Self(Id::Ours(uuid))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Ours(uuid) => fmt::Display::fmt(uuid, f),
            Id::Theirs(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// What set a piece of work going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// An HTTP request.
    Http,
    /// A background job.
    Job,
    /// An event.
    Event,
    /// A schedule.
    Schedule,
    /// The command line.
    Cli,
    /// The house itself.
    Internal,
}

/// Everything that travels explicitly with a piece of work, through every call and over every hop.
///
/// Cheap to clone. Fields are set by the layer that knows them: the deadline by the edge, the principal by
/// authentication, the tenant by resolution after it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// Names this work in logs and answers.
    pub request_id: RequestId,
    /// The distributed trace it belongs to.
    pub trace: TraceContext,
    /// When its answer stops being useful.
    pub deadline: Deadline,
    /// Who asked, once proved.
    pub principal: Option<Arc<Principal>>,
    /// Whose data it touches, once resolved.
    pub tenant: Option<Arc<TenantContext>>,
    /// What set it going.
    pub source: Source,
    /// Whether the caller will ask again when this fails. Then nobody further down does: retries at every hop of a
    /// chain multiply.
    pub caller_retries: bool,
}

impl Context {
    /// New work with an id of its own and a new trace.
    pub fn new(source: Source, clock: &dyn Clock) -> Self {
        Self::from_parts(source, RequestId::new(clock), TraceContext::root())
    }

    /// Work that came with an id and a trace.
    pub fn from_parts(source: Source, request_id: RequestId, trace: TraceContext) -> Self {
        Self {
            request_id,
            trace,
            deadline: Deadline::NONE,
            principal: None,
            tenant: None,
            source,
            caller_retries: false,
        }
    }

    /// The same with a deadline that is no later than the present one.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = self.deadline.narrow(deadline);
        self
    }

    /// The same for a caller that will, or will not, ask again when this fails.
    #[must_use]
    pub fn with_caller_retries(mut self, retries: bool) -> Self {
        self.caller_retries = retries;
        self
    }

    /// The same for a proven principal.
    #[must_use]
    pub fn with_principal(mut self, principal: impl Into<Arc<Principal>>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// The same for a resolved tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: impl Into<Arc<TenantContext>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// What is written beside a job, an outbox row or an event so that the work can go on elsewhere.
    ///
    /// The deadline is stored in wall-clock time, the only time two machines share.
    pub fn carry(&self, clock: &dyn Clock) -> Carried {
        Carried {
            request_id: self.request_id.to_string(),
            traceparent: self.trace.to_traceparent(),
            tracestate: self.trace.state().map(ToOwned::to_owned),
            deadline: self.deadline.remaining(clock).and_then(|left| clock.utc().checked_add(left).ok()),
            principal: self.principal.as_ref().map(|principal| principal.id.to_string()),
            tenant: self.tenant.as_deref().cloned(),
        }
    }
}

/// A [`Context`] at rest: what a stored piece of work remembers of the one that created it.
///
/// It names the principal but carries none of its scopes: stored work proves nothing about who reads it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The request that created the work.
    pub request_id: String,
    /// The trace it belongs to, as a `traceparent`.
    pub traceparent: String,
    /// The vendors' trace state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// When its result stops being useful.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The id of the principal that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Whose data it touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantContext>,
}

impl Carried {
    /// Takes the work up again: same trace under a new span, the deadline that remains, the same tenant.
    ///
    /// A trace that no longer parses is replaced by a new one rather than losing the work. The principal does not come
    /// back: [`Context::principal`] means proved, and a stored row proves nothing; who asked is [`Carried::principal`].
    pub fn resume(&self, source: Source, clock: &dyn Clock) -> Context {
        let request_id = RequestId::accept(&self.request_id).unwrap_or_else(|| RequestId::new(clock));
        let trace = self.traceparent.parse::<TraceContext>().map_or_else(
            |_| TraceContext::root(),
            |trace| trace.child().with_state(self.tracestate.as_deref().unwrap_or_default()),
        );
        let mut context = Context::from_parts(source, request_id, trace);
        if let Some(at) = self.deadline {
            context.deadline = Deadline::after(clock, at.duration_since(clock.utc()));
        }
        context.tenant = self.tenant.clone().map(Arc::new);
        context
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::tenant::Name;

    #[test]
    fn a_callers_id_is_kept_only_when_it_can_be_logged_as_it_is() {
        for (text, ok) in [
            ("req-1", true),
            ("0190d1a2-7b3c-7def-8123-456789abcdef", true),
            ("", false),
            ("two words", false),
            ("line\nbreak", false),
            ("<script>", false),
            ("quote\"", false),
            ("é", false),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
        ] {
            assert_eq!(
                RequestId::accept(text).map(|id| id.to_string()),
                ok.then(|| text.to_owned()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn ids_that_print_the_same_are_equal_and_no_others() {
        let ours = RequestId::from(Uuid::from_u128(0x0190_d1a2_7b3c_7def_8123_4567_89ab_cdef));
        let printed = ours.to_string();
        assert_eq!(RequestId::accept(&printed), Some(ours.clone()));
        let simple = printed.replace('-', "");
        for other in [printed.to_uppercase(), simple, format!("{{{printed}}}"), format!("urn:uuid:{printed}")]
        {
            let theirs = RequestId::accept(&other).unwrap();
            assert_eq!(theirs.to_string(), other, "a caller's spelling is kept");
            assert_ne!(theirs, ours);
        }
    }

    #[test]
    fn carried_work_keeps_its_trace_tenant_and_remaining_deadline() {
        let clock = ManualClock::new();
        let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new("acme").unwrap());
        let context = Context::new(Source::Http, &clock)
            .with_deadline(Deadline::after(&clock, Duration::from_secs(30)))
            .with_principal(Principal::system("cli"))
            .with_tenant(tenant.clone());
        let text = serde_json::to_string(&context.carry(&clock)).unwrap();
        clock.advance(Duration::from_secs(10));
        let resumed = serde_json::from_str::<Carried>(&text).unwrap().resume(Source::Job, &clock);
        assert_eq!(resumed.request_id, context.request_id);
        assert_eq!(resumed.trace.trace_id(), context.trace.trace_id());
        assert_ne!(resumed.trace.span_id(), context.trace.span_id());
        assert_eq!(resumed.deadline.remaining(&clock), Some(Duration::from_secs(20)));
        assert_eq!(resumed.tenant.as_deref(), Some(&tenant));
        assert!(resumed.principal.is_none(), "stored work proves nothing about who reads it");
    }
}
