//! Checks of what stands still and waits for an operator. Degraded at worst: work that is parked is no reason to take a
//! process out of service.

use std::time::Duration;

use runtime_events::EVENT_LOG;
use runtime_events::log::Lag;
use runtime_health::{Check, HealthApp, Outcome};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Clock, Error, SystemClock, Timestamp};
use runtime_outbox::OUTBOX;
use runtime_saga::SAGAS;
use runtime_workflow::WORKFLOWS;

/// A subscription that nobody reads, and a message that nobody sends, counts as stuck after this.
pub(crate) const STUCK: Duration = Duration::from_mins(5);

/// Adds the checks `subscriptions`, `outbox`, `sagas` and `workflows`.
pub(crate) fn checks(app: &mut App) {
    app.health_check_with("subscriptions", Check::optional, |services| async move {
        told(subscriptions(&services).await)
    });
    app.health_check_with("outbox", Check::optional, |services| async move { told(outbox(&services).await) });
    app.health_check_with("sagas", Check::optional, |services| async move { told(sagas(&services).await) });
    app.health_check_with("workflows", Check::optional, |services| async move {
        told(workflows(&services).await)
    });
}

/// What cannot be asked is the database's fault, and its own check's to tell.
fn told(outcome: Result<Outcome, Error>) -> Outcome {
    outcome.unwrap_or_else(|error| Outcome::degraded(error.message().to_owned()))
}

fn degraded(fine: bool, message: &'static str) -> Outcome {
    if fine { Outcome::healthy() } else { Outcome::degraded(message) }
}

async fn subscriptions(services: &Container) -> Result<Outcome, Error> {
    let (lags, now) = (services.get(EVENT_LOG).await?.lag().await?, SystemClock.utc());
    let bad: Vec<_> = lags.iter().filter_map(|lag| Some((lag, wrong(lag, now)?))).collect();
    let outcome = degraded(bad.is_empty(), "a subscription has parked events, or is read by nobody");
    Ok(bad.into_iter().fold(outcome, |outcome, (lag, why)| outcome.detail(lag.subscription.clone(), why)))
}

fn wrong(lag: &Lag, now: Timestamp) -> Option<String> {
    if lag.parked > 0 {
        return Some(format!("{} parked", lag.parked));
    }
    let age = now.duration_since(lag.oldest_unread?);
    (lag.claimed == 0 && age >= STUCK).then(|| format!("{} unread for {} s", lag.unread, age.as_secs()))
}

async fn outbox(services: &Container) -> Result<Outcome, Error> {
    let stats = services.get(OUTBOX).await?.stats().await?;
    let late = |age: Option<Duration>| age.is_some_and(|age| age >= STUCK);
    let bad: Vec<_> = stats.iter().filter(|stats| stats.parked > 0 || late(stats.oldest_unsent)).collect();
    let outcome = degraded(bad.is_empty(), "messages are parked, or are not sent");
    Ok(bad.into_iter().fold(outcome, |outcome, stats| {
        let age = stats.oldest_unsent.unwrap_or_default().as_secs();
        let why = format!("{} parked, {} unsent for up to {age} s", stats.parked, stats.unsent());
        outcome.detail(stats.channel.clone(), why)
    }))
}

async fn sagas(services: &Container) -> Result<Outcome, Error> {
    let parked = services.get(SAGAS).await?.store().parked().await?;
    Ok(degraded(parked == 0, "sagas are parked").detail("parked", parked))
}

async fn workflows(services: &Container) -> Result<Outcome, Error> {
    let standing = services.get(WORKFLOWS).await?.standing().await?;
    let fine = standing.overdue == 0 && standing.parked == 0;
    let outcome = degraded(fine, "tasks are overdue, or workflows are parked").detail("open", standing.open);
    Ok(outcome.detail("overdue", standing.overdue).detail("parked", standing.parked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_stuck_when_it_has_parked_or_when_nobody_reads() {
        let now = SystemClock.utc();
        let ago = |by: Duration| now.checked_sub(by).ok();
        let lag = |parked, claimed, oldest_unread| Lag {
            subscription: "s".to_owned(),
            topic: "t".to_owned(),
            unread: 3,
            oldest_unread,
            retrying: 0,
            parked,
            claimed,
            partitions: 4,
        };
        for (lag, why) in [
            (lag(0, 0, None), None),
            (lag(0, 0, ago(STUCK / 2)), None),
            (lag(0, 1, ago(STUCK * 2)), None),
            (lag(0, 0, ago(STUCK)), Some("3 unread for 300 s")),
            (lag(1, 1, None), Some("1 parked")),
        ] {
            assert_eq!(wrong(&lag, now).as_deref(), why);
        }
    }
}
