//! How a record looks: one JSON object, or a line for eyes.

use std::fmt::Write;

use jiff::tz::TimeZone;
use tracing::Level;

use super::fields::{Fields, Value};
use super::layer::Record;

/// How lines look.
#[derive(Clone, Debug)]
pub(crate) enum Style {
    /// One JSON object a line, its last members as given: `,"service":…,"env":…`.
    Json(String),
    /// For eyes, coloured or not.
    Pretty(bool),
}

/// Fields that have a place of their own on the line.
const PLACED: &[&str] = &["message", "trace_id", "request_id"];

impl Style {
    pub(crate) fn json(service: &str, env: &str) -> Self {
        let mut tail = String::new();
        member(&mut tail, "service", &Value::Text(service.to_owned()));
        member(&mut tail, "env", &Value::Text(env.to_owned()));
        Self::Json(tail)
    }

    /// Writes the record and a line feed.
    pub(crate) fn write(&self, out: &mut String, record: &Record<'_>) {
        match self {
            Self::Json(tail) => json(out, record, tail),
            Self::Pretty(colour) => pretty(out, record, *colour),
        }
        out.push('\n');
    }
}

fn json(out: &mut String, record: &Record<'_>, tail: &str) {
    let _ = write!(out, r#"{{"ts":"{:.6}","level":"{}""#, record.ts, level(record.level));
    member(out, "target", &Value::Text(record.target.to_owned()));
    member(out, "msg", record.fields.get("message").unwrap_or(&Value::Text(String::new())));
    for name in ["trace_id", "request_id"] {
        if let Some(value) = record.fields.get(name) {
            member(out, name, value);
        }
    }
    out.push_str(tail);
    let mut open = r#","fields":{"#;
    for (name, value) in rest(&record.fields) {
        out.push_str(open);
        open = ",";
        quote(out, name);
        out.push(':');
        json_value(out, value);
    }
    out.push_str(if open == "," { "}}" } else { "}" });
}

fn member(out: &mut String, name: &str, value: &Value) {
    out.push(',');
    quote(out, name);
    out.push(':');
    json_value(out, value);
}

fn json_value(out: &mut String, value: &Value) {
    match value {
        Value::Text(text) => quote(out, text),
        // JSON has no infinity (RFC 8259 §6).
        Value::Float(number) if !number.is_finite() => quote(out, &number.to_string()),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn quote(out: &mut String, text: &str) {
    // A string always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn pretty(out: &mut String, record: &Record<'_>, colour: bool) {
    let (on, dim, off) = match (colour, record.level) {
        (false, _) => ("", "", ""),
        (true, Level::ERROR) => ("\x1b[31m", "\x1b[2m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[33m", "\x1b[2m", "\x1b[0m"),
        (true, Level::INFO) => ("\x1b[32m", "\x1b[2m", "\x1b[0m"),
        (true, _) => ("\x1b[36m", "\x1b[2m", "\x1b[0m"),
    };
    let time = record.ts.to_zoned(TimeZone::UTC).strftime("%H:%M:%S%.3f").to_string();
    let _ = write!(out, "{dim}{time}{off} {on}{:5}{off} {dim}{}:{off} ", level(record.level), record.target);
    if let Some(message) = record.fields.get("message") {
        plain(out, &message.to_string());
    }
    for (name, value) in rest(&record.fields) {
        let _ = write!(out, " {dim}{name}={off}");
        plain(out, &value.to_string());
    }
    if let Some(request) = record.fields.get("request_id") {
        let _ = write!(out, " {dim}request_id=");
        plain(out, &request.to_string());
        out.push_str(off);
    }
}

/// Control characters would let a caller forge lines or drive the terminal.
fn plain(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
}

fn rest(fields: &Fields) -> impl Iterator<Item = &(&'static str, Value)> {
    fields.0.iter().filter(|(name, _)| !PLACED.contains(name))
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}
