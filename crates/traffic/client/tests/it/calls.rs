//! Headers, deadlines, time-outs.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::{
    Json, Router,
    routing::{get, post},
};
use runtime_client::{Client, ClientConfig, ClientError, Guard, Phase};
use runtime_kernel::{Classify, Clock, Deadline, SystemClock, TraceContext};
use serde_json::{Value, json};

use super::server::{client_with, context, local, serve, serve_raw};

async fn echo(headers: HeaderMap) -> Json<Value> {
    Json(
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())))
            .collect(),
    )
}

#[tokio::test]
async fn trace_request_id_and_the_time_left_go_along() {
    let address = serve(Router::new().route("/", get(echo))).await;
    let context = context().with_deadline(Deadline::after(&SystemClock, Duration::from_secs(7)));
    let response = local().get(&format!("http://{address}/")).send(&context).await.unwrap();
    let seen: Value = response.json().await.unwrap();
    let trace: TraceContext = seen["traceparent"].as_str().unwrap().parse().unwrap();
    assert_eq!(trace.trace_id(), context.trace.trace_id());
    assert_ne!(trace.span_id(), context.trace.span_id(), "a span of its own");
    assert_eq!(seen["x-request-id"], context.request_id.to_string());
    let left: u64 = seen["x-request-timeout"].as_str().unwrap().parse().unwrap();
    assert!((6_000..=7_000).contains(&left), "{left}");
    assert!(seen["user-agent"].as_str().unwrap().starts_with("runtime/"));
}

#[tokio::test]
async fn the_time_left_is_never_more_than_the_calls_own() {
    let address = serve(Router::new().route("/", get(echo))).await;
    let context = context().with_deadline(Deadline::after(&SystemClock, Duration::from_mins(1)));
    let response = local()
        .get(&format!("http://{address}/"))
        .timeout(Duration::from_secs(3))
        .send(&context)
        .await
        .unwrap();
    let left: u64 =
        response.json::<Value>().await.unwrap()["x-request-timeout"].as_str().unwrap().parse().unwrap();
    assert!(left <= 3_000, "{left}");
}

#[tokio::test]
async fn nothing_is_told_when_propagation_is_off() {
    let address = serve(Router::new().route("/", get(echo))).await;
    let mut config = ClientConfig::default();
    config.propagate = false;
    let client = client_with(config, Guard::local());
    let seen: Value =
        client.get(&format!("http://{address}/")).send(&context()).await.unwrap().json().await.unwrap();
    for name in ["traceparent", "x-request-id", "x-request-timeout"] {
        assert!(seen.get(name).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_json_body_arrives_with_its_type() {
    let address =
        serve(Router::new().route("/", post(|Json(body): Json<Value>| async move { Json(body) }))).await;
    let sent = json!({ "hello": [1, 2] });
    let back: Value = local()
        .post(&format!("http://{address}/"))
        .json(&sent)
        .send(&context())
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(back, sent);
}

#[tokio::test]
async fn a_silent_server_is_given_up_on_at_the_deadline() {
    let address = serve_raw(b"").await;
    let context = context().with_deadline(Deadline::after(&SystemClock, Duration::from_millis(80)));
    let start = SystemClock.now();
    let error = local().get(&format!("http://{address}/")).send(&context).await.unwrap_err();
    assert_eq!(error.code(), "deadline.exceeded");
    assert!(SystemClock.now() - start < Duration::from_secs(5));
}

#[tokio::test]
async fn a_body_that_pauses_too_long_is_cut() {
    let address = serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npartly").await;
    let mut config = ClientConfig::default();
    config.read_timeout = Duration::from_millis(80);
    let mut response = client_with(config, Guard::local())
        .get(&format!("http://{address}/"))
        .send(&context())
        .await
        .unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "partly");
    assert!(matches!(response.chunk().await.unwrap_err(), ClientError::Timeout { phase: Phase::Read, .. }));
}

#[tokio::test]
async fn the_deadline_covers_the_body_too() {
    let address = serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npartly").await;
    let response = local()
        .get(&format!("http://{address}/"))
        .timeout(Duration::from_millis(80))
        .send(&context())
        .await
        .unwrap();
    assert!(matches!(response.bytes().await.unwrap_err(), ClientError::Deadline));
}

#[tokio::test]
async fn a_closed_port_is_unavailable_and_a_broken_answer_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = local().get(&format!("http://{address}/?key=secret")).send(&context()).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let shown = format!("{error:?}");
    let text = format!("{shown} {}", runtime_kernel::Error::from(error).report());
    assert!(!text.contains("secret"), "{text}");

    let address = serve_raw(b"nonsense\r\n\r\n").await;
    let error = local().get(&format!("http://{address}/")).send(&context()).await.unwrap_err();
    assert_eq!(error.code(), "client.broken_off");
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_says_why_without_repeating_secrets() {
    for (request, words) in [
        (local().get("no url"), "the URL cannot be read"),
        (local().get("http://user:hunter2@example.com/"), "carries credentials"),
        (local().get("mailto:x@y"), "names no host"),
        (local().get("http://example.com").header("bad name", "hunter2"), "header `bad name` cannot be sent"),
        (local().get("http://example.com").header("x", "hunter2\n"), "header `x` cannot be sent"),
    ] {
        let error = request.send(&context()).await.unwrap_err();
        assert_eq!(error.code(), "client.invalid_request");
        let text = format!("{error} {error:?}");
        assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_the_key_named() {
    type Spoil = fn(&mut ClientConfig);
    let wrong: [(&str, Spoil); 6] = [
        ("connect_timeout", |config| config.connect_timeout = Duration::ZERO),
        ("timeout", |config| config.timeout = Duration::ZERO),
        ("max_redirects", |config| config.max_redirects = 21),
        ("user_agent", |config| config.user_agent = "a\nb".to_owned()),
        ("allow_private", |config| config.allow_private = vec!["10.0.0.0/99".to_owned()]),
        ("ca_file", |config| config.ca_file = Some("/does/not/exist.pem".into())),
    ];
    for (expected, spoil) in wrong {
        let mut config = ClientConfig::default();
        spoil(&mut config);
        match Client::new(config, SystemClock::shared()) {
            Err(ClientError::Config { key, .. }) => assert_eq!(key, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}
