//! Wires the limits into an `App`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::MatchedPath;
use http::Extensions;
use runtime_http::{HttpApp, Phase};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_telemetry::{MetricsApp, keys};

use crate::layer::{ConcurrencyLayer, NamedLimit};
use crate::rules::LimitsConfig;

/// The app's limits on requests, for operators.
pub const CONCURRENCY: Token<ConcurrencyLayer> = Token::new("limits.concurrency");

/// The app's quotas.
#[cfg(feature = "quota")]
pub const QUOTAS: Token<crate::quota::Quotas> = Token::new("limits.quotas");

/// The app's buffers.
#[cfg(feature = "spill")]
pub const SPILL: Token<crate::spill::SpillPolicy> = Token::new("limits.spill");

impl Section for LimitsConfig {
    const PATH: &'static str = "limits";

    fn validate(&self) -> Result<(), Invalid> {
        self.check().map_err(|error| Invalid::new(error.key, error.message))
    }
}

/// Reads the section `limits`, limits how many requests are under way (phase `Protect`), and provides
/// [`CONCURRENCY`], [`QUOTAS`] (in the app's database, or in memory without one) and [`SPILL`].
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitsModule;

impl Module for LimitsModule {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: LimitsConfig = app.section()?;
        let layer = ConcurrencyLayer::new(&config, route).map_err(|error| fault(&error))?;
        app.services().value(CONCURRENCY, Arc::new(layer.clone()));
        metrics(app, &layer)?;
        if config.enabled {
            app.layer(Phase::Protect, "requests under way", move |router, _| router.layer(layer));
        }
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        runtime_migrate::MigrateApp::migrations(app, crate::quota::migrations::SET);
        #[cfg(feature = "spill")]
        {
            let policy = crate::spill::SpillPolicy::new(config.spill).map_err(|error| fault(&error))?;
            app.services().value(SPILL, Arc::new(policy));
        }
        Ok(())
    }

    #[cfg(feature = "quota")]
    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: LimitsConfig = app.section()?;
        quotas(app, &config)
    }
}

fn fault(error: &dyn std::fmt::Display) -> SetupError {
    SetupError::Module { module: "limits", message: error.to_string() }
}

fn route(extensions: &Extensions) -> Option<&str> {
    extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}

fn metrics(app: &mut App, layer: &ConcurrencyLayer) -> Result<(), SetupError> {
    let registry = app.metrics();
    let gauge = |name, help| registry.gauge(name, help).map_err(|error| fault(&error));
    let limit = gauge(keys::LIMITS_CONCURRENCY_LIMIT, "How many requests may be under way.")?;
    let in_flight = gauge(keys::LIMITS_CONCURRENCY_IN_FLIGHT, "How many requests are under way.")?;
    let waiting = gauge(keys::LIMITS_CONCURRENCY_WAITING, "How many requests wait for a place.")?;
    let rejected = registry
        .counter(keys::LIMITS_CONCURRENCY_REJECTED_TOTAL, "Requests that found no place.")
        .map_err(|error| fault(&error))?;
    let (layer, counted) = (layer.clone(), Mutex::new(HashMap::new()));
    registry.collector(move || {
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        for NamedLimit { name, limit: seen } in layer.limits() {
            let labels = [("limit", name.as_str())];
            limit.with(&labels).set(f64::from(seen.limit()));
            in_flight.with(&labels).set(f64::from(seen.in_flight()));
            waiting.with(&labels).set(f64::from(u32::try_from(seen.waiting()).unwrap_or(u32::MAX)));
            // Read once: what is turned away meanwhile is counted by the next collection, and not by both.
            let now = seen.rejected();
            let before = counted.insert(name.clone(), now).unwrap_or(0);
            rejected.with(&labels).add(now.saturating_sub(before));
        }
    });
    Ok(())
}

/// In the app's database if it has one. Whether it has is known once every module has registered.
#[cfg(feature = "quota")]
fn quotas(app: &mut App, config: &LimitsConfig) -> Result<(), SetupError> {
    use crate::quota::{QuotaStore, Quotas};

    let (quotas, clock) = (config.quotas.clone(), app.shared_clock());
    let build = move |store: Arc<dyn QuotaStore>| {
        Quotas::new(store, quotas.clone(), Arc::clone(&clock))
            .map(Arc::new)
            .map_err(runtime_kernel::Error::from)
    };
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if app.services().contains(runtime_db::DB) {
        app.services().singleton(QUOTAS, (runtime_db::DB,), move |(db,)| {
            std::future::ready(build(Arc::new(crate::quota::SqlQuotas::new((*db).clone()))))
        });
        return Ok(());
    }
    app.services().value(QUOTAS, build(Arc::new(crate::quota::MemoryQuotas::new()))?);
    Ok(())
}
