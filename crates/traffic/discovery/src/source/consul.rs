//! Endpoints from Consul.

use std::time::Duration;

use async_trait::async_trait;
use runtime_client::Client;
use runtime_kernel::{Context, SharedClock, Source as From};
use serde::Deserialize;

use super::{Source, Teller, scale};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// How long Consul holds a blocking query.
const HELD: Duration = Duration::from_mins(1);

/// How long to wait at least between two questions when the answer was no news: not every agent, nor all that stands
/// before one, holds a query.
const PAUSE: Duration = Duration::from_secs(1);

/// The healthy instances of a service, by Consul's health API and its blocking queries: a change is known at once. What
/// stands between us and the agent must let `x-consul-index` through; redirects are not followed. Weights above 1000 are
/// scaled, so that the largest is 1000.
#[derive(Clone, Debug)]
pub struct Consul {
    client: Client,
    url: String,
    service: String,
    tag: Option<String>,
    token: Option<Token>,
    clock: SharedClock,
}

#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Instance,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    address: String,
    port: u16,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    meta: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

impl Consul {
    /// A service by an agent's address (`http://127.0.0.1:8500`), which the client must be allowed to call.
    pub fn new(client: Client, url: &str, service: impl Into<String>, clock: SharedClock) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { client, url, service: service.into(), tag: None, token: None, clock }
    }

    /// Only instances with this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Shows this ACL token, to the agent alone.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token(token.into()));
        self
    }

    async fn ask(&self, index: u64) -> Result<(Vec<Entry>, u64), DiscoveryError> {
        let wrong = |why: String| DiscoveryError::source("Consul", why);
        let tag = self.tag.as_ref().map(|tag| format!("&tag={}", escaped(tag))).unwrap_or_default();
        let url = format!(
            "{}/v1/health/service/{}?passing=1&index={index}&wait={}s{tag}",
            self.url,
            escaped(&self.service),
            HELD.as_secs()
        );
        let context = Context::new(From::Internal, &*self.clock);
        // Consul adds up to a sixteenth of the wait.
        let mut request = self.client.get(&url).timeout(HELD + HELD / 8).redirects(0);
        if let Some(Token(token)) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let response = request.send(&context).await.map_err(|error| wrong(error.to_string()))?;
        if response.status() != 200 {
            return Err(wrong(format!("answered {}", response.status())));
        }
        let next =
            response.headers().get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
        // Without one, and with 0, there is nothing a query could wait for.
        let next =
            next.filter(|index| *index > 0).ok_or_else(|| wrong("told no `x-consul-index`".to_owned()))?;
        let entries = response.json().await.map_err(|error| wrong(error.to_string()))?;
        Ok((entries, next))
    }
}

#[async_trait]
impl Source for Consul {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        let mut index = 0;
        loop {
            let asked = self.clock.now();
            let (entries, next) = self.ask(index).await?;
            let endpoints = entries.into_iter().map(|Entry { node, service }| {
                let host = if service.address.is_empty() { node.address } else { service.address };
                let mut endpoint = Endpoint::new(host, service.port);
                endpoint.attributes = service.meta.unwrap_or_default();
                (endpoint, service.weights.map_or(1, |weights| weights.passing))
            });
            teller.tell(scale(endpoints.collect()));
            if next <= index {
                let took = self.clock.now().saturating_duration_since(asked);
                self.clock.sleep(PAUSE.saturating_sub(took)).await;
            }
            // An index that goes backwards means Consul has begun anew.
            index = if next < index { 0 } else { next };
        }
    }
}

/// Percent-encoded for a path or query (RFC 3986 §2.3).
pub(super) fn escaped(text: &str) -> String {
    use std::fmt::Write;

    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
