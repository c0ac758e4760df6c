//! The command line: what can be typed, and what it means.

mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use runtime_kernel::{Mode, Timestamp, Uuid, units};

use crate::api::{SideName, Verb};

pub(crate) use self::work::{
    Decision, EventsAction, OutboxAction, SagasAction, SchedulesAction, Whose, WorkflowsAction,
};

/// The floor a production service stands on: durable jobs, keys, health and metrics behind one HTTP edge.
#[derive(Debug, Parser)]
#[command(name = "runtime", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do; `serve` unless told.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Configuration file (TOML, YAML or JSON); `runtime.{toml,yaml,yml,json}` here unless told.
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one configuration value, for example `--set http.port=8080`. May be repeated.
    #[arg(long = "set", global = true, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Prefix of the environment variables that configure the process.
    #[arg(long, global = true, default_value = "RUNTIME", value_name = "PREFIX")]
    pub(crate) env_prefix: String,
    /// Prints JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour text.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

/// When to colour text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal that can show it.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the service.
    Serve {
        /// What this process does: api, worker, scheduler or all.
        #[arg(long, short)]
        mode: Option<Mode>,
    },
    /// Brings the database to this version's schema.
    Migrate {
        /// Shows what would run and changes nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Explains or checks the configuration.
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Lists the HTTP routes.
    Routes {
        /// Shows the layers a request passes, in order, instead.
        #[arg(long)]
        stack: bool,
    },
    /// Creates, lists, rotates and revokes API keys.
    Keys {
        #[command(subcommand)]
        action: KeysAction,
    },
    /// Lists rollouts and gives them orders.
    Rollouts {
        #[command(subcommand)]
        action: RolloutsAction,
    },
    /// Lists schedules, says what they do next, and gives them orders.
    Schedules {
        #[command(subcommand)]
        action: SchedulesAction,
    },
    /// Enqueues, inspects, cancels and redrives jobs.
    Jobs {
        #[command(subcommand)]
        action: JobsAction,
    },
    /// Publishes and lists events, and looks after what subscriptions have set aside.
    Events {
        #[command(flatten)]
        whose: Whose,
        #[command(subcommand)]
        action: EventsAction,
    },
    /// Shows what waits in the outbox, and looks after what was set aside.
    Outbox {
        #[command(subcommand)]
        action: OutboxAction,
    },
    /// Lists sagas, signals them, and gives orders about those that are parked.
    Sagas {
        #[command(flatten)]
        whose: Whose,
        #[command(subcommand)]
        action: SagasAction,
    },
    /// Lists workflows, their definitions and tasks, and gives orders as an administrator.
    Workflows {
        #[command(flatten)]
        whose: Whose,
        #[command(subcommand)]
        action: WorkflowsAction,
    },
    /// Checks everything the service needs and says what is wrong.
    Doctor,
    /// Prints a shell completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `runtime config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Shows every key, its value, and each layer and place that set it.
    Explain {
        /// Only keys at or below this path.
        path: Option<String>,
    },
    /// Checks the configuration and exits.
    Check,
}

/// `runtime keys …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Creates a key and prints it, once.
    Create {
        /// What the key is for.
        #[arg(long, short)]
        name: String,
        /// A scope such as `jobs:write`, `jobs:*` or `*`. May be repeated.
        #[arg(long = "scope", short, required = true)]
        scopes: Vec<String>,
        /// The tenant the key belongs to, in the default realm.
        #[arg(long)]
        tenant: Option<runtime_kernel::Name>,
        /// How long it is valid, for example `90d`; for ever unless told.
        #[arg(long, value_parser = units::duration::parse)]
        expires_in: Option<Duration>,
    },
    /// Lists keys; never their secrets.
    List {
        /// Revoked and expired keys too.
        #[arg(long)]
        all: bool,
    },
    /// Replaces a key; the old one stays valid for the overlap.
    Rotate {
        /// The key's id.
        id: String,
        /// How long both are valid.
        #[arg(long, default_value = "24h", value_parser = units::duration::parse)]
        overlap: Duration,
    },
    /// Makes a key invalid at once.
    Revoke {
        /// The key's id.
        id: String,
        /// Why, for the audit log.
        #[arg(long, default_value = "revoked on the command line")]
        reason: String,
    },
}

/// `runtime jobs …`
#[derive(Debug, Subcommand)]
pub(crate) enum JobsAction {
    /// Enqueues a job.
    Enqueue {
        /// The kind, for example `http.request`.
        kind: String,
        /// The payload as JSON.
        #[arg(default_value = "{}")]
        payload: String,
        /// Not before this time (RFC 3339).
        #[arg(long)]
        run_at: Option<Timestamp>,
        /// A job it waits for; may be said again.
        #[arg(long)]
        after: Vec<Uuid>,
        /// The batch that counts it.
        #[arg(long)]
        batch: Option<Uuid>,
        /// Nothing is added while an unfinished job of this kind has this key.
        #[arg(long)]
        unique: Option<String>,
    },
    /// Lists jobs, newest first.
    List {
        /// Only this state.
        #[arg(long)]
        state: Option<String>,
        /// Only this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Only those this batch counts.
        #[arg(long)]
        batch: Option<Uuid>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Shows one job with every attempt.
    Show {
        /// The job's id.
        id: Uuid,
    },
    /// Cancels a job that has not finished.
    Cancel {
        /// The job's id.
        id: Uuid,
    },
    /// Puts dead jobs back into the queue.
    Redrive {
        /// Only this job.
        id: Option<Uuid>,
        /// Only this kind.
        #[arg(long, conflicts_with = "id")]
        kind: Option<String>,
        /// Only those this batch counts.
        #[arg(long, conflicts_with = "id")]
        batch: Option<Uuid>,
    },
    /// Counts a batch.
    Batch {
        /// The batch's id.
        id: Uuid,
    },
    /// Cancels what is left of a batch, which takes no more jobs from then on.
    CancelBatch {
        /// The batch's id.
        id: Uuid,
    },
    /// Counts jobs by queue and state, and names kinds nobody handles.
    Stats,
    /// Lets nothing more of a queue, or of one kind in it, begin.
    Pause {
        /// The queue.
        queue: String,
        /// Only this kind.
        #[arg(long)]
        kind: Option<String>,
    },
    /// Lets a queue, or one kind in it, go on.
    Resume {
        /// The queue.
        queue: String,
        /// Only this kind.
        #[arg(long)]
        kind: Option<String>,
    },
    /// Names what is paused.
    Paused,
}

/// What can be done with rollouts.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutsAction {
    /// Lists the rollouts of the configuration.
    List,
    /// Gives one an order; running processes follow within a second.
    Order {
        /// The rollout's name.
        name: String,
        /// What to do.
        #[arg(value_enum)]
        order: Verb,
        /// The canary's share in hundredths of a per cent, for `weight`.
        #[arg(long)]
        weight: Option<u32>,
        /// Whom to pin or unpin.
        #[arg(long)]
        subject: Option<String>,
        /// Where to.
        #[arg(long, value_enum)]
        side: Option<SideName>,
        /// Why; kept with the rollout and on the audit record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
