//! Which endpoint a call goes to.

mod member;
mod outlier;
mod strategy;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use member::{Member, Members};
pub use outlier::OutlierConfig;
use runtime_kernel::{SharedClock, Ticks};
pub use strategy::Strategy;

use crate::endpoint::Endpoint;
use crate::error::{DiscoveryError, NoEndpoint};
use crate::service::{Known, Service};

/// Spreads calls over a service's endpoints, and learns from them. Cloning shares what it has learnt.
///
/// ```
/// use runtime_discovery::{Balancer, Endpoint, Outcome, OutlierConfig, Strategy};
///
/// # fn main() -> Result<(), runtime_kernel::Error> {
/// let balancer = Balancer::new(Strategy::default(), OutlierConfig::default())?;
/// balancer.update(&[Endpoint::parse("10.0.0.1:80")?, Endpoint::parse("[2001:db8::1]:80")?]);
///
/// let picked = balancer.pick()?;
/// println!("calling {}", picked.endpoint().authority());
/// picked.done(Outcome::Success);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Balancer {
    inner: Arc<Inner>,
}

struct Inner {
    strategy: Strategy,
    outliers: OutlierConfig,
    members: ArcSwap<Members>,
    /// One ejects at a time: of two who find the same last place, both would take it.
    ejecting: Mutex<()>,
    ticks: Ticks,
    /// Moves on by one with each draw.
    drawn: AtomicU64,
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("strategy", &self.inner.strategy)
            .field("endpoints", &self.endpoints().len())
            .finish_non_exhaustive()
    }
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was answered, however the answer pleased: its time is learnt.
    Success,
    /// The endpoint failed it.
    Failure,
    /// The endpoint asked to be left alone, for so long if it said so: it gets too much.
    Throttled(Option<Duration>),
}

impl Balancer {
    /// A balancer without endpoints.
    ///
    /// # Errors
    /// [`DiscoveryError::Config`] names the key that is wrong.
    pub fn new(strategy: Strategy, outliers: OutlierConfig) -> Result<Self, DiscoveryError> {
        Self::on(strategy, outliers, Ticks::machine())
    }

    /// The same on another clock, for tests.
    ///
    /// # Errors
    /// [`DiscoveryError::Config`] names the key that is wrong.
    pub fn with_clock(
        strategy: Strategy,
        outliers: OutlierConfig,
        clock: SharedClock,
    ) -> Result<Self, DiscoveryError> {
        Self::on(strategy, outliers, Ticks::of(clock))
    }

    fn on(strategy: Strategy, outliers: OutlierConfig, ticks: Ticks) -> Result<Self, DiscoveryError> {
        outliers.check()?;
        let members = ArcSwap::from_pointee(Members::default());
        let (ejecting, drawn) = (Mutex::new(()), AtomicU64::new(0));
        Ok(Self { inner: Arc::new(Inner { strategy, outliers, members, ejecting, ticks, drawn }) })
    }

    /// Takes over what is known of a service, now and for as long as somebody watches it.
    pub async fn follow(&self, mut service: Service) {
        let mut known = Some(service.known());
        while let Some(Known { endpoints, .. }) = known {
            if let Some(endpoints) = endpoints {
                self.update(&endpoints);
            }
            known = service.changed().await;
        }
    }

    /// These are the endpoints now. What was learnt of those that stay is kept.
    pub fn update(&self, endpoints: &[Endpoint]) {
        let before = self.inner.members.load();
        self.inner.members.store(Arc::new(Members::of(endpoints, &before, self.inner.strategy)));
    }

    /// How many endpoints there are, and how many of them are left alone at the moment.
    pub fn counts(&self) -> (u32, u32) {
        let (members, now) = (self.inner.members.load(), self.inner.ticks.now());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(members.all.len()), count(members.all.iter().filter(|member| !member.is_in(now)).count()))
    }

    /// The endpoints there are.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.inner.members.load().all.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// An endpoint for a call.
    ///
    /// # Errors
    /// [`NoEndpoint`].
    pub fn pick(&self) -> Result<Picked, NoEndpoint> {
        self.pick_for(None, None)
    }

    /// An endpoint for a call about `key`, which [`Strategy::Rendezvous`] keeps to one endpoint, other than the one
    /// that failed it before, if there is another.
    ///
    /// # Errors
    /// [`NoEndpoint`].
    pub fn pick_for(&self, key: Option<&[u8]>, avoid: Option<&Endpoint>) -> Result<Picked, NoEndpoint> {
        let inner = &*self.inner;
        let members = inner.members.load();
        let now = inner.ticks.now();
        if members.all.is_empty() {
            return Err(if members.told { NoEndpoint::Empty } else { NoEndpoint::Unknown });
        }
        let other = |member: &Member| avoid.is_none_or(|avoid| !member.is(avoid));
        let choose = |fits: &dyn Fn(&Member) -> bool| inner.choose(&members, now, key, fits);
        let chosen = choose(&|member| member.is_in(now) && other(member))
            .or_else(|| choose(&|member| member.is_in(now)))
            // Nobody is in. Those that failed may be tried all the same; those that asked for peace may not.
            .or_else(|| choose(&|member| !member.is_throttled(now) && other(member)))
            .or_else(|| choose(&|member| !member.is_throttled(now)));
        let chosen = chosen.ok_or_else(|| {
            let back = members.all.iter().map(|member| member.throttled_until()).min().unwrap_or(now);
            NoEndpoint::Throttled { retry_after: Duration::from_nanos(back.saturating_sub(now)) }
        })?;
        chosen.begin();
        Ok(Picked { balancer: self.clone(), member: chosen, began: now, over: false })
    }
}

impl Inner {
    fn choose(
        &self,
        members: &Members,
        now: u64,
        key: Option<&[u8]>,
        fits: &dyn Fn(&Member) -> bool,
    ) -> Option<Arc<Member>> {
        let draw = || self.drawn.fetch_add(1, Ordering::Relaxed);
        strategy::choose(self.strategy, members, now, key, &draw, fits)
    }

    /// Ejects an endpoint that failed too often, if one more may go.
    fn eject(&self, member: &Member, now: u64) {
        let _turn = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if !member.is_ejected(now) && outlier::may_go(&self.outliers, &self.members.load(), now) {
            member.eject(&self.outliers, now);
        }
    }
}

/// An endpoint for one call. Dropped without a word, the call was given up, and took at least as long as it
/// did; nothing else is learnt.
#[must_use = "tell how the call went"]
pub struct Picked {
    balancer: Balancer,
    member: Arc<Member>,
    began: u64,
    over: bool,
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Picked").field(&self.member.endpoint).finish()
    }
}

impl Picked {
    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.member.endpoint
    }

    /// Tells how the call went.
    pub fn done(mut self, outcome: Outcome) {
        self.over = true;
        let inner = &*self.balancer.inner;
        let now = inner.ticks.now();
        self.member.end();
        match outcome {
            Outcome::Success => {
                self.member.succeeded(now.saturating_sub(self.began), now);
            }
            Outcome::Failure => {
                if self.member.failed(&inner.outliers, now) {
                    inner.eject(&self.member, now);
                }
            }
            Outcome::Throttled(asked) => self.member.throttled(&inner.outliers, asked, now),
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if !self.over {
            let now = self.balancer.inner.ticks.now();
            self.member.end();
            // It took at least so long.
            self.member.given_up(now.saturating_sub(self.began), now);
        }
    }
}

/// Spreads a counter over all numbers (the finalizer of splitmix64: Steele, Lea and Flood, 2014).
pub(super) fn mixed(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
