//! Services behind names, through the whole server.

use serde_json::{Value, json};

use super::hook::Hook;
use super::house::House;

#[tokio::test]
async fn a_job_calls_a_service_by_its_name_and_follows_it_when_it_moves() {
    let (first, second) = (Hook::start().await, Hook::start().await);
    let authority = |hook: &Hook| hook.url().split('/').nth(2).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders");
    std::fs::write(&path, authority(&first)).unwrap();
    let services = json!({
        "orders": { "source": { "file": { "path": path, "every": "20ms" } } },
        "gone": { "source": { "env": "NOT_SET_ANYWHERE" } },
    });
    let house = House::start(&[
        ("RUNTIME__DISCOVERY__SERVICES", services.to_string().as_str()),
        ("RUNTIME__HEALTH__INTERVAL", "50ms"),
    ])
    .await;
    let call = async || {
        let job = json!({ "kind": "http.request", "payload": { "url": "http://orders.service/hook" } });
        let accepted = house.request("POST", "/v1/jobs").json(&job).send().await.unwrap();
        let id = accepted.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
        let done = house.finished(&id).await;
        assert_eq!(done["state"], "completed", "{done:#}");
    };
    call().await;
    assert_eq!((first.calls().len(), second.calls().len()), (1, 0));
    assert_eq!(first.calls()[0].headers["host"], "orders.service");
    let metrics = house.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"discovery_endpoints{service="orders",state="in"} 1"#), "{metrics}");

    std::fs::write(&path, authority(&second)).unwrap();
    house
        .until("the move", async |_| {
            call().await;
            (!second.calls().is_empty()).then_some(())
        })
        .await;
    house
        .until("degraded", async |house| {
            let report: Value =
                house.client().get(house.url("/readyz")).send().await.unwrap().json().await.unwrap();
            (report["checks"]["discovery"] == "degraded").then_some(())
        })
        .await;
}
