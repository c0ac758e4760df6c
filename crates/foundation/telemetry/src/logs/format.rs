//! How a record looks: one JSON object, or a line for eyes.

use std::cell::RefCell;
use std::fmt::Write;

use runtime_kernel::Timestamp;
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
    out.push_str(r#"{"ts":""#);
    date(out, record.ts);
    out.push('T');
    daytime(out, record.ts);
    out.push('.');
    digits(out, micros(record.ts), 6);
    for part in [r#"Z","level":""#, level(record.level), r#"","target":"#] {
        out.push_str(part);
    }
    quote(out, record.target);
    match record.fields.get("message") {
        Some(message) => member(out, "msg", message),
        None => out.push_str(r#","msg":"""#),
    }
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
        other => number(out, other),
    }
}

fn quote(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        // A string always serialises.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// The time of day in UTC, to the second.
fn daytime(out: &mut String, ts: Timestamp) {
    let second = ts.as_microsecond().div_euclid(1_000_000).rem_euclid(86_400).unsigned_abs();
    digits(out, second / 3600, 2);
    out.push(':');
    digits(out, second / 60 % 60, 2);
    out.push(':');
    digits(out, second % 60, 2);
}

/// A number's last decimal digits.
fn digits(out: &mut String, number: u64, count: u32) {
    let mut power = 10_u64.saturating_pow(count.saturating_sub(1));
    for _ in 0..count {
        let digit = number / power % 10;
        out.push(u32::try_from(digit).ok().and_then(|digit| char::from_digit(digit, 10)).unwrap_or('0'));
        power = (power / 10).max(1);
    }
}

/// Microseconds within the second.
fn micros(ts: Timestamp) -> u64 {
    ts.as_microsecond().rem_euclid(1_000_000).unsigned_abs()
}

/// The day in UTC. It is worked out once a day.
fn date(out: &mut String, ts: Timestamp) {
    thread_local!(static TODAY: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) });
    let day = ts.as_microsecond().div_euclid(86_400_000_000);
    TODAY.with_borrow_mut(|(known, text)| {
        if *known != day {
            *known = day;
            *text = ts.to_string();
            text.truncate("2026-01-01".len());
        }
        out.push_str(text);
    });
}

fn pretty(out: &mut String, record: &Record<'_>, colour: bool) {
    let (on, dim, off) = match (colour, record.level) {
        (false, _) => ("", "", ""),
        (true, Level::ERROR) => ("\x1b[31m", "\x1b[2m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[33m", "\x1b[2m", "\x1b[0m"),
        (true, Level::INFO) => ("\x1b[32m", "\x1b[2m", "\x1b[0m"),
        (true, _) => ("\x1b[36m", "\x1b[2m", "\x1b[0m"),
    };
    out.push_str(dim);
    daytime(out, record.ts);
    out.push('.');
    digits(out, micros(record.ts) / 1000, 3);
    // The levels stand under one another.
    let (level, gap) = (level(record.level), if level(record.level).len() == 4 { "  " } else { " " });
    for part in [off, " ", on, level, off, gap, dim, record.target, ":", off, " "] {
        out.push_str(part);
    }
    if let Some(message) = record.fields.get("message") {
        plain(out, message);
    }
    for (name, value) in rest(&record.fields) {
        for part in [" ", dim, name, "=", off] {
            out.push_str(part);
        }
        plain(out, value);
    }
    if let Some(request) = record.fields.get("request_id") {
        for part in [" ", dim, "request_id="] {
            out.push_str(part);
        }
        plain(out, request);
        out.push_str(off);
    }
}

/// Control characters would let a caller forge lines or drive the terminal.
fn plain(out: &mut String, value: &Value) {
    match value {
        Value::Text(text) if text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) => out.push_str(text),
        Value::Text(text) => {
            for c in text.chars() {
                if c.is_control() {
                    let _ = write!(out, "{}", c.escape_default());
                } else {
                    out.push(c);
                }
            }
        }
        other => number(out, other),
    }
}

/// A value that is no text. Whole numbers are the most common, and need nothing of `fmt`.
fn number(out: &mut String, value: &Value) {
    let whole = match value {
        Value::Uint(number) => Some(*number),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    match whole {
        Some(whole) => digits(out, whole, whole.checked_ilog10().unwrap_or(0) + 1),
        None => {
            let _ = write!(out, "{value}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_as_fmt_writes_them() {
        for value in [0, 7, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = String::new();
            number(&mut out, &Value::Uint(value));
            assert_eq!(out, value.to_string());
        }
        for (value, text) in [(Value::Int(-3), "-3"), (Value::Int(42), "42"), (Value::Float(0.5), "0.5")] {
            let mut out = String::new();
            number(&mut out, &value);
            assert_eq!(out, text);
        }
        for text in ["2026-11-21T05:33:20.000001Z", "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00.5Z"] {
            let ts: Timestamp = text.parse().unwrap();
            let mut out = String::new();
            date(&mut out, ts);
            out.push('T');
            daytime(&mut out, ts);
            out.push('.');
            digits(&mut out, micros(ts), 6);
            out.push('Z');
            assert_eq!(out, format!("{ts:.6}"));
        }
    }
}
