//! `runtime jobs …`

use runtime_jobs::store::{Filter, Stats};
use runtime_jobs::{Batch, BatchId, JOBS, JobId, JobState, NewJob};
use runtime_kernel::Error;
use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use serde_json::json;

use super::{Done, Failure, container, operator};
use crate::api::JobView;
use crate::cli::JobsAction;
use crate::kinds;
use crate::output::{Output, table};

/// Works on the jobs in the database.
pub(super) async fn run(config: Config, action: JobsAction, output: Output) -> Done {
    let container = container(config).await?;
    let done = act(&container, action, output).await;
    container.dispose().await;
    done.map(|()| 0)
}

async fn act(container: &Container, action: JobsAction, output: Output) -> Result<(), Failure> {
    let (jobs, context) = (container.get(JOBS).await?, operator());
    match action {
        JobsAction::Enqueue { kind, payload, run_at, after, batch, unique } => {
            let payload = serde_json::from_str(&payload)
                .map_err(|error| Error::invalid(format!("the payload is not JSON: {error}")))?;
            kinds::check(&context, &kind, &payload)?;
            let mut job = NewJob::new(kind, payload);
            (job.run_at, job.batch, job.unique_key) = (run_at, batch.map(BatchId::from), unique);
            let job = job.after(after.into_iter().map(JobId::from));
            let done = jobs.enqueue(&context, job).await.map_err(Error::from)?;
            output.print(&done, |done| done.id);
        }
        JobsAction::List { state, kind, batch, limit } => {
            let unknown = |text: String| Error::invalid(format!("`{text}` is not a state"));
            let state = state.map(|text| JobState::parse(&text).ok_or_else(|| unknown(text))).transpose()?;
            let batch = batch.map(BatchId::from);
            let filter = Filter { state, kind, batch, limit, ..Filter::default() };
            let found = jobs.list(&context, filter).await.map_err(Error::from)?;
            let found: Vec<JobView> = found.into_iter().map(JobView::listed).collect();
            output.print(&found, |found| {
                let row = |job: &JobView| {
                    let attempts = format!("{}/{}", job.attempt, job.max_attempts);
                    vec![
                        job.id.clone(),
                        job.state.clone(),
                        job.kind.clone(),
                        attempts,
                        job.created_at.clone(),
                    ]
                };
                table(
                    &["id", "state", "kind", "attempts", "enqueued"],
                    &found.iter().map(row).collect::<Vec<_>>(),
                )
            });
        }
        JobsAction::Show { id } => {
            let job = JobView::from(jobs.get(&context, JobId::from(id)).await.map_err(Error::from)?);
            output.print(&job, |job| serde_json::to_string_pretty(job).unwrap_or_default());
        }
        JobsAction::Cancel { id } => {
            let state = jobs.cancel(&context, JobId::from(id)).await.map_err(Error::from)?;
            output.print(&json!({ "id": id, "state": state }), |_| format!("{id} is {}", state.as_str()));
        }
        JobsAction::Redrive { id: Some(id), .. } => {
            jobs.redrive(&context, JobId::from(id)).await.map_err(Error::from)?;
            output.print(&json!({ "redriven": 1 }), |_| format!("{id} is back in the queue"));
        }
        JobsAction::Redrive { id: None, kind, batch } => {
            let batch = batch.map(BatchId::from);
            let filter = Filter { kind, batch, limit: 1000, ..Filter::default() };
            let mut count = 0;
            loop {
                let moved = jobs.redrive_all(&context, filter.clone()).await.map_err(Error::from)?;
                count += moved;
                if moved < 1000 {
                    break;
                }
            }
            output.print(&json!({ "redriven": count }), |_| format!("{count} jobs are back in the queue"));
        }
        JobsAction::Batch { id } => {
            let batch = jobs.batch(&context, BatchId::from(id)).await.map_err(Error::from)?;
            print_batch(&batch, output);
        }
        JobsAction::CancelBatch { id } => {
            let count = jobs.cancel_batch(&context, BatchId::from(id)).await.map_err(Error::from)?;
            output.print(&json!({ "cancelled": count }), |_| {
                format!("{count} jobs are cancelled or told to stop")
            });
        }
        JobsAction::Pause { queue, kind } => {
            jobs.pause(&queue, kind.as_deref()).await.map_err(Error::from)?;
            output.print(&json!({ "queue": queue, "kind": kind, "paused": true }), |_| {
                format!("{queue} is paused")
            });
        }
        JobsAction::Resume { queue, kind } => {
            jobs.resume(&queue, kind.as_deref()).await.map_err(Error::from)?;
            output.print(&json!({ "queue": queue, "kind": kind, "paused": false }), |_| {
                format!("{queue} goes on")
            });
        }
        JobsAction::Paused => {
            let paused = jobs.paused().await.map_err(Error::from)?;
            output.print(&paused, |paused| {
                let row = |pause: &runtime_jobs::store::Pause| {
                    vec![pause.queue.clone(), pause.kind.clone().unwrap_or_else(|| "all".to_owned())]
                };
                table(&["queue", "kind"], &paused.iter().map(row).collect::<Vec<_>>())
            });
        }
        JobsAction::Stats => print_stats(&jobs.stats().await.map_err(Error::from)?, output),
    }
    Ok(())
}

fn print_batch(batch: &Batch, output: Output) {
    output.print(batch, |batch| {
        let counts = [batch.total, batch.open, batch.completed, batch.dead, batch.cancelled];
        let row = counts.map(|count| count.to_string()).to_vec();
        table(&["jobs", "open", "completed", "dead", "cancelled"], &[row])
    });
}

fn print_stats(stats: &Stats, output: Output) {
    output.print(stats, |stats| {
        let rows: Vec<Vec<String>> = stats
            .depths
            .iter()
            .flat_map(|d| {
                d.states
                    .iter()
                    .map(|(state, n)| vec![d.queue.clone(), d.kind.clone(), state.clone(), n.to_string()])
            })
            .chain(
                stats
                    .finished
                    .iter()
                    .map(|(state, n)| vec!["-".into(), "-".into(), state.clone(), n.to_string()]),
            )
            .collect();
        let unhandled = if stats.unhandled.is_empty() {
            String::new()
        } else {
            format!("\nno live worker handles: {}", stats.unhandled.join(", "))
        };
        table(&["queue", "kind", "state", "jobs"], &rows) + &unhandled
    });
}
