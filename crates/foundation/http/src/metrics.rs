//! Requests by route, method and status class: handles are looked up once, then counted without a search.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::router::RouteIndex;

/// The edge's metrics. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct HttpMetrics {
    #[cfg(feature = "metrics")]
    inner: Option<std::sync::Arc<Inner>>,
}

#[cfg(feature = "metrics")]
mod inner {
    use std::sync::OnceLock;

    use runtime_telemetry::{Family, Gauge, Histogram};

    #[derive(Debug)]
    pub(super) struct Inner {
        pub(super) durations: Family<Histogram>,
        pub(super) active: Gauge,
        /// By route index, then status class; what is no route's comes last.
        pub(super) handles: Vec<[OnceLock<Histogram>; 5]>,
    }
}
#[cfg(feature = "metrics")]
use inner::Inner;

#[cfg(feature = "metrics")]
impl HttpMetrics {
    /// Counts in a registry, for a router of so many routes.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(
        metrics: &runtime_telemetry::Metrics,
        routes: usize,
    ) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let help = "How long requests took, by route, method and status class.";
        let inner = Inner {
            durations: metrics.histogram(keys::HTTP_SERVER_REQUEST_DURATION_SECONDS, help, &SECONDS)?,
            active: metrics.gauge(keys::HTTP_SERVER_ACTIVE_REQUESTS, "Requests under way.")?.unlabelled(),
            handles: (0..=routes).map(|_| Default::default()).collect(),
        };
        Ok(Self { inner: Some(std::sync::Arc::new(inner)) })
    }
}

impl HttpMetrics {
    pub(crate) fn began(&self) {
        #[cfg(feature = "metrics")]
        if let Some(inner) = &self.inner {
            inner.active.inc();
        }
        #[cfg(not(feature = "metrics"))]
        let _ = self;
    }

    pub(crate) fn ended(
        &self,
        route: Option<&RouteIndex>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        #[cfg(feature = "metrics")]
        if let Some(inner) = &self.inner {
            inner.active.dec();
            let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
            let (index, path) =
                route.map_or((inner.handles.len() - 1, "unmatched"), |route| (route.index, &*route.path));
            let Some(handle) = inner.handles.get(index).and_then(|classes| classes.get(class)) else {
                return;
            };
            // A method nobody routes is the caller's invention: one label for all of them.
            let method = if route.is_some() { method.as_str() } else { "other" };
            let status = ["1xx", "2xx", "3xx", "4xx", "5xx"].get(class).copied().unwrap_or("other");
            let labels = [("route", path), ("method", method), ("status", status)];
            handle.get_or_init(|| inner.durations.with(&labels)).observe_duration(took);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, route, method, status, took);
    }
}
