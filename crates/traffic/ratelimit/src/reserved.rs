//! Tokens taken from buckets wherever they live, before it is known how many are needed.

use std::fmt;

use crate::outcome::{LimitError, Standing};
#[cfg(feature = "redis")]
use crate::redis::Open;
use crate::reserve::Reservation;

/// Tokens taken from [`Buckets`](crate::Buckets) on an estimate, to be settled when the real number is known.
///
/// Dropped without being settled, everything reserved counts as used, as with [`Reservation`].
#[must_use = "dropped, everything reserved counts as used"]
pub struct Reserved {
    tokens: u32,
    standing: Option<Standing>,
    from: From,
}

enum From {
    Memory(Reservation),
    #[cfg(feature = "redis")]
    Redis(Open),
    /// Admitted without a look, because Redis was away.
    #[cfg(feature = "redis")]
    Nowhere,
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Reserved {
    pub(crate) fn in_memory(reservation: Reservation) -> Self {
        let (tokens, standing) = (reservation.tokens(), Some(reservation.standing()));
        Self { tokens, standing, from: From::Memory(reservation) }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn in_redis(tokens: u32, standing: Standing, open: Open) -> Self {
        Self { tokens, standing: Some(standing), from: From::Redis(open) }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn nowhere(tokens: u32) -> Self {
        Self { tokens, standing: None, from: From::Nowhere }
    }

    /// How many tokens were taken.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Where the bucket stood when they were taken. `None` when they were admitted because Redis was away.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// Nothing was used.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn cancel(self) -> Result<Option<Standing>, LimitError> {
        self.settle(0).await
    }

    /// Says how many tokens were really used, with the meaning of [`Reservation::settle`], and where the bucket stands
    /// then.
    ///
    /// Settled where it was reserved: what was reserved here while Redis was away is settled here. Not cancel-safe: a
    /// call that is dropped half-way may have settled or not, once in any case.
    ///
    /// # Errors
    /// [`LimitError::Away`] when Redis cannot be reached: everything reserved counts as used, and nothing beyond it.
    #[cfg_attr(not(feature = "redis"), expect(clippy::unused_async, reason = "only Redis is waited for"))]
    pub async fn settle(self, used: u32) -> Result<Option<Standing>, LimitError> {
        match self.from {
            From::Memory(reservation) => Ok(Some(reservation.settle(used))),
            #[cfg(feature = "redis")]
            From::Redis(open) => open.settle(self.tokens, used).await.map(Some),
            #[cfg(feature = "redis")]
            From::Nowhere => Ok(None),
        }
    }
}
