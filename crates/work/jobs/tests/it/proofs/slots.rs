//! Slots of keys: made, locked, counted, and forgotten by a prune that comes at any moment.
//!
//! What Postgres does about rows that others hold is part of the model: an insert that meets a row waits for whoever
//! inserts or deletes it, a lock waits for whoever has it, and a delete looks at its row again once it has the lock.

use stateright::{Model, Property};

use super::{always, fails, holds};

const CLAIMS: usize = 2;
const PRUNES: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    No,
    /// A slot that is gone when it is to be locked is taken for one without a limit (`lock_slots` without its loop).
    MadeOnce,
    /// A prune deletes what it saw to be empty, whatever it has become by the time it has the lock (`forget_slots`).
    SeenOnce,
}

/// Who has a row under lock: a claim by its number, or the prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Claim(usize),
    Prune,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    running: u8,
    locked: Option<Who>,
    /// Not committed yet: of its maker alone.
    fresh: bool,
}

/// A claim that has taken one job of the key, step by step; then its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Claim {
    /// Has taken its job from `ready`.
    Begun,
    /// `INSERT … ON CONFLICT DO NOTHING` in `try_lock_slots` is done.
    Made,
    /// `SELECT … FOR UPDATE` has found it.
    Locked,
    /// The slot was gone.
    Unlimited,
    /// Let in, and committed.
    Running,
    /// Parked, and committed: to be promoted by whoever leaves.
    Parked,
    /// Has reported; its place is free.
    Left,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    slot: Option<Slot>,
    claims: [Claim; CLAIMS],
    /// What the prune saw of the slot when it began.
    seen_empty: bool,
    prunes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// `try_lock_slots`, the insert.
    Make(usize),
    /// `try_lock_slots`, the lock.
    Lock(usize),
    /// `admit`, `save`, and the commit.
    Admit(usize),
    /// `leave` of a report, promotion of who is parked, and the commit.
    Leave(usize),
    /// `forget_slots` begins: sees which slots are empty.
    See,
    /// `forget_slots` has the lock, and deletes.
    Delete,
    /// And commits.
    Forget,
}

struct Slots(Broken);

impl Model for Slots {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let empty = Slot { running: 0, locked: None, fresh: false };
        [None, Some(empty)]
            .map(|slot| State { slot, claims: [Claim::Begun; CLAIMS], seen_empty: false, prunes: PRUNES })
            .to_vec()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let lock = state.slot.and_then(|slot| slot.locked);
        for (n, claim) in state.claims.iter().enumerate() {
            let held_by_other = lock.is_some_and(|who| who != Who::Claim(n));
            match claim {
                // Waits for who inserts or deletes it; one that is merely locked is met and left alone.
                Claim::Begun
                    if !(held_by_other
                        && (state.slot.is_some_and(|slot| slot.fresh) || lock == Some(Who::Prune))) =>
                {
                    actions.push(Action::Make(n));
                }
                Claim::Made if !held_by_other => actions.push(Action::Lock(n)),
                Claim::Locked | Claim::Unlimited => actions.push(Action::Admit(n)),
                Claim::Running if !held_by_other => actions.push(Action::Leave(n)),
                _ => {}
            }
        }
        if state.prunes > 0 && !state.seen_empty && lock != Some(Who::Prune) {
            actions.push(Action::See);
        }
        if state.seen_empty && lock.is_none() {
            actions.push(Action::Delete);
        }
        if lock == Some(Who::Prune) {
            actions.push(Action::Forget);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Make(n) => {
                if state.slot.is_none() {
                    state.slot = Some(Slot { running: 0, locked: Some(Who::Claim(n)), fresh: true });
                }
                state.claims[n] = Claim::Made;
            }
            Action::Lock(n) => match &mut state.slot {
                Some(slot) => {
                    slot.locked = Some(Who::Claim(n));
                    state.claims[n] = Claim::Locked;
                }
                None if self.0 == Broken::MadeOnce => state.claims[n] = Claim::Unlimited,
                None => state.claims[n] = Claim::Begun,
            },
            Action::Admit(n) => {
                if state.claims[n] == Claim::Unlimited {
                    state.claims[n] = Claim::Running;
                    return Some(state);
                }
                let slot = state.slot.as_mut()?;
                (slot.locked, slot.fresh) = (None, false);
                state.claims[n] = if slot.running < 1 {
                    slot.running += 1;
                    Claim::Running
                } else {
                    Claim::Parked
                };
            }
            Action::Leave(n) => {
                state.claims[n] = Claim::Left;
                if let Some(slot) = &mut state.slot {
                    slot.running = slot.running.saturating_sub(1);
                    // Promoted: taken by the next claim, which comes the same way.
                    for claim in &mut state.claims {
                        if *claim == Claim::Parked {
                            *claim = Claim::Begun;
                        }
                    }
                }
            }
            Action::See => {
                state.prunes -= 1;
                state.seen_empty = state.slot.is_some_and(|slot| !slot.fresh && slot.running == 0)
                    && self.nobody_waits(&state);
            }
            Action::Delete => {
                state.seen_empty = false;
                let waits = !self.nobody_waits(&state);
                let slot = state.slot.as_mut()?;
                if self.0 == Broken::SeenOnce || (slot.running == 0 && !waits) {
                    slot.locked = Some(Who::Prune);
                }
            }
            Action::Forget => state.slot = None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always::<Self>(&[
            ("one at a time", |_, state| running(state) <= 1),
            ("a slot in use is there and counts", |_, state| {
                usize::from(state.slot.map_or(0, |slot| slot.running)) == running(state)
            }),
            ("in the end everybody has run", |model, state| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                !actions.is_empty() || state.claims.iter().all(|claim| *claim == Claim::Left)
            }),
        ]);
        properties.push(Property::sometimes(
            "a slot is forgotten between being made and being locked",
            |_, state| {
                let state: &State = state;
                state.slot.is_none() && state.claims.contains(&Claim::Made)
            },
        ));
        properties
    }
}

impl Slots {
    /// `parked` and `promoted` are 0.
    #[expect(clippy::unused_self, reason = "reads as a part of the model")]
    fn nobody_waits(&self, state: &State) -> bool {
        !state.claims.contains(&Claim::Parked)
    }
}

fn running(state: &State) -> usize {
    state.claims.iter().filter(|claim| **claim == Claim::Running).count()
}

#[test]
fn a_slot_in_use_is_never_forgotten() {
    let states = holds(Slots(Broken::No));
    assert!(states > 100, "{states} states are hardly all");
}

#[test]
fn slots_that_are_looked_at_once_are_found_out() {
    fails(Slots(Broken::MadeOnce), "one at a time");
    fails(Slots(Broken::SeenOnce), "a slot in use is there and counts");
}
