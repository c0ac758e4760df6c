//! The HTTP binding: the public conformance scenarios, the specification's encodings, and every mode both ways.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use runtime_events::cloudevent::http::{Limits, Mode, Received, is_event, read, write, write_batch};
use runtime_events::{CloudEvent, Data, EventsError};
use serde_json::{Value, json};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    let mut map = HeaderMap::new();
    pairs.for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

fn one(headers: &HeaderMap, body: &str) -> Result<CloudEvent, EventsError> {
    match read(headers, &Bytes::copy_from_slice(body.as_bytes()), &Limits::default())? {
        Received::One(event) => Ok(*event),
        Received::Batch(_) => panic!("a batch"),
    }
}

const BINARY: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.someevent"),
    ("ce-time", "2018-04-05T03:56:24Z"),
    ("ce-id", "1234-1234-1234"),
    ("ce-source", "/mycontext/subcontext"),
];

fn binary(more: &[(&str, &str)]) -> HeaderMap {
    headers(&[BINARY.as_slice(), more].concat())
}

/// cloudevents/conformance `features/http-protocol-binding.feature`: the attributes every scenario expects.
fn assert_attributes(event: &CloudEvent, media_type: &str) {
    assert_eq!(event.id(), "1234-1234-1234");
    assert_eq!(event.kind(), "com.example.someevent");
    assert_eq!(event.source(), "/mycontext/subcontext");
    assert_eq!(event.time().unwrap().to_string(), "2018-04-05T03:56:24Z");
    assert_eq!(event.data_content_type(), Some(media_type));
    assert_eq!(event.json::<Value>().unwrap(), json!({ "message": "Hello World!" }));
}

/// Scenario outline "Binary content mode".
#[test]
fn conformance_binary_content_mode() {
    for media_type in ["application/json", "application/json; charset=utf-8"] {
        let headers =
            binary(&[("content-type", media_type), ("content-length", "33"), ("host", "example.com")]);
        assert!(is_event(&headers));
        assert_attributes(&one(&headers, "{\n    \"message\": \"Hello World!\"\n}\n").unwrap(), media_type);
    }
}

/// Scenario outline "Structured content mode".
#[test]
fn conformance_structured_content_mode() {
    let body = json!({
        "specversion": "1.0", "type": "com.example.someevent", "time": "2018-04-05T03:56:24Z",
        "id": "1234-1234-1234", "source": "/mycontext/subcontext", "datacontenttype": "application/json",
        "data": { "message": "Hello World!" },
    });
    for media_type in ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"] {
        let headers =
            headers(&[("content-type", media_type), ("content-length", "266"), ("host", "example.com")]);
        assert!(is_event(&headers));
        assert_attributes(&one(&headers, &body.to_string()).unwrap(), "application/json");
    }
}

/// http-protocol-binding.md §3.1.3.2.
#[test]
fn header_values_are_percent_encoded_and_decoded_as_the_binding_says() {
    let event = CloudEvent::builder("1", "/s", "t").subject("Euro € 😀").build().unwrap();
    let (written, _) = write(&event, Mode::Binary).unwrap();
    assert_eq!(written["ce-subject"], "Euro%20%E2%82%AC%20%F0%9F%98%80");
    for (value, read) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
        ("Euro%20%e2%82%ac", Some("Euro €")),
        ("%41%42", Some("AB")),
        ("%2541", Some("%41")),
        ("\"a b\"", Some("a b")),
        ("\"a \\\"b\\\" \\\\\"", Some("a \"b\" \\")),
        ("a b", Some("a b")),
        ("%C0%A0", None),
        ("%E2%82", None),
        ("%zz", None),
        ("%2", None),
        ("\"open", None),
        ("\"a\"b", None),
        ("%0A", None),
        ("", None),
    ] {
        let event = one(&binary(&[("ce-subject", value)]), "").ok();
        assert_eq!(event.as_ref().and_then(CloudEvent::subject), read, "{value}");
    }
    assert!(one(&binary(&[("ce-subject", "raw é")]), "").is_err(), "raw bytes beyond ASCII");
}

#[test]
fn broken_messages_are_refused() {
    for (more, why) in [
        (("ce-datacontenttype", "text/plain"), "the content type has a header of its own"),
        (("ce-data", "x"), "no attribute is called data"),
        (("ce-bad_name", "x"), "an underscore"),
        (("ce-id", "again"), "twice"),
        (("content-type", "nonsense"), "no media type"),
        (("content-type", "application/cloudevents+avro"), "another format"),
        (("content-type", "application/cloudevents"), "no format"),
        (("content-type", "application/cloudevents+json; charset=latin1"), "another charset"),
    ] {
        assert!(one(&binary(&[more]), "x").is_err(), "{why}");
    }
    for (missing, _) in BINARY {
        let rest: Vec<_> = BINARY.into_iter().filter(|(name, _)| *name != missing).collect();
        assert_eq!(one(&headers(&rest), "").is_ok(), missing == "ce-time", "{missing}");
    }
    assert!(matches!(one(&headers(&[("ce-specversion", "0.3")]), ""), Err(EventsError::Unsupported(_))));
    assert!(!is_event(&headers(&[("content-type", "application/json")])));
}

#[test]
fn limits_hold() {
    let mut limits = Limits::default();
    (limits.body, limits.batch) = (300, 1);
    let big = Bytes::from("x".repeat(301));
    assert!(matches!(read(&binary(&[]), &big, &limits), Err(EventsError::TooLarge { .. })));
    let event = CloudEvent::builder("1", "/s", "t").build().unwrap();
    let (headers, body) = write_batch(&[event.clone(), event]).unwrap();
    assert!(matches!(read(&headers, &body, &limits), Err(EventsError::TooLarge { .. })));
    limits.batch = 2;
    assert_eq!(read(&headers, &body, &limits).unwrap().into_events().len(), 2);
    assert_eq!(headers["content-type"], "application/cloudevents-batch+json");
}

#[test]
fn json_without_a_content_type_names_it_when_it_changes_its_form() {
    let event =
        CloudEvent::from_json(br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1]}"#)
            .unwrap();
    let (headers, body) = write(&event, Mode::Binary).unwrap();
    assert_eq!((headers["content-type"].to_str().unwrap(), &*body), ("application/json", &b"[1]"[..]));
    let back = one(&headers, "[1]").unwrap();
    assert!(back.to_json().unwrap().contains(r#""data":[1]"#), "and needs no base64 on its way back");
    let broken = one(&headers, "[1").unwrap();
    assert!(
        broken.to_json().unwrap().contains("data_base64"),
        "what is not the JSON it claims to be is kept as it is"
    );
}

proptest! {
    #[test]
    fn every_mode_carries_every_event(
        id in "\\PC{1,20}", kind in "\\PC{1,20}", value in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let built = CloudEvent::builder(id, "/s", kind).extension("ext", value)
            .binary("application/octet-stream", bytes).build();
        if let Ok(event) = built {
            for mode in [Mode::Binary, Mode::Structured] {
                let (headers, body) = write(&event, mode).unwrap();
                let back = read(&headers, &body, &Limits::default()).unwrap().into_events();
                prop_assert_eq!(&back[0], &event);
            }
            prop_assert!(matches!(event.data(), Some(Data::Binary(_))));
        }
    }
}
