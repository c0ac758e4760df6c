//! The module in an app.

use runtime_apikey::{API_KEYS, ApiKeyModule, MemoryKeyStore, NewKey};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use serde_json::json;

#[tokio::test]
async fn the_module_provides_keys_as_configured() {
    let config = Config::builder().set("apikey.env", json!("test")).build().unwrap();
    let app = App::new(config).with(ApiKeyModule::with_store(MemoryKeyStore::new())).build().unwrap();
    let keys = app.container().get(API_KEYS).await.unwrap();
    let issued = keys.create(NewKey::default()).await.unwrap();
    assert!(issued.expose().starts_with("rt_test_"));
}

#[test]
fn a_wrong_section_is_refused_with_its_path() {
    let config = Config::builder().set("apikey.env", json!("Not Good")).build().unwrap();
    let error = App::new(config).with(ApiKeyModule::with_store(MemoryKeyStore::new())).build().unwrap_err();
    assert!(error.to_string().contains("apikey.env"), "{error}");
}
