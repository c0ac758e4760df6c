//! Jobs that are counted together, jobs that wait for others, and jobs that must be the only one.

use serde_json::{Value, json};

use super::hook::Hook;
use super::house::House;

fn job(hook: &Hook, name: &str) -> Value {
    let payload = json!({ "method": "POST", "url": hook.url(), "body": { "n": name } });
    json!({ "kind": "http.request", "payload": payload })
}

async fn post(house: &House, path: &str, body: &Value) -> (u16, Value) {
    let answer = house.request("POST", path).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(house: &House, path: &str) -> Value {
    house.request("GET", path).send().await.unwrap().json().await.unwrap()
}

fn called(hook: &Hook) -> Vec<String> {
    let calls = hook.calls();
    let mut names: Vec<_> = calls.iter().map(|call| call.body["n"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_batch_counts_calls_back_and_goes_on_when_its_dead_are_redriven() {
    let (hook, house) =
        (Hook::start().await, House::start(&[("RUNTIME__JOBS__POLL_INTERVAL", "50ms")]).await);
    hook.answer([(404, Vec::new())]);
    let members: Vec<Value> = ["a", "b", "c"].iter().map(|name| job(&hook, name)).collect();
    let body = json!({
        "jobs": members,
        "on_success": job(&hook, "success"), "on_failure": job(&hook, "failure"), "on_end": job(&hook, "end"),
    });
    let (status, opened) = post(&house, "/v1/batches", &body).await;
    assert_eq!(status, 202, "{opened}");
    let id = opened["id"].as_str().unwrap();
    let callback = |place: usize| opened["callbacks"][place].as_str().unwrap().to_owned();
    assert_eq!(house.finished(&callback(1)).await["state"], "completed");
    assert_eq!(house.finished(&callback(2)).await["state"], "completed");
    let batch = get(&house, &format!("/v1/batches/{id}")).await;
    let counts = ["total", "open", "completed", "dead", "cancelled"].map(|name| batch[name].clone());
    assert_eq!(counts, [3, 0, 2, 1, 0].map(Value::from), "{batch}");
    assert_eq!(house.job(&callback(0)).await["state"], "waiting");
    let dead = get(&house, &format!("/v1/jobs?batch={id}&state=dead")).await;
    assert_eq!(dead["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(batch["cause"], dead["jobs"][0]["id"]);
    let (status, _) =
        post(&house, &format!("/v1/jobs/{}/redrive", batch["cause"].as_str().unwrap()), &json!({})).await;
    assert_eq!(status, 202);
    assert_eq!(house.finished(&callback(0)).await["state"], "completed");
    let mut expected = ["a", "b", "c", "end", "failure", "success"].map(str::to_owned).to_vec();
    // The one that was refused was called twice.
    let again = called(&hook)
        .into_iter()
        .find(|name| called(&hook).iter().filter(|other| *other == name).count() == 2);
    expected.push(again.unwrap());
    expected.sort();
    assert_eq!(called(&hook), expected);
    let missing =
        house.request("GET", "/v1/batches/01900000-0000-7000-8000-000000000000").send().await.unwrap();
    assert_eq!(
        (missing.status().as_u16(), missing.json::<Value>().await.unwrap()["code"].clone()),
        (404, json!("jobs.no_batch"))
    );
}

#[tokio::test]
async fn a_job_waits_for_others_and_says_why_it_never_will_run() {
    let (hook, house) =
        (Hook::start().await, House::start(&[("RUNTIME__JOBS__POLL_INTERVAL", "50ms")]).await);
    let first = house.enqueue(&hook, 1).await;
    let after = |id: &str, trigger: &str| {
        let mut job = job(&hook, trigger);
        (job["after"], job["trigger"]) = (json!([id]), json!(trigger));
        job
    };
    let (status, second) = post(&house, "/v1/jobs", &after(&first, "completed")).await;
    assert_eq!(status, 202, "{second}");
    assert_eq!(house.finished(second["id"].as_str().unwrap()).await["state"], "completed");
    hook.answer([(404, Vec::new())]);
    let refused = house.enqueue(&hook, 2).await;
    let (_, never) = post(&house, "/v1/jobs", &after(&refused, "completed")).await;
    let (_, rescue) = post(&house, "/v1/jobs", &after(&refused, "failed")).await;
    let never = house.finished(never["id"].as_str().unwrap()).await;
    assert_eq!(never["state"], "cancelled");
    assert!(never["reason"]["message"].as_str().unwrap().contains(&refused), "{never}");
    assert_eq!(house.finished(rescue["id"].as_str().unwrap()).await["state"], "completed");
    let unknown = after("01900000-0000-7000-8000-000000000000", "completed");
    assert_eq!(post(&house, "/v1/jobs", &unknown).await.0, 404);
}

#[tokio::test]
async fn a_batch_is_cancelled_whole_and_one_of_a_kind_is_enough() {
    let (hook, house) = (Hook::start().await, House::start::<&str>(&[]).await);
    post(&house, "/v1/queues/default/pause", &json!({})).await;
    let body = json!({ "jobs": [job(&hook, "a"), job(&hook, "b")] });
    let (_, opened) = post(&house, "/v1/batches", &body).await;
    let id = opened["id"].as_str().unwrap();
    let (status, cancelled) = post(&house, &format!("/v1/batches/{id}/cancel"), &json!({})).await;
    assert_eq!((status, &cancelled["count"]), (202, &json!(2)));
    assert_eq!(get(&house, &format!("/v1/batches/{id}")).await["cancelled"], 2);
    let unique = |unique: Value| {
        let mut job = job(&hook, "once");
        job["unique"] = unique;
        job
    };
    let (_, first) = post(&house, "/v1/jobs", &unique(json!({ "payload": true }))).await;
    let (_, again) = post(&house, "/v1/jobs", &unique(json!({ "payload": true }))).await;
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    for wrong in [json!({}), json!({ "key": "a", "payload": true }), json!({ "fields": ["a"], "key": "a" })] {
        let (status, problem) = post(&house, "/v1/jobs", &unique(wrong)).await;
        assert_eq!(status, 400, "{problem}");
    }
    assert_eq!(called(&hook), [""; 0]);
}
