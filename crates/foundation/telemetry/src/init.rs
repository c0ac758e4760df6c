//! Puts the layers together and installs them.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use runtime_kernel::{SharedClock, SystemClock};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use crate::logs::{LevelFilter, Levels, LogLayer, Sink, Style, Writer};
use crate::{Format, Stream, TelemetryConfig, TelemetryError};

/// Telemetry about to be set up.
///
/// ```no_run
/// use runtime_telemetry::{Telemetry, TelemetryConfig};
///
/// let guard = Telemetry::init(TelemetryConfig::default())?;
/// tracing::info!(port = 3000, "listening");
/// guard.levels().set("info,http=debug")?;
/// # Ok::<(), runtime_telemetry::TelemetryError>(())
/// ```
pub struct Telemetry {
    config: TelemetryConfig,
    clock: SharedClock,
    stream: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`].
    pub fn new(config: TelemetryConfig) -> Result<Self, TelemetryError> {
        config.check()?;
        Ok(Self { config, clock: SystemClock::shared(), stream: None })
    }

    /// Sets up the process's telemetry in one go.
    ///
    /// # Errors
    /// As [`Telemetry::new`] and [`Telemetry::install`].
    pub fn init(config: TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
        Self::new(config)?.install()
    }

    /// Sets the clock that dates the lines. The system's unless told.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets where lines go, instead of the stream the settings name. Never coloured.
    #[must_use]
    pub fn stream(mut self, stream: impl Write + Send + 'static) -> Self {
        self.stream = Some(Box::new(stream));
        self
    }

    /// Makes this the process's subscriber, for good.
    ///
    /// # Errors
    /// [`TelemetryError::AlreadyInstalled`] when there is one: it stays as it is.
    pub fn install(self) -> Result<TelemetryGuard, TelemetryError> {
        let (dispatch, guard) = self.build()?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::AlreadyInstalled)?;
        Ok(guard)
    }

    /// The same without installing it: for [`tracing::dispatcher::with_default`].
    ///
    /// # Errors
    /// [`TelemetryError::Thread`], or a collector address that does not parse.
    pub fn build(self) -> Result<(Dispatch, TelemetryGuard), TelemetryError> {
        let Self { config, clock, stream } = self;
        let terminal = stream.is_none()
            && match config.stream {
                Stream::Stderr => std::io::stderr().is_terminal(),
                Stream::Stdout => std::io::stdout().is_terminal(),
            };
        let pretty = match config.format {
            Format::Auto => config.env == "local",
            Format::Json => false,
            Format::Pretty => true,
        };
        let style = if pretty {
            Style::Pretty(terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        } else {
            Style::json(&config.service, &config.env)
        };
        let stream = stream.unwrap_or_else(|| match config.stream {
            Stream::Stderr => Box::new(std::io::stderr()),
            Stream::Stdout => Box::new(std::io::stdout()),
        });
        let levels = Levels::new(&config.levels)?;
        let writer = Writer::start(style, stream)?;
        #[cfg(feature = "otlp")]
        let export = crate::otlp::Exporter::new(&config)?;
        let exported: Vec<(BoxLayer, Box<dyn Sink>)> = Vec::from_iter({
            #[cfg(feature = "otlp")]
            let exported = export.as_ref().map(|export| (export.span_layer(), export.log_sink()));
            #[cfg(not(feature = "otlp"))]
            let exported = None;
            exported
        });
        let (mut layers, mut sinks): (Vec<BoxLayer>, Vec<Box<dyn Sink>>) = exported.into_iter().unzip();
        sinks.push(Box::new(writer.clone()));
        let lines = LogLayer { clock, also: config.redact.into(), sinks };
        layers.push(lines.with_filter(LevelFilter(levels.clone())).boxed());
        let guard = TelemetryGuard {
            levels,
            writer,
            #[cfg(feature = "otlp")]
            export,
        };
        Ok((Dispatch::new(Registry::default().with(layers)), guard))
    }
}

type BoxLayer = Box<dyn Layer<Registry> + Send + Sync>;

#[cfg(feature = "otlp")]
type Export = Option<crate::otlp::Exporter>;

/// How long a dropped guard waits for what is still to be written.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps telemetry running; flushes it when dropped. Keep it until the end of `main`.
#[must_use = "what is still to be written is flushed when the guard is dropped"]
pub struct TelemetryGuard {
    levels: Levels,
    writer: Writer,
    #[cfg(feature = "otlp")]
    export: Export,
}

impl fmt::Debug for TelemetryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryGuard").field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl TelemetryGuard {
    /// The handle that changes levels live.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }

    /// Waits until every line and span so far has gone out, at most about twice `timeout`. Blocks the thread: from
    /// async code call it inside `spawn_blocking`.
    ///
    /// # Errors
    /// [`TelemetryError::Flush`] when the stream or the collector does not take them in time.
    pub fn flush(&self, timeout: Duration) -> Result<(), TelemetryError> {
        #[cfg(feature = "otlp")]
        let exported = self.export.as_ref().map_or(Ok(()), |export| export.flush(timeout));
        #[cfg(not(feature = "otlp"))]
        let exported = Ok(());
        self.writer.flush(timeout).and(exported)
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        self.writer.close();
        // There is nowhere left to report it.
        let _ = self.flush(DROP_TIMEOUT);
    }
}
