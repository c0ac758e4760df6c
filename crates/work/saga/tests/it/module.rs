//! Sagas in an app.

use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_saga::{Definition, NewSaga, SAGAS, Saga, SagaModule, Status};

use super::world::{context, over};

fn config(text: &str) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime.yaml");
    std::fs::write(&file, text).unwrap();
    let config = Config::builder().file(&file).build().unwrap();
    (folder, config)
}

fn code(version: u32) -> Definition {
    Definition::new("greet", version, |saga: Saga, name: String| async move {
        saga.step("greet", move |_| {
            let name = name.clone();
            async move { Ok(format!("hello, {name}")) }
        })
        .await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_runs_its_sagas() {
    let (_folder, config) = config("saga: { poll_interval: 50ms, max_payload: 1KiB }");
    let app = App::new(config).with(SagaModule::new().saga(code(1)).saga(code(2))).build().unwrap();
    let (container, shutdown) = (app.container().clone(), app.shutdown().clone());
    let running = tokio::spawn(app.run_without_signals());
    let sagas = container.get(SAGAS).await.unwrap();
    let id = sagas.start(&context(), NewSaga::new("greet", "you").unwrap()).await.unwrap();
    let done = over(&sagas, id).await;
    assert_eq!((done.status, done.version, done.output), (Status::Completed, 2, Some("hello, you".into())));
    assert!(sagas.start(&context(), NewSaga::new("greet", "x".repeat(2000)).unwrap()).await.is_err());
    shutdown.trigger("the test is over");
    running.await.unwrap();
}

#[test]
fn what_is_wrong_is_told_before_anything_starts() {
    for (text, says) in [
        ("saga: { heartbeat: 20s }", "saga.heartbeat"),
        ("saga: { concurrency: 0 }", "saga.concurrency"),
        ("saga: { retry: { max_attempts: 0 } }", "max_attempts"),
        ("saga: { polling: 1s }", "saga.polling"),
    ] {
        let (_folder, config) = config(text);
        let error = App::new(config).with(SagaModule::new()).build().map(drop).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    let (_folder, config) = config("{}");
    let twice = SagaModule::new().saga(code(1)).saga(code(1));
    let error = App::new(config).with(twice).build().map(drop).unwrap_err();
    assert!(error.to_string().contains("greet@1"), "{error}");
}
