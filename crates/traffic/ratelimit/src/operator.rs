//! What an operator sees of the rules, and may do to a bucket.

use std::sync::Arc;

use runtime_kernel::{Classify, ErrorKind};

use crate::buckets::{Buckets, Demand};
use crate::config::{By, RateLimitConfig};
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;
use crate::rules::{Rule, RuleError, Rules};

/// The rules of a configuration beside the buckets they take from.
#[derive(Clone, Debug)]
pub struct RateLimits {
    rules: Rules,
    buckets: Arc<dyn Buckets>,
}

/// A rule as it applies.
#[derive(Clone, Copy, Debug)]
pub struct RuleInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it counts by.
    pub by: &'a [By],
    /// How much it allows, but for overrides.
    pub rate: Rate,
    /// Whether it only watches.
    pub shadow: bool,
}

/// A rule was asked for that is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no such rule.
    #[error("no rate limit rule `{0}`")]
    UnknownRule(String),
    /// The bucket cannot be reached.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl Classify for OperatorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownRule(_) => ErrorKind::NotFound,
            Self::Limit(error) => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownRule(_) => "ratelimit.unknown_rule",
            Self::Limit(error) => error.code(),
        }
    }
}

runtime_kernel::into_error!(OperatorError);

impl RateLimits {
    /// The rules of a configuration over these buckets.
    ///
    /// # Errors
    /// [`RuleError`] names the key that is wrong.
    pub fn new(config: &RateLimitConfig, buckets: Arc<dyn Buckets>) -> Result<Self, RuleError> {
        Ok(Self { rules: Rules::new(config)?, buckets })
    }

    /// Every rule, in the order they are written.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo<'_>> {
        self.rules.rules.iter().map(|rule| RuleInfo {
            name: &rule.name,
            by: &rule.by,
            rate: rule.rate,
            shadow: rule.shadow,
        })
    }

    /// Where a subject's bucket stands. A subject is what the rule counts by, joined by `|`.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn peek(&self, rule: &str, subject: &str) -> Result<Standing, OperatorError> {
        let rule = self.rule(rule)?;
        let (key, rate) = (rule.key(subject), rule.rate_of(&self.rules.operations, subject));
        Ok(self.buckets.peek(Demand::new(&key, rate)).await?)
    }

    /// Fills a subject's bucket.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn reset(&self, rule: &str, subject: &str) -> Result<(), OperatorError> {
        let key = self.rule(rule)?.key(subject);
        Ok(self.buckets.reset(&key).await?)
    }

    fn rule(&self, name: &str) -> Result<&Rule, OperatorError> {
        let rule = self.rules.rules.iter().find(|rule| rule.name == name);
        rule.ok_or_else(|| OperatorError::UnknownRule(name.to_owned()))
    }
}
