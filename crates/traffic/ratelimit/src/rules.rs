//! Rules and operations, checked: which bucket a request takes from.

use std::collections::BTreeMap;

use runtime_kernel::{Classify, ErrorKind};

use crate::config::{By, RateLimitConfig, RuleConfig};
use crate::limiter::MOST_KEYS;
use crate::rate::{Rate, RateConfig, RateError};

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {message}")]
pub struct RuleError {
    /// The key, below the section.
    pub key: String,
    /// What it must be.
    pub message: String,
}

impl Classify for RuleError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        "ratelimit.invalid_config"
    }
}

runtime_kernel::into_error!(RuleError);

/// Rates by operation, and those of single subjects.
///
/// ```
/// use runtime_ratelimit::{Operations, RateLimitConfig, RateLimiter};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let operations = Operations::new(&RateLimitConfig::default())?;
/// let (key, rate) = operations.of("search", "user:12345");
/// assert_eq!((key.as_str(), rate.burst()), ("search:user:12345", 30));
/// RateLimiter::new(1024).check(&key, rate)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Operations {
    enabled: bool,
    table: BTreeMap<String, Rate>,
    otherwise: Rate,
    overrides: BTreeMap<String, BTreeMap<String, Rate>>,
}

impl Operations {
    /// The table of a configuration.
    ///
    /// # Errors
    /// [`RuleError`] names the rate that is none.
    pub fn new(config: &RateLimitConfig) -> Result<Self, RuleError> {
        let table = rates("operations", &config.operations)?;
        let overrides = config
            .overrides
            .iter()
            .map(|(subject, of)| Ok((subject.clone(), rates(&format!("overrides.{subject}"), of)?)))
            .collect::<Result<_, RuleError>>()?;
        let otherwise = rate("default_operation", config.default_operation)?;
        Ok(Self { enabled: config.enabled, table, otherwise, overrides })
    }

    /// The bucket of an operation for a subject, and its rate: the subject's own, the operation's, or the default.
    pub fn of(&self, operation: &str, subject: &str) -> (String, Rate) {
        (format!("{operation}:{subject}"), self.rate(operation, subject))
    }

    /// The same for what is limited only if the table says so: nothing for an operation that is not in it, and while
    /// limits are switched off.
    pub fn limit(&self, operation: &str, subject: &str) -> Option<(String, Rate)> {
        let own = || self.overrides.get(subject).is_some_and(|of| of.contains_key(operation));
        (self.enabled && (self.table.contains_key(operation) || own())).then(|| self.of(operation, subject))
    }

    /// The rate alone.
    pub fn rate(&self, operation: &str, subject: &str) -> Rate {
        let own = self.overrides.get(subject).and_then(|of| of.get(operation));
        own.or_else(|| self.table.get(operation)).copied().unwrap_or(self.otherwise)
    }
}

/// A checked rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) by: Vec<By>,
    pub(crate) rate: Rate,
    operation: Option<String>,
    #[cfg(feature = "http")]
    methods: Vec<String>,
    #[cfg(feature = "http")]
    paths: Vec<String>,
    #[cfg(feature = "http")]
    except: Vec<String>,
    #[cfg(feature = "http")]
    pub(crate) cost: u32,
    pub(crate) shadow: bool,
}

/// The rules of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) operations: Operations,
}

impl Rules {
    pub(crate) fn new(config: &RateLimitConfig) -> Result<Self, RuleError> {
        let operations = Operations::new(config)?;
        if config.rules.len() > MOST_KEYS {
            return Err(RuleError { key: "rules".into(), message: format!("must be at most {MOST_KEYS}") });
        }
        if !(32..=128).contains(&config.ipv6_prefix) {
            return Err(RuleError { key: "ipv6_prefix".into(), message: "must be 32 to 128".into() });
        }
        let rules = config.rules.iter().enumerate();
        let rules = rules.map(|(nth, rule)| Rule::new(nth, rule, &operations)).collect::<Result<_, _>>()?;
        Ok(Self { rules, operations })
    }
}

impl Rule {
    fn new(nth: usize, config: &RuleConfig, operations: &Operations) -> Result<Self, RuleError> {
        let wrong = |key: &str, message: &str| {
            Err(RuleError { key: format!("rules.{nth}.{key}"), message: message.to_owned() })
        };
        let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !(1..=64).contains(&config.name.len()) || !config.name.bytes().all(clean) {
            return wrong("name", "must be 1 to 64 letters, digits, `_`, `.` or `-`");
        }
        let rate = match (config.rate, &config.operation) {
            (Some(own), None) => rate(&format!("rules.{nth}.rate"), own)?,
            (None, Some(operation)) => operations.rate(operation, ""),
            _ => return wrong("rate", "is needed, or `operation` in its place, and not both"),
        };
        if config.cost > rate.burst() {
            return wrong("cost", "is more than the bucket holds, so that nothing would ever pass");
        }
        for by in &config.by {
            if let By::Header(name) = by
                && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
            {
                return wrong("by", "names a header that cannot be one");
            }
        }
        if config.paths.iter().chain(&config.except).any(|path| !path.starts_with('/')) {
            return wrong("paths", "must begin with `/`");
        }
        Ok(Self {
            name: config.name.clone(),
            by: config.by.clone(),
            rate,
            operation: config.operation.clone(),
            #[cfg(feature = "http")]
            methods: config.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
            #[cfg(feature = "http")]
            paths: config.paths.clone(),
            #[cfg(feature = "http")]
            except: config.except.clone(),
            #[cfg(feature = "http")]
            cost: config.cost,
            shadow: config.shadow,
        })
    }

    #[cfg(feature = "http")]
    pub(crate) fn covers(&self, method: &str, path: &str) -> bool {
        let method_fits = self.methods.is_empty() || self.methods.iter().any(|own| own == method);
        let path_fits = self.paths.is_empty() || self.paths.iter().any(|own| path_matches(own, path));
        method_fits && path_fits && !self.except.iter().any(|own| path_matches(own, path))
    }

    /// The key of a subject's bucket.
    pub(crate) fn key(&self, subject: &str) -> String {
        format!("{}:{subject}", self.name)
    }

    /// The rate for this subject: what an override says, if the rule takes an operation's.
    pub(crate) fn rate_of(&self, operations: &Operations, subject: &str) -> Rate {
        self.operation.as_ref().map_or(self.rate, |operation| operations.rate(operation, subject))
    }
}

#[cfg(feature = "http")]
fn path_matches(pattern: &str, path: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == path, |start| path.starts_with(start))
}

fn rates(key: &str, of: &BTreeMap<String, RateConfig>) -> Result<BTreeMap<String, Rate>, RuleError> {
    of.iter().map(|(name, config)| Ok((name.clone(), rate(&format!("{key}.{name}"), *config)?))).collect()
}

fn rate(key: &str, config: RateConfig) -> Result<Rate, RuleError> {
    Rate::try_from(config)
        .map_err(|error: RateError| RuleError { key: key.to_owned(), message: error.to_string() })
}
