//! A chat model that holds: several targets, each with its limits, in one loop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use runtime_kernel::{Context, Deadline, SharedClock, Ticks};
use runtime_limits::{QuotaError, Quotas};

use crate::cache::{Cache, Found, Question};
use crate::call::{Call, Heard, Money};
use crate::config::{Chains, HardenConfig};
use crate::error::ProviderError;
use crate::gate::Gate;
use crate::meter::{Meter, Spent, namespace};
use crate::port::{ChatModel, ChatStream};
use crate::target::{Head, Live, Room, Target};
use crate::wire::{ChatRequest, ChatResponse, Delta, Usage};

/// Puts several chat models together into one that holds. See [`HardenedChat`].
///
/// # Errors
/// [`ProviderError::Config`] names what is wrong.
pub fn harden_ai(
    targets: Vec<Target>,
    chains: &Chains,
    config: HardenConfig,
    clock: SharedClock,
) -> Result<HardenedChat, ProviderError> {
    let wrong = |key: &str, message: String| Err(ProviderError::Config { key: key.to_owned(), message });
    if targets.is_empty() {
        return wrong("targets", "must not be empty".to_owned());
    }
    if config.max_attempts == 0 || config.attempt_timeout.is_zero() || config.timeout.is_zero() {
        return wrong("max_attempts", "and the time-outs must be more than 0".to_owned());
    }
    let mut live: Vec<Arc<Live<dyn ChatModel>>> = Vec::new();
    for target in targets {
        if live.iter().any(|own| own.target.name == target.name) {
            return wrong("targets", format!("must have names of their own: `{}`", target.name));
        }
        live.push(Arc::new(Live::new(target, &clock)?));
    }
    let find = |key: &str, names: &[String]| {
        let one = |name: &String| {
            live.iter().position(|own| *own.target.name == **name).ok_or_else(|| ProviderError::Config {
                key: key.to_owned(),
                message: format!("names no target: `{name}`"),
            })
        };
        names.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let order = find("order", &chains.order)?;
    let inner = Inner {
        order: if order.is_empty() { (0..live.len()).collect() } else { order },
        context_window: find("context_window", &chains.context_window)?,
        content_policy: find("content_policy", &chains.content_policy)?,
        ticks: Ticks::of(Arc::clone(&clock)),
        cache: config.cache.map(Cache::new),
        targets: live,
        config,
        clock,
        quotas: None,
        gate: None,
        meter: Meter::default(),
    };
    Ok(HardenedChat { inner: Arc::new(inner) })
}

/// Several chat models as one. Clones share what is learnt and spent.
///
/// One loop makes all attempts, of which each goes to the first target that is not cooling down and has room for the
/// call: one request and as many tokens as question and answer may have, taken before the call and settled after it. A
/// target that answers 429, 503 or 529 is left alone for as long as it says, one that fails several times in a row for its
/// cooldown, and the next target is asked. A chat that is too long goes on to those that read more, one that is against a
/// policy to those with another. The time left is split among the attempts that may follow. What a tenant may spend is
/// reserved before and settled after. A stream may move on until its first words; from then on it ends with the error.
#[derive(Clone)]
pub struct HardenedChat {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) targets: Vec<Arc<Live<dyn ChatModel>>>,
    order: Vec<usize>,
    context_window: Vec<usize>,
    content_policy: Vec<usize>,
    pub(crate) config: HardenConfig,
    pub(crate) clock: SharedClock,
    pub(crate) ticks: Ticks,
    cache: Option<Cache>,
    pub(crate) quotas: Option<Quotas>,
    gate: Option<Gate>,
    pub(crate) meter: Meter,
}

impl fmt::Debug for HardenedChat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HardenedChat").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl HardenedChat {
    /// The same with quotas, of which [`HardenConfig::quota`] names the one that bounds spending.
    ///
    /// # Errors
    /// [`ProviderError::Config`] when there is no quota of that name, or when clones exist already.
    pub fn quotas(mut self, quotas: Quotas) -> Result<Self, ProviderError> {
        if let Some(name) = &self.inner.config.quota
            && !quotas.names().any(|known| known == name)
        {
            let message = format!("names no quota: `{name}`");
            return Err(ProviderError::Config { key: "quota".to_owned(), message });
        }
        self.own("quotas")?.quotas = Some(quotas);
        Ok(self)
    }

    /// The same within the rate of an operation, by who asks.
    ///
    /// # Errors
    /// [`ProviderError::Config`] when clones exist already.
    pub fn gate(mut self, gate: Gate) -> Result<Self, ProviderError> {
        self.own("gate")?.gate = Some(gate);
        Ok(self)
    }

    fn own(&mut self, key: &str) -> Result<&mut Inner, ProviderError> {
        Arc::get_mut(&mut self.inner).ok_or_else(|| ProviderError::Config {
            key: key.to_owned(),
            message: "must be given before the first clone is made".to_owned(),
        })
    }

    /// What a tenant has spent in this process, by `realm/tenant`; the empty name is for calls without one.
    pub fn spent(&self, tenant: &str) -> Spent {
        self.inner.meter.of(tenant)
    }

    /// The targets that are left alone at the moment, and for how long.
    pub fn cooling(&self) -> Vec<(String, Duration)> {
        let cooling = |live: &Arc<Live<dyn ChatModel>>| Some((live.target.name.to_string(), live.cooling()?));
        self.inner.targets.iter().filter_map(cooling).collect()
    }

    /// A whole answer.
    ///
    /// Cancel-safe: dropped, the call is given up; what was reserved for it counts as used.
    ///
    /// # Errors
    /// [`ProviderError`]: the last target's own, or why none was called.
    pub async fn complete(
        &self,
        context: &Context,
        request: &ChatRequest,
    ) -> Result<ChatResponse, ProviderError> {
        let inner = &*self.inner;
        let Some(cache) = &inner.cache else { return self.ask(context, request).await };
        let Some(question) = Question::of(&namespace(context.tenant.as_deref()), request) else {
            return self.ask(context, request).await;
        };
        // Waiting for another's answer is part of the call.
        let context = &context.clone().with_deadline(Deadline::after(&*inner.clock, inner.config.timeout));
        loop {
            match cache.find(question, &inner.ticks) {
                Found::Known(answer) => return Ok((*answer).clone()),
                Found::Ask(asking) => {
                    let answer = Arc::new(self.ask(context, request).await?);
                    asking.answered(&answer, &inner.ticks);
                    return Ok((*answer).clone());
                }
                Found::Asked(mut told) => {
                    let answer =
                        async { told.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone()) };
                    match context.deadline.run(&*inner.clock, answer).await {
                        Ok(Some(answer)) => return Ok((*answer).clone()),
                        // Whoever asked has given up or failed: somebody else's turn.
                        Ok(None) => {}
                        Err(_) => return Err(ProviderError::Deadline),
                    }
                }
            }
        }
    }

    async fn ask(&self, context: &Context, request: &ChatRequest) -> Result<ChatResponse, ProviderError> {
        let whole = |live: Arc<Live<dyn ChatModel>>, own: Context| async move {
            let (answer, told) = live.target.model.complete(&own, &live.target.name, request).await?;
            Ok((answer, live.heard(told)))
        };
        let (answer, call) = self.begin(context, request, whole).await?;
        call.live.answered(answer.usage);
        call.used(answer.usage).await;
        Ok(answer)
    }

    /// An answer bit by bit. It returns with the answer's first words; until then targets may change.
    ///
    /// Broken off, what was heard is counted: what the provider said of it, or as many tokens as its text may have.
    /// Dropped, what was reserved counts as used, and what was spent is not known.
    ///
    /// # Errors
    /// As [`complete`](Self::complete); after the first words the stream itself ends with
    /// [`ProviderError::BrokeOff`].
    pub async fn stream(
        &self,
        context: &Context,
        request: &ChatRequest,
    ) -> Result<impl Stream<Item = Result<Delta, ProviderError>> + Send + use<>, ProviderError> {
        let begin = |live: Arc<Live<dyn ChatModel>>, own: Context| async move {
            let (rest, told) = live.target.model.stream(&own, &live.target.name, request).await?;
            let head = live.heard(told);
            Ok((first_words(&live.target.name, rest).await?, head))
        };
        let ((first, mut rest), call) = self.begin(context, request, begin).await?;
        let (clock, deadline) = (Arc::clone(&self.inner.clock), call.deadline);
        Ok(async_stream::stream! {
            let mut call = Heard::of(call);
            call.hear(&first);
            yield Ok(first);
            loop {
                let next = std::future::poll_fn(|cx| rest.as_mut().poll_next(cx));
                let error = match deadline.run(&*clock, next).await {
                    Ok(None) => {
                        call.end(None).await;
                        return;
                    }
                    Ok(Some(Ok(delta))) => {
                        call.hear(&delta);
                        yield Ok(delta);
                        continue;
                    }
                    // Whoever sees it first: the target is not to blame.
                    Err(_) | Ok(Some(Err(ProviderError::Deadline))) => ProviderError::Deadline,
                    Ok(Some(Err(error))) => {
                        ProviderError::BrokeOff { target: call.target(), why: error.to_string() }
                    }
                };
                call.end(Some(&error)).await;
                yield Err(error);
                return;
            }
        })
    }

    /// The one loop: attempts until one has begun to answer.
    async fn begin<T, W>(
        &self,
        context: &Context,
        request: &ChatRequest,
        ask: impl Fn(Arc<Live<dyn ChatModel>>, Context) -> W,
    ) -> Result<(T, Call), ProviderError>
    where
        W: Future<Output = Result<(T, Head), ProviderError>>,
    {
        let inner = &*self.inner;
        if let Some(gate) = &inner.gate {
            gate.pass(context).await?;
        }
        // Before anything is reserved for what no provider will see.
        request.check()?;
        let clock = &*inner.clock;
        let deadline = context.deadline.narrow(Deadline::after(clock, inner.config.timeout));
        let most = request.most();
        let mut chain = &inner.order;
        let mut last = None;
        let mut tried = Vec::new();
        for attempt in 0..inner.config.max_attempts {
            if deadline.is_expired(clock) {
                return Err(last.unwrap_or(ProviderError::Deadline));
            }
            let (live, room) = match self.pick(chain, &mut tried, most.total(), deadline).await {
                Ok(picked) => picked,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let reserved = match self.reserve(context, &live, most).await {
                Ok(reserved) => reserved,
                Err(error) => {
                    room.unused().await;
                    return Err(error);
                }
            };
            let call = Call {
                chat: self.clone(),
                live: Arc::clone(&live),
                room,
                reserved,
                tenant: context.tenant.clone(),
                deadline,
                head: Head::default(),
                most,
            };
            let after =
                (inner.config.max_attempts - attempt).min(u32::try_from(chain.len()).unwrap_or(1)).max(1);
            let share = deadline.remaining(clock).map_or(inner.config.attempt_timeout, |left| left / after);
            let share = share.min(inner.config.attempt_timeout);
            let work = ask(Arc::clone(&live), context.clone().with_deadline(deadline));
            let error = match self.within(share, deadline, &live, work).await {
                Ok((begun, head)) => return Ok((begun, Call { head, ..call })),
                Err(error) => error,
            };
            live.failed(&error, Usage::default());
            if error.may_have_cost() {
                drop(call);
            } else {
                call.refused().await;
            }
            let special = match &error {
                ProviderError::ContextWindow { .. } => Some(&inner.context_window),
                ProviderError::ContentPolicy { .. } => Some(&inner.content_policy),
                _ => None,
            };
            match special {
                Some(next) if !next.is_empty() && !std::ptr::eq(chain, next) => {
                    (chain, tried) = (next, Vec::new());
                }
                _ if error.moves_on() => {}
                _ => return Err(error),
            }
            last = Some(error);
        }
        Err(last.unwrap_or(ProviderError::Deadline))
    }

    /// The first target of the chain that is not cooling down and has room, waiting for room if all that are left have none.
    /// Those that were tried come after those that were not.
    async fn pick(
        &self,
        chain: &[usize],
        tried: &mut Vec<usize>,
        tokens: u32,
        deadline: Deadline,
    ) -> Result<(Arc<Live<dyn ChatModel>>, Room), ProviderError> {
        let inner = &*self.inner;
        let began = inner.ticks.now();
        loop {
            let (mut limited, mut cooling): (Option<ProviderError>, Option<Duration>) = (None, None);
            let mut wait = None::<Duration>;
            let fresh = chain.iter().filter(|index| !tried.contains(index));
            let again = chain.iter().filter(|index| tried.contains(index));
            let mut found = None;
            for index in fresh.chain(again) {
                let Some(live) = inner.targets.get(*index) else { continue };
                if let Some(left) = live.cooling() {
                    cooling = Some(cooling.map_or(left, |own| own.min(left)));
                    continue;
                }
                match live.reserve(tokens).await {
                    Ok(room) => {
                        found = Some((*index, Arc::clone(live), room));
                        break;
                    }
                    Err(error) => {
                        if let ProviderError::Limited { retry_after: Some(after), .. } = &error {
                            wait = Some(wait.map_or(*after, |own| own.min(*after)));
                        }
                        limited = Some(error);
                    }
                }
            }
            if let Some((index, live, room)) = found {
                if !tried.contains(&index) {
                    tried.push(index);
                }
                return Ok((live, room));
            }
            let waited = Duration::from_nanos(inner.ticks.now().saturating_sub(began));
            // Whichever comes first: room, or the end of a cooldown.
            let wait = match (wait, cooling) {
                (Some(room), Some(cool)) => Some(room.min(cool)),
                (room, cool) => room.or(cool),
            };
            let left = deadline.remaining(&*inner.clock);
            match wait {
                Some(wait)
                    if waited + wait <= inner.config.max_wait && left.is_none_or(|left| wait < left) =>
                {
                    inner.clock.sleep(wait.max(Duration::from_millis(1))).await;
                }
                _ => {
                    return Err(limited
                        .unwrap_or(ProviderError::AllCooling { retry_after: cooling.unwrap_or_default() }));
                }
            }
        }
    }

    /// Reserves what the call may cost at most.
    async fn reserve(
        &self,
        context: &Context,
        live: &Live<dyn ChatModel>,
        most: Usage,
    ) -> Result<Money, ProviderError> {
        let inner = &*self.inner;
        let (Some(quotas), Some(name), Some(tenant)) = (&inner.quotas, &inner.config.quota, &context.tenant)
        else {
            return Ok(Money::default());
        };
        let micros = live.target.config.price.of(most).micros();
        match quotas.take(tenant, name, micros).await {
            Ok(usage) => Ok(Money { micros, until: usage.resets_at }),
            Err(error @ QuotaError::Exceeded { .. }) => Err(ProviderError::BudgetSpent(error.into())),
            Err(error) => Err(ProviderError::Quota(error.into())),
        }
    }

    /// An attempt within its share of the time.
    async fn within<T>(
        &self,
        share: Duration,
        deadline: Deadline,
        live: &Live<dyn ChatModel>,
        work: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let clock = &*self.inner.clock;
        match Deadline::after(clock, share).narrow(deadline).run(clock, work).await {
            Ok(answer) => answer,
            Err(_) if deadline.is_expired(clock) => Err(ProviderError::Deadline),
            Err(_) => Err(ProviderError::TimedOut { target: live.target.name.to_string(), after: share }),
        }
    }
}

/// The first piece of a stream that says something, and the rest: before it, another target may be asked.
async fn first_words(target: &str, mut rest: ChatStream) -> Result<(Delta, ChatStream), ProviderError> {
    loop {
        match std::future::poll_fn(|cx| rest.as_mut().poll_next(cx)).await {
            Some(Ok(first)) if first.says_nothing() => {}
            Some(Ok(first)) => return Ok((first, rest)),
            Some(Err(error)) => return Err(error),
            None => {
                let why = "the stream ended before its first words".to_owned();
                return Err(ProviderError::Lost { target: target.to_owned(), why });
            }
        }
    }
}
