//! The event log in this process's memory: the same laws, gone with the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::SharedClock;
use tokio::sync::Notify;

use crate::error::EventsError;
use crate::log::{
    Bounds, Claim, ClaimRequest, Claimed, EventLog, Failure, From, Lag, Lease, Parked, Settled, Stored,
    SubscriptionSpec, Verdict, counted, lost, reached,
};
use crate::message::{Message, slot};
use crate::publisher::{Publisher, Receipt};

/// How many events are kept unless told.
const CAPACITY: usize = 1_000_000;

/// A log in memory.
pub struct MemoryLog {
    state: Mutex<State>,
    clock: SharedClock,
    capacity: usize,
    rung: Notify,
}

#[derive(Default)]
struct State {
    topics: HashMap<String, Topic>,
    subscriptions: BTreeMap<String, Subscription>,
    events: usize,
    claims: u64,
}

#[derive(Default)]
struct Topic {
    newest: u64,
    pruned: u64,
    events: BTreeMap<u64, Kept>,
    identities: HashSet<String>,
}

struct Kept {
    stored: Stored,
    slot: u64,
}

struct Subscription {
    spec: SubscriptionSpec,
    cursors: Vec<Cursor>,
    retries: BTreeMap<u64, Waiting>,
}

#[derive(Clone, Debug, Default)]
struct Cursor {
    position: u64,
    fence: u64,
    lease_until: Option<i64>,
    /// When it was claimed last, as the number of that claim.
    claimed: u64,
    /// How many events the last claim handed out.
    handed: u64,
    /// How many events to hand out one by one.
    careful: u64,
    /// The one event handed out, which is to blame if the consumer is lost.
    suspect: Option<u64>,
}

struct Waiting {
    partition: u32,
    lane: Option<String>,
    attempts: u32,
    due: i64,
    parked: bool,
    failure: Option<Failure>,
}

impl MemoryLog {
    /// An empty log of at most a million events.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_capacity(clock, CAPACITY)
    }

    /// An empty log of at most so many events; what is published beyond is refused until some are pruned.
    pub fn with_capacity(clock: SharedClock, capacity: usize) -> Self {
        Self { state: Mutex::default(), clock, capacity, rung: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.clock.utc().as_microsecond()
    }
}

#[async_trait]
impl Publisher for MemoryLog {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let now = self.clock.utc();
        let mut state = self.lock();
        if state.events.saturating_add(messages.len()) > self.capacity {
            return Err(EventsError::Full("the memory log".to_owned()));
        }
        let mut receipts = Vec::with_capacity(messages.len());
        for message in messages {
            let topic = state.topics.entry(message.topic.clone()).or_default();
            if !topic.identities.insert(message.identity()) {
                receipts.push(Receipt::Duplicate);
                continue;
            }
            topic.newest += 1;
            let stored = Stored { position: topic.newest, published_at: now, message: message.clone() };
            topic.events.insert(topic.newest, Kept { stored, slot: slot(message) });
            state.events += 1;
            receipts.push(Receipt::New);
        }
        drop(state);
        self.rung.notify_waiters();
        Ok(receipts)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn read(&self, topic: &str, after: u64, max: u32) -> Result<Vec<Stored>, EventsError> {
        let state = self.lock();
        let Some(topic) = state.topics.get(topic) else { return Ok(Vec::new()) };
        if after < topic.pruned {
            return Err(EventsError::Gone(topic.pruned));
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let after = topic.events.range(after.saturating_add(1)..);
        Ok(after.take(max).map(|(_, kept)| kept.stored.clone()).collect())
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, EventsError> {
        let state = self.lock();
        let of = |topic: &Topic| Bounds { pruned: topic.pruned, newest: topic.newest };
        Ok(state.topics.get(topic).map(of).unwrap_or_default())
    }

    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<bool, EventsError> {
        let mut state = self.lock();
        if let Some(there) = state.subscriptions.get(&spec.name) {
            there.spec.same(spec)?;
            return Ok(false);
        }
        let newest = state.topics.get(&spec.topic).map_or(0, |topic| topic.newest);
        let position = match spec.from {
            From::Beginning => 0,
            From::End => newest,
            From::After(position) => position.min(newest),
        };
        let partitions = usize::try_from(spec.partitions).unwrap_or(1);
        let cursors = vec![Cursor { position, ..Cursor::default() }; partitions];
        let made = Subscription { spec: spec.clone(), cursors, retries: BTreeMap::new() };
        state.subscriptions.insert(spec.name.clone(), made);
        Ok(true)
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<bool, EventsError> {
        Ok(self.lock().subscriptions.remove(subscription).is_some())
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, EventsError> {
        let now = self.now();
        let mut state = self.lock();
        let State { topics, subscriptions, claims, .. } = &mut *state;
        let subscription = subscriptions.get_mut(&request.subscription);
        let subscription =
            subscription.ok_or_else(|| EventsError::NoSubscription(request.subscription.clone()))?;
        let none = Topic::default();
        let topic = topics.get(&subscription.spec.topic).unwrap_or(&none);
        let mut order: Vec<usize> = (0..subscription.cursors.len()).collect();
        order.sort_by_key(|part| subscription.cursors.get(*part).map(|cursor| cursor.claimed));
        for part in order {
            if let Some(mut claim) = subscription.claim_part(topic, part, request, now) {
                *claims += 1;
                if let Some(cursor) = subscription.cursors.get_mut(part) {
                    cursor.claimed = *claims;
                    cursor.fence += 1;
                    cursor.lease_until = Some(now.saturating_add(micros(request.lease)));
                    claim.lease.fence = cursor.fence;
                }
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, EventsError> {
        let now = self.now();
        let mut state = self.lock();
        let cursor = state.subscriptions.get_mut(&lease.subscription).and_then(|it| it.held(lease, now));
        let held = cursor.map(|cursor| cursor.lease_until = Some(now.saturating_add(micros(until))));
        Ok(held.is_some())
    }

    async fn settle(&self, claim: &Claim, settled: &[Settled]) -> Result<bool, EventsError> {
        let now = self.now();
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.get_mut(&claim.lease.subscription) else {
            return Ok(false);
        };
        let Some(cursor) = subscription.held(&claim.lease, now) else { return Ok(false) };
        cursor.lease_until = None;
        cursor.suspect = None;
        cursor.careful = cursor.careful.saturating_sub(1);
        cursor.position = reached(claim, settled, cursor.position);
        let through = cursor.position;
        for (event, verdict) in counted(claim, settled, through) {
            subscription.apply(claim.lease.partition, event, verdict, now);
        }
        Ok(true)
    }

    async fn parked(
        &self,
        subscription: &str,
        tenant: Option<&str>,
        after: u64,
        max: u32,
    ) -> Result<Vec<Parked>, EventsError> {
        let state = self.lock();
        let found = state.subscriptions.get(subscription);
        let found = found.ok_or_else(|| EventsError::NoSubscription(subscription.to_owned()))?;
        let topic = state.topics.get(&found.spec.topic);
        let parked = found.retries.range(after.saturating_add(1)..).filter(|(_, waiting)| waiting.parked);
        let parked = parked.filter_map(|(position, waiting)| {
            let stored = topic?.events.get(position)?.stored.clone();
            Some(Parked { stored, attempts: waiting.attempts, failure: waiting.failure.clone() })
        });
        let mine = |parked: &Parked| tenant.is_none_or(|tenant| parked.stored.message.tenant() == tenant);
        Ok(parked.filter(mine).take(usize::try_from(max).unwrap_or(usize::MAX)).collect())
    }

    async fn redrive(&self, subscription: &str, position: Option<u64>) -> Result<u64, EventsError> {
        let now = self.now();
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.get_mut(subscription) else {
            return Err(EventsError::NoSubscription(subscription.to_owned()));
        };
        let mut count = 0;
        for (at, waiting) in &mut subscription.retries {
            if waiting.parked && position.is_none_or(|position| position == *at) {
                (waiting.parked, waiting.attempts, waiting.due) = (false, 0, now);
                count += 1;
            }
        }
        drop(state);
        self.rung.notify_waiters();
        Ok(count)
    }

    async fn discard(&self, subscription: &str, position: u64) -> Result<bool, EventsError> {
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.get_mut(subscription) else {
            return Err(EventsError::NoSubscription(subscription.to_owned()));
        };
        let parked = subscription.retries.get(&position).is_some_and(|waiting| waiting.parked);
        Ok(parked && subscription.retries.remove(&position).is_some())
    }

    async fn rewind(&self, subscription: &str, after: u64) -> Result<(), EventsError> {
        let mut state = self.lock();
        let State { topics, subscriptions, .. } = &mut *state;
        let Some(found) = subscriptions.get_mut(subscription) else {
            return Err(EventsError::NoSubscription(subscription.to_owned()));
        };
        let pruned = topics.get(&found.spec.topic).map_or(0, |topic| topic.pruned);
        if after < pruned {
            return Err(EventsError::Gone(pruned));
        }
        found.retries.retain(|position, _| *position <= after);
        for cursor in &mut found.cursors {
            let (position, fence, claimed) = (cursor.position.min(after), cursor.fence + 1, cursor.claimed);
            *cursor = Cursor { position, fence, claimed, ..Cursor::default() };
        }
        drop(state);
        self.rung.notify_waiters();
        Ok(())
    }

    async fn lag(&self) -> Result<Vec<Lag>, EventsError> {
        let now = self.now();
        let state = self.lock();
        let none = Topic::default();
        let of = |subscription: &Subscription| {
            let topic = state.topics.get(&subscription.spec.topic).unwrap_or(&none);
            let unread = |kept: &&Kept| {
                let cursor = subscription.cursors.get(subscription.spec.part_of(kept.slot));
                cursor.is_some_and(|cursor| kept.stored.position > cursor.position)
            };
            let unread: Vec<&Kept> = topic.events.values().filter(unread).collect();
            let parked = subscription.retries.values().filter(|waiting| waiting.parked).count();
            let held = |cursor: &&Cursor| cursor.lease_until.is_some_and(|until| until >= now);
            Lag {
                subscription: subscription.spec.name.clone(),
                topic: subscription.spec.topic.clone(),
                unread: unread.len() as u64,
                oldest_unread: unread.first().map(|kept| kept.stored.published_at),
                retrying: (subscription.retries.len() - parked) as u64,
                parked: parked as u64,
                claimed: u32::try_from(subscription.cursors.iter().filter(held).count()).unwrap_or(u32::MAX),
                partitions: subscription.spec.partitions,
            }
        };
        Ok(state.subscriptions.values().map(of).collect())
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, EventsError> {
        let cutoff = self.now().saturating_sub(micros(keep));
        let mut state = self.lock();
        let State { topics, subscriptions, events, .. } = &mut *state;
        let mut left = usize::try_from(max).unwrap_or(usize::MAX);
        let before = *events;
        for (name, topic) in topics {
            let readers: Vec<&Subscription> =
                subscriptions.values().filter(|it| it.spec.topic == *name).collect();
            let floor = readers.iter().flat_map(|it| it.cursors.iter().map(|cursor| cursor.position)).min();
            let done = |position: u64| {
                floor.is_none_or(|floor| position <= floor)
                    && readers.iter().all(|reader| !reader.retries.contains_key(&position))
            };
            let old = topic.events.values().filter(|kept| {
                kept.stored.published_at.as_microsecond() < cutoff && done(kept.stored.position)
            });
            let old: Vec<u64> = old.map(|kept| kept.stored.position).take(left).collect();
            left -= old.len();
            for position in old {
                if let Some(kept) = topic.events.remove(&position) {
                    topic.identities.remove(&kept.stored.message.identity());
                }
                topic.pruned = topic.pruned.max(position);
                *events -= 1;
            }
        }
        Ok((before - *events) as u64)
    }

    fn rung(&self) -> &Notify {
        &self.rung
    }
}

impl Subscription {
    /// What there is to do in a partition nobody holds.
    fn claim_part(&mut self, topic: &Topic, part: usize, request: &ClaimRequest, now: i64) -> Option<Claim> {
        let cursor = self.cursors.get(part)?.clone();
        if cursor.lease_until.is_some_and(|until| until >= now) {
            return None;
        }
        let partition = u32::try_from(part).unwrap_or_default();
        if cursor.lease_until.is_some() {
            self.blame(topic, part, request.max_attempts, now);
        }
        let cursor = self.cursors.get(part)?.clone();
        let max =
            if cursor.careful > 0 { 1 } else { usize::try_from(request.max).unwrap_or(usize::MAX).max(1) };
        let again = self.due(partition, now).into_iter().take((max / 2).max(1));
        let mut events: Vec<Claimed> = again
            .filter_map(|(position, attempts)| {
                let stored = topic.events.get(&position)?.stored.clone();
                Some(Claimed { stored, attempt: attempts + 1, held: false, again: true })
            })
            .collect();
        let room = max - events.len().min(max);
        let fresh = topic.events.range(cursor.position + 1..).map(|(_, kept)| kept);
        let fresh: Vec<&Kept> =
            fresh.filter(|kept| self.spec.part_of(kept.slot) == part).take(room).collect();
        let through = match (room, fresh.last()) {
            (0, _) => cursor.position,
            (room, Some(last)) if fresh.len() == room => last.stored.position,
            _ => topic.newest.max(cursor.position),
        };
        events.extend(fresh.into_iter().map(|kept| Claimed {
            stored: kept.stored.clone(),
            attempt: 1,
            held: self.waits(&kept.stored.message),
            again: false,
        }));
        let cursor = self.cursors.get_mut(part)?;
        if events.is_empty() {
            cursor.position = through;
            return None;
        }
        cursor.handed = events.len() as u64;
        cursor.suspect = match &*events {
            [only] => Some(only.stored.position),
            _ => None,
        };
        let lease = Lease { subscription: self.spec.name.clone(), partition, fence: 0 };
        Some(Claim { lease, events, through })
    }

    /// A consumer was lost: its one event has failed, or its many are looked at one by one.
    fn blame(&mut self, topic: &Topic, part: usize, max_attempts: u32, now: i64) {
        let Some(cursor) = self.cursors.get_mut(part) else { return };
        cursor.lease_until = None;
        let Some(position) = cursor.suspect.take() else {
            cursor.careful = cursor.handed;
            return;
        };
        cursor.careful = cursor.careful.saturating_sub(1);
        cursor.position = cursor.position.max(position);
        let Some(kept) = topic.events.get(&position) else { return };
        let lane = kept.stored.message.lane();
        let partition = u32::try_from(part).unwrap_or_default();
        let waiting = self.retries.entry(position).or_insert_with(|| Waiting::new(partition, lane, now));
        waiting.attempts += 1;
        (waiting.due, waiting.parked, waiting.failure) =
            (now, waiting.attempts >= max_attempts, Some(lost()));
    }

    /// Events whose next attempt is due, each the first of its lane that waits.
    fn due(&self, partition: u32, now: i64) -> Vec<(u64, u32)> {
        let mut lanes = HashSet::new();
        let waiting = self.retries.iter().filter(|(_, it)| it.partition == partition && !it.parked);
        let first = waiting.filter(|(_, it)| it.lane.as_ref().is_none_or(|lane| lanes.insert(lane)));
        first.filter(|(_, it)| it.due <= now).map(|(position, it)| (*position, it.attempts)).collect()
    }

    fn waits(&self, message: &Message) -> bool {
        let lane = message.lane();
        lane.is_some() && self.retries.values().any(|waiting| !waiting.parked && waiting.lane == lane)
    }

    fn held(&mut self, lease: &Lease, now: i64) -> Option<&mut Cursor> {
        let cursor = self.cursors.get_mut(usize::try_from(lease.partition).ok()?)?;
        let holds = cursor.fence == lease.fence && cursor.lease_until.is_some_and(|until| until >= now);
        holds.then_some(cursor)
    }

    fn apply(&mut self, partition: u32, event: &Claimed, verdict: &Verdict, now: i64) {
        let position = event.stored.position;
        if *verdict == Verdict::Done {
            self.retries.remove(&position);
            return;
        }
        let lane = event.stored.message.lane();
        let waiting = self.retries.entry(position).or_insert_with(|| Waiting::new(partition, lane, now));
        match verdict {
            Verdict::Done | Verdict::Behind => {}
            Verdict::Retry(delay, failure) => {
                waiting.attempts = event.attempt;
                (waiting.due, waiting.failure) = (now.saturating_add(micros(*delay)), Some(failure.clone()));
            }
            Verdict::Park(failure) => {
                waiting.attempts = event.attempt;
                (waiting.parked, waiting.failure) = (true, Some(failure.clone()));
            }
        }
    }
}

impl Waiting {
    fn new(partition: u32, lane: Option<String>, due: i64) -> Self {
        Self { partition, lane, attempts: 0, due, parked: false, failure: None }
    }
}

impl SubscriptionSpec {
    fn part_of(&self, slot: u64) -> usize {
        usize::try_from(slot % u64::from(self.partitions)).unwrap_or_default()
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("events", &self.lock().events).finish_non_exhaustive()
    }
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
