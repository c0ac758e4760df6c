//! HTTP/2 with prior knowledge, spoken by the h2 crate: same port, same answers, and a flood of resets.

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use http::{Request, Response, Version};
use runtime_http::{HttpConfig, Json, Result, Route};
use runtime_kernel::units::ByteSize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{LONG, Running, get};

async fn echo(Json(value): Json<Value>) -> Result<Json<Value>> {
    Ok(Json(value))
}

async fn server() -> Running {
    let mut config = HttpConfig::default();
    config.max_body = ByteSize::kib(1);
    config.max_head = ByteSize::kib(4);
    let routes = vec![
        Route::get("/hello", || async { "hello" }).public(),
        Route::get("/never", std::future::pending::<&'static str>).public(),
        Route::post("/echo", echo).public(),
    ];
    Running::start(config, routes).await
}

async fn client(server: &Running) -> (SendRequest<Bytes>, JoinHandle<std::result::Result<(), h2::Error>>) {
    let (send, connection) = handshake(server.connect().await).await.unwrap();
    (send, tokio::spawn(connection))
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).version(Version::HTTP_2).uri(format!("http://test{path}"))
}

async fn body(response: Response<h2::RecvStream>) -> Vec<u8> {
    let mut stream = response.into_body();
    let mut all = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        all.extend_from_slice(&chunk);
    }
    all
}

#[tokio::test]
async fn one_port_speaks_both_versions() {
    let server = server().await;
    let (mut send, _connection) = client(&server).await;
    let (answer, _) = send.send_request(request("GET", "/hello").body(()).unwrap(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(body(answer).await, b"hello");
    assert_eq!(server.raw(get("/hello")).await.status, 200);
}

#[tokio::test]
async fn refusals_are_the_same_problem_documents() {
    let server = server().await;
    let (mut send, _connection) = client(&server).await;
    let long = "x".repeat(5000);
    for (request, sent, status, code) in [
        (request("GET", "/nothing"), "", 404, "http.not_found"),
        (request("PUT", "/hello"), "", 405, "http.method_not_allowed"),
        (request("GET", "/hello").header("x-long", &long), "", 431, "http.head_too_large"),
        (request("GET", "/hello").header("host", "other"), "", 400, "http.invalid_host"),
        (
            request("POST", "/echo").header("content-type", "application/json"),
            &*long,
            413,
            "http.body_too_large",
        ),
        (request("POST", "/echo").header("content-type", "application/json"), "{", 400, "http.invalid_json"),
    ] {
        let (answer, mut stream) = send.send_request(request.body(()).unwrap(), sent.is_empty()).unwrap();
        if !sent.is_empty() {
            // The server may have answered and reset the stream before it took everything.
            let _ = stream.send_data(Bytes::copy_from_slice(sent.as_bytes()), true);
        }
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status, "{code}");
        let media_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap());
        assert_eq!(media_type, Some("application/problem+json"), "{code}: {answer:?}");
        let problem: Value = serde_json::from_slice(&body(answer).await).unwrap();
        assert_eq!(problem["code"], code);
    }
}

/// CVE-2023-44487: streams opened and reset at once cost the peer nothing and us a handler each.
#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_no_other() {
    let server = server().await;
    let (mut send, connection) = client(&server).await;
    let flood = async {
        loop {
            let Ok(ready) = send.clone().ready().await else { return };
            send = ready;
            let Ok((_answer, mut stream)) =
                send.send_request(request("GET", "/never").body(()).unwrap(), false)
            else {
                return;
            };
            stream.send_reset(h2::Reason::CANCEL);
            // The connection is a task of its own: without this it never gets to send anything.
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, flood).await.expect("the server ends the connection");
    let error = tokio::time::timeout(LONG, connection).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    assert_eq!(server.raw(get("/hello")).await.status, 200);
}

#[tokio::test]
async fn no_more_streams_run_at_once_than_allowed() {
    let mut config = HttpConfig::default();
    config.max_concurrent_streams = 3;
    let server =
        Running::start(config, vec![Route::get("/never", std::future::pending::<&'static str>).public()])
            .await;
    let (mut send, _connection) = client(&server).await;
    // The first answer to the handshake carries the setting.
    send = send.ready().await.unwrap();
    let reached = async {
        while send.current_max_send_streams() != 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, reached).await.expect("the setting reaches the peer");
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_a_stream_finish() {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let entered = std::sync::Arc::new(tokio::sync::Notify::new());
    let (wait, enter) = (release.clone(), entered.clone());
    let handler = move || {
        let (wait, enter) = (wait.clone(), enter.clone());
        async move {
            enter.notify_one();
            wait.notified().await;
            "finished"
        }
    };
    let server = Running::start(HttpConfig::default(), vec![Route::get("/held", handler).public()]).await;
    let (mut send, connection) = client(&server).await;
    let (answer, _) = send.send_request(request("GET", "/held").body(()).unwrap(), true).unwrap();
    entered.notified().await;
    let report = server.stop();
    release.notify_one();
    assert_eq!(body(answer.await.unwrap()).await, b"finished");
    drop(send);
    connection.await.unwrap().unwrap();
    assert_eq!(report.await.unwrap().cut, 0);
}
