//! `runtime migrate`: brings the database to this version's schema.

use runtime_kernel::Error;
use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_migrate::MIGRATOR;

use super::{Done, Failure, bare_container};
use crate::output::{GREEN, Output, RESET};

/// Applies what is pending, or shows it.
pub(super) async fn run(config: Config, dry_run: bool, output: Output) -> Done {
    let container = bare_container(config)?;
    let done = act(&container, dry_run, output).await;
    container.dispose().await;
    done.map(|()| 0)
}

async fn act(container: &Container, dry_run: bool, output: Output) -> Result<(), Failure> {
    let migrator = container.get(MIGRATOR).await?;
    if dry_run {
        let planned = migrator.dry_run().await.map_err(Error::from)?;
        output.print(&planned, |planned| {
            if planned.is_empty() {
                return format!("{GREEN}nothing is pending{RESET}");
            }
            let steps = planned
                .iter()
                .map(|step| format!("-- {} {} {}\n{}", step.module, step.version, step.name, step.sql));
            steps.collect::<Vec<_>>().join("\n")
        });
        return Ok(());
    }
    let applied = migrator.run().await.map_err(Error::from)?;
    output.print(&applied, |applied| {
        if applied.is_empty() {
            return format!("{GREEN}the schema is up to date{RESET}");
        }
        let steps = applied
            .iter()
            .map(|step| format!("{GREEN}applied{RESET} {} {} {}", step.module, step.version, step.name));
        steps.collect::<Vec<_>>().join("\n")
    });
    Ok(())
}
