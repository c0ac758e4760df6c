//! Workflows in an app: the section, definitions from a folder and from the section, the ticker.

use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_workflow::{Guard, StartRequest, Status, WORKFLOWS, WorkflowModule};
use serde_json::json;

use super::desk::{approve, one_step, person};

fn config(text: &str) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime.yaml");
    std::fs::write(&file, text.replace("FOLDER", folder.path().join("flows").to_str().unwrap())).unwrap();
    let config = Config::builder().file(&file).build().unwrap();
    (folder, config)
}

const SECTION: &str = "
workflow:
  definitions_dir: FOLDER
  tick: 20ms
  people: { roles: { board: [ann] } }
  definitions:
    - code: inline
      entity_type: order
      steps:
        - id: a
          requirement: { quorum: { percent: 50 } }
          approvers: [{ role: board }]
          skip_when: { is: { field: amount, op: lt, value: 10 } }
          sla: { due: 1 hour, escalations: [{ after: 2 hours, action: auto_reject }] }
";

#[tokio::test(flavor = "multi_thread")]
async fn an_app_installs_its_definitions_and_keeps_time() {
    let (folder, config) = config(SECTION);
    let flows = folder.path().join("flows");
    std::fs::create_dir(&flows).unwrap();
    // Approved by itself one second after it was due: only the ticker can do that.
    let timed = "    sla: { due: 1 second, escalations: [{ after: 0 seconds, action: auto_approve }] }\n";
    std::fs::write(flows.join("order.yaml"), one_step("any", "[{ role: board }]") + timed).unwrap();
    std::fs::write(flows.join("notes.txt"), "not a definition").unwrap();

    let app = App::new(config).with(WorkflowModule::new());
    let app = app.build().unwrap();
    let (container, shutdown) = (app.container().clone(), app.shutdown().clone());
    let (approved, seen) = tokio::sync::oneshot::channel();
    let running = tokio::spawn(app.run_without_signals());
    let (rita, ann) = (person("acme", "rita", &[]), person("acme", "ann", &[]));
    let workflows = container.get(WORKFLOWS).await.unwrap();
    let start = async |code: &str| loop {
        // The definitions are installed by a start hook that runs beside this test.
        match workflows.start(&rita, StartRequest::new(code, code, json!({ "amount": 50 }))).await {
            Ok(started) => break started.id,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let inline = start("inline").await;
    let done = workflows.act(&ann, inline, approve(), &Guard::default()).await.unwrap();
    assert_eq!(done.status, Status::Approved);
    let timed = start("order").await;
    let watching = tokio::spawn(async move {
        while workflows.get(&rita, timed).await.unwrap().status != Status::Approved {
            tokio::task::yield_now().await;
        }
        approved.send(()).unwrap();
    });
    tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.unwrap().unwrap();
    watching.await.unwrap();
    shutdown.trigger("the test is over");
    running.await.unwrap();
}

#[test]
fn what_is_wrong_in_the_section_or_the_folder_is_told_before_anything_starts() {
    for (text, says) in [
        ("workflow: { tick: 0s }", "workflow.tick"),
        ("workflow: { batch: 0 }", "workflow.batch"),
        (
            "workflow: { definitions: [{ code: a, entity_type: b, steps: [] }] }",
            "workflow.definitions[0].steps",
        ),
        ("workflow: { definitions_dir: FOLDER }", "flows"),
        ("workflow: { definition: [] }", "definitions"),
    ] {
        let (_folder, config) = config(text);
        let error = App::new(config).with(WorkflowModule::new()).build().map(drop).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    let (folder, config) = config("workflow: { definitions_dir: FOLDER }");
    let flows = folder.path().join("flows");
    std::fs::create_dir(&flows).unwrap();
    std::fs::write(flows.join("a.yml"), one_step("any", "[]")).unwrap();
    let error = App::new(config).with(WorkflowModule::new()).build().map(drop).unwrap_err().to_string();
    assert!(error.contains("a.yml") && error.contains("steps[0].approvers"), "{error}");
}
