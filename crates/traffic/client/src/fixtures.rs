//! Answers recorded once and replayed in tests.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::error::ClientError;
use crate::hook::{Hook, Outgoing, Stored};

/// Answers that are recorded with all but secrets: the answer's headers that could hold one are left out, and no
/// header of a request is written. The URL and both bodies are written as they are.
const LEFT_OUT: [&str; 4] = ["set-cookie", "set-cookie2", "www-authenticate", "authentication-info"];

/// Records exchanges into a file, or replays them from it.
///
/// Requests are told apart by method, URL and body; what was asked several times is answered in the order it was
/// recorded. A request that was not recorded, or was recorded less often, is [`ClientError::NoFixture`].
#[derive(Debug)]
pub struct Fixtures {
    path: PathBuf,
    replays: bool,
    exchanges: Mutex<Vec<Exchange>>,
    left: Mutex<BTreeMap<Asked, VecDeque<Answered>>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Exchange {
    request: Asked,
    answer: Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Asked {
    method: String,
    url: String,
    #[serde(default, skip_serializing_if = "Content::is_empty")]
    body: Content,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answered {
    status: u16,
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Content::is_empty")]
    body: Content,
}

/// Text as it is, anything else in base64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Text(String),
    Base64(String),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(text.clone().into()),
            Self::Base64(text) => STANDARD.decode(text).ok().map(Bytes::from),
        }
    }
}

impl Asked {
    fn of(request: Outgoing<'_>) -> Self {
        let body = request.body.map(|body| Content::of(body)).unwrap_or_default();
        Self { method: request.method.to_string(), url: request.url.to_string(), body }
    }
}

impl Answered {
    fn of(answer: &Stored) -> Self {
        let headers = answer.headers.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
        let headers =
            headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Self { status: answer.status.as_u16(), headers: headers.collect(), body: Content::of(&answer.body) }
    }

    fn stored(&self) -> Option<Stored> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
        }
        Some(Stored { status: StatusCode::from_u16(self.status).ok()?, headers, body: self.body.bytes()? })
    }
}

impl Fixtures {
    /// Passes every request on, and writes what came of it to the file, which is begun anew.
    pub fn record(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), replays: false, exchanges: Mutex::default(), left: Mutex::default() }
    }

    /// Answers from the file; nothing reaches the network.
    ///
    /// # Errors
    /// [`ClientError::Fixtures`] when the file cannot be read.
    pub fn replay(path: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let path = path.into();
        let broken = |why: String| ClientError::Fixtures { path: path.clone(), why };
        let text = std::fs::read_to_string(&path).map_err(|error| broken(error.to_string()))?;
        let exchanges: Vec<Exchange> =
            serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let mut left: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
        for (nth, exchange) in exchanges.into_iter().enumerate() {
            if exchange.answer.stored().is_none() {
                return Err(broken(format!("exchange {nth} is no answer")));
            }
            left.entry(exchange.request).or_default().push_back(exchange.answer);
        }
        Ok(Self { path, replays: true, exchanges: Mutex::default(), left: Mutex::new(left) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl Hook for Fixtures {
    async fn answer(&self, request: Outgoing<'_>) -> Result<Option<Stored>, ClientError> {
        if !self.replays {
            return Ok(None);
        }
        let asked = Asked::of(request);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = left.get_mut(&asked).and_then(VecDeque::pop_front);
        let stored = answer.and_then(|answer| answer.stored());
        stored.map(Some).ok_or_else(|| {
            // The query may carry a secret.
            let path = request.url.path();
            let host = request.url.host_str().unwrap_or_default();
            ClientError::NoFixture { request: format!("{} {host}{path}", request.method) }
        })
    }

    fn wants(&self, _: Outgoing<'_>, _: StatusCode, _: &HeaderMap) -> bool {
        !self.replays
    }

    async fn keep(&self, request: Outgoing<'_>, answer: &Stored) {
        let exchange = Exchange { request: Asked::of(request), answer: Answered::of(answer) };
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        exchanges.push(exchange);
        // Written whole after each: a test that panics keeps what it has seen.
        let text = serde_json::to_string_pretty(&*exchanges).unwrap_or_default();
        let _ = std::fs::write(&self.path, text + "\n");
    }
}
