//! Payloads that only those with the key can read: sealed when enqueued, opened when run.
//!
//! XChaCha20-Poly1305 (RFC 8439 with the extended nonce of draft-irtf-cfrg-xchacha) under a random nonce; the job's id,
//! kind and tenant are authenticated with it, so a sealed payload cannot be moved to another job.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::Rng;
use runtime_kernel::{Error, ErrorKind, Retry};
use serde::{Deserialize, Serialize};

use crate::error::JobsError;
use crate::job::JobId;

/// The keys payloads are sealed with: one for what is enqueued from now on, others for what was before.
///
/// To rotate, give every worker the new key with [`and`](Self::and) first; then make it the first one; drop the old one
/// once no job sealed with it is left.
#[derive(Clone)]
pub struct Keyring {
    first: Arc<str>,
    keys: BTreeMap<Arc<str>, XChaCha20Poly1305>,
}

impl Keyring {
    /// Seals with this key. Its name is stored with each payload; the key is not.
    pub fn new(name: &str, key: &[u8; 32]) -> Self {
        Self { first: name.into(), keys: BTreeMap::new() }.and(name, key)
    }

    /// Also opens what was sealed with this one.
    #[must_use]
    pub fn and(mut self, name: &str, key: &[u8; 32]) -> Self {
        self.keys.insert(name.into(), XChaCha20Poly1305::new(key.into()));
        self
    }

    /// The payload as it is stored.
    pub(crate) fn seal(&self, payload: &str, about: &About<'_>) -> Result<serde_json::Value, JobsError> {
        let failed = || JobsError::Invalid("the payload could not be sealed".to_owned());
        let cipher = self.keys.get(&self.first).ok_or_else(failed)?;
        let mut nonce = [0; 24];
        #[expect(clippy::disallowed_methods, reason = "a nonce must never come again, whoever seeds what")]
        rand::rng().fill_bytes(&mut nonce);
        let message = Payload { msg: payload.as_bytes(), aad: &about.bytes() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), message).map_err(|_| failed())?;
        let data = STANDARD.encode([nonce.as_slice(), &sealed].concat());
        let envelope = Envelope { sealed: Sealed { key: self.first.to_string(), data } };
        serde_json::to_value(envelope).map_err(|_| failed())
    }

    fn open(&self, sealed: &Sealed, about: &About<'_>) -> Result<String, Error> {
        let Some(cipher) = self.keys.get(sealed.key.as_str()) else {
            return Err(unknown_key(&sealed.key));
        };
        let broken = || {
            let message = "the payload was sealed for another job, or has been changed";
            Error::new(ErrorKind::Invalid, "jobs.payload_forged", message)
        };
        let data = STANDARD.decode(&sealed.data).map_err(|_| broken())?;
        let (nonce, text) = data.split_first_chunk::<24>().ok_or_else(broken)?;
        let message = Payload { msg: text, aad: &about.bytes() };
        let opened = cipher.decrypt(&XNonce::from(*nonce), message).map_err(|_| broken())?;
        String::from_utf8(opened).map_err(|_| broken())
    }
}

/// Opens a stored payload, if it is sealed.
pub(crate) fn open(keys: Option<&Keyring>, payload: Arc<str>, about: &About<'_>) -> Result<Arc<str>, Error> {
    if !payload.starts_with("{\"$sealed\":") {
        return Ok(payload);
    }
    let Ok(Envelope { sealed }) = serde_json::from_str::<Envelope>(&payload) else { return Ok(payload) };
    match keys {
        Some(keys) => Ok(keys.open(&sealed, about)?.into()),
        None => Err(unknown_key(&sealed.key)),
    }
}

/// A worker with newer keys may come: the job waits for it.
fn unknown_key(name: &str) -> Error {
    let message = format!("this worker has no key named `{name}`");
    Error::new(ErrorKind::Unavailable, "jobs.key_unknown", message).with_retry(Retry::Backoff)
}

/// Which job a payload belongs to.
pub(crate) struct About<'a> {
    pub(crate) id: JobId,
    pub(crate) kind: &'a str,
    pub(crate) tenant: &'a str,
}

impl About<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.as_uuid().as_bytes().to_vec();
        for text in [self.kind, self.tenant] {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(rename = "$sealed")]
    sealed: Sealed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    key: String,
    data: String,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("first", &self.first).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_kernel::SystemClock;

    #[test]
    fn a_payload_opens_only_for_its_own_job_with_its_own_key() {
        let (id, other) = (JobId::new(&SystemClock), JobId::new(&SystemClock));
        let about = About { id, kind: "a", tenant: "main/acme" };
        let old = Keyring::new("2025", &[1; 32]);
        let secret = r#"{"card":"4111"}"#;
        let sealed = old.seal(secret, &about).unwrap().to_string();
        assert!(!sealed.contains("4111") && sealed.contains("2025"), "{sealed}");
        assert_ne!(sealed, old.seal(secret, &about).unwrap().to_string(), "each has a nonce of its own");
        let rotated = Keyring::new("2026", &[2; 32]).and("2025", &[1; 32]);
        assert_eq!(open(Some(&rotated), sealed.clone().into(), &about).unwrap().as_ref(), secret);
        let moved = [
            About { id: other, kind: "a", tenant: "main/acme" },
            About { id, kind: "b", tenant: "main/acme" },
            About { id, kind: "a", tenant: "main/globex" },
        ];
        for about in moved {
            let error = open(Some(&rotated), sealed.clone().into(), &about).unwrap_err();
            assert_eq!((error.code(), error.kind()), ("jobs.payload_forged", ErrorKind::Invalid));
        }
        let changed = sealed.replacen("\"data\":\"", "\"data\":\"AAAA", 1);
        assert_eq!(open(Some(&rotated), changed.into(), &about).unwrap_err().code(), "jobs.payload_forged");
        for keys in [None, Some(&Keyring::new("2026", &[2; 32]))] {
            let error = open(keys, sealed.clone().into(), &about).unwrap_err();
            assert_eq!((error.code(), error.retry()), ("jobs.key_unknown", Retry::Backoff));
        }
        assert_eq!(
            open(None, secret.into(), &about).unwrap().as_ref(),
            secret,
            "what is not sealed is as it is"
        );
    }
}
