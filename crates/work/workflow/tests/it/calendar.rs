//! Working time: due times across nights, week-ends, free days, breaks and changes of the clocks.

use runtime_kernel::{Clock, ManualClock, Timestamp};
use serde_json::json;

use super::desk::*;

/// When a step that starts at `from` is to be warned about and is due.
async fn due(calendar: &str, span: &str, from: &str) -> (String, String) {
    let yaml =
        format!("{}    sla: {{ due: {span} }}\ncalendar: {calendar}\n", one_step("any", "[{ user: ann }]"));
    let clock = ManualClock::at(from.parse::<Timestamp>().unwrap());
    let store =
        std::sync::Arc::new(runtime_workflow::MemoryWorkflows::new(std::sync::Arc::new(clock.clone())));
    let desk = Desk::over(store, clock, &yaml).await;
    let step = desk.start(json!({})).await.steps.remove(0);
    assert_eq!(step.started_at, Some(desk.clock.utc()));
    (step.warn_at.unwrap().to_string(), step.due_at.unwrap().to_string())
}

#[tokio::test]
async fn spans_in_working_time_skip_what_is_not() {
    let office = "{ zone: UTC, holidays: ['2026-04-03', '2026-04-06'] }";
    let berlin = "{ zone: Europe/Berlin }";
    let broken = "{ zone: UTC, week: { monday: ['08:00-12:00', '13:00-17:00'], tuesday: ['10:00-12:00'] } }";
    let night = "{ zone: UTC, week: { saturday: ['22:00-24:00'], sunday: ['00:00-06:00'] } }";
    for (calendar, span, from, expected) in [
        // Friday 2026-01-09.
        (office, "2 business_hours", "2026-01-09T10:00:00Z", "2026-01-09T12:00:00Z"),
        (office, "2 business_hours", "2026-01-09T16:00:00Z", "2026-01-12T10:00:00Z"),
        (office, "8 business_hours", "2026-01-09T09:00:00Z", "2026-01-09T17:00:00Z"),
        (office, "8 business_hours", "2026-01-09T17:00:00Z", "2026-01-12T17:00:00Z"),
        (office, "90 business_minutes", "2026-01-10T03:00:00Z", "2026-01-12T10:30:00Z"),
        (office, "1 business_day", "2026-01-09T10:15:00Z", "2026-01-12T10:15:00Z"),
        (office, "5 business_days", "2026-01-09T10:15:00Z", "2026-01-16T10:15:00Z"),
        // Good Friday and Easter Monday are free: the first working day after Thursday is Tuesday.
        (office, "1 business_day", "2026-04-02T11:00:00Z", "2026-04-07T11:00:00Z"),
        (office, "9 business_hours", "2026-04-02T16:00:00Z", "2026-04-07T17:00:00Z"),
        // A start after closing counts as the next opening.
        (office, "1 business_day", "2026-01-09T18:00:00Z", "2026-01-13T09:00:00Z"),
        // Wall time does not care.
        (office, "2 days", "2026-01-09T18:00:00Z", "2026-01-11T18:00:00Z"),
        (office, "36 hours", "2026-01-09T18:00:00Z", "2026-01-11T06:00:00Z"),
        // Clocks go forward on 2026-03-29 and back on 2026-10-25: nine in Berlin is another hour in UTC.
        (berlin, "1 business_day", "2026-03-27T09:00:00Z", "2026-03-30T08:00:00Z"),
        (berlin, "8 business_hours", "2026-03-27T12:00:00Z", "2026-03-30T11:00:00Z"),
        (berlin, "1 business_day", "2026-10-23T08:00:00Z", "2026-10-26T09:00:00Z"),
        // Breaks are no work, and Tuesday is shorter than Monday.
        (broken, "5 business_hours", "2026-01-12T08:00:00Z", "2026-01-12T14:00:00Z"),
        (broken, "9 business_hours", "2026-01-12T08:00:00Z", "2026-01-13T11:00:00Z"),
        (broken, "1 business_day", "2026-01-12T16:00:00Z", "2026-01-13T12:00:00Z"),
        (broken, "1 business_day", "2026-01-12T08:30:00Z", "2026-01-13T10:00:00Z"),
        // A shift over midnight is two days' hours.
        (night, "3 business_hours", "2026-01-10T22:00:00Z", "2026-01-11T01:00:00Z"),
    ] {
        assert_eq!(due(calendar, span, from).await.1, expected, "{span} from {from} in {calendar}");
    }
}

#[tokio::test]
async fn the_warning_comes_in_working_time_too() {
    let office = "{ zone: UTC }";
    for (span, from, warn) in [
        ("10 hours", "2026-01-09T00:00:00Z", "2026-01-09T08:00:00Z"),
        ("10 business_hours", "2026-01-09T12:00:00Z", "2026-01-12T12:00:00Z"),
        // Four fifths of the way from Friday noon to Monday noon is a Sunday: the next opening.
        ("1 business_day", "2026-01-09T12:00:00Z", "2026-01-12T09:00:00Z"),
    ] {
        assert_eq!(due(office, span, from).await.0, warn, "{span} from {from}");
    }
}
