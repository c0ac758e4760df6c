//! The port: buckets by key, wherever they live.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::limiter::{RateLimiter, RefusedTogether, Tightest};
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;
use crate::reserved::Reserved;

/// An answer that may take a round trip.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is taken together: all of them, or nothing and which one refused.
pub type Together = Result<Option<Tightest>, RefusedTogether>;

/// One of several buckets asked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// The key, its tenant included.
    pub key: &'a str,
    /// The rate it is judged by.
    pub rate: Rate,
    /// How many tokens. 0 looks without taking.
    pub cost: u32,
}

impl<'a> Demand<'a> {
    /// One token of a key.
    pub fn new(key: &'a str, rate: Rate) -> Self {
        Self { key, rate, cost: 1 }
    }

    /// The same for so many tokens.
    #[must_use]
    pub fn cost(mut self, cost: u32) -> Self {
        self.cost = cost;
        self
    }
}

/// Token buckets by key. In memory ([`RateLimiter`]) or in Redis ([`RedisBuckets`](crate::RedisBuckets)).
pub trait Buckets: fmt::Debug + Send + Sync + 'static {
    /// Takes from all buckets or from none.
    ///
    /// Cancel-safe in memory. In Redis a request that is dropped half-way may have taken its tokens.
    fn take<'a>(&'a self, demands: &'a [Demand<'a>]) -> Answer<'a, Together>;

    /// The same when no waiting is needed to know; `None` when it is.
    fn take_now(&self, _demands: &[Demand<'_>]) -> Option<Together> {
        None
    }

    /// Takes tokens on an estimate, to be settled when the real number is known.
    ///
    /// Cancel-safety as for [`take`](Self::take).
    fn reserve<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Reserved, LimitError>>;

    /// Where a bucket stands; nothing is taken.
    fn peek<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Standing, LimitError>>;

    /// Fills a bucket.
    fn reset<'a>(&'a self, key: &'a str) -> Answer<'a, Result<(), LimitError>>;
}

impl Buckets for RateLimiter {
    fn take<'a>(&'a self, demands: &'a [Demand<'a>]) -> Answer<'a, Together> {
        Box::pin(std::future::ready(self.take_demands(demands)))
    }

    fn take_now(&self, demands: &[Demand<'_>]) -> Option<Together> {
        Some(self.take_demands(demands))
    }

    fn reserve<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Reserved, LimitError>> {
        let reservation = RateLimiter::reserve(self, demand.key, demand.rate, demand.cost);
        Box::pin(std::future::ready(reservation.map(Reserved::in_memory)))
    }

    fn peek<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Standing, LimitError>> {
        Box::pin(std::future::ready(Ok(RateLimiter::peek(self, demand.key, demand.rate))))
    }

    fn reset<'a>(&'a self, key: &'a str) -> Answer<'a, Result<(), LimitError>> {
        RateLimiter::reset(self, key);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl RateLimiter {
    fn take_demands(&self, demands: &[Demand<'_>]) -> Together {
        if let [one] = demands {
            let taken = self.check_n(one.key, one.rate, one.cost);
            let taken = taken.map(|standing| Some(Tightest { index: 0, standing }));
            return taken.map_err(|error| RefusedTogether { index: 0, error });
        }
        let asks: Vec<_> =
            demands.iter().map(|demand| self.ask(demand.key, demand.rate).cost(demand.cost)).collect();
        self.check_all(&asks)
    }
}
