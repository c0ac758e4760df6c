//! The HTTP API: jobs, queues, schedules, events, the outbox, sagas, workflows, keys, limits, quotas, breakers, rollouts, chats, probes and metrics.

mod batches;
mod breakers;
mod chats;
mod events;
mod job_view;
mod jobs;
mod keys;
mod limits;
mod new_job;
mod outbox;
mod probes;
mod queues;
mod quotas;
mod rollouts;
mod sagas;
mod schedules;
mod schema;
mod workflows;

use runtime_kernel::app::{App, SetupError};
use runtime_kernel::{Context, Error, ErrorKind, Reach};

pub(crate) use events::{EventView, event_view, parked_view};
pub(crate) use job_view::JobView;
pub(crate) use keys::{Issued, KeyView, expiry};
pub(crate) use outbox::{ChannelView, ParkedMessage};
pub(crate) use rollouts::{RolloutView, SideName, Verb, meant};
pub(crate) use sagas::{Listed, everywhere};
pub(crate) use schedules::{ScheduleView, view as schedule_view};

/// What tenants share is not for the key of one of them, whatever its scopes.
fn operators_only(context: &Context, code: &'static str, message: &'static str) -> Result<(), Error> {
    let everywhere = context.principal.as_ref().is_some_and(|principal| principal.reach == Reach::Everywhere);
    everywhere.then_some(()).ok_or_else(|| Error::new(ErrorKind::Forbidden, code, message))
}

/// Adds every route.
pub(crate) fn routes(app: &mut App) -> Result<(), SetupError> {
    probes::routes(app);
    batches::routes(app);
    jobs::routes(app);
    queues::routes(app);
    schedules::routes(app);
    events::routes(app);
    outbox::routes(app);
    sagas::routes(app);
    workflows::routes(app);
    keys::routes(app);
    limits::routes(app);
    quotas::routes(app);
    breakers::routes(app);
    chats::routes(app);
    rollouts::routes(app);
    rollouts::passed_on(app)
}
