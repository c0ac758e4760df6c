//! Endpoints from a Kubernetes API, spoken by a scripted server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use kube::{Client, Config};
use runtime_discovery::{Kubernetes, Service};
use runtime_kernel::ManualClock;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Events = Arc<Mutex<Option<mpsc::UnboundedReceiver<Value>>>>;

fn slice(name: &str, version: u32, addresses: &[(&str, bool)]) -> Value {
    let endpoints = addresses.iter().map(|(address, ready)| {
        json!({ "addresses": [address], "conditions": { "ready": ready }, "zone": "eu-1" })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "namespace": "shop", "resourceVersion": version.to_string() },
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{ "name": "metrics", "port": 9090 }, { "name": "http", "port": 8080 }],
    })
}

async fn slices(
    State(events): State<Events>,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    assert_eq!(
        (namespace.as_str(), query["labelSelector"].as_str()),
        ("shop", "kubernetes.io/service-name=orders")
    );
    if !query.contains_key("watch") {
        let items = [slice("orders-1", 5, &[("10.0.0.1", true), ("10.0.0.2", false)])];
        return Json(json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
            "metadata": { "resourceVersion": "5" }, "items": items }))
        .into_response();
    }
    let Some(events) = events.lock().unwrap().take() else {
        return (axum::http::StatusCode::FORBIDDEN, "no longer").into_response();
    };
    let lines = futures_util::stream::unfold(events, |mut events| async move {
        let event = events.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(format!("{event}\n")), events))
    });
    Body::from_stream(lines).into_response()
}

#[tokio::test]
async fn ready_endpoints_are_told_as_slices_change() {
    let (say, events) = mpsc::unbounded_channel();
    let events = Events::new(Mutex::new(Some(events)));
    let path = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices";
    let router = Router::new().route(path, get(slices)).with_state(events);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let source = Kubernetes::new(client, "shop", "orders").port("http");
    let (mut service, watching) = Service::new("orders", source, Arc::new(ManualClock::new()));
    tokio::spawn(watching.run());
    let told = service.ready().await.unwrap();
    assert_eq!(told.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1:8080;zone=eu-1"]);
    for (kind, slice, expected) in [
        (
            "MODIFIED",
            slice("orders-1", 6, &[("10.0.0.1", true), ("10.0.0.2", true)]),
            vec!["10.0.0.1", "10.0.0.2"],
        ),
        (
            "ADDED",
            slice("orders-2", 7, &[("2001:db8::3", true)]),
            vec!["10.0.0.1", "10.0.0.2", "2001:db8::3"],
        ),
        ("DELETED", slice("orders-1", 8, &[]), vec!["2001:db8::3"]),
    ] {
        say.send(json!({ "type": kind, "object": slice })).unwrap();
        let known = service.changed().await.unwrap();
        let hosts: Vec<_> = known.endpoints.unwrap().iter().map(|own| own.host.clone()).collect();
        assert_eq!(hosts, expected, "{kind}");
    }
    drop(say);
    let known = service.changed().await.unwrap();
    assert!(known.stale.is_some() && known.endpoints.unwrap().len() == 1, "the last that was known");
}
