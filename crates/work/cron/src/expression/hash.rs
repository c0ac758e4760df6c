//! Spreads names and times evenly, the same way in every process and release.

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, 2014).
pub(crate) const fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// FNV-1a over the bytes of a name, finished so that its low bits are as good as its high ones.
pub(crate) fn name(text: &str) -> u64 {
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change() {
        // Stored schedules depend on these.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(name(""), mix(0xcbf2_9ce4_8422_2325));
        assert_ne!(name("a"), name("b"));
    }
}
