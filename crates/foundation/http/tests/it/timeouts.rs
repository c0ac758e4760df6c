//! Clients that are slow, silent or gone.

use std::time::Duration;

use runtime_http::{HttpConfig, Json, Result, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, LONG, Running, closed, get};

async fn hello() -> &'static str {
    "hello"
}

async fn echo(Json(value): Json<serde_json::Value>) -> Result<Json<serde_json::Value>> {
    Ok(Json(value))
}

async fn server(change: impl FnOnce(&mut HttpConfig)) -> Running {
    let mut config = HttpConfig::default();
    for timeout in [
        &mut config.header_timeout,
        &mut config.idle_timeout,
        &mut config.body_timeout,
        &mut config.request_timeout,
    ] {
        *timeout = LONG * 10;
    }
    change(&mut config);
    let routes = vec![
        Route::get("/hello", hello).public(),
        Route::post("/echo", echo).public(),
        Route::get("/never", std::future::pending::<&'static str>).public(),
        Route::get("/flood", || async { vec![b'x'; 64 << 20] }).public(),
    ];
    Running::start(config, routes).await
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_after_the_header_timeout() {
    let server = server(|config| config.header_timeout = Duration::from_millis(150)).await;
    closed(&mut server.connect().await).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_while_others_are_served() {
    let server = server(|config| config.header_timeout = Duration::from_millis(300)).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\nx-").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(server.raw(get("/hello")).await.status, 200);
    for stream in &mut slow {
        closed(stream).await;
    }
}

/// Bytes that keep trickling in must not extend the time a head may take.
#[tokio::test]
async fn trickling_does_not_extend_the_header_timeout() {
    let server = server(|config| config.header_timeout = Duration::from_millis(300)).await;
    let (mut read, mut write) = server.connect().await.into_split();
    let trickle = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        write.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        while write.write_all(b"x-a: 1\r\n").await.is_ok() {
            tick.tick().await;
        }
    });
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LONG, read.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "cut although bytes kept coming");
    trickle.abort();
}

#[tokio::test]
async fn a_connection_idle_between_requests_is_kept_past_the_header_timeout_and_closed_after_the_idle_timeout()
 {
    let server = server(|config| {
        config.header_timeout = Duration::from_millis(100);
        config.idle_timeout = Duration::from_millis(700);
    })
    .await;
    let mut stream = server.connect().await;
    let request = b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 200);
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(350), stream.read(&mut byte)).await;
    assert!(early.is_err(), "closed before the idle timeout: {early:?}");
    stream.write_all(request).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 200);
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_body_that_stalls_gets_a_408_problem() {
    let server = server(|config| config.body_timeout = Duration::from_millis(150)).await;
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n\"half";
    let answer = server.raw(head).await;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(answer.problem()["code"], "http.body_timeout");
}

#[tokio::test]
async fn a_handler_past_the_deadline_is_dropped_and_answered_for() {
    let server = server(|config| config.request_timeout = Duration::from_millis(150)).await;
    let answer = server.raw(get("/never")).await;
    assert_eq!((answer.status, answer.problem()["code"].as_str()), (504, Some("deadline.exceeded")));
}

#[tokio::test]
async fn the_caller_may_shorten_the_deadline_and_never_extend_it() {
    let short = server(|config| config.request_timeout = Duration::from_millis(150)).await;
    let long = server(|_| {}).await;
    let ask =
        |header: &str| format!("GET /never HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{header}\r\n\r\n");
    for (server, header) in [
        (&short, "x-request-timeout: 3600000"),
        (&short, "grpc-timeout: 1H"),
        (&short, "x-request-timeout: soon"),
        (&long, "x-request-timeout: 100"),
        (&long, "grpc-timeout: 100m"),
        (&long, "x-request-timeout: 0"),
    ] {
        assert_eq!(server.raw(ask(header)).await.status, 504, "{header}");
    }
}

/// Whoever does not read its answer holds memory and a connection.
#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_cut() {
    let server = server(|config| config.write_timeout = Duration::from_millis(300)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // Nothing is read: what we send is refused once the server has closed its side.
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let refused = tokio::time::timeout(LONG, async {
        while stream.write_all(b"\r\n").await.is_ok() {
            tick.tick().await;
        }
    });
    refused.await.expect("the connection is cut");
}

#[tokio::test]
async fn hundreds_of_slow_heads_do_not_stop_service() {
    let server = server(|config| config.header_timeout = LONG).await;
    let mut slow = Vec::new();
    for _ in 0..400 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /hello HTTP/1.1\r\nx-").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(server.raw(get("/hello")).await.status, 200);
    }
}

#[tokio::test]
async fn at_the_connection_limit_one_idle_connection_makes_room_and_the_others_stay() {
    let server = server(|config| config.max_connections = 4).await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.status, 200);
        kept.push(stream);
    }
    assert_eq!(server.raw(get("/hello")).await.status, 200);
    let mut answered = 0;
    for stream in &mut kept {
        let sent = stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
        answered += usize::from(sent.is_ok() && Answer::read(stream).await.status == 200);
    }
    assert_eq!(answered, 3);
}
