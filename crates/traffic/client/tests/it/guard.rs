//! The guard: rules, literal addresses, names, rebinding.

use axum::{Router, routing::get};
use runtime_client::{Client, ClientConfig, ClientError, Guard, Refusal};
use runtime_kernel::{Classify, ErrorKind, Retry, SystemClock};

use super::server::{Script, context, local, serve};

fn check(guard: &Guard, url: &str) -> Result<(), Refusal> {
    guard.check_url(&url.parse().unwrap())
}

#[test]
fn a_literal_address_is_judged_in_any_spelling() {
    let guard = Guard::public_only();
    for (url, passes) in [
        ("http://93.184.216.34/", true),
        ("https://[2606:4700:4700::1111]/", true),
        ("https://example.com/", true),
        ("http://127.0.0.1/", false),
        ("http://127.1/", false),
        ("http://2130706433/", false),
        ("http://0x7f000001/", false),
        ("http://0x7f.1/", false),
        ("http://0177.0.0.1/", false),
        ("http://017700000001/", false),
        ("http://127.0.0.1./", false),
        ("http://%31%32%37.0.0.1/", false),
        ("http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/", false),
        ("http://127\u{3002}0\u{3002}0\u{3002}1/", false),
        ("http://0/", false),
        ("http://[::1]/", false),
        ("http://[::ffff:7f00:1]/", false),
        ("http://[::ffff:127.0.0.1]/", false),
        ("http://[64:ff9b::7f00:1]/", false),
        ("http://169.254.169.254/latest/meta-data/", false),
        ("http://10.0.0.1:8080/", false),
        ("ftp://93.184.216.34/", false),
        ("file:///etc/passwd", false),
    ] {
        assert_eq!(check(&guard, url).is_ok(), passes, "{url}");
    }
}

#[test]
fn the_allow_list_names_networks_addresses_hosts_and_ports() {
    for (entries, url, passes) in [
        (&["10.0.0.0/8"][..], "http://10.1.2.3/", true),
        (&["10.0.0.0/8"], "http://[::ffff:10.1.2.3]/", true),
        (&["10.0.0.0/8"], "http://11.0.0.1:1/", true),
        (&["10.0.0.0/8"], "http://192.168.0.1/", false),
        (&["10.0.0.0/30"], "http://10.0.0.4/", false),
        (&["0.0.0.0/0"], "http://127.0.0.1/", true),
        (&["fd00::/8"], "http://[fd12::1]/", true),
        (&["::/0"], "http://[fe80::1]/", true),
        (&["127.0.0.1"], "http://127.0.0.1:9/", true),
        (&["127.0.0.1"], "http://127.0.0.2:9/", false),
        (&["127.0.0.1:9000"], "http://127.0.0.1:9000/", true),
        (&["127.0.0.1:9000"], "http://127.0.0.1:9001/", false),
        (&["[::1]:9000"], "http://[::1]:9000/", true),
        (&["[::1]:9000"], "http://[::1]/", false),
    ] {
        let guard = Guard::public_only().allow(entries).unwrap();
        assert_eq!(check(&guard, url).is_ok(), passes, "{entries:?} {url}");
    }
    for entry in ["", "10.0.0.0/33", "::/129", "host:port", "ho st", "host:99999", "http://x"] {
        assert!(Guard::public_only().allow([entry]).is_err(), "{entry}");
    }
}

#[test]
fn ports_are_limited_but_for_targets_the_operator_named() {
    let guard = Guard::public_only().ports([443]).allow(["10.0.0.1:8080", "db.internal:81"]).unwrap();
    for (url, passes) in [
        ("https://example.com/", true),
        ("http://example.com/", false),
        ("https://example.com:8443/", false),
        ("http://10.0.0.1:8080/", true),
        ("http://DB.internal.:81/", true),
        ("http://db.internal:82/", false),
    ] {
        assert_eq!(check(&guard, url).is_ok(), passes, "{url}");
    }
}

#[tokio::test]
async fn a_refused_target_is_a_final_error_with_its_own_code() {
    let client = Client::new(ClientConfig::default(), SystemClock::shared()).unwrap();
    let error = client.get("http://127.0.0.1:1/").send(&context()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code(), error.retry()),
        (ErrorKind::Forbidden, "client.target_refused", Retry::Never)
    );
    assert!(error.to_string().contains("loopback"), "{error}");
}

#[tokio::test]
async fn a_name_is_judged_by_what_it_resolves_to() {
    let address = serve(Router::new().route("/", get(|| async { "reached" }))).await;
    let url = format!("http://innocent.test:{}/", address.port());
    for (guard, reached) in [
        (Guard::public_only(), false),
        (Guard::local(), true),
        (Guard::public_only().allow(["127.0.0.0/8"]).unwrap(), true),
        (Guard::public_only().allow([format!("innocent.test:{}", address.port())]).unwrap(), true),
        (Guard::public_only().allow(["innocent.test:1"]).unwrap(), false),
        (Guard::public_only().allow(["other.test"]).unwrap(), false),
    ] {
        let script = Script::new(&[&["127.0.0.1"]]);
        let client = Client::builder(ClientConfig::default(), SystemClock::shared())
            .guard(guard.clone())
            .lookup(script)
            .build()
            .unwrap();
        let result = client.get(&url).send(&context()).await;
        match result {
            Ok(response) => assert!(reached && response.text().await.unwrap() == "reached", "{guard:?}"),
            Err(error) => assert!(
                !reached && matches!(error, ClientError::Refused(Refusal::Address { .. })),
                "{guard:?} {error:?}"
            ),
        }
    }
}

#[tokio::test]
async fn a_name_that_rebinds_to_a_private_address_is_refused_and_resolved_only_once_per_connection() {
    let address = serve(Router::new().route("/", get(|| async { "private" }))).await;
    // TEST-NET stands in for a public address here: it is allowed by name of its network, and answers nobody.
    let script = Script::new(&[&["192.0.2.1"], &["127.0.0.1"]]);
    let mut config = ClientConfig::default();
    config.connect_timeout = std::time::Duration::from_millis(50);
    let guard = Guard::public_only().allow(["192.0.2.0/24"]).unwrap();
    let client =
        Client::builder(config, SystemClock::shared()).guard(guard).lookup(script.clone()).build().unwrap();
    let url = format!("http://rebind.test:{}/", address.port());

    let first = client.get(&url).send(&context()).await.unwrap_err();
    assert!(!matches!(first, ClientError::Refused(_)), "went for the public address: {first:?}");
    assert_eq!(script.asked(), 1, "judged and connected by one and the same answer");

    let second = client.get(&url).send(&context()).await.unwrap_err();
    assert!(matches!(second, ClientError::Refused(Refusal::Address { .. })), "{second:?}");
    assert_eq!(script.asked(), 2);
}

#[tokio::test]
async fn of_several_addresses_only_those_that_pass_are_connected_to() {
    let address = serve(Router::new().route("/", get(|| async { "reached" }))).await;
    let script = Script::new(&[&["10.0.0.1", "169.254.169.254", "127.0.0.1"]]);
    let client = Client::builder(ClientConfig::default(), SystemClock::shared())
        .guard(Guard::local())
        .lookup(script)
        .build()
        .unwrap();
    let url = format!("http://mixed.test:{}/", address.port());
    assert_eq!(client.get(&url).send(&context()).await.unwrap().text().await.unwrap(), "reached");
}

#[tokio::test]
async fn a_guard_by_configuration_works_like_one_by_code() {
    let address = serve(Router::new().route("/", get(|| async { "reached" }))).await;
    let mut config = ClientConfig::default();
    config.allow_private = vec![address.to_string()];
    let client = Client::new(config, SystemClock::shared()).unwrap();
    assert!(client.get(&format!("http://{address}/")).send(&context()).await.is_ok());
    let other = serve(Router::new()).await;
    assert!(client.get(&format!("http://{other}/")).send(&context()).await.is_err());
}

#[tokio::test]
async fn local_clients_reach_this_machine_but_not_the_private_network() {
    let error = local().get("http://10.0.0.1/").send(&context()).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)));
}
