//! Endpoints from a real etcd, and from a scripted one that has nothing to say.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{FutureExt, StreamExt, stream};
use runtime_client::{Client, ClientConfig, Guard};
use runtime_discovery::{Etcd, Known, Service};
use runtime_kernel::{Context, ManualClock, Source, SystemClock};
use runtime_testkit::binary::{Running, Spawn};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::sources::authorities;

async fn start(folder: &Path, port: u16, peer: u16) -> Running {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer}");
    let args = [
        "--name",
        "test",
        "--data-dir",
        "data",
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
    ];
    let peers = ["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer];
    let cluster = ["--initial-cluster".to_owned(), format!("test={peer}")];
    let spawn = Spawn::new("etcd", folder).args(args).args(peers).args(cluster).args(["--logger", "zap"]);
    let running = spawn.start().expect("etcd-server is installed: `cargo xtask test` sees to it");
    while !healthy(port).await {
        tokio::task::yield_now().await;
    }
    running
}

fn client() -> Client {
    Client::builder(ClientConfig::default(), SystemClock::shared()).guard(Guard::local()).build().unwrap()
}

async fn healthy(port: u16) -> bool {
    let answer = client().get(&format!("http://127.0.0.1:{port}/health")).send(&context()).await;
    matches!(answer, Ok(answer) if answer.status() == 200)
}

fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

async fn call(port: u16, path: &str, body: Value) -> Value {
    let url = format!("http://127.0.0.1:{port}/v3/{path}");
    client().post(&url).json(&body).send(&context()).await.unwrap().json().await.unwrap()
}

async fn put(port: u16, key: &str, value: &str, lease: Option<&str>) {
    let body = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value), "lease": lease.unwrap_or("0") });
    call(port, "kv/put", body).await;
}

fn told(known: &Known) -> Vec<String> {
    authorities(known.endpoints.as_ref().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_and_go_with_their_writers_and_survive_etcds_absence() {
    let folder = tempfile::tempdir().unwrap();
    let (port, peer) = (runtime_testkit::free_port().unwrap(), runtime_testkit::free_port().unwrap());
    let mut server = start(folder.path(), port, peer).await;
    put(port, "/services/orders/1", "10.0.0.1:80", None).await;
    put(port, "/services/orders/broken", "nonsense", None).await;
    put(port, "/services/ordersx", "10.9.9.9:80", None).await;
    let clock = ManualClock::new();
    let etcd = Etcd::new(
        client(),
        &format!("http://127.0.0.1:{port}"),
        "/services/orders/",
        Arc::new(clock.clone()),
    );
    let (mut service, watching) = Service::new("orders", etcd, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    assert_eq!(authorities(&service.ready().await.unwrap()), ["10.0.0.1:80"]);

    let lease = call(port, "lease/grant", json!({ "TTL": "600" })).await["ID"].as_str().unwrap().to_owned();
    put(port, "/services/orders/2", r#"{"address":"[2001:db8::2]:80","weight":3}"#, Some(&lease)).await;
    assert_eq!(told(&service.changed().await.unwrap()), ["10.0.0.1:80", "[2001:db8::2]:80"]);
    call(port, "lease/revoke", json!({ "ID": lease })).await;
    assert_eq!(told(&service.changed().await.unwrap()), ["10.0.0.1:80"]);
    put(port, "/services/orders/1", "10.0.0.7:80", None).await;
    assert_eq!(told(&service.changed().await.unwrap()), ["10.0.0.7:80"]);

    server.kill9().await.unwrap();
    let known = service.changed().await.unwrap();
    assert!(known.stale.is_some() && told(&known) == ["10.0.0.7:80"]);
    let _server = start(folder.path(), port, peer).await;
    put(port, "/services/orders/3", "10.0.0.3:80", None).await;
    let known = loop {
        clock.advance(Duration::from_secs(30));
        tokio::select! {
            known = service.changed() => {
                let known = known.unwrap();
                if known.stale.is_none() && told(&known).len() == 2 {
                    break known;
                }
            }
            () = tokio::task::yield_now() => {}
        }
    };
    assert_eq!(told(&known), ["10.0.0.7:80", "10.0.0.3:80"]);
}

/// A member that holds `/a`, says these messages to each watch and nothing more; and tells of each watch.
async fn scripted(messages: Value) -> (String, mpsc::UnboundedReceiver<()>) {
    let (tell, watches) = mpsc::unbounded_channel();
    let kvs = json!([{ "key": STANDARD.encode("/a"), "value": STANDARD.encode("10.0.0.1:80") }]);
    let range = move || async move { Json(json!({ "header": { "revision": "7" }, "kvs": kvs })) };
    let watch = move || async move {
        let _ = tell.send(());
        let lines: Vec<_> = messages.as_array().unwrap().iter().map(|line| format!("{line}\n")).collect();
        Body::from_stream(stream::iter(lines.into_iter().map(Ok::<_, Infallible>)).chain(stream::pending()))
    };
    let router = Router::new().route("/v3/kv/range", post(range)).route("/v3/watch", post(watch));
    (served(router).await, watches)
}

async fn served(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_watch_that_brings_nothing_is_begun_anew_and_nothing_is_stale() {
    let (url, mut watches) = scripted(json!([{ "result": { "created": true } }])).await;
    let mut config = ClientConfig::default();
    config.read_timeout = Duration::from_millis(200);
    let client = Client::builder(config, SystemClock::shared()).guard(Guard::local()).build().unwrap();
    let clock = Arc::new(ManualClock::new());
    let (mut service, watching) = Service::new("orders", Etcd::new(client, &url, "/", clock.clone()), clock);
    tokio::spawn(watching.run());
    assert_eq!(authorities(&service.ready().await.unwrap()), ["10.0.0.1:80"]);
    for _ in 0..4 {
        tokio::select! {
            watch = watches.recv() => watch.unwrap(),
            known = service.changed() => panic!("nothing has changed: {:?}", known.unwrap()),
        }
    }
    assert!(service.changed().now_or_never().is_none());
}

#[tokio::test]
async fn a_watch_is_begun_anew_after_an_hour() {
    let put = json!({ "kv": { "key": STANDARD.encode("/b"), "value": STANDARD.encode("10.0.0.2:80") } });
    let messages = json!([{ "result": { "created": true } }, { "result": { "events": [put] } }]);
    let (url, _) = scripted(messages).await;
    let clock = Arc::new(ManualClock::new());
    let mut config = ClientConfig::default();
    config.read_timeout = Duration::from_hours(2);
    let client = Client::builder(config, clock.clone()).guard(Guard::local()).build().unwrap();
    let etcd = Etcd::new(client, &url, "/", clock.clone());
    let (mut service, watching) = Service::new("orders", etcd, clock.clone());
    tokio::spawn(watching.run());
    for turn in 1..=3 {
        // What the watch brings has come: only its hour is left to wait for.
        loop {
            let known = service.changed().await.unwrap();
            assert_eq!(known.stale, None);
            if known.version == 2 * turn {
                break assert_eq!(told(&known), ["10.0.0.1:80", "10.0.0.2:80"]);
            }
        }
        clock.advance(Duration::from_hours(1));
    }
}

#[tokio::test]
async fn a_member_that_holds_the_watch_back_is_stale_after_half_a_minute() {
    let (tell, mut watches) = mpsc::unbounded_channel();
    let range = || async { Json(json!({ "header": { "revision": "7" } })) };
    let watch = move || {
        let _ = tell.send(());
        std::future::pending::<()>()
    };
    let router = Router::new().route("/v3/kv/range", post(range)).route("/v3/watch", post(watch));
    let clock = Arc::new(ManualClock::new());
    let etcd = Etcd::new(client(), &served(router).await, "/", clock.clone());
    let (mut service, watching) = Service::new("orders", etcd, clock.clone());
    tokio::spawn(watching.run());
    assert_eq!(service.ready().await.unwrap().len(), 0);
    watches.recv().await.unwrap();
    assert_eq!(clock.sleepers(), 1, "it is waited for by the clock");
    clock.advance(Duration::from_secs(30));
    assert!(service.changed().await.unwrap().stale.is_some());
}
