//! The container's laws.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use runtime_kernel::container::{CONTEXT, ContainerError, Lifetime, Services, Token};
use runtime_kernel::{Context, Error, ErrorKind, Retry, Source, SystemClock};
use tokio::sync::Notify;

pub(super) const A: Token<usize> = Token::new("test.a");
pub(super) const B: Token<usize> = Token::new("test.b");
pub(super) const C: Token<usize> = Token::new("test.c");
pub(super) const D: Token<String> = Token::new("test.text");

pub(super) type Log = Arc<Mutex<Vec<String>>>;

pub(super) fn say(log: &Log, line: impl Into<String>) {
    log.lock().unwrap().push(line.into());
}

pub(super) fn said(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

pub(super) fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

/// Counts its constructions.
fn counted(services: &mut Services, token: Token<usize>) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let built = Arc::clone(&count);
    services.singleton(token, (), move |()| {
        let built = Arc::clone(&built);
        async move {
            tokio::task::yield_now().await;
            Ok::<_, Error>(built.fetch_add(1, Ordering::SeqCst))
        }
    });
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_racing_resolvers_share_one_construction() {
    for _ in 0..50 {
        let mut services = Services::new();
        let count = counted(&mut services, A);
        let container = services.build().unwrap();
        let racers: Vec<_> = (0..64)
            .map(|at| {
                let container = if at % 2 == 0 { container.clone() } else { container.scope(context()) };
                tokio::spawn(async move { container.get(A).await.unwrap() })
            })
            .collect();
        let first = container.get(A).await.unwrap();
        for racer in racers {
            assert!(Arc::ptr_eq(&first, &racer.await.unwrap()));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_failed_construction_is_told_to_all_who_waited_and_tried_again_by_who_comes_later() {
    let tries = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Notify::new());
    let mut services = Services::new();
    let (counter, opened) = (Arc::clone(&tries), Arc::clone(&gate));
    services.singleton(A, (), move |()| {
        let (counter, opened) = (Arc::clone(&counter), Arc::clone(&opened));
        async move {
            if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                opened.notified().await;
                let error = Error::new(ErrorKind::Unavailable, "db.down", "the database is away");
                return Err(error.with_retry(Retry::Now).with_source("connection refused"));
            }
            Ok(7_usize)
        }
    });
    services.singleton(B, (A,), |(a,)| async move { Ok::<_, Error>(*a + 1) });
    let container = services.build().unwrap();
    let waiters: Vec<_> = (0..8)
        .map(|_| {
            let container = container.clone();
            tokio::spawn(async move { container.get(B).await.unwrap_err() })
        })
        .collect();
    while tries.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    for waiter in waiters {
        let error = waiter.await.unwrap();
        assert_eq!(
            (error.kind(), error.code(), error.retry()),
            (ErrorKind::Unavailable, "db.down", Retry::Now)
        );
        assert_eq!(error.message(), "the database is away");
        let report = error.report();
        for part in ["`test.b` could not be built", "`test.a` could not be built", "connection refused"] {
            assert!(report.contains(part), "{report}");
        }
    }
    assert_eq!(tries.load(Ordering::SeqCst), 1, "waiters shared the failure");
    assert_eq!(*container.get(B).await.unwrap(), 8);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn when_the_builder_is_cancelled_or_panics_the_next_in_line_builds() {
    for panics in [false, true] {
        let tries = Arc::new(AtomicUsize::new(0));
        let mut services = Services::new();
        let counter = Arc::clone(&tries);
        services.singleton(A, (), move |()| {
            let counter = Arc::clone(&counter);
            async move {
                if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                    tokio::task::yield_now().await;
                    assert!(!panics, "on purpose");
                    std::future::pending::<()>().await;
                }
                Ok::<_, Error>(1_usize)
            }
        });
        let container = services.build().unwrap();
        let spawn = || {
            let container = container.clone();
            tokio::spawn(async move { container.get(A).await.unwrap() })
        };
        let builder = spawn();
        while tries.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let waiter = spawn();
        tokio::task::yield_now().await;
        builder.abort();
        assert_eq!(*waiter.await.unwrap(), 1);
        assert_eq!(tries.load(Ordering::SeqCst), 2);
    }
}

/// The problems of a graph, with the places where things were registered left out.
fn problems(register: impl FnOnce(&mut Services)) -> Vec<String> {
    let mut services = Services::new();
    register(&mut services);
    let error: ContainerError = services.build().unwrap_err();
    let place = |word: &str| word.contains("container.rs:");
    error
        .to_string()
        .lines()
        .map(|line| {
            let words = line.split(' ').map(|word| match place(word) {
                true if word.ends_with(',') => "HERE,",
                true => "HERE",
                false => word,
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

async fn sum3((a, b): (Arc<usize>, Arc<usize>)) -> Result<usize, Error> {
    Ok(*a + *b)
}

pub(super) async fn same((a,): (Arc<usize>,)) -> Result<usize, Error> {
    Ok(*a)
}

pub(super) async fn one((): ()) -> Result<usize, Error> {
    Ok(1)
}

#[test]
fn a_wrong_graph_is_refused_before_anything_is_built_and_the_error_names_every_path() {
    const OTHER_B: Token<String> = Token::new("test.b");
    const TYPO: Token<usize> = Token::new("test.bb");
    let cases: Vec<(Vec<String>, &[&str])> = vec![
        (
            problems(|s| {
                s.value(A, 1);
                s.singleton(A, (), one);
            }),
            &["`test.a` is registered twice: at HERE and at HERE"],
        ),
        (
            problems(|s| {
                for _ in 0..2 {
                    s.singleton(A, (), one);
                }
            }),
            &["`test.a` is registered twice: at HERE and at HERE"],
        ),
        (
            problems(|s| {
                s.value(CONTEXT, context());
            }),
            &["`request.context` is registered twice: at HERE and at HERE"],
        ),
        (
            problems(|s| {
                s.singleton(A, (C,), same);
            }),
            &["`test.a` needs `test.c`, which nobody registers: `test.a` is registered at HERE"],
        ),
        (
            problems(|s| {
                s.value(TYPO, 1);
                s.singleton(A, (B,), same);
            }),
            &[
                "`test.a` needs `test.b`, which nobody registers (did you mean `test.bb`?): `test.a` is registered at HERE",
            ],
        ),
        (
            problems(|s| {
                s.value(OTHER_B, String::new());
                s.singleton(A, (B,), same);
            }),
            &["`test.a` needs `test.b` as `usize`, but it is registered as `alloc::string::String`: \
               `test.a` is registered at HERE"],
        ),
        (
            problems(|s| {
                s.singleton(A, (A,), same);
            }),
            &["services need each other: test.a -> test.a"],
        ),
        (
            problems(|s| {
                s.singleton(A, (B,), same);
                s.transient(B, (C,), same);
                s.singleton(C, (A,), same);
            }),
            &["services need each other: test.a -> test.b -> test.c -> test.a"],
        ),
        (
            problems(|s| {
                s.scoped(A, (), one);
                s.singleton(B, (A,), same);
            }),
            &[
                "singleton `test.b` would keep scoped `test.a`: test.b -> test.a: `test.b` is registered at HERE",
            ],
        ),
        (
            problems(|s| {
                s.transient(A, (CONTEXT,), |(_,)| async { Ok::<_, Error>(1) });
                s.transient(B, (A,), same);
                s.singleton(C, (B,), same);
            }),
            &["singleton `test.c` would keep scoped `request.context`: \
               test.c -> test.b -> test.a -> request.context: `test.c` is registered at HERE"],
        ),
        (problems(|s| s.replace(A, 1)), &["`test.a` is replaced at HERE, but nobody registers it"]),
        (
            problems(|s| {
                s.value(A, 1);
                s.scoped(A, (), one);
                s.singleton(B, (C,), same);
                s.singleton(D, (D, B), |(d, _)| async move { Ok::<_, Error>(d.to_string()) });
            }),
            &[
                "`test.a` is registered twice: at HERE and at HERE",
                "`test.b` needs `test.c`, which nobody registers: `test.b` is registered at HERE",
                "services need each other: test.text -> test.text",
            ],
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn scoped_values_are_one_per_scope_at_any_depth_and_singletons_one_for_all() {
    let mut services = Services::new();
    let singletons = counted(&mut services, A);
    let scoped = Arc::new(AtomicUsize::new(100));
    services.scoped(B, (A,), move |(_,)| {
        let number = scoped.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Error>(number) }
    });
    services.scoped(D, (CONTEXT, B), |(context, b)| async move {
        Ok::<_, Error>(format!("{} {b}", context.request_id))
    });
    let root = services.build().unwrap();
    let mut scope = root.clone();
    for depth in 0..5 {
        let context = context();
        let id = context.request_id.to_string();
        scope = scope.scope(context);
        assert_eq!(*scope.get(D).await.unwrap(), format!("{id} {}", 100 + depth));
        assert_eq!(*scope.get(B).await.unwrap(), 100 + depth, "cached in its scope");
        assert_eq!(scope.get(CONTEXT).await.unwrap().request_id.to_string(), id);
        assert!(Arc::ptr_eq(&scope.get(A).await.unwrap(), &root.get(A).await.unwrap()));
    }
    assert_eq!(singletons.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_graph_has_not_got_here_is_an_error_that_says_why() {
    const AS_TEXT: Token<String> = Token::new("test.a");
    let mut services = Services::new();
    services.value(A, 1);
    services.scoped(B, (), one);
    services.transient(D, (B,), |(b,)| async move { Ok::<_, Error>(b.to_string()) });
    let root = services.build().unwrap();
    for (error, code, text) in [
        (root.get(C).await.unwrap_err(), "container.missing", "nobody registers `test.c`"),
        (root.get(AS_TEXT).await.unwrap_err(), "container.type", "`test.a` is registered as `usize`, not as"),
        (root.get(B).await.unwrap_err(), "container.no_scope", "`test.b` lives in scopes"),
        (root.get(D).await.unwrap_err(), "container.no_scope", "`test.text` could not be built"),
        (root.get(CONTEXT).await.unwrap_err(), "container.no_scope", "`request.context` lives in scopes"),
    ] {
        assert_eq!(error.code(), code);
        assert!(error.report().contains(text), "{}", error.report());
    }
    assert_eq!(*root.scope(context()).get(D).await.unwrap(), "1");
}

#[tokio::test]
async fn a_transient_is_new_for_everyone_who_asks() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let mut services = Services::new();
    services.transient(A, (), move |()| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Error>(number) }
    });
    services.singleton(B, (A, A), sum3);
    let container = services.build().unwrap();
    assert_eq!(*container.get(B).await.unwrap(), 1);
    assert_eq!(*container.get(A).await.unwrap(), 2);
    assert!(container.peek(A).is_none());
}

trait Greet: Send + Sync {
    fn greet(&self) -> String;
}
struct English;
impl Greet for English {
    fn greet(&self) -> String {
        "hello".into()
    }
}
struct Dutch;
impl Greet for Dutch {
    fn greet(&self) -> String {
        "hoi".into()
    }
}
const GREET: Token<dyn Greet> = Token::new("test.greet");

#[tokio::test]
async fn a_port_is_registered_behind_its_trait_and_replaced_for_a_test() {
    let build = |replace: bool| {
        let mut services = Services::new();
        if replace {
            services.replace(GREET, Arc::new(Dutch) as Arc<dyn Greet>);
        }
        // What is replaced is not built, so what it needs may be missing.
        let needs = if replace { C } else { A };
        services.value(A, 1);
        services
            .singleton(GREET, (needs,), |_| async { Ok::<Arc<dyn Greet>, Error>(Arc::new(English)) })
            .on_dispose(|_| async { Err(Error::invalid("the replaced one's hook")) });
        services.singleton(D, (GREET,), |(greet,)| async move { Ok::<_, Error>(greet.greet()) });
        services.build().unwrap()
    };
    assert_eq!(*build(false).get(D).await.unwrap(), "hello");
    let replaced = build(true);
    assert_eq!(*replaced.get(D).await.unwrap(), "hoi");
    assert!(replaced.dispose().await.disposals.is_empty());
}

#[test]
fn a_container_lists_what_it_holds() {
    let mut services = Services::new();
    services.value(A, 1);
    services.scoped(B, (A, CONTEXT), |(a, _)| async move { Ok::<_, Error>(*a) });
    let listed = services.build().unwrap().registered();
    assert_eq!(
        listed.iter().map(|one| one.token).collect::<Vec<_>>(),
        ["request.context", "test.a", "test.b"]
    );
    assert_eq!(listed[2].needs, ["test.a", "request.context"]);
    assert_eq!((listed[1].lifetime, listed[1].is_built), (Lifetime::Value, true));
    assert_eq!((listed[2].lifetime, listed[2].is_built), (Lifetime::Scoped, false));
}
