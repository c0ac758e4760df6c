//! Locked paths hold, however the attempt is spelt.

use runtime_kernel::config::{Config, ConfigBuilder};
use serde_json::json;

use super::config_support::{Db, S3, file};

fn production(text: &str) -> (super::config_support::Fixture, ConfigBuilder) {
    let fixture = file("runtime.toml", text);
    let builder = Config::builder().file(&fixture.path).set("env", "production");
    (fixture, builder)
}

type Attempt = fn(ConfigBuilder) -> ConfigBuilder;

#[test]
fn only_the_super_layer_sets_a_locked_path() {
    const ONLY: &str = "is locked: only the super layer may set it";
    let whole = |path: &str| {
        format!("is locked, and `{path}` is replaced as a whole: only the super layer may set it")
    };
    let cases: &[(&str, Attempt, String)] = &[
        ("[db]\nurl = 'x'\n", |b| b, format!("db.url: {ONLY} (file, runtime.toml:2)")),
        ("[db]\nadmin_url = 'x'\n", |b| b, format!("db.admin_url: {ONLY} (file, runtime.toml:2)")),
        ("[db.replica]\n\nurl = 'x'\n", |b| b, format!("db.replica.url: {ONLY} (file, runtime.toml:3)")),
        ("[s3]\nendpoint = 'x'\nbucket = 'y'\n", |b| b, format!("s3.bucket: {ONLY} (file, runtime.toml:3)\ns3.endpoint: {ONLY} (file, runtime.toml:2)")),
        ("", |b| b.env([("RUNTIME__DB__URL", "x")]), format!("db.url: {ONLY} (env, RUNTIME__DB__URL)")),
        ("", |b| b.env([("RUNTIME__DB", r#"{"url":"x"}"#)]), format!("db.url: {ONLY} (env, RUNTIME__DB)")),
        ("", |b| b.env([("RUNTIME__S3__ENDPOINT", "x")]), format!("s3.endpoint: {ONLY} (env, RUNTIME__S3__ENDPOINT)")),
        ("", |b| b.set("db.admin_url", json!(null)), format!("db.admin_url: {ONLY} (code)")),
        ("", |b| b.assign("db.admin_url=x"), format!("db.admin_url: {ONLY} (code, --set)")),
        ("", |b| b.set("db", json!({"replica": {"url": "x"}})), format!("db.replica.url: {ONLY} (code)")),
        (
            "[db]\nreplica = ['x']\n",
            |b| b,
            format!(
                "db.replica.url: {} (file, runtime.toml:2)\ndb.replica: invalid type: sequence, expected struct Replica (file, runtime.toml:2)",
                whole("db.replica")
            ),
        ),
        (
            "[db]\ndsn = 'x'\n",
            |b| b,
            "db.url: is locked, and is set through another name: only the super layer may set it, by this name".into(),
        ),
    ];
    for (text, attempt, expected) in cases {
        let (fixture, builder) = production(text);
        let error = attempt(builder).section::<Db>().section::<S3>().build().unwrap_err();
        assert_eq!(fixture.short(&error), *expected, "{text}");
        assert_eq!(error.exit_code(), 3);
    }
}

#[test]
fn replacing_the_whole_section_does_not_open_its_locks() {
    for value in [json!(null), json!([]), json!("x"), json!(1)] {
        let (fixture, builder) = production("");
        let error = builder.set("db", value.clone()).section::<Db>().build().unwrap_err();
        let expected =
            "db.url: is locked, and `db` is replaced as a whole: only the super layer may set it (code)";
        assert!(fixture.short(&error).starts_with(expected), "{value}: {error}");
    }
}

#[test]
fn super_sets_them_and_local_opens_them() {
    let supered = [
        ("RUNTIME_SUPER__DB__URL", "a"),
        ("RUNTIME_SUPER__DB_ADMIN_URL", "b"),
        ("RUNTIME_SUPER__DB_REPLICA_URL", "c"),
        ("RUNTIME_SUPER__S3_BUCKET", "d"),
    ];
    let (_fixture, builder) = production("[db]\nmax_connections = 3\n");
    let config = builder.env(supered).build().unwrap();
    let db = config.section::<Db>().unwrap();
    assert_eq!((db.url.as_str(), db.admin_url.as_deref(), db.max_connections), ("a", Some("b"), 3));
    assert_eq!(db.replica.url.as_deref(), Some("c"));
    assert_eq!(config.section::<S3>().unwrap().bucket, "d");

    let local = file("runtime.toml", "[db]\nurl = 'x'\n[s3]\nbucket = 'y'\n");
    let config = Config::builder().file(&local.path).section::<Db>().section::<S3>().build().unwrap();
    assert_eq!(config.section::<Db>().unwrap().url, "x");
}

#[test]
fn an_unreadable_environment_is_not_taken_for_local() {
    let fixture = file("runtime.toml", "env = 'prod'\n[db]\nurl = 'x'\n");
    let error = fixture.short(&Config::builder().file(&fixture.path).section::<Db>().build().unwrap_err());
    assert!(error.contains("env: unknown value `prod`"), "{error}");
    assert!(error.contains("db.url: is locked"), "{error}");
}
