//! Where the layers come from, and what one reading of them found.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::athyper;
use super::crossbridge;
use super::declared::{Declared, Overlay};
use super::error::{ConfigError, Problem, ProblemKind};
use super::format;
use super::node::{Node, Value, dotted};
use super::source::{Layer, Source};
use super::suggest::hint;
use super::vars::Var;

/// Reads a figment provider anew at every load.
pub(super) type ReadProvider = Arc<dyn Fn() -> Result<Node, Problem> + Send + Sync>;

/// The recipe: read at start and again at every reload.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) prefix: String,
    pub(super) file: Option<PathBuf>,
    pub(super) search: Option<PathBuf>,
    pub(super) providers: Vec<ReadProvider>,
    pub(super) env: Vec<(String, String)>,
    /// What the program and the command line set, in order.
    pub(super) code: Vec<Result<Node, Problem>>,
    pub(super) athyper: bool,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            prefix: "RUNTIME".to_owned(),
            file: None,
            search: None,
            providers: Vec::new(),
            env: Vec::new(),
            code: Vec::new(),
            athyper: false,
        }
    }
}

/// One reading of all layers above the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Loaded {
    /// The file, then providers.
    files: Vec<Node>,
    vars: Vec<Var>,
    code: Vec<Node>,
    /// Unknown keys of the file are listed, not refused.
    pub(super) lenient: bool,
    /// The file is another program's, of which we read a part: its other sections are listed, not refused.
    foreign: bool,
    /// The file that was read, when there was one.
    pub(super) file: Option<PathBuf>,
}

/// A key that no declared section reads.
pub(super) struct Stray {
    pub(super) path: Vec<String>,
    pub(super) node: Node,
    /// To be listed, not refused.
    pub(super) tolerated: bool,
}

impl Sources {
    /// Reads every layer.
    pub(super) fn load(&self) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let mut loaded = Loaded { lenient: self.athyper, ..Loaded::default() };
        match self.find_file() {
            Ok(file) => loaded.file = file,
            Err(problem) => problems.push(problem),
        }
        if let Some(path) = &loaded.file {
            match format::read(path) {
                Ok(tree) if self.athyper => loaded.files.push(athyper::translate(tree)),
                Ok(tree) if crossbridge::found(&tree) => {
                    let (tree, wrong) = crossbridge::translate(tree, &self.env);
                    loaded.files.push(tree);
                    loaded.foreign = true;
                    problems.extend(wrong);
                }
                Ok(tree) => loaded.files.push(tree),
                Err(problem) => problems.push(problem),
            }
        }
        for read in &self.providers {
            collect(read(), &mut loaded.files, &mut problems);
        }
        for node in &self.code {
            collect(node.clone(), &mut loaded.code, &mut problems);
        }
        loaded.vars = self.vars();
        // The more specific name wins inside a layer; names break ties so that order never depends on the process.
        loaded.vars.sort_by(|a, b| (a.layer, a.keys.len(), &a.name).cmp(&(b.layer, b.keys.len(), &b.name)));
        if self.athyper && problems.is_empty() {
            problems.extend(athyper::check(&loaded.files, &loaded.vars));
        }
        ConfigError::check(problems)?;
        Ok(loaded)
    }

    fn vars(&self) -> Vec<Var> {
        let mut vars: Vec<_> = self.env.iter().filter_map(|(name, text)| self.var(name, text)).collect();
        // A variable given twice (a test's over the process's) counts once, the last time.
        let mut seen = HashSet::new();
        vars.reverse();
        vars.retain(|var| seen.insert(Arc::clone(&var.name)));
        if self.athyper && vars.iter().any(|var| &*var.name == "ENVIRONMENT") {
            vars.retain(|var| &*var.name != "NODE_ENV");
        }
        vars
    }

    fn var(&self, name: &str, text: &str) -> Option<Var> {
        let table = if self.athyper { athyper::var(&self.prefix, name, text) } else { None };
        table.or_else(|| Var::parse(&self.prefix, name, text))
    }

    fn find_file(&self) -> Result<Option<PathBuf>, Problem> {
        if let Some(path) = &self.file {
            return Ok(Some(path.clone()));
        }
        let named = |name: &str| {
            let value = self.env.iter().find(|(variable, _)| variable == name).map(|(_, text)| text.trim());
            value.filter(|text| !text.is_empty())
        };
        if let Some(path) = named(&format!("{}_CONFIG", self.prefix)) {
            return Ok(Some(PathBuf::from(path)));
        }
        if let Some(path) = named(athyper::FILE_VARIABLE).filter(|_| self.athyper) {
            let base = named(athyper::BASE_VARIABLE).unwrap_or_default();
            return Ok(Some(Path::new(base).join(path)));
        }
        match &self.search {
            Some(directory) => format::find(directory, &self.prefix.to_lowercase()),
            None => Ok(None),
        }
    }

    /// What the files on disk hold now; changes when one of them does.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for path in self.watched() {
            path.hash(&mut hash);
            std::fs::read(&path).ok().hash(&mut hash);
        }
        hash.finish()
    }

    /// Every file that is read: the configuration file and what `_FILE` variables name.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        let file = self.find_file().ok().flatten();
        let named = self.vars().into_iter().filter_map(|var| var.file).map(|file| file.path.as_ref().clone());
        file.into_iter().chain(named).collect()
    }

    /// The directory searched for a file, which may appear later.
    pub(super) fn searched(&self) -> Option<&Path> {
        self.search.as_deref().filter(|_| self.file.is_none())
    }
}

fn collect(read: Result<Node, Problem>, into: &mut Vec<Node>, problems: &mut Vec<Problem>) {
    match read {
        Ok(node) => into.push(node),
        Err(problem) => problems.push(problem),
    }
}

impl Loaded {
    /// What each layer says about a section, lowest first.
    pub(super) fn overlays(
        &self,
        section: &Declared,
        others: &[Vec<String>],
    ) -> (Vec<Overlay>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut overlays: Vec<Overlay> = Vec::new();
        let plain = |node| Overlay { node, exempt: false };
        overlays.extend(self.files.iter().filter_map(|tree| part(tree, section)).map(plain));
        let mut add_vars = |layer, overlays: &mut Vec<Overlay>| {
            for var in self.vars.iter().filter(|var| var.layer == layer) {
                match var.within(section, others) {
                    Some(Ok(node)) => overlays.push(Overlay { node, exempt: var.compat }),
                    Some(Err(problem)) => problems.push(problem),
                    None => {}
                }
            }
        };
        add_vars(Layer::Env, &mut overlays);
        overlays.extend(self.code.iter().filter_map(|tree| part(tree, section)).map(plain));
        add_vars(Layer::Super, &mut overlays);
        (overlays, problems)
    }

    /// Every top-level key that no section reads.
    pub(super) fn strays(&self, sections: &[&Declared]) -> Vec<Stray> {
        let paths: Vec<_> = sections.iter().map(|section| section.path.clone()).collect();
        let mut strays = Vec::new();
        let add_trees = |trees: &[Node], strays: &mut Vec<Stray>| {
            for tree in trees {
                stray_keys(tree, &mut Vec::new(), sections, self.lenient || self.foreign, strays);
            }
        };
        let add_vars = |layer, strays: &mut Vec<Stray>| {
            for var in self.vars.iter().filter(|var| var.layer == layer) {
                if sections.iter().all(|section| var.within(section, &paths).is_none()) {
                    let node = Node::new(Value::Text(var.text.clone()), var.source());
                    strays.push(Stray { path: var.keys.clone(), node, tolerated: var.compat });
                }
            }
        };
        add_trees(&self.files, &mut strays);
        add_vars(Layer::Env, &mut strays);
        add_trees(&self.code, &mut strays);
        add_vars(Layer::Super, &mut strays);
        if self.foreign {
            // Another program's sections are tolerated, but not what is nearly one of ours.
            for stray in &mut strays {
                stray.tolerated &= stray.hint(sections).is_empty();
            }
        }
        strays
    }
}

impl Stray {
    /// The section that was probably meant.
    fn hint(&self, sections: &[&Declared]) -> String {
        let roots = sections.iter().flat_map(|section| match section.only {
            Some(only) => only.to_vec(),
            None => section.path.first().map(String::as_str).into_iter().collect(),
        });
        hint(self.path.first().map_or("", String::as_str), roots)
    }

    /// The refusal, with the section that was probably meant.
    pub(super) fn problem(&self, sections: &[&Declared]) -> Problem {
        let path = dotted(&self.path);
        let word = self.path.first().map_or("", String::as_str);
        let hint = self.hint(sections);
        Problem::new(ProblemKind::UnknownKey, path, format!("no section `{word}`{hint}"))
            .at(Some(self.node.source.clone()))
    }
}

/// The part of a layer's tree that a section reads, relative to the section.
fn part(tree: &Node, section: &Declared) -> Option<Node> {
    if let Some(only) = section.only {
        let mut part = Node::table(tree.source.clone());
        for (key, node) in tree.as_table()?.iter().filter(|(key, _)| only.contains(&key.as_str())) {
            part.insert(std::slice::from_ref(key), node.clone());
        }
        return part.as_table().is_some_and(|table| !table.is_empty()).then_some(part);
    }
    let mut node = tree;
    for key in &section.path {
        match node.as_table() {
            Some(table) => node = table.get(key)?,
            // A parent that is no table replaces the section as a whole.
            None => break,
        }
    }
    Some(node.clone())
}

fn stray_keys(
    node: &Node,
    path: &mut Vec<String>,
    sections: &[&Declared],
    lenient: bool,
    strays: &mut Vec<Stray>,
) {
    for (key, child) in node.as_table().into_iter().flatten() {
        path.push(key.clone());
        let read = sections.iter().any(|section| path.starts_with(&section.path) && section.reads(path));
        let above =
            sections.iter().any(|section| section.path.len() > path.len() && section.path.starts_with(path));
        if above {
            stray_keys(child, path, sections, lenient, strays);
        } else if !read {
            let tolerated = lenient && child.source.layer == Layer::File;
            strays.push(Stray { path: path.clone(), node: child.clone(), tolerated });
        }
        path.pop();
    }
}

/// The source of a layer given in the program.
pub(super) fn code_source(place: super::source::Place) -> Source {
    Source::new(Layer::Code, place)
}
