//! Every minute of 2020 to 2040, of every zone of the database: `cargo xtask soak cron`. A sample of it runs here.
//!
//! The oracle walks the instants a month at a time, asks the zone what the wall shows at each minute, and looks the minute
//! up in tables made from the text of the fields. Forth and back, the engine has to find the same instants and no others.

use std::collections::HashMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use runtime_cron::{CronExpression, DayRule, Dialect, Dst, DstGap, DstOverlap, Zone};

use super::oracle::{day_matches, dialects, expressions, field_has, seconds};

/// No clock is put back or forth by more than this, in minutes.
const MARGIN: usize = 3 * 60;

/// An expression as tables, a day at a time.
struct Tables<'e> {
    fields: &'e [String; 5],
    rule: DayRule,
    minutes: [bool; 60],
    hours: [bool; 24],
    days: HashMap<i64, bool>,
}

impl<'e> Tables<'e> {
    fn new(fields: &'e [String; 5], rule: DayRule) -> Self {
        let minutes =
            std::array::from_fn(|minute| field_has(&fields[0], 0, 59, u32::try_from(minute).unwrap()));
        let hours = std::array::from_fn(|hour| field_has(&fields[1], 0, 23, u32::try_from(hour).unwrap()));
        Self { fields, rule, minutes, hours, days: HashMap::new() }
    }

    /// Whether it names a minute of the wall, counted from 1970.
    fn has(&mut self, wall: i64) -> bool {
        let of_day = usize::try_from(wall.rem_euclid(24 * 60)).unwrap();
        self.minutes[of_day % 60] && self.hours[of_day / 60] && {
            let (fields, rule, day) = (self.fields, self.rule, wall.div_euclid(24 * 60));
            *self.days.entry(day).or_insert_with(|| {
                let date = Date::new(1970, 1, 1).unwrap() + day.days();
                day_matches(fields, rule, date)
            })
        }
    }
}

/// The instants, in seconds, that are due from one minute to before another.
fn due(tables: &mut Tables<'_>, dst: Dst, zone: &TimeZone, from: i64, to: i64) -> Vec<i64> {
    let margin = i64::try_from(MARGIN).unwrap();
    let shown = |minute: i64| {
        let offset = zone.to_offset(Timestamp::from_second(minute * 60).unwrap()).seconds();
        assert_eq!(offset % 60, 0, "the walls of these years show whole minutes");
        minute + i64::from(offset / 60)
    };
    let walls: Vec<i64> = (from - margin..to + margin).map(shown).collect();
    let mut found: Vec<i64> = Vec::new();
    for (index, at) in (MARGIN..).zip(from..to) {
        let (here, before) = (walls[index], walls[index - 1]);
        let mut push = |second: i64| {
            if found.last() != Some(&second) {
                found.push(second);
            }
        };
        if here - before > 1 && (before + 1..here).any(|missing| tables.has(missing)) {
            match dst.gap {
                DstGap::Skip => {}
                DstGap::FireAfter => push(at * 60),
                DstGap::FireBefore => push(at * 60 - 1),
            }
        }
        if tables.has(here) {
            let keep = match dst.overlap {
                DstOverlap::Both => true,
                DstOverlap::First => !walls[index - MARGIN..index].contains(&here),
                DstOverlap::Last => !walls[index + 1..index + MARGIN].contains(&here),
            };
            if keep {
                push(at * 60);
            }
        }
    }
    found
}

/// What was looked at.
#[derive(Debug, Default)]
struct Covered {
    zones: u64,
    minutes: u64,
    times: u64,
}

/// Compares an expression with the oracle in one zone, from the first of a year to the first of another.
fn compare(
    fields: &[String; 5],
    (dialect, dst): (Dialect, Dst),
    name: &str,
    (from, to): (i16, i16),
    covered: &mut Covered,
) {
    let text = fields.join(" ");
    let Ok(expression) = CronExpression::parse_with(&text, dialect, None) else { return };
    let (zone, iana) = (Zone::get(name).unwrap(), TimeZone::get(name).unwrap());
    let at = |second: i64| runtime_kernel::Timestamp::from_microsecond(second * 1_000_000).unwrap();
    let minute = |date: Date| date.to_zoned(TimeZone::UTC).unwrap().timestamp().as_second() / 60;
    let mut tables = Tables::new(fields, dialect.days);
    let mut month = Date::new(from, 1, 1).unwrap();
    let mut forth = expression.upcoming(at(minute(month) * 60 - 2), &zone).map(seconds);
    let mut next = forth.next();
    while month.year() < to {
        let (begin, end) = (minute(month), minute(month + 1.month()));
        let due = due(&mut tables, dst, &iana, begin, end);
        for expected in &due {
            assert_eq!(next, Some(*expected), "`{text}` in {name} {dialect:?}, forth in {month}");
            next = forth.next();
        }
        // A second before the month's end may be due because of the minute after it.
        let late = end * 60 - 1;
        assert!(
            next.is_none_or(|next| next >= late),
            "`{text}` in {name} {dialect:?}: {next:?} is too many in {month}"
        );
        let mut until = at(late);
        for expected in due.iter().rev().filter(|due| **due < late) {
            let found = expression.previous_before(until, &zone);
            assert_eq!(
                found.map(seconds),
                Some(*expected),
                "`{text}` in {name} {dialect:?}, back in {month}"
            );
            until = at(*expected);
        }
        let left = expression.previous_before(until, &zone).map(seconds);
        assert!(
            left.is_none_or(|left| left < begin * 60),
            "`{text}` in {name} {dialect:?}: {left:?} back in {month}"
        );
        covered.minutes += u64::try_from(end - begin).unwrap();
        covered.times += u64::try_from(due.len()).unwrap();
        month += 1.month();
    }
    covered.zones += 1;
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn every_minute_of_twenty_years_agrees() {
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    // Rounds through all zones, twenty years of each; else a year of some.
    let rounds = number("RUNTIME_CRON_SOAK_ROUNDS");
    let seed = number("RUNTIME_CRON_SEED").unwrap_or(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = (expressions(), dialects(), 0..names.len(), 2020..2040_i16);
    let mut covered = Covered::default();
    let cases = rounds.map_or(12, |rounds| usize::try_from(rounds).unwrap() * names.len());
    for case in 0..cases {
        let (fields, dialect, zone, year) = strategy.new_tree(&mut runner).unwrap().current();
        let (zone, years) = if rounds.is_some() { (case, (2020, 2040)) } else { (zone, (year, year + 1)) };
        compare(&fields, dialect, &names[zone % names.len()], years, &mut covered);
        if rounds.is_some() && case % 50 == 49 {
            println!("seed {seed}: {covered:?}");
        }
    }
    println!("seed {seed}: {covered:?}");
    assert!(covered.times > 0, "{covered:?}");
}

#[test]
fn the_oracle_finds_a_wrong_engine_out() {
    // The engine is told another policy than the oracle: each must be noticed in a zone that changes its clock.
    let fields = ["*/15", "0-3", "*", "*", "*"].map(str::to_owned);
    let right = Dst { gap: DstGap::Skip, overlap: DstOverlap::First };
    for wrong in [
        Dst { gap: DstGap::FireAfter, ..right },
        Dst { gap: DstGap::FireBefore, ..right },
        Dst { overlap: DstOverlap::Both, ..right },
        Dst { overlap: DstOverlap::Last, ..right },
    ] {
        let mut dialect = Dialect::OCPS;
        (dialect.fixed, dialect.interval) = (wrong, wrong);
        let compare =
            || compare(&fields, (dialect, right), "Europe/Berlin", (2026, 2027), &mut Covered::default());
        // In this zone a quarter past three is there anyway: what fires after the gap is no other instant.
        let noticed = std::panic::catch_unwind(compare).is_err();
        assert_eq!(noticed, wrong.gap != DstGap::FireAfter, "{wrong:?}");
    }
}
