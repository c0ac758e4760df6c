//! Reload: all or nothing, live or at the next start, and never half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime_kernel::app::App;
use runtime_kernel::config::{Config, ReloadModule, WatchOptions};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::config_support::{Db, Fixture, Http, file};

fn start(text: &str) -> (Fixture, Config) {
    let fixture = file("runtime.toml", text);
    let config = Config::builder().file(&fixture.path).section::<Http>().section::<Db>().build().unwrap();
    (fixture, config)
}

#[test]
fn reloadable_leaves_change_live_and_the_rest_needs_a_restart() {
    let (fixture, config) = start("[http]\nport = 1\nhost = 'a'\n");
    let http = config.subscribe::<Http>().unwrap();
    fixture.write("[http]\nport = 2\nhost = 'b'\n[db]\nmax_connections = 20\n");
    let report = config.reload().unwrap();
    let directory = format!("{}/", fixture.directory.path().display());
    assert_eq!(
        report.to_string().replace(&directory, "").lines().collect::<Vec<_>>(),
        [
            "configuration version 2",
            "applied        http.port: 1 -> 2 (file, runtime.toml:2)",
            "applied        db.max_connections: 10 -> 20 (file, runtime.toml:5)",
            "needs restart  http.host: \"a\" -> \"b\" (file, runtime.toml:3)",
        ]
    );
    assert_eq!((http.current().port, http.current().host.as_str()), (2, "a"));
    assert_eq!(config.section::<Http>().unwrap().host, "a");
    assert_eq!(config.section::<Db>().unwrap().max_connections, 20);
    let explanation = config.explain();
    let host = explanation.leaf("http.host").unwrap();
    assert_eq!((&host.value, &host.running), (&json!("b"), &Some(json!("a"))));
    // Asked again, it is still owed.
    let again = config.reload().unwrap();
    assert_eq!((again.version, again.applied.len(), again.needs_restart.len()), (2, 0, 1));
}

#[test]
fn a_refused_reload_changes_nothing_and_keeps_the_reason() {
    let (fixture, config) = start("[http]\nport = 1\n");
    for (bad, expected) in [
        (
            "[http]\nport = 2\nratio = 'x'\n",
            "http.ratio: invalid type: string \"x\", expected f64 (file, runtime.toml:3)",
        ),
        ("[http]\nport = 2\n[db]\nmax = 3\n", "db.max: unknown key `max` (file, runtime.toml:4)"),
        ("[http\n", "not TOML: unclosed table, expected `]` (file, runtime.toml:1)"),
    ] {
        fixture.write(bad);
        let error = config.reload().unwrap_err();
        assert_eq!(fixture.short(&error), expected);
        assert_eq!(*config.last_error().unwrap(), error);
        assert_eq!((config.section::<Http>().unwrap().port, config.version()), (1, 1));
    }
    fixture.write("[http]\nport = 3\n");
    assert_eq!(config.reload().unwrap().version, 2);
    assert_eq!((config.section::<Http>().unwrap().port, config.last_error()), (3, None));
}

#[test]
fn new_live_values_are_checked_beside_the_old_fixed_ones() {
    // What is read is valid in itself, but `port` changes live and `timeout`, which its rule is tied to, does not.
    let (fixture, config) = start("[http]\nport = 100\ntimeout = '200ms'\n");
    fixture.write("[http]\nport = 300\ntimeout = '400ms'\n");
    let error = config.reload().unwrap_err();
    assert_eq!(
        fixture.short(&error),
        "http.timeout: is shorter than the port is long (file, runtime.toml:3)"
    );
    assert_eq!(config.section::<Http>().unwrap().port, 100);
}

#[test]
fn after_the_app_is_complete_unknown_sections_refuse_a_reload() {
    let (fixture, config) = start("");
    config.check_unknown().unwrap();
    fixture.write("[htp]\nport = 1\n");
    let error = config.reload().unwrap_err();
    assert_eq!(fixture.short(&error), "htp: no section `htp`, did you mean `http`? (file, runtime.toml:1)");
}

#[test]
fn rollback_goes_back_as_a_new_version() {
    let (fixture, config) = start("[http]\nport = 1\n");
    assert!(config.rollback().is_none());
    for port in [2, 3] {
        fixture.write(&format!("[http]\nport = {port}\n"));
        config.reload().unwrap();
    }
    let ports: Vec<_> = std::iter::from_fn(|| {
        let report = config.rollback()?.unwrap();
        Some((report.version, config.section::<Http>().unwrap().port))
    })
    .collect();
    assert_eq!(ports, [(4, 2), (5, 1)]);
}

#[test]
fn secrets_stay_hidden_in_reports() {
    let (fixture, config) = start("[http]\npassword = 'hunter2'\n");
    fixture.write("[http]\npassword = 'hunter3'\n");
    let report = config.reload().unwrap();
    assert_eq!(report.applied.len(), 1);
    let text = format!("{report}{report:?}");
    assert!(!text.contains("hunter"), "{text}");
}

#[tokio::test]
async fn subscribers_wake_for_their_own_section_only() {
    let (fixture, config) = start("");
    let mut http = config.subscribe::<Http>().unwrap();
    let mut db = config.subscribe::<Db>().unwrap();
    fixture.write("[db]\nmax_connections = 11\n");
    config.reload().unwrap();
    assert_eq!(db.changed().await.max_connections, 11);
    assert!(futures_util::FutureExt::now_or_never(http.changed()).is_none());
    fixture.write("[db]\nmax_connections = 11\n[http]\nport = 12\n");
    config.reload().unwrap();
    assert_eq!(http.changed().await.port, 12);
    assert!(futures_util::FutureExt::now_or_never(db.changed()).is_none());
}

#[test]
fn readers_never_see_half_a_reload() {
    let (fixture, config) = start("[http]\nport = 1\n[db]\nmax_connections = 1\n");
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (config, done) = (config.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let snapshot = config.snapshot();
                    let (http, db) = (snapshot.section::<Http>().unwrap(), snapshot.section::<Db>().unwrap());
                    assert_eq!(u32::from(http.port), db.max_connections);
                    assert!(snapshot.version() >= last);
                    last = snapshot.version();
                }
                last
            })
        })
        .collect();
    for n in 2..200 {
        fixture.write(&format!("[http]\nport = {n}\n[db]\nmax_connections = {n}\n"));
        config.reload().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() >= 1);
    }
    assert_eq!(config.version(), 199);
}

/// Watches, makes a change, and waits for the outcome that satisfies `wanted`.
async fn watched(config: &Config, poll: Duration, change: impl FnOnce()) -> bool {
    let options =
        WatchOptions::default().with_debounce(Duration::from_millis(20)).with_poll(poll).with_sighup(false);
    let watch = config.watch(options);
    let (stop, stopped) = oneshot::channel::<()>();
    let (told, mut outcomes) = mpsc::channel(16);
    let (ready, is_ready) = oneshot::channel();
    let task = tokio::spawn(async move {
        _ = ready.send(());
        let stop = async { _ = stopped.await };
        watch.run_with(stop, |outcome| _ = told.try_send(outcome.is_ok())).await;
    });
    is_ready.await.unwrap();
    // The watch takes its first look in the background: the change must come after it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    change();
    let outcome = tokio::time::timeout(Duration::from_secs(20), outcomes.recv()).await.unwrap().unwrap();
    drop(stop);
    task.await.unwrap();
    outcome
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configmap_swap_is_seen() {
    use std::os::unix::fs::symlink;

    // As the kubelet lays it out: runtime.toml -> ..data/runtime.toml, ..data -> ..1, and `..data` is swapped.
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (n, port) in [(1, 1), (2, 2)] {
        std::fs::create_dir(at(&format!("..{n}"))).unwrap();
        std::fs::write(at(&format!("..{n}/runtime.toml")), format!("[http]\nport = {port}\n")).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/runtime.toml", at("runtime.toml")).unwrap();
    let config = Config::builder().file(at("runtime.toml")).section::<Http>().build().unwrap();
    let applied = watched(&config, Duration::ZERO, || {
        symlink("..2", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        std::fs::remove_dir_all(at("..1")).unwrap();
    });
    assert!(applied.await);
    assert_eq!(config.section::<Http>().unwrap().port, 2);
}

#[cfg(unix)]
#[tokio::test]
async fn sighup_reloads_in_an_app_until_it_stops() {
    let (fixture, config) = start("[http]\nport = 1\n");
    let mut http = config.subscribe::<Http>().unwrap();
    let options = WatchOptions::default().with_debounce(Duration::from_mins(10)).with_poll(Duration::ZERO);
    let app = App::new(config).with(ReloadModule::new(options)).build().unwrap();
    let shutdown = app.shutdown().clone();
    let running = tokio::spawn(app.run_without_signals());
    fixture.write("[http]\nport = 2\n");
    // Our own handler first: without one, the signal would end the test.
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    let changed = async {
        loop {
            let pid = std::process::id().to_string();
            std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
            hangup.recv().await.unwrap();
            // The service may not listen yet: ask again.
            if let Ok(http) = tokio::time::timeout(Duration::from_millis(100), http.changed()).await {
                return http.port;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), changed).await.unwrap(), 2);
    shutdown.trigger("the test is over");
    assert_eq!(running.await.unwrap().code(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_reported_by_the_watch_and_the_last_good_one_stays() {
    let (fixture, config) = start("[http]\nport = 1\n");
    assert!(!watched(&config, Duration::from_millis(50), || fixture.write("[http]\nport = 'x'\n")).await);
    assert_eq!(config.section::<Http>().unwrap().port, 1);
    assert!(config.last_error().is_some());
}
