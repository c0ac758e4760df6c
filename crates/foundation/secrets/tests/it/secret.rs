//! The value itself.

use proptest::prelude::*;
use runtime_secrets::{SecretName, SecretString};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Config {
    password: SecretString,
}

#[test]
fn a_secret_shows_nowhere() {
    let config: Config = serde_json::from_str(r#"{"password":"hunter2"}"#).unwrap();
    assert_eq!(config.password.expose(), "hunter2");
    for shown in [
        format!("{config:?}"),
        format!("{config:#?}"),
        format!("{}", config.password),
        serde_json::to_string(&config).unwrap(),
    ] {
        assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_default_keeps_its_meaning_through_text() {
    let text = serde_json::to_string(&Config::default()).unwrap();
    assert!(serde_json::from_str::<Config>(&text).unwrap().password.is_empty());
}

proptest! {
    #[test]
    fn equality_is_that_of_the_texts(a in "[ab]{0,3}", b in "[ab]{0,3}") {
        prop_assert_eq!(SecretString::from(a.as_str()) == SecretString::from(b.as_str()), a == b);
    }

    #[test]
    fn no_name_leads_out_of_its_directory(text in "[a./\\\\\u{0}é%-]{0,12}") {
        if let Ok(name) = SecretName::new(&text) {
            let path = std::path::Path::new("/d").join(name.as_str());
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/d")));
            prop_assert!(path.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
        }
    }
}

#[test]
fn names_keep_to_their_alphabet() {
    for (text, ok) in [
        ("db.password", true),
        ("DB_PASSWORD-2", true),
        ("", false),
        ("..", false),
        (".hidden", false),
        ("../etc/passwd", false),
        ("a/b", false),
        ("a\\b", false),
        ("a b", false),
        ("a\0", false),
        (&"x".repeat(128), true),
        (&"x".repeat(129), false),
    ] {
        assert_eq!(SecretName::new(text).is_ok(), ok, "{text:?}");
    }
}
