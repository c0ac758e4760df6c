//! Every key's value, winner and chain.

use proptest::prelude::*;
use runtime_kernel::config::{Config, Layer};
use serde_json::{Value as Json, json};

use super::config_support::{Db, Http, env, file};

#[test]
fn the_chain_names_every_layer_in_order() {
    let fixture = file("runtime.toml", "[http]\nhost = 'h'\nport = 1\n");
    let config = Config::builder()
        .file(&fixture.path)
        .env([("RUNTIME__HTTP__PORT", " 2 "), ("RUNTIME_SUPER__HTTP__PORT", "5")])
        .set("http.port", 3)
        .assign("http.port=4")
        .section::<Http>()
        .build()
        .unwrap();
    let explanation = config.explain();
    let leaf = explanation.leaf("http.port").unwrap();
    let directory = format!("{}/", fixture.directory.path().display());
    let chain: Vec<_> = leaf
        .chain
        .iter()
        .map(|setting| format!("{} by {}", setting.value, setting.source).replace(&directory, ""))
        .collect();
    assert_eq!(
        chain,
        [
            "3000 by default",
            "1 by file, runtime.toml:3",
            "\" 2 \" by env, RUNTIME__HTTP__PORT",
            "3 by code",
            "\"4\" by code, --set",
            "\"5\" by super, RUNTIME_SUPER__HTTP__PORT",
        ]
    );
    assert_eq!((&leaf.value, &leaf.winner), (&json!(5), &leaf.chain[5].source));
    let text = explanation.to_string().replace(&directory, "");
    assert!(text.contains("http.port             5          super, RUNTIME_SUPER__HTTP__PORT\n"), "{text}");
    assert!(text.contains("3000       over default\n"), "{text}");
    assert!(serde_json::to_value(&explanation).unwrap()["leaves"].is_array());
}

#[test]
fn a_parent_replaced_as_a_whole_is_in_the_chain_of_what_it_replaced() {
    let fixture = file("runtime.json", r#"{"free":{"a":1,"b":2}}"#);
    let config = Config::builder().file(&fixture.path).set("free", json!({"a": 3})).build().unwrap();
    let explanation = config.explain();
    let leaf = explanation.leaf("free.a").unwrap();
    assert_eq!((&leaf.value, leaf.winner.layer, leaf.used), (&json!(3), Layer::Code, false));
    assert_eq!(explanation.leaf("free.b").unwrap().winner.layer, Layer::File);
    assert!(explanation.to_string().contains("[not used by this build]"));
}

#[test]
fn secrets_are_hidden_everywhere() {
    let config = env(&[
        ("RUNTIME__HTTP__PASSWORD", "hunter2"),
        ("RUNTIME__HTTP__HOST", "https://ann:hunter2@h/?api_key=hunter2"),
        ("RUNTIME__DB__URL", "postgres://ann:hunter2@db/x"),
        ("RUNTIME__DB__ADMIN_URL", "postgres://ann:hunter2@db/x"),
        ("RUNTIME__HTTP__LABELS__ACCESS_TOKEN", "hunter2"),
        ("RUNTIME__ELSE__CLIENT_SECRETS__MAIN", "hunter2"),
    ])
    .section::<Http>()
    .section::<Db>()
    .build()
    .unwrap();
    let explanation = config.explain();
    let text = format!("{explanation}{}{config:?}", serde_json::to_string(&explanation).unwrap());
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(explanation.leaf("db.url").unwrap().value, json!("***"));
    assert_eq!(explanation.leaf("db.admin_url").unwrap().value, json!("postgres://***@db/x"));
    assert_eq!(config.section::<Db>().unwrap().url, "postgres://ann:hunter2@db/x");

    let refused = |name: &str, value: &str| {
        env(&[(name, value)]).section::<Http>().section::<Db>().build().unwrap_err().to_string()
    };
    let error = refused("RUNTIME__HTTP__PORT", "amqp://u:hunter2@h");
    assert_eq!(
        error,
        "http.port: invalid value: string \"amqp://***@h\", expected u16 (env, RUNTIME__HTTP__PORT)"
    );
}

/// What one layer says about a path: nothing, or a value.
#[derive(Clone, Debug)]
struct Say {
    path: &'static [&'static str],
    value: Json,
}

fn says() -> impl Strategy<Value = Vec<Say>> {
    let path = prop_oneof![
        Just(&["a"] as &[&str]),
        Just(&["b"] as &[&str]),
        Just(&["t"] as &[&str]),
        Just(&["t", "x"] as &[&str]),
        Just(&["t", "y"] as &[&str]),
        Just(&["t", "u", "z"] as &[&str]),
    ];
    let value = prop_oneof![
        any::<u8>().prop_map(|n| json!(n)),
        Just(json!(null)),
        Just(json!([1, 2])),
        any::<u8>().prop_map(|n| json!({"x": n})),
        any::<bool>().prop_map(|b| json!({"u": {"z": b}})),
    ];
    prop::collection::vec((path, value).prop_map(|(path, value)| Say { path, value }), 0..8)
}

/// The naive fold: leaf by leaf, each remembering who wrote it last.
fn fold(tree: &mut Vec<(Vec<String>, Json, Layer)>, path: &[String], value: &Json, layer: Layer) {
    let table = value.as_object().filter(|table| !table.is_empty());
    // A scalar above this path gives way to a table.
    tree.retain(|(leaf, ..)| !(path.starts_with(leaf) && leaf.len() < path.len()));
    if let Some(table) = table {
        tree.retain(|(leaf, ..)| leaf != path);
        for (key, value) in table {
            let below: Vec<_> = path.iter().cloned().chain([key.clone()]).collect();
            fold(tree, &below, value, layer);
        }
    } else {
        tree.retain(|(leaf, ..)| !leaf.starts_with(path));
        tree.push((path.to_vec(), value.clone(), layer));
    }
}

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(transparent)]
struct Free(std::collections::BTreeMap<String, Json>);

impl runtime_kernel::config::Section for Free {
    const PATH: &'static str = "free";
}

proptest! {
    #[test]
    fn explain_names_the_true_winner_of_any_layering(file_says in says(), env_says in says(), code_says in says()) {
        // One JSON file: its own fold is what the file holds.
        let mut in_file = Vec::new();
        for say in &file_says {
            let path: Vec<_> = say.path.iter().map(|key| (*key).to_owned()).collect();
            fold(&mut in_file, &path, &say.value, Layer::File);
        }
        let mut document = json!({"free": {}});
        for (path, value, _) in &in_file {
            document.pointer_mut("/free").unwrap().as_object_mut().unwrap().entry("_").or_insert(json!(0));
            let mut node = &mut document["free"];
            for key in path {
                if !node.is_object() { *node = json!({}); }
                node = node.as_object_mut().unwrap().entry(key.clone()).or_insert(json!({}));
            }
            *node = value.clone();
        }
        let file = file("runtime.json", &document.to_string());
        let mut builder = Config::builder().file(&file.path);
        let mut expected = Vec::new();
        fold(&mut expected, &["free".to_owned()], &document["free"], Layer::File);
        // Variables carry scalars; the more specific name wins inside the layer, so names are given once.
        let mut vars: Vec<(String, Vec<String>, String)> = Vec::new();
        for say in env_says.iter().filter(|say| say.value.is_number()) {
            let path: Vec<_> = ["free"].iter().chain(say.path).map(|key| (*key).to_owned()).collect();
            let name = format!("RUNTIME__{}", path.join("__").to_uppercase());
            vars.retain(|(known, ..)| *known != name);
            vars.push((name, path, say.value.to_string()));
        }
        vars.sort_by(|a, b| (a.1.len(), &a.0).cmp(&(b.1.len(), &b.0)));
        for (name, path, text) in vars {
            fold(&mut expected, &path, &json!(text), Layer::Env);
            builder = builder.env([(name, text)]);
        }
        for say in &code_says {
            let path: Vec<_> = ["free"].iter().chain(say.path).map(|key| (*key).to_owned()).collect();
            fold(&mut expected, &path, &say.value, Layer::Code);
            builder = builder.set(&path.join("."), say.value.clone());
        }
        // A section that is a map keeps whatever it is given.
        let config = builder.section::<Free>().build().unwrap();
        let mut found: Vec<_> = config.explain().leaves.into_iter().filter(|leaf| leaf.path.starts_with("free.")).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let mut expected: Vec<_> = expected.into_iter().map(|(path, value, layer)| (path.join("."), value, layer)).collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        if expected == [("free".to_owned(), json!({}), Layer::File)] { expected.clear(); }
        let winners: Vec<_> = found.iter().map(|leaf| (leaf.path.clone(), leaf.value.clone(), leaf.winner.layer)).collect();
        prop_assert_eq!(winners, expected);
        for leaf in &found {
            prop_assert_eq!(&leaf.chain.last().unwrap().source, &leaf.winner);
            prop_assert!(leaf.chain.is_sorted_by_key(|setting| setting.source.layer));
        }
    }
}
