//! Endpoints from a real etcd.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runtime_client::{Client, ClientConfig, Guard};
use runtime_discovery::{Etcd, Known, Service};
use runtime_kernel::{Context, ManualClock, Source, SystemClock};
use runtime_testkit::binary::{Running, Spawn};
use serde_json::{Value, json};

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
        clock.advance(std::time::Duration::from_secs(30));
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
