//! All checks of a process: runs them in the background, answers probes from what they last said.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use runtime_kernel::{SharedClock, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cell::Cell;
use crate::check::{Check, Probe};
use crate::report::{Report, Status};
use crate::{HealthConfig, HealthError};

/// The checks of a process and where they stand. Cloning shares them.
///
/// Probes read what the last look said; they never look themselves, so a flood of probes costs the dependencies
/// nothing, and a check that hangs delays no answer.
#[derive(Clone)]
pub struct HealthRegistry(Arc<Inner>);

struct Inner {
    cells: Vec<Arc<Cell>>,
    clock: SharedClock,
    config: HealthConfig,
    /// What readiness was when it was last looked at, for those who follow it.
    told: watch::Sender<Status>,
    started: AtomicBool,
    unready: Mutex<Option<Cow<'static, str>>>,
}

impl fmt::Debug for HealthRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.cells.iter().map(|cell| cell.name())).finish()
    }
}

/// Collects checks.
#[derive(Clone, Debug)]
pub struct HealthBuilder {
    config: HealthConfig,
    clock: SharedClock,
    checks: Vec<Check>,
    #[cfg(feature = "metrics")]
    metrics: Option<runtime_telemetry::Metrics>,
}

impl HealthBuilder {
    /// Adds a check.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Sets what holds for checks that do not say otherwise.
    #[must_use]
    pub fn config(mut self, config: HealthConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the clock. The system's unless told.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Shows each check's status as the gauge `health_check_status`: 1 healthy, 0.5 degraded, 0 unhealthy.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics(mut self, metrics: &runtime_telemetry::Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`HealthError`]: a name given twice, a time or threshold of 0.
    pub fn build(self) -> Result<HealthRegistry, HealthError> {
        let mut names = HashSet::new();
        let mut cells = Vec::new();
        #[cfg(feature = "metrics")]
        let gauges = self
            .metrics
            .map(|metrics| {
                metrics.gauge(runtime_telemetry::keys::HEALTH_CHECK_STATUS, "How each check stands.")
            })
            .transpose()
            .map_err(|error| HealthError::Metrics(error.to_string()))?;
        let known: Vec<_> = self.checks.iter().map(|check| &*check.name).collect();
        let idle = self.config.idle(&known);
        if !idle.is_empty() {
            tracing::warn!(target: "health", checks = ?idle, "`health.checks` names checks that there are not");
        }
        for check in self.checks {
            if !names.insert(check.name.clone()) {
                return Err(HealthError::Duplicate(check.name.into_owned()));
            }
            let said = self.config.of(&check.name).and_then(|said| said.enabled);
            if !self.config.enabled || said == Some(false) {
                continue;
            }
            #[cfg_attr(not(feature = "metrics"), expect(unused_mut, reason = "metrics change it"))]
            let mut cell = Cell::new(check, &self.config)?;
            #[cfg(feature = "metrics")]
            if let Some(gauges) = &gauges {
                let gauge = gauges.with(&[("check", cell.name())]);
                cell.set_gauge(gauge);
            }
            cells.push(Arc::new(cell));
        }
        Ok(HealthRegistry(Arc::new(Inner {
            cells,
            clock: self.clock,
            config: self.config,
            told: watch::Sender::new(Status::Unhealthy),
            started: AtomicBool::new(false),
            unready: Mutex::default(),
        })))
    }
}

impl HealthRegistry {
    /// Starts collecting checks.
    pub fn builder() -> HealthBuilder {
        HealthBuilder {
            config: HealthConfig::default(),
            clock: SystemClock::shared(),
            checks: Vec::new(),
            #[cfg(feature = "metrics")]
            metrics: None,
        }
    }

    /// Shall the process be restarted? Only liveness checks count, and only once they have looked; a shutdown does
    /// not make it unhealthy.
    pub fn liveness(&self) -> Report {
        self.report(Probe::Liveness, None)
    }

    /// Shall the process get work? Unhealthy while a critical readiness check is, has not looked yet or has not
    /// looked for long, and after [`HealthRegistry::set_unready`]. Degraded passes, unless `degraded_passes` is off.
    pub fn readiness(&self) -> Report {
        let mut report = self.report(Probe::Readiness, self.lock().clone());
        if report.status != Status::Healthy {
            report.disabled.clone_from(&self.0.config.disable_when_degraded);
        }
        if report.status == Status::Degraded && !self.0.config.degraded_passes {
            report.status = Status::Unhealthy;
            report.reason = Some(Cow::Borrowed("degraded, which does not pass here"));
        }
        report
    }

    /// Whether a feature may be used now: those of `disable_when_degraded` only while the whole is healthy, others
    /// always. For what can be done without when resources are short.
    ///
    /// ```
    /// use runtime_health::{HealthConfig, HealthRegistry, Check, Outcome};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let mut config = HealthConfig::default();
    /// config.disable_when_degraded = vec!["previews".to_owned()];
    /// let cache = Check::from_fn("cache", || async { Outcome::degraded("slow") });
    /// let registry = HealthRegistry::builder().config(config).check(cache).build()?;
    /// registry.refresh().await;
    /// assert!(!registry.allows("previews"));
    /// assert!(registry.allows("orders"));
    /// # Ok::<(), runtime_health::HealthError>(())
    /// # }).unwrap();
    /// ```
    pub fn allows(&self, feature: &str) -> bool {
        let listed = self.0.config.disable_when_degraded.iter().any(|name| name == feature);
        !listed || self.readiness().status == Status::Healthy
    }

    /// What readiness is, for those who follow it: looked at anew after each look of [`run`](Self::run), and when the
    /// process leaves. Unhealthy until everything was looked at once.
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.0.told.subscribe()
    }

    /// Has the process come up? Unhealthy until [`HealthRegistry::mark_started`] was called and every critical
    /// startup check has passed once; then healthy for good.
    pub fn startup(&self) -> Report {
        let started = self.0.started.load(Ordering::Acquire);
        let mut report = self.report(Probe::Startup, (!started).then_some(Cow::Borrowed("starting")));
        if !started {
            return report;
        }
        for (check, cell) in report.checks.iter_mut().zip(self.cells(Probe::Startup)) {
            if cell.has_passed() {
                check.status = Status::Healthy;
            }
        }
        report.status = report
            .checks
            .iter()
            .map(|check| if check.critical { check.status } else { check.status.min(Status::Degraded) })
            .max()
            .unwrap_or(Status::Healthy);
        report
    }

    /// Whether probes show each check, or the status alone, as configured.
    pub fn shows_details(&self) -> bool {
        self.0.config.show_details
    }

    /// Tells that everything has been started.
    pub fn mark_started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// Fails readiness from now on, whatever the checks say: the process is going away.
    pub fn set_unready(&self, reason: impl Into<Cow<'static, str>>) {
        *self.lock() = Some(reason.into());
        self.tell();
    }

    /// Whether the process is going away: [`set_unready`](Self::set_unready) was called.
    pub fn is_leaving(&self) -> bool {
        self.lock().is_some()
    }

    fn tell(&self) {
        let now = self.readiness().status;
        self.0.told.send_if_modified(|told| std::mem::replace(told, now) != now);
    }

    /// Looks at everything once, all at the same time, and waits: for a command line, or before the first probe. Takes
    /// as long as the longest timeout at most. Dropping it cuts the looks short.
    pub async fn refresh(&self) {
        let mut looks = JoinSet::new();
        for cell in &self.0.cells {
            let (cell, clock) = (Arc::clone(cell), Arc::clone(&self.0.clock));
            looks.spawn(async move { cell.run(&clock).await });
        }
        while looks.join_next().await.is_some() {}
    }

    /// Looks at everything, again and again at each check's interval, until `stop` is ready. Marks the process as
    /// started after the first round.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            () = &mut stop => return,
            () = self.refresh() => self.mark_started(),
        }
        self.tell();
        let mut loops = JoinSet::new();
        for cell in &self.0.cells {
            let (cell, registry) = (Arc::clone(cell), self.clone());
            loops.spawn(async move {
                loop {
                    registry.0.clock.sleep(cell.interval).await;
                    cell.run(&registry.0.clock).await;
                    registry.tell();
                }
            });
        }
        // Dropping the set ends the loops.
        stop.await;
    }

    fn report(&self, probe: Probe, reason: Option<Cow<'static, str>>) -> Report {
        let mut status = if reason.is_some() { Status::Unhealthy } else { Status::Healthy };
        let mut checks = Vec::new();
        for cell in self.cells(probe) {
            let (report, counts) = cell.report(&self.0.clock);
            status = status.max(counts.unwrap_or(Status::Healthy));
            checks.push(report);
        }
        Report { status, reason, disabled: Vec::new(), checks }
    }

    fn cells(&self, probe: Probe) -> impl Iterator<Item = &Arc<Cell>> {
        self.0.cells.iter().filter(move |cell| cell.probe() == probe)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Cow<'static, str>>> {
        self.0.unready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
