//! Both ways to figment: its providers as a layer of ours, and our configuration as one of its providers.

use std::sync::Arc;

use figment::value::{Dict, Map, Value as FigmentValue};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::Value as Json;

use super::Config;
use super::error::{Problem, ProblemKind};
use super::layers::ReadProvider;
use super::node::{Node, segments};
use super::source::{Layer, Place, Source};

/// What reads a provider, as often as asked.
pub(super) fn reader(provider: impl Provider + Send + Sync + 'static) -> ReadProvider {
    Arc::new(move || {
        let metadata = provider.metadata();
        let place = match &metadata.source {
            Some(source) => format!("{}, {source}", metadata.name),
            None => metadata.name.to_string(),
        };
        let source = Source::new(Layer::File, Place::Provider(place.into()));
        let json: Json = Figment::from(&provider).extract().map_err(|error| {
            Problem::new(ProblemKind::File, "", error.to_string()).at(Some(source.clone()))
        })?;
        Ok(Node::from_json(json, &source))
    })
}

/// The values in force, secrets included, under figment's default profile.
impl Provider for Config {
    fn metadata(&self) -> Metadata {
        Metadata::named("runtime configuration")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut tree = Node::table(Source::DEFAULT);
        for entry in self.state().entries.values() {
            let keys = segments(&super::node::dotted(&entry.declared.path));
            tree.merge(&Node::nested(&keys, entry.tree.clone()));
        }
        match FigmentValue::serialize(tree.to_json())? {
            FigmentValue::Dict(_, dict) => Ok(Map::from([(Profile::Default, dict)])),
            _ => Ok(Map::new()),
        }
    }
}
