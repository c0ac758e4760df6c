//! Misfires, calendars, intervals and jitter, as tables.

use std::time::Duration;

use runtime_cron::{Calendar, CronError, Misfire, Overlap, Schedule, catch_up};
use runtime_kernel::Timestamp;
use serde_json::json;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn texts(times: &[Timestamp]) -> Vec<String> {
    times.iter().map(ToString::to_string).collect()
}

#[test]
fn misfire_policies_decide_about_what_was_missed() {
    let (late, on_time) = ("2026-01-01T05:30:00Z", "2026-01-01T05:00:30Z");
    let (four, five) = ("2026-01-01T04:00:00Z", "2026-01-01T05:00:00Z");
    for (misfire, now, fire, missed) in [
        (Misfire::Skip, late, &[][..], 6),
        (Misfire::Skip, on_time, &[five], 5),
        (Misfire::Once, late, &[five], 5),
        (Misfire::Once, on_time, &[five], 5),
        (Misfire::All { up_to: 2 }, late, &[four, five], 4),
        (Misfire::All { up_to: 1 }, on_time, &[four, five], 4),
        (
            Misfire::All { up_to: 1000 },
            "2026-01-01T02:10:00Z",
            &["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"],
            0,
        ),
    ] {
        let schedule = Schedule::new("a", "@hourly", "act").misfire(misfire);
        let timetable = schedule.timetable("").unwrap();
        let plan = catch_up(&schedule, &timetable, at("2026-01-01T00:00:00Z"), at(now));
        assert_eq!(
            (texts(&plan.fire), plan.missed),
            (fire.iter().map(|t| (*t).to_owned()).collect(), missed),
            "{misfire:?} {now}"
        );
        assert_eq!(plan.next, timetable.next_after(at(now)));
    }
}

#[test]
fn what_is_not_due_stays_and_a_long_absence_is_counted_only_so_far() {
    let schedule = Schedule::new("a", "* * * * * *", "act");
    let timetable = schedule.timetable("").unwrap();
    let plan = catch_up(&schedule, &timetable, at("2026-01-02T00:00:00Z"), at("2026-01-01T00:00:00Z"));
    assert_eq!((plan.fire.len(), plan.next), (0, Some(at("2026-01-02T00:00:00Z"))));
    // A year of seconds: the last minute is on time, of the rest ten thousand are counted.
    let plan = catch_up(&schedule, &timetable, at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
    assert_eq!((plan.fire.len(), plan.missed), (61, 10_000));
}

#[test]
fn a_calendar_leaves_its_days_out_in_the_schedules_own_zone() {
    let business = Calendar::weekends().without("12-25").without("2026-12-28");
    let schedule = Schedule::new("a", "0 23 * * *", "act").zone("America/New_York").calendar(business);
    let timetable = schedule.timetable("").unwrap();
    let found: Vec<_> = timetable.upcoming(at("2026-12-24T00:00:00Z")).take(4).collect();
    // In UTC all of these are the day after.
    assert_eq!(
        texts(&found),
        ["2026-12-24T04:00:00Z", "2026-12-25T04:00:00Z", "2026-12-30T04:00:00Z", "2026-12-31T04:00:00Z"]
    );
    let mut back = vec![at("2026-12-31T05:00:00Z")];
    for _ in 0..4 {
        back.push(timetable.previous_before(*back.last().unwrap()).unwrap());
    }
    assert_eq!(back[1..].iter().rev().copied().collect::<Vec<_>>(), found);
}

#[test]
fn an_interval_agrees_with_itself_whoever_asks() {
    let timetable = Schedule::new("a", "@every 90s", "act").timetable("").unwrap();
    let found: Vec<_> = timetable.upcoming(at("1970-01-01T00:01:00Z")).take(2).collect();
    assert_eq!(texts(&found), ["1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"]);
    assert_eq!(timetable.previous_before(found[1]), Some(found[0]));
    assert_eq!(timetable.next_after(found[0]), Some(found[1]));
}

#[test]
fn what_cannot_be_used_is_named() {
    let schedule = || Schedule::new("a", "@hourly", "act");
    let mut keep = schedule();
    keep.keep = 0;
    let mut late = schedule();
    late.misfire_after = Duration::from_hours(2);
    for (schedule, text) in [
        (
            Schedule::new("", "@hourly", "act"),
            "`name` of schedule `` must be 1 to 200 bytes without control characters",
        ),
        (
            Schedule::new("a", "@hourly", ""),
            "`action` of schedule `a` must be 1 to 200 bytes without control characters",
        ),
        (
            Schedule::new("a", "0 25 * * *", "act"),
            "`when` of schedule `a`: hour field, at 2: `25` is not 0 to 23",
        ),
        (
            Schedule::new("a", "@every 0s", "act"),
            "`when` of schedule `a` `@every` takes whole seconds, from 1s to 366 days",
        ),
        (schedule().zone("Mars/Base"), "schedule `a`: there is no time zone `Mars/Base`"),
        (
            schedule().calendar(Calendar::default().without("13-01")),
            "`calendar` of schedule `a` has no date `13-01`; write `2026-12-25`, or `12-25` for every year",
        ),
        (
            schedule().calendar(Calendar::default().without("2026-02-29")),
            "`calendar` of schedule `a` has no date `2026-02-29`; write `2026-12-25`, or `12-25` for every year",
        ),
        (
            schedule().misfire(Misfire::All { up_to: 0 }),
            "`misfire` of schedule `a` must make up for 1 to 1000 ticks",
        ),
        (
            schedule().overlap(Overlap::Wait { up_to: 0 }),
            "`overlap` of schedule `a` must let 1 to 1000 ticks wait",
        ),
        (schedule().attempts(0), "`attempts` of schedule `a` must be 1 to 100"),
        (schedule().jitter(Duration::from_hours(25)), "`jitter` of schedule `a` must be at most a day"),
        (
            schedule().payload(json!("x".repeat(1 << 18))),
            "`payload` of schedule `a` must have at most 256 KiB as JSON",
        ),
        (keep, "`keep` of schedule `a` must be 1 to 10000"),
        (late, "`misfire_after` of schedule `a` must be 1s to 1h"),
    ] {
        let error: CronError = schedule.check("").unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let every: Calendar =
        serde_json::from_value(json!({ "days": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"] })).unwrap();
    assert!(schedule().calendar(every).check("").unwrap_err().to_string().ends_with("leaves out every day"));
}

#[test]
fn a_schedule_is_read_from_little_and_written_back_whole() {
    let schedule: Schedule = serde_json::from_value(json!({
        "name": "a", "when": "*/5 * * * *", "zone": "Europe/Paris", "misfire": { "all": { "up_to": 3 } },
        "overlap": "allow", "dialect": { "fixed": { "gap": "fire_after" } }, "jitter": "10s",
    }))
    .unwrap();
    assert_eq!((schedule.action.as_str(), schedule.attempts, schedule.keep), ("job", 3, 100));
    assert_eq!(schedule.misfire, Misfire::All { up_to: 3 });
    let text = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    assert!(serde_json::from_value::<Schedule>(json!({ "name": "a", "when": "@daily", "wen": 1 })).is_err());
}
