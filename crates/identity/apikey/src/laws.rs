//! What every [`KeyStore`] promises, stated once. Each law takes a store with no keys in it and panics when broken.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Clock, ManualClock, Name, Reach, Timestamp};

use crate::{ApiKey, KeyError, KeyFilter, KeyId, KeyStore, Limits, NewKey, Rotation, SecretHash, StoredKey};

/// Every law, each on a store of its own.
pub async fn all<S, F>(mut fresh: F)
where
    S: KeyStore,
    F: AsyncFnMut() -> S,
{
    what_is_written_is_read(&fresh().await).await;
    an_id_is_taken_once(&fresh().await).await;
    the_first_key_is_made_once(Arc::new(fresh().await)).await;
    lists_are_ordered_filtered_and_paged(&fresh().await).await;
    of_racing_rotations_one_wins(Arc::new(fresh().await)).await;
    rotation_keeps_one_previous_secret(&fresh().await).await;
    revocation_is_final(&fresh().await).await;
    last_uses_never_go_back(&fresh().await).await;
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn name(text: &str) -> Option<Name> {
    Name::new(text).ok()
}

fn hash(byte: u8) -> SecretHash {
    SecretHash::from_bytes([byte; 32])
}

fn key(clock: &ManualClock, change: impl FnOnce(&mut NewKey)) -> StoredKey {
    clock.advance(Duration::from_millis(1));
    let mut new = NewKey::new("a key", ["jobs:write", "keys:*"]);
    change(&mut new);
    let key = ApiKey {
        id: KeyId::new(clock),
        description: new.description,
        env: new.env,
        hint: "abcd".to_owned(),
        scopes: new.scopes,
        realm: new.realm,
        tenant: new.tenant,
        org: new.org,
        reach: new.reach,
        limits: new.limits,
        created_at: clock.utc(),
        created_by: new.created_by,
        not_before: new.not_before,
        expires_at: new.expires_at,
        last_used_at: None,
        rotated_at: None,
        overlap_until: None,
        revoked_at: None,
        revoke_reason: None,
    };
    StoredKey { key, hash: hash(1), previous: None, generation: 0 }
}

fn rotation(generation: u32, byte: u8, overlap_until: Option<Timestamp>) -> Rotation {
    Rotation { hash: hash(byte), hint: format!("h{byte:03}"), at: at(10), overlap_until, generation }
}

/// A key comes back exactly as it was written, every field of it.
pub async fn what_is_written_is_read(store: &impl KeyStore) {
    let clock = ManualClock::new();
    let plain = key(&clock, |_| {});
    let full = key(&clock, |new| {
        "quotes ' \" and ü".clone_into(&mut new.description);
        new.env = Some("live".to_owned());
        new.realm = name("main");
        new.tenant = name("acme");
        new.org = name("sales");
        new.reach = Reach::Tenants(name("globex").into_iter().collect());
        new.limits = Some(Limits { requests: 100, per: Duration::from_mins(1) });
        new.created_by = Some("cli".to_owned());
        new.not_before = Some(at(1));
        new.expires_at = Some(at(1_000));
    });
    for stored in [&plain, &full] {
        store.insert(stored).await.unwrap();
        assert_eq!(store.find(stored.key.id).await.unwrap().as_ref(), Some(stored));
    }
    assert_eq!(store.find(KeyId::new(&clock)).await.unwrap(), None);
}

/// An id is taken once; the first key stays as it is.
pub async fn an_id_is_taken_once(store: &impl KeyStore) {
    let first = key(&ManualClock::new(), |_| {});
    store.insert(&first).await.unwrap();
    let second = StoredKey { hash: hash(9), ..first.clone() };
    assert!(matches!(store.insert(&second).await, Err(KeyError::Duplicate(id)) if id == first.key.id));
    assert_eq!(store.find(first.key.id).await.unwrap(), Some(first));
}

/// Of sixteen that want to make the first key one does, and once there is a key, revoked or not, nobody does.
pub async fn the_first_key_is_made_once(store: Arc<impl KeyStore>) {
    let clock = ManualClock::new();
    let racers: Vec<_> = (0..16)
        .map(|_| {
            let (store, stored) = (Arc::clone(&store), key(&clock, |_| {}));
            tokio::spawn(async move { store.insert_first(&stored).await.unwrap() })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        winners += usize::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
    let all = store.list(&KeyFilter::all()).await.unwrap();
    assert_eq!(all.len(), 1);
    store.revoke(all[0].id, at(1), "gone").await.unwrap();
    assert!(!store.insert_first(&key(&clock, |_| {})).await.unwrap());
}

/// Lists come in the order keys were made, narrowed by realm, tenant and revocation, in pages.
pub async fn lists_are_ordered_filtered_and_paged(store: &impl KeyStore) {
    let clock = ManualClock::new();
    let mut ids = Vec::new();
    for (realm, tenant) in [("main", "acme"), ("main", "globex"), ("other", "acme"), ("main", "acme")] {
        let stored = key(&clock, |new| (new.realm, new.tenant) = (name(realm), name(tenant)));
        store.insert(&stored).await.unwrap();
        ids.push(stored.key.id);
    }
    store.revoke(ids[3], at(1), "gone").await.unwrap();
    let list = async |filter: KeyFilter| -> Vec<KeyId> {
        store.list(&filter).await.unwrap().into_iter().map(|key| key.id).collect()
    };
    assert_eq!(list(KeyFilter::all()).await, ids);
    assert_eq!(list(KeyFilter::default()).await, ids[..3]);
    let main = KeyFilter { realm: name("main"), ..KeyFilter::all() };
    assert_eq!(list(main.clone()).await, [ids[0], ids[1], ids[3]]);
    assert_eq!(list(KeyFilter { tenant: name("acme"), ..main.clone() }).await, [ids[0], ids[3]]);
    assert_eq!(list(KeyFilter { tenant: name("acme"), ..KeyFilter::default() }).await, [ids[0], ids[2]]);
    assert_eq!(list(KeyFilter { limit: Some(2), ..KeyFilter::all() }).await, ids[..2]);
    assert_eq!(list(KeyFilter { limit: Some(2), after: Some(ids[1]), ..KeyFilter::all() }).await, ids[2..]);
    assert_eq!(list(KeyFilter { after: Some(ids[3]), ..KeyFilter::all() }).await, []);
    assert_eq!(list(KeyFilter { realm: name("nowhere"), ..KeyFilter::all() }).await, []);
}

/// Of rotations that start from the same generation one wins, and the others are told so.
pub async fn of_racing_rotations_one_wins(store: Arc<impl KeyStore>) {
    let stored = key(&ManualClock::new(), |_| {});
    let id = stored.key.id;
    store.insert(&stored).await.unwrap();
    let racers: Vec<_> = (2..10u8)
        .map(|byte| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { (byte, store.rotate(id, &rotation(0, byte, None)).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            (byte, Ok(_)) => winners.push(byte),
            (_, Err(error)) => assert!(matches!(error, KeyError::Raced(raced) if raced == id), "{error:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let now = store.find(id).await.unwrap().unwrap();
    assert_eq!((now.hash, now.generation), (hash(winners[0]), 1));
}

/// A rotation makes the present secret the previous one, if it may live on, and drops the one before.
pub async fn rotation_keeps_one_previous_secret(store: &impl KeyStore) {
    let stored = key(&ManualClock::new(), |_| {});
    let id = stored.key.id;
    store.insert(&stored).await.unwrap();
    let shown = store.rotate(id, &rotation(0, 2, Some(at(60)))).await.unwrap();
    assert_eq!(
        (shown.hint.as_str(), shown.rotated_at, shown.overlap_until),
        ("h002", Some(at(10)), Some(at(60)))
    );
    let now = store.find(id).await.unwrap().unwrap();
    assert_eq!((now.hash, now.previous, now.generation), (hash(2), Some(hash(1)), 1));
    assert_eq!(now.key, shown);
    store.rotate(id, &rotation(1, 3, Some(at(90)))).await.unwrap();
    assert_eq!(store.find(id).await.unwrap().unwrap().previous, Some(hash(2)));
    store.rotate(id, &rotation(2, 4, None)).await.unwrap();
    let now = store.find(id).await.unwrap().unwrap();
    assert_eq!((now.hash, now.previous, now.key.overlap_until), (hash(4), None, None));
    let nobody = KeyId::new(&ManualClock::new());
    assert!(matches!(store.rotate(nobody, &rotation(0, 5, None)).await, Err(KeyError::NotFound(_))));
}

/// A revoked key keeps its first time and reason and cannot be rotated back to life.
pub async fn revocation_is_final(store: &impl KeyStore) {
    let stored = key(&ManualClock::new(), |_| {});
    let id = stored.key.id;
    store.insert(&stored).await.unwrap();
    let first = store.revoke(id, at(5), "leaked").await.unwrap();
    assert_eq!((first.revoked_at, first.revoke_reason.as_deref()), (Some(at(5)), Some("leaked")));
    assert_eq!(store.revoke(id, at(9), "again").await.unwrap(), first);
    assert_eq!(store.find(id).await.unwrap().unwrap().key, first);
    assert!(matches!(store.rotate(id, &rotation(0, 2, None)).await, Err(KeyError::Revoked(_))));
    let nobody = KeyId::new(&ManualClock::new());
    assert!(matches!(store.revoke(nobody, at(5), "x").await, Err(KeyError::NotFound(_))));
}

/// A last use is noted, never moved back, and one of a key that is gone does no harm.
pub async fn last_uses_never_go_back(store: &impl KeyStore) {
    let clock = ManualClock::new();
    let (one, two) = (key(&clock, |_| {}), key(&clock, |_| {}));
    store.insert(&one).await.unwrap();
    store.insert(&two).await.unwrap();
    store.touch(&[(two.key.id, at(20)), (KeyId::new(&clock), at(20)), (one.key.id, at(10))]).await.unwrap();
    store.touch(&[(one.key.id, at(30)), (two.key.id, at(5))]).await.unwrap();
    store.touch(&[]).await.unwrap();
    for (id, expected) in [(one.key.id, at(30)), (two.key.id, at(20))] {
        assert_eq!(store.find(id).await.unwrap().unwrap().key.last_used_at, Some(expected));
    }
}
