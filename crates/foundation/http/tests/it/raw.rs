//! Bytes on a socket: heads and bodies the server takes or refuses.

use runtime_http::{HttpConfig, Json, Result, Route};
use runtime_kernel::units::ByteSize;

use crate::support::{Answer, Running, get};

async fn hello() -> &'static str {
    "hello"
}

async fn echo(Json(value): Json<serde_json::Value>) -> Result<Json<serde_json::Value>> {
    Ok(Json(value))
}

async fn server() -> Running {
    let mut config = HttpConfig::default();
    config.max_head = ByteSize::kib(4);
    config.max_headers = 20;
    config.max_body = ByteSize::kib(1);
    let routes = vec![Route::get("/hello", hello).public(), Route::post("/echo", echo).public()];
    Running::start(config, routes).await
}

#[tokio::test]
async fn a_head_is_taken_or_refused_as_rfc_9112_says() {
    let server = server().await;
    let close = "connection: close\r\n\r\n";
    for (head, status, code) in [
        ("GET /hello HTTP/1.1\r\nhost: a\r\n", 200, ""),
        ("GET /hello HTTP/1.1\r\nhost: [::1]:3000\r\n", 200, ""),
        ("GET http://a/hello HTTP/1.1\r\nhost: a\r\n", 200, ""),
        ("GET /hello HTTP/1.0\r\n", 200, ""),
        ("HEAD /hello HTTP/1.1\r\nhost: a\r\n", 200, ""),
        ("GET /hello HTTP/1.1\r\n", 400, "http.invalid_host"),
        ("GET http://a/hello HTTP/1.1\r\n", 400, "http.invalid_host"),
        ("GET /hello HTTP/1.1\r\nhost: a\r\nhost: a\r\n", 400, "http.invalid_host"),
        ("GET /hello HTTP/1.1\r\nhost: a\r\nHost: b\r\n", 400, "http.invalid_host"),
        ("GET /hello HTTP/1.1\r\nhost:\r\n", 400, "http.invalid_host"),
        ("GET /hello HTTP/1.1\r\nhost: a b\r\n", 400, "http.invalid_host"),
        ("GET /hello HTTP/1.1\r\nhost: a/b\r\n", 400, "http.invalid_host"),
        ("GET /hello HTTP/1.1\r\nhost: user@a\r\n", 400, "http.invalid_host"),
        ("GET /nothing HTTP/1.1\r\nhost: a\r\n", 404, "http.not_found"),
        ("DELETE /hello HTTP/1.1\r\nhost: a\r\n", 405, "http.method_not_allowed"),
        ("BREW /hello HTTP/1.1\r\nhost: a\r\n", 405, "http.method_not_allowed"),
    ] {
        let answer = server.raw(format!("{head}{close}")).await;
        assert_eq!(answer.status, status, "{head:?}: {answer:?}");
        if status != 200 {
            assert_eq!(answer.problem()["code"], code, "{head:?}");
        }
    }
}

#[tokio::test]
async fn an_oversized_head_gets_a_431_problem() {
    let server = server().await;
    let long = "x".repeat(5000);
    let many = "x-1: 1\r\n".repeat(30);
    for head in [
        format!("GET /hello HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n"),
        format!("GET /hello?{long} HTTP/1.1\r\nhost: a\r\n"),
        format!("GET /hello HTTP/1.1\r\nhost: a\r\n{many}"),
    ] {
        let answer = server.raw(format!("{head}connection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 431, "{answer:?}");
        assert_eq!(answer.problem()["code"], "http.head_too_large");
    }
}

/// hyper answers for us when a head cannot be parsed at all; even then nothing but a problem leaves the house.
#[tokio::test]
async fn a_head_no_parser_accepts_gets_a_problem_too() {
    let server = server().await;
    let huge = "x".repeat(200_000);
    for (bytes, status) in [
        (format!("GET /hello HTTP/1.1\r\nhost: a\r\nx-huge: {huge}\r\n\r\n"), 431),
        ("GET /hello HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n".to_owned(), 400),
        ("GET /hel lo HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: ten\r\n\r\n".to_owned(), 400),
        (
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
            400,
        ),
    ] {
        let answer = server.raw(&bytes).await;
        assert_eq!(answer.status, status, "{:?}: {answer:?}", &bytes[..60.min(bytes.len())]);
        answer.problem();
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    }
    assert_eq!(server.raw(get("/hello")).await.status, 200);
}

#[tokio::test]
async fn an_oversized_body_gets_a_413_problem_declared_or_chunked() {
    let server = server().await;
    let json = format!("\"{}\"", "x".repeat(2000));
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let declared = format!("{head}content-length: {}\r\n\r\n", json.len());
    let (first, rest) = json.split_at(600);
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        first.len(),
        rest.len()
    );
    for request in [declared, chunked] {
        let answer = server.raw(&request).await;
        assert_eq!(answer.status, 413, "{answer:?}");
        assert_eq!(answer.problem()["code"], "http.body_too_large");
    }
    let fits = format!("{head}content-length: 7\r\n\r\n\"hello\"");
    assert_eq!(server.raw(fits).await.body, "\"hello\"");
}

#[tokio::test]
async fn a_body_limit_above_axums_own_is_honoured() {
    let mut config = HttpConfig::default();
    config.max_body = ByteSize::mib(4);
    let server = Running::start(config, vec![Route::post("/echo", echo).public()]).await;
    let json = format!("\"{}\"", "x".repeat(3 << 20));
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let answer = server.raw(format!("{head}content-length: {}\r\n\r\n{json}", json.len())).await;
    assert_eq!((answer.status, answer.body.len()), (200, json.len()));
}

#[tokio::test]
async fn a_method_that_is_not_allowed_is_told_which_are() {
    let server = server().await;
    let ask = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    };
    assert_eq!(server.raw(ask("PUT", "/hello")).await.header("allow"), Some("get,head"));
    assert_eq!(server.raw(ask("GET", "/echo")).await.header("allow"), Some("post"));
    let head = server.raw(ask("HEAD", "/hello")).await;
    assert_eq!((head.header("content-length"), head.body.as_str()), (Some("5"), ""));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    use tokio::io::AsyncWriteExt;
    let server = server().await;
    let mut stream = server.connect().await;
    for path in ["/hello", "/nothing", "/hello"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream).await;
        assert_eq!(answer.status, if path == "/hello" { 200 } else { 404 });
    }
}

#[tokio::test]
async fn a_unix_socket_serves_and_never_replaces_a_file() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let app = || {
        runtime_http::router(vec![Route::get("/hello", hello).public()], runtime_http::Stack::default(), ())
    };
    let bind = |path: std::path::PathBuf| {
        let mut config = HttpConfig::default();
        config.unix_socket = Some(path);
        runtime_http::Server::bind(config, app(), runtime_kernel::SystemClock::shared())
    };

    let file = folder.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    assert!(bind(file.clone()).await.is_err(), "a file is in the way");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");

    let path = folder.path().join("http.sock");
    // A process that was killed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = bind(path.clone()).await.unwrap();
    assert!(bind(path.clone()).await.is_err(), "a live server keeps its socket");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let report = tokio::spawn(server.serve(async { stopped.await.unwrap_or_default() }));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(get("/hello").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("hello"), "{text}");
    stop.send(()).unwrap();
    report.await.unwrap();
}
