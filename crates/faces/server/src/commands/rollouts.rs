//! `runtime rollouts …`

use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_rollout::ROLLOUTS;

use super::{Done, Failure, container, operator};
use crate::api::{RolloutView, meant};
use crate::cli::RolloutsAction;
use crate::output::{Output, table};
use crate::rollout_record;
use runtime_kernel::Error;

/// Works on the rollouts in the database; running processes follow within a second.
pub(super) async fn run(config: Config, action: RolloutsAction, output: Output) -> Done {
    let container = container(config).await?;
    let done = act(&container, action, output).await;
    container.dispose().await;
    done.map(|()| 0)
}

async fn act(container: &Container, action: RolloutsAction, output: Output) -> Result<(), Failure> {
    match action {
        RolloutsAction::List => {
            let found = container.get(ROLLOUTS).await?.list().await.map_err(Error::from)?;
            let found: Vec<_> = found.iter().map(RolloutView::from).collect();
            output.print(&found, |found| {
                let rows: Vec<_> = found.iter().map(row).collect();
                table(&["NAME", "KIND", "PHASE", "SHARE", "REASON"], &rows)
            });
        }
        RolloutsAction::Order { name, order, weight, subject, side, reason } => {
            let order = meant(order, weight, subject, side)?;
            let rollout = rollout_record::order(container, &operator(), name, order, reason).await?;
            output.print(&RolloutView::from(&rollout), |view| {
                table(&["NAME", "KIND", "PHASE", "SHARE", "REASON"], &[row(view)])
            });
        }
    }
    Ok(())
}

fn row(view: &RolloutView) -> Vec<String> {
    let share = format!("{}.{:02} %", view.weight / 100, view.weight % 100);
    vec![view.name.clone(), view.kind.clone(), view.phase.clone(), share, view.reason.clone()]
}
