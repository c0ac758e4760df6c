//! `runtime outbox …`

use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind};
use runtime_outbox::{Channel, OUTBOX};
use serde_json::json;

use super::{Done, Failure, container, operator, page};
use crate::api::{ChannelView, ParkedMessage};
use crate::cli::OutboxAction;
use crate::output::{Output, table};
use crate::record;

/// Works on the outbox in the database; running relays follow.
pub(super) async fn run(config: Config, action: OutboxAction, output: Output) -> Done {
    let container = container(config).await?;
    let done = act(&container, action, output).await;
    container.dispose().await;
    done.map(|()| 0)
}

async fn act(container: &Container, action: OutboxAction, output: Output) -> Result<(), Failure> {
    let (outbox, context) = (container.get(OUTBOX).await?, operator());
    let channel = |name: &str| Channel::new(name).map_err(Error::from);
    match action {
        OutboxAction::List => {
            let stats = outbox.stats().await.map_err(Error::from)?;
            let stats: Vec<_> = stats.into_iter().map(ChannelView::from).collect();
            output.print(&stats, |stats| {
                let row = |view: &ChannelView| {
                    let counts = [view.ready, view.retrying, view.behind, view.parked];
                    let oldest =
                        view.oldest_unsent_seconds.map_or("-".to_owned(), |age| format!("{age:.1} s"));
                    let counts = counts.iter().map(u64::to_string);
                    std::iter::once(view.channel.clone()).chain(counts).chain([oldest]).collect()
                };
                let header = ["channel", "ready", "retrying", "behind", "parked", "oldest"];
                table(&header, &stats.iter().map(row).collect::<Vec<_>>())
            });
        }
        OutboxAction::Parked { channel: name, after, limit } => {
            let found =
                outbox.parked(&channel(&name)?, None, after, page(limit)?).await.map_err(Error::from)?;
            let found: Vec<_> = found.into_iter().map(ParkedMessage::from).collect();
            output.print(&found, |found| {
                let row = |message: &ParkedMessage| {
                    vec![
                        message.seq.to_string(),
                        message.topic.clone(),
                        message.id.clone().unwrap_or_default(),
                        message.attempts.to_string(),
                        message.reason.clone().unwrap_or_default(),
                    ]
                };
                table(
                    &["seq", "topic", "event", "attempts", "why"],
                    &found.iter().map(row).collect::<Vec<_>>(),
                )
            });
        }
        OutboxAction::Redrive { channel: name, seq } => {
            let count = outbox.redrive(&channel(&name)?, None, seq).await.map_err(Error::from)?;
            record::outbox(container, &context, "outbox.redriven", &name).await?;
            output.print(&json!({ "redriven": count }), |_| format!("{count} messages are sent again"));
        }
        OutboxAction::Discard { channel: name, seq } => {
            if !outbox.discard(&channel(&name)?, None, seq).await.map_err(Error::from)? {
                let message = format!("no message {seq} is parked in `{name}`");
                return Err(Error::new(ErrorKind::NotFound, "outbox.not_found", message).into());
            }
            record::outbox(container, &context, "outbox.discarded", &format!("{name}/{seq}")).await?;
            output.print(&json!({ "channel": name, "seq": seq, "done": "discarded" }), |_| {
                format!("{name}/{seq}: discarded")
            });
        }
    }
    Ok(())
}
