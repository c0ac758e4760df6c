//! What an operator writes about rate limits.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limiter::Overflow;
use crate::rate::RateConfig;

/// The section `ratelimit`. Every key has a default; without rules nothing is limited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// Whether anything is limited. Default true.
    pub enabled: bool,
    /// Where the buckets are: `memory` or `redis`. Default memory.
    pub store: Store,
    /// How many keys may be in debt at the same time in memory, 22 bytes each. Default 65,536.
    pub max_keys: usize,
    /// What happens to a new key beyond that: `shared` or `refuse`. Default shared.
    pub overflow: Overflow,
    /// What happens when Redis is away: `local`, `admit` or `refuse`. Default local.
    pub when_away: WhenAway,
    /// Tokens fetched from Redis at a time and handed out here; 0 fetches each. Default 0.
    pub lease: u32,
    /// How long fetched tokens may be handed out. Default 100 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub lease_time: Duration,
    /// Which headers answers carry: `draft`, `legacy`, `both` or `none`. Default draft.
    pub headers: HeaderStyle,
    /// How many proxies in front of us append to `X-Forwarded-For`; that many entries from the right are believed.
    /// Default 0: only the connection's own address counts.
    pub trusted_proxies: u8,
    /// How many bits of an IPv6 address make a caller: 32 to 128. Default 64, what one subscriber gets.
    pub ipv6_prefix: u8,
    /// What each rule limits.
    pub rules: Vec<RuleConfig>,
    /// Rates by operation, for rules and code that name one.
    pub operations: BTreeMap<String, RateConfig>,
    /// The rate of an operation that is not in the table. Default 30 per minute.
    pub default_operation: RateConfig,
    /// Rates of single subjects: subject (`user:12345`) to operation to rate.
    pub overrides: BTreeMap<String, BTreeMap<String, RateConfig>>,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            store: Store::Memory,
            max_keys: 65_536,
            overflow: Overflow::Shared,
            when_away: WhenAway::Local,
            lease: 0,
            lease_time: Duration::from_millis(100),
            headers: HeaderStyle::Draft,
            trusted_proxies: 0,
            ipv6_prefix: 64,
            rules: Vec::new(),
            operations: BTreeMap::new(),
            default_operation: RateConfig { capacity: 30, window: Duration::from_mins(1), burst: None },
            overrides: BTreeMap::new(),
        }
    }
}

/// Where buckets are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Store {
    /// In this process.
    #[default]
    Memory,
    /// In Redis, exact across processes.
    Redis,
}

/// What happens when the buckets cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenAway {
    /// Each process limits by itself, at the full rate.
    #[default]
    Local,
    /// Everything passes.
    Admit,
    /// Nothing passes.
    Refuse,
}

/// Which headers tell a caller where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeaderStyle {
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11).
    #[default]
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds).
    Legacy,
    /// Both of them.
    Both,
    /// Only `Retry-After`, on refusals.
    None,
}

/// One limit: whom it counts, what it covers, and how much it allows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RuleConfig {
    /// Names the rule in headers, logs and metrics: 1 to 64 of `a-z A-Z 0-9 _ . -`.
    pub name: String,
    /// Whom it counts; several together make one key. Nothing: everybody together.
    #[serde(default)]
    pub by: Vec<By>,
    /// How much it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateConfig>,
    /// The operation whose rate it takes, in place of `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The methods it covers. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The paths it covers; one that ends in `*` covers whatever begins like it. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Paths it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// How many tokens a request takes. Default 1.
    #[serde(default = "one")]
    pub cost: u32,
    /// Counts and reports, and refuses nobody.
    #[serde(default)]
    pub shadow: bool,
}

fn one() -> u32 {
    1
}

impl RuleConfig {
    /// A rule that counts by something.
    pub fn new(name: impl Into<String>, by: impl IntoIterator<Item = By>, rate: RateConfig) -> Self {
        Self {
            name: name.into(),
            by: by.into_iter().collect(),
            rate: Some(rate),
            operation: None,
            methods: Vec::new(),
            paths: Vec::new(),
            except: Vec::new(),
            cost: 1,
            shadow: false,
        }
    }
}

/// What a rule counts by. A request that lacks it is not counted by the rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum By {
    /// The client's address.
    Ip,
    /// Who asks, once proved: a user, a service or an API key.
    Principal,
    /// The tenant, once resolved.
    Tenant,
    /// The route's template (`/users/{id}`).
    Route,
    /// The method.
    Method,
    /// The value of a header. Anybody can send anything: of use behind something that sets it.
    Header(String),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::Principal => f.write_str("principal"),
            Self::Tenant => f.write_str("tenant"),
            Self::Route => f.write_str("route"),
            Self::Method => f.write_str("method"),
            Self::Header(name) => write!(f, "header {name}"),
        }
    }
}

#[cfg(feature = "http")]
impl By {
    /// Whether it is known only once the caller is identified.
    pub(crate) fn needs_identity(&self) -> bool {
        matches!(self, Self::Principal | Self::Tenant)
    }
}
