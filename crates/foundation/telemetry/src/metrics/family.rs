//! One metric: its series by label set, up to a cap.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::instrument::{Counter, Gauge, Histogram};
use super::{MetricsError, name};

/// The value of every label of the series that takes what no longer fits.
pub const OVERFLOW: &str = "__overflow__";

/// The longest label value that is kept whole, in bytes; a longer one is cut, so that callers cannot fill the memory.
const MAX_VALUE: usize = 256;

/// A metric of one kind; [`Family::with`] hands out the handles that count. Cloning shares it.
pub struct Family<T: Instrument>(pub(super) Arc<Core<T>>);

impl<T: Instrument> Clone for Family<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Instrument> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({} {})", T::KIND, self.0.name)
    }
}

impl<T: Instrument> Family<T> {
    /// The metric's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The handle for a label set, whatever the order of its labels. Finding one takes a read lock and a hash; keep
    /// the handle where the set is known beforehand.
    ///
    /// A label value longer than 256 bytes is cut.
    ///
    /// At the cap a new set gets the one handle whose label values are [`OVERFLOW`]. A set that does not fit the
    /// metric (a bad or repeated name, or other names than the metric's first set had) gets a handle that counts
    /// nowhere. Both are counted in `telemetry_metrics_overflow_total` and `telemetry_metrics_rejected_total`, and
    /// each is logged once per metric.
    pub fn with(&self, labels: &[(&str, &str)]) -> T {
        self.try_with(labels).unwrap_or_else(|error| {
            self.0.rejected.fetch_add(1, Ordering::Relaxed);
            if !self.0.rejection_logged.swap(true, Ordering::Relaxed) {
                tracing::error!(target: "telemetry", %error, "label set refused; not counted");
            }
            T::create(&self.0.shape)
        })
    }

    /// As [`Family::with`], telling what does not fit.
    ///
    /// # Errors
    /// [`MetricsError::Labels`].
    pub fn try_with(&self, labels: &[(&str, &str)]) -> Result<T, MetricsError> {
        let sorted = labels.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a <= b));
        if sorted && labels.iter().all(|(_, value)| value.len() <= MAX_VALUE) {
            return self.0.find(labels);
        }
        let mut ordered: Vec<_> = labels.iter().map(|(name, value)| (*name, cut(value))).collect();
        ordered.sort_by_key(|(name, _)| *name);
        self.0.find(&ordered)
    }

    /// The handle of a metric without labels.
    pub fn unlabelled(&self) -> T {
        self.with(&[])
    }
}

/// A kind of metric: [`Counter`], [`Gauge`] or [`Histogram`].
pub trait Instrument: Clone + Send + Sync + sealed::Sealed + 'static {
    /// The kind as the text format spells it.
    const KIND: &'static str;
    #[doc(hidden)]
    fn create(shape: &Shape) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Counter {}
    impl Sealed for super::Gauge {}
    impl Sealed for super::Histogram {}
}

impl Instrument for Counter {
    const KIND: &'static str = "counter";
    fn create(_: &Shape) -> Self {
        Self::default()
    }
}

impl Instrument for Gauge {
    const KIND: &'static str = "gauge";
    fn create(_: &Shape) -> Self {
        Self::default()
    }
}

impl Instrument for Histogram {
    const KIND: &'static str = "histogram";
    fn create(shape: &Shape) -> Self {
        Self::new(Arc::clone(&shape.0))
    }
}

/// What must be equal for two registrations to mean the same metric, beside the kind: the bucket bounds.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub struct Shape(Arc<[f64]>);

impl Shape {
    pub(super) fn plain() -> Self {
        Self(Arc::from([]))
    }

    pub(super) fn buckets(name: &str, bounds: &[f64]) -> Result<Self, MetricsError> {
        let finite = bounds.iter().all(|bound| bound.is_finite());
        let rising = bounds.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if !finite || !rising || !(1..=64).contains(&bounds.len()) {
            return Err(MetricsError::Buckets { name: name.to_owned() });
        }
        Ok(Self(Arc::from(bounds)))
    }
}

pub(super) struct Core<T> {
    pub(super) name: Box<str>,
    pub(super) help: Box<str>,
    pub(super) shape: Shape,
    pub(super) overflowed: AtomicU64,
    pub(super) rejected: AtomicU64,
    overflow_logged: AtomicBool,
    rejection_logged: AtomicBool,
    max_series: Arc<AtomicUsize>,
    /// Fixed by the first label set; keeps a metric's series comparable and its overflow series one.
    label_names: OnceLock<Box<[Box<str>]>>,
    series: RwLock<Series<T>>,
    hasher: RandomState,
}

struct Series<T> {
    by_hash: HashMap<u64, Vec<usize>>,
    all: Vec<One<T>>,
    overflow: Option<T>,
}

struct One<T> {
    values: Box<[Box<str>]>,
    handle: T,
}

impl<T: Instrument> Core<T> {
    pub(super) fn new(name: &str, help: &str, shape: Shape, max_series: Arc<AtomicUsize>) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            shape,
            overflowed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            overflow_logged: AtomicBool::new(false),
            rejection_logged: AtomicBool::new(false),
            max_series,
            label_names: OnceLock::new(),
            series: RwLock::new(Series { by_hash: HashMap::new(), all: Vec::new(), overflow: None }),
            hasher: RandomState::new(),
        }
    }

    fn find(&self, labels: &[(&str, &str)]) -> Result<T, MetricsError> {
        let refuse = |why| MetricsError::Labels { metric: self.name.to_string(), why };
        let names = if let Some(names) = self.label_names.get() {
            names
        } else {
            name::check_labels(labels, T::KIND).map_err(refuse)?;
            self.label_names.get_or_init(|| labels.iter().map(|(name, _)| Box::from(*name)).collect())
        };
        if names.len() != labels.len() || names.iter().zip(labels).any(|(known, (name, _))| **known != **name)
        {
            return Err(refuse("other label names than its first label set had"));
        }
        let hash = self.hash(labels);
        if let Some(handle) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(hash, labels) {
            return Ok(handle);
        }
        Ok(self.insert(hash, labels))
    }

    fn insert(&self, hash: u64, labels: &[(&str, &str)]) -> T {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = series.get(hash, labels) {
            return handle;
        }
        let max_series = self.max_series.load(Ordering::Relaxed);
        if series.all.len() >= max_series {
            let handle = series.overflow.get_or_insert_with(|| T::create(&self.shape)).clone();
            drop(series);
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            if !self.overflow_logged.swap(true, Ordering::Relaxed) {
                tracing::warn!(target: "telemetry", metric = %self.name, max_series,
                    "too many label sets; further ones share one series");
            }
            return handle;
        }
        let handle = T::create(&self.shape);
        let index = series.all.len();
        let values = labels.iter().map(|(_, value)| Box::from(*value)).collect();
        series.all.push(One { values, handle: handle.clone() });
        series.by_hash.entry(hash).or_default().push(index);
        handle
    }

    fn hash(&self, labels: &[(&str, &str)]) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = self.hasher.build_hasher();
        for (_, value) in labels {
            value.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Calls `visit` with each series' labels and handle, in order of creation, the overflow series last.
    pub(super) fn each(&self, mut visit: impl FnMut(&[(&str, &str)], &T)) {
        let names = self.label_names.get().map(|names| &**names).unwrap_or_default();
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        for one in &series.all {
            let labels: Vec<_> =
                names.iter().zip(&one.values).map(|(name, value)| (&**name, &**value)).collect();
            visit(&labels, &one.handle);
        }
        if let Some(handle) = &series.overflow {
            let labels: Vec<_> = names.iter().map(|name| (&**name, OVERFLOW)).collect();
            visit(&labels, handle);
        }
    }
}

impl<T: Clone> Series<T> {
    fn get(&self, hash: u64, labels: &[(&str, &str)]) -> Option<T> {
        let candidates = self.by_hash.get(&hash)?;
        candidates
            .iter()
            .filter_map(|index| self.all.get(*index))
            .find(|one| one.values.iter().zip(labels).all(|(known, (_, value))| **known == **value))
            .map(|one| one.handle.clone())
    }
}

fn cut(value: &str) -> &str {
    value.get(..value.floor_char_boundary(MAX_VALUE)).unwrap_or(value)
}
