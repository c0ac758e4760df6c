//! Endpoints from Consul's health API, spoken by a scripted agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::{Json, Router, routing::get};
use runtime_client::{Client, ClientConfig, Guard};
use runtime_discovery::{Consul, Service};
use runtime_kernel::{ManualClock, SystemClock};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Default)]
struct Agent {
    index: u64,
    instances: Value,
    fails: bool,
    asked: Vec<(String, HashMap<String, String>, Option<String>)>,
}

type Shared = (Arc<Mutex<Agent>>, Arc<Notify>);

/// Holds a query until the index is another than the one asked with, as Consul does.
async fn health(
    State((agent, changed)): State<Shared>,
    Path(service): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> (StatusCode, HeaderMap, Json<Value>) {
    let token = headers.get("x-consul-token").map(|token| token.to_str().unwrap().to_owned());
    let asked: u64 = query["index"].parse().unwrap();
    agent.lock().unwrap().asked.push((service, query, token));
    loop {
        let notified = changed.notified();
        {
            let agent = agent.lock().unwrap();
            if agent.fails {
                return (StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new(), Json(Value::Null));
            }
            if agent.index != asked {
                let mut headers = HeaderMap::new();
                headers.insert("x-consul-index", agent.index.to_string().parse().unwrap());
                return (StatusCode::OK, headers, Json(agent.instances.clone()));
            }
        }
        notified.await;
    }
}

fn instance(address: &str, node: &str, port: u16, weight: u32) -> Value {
    json!({ "Node": { "Address": node, "Node": "n" }, "Checks": [],
        "Service": { "Address": address, "Port": port, "Weights": { "Passing": weight, "Warning": 1 },
            "Meta": { "version": "2" }, "Tags": [] } })
}

async fn served(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn client() -> Client {
    Client::builder(ClientConfig::default(), SystemClock::shared()).guard(Guard::local()).build().unwrap()
}

#[tokio::test]
async fn changes_are_known_at_once_and_an_index_that_goes_back_is_begun_anew() {
    let shared: Shared = Shared::default();
    let (agent, changed) = shared.clone();
    let set = |index, instances: Value, fails| {
        let mut agent = agent.lock().unwrap();
        (agent.index, agent.instances, agent.fails) = (index, instances, fails);
        changed.notify_waiters();
        changed.notify_one();
    };
    set(7, json!([instance("10.0.0.1", "10.9.9.9", 80, 3), instance("", "2001:db8::1", 81, 1)]), false);
    let router = Router::new().route("/v1/health/service/{name}", get(health)).with_state(shared);
    let url = served(router).await;
    let clock = ManualClock::new();
    let consul = Consul::new(client(), &url, "orders api", Arc::new(clock.clone())).tag("v2").token("secret");
    assert!(!format!("{consul:?}").contains("secret"));
    let (mut service, watching) = Service::new("orders", consul, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let told: Vec<_> = service.ready().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.1:80;weight=3;version=2", "[2001:db8::1]:81;version=2"]);

    for (index, port) in [(8, 82), (3, 83)] {
        set(index, json!([instance("10.0.0.1", "", port, 1)]), false);
        let known = service.changed().await.unwrap();
        assert_eq!(known.endpoints.unwrap()[0].port, port);
    }
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    set(4, json!([]), true);
    let known = service.changed().await.unwrap();
    assert!(known.stale.unwrap().contains("500") && known.endpoints.unwrap()[0].port == 83);
    let asked = agent.lock().unwrap().asked.clone();
    let (name, query, token) = &asked[0];
    assert_eq!((name.as_str(), query["passing"].as_str(), query["tag"].as_str()), ("orders api", "1", "v2"));
    assert_eq!(token.as_deref(), Some("secret"));
    let indices: Vec<_> = asked.iter().map(|(_, query, _)| query["index"].clone()).collect();
    assert_eq!(
        indices[..4],
        ["0", "7", "8", "0"].map(str::to_owned),
        "after 3 came, which is before 8, from 0"
    );
}

#[tokio::test]
async fn an_agent_that_holds_no_query_is_not_asked_as_fast_as_it_answers() {
    for (index, asked_at_once, answers) in [(None, 1, false), (Some("0"), 1, false), (Some("7"), 2, true)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let answer = get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            let mut headers = HeaderMap::new();
            if let Some(index) = index {
                headers.insert("x-consul-index", index.parse().unwrap());
            }
            (headers, Json(json!([instance("10.0.0.1", "", 80, 1)])))
        });
        let url = served(Router::new().route("/v1/health/service/{name}", answer)).await;
        let clock = ManualClock::new();
        let consul = Consul::new(client(), &url, "orders", Arc::new(clock.clone()));
        let (mut service, watching) = Service::new("orders", consul, Arc::new(clock.clone()));
        tokio::spawn(watching.run());
        let known = service.changed().await.unwrap();
        assert_eq!((known.endpoints.is_some(), known.stale.is_none()), (answers, answers), "{index:?}");
        for more in 0..3 {
            while clock.sleepers() == 0 {
                assert!(asked.load(Ordering::SeqCst) <= asked_at_once + more, "{index:?}");
                tokio::task::yield_now().await;
            }
            assert_eq!(asked.load(Ordering::SeqCst), asked_at_once + more, "{index:?}");
            clock.advance(Duration::from_secs(if answers { 1 } else { 30 }));
        }
    }
}

#[tokio::test]
async fn the_token_goes_nowhere_else() {
    let shared: Shared = Shared::default();
    shared.0.lock().unwrap().index = 7;
    let elsewhere = Router::new().route("/v1/health/service/{name}", get(health)).with_state(shared.clone());
    let elsewhere = served(elsewhere).await;
    let moved =
        get(async move || Redirect::temporary(&format!("{elsewhere}v1/health/service/orders?index=0")));
    let url = served(Router::new().route("/v1/health/service/{name}", moved)).await;
    let clock = Arc::new(ManualClock::new());
    let consul = Consul::new(client(), &url, "orders", clock.clone()).token("secret");
    let (mut service, watching) = Service::new("orders", consul, clock);
    tokio::spawn(watching.run());
    let why = service.changed().await.unwrap().stale;
    assert_eq!(shared.0.lock().unwrap().asked.len(), 0);
    assert!(why.unwrap().contains("307"));
}

#[tokio::test]
async fn weights_beyond_ours_keep_their_proportions() {
    let shared: Shared = Shared::default();
    {
        let mut agent = shared.0.lock().unwrap();
        let instances = [("a", 2_000), ("b", 20_000)].map(|(name, weight)| instance(name, "", 80, weight));
        (agent.index, agent.instances) = (7, json!(instances));
    }
    let router = Router::new().route("/v1/health/service/{name}", get(health)).with_state(shared);
    let url = served(router).await;
    let clock = Arc::new(ManualClock::new());
    let (mut service, watching) =
        Service::new("orders", Consul::new(client(), &url, "orders", clock.clone()), clock);
    tokio::spawn(watching.run());
    let weights: Vec<_> = service.ready().await.unwrap().iter().map(|endpoint| endpoint.weight).collect();
    assert_eq!(weights, [100, 1_000]);
}
