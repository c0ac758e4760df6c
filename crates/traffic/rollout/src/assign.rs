//! Who goes where.

use sha2::{Digest, Sha256};

use crate::state::WHOLE;

/// The subject's place among ten thousand, in every process and version the same: the first eight bytes of the SHA-256
/// of `name:subject`, scaled. Who is below a weight stays below when the weight grows.
///
/// ```
/// assert_eq!(runtime_rollout::bucket("checkout", "user-1"), runtime_rollout::bucket("checkout", "user-1"));
/// ```
pub fn bucket(name: &str, subject: &str) -> u32 {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update(b":");
    hash.update(subject.as_bytes());
    let digest = hash.finalize();
    let high = digest.iter().take(8).fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
    u32::try_from((u128::from(high) * u128::from(WHOLE)) >> 64).unwrap_or(WHOLE - 1)
}
