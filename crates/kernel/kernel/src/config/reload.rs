//! Reload: validate, diff, then apply or refuse as a whole.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value as Json;

use super::declared::{Declared, Scope};
use super::error::{ConfigError, Problem};
use super::layers::Loaded;
use super::node::{Node, dotted};
use super::redact::{covered, is_secret, shown};
use super::source::Source;
use super::state::{State, Writer};
use super::{Config, unknown};

/// How many earlier loads a rollback can reach.
const HISTORY: usize = 16;

/// A leaf that differs between what runs and what was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The dotted path.
    pub path: String,
    /// What runs, secrets hidden; null when the leaf is new.
    pub from: Json,
    /// What was read, secrets hidden; null when the leaf is gone.
    pub to: Json,
    /// Who set the new value; `None` when the leaf is gone.
    pub source: Option<Source>,
}

/// What a reload or a rollback did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The version in force afterwards.
    pub version: u64,
    /// Leaves that changed in the running process.
    pub applied: Vec<Change>,
    /// Leaves that were read and will change with the next start only; the process runs on with the old value.
    pub needs_restart: Vec<Change>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, self.from, self.to)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, " ({source})"))
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration version {}", self.version)?;
        for change in &self.applied {
            write!(f, "\napplied        {change}")?;
        }
        for change in &self.needs_restart {
            write!(f, "\nneeds restart  {change}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads all layers again and applies what may change live. Reads files: call it where blocking is allowed.
    ///
    /// Either everything that was read is valid, and all reloadable changes appear at once; or nothing changes.
    ///
    /// # Errors
    /// Every problem found. What ran goes on, and [`last_error`](Self::last_error) keeps the problems.
    pub fn reload(&self) -> Result<ReloadReport, ConfigError> {
        let mut writer = self.shared.writer();
        let result =
            self.shared.sources.load().and_then(|loaded| self.apply(&Arc::new(loaded), &mut writer, true));
        writer.last_error = result.as_ref().err().map(|error| Arc::new(error.clone()));
        result
    }

    /// Goes back to what was read before the last change, as a new version; `None` when there is no earlier one.
    /// The file itself is left alone: its next change is applied again.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub fn rollback(&self) -> Option<Result<ReloadReport, ConfigError>> {
        let mut writer = self.shared.writer();
        let earlier = writer.history.pop_back()?;
        let result = self.apply(&earlier, &mut writer, false);
        if result.is_err() {
            writer.history.push_back(earlier);
        }
        Some(result)
    }

    /// The version in force: 1 at start, one more for every reload or rollback that changed something.
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// Why the last reload was refused; `None` when it was not.
    pub fn last_error(&self) -> Option<Arc<ConfigError>> {
        self.shared.writer().last_error.clone()
    }

    fn apply(
        &self,
        loaded: &Arc<Loaded>,
        writer: &mut Writer,
        keep: bool,
    ) -> Result<ReloadReport, ConfigError> {
        let old = self.state();
        let mut next = State::clone(&old);
        next.loaded = Arc::clone(loaded);
        let paths = old.paths();
        let scope = Scope { loaded, others: &paths, local: old.local() };
        let mut problems: Vec<Problem> = if writer.complete { unknown(&old, loaded) } else { Vec::new() };
        let (mut applied, mut needs_restart) = (Vec::new(), Vec::new());
        for entry in next.entries.values_mut() {
            let section = Arc::clone(&entry.declared);
            let full = section.evaluate(&scope);
            let failed = full.value.is_none();
            problems.extend(full.problems);
            if failed {
                continue;
            }
            let (live, later) = changes(&section, &entry.tree, &full.tree);
            if !live.is_empty() {
                let mut tree = entry.tree.clone();
                for (path, _) in &live {
                    match full.tree.get(path) {
                        Some(node) => tree.insert(path, node.clone()),
                        None => _ = tree.remove(path),
                    }
                }
                // New live values beside old fixed ones are a combination nobody has checked yet.
                let mixed = section.build(tree, loaded.lenient);
                problems.extend(mixed.problems);
                if let Some(value) = mixed.value {
                    entry.tree = mixed.tree;
                    entry.value = value;
                }
            }
            applied.extend(live.into_iter().map(|(_, change)| change));
            needs_restart.extend(later.into_iter().map(|(_, change)| change));
        }
        ConfigError::check(problems)?;
        if **loaded != *old.loaded {
            next.version += 1;
            if keep {
                if writer.history.len() == HISTORY {
                    writer.history.pop_front();
                }
                writer.history.push_back(Arc::clone(&old.loaded));
            }
        }
        let version = next.version;
        self.shared.state.store(Arc::new(next));
        self.shared.versions.send_replace(version);
        Ok(ReloadReport { version, applied, needs_restart })
    }
}

type Changes = Vec<(Vec<String>, Change)>;

/// What differs between the running tree and the one read: what may change live, and the rest.
pub(super) fn changes(section: &Declared, running: &Node, read: &Node) -> (Changes, Changes) {
    let mut found = Vec::new();
    for (path, leaf) in read.leaves() {
        let before = running.get(&path);
        if before.is_none_or(|before| !before.says_the_same(leaf)) {
            found.push((path, before, Some(leaf)));
        }
    }
    for (path, leaf) in running.leaves() {
        if read.get(&path).is_none() {
            found.push((path, Some(leaf), None));
        }
    }
    let describe = |path: Vec<String>, from: Option<&Node>, to: Option<&Node>| {
        let secret = is_secret(&path, section.secret);
        let show = |node: Option<&Node>| node.map_or(Json::Null, |node| shown(node.to_json(), secret));
        let source = to.map(|node| node.source.clone());
        let change = Change { path: dotted(&section.full(&path)), from: show(from), to: show(to), source };
        (path, change)
    };
    let all = found.into_iter().map(|(path, from, to)| describe(path, from, to));
    all.partition(|(path, _)| covered(path, section.reloadable))
}
