//! What can be typed about schedules, events, the outbox, sagas and workflows.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use runtime_kernel::{Name, Uuid};

/// Whose work is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Whose {
    /// A tenant of the default realm; the realm's own work unless told, as an operator's key without `x-tenant` has it.
    #[arg(long, global = true, conflicts_with = "own")]
    pub(crate) tenant: Option<Name>,
    /// The service's own, which belongs to no realm: what programs begin without a tenant.
    #[arg(long, global = true)]
    pub(crate) own: bool,
}

/// `runtime schedules …`
#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesAction {
    /// Lists schedules by name.
    List,
    /// Shows a schedule, its latest ticks and its next fire times.
    Show {
        /// Its name.
        name: String,
    },
    /// Says when an expression fires next, without keeping anything.
    Next {
        /// A cron expression, for example `0 9 * * MON-FRI`.
        expression: String,
        /// Whose local time it is.
        #[arg(long, default_value = "UTC")]
        zone: String,
        /// How many times.
        #[arg(long, default_value_t = 5)]
        count: usize,
    },
    /// Lets a schedule fire nothing.
    Pause {
        /// Its name.
        name: String,
    },
    /// Lets it fire again, from now on.
    Resume {
        /// Its name.
        name: String,
    },
    /// Fires it now.
    Trigger {
        /// Its name.
        name: String,
    },
    /// Forgets it and its history.
    Remove {
        /// Its name.
        name: String,
    },
}

/// `runtime events …`
#[derive(Debug, Subcommand)]
pub(crate) enum EventsAction {
    /// Publishes an event.
    Publish {
        /// The topic.
        topic: String,
        /// What happened, for example `com.example.order.placed`.
        #[arg(long = "type", value_name = "TYPE")]
        kind: String,
        /// Where it happened: a URI reference.
        #[arg(long, default_value = "/cli")]
        source: String,
        /// Its id: published once with the same source. A new one unless told.
        #[arg(long)]
        id: Option<String>,
        /// To what it happened.
        #[arg(long)]
        subject: Option<String>,
        /// What it is kept in order with.
        #[arg(long)]
        key: Option<String>,
        /// The rest, as JSON.
        #[arg(long)]
        data: Option<String>,
    },
    /// Lists events of a topic that are still kept, oldest first; of all tenants.
    List {
        /// The topic.
        topic: String,
        /// Only after this position.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Says how far each subscription has read, and what it has set aside.
    Subscriptions,
    /// Lists events a subscription has set aside.
    Parked {
        /// The subscription.
        name: String,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Hands parked events out again, with fresh attempts.
    Redrive {
        /// The subscription.
        name: String,
        /// Only the one at this position.
        #[arg(long)]
        position: Option<u64>,
    },
    /// Lets a subscription read again what is still kept.
    Replay {
        /// The subscription.
        name: String,
        /// Only after this position.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Forgets a parked event.
    Discard {
        /// The subscription.
        name: String,
        /// The event's place in the topic.
        position: u64,
    },
}

/// `runtime outbox …`
#[derive(Debug, Subcommand)]
pub(crate) enum OutboxAction {
    /// Says what waits in each channel, and for how long.
    List,
    /// Lists messages that were set aside.
    Parked {
        /// The channel.
        #[arg(default_value = "default")]
        channel: String,
        /// Only after this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Sends parked messages after all, with fresh attempts.
    Redrive {
        /// The channel.
        channel: String,
        /// Only the one of this number.
        #[arg(long)]
        seq: Option<u64>,
    },
    /// Deletes a parked message, and lets its key go on.
    Discard {
        /// The channel.
        channel: String,
        /// The message's number.
        seq: u64,
    },
}

/// `runtime sagas …`
#[derive(Debug, Subcommand)]
pub(crate) enum SagasAction {
    /// Lists sagas, newest first; `--status parked` those that wait for somebody.
    List {
        /// Only in this state.
        #[arg(long)]
        status: Option<String>,
        /// Only of this type.
        #[arg(long)]
        name: Option<String>,
        /// Those of all tenants.
        #[arg(long, conflicts_with_all = ["tenant", "own"])]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Shows a saga, its journal and its signals.
    Show {
        /// Its id.
        id: Uuid,
    },
    /// Has a saga undone.
    Cancel {
        /// Its id.
        id: Uuid,
        /// Why; kept with the saga.
        #[arg(long)]
        reason: String,
    },
    /// Lets a parked saga go on where it stopped.
    Retry {
        /// Its id.
        id: Uuid,
        /// Why; kept with the saga.
        #[arg(long)]
        reason: String,
    },
    /// Says that what a parked saga stopped at has been seen to by hand.
    Resolve {
        /// Its id.
        id: Uuid,
        /// Why; kept with the saga.
        #[arg(long)]
        reason: String,
    },
    /// Sends a signal.
    Signal {
        /// The saga's id.
        id: Uuid,
        /// The signal's name.
        name: String,
        /// What it brings, as JSON.
        #[arg(default_value = "null")]
        payload: String,
        /// The sender's own id of it: kept once however often it is sent.
        #[arg(long)]
        signal_id: Option<String>,
    },
}

/// In favour or against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Decision {
    /// In favour.
    Approve,
    /// Against.
    Reject,
}

/// `runtime workflows …`
#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowsAction {
    /// Lists instances, newest first.
    List {
        /// Only of this status.
        #[arg(long)]
        status: Option<String>,
        /// Only those with a step that cannot go on by itself.
        #[arg(long)]
        parked: bool,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Shows an instance.
    Show {
        /// Its id.
        id: Uuid,
    },
    /// Says what has happened to an instance.
    History {
        /// Its id.
        id: Uuid,
    },
    /// Lists what people are asked to decide, the most urgent first.
    Inbox {
        /// Only what this person is asked.
        person: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Decides a step, or the whole, as an administrator.
    Decide {
        /// The instance's id.
        id: Uuid,
        /// How.
        #[arg(value_enum)]
        decision: Decision,
        /// Which step; the whole unless told.
        #[arg(long)]
        step: Option<String>,
        /// Why; kept with the instance.
        #[arg(long)]
        reason: String,
    },
    /// Gives any other order as an administrator.
    Order {
        /// The instance's id.
        id: Uuid,
        /// The order as JSON, for example `{"order":"skip_step","step":"finance"}`.
        order: String,
        /// Why; kept with the instance.
        #[arg(long)]
        reason: String,
    },
    /// Lists versions of definitions.
    Definitions {
        /// Only of this code.
        #[arg(long)]
        code: Option<String>,
    },
    /// Checks a definition and keeps it as a draft.
    Register {
        /// A file in YAML or JSON.
        file: PathBuf,
    },
    /// Makes a version the one new instances are started with.
    Activate {
        /// The definition's code.
        code: String,
        /// The version's number.
        #[arg(value_name = "VERSION")]
        number: u32,
    },
    /// Takes a version out of use for ever; what runs goes on.
    Retire {
        /// The definition's code.
        code: String,
        /// The version's number.
        #[arg(value_name = "VERSION")]
        number: u32,
    },
}
