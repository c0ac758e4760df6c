//! Rollouts on the audit record: what is ordered, and what they do by themselves.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_audit::{AUDIT, Audit, AuditEvent, Outcome, Severity};
use runtime_kernel::app::{Run, Service};
use runtime_kernel::container::Container;
use runtime_kernel::lifecycle::Stage;
use runtime_kernel::{Clock, Context, Error, Principal, Source, SystemClock};
use runtime_rollout::{Change, Order, ROLLOUTS, Rollout, RolloutError, Rollouts};
use tokio::sync::{Mutex, mpsc};

/// How long to wait before what was not written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Gives an order to a rollout, and puts it on record durably: what is ordered before anything changes, and how it ended.
///
/// Dropping the future does not part them: both go on in a task of their own.
pub(crate) async fn order(
    container: &Container,
    context: &Context,
    name: String,
    order: Order,
    reason: String,
) -> Result<Rollout, Error> {
    let (rollouts, audit) = (container.get(ROLLOUTS).await?, container.get(AUDIT).await?);
    detached(rollouts, audit, context.clone(), name, order, reason).await
}

async fn detached(
    rollouts: Arc<Rollouts>,
    audit: Arc<Audit>,
    context: Context,
    name: String,
    order: Order,
    reason: String,
) -> Result<Rollout, Error> {
    let work = async move { on_record(&rollouts, &audit, &context, &name, &order, &reason).await };
    tokio::spawn(work).await.map_err(Error::internal)?
}

async fn on_record(
    rollouts: &Rollouts,
    audit: &Audit,
    context: &Context,
    name: &str,
    order: &Order,
    reason: &str,
) -> Result<Rollout, Error> {
    // What there is not cannot be changed.
    rollouts.current(name)?;
    let event = |action: &'static str| {
        let event = AuditEvent::new(action).context(context).target("rollout", name.to_owned());
        event.severity(Severity::Critical).meta("order", order.as_str())
    };
    let asked = event("rollouts.ordering").message(reason);
    let asked = if let Order::Weight(weight) = order { asked.meta("weight", *weight) } else { asked };
    audit.record(asked).await?;
    let done = rollouts.order(name, order, reason).await;
    let ended = ended(event("rollouts.ordered"), &done);
    if let Err(error) = audit.record(ended).await {
        // The order stands, and that it was given is on record.
        tracing::error!(rollout = name, error = %error, "how an order to a rollout ended is not on record");
    }
    Ok(done?)
}

fn ended(event: AuditEvent, done: &Result<Rollout, RolloutError>) -> AuditEvent {
    match done {
        Ok(rollout) => event.meta("weight", rollout.weight).message(rollout.reason.clone()),
        Err(error) => event.outcome(Outcome::Failure).message(error.to_string()),
    }
}

/// Puts what rollouts do by themselves on record, durably and in order, beside the rollouts: a writer that is slow holds
/// up no roll-back, and one that fails is tried again. Few enough to wait in memory: a rollout moves once a second at most.
#[derive(Clone)]
pub(crate) struct Moves {
    changes: Arc<Mutex<mpsc::UnboundedReceiver<Change>>>,
}

impl Moves {
    /// What is to be told of every change, and what puts those nobody ordered on record.
    pub(crate) fn new() -> (impl Fn(&Change) + Send + Sync + 'static, Self) {
        let (tell, changes) = mpsc::unbounded_channel();
        let told = move |change: &Change| {
            if change.by_itself {
                // Nobody listens in a process that only runs a command.
                let _ = tell.send(change.clone());
            }
        };
        (told, Self { changes: Arc::new(Mutex::new(changes)) })
    }

    /// Until `stop`, and then what is left, each tried once more. What timed out may be on record twice.
    async fn keep(&self, audit: &Audit, clock: &dyn Clock, stop: impl Future<Output = ()>) {
        let mut changes = self.changes.lock().await;
        let (mut stop, mut stopped) = (pin!(stop), false);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stop, if !stopped => {
                    stopped = true;
                    changes.close();
                    continue;
                }
                next = changes.recv() => next,
            };
            let Some(change) = next else { return };
            while let Err(error) = audit.record(moved(&change)).await {
                let rollout = change.after.name.as_str();
                tracing::error!(rollout, error = %error, "a move of a rollout is not on record");
                if stopped {
                    break;
                }
                tokio::select! {
                    biased;
                    () = &mut stop => {
                        stopped = true;
                        changes.close();
                    }
                    () = clock.sleep(AGAIN) => {}
                }
            }
        }
    }
}

fn moved(change: &Change) -> AuditEvent {
    let context = Context::new(Source::Internal, &SystemClock).with_principal(Principal::system("rollout"));
    let event = AuditEvent::new("rollouts.moved").context(&context);
    let event = event.target("rollout", change.after.name.clone()).severity(Severity::Critical);
    event.meta("weight", change.after.weight).message(change.after.reason.clone())
}

#[async_trait]
impl Service for Moves {
    fn name(&self) -> &'static str {
        "rollouts on record"
    }

    /// After the rollouts, which look once more as they stop.
    fn stops_at(&self) -> Stage {
        Stage::Flush
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let audit = run.services.get(AUDIT).await?;
        self.keep(&audit, &*run.clock, run.stop.stopped()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::ready;

    use runtime_audit::{AuditConfig, AuditError, AuditWriter, Durability, FileWriter, MemoryWriter};
    use runtime_kernel::ManualClock;
    use runtime_rollout::{MemoryRollouts, Phase, RoutesConfig, Side};
    use runtime_telemetry::Metrics;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    /// Writes to memory what is let through.
    #[derive(Clone, Debug)]
    struct Gate {
        written: MemoryWriter,
        /// One permit for each write that has come.
        come: Arc<Semaphore>,
        /// One permit for each write that may go on.
        open: Arc<Semaphore>,
    }

    impl Gate {
        fn closed() -> Self {
            let none = || Arc::new(Semaphore::new(0));
            Self { written: MemoryWriter::new(), come: none(), open: none() }
        }

        async fn has_come(&self) {
            self.come.acquire().await.unwrap().forget();
        }

        fn actions(&self) -> Vec<String> {
            self.written.events().iter().map(|event| event.action.to_string()).collect()
        }
    }

    #[async_trait]
    impl AuditWriter for Gate {
        fn name(&self) -> &'static str {
            "a gate"
        }

        async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError> {
            self.come.add_permits(1);
            self.open.acquire().await.unwrap().forget();
            self.written.write(events, durability).await
        }

        async fn flush(&self) -> Result<(), AuditError> {
            Ok(())
        }
    }

    fn rollouts(told: impl Fn(&Change) + Send + Sync + 'static) -> Rollouts {
        let routes = BTreeMap::from([("shop".to_owned(), RoutesConfig::default())]);
        Rollouts::new(Arc::new(MemoryRollouts::new()), routes, Arc::new(ManualClock::new()), told).unwrap()
    }

    /// Lets a canary fail until it is rolled back by itself.
    async fn roll_back(rollouts: &Rollouts) {
        for order in [Order::Weight(5_000), Order::Resume] {
            rollouts.order("shop", &order, "").await.unwrap();
        }
        for _ in 0..20 {
            for _ in 0..20 {
                rollouts.answered("shop", Side::Primary, false, false).unwrap();
                rollouts.answered("shop", Side::Canary, true, false).unwrap();
            }
            rollouts.refresh().await.unwrap();
        }
        assert_eq!(rollouts.current("shop").unwrap().phase, Phase::RolledBack);
    }

    fn operator() -> Context {
        Context::new(Source::Cli, &SystemClock).with_principal(Principal::system("cli"))
    }

    #[tokio::test]
    async fn an_order_that_cannot_be_put_on_record_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = AuditConfig::default();
        config.attempts = 1;
        // A folder is no file to write to.
        let writer = FileWriter::new(folder.path());
        let (audit, task) = Audit::queued(writer, config, SystemClock::shared(), &Metrics::new()).unwrap();
        let writing = tokio::spawn(async move { task.run(std::future::pending()).await });
        let rollouts = rollouts(|_| {});
        let order = on_record(&rollouts, &audit, &operator(), "shop", &Order::Start, "v2").await;
        assert_eq!(order.unwrap_err().code(), "audit.write");
        writing.abort();
        assert_eq!(rollouts.current("shop").unwrap().phase, Phase::Idle);
        assert_eq!(rollouts.list().await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_order_and_its_record_outlive_whoever_gave_it() {
        let gate = Gate::closed();
        let audit = Arc::new(Audit::direct(gate.clone(), SystemClock::shared()).unwrap());
        let rollouts = Arc::new(rollouts(|_| {}));
        let (asked, kept) = (Arc::clone(&rollouts), Arc::clone(&audit));
        let order = Order::Weight(700);
        let order = detached(asked, kept, operator(), "shop".to_owned(), order, "try".to_owned());
        tokio::select! {
            biased;
            _ = order => panic!("nothing is on record yet"),
            () = gate.has_come() => {}
        }
        assert_eq!(rollouts.current("shop").unwrap().weight, 0, "the record comes first");
        gate.open.add_permits(1);
        gate.has_come().await;
        assert_eq!(rollouts.current("shop").unwrap().weight, 700);
        gate.open.add_permits(1);
        // Written one after the other: once this one is, those before it are.
        gate.open.add_permits(1);
        audit.record(AuditEvent::new("last")).await.unwrap();
        assert_eq!(gate.actions(), ["rollouts.ordering", "rollouts.ordered", "last"]);
        assert_eq!(gate.written.events()[0].meta["weight"], 700);
    }

    #[tokio::test]
    async fn an_order_that_is_refused_is_on_record_as_such_and_one_to_nothing_is_not() {
        let written = MemoryWriter::new();
        let audit = Audit::direct(written.clone(), SystemClock::shared()).unwrap();
        let rollouts = rollouts(|_| {});
        for (name, code) in [("shop", "rollout.refused"), ("nosuch", "rollout.unknown")] {
            let order = on_record(&rollouts, &audit, &operator(), name, &Order::Pause, "").await;
            assert_eq!(order.unwrap_err().code(), code);
        }
        let events = written.events();
        let outcomes: Vec<_> = events.iter().map(|event| (&*event.action, event.outcome)).collect();
        assert_eq!(
            outcomes,
            [("rollouts.ordering", Outcome::Success), ("rollouts.ordered", Outcome::Failure)]
        );
    }

    #[tokio::test]
    async fn a_rollback_nobody_ordered_is_on_record_even_when_the_queue_was_full() {
        let gate = Gate::closed();
        let mut config = AuditConfig::default();
        (config.queue, config.batch) = (1, 1);
        let clock = ManualClock::new();
        let (audit, task) =
            Audit::queued(gate.clone(), config, Arc::new(clock.clone()), &Metrics::new()).unwrap();
        let writing = tokio::spawn(async move { task.run(std::future::pending()).await });
        audit.record(AuditEvent::new("being.written")).await.unwrap();
        gate.has_come().await;
        audit.record(AuditEvent::new("queued")).await.unwrap();
        audit.record(AuditEvent::new("dropped")).await.unwrap();
        assert_eq!(audit.dropped(), 1, "the queue is full");

        let (told, moves) = Moves::new();
        roll_back(&rollouts(told)).await;
        let open = async { gate.open.add_permits(10) };
        // Ends once all that was told is written.
        tokio::join!(moves.keep(&audit, &clock, ready(())), open);
        let durable = gate.written.durable();
        assert!(durable.iter().any(|event| event.action == "rollouts.moved" && event.meta["weight"] == 0));
        writing.abort();
    }

    #[tokio::test]
    async fn a_rollback_nobody_ordered_is_tried_again_until_it_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later/audit.jsonl");
        let mut config = AuditConfig::default();
        config.attempts = 1;
        let writer = FileWriter::new(&file);
        let (audit, task) = Audit::queued(writer, config, SystemClock::shared(), &Metrics::new()).unwrap();
        let writing = tokio::spawn(async move { task.run(std::future::pending()).await });
        let (told, moves) = Moves::new();
        roll_back(&rollouts(told)).await;
        let (clock, (stop, stopped)) = (ManualClock::new(), oneshot::channel::<()>());
        let mends = async {
            while audit.dropped() == 0 {
                tokio::task::yield_now().await;
            }
            std::fs::create_dir(file.parent().unwrap()).unwrap();
            while !std::fs::read_to_string(&file).is_ok_and(|lines| lines.contains("rollouts.moved")) {
                clock.advance(AGAIN);
                tokio::task::yield_now().await;
            }
            drop(stop);
        };
        tokio::join!(moves.keep(&audit, &clock, async { drop(stopped.await) }), mends);
        writing.abort();
    }
}
