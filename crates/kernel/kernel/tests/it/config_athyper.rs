//! Athyper's files, variables and exit codes.

use std::time::Duration;

use runtime_kernel::config::{Config, Environment, Section};
use runtime_kernel::lifecycle::ShutdownConfig;
use serde::{Deserialize, Serialize};

use super::config_support::{Db, Http, file};

const FILE: &str = r#"{
  "env": "staging", "mode": "worker", "serviceName": "shop", "port": 8080,
  "logLevel": "debug", "shutdownTimeoutMs": 20000,
  "db": { "poolMax": 25 },
  "iam": {
    "defaultRealmKey": "acme",
    "requireTenantClaimsInProd": true,
    "realms": { "acme": {
      "defaults": { "camelCase": 1 },
      "iam": { "issuerUrl": "https://idp", "clientId": "shop", "clientSecretRef": "acmeMain" },
      "featureFlags": { "bffSessions": true },
      "tenants": { "northWind": { "defaults": { "dateFormat": "iso" } } }
    } }
  },
  "redis": {}, "s3": { "useSSL": true },
  "jobQueue": { "queueName": "athyper-jobs" },
  "audit": { "writeMode": "outbox", "retentionDays": 90 },
  "document": { "rendering": { "concurrency": 3 } }
}"#;

const SECRET: (&str, &str) = ("ATHYPER_SUPER__IAM_SECRET__acmeMain", "hunter2");

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tenancy {
    default_realm: String,
    realms: std::collections::BTreeMap<String, Realm>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Realm {
    defaults: serde_json::Value,
    tenants: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Section for Tenancy {
    const PATH: &'static str = "tenancy";
    const LOCKED: &'static [&'static str] = &["default_realm"];
}

#[test]
fn an_athyper_file_loads_unchanged_and_nothing_of_it_is_dropped_in_silence() {
    let fixture = file("kernel.config.json", &FILE.replace("\"staging\"", "\"local\""));
    let config = Config::builder()
        .athyper()
        .env([
            ("ATHYPER_KERNEL_CONFIG_PATH", "kernel.config.json"),
            ("MESH_CONFIG", fixture.directory.path().to_str().unwrap()),
            SECRET,
        ])
        .build()
        .unwrap();
    assert_eq!(config.environment(), Environment::Local);
    assert_eq!((config.mode().as_str(), config.service_name().as_str()), ("worker", "shop"));
    assert_eq!(config.section::<Http>().unwrap().port, 8080);
    assert_eq!(config.section::<Db>().unwrap().max_connections, 25);
    assert_eq!(config.section::<ShutdownConfig>().unwrap().timeout, Duration::from_secs(20));
    let tenancy = config.section::<Tenancy>().unwrap();
    assert_eq!(tenancy.default_realm, "acme");
    assert_eq!(tenancy.realms["acme"].defaults["camelCase"], 1);
    assert_eq!(tenancy.realms["acme"].tenants["northWind"]["defaults"]["dateFormat"], "iso");
    config.check_unknown().unwrap();

    let explanation = config.explain();
    for path in [
        "telemetry.levels",
        "tenancy.require_tenant_claims_in_prod",
        "tenancy.realms.acme.iam.client_id",
        "tenancy.realms.acme.feature_flags.bff_sessions",
        "tenancy.client_secrets.acmeMain",
        "s3.use_ssl",
        "jobs.queue_name",
        "audit.retention",
        "document.rendering.concurrency",
    ] {
        let leaf = explanation.leaf(path).unwrap_or_else(|| panic!("{path} is not listed:\n{explanation}"));
        assert!(!leaf.used, "{path}");
    }
    assert!(!explanation.to_string().contains("hunter2"));
}

#[test]
fn super_and_plain_names_work_and_blank_is_not_set() {
    for (name, path) in [
        ("ATHYPER_SUPER__DB_URL", "db.url"),
        ("ATHYPER_SUPER__DATABASE_URL", "db.url"),
        ("DATABASE_URL", "db.url"),
        ("ATHYPER_SUPER__DATABASE_ADMIN_URL", "db.admin_url"),
        ("DB_POOL_MAX", "db.max_connections"),
        ("PORT", "http.port"),
        ("ATHYPER__HTTP__PORT", "http.port"),
        ("ATHYPER_SUPER__REDIS_URL", "redis.url"),
        ("ATHYPER_SUPER__S3_ENDPOINT", "s3.endpoint"),
        ("S3_SECRET_KEY", "s3.secret_key"),
        ("ATHYPER_SUPER__OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ] {
        // Plain names may set locked paths, as they may in Athyper.
        let config = Config::builder().prefix("ATHYPER").env([
            ("ENVIRONMENT", "production"),
            ("NODE_ENV", "local"),
            (name, " 81 "),
        ]);
        let config = config
            .section::<Db>()
            .section::<Http>()
            .build()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.environment(), Environment::Production);
        config.check_unknown().unwrap_or_else(|error| panic!("{name}: {error}"));
        let winner = config.explain().leaf(path).unwrap_or_else(|| panic!("{name}")).winner.to_string();
        assert!(winner.ends_with(name), "{name}: {winner}");
    }
    let config = Config::builder()
        .athyper()
        .env([("PORT", " "), ("DATABASE_URL", "")])
        .section::<Http>()
        .build()
        .unwrap();
    assert_eq!(config.section::<Http>().unwrap().port, 3000);
    let config = Config::builder().env([("PORT", "1")]).section::<Http>().build().unwrap();
    assert_eq!(config.section::<Http>().unwrap().port, 3000);
}

#[test]
fn exit_codes_and_codes_are_kept() {
    let cases = [
        ("{", vec![SECRET], 2, "CONFIG_FILE_ERROR"),
        (r#"{"port":70000}"#, vec![SECRET], 3, "CONFIG_VALIDATION_ERROR"),
        (r#"{"env":"development"}"#, vec![SECRET], 3, "CONFIG_VALIDATION_ERROR"),
        (FILE, vec![], 4, "IAM_SECRET_REF_MISSING"),
        (FILE, vec![SECRET, ("IAM_DEFAULT_REALM", "globex")], 5, "IAM_DEFAULT_REALM_MISSING"),
        (r#"{"iam":{"realms":{}}}"#, vec![], 5, "IAM_DEFAULT_REALM_MISSING"),
    ];
    for (text, env, exit, code) in cases {
        let fixture = file("config.json", text);
        let error =
            Config::builder().athyper().file(&fixture.path).env(env).section::<Http>().build().unwrap_err();
        assert_eq!((error.exit_code(), error.athyper_code()), (exit, code), "{text}: {error}");
    }
    let fixture = file("config.json", FILE);
    let error = Config::builder().athyper().file(&fixture.path).build().unwrap_err();
    assert_eq!(
        fixture.short(&error),
        "tenancy.realms.acme.iam.client_secret_ref: the secret `acmeMain` is missing: set \
         ATHYPER_SUPER__IAM_SECRET__acmeMain (file, config.json:10)"
    );
}
