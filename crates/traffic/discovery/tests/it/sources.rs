//! Sources, and what is known while they cannot be asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_discovery::{DiscoveryError, Endpoint, Env, Fixed, Lines, Service, Source, Teller};
use runtime_kernel::ManualClock;
use tokio::sync::mpsc;

pub(super) fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
    texts.iter().map(|text| Endpoint::parse(text).unwrap()).collect()
}

pub(super) fn authorities(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(Endpoint::authority).collect()
}

/// Says what the test tells it to.
#[derive(Debug)]
struct Script(tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Vec<Endpoint>, &'static str>>>);

#[async_trait]
impl Source for Script {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        loop {
            match self.0.lock().await.recv().await.unwrap() {
                Ok(endpoints) => teller.tell(endpoints),
                Err(why) => {
                    return Err(DiscoveryError::Source { what: "the script".into(), why: why.into() });
                }
            }
        }
    }
}

#[tokio::test]
async fn what_was_known_last_stays_known_while_the_source_is_down() {
    let clock = ManualClock::new();
    let (say, script) = mpsc::unbounded_channel();
    let (mut service, watching) =
        Service::new("orders", Script(tokio::sync::Mutex::new(script)), Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    assert_eq!(service.known().endpoints, None, "not known is not empty");
    say.send(Ok(endpoints(&["a:1", "b:1", "a:1;weight=2"]))).unwrap();
    assert_eq!(service.ready().await.unwrap().to_vec(), endpoints(&["a:1;weight=2", "b:1"]));

    say.send(Err("down")).unwrap();
    let known = service.changed().await.unwrap();
    assert_eq!(authorities(&known.endpoints.unwrap()), ["a:1", "b:1"]);
    assert!(known.stale.unwrap().contains("down"));

    // Asked again after half a second, then one, then two, then four.
    for wait in [500, 1_000, 2_000] {
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_millis(wait - 1));
        assert_eq!(clock.sleepers(), 1, "{wait}");
        say.send(Err("down")).unwrap();
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.sleepers(), 0, "{wait}");
    }
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    say.send(Ok(endpoints(&["c:1"]))).unwrap();
    clock.advance(Duration::from_secs(4));
    let known = service.changed().await.unwrap();
    assert_eq!(
        (authorities(&known.endpoints.unwrap()), known.stale, known.version),
        (vec!["c:1".to_owned()], None, 2)
    );
    say.send(Ok(Vec::new())).unwrap();
    let known = service.changed().await.unwrap();
    assert_eq!(known.endpoints.unwrap().len(), 0, "an empty answer is an answer");
}

#[tokio::test]
async fn fixed_endpoints_and_those_of_the_environment_are_told_once() {
    let clock = Arc::new(ManualClock::new());
    let (mut service, watching) = Service::new("a", Fixed(endpoints(&["a:1", "[::1]:2"])), clock.clone());
    tokio::spawn(watching.run());
    assert_eq!(authorities(&service.ready().await.unwrap()), ["a:1", "[::1]:2"]);
    // Cargo sets it to a path, which is no endpoint.
    let (mut service, watching) = Service::new("b", Env("CARGO_MANIFEST_DIR".into()), clock.clone());
    tokio::spawn(watching.run());
    let why = service.changed().await.unwrap().stale.unwrap();
    assert!(why.contains("CARGO_MANIFEST_DIR") && why.contains("port"), "{why}");
    let (mut service, watching) = Service::new("c", Env("RUNTIME_NOT_SET".into()), clock);
    tokio::spawn(watching.run());
    assert!(service.changed().await.unwrap().stale.unwrap().contains("RUNTIME_NOT_SET"));
}

#[tokio::test]
async fn a_file_is_looked_at_every_so_often_and_a_wrong_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders");
    let clock = ManualClock::new();
    std::fs::write(&path, "# two\n10.0.0.1:80\n\n[::1]:80;weight=2 # here\n").unwrap();
    let file = Lines::new(&path, Arc::new(clock.clone())).every(Duration::from_secs(2));
    let (mut service, watching) = Service::new("orders", file, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let turn = async || {
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_mins(1));
    };
    assert_eq!(authorities(&service.ready().await.unwrap()), ["10.0.0.1:80", "[::1]:80"]);
    for (text, told, stale) in [
        (r#"["a:1", {"address": "b:2", "weight": 5}]"#, vec!["a:1", "b:2"], None),
        ("a:1\nnonsense\n", vec!["a:1", "b:2"], Some("line 2")),
        ("c:1\n", vec!["c:1"], None),
    ] {
        std::fs::write(&path, text).unwrap();
        turn().await;
        let known = service.changed().await.unwrap();
        assert_eq!(authorities(&known.endpoints.unwrap()), told, "{text}");
        assert_eq!(known.stale.is_some(), stale.is_some(), "{text}");
        assert!(known.stale.unwrap_or_default().contains(stale.unwrap_or_default()));
    }
    std::fs::remove_file(&path).unwrap();
    turn().await;
    let known = service.changed().await.unwrap();
    assert!(known.stale.is_some() && authorities(&known.endpoints.unwrap()) == ["c:1"]);
}
