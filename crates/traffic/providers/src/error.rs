//! Why a provider's answer did not come, in the provider's own terms where they matter.

use std::time::Duration;

use runtime_client::{ClientError, Phase};
use runtime_kernel::{Classify, Error, ErrorKind, Retry};

/// Why an answer did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The provider gets too much from us (429).
    #[error("{target} is rate limited")]
    RateLimited {
        /// Which target.
        target: String,
        /// How long to leave it alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// The provider gets too much from everybody (503, 529).
    #[error("{target} is overloaded")]
    Overloaded {
        /// Which target.
        target: String,
        /// How long to leave it alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// The chat is longer than the model can read.
    #[error("the chat is longer than the model of {target} can read")]
    ContextWindow {
        /// Which target.
        target: String,
    },
    /// The provider's policy forbids the question or the answer.
    #[error("the policy of {target} forbids it")]
    ContentPolicy {
        /// Which target.
        target: String,
    },
    /// The provider does not accept who we are (401, 403).
    #[error("{target} does not accept our key")]
    Unauthorized {
        /// Which target.
        target: String,
    },
    /// The provider does not understand the request.
    #[error("{target} refused the request with {status}: {message}")]
    Invalid {
        /// Which target.
        target: String,
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The provider failed (500, 502, 504), or could not be reached: nothing was generated.
    #[error("{target} failed")]
    Failed {
        /// Which target.
        target: String,
        /// How; for operators, since it may name addresses.
        why: String,
    },
    /// The request was sent and its answer was lost: the connection broke, or what came is no answer. It may have been
    /// generated, and counts as used.
    #[error("the answer of {target} was lost")]
    Lost {
        /// Which target.
        target: String,
        /// How; for operators, since it may name addresses.
        why: String,
    },
    /// The attempt took longer than it may.
    #[error("{target} did not answer within {after:?}")]
    TimedOut {
        /// Which target.
        target: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer broke off after its first words: it is not begun anew.
    #[error("the answer of {target} broke off: {why}")]
    BrokeOff {
        /// Which target.
        target: String,
        /// How.
        why: String,
    },
    /// Our own limits leave no room in time.
    #[error("the limits of {target} leave no room for {tokens} tokens")]
    Limited {
        /// Which target.
        target: String,
        /// How many tokens were needed.
        tokens: u32,
        /// When there is room; never, when the call is larger than the limit itself.
        retry_after: Option<Duration>,
    },
    /// Every target has failed lately, and is left alone.
    #[error("every target is cooling down")]
    AllCooling {
        /// Until the first is called again.
        retry_after: Duration,
    },
    /// The tenant may spend no more.
    #[error("the tenant's budget is spent")]
    BudgetSpent(#[source] Error),
    /// Whether the tenant may spend it cannot be known: its quota cannot be read or changed.
    #[error("the tenant's quota cannot be asked")]
    Quota(#[source] Error),
    /// The deadline passed.
    #[error("the deadline has passed")]
    Deadline,
    /// There is nothing of that name.
    #[error("no `{name}` in `providers.{table}`; there are: {known}")]
    UnknownName {
        /// `chats`, `embeddings` or `targets`.
        table: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A configuration makes no sense.
    #[error("`{key}` {message}")]
    Config {
        /// The key that is wrong.
        key: String,
        /// What it must be.
        message: String,
    },
}

impl ProviderError {
    /// Whether another target may do better.
    pub(crate) fn moves_on(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Overloaded { .. }
                | Self::Failed { .. }
                | Self::Lost { .. }
                | Self::TimedOut { .. }
                | Self::Limited { .. }
                | Self::Unauthorized { .. }
        )
    }

    /// How long the target is to be left alone for it; nothing when it says nothing of the target.
    pub(crate) fn cools(&self, config: Duration) -> Option<(Duration, bool)> {
        match self {
            // Said by the target itself: at once.
            Self::RateLimited { retry_after, .. } | Self::Overloaded { retry_after, .. } => {
                Some((retry_after.unwrap_or(config), true))
            }
            Self::Unauthorized { .. } => Some((config, true)),
            Self::Failed { .. } | Self::Lost { .. } | Self::TimedOut { .. } | Self::BrokeOff { .. } => {
                Some((config, false))
            }
            _ => None,
        }
    }

    /// Whether the answer may have been generated, and be paid for, although nobody has it.
    pub(crate) fn may_have_cost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::TimedOut { .. } | Self::BrokeOff { .. } | Self::Deadline)
    }

    pub(crate) fn of_client(target: &str, error: ClientError) -> Self {
        let target = target.to_owned();
        match error {
            ClientError::Deadline => Self::Deadline,
            // Without a connection nothing was sent.
            ClientError::Timeout { phase, after } if phase != Phase::Connect => {
                Self::TimedOut { target, after }
            }
            ClientError::Broken { .. } | ClientError::TooLarge { .. } | ClientError::Decode(_) => {
                Self::Lost { target, why: error.to_string() }
            }
            other => Self::Failed { target, why: other.to_string() },
        }
    }
}

impl Classify for ProviderError {
    fn kind(&self) -> ErrorKind {
        match self {
            // Waiting does not help what is larger than the limit itself.
            Self::ContextWindow { .. } | Self::Limited { retry_after: None, .. } => ErrorKind::TooLarge,
            Self::RateLimited { .. } | Self::Limited { .. } | Self::BudgetSpent(_) => ErrorKind::RateLimited,
            Self::Overloaded { .. }
            | Self::Failed { .. }
            | Self::Lost { .. }
            | Self::BrokeOff { .. }
            | Self::AllCooling { .. } => ErrorKind::Unavailable,
            Self::ContentPolicy { .. } => ErrorKind::Forbidden,
            Self::Unauthorized { .. } => ErrorKind::Internal,
            Self::Invalid { .. } | Self::Config { .. } => ErrorKind::Invalid,
            Self::UnknownName { .. } => ErrorKind::NotFound,
            Self::TimedOut { .. } | Self::Deadline => ErrorKind::Timeout,
            Self::Quota(error) => error.kind(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "provider.rate_limited",
            Self::Overloaded { .. } => "provider.overloaded",
            Self::ContextWindow { .. } => "provider.context_window",
            Self::ContentPolicy { .. } => "provider.content_policy",
            Self::Unauthorized { .. } => "provider.unauthorized",
            Self::Invalid { .. } => "provider.invalid_request",
            Self::Failed { .. } => "provider.failed",
            Self::Lost { .. } => "provider.lost",
            Self::TimedOut { .. } => "provider.timed_out",
            Self::BrokeOff { .. } => "provider.broke_off",
            Self::Limited { .. } => "provider.limited",
            Self::AllCooling { .. } => "provider.all_cooling",
            Self::BudgetSpent(_) => "provider.budget_spent",
            Self::Quota(_) => "provider.quota",
            Self::Deadline => "deadline.exceeded",
            Self::UnknownName { .. } => "provider.unknown_name",
            Self::Config { .. } => "provider.invalid_config",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::Overloaded { retry_after, .. }
            | Self::Limited { retry_after: retry_after @ Some(_), .. } => {
                retry_after.map_or(Retry::Backoff, Retry::After)
            }
            Self::AllCooling { retry_after } => Retry::After(*retry_after),
            Self::Quota(error) => error.retry(),
            Self::Failed { .. } | Self::Lost { .. } | Self::TimedOut { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

runtime_kernel::into_error!(ProviderError);
