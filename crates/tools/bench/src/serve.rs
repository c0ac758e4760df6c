//! What `wrk` and callgrind are pointed at: the same handler behind our whole stack, and behind axum alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::routing::get;
use runtime_http::{HttpConfig, HttpMetrics, Route, Server, Stack, router};
use runtime_kernel::SystemClock;
use runtime_telemetry::{Metrics, Telemetry, TelemetryConfig};
use tokio::sync::Notify;

/// Serves until killed or, with a number, until so many requests have been answered.
///
/// `ours` has everything the default stack has, its access log written to standard error; `ours-quiet` the same
/// without the access log; `axum` nothing but axum.
pub fn run(which: &str, requests: Option<u32>) {
    let mut runtime = match requests {
        // One thread, so that every instruction counted belongs to a request.
        Some(_) => tokio::runtime::Builder::new_current_thread(),
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build().expect("a runtime").block_on(serve(which, requests));
}

/// Counts answers down to the end.
struct Countdown {
    left: AtomicU32,
    done: Notify,
}

async fn serve(which: &str, requests: Option<u32>) {
    let countdown = Arc::new(Countdown { left: AtomicU32::new(requests.unwrap_or(0)), done: Notify::new() });
    let counted = Arc::clone(&countdown);
    let hello = move || {
        let counted = Arc::clone(&counted);
        async move {
            if counted.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                counted.done.notify_one();
            }
            "hello"
        }
    };
    let stop = async move { countdown.done.notified().await };
    if which == "axum" {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port").port());
        let serving = axum::serve(listener, Router::new().route("/hello", get(hello)));
        return tokio::select! {
            served = async { serving.await } => served.expect("served"),
            () = stop => {}
        };
    }
    let _logs = Telemetry::init(TelemetryConfig::default()).expect("logs");
    let mut config = HttpConfig::default();
    config.port = 0;
    config.access_log = which == "ours";
    let metrics = HttpMetrics::new(&Metrics::new(), 1).expect("metrics");
    let app = router(vec![Route::get("/hello", hello).public()], Stack::default(), ());
    let server = Server::bind_with(config, app, SystemClock::shared(), metrics).await.expect("a port");
    println!("{}", server.local_addr().expect("a port").port());
    tokio::select! {
        _ = server.serve(std::future::pending()) => {}
        () = stop => {}
    }
}
