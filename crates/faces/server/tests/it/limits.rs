//! Rate limits, through the whole server.

use std::collections::HashMap;

use runtime_testkit::redis;
use serde_json::{Value, json};

use super::house::House;

fn variables(store: &[(&str, &str)]) -> Vec<(String, String)> {
    let rules = json!([
        { "name": "writes", "by": ["principal"], "methods": ["POST"], "rate": { "capacity": 2, "window": "1h" } },
        { "name": "address", "by": ["ip"], "paths": ["/v1/*"], "rate": { "capacity": 100, "window": "1h" } },
    ]);
    let own = [("RUNTIME__RATELIMIT__RULES".to_owned(), rules.to_string())];
    own.into_iter().chain(store.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).collect()
}

async fn holds(house: &House) {
    let job = json!({ "kind": "nobody.handles", "payload": {} });
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = house.request("POST", "/v1/jobs").json(&job).send().await.unwrap();
        statuses.push(answer.status().as_u16());
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(
                (&problem["code"], &problem["limit"]),
                (&json!("ratelimit.exceeded"), &json!("writes"))
            );
            assert!(problem["request_id"].is_string(), "{problem}");
        }
    }
    assert_eq!(statuses, [202, 202, 429]);

    let listed: Value = house.request("GET", "/v1/limits").send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["rules"][0]["name"], "writes");
    assert_eq!(listed["rules"][0]["fill_time"], "1h");
    let stands: Value =
        house.request("GET", "/v1/limits/address/127.0.0.1").send().await.unwrap().json().await.unwrap();
    assert!((93..=97).contains(&stands["remaining"].as_u64().unwrap()), "{stands}");
    let unknown = house.request("GET", "/v1/limits/nosuch/x").send().await.unwrap();
    assert_eq!(unknown.status(), 404);

    let metrics = house.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let counted: HashMap<_, _> = metrics.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    let refused = r#"ratelimit_decisions_total{decision="refused",rule="writes"}"#;
    assert_eq!(counted.get(refused), Some(&"1"), "{metrics}");
}

#[tokio::test]
async fn rules_hold_and_operators_see_them() {
    let house = House::start(&variables(&[])).await;
    holds(&house).await;
    let forgiven = house.request("DELETE", "/v1/limits/address/127.0.0.1").send().await.unwrap();
    assert_eq!(forgiven.status(), 204);
}

#[tokio::test]
async fn rules_hold_in_redis_and_the_server_lives_without_it() {
    let server = redis::server().await.unwrap();
    let prefix = server.prefix().trim_end_matches(':').to_owned();
    let store = [
        ("RUNTIME__RATELIMIT__STORE", "redis"),
        ("RUNTIME_SUPER__REDIS_URL", server.url()),
        ("RUNTIME__REDIS__PREFIX", prefix.as_str()),
    ];
    holds(&House::start(&variables(&store)).await).await;

    // Nobody listens there: each process limits by itself, and is ready.
    let away = [("RUNTIME__RATELIMIT__STORE", "redis"), ("RUNTIME_SUPER__REDIS_URL", "redis://127.0.0.1:1")];
    holds(&House::start(&variables(&away)).await).await;
}

#[tokio::test]
async fn breakers_are_listed_and_take_orders() {
    let pipeline =
        [("RUNTIME__RESILIENCE__PIPELINE", r#"{"payments":{"breaker":{"consecutive_failures":3}}}"#)];
    let house = House::start(&pipeline).await;
    let listed: Value = house.request("GET", "/v1/breakers").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&listed["breakers"][0]["name"], &listed["breakers"][0]["state"]),
        (&json!("payments"), &json!("closed"))
    );
    for state in ["forced_open", "disabled", "metrics_only", "closed"] {
        let order = house.request("PUT", "/v1/breakers/payments").json(&json!({ "state": state }));
        let answer = order.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap()["state"], state);
    }
    let wrong =
        house.request("PUT", "/v1/breakers/payments").json(&json!({ "state": "ajar" })).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    let unknown =
        house.request("PUT", "/v1/breakers/nosuch").json(&json!({ "state": "closed" })).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
}

#[tokio::test]
async fn requests_under_way_are_limited_and_operators_see_how_many() {
    let rules = json!([{ "name": "jobs", "paths": ["/v1/jobs*"],
        "limit": { "algorithm": "fixed", "initial": 3, "min": 3, "max": 3 } }]);
    let house = House::start(&[("RUNTIME__LIMITS__RULES", rules.to_string().as_str())]).await;
    assert_eq!(house.request("GET", "/v1/jobs").send().await.unwrap().status(), 200);
    let listed: Value = house.request("GET", "/v1/limits").send().await.unwrap().json().await.unwrap();
    let [server, jobs] = [&listed["concurrency"][0], &listed["concurrency"][1]];
    assert_eq!(
        (&server["name"], &server["limit"], &server["in_flight"]),
        (&json!("server"), &json!(10_000), &json!(1))
    );
    assert_eq!((&jobs["name"], &jobs["limit"], &jobs["in_flight"]), (&json!("jobs"), &json!(3), &json!(0)));
    let metrics = house.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"limits_concurrency_limit{limit="jobs"} 3"#), "{metrics}");
}

#[tokio::test]
async fn an_open_breaker_is_shown_in_health_and_does_not_make_the_server_unready() {
    let pipeline = r#"{"payments":{"breaker":{"consecutive_failures":3}}}"#;
    let house =
        House::start(&[("RUNTIME__RESILIENCE__PIPELINE", pipeline), ("RUNTIME__HEALTH__INTERVAL", "50ms")])
            .await;
    let order = house.request("PUT", "/v1/breakers/payments").json(&json!({ "state": "forced_open" }));
    assert_eq!(order.send().await.unwrap().status(), 200);
    house
        .until("degraded", async |house| {
            let answer = house.client().get(house.url("/readyz")).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let report: Value = answer.json().await.unwrap();
            (report["checks"]["breakers"] == "degraded" && report["status"] == "degraded").then_some(())
        })
        .await;
}

#[tokio::test]
async fn limits_that_are_switched_off_limit_nothing() {
    let off = [
        ("RUNTIME__LIMITS__ENABLED", "false"),
        ("RUNTIME__LIMITS__SERVER", r#"{"algorithm":"fixed","initial":1,"min":1,"max":1}"#),
    ];
    let house = House::start(&off).await;
    let listed: Value = house.request("GET", "/v1/limits").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&listed["concurrency"][0]["limit"], &listed["concurrency"][0]["in_flight"]),
        (&json!(1), &json!(0)),
        "the request itself is not counted"
    );
}
