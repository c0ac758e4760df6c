//! The outbox in this process's memory: the same laws, gone with the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::Message;
use runtime_kernel::units::ByteSize;
use runtime_kernel::{SharedClock, Timestamp};
use tokio::sync::Notify;

use crate::config::OnParked;
use crate::error::OutboxError;
use crate::row::{BEHIND, HOLDING, PARKED, READY, RETRYING, lane, shard, texts};
use crate::store::{
    CLAIM_SHARDS, Channel, ChannelStats, Claim, ClaimRequest, Claimed, Failure, Lease, OutboxStore, Parked,
    SHARDS, Settled, Verdict,
};

/// How many unsent messages are kept unless told.
const CAPACITY: usize = 100_000;

/// An outbox in memory, for tests and for services without a database: it has no transactions to be part of.
///
/// Sent messages are not kept.
pub struct MemoryOutbox {
    state: Mutex<State>,
    clock: SharedClock,
    capacity: usize,
    max_message: usize,
    rung: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    rows: BTreeMap<u64, Row>,
    shards: HashMap<(Channel, u32), Shard>,
}

struct Row {
    channel: Channel,
    shard: u32,
    lane: Option<String>,
    message: Message,
    created_at: i64,
    state: i64,
    attempts: u32,
    due_at: i64,
    failure: Option<Failure>,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    fence: u64,
    lease_until: Option<i64>,
    claimed: u64,
    handed: usize,
    careful: usize,
    suspect: Option<u64>,
}

impl MemoryOutbox {
    /// An empty outbox of at most a hundred thousand messages.
    pub fn new(clock: SharedClock) -> Self {
        Self::with_capacity(clock, CAPACITY)
    }

    /// An empty outbox of at most so many messages; what is added beyond is refused until some are sent.
    pub fn with_capacity(clock: SharedClock, capacity: usize) -> Self {
        let max_message = ByteSize::mib(1).as_usize();
        Self { state: Mutex::default(), clock, capacity, max_message, rung: Notify::new() }
    }

    /// Refuses messages whose event is larger as JSON. 1 MiB unless told.
    #[must_use]
    pub fn with_max_message(mut self, limit: ByteSize) -> Self {
        self.max_message = limit.as_usize();
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.clock.utc().as_microsecond()
    }
}

impl State {
    /// Shards that nobody holds and that have something to send, those longest without a claim first.
    fn find(&self, now: i64, channel: &Channel) -> Vec<u32> {
        let ready: HashSet<u32> = self
            .rows
            .values()
            .filter(|row| row.channel == *channel && row.is_due(now))
            .map(|row| row.shard)
            .collect();
        let of = |shard: u32| self.shards.get(&(channel.clone(), shard)).cloned().unwrap_or_default();
        let mut found: Vec<(u64, u32)> = (0..SHARDS)
            .filter(|shard| ready.contains(shard))
            .map(|shard| (of(shard), shard))
            .filter(|(held, _)| held.lease_until.is_none_or(|until| until < now))
            .map(|(held, shard)| (held.claimed, shard))
            .collect();
        found.sort_unstable();
        found.into_iter().take(CLAIM_SHARDS).map(|(_, shard)| shard).collect()
    }

    /// A relay was lost: its one message has failed, or its many are looked at one by one.
    fn blame(&mut self, now: i64, shard: u32, request: &ClaimRequest) {
        let held = self.shards.entry((request.channel.clone(), shard)).or_default();
        if held.lease_until.take().is_none() {
            return;
        }
        held.fence += 1;
        let handed = std::mem::take(&mut held.handed);
        let Some(seq) = held.suspect.take() else {
            held.careful = held.careful.max(handed);
            return;
        };
        held.careful = held.careful.saturating_sub(1);
        let Some(row) = self.rows.get_mut(&seq).filter(|row| matches!(row.state, READY | RETRYING)) else {
            return;
        };
        row.attempts += 1;
        row.due_at = now;
        row.failure = Some(Failure::lost());
        let park = row.attempts >= request.max_attempts;
        row.state = if park { set_aside(request.on_parked) } else { RETRYING };
        if row.state == PARKED {
            let lane = row.lane.clone();
            self.release(&request.channel, lane);
        }
    }

    /// What can be sent of a shard: retries that are due, at most half of it, and what is new.
    fn read(&mut self, now: i64, shard: u32, request: &ClaimRequest, room: usize) -> Vec<Claimed> {
        let mine = |row: &Row| row.channel == request.channel && row.shard == shard;
        let blocked: HashSet<String> = self
            .rows
            .values()
            .filter(|row| mine(row) && matches!(row.state, RETRYING | HOLDING))
            .filter_map(|row| row.lane.clone())
            .collect();
        for row in self.rows.values_mut().filter(|row| mine(row) && row.state == READY) {
            if row.lane.as_ref().is_some_and(|lane| blocked.contains(lane)) {
                row.state = BEHIND;
            }
        }
        let mut again: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| mine(row) && row.state == RETRYING && row.is_due(now))
            .collect();
        again.sort_by_key(|(seq, row)| (row.due_at, **seq));
        again.truncate((room / 2).max(1));
        let fresh = self.rows.iter().filter(|(_, row)| mine(row) && row.state == READY);
        again.into_iter().chain(fresh).take(room).map(|(seq, row)| row.claimed(*seq)).collect()
    }

    fn release(&mut self, channel: &Channel, lane: Option<String>) {
        let Some(lane) = lane else { return };
        for row in self.rows.values_mut() {
            if row.channel == *channel && row.state == BEHIND && row.lane.as_ref() == Some(&lane) {
                row.state = READY;
            }
        }
    }

    fn holds(&self, lease: &Lease, shard: u32) -> bool {
        let held = self.shards.get(&(lease.channel.clone(), shard));
        held.is_some_and(|held| held.fence == lease.fence && held.lease_until.is_some())
    }

    fn settle_one(&mut self, now: i64, lease: &Lease, one: &Settled) {
        let held: Vec<u32> = lease.shards.iter().copied().filter(|shard| self.holds(lease, *shard)).collect();
        let Some(row) = self.rows.get_mut(&one.seq) else { return };
        if !held.contains(&row.shard) || !matches!(row.state, READY | RETRYING) {
            return;
        }
        let lane = row.lane.clone();
        match &one.verdict {
            Verdict::Sent => {
                self.rows.remove(&one.seq);
                self.release(&lease.channel, lane);
            }
            Verdict::Retry { delay, attempts, failure } => {
                row.state = RETRYING;
                row.attempts = *attempts;
                row.due_at = now.saturating_add(micros(*delay));
                row.failure = Some(failure.clone());
            }
            Verdict::Park { attempts, on_parked, failure } => {
                row.state = set_aside(*on_parked);
                row.attempts = *attempts;
                row.failure = Some(failure.clone());
                if row.state == PARKED {
                    self.release(&lease.channel, lane);
                }
            }
        }
    }
}

impl Row {
    fn is_due(&self, now: i64) -> bool {
        self.state == READY || (self.state == RETRYING && self.due_at <= now)
    }

    fn is_parked(&self, channel: &Channel, tenant: Option<&str>) -> bool {
        self.channel == *channel
            && matches!(self.state, PARKED | HOLDING)
            && tenant.is_none_or(|tenant| self.message.tenant() == tenant)
    }

    fn claimed(&self, seq: u64) -> Claimed {
        Claimed {
            seq,
            created_at: timestamp(self.created_at),
            attempts: self.attempts,
            again: self.state == RETRYING,
            message: self.message.clone(),
        }
    }
}

#[async_trait]
impl OutboxStore for MemoryOutbox {
    async fn add(&self, channel: &Channel, messages: &[Message]) -> Result<(), OutboxError> {
        for message in messages {
            texts(message, self.max_message)?;
        }
        let now = self.now();
        let mut state = self.lock();
        if state.rows.len().saturating_add(messages.len()) > self.capacity {
            return Err(OutboxError::Full);
        }
        for message in messages {
            state.next += 1;
            let seq = state.next;
            let mut message = message.clone();
            message.context.deadline = None;
            let row = Row {
                channel: channel.clone(),
                shard: shard(&message),
                lane: lane(&message),
                message,
                created_at: now,
                state: READY,
                attempts: 0,
                due_at: 0,
                failure: None,
            };
            state.rows.insert(seq, row);
        }
        drop(state);
        self.rung.notify_waiters();
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, OutboxError> {
        let now = self.now();
        let most = usize::try_from(request.max.max(1)).unwrap_or(usize::MAX);
        let mut state = self.lock();
        let (mut messages, mut taken) = (Vec::new(), Vec::new());
        for shard in state.find(now, &request.channel) {
            state.blame(now, shard, request);
            let key = (request.channel.clone(), shard);
            let careful = state.shards.get(&key).is_some_and(|held| held.careful > 0);
            let room = if careful { usize::from(messages.is_empty()) } else { most - messages.len() };
            let found = if room == 0 { Vec::new() } else { state.read(now, shard, request, room) };
            if found.is_empty() {
                continue;
            }
            taken.push((shard, found.len()));
            messages.extend(found);
            if careful || messages.len() >= most {
                break;
            }
        }
        let Some(first) = messages.first().map(|first: &Claimed| first.seq) else { return Ok(None) };
        let newest = state.shards.values().map(|shard| shard.claimed).max().unwrap_or_default();
        let fence = state.shards.values().map(|shard| shard.fence).max().unwrap_or_default() + 1;
        for (shard, handed) in &taken {
            let held = state.shards.entry((request.channel.clone(), *shard)).or_default();
            held.fence = fence;
            held.lease_until = Some(now.saturating_add(micros(request.lease)));
            held.claimed = newest + 1;
            held.handed = *handed;
            held.suspect = Some(first).filter(|_| messages.len() == 1);
        }
        let shards = taken.into_iter().map(|(shard, _)| shard).collect();
        let lease = Lease { channel: request.channel.clone(), shards, fence };
        Ok(Some(Claim { lease, messages }))
    }

    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, OutboxError> {
        let until = self.now().saturating_add(micros(until));
        let mut state = self.lock();
        let mut all = true;
        for shard in &lease.shards {
            if !state.holds(lease, *shard) {
                all = false;
            } else if let Some(held) = state.shards.get_mut(&(lease.channel.clone(), *shard)) {
                held.lease_until = Some(until);
            }
        }
        Ok(all)
    }

    async fn settle(&self, lease: &Lease, settled: &[Settled]) -> Result<bool, OutboxError> {
        let now = self.now();
        let mut state = self.lock();
        for one in settled {
            state.settle_one(now, lease, one);
        }
        let mut all = true;
        for shard in &lease.shards {
            if !state.holds(lease, *shard) {
                all = false;
            } else if let Some(held) = state.shards.get_mut(&(lease.channel.clone(), *shard)) {
                held.lease_until = None;
                held.suspect = None;
                held.careful = held.careful.saturating_sub(std::mem::take(&mut held.handed));
            }
        }
        Ok(all)
    }

    async fn parked(
        &self,
        channel: &Channel,
        tenant: Option<&str>,
        after: u64,
        max: u32,
    ) -> Result<Vec<Parked>, OutboxError> {
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        let state = self.lock();
        let parked = state.rows.iter().filter(|(seq, row)| **seq > after && row.is_parked(channel, tenant));
        let parked = parked.take(most).map(|(seq, row)| Parked {
            seq: *seq,
            created_at: timestamp(row.created_at),
            tenant: row.message.tenant(),
            topic: row.message.topic.clone(),
            attempts: row.attempts,
            holding: row.state == HOLDING,
            failure: row.failure.clone(),
            message: Some(row.message.clone()),
        });
        Ok(parked.collect())
    }

    async fn redrive(
        &self,
        channel: &Channel,
        tenant: Option<&str>,
        seq: Option<u64>,
    ) -> Result<u64, OutboxError> {
        let mut state = self.lock();
        let (mut count, mut lanes) = (0, Vec::new());
        for (_, row) in state.rows.iter_mut().filter(|(at, _)| seq.is_none_or(|seq| seq == **at)) {
            if row.is_parked(channel, tenant) {
                (row.state, row.attempts, row.due_at, row.failure) = (READY, 0, 0, None);
                lanes.push(row.lane.clone());
                count += 1;
            }
        }
        for lane in lanes {
            state.release(channel, lane);
        }
        drop(state);
        self.rung.notify_waiters();
        Ok(count)
    }

    async fn discard(&self, channel: &Channel, tenant: Option<&str>, seq: u64) -> Result<bool, OutboxError> {
        let mut state = self.lock();
        if !state.rows.get(&seq).is_some_and(|row| row.is_parked(channel, tenant)) {
            return Ok(false);
        }
        let lane = state.rows.remove(&seq).and_then(|row| row.lane);
        state.release(channel, lane);
        drop(state);
        self.rung.notify_waiters();
        Ok(true)
    }

    async fn stats(&self) -> Result<Vec<ChannelStats>, OutboxError> {
        let now = self.now();
        let mut channels: BTreeMap<String, ChannelStats> = BTreeMap::new();
        for row in self.lock().rows.values() {
            let channel = row.channel.as_str().to_owned();
            let stats = channels.entry(channel.clone()).or_default();
            stats.channel = channel;
            stats.count(row.state, 1, now.saturating_sub(row.created_at));
        }
        Ok(channels.into_values().collect())
    }

    async fn prune(&self, _: Duration, _: u32) -> Result<u64, OutboxError> {
        Ok(0)
    }

    fn rung(&self) -> &Notify {
        &self.rung
    }
}

fn set_aside(on_parked: OnParked) -> i64 {
    if on_parked == OnParked::Hold { HOLDING } else { PARKED }
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Debug for MemoryOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOutbox").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
