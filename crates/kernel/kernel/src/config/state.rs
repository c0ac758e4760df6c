//! What a configuration is at one moment, and how sections join it.

use std::any::TypeId;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use tokio::sync::watch;

use super::declared::{AnySection, Declared, Scope};
use super::error::{ConfigError, Problem};
use super::layers::{Loaded, Sources};
use super::node::Node;
use super::root::{Environment, KEYS, Root};
use super::section::Section;

/// A declared section and what the process runs with.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) declared: Arc<Declared>,
    /// The merged tree in force: what needs a restart stays as it was at start.
    pub(super) tree: Node,
    pub(super) value: AnySection,
}

/// One consistent view: swapped as a whole, never changed.
#[derive(Clone)]
pub(super) struct State {
    pub(super) version: u64,
    pub(super) loaded: Arc<Loaded>,
    pub(super) root: Arc<Root>,
    pub(super) entries: IndexMap<TypeId, Entry>,
}

/// What every clone of a configuration shares.
pub(super) struct Shared {
    pub(super) sources: Sources,
    pub(super) state: ArcSwap<State>,
    pub(super) versions: watch::Sender<u64>,
    writer: Mutex<Writer>,
}

/// What only the one writer at a time touches.
#[derive(Default)]
pub(super) struct Writer {
    /// Earlier loads, newest last.
    pub(super) history: VecDeque<Arc<Loaded>>,
    /// Whether all modules have declared their sections, so that strays are mistakes.
    pub(super) complete: bool,
    pub(super) last_error: Option<Arc<ConfigError>>,
}

impl State {
    /// No layers: the kernel's own keys at their defaults, no section declared.
    pub(super) fn empty() -> Self {
        let root = Arc::new(Root::default());
        let declared = Declared::with_keys::<Root>(Some(KEYS));
        let entry = Entry {
            tree: declared.defaults.clone(),
            value: Arc::clone(&root) as AnySection,
            declared: Arc::new(declared),
        };
        let entries = IndexMap::from([(entry.declared.id, entry)]);
        Self { version: 1, loaded: Arc::default(), root, entries }
    }

    /// The paths of all declared sections.
    pub(super) fn paths(&self) -> Vec<Vec<String>> {
        self.entries.values().map(|entry| entry.declared.path.clone()).collect()
    }

    pub(super) fn declared(&self) -> Vec<&Declared> {
        self.entries.values().map(|entry| entry.declared.as_ref()).collect()
    }

    pub(super) fn local(&self) -> bool {
        self.root.env == Environment::Local
    }
}

impl Shared {
    /// Reads the kernel's own keys and every section declared so far.
    pub(super) fn start(
        sources: Sources,
        loaded: Loaded,
        sections: Vec<Declared>,
    ) -> Result<Self, ConfigError> {
        let root = Declared::with_keys::<Root>(Some(KEYS));
        let mut paths: Vec<_> = sections.iter().map(|section| section.path.clone()).collect();
        paths.push(root.path.clone());
        let mut problems = Vec::new();
        let mut entries = IndexMap::new();
        let mut add = |declared: Declared, local: bool| {
            let evaluated = declared.evaluate(&Scope { loaded: &loaded, others: &paths, local });
            problems.extend(evaluated.problems);
            let value = evaluated.value?;
            let entry =
                Entry { declared: Arc::new(declared), tree: evaluated.tree, value: Arc::clone(&value) };
            entries.insert(entry.declared.id, entry);
            Some(value)
        };
        let root = add(root, true).and_then(|value| value.downcast::<Root>().ok());
        // An unreadable environment is not trusted to be local.
        let local = root.as_ref().is_some_and(|root| root.env == Environment::Local);
        for section in sections {
            add(section, local);
        }
        ConfigError::check(problems)?;
        let root = root.unwrap_or_default();
        Ok(Self::new(sources, State { version: 1, loaded: Arc::new(loaded), root, entries }))
    }

    pub(super) fn new(sources: Sources, state: State) -> Self {
        let versions = watch::Sender::new(state.version);
        Self { sources, state: ArcSwap::from_pointee(state), versions, writer: Mutex::default() }
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state with `T` in it: declared, read and checked now if it was not before.
    pub(super) fn with_section<T: Section>(&self) -> Result<Arc<State>, ConfigError> {
        let state = self.state.load_full();
        if state.entries.contains_key(&TypeId::of::<T>()) {
            return Ok(state);
        }
        let _writer = self.writer();
        let state = self.state.load_full();
        let declared = Declared::of::<T>();
        let mut paths = state.paths();
        paths.push(declared.path.clone());
        let scope = Scope { loaded: &state.loaded, others: &paths, local: state.local() };
        let evaluated = declared.evaluate(&scope);
        let Some(value) = evaluated.value else {
            return Err(refusal(evaluated.problems, &declared));
        };
        let mut next = State::clone(&state);
        next.entries.insert(declared.id, Entry { declared: Arc::new(declared), tree: evaluated.tree, value });
        let next = Arc::new(next);
        self.state.store(Arc::clone(&next));
        Ok(next)
    }
}

fn refusal(problems: Vec<Problem>, declared: &Declared) -> ConfigError {
    let unread = || {
        let path = super::node::dotted(&declared.path);
        Problem::new(super::error::ProblemKind::Invalid, path, "the section cannot be read").into()
    };
    ConfigError::check(problems).err().unwrap_or_else(unread)
}
