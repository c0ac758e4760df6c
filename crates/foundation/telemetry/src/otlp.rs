//! Spans and log records to an OTLP/HTTP collector, in batches on threads of their own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{KeyValue, Value as OtelValue};
use opentelemetry_otlp::{LogExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler, SdkTracerProvider, SpanData};
use runtime_kernel::TraceContext;
use tracing::Level;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

use crate::logs::{Record, Sink, Value};
use crate::{TelemetryConfig, TelemetryError, redact};

/// Targets that the export itself logs under: exporting them would never end.
const OWN: &[&str] = &["opentelemetry", "hyper", "h2", "reqwest", "tower", "rustls"];

/// The providers, which own the queues and their threads.
pub(crate) struct Exporter {
    tracer: SdkTracerProvider,
    logger: SdkLoggerProvider,
}

impl Exporter {
    pub(crate) fn new(config: &TelemetryConfig) -> Result<Option<Self>, TelemetryError> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
        let base = endpoint.trim_end_matches('/');
        let wrong = |error: &dyn fmt::Display| TelemetryError::Setting {
            field: "otlp_endpoint",
            message: redact::text(&error.to_string()).into_owned(),
        };
        let resource = Resource::builder()
            .with_service_name(config.service.clone())
            .with_attribute(KeyValue::new("deployment.environment.name", config.env.clone()))
            .build();
        let spans = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{base}/v1/traces"))
            .with_timeout(config.otlp_timeout)
            .build()
            .map_err(|error| wrong(&error))?;
        let logs = LogExporter::builder()
            .with_http()
            .with_endpoint(format!("{base}/v1/logs"))
            .with_timeout(config.otlp_timeout)
            .build()
            .map_err(|error| wrong(&error))?;
        // A trace nobody upstream has decided on arrives unsampled, exactly as one that was decided against: both are
        // decided here, by trace id, so that every process of the house decides alike.
        let share = Sampler::TraceIdRatioBased(config.otlp_sample_ratio);
        let sampler = ParentBasedSampler::new(share.clone()).with_remote_parent_not_sampled(share);
        let also: Arc<[String]> = config.redact.clone().into();
        let tracer = SdkTracerProvider::builder()
            .with_batch_exporter(Masked { inner: spans, also })
            .with_sampler(sampler)
            .with_resource(resource.clone())
            .build();
        let logger = SdkLoggerProvider::builder().with_batch_exporter(logs).with_resource(resource).build();
        Ok(Some(Self { tracer, logger }))
    }

    pub(crate) fn log_sink(&self) -> Box<dyn Sink> {
        Box::new(LogSink(self.logger.logger("runtime")))
    }

    pub(crate) fn span_layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracer.tracer("runtime"))
            .with_location(false)
            .with_threads(false)
            .with_filter(filter_fn(|metadata| *metadata.level() <= Level::INFO && !is_own(metadata.target())))
            .boxed()
    }

    /// Exports what is queued. The SDK's own calls wait as long as their exporter does, hence the thread.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        let (tracer, logger) = (self.tracer.clone(), self.logger.clone());
        let (done, result) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("telemetry-flush".to_owned())
            .spawn(move || done.send(tracer.force_flush().and(logger.force_flush())))
            .map_err(TelemetryError::Thread)?;
        match result.recv_timeout(timeout) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(TelemetryError::Flush(redact::text(&error.to_string()).into_owned())),
            Err(_) => Err(TelemetryError::Flush("the collector does not answer".to_owned())),
        }
    }
}

fn is_own(target: &str) -> bool {
    OWN.iter().any(|own| target.starts_with(own))
}

/// Makes a span the child of a remote one. Does nothing where spans are not exported.
pub(crate) fn adopt(span: &tracing::Span, trace: &TraceContext) {
    let state = trace.state().and_then(|text| text.parse::<TraceState>().ok()).unwrap_or_default();
    let flags = if trace.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace_id, span_id) = (TraceId::from_bytes(trace.trace_id()), SpanId::from_bytes(trace.span_id()));
    let remote = SpanContext::new(trace_id, span_id, flags, true, state);
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
}

/// The exported span that is current, if it belongs to the same trace.
pub(crate) fn current(trace: &TraceContext) -> Option<TraceContext> {
    let context = tracing::Span::current().context();
    let span = context.span().span_context().clone();
    if !span.is_valid() || span.trace_id().to_bytes() != trace.trace_id() {
        return None;
    }
    let flags = u8::from(span.is_sampled());
    let next: TraceContext = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()).parse().ok()?;
    Some(next.with_state(trace.state().unwrap_or_default()))
}

/// Hands records to the exporter's queue.
struct LogSink(SdkLogger);

impl Sink for LogSink {
    fn take(&self, record: &Record<'_>) {
        if is_own(record.target) {
            return;
        }
        let mut out = self.0.create_log_record();
        out.set_timestamp(record.ts.into());
        let (severity, name) = match record.level {
            Level::ERROR => (Severity::Error, "ERROR"),
            Level::WARN => (Severity::Warn, "WARN"),
            Level::INFO => (Severity::Info, "INFO"),
            Level::DEBUG => (Severity::Debug, "DEBUG"),
            Level::TRACE => (Severity::Trace, "TRACE"),
        };
        out.set_severity_number(severity);
        out.set_severity_text(name);
        out.set_target(record.target.to_owned());
        for (name, value) in &record.fields.0 {
            match (*name, value) {
                ("message", value) => out.set_body(AnyValue::from(value.to_string())),
                ("trace_id", Value::Text(text)) => {
                    if let Ok(trace) = TraceId::from_hex(text) {
                        let span = tracing_span_id(trace).unwrap_or(SpanId::INVALID);
                        out.set_trace_context(trace, span, None);
                    }
                }
                (name, Value::Text(text)) => out.add_attribute(name, text.clone()),
                (name, Value::Int(number)) => out.add_attribute(name, *number),
                (name, Value::Uint(number)) => {
                    out.add_attribute(name, i64::try_from(*number).unwrap_or(i64::MAX));
                }
                (name, Value::Float(number)) => out.add_attribute(name, *number),
                (name, Value::Bool(truth)) => out.add_attribute(name, *truth),
            }
        }
        self.0.emit(out);
    }
}

/// The active exported span, if it is of this trace.
fn tracing_span_id(trace: TraceId) -> Option<SpanId> {
    let context = opentelemetry::Context::current();
    let span = context.span().span_context().clone();
    (span.trace_id() == trace).then(|| span.span_id())
}

/// Masks span attributes before they leave: the tracing bridge copies fields as they are.
#[derive(Debug)]
struct Masked {
    inner: SpanExporter,
    also: Arc<[String]>,
}

impl Masked {
    fn mask(&self, attributes: &mut [KeyValue]) {
        for attribute in attributes {
            let name = attribute.key.as_str();
            if redact::is_secret_name(name) || self.also.iter().any(|also| also.eq_ignore_ascii_case(name)) {
                attribute.value = OtelValue::from(redact::MASK);
            } else if let OtelValue::String(text) = &attribute.value
                && let std::borrow::Cow::Owned(clean) = redact::text(text.as_str())
            {
                attribute.value = OtelValue::from(clean);
            }
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Masked {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut batch {
            self.mask(&mut span.attributes);
            for event in &mut span.events.events {
                self.mask(&mut event.attributes);
                if let std::borrow::Cow::Owned(clean) = redact::text(&event.name) {
                    event.name = clean.into();
                }
            }
        }
        self.inner.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> Result<(), OTelSdkError> {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
