//! Reloads when a file changes, and on SIGHUP.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Config;
use super::error::ConfigError;
use super::reload::ReloadReport;

/// How files are watched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchOptions {
    /// How long a burst of file events is gathered before reading. Default 200 ms.
    pub debounce: Duration,
    /// How often the files are read in any case, for file systems that send no events. Default 30 s; zero never.
    pub poll: Duration,
    /// Whether SIGHUP reloads. Default true; on Unix only.
    pub sighup: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(200), poll: Duration::from_secs(30), sighup: true }
    }
}

impl WatchOptions {
    /// With this debounce.
    #[must_use]
    pub const fn with_debounce(mut self, debounce: Duration) -> Self {
        self.debounce = debounce;
        self
    }

    /// With this poll interval; zero never polls.
    #[must_use]
    pub const fn with_poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// With or without SIGHUP.
    #[must_use]
    pub const fn with_sighup(mut self, sighup: bool) -> Self {
        self.sighup = sighup;
        self
    }
}

/// Keeps a configuration in step with its files while [`run`](Self::run) runs.
#[derive(Debug)]
pub struct ConfigWatch {
    config: Config,
    options: WatchOptions,
    events: mpsc::Receiver<()>,
    /// Dropping it ends the events; `None` where the system offers none, and polling does the work.
    watcher: Option<RecommendedWatcher>,
}

impl Config {
    /// Watches the configuration file and the files that `_FILE` variables name.
    ///
    /// Directories are watched, not files, so that a Kubernetes `ConfigMap` (a symlink swapped beside the file)
    /// and an editor that renames are both seen. Where no watch can be had, polling alone does it.
    pub fn watch(&self, options: WatchOptions) -> ConfigWatch {
        let (sender, events) = mpsc::channel(1);
        let handler = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // Full means that a reading is due anyway.
                _ = sender.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            for directory in self.watched_directories() {
                watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, poll = ?options.poll, "no file events, polling only"))
            .ok();
        ConfigWatch { config: self.clone(), options, events, watcher }
    }

    fn watched_directories(&self) -> BTreeSet<PathBuf> {
        let files = self.shared.sources.watched();
        let parents = files.iter().filter_map(|file| file.parent()).chain(self.shared.sources.searched());
        let or_here =
            |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
        parents.map(or_here).filter(|path| path.is_dir()).collect()
    }
}

impl ConfigWatch {
    /// Whether the system sends file events; without them only polling and SIGHUP reload.
    pub fn has_events(&self) -> bool {
        self.watcher.is_some()
    }

    /// Reloads on every change of a file and on SIGHUP until `stop` is ready. Outcomes are logged; a refused
    /// reload leaves what runs alone.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        self.run_with(stop, |_| {}).await;
    }

    /// As [`run`](Self::run), and tells each outcome to `told`.
    pub async fn run_with(
        mut self,
        stop: impl Future<Output = ()>,
        mut told: impl FnMut(&Result<ReloadReport, ConfigError>),
    ) {
        let mut stop = pin!(stop);
        let mut hangup = Hangup::new(self.options.sighup);
        let mut last = self.fingerprint().await;
        loop {
            let forced = tokio::select! {
                () = &mut stop => return,
                () = hangup.received() => true,
                () = settled(&mut self.events, self.options.debounce) => false,
                () = tick(self.options.poll) => false,
            };
            let now = self.fingerprint().await;
            if !forced && now == last {
                continue;
            }
            last = now;
            let config = self.config.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || config.reload()).await else { continue };
            match &result {
                Ok(report) => tracing::info!(
                    version = report.version,
                    applied = report.applied.len(),
                    needs_restart = report.needs_restart.len(),
                    "configuration reloaded"
                ),
                Err(error) => tracing::error!(%error, "configuration refused, the last good one stays"),
            }
            told(&result);
        }
    }

    async fn fingerprint(&self) -> Option<u64> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || config.shared.sources.fingerprint()).await.ok()
    }
}

/// Ready when events came and then none for the debounce time.
async fn settled(events: &mut mpsc::Receiver<()>, debounce: Duration) {
    if events.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
    while let Ok(Some(())) = tokio::time::timeout(debounce, events.recv()).await {}
}

async fn tick(every: Duration) {
    if every.is_zero() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(every).await;
}

/// SIGHUP, where there is one.
struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    #[cfg(unix)]
    fn new(wanted: bool) -> Self {
        let signal = || tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        let warn =
            |error: &std::io::Error| tracing::warn!(%error, "SIGHUP will not reload the configuration");
        Self { signal: wanted.then(signal).and_then(|signal| signal.inspect_err(warn).ok()) }
    }

    #[cfg(unix)]
    async fn received(&mut self) {
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    #[cfg(not(unix))]
    fn new(_: bool) -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    async fn received(&mut self) {
        std::future::pending::<()>().await;
    }
}
