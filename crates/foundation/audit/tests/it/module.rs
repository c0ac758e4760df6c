//! Audit inside a running app.

use std::time::Duration;

use runtime_audit::{AUDIT, AuditApp, AuditEvent, AuditModule, MemoryWriter};
use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, SHUTDOWN, SetupError};
use runtime_kernel::config::Config;
use runtime_kernel::lifecycle::Stage;

struct Writer(MemoryWriter);

impl Module for Writer {
    fn name(&self) -> &'static str {
        "writer"
    }
    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.audit_writer(self.0.clone());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_begins_with_the_start_and_keeps_what_the_last_workers_did() {
    let (memory, dir) = (MemoryWriter::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("audit.jsonl");
    let config = Config::builder()
        .set("audit.writers", serde_json::json!(["file"]))
        .set("audit.file", file.to_str().unwrap())
        .build()
        .unwrap();
    let app = App::new(config).with(AuditModule::new()).with(Writer(memory.clone())).build().unwrap();
    let audit = (*app.container().get(AUDIT).await.unwrap()).clone();
    let shutdown = (*app.container().get(SHUTDOWN).await.unwrap()).clone();
    let last = audit.clone();
    shutdown.hook(Stage::Work, "worker", Duration::from_secs(5), move || async move {
        last.record(AuditEvent::new("job.done")).await.map_err(Error::from)
    });
    let running = tokio::spawn(app.run());
    tokio::time::timeout(Duration::from_secs(10), async {
        while memory.events().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the start is on record");
    shutdown.trigger("test");
    assert_eq!(running.await.unwrap().code(), 0);
    let actions: Vec<_> = memory.events().into_iter().map(|event| event.action).collect();
    assert_eq!(actions, ["runtime.started", "job.done", "runtime.stopping"]);
    assert_eq!(
        std::fs::read_to_string(file).unwrap().lines().count(),
        3,
        "the configured writer has them too"
    );
}

#[test]
fn a_writer_nobody_knows_is_refused_with_its_path() {
    let config = Config::builder().set("audit.writers", serde_json::json!(["carrier-pigeon"])).build();
    let said = match config.map(|config| App::new(config).with(AuditModule::new()).build()) {
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
        Ok(Ok(_)) => panic!("accepted"),
    };
    assert!(said.contains("audit.writers"), "{said}");
}
