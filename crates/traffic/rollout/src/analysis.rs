//! Whether the canary is worse, asked as often as one likes.

use serde::{Deserialize, Serialize};

use crate::error::RolloutError;
use crate::state::Side;

/// When a canary counts as worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AnalysisConfig {
    /// How often a canary that is no worse may be rolled back all the same, over a whole step however often it is looked
    /// at: more than 0, at most 0.5. Default 0.01.
    pub alpha: f64,
    /// How many more requests than on the primary side may fail on the canary in a step, whatever the test says. No limit
    /// by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_budget: Option<u64>,
    /// How many requests each side must have answered before the error budget counts. Default 20.
    pub min_requests: u64,
}

impl Default for AnalysisConfig {
    fn default() -> Self {
        Self { alpha: 0.01, error_budget: None, min_requests: 20 }
    }
}

impl AnalysisConfig {
    pub(crate) fn check(&self) -> Result<(), RolloutError> {
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            let message = "must be more than 0 and at most 0.5".to_owned();
            return Err(RolloutError::Config { key: "analysis.alpha".to_owned(), message });
        }
        Ok(())
    }
}

/// Requests a side has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub requests: u64,
    /// Those that failed: a status from 500, or no answer.
    pub failed: u64,
    /// Those that took longer than they may.
    pub slow: u64,
}

impl Counts {
    /// Together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failed: self.failed.saturating_add(other.failed),
            slow: self.slow.saturating_add(other.slow),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            failed: self.failed.saturating_sub(other.failed),
            slow: self.slow.saturating_sub(other.slow),
        }
    }
}

/// What the analysis says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing speaks against the canary.
    NoWorse,
    /// It fails more often.
    FailsMore,
    /// It is slow more often.
    SlowerMore,
    /// More requests failed than may.
    OverBudget,
}

/// A sequential test of two proportions by e-values (Turner, Ly and Grünwald, "Generic E-variables for exact sequential
/// k-sample tests that allow for optional stopping", 2024).
///
/// Requests come in blocks. Each block is worth the likelihood of what came under what was learnt from the blocks before,
/// over that under the best guess at which both sides are alike; the product is large only when the canary is worse.
/// Whatever the shares, and however often it is looked at, a canary that is no worse ever makes it exceed `1 / alpha` with
/// a probability of at most `alpha`. Failing and being slow are tested apart, each at half of `alpha`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// What has been looked at, by side.
    primary: Counts,
    canary: Counts,
    /// The logarithms of the products.
    failing: f64,
    slow: f64,
}

impl Analysis {
    /// Looks at what each side has answered in all, since the analysis began.
    pub fn look(&mut self, config: &AnalysisConfig, primary: Counts, canary: Counts) -> Verdict {
        let blocks = (primary.minus(self.primary), canary.minus(self.canary));
        let log_e = |count: fn(&Counts) -> u64| {
            let block = |side: &Counts| (count(side), side.requests);
            evidence(
                (count(&self.primary), self.primary.requests),
                (count(&self.canary), self.canary.requests),
                block(&blocks.0),
                block(&blocks.1),
            )
        };
        let (failing, slow) = (log_e(|counts| counts.failed), log_e(|counts| counts.slow));
        self.failing += failing;
        self.slow += slow;
        (self.primary, self.canary) = (primary, canary);
        let enough = (2.0 / config.alpha).ln();
        if self.failing >= enough {
            Verdict::FailsMore
        } else if self.slow >= enough {
            Verdict::SlowerMore
        } else if self.is_over_budget(config) {
            Verdict::OverBudget
        } else {
            Verdict::NoWorse
        }
    }

    /// What it has seen of a side.
    pub fn seen(&self, side: Side) -> Counts {
        match side {
            Side::Primary => self.primary,
            Side::Canary => self.canary,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
    fn is_over_budget(&self, config: &AnalysisConfig) -> bool {
        let Some(budget) = config.error_budget else { return false };
        if self.primary.requests.min(self.canary.requests) < config.min_requests {
            return false;
        }
        let expected =
            self.canary.requests as f64 * self.primary.failed as f64 / self.primary.requests as f64;
        self.canary.failed as f64 - expected > budget as f64
    }
}

/// The logarithm of a block's e-value. Each pair is how many of how many.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn evidence(before_a: (u64, u64), before_b: (u64, u64), a: (u64, u64), b: (u64, u64)) -> f64 {
    // A little belief that few fail, so that the first failures do not look like certainty.
    let guess = |(bad, all): (u64, u64)| (bad as f64 + 0.5) / (all as f64 + 10.0);
    let (worse_a, worse_b) = (guess(before_a), guess(before_b));
    // Only a canary that is worse is looked for.
    if worse_b <= worse_a || a.1 + b.1 == 0 {
        return 0.0;
    }
    let alike = (worse_a * a.1 as f64 + worse_b * b.1 as f64) / (a.1 + b.1) as f64;
    let likelihood = |(bad, all): (u64, u64), guess: f64| {
        bad as f64 * (guess / alike).ln() + (all - bad.min(all)) as f64 * ((1.0 - guess) / (1.0 - alike)).ln()
    };
    likelihood(a, worse_a) + likelihood(b, worse_b)
}
