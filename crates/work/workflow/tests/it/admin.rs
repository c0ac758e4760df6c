//! What administrators order: it is done, it is recorded, and it mends what is parked.

use runtime_workflow::store::InstanceFilter;
use runtime_workflow::{Guard, How, Order, ParkReason, Status, StepStatus as S, What, WorkflowError};
use serde_json::json;

use super::desk::*;

const TWO: &str = "
code: order
entity_type: order
steps:
  - { id: a, requirement: all, approvers: [{ user: ann }, { user: ben }] }
  - { id: b, level: 2, approvers: [{ user: cem }] }
";

fn step() -> String {
    "a".to_owned()
}

#[tokio::test]
async fn each_order_is_done_and_recorded_with_who_and_why() {
    let zoe = || "zoe".to_owned();
    for (order, status, steps, event) in [
        (Order::ForceApprove { step: None }, Status::Approved, [S::Approved, S::Approved], "forced"),
        (Order::ForceApprove { step: Some(step()) }, Status::InProgress, [S::Approved, S::Active], "forced"),
        (Order::ForceReject { step: None }, Status::Rejected, [S::Cancelled, S::Cancelled], "forced"),
        (Order::ForceReject { step: Some(step()) }, Status::Rejected, [S::Rejected, S::Cancelled], "forced"),
        (
            Order::Reassign { step: step(), from: "ann".to_owned(), to: zoe() },
            Status::InProgress,
            [S::Active, S::Pending],
            "reassigned",
        ),
        (
            Order::AddApprover { step: step(), person: zoe() },
            Status::InProgress,
            [S::Active, S::Pending],
            "approver_added",
        ),
        (
            Order::RemoveApprover { step: step(), person: "ann".to_owned() },
            Status::InProgress,
            [S::Active, S::Pending],
            "approver_removed",
        ),
        (Order::SkipStep { step: step() }, Status::InProgress, [S::Skipped, S::Active], "skip_ordered"),
        (Order::Cancel {}, Status::Cancelled, [S::Cancelled, S::Cancelled], "cancelled"),
        (Order::Hold {}, Status::OnHold, [S::Active, S::Pending], "held"),
        (Order::RestartFrom { step: step() }, Status::InProgress, [S::Active, S::Pending], "step_restarted"),
    ] {
        let desk = Desk::new(TWO).await;
        let id = desk.start(json!({})).await.id;
        let denied = person("acme", "ann", &["workflow:bypass", "workflow:define"]);
        let refused = desk.workflows.order(&denied, id, order.clone(), "x", &Guard::default()).await;
        assert!(matches!(refused, Err(WorkflowError::NotGranted { .. })), "{refused:?}");
        let chief = person("acme", "chief", &["workflow:admin"]);
        let silent = desk.workflows.order(&chief, id, order.clone(), "  ", &Guard::default()).await;
        assert!(matches!(silent, Err(WorkflowError::Invalid { field: "reason", .. })), "{silent:?}");
        stands(&desk.order(id, order.clone()).await.unwrap(), status, &steps);
        let told = desk.history(id).await;
        let event = told.iter().find(|e| serde_json::to_value(e).unwrap()["event"] == event).unwrap();
        if event.what != What::StepRestarted {
            assert_eq!(
                (event.by.as_deref(), event.reason.as_deref()),
                (Some("chief"), Some("because")),
                "{order:?}"
            );
        }
    }
}

#[tokio::test]
async fn restarting_a_step_restarts_all_that_wait_for_it() {
    let desk = Desk::new(TWO).await;
    let id = desk.start(json!({})).await.id;
    desk.approve("ann", id).await;
    desk.approve("ben", id).await;
    stands(&desk.get(id).await, Status::InProgress, &[S::Approved, S::Active]);
    let again = desk.order(id, Order::RestartFrom { step: step() }).await.unwrap();
    stands(&again, Status::InProgress, &[S::Active, S::Pending]);
    assert!(matches!(desk.act("cem", id, approve()).await, Err(WorkflowError::NotAssigned(_))));
    desk.approve("ann", id).await;
    desk.approve("ben", id).await;
    stands(&desk.approve("cem", id).await, Status::Approved, &[S::Approved; 2]);
}

#[tokio::test]
async fn somebody_who_is_gone_parks_the_step_until_their_seat_is_given_away() {
    let desk = Desk::new(TWO).await;
    let id = desk.start(json!({})).await.id;
    let gone = || Order::Deactivated { person: "ann".to_owned() };
    let parked = desk.order(id, gone()).await.unwrap();
    assert_eq!(parked.steps[0].parked.as_ref().unwrap().reason, ParkReason::DeactivatedUser);
    desk.approve("ben", id).await;
    let chief = person("acme", "chief", &["workflow:read"]);
    let filter = InstanceFilter { parked: Some(true), ..InstanceFilter::default() };
    assert_eq!(desk.workflows.list(&chief, filter.clone()).await.unwrap().len(), 1);
    let zoe = Order::Reassign { step: step(), from: "ann".to_owned(), to: "zoe".to_owned() };
    assert!(!desk.order(id, zoe).await.unwrap().is_parked());
    assert!(desk.workflows.list(&chief, filter).await.unwrap().is_empty());
    stands(&desk.approve("zoe", id).await, Status::InProgress, &[S::Approved, S::Active]);
    assert!(matches!(desk.order(id, gone()).await, Err(WorkflowError::NotAssigned(_))));
}

#[tokio::test]
async fn removing_everybody_parks_the_step_and_adding_somebody_mends_it() {
    let desk = Desk::new(TWO).await;
    let id = desk.start(json!({})).await.id;
    let remove = |person: &str| Order::RemoveApprover { step: step(), person: person.to_owned() };
    desk.order(id, remove("ann")).await.unwrap();
    let empty = desk.order(id, remove("ben")).await.unwrap();
    stands(&empty, Status::InProgress, &[S::Active, S::Pending]);
    assert_eq!(empty.steps[0].parked.as_ref().unwrap().reason, ParkReason::MissingApprover);
    let add = Order::AddApprover { step: step(), person: "zoe".to_owned() };
    assert!(!desk.order(id, add).await.unwrap().is_parked());
    stands(&desk.approve("zoe", id).await, Status::InProgress, &[S::Approved, S::Active]);
}

#[tokio::test]
async fn a_condition_that_cannot_be_answered_is_parked_and_skipped_or_answered() {
    let step =
        one_step("any", "[{ user: ann }]") + "    skip_when: { is: { field: amount, op: lt, value: 9 } }\n";
    let desk = Desk::new(&step).await;
    let id = desk.start(json!({ "amount": "5" })).await.id;
    let parked = desk.get(id).await;
    let why = parked.steps[0].parked.as_ref().unwrap();
    assert_eq!(why.reason, ParkReason::ConditionError);
    assert!(why.message.contains("`amount` is a text"), "{}", why.message);
    let retried = desk.order(id, Order::Retry { step: "a".to_owned() }).await.unwrap();
    assert!(retried.is_parked(), "the entity has not changed");
    let skipped = desk.order(id, Order::SkipStep { step: "a".to_owned() }).await.unwrap();
    assert_eq!((skipped.status, skipped.steps[0].settled), (Status::Approved, Some(How::Admin)));
}

#[tokio::test]
async fn the_definition_may_name_its_own_administrators() {
    let desk = Desk::new(&format!("{TWO}grants: {{ admin: [olga], bypass: [bob] }}\n")).await;
    let id = desk.start(json!({})).await.id;
    let once = Guard::default();
    let olga = person("acme", "olga", &[]);
    desk.workflows.order(&olga, id, Order::SkipStep { step: step() }, "away", &once).await.unwrap();
    assert_eq!(desk.workflows.get(&olga, id).await.unwrap().id, id);
    let bypass =
        runtime_workflow::Action::Bypass { step: "b".to_owned(), approve: false, reason: "no".to_owned() };
    stands(&desk.act("bob", id, bypass).await.unwrap(), Status::Rejected, &[S::Skipped, S::Rejected]);
}
