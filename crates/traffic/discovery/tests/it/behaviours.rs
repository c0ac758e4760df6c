//! The behaviours of vyro's service discovery, each kept or deliberately different.
//!
//! Different, and why:
//! - IPv6 addresses are read (there they are dropped in silence), and a port of 99999 is an error that names it (there it is
//!   accepted).
//! - An endpoint given twice is one endpoint; there is one source for each service, not a list that is joined.
//! - A service is followed: sources are watched, and what was known last holds while they are away.

use runtime_discovery::{Endpoint, Fixed, Service};
use runtime_kernel::SystemClock;

async fn known(source: impl runtime_discovery::Source) -> Vec<String> {
    let (mut service, watching) = Service::new("orders", source, SystemClock::shared());
    let watching = tokio::spawn(watching.run());
    let found = service.ready().await.unwrap().iter().map(Endpoint::authority).collect();
    watching.abort();
    found
}

#[tokio::test]
async fn vyro_53_fixed_endpoints_are_there_once_each() {
    let two = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"].map(|text| Endpoint::parse(text).unwrap());
    assert_eq!(known(Fixed(two.to_vec())).await, ["10.0.0.1:80", "10.0.0.2:80"]);
    let six = ["[::1]:8080", "orders.internal:80"].map(|text| Endpoint::parse(text).unwrap());
    assert_eq!(known(Fixed(six.to_vec())).await, ["[::1]:8080", "orders.internal:80"]);
}

#[test]
fn vyro_53_what_is_no_endpoint_is_told() {
    for text in ["10.0.0.1:99999", "10.0.0.1", ":80"] {
        let error = Endpoint::parse(text).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
