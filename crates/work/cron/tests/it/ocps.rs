//! The Open Cron Pattern Specification 1.0 to 1.4, as Hexagon/croner (MIT) tests it in test/ocps-1.*.test.ts,
//! re-expressed as tables. Two rows differ and say why.

use runtime_cron::{CronExpression, DayRule, Dialect, Problem, Zone};
use runtime_kernel::Timestamp;

/// Times after the start of 2025, in UTC.
fn times(text: &str, count: usize) -> Vec<String> {
    let expression = CronExpression::parse(text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    let start: Timestamp = "2024-12-31T23:59:59Z".parse().unwrap();
    expression.upcoming(start, &Zone::utc()).take(count).map(|at| at.to_string()).collect()
}

#[test]
fn accepted() {
    for (text, first) in [
        // 1.0
        ("0 0 * * *", "2025-01-01T00:00:00Z"),
        ("  0 0 * * *  ", "2025-01-01T00:00:00Z"),
        ("0  0   *    *     *", "2025-01-01T00:00:00Z"),
        ("0\t0\t*\t*\t*", "2025-01-01T00:00:00Z"),
        ("0,30,59 * * * *", "2025-01-01T00:00:00Z"),
        ("0 0,12,23 * * *", "2025-01-01T00:00:00Z"),
        ("0 0 31 * *", "2025-01-31T00:00:00Z"),
        ("0 0 1 6,12 *", "2025-06-01T00:00:00Z"),
        ("0 0 * * 0", "2025-01-05T00:00:00Z"),
        ("0 0 * * 7", "2025-01-05T00:00:00Z"),
        ("0 0 1 DEC *", "2025-12-01T00:00:00Z"),
        ("0 0 1 dec *", "2025-12-01T00:00:00Z"),
        ("0 0 * * SAT", "2025-01-04T00:00:00Z"),
        ("0 0 * * sat", "2025-01-04T00:00:00Z"),
        ("0 9-17 * * *", "2025-01-01T09:00:00Z"),
        ("0 10-12,20 * * *", "2025-01-01T10:00:00Z"),
        ("5 10-20/2 * * *", "2025-01-01T10:05:00Z"),
        // 1.1
        ("@yearly", "2025-01-01T00:00:00Z"),
        ("@ANNUALLY", "2025-01-01T00:00:00Z"),
        ("@Monthly", "2025-01-01T00:00:00Z"),
        ("@weekly", "2025-01-05T00:00:00Z"),
        ("@daily", "2025-01-01T00:00:00Z"),
        ("@midnight", "2025-01-01T00:00:00Z"),
        ("  @hourly  ", "2025-01-01T00:00:00Z"),
        // 1.2
        ("30 0 0 * * *", "2025-01-01T00:00:30Z"),
        ("*/15 5 * * * *", "2025-01-01T00:05:00Z"),
        ("0 0 0 1 1 * 2030", "2030-01-01T00:00:00Z"),
        ("0 0 0 1 1 * 2026-2030/2", "2026-01-01T00:00:00Z"),
        // `*/2` begins at the lower bound, which is even.
        ("0 0 0 1 2 * */2", "2026-02-01T00:00:00Z"),
        // 1.3
        ("0 0 L * *", "2025-01-31T00:00:00Z"),
        ("0 0 L 2 *", "2025-02-28T00:00:00Z"),
        ("0 0 * * FRI#L", "2025-01-31T00:00:00Z"),
        ("0 0 * * 5L", "2025-01-31T00:00:00Z"),
        ("0 0 * * TUE#2", "2025-01-14T00:00:00Z"),
        ("0 0 * * 0#1", "2025-01-05T00:00:00Z"),
        ("0 0 * * MON#5", "2025-03-31T00:00:00Z"),
        ("0 12 15W * *", "2025-01-15T12:00:00Z"),
        ("0 12 18W 1 *", "2025-01-17T12:00:00Z"),
        ("0 12 19W 1 *", "2025-01-20T12:00:00Z"),
        ("0 12 1W 3 *", "2025-03-03T12:00:00Z"),
        ("0 12 31W 8 *", "2025-08-29T12:00:00Z"),
        ("0 0 L 2 FRI#L", "2025-02-28T00:00:00Z"),
        // 1.4
        ("0 12 1 * +MON", "2025-09-01T12:00:00Z"),
        ("0 12 15 * +5", "2025-08-15T12:00:00Z"),
        ("0 12 1 2 +MON-FRI", "2027-02-01T12:00:00Z"),
        ("0 12 1 * +MON#1", "2025-09-01T12:00:00Z"),
        ("0 0 12 15 * +FRI 2026", "2026-05-15T12:00:00Z"),
        ("0 0 ? * MON", "2025-01-06T00:00:00Z"),
        ("0 0 5 * ?", "2025-01-05T00:00:00Z"),
        ("0 0 0 1 1 * 9999", "9999-01-01T00:00:00Z"),
    ] {
        assert_eq!(times(text, 1), [first], "`{text}`");
    }
}

#[test]
fn refused() {
    for text in [
        "60 * * * *",
        "0 24 * * *",
        "0 0 32 * *",
        "0 0 1 13 *",
        "0 0 * * 8",
        "0 17-9 * * *",
        "0 */0 * * *",
        "/30 * * * *",
        "0/15 * * * *",
        "10/10 * * * *",
        "0 0 * * MON-",
        "@reboot",
        "@unknown",
        "@hourly * * * *",
        "0 0 l * *",
        "0 0 15w * *",
        "0 0 * * 5l",
        "0 12 10-15W * *",
        "0 0 * * MON#0",
        "0 0 * * MON#6",
        "0 +12 * * *",
        "0 12 1 * +",
        "0 12 1 * MON,+TUE",
        "? * * * *",
        "0 ? * * *",
        "0 0 * ? *",
        "0 0 0 1 1 * 0",
        "0 0 0 1 1 * 10000",
        "0 0 * * * * * *",
        "0 0 * * $",
    ] {
        assert!(CronExpression::parse(text).is_err(), "`{text}`");
    }
}

#[test]
fn where_we_differ() {
    // OCPS 1.0, section 6.2, would have an impossible date parse and then never happen. A schedule that silently never
    // runs helps nobody, so it is refused, and says so.
    assert_eq!(CronExpression::parse("0 0 31 2 *").unwrap_err().problem, Problem::Impossible);
    // croner takes the year 1; ours begin in 1970, the portable range.
    assert!(CronExpression::parse("0 0 0 1 1 * 1").is_err());
}

#[test]
fn sequences() {
    assert_eq!(
        times("0 0-20/5 * * *", 5),
        [
            "2025-01-01T00:00:00Z",
            "2025-01-01T05:00:00Z",
            "2025-01-01T10:00:00Z",
            "2025-01-01T15:00:00Z",
            "2025-01-01T20:00:00Z"
        ]
    );
    // Either day is enough.
    assert_eq!(
        times("0 12 1 * MON", 6),
        [
            "2025-01-01T12:00:00Z",
            "2025-01-06T12:00:00Z",
            "2025-01-13T12:00:00Z",
            "2025-01-20T12:00:00Z",
            "2025-01-27T12:00:00Z",
            "2025-02-01T12:00:00Z"
        ]
    );
    let mut both = Dialect::OCPS;
    both.days = DayRule::Both;
    let expression = CronExpression::parse_with("0 12 1 * MON", both, None).unwrap();
    let start = "2025-01-01T00:00:00Z".parse().unwrap();
    let found: Vec<_> = expression.upcoming(start, &Zone::utc()).take(2).map(|at| at.to_string()).collect();
    assert_eq!(found, ["2025-09-01T12:00:00Z", "2025-12-01T12:00:00Z"]);
}

#[test]
fn clocks_that_change() {
    let zone = Zone::get("America/New_York").unwrap();
    let next = |text: &str, from: &str| {
        CronExpression::parse(text).unwrap().next_after(from.parse().unwrap(), &zone).unwrap().to_string()
    };
    // Jumped over: not at all.
    assert_eq!(next("0 30 2 12 3 *", "2023-03-12T00:00:00Z"), "2024-03-12T06:30:00Z");
    // Twice: the first time only.
    assert_eq!(next("0 30 1 5 11 *", "2023-11-05T04:00:00Z"), "2023-11-05T05:30:00Z");
    assert_eq!(next("0 30 1 5 11 *", "2023-11-05T05:30:00Z"), "2024-11-05T06:30:00Z");
}
