//! Tenants and the audit record, through the whole server.

use serde_json::{Value, json};

use super::house::House;

const TENANTS: &[(&str, &str)] = &[
    ("RUNTIME__ENV", "production"),
    ("RUNTIME__TENANCY__REALMS", r#"{"main":{"tenants":{"acme":{},"globex":{}}}}"#),
];

/// A key of one tenant, made by the operator within it.
async fn key_of(house: &House, tenant: &str) -> String {
    let body = json!({ "description": tenant, "scopes": ["*"] });
    let made = house.request("POST", "/v1/keys").header("x-tenant", tenant).json(&body).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!((&made["record"]["realm"], &made["record"]["tenant"]), (&json!("main"), &json!(tenant)));
    made["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_of_one_tenant_is_refused_under_the_header_of_another_and_sees_nothing_of_it() {
    let house = House::start(TENANTS).await;
    let (acme, globex) = (key_of(&house, "acme").await, key_of(&house, "globex").await);
    let ask = |key: &str, method: &str, path: &str| {
        house.client().request(method.parse().unwrap(), house.url(path)).bearer_auth(key)
    };

    let refused = ask(&acme, "GET", "/v1/jobs").header("x-tenant", "globex").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "tenancy.forbidden");
    let unknown = ask(&acme, "GET", "/v1/jobs").header("x-tenant", "initech").send().await.unwrap();
    assert_eq!(unknown.json::<Value>().await.unwrap()["code"], "tenancy.forbidden", "as if it existed");

    let job = json!({ "kind": "nobody.handles", "payload": {} });
    let made = ask(&acme, "POST", "/v1/jobs").json(&job).send().await.unwrap();
    assert_eq!(made.status(), 202);
    let id = made.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();

    let path = format!("/v1/jobs/{id}");
    for (key, status) in [(acme.as_str(), 200), (&globex, 404), (house.key(), 200)] {
        assert_eq!(ask(key, "GET", &path).send().await.unwrap().status(), status);
    }
    for (verb, status) in [("cancel", 404), ("redrive", 404)] {
        let tried = ask(&globex, "POST", &format!("{path}/{verb}")).send().await.unwrap();
        assert_eq!(tried.status(), status, "{verb}");
    }
    for (key, seen) in [(acme.as_str(), 1), (&globex, 0)] {
        let page: Value = ask(key, "GET", "/v1/jobs").send().await.unwrap().json().await.unwrap();
        assert_eq!(page["jobs"].as_array().unwrap().len(), seen);
    }

    let keys: Value = ask(&globex, "GET", "/v1/keys").send().await.unwrap().json().await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "its own: {keys:#}");
}

#[tokio::test]
async fn keys_come_in_pages() {
    let house = House::start::<&str>(&[]).await;
    for n in 0..3 {
        let body = json!({ "description": n.to_string(), "scopes": [] });
        assert_eq!(house.request("POST", "/v1/keys").json(&body).send().await.unwrap().status(), 201);
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = house.request("GET", &format!("/v1/keys?limit=3{after}")).send().await.unwrap();
        let page: Value = page.json().await.unwrap();
        seen.extend(page["keys"].as_array().unwrap().iter().map(|key| key["description"].to_string()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [r#""first administrator""#, r#""0""#, r#""1""#, r#""2""#]);
    let refused = house.request("GET", "/v1/keys?limit=0").send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn what_is_done_to_keys_and_keys_that_do_not_hold_are_on_the_audit_record() {
    let mut house = House::start::<&str>(&[]).await;
    let body = json!({ "description": "a", "scopes": ["jobs:read"] });
    let made: Value =
        house.request("POST", "/v1/keys").json(&body).send().await.unwrap().json().await.unwrap();
    let (id, secret) = (made["record"]["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let rotate = house.request("POST", &format!("/v1/keys/{id}/rotate"));
    assert_eq!(rotate.json(&json!({ "overlap": "0s" })).send().await.unwrap().status(), 200);
    let revoked = house.request("DELETE", &format!("/v1/keys/{id}")).send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    let refused = house.client().get(house.url("/v1/jobs")).bearer_auth(secret).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    house.sigterm();
    house.exit().await;

    let text = house.file("runtime-data/audit.jsonl");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<_> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "keys.created",
            "runtime.started",
            "keys.created",
            "keys.rotated",
            "keys.revoked",
            "auth.failed",
            "runtime.stopping"
        ],
        "{text}"
    );
    let [created, failed] = [&events[2], &events[5]];
    assert_eq!((&created["target"]["id"], &created["severity"]), (&json!(id), &json!("critical")));
    assert!(created["actor"]["id"].is_string() && created["request_id"].is_string(), "{created:#}");
    assert_eq!((&failed["outcome"], &failed["target"]["id"]), (&json!("denied"), &json!(id)));
    assert!(!text.contains(secret) && !text.contains(house.key()), "no secret is on record");
}

#[tokio::test]
async fn every_tenant_sees_its_own_quotas() {
    let quotas = r#"{"reports":{"limit":5,"per":"day","tenants":{"main/globex":7}},"storage":{"limit":10}}"#;
    let mut variables = TENANTS.to_vec();
    variables.push(("RUNTIME__LIMITS__QUOTAS", quotas));
    let house = House::start(&variables).await;
    for (tenant, limit) in [("acme", 5), ("globex", 7)] {
        let answer = house.request("GET", "/v1/quotas").header("x-tenant", tenant).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let reports = &answer["quotas"][0];
        assert_eq!(
            (&reports["name"], &reports["limit"], &reports["used"]),
            (&json!("reports"), &json!(limit), &json!(0))
        );
        assert!(
            reports["resets_at"].is_string() && answer["quotas"][1].get("resets_at").is_none(),
            "{answer}"
        );
    }
}
