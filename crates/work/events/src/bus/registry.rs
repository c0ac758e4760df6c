//! The topics of a process by the type of their events.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use runtime_kernel::{Context, SharedClock};

use super::subscription::{SubscribeOptions, Subscription};
use super::topic::{Topic, TopicOptions};
use crate::error::EventsError;

/// A type of event within a process.
pub trait Event: Send + Sync + 'static {
    /// Its name in logs and statistics; no two types of one bus may share it.
    const TYPE: &'static str;

    /// Events of one key are handled in order; `None` for those whose order does not matter.
    fn key(&self) -> Option<&str> {
        None
    }
}

/// An event and the work it came from.
#[derive(Debug)]
pub struct Emitted<E> {
    /// What happened.
    pub event: E,
    /// The context it happened in.
    pub context: Context,
}

/// Topics by the type of their events, made when first named. Cheap to clone; all clones are one bus.
///
/// ```
/// use runtime_events::bus::{Bus, Event, SubscribeOptions, TopicOptions};
/// use runtime_kernel::{Context, Source, SystemClock};
///
/// struct Greeted(String);
/// impl Event for Greeted {
///     const TYPE: &'static str = "greeted";
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), runtime_events::EventsError> {
/// let bus = Bus::new(TopicOptions::default(), SystemClock::shared());
/// let mut greetings = bus.subscribe::<Greeted>("example", SubscribeOptions::new())?;
/// bus.publish(&Context::new(Source::Internal, &SystemClock), Greeted("you".into())).await?;
/// assert_eq!(greetings.recv().await?.event.event.0, "you");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Bus {
    topics: Arc<RwLock<HashMap<TypeId, Entry>>>,
    options: TopicOptions,
    clock: SharedClock,
}

struct Entry {
    name: &'static str,
    topic: Box<dyn Any + Send + Sync>,
}

impl Bus {
    /// A bus whose topics have these limits.
    pub fn new(options: TopicOptions, clock: SharedClock) -> Self {
        Self { topics: Arc::default(), options, clock }
    }

    /// The topic of a type. Keep it where many events are published: it spares the look-up.
    ///
    /// # Errors
    /// [`EventsError::Config`] when another type has the name.
    pub fn topic<E: Event>(&self) -> Result<Topic<Arc<Emitted<E>>>, EventsError> {
        let found = |topics: &HashMap<TypeId, Entry>| {
            let topic = topics.get(&TypeId::of::<E>())?.topic.downcast_ref::<Topic<Arc<Emitted<E>>>>();
            topic.cloned()
        };
        if let Some(topic) = found(&self.topics.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(topic);
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = found(&topics) {
            return Ok(topic);
        }
        if topics.values().any(|entry| entry.name == E::TYPE) {
            return Err(EventsError::config(E::TYPE, "is the name of another type of event already"));
        }
        let topic = Topic::new(self.options, Arc::clone(&self.clock))?;
        topics.insert(TypeId::of::<E>(), Entry { name: E::TYPE, topic: Box::new(topic.clone()) });
        Ok(topic)
    }

    /// Publishes an event of a piece of work; see [`Topic::publish`].
    ///
    /// # Errors
    /// As [`topic`](Self::topic) and [`Topic::publish`].
    pub async fn publish<E: Event>(&self, context: &Context, event: E) -> Result<u64, EventsError> {
        self.topic::<E>()?.publish(Arc::new(Emitted { event, context: context.clone() })).await
    }

    /// Subscribes to a type; see [`Topic::subscribe`].
    ///
    /// # Errors
    /// As [`topic`](Self::topic) and [`Topic::subscribe`].
    pub fn subscribe<E: Event>(
        &self,
        name: impl Into<String>,
        options: SubscribeOptions,
    ) -> Result<Subscription<Arc<Emitted<E>>>, EventsError> {
        self.topic::<E>()?.subscribe(name, options)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(topics.values().map(|entry| entry.name)).finish()
    }
}
