#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

use runtime_secrets::{Chain, EnvProvider, FileProvider, SecretError, SecretProvider};

/// What every provider does, with `known` holding `value`.
async fn laws(provider: &impl SecretProvider, known: &str, value: &str) {
    assert_eq!(provider.get(known).await.unwrap().unwrap().expose(), value);
    assert!(provider.get("unknown").await.unwrap().is_none());
    for name in ["", "../etc/passwd", "a/b", "..", ".hidden", "a..b", "a\0b", &"x".repeat(129)] {
        assert!(matches!(provider.get(name).await, Err(SecretError::Name(_))), "{name:?}");
    }
}

fn env() -> EnvProvider {
    EnvProvider::new(
        "APP_",
        [("APP_DB_PASSWORD".to_owned(), "hunter2".to_owned()), ("OTHER".to_owned(), "x".to_owned())],
    )
}

#[tokio::test]
async fn each_provider_keeps_the_laws() {
    laws(&env(), "db.password", "hunter2").await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    laws(&FileProvider::new(folder.path()), "token", "s3cret").await;
    let chain = Chain::new().then(FileProvider::new(folder.path())).then(env());
    laws(&chain, "token", "s3cret").await;
    laws(&chain, "db-password", "hunter2").await;
}

#[tokio::test]
async fn a_swapped_mount_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new, link) = (folder.path().join("v1"), folder.path().join("v2"), folder.path().join("key"));
    std::fs::write(&old, "one").unwrap();
    std::fs::write(&new, "two\r\n").unwrap();
    std::os::unix::fs::symlink(&old, &link).unwrap();
    let provider = FileProvider::new(folder.path());
    assert_eq!(provider.get("key").await.unwrap().unwrap().expose(), "one");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&new, &link).unwrap();
    assert_eq!(provider.get("key").await.unwrap().unwrap().expose(), "two");
}

#[tokio::test]
async fn a_provider_that_fails_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("db_password"), vec![b'x'; 70_000]).unwrap();
    let chain = Chain::new().then(FileProvider::new(folder.path())).then(env());
    assert!(matches!(chain.get("db_password").await, Err(SecretError::TooLarge(_))));
}
