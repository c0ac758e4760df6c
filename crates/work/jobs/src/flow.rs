//! A flow: jobs that wait for each other by name, enqueued in one transaction.

use std::collections::{BTreeMap, HashMap};

use crate::job::{Enqueued, JobId, NewJob};

/// The most jobs of one flow.
pub(crate) const MAX_FLOW: usize = 1000;

/// Jobs that wait for each other, by name: a directed acyclic graph.
///
/// Each may be given before or after those it names; [`Jobs::enqueue_flow`](crate::Jobs::enqueue_flow) checks the whole.
///
/// ```
/// use runtime_jobs::{Flow, NewJob, Trigger};
/// use serde_json::json;
///
/// let flow = Flow::new()
///     .job("fetch", &[], NewJob::new("fetch", json!({ "day": "2026-11-21" })))
///     .job("rates", &[], NewJob::new("rates", json!({})))
///     .job("bill", &["fetch", "rates"], NewJob::new("bill", json!({})))
///     .job("clean", &["bill"], NewJob::new("clean", json!({})).trigger(Trigger::Ended));
/// # let _ = flow;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Flow {
    jobs: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    after: Vec<String>,
    job: NewJob,
}

/// What is wrong with a flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// Two jobs of one name.
    #[error("two jobs of the flow are named `{0}`")]
    Duplicate(String),
    /// A job waits for one that is not there.
    #[error("`{job}` waits for `{after}`, which is not in the flow")]
    Unknown {
        /// Which job.
        job: String,
        /// The name it waits for.
        after: String,
    },
    /// A job waits for itself.
    #[error("`{0}` waits for itself")]
    Itself(String),
    /// Jobs that wait for each other.
    #[error("jobs of the flow wait for each other: {}", .0.join(" -> "))]
    Cycle(
        /// The names, each waiting for the next; the last is the first again.
        Vec<String>,
    ),
    /// More jobs than a flow may have.
    #[error("the flow has {0} jobs; at most {MAX_FLOW} are accepted")]
    TooMany(usize),
}

/// The jobs of a flow that has been enqueued, by name. A duplicate stands for the job that holds its unique key: what
/// waits for it waits for that one.
pub type Flowed = BTreeMap<String, Enqueued>;

impl Flow {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a job under a name, to wait for those named. It may wait for jobs outside of the flow as well, by
    /// [`NewJob::after`].
    #[must_use]
    pub fn job(mut self, name: impl Into<String>, after: &[&str], job: NewJob) -> Self {
        let after = after.iter().map(|name| (*name).to_owned()).collect();
        self.jobs.push(Step { name: name.into(), after, job });
        self
    }

    /// The jobs in an order in which each comes after those it waits for, with their names and new ids.
    pub(crate) fn in_order(
        self,
        mut id: impl FnMut() -> JobId,
    ) -> Result<Vec<(String, JobId, NewJob)>, FlowError> {
        if self.jobs.len() > MAX_FLOW {
            return Err(FlowError::TooMany(self.jobs.len()));
        }
        let mut places = HashMap::with_capacity(self.jobs.len());
        for (place, step) in self.jobs.iter().enumerate() {
            if places.insert(step.name.as_str(), place).is_some() {
                return Err(FlowError::Duplicate(step.name.clone()));
            }
        }
        let mut waits_for = Vec::with_capacity(self.jobs.len());
        for step in &self.jobs {
            let mut before = Vec::with_capacity(step.after.len());
            for after in &step.after {
                let unknown = || FlowError::Unknown { job: step.name.clone(), after: after.clone() };
                if *after == step.name {
                    return Err(FlowError::Itself(step.name.clone()));
                }
                before.push(*places.get(after.as_str()).ok_or_else(unknown)?);
            }
            waits_for.push(before);
        }
        let order = sorted(&waits_for).map_err(|cycle| {
            FlowError::Cycle(
                cycle.into_iter().filter_map(|place| Some(self.jobs.get(place)?.name.clone())).collect(),
            )
        })?;
        // Ids grow in this order, so that a list of jobs shows it too.
        let mut ids: HashMap<String, JobId> = HashMap::with_capacity(order.len());
        let mut steps: Vec<Option<Step>> = self.jobs.into_iter().map(Some).collect();
        let mut ordered = Vec::with_capacity(order.len());
        for place in order {
            let Some(Step { name, after, mut job }) = steps.get_mut(place).and_then(Option::take) else {
                continue;
            };
            for before in after {
                if let Some(id) = ids.get(&before) {
                    job = job.after_named(before, *id);
                }
            }
            let id = id();
            ids.insert(name.clone(), id);
            ordered.push((name, id, job));
        }
        Ok(ordered)
    }
}

/// Depth first, so that what closes a cycle is at hand (Tarjan, "Edge-disjoint spanning trees and depth-first search").
fn sorted(waits_for: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut seen = vec![Seen::Not; waits_for.len()];
    let mut order = Vec::with_capacity(waits_for.len());
    for start in 0..waits_for.len() {
        // The path, and how many of each one's prerequisites have been looked at.
        let mut path: Vec<(usize, usize)> = Vec::new();
        enter(start, &mut seen, &mut path);
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            let before = waits_for.get(at).and_then(|before| before.get(*next)).copied();
            *next += 1;
            match before {
                Some(before) if seen.get(before) == Some(&Seen::OnPath) => {
                    let cycle = path.iter().map(|(on, _)| *on).skip_while(|on| *on != before);
                    return Err(cycle.chain([before]).collect());
                }
                Some(before) => enter(before, &mut seen, &mut path),
                None => {
                    path.pop();
                    if let Some(seen) = seen.get_mut(at) {
                        *seen = Seen::Placed;
                    }
                    order.push(at);
                }
            }
        }
    }
    Ok(order)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    OnPath,
    Placed,
}

fn enter(place: usize, seen: &mut [Seen], path: &mut Vec<(usize, usize)>) {
    if let Some(seen) = seen.get_mut(place).filter(|seen| **seen == Seen::Not) {
        *seen = Seen::OnPath;
        path.push((place, 0));
    }
}

#[cfg(test)]
mod tests {
    use runtime_kernel::SystemClock;
    use serde_json::json;

    use super::*;

    type Given<'a> = &'a [(&'a str, &'a [&'a str])];

    fn flow(jobs: Given<'_>) -> Result<Vec<String>, FlowError> {
        let flow = jobs
            .iter()
            .fold(Flow::new(), |flow, (name, after)| flow.job(*name, after, NewJob::new("a", json!(1))));
        let order = flow.in_order(|| JobId::new(&SystemClock))?;
        for (place, (_, _, job)) in order.iter().enumerate() {
            for after in &job.after {
                assert!(order[..place].iter().any(|(_, id, _)| *id == after.id), "after what it waits for");
            }
        }
        Ok(order.into_iter().map(|(name, _, _)| name).collect())
    }

    #[test]
    fn a_flow_is_put_in_order_however_it_is_given() {
        let order = flow(&[("d", &["b", "c"]), ("b", &["a"]), ("c", &["a"]), ("a", &[])]).unwrap();
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert_eq!(flow(&[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_flow_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cases: [(Given<'_>, FlowError); 5] = [
            (&[("a", &[]), ("a", &[])], FlowError::Duplicate("a".to_owned())),
            (&[("a", &["z"])], FlowError::Unknown { job: "a".to_owned(), after: "z".to_owned() }),
            (&[("a", &["a"])], FlowError::Itself("a".to_owned())),
            (&[("a", &["b"]), ("b", &["a"])], FlowError::Cycle(names(&["a", "b", "a"]))),
            (
                &[("s", &["a"]), ("a", &["c"]), ("b", &["a"]), ("c", &["b"]), ("t", &[])],
                FlowError::Cycle(names(&["a", "c", "b", "a"])),
            ),
        ];
        for (jobs, error) in cases {
            assert_eq!(flow(jobs).unwrap_err(), error);
        }
        let many: Vec<String> = (0..=MAX_FLOW).map(|n| n.to_string()).collect();
        let many: Vec<(&str, &[&str])> = many.iter().map(|name| (name.as_str(), &[] as &[&str])).collect();
        assert_eq!(flow(&many).unwrap_err(), FlowError::TooMany(MAX_FLOW + 1));
    }
}
