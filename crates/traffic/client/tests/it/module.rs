//! The section `client`.

use runtime_client::ClientConfig;
use runtime_kernel::config::Config;
use serde_json::json;

#[test]
fn the_section_is_read_and_checked() {
    let config = Config::builder()
        .set("client.timeout", json!("3s"))
        .set("client.allow_private", json!(["10.0.0.0/8"]))
        .build()
        .unwrap();
    let section = config.section::<ClientConfig>().unwrap();
    assert_eq!((section.timeout.as_secs(), section.allow_private.len()), (3, 1));
    let config = Config::builder().set("client.allow_private", json!(["10.0.0.0/80"])).build().unwrap();
    let error = config.section::<ClientConfig>().unwrap_err().to_string();
    assert!(error.contains("client.allow_private") && error.contains("10.0.0.0/80"), "{error}");
}
