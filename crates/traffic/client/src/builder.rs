//! Puts a client together.

use std::fmt;
use std::sync::Arc;

use runtime_kernel::SharedClock;
use runtime_resilience::{RetryPolicy, SharedRng};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig as TlsConfig, RootCertStore};

use crate::client::{Client, Inner};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::guard::Guard;
use crate::resolve::{GuardedResolver, Lookup, SystemLookup};

/// Puts a [`Client`] together.
pub struct ClientBuilder {
    config: ClientConfig,
    clock: SharedClock,
    guard: Option<Guard>,
    lookup: Arc<dyn Lookup>,
    retry: RetryPolicy,
    rng: Option<SharedRng>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(crate) fn new(config: ClientConfig, clock: SharedClock) -> Self {
        Self {
            config,
            clock,
            guard: None,
            lookup: Arc::new(SystemLookup),
            retry: RetryPolicy::none(),
            rng: None,
        }
    }

    /// Judges targets by this guard instead of the configured one.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Resolves names by this instead of the operating system.
    #[must_use]
    pub fn lookup(mut self, lookup: impl Lookup) -> Self {
        self.lookup = Arc::new(lookup);
        self
    }

    /// Retries requests that may be repeated, unless a request says otherwise. No retry by default.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Draws jitter from this source.
    #[must_use]
    pub fn rng(mut self, rng: SharedRng) -> Self {
        self.rng = Some(rng);
        self
    }

    /// Checks the configuration, reads the certificates and builds. Opens no connection.
    ///
    /// # Errors
    /// [`ClientError::Config`] names the key that is wrong.
    pub fn build(self) -> Result<Client, ClientError> {
        self.config.check().map_err(|(key, message)| ClientError::Config { key, message })?;
        let guard = match self.guard {
            Some(guard) => guard,
            None => {
                self.config.build_guard().map_err(|(key, message)| ClientError::Config { key, message })?
            }
        };
        let guard = Arc::new(guard);
        let tls = tls(&self.config)?;
        let guarded = GuardedResolver { lookup: Arc::clone(&self.lookup), guard: Some(Arc::clone(&guard)) };
        let named = GuardedResolver { lookup: self.lookup, guard: None };
        let inner = Inner {
            guarded: connector(&self.config, tls.clone(), guarded)?,
            named: connector(&self.config, tls, named)?,
            config: self.config,
            clock: self.clock,
            guard,
            retry: self.retry,
            rng: self.rng.unwrap_or_default(),
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

fn connector(
    config: &ClientConfig,
    tls: TlsConfig,
    resolver: GuardedResolver,
) -> Result<reqwest::Client, ClientError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(resolver))
        // A proxy would resolve names itself, past the guard; none is taken from the environment.
        .no_proxy()
        // Redirects are followed by us, so that each is judged.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(config.pool_max_idle_per_host)
        .pool_idle_timeout(config.pool_idle_timeout)
        .user_agent(&config.user_agent)
        .build()
        .map_err(|error| ClientError::Config { key: "user_agent", message: error.to_string() })
}

/// Rustls over ring, trusting Mozilla's roots and what the operator adds.
fn tls(config: &ClientConfig) -> Result<TlsConfig, ClientError> {
    let wrong = |message: String| ClientError::Config { key: "ca_file", message };
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &config.ca_file {
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(format!("is not PEM: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(format!("holds a bad certificate: {error}")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
