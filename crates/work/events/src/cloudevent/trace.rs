//! The distributed tracing extension: which trace an event belongs to.

use runtime_kernel::{Carried, Clock, Context, RequestId, Source, TraceContext};

use super::event::{CloudEvent, CloudEventBuilder};
use super::value::AttributeValue;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

impl CloudEvent {
    /// The trace of its extensions `traceparent` and `tracestate`; `None` when there is none that parses.
    pub fn trace(&self) -> Option<TraceContext> {
        let text = |name| self.extension(name).and_then(AttributeValue::as_str);
        let trace: TraceContext = text(PARENT)?.parse().ok()?;
        Some(trace.with_state(text(STATE).unwrap_or_default()))
    }

    /// Takes the event's work up in a new context: the same trace under a new span, nothing else. What a stranger's
    /// event says of tenants or principals proves nothing.
    pub fn context(&self, clock: &dyn Clock) -> Context {
        let trace = self.trace().map_or_else(TraceContext::root, |trace| trace.child());
        Context::from_parts(Source::Event, RequestId::new(clock), trace)
    }

    /// The event with the trace that creates it, unless it names one already.
    #[must_use]
    pub(crate) fn with_trace(mut self, carried: &Carried) -> Self {
        if !self.extensions.contains_key(PARENT) {
            self.extensions.insert(PARENT.to_owned(), carried.traceparent.clone().into());
            if let Some(state) = &carried.tracestate {
                self.extensions.insert(STATE.to_owned(), state.clone().into());
            }
        }
        self
    }
}

impl CloudEventBuilder {
    /// Marks the event as made within a piece of work.
    pub fn traced(self, context: &Context) -> Self {
        let traced = self.extension(PARENT, context.trace.to_traceparent());
        match context.trace.state() {
            Some(state) => traced.extension(STATE, state),
            None => traced,
        }
    }
}
