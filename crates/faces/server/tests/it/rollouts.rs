//! Rollouts through the whole server: passed on, ordered, on record.

use axum::Router;
use axum::routing::any;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::house::House;

async fn upstream(name: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = any(move |uri: axum::http::Uri, body: String| async move { format!("{name} {uri} {body}") });
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

#[tokio::test]
async fn requests_are_passed_on_by_weight_and_orders_take_effect_and_are_on_record() {
    let (old, new) = (upstream("old").await, upstream("new").await);
    let routes = json!({ "shop": { "path": "/shop", "primary": old, "canary": new, "sticky": ["request"] } });
    let routes = routes.to_string();
    let house = House::start(&[("RUNTIME__ROLLOUT__ROUTES", routes.as_str())]).await;
    let ask = async || {
        let request = house.client().post(house.url("/shop/cart/1?a=b")).body("hello");
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(ask().await, "old /shop/cart/1?a=b hello");
    let order = async |body: Value| {
        let answer = house.request("POST", "/v1/rollouts/shop").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, view) = order(json!({ "order": "weight", "weight": 10_000, "reason": "all of it" })).await;
    assert_eq!((status, &view["weight"], &view["phase"]), (200, &json!(10_000), &json!("paused")));
    assert_eq!(ask().await, "new /shop/cart/1?a=b hello");
    let (status, problem) = order(json!({ "order": "switch" })).await;
    assert_eq!((status, &problem["code"]), (409, &json!("rollout.refused")));
    let (status, problem) = order(json!({ "order": "pin", "subject": "a" })).await;
    assert_eq!((status, &problem["code"]), (400, &json!("rollout.incomplete_order")));
    let (status, _) = order(json!({ "order": "rollback" })).await;
    assert_eq!(status, 200);
    assert_eq!(ask().await, "old /shop/cart/1?a=b hello");
    let list: Value = house.request("GET", "/v1/rollouts").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&list["rollouts"][0]["name"], &list["rollouts"][0]["phase"]),
        (&json!("shop"), &json!("rolled_back"))
    );
    let unknown =
        house.request("POST", "/v1/rollouts/nosuch").json(&json!({ "order": "start" })).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    let anonymous = house.client().get(house.url("/v1/rollouts")).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
}

/// Sends a request line as it is, which no client of ours would; the answer's status, and its body.
async fn raw(house: &House, target: &str) -> (String, String) {
    let address = house.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn what_is_passed_on_is_the_path_itself_and_what_is_below_it_and_nothing_else() {
    let shop = upstream("shop").await;
    let rest = upstream("rest").await;
    let routes = json!({
        "shop": { "path": "/shop", "primary": shop, "canary": shop },
        "rest": { "path": "/", "primary": rest, "canary": rest },
    });
    let house = House::start(&[("RUNTIME__ROLLOUT__ROUTES", routes.to_string().as_str())]).await;
    for (target, expected) in [
        ("/shop", "shop /shop "),
        ("/shop/", "shop /shop/ "),
        ("/shop/cart", "shop /shop/cart "),
        ("/", "rest / "),
        ("/other", "rest /other "),
    ] {
        let (status, body) = raw(&house, target).await;
        assert!(status == "200" && body.contains(expected), "{target}: {status} {body}");
    }
    for target in ["/shop/%2e%2e/admin", "/shop/../admin", "/shop/..\\admin", "/shop/.%2E"] {
        let (status, body) = raw(&house, target).await;
        assert!(status == "400" && body.contains("rollout.path"), "{target}: {status} {body}");
    }
}

#[tokio::test]
async fn a_canary_that_fails_is_rolled_back_by_the_server_itself_and_that_is_on_record() {
    let broken = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = any(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR });
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        url
    };
    let step = json!({ "weight": 5_000, "hold": "1h" });
    let routes = json!({ "shop": { "path": "/shop", "primary": upstream("old").await, "canary": broken,
        "sticky": ["request"], "plan": { "steps": [step] } } });
    let routes = routes.to_string();
    let house = House::start(&[("RUNTIME__ROLLOUT__ROUTES", routes.as_str())]).await;
    let start = house.request("POST", "/v1/rollouts/shop").json(&json!({ "order": "start" }));
    assert_eq!(start.send().await.unwrap().status(), 200);
    house
        .until("rolled back", async |house| {
            for _ in 0..20 {
                let _ = house.client().get(house.url("/shop")).send().await.unwrap();
            }
            let list: Value =
                house.request("GET", "/v1/rollouts").send().await.unwrap().json().await.unwrap();
            (list["rollouts"][0]["phase"] == "rolled_back").then_some(())
        })
        .await;
    house
        .until("on record", async |house| {
            house.file("runtime-data/audit.jsonl").contains("rollouts.moved").then_some(())
        })
        .await;
    let record = house.file("runtime-data/audit.jsonl");
    let place = |action: &str| record.find(action).unwrap();
    assert!(place("rollouts.ordering") < place("rollouts.ordered"));
    assert!(place("rollouts.ordered") < place("rollouts.moved"));
}
