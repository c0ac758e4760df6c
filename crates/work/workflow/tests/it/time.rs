//! What happens by itself: each thing once, however many look; and not while the clock is stopped.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::Clock;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use runtime_kernel::{ManualClock, SystemClock};
use runtime_workflow::store::VersionFilter;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use runtime_workflow::store::WorkflowStore;
use runtime_workflow::{
    Action, ApproverError, Approvers, Event, How, Instance, MemoryWorkflows, Order, ParkReason, StartRequest,
    Status, StepStatus as S, What, WorkflowConfig, WorkflowError, Workflows, keep_time,
};
use serde_json::json;

use super::desk::*;

const HOUR: Duration = Duration::from_hours(1);

fn with_sla(sla: &str) -> String {
    format!("{}    sla: {sla}\n", one_step("all", "[{ user: ann }, { user: ben }]"))
}

fn kinds(events: &[Event], after: u64) -> Vec<String> {
    let new = events.iter().filter(|event| event.number > after);
    new.map(|event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn warning_reminders_breach_escalation_and_expiry_come_in_their_order_and_once() {
    let desk = Desk::new(&with_sla(
        "{ due: 10 hours, reminders: [{ after: 2 hours, repeat: { every: 3 hours, times: 1 } }],
           escalations: [{ after: 1 hour, action: { notify: [{ role: board }] } }], expires_after: 4 hours }",
    ))
    .await;
    let id = desk.start(json!({})).await.id;
    let mut seen = desk.get(id).await.events;
    for (hour, expected) in [
        (1, vec![]),
        (2, vec!["reminded"]),
        (5, vec!["reminded"]),
        (8, vec!["sla_warning"]),
        (10, vec!["sla_breached"]),
        (11, vec!["escalation_notified"]),
        (14, vec!["step_expired", "expired"]),
        (99, vec![]),
    ] {
        let now = (desk.clock.utc().as_microsecond() - desk.get(id).await.started_at.as_microsecond())
            / 3_600_000_000;
        desk.wait(HOUR * u32::try_from(hour - now).unwrap()).await;
        assert_eq!(desk.workflows.run_due().await.unwrap(), 0, "nothing is left to be done twice");
        let told = desk.history(id).await;
        assert_eq!(kinds(&told, seen), expected, "after {hour} hours");
        seen = told.len() as u64;
    }
    stands(&desk.get(id).await, Status::Expired, &[S::Expired]);
    let told = desk.history(id).await;
    let reminded: Vec<_> = told
        .iter()
        .filter_map(|e| if let What::Reminded { people } = &e.what { Some(people) } else { None })
        .collect();
    assert_eq!(reminded, [&["ann", "ben"], &["ann", "ben"]]);
}

#[tokio::test]
async fn turns_that_passed_while_nothing_ran_are_made_up_for_by_one() {
    let desk = Desk::new(&with_sla(
        "{ due: 100 hours, reminders: [{ after: 1 hour, repeat: { every: 1 hour, times: 50 } }] }",
    ))
    .await;
    let id = desk.start(json!({})).await.id;
    desk.wait(HOUR * 20 + HOUR / 2).await;
    let reminded = |events: &[Event]| count(events, |what| matches!(what, What::Reminded { .. }));
    assert_eq!(reminded(&desk.history(id).await), 1);
    desk.wait(HOUR / 2).await;
    assert_eq!(reminded(&desk.history(id).await), 2, "the rhythm is kept");
    desk.wait(HOUR * 70).await;
    desk.wait(HOUR * 5).await;
    assert_eq!(reminded(&desk.history(id).await), 3, "fifty repeats have passed");
}

#[tokio::test]
async fn holding_moves_everything_that_was_due_by_the_time_held() {
    let desk = Desk::new(&with_sla("{ due: 10 hours, expires_after: 2 hours }")).await;
    let started = desk.start(json!({})).await;
    let id = started.id;
    desk.wait(HOUR * 7).await;
    desk.act("ann", id, Action::Hold { reason: "holiday".to_owned() }).await.unwrap();
    assert!(desk.workflows.inbox(&person("acme", "ann", &[]), 9).await.unwrap().is_empty());
    assert_eq!(desk.wait(HOUR * 30).await, 0, "the clock is stopped");
    let released = desk.act("ann", id, Action::Release {}).await.unwrap();
    let later = |at: Option<runtime_kernel::Timestamp>| at.unwrap().checked_add(HOUR * 30).ok();
    assert_eq!(released.steps[0].due_at, later(started.steps[0].due_at));
    assert_eq!(released.steps[0].warn_at, later(started.steps[0].warn_at));
    assert_eq!(desk.wait(Duration::from_secs(3599)).await, 0);
    assert_eq!(desk.wait(Duration::from_secs(1)).await, 1);
    assert_eq!(kinds(&desk.history(id).await, released.events), ["sla_warning"]);
    desk.wait(HOUR * 2).await;
    desk.wait(HOUR * 2).await;
    assert_eq!(desk.get(id).await.status, Status::Expired);
}

#[tokio::test]
async fn escalations_reassign_add_approve_and_reject() {
    let escalated = async |action: &str| {
        let sla = format!("{{ due: 1 hour, escalations: [{{ after: 0 hours, action: {action} }}] }}");
        let desk = Desk::new(&with_sla(&sla)).await;
        let id = desk.start(json!({})).await.id;
        desk.approve("ann", id).await;
        desk.wait(HOUR).await;
        (desk.get(id).await, desk)
    };
    let live =
        |instance: &Instance| instance.steps[0].live().map(|seat| seat.holder.clone()).collect::<Vec<_>>();
    let (reassigned, desk) = escalated("{ reassign: [{ user: boss }] }").await;
    assert_eq!(live(&reassigned), ["ann", "boss"]);
    let inbox = desk.workflows.inbox(&person("acme", "boss", &[]), 9).await.unwrap();
    assert_eq!((inbox[0].urgency, inbox[0].overdue), (140, true));
    stands(&desk.approve("boss", reassigned.id).await, Status::Approved, &[S::Approved]);

    let (added, desk) = escalated("{ add_approver: [{ user: boss }, { user: ann }] }").await;
    assert_eq!(live(&added), ["ann", "ben", "boss"]);
    stands(&desk.approve("boss", added.id).await, Status::InProgress, &[S::Active]);
    stands(&desk.approve("ben", added.id).await, Status::Approved, &[S::Approved]);

    let (approved, _) = escalated("auto_approve").await;
    assert_eq!((approved.status, approved.steps[0].settled), (Status::Approved, Some(How::Escalation)));
    let (rejected, _) = escalated("auto_reject").await;
    assert_eq!((rejected.status, rejected.steps[0].settled), (Status::Rejected, Some(How::Escalation)));

    // Who has said yes is no new voice, and does not decide alone by others being dropped.
    let (same, desk) = escalated("{ reassign: [{ user: ann }] }").await;
    assert_eq!((live(&same), same.status), (vec!["ann".to_owned(), "ben".to_owned()], Status::InProgress));
    assert_eq!(same.steps[0].parked.as_ref().unwrap().reason, ParkReason::EscalationFailed);
    stands(&desk.approve("ben", same.id).await, Status::Approved, &[S::Approved]);

    // Only the requester is found: those who are asked stay asked, and somebody is told.
    let (failed, _) = escalated("{ reassign: [{ role: only_rita }] }").await;
    assert_eq!(live(&failed), ["ann", "ben"]);
    assert_eq!(failed.steps[0].parked.as_ref().unwrap().reason, ParkReason::EscalationFailed);
}

#[tokio::test]
async fn an_escalation_can_be_asked_for_before_its_time_but_never_one_that_decides() {
    let desk = Desk::new(&with_sla(
        "{ due: 50 hours, escalations: [{ after: 0 hours, action: auto_approve },
           { after: 1 hour, action: { reassign: [{ user: boss }] } }, { after: 2 hours, action: { notify: [{ user: boss }] } }] }",
    ))
    .await;
    let id = desk.start(json!({})).await.id;
    let escalate = || Action::Escalate { step: "a".to_owned(), reason: "nobody answers".to_owned() };
    assert!(matches!(desk.act("zoe", id, escalate()).await, Err(WorkflowError::NotAssigned(_))));
    // The requester has people told, and has nobody replaced.
    let told = desk.act("rita", id, escalate()).await.unwrap();
    assert_eq!(told.steps[0].live().count(), 2);
    assert_eq!(count(&desk.history(id).await, |what| matches!(what, What::EscalationNotified { .. })), 1);
    assert!(matches!(desk.act("rita", id, escalate()).await, Err(WorkflowError::NotAllowed { .. })));
    let escalated = desk.act("ann", id, escalate()).await.unwrap();
    assert_eq!(escalated.steps[0].live().map(|seat| seat.holder.as_str()).collect::<Vec<_>>(), ["boss"]);
    assert!(matches!(desk.act("boss", id, escalate()).await, Err(WorkflowError::NotAllowed { .. })));
    desk.wait(HOUR * 50).await;
    assert_eq!(desk.get(id).await.steps[0].settled, Some(How::Escalation));
}

#[tokio::test]
async fn the_whole_expires_too_and_a_deadline_can_be_moved() {
    let yaml =
        format!("{}sla: {{ due: 10 hours, expires_after: 1 hour }}\n", one_step("any", "[{ user: ann }]"));
    let desk = Desk::new(&yaml).await;
    let id = desk.start(json!({})).await.id;
    desk.order(id, Order::SetDeadline { step: None, due: desk.in_hours(20) }).await.unwrap();
    desk.wait(HOUR * 12).await;
    assert_eq!(desk.get(id).await.status, Status::InProgress);
    desk.wait(HOUR * 9).await;
    stands(&desk.get(id).await, Status::Expired, &[S::Cancelled]);
}

/// Answers only when it has been asked often enough.
struct Flaky(std::sync::atomic::AtomicU32);

#[async_trait::async_trait]
impl Approvers for Flaky {
    async fn resolve(
        &self,
        _: &runtime_workflow::definition::Approver,
        _: &Instance,
    ) -> Result<Vec<String>, ApproverError> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.0.load(SeqCst);
        if left == 0 {
            return Ok(vec!["ann".to_owned()]);
        }
        self.0.store(left - 1, SeqCst);
        Err(ApproverError::Unavailable("the directory is away".to_owned()))
    }
}

#[tokio::test]
async fn a_directory_that_is_away_is_asked_again_and_parks_the_step_in_the_end() {
    for (failures, found) in [(3, true), (4, false)] {
        let desk = Desk::new(&one_step("any", "[{ role: board }]")).await;
        let store = Arc::new(MemoryWorkflows::new(Arc::new(desk.clock.clone())));
        let flaky = Arc::new(Flaky(failures.into()));
        let clock = Arc::new(desk.clock.clone());
        let workflows = Workflows::new(store, flaky, WorkflowConfig::default(), clock);
        let chief = person("acme", "chief", &["workflow:*"]);
        let versions = desk.workflows.versions(&chief, &VersionFilter::default()).await.unwrap();
        workflows.register(&chief, versions[0].definition.clone()).await.unwrap();
        workflows.activate(&chief, "order", 1).await.unwrap();
        let rita = person("acme", "rita", &[]);
        let id = workflows.start(&rita, StartRequest::new("order", "e", json!({}))).await.unwrap().id;
        for seconds in [1, 2, 4] {
            desk.clock.advance(Duration::from_millis(seconds * 1000 - 1));
            assert_eq!(workflows.run_due().await.unwrap(), 0);
            desk.clock.advance(Duration::from_millis(1));
            assert_eq!(workflows.run_due().await.unwrap(), 1);
        }
        let after = workflows.get(&rita, id).await.unwrap();
        if found {
            stands(&after, Status::InProgress, &[S::Active]);
            continue;
        }
        assert_eq!(after.steps[0].parked.as_ref().unwrap().reason, ParkReason::SystemError);
        let again = Order::Retry { step: "a".to_owned() };
        let once = runtime_workflow::Guard::default();
        let mended = workflows.order(&chief, id, again, "it is back", &once).await.unwrap();
        stands(&mended, Status::InProgress, &[S::Active]);
    }
}

/// Four processes look at the same moments.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn exactly_once(store: Arc<dyn WorkflowStore>, elapse: impl AsyncFn(Duration), instances: usize) {
    let sla = "{ due: 10 hours, reminders: [{ after: 1 hour }], escalations: [{ after: 1 hour, action: { notify: [{ user: boss }] } }], expires_after: 3 hours }";
    let desk = Desk::over(Arc::clone(&store), ManualClock::new(), &with_sla(sla)).await;
    let rita = person("acme", "rita", &[]);
    let mut ids = Vec::new();
    for nth in 0..instances {
        let request = StartRequest::new("order", format!("e-{nth}"), json!({}));
        ids.push(desk.workflows.start(&rita, request).await.unwrap().id);
    }
    let mut moved = 0;
    for hours in [1, 7, 2, 1, 2] {
        elapse(HOUR * hours).await;
        let lookers: Vec<_> = (0..4)
            .map(|_| {
                let mut config = WorkflowConfig::default();
                config.batch = 7;
                let people = Arc::new(people());
                let own = Workflows::new(Arc::clone(&store), people, config, SystemClock::shared());
                tokio::spawn(async move { own.run_due().await.unwrap() })
            })
            .collect();
        for looker in lookers {
            moved += looker.await.unwrap();
        }
    }
    // Reminder, warning, breach, escalation, expiry.
    assert_eq!(moved, 5 * instances as u64);
    for id in ids {
        let told = kinds(&desk.history(id).await, 0);
        for kind in
            ["reminded", "sla_warning", "sla_breached", "escalation_notified", "step_expired", "expired"]
        {
            assert_eq!(told.iter().filter(|told| *told == kind).count(), 1, "{kind}: {told:?}");
        }
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn each_timer_fires_once_however_many_look_in_sqlite() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let db = super::stores::sqlite(&folder, clock.clone()).await;
    exactly_once(Arc::new(runtime_workflow::SqlWorkflows::new(db)), async |by| clock.advance(by), 30).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_instance_that_cannot_go_on_keeps_nobody_from_their_turn() {
    use runtime_db::sqlx;

    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let db = super::stores::sqlite(&folder, clock.clone()).await;
    let store: Arc<dyn WorkflowStore> = Arc::new(runtime_workflow::SqlWorkflows::new(db.clone()));
    let desk =
        Desk::over(Arc::clone(&store), clock.clone(), &with_sla("{ due: 1 hour, expires_after: 0 hours }"))
            .await;
    let mut ids = Vec::new();
    for entity in ["broken", "whole"] {
        let request = StartRequest::new("order", entity, json!({}));
        ids.push(desk.workflows.start(&person("acme", "rita", &[]), request).await.unwrap().id);
    }
    let sql = "UPDATE workflow_instances SET data = '{' WHERE entity_id = 'broken'";
    sqlx::query(sql).execute(&db.sqlite().unwrap().write).await.unwrap();
    let mut config = WorkflowConfig::default();
    config.batch = 1;
    let workflows = Workflows::new(store, Arc::new(people()), config, Arc::new(clock.clone()));
    clock.advance(HOUR * 2);
    let ran = tokio::time::timeout(Duration::from_secs(20), workflows.run_due()).await;
    assert_eq!(ran.expect("the broken one is met again and again").unwrap(), 1);
    assert_eq!(desk.get(ids[1]).await.status, Status::Expired);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn each_timer_fires_once_however_many_look_in_postgres() {
    use runtime_db::sqlx;

    let (db, _database) = super::stores::postgres().await;
    let pool = db.postgres().unwrap().clone();
    // Its clock is its own, so what it remembers moves into the past instead: the document and the column beside it.
    let elapse = async |by: Duration| {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT id, data FROM workflow_instances").fetch_all(&pool).await.unwrap();
        for (id, data) in rows {
            let mut instance: Instance = serde_json::from_str(&data).unwrap();
            for timer in &mut instance.timers {
                timer.at = timer.at.checked_sub(by).unwrap();
            }
            let next = instance.next_at().map(runtime_kernel::Timestamp::as_microsecond);
            let sql = "UPDATE workflow_instances SET data = $2, next_at = $3 WHERE id = $1";
            let data = serde_json::to_string(&instance).unwrap();
            sqlx::query(sql).bind(id).bind(data).bind(next).execute(&pool).await.unwrap();
        }
    };
    exactly_once(Arc::new(runtime_workflow::SqlWorkflows::new(db.clone())), elapse, 30).await;
}

#[tokio::test(start_paused = true)]
async fn the_ticker_looks_every_tick_until_it_is_stopped() {
    let desk =
        Desk::new(&with_sla("{ due: 1 hour, escalations: [{ after: 0 hours, action: auto_approve }] }"))
            .await;
    let id = desk.start(json!({})).await.id;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ticking = desk.workflows.clone();
    let ticker = tokio::spawn(async move {
        keep_time(&ticking, async {
            let _ = stopped.await;
        })
        .await;
    });
    for _ in 0..3 {
        while desk.clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(desk.get(id).await.status, Status::InProgress);
        desk.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    desk.clock.advance(HOUR);
    while desk.get(id).await.status != Status::Approved {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    ticker.await.unwrap();
}
