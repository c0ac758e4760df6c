//! Server-sent events.

use proptest::prelude::*;
use runtime_providers::{SseError, SseParser};

fn parse(chunks: &[&[u8]]) -> Vec<(String, String)> {
    let mut parser = SseParser::new(1_000);
    let events = chunks.iter().flat_map(|chunk| parser.push(chunk).unwrap());
    events.map(|event| (event.event, event.data)).collect()
}

#[test]
fn streams_are_read_as_the_standard_says() {
    for (text, expected) in [
        ("data: a\n\n", vec![("", "a")]),
        ("data:a\r\n\r\ndata:  b\r\rdata: c\n\n", vec![("", "a"), ("", " b"), ("", "c")]),
        ("data: a\ndata: b\ndata\n\n", vec![("", "a\nb\n")]),
        (": a comment\nid: 7\nretry: 10\nevent: tick\ndata: {\"a\": 1}\n\n", vec![("tick", "{\"a\": 1}")]),
        ("event: nothing\n\ndata: a\n\n", vec![("", "a")]),
        ("\u{feff}data: a\n\n", vec![("", "a")]),
        ("data: not complete\n", vec![]),
        ("data: [DONE]\n\n", vec![("", "[DONE]")]),
        ("", vec![]),
    ] {
        let expected: Vec<_> =
            expected.into_iter().map(|(event, data)| (event.to_owned(), data.to_owned())).collect();
        assert_eq!(parse(&[text.as_bytes()]), expected, "{text:?}");
    }
}

#[test]
fn an_event_without_an_end_is_refused() {
    let mut parser = SseParser::new(10);
    assert_eq!(parser.push(b"data: 0123456789").unwrap_err(), SseError::TooLarge(10));
}

proptest! {
    #[test]
    fn it_makes_no_difference_where_chunks_end(
        parts in prop::collection::vec("(data: ?|event:|:|id:)?[a-zé{}\" ]{0,12}(\n|\r\n|\r|\n\n|\r\n\r\n)", 0..20),
        cuts in prop::collection::vec(0usize..400, 0..12),
    ) {
        let text: String = parts.concat();
        let bytes = text.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(parse(&chunks), parse(&[bytes]));
    }
}
