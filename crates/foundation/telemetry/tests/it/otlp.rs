//! Against a collector small enough to read: HTTP in, bytes kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runtime_kernel::{Context, ManualClock, Source};
use runtime_telemetry::{Format, Telemetry, TelemetryConfig, outgoing, span};

type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

fn collector() -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let received = Received::default();
    let keep = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let keep = Arc::clone(&keep);
            std::thread::spawn(move || serve(stream.unwrap(), &keep));
        }
    });
    (address, received)
}

fn serve(stream: TcpStream, keep: &Received) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        keep.lock().unwrap().push((first.split(' ').nth(1)?.to_owned(), body));
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

fn config(endpoint: &str) -> TelemetryConfig {
    let mut config = TelemetryConfig::default();
    config.format = Format::Json;
    config.otlp_endpoint = Some(endpoint.to_owned());
    config.otlp_timeout = Duration::from_secs(5);
    config
}

fn holds(body: &[u8], needle: &[u8]) -> bool {
    body.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn spans_and_records_arrive_in_the_contexts_own_trace_without_secrets() {
    let (endpoint, received) = collector();
    let (dispatch, guard) =
        Telemetry::new(config(&endpoint)).unwrap().stream(std::io::sink()).build().unwrap();
    let context = Context::new(Source::Http, &ManualClock::new());
    let sent = tracing::dispatcher::with_default(&dispatch, || {
        let outer = span(&context, "GET /orders");
        let _entered = outer.entered();
        let inner =
            tracing::info_span!("query", db.password = "hunter2", url = "postgres://app:hunter2@db/x");
        let _inner = inner.entered();
        tracing::info!(api_key = "hunter2", "fetched rows");
        outgoing(&context)
    });
    guard.flush(Duration::from_secs(10)).unwrap();
    let received = received.lock().unwrap();
    let of = |path: &str| {
        received.iter().find(|(known, _)| known == path).map(|(_, body)| body.clone()).expect(path)
    };
    let (spans, logs) = (of("/v1/traces"), of("/v1/logs"));
    assert!(holds(&spans, &context.trace.trace_id()), "the exported trace is the context's");
    assert!(holds(&spans, &context.trace.span_id()), "its span is the parent");
    assert!(holds(&spans, b"GET /orders") && holds(&spans, b"query"));
    assert_eq!(sent.trace_id(), context.trace.trace_id());
    assert!(holds(&spans, &sent.span_id()), "an outbound call names a span the collector has");
    assert!(holds(&logs, b"fetched rows") && holds(&logs, &context.trace.trace_id()));
    assert!(holds(&logs, &sent.span_id()), "a record names the span it was made in");
    for (path, body) in received.iter() {
        assert!(!holds(body, b"hunter2"), "{path}");
    }
}

#[test]
fn a_ratio_of_zero_exports_only_what_the_caller_samples() {
    let (endpoint, received) = collector();
    let mut config = config(&endpoint);
    config.otlp_sample_ratio = 0.0;
    let (dispatch, guard) = Telemetry::new(config).unwrap().stream(std::io::sink()).build().unwrap();
    let ours = Context::new(Source::Http, &ManualClock::new());
    let mut theirs = Context::new(Source::Http, &ManualClock::new());
    theirs.trace = theirs.trace.sampled(true);
    tracing::dispatcher::with_default(&dispatch, || {
        drop(span(&ours, "ours").entered());
        drop(span(&theirs, "theirs").entered());
    });
    guard.flush(Duration::from_secs(10)).unwrap();
    let received = received.lock().unwrap();
    let spans: Vec<u8> =
        received.iter().filter(|(path, _)| path == "/v1/traces").flat_map(|(_, body)| body.clone()).collect();
    assert!(holds(&spans, &theirs.trace.trace_id()));
    assert!(!holds(&spans, &ours.trace.trace_id()));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn a_collector_that_is_gone_or_hangs_blocks_nobody() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for endpoint in [format!("http://{}", hanging.local_addr().unwrap()), format!("http://{gone}")] {
        let (dispatch, guard) =
            Telemetry::new(config(&endpoint)).unwrap().stream(std::io::sink()).build().unwrap();
        let start = Instant::now();
        tracing::dispatcher::with_default(&dispatch, || {
            for _ in 0..5_000 {
                drop(span(&Context::new(Source::Http, &ManualClock::new()), "work").entered());
                tracing::info!("line");
            }
        });
        assert!(start.elapsed() < Duration::from_secs(5), "{endpoint}: {:?}", start.elapsed());
        assert!(guard.flush(Duration::from_millis(200)).is_err(), "a lost flush is told");
        assert!(start.elapsed() < Duration::from_secs(8), "{endpoint}: {:?}", start.elapsed());
    }
}
