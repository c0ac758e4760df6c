//! What participants do, beyond the defects: order, refusals, changes, comments.

use runtime_workflow::{Action, How, Status, StepStatus as S, What, WorkflowError};
use serde_json::json;

use super::desk::*;

#[tokio::test]
async fn a_sequential_step_asks_one_after_the_other() {
    let yaml =
        one_step("all", "[{ role: board }]").replace("requirement", "type: sequential\n    requirement");
    let desk = Desk::new(&yaml).await;
    let id = desk.start(json!({})).await.id;
    let asked = async |who| !desk.workflows.inbox(&person("acme", who, &[]), 9).await.unwrap().is_empty();
    for (now, later) in [("ann", Some("ben")), ("ben", Some("cem")), ("cem", None)] {
        assert!(asked(now).await);
        if let Some(later) = later {
            assert!(!asked(later).await);
            assert!(matches!(desk.act(later, id, approve()).await, Err(WorkflowError::NotYourTurn(_))));
        }
        desk.approve(now, id).await;
    }
    assert_eq!(desk.get(id).await.status, Status::Approved);
}

#[tokio::test]
async fn requirements_are_met_by_exactly_as_many_as_they_say() {
    for (requirement, needed) in [
        ("any", 1),
        ("all", 3),
        ("majority", 2),
        ("{ quorum: { count: 2 } }", 2),
        ("{ quorum: { percent: 34 } }", 2),
        ("{ quorum: { percent: 33 } }", 1),
        ("{ quorum: { percent: 100 } }", 3),
    ] {
        let desk = Desk::new(&one_step(requirement, "[{ role: board }, { user: ann }]")).await;
        let id = desk.start(json!({})).await.id;
        for (nth, who) in ["ann", "ben", "cem"].into_iter().take(needed).enumerate() {
            let after = desk.approve(who, id).await;
            assert_eq!(after.status == Status::Approved, nth + 1 == needed, "{requirement} after {who}");
        }
    }
}

#[tokio::test]
async fn a_conditional_step_runs_when_its_condition_holds() {
    let step = "{ id: big, type: conditional, when: { is: { field: amount, op: gt, value: 100 } }, approvers: [{ user: ben }] }";
    let yaml = format!(
        "code: order\nentity_type: order\nsteps:\n  - {step}\n  - {{ id: b, level: 2, approvers: [{{ user: ann }}], skip_when: {{ is: {{ field: amount, op: gt, value: 1000 }} }} }}\n"
    );
    for (value, expected) in [(5, [S::Skipped, S::Active]), (500, [S::Active, S::Pending])] {
        let desk = Desk::new(&yaml).await;
        stands(&desk.start(amount(value)).await, Status::InProgress, &expected);
    }
    let desk = Desk::new(&yaml).await;
    let id = desk.start(amount(5000)).await.id;
    stands(&desk.approve("ben", id).await, Status::Approved, &[S::Approved, S::Skipped]);
}

#[tokio::test]
async fn changes_void_what_was_decided_and_start_afresh_on_the_new_data() {
    let yaml = "
code: order
entity_type: order
steps:
  - { id: a, approvers: [{ user: ann }] }
  - { id: b, level: 2, approvers: [{ field: manager }], sla: { due: 5 hours } }
";
    let desk = Desk::new(yaml).await;
    let id = desk.start(json!({ "manager": "ben" })).await.id;
    desk.approve("ann", id).await;
    let changes = Action::RequestChanges { step: None, reason: "the price".to_owned() };
    let asked = desk.act("ben", id, changes).await.unwrap();
    assert_eq!((asked.status, asked.next_at()), (Status::ChangesRequested, None));
    let resubmit = || Action::Resubmit { entity: json!({ "manager": "cem" }) };
    for (who, action) in
        [("ann", resubmit()), ("ben", approve()), ("ben", Action::Hold { reason: "x".to_owned() })]
    {
        assert!(desk.act(who, id, action).await.is_err());
    }
    let again = desk.act("rita", id, resubmit()).await.unwrap();
    stands(&again, Status::InProgress, &[S::Active, S::Pending]);
    desk.approve("ann", id).await;
    assert!(matches!(desk.act("ben", id, approve()).await, Err(WorkflowError::NotAssigned(_))));
    stands(&desk.approve("cem", id).await, Status::Approved, &[S::Approved; 2]);
    assert!(desk.act("rita", id, resubmit()).await.is_err());
}

#[tokio::test]
async fn only_the_requester_withdraws_and_an_end_is_an_end() {
    let desk = Desk::new(&one_step("any", "[{ user: ann }]")).await;
    let id = desk.start(json!({})).await.id;
    let withdraw = || Action::Withdraw { reason: Some("no longer needed".to_owned()) };
    assert!(matches!(desk.act("ann", id, withdraw()).await, Err(WorkflowError::NotRequester)));
    stands(&desk.act("rita", id, withdraw()).await.unwrap(), Status::Withdrawn, &[S::Cancelled]);
    for action in
        [approve(), reject(), withdraw(), Action::Release {}, Action::Comment { text: "x".to_owned() }]
    {
        let refused = desk.act("ann", id, action).await;
        assert!(matches!(refused, Err(WorkflowError::Ended(Status::Withdrawn))), "{refused:?}");
    }
    assert!(matches!(desk.order(id, runtime_workflow::Order::Cancel {}).await, Err(WorkflowError::Ended(_))));
}

#[tokio::test]
async fn who_is_asked_in_several_steps_names_one() {
    let yaml = "
code: order
entity_type: order
steps:
  - { id: a, approvers: [{ user: ann }] }
  - { id: b, approvers: [{ user: ann }] }
";
    let desk = Desk::new(yaml).await;
    let id = desk.start(json!({})).await.id;
    let Err(WorkflowError::WhichStep(steps)) = desk.act("ann", id, approve()).await else { panic!() };
    assert_eq!(steps, ["a", "b"]);
    assert!(matches!(desk.act("ann", id, approve_in("zz")).await, Err(WorkflowError::NoStep(_))));
    desk.act("ann", id, approve_in("b")).await.unwrap();
    stands(&desk.approve("ann", id).await, Status::Approved, &[S::Approved; 2]);
}

#[tokio::test]
async fn a_decision_is_passed_on_five_times_at_most() {
    let desk = Desk::new(&one_step("any", "[{ user: d0 }]")).await;
    let id = desk.start(json!({})).await.id;
    for hop in 0..6 {
        let to = format!("d{}", hop + 1);
        let passed =
            desk.act(&format!("d{hop}"), id, Action::Delegate { step: None, to, reason: None }).await;
        assert_eq!(passed.is_ok(), hop < 5, "{passed:?}");
    }
}

#[tokio::test]
async fn reasons_are_needed_where_somebody_will_ask_why_and_are_bounded() {
    let desk = Desk::new(&one_step("any", "[{ user: ann }]")).await;
    let id = desk.start(json!({})).await.id;
    let reason = || " ".to_owned();
    for action in [
        Action::Reject { step: None, reason: reason() },
        Action::RequestChanges { step: None, reason: reason() },
        Action::Hold { reason: reason() },
        Action::Comment { text: reason() },
        Action::Escalate { step: "a".to_owned(), reason: reason() },
    ] {
        let refused = desk.act("ann", id, action).await;
        assert!(matches!(refused, Err(WorkflowError::Invalid { .. })), "{refused:?}");
    }
    let long = Action::Approve { step: None, comment: Some("x".repeat(5000)) };
    assert!(matches!(desk.act("ann", id, long).await, Err(WorkflowError::TooLarge { .. })));
    let comment = Action::Comment { text: "hm".to_owned() };
    assert!(matches!(desk.act("zoe", id, comment).await, Err(WorkflowError::NotAssigned(_))));
    let said = Action::Approve { step: None, comment: Some("fine".to_owned()) };
    desk.act("ann", id, said).await.unwrap();
    let told = desk.history(id).await;
    let decided = told.iter().find(|event| matches!(event.what, What::DecisionApproved { .. })).unwrap();
    assert_eq!((decided.by.as_deref(), decided.reason.as_deref()), (Some("ann"), Some("fine")));
}

#[tokio::test]
async fn a_definition_says_what_may_be_done() {
    let yaml = format!("{}allowed_actions: [approve, reject]\n", one_step("any", "[{ user: ann }]"));
    let desk = Desk::new(&yaml).await;
    let id = desk.start(json!({})).await.id;
    for action in [
        Action::Hold { reason: "x".to_owned() },
        Action::Delegate { step: None, to: "ben".to_owned(), reason: None },
        Action::Comment { text: "x".to_owned() },
    ] {
        let refused = desk.act("ann", id, action).await;
        assert!(matches!(refused, Err(WorkflowError::NotAllowed { .. })), "{refused:?}");
    }
    stands(&desk.approve("ann", id).await, Status::Approved, &[S::Approved]);
}

#[tokio::test]
async fn the_fallback_is_asked_when_nobody_else_may_decide() {
    for (approvers, holder) in [
        ("[{ role: empty }]", "cfo"),
        ("[{ role: only_rita }]", "cfo"),
        ("[{ role: empty }, { user: ann }]", "ann"),
        ("[{ group: finance }]", "fay"),
    ] {
        let yaml = format!("{}    fallback: [{{ user: cfo }}]\n", one_step("any", approvers));
        let desk = Desk::new(&yaml).await;
        let started = desk.start(json!({})).await;
        assert_eq!(started.steps[0].seats[0].holder, holder, "{approvers}");
    }
}

#[tokio::test]
async fn nothing_left_to_decide_is_said_to_have_been_so() {
    let yaml = one_step("any", "[{ user: ann }]")
        + "    auto_approve_when: { is: { field: amount, op: lt, value: 10 } }\n";
    let desk = Desk::new(&yaml).await;
    let started = desk.start(amount(5)).await;
    stands(&started, Status::Approved, &[S::Approved]);
    assert_eq!(started.steps[0].settled, Some(How::Condition));
    // It has ended, so it stands in nobody's way.
    desk.start(amount(50)).await;
}
