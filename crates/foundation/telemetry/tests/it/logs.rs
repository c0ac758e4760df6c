//! Lines: what they say, what they never say, when they are silent.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_kernel::{Context, ManualClock, Name, Source, TenantContext};
use runtime_telemetry::{Format, Telemetry, TelemetryConfig, TelemetryError, TelemetryGuard, span};
use serde_json::{Value, json};
use tracing::Dispatch;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self, guard: &TelemetryGuard) -> String {
        guard.flush(Duration::from_secs(5)).unwrap();
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self, guard: &TelemetryGuard) -> Vec<Value> {
        self.text(guard).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

fn config(format: Format, levels: &str) -> TelemetryConfig {
    let mut config = TelemetryConfig::default();
    config.format = format;
    config.levels = levels.into();
    config.service = "demo".into();
    config.env = "test".into();
    config
}

fn start(config: TelemetryConfig) -> (Sink, Dispatch, TelemetryGuard) {
    let sink = Sink::default();
    let telemetry = Telemetry::new(config).unwrap().stream(sink.clone()).clock(Arc::new(ManualClock::new()));
    let (dispatch, guard) = telemetry.build().unwrap();
    (sink, dispatch, guard)
}

#[test]
fn a_line_is_one_object_with_the_work_it_belongs_to() {
    let (sink, dispatch, guard) = start(config(Format::Json, "info"));
    let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new("acme").unwrap());
    let context = Context::new(Source::Http, &ManualClock::new()).with_tenant(tenant);
    tracing::dispatcher::with_default(&dispatch, || {
        let _entered = span(&context, "demo").entered();
        tracing::info!(target: "shop", items = 3, price = 1.5, ok = true, over = f64::INFINITY, "sold \"it\"\n");
    });
    assert_eq!(
        sink.lines(&guard),
        [json!({
            "ts": "2026-01-01T00:00:00.000000Z",
            "level": "INFO",
            "target": "shop",
            "msg": "sold \"it\"\n",
            "trace_id": context.trace.trace_id_hex(),
            "request_id": context.request_id.to_string(),
            "service": "demo",
            "env": "test",
            "fields": {"tenant": "main/acme", "items": 3, "price": 1.5, "ok": true, "over": "inf"},
        })]
    );
}

#[test]
fn no_secret_reaches_a_line_in_either_format() {
    for format in [Format::Json, Format::Pretty] {
        let mut config = config(format, "trace");
        config.redact = vec!["iban".to_owned()];
        let (sink, dispatch, guard) = start(config);
        tracing::dispatcher::with_default(&dispatch, || {
            let span = tracing::info_span!("s", password = "hunter2", api_key = tracing::field::Empty);
            span.record("api_key", "hunter2");
            let _entered = span.entered();
            let error = io::Error::other("redis://:hunter2@cache:6379 refused");
            tracing::error!(authorization = "hunter2", iban = "hunter2", set_cookie = ?Some("hunter2"), "no");
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "dial postgres://app:hunter2@db/x failed"
            );
            tracing::info!("GET /?token=hunter2 Authorization: Bearer hunter2");
            tracing::debug!(nested.secret = 12345, session_token = 12345_u64);
        });
        let text = sink.text(&guard);
        assert!(!text.contains("hunter2") && !text.contains("12345"), "{text}");
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("***@db/x") && text.contains("***@cache:6379"), "{text}");
    }
}

#[test]
fn levels_change_live_and_by_target() {
    let (sink, dispatch, guard) = start(config(Format::Json, "info,noisy=warn"));
    let emit = || {
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::debug!(target: "http::server", "debug");
            tracing::info!(target: "noisy", "noise");
            tracing::info!(target: "other", "info");
        });
    };
    let count = |text: &str| sink.text(&guard).matches(text).count();
    emit();
    assert_eq!((count("\"debug\""), count("\"noise\""), count("\"info\"")), (0, 0, 1));
    guard.levels().set("warn,http=debug").unwrap();
    emit();
    assert_eq!((count("\"debug\""), count("\"noise\""), count("\"info\"")), (1, 0, 1));
    assert!(guard.levels().set("loud").is_err());
    emit();
    assert_eq!((count("\"debug\""), count("\"info\"")), (2, 1), "what is refused changes nothing");
}

#[test]
fn a_warning_keeps_its_request_where_info_is_silenced() {
    let (sink, dispatch, guard) = start(config(Format::Json, "warn"));
    let context = Context::new(Source::Http, &ManualClock::new());
    tracing::dispatcher::with_default(&dispatch, || {
        let _entered = span(&context, "demo").entered();
        tracing::info!("silent");
        tracing::warn!("heard");
    });
    let lines = sink.lines(&guard);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["request_id"], context.request_id.to_string());
}

#[test]
fn a_caller_cannot_forge_a_line_or_drive_the_terminal() {
    let (sink, dispatch, guard) = start(config(Format::Pretty, "info"));
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info!(name = "x\n00:00:00.000 ERROR fake: pwned", "a\u{1b}[31mb\rc");
    });
    let text = sink.text(&guard);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
}

#[test]
fn a_pretty_line_reads_well() {
    let (sink, dispatch, guard) = start(config(Format::Pretty, "info"));
    tracing::dispatcher::with_default(&dispatch, || tracing::info!(target: "http", port = 3000, "listening"));
    assert_eq!(sink.text(&guard), "00:00:00.000 INFO  http: listening port=3000\n");
}

#[test]
fn a_long_field_is_cut() {
    let (sink, dispatch, guard) = start(config(Format::Json, "info"));
    tracing::dispatcher::with_default(&dispatch, || tracing::info!(body = "é".repeat(1 << 20), "big"));
    assert!(sink.text(&guard).len() < 40_000);
}

/// A stream that takes nothing until it is let go.
struct Stuck(Arc<Mutex<()>>, Sink);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _wait = self.0.lock().unwrap();
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_stream_stops_nobody_and_what_was_dropped_is_reported() {
    let (gate, sink) = (Arc::new(Mutex::new(())), Sink::default());
    let telemetry = Telemetry::new(config(Format::Json, "info")).unwrap();
    let (dispatch, guard) = telemetry.stream(Stuck(Arc::clone(&gate), sink.clone())).build().unwrap();
    let held = gate.lock().unwrap();
    let body = "x".repeat(15_000);
    tracing::dispatcher::with_default(&dispatch, || {
        for _ in 0..800 {
            tracing::info!(body, "line");
        }
        assert!(matches!(guard.flush(Duration::from_millis(10)), Err(TelemetryError::Flush(_))));
        drop(held);
        guard.flush(Duration::from_secs(5)).unwrap();
        tracing::info!("after");
    });
    let lines = sink.lines(&guard);
    let note = &lines[lines.len() - 2];
    let kept = lines.len() as u64 - 2;
    assert_eq!(note["fields"]["dropped"].as_u64().unwrap() + kept, 800, "{note}");
    assert!(kept < 800);
}

#[test]
fn settings_that_do_not_hold_are_named() {
    let with = |change: fn(&mut TelemetryConfig)| {
        let mut config = TelemetryConfig::default();
        change(&mut config);
        Telemetry::new(config).unwrap_err().to_string()
    };
    for (change, said) in [
        (
            (|c| c.levels = "loud".into()) as fn(&mut TelemetryConfig),
            "telemetry.levels: `loud` is not a level",
        ),
        (|c| c.levels = String::new(), "telemetry.levels: must not be empty"),
        (|c| c.max_series = 0, "telemetry.max_series: must not be 0"),
        (|c| c.otlp_sample_ratio = 1.5, "telemetry.otlp_sample_ratio: must be from 0 to 1"),
        (|c| c.otlp_sample_ratio = f64::NAN, "telemetry.otlp_sample_ratio: must be from 0 to 1"),
        (|c| c.otlp_endpoint = Some("ftp://x".into()), "telemetry.otlp_endpoint:"),
    ] {
        assert!(with(change).starts_with(said), "{said}: {}", with(change));
    }
}

#[test]
fn a_second_installation_is_an_error_and_the_first_stays() {
    let (first, second) = (Sink::default(), Sink::default());
    let telemetry = |sink: &Sink| Telemetry::new(config(Format::Json, "info")).unwrap().stream(sink.clone());
    let guard = telemetry(&first).install().unwrap();
    assert!(matches!(telemetry(&second).install(), Err(TelemetryError::AlreadyInstalled)));
    assert!(matches!(Telemetry::init(TelemetryConfig::default()), Err(TelemetryError::AlreadyInstalled)));
    tracing::info!("here");
    assert!(first.text(&guard).contains("here"));
    drop(guard);
    tracing::info!("after the guard");
    assert!(String::from_utf8(first.0.lock().unwrap().clone()).unwrap().contains("after the guard"));
    assert!(second.0.lock().unwrap().is_empty());
}
