//! Proving keys: what holds, what does not, for how long, and at what cost to the store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use runtime_apikey::{ApiKeyConfig, KeyError, KeyEvent, KeyStore, Limits, NewKey, Rejection};
use runtime_kernel::{Classify, Clock, ErrorKind, Name, PrincipalKind};

use super::setup::{Setup, setup, setup_with};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn rejection(setup: &Setup, text: &str) -> Option<Rejection> {
    match setup.keys.authenticator().authenticate(text).await {
        Ok(_) => None,
        Err(KeyError::Rejected(reason)) => Some(reason),
        Err(error) => panic!("{error:?}"),
    }
}

fn finds(setup: &Setup) -> usize {
    setup.store.finds.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_key_speaks_for_what_it_was_made_for() {
    let setup = setup();
    let mut new = NewKey::new("test", ["jobs:write"]);
    new.realm = Name::new("main").ok();
    new.tenant = Name::new("acme").ok();
    new.limits = Some(Limits { requests: 10, per: secs(1) });
    let issued = setup.keys.create(new).await.unwrap();
    let verified = setup.keys.authenticator().authenticate(issued.expose()).await.unwrap();
    let principal = &verified.principal;
    assert_eq!(
        (&*principal.id, principal.kind),
        (issued.key.id.to_string().as_str(), PrincipalKind::Service)
    );
    assert!(principal.allows("jobs:write") && !principal.allows("jobs:read"));
    assert_eq!(principal.tenant.as_ref().map(Name::as_str), Some("acme"));
    assert_eq!(verified.key.limits, Some(Limits { requests: 10, per: secs(1) }));
}

#[tokio::test]
async fn what_is_no_key_never_reaches_the_store() {
    let setup = setup();
    let good = setup.keys.create(NewKey::default()).await.unwrap().expose().to_owned();
    for text in [
        "",
        "rt_",
        "rt__",
        "hello",
        &good[..good.len() - 1],
        &format!("{good}0"),
        &good.replacen("rt_", "RT_", 1),
        &good.replacen("rt_", "rt_live_", 1),
        &good.replacen("rt_", "rt_Live_", 1),
        &good.replacen("rt_", "", 1),
        &format!(" {good}"),
        &format!("{good}\n"),
        &"é".repeat(40),
    ] {
        assert_eq!(rejection(&setup, text).await, Some(Rejection::Malformed), "{text:?}");
    }
    assert_eq!(finds(&setup), 0);
}

#[tokio::test]
async fn an_unknown_key_and_a_wrong_secret_look_the_same() {
    let (one, other) = (setup(), setup_with(ApiKeyConfig::default()));
    let mine = one.keys.create(NewKey::default()).await.unwrap();
    // A key of the same id with another secret: what a rotation without overlap leaves behind.
    one.keys.rotate(mine.key.id, Duration::ZERO).await.unwrap();
    let wrong_secret = one.keys.authenticator().authenticate(mine.expose()).await.unwrap_err();
    let unknown = other.keys.authenticator().authenticate(mine.expose()).await.unwrap_err();
    for error in [wrong_secret, unknown] {
        assert!(matches!(error, KeyError::Rejected(Rejection::Unknown)));
        assert_eq!(
            (error.kind(), error.code(), error.to_string().as_str()),
            (ErrorKind::Unauthenticated, "apikey.invalid", "the API key is not valid")
        );
    }
}

#[tokio::test]
async fn a_key_holds_from_its_beginning_to_its_end_even_when_remembered() {
    let setup = setup();
    let now = setup.clock.utc();
    let mut new = NewKey::new("test", ["*"]);
    new.not_before = Some(now.saturating_add(secs(10)));
    new.expires_at = Some(now.saturating_add(secs(20)));
    let issued = setup.keys.create(new).await.unwrap();
    for (at, expected) in [
        (0, Some(Rejection::NotYet)),
        (9, Some(Rejection::NotYet)),
        (10, None),
        (19, None),
        (20, Some(Rejection::Expired)),
        (999, Some(Rejection::Expired)),
    ] {
        let passed = setup.clock.utc().duration_since(now).as_secs();
        setup.clock.advance(secs(at - passed));
        assert_eq!(rejection(&setup, issued.expose()).await, expected, "after {at} s");
    }
}

#[tokio::test]
async fn a_rotated_secret_holds_until_the_overlap_ends_and_the_new_one_at_once() {
    let setup = setup();
    let old = setup.keys.create(NewKey::new("test", ["*"])).await.unwrap();
    assert_eq!(rejection(&setup, old.expose()).await, None);
    let new = setup.keys.rotate(old.key.id, secs(3600)).await.unwrap();
    assert_ne!(old.expose(), new.expose());
    assert_eq!(old.key.id, new.key.id, "what is owned by id stays so");
    assert_eq!(rejection(&setup, new.expose()).await, None);
    setup.clock.advance(secs(3599));
    assert_eq!(rejection(&setup, old.expose()).await, None);
    setup.clock.advance(secs(1));
    assert_eq!(
        rejection(&setup, old.expose()).await,
        Some(Rejection::Expired),
        "to the moment, remembered or not"
    );
    assert_eq!(rejection(&setup, new.expose()).await, None);
}

#[tokio::test]
async fn a_second_rotation_ends_the_oldest_secret_at_once() {
    let setup = setup();
    let first = setup.keys.create(NewKey::new("test", ["*"])).await.unwrap();
    let second = setup.keys.rotate(first.key.id, secs(3600)).await.unwrap();
    let third = setup.keys.rotate(first.key.id, secs(3600)).await.unwrap();
    assert_eq!(rejection(&setup, first.expose()).await, Some(Rejection::Unknown));
    assert_eq!(rejection(&setup, second.expose()).await, None);
    assert_eq!(rejection(&setup, third.expose()).await, None);
}

#[tokio::test]
async fn a_revocation_here_counts_at_once_and_one_elsewhere_within_the_cache_time() {
    let setup = setup();
    let here = setup.keys.create(NewKey::default()).await.unwrap();
    let elsewhere = setup.keys.create(NewKey::default()).await.unwrap();
    for key in [&here, &elsewhere] {
        assert_eq!(rejection(&setup, key.expose()).await, None);
    }
    setup.keys.revoke(here.key.id, "leaked").await.unwrap();
    setup.store.inner.revoke(elsewhere.key.id, setup.clock.utc(), "leaked").await.unwrap();
    assert_eq!(rejection(&setup, here.expose()).await, Some(Rejection::Revoked));
    setup.clock.advance(secs(29));
    assert_eq!(rejection(&setup, elsewhere.expose()).await, None, "still remembered");
    setup.clock.advance(secs(1));
    assert_eq!(rejection(&setup, elsewhere.expose()).await, Some(Rejection::Revoked));
}

#[tokio::test]
async fn a_process_that_hears_of_a_revocation_can_forget_the_key() {
    let setup = setup();
    let key = setup.keys.create(NewKey::default()).await.unwrap();
    assert_eq!(rejection(&setup, key.expose()).await, None);
    setup.store.inner.revoke(key.key.id, setup.clock.utc(), "leaked").await.unwrap();
    setup.keys.authenticator().forget(key.key.id);
    assert_eq!(rejection(&setup, key.expose()).await, Some(Rejection::Revoked));
}

#[tokio::test]
async fn the_store_is_asked_once_per_cache_time_for_good_and_bad_keys_alike() {
    let setup = setup();
    let good = setup.keys.create(NewKey::default()).await.unwrap();
    let bad = setup_with(ApiKeyConfig::default()).keys.create(NewKey::default()).await.unwrap();
    // The same seed makes the same secret, but the id is another.
    assert_ne!(good.key.id, bad.key.id);
    for (text, expected) in [(good.expose(), None), (bad.expose(), Some(Rejection::Unknown))] {
        let before = finds(&setup);
        for _ in 0..5 {
            assert_eq!(rejection(&setup, text).await, expected);
        }
        assert_eq!(finds(&setup) - before, 1);
        setup.clock.advance(secs(30));
        assert_eq!(rejection(&setup, text).await, expected);
        assert_eq!(finds(&setup) - before, 2);
    }
}

#[tokio::test]
async fn a_flood_of_bad_keys_does_not_push_out_the_good_ones() {
    let mut config = ApiKeyConfig::default();
    config.negative_cache_size = 4;
    let setup = setup_with(config);
    let good = setup.keys.create(NewKey::default()).await.unwrap();
    assert_eq!(rejection(&setup, good.expose()).await, None);
    let stranger = setup_with(ApiKeyConfig::default());
    for _ in 0..50 {
        let bad = stranger.keys.create(NewKey::default()).await.unwrap();
        assert_eq!(rejection(&setup, bad.expose()).await, Some(Rejection::Unknown));
    }
    let before = finds(&setup);
    assert_eq!(rejection(&setup, good.expose()).await, None);
    assert_eq!(finds(&setup), before);
}

#[tokio::test]
async fn without_a_cache_every_request_asks_the_store() {
    let mut config = ApiKeyConfig::default();
    config.cache_ttl = Duration::ZERO;
    let setup = setup_with(config);
    let key = setup.keys.create(NewKey::default()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(rejection(&setup, key.expose()).await, None);
    }
    assert_eq!(finds(&setup), 3);
}

#[tokio::test]
async fn a_store_that_is_down_is_no_rejection_and_is_not_remembered() {
    let setup = setup();
    let key = setup.keys.create(NewKey::default()).await.unwrap();
    setup.store.broken.store(true, Ordering::SeqCst);
    let error = setup.keys.authenticator().authenticate(key.expose()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "apikey.store_failed"));
    setup.store.broken.store(false, Ordering::SeqCst);
    assert_eq!(rejection(&setup, key.expose()).await, None);
}

#[tokio::test]
async fn the_pepper_decides_and_the_database_alone_proves_nothing() {
    let mut config = ApiKeyConfig::default();
    config.pepper = Some("sixteen bytes at least".to_owned().into());
    let peppered = setup_with(config);
    let key = peppered.keys.create(NewKey::default()).await.unwrap();
    assert_eq!(rejection(&peppered, key.expose()).await, None);
    let bare = setup();
    let stored = peppered.store.find(key.key.id).await.unwrap().unwrap();
    bare.store.insert(&stored).await.unwrap();
    assert_eq!(rejection(&bare, key.expose()).await, Some(Rejection::Unknown));
}

#[tokio::test]
async fn last_uses_are_written_once_per_interval_and_survive_a_failing_store() {
    let setup = setup();
    let key = setup.keys.create(NewKey::default()).await.unwrap();
    let used = async || setup.keys.get(key.key.id).await.unwrap().last_used_at;
    let authenticator = setup.keys.authenticator();
    for _ in 0..100 {
        authenticator.authenticate(key.expose()).await.unwrap();
    }
    assert_eq!(used().await, None, "a request writes nothing");
    let first = setup.clock.utc();
    setup.store.broken.store(true, Ordering::SeqCst);
    assert!(authenticator.flush().await.is_err());
    setup.store.broken.store(false, Ordering::SeqCst);
    authenticator.flush().await.unwrap();
    authenticator.flush().await.unwrap();
    assert_eq!(setup.store.touches.load(Ordering::SeqCst), 1);
    assert_eq!(used().await, Some(first));
    setup.clock.advance(secs(60));
    authenticator.authenticate(key.expose()).await.unwrap();
    authenticator.flush().await.unwrap();
    assert_eq!(used().await, Some(setup.clock.utc()));
}

#[tokio::test]
async fn a_refused_key_is_told_with_its_reason_and_no_use_is_noted() {
    let setup = setup();
    let key = setup.keys.create(NewKey::default()).await.unwrap();
    setup.keys.revoke(key.key.id, "leaked").await.unwrap();
    setup.events.lock().unwrap().clear();
    rejection(&setup, key.expose()).await;
    rejection(&setup, "rt_nonsense").await;
    assert_eq!(
        *setup.events.lock().unwrap(),
        [
            KeyEvent::Rejected { id: Some(key.key.id), reason: Rejection::Revoked },
            KeyEvent::Rejected { id: None, reason: Rejection::Malformed },
        ]
    );
    setup.keys.authenticator().flush().await.unwrap();
    assert_eq!(setup.store.touches.load(Ordering::SeqCst), 0);
}
