//! `runtime workflows …`

use std::path::Path;

use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error};
use runtime_workflow::definition::{Format, MAX_BYTES, Version};
use runtime_workflow::store::{InstanceFilter, VersionFilter};
use runtime_workflow::{
    Definition, Event, Guard, InboxItem, Instance, InstanceId, Order, WORKFLOWS, Workflows,
};
use serde::Serialize;
use serde_json::json;

use super::{Done, Failure, json_of, named, page, work_of};
use crate::cli::{Decision, Whose, WorkflowsAction};
use crate::output::{Output, table};

/// Events read in one go.
const MOST: u32 = 1000;

/// Works on the workflows in the database; running processes follow.
pub(super) async fn run(config: Config, whose: &Whose, action: WorkflowsAction, output: Output) -> Done {
    let work = async |container: &Container, context: &Context| act(container, context, action, output).await;
    work_of(config, whose, work).await
}

async fn act(
    container: &Container,
    context: &Context,
    action: WorkflowsAction,
    output: Output,
) -> Result<(), Failure> {
    let workflows = container.get(WORKFLOWS).await?;
    match action {
        WorkflowsAction::List { status, parked, limit } => {
            let status = status.map(|text| named("status of a workflow", &text)).transpose()?;
            let (parked, limit) = (parked.then_some(true), Some(page(limit)?));
            let filter = InstanceFilter { status, parked, limit, ..InstanceFilter::default() };
            let found = workflows.list(context, filter).await.map_err(Error::from)?;
            output.print(&found, |found| {
                let header = ["id", "definition", "status", "about", "requester"];
                table(&header, &found.iter().map(row).collect::<Vec<_>>())
            });
        }
        WorkflowsAction::Show { id } => {
            let instance = workflows.get(context, InstanceId::from(id)).await.map_err(Error::from)?;
            output.print(&instance, |instance| serde_json::to_string_pretty(instance).unwrap_or_default());
        }
        WorkflowsAction::History { id } => {
            let events = history(&workflows, context, InstanceId::from(id)).await?;
            output.print(&events, |events| {
                let row = |event: &Event| {
                    let what = serde_json::to_value(&event.what).unwrap_or_default();
                    let what =
                        what.get("event").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
                    let by = event.by.clone().unwrap_or_else(|| "-".to_owned());
                    vec![event.at.to_string(), what, event.step.clone().unwrap_or_default(), by]
                };
                table(&["at", "event", "step", "by"], &events.iter().map(row).collect::<Vec<_>>())
            });
        }
        WorkflowsAction::Inbox { person, limit } => {
            let asked = if person.is_some() { MOST } else { page(limit)? };
            let mut tasks = workflows.work_queue(context, asked).await.map_err(Error::from)?;
            tasks.retain(|item| person.as_ref().is_none_or(|person| item.task.holder == *person));
            tasks.truncate(usize::try_from(page(limit)?).unwrap_or(usize::MAX));
            output.print(&tasks, |tasks| {
                let row = |item: &InboxItem| {
                    let due = item.due_at().map_or("-".to_owned(), |at| at.to_string());
                    let due = if item.overdue { format!("{due} overdue") } else { due };
                    let task = &item.task;
                    vec![task.instance.to_string(), task.step.clone(), task.holder.clone(), about(task), due]
                };
                let header = ["instance", "step", "asked", "about", "due"];
                table(&header, &tasks.iter().map(row).collect::<Vec<_>>())
            });
        }
        WorkflowsAction::Decide { id, decision, step, reason } => {
            let order = match decision {
                Decision::Approve => Order::ForceApprove { step },
                Decision::Reject => Order::ForceReject { step },
            };
            ordered(&workflows, context, InstanceId::from(id), order, reason, output).await?;
        }
        WorkflowsAction::Order { id, order, reason } => {
            let order = serde_json::from_value(json_of("order", &order)?)
                .map_err(|error| Error::invalid(format!("not an order: {error}")))?;
            ordered(&workflows, context, InstanceId::from(id), order, reason, output).await?;
        }
        WorkflowsAction::Definitions { code } => {
            let filter = VersionFilter { code, ..VersionFilter::default() };
            let versions = workflows.versions(context, &filter).await.map_err(Error::from)?;
            output.print(&versions, |versions| {
                let row = |version: &Version| {
                    let definition = &version.definition;
                    let state = version.state.as_str().to_owned();
                    vec![definition.code.clone(), version.number.to_string(), state, definition.name.clone()]
                };
                table(&["code", "version", "state", "name"], &versions.iter().map(row).collect::<Vec<_>>())
            });
        }
        WorkflowsAction::Register { file } => {
            let version = workflows.register(context, read(&file)?).await.map_err(Error::from)?;
            output
                .print(&version, |version| format!("{} {}: draft", version.definition.code, version.number));
        }
        WorkflowsAction::Activate { code, number } => {
            workflows.activate(context, &code, number).await.map_err(Error::from)?;
            told(output, &code, number, "activated");
        }
        WorkflowsAction::Retire { code, number } => {
            workflows.retire(context, &code, number).await.map_err(Error::from)?;
            told(output, &code, number, "retired");
        }
    }
    Ok(())
}

async fn history(workflows: &Workflows, context: &Context, id: InstanceId) -> Result<Vec<Event>, Error> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.number);
        let page = workflows.history(context, id, after, MOST).await?;
        let full = page.len() >= usize::try_from(MOST).unwrap_or(usize::MAX);
        events.extend(page);
        if !full {
            return Ok(events);
        }
    }
}

async fn ordered(
    workflows: &Workflows,
    context: &Context,
    id: InstanceId,
    order: Order,
    reason: String,
    output: Output,
) -> Result<(), Failure> {
    let done = workflows.order(context, id, order, reason, &Guard::default()).await;
    output.print(&done.map_err(Error::from)?, |instance| format!("{id}: {}", name(&instance.status)));
    Ok(())
}

fn told(output: Output, code: &str, version: u32, done: &str) {
    output.print(&json!({ "code": code, "version": version, "done": done }), |_| {
        format!("{code} {version}: {done}")
    });
}

fn row(instance: &Instance) -> Vec<String> {
    vec![
        instance.id.to_string(),
        format!("{}@{}", instance.definition, instance.version),
        name(&instance.status),
        format!("{}/{}", instance.entity_type, instance.entity_id),
        instance.requester.clone(),
    ]
}

fn about(task: &runtime_workflow::Task) -> String {
    format!("{}/{}", task.entity_type, task.entity_id)
}

/// As JSON has it.
fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn read(file: &Path) -> Result<Definition, Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::invalid(format!("{}: {why}", file.display()));
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let format = Format::of_ending(ending).ok_or_else(|| wrong(&"neither YAML nor JSON by its name"))?;
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    if text.len() > MAX_BYTES {
        return Err(wrong(&format!("larger than {MAX_BYTES} bytes")));
    }
    Definition::parse(&text, format).map_err(|error| wrong(&error))
}
