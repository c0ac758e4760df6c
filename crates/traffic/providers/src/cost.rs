//! What calls cost.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::wire::Usage;

/// What tokens cost, in millionths of a dollar for a million of them: 2,500,000 for $2.50.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// For those of the question.
    pub prompt: u64,
    /// For those of the answer.
    pub completion: u64,
}

impl Price {
    /// What so many tokens cost, exactly.
    pub fn of(self, usage: Usage) -> Cost {
        let one = |tokens: u32, price: u64| u128::from(tokens) * u128::from(price);
        Cost(one(usage.prompt, self.prompt) + one(usage.completion, self.completion))
    }
}

/// An amount of money, exact: in millionths of a millionth of a dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u128);

impl Cost {
    /// Millionths of a dollar, rounded up.
    pub fn micros(self) -> u64 {
        u64::try_from(self.0.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Cents, rounded to the nearest.
    pub fn cents(self) -> u64 {
        u64::try_from((self.0 + 5_000_000_000) / 10_000_000_000).unwrap_or(u64::MAX)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0 / 1_000_000;
        write!(f, "${}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}
