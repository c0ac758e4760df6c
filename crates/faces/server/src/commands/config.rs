//! `runtime config …`: what is set, by whom, and whether it holds.

use runtime_kernel::config::Config;
use serde_json::json;

use super::Done;
use crate::cli::ConfigAction;
use crate::house;
use crate::output::Output;

/// Explains or checks.
pub(super) fn run(config: Config, action: ConfigAction, output: Output) -> Done {
    // Building declares every section, and so finds every mistake.
    let built = house::app(config, None, None)?.build()?;
    match action {
        ConfigAction::Check => output.print(&json!({ "ok": true }), |_| "the configuration is fine"),
        ConfigAction::Explain { path } => {
            let mut explanation = built.config().explain();
            if let Some(path) = path {
                let below = format!("{path}.");
                explanation.leaves.retain(|leaf| leaf.path == path || leaf.path.starts_with(&below));
            }
            output.print(&explanation, ToString::to_string);
        }
    }
    Ok(0)
}
