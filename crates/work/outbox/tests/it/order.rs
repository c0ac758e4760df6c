//! Order per key under random failures, lost claims and parking, on memory and SQLite.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use runtime_kernel::ManualClock;
use runtime_outbox::store::{ClaimRequest, Failure, Settled, Verdict};
use runtime_outbox::{Channel, MemoryOutbox, OnParked, OutboxStore};

use super::common::message;

#[derive(Clone, Debug)]
enum Step {
    /// Adds messages of these keys.
    Add(Vec<u8>),
    /// Claims so many; each message is taken or not, and the claim settled or lost.
    Turn { max: u32, taken: Vec<u8>, lost: bool },
    /// An operator redrives what is parked.
    Redrive,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => proptest::collection::vec(0u8..5, 1..6).prop_map(Step::Add),
        4 => (1u32..8, proptest::collection::vec(0u8..10, 8), proptest::bool::weighted(0.15))
            .prop_map(|(max, taken, lost)| Step::Turn { max, taken, lost }),
        1 => Just(Step::Redrive),
    ];
    proptest::collection::vec(step, 1..40)
}

struct Play<'s> {
    store: &'s dyn OutboxStore,
    clock: &'s ManualClock,
    on_parked: OnParked,
    added: BTreeMap<String, Vec<u64>>,
    count: u64,
    /// What the sink took of each key, each message when it came first.
    taken: BTreeMap<String, Vec<u64>>,
    seen: HashSet<u64>,
    skipped: HashSet<u64>,
}

impl Play<'_> {
    async fn add(&mut self, keys: &[u8]) {
        let mut batch = Vec::new();
        for key in keys {
            self.count += 1;
            let key = format!("k{key}");
            batch.push(message(&self.count.to_string(), &key));
            self.added.entry(key).or_default().push(self.count);
        }
        self.store.add(&Channel::default(), &batch).await.unwrap();
    }

    /// One relay's turn; `false` when there was nothing to do.
    async fn turn(&mut self, max: u32, luck: &[u8], lost: bool) -> bool {
        let request = ClaimRequest {
            channel: Channel::default(),
            max,
            lease: Duration::from_secs(30),
            max_attempts: 3,
            on_parked: self.on_parked,
        };
        let Some(claim) = self.store.claim(&request).await.unwrap() else { return false };
        let (mut settled, mut failed) = (Vec::new(), HashSet::new());
        for (place, one) in claim.messages.iter().enumerate() {
            let (id, key) = (one.message.event.id().parse().unwrap(), one.message.event.key().unwrap());
            if failed.contains(key) {
                continue;
            }
            let luck = luck.get(place).copied().unwrap_or(9);
            let verdict = if luck >= 3 {
                if self.seen.insert(id) {
                    self.taken.entry(key.to_owned()).or_default().push(id);
                }
                Verdict::Sent
            } else {
                let failure = Failure { kind: "k".into(), code: "c".into(), message: "m".into() };
                let attempts = one.attempts + 1;
                failed.insert(key);
                if attempts >= 3 {
                    if self.on_parked == OnParked::Continue && !lost {
                        self.skipped.insert(id);
                    }
                    Verdict::Park { attempts, on_parked: self.on_parked, failure }
                } else {
                    Verdict::Retry { delay: Duration::from_secs(u64::from(luck)), attempts, failure }
                }
            };
            settled.push(Settled { seq: one.seq, verdict });
        }
        if lost {
            self.clock.advance(Duration::from_secs(31));
            self.note_parked().await;
        } else {
            assert!(self.store.settle(&claim.lease, &settled).await.unwrap());
        }
        true
    }

    /// A message whose relays were lost may have been parked behind our back.
    async fn note_parked(&mut self) {
        for parked in self.store.parked(&Channel::default(), None, 0, 1000).await.unwrap() {
            if !parked.holding {
                self.skipped.insert(parked.message.unwrap().event.id().parse().unwrap());
            }
        }
    }

    async fn play(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Add(keys) => self.add(keys).await,
                Step::Turn { max, taken, lost } => {
                    self.turn(*max, taken, *lost).await;
                }
                Step::Redrive => {
                    self.note_parked().await;
                    self.store.redrive(&Channel::default(), None, None).await.unwrap();
                }
            }
        }
        // The weather turns fine: everything goes.
        for _ in 0..5 {
            self.note_parked().await;
            self.store.redrive(&Channel::default(), None, None).await.unwrap();
            self.clock.advance(Duration::from_mins(1));
            while self.turn(7, &[], false).await {}
        }
        assert!(self.store.stats().await.unwrap().is_empty(), "nothing is left behind");
        for (key, added) in &self.added {
            let mut taken = self.taken.get(key).cloned().unwrap_or_default();
            let inorder: Vec<_> = taken.iter().copied().filter(|id| !self.skipped.contains(id)).collect();
            assert!(inorder.is_sorted(), "{key}: {taken:?}, parked {:?}", self.skipped);
            taken.sort_unstable();
            assert_eq!(&taken, added, "{key} lost something");
        }
    }
}

fn check(steps: &[Step], on_parked: OnParked, sqlite: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = ManualClock::new();
        let mut kept = None;
        let store: Arc<dyn OutboxStore> = if sqlite {
            file(&clock, &mut kept).await
        } else {
            Arc::new(MemoryOutbox::new(Arc::new(clock.clone())))
        };
        let mut play = Play {
            store: &*store,
            clock: &clock,
            on_parked,
            added: BTreeMap::new(),
            count: 0,
            taken: BTreeMap::new(),
            seen: HashSet::new(),
            skipped: HashSet::new(),
        };
        play.play(steps).await;
        assert!(on_parked == OnParked::Continue || play.skipped.is_empty(), "who holds skips nothing");
    });
}

#[cfg(feature = "sqlite")]
async fn file(clock: &ManualClock, kept: &mut Option<tempfile::TempDir>) -> Arc<dyn OutboxStore> {
    let (db, folder) = super::stores::sql::sqlite(Arc::new(clock.clone())).await;
    *kept = Some(folder);
    Arc::new(runtime_outbox::SqlOutbox::new(db))
}

#[cfg(not(feature = "sqlite"))]
async fn file(clock: &ManualClock, _: &mut Option<tempfile::TempDir>) -> Arc<dyn OutboxStore> {
    Arc::new(MemoryOutbox::new(Arc::new(clock.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_keeps_keys_in_order_through_failures(steps in steps(), hold: bool) {
        check(&steps, if hold { OnParked::Hold } else { OnParked::Continue }, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_keeps_keys_in_order_through_failures(steps in steps(), hold: bool) {
        check(&steps, if hold { OnParked::Hold } else { OnParked::Continue }, true);
    }
}
