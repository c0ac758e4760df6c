//! Making, listing, rotating and revoking keys; what is never shown.

use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use runtime_apikey::{
    ApiKeyConfig, ApiKeys, KeyError, KeyEvent, KeyFilter, KeyStore, Limits, MemoryKeyStore, NewKey, PATTERN,
    PresentedKey,
};
use runtime_kernel::{Classify, Clock, Name, Reach, SystemClock};

use super::setup::{setup, setup_with};

type Spoil = dyn Fn(&mut NewKey);

fn name(text: &str) -> Option<Name> {
    Name::new(text).ok()
}

#[tokio::test]
async fn a_key_is_found_by_leak_scanners_and_carries_its_checksum() {
    let pattern = Regex::new(PATTERN).unwrap();
    for env in [None, Some("live"), Some("eu1")] {
        let mut config = ApiKeyConfig::default();
        config.env = env.map(ToOwned::to_owned);
        let issued = setup_with(config).keys.create(NewKey::new("test", ["jobs:read"])).await.unwrap();
        let leaked = format!("curl -H 'authorization: Bearer {}' https://x", issued.expose());
        assert_eq!(pattern.find(&leaked).unwrap().as_str(), issued.expose(), "{env:?}");
        assert_eq!(PresentedKey::parse(issued.expose()).unwrap().id(), issued.key.id);
    }
}

#[tokio::test]
async fn no_two_keys_share_a_secret_and_the_operating_system_seeds_them() {
    let build = || {
        ApiKeys::builder(Arc::new(MemoryKeyStore::new()), SystemClock::shared(), ApiKeyConfig::default())
            .build()
            .unwrap()
    };
    let mut seen = std::collections::HashSet::new();
    for keys in [build(), build()] {
        for _ in 0..50 {
            assert!(seen.insert(keys.create(NewKey::default()).await.unwrap().expose()[25..68].to_owned()));
        }
    }
}

#[tokio::test]
async fn the_plain_text_is_shown_once_and_is_nowhere_else() {
    let setup = setup();
    let issued = setup.keys.create(NewKey::new("test", ["*"])).await.unwrap();
    let text = issued.expose().to_owned();
    let (secret, tail) = (&text[25..68], &text[text.len() - 4..]);
    assert_eq!(issued.key.to_string(), format!("rt_…{tail}"));
    let stored = setup.store.find(issued.key.id).await.unwrap().unwrap();
    let presented = PresentedKey::parse(&text).unwrap();
    let list = setup.keys.list(&KeyFilter::all()).await.unwrap();
    for shown in [
        format!("{issued:?}"),
        format!("{stored:?}"),
        format!("{presented:?}"),
        format!("{list:?}"),
        serde_json::to_string(&list).unwrap(),
        format!("{:?}", setup.events.lock().unwrap()),
        format!("{:?}", setup.keys),
    ] {
        assert!(!shown.contains(secret) && !shown.contains(&text), "{shown}");
    }
    assert!(!stored.hash.as_bytes().iter().all(|byte| *byte == 0));
    assert!(!String::from_utf8_lossy(stored.hash.as_bytes()).contains(secret));
}

#[tokio::test]
async fn what_cannot_be_a_key_is_refused_with_the_field_named() {
    let setup = setup();
    let now = setup.clock.utc();
    let wrong: [(&str, Box<Spoil>); 14] = [
        ("description", Box::new(|new| new.description = "x".repeat(201))),
        ("description", Box::new(|new| new.description = "two\nlines".to_owned())),
        ("created_by", Box::new(|new| new.created_by = Some("\u{7}".to_owned()))),
        ("env", Box::new(|new| new.env = Some("Live".to_owned()))),
        ("env", Box::new(|new| new.env = Some(String::new()))),
        ("scopes", Box::new(|new| new.scopes = vec!["a b".into()])),
        ("scopes", Box::new(|new| new.scopes = vec!["".into()])),
        ("scopes", Box::new(|new| new.scopes = vec!["a".into(); 65])),
        ("tenant", Box::new(|new| new.tenant = name("acme"))),
        ("org", Box::new(|new| (new.realm, new.org) = (name("main"), name("sales")))),
        ("reach", Box::new(|new| new.reach = Reach::Realm)),
        ("limits", Box::new(|new| new.limits = Some(Limits { requests: 0, per: Duration::from_secs(1) }))),
        ("expires_at", Box::new(move |new| new.expires_at = Some(now))),
        (
            "expires_at",
            Box::new(move |new| {
                let later = now.saturating_add(Duration::from_secs(9));
                (new.not_before, new.expires_at) = (Some(later), Some(later));
            }),
        ),
    ];
    for (field, spoil) in wrong {
        let mut new = NewKey::new("test", ["jobs:read"]);
        spoil(&mut new);
        match setup.keys.create(new).await {
            Err(KeyError::Invalid { key, .. }) => assert_eq!(key, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert!(setup.keys.list(&KeyFilter::all()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_the_key_named() {
    type Spoil = fn(&mut ApiKeyConfig);
    let wrong: [(&str, Spoil); 5] = [
        ("env", |config| config.env = Some("no good".to_owned())),
        ("pepper", |config| config.pepper = Some("short".to_owned().into())),
        ("cache_ttl", |config| config.cache_ttl = Duration::from_hours(2)),
        ("cache_size", |config| config.cache_size = 2_000_000),
        ("last_used_interval", |config| config.last_used_interval = Duration::ZERO),
    ];
    for (expected, spoil) in wrong {
        let mut config = ApiKeyConfig::default();
        spoil(&mut config);
        let built = ApiKeys::builder(Arc::new(MemoryKeyStore::new()), SystemClock::shared(), config).build();
        assert!(matches!(built, Err(KeyError::Invalid { key, .. }) if key == expected), "{expected}");
    }
}

#[tokio::test]
async fn the_first_administrator_is_made_once_and_may_do_everything() {
    let setup = setup();
    let first = setup.keys.ensure_admin().await.unwrap().unwrap();
    assert!(setup.keys.ensure_admin().await.unwrap().is_none());
    let verified = setup.keys.authenticator().authenticate(first.expose()).await.unwrap();
    assert!(verified.principal.allows("anything:at-all"));
    assert_eq!(verified.principal.reach, Reach::Everywhere);
    setup.keys.revoke(first.key.id, "done").await.unwrap();
    assert!(setup.keys.ensure_admin().await.unwrap().is_none(), "a revoked first key is still a first key");
}

#[tokio::test]
async fn every_change_is_told_and_unknown_keys_are_not_found() {
    let setup = setup();
    let issued = setup.keys.create(NewKey::new("test", ["*"])).await.unwrap();
    let id = issued.key.id;
    let rotated = setup.keys.rotate(id, Duration::ZERO).await.unwrap();
    let revoked = setup.keys.revoke(id, "left the company").await.unwrap();
    assert_eq!(
        *setup.events.lock().unwrap(),
        [KeyEvent::Issued(issued.key), KeyEvent::Rotated(rotated.key), KeyEvent::Revoked(revoked)]
    );
    assert!(matches!(setup.keys.rotate(id, Duration::ZERO).await, Err(KeyError::Revoked(_))));
    let nobody = runtime_apikey::KeyId::new(&setup.clock);
    assert_eq!(setup.keys.get(nobody).await.unwrap_err().code(), "apikey.not_found");
    assert!(matches!(setup.keys.rotate(nobody, Duration::ZERO).await, Err(KeyError::NotFound(_))));
    assert!(matches!(
        setup.keys.rotate(nobody, Duration::from_hours(24 * 91)).await,
        Err(KeyError::Invalid { .. })
    ));
    assert!(matches!(setup.keys.revoke(nobody, "x").await, Err(KeyError::NotFound(_))));
    assert!(matches!(setup.keys.revoke(nobody, &"x".repeat(201)).await, Err(KeyError::Invalid { .. })));
}
