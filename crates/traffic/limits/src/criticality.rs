//! How much a call matters.

/// How much a call matters, by the names of the SRE book (chapter 21). What matters less is turned away earlier.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Criticality {
    /// May be dropped most of the time: two thirds of the limit.
    Sheddable,
    /// May be dropped for minutes: four fifths of the limit.
    SheddablePlus,
    /// What users wait for: nine tenths of the limit.
    #[default]
    Critical,
    /// What hurts at once when it fails: the whole limit.
    CriticalPlus,
}

impl Criticality {
    /// All of them, what matters least first.
    pub const ALL: [Self; 4] = [Self::Sheddable, Self::SheddablePlus, Self::Critical, Self::CriticalPlus];

    /// As configuration and headers spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

    /// How many of so many places it may use.
    pub(crate) const fn share(self, limit: u32) -> u32 {
        // A limit is at most a million.
        let thirtieths = match self {
            Self::Sheddable => 20,
            Self::SheddablePlus => 24,
            Self::Critical => 27,
            Self::CriticalPlus => 30,
        };
        (limit * thirtieths).div_ceil(30)
    }
}
