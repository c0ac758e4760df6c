//! The buses, their middleware, and commands that happen once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runtime_cqrs::{
    Answer, Authorise, Call, Command, CommandBus, CqrsError, Idempotent, MemoryIdempotency, Middleware, Next,
    Query, QueryBus, Timed, Validate,
};
use runtime_kernel::{
    Context, Error, ErrorKind, ManualClock, Name, Retry, Source, SystemClock, TenantContext,
};
use serde::Serialize;
use tokio::sync::oneshot;

#[derive(Serialize)]
struct Add(u32);
impl Command for Add {
    const NAME: &'static str = "add";
    type Reply = u32;
}
#[derive(Serialize)]
struct Impostor;
impl Command for Impostor {
    const NAME: &'static str = "add";
    type Reply = ();
}
struct Total;
impl Query for Total {
    const NAME: &'static str = "total";
    type Reply = u32;
}

fn context() -> Context {
    Context::new(Source::Http, &SystemClock)
}

fn of(tenant: &str) -> Context {
    context().with_tenant(TenantContext::tenant(Name::new("main").unwrap(), Name::new(tenant).unwrap()))
}

#[tokio::test]
async fn a_command_and_a_query_find_their_handlers() {
    let total = Arc::new(AtomicU32::new(0));
    let (writer, reader) = (Arc::clone(&total), total);
    let commands = CommandBus::builder().handle(move |_, Add(n)| {
        let total = writer.fetch_add(n, Ordering::Relaxed) + n;
        async move { Ok(total) }
    });
    let commands = commands.expects::<Add>().build().unwrap();
    let queries = QueryBus::builder().handle(move |_, Total| {
        let total = reader.load(Ordering::Relaxed);
        async move { Ok(total) }
    });
    let queries = queries.expects::<Total>().build().unwrap();
    assert_eq!(commands.send(&context(), Add(2)).await.unwrap(), 2);
    assert_eq!(commands.send(&context(), Add(3)).await.unwrap(), 5);
    assert_eq!(queries.ask(&context(), Total).await.unwrap(), 5);
}

#[tokio::test]
async fn duplicate_and_missing_handlers_are_refused_when_the_bus_is_built() {
    let add = |_: Context, Add(n)| async move { Ok(n) };
    let twice = CommandBus::builder().handle(add).handle(add).build();
    assert!(matches!(twice, Err(CqrsError::Duplicate("add"))));
    let same_name = CommandBus::builder().handle(add).handle(|_, Impostor| async { Ok(()) }).build();
    assert!(matches!(same_name, Err(CqrsError::Duplicate("add"))));
    assert!(matches!(CommandBus::builder().expects::<Add>().build(), Err(CqrsError::Unknown("add"))));
    assert!(matches!(QueryBus::builder().expects::<Total>().build(), Err(CqrsError::Unknown("total"))));
    let empty = CommandBus::builder().build().unwrap();
    let error = empty.send(&context(), Add(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unsupported, "cqrs.no_handler"));
}

struct Trail(&'static str, Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Middleware for Trail {
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error> {
        self.1.lock().unwrap().push(format!("{} in {}", self.0, call.name()));
        let answer = next.run(call).await;
        self.1.lock().unwrap().push(format!("{} out", self.0));
        answer
    }
}

#[tokio::test]
async fn middleware_wraps_in_the_order_it_was_added() {
    let trail = Arc::new(Mutex::new(Vec::new()));
    let bus = CommandBus::builder()
        .layer(Trail("a", Arc::clone(&trail)))
        .layer(Trail("b", Arc::clone(&trail)))
        .handle(|_, Add(n)| async move { Ok(n) })
        .build()
        .unwrap();
    bus.send(&context(), Add(1)).await.unwrap();
    assert_eq!(*trail.lock().unwrap(), ["a in add", "b in add", "b out", "a out"]);
}

#[tokio::test]
async fn what_is_not_valid_or_not_allowed_does_not_reach_the_handler_and_is_measured() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let bus = CommandBus::builder()
        .layer(Timed::new(SystemClock::shared(), move |name, error, _| {
            telling.lock().unwrap().push((name, error.map(Error::kind)));
        }))
        .layer(Authorise::new(|context, _| match context.tenant {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Forbidden, "test.forbidden", "no tenant")),
        }))
        .layer(Validate::of(|Add(n)| if *n == 0 { Err(Error::invalid("nothing")) } else { Ok(()) }))
        .handle(|_, Add(n)| async move { Ok(n) })
        .build()
        .unwrap();
    assert_eq!(bus.send(&context(), Add(0)).await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(bus.send(&of("acme"), Add(0)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(bus.send(&of("acme"), Add(1)).await.unwrap(), 1);
    let seen = [("add", Some(ErrorKind::Forbidden)), ("add", Some(ErrorKind::Invalid)), ("add", None)];
    assert_eq!(*told.lock().unwrap(), seen);
}

#[tokio::test]
async fn a_command_with_a_key_happens_once_for_each_tenant() {
    let (clock, done) = (ManualClock::new(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&done);
    let store = Arc::new(MemoryIdempotency::new(Arc::new(clock.clone())));
    let bus =
        CommandBus::builder()
            .layer(Idempotent::new(store))
            .handle(move |_, Add(n)| {
                let count = counted.fetch_add(1, Ordering::Relaxed);
                async move {
                    if n == 13 && count < 3 { Err(Error::invalid("not yet")) } else { Ok(n * 10 + count) }
                }
            })
            .build()
            .unwrap();
    let acme = of("acme");
    assert_eq!(bus.send_once(&acme, "k", Add(1)).await.unwrap(), 10);
    assert_eq!(bus.send_once(&acme, "k", Add(1)).await.unwrap(), 10, "the stored answer");
    let reused = bus.send_once(&acme, "k", Add(2)).await.unwrap_err();
    assert_eq!((reused.kind(), reused.code()), (ErrorKind::Conflict, "cqrs.key_reused"));
    assert_eq!(bus.send_once(&of("globex"), "k", Add(1)).await.unwrap(), 11, "another tenant's key");
    assert!(bus.send_once(&acme, "failing", Add(13)).await.is_err());
    assert_eq!(bus.send_once(&acme, "failing", Add(13)).await.unwrap(), 133, "a failure is not remembered");
    for key in ["", "two words", "é", &"x".repeat(256)] {
        assert_eq!(bus.send_once(&acme, key, Add(1)).await.unwrap_err().code(), "cqrs.idempotency_key");
    }
    clock.advance(Duration::from_hours(25));
    assert_eq!(bus.send_once(&acme, "k", Add(2)).await.unwrap(), 24, "forgotten");
    assert_eq!(done.load(Ordering::Relaxed), 5);
    let without = CommandBus::builder().handle(|_, Add(n)| async move { Ok(n) }).build().unwrap();
    assert_eq!(without.send_once(&acme, "k", Add(1)).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn who_comes_while_it_is_done_is_told_when_to_ask_again() {
    let clock = ManualClock::new();
    let (go, gone) = oneshot::channel::<()>();
    let (begun, has_begun) = oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((begun, gone))));
    let store = Arc::new(MemoryIdempotency::new(Arc::new(clock.clone())));
    let bus = CommandBus::builder()
        .layer(Idempotent::new(store).lease(Duration::from_secs(30)))
        .handle(move |_, Add(n)| {
            let (begun, gone) = once.lock().unwrap().take().unwrap();
            async move {
                begun.send(()).unwrap();
                gone.await.unwrap();
                Ok(n)
            }
        })
        .build()
        .unwrap();
    let first = tokio::spawn({
        let bus = bus.clone();
        async move { bus.send_once(&of("acme"), "k", Add(1)).await }
    });
    has_begun.await.unwrap();
    clock.advance(Duration::from_secs(10));
    let second = bus.send_once(&of("acme"), "k", Add(1)).await.unwrap_err();
    assert_eq!((second.kind(), second.code()), (ErrorKind::Conflict, "cqrs.in_flight"));
    assert_eq!(second.retry(), Retry::After(Duration::from_secs(20)));
    go.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(bus.send_once(&of("acme"), "k", Add(1)).await.unwrap(), 1);
}
