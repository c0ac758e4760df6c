//! Layers, types and mistakes, with the exact text a person reads.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_kernel::config::{Config, Environment, ProblemKind};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, ErrorKind, Mode};
use serde_json::json;

use super::config_support::{Db, Http, Style, env, file};

#[test]
fn each_layer_overrides_the_one_below() {
    let fixture = file("runtime.toml", "[http]\nport = 1\n");
    let from_file = || Config::builder().file(&fixture.path).section::<Http>();
    let port = |builder: runtime_kernel::config::ConfigBuilder| {
        builder.build().unwrap().section::<Http>().unwrap().port
    };
    assert_eq!(port(Config::builder()), 3000);
    assert_eq!(port(from_file()), 1);
    let from_env = || from_file().env([("RUNTIME__HTTP__PORT", "2")]);
    assert_eq!(port(from_env()), 2);
    assert_eq!(port(from_env().set("http.port", 3)), 3);
    assert_eq!(port(from_env().set("http.port", 3).assign("http.port=4")), 4);
    assert_eq!(port(from_env().set("http.port", 3).env([("RUNTIME_SUPER__HTTP__PORT", "5")])), 5);
    assert_eq!(port(from_env().set("http.port", 3).env([("RUNTIME_SUPER__HTTP_PORT", "6")])), 6);
}

#[test]
fn tables_merge_and_arrays_scalars_and_null_replace() {
    let fixture = file("runtime.json", r#"{"http":{"tags":["b","c"],"limit":5,"tls":{"cert":"x"}}}"#);
    let config = Config::builder()
        .file(&fixture.path)
        .set("http.tags", json!(["d"]))
        .set("http.limit", json!(null))
        .set("http.tls", json!({"min_version": 13}))
        .build()
        .unwrap();
    let http = config.section::<Http>().unwrap();
    assert_eq!((http.tags, http.limit), (vec!["d".to_owned()], None));
    assert_eq!((http.tls.cert.as_deref(), http.tls.min_version), (Some("x"), 13));
}

#[test]
fn environment_text_is_read_as_the_type_asks() {
    let read = |key: &str, text: &str| {
        let name = format!("RUNTIME__HTTP__{key}");
        env(&[(&name, text)])
            .build()
            .unwrap()
            .section::<Http>()
            .unwrap_or_else(|error| panic!("{key}={text}: {error}"))
    };
    assert_eq!(read("PASSWORD", "12345").password, "12345");
    assert_eq!(read("PASSWORD", "true").password, "true");
    assert_eq!(read("PASSWORD", r#"{"a":1}"#).password, r#"{"a":1}"#);
    assert_eq!(read("HOST", " x ").host, " x ");
    assert_eq!(read("PORT", " 81 ").port, 81);
    assert_eq!(read("OFFSET", "-7").offset, -7);
    assert!((read("RATIO", "1").ratio - 1.0).abs() < f64::EPSILON);
    for yes in ["true", "1", "yes", "y", "on", " ON "] {
        assert!(read("VERBOSE", yes).verbose, "{yes}");
    }
    for no in ["false", "0", "no", "n", "off", "No"] {
        assert!(!read("VERBOSE", no).verbose, "{no}");
    }
    assert_eq!(read("TIMEOUT", "1m 30s").timeout, Duration::from_secs(90));
    assert_eq!(read("MAX_BODY", "2MiB").max_body, ByteSize::mib(2));
    assert_eq!(read("LIMIT", "7").limit, Some(7));
    assert_eq!(read("LIMIT", "").limit, None);
    assert_eq!(read("TAGS", "x, y,z").tags, ["x", "y", "z"]);
    assert_eq!(read("TAGS", r#"["x,y"]"#).tags, ["x,y"]);
    assert_eq!(read("TAGS", "").tags, Vec::<String>::new());
    assert_eq!(read("PORTS", "1, 2").ports, [1, 2]);
    assert_eq!(read("STYLE", "pretty").style, Style::Pretty);
    assert_eq!(read("STYLE", r#"{"custom":{"width":80}}"#).style, Style::Custom { width: 80 });
    assert_eq!(read("LABELS", r#"{"team":"core"}"#).labels, BTreeMap::from([("team".into(), "core".into())]));
    assert_eq!(read("LABELS__TEAM", "12").labels, BTreeMap::from([("team".into(), "12".into())]));
    assert_eq!(read("TLS", r#"{"cert":"x"}"#).tls.min_version, 12);
}

/// File, variable, its value, and what is said of them.
const BAD_VALUES: &[(&str, &str, &str, &str)] = &[
    ("", "PORT", "abc", "http.port: invalid value: string \"abc\", expected u16 (env, RUNTIME__HTTP__PORT)"),
    (
        "",
        "PORT",
        "70000",
        "http.port: invalid value: integer `70000`, expected u16 (env, RUNTIME__HTTP__PORT)",
    ),
    (
        "",
        "VERBOSE",
        "maybe",
        "http.verbose: invalid value: string \"maybe\", expected a boolean (env, RUNTIME__HTTP__VERBOSE)",
    ),
    (
        "",
        "RATIO",
        "half",
        "http.ratio: invalid value: string \"half\", expected f64 (env, RUNTIME__HTTP__RATIO)",
    ),
    (
        "",
        "PORTS",
        "1,x",
        "http.ports.1: invalid value: string \"x\", expected u16 (env, RUNTIME__HTTP__PORTS)",
    ),
    (
        "",
        "PORTS",
        "[1",
        "http.ports: not JSON: EOF while parsing a list at line 1 column 2 (env, RUNTIME__HTTP__PORTS)",
    ),
    (
        "",
        "STYLE",
        "prety",
        "http.style: unknown value `prety`, did you mean `pretty`?, expected one of plain, pretty, custom (env, RUNTIME__HTTP__STYLE)",
    ),
    ("", "TLS", "on", "http.tls: invalid type: string \"on\", expected struct Tls (env, RUNTIME__HTTP__TLS)"),
    ("", "PROT", "1", "http.prot: unknown key `prot`, did you mean `port`? (env, RUNTIME__HTTP__PROT)"),
    (
        "",
        "TLS__CRET",
        "1",
        "http.tls.cret: unknown key `cret`, did you mean `cert`? (env, RUNTIME__HTTP__TLS__CRET)",
    ),
    (
        "[http]\nport = \"81\"\n",
        "",
        "",
        "http.port: invalid type: string \"81\", expected u16 (file, runtime.toml:2)",
    ),
    (
        "[http]\n\n\npassword = 12345\n",
        "",
        "",
        "http.password: invalid type, expected a string (file, runtime.toml:4)",
    ),
    (
        "[http.tls]\nmin_version = 300\n",
        "",
        "",
        "http.tls.min_version: invalid value: integer `300`, expected u8 (file, runtime.toml:2)",
    ),
    ("[http]\nzzz = 1\n", "", "", "http.zzz: unknown key `zzz` (file, runtime.toml:2)"),
    ("http = 3\n", "", "", "http: invalid type: integer `3`, expected struct Http (file, runtime.toml:1)"),
    ("[http]\nport = 0\n", "", "", "http.port: must not be 0 (file, runtime.toml:2)\nhttp: is not usable"),
    (
        "env = \"development\"\n",
        "",
        "",
        "env: unknown value `development`, expected one of local, staging, production (file, runtime.toml:1)",
    ),
    ("service_name = \"\"\n", "", "", "service_name: must not be empty (file, runtime.toml:1)"),
    ("[http]\nport = = 1\n", "", "", "not TOML: extra `=`, expected nothing (file, runtime.toml:2)"),
];

#[test]
fn every_bad_value_is_named_with_its_layer_and_place() {
    for (text, key, value, expected) in BAD_VALUES {
        let fixture = file("runtime.toml", text);
        let mut builder = Config::builder().file(&fixture.path).section::<Http>();
        if !key.is_empty() {
            builder = builder.env([(format!("RUNTIME__HTTP__{key}"), *value)]);
        }
        let error = builder.build().unwrap_err();
        assert_eq!(fixture.short(&error), *expected, "{text}{key}={value}");
    }
}

#[test]
fn a_duration_without_a_unit_is_refused_with_an_example() {
    let error = env(&[("RUNTIME__HTTP__TIMEOUT", "30")]).section::<Http>().build().unwrap_err().to_string();
    assert!(error.starts_with("http.timeout: `30` is not a duration such as \"30s\""), "{error}");
    assert!(error.ends_with("(env, RUNTIME__HTTP__TIMEOUT)"), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let fixture =
        file("runtime.yaml", "http:\n  port: abc\n  ratio: x\n  hots: y\ndb:\n  max_connections: -1\n");
    let builder = Config::builder().file(&fixture.path).env([("RUNTIME__HTTP__VERBOSE", "2")]);
    let error = builder.section::<Http>().section::<Db>().build().unwrap_err();
    assert_eq!(
        fixture.short(&error).lines().collect::<Vec<_>>(),
        [
            "http.port: invalid type: string \"abc\", expected u16 (file, runtime.yaml:2)",
            "http.ratio: invalid type: string \"x\", expected f64 (file, runtime.yaml:3)",
            "http.verbose: invalid value: string \"2\", expected a boolean (env, RUNTIME__HTTP__VERBOSE)",
            "http.hots: unknown key `hots`, did you mean `host`? (file, runtime.yaml:4)",
            "db.max_connections: invalid value: integer `-1`, expected u32 (file, runtime.yaml:6)",
        ]
    );
    assert_eq!(error.problems().len(), 5);
    assert_eq!((error.exit_code(), error.code(), error.kind()), (3, "config.invalid", ErrorKind::Invalid));
}

#[test]
fn sections_nobody_declared_are_refused_once_all_have_been() {
    let fixture = file("runtime.toml", "mod = 1\n[htpp]\nport = 1\n[http]\nport = 5\n");
    let config = Config::builder()
        .file(&fixture.path)
        .env([("RUNTIME__BD__URL", "x"), ("RUNTIME_SUPER__HTPP_PORT", "1"), ("RUNTIME_OTHER", "not ours")])
        .set("dbb.url", 1)
        .build()
        .unwrap();
    config.section::<Http>().unwrap();
    config.section::<Db>().unwrap();
    assert_eq!(
        fixture.short(&config.check_unknown().unwrap_err()).lines().collect::<Vec<_>>(),
        [
            "htpp: no section `htpp`, did you mean `http`? (file, runtime.toml:2)",
            "mod: no section `mod`, did you mean `mode`? (file, runtime.toml:1)",
            "bd.url: no section `bd` (env, RUNTIME__BD__URL)",
            "dbb: no section `dbb`, did you mean `db`? (code)",
            "htpp_port: no section `htpp_port` (super, RUNTIME_SUPER__HTPP_PORT)",
        ]
    );
}

#[test]
fn the_kernels_own_keys_stand_at_the_top() {
    let config =
        env(&[("RUNTIME__ENV", "production"), ("RUNTIME_SUPER__SERVICE_NAME", "shop")]).set("mode", "worker");
    let config = config.build().unwrap();
    assert_eq!(config.environment(), Environment::Production);
    assert_eq!((config.mode(), config.service_name().as_str()), (Mode::Worker, "shop"));
    config.check_unknown().unwrap();
    assert_eq!(Config::default().environment(), Environment::Local);
    assert_eq!(Config::default().section::<Http>().unwrap(), Http::default());
}

#[test]
fn files_are_found_by_name_and_two_are_one_too_many() {
    let fixture = file("runtime.yml", "http: {port: 9}\n");
    let search = || Config::builder().search(fixture.directory.path());
    assert_eq!(search().build().unwrap().section::<Http>().unwrap().port, 9);
    let elsewhere = file("shop.json", r#"{"http":{"port":10}}"#);
    let named = search().env([("RUNTIME_CONFIG", elsewhere.path.to_str().unwrap())]);
    assert_eq!(named.build().unwrap().section::<Http>().unwrap().port, 10);
    assert_eq!(
        Config::builder()
            .prefix("SHOP")
            .search(elsewhere.directory.path())
            .build()
            .unwrap()
            .get("http.port")
            .unwrap(),
        Some(10)
    );
    std::fs::write(fixture.directory.path().join("runtime.toml"), "").unwrap();
    let error = search().build().unwrap_err();
    assert_eq!(fixture.short(&error), "both runtime.toml and runtime.yml exist: keep one");
    assert_eq!(error.exit_code(), 2);
    let error = Config::builder().file("no/such.toml").build().unwrap_err();
    assert_eq!(error.to_string(), "cannot read no/such.toml: No such file or directory (os error 2)");
    let error = Config::builder().assign("http.port").build().unwrap_err();
    assert_eq!(error.to_string(), "`http.port` is not of the form path=value (code, --set)");
}

#[test]
fn the_three_formats_say_the_same() {
    let texts = [
        (
            "runtime.toml",
            "[http]\nport = 81\nratio = 1.5\ntags = [\"x\"]\nverbose = true\n[http.tls]\ncert = \"c\"\n[http.labels]\na = \"1\"\n",
        ),
        (
            "runtime.json",
            "{\"http\":{\"port\":81,\"ratio\":1.5,\"tags\":[\"x\"],\"verbose\":true,\n\"tls\":{\"cert\":\"c\"},\"labels\":{\"a\":\"1\"}}}",
        ),
        (
            "runtime.yaml",
            "http:\n  port: 81\n  ratio: 1.5\n  tags: [x]\n  verbose: true\n  tls: {cert: c}\n  labels:\n    a: '1'\n",
        ),
    ];
    let read: Vec<Http> = texts
        .iter()
        .map(|(name, text)| {
            Config::builder().file(&file(name, text).path).build().unwrap().section().unwrap()
        })
        .collect();
    assert_eq!(read[0], read[1]);
    assert_eq!(read[1], read[2]);
    assert_eq!(read[0].labels["a"], "1");
}

#[test]
fn broken_files_are_refused_with_their_line() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    let cases = [
        ("runtime.json", "{\"a\": 1,\n \"a\": 2}", "the key \"a\" is there twice (file, runtime.json:2)"),
        ("runtime.json", "{\n\"a\": }", "not JSON: expected value at line 2 column 6 (file, runtime.json:2)"),
        ("runtime.json", &format!("{{\"a\":{deep}}}"), "nested deeper than 64 levels (file, runtime.json:1)"),
        ("runtime.json", "[1]", "the file must hold a table of sections (file, runtime.json:1)"),
        ("runtime.yaml", "a: 1\nb: 2\na: 3\n", "the key \"a\" is there twice (file, runtime.yaml:3)"),
        ("runtime.yaml", "a: 1\n---\nb: 1\n", "only one YAML document is read (file, runtime.yaml:2)"),
        ("runtime.yaml", laughs, "more than 100000 values after aliases are resolved (file, runtime.yaml:5)"),
        ("runtime.ini", "", "runtime.ini must end in .toml, .yaml, .yml or .json"),
    ];
    for (name, text, expected) in cases {
        let fixture = file(name, text);
        let error = Config::builder().file(&fixture.path).build().unwrap_err();
        assert_eq!(fixture.short(&error), expected, "{text}");
        assert_eq!(error.problems()[0].kind, ProblemKind::File);
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn a_variable_ending_in_file_names_a_file_that_holds_the_value() {
    let secret = file("secret", "hunter2\n");
    let path = secret.path.to_str().unwrap();
    let config =
        env(&[("RUNTIME__HTTP__PASSWORD_FILE", path), ("RUNTIME_SUPER__DB_URL_FILE", path)]).build().unwrap();
    assert_eq!(config.section::<Http>().unwrap().password, "hunter2");
    assert_eq!(config.section::<Db>().unwrap().url, "hunter2");
    let error = env(&[("RUNTIME__HTTP__PASSWORD_FILE", "/no/such")]).section::<Http>().build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "http.password: cannot read /no/such: No such file or directory (os error 2) (env, RUNTIME__HTTP__PASSWORD_FILE)"
    );
}

#[test]
fn figment_providers_feed_us_and_we_feed_figment() {
    let provider = figment::providers::Serialized::default("http.port", 4242);
    let config = Config::builder().provider(provider).section::<Http>().build().unwrap();
    assert_eq!(config.section::<Http>().unwrap().port, 4242);
    let winner = &config.explain().leaf("http.port").unwrap().winner.to_string();
    assert!(winner.starts_with("file, "), "{winner}");
    let port: u16 = figment::Figment::from(config).extract_inner("http.port").unwrap();
    assert_eq!(port, 4242);
}
