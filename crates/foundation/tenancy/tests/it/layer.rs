use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, StatusCode};
use runtime_http::axum::body::Body;
use runtime_http::axum::response::Response;
use runtime_kernel::{Context, Principal, Reach, Source, SystemClock};
use runtime_tenancy::{Resolved, TenantLayer};
use tower::{ServiceBuilder, ServiceExt};

use super::support::{principal, resolver};

/// Answers 200 with the tenant it was given.
async fn handler(request: Request<Body>) -> Result<Response, Infallible> {
    let tenant = request.extensions().get::<Context>().and_then(|context| context.tenant.clone());
    assert_eq!(tenant.as_deref(), request.extensions().get::<Resolved>().map(|resolved| &resolved.context));
    Ok(Response::new(Body::from(tenant.map_or("none".to_owned(), |tenant| tenant.namespace()))))
}

async fn ask(who: Option<Principal>, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let mut context = Context::new(Source::Http, &SystemClock);
    context.principal = who.map(Arc::new);
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    request.extensions_mut().insert(context);
    let layer = TenantLayer::new(resolver(false, true, None, None)).except(["/login"]);
    let service = ServiceBuilder::new().layer(layer).service_fn(handler);
    let response = service.oneshot(request).await.unwrap();
    let status = response.status();
    let body = runtime_http::axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_get_their_tenant_or_a_refusal() {
    let acme = || Some(principal("-/acme", Reach::Claimed));
    let nobody = || Some(principal("-/-", Reach::Claimed));
    let (ok, bad, forbidden) = (StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN);
    let cases = [
        (acme(), "/v1/jobs", vec![], ok, "main/acme"),
        (acme(), "/v1/jobs", vec![("x-tenant", "acme")], ok, "main/acme"),
        (acme(), "/v1/jobs", vec![("x-tenant", "globex")], forbidden, ""),
        (acme(), "/v1/jobs", vec![("x-tenant", "nowhere")], forbidden, ""),
        (acme(), "/v1/jobs", vec![("x-tenant", "")], bad, ""),
        (acme(), "/v1/jobs", vec![("x-tenant", "acme"), ("x-tenant", "globex")], bad, ""),
        (acme(), "/v1/jobs", vec![("x-org", "berlin")], ok, "main/acme"),
        (nobody(), "/v1/jobs", vec![], bad, ""),
        (nobody(), "/readyz", vec![("x-tenant", "globex")], ok, "none"),
        (nobody(), "/login", vec![], ok, "none"),
        (None, "/v1/jobs", vec![("x-tenant", "globex")], ok, "none"),
    ];
    for (who, path, headers, status, body) in cases {
        let asked = format!("{path} {headers:?}");
        let found = ask(who, path, &headers).await;
        assert_eq!(found.0, status, "{asked}");
        if status == ok {
            assert_eq!(found.1, body, "{asked}");
        }
    }
}
