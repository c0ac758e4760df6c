//! Which names and texts carry secrets, and what is shown instead.

use std::borrow::Cow;

/// What stands where a secret was.
pub const MASK: &str = "***";

/// Words that make a name a secret's, wherever they stand in it.
const WORDS: &[&str] = &[
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "tokens",
    "jwt",
    "bearer",
    "authorization",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "apikey",
    "otp",
    "totp",
    "pin",
    "signature",
];

/// Pairs of words that do.
const PAIRS: &[(&str, &str)] = &[
    ("api", "key"),
    ("private", "key"),
    ("access", "key"),
    ("signing", "key"),
    ("session", "id"),
    ("set", "cookie"),
];

/// Whether a field, header, parameter or key of this name holds a secret: it contains, as a whole word, `password`,
/// `secret`, `token`, `authorization`, `cookie`, `api_key` and their like, in any case and any of the spellings
/// `api_key`, `api-key`, `apiKey`, `x.api.key`.
///
/// ```
/// use runtime_telemetry::redact::is_secret_name;
///
/// assert!(is_secret_name("x-api-key"));
/// assert!(is_secret_name("dbPassword"));
/// assert!(!is_secret_name("tokenizer"));
/// ```
pub fn is_secret_name(name: &str) -> bool {
    let mut last = String::new();
    let mut word = String::new();
    let mut was_lower = false;
    for c in name.chars().chain(['_']) {
        let camel = c.is_uppercase() && was_lower;
        if camel || !c.is_alphanumeric() {
            if WORDS.contains(&word.as_str()) || PAIRS.contains(&(last.as_str(), word.as_str())) {
                return true;
            }
            if !word.is_empty() {
                last = std::mem::take(&mut word);
            }
        }
        was_lower = c.is_lowercase() || c.is_numeric();
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    false
}

/// A text without the secrets that can be recognised in it: user and password in addresses, values of secret
/// parameters in queries, and what follows `Bearer` or `Basic`.
///
/// ```
/// use runtime_telemetry::redact::text;
///
/// assert_eq!(text("dial postgres://app:hunter2@db/main failed"), "dial postgres://***@db/main failed");
/// assert_eq!(text("GET /cb?code=1&access_token=abc"), "GET /cb?code=1&access_token=***");
/// ```
pub fn text(text: &str) -> Cow<'_, str> {
    // Whatever can be a secret here stands after one of these, and most texts have none.
    if memchr::memchr3(b':', b'=', b' ', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut text = Cow::Borrowed(text);
    if text.contains("://") {
        replace(&mut text, user_info);
    }
    if text.contains('=') {
        replace(&mut text, parameters);
    }
    // Every scheme is followed by a space, and most texts have none.
    if text.contains(' ')
        && ["Bearer ", "bearer ", "Basic ", "basic "].iter().any(|scheme| text.contains(scheme))
    {
        replace(&mut text, schemes);
    }
    text
}

fn replace(text: &mut Cow<'_, str>, rewrite: fn(&str) -> Option<String>) {
    if let Some(new) = rewrite(text) {
        *text = Cow::Owned(new);
    }
}

/// `scheme://user:pass@host`. A raw `/` in a password ends the authority (RFC 3986 §3.2), so a colon there that no
/// port follows makes the search go on to the next `@`.
fn user_info(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let word = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        let authority = after.find(['/', '?', '#']).map_or(word, |end| end.min(word));
        let head = after.get(..authority).unwrap_or_default();
        let odd = head.rsplit_once(':').is_some_and(|(host, port)| {
            !host.starts_with('[')
                && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit() || b == b']'))
        });
        let within = if head.contains('@') {
            head
        } else if odd {
            after.get(..word).unwrap_or_default()
        } else {
            ""
        };
        rest = match within.rfind('@').and_then(|at| after.get(at..)) {
            Some(host) => {
                out.push_str(MASK);
                changed = true;
                host
            }
            None => after,
        };
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// `name=value`, in queries, connection strings and logfmt alike.
fn parameters(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        out.push('=');
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .map_or(0, |at| at + 1);
        // `rfind` gives the start of a character that may be wider than one byte.
        let name = before.get(start..).unwrap_or(before);
        rest = after;
        if is_secret_name(name) {
            let end = value_end(after);
            if end > 0 {
                out.push_str(MASK);
                changed = true;
            }
            rest = after.get(end..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    changed.then_some(out)
}

fn value_end(text: &str) -> usize {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.find('"').map_or(text.len(), |end| end + 2);
    }
    text.find(|c: char| c.is_whitespace() || matches!(c, '&' | ';' | ',' | '"' | '\'' | '#' | ')' | '}'))
        .unwrap_or(text.len())
}

/// Credentials after their scheme (RFC 9110 §11.4).
fn schemes(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut changed = false;
    let mut after_scheme = false;
    for word in text.split_inclusive(' ') {
        let bare = word.trim_end_matches(' ');
        if after_scheme && bare.len() >= 6 {
            let tail = bare.find(['"', '\'', ',', ';', ')']).unwrap_or(bare.len());
            out.push_str(MASK);
            out.push_str(word.get(tail..).unwrap_or_default());
            changed = true;
        } else {
            out.push_str(word);
        }
        let scheme = bare.rsplit(['"', '\'', ':', '=', '(']).next().unwrap_or_default();
        after_scheme = matches!(scheme, "Bearer" | "bearer" | "Basic" | "basic");
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secret_names_are_known_in_every_spelling() {
        for (name, secret) in [
            ("password", true),
            ("PASSWORD", true),
            ("user_password", true),
            ("newPassword", true),
            ("authorization", true),
            ("Set-Cookie", true),
            ("api_key", true),
            ("apiKey", true),
            ("X-Api-Key", true),
            ("client.secret", true),
            ("accessToken", true),
            ("session_id", true),
            ("tokenizer", false),
            ("secretary", false),
            ("key", false),
            ("spinner", false),
            ("", false),
        ] {
            assert_eq!(is_secret_name(name), secret, "{name}");
        }
    }

    #[test]
    fn secrets_in_text_are_masked() {
        for (dirty, clean) in [
            ("nothing here", "nothing here"),
            ("https://example.org/users/@bob", "https://example.org/users/@bob"),
            ("https://example.org:8080/@x", "https://example.org:8080/@x"),
            ("postgres://app:hunter2@db:5432/main", "postgres://***@db:5432/main"),
            ("postgres://app:p@ss@db/main", "postgres://***@db/main"),
            ("postgres://app:pa/ss@db/main", "postgres://***@db/main"),
            ("redis://:pw@[::1]:6379", "redis://***@[::1]:6379"),
            ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
            ("a://u:p@h and b://v:q@i", "a://***@h and b://***@i"),
            ("host=db password=hunter2 user=x", "host=db password=*** user=x"),
            ("/cb?token=abc&x=1", "/cb?token=***&x=1"),
            ("token=\"a b\" x=1", "token=*** x=1"),
            ("authorization: Bearer abcdef123, next", "authorization: Bearer ***, next"),
            ("bearer of news", "bearer of news"),
        ] {
            assert_eq!(text(dirty), clean, "{dirty}");
        }
    }

    proptest! {
        #[test]
        fn a_password_in_an_address_never_shows(
            before in ".{0,12}", user in "[a-z]{0,6}", password in "[A-Z]{12,16}[@:]?[A-Z]{0,4}", after in "[/ ?].{0,12}",
        ) {
            let dirty = format!("{before} postgres://{user}:{password}@host{after}");
            let clean = text(&dirty);
            prop_assert!(!clean.contains(&password), "{clean}");
        }

        #[test]
        fn no_text_panics(any in ".{0,200}") {
            let _ = text(&any);
            let _ = is_secret_name(&any);
        }
    }
}
