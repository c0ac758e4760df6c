//! W3C Trace Context, level 1: which distributed trace this work belongs to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// A trace id, the span it continues, the sampled flag and the vendors' state.
///
/// Parsed and written as the `traceparent` header (<https://www.w3.org/TR/trace-context/#traceparent-header>).
///
/// ```
/// use runtime_kernel::TraceContext;
///
/// let incoming: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
/// let outgoing = incoming.child();
/// assert_eq!(outgoing.trace_id(), incoming.trace_id());
/// assert_ne!(outgoing.span_id(), incoming.span_id());
/// assert!(outgoing.is_sampled());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<Arc<str>>,
}

/// Why a `traceparent` was not accepted. The header is then ignored and a new trace begun, as the
/// specification asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent: {0}")]
pub struct TraceError(&'static str);

/// The longest `tracestate` that is carried on; a longer one is dropped whole (§3.3.1.5 asks for at least 512).
const MAX_STATE: usize = 512;

impl TraceContext {
    /// Begins a new, unsampled trace.
    pub fn root() -> Self {
        Self { trace_id: Uuid::new_v4().into_bytes(), span_id: random_span(), flags: 0, state: None }
    }

    /// The same trace with a new span id: what is sent to the next hop.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: random_span(), ..self.clone() }
    }

    /// Marks the trace as recorded, or not.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.flags = (self.flags & !1) | u8::from(sampled);
        self
    }

    /// Attaches a `tracestate`; one that is too long or not printable ASCII is dropped.
    #[must_use]
    pub fn with_state(mut self, state: &str) -> Self {
        let fits = !state.is_empty() && state.len() <= MAX_STATE;
        self.state = (fits && state.bytes().all(|b| (0x20..0x7f).contains(&b))).then(|| Arc::from(state));
        self
    }

    /// The trace's 16 bytes.
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The current span's 8 bytes.
    pub const fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the caller records this trace.
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The vendors' state, carried on unread.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace id in hexadecimal.
    pub fn trace_id_hex(&self) -> String {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.trace_id);
        text
    }

    /// The `traceparent` header's value.
    pub fn to_traceparent(&self) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.span_id);
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_traceparent())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

impl FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let bytes = text.as_bytes();
        let (Some(head), rest) = (bytes.get(..55), bytes.get(55..).unwrap_or_default()) else {
            return Err(TraceError("shorter than 55 characters"));
        };
        let [v0, v1, b'-', trace @ .., f0, f1] = head else { return Err(TraceError("misplaced dashes")) };
        let Some([version]) = hex::<1>(&[*v0, *v1]) else {
            return Err(TraceError("version is not hexadecimal"));
        };
        if version == 0xff {
            return Err(TraceError("version ff is forbidden"));
        }
        // A later version may append fields after another dash (§4.3); version 00 may not.
        if !rest.is_empty() && (version == 0 || rest.first() != Some(&b'-')) {
            return Err(TraceError("unexpected text after the flags"));
        }
        let (Some(trace_id), Some(b'-'), Some(span_id), Some(b'-')) = (
            trace.get(..32).and_then(hex::<16>),
            trace.get(32).copied(),
            trace.get(33..49).and_then(hex::<8>),
            trace.get(49).copied(),
        ) else {
            return Err(TraceError("ids are not lower-case hexadecimal"));
        };
        let Some([flags]) = hex::<1>(&[*f0, *f1]) else {
            return Err(TraceError("flags are not hexadecimal"));
        };
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceError("an id of all zeroes is forbidden"));
        }
        // Unknown flags are not passed on (§3.2.2.5.2).
        Ok(Self { trace_id, span_id, flags: flags & 1, state: None })
    }
}

fn random_span() -> [u8; 8] {
    // The low half carries the UUID's variant bits, so the id is never zero.
    Uuid::new_v4().as_u64_pair().1.to_be_bytes()
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let pairs = digits.chunks_exact(2);
    if digits.len() != N * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair else { return None };
        *byte = (nibble(*high)? << 4) | nibble(*low)?;
    }
    Some(bytes)
}

/// Upper case is forbidden (§3.2.2).
const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS.get(usize::from(half)).copied().unwrap_or(b'0')));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_cases() {
        for (text, ok) in [
            (GOOD, true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<TraceContext>().is_ok(), ok, "{text}");
        }
        assert_eq!(GOOD.parse::<TraceContext>().unwrap().to_traceparent(), GOOD);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = text.parse::<TraceContext>();
        }
    }

    #[test]
    fn what_it_writes_it_reads() {
        let trace = TraceContext::root().sampled(true);
        assert_eq!(trace.to_traceparent().parse(), Ok(trace));
    }
}
