//! What every [`RolloutStore`] promises, stated once. Each law takes an empty store and panics when broken.

#![expect(clippy::unwrap_used, reason = "laws are tests")]

use std::sync::Arc;

use runtime_kernel::Timestamp;

use crate::analysis::Counts;
use crate::state::{Kind, Plan, Rollout, Side};
use crate::store::{Evidence, RolloutStore};

/// Every law, each on a store of its own.
pub async fn all<S, F>(mut fresh: F)
where
    S: RolloutStore,
    F: AsyncFnMut() -> S,
{
    what_is_put_is_got(&fresh().await).await;
    of_racing_writers_one_writes(Arc::new(fresh().await)).await;
    evidence_adds_up_and_belongs_to_its_generation(Arc::new(fresh().await)).await;
}

fn rollout(name: &str, revision: u64) -> Rollout {
    let mut rollout = Rollout::new(name, Kind::Canary, Plan::default(), Timestamp::UNIX_EPOCH);
    rollout.revision = revision;
    rollout.pins.insert("user:1\u{e9} \"x\"".to_owned(), Side::Canary);
    rollout
}

async fn what_is_put_is_got<S: RolloutStore>(store: &S) {
    assert_eq!(store.get("b").await.unwrap(), None);
    assert!(store.put(&rollout("b", 1)).await.unwrap() && store.put(&rollout("a", 1)).await.unwrap());
    assert_eq!(store.get("b").await.unwrap(), Some(rollout("b", 1)));
    assert_eq!(store.list().await.unwrap(), [rollout("a", 1), rollout("b", 1)]);
    for (revision, written) in [(1, false), (3, false), (2, true), (2, false)] {
        assert_eq!(store.put(&rollout("b", revision)).await.unwrap(), written, "{revision}");
    }
}

async fn of_racing_writers_one_writes<S: RolloutStore>(store: Arc<S>) {
    for revision in 1..=3 {
        let writers: Vec<_> = (0..8)
            .map(|weight| {
                let store = Arc::clone(&store);
                let mut own = rollout("a", revision);
                own.weight = weight;
                tokio::spawn(async move { store.put(&own).await.unwrap().then_some(weight) })
            })
            .collect();
        let mut wrote = Vec::new();
        for writer in writers {
            wrote.extend(writer.await.unwrap());
        }
        let stored = store.get("a").await.unwrap().unwrap();
        assert_eq!((wrote, stored.revision), (vec![stored.weight], revision));
    }
}

async fn evidence_adds_up_and_belongs_to_its_generation<S: RolloutStore>(store: Arc<S>) {
    let seen = |requests| {
        let counts = Counts { requests, failed: requests / 2, slow: 1 };
        Evidence { primary: counts, canary: Counts { failed: 0, ..counts } }
    };
    assert_eq!(store.add("a", 0, seen(4)).await.unwrap(), Evidence::default(), "there is no such rollout");
    assert!(store.put(&rollout("a", 1)).await.unwrap());
    let adders: Vec<_> = (0..10)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.add("a", 0, seen(4)).await.unwrap() })
        })
        .collect();
    for adder in adders {
        adder.await.unwrap();
    }
    let all = store.add("a", 0, Evidence::default()).await.unwrap();
    assert_eq!(all.primary, Counts { requests: 40, failed: 20, slow: 10 });
    assert_eq!(all.canary, Counts { requests: 40, failed: 0, slow: 10 });
    let mut next = rollout("a", 2);
    next.generation = 1;
    assert!(store.put(&next).await.unwrap());
    assert_eq!(store.add("a", 0, seen(4)).await.unwrap(), Evidence::default(), "that generation is over");
    assert_eq!(store.add("a", 1, seen(2)).await.unwrap().primary.requests, 2);
}
