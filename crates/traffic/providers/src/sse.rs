//! Server-sent events (WHATWG HTML, "Server-sent events", §9.2.6), from chunks as they come.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseEvent {
    /// Its type; empty for `message`.
    pub event: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// Why a stream is no event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SseError {
    /// An event is larger than may be.
    #[error("an event is larger than {0} bytes")]
    TooLarge(usize),
}

/// Parses a stream of events, whatever chunks it comes in. Bytes that are not UTF-8 become replacement characters.
#[derive(Debug)]
pub struct SseParser {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    /// Whether the last byte was a carriage return, whose line feed is still to come.
    after_return: bool,
    first: bool,
    most: usize,
}

impl SseParser {
    /// A parser for events of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self {
            line: Vec::new(),
            event: SseEvent::default(),
            has_data: false,
            after_return: false,
            first: true,
            most,
        }
    }

    /// The events that are complete with these bytes. What is left without an empty line at the end is no event.
    ///
    /// # Errors
    /// [`SseError::TooLarge`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, SseError> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.event.data.len() > self.most {
                return Err(SseError::TooLarge(self.most));
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        // A byte order mark may come first.
        let line = if std::mem::take(&mut self.first) { line.trim_start_matches('\u{feff}') } else { &line };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.event.event),
            // `id`, `retry`, comments and what nobody knows.
            _ => {}
        }
        None
    }
}
