//! Puts a client together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use runtime_kernel::SharedClock;
use runtime_resilience::{BulkheadConfig, Bulkheads, Pipeline, RetryPolicy, SharedRng};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig as TlsConfig, RootCertStore};

use crate::client::{Client, Inner};
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::guard::Guard;
use crate::hook::Hook;
use crate::resolve::{GuardedResolver, Lookup, SystemLookup};
use crate::targets::Targets;

/// Puts a [`Client`] together.
pub struct ClientBuilder {
    config: ClientConfig,
    clock: SharedClock,
    guard: Option<Guard>,
    lookup: Arc<dyn Lookup>,
    retry: RetryPolicy,
    rng: Option<SharedRng>,
    pipelines: BTreeMap<String, Pipeline>,
    hook: Option<Arc<dyn Hook>>,
    targets: BTreeMap<String, Arc<dyn Targets>>,
}

/// How many hosts are counted at the same time.
const MOST_HOSTS: usize = 4_096;

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
            pipelines: BTreeMap::new(),
            hook: None,
            targets: BTreeMap::new(),
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

    /// Guards the calls to a host (`api.example.com`, or with a port) by a pipeline: its own retries, breaker, bulkhead
    /// and time-outs.
    #[must_use]
    pub fn pipeline(mut self, host: impl Into<String>, pipeline: Pipeline) -> Self {
        self.pipelines.insert(host.into().to_ascii_lowercase(), pipeline);
        self
    }

    /// Puts endpoints behind a host: each attempt of a call to it goes to one of them, with the host in its `host`
    /// header. Host and endpoints are trusted like hosts on the allow-list, whatever their addresses and ports. Over TLS
    /// an endpoint must prove its own name.
    #[must_use]
    pub fn targets(mut self, host: impl Into<String>, targets: Arc<dyn Targets>) -> Self {
        self.targets.insert(host.into().to_ascii_lowercase(), targets);
        self
    }

    /// Puts a hook between the client and the network: a cache, or recorded answers.
    #[must_use]
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hook = Some(Arc::new(hook));
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
        let proxy_host = self.config.proxy.as_deref().and_then(|proxy| url::Url::parse(proxy).ok());
        let proxy_host = proxy_host.and_then(|proxy| proxy.host_str().map(str::to_owned));
        let guarded = GuardedResolver {
            lookup: Arc::clone(&self.lookup),
            guard: Some(Arc::clone(&guard)),
            except: proxy_host,
        };
        let named = GuardedResolver { lookup: Arc::clone(&self.lookup), guard: None, except: None };
        let wrong = |key, message: &str| ClientError::Config { key, message: message.to_owned() };
        let (most, waiting) = (self.config.max_per_host, self.config.max_waiting_per_host);
        let per_host = (most > 0).then(|| {
            let places = BulkheadConfig::at_once(most).waiting(waiting, self.config.timeout);
            Bulkheads::new(places, MOST_HOSTS).map_err(|error| wrong("max_per_host", error.message))
        });
        let rng = self.rng.unwrap_or_default();
        let inner = Inner {
            pipeline: Pipeline::new().retry(self.retry).on(Arc::clone(&self.clock), rng),
            pipelines: self.pipelines,
            hook: self.hook,
            targets: self.targets,
            per_host: per_host.transpose()?,
            lookup: self.lookup,
            guarded: connector(&self.config, tls.clone(), guarded)?,
            named: connector(&self.config, tls, named)?,
            config: self.config,
            clock: self.clock,
            guard,
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

fn connector(
    config: &ClientConfig,
    tls: TlsConfig,
    resolver: GuardedResolver,
) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder();
    // None is taken from the environment.
    builder = match &config.proxy {
        None => builder.no_proxy(),
        Some(url) => {
            // The URL is not quoted: it may carry credentials.
            let proxy = reqwest::Proxy::all(url.as_str())
                .map_err(|_| ClientError::Config { key: "proxy", message: "must be a URL".to_owned() })?;
            builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&config.no_proxy.join(","))))
        }
    };
    builder
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(resolver))
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
    let builder = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots);
    let mut tls = match (&config.client_cert_file, &config.client_key_file) {
        (Some(chain), Some(key)) => {
            let wrong = |key| move |message| ClientError::Config { key, message };
            let unread = |error: rustls::pki_types::pem::Error| format!("cannot be read: {error}");
            let chain = CertificateDer::pem_file_iter(chain)
                .and_then(Iterator::collect)
                .map_err(unread)
                .map_err(wrong("client_cert_file"))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(unread).map_err(wrong("client_key_file"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| error.to_string())
                .map_err(wrong("client_cert_file"))?
        }
        _ => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
