//! Claim, heartbeat, report, rescue and cancel under leases, with workers that die, stand still, and lose answers.
//!
//! Time is what is left of each lease, so that it ends by itself. A report and a rescue are two steps, as in the database:
//! they lock and read, then write and commit; whatever else can happen, happens in between.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use super::{always, fails, holds};

const WORKERS: u8 = 2;
const ATTEMPTS: u8 = 2;
const LEASE: u8 = 1;

type Job = u8;
type Fence = u8;

/// What is left out of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    No,
    /// A completion is taken under whatever lease the job has now.
    Fence,
    /// A completion is taken whether or not the job has ended under its lease.
    Ended,
    /// Leases are read without being locked.
    Lock,
    /// A rescue gives back the whole lease, with what has ended.
    Rescue,
    /// A cancel does not lock the lease its job runs under.
    Cancel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lease {
    left: u8,
    rows: BTreeMap<Job, u8>,
    ended: BTreeSet<Job>,
    locked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Verdict {
    Completed,
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum End {
    Completed,
    Dead,
    Cancelled,
}

/// A report on its way: of a worker that waits for the answer, or of one that died after sending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Message {
    worker: u8,
    fence: Fence,
    job: Job,
}

/// What has been read and not been written yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Tx {
    Report { message: Message, under: Fence, verdict: Verdict, lease: Lease, cancelled: bool },
    Rescue { under: Fence, lease: Lease, cancelled: BTreeSet<Job> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, every combination possible")]
struct State {
    ready: BTreeMap<Job, u8>,
    leases: BTreeMap<Fence, Lease>,
    finished: Vec<(Job, End)>,
    cancels: BTreeSet<(Job, Fence)>,
    next: Fence,
    txs: Vec<Tx>,
    alive: BTreeSet<u8>,
    waiting: BTreeSet<Message>,
    late: BTreeSet<Message>,
    /// What may still go wrong.
    beats: u8,
    lost_answers: u8,
    cancels_left: u8,
    /// History, for the properties.
    newest: BTreeMap<Job, Fence>,
    acknowledged: BTreeSet<Job>,
    old_accepted: bool,
    fence_fell: bool,
    refused: bool,
    returned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// `claim_due`, `write_lease`: one transaction. The answer may be lost.
    Claim {
        worker: u8,
        max: u8,
        told: bool,
    },
    /// `end_jobs` up to `lock_leases` and `cancels`.
    Read(Message, Verdict),
    /// `take_back` up to `cancels`.
    Expire(Fence),
    /// The rest of either, and the commit. The answer may be lost.
    Commit {
        tx: usize,
        told: bool,
    },
    /// `beat`.
    Beat {
        worker: u8,
    },
    /// `stop`.
    Cancel(Job),
    Tick,
    Die(u8),
}

/// How much there is of everything: all at once would be more states than can be tried.
#[derive(Clone, Copy)]
struct Leases {
    broken: Broken,
    jobs: u8,
    beats: u8,
    lost_answers: u8,
    cancels: u8,
    deaths: usize,
}

impl Leases {
    fn locks(&self) -> bool {
        self.broken != Broken::Lock
    }

    /// The lease a report is held against.
    fn under(&self, state: &State, message: Message) -> Option<Fence> {
        if self.broken != Broken::Fence {
            return Some(message.fence).filter(|fence| state.leases.contains_key(fence));
        }
        let holds = |(_, lease): &(&Fence, &Lease)| lease.rows.contains_key(&message.job);
        state.leases.iter().rfind(holds).map(|(fence, _)| *fence)
    }

    fn read(&self, state: &mut State, message: Message, verdict: Verdict) {
        let found = self.under(state, message).map(|under| (under, state.leases[&under].clone()));
        let takes = |lease: &Lease| {
            lease.left > 0 && (self.broken == Broken::Ended || !lease.ended.contains(&message.job))
        };
        let Some((under, lease)) = found.filter(|(_, lease)| takes(lease)) else {
            // `Receipt::Stale`.
            state.waiting.remove(&message);
            state.late.remove(&message);
            state.refused = true;
            return;
        };
        if self.locks() {
            state.leases.get_mut(&under).unwrap().locked = true;
        }
        let cancelled = state.cancels.contains(&(message.job, under));
        state.txs.push(Tx::Report { message, under, verdict, lease, cancelled });
    }

    fn commit(&self, state: &mut State, tx: usize, told: bool) {
        match state.txs.remove(tx) {
            Tx::Report { message, under, verdict, mut lease, cancelled } => {
                let attempt = lease.rows[&message.job];
                lease.ended.insert(message.job);
                match verdict {
                    Verdict::Completed => state.finished.push((message.job, End::Completed)),
                    Verdict::Retry if cancelled => state.finished.push((message.job, End::Cancelled)),
                    Verdict::Retry if attempt >= ATTEMPTS => state.finished.push((message.job, End::Dead)),
                    Verdict::Retry => {
                        state.ready.insert(message.job, attempt);
                    }
                }
                state.old_accepted |= state.newest[&message.job] != message.fence;
                lease.locked = false;
                if lease.ended.len() == lease.rows.len() {
                    // `end_lease`.
                    state.leases.remove(&under);
                    state.cancels.retain(|(_, fence)| *fence != under);
                } else if let Some(stored) = state.leases.get_mut(&under) {
                    (stored.ended, stored.locked) = (lease.ended, false);
                }
                state.late.remove(&message);
                if told {
                    state.waiting.remove(&message);
                }
            }
            Tx::Rescue { under, lease, cancelled } => {
                for (job, attempt) in lease.rows {
                    if lease.ended.contains(&job) && self.broken != Broken::Rescue {
                        continue;
                    }
                    if cancelled.contains(&job) {
                        state.finished.push((job, End::Cancelled));
                    } else if attempt >= ATTEMPTS {
                        state.finished.push((job, End::Dead));
                    } else {
                        state.ready.insert(job, attempt);
                        state.returned = true;
                    }
                }
                state.leases.remove(&under);
                state.cancels.retain(|(_, fence)| *fence != under);
            }
        }
        state.finished.sort_unstable();
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            ready: (0..self.jobs).map(|job| (job, 0)).collect(),
            leases: BTreeMap::new(),
            finished: Vec::new(),
            cancels: BTreeSet::new(),
            next: 1,
            txs: Vec::new(),
            alive: (0..WORKERS).collect(),
            waiting: BTreeSet::new(),
            late: BTreeSet::new(),
            beats: self.beats,
            lost_answers: self.lost_answers,
            cancels_left: self.cancels,
            newest: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            old_accepted: false,
            fence_fell: false,
            refused: false,
            returned: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let busy = |message: &Message| {
            state.txs.iter().any(|tx| matches!(tx, Tx::Report { message: other, .. } if other == message))
        };
        let locked =
            |fence: &Fence| self.locks() && state.leases.get(fence).is_some_and(|lease| lease.locked);
        for worker in &state.alive {
            let worker = *worker;
            for max in 1..=state.ready.len().min(2) {
                let max = u8::try_from(max).unwrap();
                actions.push(Action::Claim { worker, max, told: true });
                if state.lost_answers > 0 {
                    actions.push(Action::Claim { worker, max, told: false });
                }
            }
            if state.beats > 0 && state.waiting.iter().any(|message| message.worker == worker) {
                actions.push(Action::Beat { worker });
            }
            if state.alive.len() + self.deaths > usize::from(WORKERS) {
                actions.push(Action::Die(worker));
            }
        }
        for message in state.waiting.union(&state.late) {
            // Who finds a lease locked waits.
            let blocked = self.under(state, *message).is_some_and(|fence| locked(&fence));
            if !blocked && !busy(message) {
                actions.push(Action::Read(*message, Verdict::Completed));
                actions.push(Action::Read(*message, Verdict::Retry));
            }
        }
        for (fence, lease) in &state.leases {
            let twice = state.txs.iter().any(|tx| matches!(tx, Tx::Rescue { under, .. } if under == fence));
            if lease.left == 0 && !locked(fence) && !twice {
                actions.push(Action::Expire(*fence));
            }
        }
        for tx in 0..state.txs.len() {
            actions.push(Action::Commit { tx, told: true });
            if state.lost_answers > 0 && matches!(state.txs[tx], Tx::Report { .. }) {
                actions.push(Action::Commit { tx, told: false });
            }
        }
        for job in 0..self.jobs {
            let running = state
                .leases
                .iter()
                .find(|(_, lease)| lease.rows.contains_key(&job) && !lease.ended.contains(&job));
            let blocked = running.is_some_and(|(fence, _)| self.broken != Broken::Cancel && locked(fence));
            let open = state.ready.contains_key(&job) || running.is_some();
            if state.cancels_left > 0 && open && !blocked {
                actions.push(Action::Cancel(job));
            }
        }
        if state.leases.values().any(|lease| lease.left > 0) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim { worker, max, told } => {
                let fence = state.next;
                state.next += 1;
                let mut rows = BTreeMap::new();
                while rows.len() < usize::from(max) {
                    let Some((job, attempt)) = state.ready.pop_first() else { break };
                    rows.insert(job, attempt + 1);
                    state.fence_fell |= state.newest.insert(job, fence).is_some_and(|before| before >= fence);
                    if told {
                        state.waiting.insert(Message { worker, fence, job });
                    }
                }
                state.lost_answers -= u8::from(!told);
                let lease = Lease { left: LEASE, rows, ended: BTreeSet::new(), locked: false };
                state.leases.insert(fence, lease);
            }
            Action::Read(message, verdict) => self.read(&mut state, message, verdict),
            Action::Expire(under) => {
                let lease = state.leases[&under].clone();
                if self.locks() {
                    state.leases.get_mut(&under).unwrap().locked = true;
                }
                let of_it = state.cancels.iter().filter(|(_, fence)| *fence == under);
                let cancelled = of_it.map(|(job, _)| *job).collect();
                state.txs.push(Tx::Rescue { under, lease, cancelled });
            }
            Action::Commit { tx, told } => {
                self.commit(&mut state, tx, told);
                state.lost_answers -= u8::from(!told);
            }
            Action::Beat { worker } => {
                state.beats -= 1;
                let held: BTreeSet<Fence> = last
                    .waiting
                    .iter()
                    .filter(|message| message.worker == worker)
                    .map(|message| message.fence)
                    .collect();
                for fence in held {
                    let lease = state.leases.get_mut(&fence).filter(|lease| lease.left > 0);
                    if let Some(lease) = lease.filter(|lease| !lease.locked) {
                        lease.left = LEASE;
                    }
                }
            }
            Action::Cancel(job) => {
                state.cancels_left -= 1;
                state.acknowledged.insert(job);
                if state.ready.remove(&job).is_some() {
                    state.finished.push((job, End::Cancelled));
                    state.finished.sort_unstable();
                } else {
                    let holds = |lease: &Lease| lease.rows.contains_key(&job) && !lease.ended.contains(&job);
                    let fence = *state.leases.iter().find(|(_, lease)| holds(lease))?.0;
                    state.cancels.insert((job, fence));
                }
            }
            Action::Tick => {
                for lease in state.leases.values_mut() {
                    lease.left = lease.left.saturating_sub(1);
                }
            }
            Action::Die(worker) => {
                state.alive.remove(&worker);
                // What it has sent may arrive yet.
                let (sent, rest) = state.waiting.iter().partition(|message| message.worker == worker);
                let sent: BTreeSet<Message> = sent;
                state.late.extend(sent);
                state.waiting = rest;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always::<Self>(&[
            ("a job is in exactly one place", |model, state| {
                (0..model.jobs).all(|job| {
                    let open = |lease: &&Lease| lease.rows.contains_key(&job) && !lease.ended.contains(&job);
                    let running = state.leases.values().filter(open).count();
                    let ended = state.finished.iter().filter(|(ended, _)| *ended == job).count();
                    usize::from(state.ready.contains_key(&job)) + running + ended == 1
                })
            }),
            ("a job ends once", |model, state| {
                (0..model.jobs)
                    .all(|job| state.finished.iter().filter(|(ended, _)| *ended == job).count() <= 1)
            }),
            ("only the newest claim of a job ends it", |_, state| !state.old_accepted),
            ("fences grow", |_, state| !state.fence_fell),
            ("what was cancelled does not run again", |_, state| {
                state.acknowledged.iter().all(|job| !state.ready.contains_key(job))
            }),
            ("in the end every job has ended and nothing is left", |model, state| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                let empty = state.ready.is_empty() && state.leases.is_empty() && state.cancels.is_empty();
                !actions.is_empty() || (empty && state.finished.len() == usize::from(model.jobs))
            }),
        ]);
        properties.push(Property::sometimes("a zombie is refused", |_, state: &State| {
            state.refused && state.returned
        }));
        properties.push(Property::sometimes("a rescued job is completed", |_, state: &State| {
            state.returned && state.finished.iter().any(|(_, end)| *end == End::Completed)
        }));
        properties
    }
}

const ONE: Leases = Leases { broken: Broken::No, jobs: 1, beats: 1, lost_answers: 1, cancels: 1, deaths: 1 };
const TWO: Leases = Leases { broken: Broken::No, jobs: 2, beats: 0, lost_answers: 0, cancels: 0, deaths: 0 };

#[test]
fn leases_lose_nothing_and_end_everything_once() {
    let models = [
        ONE,
        Leases { beats: 1, ..TWO },
        Leases { lost_answers: 1, ..TWO },
        Leases { cancels: 1, ..TWO },
        Leases { deaths: 1, ..TWO },
    ];
    for model in models {
        let states = holds(model);
        assert!(states > 500, "{states} states are hardly all");
    }
}

#[test]
fn leases_that_leave_something_out_are_found_out() {
    for (model, broken, property) in [
        (ONE, Broken::Fence, "only the newest claim of a job ends it"),
        (Leases { lost_answers: 1, ..TWO }, Broken::Ended, "a job ends once"),
        (ONE, Broken::Lock, "a job is in exactly one place"),
        (TWO, Broken::Rescue, "a job is in exactly one place"),
        (ONE, Broken::Cancel, "what was cancelled does not run again"),
    ] {
        fails(Leases { broken, ..model }, property);
    }
}
