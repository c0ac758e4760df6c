//! The Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::family::{Core, Instrument};
use super::instrument::{Counter, Gauge, Histogram};
use super::{AnyFamily, keys, process};

pub(super) fn render(families: &BTreeMap<String, AnyFamily>) -> String {
    let mut out = String::with_capacity(4_096);
    for any in families.values() {
        match any {
            AnyFamily::Counter(core) => family(&mut out, core, |out, labels, counter: &Counter| {
                sample(out, &core.name, "", labels, None, counter.value());
            }),
            AnyFamily::Gauge(core) => family(&mut out, core, |out, labels, gauge: &Gauge| {
                sample(out, &core.name, "", labels, None, gauge.value());
            }),
            AnyFamily::Histogram(core) => family(&mut out, core, |out, labels, one: &Histogram| {
                histogram(out, &core.name, labels, one);
            }),
        }
    }
    troubles(&mut out, families);
    process::render(&mut out);
    out
}

fn family<T: Instrument>(
    out: &mut String,
    core: &Core<T>,
    mut write: impl FnMut(&mut String, &[(&str, &str)], &T),
) {
    let mut headed = false;
    core.each(|labels, handle| {
        if !headed {
            head(out, &core.name, &core.help, T::KIND);
            headed = true;
        }
        write(out, labels, handle);
    });
}

#[expect(clippy::cast_precision_loss, reason = "the text format carries doubles")]
fn histogram(out: &mut String, name: &str, labels: &[(&str, &str)], one: &Histogram) {
    let buckets = one.buckets();
    for (bound, below) in &buckets {
        sample(out, name, "_bucket", labels, Some(*bound), *below as f64);
    }
    let count = buckets.last().map_or(0, |(_, below)| *below);
    sample(out, name, "_sum", labels, None, one.sum());
    sample(out, name, "_count", labels, None, count as f64);
}

/// What the registry itself had to turn away, for as long as there was any.
#[expect(clippy::cast_precision_loss, reason = "the text format carries doubles")]
fn troubles(out: &mut String, families: &BTreeMap<String, AnyFamily>) {
    let mut overflowed = Vec::new();
    let mut rejected = Vec::new();
    for (name, any) in families {
        let (over, refused) = match any {
            AnyFamily::Counter(core) => (&core.overflowed, &core.rejected),
            AnyFamily::Gauge(core) => (&core.overflowed, &core.rejected),
            AnyFamily::Histogram(core) => (&core.overflowed, &core.rejected),
        };
        overflowed.push((name, over.load(Ordering::Relaxed)));
        rejected.push((name, refused.load(Ordering::Relaxed)));
    }
    for (key, help, counts) in [
        (keys::METRICS_OVERFLOW, "Lookups of label sets that no longer fitted under the cap.", overflowed),
        (keys::METRICS_REJECTED, "Lookups of label sets that did not fit their metric.", rejected),
    ] {
        let counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        if !counts.is_empty() {
            head(out, key, help, "counter");
        }
        for (name, count) in counts {
            sample(out, key, "", &[("metric", name)], None, count as f64);
        }
    }
}

pub(super) fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = write!(out, "# HELP {name} ");
    escape(out, help, false);
    let _ = writeln!(out, "\n# TYPE {name} {kind}");
}

pub(super) fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    le: Option<f64>,
    value: f64,
) {
    out.push_str(name);
    out.push_str(suffix);
    let mut open = '{';
    for (label, text) in labels {
        out.push(open);
        open = ',';
        out.push_str(label);
        out.push_str("=\"");
        escape(out, text, true);
        out.push('"');
    }
    if let Some(bound) = le {
        out.push(open);
        open = ',';
        out.push_str("le=\"");
        number(out, bound);
        out.push('"');
    }
    if open == ',' {
        out.push('}');
    }
    out.push(' ');
    number(out, value);
    out.push('\n');
}

fn number(out: &mut String, value: f64) {
    let _ = match value {
        _ if value.is_nan() => write!(out, "NaN"),
        _ if value == f64::INFINITY => write!(out, "+Inf"),
        _ if value == f64::NEG_INFINITY => write!(out, "-Inf"),
        _ => write!(out, "{value}"),
    };
}

/// Help texts escape `\` and line feed; label values also `"`.
fn escape(out: &mut String, text: &str, quote: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quote => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
}
