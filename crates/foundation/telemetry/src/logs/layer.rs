//! Turns events into records and hands them on.

use std::sync::Arc;

use runtime_kernel::{SharedClock, Timestamp};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::{Fields, Taker};

/// One event, redacted, with what the spans around it know.
pub(crate) struct Record<'a> {
    pub(crate) ts: Timestamp,
    pub(crate) level: Level,
    pub(crate) target: &'a str,
    /// The event's own fields over those of its spans, `message`, `trace_id` and `request_id` included.
    pub(crate) fields: Fields,
}

/// Takes records: the line writer, the OTLP exporter.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Takes one. Must not block and must not log.
    fn take(&self, record: &Record<'_>);
}

/// The layer that feeds the sinks.
pub(crate) struct LogLayer {
    pub(crate) clock: SharedClock,
    pub(crate) also: Arc<[String]>,
    pub(crate) sinks: Vec<Box<dyn Sink>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut Taker { fields: &mut fields, also: &self.also });
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(&mut Taker { fields, also: &self.also });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::reused();
        for span in
            context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.0 {
                    fields.set(name, value.clone());
                }
            }
        }
        event.record(&mut Taker { fields: &mut fields, also: &self.also });
        let metadata = event.metadata();
        let record =
            Record { ts: self.clock.utc(), level: *metadata.level(), target: metadata.target(), fields };
        for sink in &self.sinks {
            sink.take(&record);
        }
        record.fields.recycle();
    }
}
