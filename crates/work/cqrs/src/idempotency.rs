//! Commands that happen once per key: the port that remembers, and the middleware that asks it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Error, TenantContext};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::call::{Answer, Call, Codec, Middleware, Next};
use crate::error::CqrsError;

/// What an answer is remembered by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The tenant's namespace; empty without one.
    pub tenant: String,
    /// The command's name.
    pub command: String,
    /// What the caller chose.
    pub key: String,
}

/// Where a key stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// It is new, or whoever began it was lost: the caller does the command, under this fence.
    Started(u64),
    /// It is done, and was answered so.
    Done(Value),
    /// It is being done, for so long at most.
    InFlight(Duration),
    /// It was used with another payload.
    Reused,
}

/// Remembers which commands were done and what was answered. Laws are in `laws` (feature `testkit`).
#[async_trait]
pub trait IdempotencyStore: Send + Sync + std::fmt::Debug + 'static {
    /// Takes a key for a payload's fingerprint, for `lease` at first.
    async fn begin(&self, key: &Key, fingerprint: &str, lease: Duration) -> Result<Begun, CqrsError>;
    /// Remembers the answer for `keep`; `false` when the key is no longer held under the fence.
    async fn finish(&self, key: &Key, fence: u64, answer: &Value, keep: Duration) -> Result<bool, CqrsError>;
    /// Gives the key back: the command was not done.
    async fn abandon(&self, key: &Key, fence: u64) -> Result<(), CqrsError>;
    /// Forgets what is past its time; at most so many in one call. Says how many.
    async fn prune(&self, max: u32) -> Result<u64, CqrsError>;
}

/// Middleware: a command with a key is done once, and answered the same ever after, for as long as answers are kept.
///
/// The same key with another payload is [`CqrsError::Reused`]; while the first is being done, [`CqrsError::InFlight`] says
/// when to ask again. A command that failed may be repeated: its failure is not remembered. A command whose process died
/// may be repeated after `lease`; a command that takes longer than that may be done twice, and its first answer is not kept.
#[derive(Clone, Debug)]
pub struct Idempotent {
    store: Arc<dyn IdempotencyStore>,
    lease: Duration,
    keep: Duration,
}

impl Idempotent {
    /// Remembers in a store: held for a minute while done, kept for a day.
    pub fn new(store: Arc<dyn IdempotencyStore>) -> Self {
        Self { store, lease: Duration::from_mins(1), keep: Duration::from_hours(24) }
    }

    /// How long a key is held while its command is done.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long answers are kept.
    #[must_use]
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }
}

#[async_trait]
impl Middleware for Idempotent {
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error> {
        let Some(once) = Once::of(&call)? else { return next.run(call).await };
        // What is done in a transaction is remembered in it.
        if call.again.is_some() {
            return next.run(call).await;
        }
        let (name, key) = (once.name, &once.key);
        let fence = match once.begun(self.store.begin(key, &once.fingerprint, self.lease).await?)? {
            Go::On(fence) => fence,
            Go::Back(answer) => return Ok(answer),
        };
        let answer = match next.run(call).await {
            Ok(answer) => answer,
            Err(error) => {
                if let Err(lost) = self.store.abandon(key, fence).await {
                    // The key frees itself when its lease runs out.
                    tracing::warn!(command = name, error = %Error::from(lost).report(), "a key was not given back");
                }
                return Err(error);
            }
        };
        let written = once.write(&answer)?;
        // Done is done: a caller is not told otherwise because the answer could not be remembered.
        match self.store.finish(key, fence, &written, self.keep).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(
                    command = name,
                    "a command took longer than its lease; its answer is not kept"
                );
            }
            Err(lost) => {
                tracing::error!(command = name, error = %Error::from(lost).report(), "an answer was not kept");
            }
        }
        Ok(answer)
    }
}

/// A command that is to happen once.
#[derive(Clone)]
pub(crate) struct Once {
    pub(crate) key: Key,
    pub(crate) fingerprint: String,
    name: &'static str,
    codec: Codec,
}

/// How a command goes on: it is done under a fence, or it was and this was the answer.
pub(crate) enum Go {
    On(u64),
    Back(Answer),
}

impl Once {
    /// Of a call with a key; `None` without.
    pub(crate) fn of(call: &Call) -> Result<Option<Self>, CqrsError> {
        let (Some(key), Some(codec), name) = (call.key.clone(), call.codec, call.name) else {
            return Ok(None);
        };
        if !(1..=255).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CqrsError::Key);
        }
        let payload = (codec.payload)(&*call.payload).map_err(|error| corrupt(name, &error))?;
        let tenant = call.context.tenant.as_deref().map(TenantContext::namespace).unwrap_or_default();
        let key = Key { tenant, command: name.to_owned(), key };
        Ok(Some(Self { key, fingerprint: fingerprint(&payload), name, codec }))
    }

    pub(crate) fn begun(&self, begun: Begun) -> Result<Go, CqrsError> {
        match begun {
            Begun::Started(fence) => Ok(Go::On(fence)),
            Begun::Done(answer) => {
                (self.codec.read)(answer).map(Go::Back).map_err(|error| corrupt(self.name, &error))
            }
            Begun::InFlight(retry_after) => Err(CqrsError::InFlight { retry_after }),
            Begun::Reused => Err(CqrsError::Reused(self.name)),
        }
    }

    pub(crate) fn write(&self, answer: &Answer) -> Result<Value, CqrsError> {
        (self.codec.answer)(&**answer).map_err(|error| corrupt(self.name, &error))
    }
}

fn corrupt(name: &str, error: &serde_json::Error) -> CqrsError {
    CqrsError::Corrupt(name.to_owned(), error.to_string())
}

/// SHA-256 over the payload with the members of objects in order, so that equal payloads are equal.
fn fingerprint(payload: &Value) -> String {
    let mut hash = Sha256::new();
    feed(&mut hash, payload);
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(members) => {
            hash.update(b"{");
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            for (name, value) in members {
                feed(hash, &Value::String(name.clone()));
                feed(hash, value);
            }
            hash.update(b"}");
        }
        Value::Array(values) => {
            hash.update(b"[");
            for value in values {
                feed(hash, value);
            }
            hash.update(b"]");
        }
        leaf => {
            // A leaf's JSON cannot run into the next: strings are quoted, everything ends in a comma.
            hash.update(leaf.to_string().as_bytes());
            hash.update(b",");
        }
    }
}
