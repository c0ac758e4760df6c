//! Stopping: what is in flight finishes, what is idle closes, what hangs is cut and counted.

use std::sync::Arc;
use std::time::Duration;

use runtime_http::{DrainReport, HttpConfig, Route};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};

use crate::support::{Answer, Running, closed};

struct Held {
    entered: Arc<Semaphore>,
    release: Arc<Notify>,
}

async fn held(config: HttpConfig) -> (Running, Held) {
    let held = Held { entered: Arc::new(Semaphore::new(0)), release: Arc::new(Notify::new()) };
    let (entered, release) = (Arc::clone(&held.entered), Arc::clone(&held.release));
    let handler = move || {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        async move {
            let released = release.notified();
            entered.add_permits(1);
            released.await;
            "finished"
        }
    };
    (Running::start(config, vec![Route::get("/held", handler).public()]).await, held)
}

#[tokio::test]
async fn a_request_in_flight_finishes_and_its_connection_then_closes() {
    let (server, held) = held(HttpConfig::default()).await;
    let address = server.address;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    held.entered.acquire().await.unwrap().forget();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.status, 404);

    let report = server.stop();
    closed(&mut idle).await;
    assert!(TcpStream::connect(address).await.is_err(), "nothing more is accepted");
    held.release.notify_waiters();
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "finished"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(report.await.unwrap(), DrainReport { connections: 2, cut: 0 });
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_is_cut_and_counted() {
    let mut config = HttpConfig::default();
    config.drain = Duration::from_millis(150);
    let (server, held) = held(config).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    held.entered.acquire().await.unwrap().forget();
    assert_eq!(server.stop().await.unwrap(), DrainReport { connections: 1, cut: 1 });
    closed(&mut stream).await;
}

#[tokio::test]
async fn no_request_fails_when_a_server_stops_under_load() {
    let routes = vec![Route::get("/hello", || async { "hello" }).public()];
    let server = Running::start(HttpConfig::default(), routes).await;
    let begun = Arc::new(Semaphore::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (address, begun) = (server.address, Arc::clone(&begun));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                loop {
                    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                    let answer = Answer::read(&mut stream).await;
                    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
                    begun.add_permits(1);
                    if answer.header("connection") == Some("close") {
                        return;
                    }
                }
            })
        })
        .collect();
    begun.acquire_many(64).await.unwrap().forget();
    let report = server.stop().await.unwrap();
    assert_eq!(report.cut, 0);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_in_the_systems_queue_is_served_before_the_listener_closes() {
    let routes = vec![Route::get("/hello", || async { "hello" }).public()];
    let listening = Running::bound(HttpConfig::default(), routes).await;
    let mut stream = TcpStream::connect(listening.local_addr().unwrap()).await.unwrap();
    let served = tokio::spawn(listening.serve(std::future::ready(())));
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(served.await.unwrap(), DrainReport { connections: 1, cut: 0 });
}
