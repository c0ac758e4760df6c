//! What every provider keeps to, whatever is behind it.
//!
//! A law panics when it is broken. `set` puts a value behind the provider, or takes it away.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "laws are tests")]

use crate::{SecretName, SecretProvider};

/// Runs every law.
pub async fn all<P: SecretProvider>(provider: &P, mut set: impl FnMut(&str, Option<&str>)) {
    what_is_not_set_is_absent(provider).await;
    what_is_set_comes_back_whole(provider, &mut set).await;
    names_do_not_mix(provider, &mut set).await;
    what_is_taken_away_is_absent(provider, &mut set).await;
}

/// A name nobody set is `None`, not an error and not an empty secret.
pub async fn what_is_not_set_is_absent<P: SecretProvider>(provider: &P) {
    let name = SecretName::new("law.never-set").unwrap();
    assert_eq!(provider.get(&name).await, Ok(None));
}

/// Values come back byte for byte, inner line breaks, spaces and non-ASCII included.
pub async fn what_is_set_comes_back_whole<P: SecretProvider>(
    provider: &P,
    set: &mut impl FnMut(&str, Option<&str>),
) {
    for (name, value) in [
        ("law.plain", "hunter2"),
        ("law.number", "0123"),
        ("law.spaces", "  a b  "),
        ("law.lines", "-----BEGIN KEY-----\nabc\n-----END KEY-----"),
        ("law.unicode", "pässwörd✓"),
        ("law.long", &"x".repeat(4_096)),
    ] {
        set(name, Some(value));
        let got = provider.get(&SecretName::new(name).unwrap()).await.unwrap();
        assert_eq!(got.as_ref().map(crate::SecretString::expose), Some(value), "{name}");
    }
}

/// Each name has its own value.
pub async fn names_do_not_mix<P: SecretProvider>(provider: &P, set: &mut impl FnMut(&str, Option<&str>)) {
    set("law.a", Some("one"));
    set("law.ab", Some("two"));
    for (name, value) in [("law.a", "one"), ("law.ab", "two")] {
        let got = provider.get(&SecretName::new(name).unwrap()).await.unwrap();
        assert_eq!(got.as_ref().map(crate::SecretString::expose), Some(value));
    }
}

/// What is taken away is absent again.
pub async fn what_is_taken_away_is_absent<P: SecretProvider>(
    provider: &P,
    set: &mut impl FnMut(&str, Option<&str>),
) {
    set("law.gone", Some("one"));
    set("law.gone", None);
    assert_eq!(provider.get(&SecretName::new("law.gone").unwrap()).await, Ok(None));
}
