//! Maintenance by schedule, and the built-in kind `event.publish`.

use runtime_cron::{CronConfig, Schedules, SqlStore, TickState};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_testkit::postgres;
use serde_json::{Value, json};

use super::house::{House, database};
use super::work::ask;

async fn jobs(house: &House, kind: &str) -> Vec<Value> {
    let (_, page) = ask(house, "GET", &format!("/v1/jobs?limit=1000&kind={kind}"), None).await;
    page["jobs"].as_array().unwrap().clone()
}

#[tokio::test]
async fn maintenance_is_a_schedule_whose_jobs_forget_what_is_old() {
    let tasks = r#"{"events":{"when":"@every 1s"},"sagas":{"enabled":false}}"#;
    let house =
        House::start(&[("RUNTIME__EVENTS__KEEP", "1ms"), ("RUNTIME__SERVER__MAINTENANCE", tasks)]).await;
    let names = house
        .until("its scheduler wrote each schedule down", async |house| {
            let (_, listed) = ask(house, "GET", "/v1/schedules", None).await;
            let listed = listed["schedules"].as_array().unwrap();
            let names: Vec<_> = listed.iter().map(|view| view["name"].as_str().unwrap().to_owned()).collect();
            (names.len() >= 3).then_some(names)
        })
        .await;
    assert_eq!(names, ["maintenance.events", "maintenance.inbox", "maintenance.outbox"]);
    assert_eq!(house.cli(&["schedules", "list"]).1.as_array().unwrap().len(), 3);

    let publish = json!({ "kind": "event.publish", "payload": { "topic": "orders", "type": "placed" } });
    assert_eq!(ask(&house, "POST", "/v1/jobs", Some(publish)).await.0, 202);
    house
        .until("the event is forgotten", async |house| {
            let (_, problem) = ask(house, "GET", "/v1/events/orders", None).await;
            (problem["code"] == "events.gone").then_some(())
        })
        .await;
    house
        .until("a job says that it forgot one", async |house| {
            let jobs = jobs(house, "maintenance.events").await;
            jobs.iter().any(|job| job["result"]["done"].as_u64() == Some(1)).then_some(())
        })
        .await;
    assert!(jobs(&house, "maintenance.sagas").await.is_empty(), "it is switched off");
}

#[tokio::test]
async fn a_maintenance_tick_runs_once_in_a_fleet() {
    let postgres = postgres::database().await.unwrap();
    let more = [
        ("RUNTIME__SERVER__MAINTENANCE", r#"{"events":{"when":"@every 1s"}}"#),
        ("RUNTIME__CRON__POLL_INTERVAL", "100ms"),
        ("RUNTIME__JOBS__POLL_INTERVAL", "100ms"),
    ];
    let settings = House::settings(&more, "all", postgres.url());
    let house = House::start(&settings).await;
    let _other = House::start(&settings).await;
    let before = jobs(&house, "maintenance.events").await.len();
    house
        .until("both had the chance", async |house| {
            (jobs(house, "maintenance.events").await.len() >= before + 4).then_some(())
        })
        .await;
    assert_eq!(ask(&house, "POST", "/v1/schedules/maintenance.events/pause", None).await.0, 200);

    let schedules = Schedules::new(
        SqlStore::new(database(postgres.url()).await),
        CronConfig::default(),
        SystemClock::shared(),
    );
    let (schedules, own) = (schedules.unwrap(), Context::new(Source::Internal, &SystemClock));
    let ticks = house
        .until("every tick and job is over", async |house| {
            let ticks = schedules.history(&own, "maintenance.events", 1000).await.unwrap();
            let jobs = jobs(house, "maintenance.events").await;
            let over = ticks.iter().all(|tick| tick.state.is_finished())
                && jobs.iter().all(|job| job["state"] == "completed");
            over.then_some(ticks)
        })
        .await;
    let fired = ticks.iter().filter(|tick| tick.state == TickState::Done).count();
    let jobs = jobs(&house, "maintenance.events").await;
    assert_eq!(jobs.len(), fired, "one job for each tick: {ticks:#?}");
    assert!(jobs.iter().all(|job| job["attempt"] == 1), "{jobs:#?}");
    assert!(ticks.iter().all(|tick| tick.attempt <= 1), "{ticks:#?}");
}

#[tokio::test]
async fn an_event_published_by_a_job_has_the_jobs_id_and_trace() {
    let house = House::start::<&str>(&[]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let payload = json!({ "topic": "orders", "type": "placed", "key": "o-1", "data": { "n": 1 } });
    let accepted = house
        .request("POST", "/v1/jobs")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&json!({ "kind": "event.publish", "payload": payload }))
        .send()
        .await
        .unwrap();
    let id = accepted.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let done = house.finished(&id).await;
    assert_eq!(done["state"], "completed", "{done:#}");
    assert_eq!(
        done["result"],
        json!({ "topic": "orders", "source": "/jobs", "id": id, "receipt": "new" }),
        "{done:#}"
    );
    let (status, page) = ask(&house, "GET", "/v1/events/orders?limit=1", None).await;
    assert_eq!((status, page["next"].as_u64()), (200, Some(1)), "{page:#}");
    let event = &page["events"][0]["event"];
    assert_eq!(
        (event["id"].as_str(), event["partitionkey"].as_str(), event["data"]["n"].as_u64()),
        (Some(id.as_str()), Some("o-1"), Some(1))
    );
    assert!(event["traceparent"].as_str().unwrap().contains(trace), "{event:#}");
    let (_, page) = ask(&house, "GET", "/v1/events/orders?after=1", None).await;
    assert_eq!(page, json!({ "events": [], "next": null }));
}

#[tokio::test]
async fn a_job_that_could_only_fail_or_is_not_the_senders_is_refused() {
    let house = House::start(&[("RUNTIME__TENANCY__REALMS", r#"{"main":{"tenants":{"acme":{}}}}"#)]).await;
    let issue = json!({ "description": "acme", "scopes": ["jobs:write", "schedules:write"] });
    let made =
        house.request("POST", "/v1/keys").header("x-tenant", "acme").json(&issue).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let (admin, acme) = (house.key().to_owned(), made["secret"].as_str().unwrap().to_owned());
    let publish = |payload: Value| json!({ "kind": "event.publish", "payload": payload });
    let fine = json!({ "topic": "orders", "type": "placed" });
    let scheduled = json!({ "when": "@daily", "payload": { "kind": "maintenance.events" } });
    for (key, method, path, body, status, code) in [
        (
            &admin,
            "POST",
            "/v1/jobs",
            publish(json!({ "topic": "a b", "type": "x" })),
            400,
            "job.payload_invalid",
        ),
        (&admin, "POST", "/v1/jobs", publish(json!({ "topic": "orders" })), 400, "job.payload_invalid"),
        (&acme, "POST", "/v1/jobs", publish(fine), 403, "auth.scope_missing"),
        (&acme, "POST", "/v1/jobs", json!({ "kind": "maintenance.events" }), 403, "jobs.operators_only"),
        (&acme, "PUT", "/v1/schedules/sly", scheduled, 403, "jobs.operators_only"),
    ] {
        let request = house.client().request(method.parse().unwrap(), house.url(path)).bearer_auth(key);
        let answer = request.json(&body).send().await.unwrap();
        let (seen, problem) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        assert_eq!((seen, problem["code"].as_str()), (status, Some(code)), "{problem:#}");
    }
    let (code, _) = house.cli(&["jobs", "enqueue", "event.publish", r#"{"topic":"orders"}"#]);
    assert_ne!(code, Some(0), "the command line hears of it too");
}
