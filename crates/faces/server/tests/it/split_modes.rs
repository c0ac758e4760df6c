//! Separate api, worker and scheduler processes over one Postgres.

use runtime_testkit::postgres;

use super::hook::Hook;
use super::house::House;

#[tokio::test]
async fn one_postgres_carries_a_job_from_the_api_process_to_the_worker_process() {
    let hook = Hook::start().await;
    let database = postgres::database().await.unwrap();
    let settings = |mode| House::settings(&[], mode, database.url());
    let api = House::start(&settings("api")).await;
    let id = api.enqueue(&hook, 7).await;
    assert!(
        !["completed", "dead"].contains(&api.job(&id).await["state"].as_str().unwrap()),
        "an api process runs no jobs"
    );

    let scheduler = House::start(&settings("scheduler")).await;
    let worker = House::start(&settings("worker")).await;
    assert_eq!(api.finished(&id).await["state"], "completed");
    assert_eq!(hook.by_number()[&7], 1);

    for process in [&api, &scheduler, &worker] {
        assert_eq!(process.client().get(process.url("/readyz")).send().await.unwrap().status(), 200);
    }
    let refused = worker.client().get(worker.url("/v1/jobs")).bearer_auth(api.key()).send().await.unwrap();
    assert_eq!(refused.status(), 404, "a worker serves probes and metrics only");
}
