//! `/v1/keys`: create, list, rotate, revoke.

use http::StatusCode;
use runtime_apikey::{API_KEYS, ApiKey, IssuedKey, KeyFilter, KeyId, NewKey};
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{
    Clock, Context, Error, ErrorKind, Name, Reach, SystemClock, TenantContext, Timestamp, units,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{Id, Line, Overlap, Scope, Span};
use crate::record;

const TAG: &str = "keys";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::post("/v1/keys", create)
            .summary("Creates an API key and shows it, once.")
            .tag(TAG)
            .scope("keys:write")
            .takes::<Create>()
            .answers::<Issued>(201, "The key. Its secret cannot be shown again."),
    );
    app.route(
        Route::get("/v1/keys", list)
            .summary("Lists API keys; never their secrets.")
            .tag(TAG)
            .scope("keys:read")
            .query::<ListQuery>()
            .answers::<KeyList>(200, "A page of keys."),
    );
    app.route(
        Route::post("/v1/keys/{id}/rotate", rotate)
            .summary("Replaces a key's secret; the old one holds for the overlap.")
            .tag(TAG)
            .scope("keys:write")
            .path::<ById>()
            .takes::<Rotate>()
            .answers::<Issued>(200, "The key with its new secret.")
            .problems(&[404, 409]),
    );
    app.route(
        Route::delete("/v1/keys/{id}", revoke)
            .summary("Revokes a key.")
            .tag(TAG)
            .scope("keys:write")
            .path::<ById>()
            .answers::<KeyView>(200, "The key, revoked.")
            .problems(&[404]),
    );
}

/// Which key.
#[derive(Debug, Deserialize, JsonSchema)]
struct ById {
    /// The key's id.
    #[schemars(with = "Id")]
    id: KeyId,
}

/// A key as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct KeyView {
    /// Its id.
    pub(crate) id: String,
    /// What it is for.
    pub(crate) description: String,
    /// The key with all but its last characters hidden.
    pub(crate) key: String,
    /// What it may do.
    pub(crate) scopes: Vec<String>,
    /// The realm it belongs to.
    pub(crate) realm: Option<String>,
    /// The tenant it belongs to.
    pub(crate) tenant: Option<String>,
    /// active, pending, expired or revoked.
    pub(crate) state: String,
    /// When it was made.
    pub(crate) created_at: String,
    /// From when on it does not hold.
    pub(crate) expires_at: Option<String>,
    /// When it was last used.
    pub(crate) last_used_at: Option<String>,
}

impl From<&ApiKey> for KeyView {
    fn from(key: &ApiKey) -> Self {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        Self {
            id: key.id.to_string(),
            description: key.description.clone(),
            key: key.to_string(),
            scopes: key.scopes.iter().map(ToString::to_string).collect(),
            realm: key.realm.as_ref().map(ToString::to_string),
            tenant: key.tenant.as_ref().map(ToString::to_string),
            state: key.state(SystemClock.utc()).as_str().to_owned(),
            created_at: key.created_at.to_string(),
            expires_at: time(key.expires_at),
            last_used_at: time(key.last_used_at),
        }
    }
}

/// A key just made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Issued {
    /// The key's record.
    pub(crate) record: KeyView,
    /// The key itself: shown this once.
    pub(crate) secret: String,
}

impl From<&IssuedKey> for Issued {
    fn from(issued: &IssuedKey) -> Self {
        Self { record: KeyView::from(&issued.key), secret: issued.expose().to_owned() }
    }
}

/// A key to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// What it is for.
    #[schemars(with = "Line")]
    description: String,
    /// What it may do, for example `jobs:write`. No more than its maker may.
    #[schemars(with = "Vec<Scope>", length(max = 64))]
    scopes: Vec<String>,
    /// How long it holds, for example `90d`; for ever unless told.
    #[serde(default, with = "units::duration_option")]
    #[schemars(with = "Option<Span>")]
    expires_in: Option<std::time::Duration>,
}

async fn create(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(body): Json<Create>,
) -> Result<Response> {
    let maker = maker(&context)?;
    if let Some(scope) = body.scopes.iter().find(|scope| !maker.allows(scope)) {
        let message = format!("a key cannot give the scope `{scope}`, which its maker does not have");
        return Err(Error::new(ErrorKind::Forbidden, "auth.scope_missing", message).into());
    }
    let mut key = NewKey::new(body.description, body.scopes);
    if let Some(place) = place(&context) {
        // Made within a tenant, a key opens that tenant and nothing more, whoever makes it.
        (key.realm, key.tenant, key.org) =
            (Some(place.realm.clone()), place.tenant.clone(), place.org.clone());
    } else {
        (key.realm, key.tenant, key.org) = (maker.realm.clone(), maker.tenant.clone(), maker.org.clone());
        key.reach = maker.reach.clone();
    }
    key.created_by = Some(maker.id.to_string());
    key.expires_at = body.expires_in.map(expiry).transpose()?;
    let keys = container.get(API_KEYS).await?;
    let issued = keys.create(key).await?;
    if let Err(error) = record::key(&container, &context, "keys.created", issued.key.id).await {
        keys.revoke(issued.key.id, "its making could not be put on record").await?;
        return Err(error.into());
    }
    Ok(Json(Issued::from(&issued)).status(StatusCode::CREATED))
}

/// When a key made now for so long ends.
pub(crate) fn expiry(term: std::time::Duration) -> Result<Timestamp, Error> {
    let too_far = |_| {
        Error::new(
            ErrorKind::Invalid,
            "apikey.invalid_request",
            "the key would expire later than time is counted",
        )
        .with_detail("/expires_in", "is too long")
    };
    SystemClock.utc().checked_add(term).map_err(too_far)
}

/// The tenant the request is in, if it is in one.
fn place(context: &Context) -> Option<&TenantContext> {
    context.tenant.as_deref().filter(|place| place.tenant.is_some())
}

fn maker(context: &Context) -> Result<&runtime_kernel::Principal, Error> {
    let missing = || Error::new(ErrorKind::Unauthenticated, "auth.required", "credentials are needed here");
    context.principal.as_deref().ok_or_else(missing)
}

/// Which keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Revoked ones too.
    #[serde(default)]
    revoked: bool,
    /// Only those made after this one: the `next` of the page before.
    #[schemars(with = "Option<Id>")]
    after: Option<KeyId>,
    /// At most so many; 100 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// A page of keys.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyList {
    /// In the order they were made.
    keys: Vec<KeyView>,
    /// What to ask for as `after` to get the next page.
    next: Option<String>,
}

async fn list(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(query): Query<ListQuery>,
) -> Result<Json<KeyList>> {
    if query.limit.is_some_and(|limit| !(1..=1000).contains(&limit)) {
        let error = Error::new(ErrorKind::Invalid, "http.invalid_query", "`limit` must be 1 to 1000");
        return Err(error.with_detail("limit", "must be 1 to 1000").into());
    }
    let mut filter = within(&context)?;
    (filter.revoked, filter.after, filter.limit) = (query.revoked, query.after, query.limit);
    let keys = container.get(API_KEYS).await?.list(&filter).await?;
    let whole = keys.len() == filter.limit() as usize;
    let next = keys.last().filter(|_| whole).map(|key| key.id.to_string());
    Ok(Json(KeyList { keys: keys.iter().map(KeyView::from).collect(), next }))
}

/// The keys a request may see: those of the tenant it is in; outside one, all for a principal that may go everywhere
/// and its own realm's and tenant's for any other.
fn within(context: &Context) -> Result<KeyFilter, Error> {
    let maker = maker(context)?;
    let mut filter = KeyFilter::default();
    match place(context) {
        Some(place) => (filter.realm, filter.tenant) = (Some(place.realm.clone()), place.tenant.clone()),
        None if maker.reach == Reach::Everywhere => {}
        None => (filter.realm, filter.tenant) = (maker.realm.clone(), maker.tenant.clone()),
    }
    Ok(filter)
}

/// A key the principal may change; one of another tenant is as good as not there.
async fn visible(container: &Container, context: &Context, id: KeyId) -> Result<(), Error> {
    let key = container.get(API_KEYS).await?.get(id).await?;
    let filter = within(context)?;
    let same = |wanted: &Option<Name>, has: &Option<Name>| wanted.is_none() || wanted == has;
    if same(&filter.realm, &key.realm) && same(&filter.tenant, &key.tenant) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, "apikey.not_found", "there is no such key"))
}

/// How to replace it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// How long the old secret holds beside the new one, for example `24h`.
    #[serde(with = "units::duration")]
    #[schemars(with = "Overlap")]
    overlap: std::time::Duration,
}

async fn rotate(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
    Json(body): Json<Rotate>,
) -> Result<Json<Issued>> {
    visible(&container, &context, id).await?;
    let issued = container.get(API_KEYS).await?.rotate(id, body.overlap).await?;
    record::key(&container, &context, "keys.rotated", id).await?;
    Ok(Json(Issued::from(&issued)))
}

async fn revoke(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Json<KeyView>> {
    visible(&container, &context, id).await?;
    let key = container.get(API_KEYS).await?.revoke(id, "revoked over the API").await?;
    record::key(&container, &context, "keys.revoked", id).await?;
    Ok(Json(KeyView::from(&key)))
}
