//! How endpoints are written.

use runtime_discovery::Endpoint;

#[test]
fn endpoints_are_read_as_they_are_written_and_nothing_else_is() {
    for (text, authority, weight) in [
        ("10.0.0.1:80", Some("10.0.0.1:80"), 1),
        (" orders.internal:8080 ", Some("orders.internal:8080"), 1),
        ("[2001:db8::1]:443", Some("[2001:db8::1]:443"), 1),
        ("[2001:0db8:0::1]:443;weight=7", Some("[2001:db8::1]:443"), 7),
        ("a:1;zone=eu;weight=1000", Some("a:1"), 1_000),
        ("2001:db8::1:443", Some("[2001:db8::1]:443"), 1),
        ("a", None, 0),
        ("a:0", None, 0),
        ("a:65536", None, 0),
        (":80", None, 0),
        ("[::1", None, 0),
        ("[10.0.0.1]:80", None, 0),
        ("a/b:80", None, 0),
        ("user@a:80", None, 0),
        ("a:80;weight=0", None, 0),
        ("a:80;weight", None, 0),
        ("", None, 0),
    ] {
        match Endpoint::parse(text) {
            Ok(endpoint) => {
                assert_eq!(Some(endpoint.authority().as_str()), authority, "{text}");
                assert_eq!(endpoint.weight, weight, "{text}");
                assert_eq!(Endpoint::parse(&endpoint.to_string()).unwrap(), endpoint, "{text}");
            }
            Err(error) => assert!(authority.is_none() && error.to_string().contains(text), "{error}"),
        }
    }
    let table: Endpoint =
        serde_json::from_str(r#"{"address":"a:1","weight":3,"attributes":{"zone":"eu"}}"#).unwrap();
    assert_eq!(table.to_string(), "a:1;weight=3;zone=eu");
    assert!(serde_json::from_str::<Endpoint>(r#"{"address":"a:1","weight":0}"#).is_err());
}
