//! Wires tenancy into an `App`.

use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Environment, Section};
use runtime_kernel::container::Token;

use crate::config::TenancyConfig;
use crate::resolver::TenantResolver;

/// The process's resolver.
pub const RESOLVER: Token<TenantResolver> = Token::new("tenancy.resolver");

impl Section for TenancyConfig {
    const PATH: &'static str = "tenancy";
    const LOCKED: &'static [&'static str] = &["strategy", "default_realm", "default_tenant", "default_org"];
}

/// Reads the section `tenancy`, registers [`RESOLVER`] and, with the feature `http`, adds the layer to the phase
/// `Resolve`. Strict in the environment `production` unless `tenancy.strict` says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct TenancyModule;

impl Module for TenancyModule {
    fn name(&self) -> &'static str {
        "tenancy"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: TenancyConfig = app.section()?;
        let strict = app.config().environment() == Environment::Production;
        let resolver = TenantResolver::new(config, strict).map_err(Error::from)?;
        #[cfg(feature = "http")]
        {
            use runtime_http::{HttpApp, Phase};

            let layer = crate::TenantLayer::new(resolver.clone());
            app.layer(Phase::Resolve, "tenant", move |router, _| router.layer(layer));
        }
        app.services().value(RESOLVER, resolver);
        Ok(())
    }
}
