//! Queues that are paused, keys that are limited, jobs that are watched.

use serde_json::{Value, json};

use super::hook::Hook;
use super::house::House;

#[tokio::test]
async fn a_paused_queue_begins_nothing_until_it_is_resumed() {
    let (hook, house) =
        (Hook::start().await, House::start(&[("RUNTIME__JOBS__POLL_INTERVAL", "50ms")]).await);
    let post = |path: &str, body: Value| house.request("POST", path).json(&body).send();
    let paused = post("/v1/queues/default/pause", json!({ "kind": "http.request" })).await.unwrap();
    assert_eq!(paused.status(), 200);
    let listed: Value = paused.json().await.unwrap();
    assert_eq!(listed, json!({ "paused": [{ "queue": "default", "kind": "http.request" }] }));
    let id = house.enqueue(&hook, 1).await;
    let other = post("/v1/queues/default/resume", json!({ "kind": "another" })).await.unwrap();
    assert_eq!(other.json::<Value>().await.unwrap(), listed, "another kind's pause is another");
    let job: Value =
        house.request("GET", &format!("/v1/jobs/{id}")).send().await.unwrap().json().await.unwrap();
    assert_eq!((job["state"].as_str(), hook.calls().len()), (Some("available"), 0));
    post("/v1/queues/default/resume", json!({ "kind": "http.request" })).await.unwrap();
    assert_eq!(house.finished(&id).await["state"], "completed");
}

#[tokio::test]
async fn a_tenants_key_is_not_for_what_all_tenants_share() {
    let house = House::start(&[
        ("RUNTIME__TENANCY__REALMS", r#"{"main":{"tenants":{"acme":{}}}}"#),
        ("RUNTIME__ROLLOUT__ROUTES", r#"{"shop":{}}"#),
        ("RUNTIME__RESILIENCE__PIPELINE", r#"{"payments":{"breaker":{"consecutive_failures":3}}}"#),
    ])
    .await;
    let body = json!({ "description": "acme", "scopes": ["*"] });
    let issued =
        house.request("POST", "/v1/keys").header("x-tenant", "acme").json(&body).send().await.unwrap();
    let issued: Value = issued.json().await.unwrap();
    for (method, path, body, code) in [
        ("POST", "/v1/queues/default/pause", json!({}), "jobs.operators_only"),
        ("GET", "/v1/limits", Value::Null, "limits.operators_only"),
        ("GET", "/v1/limits/writes/main%2Fglobex:key:1", Value::Null, "limits.operators_only"),
        ("DELETE", "/v1/limits/writes/main%2Fglobex:key:1", Value::Null, "limits.operators_only"),
        ("GET", "/v1/breakers", Value::Null, "breakers.operators_only"),
        ("PUT", "/v1/breakers/payments", json!({ "state": "forced_open" }), "breakers.operators_only"),
        ("GET", "/v1/rollouts", Value::Null, "rollouts.operators_only"),
        ("POST", "/v1/rollouts/shop", json!({ "order": "start" }), "rollouts.operators_only"),
    ] {
        let request = house.client().request(method.parse().unwrap(), house.url(path));
        let request = request.bearer_auth(issued["secret"].as_str().unwrap());
        let request = if body.is_null() { request } else { request.json(&body) };
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 403, "{method} {path}");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], code, "{method} {path}");
    }
}

#[tokio::test]
async fn whoever_watches_a_job_sees_it_end() {
    let (hook, house) = (Hook::start().await, House::start::<&str>(&[]).await);
    let id = house.enqueue(&hook, 1).await;
    let watched = house.request("GET", &format!("/v1/jobs/{id}/events")).send().await.unwrap();
    assert_eq!(watched.headers()["content-type"], "text/event-stream");
    // The stream ends with the job.
    let events = watched.text().await.unwrap();
    assert!(events.ends_with("event: state\ndata: {\"attempt\":1,\"state\":\"completed\"}\n\n"), "{events}");
    let progress = house.request("GET", &format!("/v1/jobs/{id}/progress")).send().await.unwrap();
    let expected = json!({ "state": "completed", "progress": null, "checkpoint": null });
    assert_eq!(progress.json::<Value>().await.unwrap(), expected);
    let missing =
        house.request("GET", "/v1/jobs/01900000-0000-7000-8000-000000000000/events").send().await.unwrap();
    assert_eq!(missing.status(), 404);
}
