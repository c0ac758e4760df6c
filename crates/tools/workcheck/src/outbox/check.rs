//! The judge: from what all processes saw and what the database kept, which promises were broken. A pure function.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, is_poison};
use crate::check::{Promise, Violation};
use crate::history::Record;

/// What the database keeps at the end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The messages of each key whose effect was applied, in the order in which that was committed.
    pub effects: BTreeMap<u64, Vec<u64>>,
    /// Messages that are parked, or were until somebody discarded them.
    pub parked: BTreeSet<u64>,
    /// Of those a key waited for, the messages of that key that had been applied while it did.
    pub held: BTreeMap<u64, Vec<u64>>,
    /// Messages neither sent nor parked.
    pub unsent: u64,
    /// Processes that did not stop when told to.
    pub stuck: Vec<String>,
}

/// Judges a whole run.
pub fn check(history: &[Record<Event>], ending: &Ending) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broke = |promise, about| found.push(Violation::new(promise, about));
    let applied: BTreeMap<u64, usize> =
        ending.effects.values().flatten().fold(BTreeMap::new(), |mut all, one| {
            *all.entry(*one).or_default() += 1;
            all
        });
    let mut may_exist = BTreeSet::new();
    for record in history {
        match &record.event {
            Event::Added { message, .. } => {
                may_exist.insert(*message);
                let (here, parked) = (applied.contains_key(message), ending.parked.contains(message));
                if is_poison(*message) && !parked {
                    broke(Promise::OnlyPoisonParks, format!("{message} cannot be sent and is not parked"));
                }
                if !is_poison(*message) && !here && !parked {
                    broke(Promise::NothingLost, format!("{message} was added and has no effect"));
                }
            }
            Event::Unknown { message, .. } => {
                may_exist.insert(*message);
            }
            _ => {}
        }
    }
    for (message, times) in &applied {
        if *times > 1 {
            broke(Promise::EffectOnce, format!("{message} was applied {times} times"));
        }
        if !may_exist.contains(message) || is_poison(*message) {
            broke(Promise::NothingMadeUp, format!("{message} was applied and cannot have been sent"));
        }
    }
    for message in ending.parked.iter().filter(|message| !is_poison(**message)) {
        broke(Promise::OnlyPoisonParks, format!("{message} was parked"));
    }
    for (key, messages) in &ending.effects {
        // Numbers of a key are given in the order of its transactions, which follow each other.
        for pair in messages.windows(2) {
            if let [earlier, later] = pair
                && earlier > later
            {
                broke(Promise::OrderPerKey, format!("key {key}: {later} came after {earlier}"));
            }
        }
    }
    for (parked, messages) in &ending.held {
        for message in messages.iter().filter(|message| *message > parked) {
            broke(
                Promise::OrderPerKey,
                format!("{message} overtook {parked}, which is parked and holds its key"),
            );
        }
    }
    let last = history.iter().rev().find_map(|record| match record.event {
        Event::Lag { oldest, unsent } => Some((oldest, unsent)),
        _ => None,
    });
    if ending.unsent > 0 || last.is_some_and(|(oldest, unsent)| oldest > 0.0 || unsent > 0.0) {
        broke(Promise::LagRecovers, format!("{} are unsent; the metrics say {last:?}", ending.unsent));
    }
    for process in &ending.stuck {
        broke(Promise::WorkersStop, format!("{process} went on"));
    }
    found
}
