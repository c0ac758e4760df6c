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
/// without the access log; `axum` nothing but axum; `axum-layers` axum under ten layers of tower-http.
pub fn run(which: &str, requests: Option<u32>) {
    let mut runtime = match requests {
        // One thread, so that every instruction counted belongs to a request.
        Some(_) => tokio::runtime::Builder::new_current_thread(),
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build().expect("a runtime").block_on(serve(which, requests));
}

/// What a careful service puts around axum today, and `tracing_subscriber`'s own lines on standard error.
fn ten_layers(app: Router) -> Router {
    use std::time::Duration;

    use axum::http::{HeaderName, HeaderValue, StatusCode, header};
    use tower_http::catch_panic::CatchPanicLayer;
    use tower_http::limit::RequestBodyLimitLayer;
    use tower_http::propagate_header::PropagateHeaderLayer;
    use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
    use tower_http::sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer};
    use tower_http::set_header::SetResponseHeaderLayer;
    use tower_http::timeout::TimeoutLayer;
    use tower_http::trace::{DefaultOnResponse, TraceLayer};

    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let id = HeaderName::from_static("x-request-id");
    let secret = [header::AUTHORIZATION, header::COOKIE];
    app.layer(
        tower::ServiceBuilder::new()
            .layer(SetRequestIdLayer::new(id.clone(), MakeRequestUuid))
            .layer(SetSensitiveRequestHeadersLayer::new(secret.clone()))
            .layer(
                TraceLayer::new_for_http().on_response(DefaultOnResponse::new().level(tracing::Level::INFO)),
            )
            .layer(SetSensitiveResponseHeadersLayer::new(secret))
            .layer(PropagateRequestIdLayer::new(id))
            .layer(PropagateHeaderLayer::new(HeaderName::from_static("traceparent")))
            .layer(SetResponseHeaderLayer::overriding(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ))
            .layer(CatchPanicLayer::new())
            .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(30)))
            .layer(RequestBodyLimitLayer::new(2 << 20)),
    )
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
    if which.starts_with("axum") {
        let mut app = Router::new().route("/hello", get(hello));
        if which == "axum-layers" {
            app = ten_layers(app);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port").port());
        let serving = axum::serve(listener, app);
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
