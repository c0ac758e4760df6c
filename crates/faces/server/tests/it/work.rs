//! Schedules, events and workflows over HTTP.

use serde_json::{Value, json};

use super::hook::Hook;
use super::house::House;

pub(super) async fn ask(house: &House, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = house.request(method, path);
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_schedule_kept_over_http_enqueues_its_job_when_triggered() {
    let (hook, house) = (Hook::start().await, House::start::<&str>(&[]).await);
    let job =
        json!({ "kind": "http.request", "payload": { "method": "POST", "url": hook.url(), "body": 1 } });
    let schedule = json!({ "when": "0 9 * * MON-FRI", "zone": "Europe/Berlin", "payload": job });
    let (status, kept) = ask(&house, "PUT", "/v1/schedules/report", Some(schedule)).await;
    assert_eq!(status, 200, "{kept:#}");
    assert_eq!(
        (kept["revision"].as_u64(), kept["next"].as_array().unwrap().len()),
        (Some(1), 10),
        "{kept:#}"
    );
    let (_, listed) = ask(&house, "GET", "/v1/schedules", None).await;
    let listed = listed["schedules"].as_array().unwrap();
    assert!(listed.iter().any(|schedule| schedule["name"] == "report"), "{listed:#?}");
    let (_, next) = ask(&house, "GET", "/v1/schedules/report/next?count=3", None).await;
    assert_eq!(next["next"].as_array().unwrap()[..], kept["next"].as_array().unwrap()[..3]);
    let unsaved = json!({ "when": "0 12 1 1 *" });
    let (_, next) = ask(&house, "POST", "/v1/schedules/never-kept/next?count=1", Some(unsaved)).await;
    assert!(next["next"][0].as_str().unwrap().ends_with("-01-01T12:00:00Z"), "{next:#}");
    assert_eq!(ask(&house, "GET", "/v1/schedules/never-kept", None).await.0, 404);
    assert_eq!(ask(&house, "GET", "/v1/schedules/report/next?count=0", None).await.0, 400);
    assert_eq!(ask(&house, "POST", "/v1/schedules/report/pause", None).await.0, 200);
    assert_eq!(ask(&house, "POST", "/v1/schedules/report/trigger", None).await.0, 200);
    runtime_testkit::until("the job has called", async || hook.calls().len() == 1).await.unwrap();
    let (_, shown) = ask(&house, "GET", "/v1/schedules/report", None).await;
    assert_eq!(
        (shown["paused"].as_bool(), shown["history"][0]["manual"].as_bool()),
        (Some(true), Some(true))
    );
    for (body, code) in [
        (json!({ "when": "61 * * * *" }), "cron."),
        (json!({ "when": "@daily", "zone": "Mars/Olympus" }), "cron."),
        (json!({ "when": "@daily", "colour": "red" }), "http.invalid_json"),
        (json!({ "when": "@daily", "payload": { "knd": "http.request" } }), "http.invalid_json"),
        (json!({ "when": "@daily", "payload": { "kind": "http.request" } }), "job.payload_invalid"),
    ] {
        let (status, problem) = ask(&house, "PUT", "/v1/schedules/wrong", Some(body)).await;
        assert!(status == 400 && problem["code"].as_str().unwrap().starts_with(code), "{problem:#}");
    }
    assert_eq!(ask(&house, "POST", "/v1/schedules/report/explode", None).await.0, 404);
    assert_eq!(ask(&house, "DELETE", "/v1/schedules/report", None).await.0, 200);
    assert_eq!(ask(&house, "GET", "/v1/schedules/report", None).await.0, 404);
}

#[tokio::test]
async fn a_cloud_event_is_taken_once() {
    let house = House::start::<&str>(&[]).await;
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "data": { "n": 1 } });
    for expected in ["new", "duplicate"] {
        let sent = house
            .request("POST", "/v1/events/orders")
            .header("content-type", "application/cloudevents+json")
            .body(event.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 202);
        assert_eq!(sent.json::<Value>().await.unwrap(), json!({ "events": [expected] }));
    }
    let binary = house
        .request("POST", "/v1/events/orders")
        .header("content-type", "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-id", "2")
        .header("ce-source", "/shop")
        .header("ce-type", "order.placed")
        .body("{}");
    assert_eq!(binary.send().await.unwrap().status(), 202);
    let nothing = house.request("POST", "/v1/events/orders").json(&json!({ "n": 1 })).send().await.unwrap();
    assert_eq!(nothing.status(), 400);
    let (status, found) = ask(&house, "GET", "/v1/subscriptions", None).await;
    assert_eq!((status, found), (200, json!({ "subscriptions": [] })));
}

#[tokio::test]
async fn a_request_is_approved_by_those_asked_and_by_nobody_else() {
    let house = House::start::<&str>(&[]).await;
    let key = async |name: &str, scopes: Value| {
        let made =
            ask(&house, "POST", "/v1/keys", Some(json!({ "description": name, "scopes": scopes }))).await.1;
        let principal = made["record"]["id"].as_str().unwrap_or_default().to_owned();
        (made["secret"].as_str().unwrap().to_owned(), principal)
    };
    let (requester, _) = key("requester", json!(["workflow:act"])).await;
    let (approver, approver_id) = key("approver", json!(["workflow:act"])).await;
    let act = async |key: &str, method: &str, path: &str, body: Option<Value>| {
        let request = house.client().request(method.parse().unwrap(), house.url(path)).bearer_auth(key);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let who = act(&approver, "GET", "/v1/workflows/inbox", None).await;
    assert_eq!(who, (200, json!({ "tasks": [] })));
    let definition = json!({
        "code": "purchase", "name": "Purchase", "entity_type": "order",
        "steps": [{ "id": "boss", "level": 1, "approvers": [{ "user": approver_id }] }],
    });
    let (status, version) = ask(&house, "POST", "/v1/workflows/definitions", Some(definition)).await;
    assert_eq!(status, 201, "{version:#}");
    let (status, problem) = ask(
        &house,
        "POST",
        "/v1/workflows/definitions",
        Some(json!({ "code": "x", "name": "X", "steps": [] })),
    )
    .await;
    assert_eq!(status, 400, "{problem:#}");
    let activated = ask(&house, "POST", "/v1/workflows/definitions/purchase/1/activate", None).await;
    assert_eq!(activated.0, 204, "{activated:?}");
    let start = json!({ "definition": "purchase", "entity_id": "o-1", "entity": { "total": 12 } });
    let (status, instance) = act(&requester, "POST", "/v1/workflows", Some(start)).await;
    assert_eq!(status, 201, "{instance:#}");
    let id = instance["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/workflows/{id}/actions");
    let approve = json!({ "action": "approve", "action_id": "a-1" });
    assert_eq!(act(&requester, "POST", &path, Some(approve.clone())).await.0, 403);
    let (status, done) = act(&approver, "POST", &path, Some(approve)).await;
    assert_eq!((status, done["status"].as_str()), (200, Some("approved")), "{done:#}");
    let (_, history) = act(&requester, "GET", &format!("/v1/workflows/{id}/history"), None).await;
    assert!(history["events"].as_array().unwrap().len() >= 3, "{history:#}");
}
