//! `runtime sagas …`

use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error};
use runtime_saga::store::Filter;
use runtime_saga::{SAGAS, SagaId, SagaView, SignalRequest};
use serde_json::json;

use super::{Done, Failure, json_of, named, page, work_of};
use crate::api::{Listed, everywhere};
use crate::cli::{SagasAction, Whose};
use crate::output::{Output, table};
use crate::record;

/// Works on the sagas in the database; running workers follow.
pub(super) async fn run(config: Config, whose: &Whose, action: SagasAction, output: Output) -> Done {
    let work = async |container: &Container, context: &Context| act(container, context, action, output).await;
    work_of(config, whose, work).await
}

async fn act(
    container: &Container,
    context: &Context,
    action: SagasAction,
    output: Output,
) -> Result<(), Failure> {
    let sagas = container.get(SAGAS).await?;
    let (id, done) = match action {
        SagasAction::List { status, name, all, limit } => {
            let status = status.map(|text| named("status of a saga", &text)).transpose()?;
            let filter = Filter { status, name, limit: Some(page(limit)?), ..Filter::default() };
            if all {
                let found = everywhere(&sagas, &filter).await?;
                output.print(&found, |found| {
                    let row = |Listed { tenant, saga }: &Listed| {
                        let mut row = row(saga);
                        row.push(tenant.clone());
                        row
                    };
                    let header = ["id", "saga", "status", "begun", "tenant"];
                    table(&header, &found.iter().map(row).collect::<Vec<_>>())
                });
                return Ok(());
            }
            let found = sagas.list(context, filter).await.map_err(Error::from)?;
            output.print(&found, |found| {
                table(&["id", "saga", "status", "begun"], &found.iter().map(row).collect::<Vec<_>>())
            });
            return Ok(());
        }
        SagasAction::Show { id } => {
            let seen = sagas.show(context, SagaId::from(id), 0).await.map_err(Error::from)?;
            output.print(&seen, |seen| serde_json::to_string_pretty(seen).unwrap_or_default());
            return Ok(());
        }
        SagasAction::Signal { id, name, payload, signal_id } => {
            let signal = SignalRequest { name, payload: json_of("payload", &payload)?, id: signal_id };
            let new = sagas.signal(context, SagaId::from(id), signal).await.map_err(Error::from)?;
            output.print(&json!({ "id": id, "new": new }), |_| {
                format!("{id}: {}", if new { "signalled" } else { "had that signal" })
            });
            return Ok(());
        }
        SagasAction::Cancel { id, reason } => {
            sagas.cancel(context, SagaId::from(id), &reason).await.map_err(Error::from)?;
            (id, "sagas.cancelled")
        }
        SagasAction::Retry { id, reason } => {
            sagas.retry(context, SagaId::from(id), &reason).await.map_err(Error::from)?;
            (id, "sagas.retried")
        }
        SagasAction::Resolve { id, reason } => {
            sagas.resolve(context, SagaId::from(id), &reason).await.map_err(Error::from)?;
            (id, "sagas.resolved")
        }
    };
    record::saga(container, context, done, &id.to_string()).await?;
    let verb = done.trim_start_matches("sagas.");
    output.print(&json!({ "id": id, "done": verb }), |_| format!("{id}: {verb}"));
    Ok(())
}

fn row(view: &SagaView) -> Vec<String> {
    let status = serde_json::to_value(view.status).unwrap_or_default();
    let status = status.as_str().unwrap_or_default().to_owned();
    vec![view.id.to_string(), format!("{}@{}", view.saga, view.version), status, view.created_at.to_string()]
}
