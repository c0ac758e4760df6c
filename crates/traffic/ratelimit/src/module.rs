//! Wires the limits into an `App`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use runtime_http::{HttpApp, Phase};
use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_telemetry::{MetricsApp, keys};

use crate::buckets::{Answer, Buckets, Demand, Together};
use crate::config::{RateLimitConfig, Store};
use crate::layer::{Applies, Lookup, RateLimitLayer};
use crate::limiter::{RateLimiter, RefusedTogether};
use crate::operator::RateLimits;
use crate::outcome::{LimitError, Standing};
use crate::reserved::Reserved;
use crate::rules::{Operations, Rules};

/// The app's buckets, wherever they are.
pub const BUCKETS: Token<dyn Buckets> = Token::new("ratelimit.buckets");

/// The app's rates by operation.
pub const OPERATIONS: Token<Operations> = Token::new("ratelimit.operations");

/// The app's rules, for operators.
pub const RATE_LIMITS: Token<RateLimits> = Token::new("ratelimit.limits");

impl Section for RateLimitConfig {
    const PATH: &'static str = "ratelimit";

    fn validate(&self) -> Result<(), Invalid> {
        Rules::new(self).map(drop).map_err(|error| Invalid::new(error.key, error.message))
    }
}

/// Reads the section `ratelimit`, provides [`BUCKETS`], [`OPERATIONS`] and [`RATE_LIMITS`], and applies the rules to every request:
/// those by address in phase `Protect`, those by principal and tenant in phase `Resolve`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimitModule;

impl Module for RateLimitModule {
    fn name(&self) -> &'static str {
        "ratelimit"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: RateLimitConfig = app.section()?;
        let fault = |error: &dyn std::fmt::Display| SetupError::Module {
            module: "ratelimit",
            message: error.to_string(),
        };
        let operations = Operations::new(&config).map_err(|error| fault(&error))?;
        app.services().value(OPERATIONS, Arc::new(operations));
        let builder = RateLimiter::builder(config.max_keys).overflow(config.overflow);
        let local = builder.clock(app.shared_clock()).build();
        match config.store {
            Store::Memory => {
                app.services().value(BUCKETS, Arc::new(local) as Arc<dyn Buckets>);
            }
            Store::Redis => in_redis(app, &config, local)?,
        }

        let rules = config.clone();
        app.services().singleton(RATE_LIMITS, (BUCKETS,), move |(buckets,)| {
            std::future::ready(RateLimits::new(&rules, buckets).map(Arc::new))
        });
        let buckets: Arc<OnceLock<Arc<dyn Buckets>>> = Arc::default();
        let found = Arc::clone(&buckets);
        app.on_start("ratelimit", move |container| async move {
            let _ = found.set(container.get(BUCKETS).await?);
            Ok::<_, Error>(())
        });
        let help = "Requests a rate limit judged, by rule and decision.";
        let decisions =
            app.metrics().counter(keys::RATELIMIT_DECISIONS_TOTAL, help).map_err(|error| fault(&error))?;
        for (applies, phase, name) in [
            (Applies::BeforeIdentity, Phase::Protect, "rate limits by address"),
            (Applies::AfterIdentity, Phase::Resolve, "rate limits by principal and tenant"),
        ] {
            let late = Late(Arc::clone(&buckets));
            let layer = RateLimitLayer::new(&config, applies, Arc::new(late), Lookup::AXUM)
                .map_err(|error| fault(&error))?;
            if layer.is_empty() {
                continue;
            }
            let decisions = decisions.clone();
            let layer = layer.observed(move |rule, decision| {
                decisions.with(&[("rule", rule), ("decision", decision.as_str())]).inc();
            });
            app.layer(phase, name, move |router, _| router.layer(layer));
        }
        Ok(())
    }
}

#[cfg(feature = "redis")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it is refused")]
fn in_redis(app: &mut App, config: &RateLimitConfig, local: RateLimiter) -> Result<(), SetupError> {
    let (config, clock) = (config.clone(), app.shared_clock());
    app.services().singleton(BUCKETS, (runtime_redis::REDIS,), move |(redis,)| {
        let own = crate::RedisBuckets::new((*redis).clone(), config.when_away, local.clone());
        let lease = crate::Lease { tokens: config.lease, time: config.lease_time };
        let own = if config.lease > 0 { own.leased(lease, config.max_keys, clock.clone()) } else { own };
        std::future::ready(Ok::<_, Error>(Arc::new(own) as Arc<dyn Buckets>))
    });
    Ok(())
}

#[cfg(not(feature = "redis"))]
fn in_redis(_: &mut App, _: &RateLimitConfig, _: RateLimiter) -> Result<(), SetupError> {
    let message = "`ratelimit.store = \"redis\"` needs the feature `redis` of runtime-ratelimit".to_owned();
    Err(SetupError::Module { module: "ratelimit", message })
}

/// Buckets that are there once the app has started, which is before the first request.
#[derive(Debug)]
struct Late(Arc<OnceLock<Arc<dyn Buckets>>>);

impl Buckets for Late {
    fn take<'a>(&'a self, demands: &'a [Demand<'a>]) -> Answer<'a, Together> {
        match self.0.get() {
            Some(buckets) => buckets.take(demands),
            None => Box::pin(std::future::ready(Err(RefusedTogether { index: 0, error: early() }))),
        }
    }

    fn take_now(&self, demands: &[Demand<'_>]) -> Option<Together> {
        self.0.get()?.take_now(demands)
    }

    fn reserve<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Reserved, LimitError>> {
        self.0.get().map_or_else(
            || Box::pin(std::future::ready(Err(early()))) as Answer<'a, _>,
            |buckets| buckets.reserve(demand),
        )
    }

    fn peek<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Standing, LimitError>> {
        self.0.get().map_or_else(
            || Box::pin(std::future::ready(Err(early()))) as Answer<'a, _>,
            |buckets| buckets.peek(demand),
        )
    }

    fn reset<'a>(&'a self, key: &'a str) -> Answer<'a, Result<(), LimitError>> {
        self.0.get().map_or_else(
            || Box::pin(std::future::ready(Err(early()))) as Answer<'a, _>,
            |buckets| buckets.reset(key),
        )
    }
}

fn early() -> LimitError {
    LimitError::Away { retry_after: Duration::from_secs(1) }
}
