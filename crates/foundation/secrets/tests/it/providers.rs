//! Environment, directory, chain and cache.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{ManualClock, units::ByteSize};
use runtime_secrets::{
    CachedSecrets, ChainedSecrets, DirectorySecrets, EnvSecrets, SecretError, SecretName, SecretProvider,
    SecretString, Secrets, laws,
};

fn name(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn exposed(got: Result<Option<SecretString>, SecretError>) -> Option<String> {
    got.unwrap().map(|secret| secret.expose().to_owned())
}

#[tokio::test]
async fn a_directory_keeps_the_laws() {
    let dir = tempfile::tempdir().unwrap();
    laws::all(&DirectorySecrets::new(dir.path()), |name, value| match value {
        Some(value) => std::fs::write(dir.path().join(name), format!("{value}\n")).unwrap(),
        None => std::fs::remove_file(dir.path().join(name)).unwrap(),
    })
    .await;
}

#[tokio::test]
async fn a_chain_and_a_cache_without_time_keep_the_laws() {
    let dir = tempfile::tempdir().unwrap();
    let chain = ChainedSecrets::new()
        .then(EnvSecrets::new("NOTHING", [("OTHER", "x")]))
        .then(DirectorySecrets::new(dir.path()));
    let cache = CachedSecrets::new(chain, Arc::new(ManualClock::new()), Duration::ZERO);
    laws::all(&cache, |name, value| match value {
        Some(value) => std::fs::write(dir.path().join(name), value).unwrap(),
        None => std::fs::remove_file(dir.path().join(name)).unwrap(),
    })
    .await;
}

#[tokio::test]
async fn the_environment_keeps_the_laws() {
    #[derive(Debug, Default)]
    struct Live(Mutex<Vec<(String, String)>>);
    #[async_trait]
    impl SecretProvider for Live {
        fn name(&self) -> &'static str {
            "test"
        }
        // A process's environment is fixed; the laws change it, so each call reads it as a new process would.
        async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
            let variables = self.0.lock().unwrap().clone();
            EnvSecrets::new("APP", variables).get(name).await
        }
    }
    let live = Live::default();
    let variable = |text: &str| EnvSecrets::new("APP", [("", ""); 0]).variable(&name(text));
    laws::all(&live, |name, value| {
        let mut variables = live.0.lock().unwrap();
        variables.retain(|(known, _)| *known != variable(name));
        variables.extend(value.map(|value| (variable(name), value.to_owned())));
    })
    .await;
}

#[tokio::test]
async fn a_variable_is_the_name_in_upper_case_under_the_prefix() {
    let env = EnvSecrets::new("APP", [("APP_DB_PASSWORD", "a"), ("DB_PASSWORD", "b"), ("APP_EMPTY", "")]);
    assert_eq!(exposed(env.get(&name("db.password")).await).as_deref(), Some("a"));
    assert_eq!(exposed(env.get(&name("db-password")).await).as_deref(), Some("a"));
    assert_eq!(exposed(env.get(&name("empty")).await), None);
    assert!(!format!("{env:?}").contains("\"a\""));
}

#[tokio::test]
async fn one_line_ending_is_not_part_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = DirectorySecrets::new(dir.path());
    for (content, secret) in [
        ("a", Some("a")),
        ("a\n", Some("a")),
        ("a\r\n", Some("a")),
        ("a\n\n", Some("a\n")),
        ("\n", None),
        ("", None),
    ] {
        std::fs::write(dir.path().join("s"), content).unwrap();
        assert_eq!(exposed(secrets.get(&name("s")).await).as_deref(), secret, "{content:?}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_secrets_are_refused_and_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = DirectorySecrets::with_limit(dir.path(), ByteSize::bytes(8));
    std::fs::write(dir.path().join("fits"), "12345678").unwrap();
    std::fs::write(dir.path().join("long"), "123456789").unwrap();
    std::fs::write(dir.path().join("binary"), b"\xff\xfe").unwrap();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    assert!(secrets.get(&name("fits")).await.unwrap().is_some());
    for bad in ["long", "binary", "dir"] {
        let error = secrets.get(&name(bad)).await.unwrap_err();
        assert!(matches!(error, SecretError::Unusable { .. }), "{bad}: {error:?}");
        assert!(!error.to_string().contains("1234"));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_link_is_seen_at_the_next_call() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for (version, value) in [("v1", "old"), ("v2", "new")] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("token"), value).unwrap();
    }
    // As kubelet lays a mount out: token -> ..data/token, ..data -> v1.
    symlink("v1", at("..data")).unwrap();
    symlink("..data/token", at("token")).unwrap();
    let secrets = DirectorySecrets::new(dir.path());
    assert_eq!(exposed(secrets.get(&name("token")).await).as_deref(), Some("old"));
    symlink("v2", at("..next")).unwrap();
    std::fs::rename(at("..next"), at("..data")).unwrap();
    assert_eq!(exposed(secrets.get(&name("token")).await).as_deref(), Some("new"));
}

/// Counts calls and fails on demand.
#[derive(Debug, Default)]
struct Flaky {
    calls: AtomicU32,
    down: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl SecretProvider for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }
    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.down.load(Ordering::SeqCst) {
            return Err(SecretError::Unavailable {
                name: name.clone(),
                provider: "flaky",
                why: "down".into(),
            });
        }
        Ok(Some(SecretString::from(call.to_string().as_str())))
    }
}

#[tokio::test]
async fn a_cache_asks_once_per_time_and_once_for_racing_callers() {
    let (flaky, clock) = (Arc::new(Flaky::default()), ManualClock::new());
    let cache = CachedSecrets::new(Arc::clone(&flaky), Arc::new(clock.clone()), Duration::from_secs(30));
    let s = name("s");
    let (a, b) = tokio::join!(cache.get(&s), cache.get(&s));
    assert_eq!((exposed(a), exposed(b)), (Some("0".into()), Some("0".into())));
    clock.advance(Duration::from_secs(29));
    assert_eq!(exposed(cache.get(&s).await).as_deref(), Some("0"));
    clock.advance(Duration::from_secs(1));
    assert_eq!(exposed(cache.get(&s).await).as_deref(), Some("1"));
    cache.forget(&s);
    assert_eq!(exposed(cache.get(&s).await).as_deref(), Some("2"));
}

#[tokio::test]
async fn a_stale_value_serves_while_its_provider_is_down_and_no_longer() {
    let (flaky, clock) = (Arc::new(Flaky::default()), ManualClock::new());
    let cache = CachedSecrets::new(Arc::clone(&flaky), Arc::new(clock.clone()), Duration::from_secs(30))
        .stale_for(Duration::from_mins(1));
    let s = name("s");
    cache.get(&s).await.unwrap();
    flaky.down.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(89));
    assert_eq!(exposed(cache.get(&s).await).as_deref(), Some("0"));
    clock.advance(Duration::from_secs(1));
    assert!(matches!(cache.get(&s).await, Err(SecretError::Unavailable { .. })));
}

#[tokio::test]
async fn a_failing_provider_is_not_skipped() {
    let flaky = Arc::new(Flaky::default());
    flaky.down.store(true, Ordering::SeqCst);
    let chain = ChainedSecrets::new().then(flaky).then(EnvSecrets::new("", [("S", "older")]));
    assert!(chain.get(&name("s")).await.is_err());
}

#[tokio::test]
async fn what_is_required_and_missing_is_named() {
    let secrets = Secrets::new(ChainedSecrets::new());
    assert_eq!(secrets.get("db.password").await, Ok(None));
    let error = secrets.require("db.password").await.unwrap_err();
    assert_eq!(error.to_string(), "the secret `db.password` is not set");
    assert_eq!(secrets.get("../x").await, Err(SecretError::Name));
}

#[cfg(feature = "module")]
#[tokio::test]
async fn a_module_finds_its_directory_in_the_configuration() {
    use runtime_kernel::app::App;
    use runtime_kernel::config::Config;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("api.key"), "k\n").unwrap();
    let config = Config::builder().set("secrets.directory", dir.path().to_str().unwrap()).build().unwrap();
    let app = App::new(config).with(runtime_secrets::SecretsModule).build().unwrap();
    let secrets = app.container().get(runtime_secrets::SECRETS).await.unwrap();
    assert_eq!(secrets.require("api.key").await.unwrap().expose(), "k");
}
