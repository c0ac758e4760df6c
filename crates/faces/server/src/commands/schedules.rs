//! `runtime schedules …`

use runtime_cron::{CronExpression, SCHEDULES, Zone};
use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_kernel::{Clock, Error, SystemClock};
use serde_json::{Value, json};

use super::{Done, Failure, container, operator};
use crate::api::{ScheduleView, schedule_view};
use crate::cli::SchedulesAction;
use crate::output::{Output, table};
use crate::record;

/// Works on the schedules in the database; running schedulers follow.
pub(super) async fn run(config: Config, action: SchedulesAction, output: Output) -> Done {
    if let SchedulesAction::Next { expression, zone, count } = action {
        return next(&expression, &zone, count, output).map(|()| 0);
    }
    let container = container(config).await?;
    let done = act(&container, action, output).await;
    container.dispose().await;
    done.map(|()| 0)
}

fn next(expression: &str, zone: &str, count: usize, output: Output) -> Result<(), Failure> {
    let expression = CronExpression::parse(expression).map_err(|error| Error::invalid(error.to_string()))?;
    let zone = Zone::get(zone).map_err(|error| Error::invalid(error.to_string()))?;
    let times: Vec<String> =
        expression.upcoming(SystemClock.utc(), &zone).take(count).map(|at| at.to_string()).collect();
    output.print(&times, |times| times.join("\n"));
    Ok(())
}

async fn act(container: &Container, action: SchedulesAction, output: Output) -> Result<(), Failure> {
    let (schedules, context) = (container.get(SCHEDULES).await?, operator());
    let (name, done) = match action {
        SchedulesAction::List => {
            let found = schedules.list(&context, None, 1000).await.map_err(Error::from)?;
            let found: Vec<_> = found.iter().map(ScheduleView::of).collect();
            output.print(&found, |found| {
                let row = |view: &ScheduleView| {
                    let when =
                        view.schedule.get("when").and_then(Value::as_str).unwrap_or_default().to_owned();
                    let next = if view.paused { "paused".to_owned() } else { view.next.join("") };
                    vec![view.name.clone(), when, next]
                };
                table(&["NAME", "WHEN", "NEXT"], &found.iter().map(row).collect::<Vec<_>>())
            });
            return Ok(());
        }
        SchedulesAction::Show { name } => {
            let view = schedule_view(container, &context, &name).await?;
            output.print(&view, |view| serde_json::to_string_pretty(view).unwrap_or_default());
            return Ok(());
        }
        SchedulesAction::Next { .. } => return Ok(()),
        SchedulesAction::Pause { name } => {
            schedules.pause(&context, &name).await.map_err(Error::from)?;
            (name, "schedules.paused")
        }
        SchedulesAction::Resume { name } => {
            schedules.resume(&context, &name).await.map_err(Error::from)?;
            (name, "schedules.resumed")
        }
        SchedulesAction::Trigger { name } => {
            schedules.trigger(&context, &name).await.map_err(Error::from)?;
            (name, "schedules.triggered")
        }
        SchedulesAction::Remove { name } => {
            schedules.remove(&context, &name).await.map_err(Error::from)?;
            (name, "schedules.removed")
        }
    };
    record::schedule(container, &context, done, &name).await?;
    let verb = done.trim_start_matches("schedules.");
    output.print(&json!({ "name": name, "done": verb }), |_| format!("{name}: {verb}"));
    Ok(())
}
