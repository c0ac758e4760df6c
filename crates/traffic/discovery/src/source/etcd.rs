//! Endpoints from etcd.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runtime_client::{Client, ClientError, Phase};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Context, Deadline, SharedClock, Source as From};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Source, Teller};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// How long a watch is kept before it is begun anew.
const HELD: Duration = Duration::from_hours(1);

/// How long a watch may take to begin: etcd says at once that it has.
const HEAD: Duration = Duration::from_secs(30);

/// The endpoints written as values under a prefix, as [`Endpoint::parse`] reads them; keys with a lease go away with
/// whoever wrote them. By etcd's JSON gateway (`/v3/kv/range`, `/v3/watch`): read once, then watched from that revision.
/// A watch that brings nothing for as long as the client lets an answer pause (15 s by default) is begun anew, and so is
/// one after an hour: that tells a member with nothing to say from one that is gone.
#[derive(Clone, Debug)]
pub struct Etcd {
    client: Client,
    url: String,
    prefix: String,
    clock: SharedClock,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct Header {
    revision: String,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default, rename = "type")]
    kind: String,
    kv: KeyValue,
}

impl Etcd {
    /// The keys under a prefix, by a member's client address (`http://127.0.0.1:2379`), which the client must be
    /// allowed to call.
    pub fn new(client: Client, url: &str, prefix: impl Into<String>, clock: SharedClock) -> Self {
        Self { client, url: url.trim_end_matches('/').to_owned(), prefix: prefix.into(), clock }
    }

    fn bounds(&self) -> (String, String) {
        let mut end = self.prefix.as_bytes().to_vec();
        // The first key behind all that begin so.
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end = vec![0],
        }
        (STANDARD.encode(&self.prefix), STANDARD.encode(end))
    }

    fn context(&self) -> Context {
        Context::new(From::Internal, &*self.clock)
    }

    async fn range(&self) -> Result<Range, DiscoveryError> {
        let (key, end) = self.bounds();
        let body = json!({ "key": key, "range_end": end });
        let request = self.client.post(&format!("{}/v3/kv/range", self.url)).json(&body).repeatable(true);
        let response = request.send(&self.context()).await.map_err(|error| wrong(error.to_string()))?;
        if response.status() != 200 {
            return Err(wrong(format!("answered {}", response.status())));
        }
        response.json().await.map_err(|error| wrong(error.to_string()))
    }

    /// Reads, and watches from there until it is time to begin anew.
    async fn turn(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        let Range { header, kvs } = self.range().await?;
        let revision: u64 = header.revision.parse().map_err(|_| wrong("told no revision".to_owned()))?;
        let mut known: BTreeMap<String, Endpoint> =
            kvs.iter().filter_map(|kv| Some((kv.key.clone(), endpoint(kv)?))).collect();
        let tell = |known: &BTreeMap<String, Endpoint>| teller.tell(known.values().cloned().collect());
        tell(&known);
        let (key, end) = self.bounds();
        let body = json!({ "create_request": {
            "key": key, "range_end": end, "start_revision": (revision + 1).to_string(), "progress_notify": true,
        } });
        let request = self.client.post(&format!("{}/v3/watch", self.url)).json(&body).repeatable(true);
        let request = request.timeout(HELD).max_response(ByteSize::mib(1 << 20));
        let context = self.context();
        let head = Deadline::after(&*self.clock, HEAD);
        let head = head.run(&*self.clock, Box::pin(request.send(&context))).await;
        let head = head.map_err(|_| wrong("does not begin the watch".to_owned()))?;
        let mut response = head.map_err(|error| wrong(error.to_string()))?;
        let mut text = Vec::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(chunk) => chunk.ok_or_else(|| wrong("ended the watch".to_owned()))?,
                // Our own patience, not its failure.
                Err(ClientError::Timeout { phase: Phase::Read, .. } | ClientError::Deadline) => return Ok(()),
                Err(error) => return Err(wrong(error.to_string())),
            };
            text.extend_from_slice(&chunk);
            // One JSON document a line.
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = text.drain(..=end).collect();
                let message: Value =
                    serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))?;
                if let Some(error) = message.get("error") {
                    return Err(wrong(format!("ended the watch: {error}")));
                }
                let result = message.get("result").cloned().unwrap_or_default();
                if result.get("canceled") == Some(&Value::Bool(true)) {
                    return Err(wrong("ended the watch".to_owned()));
                }
                let events = result.get("events").cloned().unwrap_or_else(|| json!([]));
                let events: Vec<Event> =
                    serde_json::from_value(events).map_err(|error| wrong(error.to_string()))?;
                for event in &events {
                    match endpoint(&event.kv).filter(|_| event.kind != "DELETE") {
                        Some(endpoint) => known.insert(event.kv.key.clone(), endpoint),
                        None => known.remove(&event.kv.key),
                    };
                }
                if !events.is_empty() {
                    tell(&known);
                }
            }
        }
    }
}

fn wrong(why: String) -> DiscoveryError {
    DiscoveryError::source("etcd", why)
}

/// What a value says; one that says nothing sensible is left out, so that it does not take the others with it.
fn endpoint(kv: &KeyValue) -> Option<Endpoint> {
    let value = STANDARD.decode(&kv.value).ok()?;
    let text = String::from_utf8(value).ok()?;
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        Endpoint::parse(&text).map_err(|error| error.to_string())
    };
    parsed.inspect_err(|why| tracing::warn!(key = kv.key, why, "a value in etcd is no endpoint")).ok()
}

#[async_trait]
impl Source for Etcd {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        loop {
            self.turn(teller).await?;
        }
    }
}
