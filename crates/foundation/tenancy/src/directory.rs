//! What exists, with the defaults of every place merged once.

use std::collections::HashMap;
use std::sync::Arc;

use runtime_kernel::Name;
use serde_json::Value;

use crate::config::{Defaults, TenancyConfig};

/// The realms by name.
#[derive(Debug)]
pub(crate) struct Directory(HashMap<Name, Realm>);

#[derive(Debug)]
pub(crate) struct Realm {
    pub(crate) defaults: Arc<Defaults>,
    pub(crate) tenants: HashMap<Name, Tenant>,
}

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) defaults: Arc<Defaults>,
    pub(crate) suspended: bool,
    pub(crate) orgs: HashMap<Name, Arc<Defaults>>,
}

impl Directory {
    pub(crate) fn new(config: &TenancyConfig) -> Self {
        let mut realms: HashMap<_, _> =
            config.realms.iter().map(|(name, realm)| (name.clone(), build(realm))).collect();
        realms.entry(config.default_realm.clone()).or_insert_with(|| build(&crate::RealmConfig::default()));
        Self(realms)
    }

    pub(crate) fn realm(&self, name: &Name) -> Option<&Realm> {
        self.0.get(name)
    }
}

fn build(realm: &crate::RealmConfig) -> Realm {
    let defaults = Arc::new(realm.defaults.clone());
    let tenants = realm.tenants.iter().map(|(name, tenant)| {
        let defaults = within(&defaults, &tenant.defaults);
        let orgs = tenant.orgs.iter().map(|(name, org)| (name.clone(), within(&defaults, &org.defaults)));
        (name.clone(), Tenant { suspended: tenant.suspended, orgs: orgs.collect(), defaults })
    });
    Realm { tenants: tenants.collect(), defaults }
}

/// The outer defaults under the inner ones; shared when the inner ones say nothing.
fn within(outer: &Arc<Defaults>, inner: &Defaults) -> Arc<Defaults> {
    if inner.is_empty() {
        return Arc::clone(outer);
    }
    let mut merged = Defaults::clone(outer);
    merge(&mut merged, inner);
    Arc::new(merged)
}

/// Tables merge key by key; anything else, `null` and lists among them, replaces what was there.
fn merge(base: &mut Defaults, over: &Defaults) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn deeper_defaults_win_and_tables_merge() {
        let config: TenancyConfig = serde_json::from_value(json!({ "realms": { "main": {
            "defaults": { "ui": { "theme": "light", "lang": "en" }, "tags": [1, 2], "limit": 5 },
            "tenants": { "acme": {
                "defaults": { "ui": { "theme": "dark" }, "tags": [3], "limit": null },
                "orgs": { "berlin": { "defaults": { "ui": { "lang": "de" } } }, "plain": {} },
            } },
        } } }))
        .unwrap();
        let directory = Directory::new(&config);
        let tenant = &directory.realm(&config.default_realm).unwrap().tenants["acme"];
        let acme = json!({ "ui": { "theme": "dark", "lang": "en" }, "tags": [3], "limit": null });
        assert_eq!(Value::Object(tenant.defaults.as_ref().clone()), acme);
        let berlin = json!({ "ui": { "theme": "dark", "lang": "de" }, "tags": [3], "limit": null });
        assert_eq!(Value::Object(tenant.orgs["berlin"].as_ref().clone()), berlin);
        assert!(Arc::ptr_eq(&tenant.orgs["plain"], &tenant.defaults));
    }
}
