//! The command line on a folder of its own.

use std::process::{Command, Output};

use tempfile::TempDir;

const ATHYPER: &str = r#"{
  "env": "production", "mode": "api", "serviceName": "shop", "port": 8080, "shutdownTimeoutMs": 20000,
  "db": { "poolMax": 25 },
  "iam": { "realms": { "acme": {
    "defaults": { "currency": "EUR" },
    "iam": { "issuerUrl": "https://idp.example", "clientId": "shop", "clientSecretRef": "acmeMain" },
    "tenants": { "northWind": { "defaults": { "dateFormat": "iso" } } }
  } } },
  "redis": {}, "s3": { "useSSL": true },
  "jobQueue": { "queueName": "athyper-jobs", "defaultRetries": 3 },
  "audit": { "writeMode": "outbox", "retentionDays": 90 }
}"#;

fn runtime(folder: &TempDir, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runtime"));
    command.current_dir(folder.path()).args(args).envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn an_athyper_file_and_its_super_names_are_read_by_the_whole_server() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kernel.config.json"), ATHYPER).unwrap();
    let variables = [
        ("ATHYPER_KERNEL_CONFIG_PATH", "kernel.config.json"),
        ("ATHYPER_SUPER__DB_URL", "sqlite:shop.db"),
        ("ATHYPER_SUPER__REDIS_URL", "redis://cache"),
        ("ATHYPER_SUPER__S3_ENDPOINT", "https://s3.example"),
        ("ATHYPER_SUPER__IAM_SECRET__acmeMain", "hunter2"),
        ("ATHYPER_SUPER__IAM_DEFAULT_REALM", "acme"),
    ];
    let args = ["--env-prefix", "ATHYPER", "--json", "config", "explain"];
    let output = runtime(&folder, &variables, &args);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for path in
        ["db.url", "redis.url", "s3.endpoint", "tenancy.default_realm", "http.port", "audit.retention"]
    {
        assert!(said.contains(path), "{path} is not listed: {said}");
    }
    assert!(!said.contains("hunter2"));

    // Its exit codes: the default realm, a secret, the file.
    for (without, code) in
        [("ATHYPER_SUPER__IAM_DEFAULT_REALM", 5), ("ATHYPER_SUPER__IAM_SECRET__acmeMain", 4)]
    {
        let fewer: Vec<_> = variables.into_iter().filter(|(name, _)| *name != without).collect();
        assert_eq!(runtime(&folder, &fewer, &args).status.code(), Some(code), "without {without}");
    }
    let [_, rest @ ..] = variables;
    let elsewhere: Vec<_> =
        [("ATHYPER_KERNEL_CONFIG_PATH", "nowhere.json")].into_iter().chain(rest).collect();
    assert_eq!(runtime(&folder, &elsewhere, &args).status.code(), Some(2));
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("runtime.toml"), "[http]\nprot = 80\nhost = \"nowhere\"\n").unwrap();
    let output = runtime(&folder, &[("RUNTIME__JOBS__LEASE", "soon")], &["config", "check"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    for part in ["http.prot", "did you mean `port`", "runtime.toml:2", "http.host", "runtime.toml:3"] {
        assert!(said.contains(part), "{part} is not said:\n{said}");
    }
}

#[test]
fn keys_made_on_the_command_line_open_the_server_and_are_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let made = runtime(&folder, &[], &["--json", "keys", "create", "--name", "ci", "--scope", "jobs:read"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(made["secret"].as_str().unwrap().starts_with("rt_"), "{made:#}");
    let listed = runtime(&folder, &[], &["--json", "keys", "list"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed[0]["id"], made["record"]["id"], "{listed:#}");
    let record = std::fs::read_to_string(folder.path().join("runtime-data/audit.jsonl")).unwrap();
    assert!(record.contains("keys.created") && record.contains(r#""id":"cli""#), "{record}");
}

#[test]
fn rollouts_take_orders_on_the_command_line_and_they_are_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let routes = [("RUNTIME__ROLLOUT__ROUTES", r#"{"shop":{}}"#)];
    let run = |args: &[&str]| {
        let output = runtime(&folder, &routes, &[&["--json", "rollouts"], args].concat());
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), said)
    };
    let (code, view) = run(&["order", "shop", "weight", "--weight", "250", "--reason", "try it"]);
    assert_eq!((code, view["weight"].as_u64(), view["phase"].as_str()), (Some(0), Some(250), Some("paused")));
    let (_, list) = run(&["list"]);
    assert_eq!(
        (list[0]["name"].as_str(), list[0]["reason"].as_str()),
        (Some("shop"), Some("weight: try it"))
    );
    assert_ne!(run(&["order", "shop", "switch"]).0, Some(0));
    assert_ne!(run(&["order", "shop", "pin", "--subject", "a"]).0, Some(0), "it says no side");
    let record = std::fs::read_to_string(folder.path().join("runtime-data/audit.jsonl")).unwrap();
    assert!(record.contains("rollouts.ordered") && record.contains("try it"), "{record}");
}

#[test]
fn a_task_or_relay_that_cannot_be_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value, parts) in [
        (
            "RUNTIME__SERVER__MAINTENANCE",
            r#"{"evnets":{}}"#,
            ["server.maintenance.evnets", "events, inbox, outbox"],
        ),
        ("RUNTIME__SERVER__MAINTENANCE", r#"{"events":{"when":"61 * * * *"}}"#, ["maintenance.events", "61"]),
        ("RUNTIME__SERVER__RELAYS", r#"{"a b":{"to":"events"}}"#, ["relays.a b", "letters"]),
        ("RUNTIME__SERVER__RELAYS", r#"{"x":{"to":"http","url":"nope"}}"#, ["relays.x.url", "absolute"]),
    ] {
        let output = runtime(&folder, &[(name, value)], &["routes"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{value}: {said}");
    }
}

#[test]
fn jobs_wait_and_are_unique_from_the_command_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let json = |args: &[&str]| -> serde_json::Value {
        let args: Vec<&str> = ["--json", "jobs"].iter().chain(args).copied().collect();
        let output = runtime(&folder, &[], &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let payload = r#"{"method":"GET","url":"http://localhost:1/"}"#;
    let first = json(&["enqueue", "http.request", payload, "--unique", "once"]);
    let again = json(&["enqueue", "http.request", payload, "--unique", "once"]);
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &serde_json::json!(true)));
    let waits = json(&["enqueue", "http.request", payload, "--after", first["id"].as_str().unwrap()]);
    let listed = json(&["list", "--state", "waiting"]);
    assert_eq!((&listed[0]["id"], listed.as_array().unwrap().len()), (&waits["id"], 1));
    json(&["cancel", first["id"].as_str().unwrap()]);
    let gone = json(&["show", waits["id"].as_str().unwrap()]);
    assert_eq!((&gone["state"], gone["reason"].is_object()), (&serde_json::json!("cancelled"), true));
    for args in [["jobs", "batch"], ["jobs", "cancel-batch"]] {
        let unknown = [args[0], args[1], "01900000-0000-7000-8000-000000000000"];
        let refused = runtime(&folder, &[], &unknown);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
}
