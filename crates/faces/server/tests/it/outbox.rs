//! Messages that an application put into the outbox of the server's database.

use runtime_events::{CloudEvent, Message};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_outbox::{Channel, OutboxStore, SqlOutbox};
use serde_json::{Value, json};

use super::hook::Hook;
use super::house::{House, database};
use super::work::ask;

/// As an application does, in a process of its own.
async fn add(house: &House, channel: &str, topic: &str, id: &str) {
    let event =
        CloudEvent::builder(id, "/shop", "placed").key("o-1").json(&json!({ "n": id })).build().unwrap();
    let context = Context::new(Source::Internal, &SystemClock);
    let message = Message::new(&SystemClock, &context, topic, event).unwrap();
    let outbox = SqlOutbox::new(database(&house.database_url()).await);
    outbox.add(&Channel::new(channel).unwrap(), &[message]).await.unwrap();
}

#[tokio::test]
async fn what_an_application_put_into_the_outbox_goes_where_its_channel_leads() {
    let hook = Hook::start().await;
    let relays = json!({ "default": { "to": "events" }, "work": { "to": "jobs" }, "hooks": { "to": "http", "url": hook.url() } });
    let house = House::start(&[("RUNTIME__SERVER__RELAYS", relays.to_string().as_str())]).await;
    add(&house, "default", "orders", "e-1").await;
    add(&house, "work", "ship.order", "e-2").await;
    add(&house, "hooks", "orders", "e-3").await;
    add(&house, "nowhere", "orders", "e-4").await;
    house
        .until("the event is in the log", async |house| {
            let (_, page) = ask(house, "GET", "/v1/events/orders", None).await;
            (page["events"][0]["event"]["id"] == "e-1").then_some(())
        })
        .await;
    let job = house
        .until("the message is a job", async |house| {
            let (_, page) = ask(house, "GET", "/v1/jobs?kind=ship.order", None).await;
            page["jobs"].as_array().unwrap().first().cloned()
        })
        .await;
    assert_eq!(job["payload"]["data"], json!({ "n": "e-2" }));
    hook.wait_for(1).await;
    assert_eq!(hook.calls()[0].headers["ce-id"], "e-3");
    let left = house
        .until("only what has no relay is left", async |house| {
            let (_, stats) = ask(house, "GET", "/v1/outbox", None).await;
            let channels = stats["channels"].as_array().unwrap();
            (channels.len() == 1).then(|| channels[0].clone())
        })
        .await;
    assert_eq!((&left["channel"], &left["ready"]), (&json!("nowhere"), &json!(1)), "{left:#}");
}

#[tokio::test]
async fn a_message_its_receiver_refuses_is_parked_until_somebody_sees_to_it() {
    let hook = Hook::start().await;
    hook.answer([(422, vec![]), (422, vec![])]);
    let relays = json!({ "hooks": { "to": "http", "url": hook.url() } }).to_string();
    let house = House::start(&[
        ("RUNTIME__SERVER__RELAYS", relays.as_str()),
        ("RUNTIME__OUTBOX__RETRY__MAX_ATTEMPTS", "1"),
        ("RUNTIME__HEALTH__INTERVAL", "200ms"),
    ])
    .await;
    let parked = async || {
        house
            .until("parked", async |house| {
                let (_, page) = ask(house, "GET", "/v1/outbox/hooks/parked", None).await;
                page["parked"].as_array().unwrap().first().cloned()
            })
            .await
    };
    add(&house, "hooks", "orders", "e-1").await;
    let first = parked().await;
    assert_eq!((first["id"].as_str(), first["code"].as_str()), (Some("e-1"), Some("events.refused")));
    house
        .until("the health says so", async |house| {
            let ready = house.client().get(house.url("/readyz")).send().await.unwrap();
            assert_eq!(ready.status(), 200, "what is parked is no reason to go out of service");
            (ready.json::<Value>().await.unwrap()["checks"]["outbox"] == "degraded").then_some(())
        })
        .await;
    let (code, listed) = house.cli(&["outbox", "list"]);
    assert_eq!((code, listed[0]["parked"].as_u64()), (Some(0), Some(1)), "{listed:#}");

    // Refused once more, then taken.
    let redrive = async || ask(&house, "POST", "/v1/outbox/hooks/redrive", Some(json!({}))).await;
    assert_eq!(redrive().await, (202, json!({ "redriven": 1 })));
    hook.wait_for(2).await;
    parked().await;
    assert_eq!(redrive().await, (202, json!({ "redriven": 1 })));
    hook.wait_for(3).await;

    hook.answer([(422, vec![])]);
    add(&house, "hooks", "orders", "e-2").await;
    let seq = parked().await["seq"].to_string();
    let discard = format!("/v1/outbox/hooks/parked/{seq}");
    assert_eq!(ask(&house, "DELETE", &discard, None).await.0, 204);
    assert_eq!(ask(&house, "DELETE", &discard, None).await.0, 404);
    assert_ne!(house.cli(&["outbox", "discard", "hooks", &seq]).0, Some(0));
    let record = house.file("runtime-data/audit.jsonl");
    assert!(record.contains("outbox.redriven") && record.contains("outbox.discarded"), "{record}");
}
