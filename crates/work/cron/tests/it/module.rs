//! The module in an app.

use runtime_cron::{CronModule, SCHEDULES, Schedule};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_kernel::{Context, ManualClock, Mode, Source};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

fn config(schedules: serde_json::Value) -> Config {
    let calendars = json!({ "bank": { "days": ["SUN"], "dates": ["12-25"] } });
    Config::builder().set("cron.schedules", schedules).set("cron.calendars", calendars).build().unwrap()
}

#[tokio::test]
async fn schedules_of_configuration_and_program_fire_in_an_app() {
    let clock = ManualClock::new();
    let config = config(json!([
        { "name": "configured", "when": "@every 30s", "action": "note", "calendars": ["bank"], "payload": { "n": 1 } },
    ]));
    let (noted, mut seen) = tokio::sync::mpsc::channel(16);
    let module = CronModule::new()
        .on_tick("note", move |tick| {
            let noted = noted.clone();
            async move {
                noted.send(tick).await.unwrap();
                Ok(())
            }
        })
        .schedule(Schedule::new("coded", "@every 60s", "note"));
    let app =
        App::new(config).mode(Mode::Scheduler).clock(Arc::new(clock.clone())).with(module).build().unwrap();
    assert!(app.services().any(|name| name == "cron.scheduler"));
    let schedules = app.container().get(SCHEDULES).await.unwrap();
    let shutdown = app.shutdown().clone();
    let running = tokio::spawn(app.run_without_signals());
    let mut names = Vec::new();
    while names.len() < 3 {
        clock.advance(Duration::from_millis(500));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        while let Ok(tick) = seen.try_recv() {
            names.push((tick.key.name.clone(), tick.fire_time.to_string()));
        }
    }
    names.sort();
    assert_eq!(
        names,
        [
            ("coded".to_owned(), "2026-01-01T00:01:00Z".to_owned()),
            ("configured".to_owned(), "2026-01-01T00:00:30Z".to_owned()),
            ("configured".to_owned(), "2026-01-01T00:01:00Z".to_owned()),
        ]
    );
    let context = Context::new(Source::Internal, &clock);
    let kept = schedules.get(&context, "configured").await.unwrap();
    assert_eq!(kept.schedule.named.days, ["SUN"], "what a named calendar leaves out is looked up");
    shutdown.trigger(runtime_kernel::lifecycle::StopReason::Requested("the test is over".into()));
    for _ in 0..200 {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let report = running.await.unwrap();
    assert_eq!(report.services[0].restarts, 0);
}

#[test]
fn a_wrong_schedule_is_refused_with_its_path() {
    for (schedule, path, text) in [
        (
            json!({ "name": "a", "when": "0 25 * * *", "action": "x" }),
            "cron.schedules[0]",
            "`25` is not 0 to 23",
        ),
        (
            json!({ "name": "a", "when": "@daily", "zone": "Mars", "action": "x" }),
            "cron.schedules[0]",
            "no time zone `Mars`",
        ),
        (
            json!({ "name": "a", "when": "@daily", "calendars": ["no"], "action": "x" }),
            "cron.schedules[0]",
            "no calendar `no`",
        ),
        (
            json!({ "name": "a", "when": "@daily", "action": "nobody" }),
            "schedule `a`",
            "no action `nobody` is registered",
        ),
        (json!({ "name": "a", "when": "@daily" }), "schedule `a`", "no action `job` is registered"),
    ] {
        let built = App::new(config(json!([schedule]))).mode(Mode::All).with(CronModule::new()).build();
        let error = built.unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(text), "{error}");
    }
    // A process that fires nothing need not know the actions.
    let schedule = json!([{ "name": "a", "when": "@daily", "action": "nobody" }]);
    assert!(App::new(config(schedule)).mode(Mode::Api).with(CronModule::new()).build().is_ok());
}

#[cfg(all(feature = "jobs", feature = "sqlite"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_of_the_configuration_enqueues_its_job() {
    use runtime_jobs::{JOBS, JobsModule};

    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let url = format!("sqlite:{}", folder.path().join("app.db").display());
    let schedules = json!([{ "name": "digest", "when": "@hourly", "payload": { "kind": "mail.digest" } }]);
    let config =
        Config::builder().set("cron.schedules", schedules).set("db.url", json!(url)).build().unwrap();
    let app = App::new(config)
        .mode(Mode::Scheduler)
        .clock(Arc::new(clock.clone()))
        .with(runtime_db::DbModule::new())
        .with(runtime_migrate::MigrateModule::new())
        .with(JobsModule::new())
        .with(CronModule::new())
        .build()
        .unwrap();
    let jobs = app.container().get(JOBS).await.unwrap();
    let kept = app.container().get(SCHEDULES).await.unwrap();
    let shutdown = app.shutdown().clone();
    let running = tokio::spawn(app.run_without_signals());
    let context = Context::new(Source::Internal, &clock);
    let filter = || runtime_jobs::store::Filter { limit: 10, ..Default::default() };
    let mut triggered = false;
    let found = loop {
        // Slowly, so that leases outlast the transactions.
        clock.advance(Duration::from_millis(50));
        tokio::task::yield_now().await;
        triggered = triggered || kept.trigger(&context, "digest").await.is_ok();
        // Before the migrations have run there is no table.
        if let Ok(found) = jobs.list(&context, filter()).await
            && !found.is_empty()
        {
            break found;
        }
    };
    assert_eq!(found[0].kind, "mail.digest");
    shutdown.trigger(runtime_kernel::lifecycle::StopReason::Requested("the test is over".into()));
    while !running.is_finished() {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
}
