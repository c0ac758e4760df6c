//! The low-water mark of a lane: which jobs a claim does not see because of it, and for how long.
//!
//! One process claims and keeps the mark. Jobs are enqueued, and committed some time after they are written; or they are
//! let in again at the place they had, of which the mark of another process is not told. A tick is half the margin by
//! which a mark stays behind the clock; the interval between whole looks is shortened, to keep the states few.

use stateright::{Model, Property};

use super::{always, fails, holds};

const JOBS: usize = 2;
const END: i8 = 6;
/// `MARGIN` of `sql/low.rs`, and the time from one whole look to the next.
const MARGIN: i8 = 2;
const WHOLE: i8 = 3;
/// How long before its commit a job is written at most, for the margin to suffice.
const PROMPT: i8 = MARGIN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    No,
    /// The mark follows the highest rank taken, with no regard for what is written and not committed.
    Margin,
    /// The margin is counted from the end of a claim, not from its beginning.
    LateMargin,
    /// There is no whole look.
    Whole,
    /// A whole look counts even if the claim that took it is undone.
    Undone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Nowhere,
    /// Written by a transaction that is still open.
    Written,
    Ready,
    /// Taken by a claim that is still open.
    Taken,
    Done,
}

/// Where a job comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum From {
    /// Enqueued: its rank is the time it is written (`enqueue_one`).
    Enqueued,
    /// Let in again by another process, at the place it had (`promote`, `fetch_due`).
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Job {
    place: Place,
    from: From,
    rank: i8,
    written: i8,
    committed: i8,
    /// Since when a claim that had room for it has passed it by.
    missed: Option<i8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    began: i8,
    /// When the next whole look was due before.
    whole_at: Option<i8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: i8,
    jobs: [Job; JOBS],
    claim: Option<Claim>,
    mark: Option<i8>,
    whole_at: Option<i8>,
    /// A claim has seen nothing, or everything there is, since the last tick.
    looked: bool,
    /// How long somebody was passed by at most.
    longest: i8,
    /// Whom a claim passed by though it must see him.
    prompt_missed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// `write_waiting` in a transaction that goes on.
    Write(usize, From),
    /// Its commit, and what is called after it.
    Commit(usize),
    /// `take_ready` of at most so many.
    Take(u8),
    /// The commit of the claim, `taken`.
    Taken,
    /// Its rollback.
    Undo,
    Tick,
}

struct Marks(Broken);

impl Model for Marks {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let job = Job {
            place: Place::Nowhere,
            from: From::Enqueued,
            rank: 0,
            written: 0,
            committed: 0,
            missed: None,
        };
        vec![State {
            now: 0,
            jobs: [job; JOBS],
            claim: None,
            mark: None,
            whole_at: None,
            looked: false,
            longest: 0,
            prompt_missed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Which of those not there yet comes is all the same.
        if let Some(next) = state.jobs.iter().position(|job| job.place == Place::Nowhere) {
            actions.extend([From::Enqueued, From::Again].map(|from| Action::Write(next, from)));
        }
        for (n, job) in state.jobs.iter().enumerate() {
            if job.place == Place::Written {
                actions.push(Action::Commit(n));
            }
        }
        if state.claim.is_some() {
            actions.extend([Action::Taken, Action::Undo]);
        } else {
            actions.extend([Action::Take(1), Action::Take(3)]);
        }
        // A worker with nothing to do looks again before long: never a tick without a look, while it claims nothing.
        if state.now < END && (state.looked || state.claim.is_some()) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Write(n, from) => {
                // One that was let in before has an old place.
                let rank = if from == From::Enqueued { now } else { now - MARGIN - 1 };
                state.jobs[n] = Job { place: Place::Written, from, rank, written: now, ..state.jobs[n] };
            }
            Action::Commit(n) => {
                state.jobs[n].place = Place::Ready;
                state.jobs[n].committed = now;
            }
            Action::Take(max) => {
                let before = state.whole_at;
                // `marks`: none when a whole look is due.
                let whole = self.0 != Broken::Whole && state.whole_at.is_none_or(|at| at <= now);
                let low = if whole { i8::MIN } else { state.mark.unwrap_or(i8::MIN) };
                if whole {
                    state.whole_at = Some(now + WHOLE);
                }
                let mut seen: Vec<usize> = (0..JOBS)
                    .filter(|n| state.jobs[*n].place == Place::Ready && state.jobs[*n].rank >= low)
                    .collect();
                seen.sort_unstable_by_key(|n| state.jobs[*n].rank);
                let room = seen.len() < usize::from(max);
                seen.truncate(usize::from(max));
                for n in &seen {
                    state.jobs[*n].place = Place::Taken;
                }
                if !seen.is_empty() {
                    state.claim = Some(Claim { began: now, whole_at: before });
                }
                state.looked |= room;
                for n in 0..JOBS {
                    let job = &mut state.jobs[n];
                    if job.place != Place::Ready || !room {
                        continue;
                    }
                    let since = *job.missed.get_or_insert(now);
                    state.longest = state.longest.max(now - since);
                    state.prompt_missed |=
                        job.from == From::Enqueued && job.committed - job.written <= PROMPT;
                }
            }
            Action::Taken => {
                let claim = state.claim.take()?;
                let taken = state.jobs.iter().filter(|job| job.place == Place::Taken);
                let highest = taken.map(|job| job.rank).max()?;
                let behind = match self.0 {
                    Broken::Margin => i8::MAX,
                    Broken::LateMargin => now - MARGIN,
                    _ => claim.began - MARGIN,
                };
                state.mark = Some(highest.min(behind));
                for job in &mut state.jobs {
                    if job.place == Place::Taken {
                        job.place = Place::Done;
                    }
                }
            }
            Action::Undo => {
                let claim = state.claim.take()?;
                if self.0 != Broken::Undone {
                    state.whole_at = claim.whole_at;
                }
                for job in &mut state.jobs {
                    if job.place == Place::Taken {
                        job.place = Place::Ready;
                    }
                }
            }
            Action::Tick => {
                state.now += 1;
                state.looked = false;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always::<Self>(&[
            // At the next whole look, and so never for good.
            ("nobody is passed by for longer than between two whole looks", |_, state| state.longest < WHOLE),
            ("who is committed in time is never passed by", |_, state| !state.prompt_missed),
        ]);
        properties.push(Property::sometimes("somebody is passed by for a while", |_, state: &State| {
            state.longest > 0
        }));
        properties
    }
}

#[test]
fn a_mark_hides_nobody_for_long() {
    let states = holds(Marks(Broken::No));
    assert!(states > 10_000, "{states} states are hardly all");
}

#[test]
fn marks_that_run_ahead_are_found_out() {
    const PROMPTLY: &str = "who is committed in time is never passed by";
    const LONG: &str = "nobody is passed by for longer than between two whole looks";
    for (broken, property) in [
        (Broken::Margin, PROMPTLY),
        (Broken::LateMargin, PROMPTLY),
        (Broken::Whole, LONG),
        (Broken::Undone, LONG),
    ] {
        fails(Marks(broken), property);
    }
}
