//! The real server in a folder of its own, and the client that talks to it.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use runtime_db::{Database, DbConfig};
use runtime_kernel::SystemClock;
use runtime_testkit::binary::{Running, Spawn};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::hook::Hook;

/// Leases short enough for a test to outlive them.
pub(super) const SHORT_LEASE: &[(&str, &str)] = &[
    ("RUNTIME__JOBS__LEASE", "2s"),
    ("RUNTIME__JOBS__HEARTBEAT", "500ms"),
    ("RUNTIME__JOBS__POLL_INTERVAL", "100ms"),
    ("RUNTIME__JOBS__HOUSEKEEPING", "200ms"),
];

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often a state is looked at while waiting for it: it is told over HTTP only.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct House {
    spawn: Spawn,
    process: Running,
    client: reqwest::Client,
    url: watch::Sender<String>,
    key: String,
    folder: TempDir,
}

/// A client of the tests' own; nothing they call speaks TLS, but reqwest wants to know who would.
pub(super) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap()
}

/// A database as an application opens it.
pub(super) async fn database(url: &str) -> Database {
    Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap()
}

impl House {
    /// Starts a server with these variables and waits until it is ready.
    pub(super) async fn start<S: AsRef<str>>(variables: &[(S, S)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spawn = Spawn::new(env!("CARGO_BIN_EXE_runtime"), folder.path()).args(["--set", "http.port=0"]);
        let spawn =
            variables.iter().fold(spawn, |spawn, (name, value)| spawn.env(name.as_ref(), value.as_ref()));
        let (process, address) = Self::launch(&spawn).await;
        let printed = process.stdout();
        let key =
            printed.split_whitespace().find(|word| word.starts_with("rt_")).unwrap_or_default().to_owned();
        let house = Self { spawn, process, client: client(), url: watch::Sender::new(address), key, folder };
        house.ready().await;
        house
    }

    /// The variables of one mode over a Postgres database.
    pub(super) fn settings(more: &[(&str, &str)], part: &str, database: &str) -> Vec<(String, String)> {
        let own = [("RUNTIME_SUPER__DB_URL", database), ("RUNTIME__MODE", part)];
        own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    async fn launch(spawn: &Spawn) -> (Running, String) {
        let mut process = spawn.start().unwrap();
        let line = process.wait_for_line("http://").await.unwrap();
        let address = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        (process, address)
    }

    async fn ready(&self) {
        self.until("ready", async |house| {
            let answer = house.client.get(house.url("/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
    }

    /// Starts the same server again, in the same folder.
    pub(super) async fn restart(&mut self) {
        let (process, address) = Self::launch(&self.spawn).await;
        self.process = process;
        self.url.send_replace(address);
        self.ready().await;
    }

    pub(super) async fn kill9(&mut self) {
        self.process.kill9().await.unwrap();
    }

    pub(super) fn sigterm(&self) {
        self.process.sigterm().unwrap();
    }

    pub(super) fn sigstop(&self) {
        self.process.sigstop().unwrap();
    }

    pub(super) fn sigcont(&self) {
        self.process.sigcont().unwrap();
    }

    pub(super) async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await.unwrap()
    }

    pub(super) fn log(&self) -> String {
        self.process.stderr()
    }

    pub(super) fn printed(&self) -> String {
        self.process.stdout()
    }

    /// A file in the server's folder.
    pub(super) fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    /// The embedded database.
    pub(super) fn database_url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("runtime-data/runtime.db").display())
    }

    /// Runs a command in the server's folder; its exit code, and what it printed as JSON.
    pub(super) fn cli(&self, args: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runtime"));
        let output = command.current_dir(self.folder.path()).arg("--json").args(args).output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url.borrow().as_str())
    }

    pub(super) fn watch_url(&self) -> watch::Receiver<String> {
        self.url.subscribe()
    }

    pub(super) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), self.url(path)).bearer_auth(&self.key)
    }

    /// Enqueues a call of the hook with a number in its body.
    pub(super) async fn enqueue(&self, hook: &Hook, n: u64) -> String {
        let payload = json!({ "method": "POST", "url": hook.url(), "body": { "n": n } });
        let job = json!({ "kind": "http.request", "payload": payload });
        let accepted = self.request("POST", "/v1/jobs").json(&job).send().await.unwrap();
        assert_eq!(accepted.status(), 202, "{}", accepted.text().await.unwrap());
        accepted.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn job(&self, id: &str) -> Value {
        self.request("GET", &format!("/v1/jobs/{id}")).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until a job has ended, well or not.
    pub(super) async fn finished(&self, id: &str) -> Value {
        self.until("finished job", async |house| {
            let job = house.job(id).await;
            ["completed", "dead", "cancelled"]
                .contains(&job["state"].as_str().unwrap_or_default())
                .then_some(job)
        })
        .await
    }

    /// Waits until readiness is refused.
    pub(super) async fn wait_unready(&self) {
        self.until("unready", async |house| {
            let answer = house.client.get(house.url("/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status() == 503).then_some(())
        })
        .await;
    }

    /// Waits until a metric has at least this value.
    pub(super) async fn wait_for_metric(&self, name: &str, least: f64) {
        self.until(name, async |house| {
            let text = house.client.get(house.url("/metrics")).send().await.ok()?.text().await.ok()?;
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())?;
            (value >= least).then_some(())
        })
        .await;
    }

    pub(super) async fn until<T>(&self, what: &str, look: impl AsyncFn(&Self) -> Option<T>) -> T {
        let looking = async {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                ticks.tick().await;
                if let Some(found) = look(self).await {
                    return found;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(found) => found,
            Err(late) => panic!("{what}: {late}\n{}\n{}", self.printed(), self.log()),
        }
    }
}
