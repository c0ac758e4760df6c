//! Whether a definition's steps can follow each other.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{Check, MAX_LIST};
use super::problem::ProblemCode;
use super::{Definition, Step, by_id};

impl Check {
    /// Ids, levels and dependencies.
    pub(super) fn order(&mut self, definition: &Definition) {
        let steps = &definition.steps;
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, step) in steps.iter().enumerate() {
            if let Some(before) = first.insert(&step.id, index) {
                let message = format!("`{}` is the id of steps[{before}] already", step.id);
                self.add(format!("steps[{index}].id"), ProblemCode::DuplicateStepId, message);
            }
        }
        let levels: BTreeSet<u32> = steps.iter().map(|step| step.level).collect();
        for (expected, level) in (1..).zip(&levels) {
            if *level != expected {
                let at = steps.iter().position(|step| step.level == *level).unwrap_or_default();
                let message = format!("level {level} comes where {expected} should");
                self.add(format!("steps[{at}].level"), ProblemCode::LevelGap, message);
                break;
            }
        }
        let known = by_id(steps);
        for (index, step) in steps.iter().enumerate() {
            self.count(&format!("steps[{index}].depends_on"), step.depends_on.len(), MAX_LIST);
            for (nth, on) in step.depends_on.iter().enumerate() {
                let at = format!("steps[{index}].depends_on[{nth}]");
                if *on == step.id {
                    self.add(at, ProblemCode::SelfDependency, "a step cannot wait for itself");
                } else if !known.contains_key(on.as_str()) {
                    self.add(at, ProblemCode::UnknownDependency, format!("there is no step `{on}`"));
                }
            }
        }
        self.cycles(steps);
    }

    /// Waiting for a step of a higher level is a cycle too, because levels make that one wait.
    fn cycles(&mut self, steps: &[Step]) {
        let known = by_id(steps);
        let mut settled: BTreeSet<&str> = BTreeSet::new();
        for (index, step) in steps.iter().enumerate() {
            let mut path: Vec<&str> = Vec::new();
            if let Some(cycle) = walk(&known, &step.id, &mut path, &mut settled) {
                let message = format!("it waits for itself: {}", cycle.join(" → "));
                self.add(format!("steps[{index}].depends_on"), ProblemCode::CircularDependency, message);
            }
            for (nth, on) in step.depends_on.iter().enumerate() {
                let above = known.get(on.as_str()).filter(|other| other.level > step.level);
                if let Some(other) = above {
                    let message = format!(
                        "it waits for itself: {} → {on} (level {}) → {} (level {})",
                        step.id, other.level, step.id, step.level
                    );
                    let at = format!("steps[{index}].depends_on[{nth}]");
                    self.add(at, ProblemCode::CircularDependency, message);
                }
            }
        }
    }
}

/// Depth first; a step found again on the way closes a cycle. Each step is finished once.
fn walk<'a>(
    known: &BTreeMap<&'a str, &'a Step>,
    id: &'a str,
    path: &mut Vec<&'a str>,
    settled: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(from) = path.iter().position(|step| *step == id) {
        let mut cycle: Vec<&str> = path.iter().skip(from).copied().collect();
        cycle.push(id);
        return Some(cycle);
    }
    if settled.contains(id) {
        return None;
    }
    path.push(id);
    let next = known.get(id).map(|step| step.depends_on.as_slice()).unwrap_or_default();
    // A step that names itself has its own code.
    for on in next.iter().filter(|on| *on != id) {
        if let Some(cycle) = walk(known, on, path, settled) {
            settled.extend(path.iter());
            return Some(cycle);
        }
    }
    path.pop();
    settled.insert(id);
    None
}
