//! A section as the configuration knows it once a module has declared its type.

use std::any::{Any, TypeId};
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::{Problem, ProblemKind};
use super::layers::Loaded;
use super::lock;
use super::node::{Node, dotted, segments};
use super::read::{Rules, read};
use super::redact::is_secret;
use super::section::Section;
use super::source::{Layer, Source};

/// A declared section, its type erased.
pub(super) struct Declared {
    pub(super) id: TypeId,
    pub(super) path: Vec<String>,
    /// The only top-level keys it reads; the kernel's own section has no table of its own.
    pub(super) only: Option<&'static [&'static str]>,
    pub(super) locked: &'static [&'static str],
    pub(super) secret: &'static [&'static str],
    pub(super) reloadable: &'static [&'static str],
    pub(super) defaults: Node,
    /// Every path below the section that its defaults or its lists name.
    pub(super) known: Vec<Vec<String>>,
    build: fn(&Declared, &Node, bool) -> Built,
}

/// A section's value, its type erased.
pub(super) type AnySection = Arc<dyn Any + Send + Sync>;

struct Built {
    value: Option<AnySection>,
    dump: Json,
    problems: Vec<Problem>,
    unused: Vec<(Vec<String>, Source)>,
}

/// One layer's say about a section.
#[derive(Clone, Debug)]
pub(super) struct Overlay {
    pub(super) node: Node,
    /// May set locked paths though it is not the super layer.
    pub(super) exempt: bool,
}

/// A section with every layer merged.
pub(super) struct Evaluated {
    pub(super) tree: Node,
    pub(super) overlays: Vec<Overlay>,
    /// There when there are no problems.
    pub(super) value: Option<AnySection>,
    /// The value as the section itself writes it.
    pub(super) dump: Json,
    pub(super) problems: Vec<Problem>,
    pub(super) unused: Vec<(Vec<String>, Source)>,
}

/// What all sections of one load share.
pub(super) struct Scope<'a> {
    pub(super) loaded: &'a Loaded,
    /// The paths of all declared sections.
    pub(super) others: &'a [Vec<String>],
    /// Whether locks are off.
    pub(super) local: bool,
}

impl Declared {
    pub(super) fn of<T: Section>() -> Self {
        Self::with_keys::<T>(None)
    }

    pub(super) fn with_keys<T: Section>(only: Option<&'static [&'static str]>) -> Self {
        let defaults = serde_json::to_value(T::default()).ok().filter(Json::is_object);
        let defaults = Node::from_json(
            defaults.unwrap_or_else(|| Json::Object(serde_json::Map::new())),
            &Source::DEFAULT,
        );
        let mut known = Vec::new();
        collect_paths(&defaults, &mut Vec::new(), &mut known);
        for name in T::LOCKED.iter().chain(T::SECRET).chain(T::RELOADABLE).filter(|name| **name != "*") {
            let path = segments(name);
            if !known.contains(&path) {
                known.push(path);
            }
        }
        Self {
            id: TypeId::of::<T>(),
            path: segments(T::PATH),
            only,
            locked: T::LOCKED,
            secret: T::SECRET,
            reloadable: T::RELOADABLE,
            defaults,
            known,
            build: build::<T>,
        }
    }

    /// Whether the section reads this path, relative to it, at all.
    pub(super) fn reads(&self, path: &[String]) -> bool {
        self.only.is_none_or(|only| path.first().is_some_and(|key| only.contains(&key.as_str())))
    }

    pub(super) fn knows(&self, path: &[String]) -> bool {
        self.known.iter().any(|known| known == path)
    }

    /// The full path of a path relative to the section.
    pub(super) fn full(&self, path: &[String]) -> Vec<String> {
        self.path.iter().chain(path).cloned().collect()
    }

    /// Merges every layer, reads the type, checks locks and rules.
    pub(super) fn evaluate(&self, scope: &Scope<'_>) -> Evaluated {
        let (overlays, mut problems) = scope.loaded.overlays(self, scope.others);
        let mut tree = self.base();
        for overlay in &overlays {
            tree.merge(&overlay.node);
        }
        if !scope.local {
            problems.extend(lock::broken(self, &overlays));
        }
        let unlocked = problems.is_empty();
        let mut evaluated = self.build(tree, scope.loaded.lenient);
        if !scope.local && unlocked && evaluated.problems.is_empty() {
            problems.extend(lock::bypassed(self, &evaluated.tree, &evaluated.dump));
        }
        problems.append(&mut evaluated.problems);
        evaluated.overlays = overlays;
        evaluated.problems = problems;
        if !evaluated.problems.is_empty() {
            evaluated.value = None;
        }
        evaluated
    }

    /// Reads and validates a merged tree.
    pub(super) fn build(&self, tree: Node, lenient: bool) -> Evaluated {
        let Built { value, dump, problems, unused } = (self.build)(self, &tree, lenient);
        Evaluated { tree, overlays: Vec::new(), value, dump, problems, unused }
    }

    /// The defaults that merging starts from: without secrets, which a section may write as `***`; the type's
    /// own default stands in for them.
    fn base(&self) -> Node {
        let mut base = self.defaults.clone();
        for (path, node) in self.defaults.leaves() {
            // Only text can stand for what is not shown.
            if is_secret(&path, self.secret) && node.to_json().is_string() {
                base.remove(&path);
            }
        }
        base
    }
}

fn build<T: Section>(declared: &Declared, tree: &Node, lenient: bool) -> Built {
    let rules = Rules { path: &declared.path, secret: declared.secret, lenient };
    let outcome = read::<T>(tree, &declared.base(), &rules);
    let mut problems = outcome.problems;
    if let Some(Err(invalid)) = outcome.value.as_ref().filter(|_| problems.is_empty()).map(T::validate) {
        for (field, message) in invalid.fields() {
            let path = segments(field);
            let source = tree.get(&path).map(|node| node.source.clone());
            let source = source.filter(|source| source.layer != Layer::Default);
            problems
                .push(Problem::new(ProblemKind::Invalid, dotted(&declared.full(&path)), message).at(source));
        }
    }
    let dump = outcome.value.as_ref().and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default();
    let value = outcome.value.map(|value| Arc::new(value) as AnySection);
    Built { value, dump, problems, unused: outcome.unused }
}

fn collect_paths(node: &Node, path: &mut Vec<String>, known: &mut Vec<Vec<String>>) {
    for (key, child) in node.as_table().into_iter().flatten() {
        path.push(key.clone());
        known.push(path.clone());
        collect_paths(child, path, known);
        path.pop();
    }
}
