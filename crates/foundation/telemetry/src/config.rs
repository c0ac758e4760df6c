//! What may be set, and what is wrong with what was set.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, units};
use serde::{Deserialize, Serialize};

/// The section `telemetry`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// The service's name on every line and in every exported span; in an app the configuration's own
    /// `service_name`. Default `runtime`.
    #[serde(skip)]
    pub service: String,
    /// The environment on every line; in an app the configuration's own `env`. `local` makes [`Format::Auto`] pretty.
    /// Default `local`.
    #[serde(skip)]
    pub env: String,
    /// What is logged: a level, then `target=level` for whole module paths, comma-separated. Changes live.
    /// Default `info`.
    pub levels: String,
    /// How lines look. Default `auto`.
    pub format: Format,
    /// Where lines go. Default `stderr`, which leaves standard output to commands' answers.
    pub stream: Stream,
    /// Names of fields to redact beside those that [`crate::redact::is_secret_name`] knows. Default none.
    pub redact: Vec<String>,
    /// How many series one metric keeps. Default 1000.
    pub max_series: usize,
    /// An OTLP/HTTP collector's base address, such as `http://127.0.0.1:4318`; `/v1/traces` and `/v1/logs` are
    /// appended. Default none: nothing is exported. Needs the feature `otlp`.
    pub otlp_endpoint: Option<String>,
    /// How long one export may take before its batch is given up. Default 10 s.
    #[serde(with = "units::duration")]
    pub otlp_timeout: Duration,
    /// Which share of traces nobody upstream has sampled is exported, 0 to 1, decided by trace id. Default 1.
    pub otlp_sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service: "runtime".to_owned(),
            env: "local".to_owned(),
            levels: "info".to_owned(),
            format: Format::Auto,
            stream: Stream::Stderr,
            redact: Vec::new(),
            max_series: crate::metrics::DEFAULT_MAX_SERIES,
            otlp_endpoint: None,
            otlp_timeout: Duration::from_secs(10),
            otlp_sample_ratio: 1.0,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Pretty where `env` is `local`, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For eyes; coloured on a terminal unless `NO_COLOR` is set.
    Pretty,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
}

/// Why telemetry was not set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A setting does not hold.
    #[error("telemetry.{field}: {message}")]
    Setting {
        /// Its name in the section.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The process has a global subscriber already; the first one stays.
    #[error("the process's log subscriber is installed already")]
    AlreadyInstalled,
    /// A thread could not be started.
    #[error("the thread that writes log lines could not be started")]
    Thread(#[source] std::io::Error),
    /// What was written could not be flushed in time.
    #[error("telemetry was not flushed: {0}")]
    Flush(String),
}

impl Classify for TelemetryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } => ErrorKind::Invalid,
            Self::AlreadyInstalled => ErrorKind::Conflict,
            Self::Thread(_) => ErrorKind::Unavailable,
            Self::Flush(_) => ErrorKind::Timeout,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "telemetry.setting",
            Self::AlreadyInstalled => "telemetry.already_installed",
            Self::Thread(_) => "telemetry.thread",
            Self::Flush(_) => "telemetry.flush",
        }
    }
}

runtime_kernel::into_error!(TelemetryError);

impl TelemetryConfig {
    /// Checks every setting that can be wrong by itself.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] names the first that is.
    pub fn check(&self) -> Result<(), TelemetryError> {
        let wrong =
            |field, message: &str| Err(TelemetryError::Setting { field, message: message.to_owned() });
        #[cfg(feature = "logs")]
        crate::logs::Levels::check(&self.levels)?;
        if self.service.is_empty() {
            return wrong("service", "must not be empty");
        }
        if self.max_series == 0 {
            return wrong("max_series", "must not be 0");
        }
        if !(0.0..=1.0).contains(&self.otlp_sample_ratio) {
            return wrong("otlp_sample_ratio", "must be from 0 to 1");
        }
        if self.otlp_timeout.is_zero() {
            return wrong("otlp_timeout", "must not be 0");
        }
        match self.otlp_endpoint.as_deref() {
            Some(_) if !cfg!(feature = "otlp") => wrong("otlp_endpoint", "this build has no `otlp` feature"),
            Some(url) if url.starts_with("https://") && !cfg!(feature = "otlp-tls") => {
                wrong("otlp_endpoint", "`https` needs the feature `otlp-tls`")
            }
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                wrong("otlp_endpoint", "must start with http:// or https://")
            }
            _ => Ok(()),
        }
    }
}
