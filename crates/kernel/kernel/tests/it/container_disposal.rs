//! Disposal: in the reverse order of building, whatever fails on the way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use runtime_kernel::container::{Container, Services, Token};
use runtime_kernel::lifecycle::Outcome;
use runtime_kernel::{Error, ErrorKind};
use tokio::sync::Notify;

use super::container::{A, B, C, D, Log, context, said, same, say};

/// A chain A <- B <- C with a disposal that logs each.
fn chain(log: &Log) -> Services {
    let mut services = Services::new();
    let hook = |name: &'static str| {
        let log = Arc::clone(log);
        move |_: Arc<usize>| {
            say(&log, name);
            async { Ok(()) }
        }
    };
    services.singleton(C, (B,), same).on_dispose(hook("c"));
    services.scoped(D, (C,), |(c,)| async move { Ok::<_, Error>(c.to_string()) }).on_dispose({
        let log = Arc::clone(log);
        move |_| {
            say(&log, "scoped d");
            async { Ok(()) }
        }
    });
    services.singleton(B, (A,), same).on_dispose(hook("b"));
    services.value(A, 1).on_dispose(hook("a"));
    services
}

#[tokio::test]
async fn disposal_is_the_reverse_of_building_and_scopes_below_go_first() {
    let log = Log::default();
    let root = chain(&log).build().unwrap();
    let scope = root.scope(context()).scope(context());
    scope.get(D).await.unwrap();
    let report = root.dispose().await;
    assert_eq!(said(&log), ["scoped d", "c", "b", "a"]);
    assert!(report.is_clean());
    assert_eq!(
        report.disposals.iter().map(|one| one.token).collect::<Vec<_>>(),
        ["test.text", "test.c", "test.b", "test.a"]
    );
    assert!(root.dispose().await.disposals.is_empty(), "nothing is disposed twice");
    for container in [&root, &scope] {
        let error = container.get(B).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "container.disposed"));
    }
}

#[tokio::test]
async fn a_scope_disposes_its_own_and_leaves_the_root_alone() {
    let log = Log::default();
    let root = chain(&log).build().unwrap();
    let scope = root.scope(context());
    scope.get(D).await.unwrap();
    assert_eq!(scope.dispose().await.disposals.len(), 1);
    assert_eq!(said(&log), ["scoped d"]);
    assert_eq!(*root.get(C).await.unwrap(), 1);
    assert_eq!(scope.get(D).await.unwrap_err().code(), "container.disposed");
}

#[tokio::test]
async fn a_scope_that_is_dropped_still_gives_back_what_it_built() {
    let log = Log::default();
    let root = chain(&log).build().unwrap();
    let scope = root.scope(context());
    scope.get(D).await.unwrap();
    drop(scope);
    while said(&log).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(said(&log), ["scoped d"]);
    assert_eq!(root.dispose().await.disposals.len(), 3, "the dropped scope is not disposed again");
}

#[tokio::test(start_paused = true)]
async fn a_disposal_that_fails_hangs_or_panics_is_reported_and_the_rest_still_run() {
    let log = Log::default();
    let mut services = Services::new();
    let last = Arc::clone(&log);
    services.value(A, 1).on_dispose(move |_| {
        say(&last, "last");
        async { Ok(()) }
    });
    services.value(B, 2).on_dispose(|_| async { Err(Error::invalid("not today")) });
    services.value(C, 3).on_dispose_within(Duration::from_secs(3), |_| std::future::pending());
    services
        .value(D, String::new())
        .on_dispose(|_| -> std::future::Ready<Result<(), Error>> { panic!("at once") });
    let report = services.build().unwrap().dispose().await;
    assert_eq!(said(&log), ["last"]);
    let [d, c, b, a] = &report.disposals[..] else { panic!("{report}") };
    assert!(matches!(&d.outcome, Outcome::Panicked(text) if text == "at once"), "{report}");
    assert!(matches!(c.outcome, Outcome::TimedOut), "{report}");
    assert_eq!(c.elapsed, Duration::from_secs(3));
    assert!(matches!(&b.outcome, Outcome::Failed(error) if error.message() == "not today"), "{report}");
    assert!(a.outcome.is_done());
    assert!(!report.is_clean());
    assert!(report.to_string().contains("`test.c` cut: its own timeout passed"), "{report}");
}

#[tokio::test]
async fn what_is_built_while_its_container_is_disposed_is_disposed_at_once_and_not_handed_out() {
    let log = Log::default();
    let gate = Arc::new(Notify::new());
    let mut services = Services::new();
    let (building, opened, disposed) = (Arc::clone(&log), Arc::clone(&gate), Arc::clone(&log));
    services
        .singleton(A, (), move |()| {
            let (building, opened) = (Arc::clone(&building), Arc::clone(&opened));
            async move {
                say(&building, "building");
                opened.notified().await;
                Ok::<_, Error>(1_usize)
            }
        })
        .on_dispose(move |_| {
            say(&disposed, "disposed");
            async { Ok(()) }
        });
    let container = services.build().unwrap();
    let asker = container.clone();
    let late = tokio::spawn(async move { asker.get(A).await.unwrap_err() });
    while said(&log).is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(container.dispose().await.disposals.is_empty());
    gate.notify_one();
    assert_eq!(late.await.unwrap().code(), "container.disposed");
    assert_eq!(said(&log), ["building", "disposed"]);
}

const NODES: [Token<usize>; 12] = [
    Token::new("node.0"),
    Token::new("node.1"),
    Token::new("node.2"),
    Token::new("node.3"),
    Token::new("node.4"),
    Token::new("node.5"),
    Token::new("node.6"),
    Token::new("node.7"),
    Token::new("node.8"),
    Token::new("node.9"),
    Token::new("node.10"),
    Token::new("node.11"),
];

/// A singleton of number `at` that logs its building and its disposal.
fn node(
    services: &mut Services,
    at: usize,
    needs: &[usize],
    built: &Arc<Mutex<Vec<usize>>>,
    gone: &Arc<Mutex<Vec<usize>>>,
) {
    let (built, gone) = (Arc::clone(built), Arc::clone(gone));
    let done = move || {
        let built = Arc::clone(&built);
        async move {
            tokio::task::yield_now().await;
            built.lock().unwrap().push(at);
            Ok::<_, Error>(at)
        }
    };
    let registration = match *needs {
        [] => services.singleton(NODES[at], (), move |()| done()),
        [a] => services.singleton(NODES[at], (NODES[a],), move |_| done()),
        [a, b] => services.singleton(NODES[at], (NODES[a], NODES[b]), move |_| done()),
        [a, b, c, ..] => services.singleton(NODES[at], (NODES[a], NODES[b], NODES[c]), move |_| done()),
    };
    registration.on_dispose(move |at| {
        gone.lock().unwrap().push(*at);
        async { Ok(()) }
    });
}

proptest! {
    #[test]
    fn any_graph_is_built_dependencies_first_and_disposed_in_exactly_the_reverse_order(
        picks in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 12),
        order in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
        asked in proptest::collection::vec(0usize..12, 1..12),
    ) {
        let needs: Vec<Vec<usize>> = picks.iter().enumerate()
            .map(|(at, picks)| if at == 0 { vec![] } else { picks.iter().map(|pick| pick.index(at)).collect() })
            .collect();
        let (built, gone) = (Arc::default(), Arc::default());
        let mut services = Services::new();
        for at in order {
            node(&mut services, at, &needs[at], &built, &gone);
        }
        let container = services.build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let racers: Vec<_> = asked.iter().map(|at| {
                let (container, token) = (container.clone(), NODES[*at]);
                tokio::spawn(async move { container.get(token).await.unwrap() })
            }).collect();
            for racer in racers {
                racer.await.unwrap();
            }
            disposed(&container).await;
        });
        let built = built.lock().unwrap().clone();
        for (place, at) in built.iter().enumerate() {
            for need in &needs[*at] {
                prop_assert!(built[..place].contains(need), "{} before its {}: {:?}", at, need, built);
            }
        }
        let mut reverse = gone.lock().unwrap().clone();
        reverse.reverse();
        prop_assert_eq!(&reverse, &built);
        let mut once = built.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), built.len(), "built twice");
    }
}

async fn disposed(container: &Container) {
    assert!(container.dispose().await.is_clean());
}
