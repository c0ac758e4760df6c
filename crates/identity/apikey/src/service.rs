//! Makes, lists, rotates and revokes keys.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::{StdRng, SysRng};
use rand::{CryptoRng, Rng, SeedableRng};
use runtime_kernel::{Reach, SharedClock, Timestamp};
use zeroize::Zeroizing;

use crate::authenticator::Authenticator;
use crate::config::ApiKeyConfig;
use crate::error::KeyError;
use crate::events::{Hook, Hooks, KeyEvent};
use crate::format::{is_env, render};
use crate::hash::Hasher;
use crate::key::{ApiKey, IssuedKey, KeyId, NewKey};
use crate::store::{KeyFilter, KeyStore, Rotation, StoredKey};

/// Makes, lists, rotates and revokes keys. Clones share everything.
///
/// It asks nobody whether the caller may: that is decided before, by scope.
#[derive(Clone)]
pub struct ApiKeys {
    store: Arc<dyn KeyStore>,
    clock: SharedClock,
    hasher: Hasher,
    env: Option<String>,
    rng: Arc<Mutex<dyn CryptoRng + Send>>,
    hooks: Hooks,
    authenticator: Authenticator,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("store", &self.store).field("env", &self.env).finish_non_exhaustive()
    }
}

/// Puts [`ApiKeys`] together.
pub struct ApiKeysBuilder {
    store: Arc<dyn KeyStore>,
    clock: SharedClock,
    config: ApiKeyConfig,
    rng: Option<Arc<Mutex<dyn CryptoRng + Send>>>,
    hooks: Hooks,
}

impl fmt::Debug for ApiKeysBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeysBuilder")
            .field("store", &self.store)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ApiKeysBuilder {
    /// Calls `hook` after each key is made, rotated, revoked or refused.
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(&KeyEvent) + Send + Sync + 'static) -> Self {
        let hook: Hook = Arc::new(hook);
        self.hooks.add(hook);
        self
    }

    /// Takes secrets from this source instead of one seeded by the operating system. For tests.
    #[must_use]
    pub fn rng(mut self, rng: impl CryptoRng + Send + 'static) -> Self {
        self.rng = Some(Arc::new(Mutex::new(rng)));
        self
    }

    /// Checks the configuration and builds.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] names the wrong key of the configuration; [`KeyError::Entropy`] when the operating
    /// system gives no randomness.
    pub fn build(self) -> Result<ApiKeys, KeyError> {
        self.config.check()?;
        let rng = match self.rng {
            Some(rng) => rng,
            None => Arc::new(Mutex::new(StdRng::try_from_rng(&mut SysRng).map_err(|_| KeyError::Entropy)?)),
        };
        let hasher = Hasher::new(self.config.pepper.clone());
        let authenticator = Authenticator::new(
            Arc::clone(&self.store),
            Arc::clone(&self.clock),
            &self.config,
            hasher.clone(),
            self.hooks.clone(),
        );
        let (store, clock, env, hooks) = (self.store, self.clock, self.config.env, self.hooks);
        Ok(ApiKeys { store, clock, hasher, env, rng, hooks, authenticator })
    }
}

impl ApiKeys {
    /// Keys that rest in a store.
    pub fn builder(store: Arc<dyn KeyStore>, clock: SharedClock, config: ApiKeyConfig) -> ApiKeysBuilder {
        ApiKeysBuilder { store, clock, config, rng: None, hooks: Hooks::default() }
    }

    /// What proves the keys made here.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// Makes a key. Its plain text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] for what cannot be a key, [`KeyError::Store`] when it could not be written.
    pub async fn create(&self, new: NewKey) -> Result<IssuedKey, KeyError> {
        let (stored, issued) = self.make(new)?;
        self.store.insert(&stored).await?;
        self.hooks.tell(|| KeyEvent::Issued(stored.key));
        Ok(issued)
    }

    /// Makes the first key, allowed everything everywhere, if there is no key at all; `None` when there is one. Of
    /// processes that start at once exactly one gets it.
    ///
    /// # Errors
    /// [`KeyError::Store`].
    pub async fn ensure_admin(&self) -> Result<Option<IssuedKey>, KeyError> {
        let new = NewKey {
            created_by: Some("first start".to_owned()),
            reach: Reach::Everywhere,
            ..NewKey::new("first administrator", ["*"])
        };
        let (stored, issued) = self.make(new)?;
        if !self.store.insert_first(&stored).await? {
            return Ok(None);
        }
        self.hooks.tell(|| KeyEvent::Issued(stored.key));
        Ok(Some(issued))
    }

    /// Lists keys in the order they were made. No secret is ever in it.
    ///
    /// # Errors
    /// [`KeyError::Store`].
    pub async fn list(&self, filter: &KeyFilter) -> Result<Vec<ApiKey>, KeyError> {
        self.store.list(filter).await
    }

    /// Reads one key.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], [`KeyError::Store`].
    pub async fn get(&self, id: KeyId) -> Result<ApiKey, KeyError> {
        self.store.find(id).await?.map(|stored| stored.key).ok_or(KeyError::NotFound(id))
    }

    /// Gives a key a new secret. The old one goes on holding for `overlap`, so that its users can change over; a
    /// still older one ends now. Zero ends the old one at once.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], [`KeyError::Revoked`], [`KeyError::Invalid`] for an overlap of more than 90 days, or
    /// [`KeyError::Raced`] when another process rotated it at the same moment.
    pub async fn rotate(&self, id: KeyId, overlap: Duration) -> Result<IssuedKey, KeyError> {
        if overlap > Duration::from_hours(90 * 24) {
            return Err(KeyError::Invalid { key: "overlap", message: "must not be more than 90 days" });
        }
        let stored = self.store.find(id).await?.ok_or(KeyError::NotFound(id))?;
        let (text, secret, hint) = render(stored.key.env.as_deref(), id, &self.entropy());
        let at = self.clock.utc();
        let rotation = Rotation {
            hash: self.hasher.hash(&secret),
            hint,
            at,
            overlap_until: (!overlap.is_zero()).then(|| at.saturating_add(overlap)),
            generation: stored.generation,
        };
        let key = self.store.rotate(id, &rotation).await?;
        self.authenticator.forget(id);
        self.hooks.tell(|| KeyEvent::Rotated(key.clone()));
        Ok(IssuedKey::new(key, text))
    }

    /// Takes a key back, for good and with every secret it has. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], [`KeyError::Invalid`] for a reason of more than 200 characters.
    pub async fn revoke(&self, id: KeyId, reason: &str) -> Result<ApiKey, KeyError> {
        check_text("reason", reason)?;
        let key = self.store.revoke(id, self.clock.utc(), reason).await?;
        self.authenticator.forget(id);
        self.hooks.tell(|| KeyEvent::Revoked(key.clone()));
        Ok(key)
    }

    fn entropy(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut *bytes);
        bytes
    }

    fn make(&self, new: NewKey) -> Result<(StoredKey, IssuedKey), KeyError> {
        let now = self.clock.utc();
        check(&new, now)?;
        let id = KeyId::new(&*self.clock);
        let env = new.env.or_else(|| self.env.clone());
        let (text, secret, hint) = render(env.as_deref(), id, &self.entropy());
        let key = ApiKey {
            id,
            description: new.description,
            env,
            hint,
            scopes: new.scopes,
            realm: new.realm,
            tenant: new.tenant,
            org: new.org,
            reach: new.reach,
            limits: new.limits,
            created_at: now,
            created_by: new.created_by,
            not_before: new.not_before,
            expires_at: new.expires_at,
            last_used_at: None,
            rotated_at: None,
            overlap_until: None,
            revoked_at: None,
            revoke_reason: None,
        };
        let stored =
            StoredKey { key: key.clone(), hash: self.hasher.hash(&secret), previous: None, generation: 0 };
        Ok((stored, IssuedKey::new(key, text)))
    }
}

fn check(new: &NewKey, now: Timestamp) -> Result<(), KeyError> {
    let wrong = |key, message| Err(KeyError::Invalid { key, message });
    check_text("description", &new.description)?;
    check_text("created_by", new.created_by.as_deref().unwrap_or_default())?;
    if new.env.as_deref().is_some_and(|env| !is_env(env)) {
        return wrong("env", "must be a letter, then up to 15 letters or digits, lower case");
    }
    let fits = |scope: &Arc<str>| {
        (1..=128).contains(&scope.len()) && scope.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if new.scopes.len() > 64 || !new.scopes.iter().all(fits) {
        return wrong("scopes", "must be at most 64, each of 1 to 128 visible ASCII characters");
    }
    if new.tenant.is_some() && new.realm.is_none() {
        return wrong("tenant", "needs a realm");
    }
    if new.org.is_some() && new.tenant.is_none() {
        return wrong("org", "needs a tenant");
    }
    if matches!(&new.reach, Reach::Tenants(tenants) if tenants.len() > 256) {
        return wrong("reach", "must not name more than 256 tenants");
    }
    if matches!(new.reach, Reach::Tenants(_) | Reach::Realm) && new.realm.is_none() {
        return wrong("reach", "needs a realm unless it is `everywhere`");
    }
    if new.limits.is_some_and(|limits| limits.requests == 0 || limits.per.is_zero()) {
        return wrong("limits", "must be at least one request in more than no time");
    }
    if new.expires_at.is_some_and(|end| end <= now || new.not_before.is_some_and(|start| end <= start)) {
        return wrong("expires_at", "must be in the future and after `not_before`");
    }
    Ok(())
}

fn check_text(key: &'static str, text: &str) -> Result<(), KeyError> {
    if text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err(KeyError::Invalid {
            key,
            message: "must have at most 200 characters, none of them control characters",
        });
    }
    Ok(())
}
