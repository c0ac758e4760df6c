//! Which names, label names and help texts are accepted.

use runtime_kernel::{Classify, ErrorKind};

/// A metric or a label set that breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The name breaks the naming rules.
    #[error("metric `{name}`: {why}")]
    Name {
        /// The name as given.
        name: String,
        /// Which rule.
        why: &'static str,
    },
    /// The name is registered already, as another kind or with other buckets.
    #[error("metric `{name}` is registered as a {was} and cannot also be this {asked}")]
    Shape {
        /// The name.
        name: String,
        /// The kind it has.
        was: &'static str,
        /// The kind that was asked for: the same as `was` when only the buckets differ.
        asked: &'static str,
    },
    /// A histogram's bounds are not usable.
    #[error("metric `{name}`: buckets must be 1 to 64 finite, strictly rising upper bounds")]
    Buckets {
        /// The metric.
        name: String,
    },
    /// A label set does not fit the metric.
    #[error("metric `{metric}`: {why}")]
    Labels {
        /// The metric.
        metric: String,
        /// What does not fit.
        why: &'static str,
    },
}

impl Classify for MetricsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "metrics.name",
            Self::Shape { .. } => "metrics.shape",
            Self::Buckets { .. } => "metrics.buckets",
            Self::Labels { .. } => "metrics.labels",
        }
    }
}

runtime_kernel::into_error!(MetricsError);

/// The longest name that is accepted.
const MAX_NAME: usize = 128;

/// Words that name a unit other than a base unit, or an abbreviated one; the practice is seconds and bytes, in full
/// (<https://prometheus.io/docs/practices/naming/#base-units>).
const FOREIGN_UNITS: &[&str] = &[
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "kibibytes",
    "mebibytes",
    "gibibytes",
    "bits",
    "percent",
    "s",
    "ms",
    "us",
    "ns",
    "sec",
    "secs",
    "msec",
    "b",
    "kb",
    "mb",
    "gb",
    "kib",
    "mib",
    "gib",
];

/// Checks a metric's name and help text for its kind.
pub(super) fn check(name: &str, help: &str, kind: &'static str) -> Result<(), MetricsError> {
    match fault(name, help, kind) {
        Some(why) => Err(MetricsError::Name { name: name.to_owned(), why }),
        None => Ok(()),
    }
}

fn fault(name: &str, help: &str, kind: &'static str) -> Option<&'static str> {
    if !is_identifier(name) || name.len() > MAX_NAME {
        return Some("a name is 1 to 128 of a-z, 0-9 and `_`, first a letter");
    }
    if help.trim().is_empty() {
        return Some("the help text is empty");
    }
    if (kind == "counter") != name.ends_with("_total") {
        return Some("a counter's name ends in `_total`, and no other's does");
    }
    if ["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
        return Some("the endings `_count`, `_sum` and `_bucket` belong to a histogram's own series");
    }
    if name.split('_').any(|word| ["counter", "gauge", "histogram", "summary"].contains(&word)) {
        return Some("the kind is not part of the name");
    }
    if name.split('_').any(|word| FOREIGN_UNITS.contains(&word)) {
        return Some("units are base units in full: seconds, bytes, ratio");
    }
    None
}

/// Checks the names of a label set, which is sorted by name.
pub(super) fn check_labels(labels: &[(&str, &str)], kind: &'static str) -> Result<(), &'static str> {
    for (name, _) in labels {
        if !is_identifier(name) {
            return Err("a label's name is of a-z, 0-9 and `_`, first a letter");
        }
        if kind == "histogram" && *name == "le" {
            return Err("the label `le` belongs to a histogram's own series");
        }
    }
    if labels.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
        return Err("a label is given twice");
    }
    Ok(())
}

/// Narrower than what Prometheus accepts: no upper case, no `:` (recording rules), no leading `_` (reserved).
fn is_identifier(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_prometheus_rules() {
        for (name, kind, ok) in [
            ("jobs_done_total", "counter", true),
            ("jobs_done", "counter", false),
            ("jobs_done_total", "gauge", false),
            ("jobs_queued", "gauge", true),
            ("http_server_request_duration_seconds", "histogram", true),
            ("http_request_duration_milliseconds", "histogram", false),
            ("request_ms", "gauge", false),
            ("disk_free_kb", "gauge", false),
            ("rows_count", "gauge", false),
            ("rows_gauge", "gauge", false),
            ("camelCase", "gauge", false),
            ("with:colon", "gauge", false),
            ("_hidden", "gauge", false),
            ("9lives", "gauge", false),
            ("söng", "gauge", false),
            ("", "gauge", false),
        ] {
            assert_eq!(check(name, "Help.", kind).is_ok(), ok, "{name} as {kind}");
        }
        assert!(check("jobs_queued", "  ", "gauge").is_err());
        assert!(check(&"x".repeat(129), "Help.", "gauge").is_err());
    }
}
