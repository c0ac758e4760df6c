//! The JSON format against the public schema's rules and the specification's examples.

use proptest::prelude::*;
use runtime_events::{AttributeValue, CloudEvent, Data, EventsError};
use runtime_kernel::{Classify, Context, ErrorKind, ManualClock, Source, SystemClock};
use serde_json::{Value, json};

fn valid() -> Value {
    json!({ "specversion": "1.0", "id": "A234-1234-1234", "source": "/mycontext", "type": "com.example.someevent" })
}

/// The smallest valid event with one member set.
fn with(name: &str, value: Value) -> Value {
    let mut event = valid();
    event[name] = value;
    event
}

fn read(event: &Value) -> Result<CloudEvent, EventsError> {
    CloudEvent::from_json(event.to_string().as_bytes())
}

/// `properties` and `definitions` of cloudevents/spec `cloudevents/formats/cloudevents.json`: for each member which
/// values the schema admits (with `format` asserted) and which it does not.
#[test]
fn every_rule_of_the_public_schema_holds() {
    let text = [
        ("id", "A234-1234-1234"),
        ("type", "com.github.pull_request.opened"),
        ("type", "com.example.object.deleted.v2"),
    ];
    for (name, value) in text {
        assert!(read(&with(name, json!(value))).is_ok(), "{name} {value}");
    }
    for required in ["id", "source", "specversion", "type"] {
        let mut event = valid();
        event.as_object_mut().unwrap().remove(required);
        assert_refused(&event, required);
        for value in [json!(""), json!(null), json!(1), json!(true), json!([]), json!({})] {
            assert_refused(&with(required, value), required);
        }
    }
    for source in [
        "https://github.com/cloudevents",
        "mailto:cncf-wg-serverless@lists.cncf.io",
        "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "cloudevents/spec/pull/123",
        "/sensors/tn-1234567/alerts",
        "1-555-123-4567",
    ] {
        assert!(read(&with("source", json!(source))).is_ok(), "{source}");
    }
    for source in ["two words", "a\\b", "%zz", "1a:b", "http://[x]/a b", "/é", "a#b#c", "<x>"] {
        assert_refused(&with("source", json!(source)), "source");
    }
    for kind in
        ["text/xml", "application/json", "image/png", "multipart/form-data", "a/b; c=d; e=\"f;\\\"g\""]
    {
        let event = with("datacontenttype", json!(kind));
        assert_eq!(read(&event).unwrap().data_content_type(), Some(kind));
    }
    for kind in ["", "text", "text/", "/xml", "a/b;", "a/b; c", "a/b; c=\"d", "a/b c", "a/b; =d"] {
        assert_refused(&with("datacontenttype", json!(kind)), "datacontenttype");
    }
    for (schema, ok) in
        [("https://example.com/s#v1", true), ("urn:x:y", true), ("/relative", false), ("", false)]
    {
        assert_eq!(read(&with("dataschema", json!(schema))).is_ok(), ok, "{schema}");
    }
    for (time, ok) in [
        ("2018-04-05T17:31:00Z", true),
        ("2018-04-05t17:31:00z", true),
        ("2018-04-05T17:31:00.123456+02:00", true),
        ("2018-04-05T17:31:00", false),
        ("2018-04-05 17:31:00Z", false),
        ("2018-04-05T17:31Z", false),
        ("2018-04-05", false),
        ("2018-13-05T17:31:00Z", false),
        ("2018-04-05T17:31:00.Z", false),
        ("2018-04-05T17:31:00Z[UTC]", false),
        ("now", false),
        ("", false),
    ] {
        assert_eq!(read(&with("time", json!(time))).is_ok(), ok, "{time}");
    }
    for optional in ["datacontenttype", "dataschema", "subject", "time", "data_base64"] {
        assert_eq!(
            read(&with(optional, json!(null))).unwrap(),
            read(&valid()).unwrap(),
            "{optional}: null is unset"
        );
        assert_refused(&with(optional, json!(7)), optional);
    }
    assert_refused(&with("subject", json!("")), "subject");
    for data in [json!({"a": 1}), json!("text"), json!(1.5), json!([1]), json!(true), json!(null)] {
        assert_eq!(read(&with("data", data.clone())).unwrap().data(), Some(&Data::Json(data)));
    }
    assert!(read(&with("data_base64", json!("Zm9vYg=="))).is_ok());
    assert_refused(&with("data_base64", json!("not base64!")), "data_base64");
    assert!(read(&json!([])).is_err() && read(&json!("x")).is_err());
}

fn assert_refused(event: &Value, names: &str) {
    let error = read(event).expect_err(&event.to_string());
    let told = error.to_string().contains(names) || matches!(error, EventsError::Unsupported(_));
    assert!(told, "{event} was refused by: {error}");
}

#[test]
fn names_and_values_of_extensions_keep_to_the_type_system() {
    for (name, ok) in [
        ("a", true),
        ("abc123", true),
        ("9x", true),
        ("A", false),
        ("a_b", false),
        ("a-b", false),
        ("", false),
        ("é", false),
        (&"x".repeat(65), false),
    ] {
        assert_eq!(read(&with(name, json!("v"))).is_ok(), ok, "{name}");
    }
    let held =
        |value: Value| read(&with("ext", value)).ok().and_then(|event| event.extension("ext").cloned());
    assert_eq!(held(json!(true)), Some(AttributeValue::Boolean(true)));
    assert_eq!(held(json!(-2_147_483_648_i64)), Some(AttributeValue::Integer(i32::MIN)));
    assert_eq!(held(json!("")), Some(AttributeValue::String(String::new())));
    assert!(read(&with("ext", json!(null))).unwrap().extension("ext").is_none());
    for wrong in [
        json!(2_147_483_648_i64),
        json!(1.5),
        json!([]),
        json!({}),
        json!("a\nb"),
        json!("\u{fdd0}"),
        json!("\u{85}"),
        json!("x".repeat(9000)),
    ] {
        assert!(read(&with("ext", wrong.clone())).is_err(), "{wrong}");
    }
    let many = (0..65).fold(valid(), |mut event, n| {
        event[format!("e{n}")] = json!(1);
        event
    });
    assert_eq!(read(&many).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn a_member_that_appears_twice_is_refused_and_versions_are_told_apart() {
    let twice = br#"{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}"#;
    assert!(matches!(CloudEvent::from_json(twice), Err(EventsError::Malformed(_))));
    for version in ["0.3", "1.1", "2.0"] {
        assert!(matches!(read(&with("specversion", json!(version))), Err(EventsError::Unsupported(_))));
    }
}

/// json-format.md §3.1: what `data` means depends on `datacontenttype`.
#[test]
fn data_is_read_as_its_content_type_says() {
    let read = |kind: Option<&str>, data: Value| {
        let mut event = with("data", data);
        if let Some(kind) = kind {
            event["datacontenttype"] = json!(kind);
        }
        read(&event).ok().and_then(|event| event.data().cloned())
    };
    assert_eq!(
        read(Some("application/xml"), json!("<much wow=\"xml\"/>")),
        Some(Data::Text("<much wow=\"xml\"/>".into()))
    );
    assert_eq!(read(Some("application/xml"), json!({ "a": 1 })), None, "a value is no XML");
    assert_eq!(
        read(Some("application/vnd.x+JSON; v=1"), json!("\"s\"")),
        Some(Data::Json(json!("\"s\""))),
        "not parsed again"
    );
    assert_eq!(read(None, json!(1.5)), Some(Data::Json(json!(1.5))));
    let mut both = with("data", json!(1));
    both["data_base64"] = json!("AA==");
    assert!(CloudEvent::from_json(both.to_string().as_bytes()).is_err());
    let none = with("data_base64", json!("AA=="));
    let event = CloudEvent::from_json(none.to_string().as_bytes()).unwrap();
    assert_eq!(event.data_content_type(), None, "nothing is assumed of bytes");
    assert_eq!(CloudEvent::from_json(event.to_json().unwrap().as_bytes()).unwrap(), event);
}

#[test]
fn a_batch_is_read_whole_or_not_at_all() {
    let batch = json!([valid(), with("subject", json!("s"))]).to_string();
    assert_eq!(CloudEvent::batch_from_json(batch.as_bytes()).unwrap().len(), 2);
    assert!(CloudEvent::batch_from_json(b"[]").unwrap().is_empty());
    let broken = json!([valid(), with("id", json!(""))]).to_string();
    assert!(CloudEvent::batch_from_json(broken.as_bytes()).is_err());
}

#[test]
fn an_event_carries_the_trace_of_its_context() {
    let mut context = Context::new(Source::Http, &SystemClock);
    context.trace = context.trace.sampled(true).with_state("vendor=1");
    let event = CloudEvent::now(&ManualClock::new(), "/s", "t").traced(&context).build().unwrap();
    assert_eq!(event.extension("traceparent").unwrap().to_string(), context.trace.to_traceparent());
    let resumed = event.context(&SystemClock);
    assert_eq!(resumed.trace.trace_id(), context.trace.trace_id());
    assert_ne!(resumed.trace.span_id(), context.trace.span_id());
    assert!(resumed.trace.is_sampled());
    assert_eq!(resumed.trace.state(), Some("vendor=1"));
    assert!(resumed.tenant.is_none() && resumed.principal.is_none());
}

#[test]
fn what_breaks_a_rule_is_not_built() {
    for builder in [
        CloudEvent::builder("", "/s", "t"),
        CloudEvent::builder("1", "", "t"),
        CloudEvent::builder("1", "/s", ""),
        CloudEvent::builder("1", "/s", "t").subject(""),
        CloudEvent::builder("1", "/s", "t").extension("id", "x"),
        CloudEvent::builder("1", "/s", "t").extension("data", "x"),
        CloudEvent::builder("1", "/s", "t").text("application/json", "x"),
        CloudEvent::builder("1", "/s", "t").json_as("text/plain", "x"),
        CloudEvent::builder("1", "/s", "t").data_schema("relative"),
    ] {
        assert!(builder.clone().build().is_err(), "{builder:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        id in "\\PC{1,20}", subject in proptest::option::of("\\PC{1,20}"), name in "[a-z][a-z0-9]{3,19}x",
        text in "\\PC{0,40}", number in any::<i32>(), bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut builder = CloudEvent::builder(id, "/s", "t").extension(name, text).extension("number", number);
        if let Some(subject) = subject {
            builder = builder.subject(subject);
        }
        // Noncharacters are refused; everything else survives.
        if let Ok(event) = builder.binary("application/octet-stream", bytes).build() {
            prop_assert_eq!(CloudEvent::from_json(event.to_json().unwrap().as_bytes()).unwrap(), event);
        }
    }

    #[test]
    fn no_input_panics(text in "\\PC{0,200}") {
        let _ = CloudEvent::from_json(text.as_bytes());
    }
}
