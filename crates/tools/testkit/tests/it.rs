#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

use std::time::Duration;

use runtime_testkit::binary::Spawn;
use runtime_testkit::nats;
use runtime_testkit::postgres;
use runtime_testkit::proxy::FaultProxy;
use runtime_testkit::redis;
use sqlx::{Connection, Executor, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn two_tests_share_a_server_and_not_a_database() {
    let (a, b) = (postgres::database().await.unwrap(), postgres::database().await.unwrap());
    let mut in_a = PgConnection::connect(a.url()).await.unwrap();
    let mut in_b = PgConnection::connect(b.url()).await.unwrap();
    in_a.execute("CREATE TABLE only_here (x int)").await.unwrap();
    assert!(in_b.execute("SELECT * FROM only_here").await.is_err());
    let url = a.url().to_owned();
    in_a.close().await.unwrap();
    drop(a);
    assert!(PgConnection::connect(&url).await.is_err(), "a dropped database is gone");
}

#[tokio::test]
async fn a_private_server_survives_an_immediate_stop() {
    let mut server = postgres::Server::start().await.unwrap();
    let url = server.create_database("kept").await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute("CREATE TABLE t (x int)").await.unwrap();
    connection.execute("INSERT INTO t VALUES (1)").await.unwrap();
    server.stop_immediate().await.unwrap();
    assert!(PgConnection::connect(&url).await.is_err());
    server.restart().await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn redis_answers_on_the_shared_server() {
    let redis = runtime_testkit::redis::server().await.unwrap();
    let address = redis.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[tokio::test]
async fn nats_greets_on_the_shared_server_and_comes_back_where_it_was() {
    async fn greeting(url: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).await?;
        let mut answer = vec![0; 512];
        let size = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..size]).into_owned())
    }
    let shared = nats::server().await.unwrap();
    let hello = greeting(shared.url()).await.unwrap();
    assert!(hello.starts_with("INFO ") && hello.contains("\"jetstream\":true"), "{hello}");
    let mut own = nats::own().await.unwrap();
    own.kill().await.unwrap();
    assert!(greeting(&own.url()).await.is_err());
    own.restart().await.unwrap();
    assert!(greeting(&own.url()).await.unwrap().starts_with("INFO "));
}

#[tokio::test]
async fn a_replica_takes_its_masters_place() {
    let mut watched = redis::sentinel().await.unwrap();
    assert!(watched.replica.ask("SET k v").await.unwrap().starts_with("-READONLY"));
    watched.swap().await.unwrap();
    assert_eq!(watched.master.ask("SET k v").await.unwrap(), "+OK\r\n");
    watched.master.kill().await.unwrap();
    let survivor = &watched.replica;
    runtime_testkit::until("a failover", async || survivor.ask("SET k v").await.unwrap() == "+OK\r\n")
        .await
        .unwrap();
}

#[tokio::test]
async fn each_slot_of_a_cluster_has_one_owner() {
    let cluster = redis::cluster(3).await.unwrap();
    for (key, nth) in [("foo", 2), ("hello", 0)] {
        let (owner, _) = cluster.owner(key).await.unwrap();
        assert_eq!(owner.port(), cluster.nodes[nth].port(), "{key}");
    }
}

/// Sends back what it gets.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn the_proxy_carries_silences_and_cuts() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let mut answer = [0; 2];
    stream.write_all(b"hi").await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hi");

    proxy.half_open();
    stream.write_all(b"oh").await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut answer)).await;
    assert!(silence.is_err(), "nothing comes back from a half-open peer");
    proxy.heal();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"oh", "what was held back arrives");

    proxy.silence();
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"no").await.unwrap();
    other.write_all(b"ja").await.unwrap();
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ja", "a new connection is carried");
    let silence = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut answer)).await;
    assert!(silence.is_err(), "one there was is not");

    proxy.cut();
    assert!(matches!(stream.read(&mut answer).await, Ok(0) | Err(_)), "a cut connection ends");
}

#[tokio::test]
async fn a_spawned_process_is_watched_and_killed() {
    let spawn = Spawn::new("sh", "/").args(["-c", "echo ready $WHO; read x < /dev/zero"]).env("WHO", "you");
    let mut process = spawn.start().unwrap();
    assert_eq!(process.wait_for_line("ready").await.unwrap(), "ready you");
    process.kill9().await.unwrap();
    assert_eq!(process.exit().await.unwrap().code(), None, "ended by a signal");
    let mut brief = Spawn::new("sh", "/").args(["-c", "exit 7"]).start().unwrap();
    assert!(brief.wait_for_line("never").await.is_err());
    assert_eq!(brief.exit().await.unwrap().code(), Some(7));
}
