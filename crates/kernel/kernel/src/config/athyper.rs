//! Athyper's files and variables, read as ours.

use serde_json::Value as Json;

use super::error::{Problem, ProblemKind};
use super::node::{Node, Table, Value, dotted, segments};
use super::source::Layer;
use super::vars::Var;

/// The prefix that switches this on.
pub(super) const PREFIX: &str = "ATHYPER";
/// Names the file.
pub(super) const FILE_VARIABLE: &str = "ATHYPER_KERNEL_CONFIG_PATH";
/// What a relative file name is relative to.
pub(super) const BASE_VARIABLE: &str = "MESH_CONFIG";

/// How a value changes on the way.
#[derive(Clone, Copy)]
enum Unit {
    Same,
    /// A number of this unit becomes `"<n><unit>"`.
    In(&'static str),
}

/// File paths whose name or unit differs; every other key only changes its case.
const PATHS: &[(&str, &str, Unit)] = &[
    ("serviceName", "service_name", Unit::Same),
    ("port", "http.port", Unit::Same),
    ("publicBaseUrl", "http.public_base_url", Unit::Same),
    ("logLevel", "telemetry.levels", Unit::Same),
    ("shutdownTimeoutMs", "shutdown.timeout", Unit::In("ms")),
    ("db.adminUrl", "db.admin_url", Unit::Same),
    ("db.poolMax", "db.max_connections", Unit::Same),
    ("iam", "tenancy", Unit::Same),
    ("iam.defaultRealmKey", "tenancy.default_realm", Unit::Same),
    ("iam.defaultTenantKey", "tenancy.default_tenant", Unit::Same),
    ("iam.defaultOrgKey", "tenancy.default_org", Unit::Same),
    ("s3.useSSL", "s3.use_ssl", Unit::Same),
    ("jobQueue", "jobs", Unit::Same),
    ("audit.retentionDays", "audit.retention", Unit::In("days")),
];

/// Plain variables and super names: ours, and whether super may say it too.
const VARIABLES: &[(&str, &str, Unit, bool)] = &[
    ("ENVIRONMENT", "env", Unit::Same, false),
    ("MODE", "mode", Unit::Same, false),
    ("SERVICE_NAME", "service_name", Unit::Same, false),
    ("PORT", "http.port", Unit::Same, false),
    ("LOG_LEVEL", "telemetry.levels", Unit::Same, false),
    ("SHUTDOWN_TIMEOUT_MS", "shutdown.timeout", Unit::In("ms"), false),
    ("PUBLIC_BASE_URL", "http.public_base_url", Unit::Same, false),
    ("DATABASE_URL", "db.url", Unit::Same, true),
    ("DATABASE_ADMIN_URL", "db.admin_url", Unit::Same, true),
    ("DB_POOL_MAX", "db.max_connections", Unit::Same, false),
    ("IAM_STRATEGY", "tenancy.strategy", Unit::Same, true),
    ("IAM_DEFAULT_REALM", "tenancy.default_realm", Unit::Same, true),
    ("IAM_DEFAULT_TENANT", "tenancy.default_tenant", Unit::Same, true),
    ("IAM_DEFAULT_ORG", "tenancy.default_org", Unit::Same, true),
    ("REDIS_URL", "redis.url", Unit::Same, true),
    ("S3_ENDPOINT", "s3.endpoint", Unit::Same, true),
    ("S3_ACCESS_KEY", "s3.access_key", Unit::Same, true),
    ("S3_SECRET_KEY", "s3.secret_key", Unit::Same, true),
    ("S3_REGION", "s3.region", Unit::Same, true),
    ("S3_BUCKET", "s3.bucket", Unit::Same, true),
    ("S3_USE_SSL", "s3.use_ssl", Unit::Same, true),
    ("OTLP_ENDPOINT", "telemetry.otlp_endpoint", Unit::Same, true),
    ("TELEMETRY_ENABLED", "telemetry.enabled", Unit::Same, true),
];

/// Where client secrets given by `ATHYPER_SUPER__IAM_SECRET__<ref>` are kept.
const SECRETS: [&str; 2] = ["tenancy", "client_secrets"];

/// Tables whose keys are names that people chose: kept as they are.
const NAMED: &[&str] = &["iam.realms", "iam.realms.*.tenants", "iam.realms.*.tenants.*.orgs"];

/// Tables of free content, kept as they are throughout.
const FREE: &str = "defaults";

/// A file's tree with our paths. Nothing is dropped: what has no place here keeps its name in snake case.
pub(super) fn translate(tree: Node) -> Node {
    let mut out = Node::table(tree.source.clone());
    if let Value::Table(table) = tree.value {
        walk(table, &mut Vec::new(), &[], &mut out);
    }
    out
}

fn walk(table: Table, theirs: &mut Vec<String>, ours: &[String], out: &mut Node) {
    let keep_names = NAMED.iter().any(|pattern| matches(pattern, theirs));
    for (key, node) in table {
        let depth = theirs.len();
        theirs.push(key.clone());
        let known = PATHS.iter().find(|(path, ..)| *path == dotted(theirs));
        let (path, unit) = if let Some((_, path, unit)) = known {
            (segments(path), *unit)
        } else {
            let name = if keep_names { key.clone() } else { snake_case(&key) };
            (ours.iter().cloned().chain([name]).collect(), Unit::Same)
        };
        match node.value {
            Value::Table(inner) if key != FREE && !inner.is_empty() => {
                walk(inner, theirs, &path, out);
            }
            value => out.insert(&path, Node::new(in_unit(value, unit), node.source)),
        }
        theirs.truncate(depth);
    }
}

fn matches(pattern: &str, path: &[String]) -> bool {
    let parts: Vec<_> = pattern.split('.').collect();
    parts.len() == path.len() && parts.iter().zip(path).all(|(part, key)| *part == "*" || part == key)
}

fn in_unit(value: Value, unit: Unit) -> Value {
    match (value, unit) {
        (Value::Number(number), Unit::In(unit)) => Value::String(format!("{number}{unit}")),
        (value, _) => value,
    }
}

/// `bffSessions` to `bff_sessions`, `useSSL` to `use_ssl`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    let mut previous_lower = false;
    for c in key.chars() {
        if c.is_ascii_uppercase() && previous_lower {
            out.push('_');
        }
        previous_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// One of Athyper's variables; blank counts as not set, as there.
pub(super) fn var(prefix: &str, name: &str, text: &str) -> Option<Var> {
    let super_name = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("_SUPER__"));
    if let Some(reference) = super_name.and_then(|name| name.strip_prefix("IAM_SECRET__")) {
        let keys = SECRETS.into_iter().map(str::to_owned).chain([reference.to_owned()]).collect();
        return Some(Var { compat: true, ..Var::new(name, Layer::Super, keys, text) });
    }
    let (layer, short) = match super_name {
        Some(short) => (Layer::Super, short),
        None => (Layer::Env, if name == "NODE_ENV" { "ENVIRONMENT" } else { name }),
    };
    let (_, path, unit, _) = VARIABLES
        .iter()
        .find(|(known, _, _, in_super)| *known == short && (*in_super || layer == Layer::Env))?;
    let text = match unit {
        _ if text.trim().is_empty() => return None,
        Unit::In(unit) => format!("{}{unit}", text.trim()),
        // Words of the environment may carry blanks; addresses and secrets are left as they are.
        Unit::Same => text.to_owned(),
    };
    Some(Var { compat: true, ..Var::new(name, layer, segments(path), &text) })
}

/// The checks Athyper makes on its realms: the default one exists, and every secret referred to is supplied.
pub(super) fn check(files: &[Node], vars: &[Var]) -> Vec<Problem> {
    let realms = files.iter().find_map(|tree| tree.get(&segments("tenancy.realms")));
    let Some(Value::Table(realms)) = realms.map(|node| &node.value) else { return Vec::new() };
    let mut problems = Vec::new();
    let path = segments("tenancy.default_realm");
    let file = files.iter().find_map(|tree| tree.get(&path));
    let from_file = file.map(|node| (node.to_json(), Some(node.source.clone())));
    let from_var = vars.iter().rfind(|var| var.keys == path);
    let chosen = from_var.map(|var| (Json::String(var.text.clone()), Some(var.source()))).or(from_file);
    let (default, source) = chosen.unwrap_or_else(|| (Json::String("main".to_owned()), None));
    let default = default.as_str().unwrap_or_default();
    if !realms.contains_key(default) {
        let message = format!("the default realm `{default}` is not among the realms");
        problems.push(Problem::new(ProblemKind::DefaultRealmMissing, dotted(&path), message).at(source));
    }
    for (name, realm) in realms {
        let Some(reference) = realm.get(&segments("iam.client_secret_ref")) else { continue };
        let Json::String(wanted) = reference.to_json() else { continue };
        let supplied = vars.iter().any(|var| {
            var.layer == Layer::Super
                && var.keys.len() == 3
                && var.keys.starts_with(&SECRETS.map(str::to_owned))
                && var.keys.last() == Some(&wanted)
        });
        if !supplied {
            let at: Vec<_> = segments("tenancy.realms")
                .into_iter()
                .chain([name.clone(), "iam".into(), "client_secret_ref".into()])
                .collect();
            let message =
                format!("the secret `{wanted}` is missing: set {PREFIX}_SUPER__IAM_SECRET__{wanted}");
            problems.push(
                Problem::new(ProblemKind::SecretMissing, dotted(&at), message)
                    .at(Some(reference.source.clone())),
            );
        }
    }
    problems
}
