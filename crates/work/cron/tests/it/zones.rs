//! `croner` and this engine over all zones, 2020 to 2040, where clocks change above all.
//!
//! Where the two differ on purpose, the difference is a row of [`DIFFERENCES`], shown by an example, and the engine is told
//! to do as croner does. `RUNTIME_CRON_DIFFERENTIAL_CASES` widens it, `RUNTIME_CRON_SEED` makes it another run.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use runtime_cron::{CronExpression, Dialect, Dst, DstGap, DstOverlap, Zone};

use super::differential::{croner, expressions};
use super::oracle::seconds;

struct Difference {
    what: &'static str,
    expression: &'static str,
    zone: &'static str,
    after: &'static str,
    /// The next two times of this engine, as OCPS has it.
    ours: [&'static str; 2],
    theirs: [&'static str; 2],
}

const DIFFERENCES: [Difference; 3] = [
    Difference {
        what: "a time of day that is jumped over: OCPS 1.4 skips it, croner has it right after the gap",
        expression: "0 30 2 * * *",
        zone: "Europe/Berlin",
        after: "2026-03-28T12:00:00Z",
        ours: ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"],
        theirs: ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    },
    Difference {
        what: "a time of day: for croner one second, minute and hour; here whatever has no star",
        expression: "0 0,30 2 * * *",
        zone: "Europe/Berlin",
        after: "2026-10-25T00:15:00Z",
        ours: ["2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"],
        theirs: ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"],
    },
    Difference {
        what: "a gap that ends on a day the expression does not name: croner has nothing after it",
        expression: "0 30 23 * * SAT",
        zone: "America/Nuuk",
        after: "2024-03-30T12:00:00Z",
        ours: ["2024-04-07T00:30:00Z", "2024-04-14T00:30:00Z"],
        theirs: ["2024-04-07T00:30:00Z", "2024-04-14T00:30:00Z"],
    },
];

/// The next times of this engine, more than are ever compared.
fn ours_after(expression: &CronExpression, after: i64, zone: &Zone) -> Vec<i64> {
    let after = runtime_kernel::Timestamp::from_microsecond(after * 1_000_000).unwrap();
    expression.upcoming(after, zone).take(12).map(seconds).collect()
}

#[test]
fn each_difference_is_as_it_is_written_down() {
    for row in DIFFERENCES {
        let read = |texts: [&str; 2]| texts.map(|text| text.parse::<Timestamp>().unwrap().as_second());
        let after: Timestamp = row.after.parse().unwrap();
        let expression = CronExpression::parse(row.expression).unwrap();
        let found = ours_after(&expression, after.as_second(), &Zone::get(row.zone).unwrap());
        assert_eq!(found[..2], read(row.ours), "ours: {}", row.what);
        let theirs = croner(row.expression).unwrap();
        let mut at = after.to_zoned(TimeZone::get(row.zone).unwrap());
        for expected in read(row.theirs) {
            at = theirs.find_next_occurrence(&at, false).unwrap();
            assert_eq!(at.timestamp().as_second(), expected, "croner's: {}", row.what);
        }
    }
    // And told to fire after the gap, this engine does so whatever day it is.
    let expression =
        CronExpression::parse_with(DIFFERENCES[2].expression, Dialect::OCPS.gap(DstGap::FireAfter), None);
    let after: Timestamp = DIFFERENCES[2].after.parse().unwrap();
    let nuuk = Zone::get(DIFFERENCES[2].zone).unwrap();
    let first = ours_after(&expression.unwrap(), after.as_second(), &nuuk)[0];
    assert_eq!(Timestamp::from_second(first).unwrap().to_string(), "2024-03-31T01:00:00Z");
}

/// Whether croner takes an expression for a time of day.
fn is_time_of_day(text: &str) -> bool {
    text.split(' ').take(3).all(|field| {
        let mut steps = field.split(',').rev().filter_map(|item| item.split_once('/')).map(|(_, step)| step);
        let values = field.split(',').map(|item| {
            let (range, _) = item.split_once('/').unwrap_or((item, "1"));
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            (from == to).then_some(from)
        });
        let values: std::collections::HashSet<_> = values.collect();
        !field.contains('*')
            && steps.next().is_none_or(|step| step == "1")
            && values.len() == 1
            && !values.contains(&None)
    })
}

/// Whether a time stands right after a gap that ends on a day the expression does not name.
fn has_no_day(text: &str, at: i64, zone: &TimeZone) -> bool {
    let wall = |second: i64| zone.to_datetime(Timestamp::from_second(second).unwrap());
    if wall(at).duration_since(wall(at - 1)).as_secs() <= 1 {
        return false;
    }
    let days: Vec<_> = text.split(' ').skip(3).collect();
    let every_second = CronExpression::parse(&format!("* * * {}", days.join(" "))).unwrap();
    let midnight = wall(at).date().to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    ours_after(&every_second, midnight - 1, &Zone::utc()).first() != Some(&midnight)
}

#[test]
fn croner_finds_the_same_times_in_every_zone() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let cases = number("RUNTIME_CRON_DIFFERENTIAL_CASES").unwrap_or(800);
    let seed = number("RUNTIME_CRON_SEED").unwrap_or(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let strategy =
        (expressions(), 0..names.len(), 1_577_836_800_i64..2_208_988_800, 0..4_u8, -7_200..7_200_i64);
    let (mut compared, mut over_changes) = (0_u64, 0_u64);
    for case in 0..cases {
        let (text, index, start, aim, shift) = strategy.new_tree(&mut runner).unwrap().current();
        // Each zone has its turn, and three of four runs begin about a change of its clock.
        let name = &names[(index + usize::try_from(case).unwrap()) % names.len()];
        let (zone, iana) = (Zone::get(name).unwrap(), TimeZone::get(name).unwrap());
        let change = iana.following(Timestamp::from_second(start).unwrap()).next();
        let change = change.filter(|_| aim > 0).map(|change| change.timestamp().as_second());
        let start = change.map_or(start, |change| change + shift);
        let elapsed = Dst { gap: DstGap::Skip, overlap: DstOverlap::Both };
        let of_day = Dst { gap: DstGap::FireAfter, overlap: DstOverlap::First };
        let dst = if is_time_of_day(&text) { of_day } else { elapsed };
        let mut dialect = Dialect::OCPS;
        (dialect.fixed, dialect.interval) = (dst, dst);
        let (Some(theirs), Ok(ours)) = (croner(&text), CronExpression::parse_with(&text, dialect, None))
        else {
            continue;
        };
        let mut at = Timestamp::from_second(start).unwrap().to_zoned(iana.clone());
        let expected = ours_after(&ours, start, &zone).into_iter();
        for found in expected.filter(|found| !has_no_day(&text, *found, &iana)).take(6) {
            // croner gives up where we go on.
            let Ok(next) = theirs.find_next_occurrence(&at, false) else { break };
            let told = format!("case {case}, seed {seed}: `{text}` in {name} after {at}");
            assert_eq!(Timestamp::from_second(found).unwrap(), next.timestamp(), "{told}");
            compared += 1;
            over_changes += u64::from(at.offset() != next.offset());
            at = next;
        }
    }
    println!(
        "seed {seed}: {cases} runs, {compared} times compared, {over_changes} of them over a change of the clock"
    );
    assert!(compared > cases && over_changes > cases / 20, "{compared}, {over_changes}");
}
