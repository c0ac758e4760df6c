//! Where messages of the outbox go: a relay for each channel the configuration names, none unless it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime_client::HTTP_CLIENT;
use runtime_events::{EVENT_LOG, HttpPublisher, Publisher};
use runtime_jobs::JOBS;
use runtime_kernel::Error;
use runtime_kernel::app::{App, SetupError};
use runtime_outbox::{Channel, JobSink, OutboxSinks};
use serde::{Deserialize, Serialize};

/// What becomes of the messages of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RelayConfig {
    /// They are published to the server's event log.
    Events {},
    /// Each becomes a job: its topic is the kind, the event as JSON the payload.
    Jobs {},
    /// Each is posted as a CloudEvent.
    Http {
        /// Where to. Private addresses are refused as `client.guard` says.
        url: String,
    },
}

/// The channel or URL that cannot be used, and why.
pub(crate) fn problem(relays: &BTreeMap<String, RelayConfig>) -> Option<(String, String)> {
    relays.iter().find_map(|(name, relay)| {
        let key = format!("relays.{name}");
        if let Err(error) = Channel::new(name.as_str()) {
            return Some((key, error.to_string()));
        }
        let RelayConfig::Http { url } = relay else { return None };
        let uri = url.parse::<http::Uri>().ok();
        let usable =
            uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        (!usable).then(|| (format!("{key}.url"), "must be an absolute http or https URL".to_owned()))
    })
}

/// Empties each channel into its sink.
pub(crate) fn register(app: &mut App, relays: &BTreeMap<String, RelayConfig>) -> Result<(), SetupError> {
    let clock = app.shared_clock();
    let sinks = app.contribute::<OutboxSinks>();
    for (name, relay) in relays {
        let channel = Channel::new(name.as_str()).map_err(|error| SetupError::module("server", error))?;
        let (relay, clock) = (relay.clone(), clock.clone());
        sinks.sink(channel, move |services| {
            let (relay, clock) = (relay.clone(), clock.clone());
            async move {
                let sink: Arc<dyn Publisher> = match relay {
                    RelayConfig::Events {} => services.get(EVENT_LOG).await?,
                    RelayConfig::Jobs {} => {
                        Arc::new(JobSink::new((*services.get(JOBS).await?).clone(), clock))
                    }
                    RelayConfig::Http { url } => {
                        let client = (*services.get(HTTP_CLIENT).await?).clone();
                        Arc::new(HttpPublisher::new(client, url, clock))
                    }
                };
                Ok::<_, Error>(sink)
            }
        });
    }
    Ok(())
}
