//! What a newcomer sees: start, probe, enqueue, look.

use serde_json::json;

use super::hook::Hook;
use super::house::House;

#[tokio::test]
async fn a_job_posted_over_http_calls_its_url_and_keeps_what_came_back() {
    let hook = Hook::start().await;
    let house = House::start::<&str>(&[]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let job = json!({ "kind": "http.request", "payload": { "method": "POST", "url": hook.url(), "body": { "n": 1 } } });
    let accepted = house
        .request("POST", "/v1/jobs")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&job)
        .send()
        .await
        .unwrap();
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    let id = accepted.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/v1/jobs/{id}"));

    let done = house.finished(&id).await;
    assert_eq!(done["state"], "completed", "{done:#}");
    assert_eq!(done["result"]["status"], 200);
    assert_eq!(done["result"]["body"], "received");
    assert_eq!(done["attempts"].as_array().unwrap().len(), 1);
    let page: serde_json::Value =
        house.request("GET", "/v1/jobs?limit=1").send().await.unwrap().json().await.unwrap();
    assert_eq!(page["jobs"][0]["id"], id);
    assert!(
        page["jobs"][0].get("attempts").is_none(),
        "a list has not looked at them, and does not say there are none"
    );

    let calls = hook.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].body, json!({ "n": 1 }));
    let sent = calls[0].headers["traceparent"].to_str().unwrap();
    assert!(sent.contains(trace), "the same trace arrives at the other end: {sent}");
    assert_eq!(calls[0].headers["idempotency-key"].to_str().unwrap(), id);
    assert!(calls[0].headers.contains_key("x-request-timeout"), "the remaining deadline is told");
}

#[tokio::test]
async fn every_attempts_error_is_kept_and_a_later_success_still_completes() {
    let hook = Hook::start().await;
    hook.answer([(503, vec![("retry-after", "0".to_owned())]), (429, vec![("retry-after", "0".to_owned())])]);
    let house = House::start(&[("RUNTIME__JOBS__POLL_INTERVAL", "50ms")]).await;
    let id = house.enqueue(&hook, 1).await;
    let done = house.finished(&id).await;
    assert_eq!(done["state"], "completed", "{done:#}");
    let attempts = done["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|a| a["error"]["kind"].as_str().unwrap_or("none")).collect();
    assert_eq!(outcomes, ["unavailable", "rate_limited", "none"], "{done:#}");
}

#[tokio::test]
async fn an_answer_that_will_never_change_sends_the_job_to_the_dead_letters_and_redrive_brings_it_back() {
    let hook = Hook::start().await;
    hook.answer([(422, vec![])]);
    let house = House::start::<&str>(&[]).await;
    let id = house.enqueue(&hook, 1).await;
    let dead = house.finished(&id).await;
    assert_eq!(dead["state"], "dead", "{dead:#}");
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 1, "not tried again");

    hook.answer([(422, vec![])]);
    let redriven = house.request("POST", &format!("/v1/jobs/{id}/redrive")).send().await.unwrap();
    assert_eq!(redriven.status(), 202);
    hook.wait_for(2).await;
    assert_eq!(house.finished(&id).await["state"], "dead");

    for (kind, count) in [("another.kind", 0), ("http.request", 1)] {
        let all = house.request("POST", "/v1/jobs/redrive").json(&json!({ "kind": kind }));
        let redriven: serde_json::Value = all.send().await.unwrap().json().await.unwrap();
        assert_eq!(redriven["redriven"], count, "{kind}");
    }
    hook.wait_for(3).await;
    assert_eq!(house.finished(&id).await["state"], "completed");
}

#[tokio::test]
async fn a_unique_key_is_taken_once_and_the_second_request_learns_by_whom() {
    let house = House::start::<&str>(&[]).await;
    let job = json!({ "kind": "nobody.handles", "unique": { "key": "daily", "for": "1d" } });
    let mut answers = Vec::new();
    for _ in 0..2 {
        let accepted = house.request("POST", "/v1/jobs").json(&job).send().await.unwrap();
        answers.push(accepted.json::<serde_json::Value>().await.unwrap());
    }
    assert_eq!(answers[0]["id"], answers[1]["id"]);
    assert_eq!((&answers[0]["duplicate"], &answers[1]["duplicate"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn the_edge_refuses_what_it_should_with_problem_documents() {
    let house = House::start::<&str>(&[]).await;
    let anonymous = |path: &str| house.client().get(house.url(path));
    for (request, status, code) in [
        (anonymous("/v1/jobs"), 401, "auth.required"),
        (anonymous("/v1/jobs").bearer_auth("rt_nonsense"), 401, "apikey.invalid"),
        (anonymous("/nowhere"), 404, "http.not_found"),
        (house.request("PUT", "/v1/jobs"), 405, "http.method_not_allowed"),
        (house.request("GET", "/v1/jobs/not-a-uuid"), 400, "http.invalid_path"),
        (house.request("POST", "/v1/jobs").body("{"), 415, "http.unsupported_media_type"),
        (
            house.request("POST", "/v1/jobs").header("content-type", "application/json").body("{"),
            400,
            "http.invalid_json",
        ),
        (house.request("POST", "/v1/jobs").json(&json!({ "kind": 5 })), 400, "http.invalid_json"),
        (
            house
                .request("POST", "/v1/jobs")
                .json(&json!({ "kind": "http.request", "payload": { "url": "nope" } })),
            400,
            "job.payload_invalid",
        ),
        (
            house.request("POST", "/v1/jobs").json(&json!({ "kind": "a", "unique": ["key", null] })),
            400,
            "http.invalid_json",
        ),
        (house.request("POST", "/v1/jobs/redrive").json(&json!({ "kind": "" })), 400, "http.invalid_json"),
        (house.request("GET", "/v1/jobs/01900000-0000-7000-8000-000000000000"), 404, "jobs.not_found"),
    ] {
        let response = request.send().await.unwrap();
        let (seen, kind) =
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap().to_owned());
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!((seen, problem["code"].as_str()), (status, Some(code)), "{problem:#}");
        assert_eq!(kind, "application/problem+json");
        assert!(problem["request_id"].is_string());
    }
}

#[tokio::test]
async fn the_admin_key_is_shown_once_and_never_logged() {
    let mut house = House::start::<&str>(&[]).await;
    let key = house.key().to_owned();
    assert!(!house.log().contains(&key), "the key is printed, not logged");
    house.restart().await;
    assert!(!house.printed().contains("rt_"), "a second start shows no key: {}", house.printed());
    let jobs = house.client().get(house.url("/v1/jobs")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(jobs.status(), 200, "the key still works");
}
