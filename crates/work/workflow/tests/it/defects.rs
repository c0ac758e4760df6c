//! Every defect of the engine this one is measured against, each as a test that it is not here.
//!
//! | the defect there | the test here |
//! |---|---|
//! | a chain of three with `dependsOn` is approved after step 1 | `a_chain_of_three_is_approved_after_the_third` |
//! | levels are ignored; approving the last completes all | `a_level_starts_when_the_one_below_is_settled` |
//! | of two parallel steps approving one approves all | `two_parallel_steps_both_have_to_be_approved` |
//! | an auto-approved level 1 is stuck for ever | `an_auto_approved_level_lets_the_next_start` |
//! | zero approvers: stuck, or "all of 0" is approved | `nobody_is_never_everybody` |
//! | one reject rejects despite a majority | `one_no_does_not_beat_a_majority` |
//! | delegation inflates the majority's denominator | `delegating_adds_no_voice` |
//! | bypass, reassign, release and hold work for anybody | `bypass_reassign_release_and_hold_need_a_right` |
//! | the requester may approve their own request | `the_requester_decides_nothing_about_their_own_request` |
//! | concurrent creates both succeed | `of_many_starts_about_one_entity_one_succeeds` (and race.rs on databases) |
//! | no instance lock in the database | `of_writers_from_one_revision_one_writes` (laws, on every store) |
//! | `business_days` are days | `business_days_are_working_days` |
//! | conditions read the metadata as the entity | `conditions_read_the_entity_and_never_the_metadata` |
//! | `forceApprove` does not advance | `forcing_a_step_goes_on_with_the_next` |
//! | recovery and administration live in memory | `parking_and_administration_survive_a_restart` |
//! | none of its tables exist | `the_shipped_schema_carries_a_whole_approval` |
//! | a decision does not check who decides | `only_who_is_asked_decides` |
//! | a decision uses no transaction | `a_decision_is_written_whole_or_not_at_all` |
//! | an unreachable quorum never closes | `a_quorum_out_of_reach_closes` |

use std::sync::Arc;

use runtime_workflow::definition::{Format, ProblemCode};
use runtime_workflow::{
    Action, Definition, Guard, How, Order, ParkReason, StartRequest, Status, StepStatus as S, What,
    WorkflowError,
};
use serde_json::json;

use super::desk::*;

const CHAIN: &str = "
code: order
entity_type: order
steps:
  - { id: a, approvers: [{ user: ann }] }
  - { id: b, approvers: [{ user: ben }], depends_on: [a] }
  - { id: c, approvers: [{ user: cem }], depends_on: [b] }
";

const LEVELS: &str = "
code: order
entity_type: order
steps:
  - { id: a, level: 1, approvers: [{ user: ann }] }
  - { id: b, level: 2, approvers: [{ user: ben }] }
";

#[tokio::test]
async fn a_chain_of_three_is_approved_after_the_third() {
    let desk = Desk::new(CHAIN).await;
    let id = desk.start(json!({})).await.id;
    stands(&desk.get(id).await, Status::InProgress, &[S::Active, S::Pending, S::Pending]);
    stands(&desk.approve("ann", id).await, Status::InProgress, &[S::Approved, S::Active, S::Pending]);
    stands(&desk.approve("ben", id).await, Status::InProgress, &[S::Approved, S::Approved, S::Active]);
    stands(&desk.approve("cem", id).await, Status::Approved, &[S::Approved; 3]);
}

#[tokio::test]
async fn a_level_starts_when_the_one_below_is_settled() {
    let desk = Desk::new(LEVELS).await;
    let id = desk.start(json!({})).await.id;
    assert!(matches!(desk.act("ben", id, approve()).await, Err(WorkflowError::NotAssigned(_))));
    stands(&desk.get(id).await, Status::InProgress, &[S::Active, S::Pending]);
    stands(&desk.approve("ann", id).await, Status::InProgress, &[S::Approved, S::Active]);
    stands(&desk.approve("ben", id).await, Status::Approved, &[S::Approved; 2]);
}

#[tokio::test]
async fn two_parallel_steps_both_have_to_be_approved() {
    let desk = Desk::new(&LEVELS.replace("level: 2", "level: 1")).await;
    for (first, second, after) in
        [("ann", "ben", [S::Approved, S::Active]), ("ben", "ann", [S::Active, S::Approved])]
    {
        let id = desk.start(json!({})).await.id;
        stands(&desk.approve(first, id).await, Status::InProgress, &after);
        stands(&desk.approve(second, id).await, Status::Approved, &[S::Approved; 2]);
    }
}

#[tokio::test]
async fn an_auto_approved_level_lets_the_next_start() {
    let auto = "auto_approve_when: { is: { field: amount, op: lt, value: 100 } }, approvers: [{ user: ann }]";
    let desk = Desk::new(&LEVELS.replace("approvers: [{ user: ann }]", auto)).await;
    let started = desk.start(amount(5)).await;
    stands(&started, Status::InProgress, &[S::Approved, S::Active]);
    assert_eq!(started.steps[0].settled, Some(How::Condition));
    stands(&desk.approve("ben", started.id).await, Status::Approved, &[S::Approved; 2]);
}

#[tokio::test]
async fn nobody_is_never_everybody() {
    let refused = Definition::parse(&one_step("all", "[]"), Format::Yaml).unwrap_err();
    let WorkflowError::Definition(problems) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (problems[0].path.as_str(), problems[0].code),
        ("steps[0].approvers", ProblemCode::NoApprovers)
    );

    for (rule, reason) in [
        ("[{ role: empty }]", ParkReason::GroupEmpty),
        ("[{ role: unheard_of }]", ParkReason::RoleMismatch),
        ("[{ role: only_rita }]", ParkReason::MissingApprover),
    ] {
        let desk = Desk::new(&one_step("all", rule)).await;
        let started = desk.start(json!({})).await;
        stands(&started, Status::Pending, &[S::Seating]);
        assert_eq!(started.steps[0].parked.as_ref().map(|parked| parked.reason), Some(reason));
        let mended = Order::AddApprover { step: "a".to_owned(), person: "ann".to_owned() };
        assert!(!desk.order(started.id, mended).await.unwrap().is_parked());
        stands(&desk.approve("ann", started.id).await, Status::Approved, &[S::Approved]);
    }
}

#[tokio::test]
async fn one_no_does_not_beat_a_majority() {
    let desk = Desk::new(&one_step("majority", "[{ role: board }]")).await;
    let id = desk.start(json!({})).await.id;
    stands(&desk.reject("ann", id).await, Status::InProgress, &[S::Active]);
    stands(&desk.approve("ben", id).await, Status::InProgress, &[S::Active]);
    stands(&desk.approve("cem", id).await, Status::Approved, &[S::Approved]);

    let id = desk.start(json!({})).await.id;
    desk.reject("ann", id).await;
    stands(&desk.reject("ben", id).await, Status::Rejected, &[S::Rejected]);
}

#[tokio::test]
async fn delegating_adds_no_voice() {
    let desk = Desk::new(&one_step("majority", "[{ role: board }]")).await;
    let id = desk.start(json!({})).await.id;
    for (from, to) in [("ann", "dora"), ("dora", "emil")] {
        let delegate = Action::Delegate { step: None, to: to.to_owned(), reason: None };
        desk.act(from, id, delegate).await.unwrap();
    }
    assert_eq!(desk.get(id).await.steps[0].live().count(), 3);
    let again = Action::Delegate { step: None, to: "cem".to_owned(), reason: None };
    assert!(matches!(desk.act("ben", id, again).await, Err(WorkflowError::AlreadyAsked(_))));
    desk.approve("emil", id).await;
    // Two of three, as it was before anybody delegated.
    stands(&desk.approve("ben", id).await, Status::Approved, &[S::Approved]);
    let told = desk.history(id).await;
    let on_behalf = What::DecisionApproved { seat: 1, on_behalf_of: Some("ann".to_owned()) };
    assert!(told.iter().any(|event| event.what == on_behalf && event.by.as_deref() == Some("emil")));
}

#[tokio::test]
async fn bypass_reassign_release_and_hold_need_a_right() {
    let desk = Desk::new(CHAIN).await;
    let id = desk.start(json!({})).await.id;
    let bypass = || Action::Bypass { step: "a".to_owned(), approve: true, reason: "urgent".to_owned() };
    let hold = || Action::Hold { reason: "wait".to_owned() };
    let reassign = || Order::Reassign { step: "a".to_owned(), from: "ann".to_owned(), to: "zoe".to_owned() };
    let w = &desk.workflows;
    let (nobody, once) = (person("acme", "nobody", &["orders:*"]), Guard::default());
    for outcome in [
        w.act(&nobody, id, bypass(), &once).await,
        w.act(&nobody, id, hold(), &once).await,
        w.order(&nobody, id, reassign(), "why not", &once).await,
        w.order(&nobody, id, Order::Hold {}, "why not", &once).await,
        // Even who is asked may not do what needs a grant.
        w.act(&person("acme", "ann", &[]), id, bypass(), &once).await,
        w.order(&person("acme", "ann", &[]), id, reassign(), "why not", &once).await,
        // Who is asked later is not asked now.
        w.act(&person("acme", "cem", &[]), id, hold(), &once).await,
    ] {
        let error = runtime_kernel::Error::from(outcome.unwrap_err());
        assert_eq!(error.kind(), runtime_kernel::ErrorKind::Forbidden, "{}", error.report());
    }
    assert_eq!(desk.get(id).await.revision, 2, "nothing has changed");
    desk.act("ann", id, hold()).await.unwrap();
    let released = w.act(&nobody, id, Action::Release {}, &once).await;
    assert!(matches!(released, Err(WorkflowError::NotGranted { .. })), "{released:?}");
    desk.act("ann", id, Action::Release {}).await.unwrap();
    let bypassed = w.act(&person("acme", "boss", &["workflow:bypass"]), id, bypass(), &once).await.unwrap();
    stands(&bypassed, Status::InProgress, &[S::Approved, S::Active, S::Pending]);
    assert_eq!(bypassed.steps[0].settled, Some(How::Bypass));
}

#[tokio::test]
async fn the_requester_decides_nothing_about_their_own_request() {
    let yaml = one_step("any", "[{ user: rita }, { user: ann }]");
    let desk = Desk::new(&yaml).await;
    let id = desk.start(json!({})).await.id;
    let rita = person("acme", "rita", &["workflow:*"]);
    assert!(matches!(desk.act("rita", id, approve()).await, Err(WorkflowError::NotAssigned(_))));
    let to_rita = Action::Delegate { step: None, to: "rita".to_owned(), reason: None };
    assert!(matches!(desk.act("ann", id, to_rita).await, Err(WorkflowError::SelfApproval)));
    // Neither with every grant there is.
    let once = Guard::default();
    let bypass = Action::Bypass { step: "a".to_owned(), approve: true, reason: "mine".to_owned() };
    let bypassed = desk.workflows.act(&rita, id, bypass, &once).await;
    assert!(matches!(bypassed, Err(WorkflowError::SelfApproval)), "{bypassed:?}");
    for order in [
        Order::ForceApprove { step: None },
        Order::SkipStep { step: "a".to_owned() },
        Order::AddApprover { step: "a".to_owned(), person: "friend".to_owned() },
    ] {
        let done = desk.workflows.order(&rita, id, order, "mine", &once).await;
        assert!(matches!(done, Err(WorkflowError::SelfApproval)), "{done:?}");
    }
    let add = Order::AddApprover { step: "a".to_owned(), person: "rita".to_owned() };
    assert!(matches!(desk.order(id, add).await, Err(WorkflowError::SelfApproval)));

    let granted = Desk::new(&format!("{yaml}grants: {{ requester_may_approve: true }}\n")).await;
    let id = granted.start(json!({})).await.id;
    stands(&granted.approve("rita", id).await, Status::Approved, &[S::Approved]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_starts_about_one_entity_one_succeeds() {
    let desk = Arc::new(Desk::new(CHAIN).await);
    let starts = (0..50).map(|_| {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let request = StartRequest::new("order", "e-1", json!({}));
            desk.workflows.start(&person("acme", "rita", &[]), request).await
        })
    });
    let mut started = Vec::new();
    let mut refused = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        match start.await.unwrap() {
            Ok(instance) => started.push(instance.id),
            Err(WorkflowError::ActiveInstance(other)) => refused.push(other),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((started.len(), refused.len()), (1, 49));
    assert!(refused.iter().all(|other| *other == started[0]));
    // Another tenant's entity of the same name is another entity, and one that has ended does not stand in the way.
    desk.act("rita", started[0], Action::Withdraw { reason: None }).await.unwrap();
    desk.start(json!({})).await;
}

#[tokio::test]
async fn business_days_are_working_days() {
    let yaml = format!(
        "{}    sla: {{ due: 3 business_days }}\ncalendar: {{ zone: UTC, holidays: [\"2026-01-06\"] }}\n",
        one_step("any", "[{ user: ann }]")
    );
    let desk = Desk::new(&yaml).await;
    // Thursday, midnight: work starts at nine. Friday and Monday count, Tuesday is free, Wednesday is the third.
    let due = desk.start(json!({})).await.steps[0].due_at.unwrap();
    assert_eq!(due.to_string(), "2026-01-07T09:00:00Z");
}

#[tokio::test]
async fn conditions_read_the_entity_and_never_the_metadata() {
    let skip = "auto_approve_when: { is: { field: amount, op: lt, value: 100 } }, approvers: [{ user: ann }]";
    let desk = Desk::new(&LEVELS.replace("approvers: [{ user: ann }]", skip)).await;
    let mut request = StartRequest::new("order", "e-1", amount(5000));
    request.metadata = amount(5);
    let started = desk.workflows.start(&person("acme", "rita", &[]), request).await.unwrap();
    stands(&started, Status::InProgress, &[S::Active, S::Pending]);

    let mut request = StartRequest::new("order", "e-2", json!({}));
    request.metadata = amount(5);
    let started = desk.workflows.start(&person("acme", "rita", &[]), request).await.unwrap();
    let parked = started.steps[0].parked.as_ref().unwrap();
    assert_eq!(parked.reason, ParkReason::ConditionError);
    assert!(parked.message.contains("the entity has no `amount`"), "{}", parked.message);
}

#[tokio::test]
async fn forcing_a_step_goes_on_with_the_next() {
    let desk = Desk::new(CHAIN).await;
    let id = desk.start(json!({})).await.id;
    let forced = desk.order(id, Order::ForceApprove { step: Some("a".to_owned()) }).await.unwrap();
    stands(&forced, Status::InProgress, &[S::Approved, S::Active, S::Pending]);
    assert_eq!(forced.steps[0].settled, Some(How::Admin));
    desk.approve("ben", id).await;
    stands(&desk.approve("cem", id).await, Status::Approved, &[S::Approved; 3]);
    let told = desk.history(id).await;
    let forced = told.iter().find(|event| event.what == What::Forced { approved: true }).unwrap();
    assert_eq!((forced.by.as_deref(), forced.reason.as_deref()), (Some("chief"), Some("because")));
}

#[tokio::test]
async fn only_who_is_asked_decides() {
    let desk = Desk::new(CHAIN).await;
    let id = desk.start(json!({})).await.id;
    for (who, action) in
        [("zoe", approve()), ("zoe", reject()), ("ben", approve_in("a")), ("ann", approve_in("b"))]
    {
        let refused = desk.act(who, id, action).await;
        assert!(matches!(refused, Err(WorkflowError::NotAssigned(_))), "{who}: {refused:?}");
    }
    let other = person("globex", "ann", &[]);
    let elsewhere = desk.workflows.act(&other, id, approve(), &Guard::default()).await;
    assert!(matches!(elsewhere, Err(WorkflowError::NotFound(_))), "{elsewhere:?}");
    desk.approve("ann", id).await;
    assert!(matches!(desk.act("ann", id, approve()).await, Err(WorkflowError::NotAssigned(_))));
}

#[tokio::test]
async fn a_quorum_out_of_reach_closes() {
    for (requirement, ends) in
        [("{ quorum: { count: 2 } }", 2), ("{ quorum: { percent: 60 } }", 2), ("all", 1), ("any", 3)]
    {
        let desk = Desk::new(&one_step(requirement, "[{ role: board }]")).await;
        let id = desk.start(json!({})).await.id;
        for (nth, who) in ["ann", "ben", "cem"].into_iter().take(ends).enumerate() {
            let after = desk.reject(who, id).await;
            assert_eq!(after.status.is_end(), nth + 1 == ends, "{requirement} after {who}");
        }
        stands(&desk.get(id).await, Status::Rejected, &[S::Rejected]);
    }
    // Fewer people than the quorum: parked with the reason as soon as they are known.
    let desk = Desk::new(&one_step("{ quorum: { count: 3 } }", "[{ group: finance }]")).await;
    let started = desk.start(json!({})).await;
    assert_eq!(started.steps[0].parked.as_ref().unwrap().reason, ParkReason::QuorumUnreachable);
}

#[cfg(feature = "sqlite")]
mod in_a_database {
    use super::*;
    use crate::it::stores::sqlite;
    use runtime_kernel::ManualClock;
    use runtime_workflow::SqlWorkflows;
    use runtime_workflow::store::InstanceFilter;

    #[tokio::test]
    async fn parking_and_administration_survive_a_restart() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let yaml = one_step("all", "[{ role: empty }]");
        let id = {
            let db = sqlite(&folder, clock.clone()).await;
            let desk = Desk::over(Arc::new(SqlWorkflows::new(db.clone())), clock.clone(), &yaml).await;
            let id = desk.start(json!({})).await.id;
            desk.order(id, Order::SetDeadline { step: None, due: desk.in_hours(9) }).await.unwrap();
            db.close().await;
            id
        };
        let db = sqlite(&folder, clock.clone()).await;
        let desk = Desk::over(Arc::new(SqlWorkflows::new(db)), clock, &yaml).await;
        let chief = person("acme", "chief", &["workflow:admin"]);
        let parked = InstanceFilter { parked: Some(true), ..InstanceFilter::default() };
        let parked = desk.workflows.list(&chief, parked).await.unwrap();
        assert_eq!(parked[0].steps[0].parked.as_ref().unwrap().reason, ParkReason::GroupEmpty);
        assert_eq!(parked[0].due_at, Some(desk.in_hours(9)));
        let told = desk.history(id).await;
        let ordered = told.iter().find(|event| matches!(event.what, What::DeadlineChanged { .. })).unwrap();
        assert_eq!((ordered.by.as_deref(), ordered.reason.as_deref()), (Some("chief"), Some("because")));
        let skip = desk.order(id, Order::SkipStep { step: "a".to_owned() }).await.unwrap();
        assert_eq!((skip.status, skip.steps[0].settled), (Status::Approved, Some(How::Admin)));
    }

    #[tokio::test]
    async fn a_decision_is_written_whole_or_not_at_all() {
        use runtime_db::sqlx;

        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let db = sqlite(&folder, clock.clone()).await;
        let desk = Desk::over(Arc::new(SqlWorkflows::new(db.clone())), clock, CHAIN).await;
        let started = desk.start(json!({})).await;
        // The last event of the decision is in the way, so its row cannot be written.
        let (id, in_the_way) = (started.id.to_string(), i64::try_from(started.events).unwrap() + 4);
        let sql = "INSERT INTO workflow_events (tenant, instance, number, at, data) VALUES ('main/acme', $1, $2, 0, '{}')";
        let pool = &db.sqlite().unwrap().write;
        sqlx::query(sql).bind(&id).bind(in_the_way).execute(pool).await.unwrap();
        let failed = desk.act("ann", started.id, approve()).await;
        assert!(matches!(failed, Err(WorkflowError::Db(_))), "{failed:?}");
        let sql = "DELETE FROM workflow_events WHERE data = '{}'";
        sqlx::query(sql).execute(pool).await.unwrap();
        assert_eq!(desk.get(started.id).await, started);
        assert_eq!(desk.history(started.id).await.len() as u64, started.events);
        assert_eq!(desk.workflows.inbox(&person("acme", "ann", &[]), 10).await.unwrap().len(), 1);
        desk.approve("ann", started.id).await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_schema_carries_a_whole_approval() {
    use runtime_kernel::ManualClock;
    use runtime_workflow::SqlWorkflows;

    let (db, _database) = super::stores::postgres().await;
    let desk = Desk::over(Arc::new(SqlWorkflows::new(db)), ManualClock::new(), CHAIN).await;
    let id = desk.start(json!({ "amount": 5 })).await.id;
    desk.act("ann", id, Action::Comment { text: "looking".to_owned() }).await.unwrap();
    desk.act("ann", id, Action::Hold { reason: "ask".to_owned() }).await.unwrap();
    desk.act("ann", id, Action::Release {}).await.unwrap();
    let delegate = Action::Delegate { step: None, to: "dora".to_owned(), reason: Some("away".to_owned()) };
    desk.act("ann", id, delegate).await.unwrap();
    desk.approve("dora", id).await;
    desk.order(id, Order::Reassign { step: "b".to_owned(), from: "ben".to_owned(), to: "emil".to_owned() })
        .await
        .unwrap();
    assert_eq!(desk.workflows.inbox(&person("acme", "emil", &[]), 10).await.unwrap().len(), 1);
    desk.approve("emil", id).await;
    stands(&desk.approve("cem", id).await, Status::Approved, &[S::Approved; 3]);
    let told = desk.history(id).await;
    assert!(told.iter().zip(1..).all(|(event, number)| event.number == number));
    assert_eq!(told.last().unwrap().what, What::Approved);
    assert!(desk.workflows.inbox(&person("acme", "cem", &[]), 10).await.unwrap().is_empty());
    desk.start(json!({})).await;
}
