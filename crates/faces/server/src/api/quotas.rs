//! `/v1/quotas`: where the caller's tenant stands.

use runtime_http::axum::extract::State;
use runtime_http::{Ctx, HttpApp, Json, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind};
use runtime_limits::QUOTAS;
use schemars::JsonSchema;
use serde::Serialize;

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/quotas", list)
            .summary("Says how much of each quota the caller's tenant has taken.")
            .tag("quotas")
            .scope("quotas:read")
            .answers::<QuotaList>(200, "Where it stands.")
            .problems(&[400]),
    );
}

/// The quotas.
#[derive(Debug, Serialize, JsonSchema)]
struct QuotaList {
    /// By name.
    quotas: Vec<QuotaView>,
}

/// A quota.
#[derive(Debug, Serialize, JsonSchema)]
struct QuotaView {
    /// Its name.
    name: String,
    /// How much is taken.
    used: u64,
    /// How much may be.
    limit: u64,
    /// When it begins anew; missing for one that stands until it is given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<String>,
}

async fn list(State(container): State<Container>, Ctx(context): Ctx) -> Result<Json<QuotaList>> {
    let tenant = context.tenant.as_ref().ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            "quota.no_tenant",
            "quotas belong to a tenant, and the request names none",
        )
    })?;
    let all = container.get(QUOTAS).await?;
    let mut quotas = Vec::new();
    for name in all.names() {
        let usage = all.usage(tenant, name).await?;
        quotas.push(QuotaView {
            name: name.to_owned(),
            used: usage.used,
            limit: usage.limit,
            resets_at: usage.resets_at.map(|at| at.to_string()),
        });
    }
    Ok(Json(QuotaList { quotas }))
}
