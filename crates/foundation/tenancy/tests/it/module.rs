use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_tenancy::{RESOLVER, TenancyModule};

fn config(vars: &[(&str, &str)]) -> Config {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::builder().prefix("RUNTIME").env(vars).build().unwrap()
}

#[tokio::test]
async fn production_is_strict_unless_told_otherwise() {
    for (vars, strict) in [
        (&[][..], false),
        (&[("RUNTIME__ENV", "production")], true),
        (&[("RUNTIME__ENV", "production"), ("RUNTIME__TENANCY__STRICT", "false")], false),
        (&[("RUNTIME__TENANCY__STRICT", "true")], true),
    ] {
        let app = App::new(config(vars)).with(TenancyModule).build().unwrap();
        assert_eq!(app.container().get(RESOLVER).await.unwrap().is_strict(), strict, "{vars:?}");
    }
}

#[test]
fn a_default_tenant_that_does_not_exist_ends_the_process_with_21() {
    let refused =
        App::new(config(&[("RUNTIME__TENANCY__DEFAULT_TENANT", "nowhere")])).with(TenancyModule).build();
    assert_eq!(refused.err().unwrap().exit_code(), 21);
}
