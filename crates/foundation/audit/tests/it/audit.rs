//! The handle and its queue, over writers that fail and hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtime_audit::{
    Audit, AuditConfig, AuditError, AuditEvent, AuditTask, AuditWriter, Durability, MemoryWriter, Outcome,
    Severity,
};
use runtime_kernel::{
    Clock, Context, ManualClock, Name, Principal, PrincipalKind, Source, SystemClock, TenantContext,
};
use runtime_telemetry::Metrics;
use serde_json::json;

/// Fails or hangs a number of times, then keeps.
#[derive(Clone, Debug, Default)]
struct Shaky {
    kept: MemoryWriter,
    failures: Arc<AtomicU32>,
    hang: bool,
}

#[async_trait]
impl AuditWriter for Shaky {
    fn name(&self) -> &'static str {
        "shaky"
    }
    async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError> {
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) if self.hang => std::future::pending().await,
            Ok(_) => Err(AuditError::Write { writer: "shaky", why: "down".into() }),
            Err(_) => self.kept.write(events, durability).await,
        }
    }
    async fn flush(&self) -> Result<(), AuditError> {
        self.kept.flush().await
    }
}

fn shaky(failures: u32, hang: bool) -> Shaky {
    Shaky { failures: Arc::new(AtomicU32::new(failures)), hang, ..Shaky::default() }
}

fn queued(writer: impl AuditWriter, change: impl FnOnce(&mut AuditConfig)) -> (Audit, AuditTask, Metrics) {
    let (mut config, metrics) = (AuditConfig::default(), Metrics::new());
    change(&mut config);
    let (audit, task) = Audit::queued(writer, config, SystemClock::shared(), &metrics).unwrap();
    (audit, task, metrics)
}

fn actions(events: &[AuditEvent]) -> Vec<&str> {
    events.iter().map(|event| &*event.action).collect()
}

fn critical(action: &'static str) -> AuditEvent {
    AuditEvent::new(action).severity(Severity::Critical)
}

/// Runs the task until everything queued is written.
async fn drain(task: &AuditTask) {
    task.run(std::future::ready(())).await.unwrap();
}

#[tokio::test]
async fn an_event_says_who_did_what_to_what_for_whom() {
    let (memory, clock) = (MemoryWriter::new(), ManualClock::new());
    let audit = Audit::direct(memory.clone(), Arc::new(clock.clone())).unwrap();
    let mut principal = Principal::new(PrincipalKind::Service, "key-1");
    principal.tenant = Some(Name::new("acme").unwrap());
    let context = Context::new(Source::Http, &clock)
        .with_principal(principal)
        .with_tenant(TenantContext::tenant(Name::new("main").unwrap(), Name::new("acme").unwrap()));
    let event = AuditEvent::new("keys.revoked")
        .context(&context)
        .target("api_key", "key-2")
        .outcome(Outcome::Denied)
        .severity(Severity::Critical)
        .message("via redis://:hunter2@cache")
        .meta("reason", "leaked")
        .meta("new_secret", "hunter2");
    audit.record(event).await.unwrap();
    let events = memory.events();
    assert!(!events[0].id.is_nil());
    assert_eq!(
        serde_json::to_value(&events[0]).unwrap(),
        json!({
            "id": events[0].id,
            "ts": "2026-01-01T00:00:00Z",
            "action": "keys.revoked",
            "severity": "critical",
            "outcome": "denied",
            "actor": {"kind": "service", "id": "key-1", "tenant": "acme"},
            "target": {"kind": "api_key", "id": "key-2"},
            "tenant": {"realm": "main", "tenant": "acme"},
            "request_id": context.request_id.to_string(),
            "trace_id": context.trace.trace_id_hex(),
            "source": "http",
            "message": "via redis://***@cache",
            "meta": {"reason": "leaked", "new_secret": "***"},
        })
    );
}

#[tokio::test(start_paused = true)]
async fn what_no_longer_fits_is_dropped_counted_and_put_on_record() {
    let memory = MemoryWriter::new();
    let (audit, task, metrics) = queued(memory.clone(), |config| config.queue = 3);
    for action in ["a", "b", "c", "d", "e"] {
        audit.record(AuditEvent::new(action)).await.unwrap();
    }
    assert_eq!(audit.dropped(), 2);
    drain(&task).await;
    let events = memory.events();
    assert_eq!(actions(&events), ["a", "b", "c", "audit.dropped"]);
    assert_eq!((&events[3].meta["count"], events[3].severity), (&json!(2), Severity::Warning));
    let text = metrics.render();
    assert!(
        text.contains("audit_dropped_total 2\n")
            && text.contains("audit_events_total{severity=\"info\"} 3\n"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_critical_event_waits_for_room_and_is_durable_when_recorded() {
    let memory = MemoryWriter::new();
    let (audit, task, _) = queued(memory.clone(), |config| config.queue = 2);
    for action in ["a", "b"] {
        audit.record(AuditEvent::new(action)).await.unwrap();
    }
    let waiting = tokio::spawn({
        let audit = audit.clone();
        async move { audit.record(critical("c")).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished() && memory.events().is_empty());
    let task = Arc::new(task);
    let running = tokio::spawn(async move { task.run(std::future::pending()).await });
    waiting.await.unwrap().unwrap();
    assert_eq!(actions(&memory.events()), ["a", "b", "c"], "in the order they came");
    assert_eq!(actions(&memory.durable()).last(), Some(&"c"));
    assert_eq!(audit.dropped(), 0);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_recovers_in_time_loses_nothing() {
    let writer = shaky(2, false);
    let (audit, task, _) = queued(writer.clone(), |_| {});
    audit.record(AuditEvent::new("a")).await.unwrap();
    drain(&task).await;
    assert_eq!(actions(&writer.kept.events()), ["a"]);
    assert_eq!(audit.dropped(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_critical_event_that_is_not_written_is_an_error_for_whoever_records_it() {
    let writer = shaky(3, false);
    let (audit, task, _) = queued(writer.clone(), |_| {});
    let task = Arc::new(task);
    let running = tokio::spawn(async move { task.run(std::future::pending()).await });
    let error = audit.record(critical("a")).await.unwrap_err();
    assert!(matches!(error, AuditError::Write { writer: "shaky", .. }), "{error:?}");
    audit.record(critical("b")).await.unwrap();
    assert_eq!(audit.dropped(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(actions(&writer.kept.events()), ["b", "audit.dropped"]);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_hanging_writer_holds_nobody_beyond_the_timeout() {
    let writer = shaky(u32::MAX, true);
    let (audit, task, _) = queued(writer, |config| config.queue = 1);
    let task = Arc::new(task);
    let running = tokio::spawn(async move { task.run(std::future::pending()).await });
    let start = SystemClock.now();
    for _ in 0..100 {
        audit.record(AuditEvent::new("a")).await.unwrap();
    }
    assert_eq!(SystemClock.now() - start, Duration::ZERO, "what is not critical never waits");
    assert_eq!(audit.record(critical("b")).await, Err(AuditError::Timeout));
    assert_eq!(SystemClock.now() - start, Duration::from_secs(5));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn stopping_writes_what_is_queued_and_later_events_still_get_on_record() {
    let memory = MemoryWriter::new();
    let (audit, task, _) = queued(memory.clone(), |config| config.batch = 2);
    for action in ["a", "b", "c", "d", "e"] {
        audit.record(AuditEvent::new(action)).await.unwrap();
    }
    drain(&task).await;
    assert_eq!(actions(&memory.events()), ["a", "b", "c", "d", "e"]);
    audit.record(AuditEvent::new("late")).await.unwrap();
    audit.record(critical("latest")).await.unwrap();
    assert_eq!(actions(&memory.events())[5..], ["late", "latest"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_every_event_is_on_record_or_counted_and_no_critical_one_is_missing() {
    let memory = MemoryWriter::new();
    let (audit, task, _) = queued(memory.clone(), |config| config.queue = 16);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { task.run(async { drop(stopped.await) }).await });
    let mut recording = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let audit = audit.clone();
        recording.spawn(async move {
            for round in 0..500 {
                let event = if round % 50 == 0 { critical("critical") } else { AuditEvent::new("plain") };
                audit.record(event).await.unwrap();
            }
        });
    }
    recording.join_all().await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    let events = memory.events();
    let count = |action: &str| events.iter().filter(|event| event.action == action).count() as u64;
    assert_eq!(count("critical"), 80);
    assert_eq!(count("plain") + audit.dropped(), 8 * 490);
    let reported: u64 = events
        .iter()
        .filter(|event| event.action == "audit.dropped")
        .map(|event| event.meta["count"].as_u64().unwrap())
        .sum();
    assert_eq!(reported, audit.dropped(), "the record says how much is missing from it");
}

#[test]
fn settings_that_do_not_hold_are_named() {
    for (change, field) in [
        ((|config| config.queue = 0) as fn(&mut AuditConfig), "queue"),
        (|config| config.batch = 0, "batch"),
        (|config| config.attempts = 0, "attempts"),
        (|config| config.timeout = Duration::ZERO, "timeout"),
    ] {
        let mut config = AuditConfig::default();
        change(&mut config);
        let error =
            Audit::queued(MemoryWriter::new(), config, SystemClock::shared(), &Metrics::new()).unwrap_err();
        assert_eq!(error, AuditError::Setting { field, message: "must not be 0" });
    }
}
