//! Which events are logged, changed while the process runs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter as Max, Targets};
use tracing_subscriber::layer::{Context, Filter};

use crate::TelemetryError;

/// The handle that changes log levels live. Cloning shares it.
#[derive(Clone)]
pub struct Levels(Arc<State>);

struct State {
    targets: ArcSwap<Targets>,
    text: Mutex<String>,
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Levels").field(&self.current()).finish()
    }
}

impl Levels {
    pub(crate) fn new(text: &str) -> Result<Self, TelemetryError> {
        let targets = parse(text)?;
        Ok(Self(Arc::new(State {
            targets: ArcSwap::from_pointee(targets),
            text: Mutex::new(text.to_owned()),
        })))
    }

    pub(crate) fn check(text: &str) -> Result<(), TelemetryError> {
        parse(text).map(drop)
    }

    /// Replaces the levels: `"info,http=debug,sqlx=warn"`. Takes effect for the next event of every thread.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when the text does not parse; the present levels then stay.
    pub fn set(&self, text: &str) -> Result<(), TelemetryError> {
        let targets = parse(text)?;
        text.clone_into(&mut self.0.text.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.targets.store(Arc::new(targets));
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// The levels in force, as they were set.
    pub fn current(&self) -> String {
        self.0.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn parse(text: &str) -> Result<Targets, TelemetryError> {
    let wrong = |message: String| TelemetryError::Setting { field: "levels", message };
    if text.trim().is_empty() {
        return Err(wrong("must not be empty; `off` silences everything".to_owned()));
    }
    let mut targets = Targets::new();
    for part in text.split(',').map(str::trim) {
        let (target, level) =
            part.split_once('=').map_or((None, part), |(target, level)| (Some(target.trim()), level.trim()));
        // `Max` itself reads an empty text, and numbers, as levels.
        let known = ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|name| level.eq_ignore_ascii_case(name));
        let level: Max = level.parse().ok().filter(|_| known).ok_or_else(|| {
            wrong(format!("`{part}` is not a level (off, error, warn, info, debug, trace) or `target=level`"))
        })?;
        targets = match target {
            None => targets.with_default(level),
            Some("") => return Err(wrong(format!("`{part}` names no target"))),
            Some(target) => targets.with_target(target, level),
        };
    }
    Ok(targets)
}

/// Lets events through as [`Levels`] say, and every span up to `info`: a warning inside a request keeps the request's
/// ids even where `info` itself is silenced.
pub(crate) struct LevelFilter(pub(crate) Levels);

impl LevelFilter {
    fn lets(&self, metadata: &Metadata<'_>) -> bool {
        (metadata.is_span() && *metadata.level() <= Level::INFO)
            || self.0.0.targets.load().would_enable(metadata.target(), metadata.level())
    }
}

impl<S: Subscriber> Filter<S> for LevelFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.lets(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.lets(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<Max> {
        let most = self.0.0.targets.load().iter().map(|(_, level)| level).max().unwrap_or(Max::OFF);
        Some(most.max(self.0.0.targets.load().default_level().unwrap_or(Max::OFF)).max(Max::INFO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked_before_they_are_taken() {
        let levels = Levels::new("info").unwrap();
        for (text, ok) in [
            ("debug", true),
            ("info,http=debug", true),
            (" warn , a::b = trace ", true),
            ("off", true),
            ("", false),
            ("loud", false),
            ("http=loud", false),
            ("=debug", false),
            ("info,,debug", false),
        ] {
            assert_eq!(levels.set(text).is_ok(), ok, "{text:?}");
        }
        assert_eq!(levels.current(), "off", "what is refused changes nothing");
    }
}
