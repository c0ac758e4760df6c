//! What stands still shows: on /metrics, in the health, in lists, and it can be seen to from the command line.

use runtime_events::log::{Settled, Verdict};
use runtime_events::{EventLog, SqlLog, SubscriptionSpec};
use runtime_kernel::{Context, Error, Name, Source, SystemClock, TenantContext};
use runtime_saga::{Definition, Definitions, NewSaga, Saga, SagaConfig, Sagas, SqlSagas};
use serde_json::{Value, json};

use super::house::{House, database};
use super::work::ask;

const QUICK: &[(&str, &str)] = &[
    ("RUNTIME__SAGA__PARK_UNREGISTERED_AFTER", "1ms"),
    ("RUNTIME__EVENTS__HOUSEKEEPING", "200ms"),
    ("RUNTIME__OUTBOX__HOUSEKEEPING", "200ms"),
    ("RUNTIME__HEALTH__INTERVAL", "200ms"),
];

async fn nothing(_: Saga, (): ()) -> Result<(), Error> {
    Ok(())
}

/// Begins a saga of a type the server does not know, so that it is parked.
async fn stray(house: &House) -> String {
    let known = Definitions::new().with(Definition::new("order", 1, nothing)).unwrap();
    let store = SqlSagas::new(database(&house.database_url()).await);
    let sagas = Sagas::new(std::sync::Arc::new(store), known, SagaConfig::default(), SystemClock::shared());
    let mut context = Context::new(Source::Internal, &SystemClock);
    context.tenant = Some(TenantContext::realm(Name::new("main").unwrap()).into());
    sagas.start(&context, NewSaga::new("order", ()).unwrap()).await.unwrap().to_string()
}

/// Waits for a line of /metrics that has all of these parts.
async fn metric(house: &House, parts: &[&str]) {
    house
        .until(&parts.join(" "), async |house| {
            let text = house.client().get(house.url("/metrics")).send().await.unwrap().text().await.unwrap();
            text.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_parked_saga_degrades_the_health_until_somebody_resolves_it() {
    let house = House::start(QUICK).await;
    let id = stray(&house).await;
    let health = async |status: &str| {
        house
            .until(status, async |house| {
                let ready = house.client().get(house.url("/readyz")).send().await.unwrap();
                assert_eq!(ready.status(), 200, "what is parked is no reason to go out of service");
                (ready.json::<Value>().await.unwrap()["checks"]["sagas"] == status).then_some(())
            })
            .await;
    };
    health("degraded").await;
    metric(&house, &["saga_parked 1"]).await;
    let (_, listed) = ask(&house, "GET", "/v1/sagas?status=parked", None).await;
    assert_eq!(
        (listed["sagas"][0]["id"].as_str(), listed["sagas"][0]["tenant"].as_str()),
        (Some(id.as_str()), Some("main/"))
    );
    assert_eq!(ask(&house, "GET", "/v1/sagas?status=odd", None).await.0, 400);

    let (code, shown) = house.cli(&["sagas", "list", "--status", "parked"]);
    assert_eq!((code, shown[0]["id"].as_str()), (Some(0), Some(id.as_str())), "{shown:#}");
    assert_eq!(house.cli(&["sagas", "list", "--all"]).1[0]["tenant"], "main/");
    assert_eq!(house.cli(&["sagas", "list", "--own"]).1, json!([]));
    assert_eq!(house.cli(&["sagas", "show", &id]).1["status"], "parked");
    assert_eq!(house.cli(&["sagas", "signal", &id, "paid", r#"{"n":1}"#]).1["new"], true);
    assert_ne!(house.cli(&["sagas", "show", &id, "--tenant", "acme"]).0, Some(0), "not another tenant's");
    assert_ne!(house.cli(&["sagas", "resolve", &id]).0, Some(0), "it gives no reason");
    let (code, done) = house.cli(&["sagas", "resolve", &id, "--reason", "done by hand"]);
    assert_eq!((code, done["done"].as_str()), (Some(0), Some("resolved")), "{done:#}");
    assert_ne!(house.cli(&["sagas", "retry", &id, "--reason", "again"]).0, Some(0), "it is over");
    health("healthy").await;
    assert!(house.file("runtime-data/audit.jsonl").contains("sagas.resolved"));
}

#[tokio::test]
async fn the_work_of_every_crate_is_on_metrics_under_its_fixed_name() {
    let house = House::start(QUICK).await;
    let log = SqlLog::new(database(&house.database_url()).await);
    log.subscribe(&SubscriptionSpec::new("billing", "orders").unwrap()).await.unwrap();
    let (code, sent) =
        house.cli(&["events", "publish", "orders", "--type", "placed", "--data", r#"{"n":1}"#]);
    assert_eq!((code, sent["receipt"].as_str()), (Some(0), Some("new")), "{sent:#}");
    let twice = json!({ "specversion": "1.0", "id": "1", "source": "/shop", "type": "placed" });
    for _ in 0..2 {
        let sent = house
            .request("POST", "/v1/events/orders")
            .header("content-type", "application/cloudevents+json")
            .body(twice.to_string());
        assert_eq!(sent.send().await.unwrap().status(), 202);
    }
    metric(&house, &["events_published_total{", r#"outcome="new""#, "} 1"]).await;
    metric(&house, &["events_published_total{", r#"outcome="duplicate""#, "} 1"]).await;
    metric(&house, &["events_stored{", r#"subscription="billing""#, r#"state="unread""#, "} 2"]).await;
    metric(&house, &["events_oldest_unread_seconds{", r#"subscription="billing""#]).await;

    let every = json!({ "when": "@yearly", "payload": { "kind": "nobody.handles" } });
    assert_eq!(ask(&house, "PUT", "/v1/schedules/yearly", Some(every)).await.0, 200);
    assert_eq!(ask(&house, "POST", "/v1/schedules/yearly/trigger", None).await.0, 200);
    metric(&house, &["cron_ticks_total{", r#"action="job""#, r#"outcome="done""#]).await;
    metric(&house, &["cron_leader 1"]).await;

    let definition = json!({ "code": "leave", "name": "Leave", "entity_type": "leave",
        "steps": [{ "id": "boss", "level": 1, "approvers": [{ "user": "ann" }] }] });
    assert_eq!(ask(&house, "POST", "/v1/workflows/definitions", Some(definition)).await.0, 201);
    assert_eq!(house.cli(&["workflows", "activate", "leave", "1"]).0, Some(0));
    assert_eq!(house.cli(&["workflows", "definitions"]).1[0]["state"], "active");
    let start = json!({ "definition": "leave", "entity_id": "l-1", "entity": {} });
    let (status, instance) = ask(&house, "POST", "/v1/workflows", Some(start)).await;
    assert_eq!(status, 201, "{instance:#}");
    metric(&house, &["workflow_events_total{", r#"definition="leave""#, r#"event="started""#, "} 1"]).await;
    metric(&house, &["workflow_tasks{", r#"state="open""#, "} 1"]).await;
    metric(&house, &["workflow_parked 0"]).await;

    let id = instance["id"].as_str().unwrap();
    assert_eq!(house.cli(&["workflows", "inbox", "ann"]).1[0]["instance"], id);
    assert_eq!(house.cli(&["workflows", "inbox", "ben"]).1, json!([]));
    let (code, done) =
        house.cli(&["workflows", "decide", id, "approve", "--reason", "she is on leave herself"]);
    assert_eq!((code, done["status"].as_str()), (Some(0), Some("approved")), "{done:#}");
    let (_, history) = house.cli(&["workflows", "history", id]);
    assert!(history.as_array().unwrap().iter().any(|event| event["event"] == "forced"), "{history:#}");
    assert_eq!(house.cli(&["workflows", "list", "--status", "approved"]).1[0]["id"], id);
    assert_ne!(house.cli(&["workflows", "list", "--status", "odd"]).0, Some(0));
    metric(&house, &["saga_parked 0"]).await;
}

#[tokio::test]
async fn the_command_line_shows_events_and_what_reads_them() {
    let house = House::start::<&str>(&[]).await;
    let log = SqlLog::new(database(&house.database_url()).await);
    log.subscribe(&SubscriptionSpec::new("billing", "orders").unwrap()).await.unwrap();
    let publish = ["events", "publish", "orders", "--type", "placed", "--id", "1", "--source", "/shop"];
    assert_eq!(house.cli(&publish).1, json!({ "id": "1", "receipt": "new" }));
    assert_eq!(house.cli(&publish).1, json!({ "id": "1", "receipt": "duplicate" }));
    let (_, events) = house.cli(&["events", "list", "orders"]);
    assert_eq!((events.as_array().unwrap().len(), events[0]["event"]["id"].as_str()), (1, Some("1")));
    let (_, lags) = house.cli(&["events", "subscriptions"]);
    assert_eq!((lags[0]["subscription"].as_str(), lags[0]["unread"].as_u64()), (Some("billing"), Some(1)));
    assert_eq!(house.cli(&["events", "parked", "billing"]).1, json!([]));
    assert_eq!(house.cli(&["events", "redrive", "billing"]).1, json!({ "redriven": 0 }));
    let lease = runtime_events::log::ClaimRequest {
        subscription: "billing".to_owned(),
        worker: "test".to_owned(),
        max: 10,
        lease: std::time::Duration::from_mins(1),
        max_attempts: 1,
    };
    let claim = log.claim(&lease).await.unwrap().unwrap();
    let read = Settled { position: 1, verdict: Verdict::Done };
    assert!(log.settle(&claim, &[read]).await.unwrap());
    assert_eq!(house.cli(&["events", "subscriptions"]).1[0]["unread"], 0);
    assert_eq!(house.cli(&["events", "replay", "billing"]).1["done"], "rewound");
    assert_eq!(house.cli(&["events", "subscriptions"]).1[0]["unread"], 1);
    let rewind = ask(&house, "POST", "/v1/subscriptions/nobody/rewind", Some(json!({ "after": 0 }))).await;
    assert_eq!((rewind.0, rewind.1["code"].as_str()), (404, Some("events.no_subscription")));
    for wrong in [
        &["events", "parked", "nobody"][..],
        &["events", "replay", "nobody"],
        &["events", "discard", "billing", "1"],
        &["events", "publish", "no topic", "--type", "x"],
        &["events", "publish", "orders", "--type", "x", "--data", "{"],
        &["events", "list", "orders", "--limit", "0"],
    ] {
        assert_ne!(house.cli(wrong).0, Some(0), "{wrong:?}");
    }
    assert_eq!(ask(&house, "DELETE", "/v1/subscriptions/billing/parked/1", None).await.0, 404);
}
