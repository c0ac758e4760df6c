//! A metrics registry whose handles are plain atomics and whose series are capped.

mod family;
mod instrument;
pub mod keys;
mod name;
mod process;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use family::{Core, Shape};
pub use family::{Family, Instrument, OVERFLOW};
pub use instrument::{Counter, Gauge, GaugeGuard, Histogram};
pub use name::MetricsError;

/// How many series one metric keeps unless told otherwise.
pub const DEFAULT_MAX_SERIES: usize = 1_000;

/// Upper bounds, in seconds, for the duration of a request (the OpenTelemetry HTTP conventions' own list).
pub const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Upper bounds, in bytes, for the size of a body: 256 B to 64 MiB, by fours.
pub const SIZE_BUCKETS: &[f64] = &[
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

type Collector = Box<dyn Fn() + Send + Sync>;

/// The process's metrics. Cloning shares them.
///
/// ```
/// use runtime_telemetry::Metrics;
///
/// let metrics = Metrics::new();
/// let requests = metrics.counter("demo_requests_total", "Requests answered.")?;
/// let ok = requests.with(&[("route", "/x"), ("status", "2xx")]);
/// ok.inc();
/// assert!(metrics.render().contains(r#"demo_requests_total{route="/x",status="2xx"} 1"#));
/// # Ok::<(), runtime_telemetry::MetricsError>(())
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Registry>);

struct Registry {
    max_series: Arc<AtomicUsize>,
    families: RwLock<BTreeMap<String, AnyFamily>>,
    collectors: RwLock<Vec<Collector>>,
}

enum AnyFamily {
    Counter(Arc<Core<Counter>>),
    Gauge(Arc<Core<Gauge>>),
    Histogram(Arc<Core<Histogram>>),
}

impl AnyFamily {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => Counter::KIND,
            Self::Gauge(_) => Gauge::KIND,
            Self::Histogram(_) => Histogram::KIND,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families = self.0.families.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Metrics").field("families", &families).finish_non_exhaustive()
    }
}

impl Metrics {
    /// An empty registry that keeps [`DEFAULT_MAX_SERIES`] series of each metric.
    pub fn new() -> Self {
        Self::with_max_series(DEFAULT_MAX_SERIES)
    }

    /// An empty registry that keeps at most `max_series` series of each metric (at least 1). Label sets beyond
    /// them are all counted in one more series whose label values are [`OVERFLOW`].
    pub fn with_max_series(max_series: usize) -> Self {
        Self(Arc::new(Registry {
            max_series: Arc::new(AtomicUsize::new(max_series.max(1))),
            families: RwLock::default(),
            collectors: RwLock::default(),
        }))
    }

    /// Changes the cap of every metric, at least 1. Series above a lower cap stay.
    pub fn set_max_series(&self, max_series: usize) {
        self.0.max_series.store(max_series.max(1), Ordering::Relaxed);
    }

    /// Registers, or finds, a counter. Its name ends in `_total`.
    ///
    /// # Errors
    /// [`MetricsError`]: a name or help text that breaks the rules, or the name is taken by another shape.
    pub fn counter(&self, name: &str, help: &str) -> Result<Family<Counter>, MetricsError> {
        self.family(name, help, Shape::plain(), AnyFamily::Counter, |any| match any {
            AnyFamily::Counter(core) => Some(core),
            _ => None,
        })
    }

    /// Registers, or finds, a gauge.
    ///
    /// # Errors
    /// As [`Metrics::counter`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<Family<Gauge>, MetricsError> {
        self.family(name, help, Shape::plain(), AnyFamily::Gauge, |any| match any {
            AnyFamily::Gauge(core) => Some(core),
            _ => None,
        })
    }

    /// Registers, or finds, a histogram with these upper bounds; the bucket for everything larger is added.
    ///
    /// # Errors
    /// As [`Metrics::counter`]; also bounds that are not finite and strictly rising, or more than 64 of them.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Family<Histogram>, MetricsError> {
        let shape = Shape::buckets(name, buckets)?;
        self.family(name, help, shape, AnyFamily::Histogram, |any| match any {
            AnyFamily::Histogram(core) => Some(core),
            _ => None,
        })
    }

    /// Runs `refresh` before each rendering, for gauges that are read rather than counted (pool sizes, queue
    /// lengths). It must not block, and must not call [`Metrics::render`] or [`Metrics::collector`].
    pub fn collector(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.0.collectors.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(refresh));
    }

    /// The fact that this build runs, as the series `build_info{service, version} 1`.
    ///
    /// # Errors
    /// [`MetricsError::Shape`] when something else took the name `build_info`.
    pub fn build_info(&self, service: &str, version: &str) -> Result<(), MetricsError> {
        let info = self.gauge(keys::BUILD_INFO, "What runs here; always 1.")?;
        info.with(&[("service", service), ("version", version)]).set(1.0);
        Ok(())
    }

    /// Everything in the Prometheus text format 0.0.4, process metrics included (Linux only). Serve it as
    /// [`Metrics::CONTENT_TYPE`]. Metrics without series are left out.
    pub fn render(&self) -> String {
        for refresh in self.0.collectors.read().unwrap_or_else(PoisonError::into_inner).iter() {
            refresh();
        }
        text::render(&self.0.families.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The content type of what [`Metrics::render`] returns.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    fn family<T: Instrument>(
        &self,
        name: &str,
        help: &str,
        shape: Shape,
        wrap: fn(Arc<Core<T>>) -> AnyFamily,
        open: fn(&AnyFamily) -> Option<&Arc<Core<T>>>,
    ) -> Result<Family<T>, MetricsError> {
        name::check(name, help, T::KIND)?;
        let mut families = self.0.families.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(any) = families.get(name) {
            return open(any)
                .filter(|core| core.shape == shape)
                .map(|core| Family(Arc::clone(core)))
                .ok_or_else(|| MetricsError::Shape {
                    name: name.to_owned(),
                    was: any.kind(),
                    asked: T::KIND,
                });
        }
        let core = Arc::new(Core::new(name, help, shape, Arc::clone(&self.0.max_series)));
        families.insert(name.to_owned(), wrap(Arc::clone(&core)));
        Ok(Family(core))
    }
}
