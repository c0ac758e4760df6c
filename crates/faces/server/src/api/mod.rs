//! The HTTP API: jobs, keys, limits, quotas, breakers, probes and metrics.

mod breakers;
mod job_view;
mod jobs;
mod keys;
mod limits;
mod probes;
mod quotas;
mod schema;

use runtime_kernel::app::App;

pub(crate) use job_view::JobView;
pub(crate) use keys::{Issued, KeyView, expiry};

/// Adds every route.
pub(crate) fn routes(app: &mut App) {
    probes::routes(app);
    jobs::routes(app);
    keys::routes(app);
    limits::routes(app);
    quotas::routes(app);
    breakers::routes(app);
}
