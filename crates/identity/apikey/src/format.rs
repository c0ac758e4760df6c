//! The text of a key: made so that scanners recognise a leaked one and a typo never reaches the store.
//!
//! `rt_[<env>_]<id><secret><checksum>`: 22 base62 digits of the id (a UUIDv7), 43 of the 256-bit secret, 6 of the
//! CRC-32 (ISO-HDLC) of everything before them.

use std::fmt;

use runtime_secrets::SecretString;
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::key::KeyId;

/// What a leak scanner looks for. What matches and has a right checksum is a key of ours.
pub const PATTERN: &str = r"\brt_(?:[a-z][a-z0-9]{0,15}_)?[0-9A-Za-z]{71}\b";

const PREFIX: &str = "rt_";
const ID: usize = 22;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
const BODY: usize = ID + SECRET + CHECKSUM;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key as presented: its id, and a secret nobody has checked yet.
pub struct PresentedKey {
    id: KeyId,
    secret: Zeroizing<String>,
    hint: String,
}

/// Text that is no key, or a mistyped one. Says nothing about the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not an API key")]
pub struct MalformedKey;

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PresentedKey {
    /// Takes a key apart. Needs no store: a wrong checksum is found here.
    ///
    /// # Errors
    /// [`MalformedKey`] for anything that is not exactly of the format.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(MalformedKey)?;
        let body = match rest.split_once('_') {
            Some((env, body)) if is_env(env) => body,
            Some(_) => return Err(MalformedKey),
            None => rest,
        };
        if body.len() != BODY || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(MalformedKey);
        }
        let (unchecked, checksum) = text.split_at_checked(text.len() - CHECKSUM).ok_or(MalformedKey)?;
        // Constant time: not needed for secrecy, but then nobody has to think about it.
        if !bool::from(checksum_of(unchecked).as_bytes().ct_eq(checksum.as_bytes())) {
            return Err(MalformedKey);
        }
        let (id, rest) = body.split_at_checked(ID).ok_or(MalformedKey)?;
        let (secret, _) = rest.split_at_checked(SECRET).ok_or(MalformedKey)?;
        let id = KeyId::from(Uuid::from_u128(decode(id).ok_or(MalformedKey)?));
        Ok(Self { id, secret: Zeroizing::new(secret.to_owned()), hint: hint_of(text) })
    }

    /// Which key it claims to be.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The last four characters, as lists show them.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }
}

/// Whether a name can stand between `rt_` and the key: a letter, then up to 15 letters or digits, all lower case.
pub(crate) fn is_env(env: &str) -> bool {
    (1..=16).contains(&env.len())
        && env.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && env.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A new key's text, its secret part, and its hint.
pub(crate) fn render(
    env: Option<&str>,
    id: KeyId,
    entropy: &[u8; 32],
) -> (SecretString, Zeroizing<String>, String) {
    let secret = Zeroizing::new(encode_secret(entropy));
    let env = env.map(|env| format!("{env}_")).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + env.len() + BODY));
    text.push_str(PREFIX);
    text.push_str(&env);
    text.push_str(&encode(id.as_uuid().as_u128(), ID));
    text.push_str(&secret);
    let checksum = checksum_of(&text);
    text.push_str(&checksum);
    let hint = hint_of(&text);
    (SecretString::from(text.to_string()), secret, hint)
}

fn hint_of(text: &str) -> String {
    text.get(text.len().saturating_sub(4)..).unwrap_or_default().to_owned()
}

fn checksum_of(text: &str) -> String {
    encode(u128::from(crc32fast::hash(text.as_bytes())), CHECKSUM)
}

fn digit(value: u32) -> char {
    usize::try_from(value).ok().and_then(|value| DIGITS.get(value)).map_or('0', |byte| char::from(*byte))
}

fn encode(mut value: u128, width: usize) -> String {
    let mut text = Vec::with_capacity(width);
    for _ in 0..width {
        text.push(digit(u32::try_from(value % 62).unwrap_or(0)));
        value /= 62;
    }
    text.into_iter().rev().collect()
}

/// `None` when the digits stand for more than 128 bits: 22 of them reach a little further.
fn decode(text: &str) -> Option<u128> {
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        value.checked_mul(62)?.checked_add(u128::from(digit))
    })
}

/// 256 bits as 43 digits, most significant first, by long division.
fn encode_secret(entropy: &[u8; 32]) -> String {
    let mut number = Zeroizing::new(*entropy);
    let mut text = Vec::with_capacity(SECRET);
    for _ in 0..SECRET {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        text.push(digit(remainder));
    }
    text.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_reads_back_and_no_single_mistake_passes(id: u128, entropy: [u8; 32], env in proptest::option::of("[a-z][a-z0-9]{0,15}"), at in 0usize..90, to in "[0-9A-Za-z]") {
            let id = KeyId::from(Uuid::from_u128(id));
            let (text, secret, hint) = render(env.as_deref(), id, &entropy);
            let text = text.expose().to_owned();
            let parsed = PresentedKey::parse(&text).unwrap();
            prop_assert_eq!(parsed.id(), id);
            prop_assert_eq!(parsed.secret(), secret.as_str());
            prop_assert_eq!(parsed.hint(), hint.as_str());
            if at < text.len() && text[at..=at] != to {
                let mistyped = format!("{}{to}{}", &text[..at], &text[at + 1..]);
                prop_assert!(PresentedKey::parse(&mistyped).is_err(), "{} {}", text, mistyped);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = PresentedKey::parse(&text);
        }
    }

    #[test]
    fn different_entropy_gives_different_digits_and_uses_all_of_them() {
        assert_eq!(encode_secret(&[0; 32]), "0".repeat(43));
        let mut one = [0; 32];
        one[31] = 61;
        assert_eq!(encode_secret(&one), format!("{}z", "0".repeat(42)));
        one[31] = 62;
        assert_eq!(encode_secret(&one), format!("{}10", "0".repeat(41)));
        assert_ne!(encode_secret(&[255; 32]).as_bytes()[0], b'0', "43 digits are just enough");
    }

    #[test]
    fn an_id_beyond_128_bits_is_refused() {
        let body = format!("rt_{}{}", "z".repeat(22), "0".repeat(43));
        assert!(PresentedKey::parse(&format!("{body}{}", checksum_of(&body))).is_err());
    }
}
