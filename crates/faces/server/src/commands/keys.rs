//! `runtime keys …`

use runtime_apikey::{API_KEYS, ApiKey, KeyFilter, KeyState, NewKey};
use runtime_kernel::config::Config;
use runtime_kernel::{Clock, Error, ErrorKind, Name, Reach, SystemClock};

use runtime_tenancy::TenancyConfig;

use super::{Done, Failure, container, operator};
use crate::api::{Issued, KeyView, expiry};
use crate::cli::KeysAction;
use crate::output::{BOLD, DIM, Output, RESET, table};
use crate::record;

/// Works on the keys in the database.
pub(super) async fn run(config: Config, action: KeysAction, output: Output) -> Done {
    let tenancy: TenancyConfig = config.section()?;
    let container = container(config).await?;
    let done = act(&container, &tenancy.default_realm, action, output).await;
    container.dispose().await;
    done.map(|()| 0)
}

async fn act(
    container: &runtime_kernel::container::Container,
    realm: &Name,
    action: KeysAction,
    output: Output,
) -> Result<(), Failure> {
    let keys = container.get(API_KEYS).await?;
    let shown = |issued: &Issued| {
        format!("{BOLD}{}{RESET}\n{DIM}id {}, shown this once{RESET}", issued.secret, issued.record.id)
    };
    match action {
        KeysAction::Create { name, scopes, tenant, expires_in } => {
            let mut key = NewKey::new(name, scopes);
            key.created_by = Some("cli".to_owned());
            key.expires_at = expires_in.map(expiry).transpose()?;
            match tenant {
                Some(tenant) => {
                    key.realm = Some(realm.clone());
                    key.tenant = Some(tenant);
                }
                None => key.reach = Reach::Everywhere,
            }
            let issued = keys.create(key).await.map_err(Error::from)?;
            record::key(container, &operator(), "keys.created", issued.key.id).await?;
            output.print(&Issued::from(&issued), shown);
        }
        KeysAction::Rotate { id, overlap } => {
            let issued = keys.rotate(parse(&id)?, overlap).await.map_err(Error::from)?;
            record::key(container, &operator(), "keys.rotated", issued.key.id).await?;
            output.print(&Issued::from(&issued), shown);
        }
        KeysAction::Revoke { id, reason } => {
            let key = keys.revoke(parse(&id)?, &reason).await.map_err(Error::from)?;
            record::key(container, &operator(), "keys.revoked", key.id).await?;
            output.print(&KeyView::from(&key), |key| format!("revoked {}", key.id));
        }
        KeysAction::List { all } => {
            let now = SystemClock.utc();
            let mut found: Vec<KeyView> = Vec::new();
            let mut filter = KeyFilter::default();
            filter.revoked = all;
            loop {
                let page = keys.list(&filter).await.map_err(Error::from)?;
                let shown =
                    |key: &&_| all || matches!(ApiKey::state(key, now), KeyState::Active | KeyState::Pending);
                found.extend(page.iter().filter(shown).map(KeyView::from));
                filter.after = page.last().map(|key| key.id);
                if page.len() < filter.limit() as usize {
                    break;
                }
            }
            output.print(&found, |found| {
                let row = |key: &KeyView| {
                    let tenant = key.tenant.clone().unwrap_or_else(|| "-".to_owned());
                    vec![
                        key.id.clone(),
                        key.key.clone(),
                        key.state.clone(),
                        tenant,
                        key.scopes.join(" "),
                        key.description.clone(),
                    ]
                };
                table(
                    &["id", "key", "state", "tenant", "scopes", "for"],
                    &found.iter().map(row).collect::<Vec<_>>(),
                )
            });
        }
    }
    Ok(())
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| {
        Error::new(ErrorKind::Invalid, "apikey.invalid_id", format!("`{text}` is not a key's id"))
    })
}
