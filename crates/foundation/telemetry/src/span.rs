//! A tracing span for a piece of work, and the trace context its own calls carry on.

use runtime_kernel::{Context, TraceContext};
use tracing::Span;

/// A span that puts the work's trace id, request id and tenant on every line logged inside it, and under which OTLP
/// export files what happens there: a child of the remote span the context names, in the context's trace.
///
/// Level `info`, target `work`. Enter it with [`tracing::Instrument`].
///
/// ```
/// use runtime_kernel::{Context, Source, SystemClock};
/// use tracing::Instrument;
///
/// let context = Context::new(Source::Cli, &SystemClock);
/// let work = async { tracing::info!("done") }.instrument(runtime_telemetry::span(&context, "import"));
/// # drop(work);
/// ```
pub fn span(context: &Context, name: &str) -> Span {
    let span = tracing::info_span!(
        target: "work",
        "work",
        otel.name = name,
        trace_id = tracing::field::Empty,
        request_id = tracing::field::Empty,
        tenant = tracing::field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    span.record("trace_id", context.trace.trace_id_hex());
    span.record("request_id", tracing::field::display(&context.request_id));
    if let Some(tenant) = &context.tenant {
        span.record("tenant", tenant.namespace());
    }
    #[cfg(feature = "otlp")]
    crate::otlp::adopt(&span, &context.trace);
    span
}

/// The trace context an outbound call sends: the current exported span where there is one in the same trace, so that
/// the collector can join both sides; otherwise a child of the context's own.
pub fn outgoing(context: &Context) -> TraceContext {
    #[cfg(feature = "otlp")]
    if let Some(trace) = crate::otlp::current(&context.trace) {
        return trace;
    }
    context.trace.child()
}
