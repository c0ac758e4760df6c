//! What callers meet: repeated and stale requests, what others may see, the inbox, limits, the wire.

use std::sync::{Arc, Mutex};

use runtime_kernel::{Clock, Context, ErrorKind, ManualClock, Source};
use runtime_workflow::store::InstanceFilter;
use runtime_workflow::{
    ActRequest, Action, Guard, MemoryWorkflows, Order, OrderRequest, Priority, StartRequest, Status,
    WorkflowConfig, WorkflowError, Workflows,
};
use serde_json::json;

use super::desk::*;

#[tokio::test]
async fn an_action_is_done_once_however_often_it_is_asked_for() {
    let desk = Desk::new(&one_step("majority", "[{ role: board }]")).await;
    let id = desk.start(json!({})).await.id;
    let (w, ann) = (&desk.workflows, person("acme", "ann", &[]));
    let once = Guard::once("a-1");
    let first = w.act(&ann, id, approve(), &once).await.unwrap();
    let again = w.act(&ann, id, approve(), &once).await.unwrap();
    assert_eq!(first, again);
    for (who, action) in [("ann", reject()), ("ben", approve())] {
        let reused = w.act(&person("acme", who, &[]), id, action, &once).await;
        assert!(matches!(reused, Err(WorkflowError::ActionReused)), "{reused:?}");
    }
    let chief = person("acme", "chief", &["workflow:admin"]);
    let skip = || Order::SkipStep { step: "a".to_owned() };
    let skipped = w.order(&chief, id, skip(), "x", &Guard::once("o-1")).await.unwrap();
    // It has ended since, and still the answer is that it was done.
    assert_eq!(w.order(&chief, id, skip(), "x", &Guard::once("o-1")).await.unwrap(), skipped);
    assert_eq!(w.act(&ann, id, approve(), &once).await.unwrap().status, Status::Approved);
}

#[tokio::test]
async fn what_was_seen_must_still_be_so_when_the_caller_says_so() {
    let desk = Desk::new(&one_step("majority", "[{ role: board }]")).await;
    let seen = desk.start(json!({})).await;
    desk.approve("ann", seen.id).await;
    let guard = Guard { action_id: None, revision: Some(seen.revision) };
    let stale =
        desk.workflows.act(&person("acme", "ben", &[]), seen.id, approve(), &guard).await.unwrap_err();
    assert!(matches!(stale, WorkflowError::Revision { expected: 2, found: 3 }), "{stale:?}");
    assert_eq!(runtime_kernel::Error::from(stale).kind(), ErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn who_has_nothing_to_do_with_it_does_not_learn_of_it() {
    let desk = Desk::new(&one_step("any", "[{ user: ann }, { user: ben }]")).await;
    let id = desk.start(json!({ "secret": 1 })).await.id;
    let w = &desk.workflows;
    let delegate = Action::Delegate { step: None, to: "dora".to_owned(), reason: None };
    desk.act("ann", id, delegate).await.unwrap();
    for (context, sees) in [
        (person("acme", "rita", &[]), true),
        (person("acme", "ann", &[]), true),
        (person("acme", "dora", &[]), true),
        (person("acme", "ben", &[]), true),
        (person("acme", "auditor", &["workflow:read"]), true),
        (person("acme", "zoe", &["orders:*"]), false),
        (person("globex", "rita", &["workflow:*"]), false),
    ] {
        assert_eq!(w.get(&context, id).await.is_ok(), sees, "{context:?}");
        assert_eq!(w.history(&context, id, 0, 9).await.is_ok(), sees);
        if !sees {
            assert!(matches!(w.get(&context, id).await, Err(WorkflowError::NotFound(_))));
        }
    }
    assert_eq!(w.list(&person("acme", "ann", &[]), InstanceFilter::default()).await.unwrap().len(), 0);
    assert_eq!(w.list(&person("acme", "rita", &[]), InstanceFilter::default()).await.unwrap().len(), 1);
    assert_eq!(
        w.list(&person("acme", "auditor", &["workflow:read"]), InstanceFilter::default())
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(w.work_queue(&person("acme", "ann", &[]), 9).await.is_err());
    let nobody = Context::new(Source::Http, &desk.clock);
    assert!(matches!(w.inbox(&nobody, 9).await, Err(WorkflowError::NobodyActs)));
    assert!(matches!(w.act(&nobody, id, approve(), &Guard::default()).await, Err(WorkflowError::NobodyActs)));
}

#[tokio::test]
async fn the_inbox_shows_the_most_urgent_first() {
    let desk = Desk::new(&(one_step("any", "[{ user: ann }]") + "    sla: { due: 10 hours }\n")).await;
    let start = async |entity: &str, priority| {
        let request = StartRequest { priority, ..StartRequest::new("order", entity, json!({})) };
        desk.workflows.start(&person("acme", "rita", &[]), request).await.unwrap().id
    };
    start("late", Priority::Low).await;
    desk.clock.advance(std::time::Duration::from_hours(2));
    start("soon", Priority::Normal).await;
    desk.clock.advance(std::time::Duration::from_hours(8));
    start("high", Priority::High).await;
    start("urgent", Priority::Urgent).await;
    let passed = start("passed on", Priority::Normal).await;
    for (from, to) in [("ann", "ben"), ("ben", "ann")] {
        let delegate = Action::Delegate { step: None, to: to.to_owned(), reason: None };
        desk.act(from, passed, delegate).await.unwrap();
    }
    let inbox = desk.workflows.inbox(&person("acme", "ann", &[]), 10).await.unwrap();
    let order: Vec<_> = inbox.iter().map(|item| (item.task.entity_id.as_str(), item.urgency)).collect();
    assert_eq!(order, [("late", 100), ("urgent", 60), ("soon", 50), ("high", 30), ("passed on", 20)]);
    let overdue: Vec<_> = inbox.iter().filter(|item| item.overdue).map(|item| &item.task.entity_id).collect();
    assert_eq!(overdue, ["late"]);
    assert_eq!(inbox[0].due_at(), desk.clock.utc().into());
    assert_eq!(desk.workflows.inbox(&person("acme", "ann", &[]), 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn starting_is_bounded_and_for_oneself() {
    let desk = Desk::new(&one_step("any", "[{ user: ann }]")).await;
    let start = async |who: &str, scopes: &[&str], request: StartRequest| {
        desk.workflows.start(&person("acme", who, scopes), request).await
    };
    let request = |entity: &str| StartRequest::new("order", entity, json!({}));
    let large = StartRequest { entity: json!("x".repeat(300 << 10)), ..request("e") };
    assert!(matches!(start("rita", &[], large).await, Err(WorkflowError::TooLarge { what: "entity", .. })));
    assert!(matches!(
        start("rita", &[], request(" ")).await,
        Err(WorkflowError::Invalid { field: "entity_id", .. })
    ));
    let unknown = StartRequest::new("unheard_of", "e", json!({}));
    assert!(matches!(start("rita", &[], unknown).await, Err(WorkflowError::NoDefinition(_))));
    let neither = StartRequest { definition: None, ..request("e") };
    assert!(matches!(
        start("rita", &[], neither).await,
        Err(WorkflowError::Invalid { field: "entity_type", .. })
    ));
    let for_rita = || StartRequest { requester: Some("rita".to_owned()), ..request("e") };
    assert!(matches!(start("zoe", &[], for_rita()).await, Err(WorkflowError::NotGranted { .. })));
    assert_eq!(start("desk", &["workflow:admin"], for_rita()).await.unwrap().requester, "rita");
}

#[tokio::test]
async fn hooks_are_told_of_each_change_after_it_is_written() {
    let clock = ManualClock::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let store = Arc::new(MemoryWorkflows::new(Arc::new(clock.clone())));
    let desk = Desk::over(store.clone(), clock.clone(), &one_step("any", "[{ user: ann }]")).await;
    let workflows = Workflows::new(store, Arc::new(people()), WorkflowConfig::default(), Arc::new(clock))
        .hook(move |instance, events| seen.lock().unwrap().push((instance.revision, events.len())));
    let rita = person("acme", "rita", &[]);
    let id = workflows.start(&rita, StartRequest::new("order", "e", json!({}))).await.unwrap().id;
    let _ = workflows.act(&rita, id, approve(), &Guard::default()).await.unwrap_err();
    workflows.act(&person("acme", "ann", &[]), id, approve(), &Guard::default()).await.unwrap();
    let events = desk.history(id).await.len();
    let told = told.lock().unwrap();
    assert_eq!(told.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(told.iter().map(|(_, events)| events).sum::<usize>(), events);
}

#[test]
fn requests_are_read_as_an_api_sends_them() {
    let read = |value| serde_json::from_value::<ActRequest>(value);
    let request =
        read(json!({ "action": "reject", "reason": "no", "action_id": "x", "revision": 4 })).unwrap();
    assert_eq!(request.action, Action::Reject { step: None, reason: "no".to_owned() });
    assert_eq!(request.guard, Guard { action_id: Some("x".to_owned()), revision: Some(4) });
    assert_eq!(read(json!({ "action": "release" })).unwrap().action, Action::Release {});
    for wrong in [
        json!({ "action": "reject" }),
        json!({ "action": "dance" }),
        json!({ "reason": "no" }),
        json!({ "action": "approve", "stp": "a" }),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
    let order = json!({ "order": "skip_step", "step": "a", "reason": "x" });
    let order = serde_json::from_value::<OrderRequest>(order).unwrap();
    assert_eq!((order.order, order.reason.as_str()), (Order::SkipStep { step: "a".to_owned() }, "x"));
    let start =
        serde_json::from_value::<StartRequest>(json!({ "entity_id": "e", "entity_type": "order" })).unwrap();
    assert_eq!((start.priority, start.definition), (Priority::Normal, None));
    assert!(serde_json::from_value::<StartRequest>(json!({ "entity_id": "e", "tenant": "x" })).is_err());
}
