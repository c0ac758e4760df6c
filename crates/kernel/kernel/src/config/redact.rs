//! Which values are hidden wherever configuration is shown, and how.

use serde_json::Value as Json;

/// What is shown instead of a secret.
pub(super) const HIDDEN: &str = "***";

/// Endings of key names whose values are secrets, compared without `_`, `-` and case.
const SECRET_ENDINGS: [&str; 14] = [
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "accesskey",
    "secretkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "apikey",
    "credential",
    "credentials",
];

/// Whether a key's name says that its value is a secret.
pub(super) fn names_a_secret(key: &str) -> bool {
    let key: String = key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    SECRET_ENDINGS.iter().any(|ending| key.ends_with(ending))
}

/// Whether the leaf at `path` below a section is secret: listed by the section, named like one, or inside a
/// table that is (`client_secrets.main`).
pub(super) fn is_secret(path: &[String], listed: &[&str]) -> bool {
    covered(path, listed)
        || path.last().is_some_and(|key| names_a_secret(key))
        || path.iter().rev().skip(1).any(|key| names_a_secret(key.trim_end_matches('s')))
}

/// Whether one of the dotted names (or `"*"`) covers the path or a parent of it.
pub(super) fn covered(path: &[String], names: &[&str]) -> bool {
    names.iter().any(|name| {
        *name == "*" || {
            let mut keys = path.iter();
            name.split('.').all(|part| keys.next().is_some_and(|key| key == part))
        }
    })
}

/// The value as it may be shown.
pub(super) fn shown(value: Json, secret: bool) -> Json {
    match value {
        Json::Null => Json::Null,
        // That a secret is not set may be seen.
        Json::String(text) if text.is_empty() => Json::String(text),
        _ if secret => Json::String(HIDDEN.to_owned()),
        Json::String(text) => Json::String(without_userinfo(&text)),
        Json::Array(items) => Json::Array(items.into_iter().map(|item| shown(item, false)).collect()),
        Json::Object(entries) => Json::Object(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let secret = names_a_secret(&key);
                    (key, shown(value, secret))
                })
                .collect(),
        ),
        plain => plain,
    }
}

/// A URL without its user and password (RFC 3986 §3.2.1) and without the values of secret query parameters;
/// any other text unchanged.
pub(super) fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    let tail = match tail.split_once('?') {
        Some((path, query)) => {
            let pairs: Vec<_> = query.split('&').map(without_secret_value).collect();
            format!("{path}?{}", pairs.join("&"))
        }
        None => tail.to_owned(),
    };
    format!("{scheme}://{authority}{tail}")
}

fn without_secret_value(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if names_a_secret(key) => format!("{key}={HIDDEN}"),
        _ => pair.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_secret_are_hidden_and_others_are_not() {
        for name in
            ["password", "DB_PASSWORD", "client_secret", "accessKey", "api-key", "refresh_token", "apikey"]
        {
            assert!(names_a_secret(name), "{name}");
        }
        for name in ["password_min_length", "token_ttl", "port", "secret_name", "keys", "tokens_per_second"] {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn urls_lose_their_credentials_only() {
        for (text, expected) in [
            ("postgres://ann:pa@ss@db:5432/x", "postgres://***@db:5432/x"),
            (
                "postgres://db/x?user=ann&password=p&sslmode=require",
                "postgres://db/x?user=ann&password=***&sslmode=require",
            ),
            ("https://host/a@b", "https://host/a@b"),
            ("just text", "just text"),
        ] {
            assert_eq!(without_userinfo(text), expected);
        }
    }
}
