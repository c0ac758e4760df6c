//! The checks of a graph of services, all made before anything is built.

use std::collections::HashMap;

use super::dependencies::Needed;
use super::entry::{Entry, Lifetime};
use super::error::Problem;

/// Applies the replacements, then lists every problem of the graph.
pub(super) fn check(entries: &mut [Entry], replacements: Vec<Entry>) -> Vec<Problem> {
    let mut problems = Vec::new();
    refuse_duplicates(entries, &mut problems);
    for replacement in replacements {
        let Needed { key, type_id, .. } = replacement.token;
        match entries.iter_mut().find(|entry| entry.token.key.is(key)) {
            None => problems.push(Problem::IdleReplacement { token: key.name, at: replacement.at }),
            Some(entry) if entry.token.type_id != type_id => problems.push(Problem::WrongType {
                token: key.name,
                registered: entry.token.type_name,
                needed_by: (key.name, replacement.at),
                asked: replacement.token.type_name,
            }),
            Some(entry) => *entry = replacement,
        }
    }
    let graph = Graph::new(entries, &mut problems);
    graph.cycles(&mut problems);
    graph.captives(&mut problems);
    problems
}

fn refuse_duplicates(entries: &[Entry], problems: &mut Vec<Problem>) {
    let mut first = HashMap::new();
    for entry in entries {
        let known = *first.entry(entry.token.key.name).or_insert(entry.at);
        if !std::ptr::eq(known, entry.at) || seen_before(entries, entry) {
            problems.push(Problem::Duplicate { token: entry.token.key.name, first: known, again: entry.at });
        }
    }
}

/// One line may register a name twice, in a loop: the places are then the same.
fn seen_before(entries: &[Entry], entry: &Entry) -> bool {
    let mut same = entries.iter().filter(|other| other.token.key.is(entry.token.key));
    same.next().is_some_and(|earliest| !std::ptr::eq(earliest, entry))
}

/// Entries and the edges between those that exist.
struct Graph<'a> {
    entries: &'a [Entry],
    edges: Vec<Vec<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    Never,
    OnPath,
    Done,
}

impl<'a> Graph<'a> {
    fn new(entries: &'a [Entry], problems: &mut Vec<Problem>) -> Self {
        let mut places = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            places.entry(entry.token.key.name).or_insert(at);
        }
        let mut edges = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut out = Vec::new();
            for need in &entry.needs {
                let found = places.get(need.key.name).and_then(|at| Some((*at, entries.get(*at)?)));
                match found {
                    None => problems.push(missing(entries, entry, need)),
                    Some((_, known)) if known.token.type_id != need.type_id => {
                        problems.push(Problem::WrongType {
                            token: need.key.name,
                            registered: known.token.type_name,
                            needed_by: (entry.token.key.name, entry.at),
                            asked: need.type_name,
                        });
                    }
                    Some((at, _)) => out.push(at),
                }
            }
            edges.push(out);
        }
        Self { entries, edges }
    }

    fn name(&self, at: usize) -> &'static str {
        self.entries.get(at).map_or("", |entry| entry.token.key.name)
    }

    fn lifetime(&self, at: usize) -> Lifetime {
        self.entries.get(at).map_or(Lifetime::Value, |entry| entry.lifetime)
    }

    fn out(&self, at: usize) -> &[usize] {
        self.edges.get(at).map_or(&[], Vec::as_slice)
    }

    /// Depth first without recursion, so that a long chain cannot overflow the stack. Each edge back onto the path
    /// closes one cycle.
    fn cycles(&self, problems: &mut Vec<Problem>) {
        let mut visits = vec![Visit::Never; self.entries.len()];
        for start in 0..self.entries.len() {
            let mut path = vec![(start, 0)];
            if visits.get(start) != Some(&Visit::Never) {
                continue;
            }
            set(&mut visits, start, Visit::OnPath);
            while let Some((at, edge)) = path.last_mut() {
                let Some(next) = self.out(*at).get(*edge).copied() else {
                    set(&mut visits, *at, Visit::Done);
                    path.pop();
                    continue;
                };
                *edge += 1;
                match visits.get(next) {
                    Some(Visit::Never) => {
                        set(&mut visits, next, Visit::OnPath);
                        path.push((next, 0));
                    }
                    Some(Visit::OnPath) => {
                        let round = path.iter().map(|(at, _)| *at).skip_while(|at| *at != next);
                        let path = round.chain([next]).map(|at| self.name(at)).collect();
                        problems.push(Problem::Cycle { path });
                    }
                    _ => {}
                }
            }
        }
    }

    /// From every singleton over transients to what is scoped.
    fn captives(&self, problems: &mut Vec<Problem>) {
        for (start, entry) in self.entries.iter().enumerate() {
            if entry.lifetime != Lifetime::Singleton {
                continue;
            }
            let mut seen = vec![false; self.entries.len()];
            let mut open = vec![vec![start]];
            while let Some(path) = open.pop() {
                for next in path.last().map_or(&[][..], |at| self.out(*at)).iter().rev() {
                    let longer = || path.iter().chain([next]).copied();
                    match (self.lifetime(*next), seen.get_mut(*next)) {
                        (Lifetime::Scoped, _) => problems.push(Problem::Captive {
                            path: longer().map(|at| self.name(at)).collect(),
                            at: entry.at,
                        }),
                        (Lifetime::Transient, Some(seen)) if !*seen => {
                            *seen = true;
                            open.push(longer().collect());
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

fn set(visits: &mut [Visit], at: usize, visit: Visit) {
    if let Some(known) = visits.get_mut(at) {
        *known = visit;
    }
}

fn missing(entries: &[Entry], entry: &Entry, need: &Needed) -> Problem {
    let names = entries.iter().map(|known| known.token.key.name).filter(|name| *name != entry.token.key.name);
    let near = names
        .map(|name| (strsim::jaro_winkler(name, need.key.name), name))
        .filter(|(score, _)| *score > 0.94)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name);
    Problem::Missing { token: need.key.name, needed_by: entry.token.key.name, at: entry.at, near }
}
