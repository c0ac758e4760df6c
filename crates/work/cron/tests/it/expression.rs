//! What is refused and how, `H`, and the edges of the calendar.

use proptest::prelude::*;
use runtime_cron::{CronExpression, Dialect, DstGap, DstOverlap, Field, Problem, Zone};
use runtime_kernel::Timestamp;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn an_error_names_field_place_and_reason() {
    for (text, field, position, message) in [
        ("60 * * * *", Some(Field::Minute), 0, "minute field, at 0: `60` is not 0 to 59"),
        ("* 24 * * *", Some(Field::Hour), 2, "hour field, at 2: `24` is not 0 to 23"),
        ("*  5-  * * *", Some(Field::Hour), 5, "hour field, at 5: a value is missing"),
        ("* * 3,x * *", Some(Field::DayOfMonth), 6, "day of month field, at 6: `x` means nothing here"),
        ("* * 3-1 * *", Some(Field::DayOfMonth), 4, "day of month field, at 4: `3-1` ends before it begins"),
        ("* * * */0 *", Some(Field::Month), 6, "month field, at 6: `*/0` has a step of zero"),
        (
            "5/15 * * * *",
            Some(Field::Minute),
            0,
            "minute field, at 0: `5/15` has a step but no range; write `*/n` or `a-b/n`",
        ),
        (
            "* * 1-5W * *",
            Some(Field::DayOfMonth),
            4,
            "day of month field, at 4: `1-5W`: `W` belongs to one day, not to a range or a step",
        ),
        ("* * * * MON#6", Some(Field::DayOfWeek), 12, "day of week field, at 12: `6` is not 1 to 5"),
        (
            "H * * * *",
            Some(Field::Minute),
            0,
            "minute field, at 0: `H` is hashed from the schedule's name, and there is none",
        ),
        ("0 0 0 1 1 * 1969", Some(Field::Year), 12, "year field, at 12: `1969` is not 1970 to 9999"),
        (" 0 0 31 2 *", Some(Field::DayOfMonth), 5, "day of month field, at 5: `31 2 *` never happens"),
        ("* * * *", None, 0, "at 0: 5, 6 or 7 fields are needed, not 4"),
        ("", None, 0, "at 0: 5, 6 or 7 fields are needed, not 0"),
        ("@reboot", None, 0, "at 0: `@reboot` names no time"),
        ("@nightly", None, 0, "at 0: `@nightly` is not a nickname"),
        ("* * * * é", Some(Field::DayOfWeek), 8, "day of week field, at 8: `é` means nothing here"),
    ] {
        let error = CronExpression::parse(text).unwrap_err();
        assert_eq!((error.field, error.position), (field, position), "{text}");
        assert_eq!(error.to_string(), message, "{text}");
    }
    let long = format!("{} * * * *", "1,".repeat(300));
    assert_eq!(CronExpression::parse(&long).unwrap_err().problem, Problem::TooLong);
}

#[test]
fn what_can_never_happen_is_refused() {
    for text in [
        "0 0 31 2 *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 L-30 2,4 *",
        "0 0 30W 2 *",
        "0 0 1 * +MON#2",
        "0 0 0 29 2 * 2023",
        "0 0 0 29 2 * 2097-2103",
        "0 0 0 29 2 +MON 2024",
    ] {
        let error = CronExpression::parse(text).unwrap_err();
        assert_eq!(error.problem, Problem::Impossible, "{text}");
    }
    for (text, next) in [
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("0 0 29 2 +MON", "2044-02-29T00:00:00Z"),
        ("0 0 * 2 MON#5", "2044-02-29T00:00:00Z"),
        ("0 0 0 29 2 * 2098-2104", "2104-02-29T00:00:00Z"),
        ("0 0 0 1 1 * 9999", "9999-01-01T00:00:00Z"),
    ] {
        let expression = CronExpression::parse(text).unwrap();
        assert_eq!(expression.next_after(at("2026-01-01T00:00:00Z"), &Zone::utc()), Some(at(next)), "{text}");
    }
}

#[test]
fn a_list_of_years_ends_and_begins() {
    let expression = CronExpression::parse("0 0 0 1 1 * 2024,2026-2030/2").unwrap();
    let zone = Zone::utc();
    let all: Vec<_> =
        expression.upcoming(at("1900-01-01T00:00:00Z"), &zone).map(|at| at.to_string()).collect();
    assert_eq!(
        all,
        ["2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]
    );
    assert_eq!(expression.previous_before(at("2024-01-01T00:00:00Z"), &zone), None);
    assert_eq!(
        expression.previous_before(at("9000-01-01T00:00:00Z"), &zone),
        Some(at("2030-01-01T00:00:00Z"))
    );
}

#[test]
fn a_second_is_found_however_small_the_fraction_before_it() {
    let every = CronExpression::parse("* * * * * *").unwrap();
    let zone = Zone::get("America/New_York").unwrap();
    for (from, next, previous) in [
        ("2026-03-08T06:59:59Z", "2026-03-08T07:00:00Z", "2026-03-08T06:59:58Z"),
        ("2026-03-08T06:59:59.000001Z", "2026-03-08T07:00:00Z", "2026-03-08T06:59:59Z"),
        ("1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z"),
    ] {
        assert_eq!(every.next_after(at(from), &zone), Some(at(next)), "{from}");
        assert_eq!(every.previous_before(at(from), &zone), Some(at(previous)), "{from}");
    }
}

#[test]
fn each_policy_has_its_say_when_clocks_change() {
    // New York: 2026-03-08 02:00 becomes 03:00 (07:00Z); 2026-11-01 02:00 becomes 01:00 (06:00Z).
    let zone = Zone::get("America/New_York").unwrap();
    for (gap, expected) in [
        (DstGap::Skip, "2026-03-09T06:30:00Z"),
        (DstGap::FireAfter, "2026-03-08T07:00:00Z"),
        (DstGap::FireBefore, "2026-03-08T06:59:59Z"),
    ] {
        let daily = CronExpression::parse_with("30 2 * * *", Dialect::OCPS.gap(gap), None).unwrap();
        assert_eq!(daily.next_after(at("2026-03-08T00:00:00Z"), &zone), Some(at(expected)), "{gap:?}");
        let jumped = at(expected);
        assert_eq!(
            daily.previous_before(Timestamp::from_microsecond(jumped.as_microsecond() + 1).unwrap(), &zone),
            Some(jumped)
        );
    }
    for (overlap, expected) in [
        (DstOverlap::First, &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"][..]),
        (DstOverlap::Both, &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"]),
        (DstOverlap::Last, &["2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"]),
    ] {
        let daily = CronExpression::parse_with("30 1 * * *", Dialect::OCPS.overlap(overlap), None).unwrap();
        let found: Vec<_> = daily.upcoming(at("2026-11-01T00:00:00Z"), &zone).take(expected.len()).collect();
        let expected: Vec<_> = expected.iter().map(|text| at(text)).collect();
        assert_eq!(found, expected, "{overlap:?}");
    }
    // An interval follows elapsed time unless told.
    let quarter = CronExpression::parse("*/30 * * * *").unwrap();
    let found: Vec<_> =
        quarter.upcoming(at("2026-11-01T05:00:00Z"), &zone).take(4).map(|at| at.to_string()).collect();
    assert_eq!(
        found,
        ["2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:00:00Z"]
    );
}

#[test]
fn the_day_samoa_left_out_is_skipped_at_once() {
    // 2011-12-30 did not happen in Apia.
    let zone = Zone::get("Pacific/Apia").unwrap();
    let every = CronExpression::parse("* * 30 12 *").unwrap();
    let next = every.next_after(at("2011-12-29T00:00:00Z"), &zone).unwrap();
    assert_eq!(next, at("2012-12-29T10:00:00Z"));
    let after = Dialect::OCPS.gap(DstGap::FireAfter);
    let noon = CronExpression::parse_with("0 12 30 12 *", after, None).unwrap();
    assert_eq!(noon.next_after(at("2011-12-29T00:00:00Z"), &zone), Some(at("2011-12-30T10:00:00Z")));
}

#[test]
fn hashed_fields_spread_and_stay() {
    let parse = |text: &str, name: &str| CronExpression::parse_with(text, Dialect::OCPS, Some(name)).unwrap();
    let zone = Zone::utc();
    let first =
        |text: &str, name: &str| parse(text, name).next_after(at("2025-12-31T23:59:59Z"), &zone).unwrap();
    // A stored schedule keeps its minute through every release.
    assert_eq!(first("H H * * *", "report"), first("H H * * *", "report"));
    let minutes: std::collections::BTreeSet<_> =
        (0..200).map(|n| first("H H * * *", &format!("job-{n}"))).collect();
    assert!(minutes.len() > 180, "only {} different times", minutes.len());
    for n in 0..100 {
        let times: Vec<_> = parse("H(10-20)/5 * * * *", &format!("job-{n}"))
            .upcoming(at("2026-01-01T00:00:00Z"), &zone)
            .take(2)
            .collect();
        let minute = |at: Timestamp| at.as_microsecond() / 60_000_000 % 60;
        assert!(
            (10..15).contains(&minute(times[0])) && minute(times[1]) - minute(times[0]) == 5,
            "{times:?}"
        );
        assert!(first("0 0 H * *", &format!("job-{n}")) < at("2026-01-29T00:00:00Z"));
    }
    assert!(CronExpression::parse_with("H(5-2) * * * *", Dialect::OCPS, Some("a")).is_err());
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in "[0-9*/,LW#H()?+ -@a-zé\t]{0,40}") {
        let _ = CronExpression::parse_with(&text, Dialect::CRONOS, Some("x"));
        let _ = CronExpression::parse(&text);
    }

    #[test]
    fn whatever_is_taken_moves_on(text in "([0-9*/,LW#H-]{1,5} ){4,6}[0-9*/,LW#H-]{1,5}", start in -10_000_000_000i64..100_000_000_000) {
        if let Ok(expression) = CronExpression::parse_with(&text, Dialect::CRONOS, Some("x")) {
            let zone = Zone::get("Europe/Dublin").unwrap();
            let from = Timestamp::from_microsecond(start * 1_000_000).unwrap();
            let mut last = from;
            for found in expression.upcoming(from, &zone).take(20) {
                prop_assert!(found > last);
                prop_assert_eq!(expression.previous_before(Timestamp::from_microsecond(found.as_microsecond() + 1).unwrap(), &zone), Some(found));
                last = found;
            }
        }
    }
}
