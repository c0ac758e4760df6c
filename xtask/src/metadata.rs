//! The workspace as cargo sees it: packages, features, dependencies, floors.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::shell::{Outcome, cargo, read};

/// The floors, lowest first; a crate may depend on its own and lower ones.
pub(crate) const WINGS: [&str; 9] =
    ["kernel", "foundation", "traffic", "data", "identity", "edge", "work", "platform", "faces"];

/// One crate of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) wing: String,
    pub(crate) summary: String,
    /// The folder, relative to the workspace's root.
    pub(crate) folder: String,
    /// Feature names, without `default`.
    pub(crate) features: Vec<String>,
    /// The features `default` turns on.
    pub(crate) defaults: Vec<String>,
    /// Direct dependencies that end up in the product (normal and build).
    pub(crate) uses: BTreeSet<String>,
}

/// The workspace's packages and everything they resolve to.
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    /// Normal and build dependencies of every resolved package, by package name.
    pub(crate) resolved: HashMap<String, BTreeSet<String>>,
    /// The MSRV every package declares.
    pub(crate) rust_version: BTreeMap<String, String>,
}

impl Workspace {
    /// Asks `cargo metadata`.
    pub(crate) fn load() -> Outcome<Self> {
        let text = read(cargo().args(["metadata", "--format-version", "1", "--all-features"]))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
        Ok(Self::parse(&value))
    }

    fn parse(value: &Value) -> Self {
        let root = text(value, "workspace_root");
        let members: BTreeSet<&str> = list(value, "workspace_members").filter_map(Value::as_str).collect();
        let ids: HashMap<&str, String> = list(value, "packages")
            .map(|p| (p["id"].as_str().unwrap_or_default(), text(p, "name")))
            .collect();
        let mut packages: Vec<Package> = list(value, "packages")
            .filter(|p| p["id"].as_str().is_some_and(|id| members.contains(id)))
            .map(|p| package(p, &root))
            .collect();
        packages.sort_by_key(|p| {
            (WINGS.iter().position(|w| *w == p.wing).unwrap_or(WINGS.len()), p.name.clone())
        });
        let nodes = value
            .get("resolve")
            .map(|resolve| list(resolve, "nodes").collect::<Vec<_>>())
            .unwrap_or_default();
        let resolved = nodes
            .into_iter()
            .filter_map(|node| {
                let name = ids.get(node["id"].as_str()?)?.clone();
                let product =
                    |dep: &&Value| list(dep, "dep_kinds").any(|kind| kind["kind"].as_str() != Some("dev"));
                let uses = list(node, "deps")
                    .filter(product)
                    .filter_map(|dep| ids.get(dep["pkg"].as_str()?).cloned());
                Some((name, uses.collect()))
            })
            .collect();
        let rust_version = list(value, "packages")
            .filter(|p| p["id"].as_str().is_some_and(|id| members.contains(id)))
            .map(|p| (text(p, "name"), text(p, "rust_version")))
            .collect();
        Self { packages, resolved, rust_version }
    }
}

fn package(value: &Value, root: &str) -> Package {
    let ours = value.pointer("/metadata/runtime").unwrap_or(&Value::Null);
    let manifest = text(value, "manifest_path");
    let folder = manifest
        .strip_prefix(root)
        .unwrap_or(&manifest)
        .trim_start_matches('/')
        .trim_end_matches("/Cargo.toml");
    let features = value["features"].as_object().cloned().unwrap_or_default();
    let defaults = features.get("default").and_then(Value::as_array).cloned().unwrap_or_default();
    let product = |dep: &&Value| dep["kind"].as_str() != Some("dev");
    Package {
        name: text(value, "name"),
        wing: text(ours, "wing"),
        summary: text(ours, "summary"),
        folder: folder.to_owned(),
        features: features.keys().filter(|name| *name != "default").cloned().collect(),
        defaults: defaults.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        uses: list(value, "dependencies").filter(product).map(|dep| text(dep, "name")).collect(),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
