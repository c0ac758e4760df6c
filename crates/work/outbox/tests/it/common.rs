//! Messages, sinks and relays for tests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::{CloudEvent, EventsError, Message, Publisher, Receipt};
use runtime_kernel::{Context, SharedClock, Source, SystemClock};
use runtime_outbox::{Channel, OutboxConfig, OutboxStore, Relay};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

pub(crate) fn message(id: &str, key: &str) -> Message {
    let mut event = CloudEvent::builder(id, "/tests", "t").json(&id);
    if !key.is_empty() {
        event = event.key(key);
    }
    Message::new(&SystemClock, &context(), "topic", event.build().unwrap()).unwrap()
}

/// How a sink answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Takes nothing.
    Away,
    /// Takes what it gets, and never answers.
    Hangs,
}

/// A sink that remembers what it took, and fails as told.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) taken: Mutex<Vec<Message>>,
    pub(crate) mood: Mutex<Mood>,
    /// Ids that are always refused, and whether the error speaks of the message.
    pub(crate) poison: Mutex<HashMap<String, bool>>,
    pub(crate) calls: Mutex<u32>,
    pub(crate) called: Notify,
}

impl Recorder {
    pub(crate) fn ids(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|message| message.event.id().to_owned()).collect()
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn refuse(&self, id: &str, its_own: bool) {
        self.poison.lock().unwrap().insert(id.to_owned(), its_own);
    }

    pub(crate) async fn until(&self, ids: usize) {
        let distinct = || self.ids().into_iter().collect::<HashSet<_>>().len();
        runtime_testkit::until("the messages", async || distinct() >= ids).await.unwrap();
    }

    /// Every key's messages, each counted when it came first.
    pub(crate) fn by_key(&self) -> HashMap<String, Vec<String>> {
        let mut seen = HashSet::new();
        let mut keys: HashMap<String, Vec<String>> = HashMap::new();
        for message in &*self.taken.lock().unwrap() {
            let (id, key) = (message.event.id().to_owned(), message.event.key().unwrap_or_default());
            if seen.insert(id.clone()) {
                keys.entry(key.to_owned()).or_default().push(id);
            }
        }
        keys
    }
}

#[async_trait]
impl Publisher for Recorder {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        *self.calls.lock().unwrap() += 1;
        let mood = *self.mood.lock().unwrap();
        if mood == Mood::Away {
            return Err(EventsError::Closed);
        }
        let mut receipts = Vec::new();
        for message in messages {
            match self.poison.lock().unwrap().get(message.event.id()) {
                Some(true) => return Err(EventsError::Malformed("poison".to_owned())),
                Some(false) => return Err(EventsError::Full("poison".to_owned())),
                None => {}
            }
            self.taken.lock().unwrap().push(message.clone());
            receipts.push(Receipt::New);
        }
        self.called.notify_one();
        if mood == Mood::Hangs {
            std::future::pending::<()>().await;
        }
        Ok(receipts)
    }
}

/// Fast retries; a poll so rare that only being told helps, where a test asks for it.
pub(crate) fn config() -> OutboxConfig {
    let mut config = OutboxConfig::default();
    config.poll_interval = Duration::from_millis(5);
    config.max_poll_interval = Duration::from_millis(20);
    config.retry.base_delay = Duration::from_millis(2);
    config.retry.max_delay = Duration::from_millis(10);
    config.retry.max_attempts = 3;
    config
}

/// A relay that runs until it is dropped.
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    pub(crate) fn start(store: &Arc<dyn OutboxStore>, sink: &Arc<Recorder>, config: OutboxConfig) -> Self {
        Self::with(store, Arc::clone(sink) as Arc<dyn Publisher>, config, SystemClock::shared())
    }

    pub(crate) fn with(
        store: &Arc<dyn OutboxStore>,
        sink: Arc<dyn Publisher>,
        config: OutboxConfig,
        clock: SharedClock,
    ) -> Self {
        let relay = Relay::new(Arc::clone(store), Channel::default(), sink, config, clock).unwrap();
        Self(tokio::spawn(async move { relay.run(std::future::pending()).await }))
    }

    /// Kills it where it stands: its future is dropped.
    pub(crate) async fn kill(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
